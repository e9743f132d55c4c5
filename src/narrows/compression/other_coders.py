"""Other coders to compare a .narrow file with: one table of what a user can have without narrows.

Coders of bytes (zlib, bz2, xz, Zstandard), of images (PNG, JPEG, WebP and AVIF by Pillow, JPEG XL)
and of numbers within a largest error (SZ3, ZFP, SPERR, and rounding followed by xz). A coder whose
package is not installed, or that cannot take the data, has no result. Nothing is written to disk.
Shapes, dtypes and file names, which a .narrow file also holds, do not count against coders of
bytes and the rounding: they are compared at their best.

- SZ3: X. Liang et al., "SZ3: a modular framework for composing prediction-based error-bounded lossy
  compressors", IEEE Transactions on Big Data 9, 2023. Its defaults (pysz).
- ZFP: P. Lindstrom, "Fixed-rate compressed floating-point arrays", IEEE TVCG 20, 2014. Its mode of
  fixed accuracy (imagecodecs), which often keeps errors far below the bound.
- SPERR: S. Li, P. Lindstrom and J. Clyne, "Lossy scientific data compression with SPERR", IPDPS
  2023 (imagecodecs): an array of three dimensions as a whole or slice by slice, if that is smaller.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from narrows.compression.format import Array

Data = Array | Sequence[Array]
# what coders raise for data that they do not take
REFUSALS = (ImportError, OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)
PERFECT = 1e-10  # mean squared error, for a peak of 1, that counts as none: 100 dB
# pixels of a mosaic's side: JPEG XL codes larger ones in parts, 15 % worse on digits
MAX_SHEET_SIDE = 2048
MAX_TILE_SIDE = 128  # larger images gain nothing from a mosaic
BOUND_STEP = 2 * (1 - 2.0**-20)  # of the error bound; a little below 2 leaves room for rounding
MAX_STEPS = 2.0**53  # float64 holds all whole numbers up to here
MAX_AXES = 4  # that SZ3 and ZFP take
DISTANCES = np.geomspace(25, 0.05, 64).tolist()  # JPEG XL's settings, from worst to best


@dataclass(frozen=True)
class CoderResult:
    """Size and quality of one coder; of a sample, ``nbytes`` is scaled up to all the data.

    ``psnr`` in dB (None: lossless, or not images), ``max_error`` in the data's units.
    """

    name: str
    nbytes: int
    psnr: float | None
    max_error: float


@dataclass(frozen=True)
class OtherCoder:
    """A row of the table.

    ``kind`` is "bytes", "lossless" or "lossy" (both for images), or "bounded"; ``needs`` the
    package, or "package:feature". ``encode(data, setting)`` gives bytes, of which ``decode(bytes,
    data)`` makes an array of the shape of ``data``; the setting is one of ``settings``, which rise
    in quality, or the error bound. ``colour``: only for colour images; ``slices``: an array is
    given slice by slice, not as a whole.
    """

    name: str
    kind: str
    needs: str
    encode: Callable[[Any, float], bytes]
    decode: Callable[[bytes, Any], Any]
    settings: Sequence[float] = ()
    colour: bool = False
    slices: bool = False


def available(kind: str) -> list[OtherCoder]:
    """The coders of a kind that are installed."""
    return [coder for coder in OTHER_CODERS if coder.kind == kind and _installed(coder.needs)]


def _installed(needs: str) -> bool:
    name, _, feature = needs.partition(":")
    try:
        package = import_module(name)
    except ImportError:
        return False
    if name == "PIL.features":
        return bool(package.check(feature))
    return not feature or bool(getattr(package, feature).available)


def code(coder: OtherCoder, files: Iterable[Any], setting: float = 0.0) -> tuple[int, list[Array]]:
    """The bytes of all files, and what they decode to; raises one of REFUSALS for unfit data."""
    packed = [(coder.encode(x, setting), x) for x in files]
    return sum(len(one) for one, _ in packed), [coder.decode(one, x) for one, x in packed]


def _smallest(results: Iterable[CoderResult]) -> list[CoderResult]:
    """The smallest result of each name, the smallest of all first."""
    best: dict[str, CoderResult] = {}
    for result in sorted(results, key=lambda result: result.nbytes):
        best.setdefault(result.name, result)
    return list(best.values())


def native(x: Array) -> Array:
    """Contiguous, in this machine's byte order."""
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def items_of(data: Data) -> list[Array]:
    """The array, or the arrays of a list, in this machine's byte order, without empty ones."""
    items = [np.asarray(item) for item in (data if isinstance(data, list | tuple) else [data])]
    return [native(item) for item in items if item.size and item.dtype.kind in "biufc"]


