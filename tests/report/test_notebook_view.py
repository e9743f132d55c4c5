"""A fitted model in a notebook: true, alone, escaped, and nothing of it in files or pickles."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits

import narrows
from narrows import Autoencoder, ConditionalVAE
from narrows.estimators import notebook
from narrows.report import figures, measured_rows
from narrows.report.formatting import significant

DIGITS = load_digits()
X, Y = DIGITS.images[:120], DIGITS.target[:120]
TABLE = np.random.default_rng(0).normal(size=(60, 5))
SMALL: dict[str, Any] = {"latent_dim": 2, "max_epochs": 1, "random_state": 0}
NO_ROWS = "No rows are shown"


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture(scope="module")
def est() -> Autoencoder:
    return Autoencoder(**SMALL).fit(X)


def html(model: Any) -> str:
    """What a notebook shows; a failure would show scikit-learn's view alone."""
    shown: str = model._repr_mimebundle_()["text/html"]
    assert "Parts of the equation" in shown
    assert "Parts of the equation" in model._repr_html_()
    return shown


def test_it_shows_the_errors_and_a_picture(est: Autoencoder) -> None:
    shown, errors = html(est), est.validation_errors_
    error, pca = errors["validation_error"], errors["validation_error_pca"]
    assert error is not None
    assert pca is not None
    words = [significant(number) for number in (error, pca, error / pca)]
    assert "fitted on 108 rows in" in shown
    assert f"on 12 rows held out for validation: {words[0]}" in shown
    assert f"PCA&#39;s of the same width: {words[1]}, {words[2]} × PCA" in shown
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        picture.load()
        assert picture.width > 100
    assert 'alt="6 of 12 validation rows' in shown
    assert NO_ROWS not in shown
    own = shown[: shown.index("<summary>Parameters")]  # scikit-learn's part follows
    assert not re.search(r"https?:|url\(|<script|<link|<iframe|@import", own)


def test_the_parameters_of_scikit_learn_are_a_part_of_it(est: Autoencoder) -> None:
    unfitted = clone(est)
    assert "Parts of the equation" not in unfitted._repr_html_()
    for shown in (html(est), unfitted._repr_html_()):
        assert "sk-top-container" in shown
        assert "max_epochs" in shown
    with sklearn.config_context(display="text"):
        assert not hasattr(est, "_repr_html_")
        assert list(est._repr_mimebundle_()) == ["text/plain"]


def test_the_rows_are_copies_of_validation_rows(est: Autoencoder) -> None:
    rows = est.state_.shown_rows
    assert rows is not None
    assert len(rows) == 6
    held = X[measured_rows(est, X).rows]
    assert all((row == held).all(axis=(1, 2)).any() for row in rows.reshape(-1, 8, 8))
    own = Autoencoder(**SMALL).fit(X, X_val=X[:4])
    assert own.state_.shown_rows is not None
    np.testing.assert_array_equal(own.state_.shown_rows.reshape(-1, 8, 8), X[:4])
    assert not np.shares_memory(own.state_.shown_rows, X)
    assert 'alt="4 of 4 validation rows' in html(own)
    assert "fitted on 120 rows in" in html(own)


def test_files_and_pickles_hold_no_rows(est: Autoencoder, tmp_path: Path) -> None:
    bare = est._with_state(replace(est.state_, shown_rows=None))
    assert len(pickle.dumps(est)) == len(pickle.dumps(bare))
    files = [m.save(tmp_path / f"{i}.safetensors") for i, m in enumerate((est, bare))]
    assert files[0].stat().st_size == files[1].stat().st_size
    carried = [narrows.load(files[0]), pickle.loads(pickle.dumps(est)), copy.deepcopy(est)]
    for model in carried:
        assert model.state_.shown_rows is None
        shown = html(model)
        assert NO_ROWS in shown
        assert "<img" not in shown
        assert "<details open" in shown
        assert "on 12 rows held out for validation: 0." in shown
    assert est.state_.shown_rows is not None
    assert "shown_rows" not in repr(est.state_)


def test_a_later_partial_fit_shows_no_rows_of_the_fit(est: Autoencoder) -> None:
    later = copy.copy(est).partial_fit(X)
    assert later.state_.shown_rows is None
    assert NO_ROWS in html(later)
    assert est.state_.shown_rows is not None


def test_a_failure_shows_the_parameters(est: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> str:
        raise RuntimeError("no font")

    monkeypatch.setattr(notebook, "notebook_html", broken)
    for shown in (est._repr_html_(), est._repr_mimebundle_()["text/html"]):
        assert "Parts of the equation" not in shown
        assert "sk-top-container" in shown


def test_text_is_escaped(est: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    info = est.info() | {"parts": {"f<": "<script>alert(1)</script>"}}
    monkeypatch.setattr(Autoencoder, "info", lambda self: info)
    shown = html(est)
    head = shown[: shown.index("<summary>Parameters")]
    assert "f&lt;" in head
    assert "&lt;script&gt;alert(1)" in head
    assert "<script" not in head


def missing() -> Any:
    rows = TABLE.copy()
    rows[::3, 1] = np.nan
    return Autoencoder(missing="mask", **SMALL).fit(rows)


CASES: dict[str, Any] = {
    "frame": lambda: Autoencoder(**SMALL).set_output(transform="pandas").fit(pd.DataFrame(TABLE)),
    "missing": missing,
    "few rows": lambda: Autoencoder(**SMALL).fit(TABLE[:7]),
    "classes": lambda: ConditionalVAE(**SMALL).fit(X, Y),
    "colour": lambda: Autoencoder(axes="HWC", **SMALL).fit(
        np.random.default_rng(0).integers(0, 255, (30, 5, 6, 3)).astype(np.uint8)
    ),
    "signals": lambda: Autoencoder(axes="CL", **SMALL).fit(np.cumsum(TABLE, axis=1)[:, None]),
    "binary": lambda: Autoencoder(**SMALL).fit(X > 7),
    "read by slices": lambda: Autoencoder(in_memory=False, **SMALL).fit(TABLE),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:latent_dim")
def test_any_data_is_shown(name: str) -> None:
    model = CASES[name]()
    shown = html(model)
    assert "data:image/png" in shown
    assert ("rows it was fitted on" in shown) == (name == "few rows")
