"""Photographs for the tests: of every depth, with and without colour, alpha and metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageCms

from narrows.io.photographs import FORMAT_DTYPES, Photograph

LOSSLESS = (".png", ".tif", ".webp")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(34665)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(34665)[0x829A] = 0.01
    exif.get_ifd(34853)[1] = "N"
    return exif.tobytes()


def photo_tags(block: bytes) -> tuple[dict[int, Any], ...]:
    exif = Image.Exif()
    exif.load(block)
    ifds = (dict(exif.get_ifd(tag)) for tag in (34665, 34853))
    return ({tag: exif[tag] for tag in (0x0112, 0x010F)}, *ifds)


def random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return (rng.normal(size=shape) * 2).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def photograph(size: tuple[int, int], dtype: str, colour: bool, alpha: bool) -> Photograph:
    pixels = random((*size, 3) if colour else size, dtype)
    return Photograph(pixels, random(size, dtype, 1) if alpha else None)


KINDS = [
    (dtype, suffix, colour, alpha)
    for suffix in LOSSLESS
    for dtype in FORMAT_DTYPES[suffix]
    for colour in (False, True)
    for alpha in (False, True)
    if colour or suffix != ".webp"  # which has no greys
]

GREY = random((6, 8), "uint8")
COLOUR = random((6, 8, 3), "uint8")
