"""What a map's page holds: the right numbers, exact pictures, and sentences on the others."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from narrows import Autoencoder, FileError, InputError, NeighborAutoencoder, ParameterError
from narrows.maps import compare_maps, geodesic, trustworthiness, write_map
from narrows.maps.geometry import metric_grid
from narrows.maps.map_page import map_html
from narrows.maps.thumbnails import make_thumbnails, shrunk
from narrows.report import measured_rows

DIGITS = load_digits()
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(120, 5))
KINDS = {"f4": "<f4", "f8": "<f8", "u1": "|u1", "u2": "<u2", "u4": "<u4"}


def fitted(X: Any, **more: Any) -> Any:
    options = {"latent_dim": 2, "max_epochs": 1, "random_state": 0, **more}
    return Autoencoder(**options).fit(X)


class Parsed:
    """The page's data, as its program reads them."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.spec = json.loads(self.block("spec"))
        data = gzip.decompress(base64.b64decode(self.block("arrays")))
        self.arrays = {
            name: np.frombuffer(data, KINDS[kind], length, offset)
            for name, (kind, offset, length) in self.spec["arrays"].items()
        }

    def block(self, name: str) -> str:
        found = re.search(f'<script [^>]*id="{name}">(.*?)</script>', self.html, re.S)
        assert found
        return found[1]

    def sheet(self, i: int) -> Any:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(self.block(f"sheet-{i}")))))


def test_the_page_holds_codes_errors_and_labels() -> None:
    model = fitted(TABLE)
    y = RNG.integers(0, 3, 120)
    page = Parsed(map_html(model, TABLE, y=y))
    codes = np.asarray(model.transform(TABLE))
    assert np.array_equal(page.arrays["codes"].reshape(-1, 2), codes)
    assert np.array_equal(page.arrays["x"], codes[:, 0])
    assert np.allclose(page.arrays["errors"], -model.score_samples(TABLE))
    assert np.array_equal(page.arrays["labels"], y)
    assert np.array_equal(page.arrays["originals"].reshape(-1, 5), TABLE)  # float64
    assert page.spec["n"] == 120 and "rows" not in page.arrays


def test_thumbnails_are_the_pixels_themselves() -> None:
    X = RNG.integers(0, 256, (70, 9, 12), np.uint8)
    page = Parsed(map_html(fitted(X), X))
    about = page.spec["painter"]["thumbnails"]
    sheet = page.sheet(0)
    sheet = sheet if sheet.ndim == 2 else sheet[..., 0]
    low, high = page.spec["painter"]["low"], page.spec["painter"]["high"]
    for i in (0, 13, 69):
        y, x = i // about["columns"] * 9, i % about["columns"] * 12
        expected = np.clip((X[i] - low) / (high - low), 0, 1) * 255
        assert np.abs(sheet[y : y + 9, x : x + 12] - expected).max() <= 0.5


def test_the_policy_of_the_page_allows_its_own_program_and_nothing_else() -> None:
    html = map_html(fitted(TABLE), TABLE)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy and "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1] and "connect-src" not in policy[1]
    assert "http://" not in html.replace("http://www.w3.org", "") and "https://" not in html


def test_the_same_rows_make_the_same_page() -> None:
    model = fitted(TABLE)
    assert map_html(model, TABLE) == map_html(model, TABLE)


@pytest.mark.parametrize("title", ["</title>", "</script><script>", "<!--", "a & b"])
def test_names_are_escaped(title: str) -> None:
    names = [f"{title}{i}" for i in range(5)]
    html = map_html(fitted(TABLE), TABLE, title=title, feature_names=names, y=[title, "b"] * 60)
    page = Parsed(html)
    assert page.spec["painter"]["names"] == names
    assert sorted(page.spec["label_names"]) == sorted([title, "b"])
    assert html.count("<script") == html.count("</script>") == 3


def test_one_row_has_a_page() -> None:
    page = Parsed(map_html(fitted(TABLE), TABLE[:1]))
    assert page.spec["n"] == 1 and "Quality is measured from 40 rows" in page.html


