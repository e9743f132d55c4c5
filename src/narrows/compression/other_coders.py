"""What ordinary coders make of the same data, so that every size stands beside theirs.

`pack_lossless` has zlib, bz2, xz and Zstandard for anything, and PNG, WebP and JPEG XL for images;
`pack_lossy` JPEG, WebP, AVIF and JPEG XL at a given PSNR; `pack_bounded` SZ3, ZFP and SPERR at a
given largest error, and rounding followed by xz. Small images of one shape are also coded as one
mosaic: a file for each of them would be mostly header. Nothing is written to disk. A coder whose
package is absent, or that cannot take the data, has no row; `missing` names the packages.

Shapes, types and file names, which a narrows file also holds, are not counted against the general
coders (zlib ... Zstandard, xz after rounding): they are compared at their best.
"""

from __future__ import annotations

import bz2
import lzma
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Data = Array | Sequence[Array]

__all__ = ["Packed", "missing", "pack_bounded", "pack_lossless", "pack_lossy"]

MOST_BYTES = 64 << 20  # of more than this a sample tells the slow coders' size
MOST_IMAGES = 2000  # the same for coders of one image at a time
MOST_SEARCHED = 500  # and where they are to be tried at several qualities
PARTS = 16  # a sample of bytes is so many stretches
PACKAGES = ("zstandard", "imagecodecs", "pysz")
REFUSALS = (OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Packed:
    """One coder's result: size, quality, largest error, seconds to encode and to decode.

    ``psnr`` in dB, None where none was lost or no PSNR is meant; ``max_error`` in the data's units,
    None where it was not measured. Of a sample, ``nbytes`` and both times are brought up to all the
    data, and the name says that it was one.
    """

    name: str
    nbytes: int
    psnr: float | None
    max_error: float | None
    seconds: float
    decode_seconds: float | None = None


def missing() -> list[str]:
    """The packages that would add coders if they were installed.

    >>> set(missing()) <= {"zstandard", "imagecodecs", "pysz"}
    True
    """
    return [name for name in PACKAGES if find_spec(name) is None]


def package(name: str) -> Any | None:
    """A module that need not be there."""
    try:
        return import_module(name)
    except ImportError:
        return None


def pack_lossless(
    data: Data,
    *,
    thorough: bool = False,
    most_bytes: int = MOST_BYTES,
    most_images: int = MOST_IMAGES,
) -> list[Packed]:
    """Each coder's size for ``data``, bit for bit, the smallest first.

    Parameters: ``data`` an array of any shape and type, or a list of images (H, W) or (H, W, 3) of
    uint8 or uint16; ``thorough`` takes the coders' slowest settings (JPEG XL effort 9, WebP at full
    effort); of more than ``most_bytes`` bytes, or ``most_images`` files, a sample is coded.

    >>> import numpy as np
    >>> rows = pack_lossless(np.zeros((8, 32, 32), np.uint8))
    >>> {"xz", "PNG, a file each", "PNG, mosaic"} <= {row.name for row in rows}
    True
    """
    from narrows.compression.other_images import lossless_images

    rows = [*_general(items_of(data), most_bytes), *lossless_images(data, thorough, most_images)]
    return sorted(rows, key=lambda row: row.nbytes)


def pack_lossy(
    data: Data, target: float, *, pooled: bool = True, most_images: int = MOST_SEARCHED
) -> list[Packed]:
    """Each coder's smallest files whose PSNR is at least ``target`` dB, the smallest first.

    Parameters: ``data`` images, as a list of (H, W) or (H, W, 3) or as one array of uint8 or
    uint16; the PSNR is of the mean squared error over all images (``pooled``) or the mean of the
    images' own. A coder that cannot go so low or so high is named "(its lowest)" or "(its
    highest)"; of more than ``most_images`` files a sample is coded. Other data have no rows.

    >>> import numpy as np
    >>> image = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    >>> all(row.psnr >= 30 for row in pack_lossy([image], 30.0))
    True
    """
    from narrows.compression.other_images import lossy_images

    rows = lossy_images(data, target, pooled, most_images)
    return sorted(rows, key=lambda row: row.nbytes)


def pack_bounded(data: Data, error: float) -> list[Packed]:
    """Each coder's size where no element is to be off by more than ``error``, the smallest first.

    Parameters: ``data`` an array (or a list of arrays) of finite integers or floats; ``error`` in
    its units, above 0. ``max_error`` is what the coder really does, which may be more. Other data
    have no rows.

    >>> import numpy as np
    >>> rows = pack_bounded(np.sin(np.arange(500.0)), 1e-3)
    >>> next(row for row in rows if row.name == "rounded, xz").max_error <= 1e-3
    True
    """
    from narrows.compression.other_bounded import bounded

    return sorted(bounded(items_of(data), error), key=lambda row: row.nbytes)


def items_of(data: Data) -> list[Array]:
    """The arrays that ``data`` is: one, or those of the list."""
    items = [np.asarray(item) for item in (data if isinstance(data, list | tuple) else [data])]
    return [item for item in items if item.size and item.dtype.kind in "biufc"]


def native(x: Array) -> Array:
    """Contiguous, in the machine's byte order."""
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def _general(items: list[Array], most: int) -> Iterator[Packed]:
    """Coders of bytes, on all items' bytes one after the other, and on their bytes by place."""
    plain = b"".join(native(x).tobytes() for x in items)
    if not plain:
        return
    forms = {"": plain}
    if any(x.dtype.itemsize > 1 for x in items):
        forms[", bytes by place"] = b"".join(_by_place(x) for x in items)
    for form, content in forms.items():
        for name, (encode, decode) in _byte_coders().items():
            sample = content if name == "zlib" else _sample(content, most)
            more = len(content) / len(sample)
            word = "" if more == 1 else " (from a sample)"
            yield _timed(f"{name}{form}{word}", sample, encode, decode, more)


def _by_place(x: Array) -> bytes:
    """The first bytes of all numbers, then the second, and so on: alike stands beside alike."""
    return native(x).reshape(-1).view(np.uint8).reshape(-1, x.dtype.itemsize).T.tobytes()


def _sample(content: bytes, most: int) -> bytes:
    """Stretches spread evenly, ``most`` bytes in all."""
    if len(content) <= most:
        return content
    length = max(most // PARTS, 1)
    starts = [i * (len(content) - length) // (PARTS - 1) for i in range(PARTS)]
    return b"".join(content[start : start + length] for start in starts)


def _timed(
    name: str,
    content: bytes,
    encode: Callable[[bytes], bytes],
    decode: Callable[[bytes], bytes],
    more: float,
) -> Packed:
    start = time.perf_counter()
    packed = encode(content)
    middle = time.perf_counter()
    decode(packed)
    end = time.perf_counter()
    seconds, back = more * (middle - start), more * (end - middle)
    return Packed(name, round(more * len(packed)), None, 0.0, seconds, back)


def _byte_coders() -> dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    """By name, how to encode and decode."""
    coders: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        "zlib": (lambda x: zlib.compress(x, 9), zlib.decompress),
        "bz2": (lambda x: bz2.compress(x, 9), bz2.decompress),
        "xz": (lambda x: lzma.compress(x, preset=6), lzma.decompress),
    }
    zstd = package("zstandard")
    if zstd is not None:
        coders["Zstandard"] = (
            zstd.ZstdCompressor(level=19).compress,
            zstd.ZstdDecompressor().decompress,
        )
    return coders
