"""Numbers within a largest error, whatever they are: integers on a grid, exceptions as they are.

    floats:     δ = 2E(1 − 2⁻ᵏ) / s,   q = rint(x / δ) within ⌊s / 2⌋,   x' = dtype(δ · q)
    integers:   q = x within ⌊E⌋, or x' = (2⌊E⌋ + 1) · q

The encoder does what the decoder will do, in the same IEEE operations on float64, and stores every
element that comes out too far away. So the bound rests on integers and a product, not on a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.escapes import get_exceptions, put_exceptions
from narrows.compression.format.integer_arrays import decode_integers, encode_integers
from narrows.compression.format.lossless import (
    decode_exact,
    encode_exact,
    filled,
    from_ordered,
    inner,
    numbers,
    outer,
    pairs,
    to_ordered,
)
from narrows.compression.format.plan_integers import SAMPLE, sample_of
from narrows.exceptions import Corrupt

Array = NDArray[Any]
EXACT, FLOATS, INTEGERS, COARSE = range(4)  # forms of a payload
FINE = 127  # s where levels predict off the grid
LIMIT = 2.0**62
HALF_ROOT = 0.7071067811865475  # below √½: both parts of a complex number within it
SMALLEST = 2.0**-1000
LARGEST = 2.0**1000
MOST_ERROR = 2**30  # of integers that levels predict off the grid
ENDS = (4, 20)  # k


def encode_bounded(x: Array, error: float, prediction: Array | None = None) -> bytes:
    """Any array such that every number comes back within ``error``.

    NaN, infinities and whatever the grid misses come back bit for bit; of complex numbers the
    distance is within ``error``; bool is always exact.

    Parameters
    ----------
    x : any shape, bool, integers, floats or complex
    error : 0 or more, in the units of x
    prediction : float64 (complex128 for complex x), like x; the decoder must have the same

    Examples
    --------
    >>> x = np.sin(np.arange(1000) / 50)
    >>> payload = encode_bounded(x, 1e-3)
    >>> len(payload) < 200
    True
    >>> bool(abs(decode_bounded(payload, x.shape, x.dtype, 1e-3) - x).max() <= 1e-3)
    True
    """
    x = np.asarray(x)
    error = _bound(error, x.dtype)
    plain, expected = numbers(x), pairs(prediction, x.dtype)
    if not plain.size:
        return b""
    way = None
    if plain.dtype.kind == "f" and error > 0:
        way = _encode_floats(plain, error, expected)
    elif plain.dtype.kind != "f" and error >= 1:
        way = _encode_integers(plain, floor(error), expected)
    if way is None or len(way) > 0.7 * plain.nbytes:
        exact = bytes([EXACT]) + encode_exact(plain, expected)
        way = exact if way is None else min(way, exact, key=len)
    return way


def decode_bounded(
    payload: bytes,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    error: float,
    prediction: Array | None = None,
) -> Array:
    """What `encode_bounded` made of an array; ``Corrupt`` for bytes that it never wrote."""
    dtype = np.dtype(dtype)
    error = _bound(error, dtype)
    axes, kind = inner(shape, dtype)
    expected = pairs(prediction, dtype)
    if 0 in axes:
        if payload:
            raise Corrupt("an empty array is followed by bytes")
        return np.zeros(shape, dtype)
    form = payload[0] if payload else -1
    if form == EXACT:
        out = decode_exact(payload[1:], axes, kind, expected)
    elif form == FLOATS and kind.kind == "f" and error > 0:
        out = _decode_floats(payload, axes, kind, error, expected)
    elif form in (INTEGERS, COARSE) and kind.kind != "f" and error >= 1:
        out = _decode_integers(payload, axes, kind, floor(error), expected)
    else:
        raise Corrupt("the numbers are coded in a way that is not known")
    return outer(out, shape, dtype)


def _bound(error: float, dtype: np.dtype[Any]) -> float:
    """The largest error of one real number."""
    if not error >= 0:
        raise ValueError(f"the largest error must be 0 or more, not {error}")
    if dtype.kind == "b":
        return 0.0
    return min(float(error), LARGEST) * (HALF_ROOT if dtype.kind == "c" else 1.0)


def _delta(error: float, k: int, step: int) -> float:
    """The distance of two neighbours on the grid: three IEEE operations."""
    return 2 * error * (1 - 2.0**-k) / step


def _on_grid(x: Array, delta: float) -> tuple[Array, Array]:
    """(q, where there is none) of float64; of a prediction too."""
    with np.errstate(over="ignore", invalid="ignore"):
        q = np.rint(x / delta)
        lost = ~(np.abs(q) <= LIMIT)
    return np.where(lost, 0.0, q).astype(np.int64), lost


def _off_grid(q: Array, delta: float, dtype: np.dtype[Any]) -> Array:
    """x' = dtype(δ · q)."""
    with np.errstate(over="ignore", under="ignore"):
        return (q.astype(np.float64) * delta).astype(dtype)


