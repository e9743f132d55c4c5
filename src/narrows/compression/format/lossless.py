"""Arrays of any numbers without loss: as they are, deflated, or as integers in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.escapes import get_exceptions, put_exceptions
from narrows.compression.format.integer_arrays import decode_integers, encode_integers
from narrows.compression.format.raw_bytes import decode_deflate, decode_raw, encode_deflate
from narrows.exceptions import Corrupt

Array = NDArray[Any]
RAW, DEFLATE, INTEGERS = range(3)  # methods of a chunk
ORDERED, DECIMAL = range(2)  # forms of a payload of integers
MOST_DIGITS = 12  # after the point
TENS = 10.0 ** np.arange(MOST_DIGITS + 1)  # exact
LIMIT = 2.0**62


def numbers(x: Array) -> Array:
    """The array as real little-endian numbers in C order: a complex one is two, bool is uint8.

    One without axes gets one.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biufc" or x.dtype.itemsize > 16 or x.dtype.kind + x.dtype.char == "fg":
        raise TypeError(f"{x.dtype} is no dtype that can be coded")
    x = np.atleast_1d(np.asarray(x, x.dtype.newbyteorder("<"), order="C"))
    if x.dtype.kind == "b":
        return x.view(np.uint8)
    if x.dtype.kind == "c":
        return x.reshape(*x.shape, 1).view(f"<f{x.dtype.itemsize // 2}")
    return x