def test_codes_of_one_number_are_spread_in_height() -> None:
    page = Parsed(map_html(fitted(TABLE, latent_dim=1), TABLE))
    assert "heights mean nothing" in page.html
    assert page.spec["k"] == 1 and np.ptp(page.arrays["y"]) > 0


def test_wide_codes_are_projected_and_the_page_says_so() -> None:
    model = fitted(TABLE, latent_dim=4)
    page = Parsed(map_html(model, TABLE))
    view, Z = page.spec["view"], np.asarray(model.transform(TABLE), dtype=np.float64)
    place = (Z - view["origin"]) @ np.array(view["directions"]).T
    assert np.allclose(place[:, 1], page.arrays["y"], atol=1e-5)
    assert "A code has 4 numbers" in page.html


def test_five_hundred_classes_and_measurements_are_colours() -> None:
    X = RNG.normal(size=(1000, 3))
    model = fitted(X)
    names = [f"class {i}" for i in np.arange(1000) % 500]
    assert len(Parsed(map_html(model, X, y=names)).spec["label_names"]) == 500
    measured = Parsed(map_html(model, X, y=RNG.normal(size=1000)))
    assert measured.spec["label_names"] is None and measured.arrays["labels"].dtype == np.float64


def test_missing_values_stay_missing() -> None:
    X = np.where(RNG.random((120, 5)) < 0.2, np.nan, TABLE)
    model = fitted(X, missing="mask")
    X[7] = np.nan
    page = Parsed(map_html(model, X))
    kept = np.delete(np.arange(120), 7)
    assert np.array_equal(page.arrays["rows"], kept)
    shown = page.arrays["originals"].reshape(-1, 5)
    assert np.array_equal(np.isnan(shown), np.isnan(X[kept]))


def test_quality_is_measured_on_held_out_rows_without_missing_values() -> None:
    X = RNG.normal(size=(400, 5))
    X[::3, 0] = np.nan
    model = fitted(X, missing="mask", test_size=0.25)
    held = measured_rows(model, X).rows
    whole = held[np.isfinite(X[held]).all(1)]
    page = Parsed(map_html(model, X))
    assert f"Measured on {len(whole)} rows, without missing values, of" in page.html
    trust = trustworthiness(
        model.state_.scaling.apply(torch.from_numpy(X[whole])).numpy(), model.transform(X[whole])
    )
    assert f"<td>{trust:.3f}</td>" in page.html
    few = Parsed(map_html(model, np.where(RNG.random(X.shape) < 0.9, np.nan, X)))
    assert "Quality is measured from 40 rows without missing values on" in few.html


def test_rows_that_are_all_equal_have_a_page() -> None:
    X = np.ones((60, 3)) * [1, 2, 3]
    assert Parsed(map_html(fitted(TABLE[:, :3]), X)).spec["n"] == 60


def test_rows_that_are_read_by_slices_have_the_same_page(tmp_path: Path) -> None:
    model = fitted(TABLE)
    np.save(tmp_path / "rows.npy", TABLE)
    lazy = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert map_html(model, lazy) == map_html(model, TABLE)


def test_other_models_are_refused() -> None:
    with pytest.raises(ParameterError, match="inverse_transform"):
        map_html(PCA(2).fit(TABLE), TABLE)  # type: ignore[arg-type]


def test_of_too_many_rows_a_sample_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narrows.maps.map_points.MAX_NUMBERS", 600)
    page = Parsed(map_html(fitted(TABLE), TABLE))
    rows = page.arrays["rows"]
    assert page.spec["n"] == 50 == len(np.unique(rows))
    assert np.array_equal(page.arrays["originals"].reshape(-1, 5), TABLE[rows])
    assert "Of 120 rows 50 are shown" in page.html


def test_a_frame_keeps_its_names_without_a_warning() -> None:
    frame = pd.DataFrame(TABLE, columns=list("abcde"))
    model = fitted(frame)
    for X in (frame, TABLE):
        assert Parsed(map_html(model, X)).spec["painter"]["names"] == list("abcde")


