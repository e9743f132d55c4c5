"""The intrinsic dimension of manifolds that are known, within the estimators' standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_swiss_roll

from narrows import InputError, ParameterError, maps
from narrows.maps.dimension import _different

N = 2000


def turned(rows: Any, d: int = 30) -> Any:
    """The rows, rotated into d dimensions: no distance changes."""
    basis = np.linalg.qr(np.random.default_rng(9).normal(size=(d, rows.shape[1])))[0]
    return rows @ basis.T


def torus(k: int) -> Any:
    """Uniform on a flat torus of dimension k: it has no border, so that MLE has no bias there."""
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(N, k))
    return np.hstack([np.cos(angles), np.sin(angles)])


MANIFOLDS = {
    "plane": (2, np.random.default_rng(0).uniform(size=(N, 2))),
    "Gaussian": (5, np.random.default_rng(0).normal(size=(N, 5))),
    "Swiss roll": (2, make_swiss_roll(N, random_state=0)[0]),
    "torus": (2, torus(2)),
    "torus of 4": (4, torus(4)),
}


@pytest.mark.parametrize("name", MANIFOLDS)
def test_two_nn_finds_the_dimension(name: str) -> None:
    d, rows = MANIFOLDS[name]
    found = maps.intrinsic_dimension(turned(rows))
    # the slope through the smallest 90 % has the variance d²/(0.9 n), up to a tenth; in 4 and 5
    # dimensions the curvature and the uneven density within r₂ take up to 5 % more
    bias = 0.05 * d if d > 2 else 0.0
    assert found.two_nn == pytest.approx(d, abs=4 * d / (0.9 * N) ** 0.5 + bias)


def test_mle_finds_the_dimension_where_there_is_no_border() -> None:
    for k in (1, 2):
        # neighbourhoods of k rows overlap: as if only n/2 rows or so were independent
        found = maps.intrinsic_dimension(turned(torus(k))).mle
        assert found == pytest.approx(k, abs=4 * k / (N * 19 / 20) ** 0.5)


def test_mle_is_the_formula() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 3))
    total = 0.0
    for row in rows:
        r = np.sort(np.linalg.norm(rows - row, axis=1))[1:6]
        total += np.log(r[4] / r[:4]).sum()
    assert maps.intrinsic_dimension(rows, n_neighbors=5).mle == pytest.approx(30 * 4 / total)


def test_two_nn_is_the_formula() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 3))
    r = np.sort(np.linalg.norm(rows[:, None] - rows, axis=2), axis=1)
    mu = np.log(np.sort(r[:, 2] / r[:, 1]))[:27]
    share = -np.log(1 - np.arange(1, 28) / 30)
    slope = np.linalg.lstsq(mu[:, None], share, rcond=None)[0][0]
    assert maps.intrinsic_dimension(rows).two_nn == pytest.approx(slope)


def test_noise_adds_dimensions() -> None:
    roll = turned(make_swiss_roll(N, random_state=0)[0], 20)
    noisy = roll + 0.5 * np.random.default_rng(1).normal(size=roll.shape)
    assert min(maps.intrinsic_dimension(noisy)) > 5


def test_neither_scale_nor_equal_rows_nor_images_change_it() -> None:
    rows = torus(2)[:500]
    expected = maps.intrinsic_dimension(rows)
    assert maps.intrinsic_dimension(1000 * rows) == pytest.approx(expected)
    assert maps.intrinsic_dimension(np.vstack([rows, rows[:100]])) == pytest.approx(expected)
    assert maps.intrinsic_dimension(rows.reshape(500, 2, 2)) == expected


def test_rows_are_compared_by_value() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    assert _different(rows).tolist() == [[0, 1], [2, 1]]


def test_a_sample_follows_its_seed() -> None:
    rows = torus(2)
    same = [maps.intrinsic_dimension(rows, max_rows=300, random_state=1) for _ in range(2)]
    assert same[0] == same[1] != maps.intrinsic_dimension(rows, max_rows=300, random_state=2)


def test_where_all_neighbours_are_equally_far_no_finite_dimension_fits() -> None:
    assert maps.intrinsic_dimension(np.arange(50.0)[:, None]).two_nn == np.inf


def test_bad_input_gets_a_sentence() -> None:
    rows = torus(1)
    with pytest.raises(InputError, match="X has 20 different rows; n_neighbors=20 needs at least"):
        maps.intrinsic_dimension(np.vstack([rows[:20], rows[:20]]))
    with pytest.raises(InputError, match="X has 1 different rows"):
        maps.intrinsic_dimension(rows[:1])
    with pytest.raises(InputError, match="NaN or infinity in row 3"):
        maps.intrinsic_dimension(np.where(np.arange(30)[:, None] == 3, np.nan, rows[:30]))
    with pytest.raises(ParameterError, match="n_neighbors must be"):
        maps.intrinsic_dimension(rows, n_neighbors=2)
    with pytest.raises(ParameterError, match="max_rows must be"):
        maps.intrinsic_dimension(rows, max_rows=20)
