"""Lossless coding of arrays: methods 0 to 2 of a chunk.

    0  raw        the bytes as they are
    1  deflate    all first bytes of the numbers, then all second bytes, ..., through zlib
    2  integers   the numbers as int64 in the same order (or as decimals), by `integer_arrays`

Also here: *exceptions*, the elements of an array that another method cannot code, stored with their
positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.integer_arrays import decode_integers, encode_integers, inflate
from narrows.exceptions import Corrupt

RAW, DEFLATE, INTEGERS = range(3)  # methods of a chunk
ORDERED, DECIMAL = range(2)  # forms of a payload of integers
MAX_DIGITS = 12  # after the decimal point
TENS = 10.0 ** np.arange(MAX_DIGITS + 1)  # exact in float64
LIMIT = 2.0**62  # of integers made of floats: sums of two of them still fit int64
NONE, LISTED, MASKED = range(3)  # how positions of exceptions are stored
LISTED_BELOW = 64  # positions are listed where fewer than one element in so many is an exception


def decode_raw(payload: bytes, nbytes: int) -> bytes:
    """The payload itself, which must have ``nbytes`` bytes."""
    if len(payload) != nbytes:
        raise Corrupt(f"raw data has {len(payload)} bytes where {nbytes} belong")
    return payload


def encode_deflate(data: bytes | memoryview, itemsize: int, level: int = 6) -> bytes:
    """Numbers of ``itemsize`` bytes: all first bytes, all second bytes, ..., deflated.

    >>> decode_deflate(encode_deflate(bytes(range(12)), 4), 12, 4) == bytes(range(12))
    True
    """
    planes = np.frombuffer(data, np.uint8).reshape(-1, itemsize).T
    return zlib.compress(np.ascontiguousarray(planes).data, level)


def decode_deflate(payload: bytes, nbytes: int, itemsize: int) -> bytes:
    """The ``nbytes`` bytes that `encode_deflate` was given."""
    if nbytes % itemsize:
        raise Corrupt(f"{nbytes} bytes are not a whole number of elements of {itemsize} bytes")
    data = decode_raw(inflate(payload, nbytes), nbytes)
    return np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def to_real(x: Array) -> Array:
    """The array as real little-endian numbers in C order, with at least one axis.

    A complex number becomes two on a new last axis, bool becomes uint8.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biufc" or x.dtype.itemsize > 16 or x.dtype.kind + x.dtype.char == "fg":
        raise TypeError(f"arrays of {x.dtype} cannot be coded; give booleans or numbers")
    x = np.atleast_1d(np.asarray(x, x.dtype.newbyteorder("<"), order="C"))
    if x.dtype.kind == "b":
        return x.view(np.uint8)
    if x.dtype.kind == "c":
        return x.reshape(*x.shape, 1).view(f"<f{x.dtype.itemsize // 2}")
    return x


