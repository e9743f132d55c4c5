"""The error bound: arrays such that every number comes back within a largest error E.

Floats become integers on a grid; numbers that the grid misses are stored exactly, as exceptions.

    floats:     δ = 2E(1 − 2⁻ᵏ) / s,   q = rint(x / δ) within ⌊s / 2⌋,   x' = dtype(δ · q)
    integers:   q = x within ⌊E⌋, or x' = (2⌊E⌋ + 1) · q

The encoder repeats what the decoder will do, in the same IEEE operations on float64, and stores
every element that would come back too far off. So the bound rests on integers and one product, and
holds however bad a prediction is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log2
from typing import Any

import numpy as np

from narrows.compression.format import Array, lossless
from narrows.compression.format.integer_arrays import (
    MAX_SAMPLE,
    decode_integers,
    encode_integers,
    sample_box,
)
from narrows.exceptions import Corrupt

Form = tuple[tuple[int, ...], np.dtype[Any]]  # shape and dtype of real numbers
EXACT, FLOATS, INTEGERS, COARSE = range(4)  # forms of a payload
FINE = 127  # s where levels are predicted between the grid's points
HALF_ROOT = 0.7071067811865475  # just below √½: a bound for both parts of a complex number
MIN_DELTA = 2.0**-1000
MAX_FLOAT_ERROR = 2.0**1000  # larger bounds act like this one
MAX_LEVELS_ERROR = 2**30  # of integers, for levels
MAX_INTEGER_ERROR = 2**61  # larger bounds act like this one
K_RANGE = (4, 20)
EXACT_BELOW = 0.7  # of the bytes: when a bound saves less than that, exact coding is tried too


def encode_bounded(x: Array, error: float, prediction: Array | None = None) -> bytes:
    """Any array such that every number comes back within ``error``.

    NaN, infinities and numbers that the grid misses come back bit for bit. For complex numbers the
    distance in the plane is within ``error``; bool is always exact.

    Parameters
    ----------
    x : any shape, bool, integers, floats or complex
    error : 0 or more, in the units of x
    prediction : float64, like x, optional
        Expected values of real numbers; the decoder must be given the same.

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
    real = lossless.to_real(x)
    if not real.size:
        return b""
    way = None
    if real.dtype.kind == "f" and error > 0:
        way = _encode_floats(real, error, prediction)
    elif real.dtype.kind != "f" and error >= 1:
        way = _encode_integers(real, floor(error), prediction)
    if way is None or len(way) > EXACT_BELOW * real.nbytes:
        exact = bytes([EXACT]) + lossless.encode_exact(real, prediction)
        way = min(way or exact, exact, key=len)
    return way


def decode_bounded(
    payload: bytes,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    error: float,
    prediction: Array | None = None,
) -> Array:
    """The array that `encode_bounded` coded, within ``error``; ``Corrupt`` for damaged bytes."""
    dtype = np.dtype(dtype)
    error = _bound(error, dtype)
    axes, kind = lossless.real_form(shape, dtype)
    if 0 in axes:
        if payload:
            raise Corrupt("an empty array is followed by bytes")
        return np.zeros(shape, dtype)
    form = payload[0] if payload else -1
    if form == EXACT:
        out = lossless.decode_exact(payload[1:], axes, kind, prediction)
    elif form == FLOATS and kind.kind == "f" and error > 0:
        out = _decode_floats(payload, (axes, kind), error, prediction)
    elif form in (INTEGERS, COARSE) and kind.kind != "f" and error >= 1:
        out = _decode_integers(payload, (axes, kind), floor(error), prediction)
    else:
        raise Corrupt("the numbers are coded in an unknown way")
    return lossless.from_real(out, shape, dtype)


def _bound(error: float, dtype: np.dtype[Any]) -> float:
    """The largest error of one real number."""
    if not error >= 0:
        raise ValueError(f"the largest error is {error}; it must be 0 or more")
    if dtype.kind == "b":
        return 0.0
    return min(float(error), MAX_FLOAT_ERROR) * (HALF_ROOT if dtype.kind == "c" else 1.0)


def _delta(error: float, k: int, step: int) -> float:
    """The distance of two neighbours on the grid: three IEEE operations."""
    return 2 * error * (1 - 2.0**-k) / step


def _on_grid(x: Array, delta: float) -> tuple[Array, Array]:
    """(q, where it is beyond ±2⁶² or NaN and set to 0) of float64 values."""
    with np.errstate(over="ignore", invalid="ignore"):
        q = np.rint(x / delta)
        lost = ~(np.abs(q) <= lossless.LIMIT)
    return np.where(lost, 0.0, q).astype(np.int64), lost