# ------------------------------------------------------------------ lossless


def lossless_results(data: Data, *, max_images: int | None = None) -> list[CoderResult]:
    """Each coder's size for ``data``, the smallest first.

    Parameters
    ----------
    data : an array of any shape and dtype, or a list of arrays
        Images are also coded as images.
    max_images : int, optional
        Of more images, a sample is coded as a file each.

    >>> results = lossless_results(np.zeros((8, 32, 32), np.uint8))
    >>> {"xz", "PNG, a file each", "PNG, mosaic"} <= {result.name for result in results}
    True
    """
    items, results = items_of(data), []
    for coder in available("bytes") if items else ():
        nbytes = min(len(coder.encode(content, 0.0)) for content in byte_orders(items))
        results.append(CoderResult(coder.name, nbytes, None, 0.0))
    for coder in available("lossless"):
        for form in image_files(data, max_images):
            try:
                nbytes, decoded = code(coder, form.files)
            except REFUSALS:
                continue
            if form.fidelity(decoded)[1] == 0:
                results.append(form.result(coder.name, nbytes, None, 0.0))
    return _smallest(results)


def byte_orders(items: list[Array]) -> list[bytes]:
    """All items one after another: as they are, and if numbers have several bytes, by place.

    By place: the first bytes of all numbers, then the second bytes, ..., which brings similar bytes
    together.
    """
    orders = [b"".join(x.tobytes() for x in items)]
    if any(x.dtype.itemsize > 1 for x in items):
        views = (x.reshape(-1).view(np.uint8).reshape(-1, x.dtype.itemsize) for x in items)
        orders.append(b"".join(view.T.tobytes() for view in views))
    return orders


# ------------------------------------------------------------------ images


def images_of(data: Data) -> list[Array] | None:
    """The images that ``data`` holds, (H, W) or (H, W, 3); None if it is something else.

    An array of uint8 or uint16 may be (H, W), (H, W, 3), (n, H, W), (n, H, W, 1 or 3) or
    (n, 1 or 3, H, W).

    >>> [image.shape for image in images_of(np.zeros((2, 3, 8, 8), np.uint8))]
    [(8, 8, 3), (8, 8, 3)]
    >>> images_of(np.zeros(5)) is None
    True
    """
    several = isinstance(data, list | tuple)
    items = [np.asarray(x) for x in data] if several else list(_split(np.asarray(data)))
    return [native(x) for x in items] if items and all(map(_is_image, items)) else None


def _is_image(x: Array) -> bool:
    plane = x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3)
    return x.size > 0 and x.dtype.kind == "u" and x.dtype.itemsize <= 2 and plane


def _split(x: Array) -> Iterator[Array]:
    """The images of one array."""
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        x = np.moveaxis(x, 1, 3)
    if x.ndim == 4 and x.shape[3] == 1:
        x = x[..., 0]
    if x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3):
        yield x
    elif x.ndim in (3, 4):
        yield from x