def real_form(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of `to_real` of an array with this shape and dtype."""
    dtype, axes = np.dtype(dtype).newbyteorder("<"), tuple(shape) or (1,)
    if dtype.kind == "b":
        return axes, np.dtype("u1")
    if dtype.kind == "c":
        return (*axes, 2), np.dtype(f"<f{dtype.itemsize // 2}")
    return axes, dtype


def from_real(x: Array, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The inverse of `to_real`, with the byte order of ``dtype``."""
    little = np.dtype(dtype).newbyteorder("<")
    if little.kind == "b" and (x > 1).any():
        raise Corrupt("a truth value is neither 0 nor 1")
    return np.ascontiguousarray(x).view(little).reshape(shape).astype(dtype, copy=False)


def to_ordered(x: Array) -> Array:
    """Real numbers as int64 in the same order.

    Of floats, the bits as a signed integer, all but the sign flipped where it is negative.
    """
    if x.dtype.kind == "f":
        bits = x.view(f"<i{x.dtype.itemsize}").astype(np.int64)
        return np.where(bits < 0, bits ^ np.iinfo(f"i{x.dtype.itemsize}").max, bits)
    if x.dtype.itemsize == 8 and x.dtype.kind == "u":
        return (x ^ np.uint64(1 << 63)).view(np.int64)
    return x.astype(np.int64)


def from_ordered(q: Array, dtype: np.dtype[Any]) -> Array:
    """The inverse of `to_ordered`; ``Corrupt`` for integers that no number of the dtype has."""
    size = dtype.itemsize
    if dtype.kind == "u" and size == 8:
        return q.view(np.uint64) ^ np.uint64(1 << 63)
    info = np.iinfo(dtype if dtype.kind in "iu" else f"i{size}")
    if q.size and (q.min() < info.min or q.max() > info.max):
        raise Corrupt("an integer is outside of its dtype")
    if dtype.kind == "f":
        return np.where(q < 0, q ^ info.max, q).astype(f"<i{size}").view(dtype)
    return q.astype(dtype)


def _ordered_prediction(prediction: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """A prediction in float64 as ordered integers of ``dtype``."""
    if prediction is None:
        return None
    p = np.where(np.isnan(prediction), 0.0, prediction)
    if dtype.kind == "f":
        with np.errstate(over="ignore", under="ignore"):
            return to_ordered(p.astype(dtype))
    if dtype.kind == "u" and dtype.itemsize == 8:
        p = p - 2.0**63
    return np.asarray(np.rint(np.clip(p, -LIMIT, LIMIT)), np.int64)


def encode_exact(x: Array, prediction: Array | None = None) -> bytes:
    """Real numbers, as `to_real` gives them, as coded integers, without loss.

    ``prediction`` is float64, of the shape of x; the decoder must be given the same.
    """
    ways = []
    if x.dtype.kind == "f" and x.size and prediction is None:
        digits = _decimal_digits(x)
        if digits is not None:
            ways.append(_encode_decimal(x, digits))
    expected = _ordered_prediction(prediction, x.dtype)
    ways.append(bytes([ORDERED]) + encode_integers(to_ordered(x), expected))
    return min(ways, key=len)


def decode_exact(
    payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], prediction: Array | None = None
) -> Array:
    """The inverse of `encode_exact`."""
    if not payload:
        raise Corrupt("the numbers are missing")
    if payload[0] == ORDERED:
        q = decode_integers(payload[1:], shape, _ordered_prediction(prediction, dtype))
        return from_ordered(q, dtype)
    if payload[0] != DECIMAL or dtype.kind != "f" or len(payload) < 2 or payload[1] > MAX_DIGITS:
        raise Corrupt("the numbers are coded in an unknown way")
    places, values, at = get_exceptions(payload, 2, shape, dtype)
    x = _from_decimal(decode_integers(payload[at:], shape), payload[1], dtype)
    x.reshape(-1)[places] = values
    return x


def _from_decimal(q: Array, digits: int, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray((q / TENS[digits]).astype(dtype))


def _to_decimal(x: Array, digits: int) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        q = np.rint(x.astype(np.float64) * TENS[digits])
        return np.where(np.abs(q) < LIMIT, q, 0.0).astype(np.int64)


def _same_bits(a: Array, b: Array) -> Array:
    kind = f"<i{a.dtype.itemsize}"
    return np.asarray(a.view(kind) == b.view(kind))


def _decimal_digits(x: Array) -> int | None:
    """The fewest digits after the point that write 95 % of a sample exactly, if any do."""
    sample = np.ascontiguousarray(x.ravel()[:: max(1, x.size // 4096)])
    for digits in range(MAX_DIGITS + 1):
        back = _from_decimal(_to_decimal(sample, digits), digits, x.dtype)
        if _same_bits(sample, back).mean() > 0.95:
            return digits
    return None


def _encode_decimal(x: Array, digits: int) -> bytes:
    q = _to_decimal(x, digits)
    wrong = ~_same_bits(x, _from_decimal(q, digits, x.dtype))
    head = bytes([DECIMAL, digits]) + put_exceptions(x, wrong)
    return head + encode_integers(fill_gaps(q, wrong))


def fill_gaps(q: Array, unused: Array) -> Array:
    """Integers where the ``unused`` ones become the one before them on the last axis.

    Values that the decoder does not use should cost few bits.
    """
    if not unused.any() or not q.ndim:
        return q
    at = np.where(unused, 0, np.arange(q.shape[-1]))
    np.maximum.accumulate(at, axis=-1, out=at)
    # unused ones at the start of a row take the row's first used one
    first = np.argmin(unused, axis=-1)[..., None]
    q = np.take_along_axis(q, np.maximum(at, first), -1)
    empty = unused.all(axis=-1)
    if empty.any():
        q[empty] = 0 if empty.all() else int(np.median(q[~empty]))
    return q


def put_exceptions(x: Array, wrong: Array) -> bytes:
    """The elements of ``x`` where ``wrong`` is set: how many, where, and their bits."""
    places = np.flatnonzero(wrong)
    if not len(places):
        return bytes([NONE])
    values = encode_deflate(x.ravel()[places].tobytes(), x.dtype.itemsize)
    if len(places) * LISTED_BELOW < x.size:
        kind, where = LISTED, encode_integers(places)
    else:
        kind, where = MASKED, encode_integers(wrong.astype(np.int64))
    sizes = b"".join(n.to_bytes(4, "little") for n in (len(places), len(where), len(values)))
    return bytes([kind]) + sizes + where + values


def get_exceptions(
    data: bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array, int]:
    """(positions in C order, values, end) of the exceptions that start at ``at``."""
    kind = data[at] if at < len(data) else -1
    if kind == NONE:
        return np.empty(0, np.intp), np.empty(0, dtype), at + 1
    if kind not in (LISTED, MASKED) or len(data) < at + 13:
        raise Corrupt("the exceptions begin wrongly")
    count, n_where, n_values = (
        int.from_bytes(data[i : i + 4], "little") for i in range(at + 1, at + 13, 4)
    )
    start, size = at + 13, prod(shape)
    middle, end = start + n_where, start + n_where + n_values
    if not 0 < count <= size or end > len(data):
        raise Corrupt("the exceptions do not fit")
    if kind == LISTED:
        places = decode_integers(data[start:middle], (count,))
        fine = places[0] >= 0 and places[-1] < size and (places[1:] > places[:-1]).all()
    else:
        mask = decode_integers(data[start:middle], shape)
        fine = not (mask >> 1).any() and int(mask.sum()) == count
        places = np.flatnonzero(mask)
    if not fine:
        raise Corrupt("the positions of the exceptions are wrong")
    values = decode_deflate(data[middle:end], count * dtype.itemsize, dtype.itemsize)
    return places, np.frombuffer(values, dtype), end


def encode_lossless(x: Array) -> tuple[int, bytes]:
    """Any array by the smallest of the three methods: (method, payload).

    >>> encode_lossless(np.arange(1000))[1]
    b'...'
    """
    real = to_real(x)
    data = real.tobytes()
    ways = [(RAW, data), (DEFLATE, encode_deflate(data, real.dtype.itemsize))]
    if real.size:
        ways.append((INTEGERS, encode_exact(real)))
    return min(ways, key=lambda way: len(way[1]))


def decode_lossless(
    method: int, payload: bytes, shape: Sequence[int], dtype: np.dtype[Any]
) -> Array:
    """The array that `encode_lossless` was given."""
    axes, kind = real_form(shape, dtype)
    nbytes = prod(axes) * kind.itemsize
    if method == INTEGERS:
        return from_real(decode_exact(payload, axes, kind), shape, dtype)
    if method == RAW:
        data = decode_raw(payload, nbytes)
    elif method == DEFLATE:
        data = decode_deflate(payload, nbytes, kind.itemsize)
    else:
        raise Corrupt(f"there is no lossless method {method}")
    return from_real(np.frombuffer(data, kind).copy(), shape, dtype)
