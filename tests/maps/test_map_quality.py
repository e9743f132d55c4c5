"""Measures of maps: scikit-learn's and scipy's; 1 for a perfect map, chance for a random one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from narrows import InputError, ParameterError, maps
from narrows.maps import map_quality


def data(n: int = 150, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    return X, X[:, :2] + 0.3 * rng.normal(size=(n, 2))


@pytest.mark.parametrize("k", [1, 5, 15])
def test_trustworthiness_and_continuity_are_scikit_learns(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Z = data()
    monkeypatch.setattr(map_quality, "MAX_BLOCK", 7 * len(X))  # many blocks, the last one short
    trust = sklearn_trustworthiness(X, Z, n_neighbors=k)
    assert maps.trustworthiness(X, Z, n_neighbors=k) == pytest.approx(trust, abs=1e-12)
    continuity = sklearn_trustworthiness(Z, X, n_neighbors=k)
    assert maps.continuity(X, Z, n_neighbors=k) == pytest.approx(continuity, abs=1e-12)
    assert trust != pytest.approx(continuity, abs=1e-3)  # the two are not the same by chance


def test_images_in_float32_far_from_zero_count_as_their_flat_rows() -> None:
    images = load_digits().images[:300].astype(np.float32) + np.float32(1000.25)
    rng = np.random.default_rng(0)
    images += rng.normal(size=images.shape).astype(np.float32) / 10  # no two distances are equal
    flat = images.reshape(300, -1).astype(np.float64)
    Z = flat @ rng.normal(size=(64, 2))
    expected = sklearn_trustworthiness(flat, Z, n_neighbors=15)
    assert maps.trustworthiness(images, Z) == pytest.approx(expected, abs=1e-4)
    assert maps.trustworthiness(torch.from_numpy(images), Z) == maps.trustworthiness(images, Z)


def test_a_map_that_turns_and_stretches_is_perfect() -> None:
    X, _ = data()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    Z = 3 * X @ turn - 5
    assert maps.trustworthiness(X, Z) == maps.continuity(X, Z) == 1
    assert maps.distance_correlation(X, Z) == pytest.approx(1, abs=1e-9)


def test_rows_that_are_equal_are_no_error_of_the_map() -> None:
    X = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 20, axis=0)  # 20 of each
    Z = X[:, :2] + 1e-6 * np.random.default_rng(1).normal(size=(200, 2))
    assert maps.trustworthiness(X, Z) == 1


def test_of_rows_at_the_same_distance_none_is_farther() -> None:
    angles = np.linspace(0, 2 * np.pi, 101)[:-1, None]
    X = np.hstack([np.cos(angles), np.sin(angles)])  # the two neighbours of each are equally far
    Z = np.hstack([np.cos(angles + 1), np.sin(angles + 1)])
    assert maps.trustworthiness(X, Z, n_neighbors=1) == 1


def test_a_random_map_has_the_value_of_chance() -> None:
    n, k = 400, 15
    X, Z = data(n)
    # ranks of random rows are uniform on 1, ..., n − 1: E max(0, r − k) = Σ_{r>k} (r − k)/(n − 1)
    chance = 1 - (n - 1 - k) * (n - k) / ((n - 1) * (2 * n - 3 * k - 1))
    # a rank has a standard deviation below n/√12; the n·k ranks are nearly independent
    tolerance = 5 * 2 * (n / 12**0.5) / ((2 * n - 3 * k - 1) * (n * k) ** 0.5)
    mixed = np.random.default_rng(2).permutation(Z)
    assert maps.trustworthiness(X, mixed) == pytest.approx(chance, abs=tolerance)
    assert maps.continuity(X, mixed) == pytest.approx(chance, abs=tolerance)
    assert abs(maps.distance_correlation(X, mixed)) < 5 / n**0.5


def test_the_hit_of_separate_classes_is_1_and_of_random_ones_that_of_chance() -> None:
    y = np.repeat(["a", "b", "c"], [100, 200, 300])
    codes = np.unique(y, return_inverse=True)[1]
    Z = np.random.default_rng(0).normal(size=(600, 2)) + 50 * codes[:, None]
    assert maps.neighbourhood_hit(Z, y) == 1
    mixed = np.random.default_rng(1).permutation(y)
    counts = np.array([100, 200, 300])
    chance = (counts * (counts - 1)).sum() / (600 * 599)
    assert maps.neighbourhood_hit(Z, mixed) == pytest.approx(chance, abs=5 * 0.5 / 600**0.5)
    assert maps.neighbourhood_hit(Z[:4], [0, 0, 1, 1], n_neighbors=3) == pytest.approx(1 / 3)


def test_the_correlation_of_distances_is_scipys() -> None:
    X, Z = data(80)
    Z = Z.round(0)  # with ties
    expected = spearmanr(pdist(X), pdist(Z)).statistic
    assert maps.distance_correlation(X, Z) == pytest.approx(expected, abs=1e-12)


def test_a_sample_takes_the_same_rows_of_both_and_follows_its_seed() -> None:
    X, Z = data(300)
    rows = np.sort(np.random.default_rng(3).choice(300, 100, replace=False))
    expected = maps.distance_correlation(X[rows], Z[rows])
    sample = maps.distance_correlation(X, Z, max_rows=100, random_state=3)
    assert sample == expected
    assert sample != maps.distance_correlation(X, Z, max_rows=100, random_state=4)
    rng = np.random.RandomState
    drawn = [maps.distance_correlation(X, X, max_rows=100, random_state=s) for s in (None, rng(0))]
    assert drawn == pytest.approx([1, 1])  # one draw for both, whatever the seed


X, Z = data(40)
BROKEN = X.copy()
BROKEN[7, 2] = np.nan


@pytest.mark.parametrize(
    ("measure", "given", "words"),
    [
        (maps.trustworthiness, (X, Z[:-1]), "X has 40 rows and Z 39"),
        (maps.continuity, (BROKEN, Z), "X contains NaN or infinity in row 7"),
        (maps.trustworthiness, (X, np.full_like(Z, np.inf)), "Z contains NaN or infinity in row 0"),
        (maps.trustworthiness, (X[:30], Z[:30]), "30 rows are too few for n_neighbors=15; give "),
        (maps.trustworthiness, (X[:1], Z[:1]), "1 rows? .*give more rows"),
        (maps.trustworthiness, (X[:0], Z[:0]), "holds no numbers"),
        (maps.trustworthiness, (X, Z[:, 0]), r"Z has shape \(40,\); .*reshape"),
        (maps.trustworthiness, (X.astype(str), Z), "X must hold real numbers"),
        (maps.trustworthiness, ([[1, 2], [3]], Z), "X is no array of numbers"),
        (maps.neighbourhood_hit, (Z, [0] * 39), "give one label for each row"),
        (maps.neighbourhood_hit, (Z, [None] + [0] * 39), "The label of row 0 is missing"),
        (maps.neighbourhood_hit, (Z[:10], [0] * 10), "10 rows are too few for n_neighbors=15"),
        (maps.distance_correlation, (X[:2], Z[:2]), "from 3 rows on"),
        (maps.distance_correlation, (X, 0 * Z), "All distances in Z are equal"),
    ],
)
def test_bad_input_gets_a_sentence(measure: Any, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure(*given)


def test_parameters_out_of_range_are_named() -> None:
    for k in (0, 2.5, "5"):
        with pytest.raises(ParameterError, match="n_neighbors must be"):
            maps.trustworthiness(X, Z, n_neighbors=k)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="max_rows must be"):
        maps.distance_correlation(X, Z, max_rows=2)
    with pytest.raises(ParameterError, match="random_state must be"):
        maps.distance_correlation(X, Z, max_rows=20, random_state="a")


def test_large_numbers_do_not_overflow() -> None:
    large = (1e25 * X).astype(np.float32)
    assert maps.trustworthiness(large, Z) == pytest.approx(maps.trustworthiness(X, Z), abs=1e-4)


def test_a_map_of_one_number_is_measured_too() -> None:
    line = np.arange(50.0)[:, None] ** 1.5
    assert maps.trustworthiness(np.hstack([line, line]), line, n_neighbors=3) == 1
