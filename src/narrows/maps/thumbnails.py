"""Small pictures of images, many on one sheet: what a map's page shows as the original.

Sheets are lossless WebP as long as they fit; else they are smaller or lossy, which the page says.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ON_SHEET = 1024  # pictures on a sheet, so that one is decoded in some milliseconds
MAX_BYTES = 14_000_000  # of all sheets, before base64
MAX_SIDE = 64  # pixels; larger images are shown smaller
# largest side in pixels, WebP's quality (None: lossless); the first that fits is taken
CHOICES = ((MAX_SIDE, None), (MAX_SIDE, 80), (32, 80), (32, 50))


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of the first ``n`` images: ``sheets`` of at most 1,024, in rows of ``columns``."""

    sheets: list[bytes]  # WebP files
    width: int
    height: int
    columns: int
    n: int
    lossless: bool  # they are the pixels given


def shrunk(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images (n, H, W) or (n, H, W, 3) scaled down to at most ``side`` pixels high and wide."""
    height, width = pixels.shape[1:3]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    made = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in pixels]
    return np.stack([np.asarray(image) for image in made])


def make_thumbnails(pixels: NDArray[np.uint8], max_bytes: int = MAX_BYTES) -> Thumbnails:
    """The sheets of images (n, H, W) or (n, H, W, 3), or of as many of the first as fit."""
    for side, quality in CHOICES:
        some = shrunk(pixels[:: -(-len(pixels) // ON_SHEET)], side)  # they may be sorted
        each = sum(map(len, _sheets(some, quality))) / len(some)
        if each * len(pixels) <= max_bytes:
            break
    n = min(len(pixels), max(1, int(max_bytes / each)))
    small = shrunk(pixels[:n], side)
    lossless = quality is None and small.shape == pixels[:n].shape
    height, width = small.shape[1:3]
    sheets = list(_sheets(small, quality))
    return Thumbnails(sheets, width, height, _columns(n), n, lossless)


def _columns(n: int) -> int:
    """Pictures in a row of a sheet, of n pictures in all."""
    return math.isqrt(min(n, ON_SHEET) - 1) + 1


def _sheets(pixels: NDArray[np.uint8], quality: int | None) -> Iterator[bytes]:
    """WebP files of 1,024 pictures each."""
    height, width = pixels.shape[1:3]
    columns = _columns(len(pixels))
    for start in range(0, len(pixels), ON_SHEET):
        part = pixels[start : start + ON_SHEET]
        rows = -(-len(part) // columns)
        cells = np.zeros((rows * columns, *pixels.shape[1:]), np.uint8)
        cells[: len(part)] = part
        tiled = cells.reshape(rows, columns, *pixels.shape[1:]).swapaxes(1, 2)
        sheet = tiled.reshape(rows * height, columns * width, *pixels.shape[3:])
        file = io.BytesIO()
        options = {"lossless": True} if quality is None else {"quality": quality}
        Image.fromarray(sheet).save(file, "WEBP", method=4, **options)
        yield file.getvalue()
