"""Coders of arrays that are told how far off an element may be: SZ3, ZFP, SPERR, rounding and xz.

- SZ3: X. Liang et al., "SZ3: a modular framework for composing prediction-based error-bounded lossy
  compressors", IEEE Transactions on Big Data 9, 2023. Its defaults (pysz).
- ZFP: P. Lindstrom, "Fixed-rate compressed floating-point arrays", IEEE TVCG 20, 2014. Its mode of
  fixed accuracy (imagecodecs), which is often much more exact than it is asked to be.
- SPERR: S. Li, P. Lindstrom and J. Clyne, "Lossy scientific data compression with SPERR", IPDPS
  2023 (imagecodecs): an array of three dimensions as a whole or slice by slice, what is smaller.
"""

from __future__ import annotations

import lzma
import math
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.compression.other_coders import REFUSALS, Packed, native, package

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Encode = Callable[[Array, float], list[bytes]]
    Decode = Callable[[list[bytes], Array], Array]

STEP = 2 * (1 - 2.0**-20)  # of the bound: room for the roundings on the way
LARGEST_STEP = 2.0**53  # beyond it a float64 does not hold the number of steps
MOST_AXES = 4  # what SZ3 and ZFP take


def bounded(items: list[Array], error: float) -> Iterator[Packed]:
    """A row for each coder that could take all items."""
    arrays = [native(x) for x in items]
    usable = all(x.dtype.kind in "iuf" and np.isfinite(x).all() for x in arrays)
    if not (arrays and usable and math.isfinite(error) and error > 0):
        return
    for name, (encode, decode) in _coders().items():
        try:
            yield _row(name, arrays, error, encode, decode)
        except REFUSALS:  # too many axes, a type or size it does not take
            continue


def _row(name: str, arrays: list[Array], error: float, encode: Encode, decode: Decode) -> Packed:
    nbytes, worst, seconds, back = 0, 0.0, 0.0, 0.0
    for x in arrays:
        given, bound = (x, error) if x.dtype.kind == "f" else (_as_floats(x), _whole(error))
        start = time.perf_counter()
        packed = encode(given, bound)
        middle = time.perf_counter()
        found = decode(packed, given)
        back += time.perf_counter() - middle
        seconds += middle - start
        nbytes += sum(map(len, packed))
        worst = max(worst, largest_error(x, found))
    return Packed(name, nbytes, None, worst, seconds, back)


def _as_floats(x: Array) -> Array:
    """Integers as the smallest floats that hold them all: what these coders were made for."""
    for kind, most in ((np.float32, 2.0**24), (np.float64, 2.0**53)):
        if abs(float(x.min())) <= most and abs(float(x.max())) <= most:
            return x.astype(kind)
    raise ValueError("integers beyond 2^53")


def _whole(error: float) -> float:
    """The largest bound of floats that, once they are rounded, are within the one of integers."""
    return math.floor(error) + 0.499


def largest_error(x: Array, found: Array) -> float:
    """max |x − found|, found being rounded to integers where x has them."""
    if x.dtype.kind != "f":
        found = np.rint(found)
    difference = x.astype(np.float64) - found.astype(np.float64)
    return float(np.abs(difference).max())


def _coders() -> dict[str, tuple[Encode, Decode]]:
    coders: dict[str, tuple[Encode, Decode]] = {"rounded, xz": (_rounded, _unrounded)}
    sz3, images = package("pysz"), package("imagecodecs")
    if sz3 is not None:
        coders["SZ3"] = _sz3(sz3)
    if images is not None and images.ZFP.available:
        coders["ZFP"] = _zfp(images)
    if images is not None and images.SPERR.available:
        coders["SPERR"] = _sperr(images)
    return coders


def _floats(x: Array) -> Array:
    """float32 or float64, of at most four axes."""
    x = x.astype(np.float64 if x.dtype.itemsize > 4 else np.float32, copy=False)
    x = np.atleast_1d(x)
    return x.reshape(-1, *x.shape[1 - MOST_AXES :]) if x.ndim > MOST_AXES else x


