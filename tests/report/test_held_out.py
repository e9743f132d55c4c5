"""A report measures on the rows that the fit held out, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

import narrows
from helpers.command import TINY, done
from helpers.counted_source import Counted
from helpers.html_pages import Page
from helpers.small_data import curve
from narrows import Autoencoder, ConditionalVAE, ParameterError
from narrows.estimators.fit_setup import rows_kept_back
from narrows.report import figures, measured_rows, write_report

X = curve(100)
SMALL: dict[str, Any] = {"latent_dim": 2, "max_epochs": 1, "architecture": "dense"}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


def rows_to_fit(n: int, share: float) -> np.ndarray:
    return np.delete(np.arange(n), rows_kept_back(n, share))


def marked() -> np.ndarray:
    """Rows whose first number is their row number."""
    rows = curve(100)
    rows[:, 0] = np.arange(100)
    return rows


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_validation_rows_are_found_again_after_loading(
    seed: Any, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    original = Autoencoder._errors

    def errors(self: Any, training: Any) -> Any:
        seen.append(training.start.scaling.undo(torch.cat(list(training.validation.in_order(999)))))
        return original(self, training)

    monkeypatch.setattr(Autoencoder, "_errors", errors)
    np.save(tmp_path / "x.npy", marked())
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    how = {"in_memory": not streamed, "random_state": seed, **SMALL}
    est = Autoencoder(**how).fit(rows)
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    for model in (est, again):
        found = measured_rows(model, rows)
        assert found.kind == "validation"
        np.testing.assert_array_equal(found.rows, np.sort(np.rint(seen[0][:, 0].numpy())))
        assert len(found.rows) == 10
    assert measured_rows(again, marked()[:99]).kind == "unknown"
    assert measured_rows(again, marked() + 1e-9).kind == "unknown"


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_kept_back_are_never_seen(streamed: bool, tmp_path: Path) -> None:
    rows, test = marked(), rows_kept_back(100, 0.25)
    kept = rows_to_fit(100, 0.25)
    assert sorted([*test, *kept]) == list(range(100)) and len(test) == 25
    assert not np.array_equal(test, np.arange(25))
    broken = rows.copy()
    broken[test] *= 1e6  # the fit must not see it
    made = []
    for i, data in enumerate((rows, broken, rows[kept])):
        np.save(tmp_path / f"{i}.npy", data)
        given = np.load(tmp_path / f"{i}.npy", mmap_mode="r")
        share = 0.25 if len(data) == 100 else 0.0
        how = {"test_size": share, "in_memory": not streamed, "random_state": 0, **SMALL}
        made.append(Autoencoder(**how).fit(given))
    for other in made[1:]:
        np.testing.assert_array_equal(other.transform(rows), made[0].transform(rows))
    assert made[0].rows_ == made[2].rows_
    again = narrows.load(made[0].save(tmp_path / "m.safetensors"))
    found = measured_rows(again, rows)
    assert (found.kind, found.rows.tolist()) == ("test", test.tolist())
    assert measured_rows(made[2], rows[kept]).kind == "validation"


def test_classes_go_with_their_rows_and_too_large_a_share_is_refused() -> None:
    y = np.arange(100) % 3
    kept = rows_to_fit(100, 0.3)
    whole = ConditionalVAE(test_size=0.3, random_state=0, **SMALL).fit(X, y)
    part = ConditionalVAE(random_state=0, **SMALL).fit(X[kept], y[kept])
    np.testing.assert_array_equal(whole.transform(X), part.transform(X))
    assert measured_rows(whole, X).kind == "test"
    with pytest.raises(ParameterError, match=r"test_size=0.8 leaves 1 of 5 rows.*smaller"):
        Autoencoder(test_size=0.8).fit(X[:5])
    with pytest.raises(ParameterError, match="test_size"):
        Autoencoder(test_size=20).fit(X)


def test_where_no_rows_were_held_out_the_report_says_so() -> None:
    few = Autoencoder(random_state=0, **SMALL).fit(X[:15])
    assert measured_rows(few, X[:15]).kind == "fitted"
    none = Autoencoder(validation_fraction=0.0, random_state=0, **SMALL).fit(X)
    assert measured_rows(none, X).kind == "fitted"
    given = Autoencoder(random_state=0, **SMALL).fit(X, X_val=X[:20] + 1)
    assert measured_rows(given, X).kind == "fitted"
    streamed = Autoencoder(random_state=0, **SMALL).partial_fit(X)
    assert measured_rows(streamed, X).kind == "unknown"
    assert measured_rows(few, X[:1]).kind == "unknown"


@pytest.mark.parametrize(("share", "words"), [(0.0, "held out for validation"), (0.2, "kept back")])
def test_the_page_and_the_command_measure_on_them(share: float, words: str, tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(6)]
    pd.DataFrame(X, columns=names).to_csv(tmp_path / "x.csv", index=False)
    model, page = tmp_path / "m.safetensors", tmp_path / "p.html"
    more = ("--test-size", str(share)) if share else ()
    done("fit", tmp_path / "x.csv", "-o", model, *TINY, *more)
    said = done("report", model, tmp_path / "x.csv", "-o", page)
    est = narrows.load(model)
    frame = pd.read_csv(tmp_path / "x.csv")
    rows = measured_rows(est, frame).rows
    assert f"measured on {len(rows)} rows of 100 that fit {words}" in said
    found = Page(page)
    assert words in "".join(found.words)
    table = {row[0]: row[1:] for row in found.tables[0]}
    error = -est.score_samples(frame.iloc[rows]).mean()
    assert float(table["Autoencoder"][0]) == pytest.approx(error, rel=0.01)


def test_a_file_without_the_record_reads_as_before(tmp_path: Path) -> None:
    from dataclasses import replace

    est = Autoencoder(random_state=0, **SMALL).fit(X)
    older = est._with_state(replace(est.state_, data=None))
    again = narrows.load(older.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.transform(X), est.transform(X))
    assert measured_rows(again, X).kind == "unknown"
    digits = load_digits().images[:60]
    unseen = Autoencoder(random_state=0, **SMALL).fit(digits[:40])
    page = Page(write_report(unseen, digits[40:], tmp_path / "page.html"))
    assert "not the data of the fit" in " ".join(page.words)


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize(
    ("fitted", "shown"), [(a, b) for a in (True, False) for b in (True, False)]
)
def test_rows_without_a_value_are_not_measured(share: float, fitted: bool, shown: bool) -> None:
    test = rows_kept_back(100, share)
    kept = np.delete(np.arange(100), test)
    rows = marked()
    gone = [*test[:1], kept[0], kept[10], kept[11]]
    rows[gone] = np.nan
    est = Autoencoder(test_size=share, missing="mask", in_memory=fitted, random_state=0, **SMALL)
    with pytest.warns(UserWarning, match="3 of the rows"):
        est.fit(Counted(rows))
    found = measured_rows(est.set_params(in_memory=shown), Counted(rows))
    if share:
        assert (found.kind, found.rows.tolist()) == ("test", test[1:].tolist())
    else:
        assert found.kind == "validation" and not set(found.rows) & set(gone)
        assert len(found.rows) == est.rows_["validation"]
    others = measured_rows(est, Counted(rows[::-1]))
    assert others.kind == "unknown"
    assert others.in_words(100) == f"{100 - len(gone)} rows of 100 given (the others have no value)"


def test_only_a_fit_with_a_checkpoint_hashes_all_rows(tmp_path: Path) -> None:
    est = Autoencoder(random_state=0, **SMALL).fit(X)
    assert est.state_.data[0]["whole"] is None
    est = Autoencoder(random_state=0, checkpoint=tmp_path / "m.checkpoint", **SMALL).fit(X)
    other = X.copy()
    other[50] += 1e-9
    for X_now, kind in ((X, "validation"), (other, "unknown")):
        assert measured_rows(est, X_now).kind == kind
