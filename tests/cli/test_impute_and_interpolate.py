"""``narrows impute`` and ``narrows interpolate`` are the methods of these names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from helpers.command import TINY, done, picture, refused
from helpers.small_data import curve
from narrows import load


@pytest.mark.parametrize("kind", [".npy", ".csv"])
def test_gaps_are_filled_in_and_all_else_stays(kind: str, tmp_path: Path) -> None:
    X, model, out = curve(60), tmp_path / "m.safetensors", tmp_path / f"full{kind}"
    X[::5, 3] = np.nan
    np.save(tmp_path / "gaps.npy", X)
    done("fit", tmp_path / "gaps.npy", "--missing", "mask", "-o", model, *TINY)
    assert "60 rows of 6" in done("impute", model, tmp_path / "gaps.npy", "-o", out)
    full = np.load(out) if kind == ".npy" else np.loadtxt(out, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(full, load(model).impute(X))
    np.testing.assert_array_equal(full[~np.isnan(X)], X[~np.isnan(X)])
    assert np.isfinite(full).all()


def test_a_model_without_missing_values_says_how_to_fit_one(digits: Path, tmp_path: Path) -> None:
    said = refused("impute", digits, "digits", "-o", tmp_path / "x.npy")
    assert "`narrows fit DATA --missing mask`" in said


def test_rows_on_the_way_from_one_to_another(digits: Path, tmp_path: Path) -> None:
    X = load_digits().images
    words = ("interpolate", digits, "digits", "--rows", "0,1", "--rows", "8,3", "--steps", "4")
    assert "8 rows of 8 × 8" in done(*words, "-o", tmp_path / "x.npy")
    walks = load(digits).interpolate(X[[0, 8]], X[[1, 3]], steps=4)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), walks.reshape(8, 8, 8))
    done(*words, "-o", tmp_path / "x.png")
    height, width = picture(tmp_path / "x.png").shape[:2]
    assert width == 4 * 64 + 3 * 2 and height == 2 * 64 + 2  # a line for each pair
    done("interpolate", digits, "digits", "-o", tmp_path / "two.npy")
    assert np.load(tmp_path / "two.npy").shape == (9, 8, 8)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("0", "two row numbers"),
        ("0,1,2", "two row numbers"),
        ("0,-1", "two row numbers"),
        ("a,b", "such as 0,5"),
        ("0,1797", "row 1797, but the 1,797 rows are numbered from 0 to 1796"),
    ],
)
def test_rows_that_are_not_there(digits: Path, rows: str, words: str, tmp_path: Path) -> None:
    assert words in refused(
        "interpolate", digits, "digits", "--rows", rows, "-o", tmp_path / "x.npy"
    )
    assert list(tmp_path.iterdir()) == []