def test_large_images_are_shown_smaller_and_the_page_says_so() -> None:
    X = RNG.integers(0, 256, (50, 56, 70, 3), np.uint8)
    model = fitted(X, axes="HWC", architecture="dense", hidden_layer_sizes=(4,), latent_dim=3)
    page = Parsed(map_html(model, X))
    about = page.spec["painter"]["thumbnails"]
    assert (about["width"], about["height"]) == (64, 51)
    assert "shown smaller" in page.html


def test_thumbnails_that_do_not_fit_lose_size_then_number() -> None:
    pixels = RNG.integers(0, 256, (300, 64, 64), np.uint8)
    whole, fewer = make_thumbnails(pixels), make_thumbnails(pixels, max_bytes=20_000)
    assert whole.lossless and whole.n == 300
    assert not fewer.lossless and fewer.n < 300 and fewer.width == 32
    assert sum(map(len, fewer.sheets)) < 30_000
    assert shrunk(pixels[:2], 16).shape == (2, 16, 16)


def test_maps_are_compared_on_the_same_rows() -> None:
    X, y = DIGITS.images[:200], DIGITS.target[:200]
    model = NeighborAutoencoder(latent_dim=2, max_epochs=3, random_state=0).fit(X)
    scores = {score.name: score for score in compare_maps(model, X, y)}
    assert list(scores)[:3] == ["NeighborAutoencoder", "PCA", "t-SNE"]
    flat = X.reshape(200, -1)
    for name, Z in (
        ("NeighborAutoencoder", model.transform(X)),
        ("PCA", model.pca_.transform(X)),
    ):
        expected = sklearn_trustworthiness(flat, np.asarray(Z), n_neighbors=15)
        assert scores[name].trustworthiness == pytest.approx(expected, abs=2e-4)
    assert scores["PCA"].error == pytest.approx(-model.pca_.score_samples(X).mean())
    assert scores["t-SNE"].error is None and not scores["t-SNE"].places_new_rows


def test_the_grid_of_a_linear_decoder_has_its_lengths() -> None:
    X = TABLE @ RNG.normal(size=(5, 5))
    model = fitted(X, max_epochs=0)  # the start is PCA: B is orthonormal in scaled units
    codes = np.asarray(model.transform(X))
    grid = metric_grid(model, codes)
    step = (grid.high - grid.low) / 47
    B = np.asarray(model.inverse_transform(np.eye(2, dtype="f4"))) - np.asarray(
        model.inverse_transform(np.zeros((2, 2), "f4"))
    )
    B = B / np.asarray(model.state_.scaling.scale)
    expected = np.linalg.norm(step[0] * B[0] + 2 * step[1] * B[1])  # the step (1, 2)
    assert grid.lengths[4, :-1, :-2] == pytest.approx(expected, rel=1e-3)
    assert np.isinf(grid.lengths[4, -1]).all()
    stretch = np.sqrt(np.linalg.det(B @ B.T))
    assert grid.stretch == pytest.approx(stretch, rel=1e-3)
    assert geodesic(model, codes[0], codes[1]).length > 0


def test_a_page_that_exists_is_kept(tmp_path: Path) -> None:
    model, path = fitted(TABLE), tmp_path / "map.html"
    write_map(model, TABLE, path)
    with pytest.raises(FileError):
        write_map(model, TABLE, path)
    assert write_map(model, TABLE, path, overwrite=True) == path
    with pytest.raises(FileError, match="html"):
        write_map(model, TABLE, tmp_path / "map.txt")


def test_wrong_labels_and_names_are_refused() -> None:
    model = fitted(TABLE)
    with pytest.raises(InputError, match="labels"):
        map_html(model, TABLE, y=[1, 2])
    with pytest.raises(InputError, match="feature names"):
        map_html(model, TABLE, feature_names=["a"])
    with pytest.raises(InputError):
        map_html(model, TABLE[:, :3])