def _guess(prediction: Array | None, dtype: np.dtype[Any], step: float) -> Array | None:
    """A prediction in units of ``step``, of integers: of their ordered form."""
    if prediction is None:
        return None
    if dtype.kind == "u" and dtype.itemsize == 8:
        prediction = prediction - 2.0**63
    return _on_grid(prediction, float(step))[0]


def _off_grid(q: Array, delta: float, dtype: np.dtype[Any]) -> Array:
    """x' = dtype(δ · q)."""
    with np.errstate(over="ignore", under="ignore"):
        return (q.astype(np.float64) * delta).astype(dtype)


def _tightness(x: Array, error: float) -> int:
    """k: rounding to the dtype must not carry a number over the difference of 2E and the step."""
    some = np.abs(x.ravel()[:: max(1, x.size // 8192)])
    some = some[np.isfinite(some)]
    if not some.size:
        return K_RANGE[1]
    with np.errstate(all="ignore"):
        usual = np.quantile(some.astype(np.float64), 0.999, method="lower").astype(x.dtype)
        half = float(np.spacing(usual)) / 2
    if not isfinite(half) or half == 0:
        return K_RANGE[0]
    return int(min(max(floor(log2(error) - log2(half)), K_RANGE[0]), K_RANGE[1]))


def _encode_floats(x: Array, error: float, prediction: Array | None) -> bytes | None:
    """Numbers as integers on the grid; None where too few numbers fit it."""
    k = _tightness(x, error)
    ways = [step for step in (1, FINE) if _delta(error, k, step) >= MIN_DELTA]
    if not ways:
        return None
    if x.size > MAX_SAMPLE and len(ways) > 1:
        box = sample_box(x)
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
    q = lossless.fill_gaps(q, lost)
    guess = _guess(prediction, x.dtype, delta)
    body = encode_integers(q, guess, step=step, free=lost if lost.any() else None)
    back = q if step == 1 else decode_integers(body, q.shape, guess, step=step)
    wrong = _wrong(wide, _off_grid(back, delta, x.dtype), error)
    return bytes([FLOATS, k, step]) + lossless.put_exceptions(x, wrong) + body


def _wrong(x: Array, back: Array, error: float) -> Array:
    """Where the error may be too large: a difference that rounds to below E is below E."""
    with np.errstate(over="ignore", invalid="ignore"):
        wrong: Array = ~(np.abs(x - back.astype(np.float64)) < error)
    return wrong


def _decode_floats(payload: bytes, form: Form, error: float, prediction: Array | None) -> Array:
    shape, dtype = form
    k, step = (payload[1], payload[2]) if len(payload) > 3 else (0, 0)
    if not K_RANGE[0] <= k <= K_RANGE[1] or step not in (1, FINE):
        raise Corrupt("the grid of the numbers is unknown")
    delta = _delta(error, k, step)
    places, values, at = lossless.get_exceptions(payload, 3, shape, dtype)
    guess = _guess(prediction, dtype, delta)
    q = decode_integers(payload[at:], shape, guess, step=step)
    x = np.ascontiguousarray(_off_grid(q, delta, dtype))
    x.reshape(-1)[places] = values
    return x


def _encode_integers(x: Array, error: int, prediction: Array | None) -> bytes:
    """Integers within ``error`` ≥ 1: levels on the numbers themselves, or multiples of 2E + 1."""
    error = min(error, MAX_INTEGER_ERROR)
    step = 2 * error + 1
    exact = lossless.to_ordered(x)
    q = exact // step
    q += exact - q * step > error
    ways = [bytes([COARSE]) + encode_integers(q, _guess(prediction, x.dtype, step))]
    if error < MAX_LEVELS_ERROR and np.abs(exact.astype(np.float64)).max() < lossless.LIMIT:
        guess = _guess(prediction, x.dtype, 1)
        ways.append(bytes([INTEGERS]) + encode_integers(exact, guess, step=step))
    return min(ways, key=len)


def _decode_integers(payload: bytes, form: Form, error: int, prediction: Array | None) -> Array:
    shape, dtype = form
    error = min(error, MAX_INTEGER_ERROR)
    step = 2 * error + 1
    if payload[0] == INTEGERS:
        if error >= MAX_LEVELS_ERROR:
            raise Corrupt("the integers are coded in an unknown way")
        q = decode_integers(payload[1:], shape, _guess(prediction, dtype, 1), step=step)
    else:
        q = decode_integers(payload[1:], shape, _guess(prediction, dtype, step))
        largest = (2**63 - 1) // step
        top, bottom = q > largest, q < -largest
        q = np.where(top, 2**63 - 1, np.where(bottom, -(2**63), q * np.int64(step)))
    if not (dtype.kind == "u" and dtype.itemsize == 8):
        info = np.iinfo(dtype)
        q = np.clip(q, info.min, info.max)
    return lossless.from_ordered(q, dtype)