def _rounded(x: Array, error: float) -> list[bytes]:
    """Steps of twice the bound, or their differences along an axis, whichever xz likes best."""
    room = float(np.spacing(np.abs(x).max())) / 2  # what the last rounding may take of the bound
    first, step = float(x.flat[0]), STEP * max(error - room, error / 2)
    with np.errstate(over="ignore"):
        steps = np.rint((x.astype(np.float64) - first) / step)
    if not np.abs(steps).max() < LARGEST_STEP:
        raise OverflowError("more steps than a float64 counts")
    q = steps.astype(np.int64)
    forms = [_xz(q), *(_xz(np.diff(q, axis=axis, prepend=0)) for axis in range(q.ndim))]
    best = min(range(len(forms)), key=lambda i: len(forms[i]))
    return [struct.pack("<ddB", first, step, best) + forms[best]]


def _unrounded(packed: list[bytes], x: Array) -> Array:
    start = struct.calcsize("<ddB")
    first, step, form = struct.unpack("<ddB", packed[0][:start])
    q = _unxz(packed[0][start:]).reshape(x.shape)
    q = np.cumsum(q, axis=form - 1) if form else q
    found: Array = (first + step * q).astype(x.dtype)
    return found


def _xz(q: Array) -> bytes:
    """The narrowest signed integers that hold all of q, their first bytes first, in xz."""
    lowest = min(int(q.min()), -1 - int(q.max()))
    width = np.min_scalar_type(lowest).itemsize
    by_place = q.astype(f"i{width}").reshape(-1).view(np.uint8).reshape(-1, width).T
    return bytes([width]) + lzma.compress(by_place.tobytes(), preset=6)


def _unxz(packed: bytes) -> Array:
    width = packed[0]
    by_place = np.frombuffer(lzma.decompress(packed[1:]), np.uint8).reshape(width, -1)
    return np.ascontiguousarray(by_place.T).view(f"i{width}").reshape(-1).astype(np.int64)


def _sz3(sz3: Any) -> tuple[Encode, Decode]:
    def encode(x: Array, error: float) -> list[bytes]:
        floats = _floats(x)
        wish = sz3.szConfig(floats.shape)
        wish.errorBoundMode = sz3.szErrorBoundMode.ABS
        wish.absErrorBound = error
        return [sz3.sz.compress(floats, wish)[0].tobytes()]

    def decode(packed: list[bytes], x: Array) -> Array:
        like = _floats(x)
        content = np.frombuffer(packed[0], np.uint8)
        found: Array = sz3.sz.decompress(content, like.dtype, like.shape)[0]
        return found.reshape(x.shape)

    return encode, decode


def _zfp(images: Any) -> tuple[Encode, Decode]:
    def encode(x: Array, error: float) -> list[bytes]:
        return [bytes(images.zfp_encode(_floats(x), level=error, mode="accuracy", numthreads=1))]

    def decode(packed: list[bytes], x: Array) -> Array:
        found: Array = images.zfp_decode(packed[0], numthreads=1)
        return found.reshape(x.shape)

    return encode, decode


def _sperr(images: Any) -> tuple[Encode, Decode]:
    def coded(x: Array, error: float) -> bytes:
        packed: bytes = images.sperr_encode(x, error, mode="pwe", numthreads=1)
        return packed

    def encode(x: Array, error: float) -> list[bytes]:
        floats = _floats(x)
        floats = floats.reshape(-1, *floats.shape[-2:]) if floats.ndim > 2 else floats
        floats = floats[0] if len(floats) == 1 and floats.ndim == 3 else floats  # it would crash
        slices = [coded(part, error) for part in floats] if floats.ndim == 3 else []
        whole = [coded(floats, error)]
        return slices if slices and sum(map(len, slices)) < len(whole[0]) else whole

    def decode(packed: list[bytes], x: Array) -> Array:
        return np.stack([images.sperr_decode(part) for part in packed]).reshape(x.shape)

    return encode, decode