def inner(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of `numbers` of such an array."""
    dtype, axes = np.dtype(dtype).newbyteorder("<"), tuple(shape) or (1,)
    if dtype.kind == "b":
        return axes, np.dtype("u1")
    if dtype.kind == "c":
        return (*axes, 2), np.dtype(f"<f{dtype.itemsize // 2}")
    return axes, dtype


def outer(x: Array, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The inverse of `numbers`: in the dtype asked for, its byte order too."""
    little = np.dtype(dtype).newbyteorder("<")
    if little.kind == "b" and (x > 1).any():
        raise Corrupt("a truth value is neither 0 nor 1")
    return np.ascontiguousarray(x).view(little).reshape(shape).astype(dtype, copy=False)


def pairs(prediction: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """A prediction as real float64, like `numbers`."""
    if prediction is None:
        return None
    if np.dtype(dtype).kind == "c":
        p = np.ascontiguousarray(prediction, np.complex128)  # with one axis at least
        return p.reshape(*p.shape, 1).view(np.float64)
    return np.atleast_1d(np.asarray(prediction, np.float64))


def to_ordered(x: Array) -> Array:
    """Real numbers as int64 in the same order; of floats, the bits with the sign made two's."""
    if x.dtype.kind == "f":
        bits = x.view(f"<i{x.dtype.itemsize}").astype(np.int64)
        return np.where(bits < 0, bits ^ np.iinfo(f"i{x.dtype.itemsize}").max, bits)
    if x.dtype.itemsize == 8 and x.dtype.kind == "u":
        return (x ^ np.uint64(1 << 63)).view(np.int64)
    return x.astype(np.int64)


def from_ordered(q: Array, dtype: np.dtype[Any]) -> Array:
    """The inverse of `to_ordered`; ``Corrupt`` for what no number of the dtype is mapped to."""
    size = dtype.itemsize
    if dtype.kind == "u" and size == 8:
        return q.view(np.uint64) ^ np.uint64(1 << 63)
    info = np.iinfo(dtype if dtype.kind in "iu" else f"i{size}")
    if q.size and (q.min() < info.min or q.max() > info.max):
        raise Corrupt("an integer is outside of its dtype")
    if dtype.kind == "f":
        q = np.where(q < 0, q ^ info.max, q)
        return q.astype(f"<i{size}").view(dtype)
    return q.astype(dtype)


def predicted(prediction: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """A prediction in float64 as ordered integers of ``dtype``."""
    if prediction is None:
        return None
    p = np.where(np.isnan(prediction), 0.0, prediction)
    if dtype.kind == "f":
        with np.errstate(over="ignore", under="ignore"):
            return to_ordered(p.astype(dtype))
    if dtype.kind == "u" and dtype.itemsize == 8:
        p = p - 2.0**63
    out: Array = np.rint(np.clip(p, -LIMIT, LIMIT)).astype(np.int64)
    return out


def encode_exact(x: Array, prediction: Array | None = None) -> bytes:
    """Real numbers (as `numbers` gives them) as coded integers, without loss."""
    ways = []
    if x.dtype.kind == "f" and x.size and prediction is None:
        digits = _digits(x)
        if digits is not None:
            ways.append(_encode_decimal(x, digits))
    ways.append(bytes([ORDERED]) + encode_integers(to_ordered(x), predicted(prediction, x.dtype)))
    return min(ways, key=len)


def decode_exact(
    payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], prediction: Array | None = None
) -> Array:
    """The inverse of `encode_exact`."""
    if not payload:
        raise Corrupt("the numbers are missing")
    if payload[0] == ORDERED:
        q = decode_integers(payload[1:], shape, predicted(prediction, dtype))
        return from_ordered(q, dtype)
    if payload[0] != DECIMAL or dtype.kind != "f" or len(payload) < 2 or payload[1] > MOST_DIGITS:
        raise Corrupt("the numbers are coded in a way that is not known")
    places, values, at = get_exceptions(payload, 2, shape, dtype)
    q = decode_integers(payload[at:], shape)
    x = _from_decimal(q, payload[1], dtype)
    x.reshape(-1)[places] = values
    return x


def _from_decimal(q: Array, digits: int, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray((q / TENS[digits]).astype(dtype))


def _to_decimal(x: Array, digits: int) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        q = np.rint(x.astype(np.float64) * TENS[digits])
        return np.where(np.abs(q) < LIMIT, q, 0.0).astype(np.int64)


def _same(a: Array, b: Array) -> Array:
    kind = f"<i{a.dtype.itemsize}"
    same: Array = a.view(kind) == b.view(kind)
    return same


def _digits(x: Array) -> int | None:
    """With how few digits after the point nearly all of a sample are written exactly."""
    some = np.ascontiguousarray(x.ravel()[:: max(1, x.size // 4096)])
    for digits in range(MOST_DIGITS + 1):
        back = _from_decimal(_to_decimal(some, digits), digits, x.dtype)
        if _same(some, back).mean() > 0.95:
            return digits
    return None


def _encode_decimal(x: Array, digits: int) -> bytes:
    q = _to_decimal(x, digits)
    wrong = ~_same(x, _from_decimal(q, digits, x.dtype))
    head = bytes([DECIMAL, digits]) + put_exceptions(x, wrong)
    return head + encode_integers(filled(q, wrong))


def filled(q: Array, wrong: Array) -> Array:
    """Integers where some do not matter: these become the one before them on the last axis."""
    if not wrong.any() or not q.ndim:
        return q
    at = np.where(wrong, 0, np.arange(q.shape[-1]))
    np.maximum.accumulate(at, axis=-1, out=at)
    # what nothing stands before takes the first that counts
    first = np.argmin(wrong, axis=-1)[..., None]
    q = np.take_along_axis(q, np.maximum(at, first), -1)
    lost = wrong.all(axis=-1)  # rows without any that counts
    if lost.any() and not lost.all():
        q[lost] = int(np.median(q[~lost]))
    elif lost.all():
        q[...] = 0
    return q


def encode_lossless(x: Array, prediction: Array | None = None) -> tuple[int, bytes]:
    """Any array in the smallest of three methods: (method, payload).

    >>> encode_lossless(np.arange(1000))[1]
    b'...'
    """
    plain = numbers(x)
    data = plain.tobytes()
    ways = [(RAW, data), (DEFLATE, encode_deflate(data, plain.dtype.itemsize))]
    if plain.size:
        ways.append((INTEGERS, encode_exact(plain, pairs(prediction, np.asarray(x).dtype))))
    return min(ways, key=lambda way: len(way[1]))


def decode_lossless(
    method: int,
    payload: bytes,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    prediction: Array | None = None,
) -> Array:
    """The array that `encode_lossless` took."""
    dtype = np.dtype(dtype)
    axes, kind = inner(shape, dtype)
    n_bytes = prod(axes) * kind.itemsize
    if method == INTEGERS:
        return outer(decode_exact(payload, axes, kind, pairs(prediction, dtype)), shape, dtype)
    if method == RAW:
        data = decode_raw(payload, n_bytes)
    elif method == DEFLATE:
        data = decode_deflate(payload, n_bytes, kind.itemsize)
    else:
        raise Corrupt(f"there is no lossless method {method}")
    return outer(np.frombuffer(data, kind).copy(), shape, dtype)
