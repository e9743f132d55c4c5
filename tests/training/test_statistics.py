"""One pass over blocks says what numpy says of the whole."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from narrows.training.batches import as_tensor, fit_scaling
from narrows.training.statistics import Statistics, statistics

RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(1000, 5))
AWKWARD = {
    "small noise on a large offset": 1e8 + 0.01 * NOISE,
    "huge": NOISE * 1e300,
    "tiny": NOISE * 1e-200,
    "the smallest there are": NOISE * 1e-310,
    "each column in its own unit": NOISE * 10.0 ** np.array([-250, -3, 0, 5, 299]),
    "growing out of what its squares can hold": NOISE * np.logspace(-300, 300, 1000)[:, None],
    "constants": np.hstack([np.full((1000, 2), 0.1), np.zeros((1000, 1)), NOISE]),
    "bytes": RNG.integers(0, 256, (1000, 4, 3)).astype(np.uint8),
    "float32": NOISE.astype(np.float32),
    "int64": (NOISE * 1e12).astype(np.int64),
    "bool": NOISE > 0,
    "one row": NOISE[:1],
}


def in_blocks(rows: NDArray[np.generic], size: int, backwards: bool = False) -> Statistics:
    blocks = [as_tensor(rows[i : i + size]) for i in range(0, len(rows), size)]
    return statistics(blocks[::-1] if backwards else blocks)


@pytest.mark.parametrize("rows", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize(("size", "backwards"), [(1000, False), (7, False), (7, True), (1, False)])
def test_equals_numpy(rows: NDArray[np.generic], size: int, backwards: bool) -> None:
    found = in_blocks(rows, size, backwards)
    exact = rows.astype(np.longdouble)
    assert found.n == len(rows)
    np.testing.assert_array_equal(found.low, rows.min(0))
    np.testing.assert_array_equal(found.high, rows.max(0))
    reach = np.abs(exact).max(0)
    with np.errstate(under="ignore"):
        mean, deviation = exact.mean(0), exact.std(0)
    mean_error = np.abs(found.mean.numpy() - mean)
    assert (mean_error <= 1e-14 * reach + 5e-324).all()
    # numpy subtracts a mean that it rounds; what does not vary has none by definition here
    varies = rows.max(0) > rows.min(0)
    error = np.abs(found.deviation.numpy() - deviation)[varies]
    assert (error <= 1e-12 * deviation[varies] + 5e-324).all()
    assert (found.deviation.numpy()[~varies] == 0).all()


def test_zeros_and_ones_are_binary_and_a_half_is_not() -> None:
    rows = (NOISE > 0).astype(np.float32)
    assert in_blocks(rows, 10).binary
    rows[777, 3] = 0.5
    assert not in_blocks(rows, 10).binary
    assert in_blocks(NOISE > 0, 10).binary
    assert not in_blocks((NOISE > 0).astype(np.int8) - 1, 10).binary


@pytest.mark.parametrize("size", [200, 20, 7, 1])
@pytest.mark.parametrize("first", [0, 1], ids=["a gap in the first row", "none there"])
def test_missing_values_count_nowhere(size: int, first: int) -> None:
    rows = 1e6 + NOISE[:200] * 10.0 ** np.arange(5)
    rows[:, 1] = RNG.integers(0, 2, 200)
    rows[first:][RNG.random((200 - first, 5)) < 0.3] = np.nan
    rows[first, 2] = np.nan
    rows[:, 3], rows[5:, 3] = 4.0, np.nan  # a constant that is seldom observed
    rows[:, 4] = np.nan
    found = in_blocks(rows, size)
    some = rows[:, :4]
    assert found.n == 200
    np.testing.assert_array_equal(found.low[:4], np.nanmin(some, 0))
    np.testing.assert_array_equal(found.high[:4], np.nanmax(some, 0))
    np.testing.assert_allclose(found.mean[:4], np.nanmean(some, 0), rtol=1e-14)
    np.testing.assert_allclose(found.deviation[:4], np.nanstd(some, 0), rtol=1e-9)
    assert (found.low[4], found.high[4], found.mean[4], found.deviation[4]) == (
        math.inf, -math.inf, 0.0, 0.0,
    )  # fmt: skip
    assert found.whole.tolist()[:4] == [False, True, False, True]


def test_no_rows_raise_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        statistics([torch.zeros(0, 3)])


@pytest.mark.parametrize("shape", [(12,), (3, 4), (3, 2, 2)])
@pytest.mark.parametrize("factor", [1.0, 1e300])
def test_a_shared_scaling_is_that_of_all_elements_together(
    shape: tuple[int, ...], factor: float
) -> None:
    rows = (np.arange(12) + RNG.normal(size=(200, 12))).reshape(200, *shape)
    scaling = fit_scaling(in_blocks(rows * factor, 13), "shared")
    axes = (0, *range(1 if len(shape) == 1 else 2, rows.ndim))
    np.testing.assert_allclose(scaling.shift.numpy().ravel(), factor * rows.mean(axes).ravel())
    np.testing.assert_allclose(scaling.scale.numpy().ravel(), factor * rows.std(axes).ravel())
    assert math.isclose(float(scaling.scale.numel()), 1 if len(shape) == 1 else shape[0])