@dataclass(frozen=True)
class ImageFiles:
    """Images as files: one each, or small ones as tiles of a mosaic.

    ``more`` is how many times as many images there are as in these files.
    """

    name: str
    files: list[Array]
    images: list[Array]
    more: float = 1.0

    def fidelity(self, decoded: list[Array]) -> tuple[float, float]:
        """PSNR in dB, from the mean squared error of all images, and the largest error."""
        if self.files is not self.images:
            each = -(-len(self.images) // len(decoded))  # tiles of a sheet
            decoded = [tile for sheet in decoded for tile in self._tiles(sheet)[:each]]
        squares, worst = 0.0, 0.0
        for x, y in zip(self.images, decoded, strict=False):  # a sheet may have empty tiles left
            difference = np.abs(x.astype(np.float32) - y.astype(np.float32))
            peak = float(np.iinfo(x.dtype).max)
            squares += float(np.square(difference / peak, dtype=np.float64).sum())
            worst = max(worst, float(difference.max()))
        mse = squares / sum(x.size for x in self.images)
        return -10 * math.log10(max(mse, PERFECT)), worst

    def _tiles(self, sheet: Array) -> list[Array]:
        """The tiles of a sheet, row by row."""
        (height, width), rest = self.images[0].shape[:2], self.images[0].shape[2:]
        grid = sheet.reshape(sheet.shape[0] // height, height, -1, width, *rest).swapaxes(1, 2)
        return list(grid.reshape(-1, height, width, *rest))

    def result(self, name: str, nbytes: int, psnr: float | None, error: float) -> CoderResult:
        """The result of a coder, scaled up to all images."""
        sample = " (from a sample)" if self.more > 1 else ""
        return CoderResult(f"{name}, {self.name}{sample}", round(self.more * nbytes), psnr, error)


def image_files(data: Data, max_images: int | None = None) -> list[ImageFiles]:
    """The ways to store the images in files; none if there are no images.

    A file each (of more than ``max_images`` an evenly spread sample), and a mosaic if they are
    small and of one shape: in files of their own they would be mostly headers.

    >>> [form.name for form in image_files(np.zeros((9, 8, 8), np.uint8))]
    ['a file each', 'mosaic']
    """
    images = images_of(data)
    if images is None:
        return []
    n = len(images)
    kept = min(n, max_images or n)
    some = images if kept == n else [images[i * n // kept] for i in range(kept)]
    forms = [ImageFiles("a file each" if n > 1 else "one file", some, some, n / kept)]
    one_kind = len({(x.shape, x.dtype) for x in images}) == 1
    if n > 1 and one_kind and max(images[0].shape[:2]) <= MAX_TILE_SIDE:
        forms.append(ImageFiles("mosaic", mosaics(images), images))
    return forms


def mosaics(images: Sequence[Array]) -> list[Array]:
    """Images of one shape on as few sheets as hold them; empty tiles are black.

    >>> [sheet.shape for sheet in mosaics([np.zeros((28, 28), np.uint8)] * 6)]
    [(56, 84)]
    """
    height, width = images[0].shape[:2]
    down, across = MAX_SHEET_SIDE // height, MAX_SHEET_SIDE // width
    n_sheets = -(-len(images) // (down * across))
    each = -(-len(images) // n_sheets)
    sheets = []
    for start in range(0, len(images), each):
        tiles = np.stack(images[start : start + each])
        square = math.ceil(math.sqrt(len(tiles) * height / width))  # columns of a square sheet
        columns = max(min(square, across, len(tiles)), -(-len(tiles) // down))
        rows = -(-len(tiles) // columns)
        empty = np.zeros((rows * columns - len(tiles), *tiles.shape[1:]), tiles.dtype)
        grid = np.concatenate([tiles, empty]).reshape(rows, columns, *tiles.shape[1:])
        sheet = grid.swapaxes(1, 2).reshape(rows * height, columns * width, *tiles.shape[3:])
        sheets.append(np.ascontiguousarray(sheet))
    return sheets


def lossy_results(data: Data, target: float, *, max_images: int | None = None) -> list[CoderResult]:
    """Each coder's smallest files whose PSNR is at least ``target`` dB, the smallest first.

    Parameters
    ----------
    data : images
        A list of images (H, W) or (H, W, 3), or one array, of uint8 or uint16. Other data have no
        results.
    target : float
        The PSNR of the mean squared error of all images. A coder that cannot go so low or so high
        is named "(its lowest)" or "(its highest)".
    max_images : int, optional
        Of more images, a sample is coded as a file each.

    >>> image = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    >>> all(result.psnr >= 30 for result in lossy_results([image], 30.0))
    True
    """
    results: list[CoderResult] = []
    for form in image_files(data, max_images):
        found: dict[str, list[CoderResult]] = {}
        for coder in lossy_coders(form.images):
            try:
                result = _at_psnr(coder, form, target)
            except REFUSALS:
                continue
            found.setdefault(coder.name, []).append(result)
        # of colour at half and at full resolution the smaller, or the better if none reaches it
        results += [min(several, key=partial(_rank, target)) for several in found.values()]
    return _smallest(results)


def _rank(target: float, result: CoderResult) -> tuple[bool, float]:
    psnr = result.psnr or 0.0
    return psnr < target, -psnr if psnr < target else result.nbytes


def lossy_coders(images: Sequence[Array]) -> list[OtherCoder]:
    """The lossy coders of images; for grey ones, only one of those that differ in colour."""
    colour = any(x.ndim == 3 for x in images)
    return [coder for coder in available("lossy") if colour or not coder.colour]


def _at_psnr(coder: OtherCoder, form: ImageFiles, target: float) -> CoderResult:
    """The result at the lowest setting that reaches the PSNR; at the highest if none does."""

    @cache
    def at(place: int) -> tuple[int, float, float]:
        nbytes, decoded = code(coder, form.files, coder.settings[place])
        return nbytes, *form.fidelity(decoded)

    last = len(coder.settings) - 1
    place = bisect_left(range(last), target, key=lambda i: at(i)[1])
    while place < last and at(place)[1] < target:  # PSNR does not rise at every single setting
        place += 1
    nbytes, psnr, worst = at(place)
    result = form.result(coder.name, nbytes, psnr, worst)
    word = " (its highest)" if psnr < target else " (its lowest)" if place == 0 else ""
    return replace(result, name=result.name + word)


def _pillow(image: Array, format: str, **options: Any) -> bytes:
    from PIL import Image

    if format != "PNG" and image.dtype != np.uint8:
        raise ValueError(f"{format} has no pixels of 16 bits")
    out = io.BytesIO()
    Image.fromarray(image).save(out, format, **options)
    return out.getvalue()


def _png(image: Array, setting: float) -> bytes:
    """The smallest of Pillow's ways to filter and deflate."""
    # zlib's strategies: default, filtered, run lengths
    ways: list[dict[str, Any]] = [{"compress_level": 9, "compress_type": k} for k in (0, 1, 3)]
    return min((_pillow(image, "PNG", **way) for way in ({"optimize": True}, *ways)), key=len)


def _jpeg(image: Array, setting: float, subsampling: str) -> bytes:
    """Optimised, and progressive if that is smaller, which it is not for tiny images."""
    options = {"quality": int(setting), "subsampling": subsampling, "optimize": True}
    return min((_pillow(image, "JPEG", progressive=p, **options) for p in (True, False)), key=len)


def _webp(image: Array, setting: float, **options: Any) -> bytes:
    return _pillow(image, "WEBP", **{"quality": int(setting), **options})


def _avif(image: Array, setting: float, subsampling: str) -> bytes:
    colour = subsampling if image.ndim == 3 else "4:0:0"
    return _pillow(image, "AVIF", quality=int(setting), subsampling=colour, max_threads=1)


def _decode_image(packed: bytes, like: Array) -> Array:
    from PIL import Image

    with Image.open(io.BytesIO(packed)) as image:
        mode = "L" if like.ndim == 2 else "RGB"
        return np.asarray(image.convert(mode) if like.dtype == np.uint8 else image, like.dtype)


def _jpeg_xl(image: Array, setting: float, effort: int = 7) -> bytes:
    """At a distance from the original; lossless for 0."""
    how = {"distance": setting} if setting else {"lossless": True, "effort": effort}
    return bytes(import_module("imagecodecs").jpegxl_encode(image, numthreads=1, **how))


def _decode_jpeg_xl(packed: bytes, like: Array) -> Array:
    found: Array = import_module("imagecodecs").jpegxl_decode(packed, numthreads=1)
    return found.reshape(like.shape)


# ------------------------------------------------------------------ within a largest error


def bounded_results(data: Data, error: float) -> list[CoderResult]:
    """Each coder's size if no element may be off by more than ``error``, the smallest first.

    Parameters
    ----------
    data : an array or a list of arrays, of finite integers or floats
        Other data have no results.
    error : float
        In the units of ``data``, above 0. ``max_error`` of a result is the coder's real largest
        error, which may be more.

    >>> results = bounded_results(np.sin(np.arange(500.0)), 1e-3)
    >>> next(result for result in results if result.name == "rounded, xz").max_error <= 1e-3
    True
    """
    arrays = items_of(data)
    usable = all(x.dtype.kind in "iuf" and np.isfinite(x).all() for x in arrays)
    if not (arrays and usable and math.isfinite(error) and error > 0):
        return []
    results = []
    for coder in available("bounded"):
        try:
            results.append(bounded_result(coder, arrays, error))
        except REFUSALS:
            continue
    return _smallest(results)


def bounded_result(coder: OtherCoder, arrays: list[Array], error: float) -> CoderResult:
    """The result of one coder; raises one of REFUSALS if it does not take the arrays."""
    total, worst = 0, 0.0
    for x in arrays:
        floats, real = _as_floats(x), x.dtype.kind == "f"
        parts = list(floats.reshape(-1, *floats.shape[-2:])) if coder.slices else [floats]
        # integers are rounded after decoding, which removes errors below one half
        nbytes, decoded = code(coder, parts, error if real else math.floor(error) + 0.499)
        found = np.stack(decoded).reshape(x.shape).astype(np.float64)
        off = np.abs(x.astype(np.float64) - (found if real else np.rint(found)))
        total, worst = total + nbytes, max(worst, float(off.max()))
    return CoderResult(coder.name, total, None, worst)


def _as_floats(x: Array) -> Array:
    """The smallest floats that hold all numbers, as these coders need; at most four axes."""
    if x.dtype.kind == "f":
        kind = np.float64 if x.dtype.itemsize > 4 else np.float32
    else:
        largest = max(abs(float(x.min())), abs(float(x.max())))
        if largest > MAX_STEPS:
            raise ValueError("integers beyond 2^53")
        kind = np.float32 if largest <= 2.0**24 else np.float64
    x = np.atleast_1d(x.astype(kind, copy=False))
    return x.reshape(-1, *x.shape[1 - MAX_AXES :]) if x.ndim > MAX_AXES else x


def _round(x: Array, error: float) -> bytes:
    """Multiples of twice the bound, or their differences along the axis that suits xz best."""
    room = float(np.spacing(np.abs(x).max())) / 2  # the rounding to floats takes part of the bound
    first, step = float(x.flat[0]), BOUND_STEP * max(error - room, error / 2)
    with np.errstate(over="ignore"):
        steps = np.rint((x.astype(np.float64) - first) / step)
    if not np.abs(steps).max() < MAX_STEPS:
        raise OverflowError("more steps than float64 can count")
    q = steps.astype(np.int64)
    forms = [_xz(q), *(_xz(np.diff(q, axis=axis, prepend=0)) for axis in range(q.ndim))]
    best = min(range(len(forms)), key=lambda i: len(forms[i]))
    return struct.pack("<ddB", first, step, best) + forms[best]


def _unround(packed: bytes, like: Array) -> Array:
    start = struct.calcsize("<ddB")
    first, step, form = struct.unpack("<ddB", packed[:start])
    q = _unxz(packed[start:]).reshape(like.shape)
    q = np.cumsum(q, axis=form - 1) if form else q
    return np.asarray(first + step * q).astype(like.dtype)


def _xz(q: Array) -> bytes:
    """The narrowest signed integers that hold all of q, their first bytes first, by xz."""
    lowest = min(int(q.min()), -1 - int(q.max()))
    width = np.min_scalar_type(lowest).itemsize
    by_place = q.astype(f"i{width}").reshape(-1).view(np.uint8).reshape(-1, width).T
    return bytes([width]) + lzma.compress(by_place.tobytes(), preset=6)


def _unxz(packed: bytes) -> Array:
    width = packed[0]
    by_place = np.frombuffer(lzma.decompress(packed[1:]), np.uint8).reshape(width, -1)
    return np.ascontiguousarray(by_place.T).view(f"i{width}").reshape(-1).astype(np.int64)


def _sz3(x: Array, error: float) -> bytes:
    sz3 = import_module("pysz")
    config = sz3.szConfig(x.shape)
    config.errorBoundMode = sz3.szErrorBoundMode.ABS
    config.absErrorBound = error
    return bytes(sz3.sz.compress(x, config)[0].tobytes())


def _unsz3(packed: bytes, like: Array) -> Array:
    content = np.frombuffer(packed, np.uint8)
    found: Array = import_module("pysz").sz.decompress(content, like.dtype, like.shape)[0]
    return found


def _zfp(x: Array, error: float) -> bytes:
    images = import_module("imagecodecs")
    return bytes(images.zfp_encode(x, level=error, mode="accuracy", numthreads=1))


def _unzfp(packed: bytes, like: Array) -> Array:
    found: Array = import_module("imagecodecs").zfp_decode(packed, numthreads=1)
    return found


def _sperr(x: Array, error: float) -> bytes:
    x = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x
    x = x[0] if x.ndim == 3 and len(x) == 1 else x  # SPERR crashes on a single slice
    return bytes(import_module("imagecodecs").sperr_encode(x, error, mode="pwe", numthreads=1))


def _unsperr(packed: bytes, like: Array) -> Array:
    found: Array = import_module("imagecodecs").sperr_decode(packed)
    return found.reshape(like.shape)


def _of_bytes(name: str, module: ModuleType, **options: int) -> OtherCoder:
    """A coder of the standard library."""

    def encode(x: bytes, setting: float) -> bytes:
        return bytes(module.compress(x, **options))

    return OtherCoder(name, "bytes", module.__name__, encode, lambda x, like: module.decompress(x))


def _zstandard(x: bytes, setting: float) -> bytes:
    return bytes(import_module("zstandard").ZstdCompressor(level=19).compress(x))


def _unzstandard(packed: bytes, like: bytes) -> bytes:
    return bytes(import_module("zstandard").ZstdDecompressor().decompress(packed))


WEBP = partial(_webp, method=6)
WEBP_LOSSLESS = partial(_webp, lossless=True, quality=75, method=4)
PERCENT = range(101)
# colour differences at half resolution and at full resolution
JPEG, AVIF = ([partial(f, subsampling=s) for s in ("4:2:0", "4:4:4")] for f in (_jpeg, _avif))
OTHER_CODERS = [
    _of_bytes("zlib", zlib, level=9),
    _of_bytes("bz2", bz2, compresslevel=9),
    _of_bytes("xz", lzma, preset=6),
    OtherCoder("Zstandard", "bytes", "zstandard", _zstandard, _unzstandard),
    OtherCoder("PNG", "lossless", "PIL", _png, _decode_image),
    OtherCoder("WebP", "lossless", "PIL.features:webp", WEBP_LOSSLESS, _decode_image),
    OtherCoder("JPEG XL", "lossless", "imagecodecs:JPEGXL", _jpeg_xl, _decode_jpeg_xl),
    OtherCoder("JPEG", "lossy", "PIL", JPEG[0], _decode_image, PERCENT[1:]),
    OtherCoder("JPEG", "lossy", "PIL", JPEG[1], _decode_image, PERCENT[1:], colour=True),
    OtherCoder("WebP", "lossy", "PIL.features:webp", WEBP, _decode_image, PERCENT),
    OtherCoder("AVIF", "lossy", "PIL.features:avif", AVIF[0], _decode_image, PERCENT),
    OtherCoder("AVIF", "lossy", "PIL.features:avif", AVIF[1], _decode_image, PERCENT, colour=True),
    OtherCoder("JPEG XL", "lossy", "imagecodecs:JPEGXL", _jpeg_xl, _decode_jpeg_xl, DISTANCES),
    OtherCoder("rounded, xz", "bounded", "lzma", _round, _unround),
    OtherCoder("SZ3", "bounded", "pysz", _sz3, _unsz3),
    OtherCoder("ZFP", "bounded", "imagecodecs:ZFP", _zfp, _unzfp),
    OtherCoder("SPERR", "bounded", "imagecodecs:SPERR", _sperr, _unsperr),
    OtherCoder("SPERR", "bounded", "imagecodecs:SPERR", _sperr, _unsperr, slices=True),
]
