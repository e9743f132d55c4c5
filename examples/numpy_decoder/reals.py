"""Numbers of all kinds as integers ("0: raw", "1: deflate", "Numbers as integers")."""

from __future__ import annotations

import math
import struct

import numpy as np

from .container import inflate, need
from .integers import Shape, integers

Prediction = np.ndarray | None
TOP = np.uint64(1 << 63)
FAR = float(1 << 62)


def raw(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Method 0."""
    exact = len(data) == math.prod(shape) * dtype.itemsize
    need(exact, "A raw chunk has another length than it must have.")
    return np.frombuffer(data, dtype).reshape(shape)


def deflate(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Method 1: first bytes of all numbers, second bytes …; a complex number is two."""
    size = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    plain = inflate(data, math.prod(shape) * dtype.itemsize, "A chunk")
    shuffled = np.frombuffer(plain, np.uint8).reshape(size, -1)
    return np.frombuffer(shuffled.T.tobytes(), dtype).reshape(shape)


def chunk(data: bytes, shape: Shape, dtype: np.dtype, error: float, p: Prediction) -> np.ndarray:
    """The payload of method 2: bounded by an error above 0, else exact."""
    number = dtype
    if dtype.kind == "b":
        number = np.dtype(np.uint8)
    elif dtype.kind == "c":
        number, shape = np.dtype(f"<f{dtype.itemsize // 2}"), (*shape, 2)
    shape = shape or (1,)
    if not math.prod(shape):
        need(not data, "A chunk of no elements has bytes.")
        return np.zeros(shape, number).view(dtype)
    p = None if p is None else p.reshape(shape)
    with np.errstate(all="ignore"):
        if error > 0:
            out = bounded(data, shape, number, error_for(dtype, error), p)
        else:
            out = exact(data, shape, number, p)
    return out.view(dtype)


def error_for(dtype: np.dtype, error: float) -> float:
    error = min(error, 2.0**1000)
    return {"c": error * 0.7071067811865475, "b": 0.0}.get(dtype.kind, error)


def bounded(data: bytes, shape: Shape, dtype: np.dtype, error: float, p: Prediction) -> np.ndarray:
    need(data and data[0] < 4, "A bounded chunk has no form that is known.")
    form, data, floats = data[0], data[1:], dtype.kind == "f"
    if form == 0:
        return exact(data, shape, dtype, p)
    if form == 1:
        need(floats and error > 0, "A grid is for floats and an error above 0.")
        return grid(data, shape, dtype, error, p)
    need(not floats and error >= 1, "This form of integers needs an error of at least 1.")
    if p is not None and dtype == np.uint64:
        p = p - 2.0**63
    if form == 2:
        need(error < 1 << 30, "Levels need an error below 2^30.")
        q = integers(data, shape, 2 * int(error) + 1, None if p is None else nearest(p))
    else:
        w = 2 * min(int(error), 1 << 61) + 1
        q = integers(data, shape, 1, None if p is None else nearest(p / float(w)))
        m = ((1 << 63) - 1) // w
        inner = np.clip(q, -m, m) * np.int64(w)
        q = np.where(q > m, (1 << 63) - 1, np.where(q < -m, -(1 << 63), inner))
    if dtype != np.uint64:
        q = np.clip(q, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return numbers_of(q, dtype)


def nearest(p: np.ndarray) -> np.ndarray:
    """rint, but 0 outside ±2⁶²."""
    p = np.rint(p)
    return np.where(np.abs(p) <= FAR, p, 0).astype(np.int64)


def grid(data: bytes, shape: Shape, dtype: np.dtype, error: float, p: Prediction) -> np.ndarray:
    need(len(data) >= 3 and 4 <= data[0] <= 20 and data[1] in (1, 127), "A grid is not known.")
    k, s = data[0], data[1]
    delta = ((2 * error) * (1 - 2.0**-k)) / s
    exceptions, data = read_exceptions(data[2:], shape, dtype)
    q = integers(data, shape, s, None if p is None else nearest(p / delta))
    return put((delta * q.astype(np.float64)).astype(dtype), exceptions)


def exact(data: bytes, shape: Shape, dtype: np.dtype, p: Prediction) -> np.ndarray:
    need(data and data[0] < 2, "An exact chunk is neither ordered nor decimal.")
    if data[0] == 0:
        return numbers_of(integers(data[1:], shape, 1, ordered(p, dtype)), dtype)
    need(dtype.kind == "f" and len(data) > 2 and data[1] <= 12, "Decimals are broken.")
    exceptions, rest = read_exceptions(data[2:], shape, dtype)
    q = integers(rest, shape)
    out = (q.astype(np.float64) / 10.0 ** data[1]).astype(dtype)
    return put(out, exceptions)


def numbers_of(q: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Way 0: the numbers of ordered integers."""
    if dtype == np.uint64:
        return q.view(np.uint64) ^ TOP
    bits = dtype if dtype.kind != "f" else np.dtype(f"<i{dtype.itemsize}")
    limits = np.iinfo(bits)
    inside = q.min() >= limits.min and q.max() <= limits.max
    need(inside, "A number is outside of its dtype.")
    if dtype.kind == "f":
        q = np.where(q >= 0, q, q ^ limits.max)
    return q.astype(bits).view(dtype)


def ordered(p: Prediction, dtype: np.dtype) -> Prediction:
    """The ordered integers of a prediction."""
    if p is None:
        return None
    p = np.where(np.isnan(p), 0.0, p)
    if dtype.kind == "f":
        bits = np.dtype(f"<i{dtype.itemsize}")
        q = p.astype(dtype).view(bits).astype(np.int64)
        return np.where(q >= 0, q, q ^ np.iinfo(bits).max)
    if dtype == np.uint64:
        p = p - 2.0**63
    return np.rint(np.clip(p, -FAR, FAR)).astype(np.int64)


Exceptions = tuple[np.ndarray, np.ndarray] | None  # positions, numbers


def read_exceptions(data: bytes, shape: Shape, dtype: np.dtype) -> tuple[Exceptions, bytes]:
    """The exceptions (elements stored exactly), and the rest of the payload."""
    need(data and data[0] < 3, "Exceptions are of no kind that is known.")
    if data[0] == 0:
        return None, data[1:]
    need(len(data) >= 13, "Exceptions are cut off.")
    kind, n, a, b = struct.unpack_from("<BIII", data)
    size = math.prod(shape)
    need(0 < n <= size and 13 + a + b <= len(data), "Exceptions are too many, or cut off.")
    where, what, rest = data[13 : 13 + a], data[13 + a : 13 + a + b], data[13 + a + b :]
    if kind == 1:
        places = integers(where, (n,))
        rising = (np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < size
        need(rising, "The positions of exceptions do not rise within the array.")
    else:
        flags = integers(where, shape).ravel()
        need(flags.min() >= 0 and flags.max() <= 1, "The flags of exceptions are not 0 or 1.")
        places = np.flatnonzero(flags)
        need(len(places) == n, "The flags of exceptions are not as many as they say.")
    return (places, deflate(what, (n,), dtype)), rest


def put(out: np.ndarray, exceptions: Exceptions) -> np.ndarray:
    if exceptions is not None:
        out.reshape(-1)[exceptions[0]] = exceptions[1]
    return out