def _tightness(x: Array, error: float) -> int:
    """k: what rounding to the dtype may add must fit between the step and 2E."""
    some = np.abs(x.ravel()[:: max(1, x.size // 8192)])
    some = some[np.isfinite(some)]
    if not some.size:
        return ENDS[1]
    with np.errstate(all="ignore"):
        usual = np.quantile(some.astype(np.float64), 0.999, method="lower").astype(x.dtype)
        half = float(np.spacing(usual)) / 2
    if not isfinite(half) or half == 0:
        return ENDS[0]
    return int(min(max(floor(log2(error) - log2(half)), ENDS[0]), ENDS[1]))


def _encode_floats(x: Array, error: float, prediction: Array | None) -> bytes | None:
    """On the grid; None where that makes no sense."""
    k = _tightness(x, error)
    ways = [step for step in (1, FINE) if _delta(error, k, step) >= SMALLEST]
    if not ways:
        return None
    if x.size > SAMPLE and len(ways) > 1:
        box = sample_of(x.reshape(x.shape or (1,)))
        some = None if prediction is None else prediction.reshape(x.shape)[box]
        ways = [min(ways, key=lambda step: len(_floats(x[box], error, k, step, some) or x.data))]
    done = [_floats(x, error, k, step, prediction) for step in ways]
    return min((way for way in done if way is not None), key=len, default=None)


def _floats(x: Array, error: float, k: int, step: int, prediction: Array | None) -> bytes | None:
    delta = _delta(error, k, step)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = x.astype(np.float64)
    q, lost = _on_grid(wide, delta)
    if 2 * int((lost & np.isfinite(wide)).sum()) > x.size:
        return None
    q = filled(q, lost)
    guess = None if prediction is None else _on_grid(prediction, delta)[0]
    body = encode_integers(q, guess, step=step, free=lost if lost.any() else None)
    back = q if step == 1 else decode_integers(body, q.shape, guess, step=step)
    wrong = _wrong(wide, _off_grid(back, delta, x.dtype), error)
    return bytes([FLOATS, k, step]) + put_exceptions(x, wrong) + body


def _wrong(x: Array, back: Array, error: float) -> Array:
    """Where the error may be too large: a difference rounded to below E is below E."""
    with np.errstate(over="ignore", invalid="ignore"):
        wrong: Array = ~(np.abs(x - back.astype(np.float64)) < error)
    return wrong


def _decode_floats(
    payload: bytes,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    error: float,
    prediction: Array | None,
) -> Array:
    if len(payload) < 4 or not ENDS[0] <= payload[1] <= ENDS[1] or payload[2] not in (1, FINE):
        raise Corrupt("the grid of the numbers is not known")
    delta = _delta(error, payload[1], payload[2])
    places, values, at = get_exceptions(payload, 3, shape, dtype)
    guess = None if prediction is None else _on_grid(prediction, delta)[0]
    q = decode_integers(payload[at:], shape, guess, step=payload[2])
    x = np.ascontiguousarray(_off_grid(q, delta, dtype))
    x.reshape(-1)[places] = values
    return x


def _guess(prediction: Array | None, dtype: np.dtype[Any], step: int) -> Array | None:
    """A prediction of integers in steps."""
    if prediction is None:
        return None
    if dtype.kind == "u" and dtype.itemsize == 8:
        prediction = prediction - 2.0**63
    return _on_grid(prediction, float(step))[0]


def _encode_integers(x: Array, error: int, prediction: Array | None) -> bytes | None:
    """Integers within ``error`` ≥ 1: levels on the numbers themselves, or multiples of 2E + 1."""
    error = min(error, 2**61)
    step = 2 * error + 1
    exact = to_ordered(x)
    q = exact // step
    q += exact - q * step > error
    ways = [bytes([COARSE]) + encode_integers(q, _guess(prediction, x.dtype, step))]
    if error < MOST_ERROR and np.abs(exact.astype(np.float64)).max() < LIMIT:
        guess = _guess(prediction, x.dtype, 1)
        ways.append(bytes([INTEGERS]) + encode_integers(exact, guess, step=step))
    return min(ways, key=len)


def _decode_integers(
    payload: bytes,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    error: int,
    prediction: Array | None,
) -> Array:
    error = min(error, 2**61)
    step = 2 * error + 1
    if payload[0] == INTEGERS:
        if error >= MOST_ERROR:
            raise Corrupt("the integers are coded in a way that is not known")
        q = decode_integers(payload[1:], shape, _guess(prediction, dtype, 1), step=step)
    else:
        q = decode_integers(payload[1:], shape, _guess(prediction, dtype, step))
        most = (2**63 - 1) // step
        top, bottom = q > most, q < -most
        q = np.where(top, 2**63 - 1, np.where(bottom, -(2**63), q * np.int64(step)))
    if not (dtype.kind == "u" and dtype.itemsize == 8):
        info = np.iinfo(dtype)
        q = np.clip(q, info.min, info.max)
    return from_ordered(q, dtype)
