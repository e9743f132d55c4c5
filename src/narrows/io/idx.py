"""IDX, the format of MNIST: a magic number, the sizes, then the numbers, big-endian.

The first two bytes are zero, the third names the type, the fourth counts the dimensions; each
size is four bytes (Y. LeCun, C. Cortes and C. Burges, "The MNIST database", 1998).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


def is_idx(start: bytes) -> bool:
    """Whether a file that starts with these bytes claims to be IDX.

    >>> is_idx(bytes([0, 0, 8, 3])), is_idx(b"a,b,")
    (True, False)
    """
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in TYPES and 1 <= start[3] <= 8


def content_of(path: Path, limit: int = -1) -> bytes:
    """The bytes of a file, unpacked when it is a gzip; at most ``limit`` of them when given.

    Raises FileError where the gzip is damaged or cut short.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(limit)
    except GZIP_DAMAGE:
        raise FileError(
            f"'{path}' is a damaged or incomplete gzip file: copy or download it again."
        ) from None


def parse_idx(content: bytes, name: str) -> NDArray[Any]:
    """The array that the bytes of an IDX file hold, in the machine's byte order.

    Raises FileError where ``content`` is no IDX, is cut short or has bytes too many; ``name`` is
    what the sentence calls it.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]), "three")
    array([[7, 8, 9]], dtype=uint8)
    """
    if not is_idx(content[:4]):
        raise FileError(
            f"'{name}' is not an IDX file: it starts with {content[:4]!r}, where two zero bytes, "
            "a type and a number of dimensions were expected."
        )
    n_dims, dtype = content[3], np.dtype(TYPES[content[2]])
    start = 4 + 4 * n_dims
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    promised = start + math.prod(sizes) * dtype.itemsize
    if len(content) != promised:
        fault = "cut short" if len(content) < promised else "damaged"
        raise FileError(
            f"'{name}' is {fault}: its header promises {promised:,} bytes and it holds "
            f"{len(content):,}; copy or download it again."
        )
    return (
        np.frombuffer(content, dtype, offset=start).reshape(sizes).astype(dtype.newbyteorder("="))
    )


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, gzipped or not."""
    return parse_idx(content_of(path), str(path))


def read_idx_labels(path: Path) -> NDArray[Any] | None:
    """The labels beside a file of images, where both carry MNIST's usual names; else None."""
    beside = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = beside.removesuffix(".gz")
    if beside == path.name:
        return None
    for name in (beside, stem, stem + ".gz"):
        if path.with_name(name).is_file():
            return read_idx(path.with_name(name))
    return None
