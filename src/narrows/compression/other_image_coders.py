"""Image coders behind one face: PNG, JPEG, WebP and AVIF by Pillow, JPEG XL by imagecodecs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.compression.other_coders import package

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["ImageCoder", "lossless_coders", "lossy_coders"]

STRATEGIES = (0, 1, 3)  # of zlib: default, filtered, run lengths
DISTANCES = tuple(float(d) for d in np.geomspace(25, 0.05, 64))  # JPEG XL's, from worst to best
COLOUR = ("4:2:0", "4:4:4")  # colour differences at half resolution, or at full


@dataclass(frozen=True)
class ImageCoder:
    """An image (H, W) or (H, W, 3) to bytes and back.

    ``encode(image, setting, way)``: ``settings`` rise in quality, and a lossless coder has but one;
    ``ways`` are those of treating colour. ``decode(bytes, image)`` gives an image of that shape.
    """

    name: str
    encode: Callable[[Array, float, str], bytes]
    decode: Callable[[bytes, Array], Array]
    settings: Sequence[float] = (0.0,)
    ways: Sequence[str] = ("",)


def lossless_coders(thorough: bool = False) -> list[ImageCoder]:
    """PNG, WebP where Pillow has it, JPEG XL where imagecodecs is installed."""
    from PIL import features

    coders = [ImageCoder("PNG", _png, _deep_decoded)]
    if features.check("webp"):
        effort: dict[str, Any] = (
            {"quality": 100, "method": 6} if thorough else {"quality": 75, "method": 4}
        )
        encode = partial(_webp, lossless=True, **effort)
        coders.append(ImageCoder("WebP", encode, _decoded))
    images = _jpeg_xl()
    if images is not None:

        def jpeg_xl(image: Array, setting: float, way: str) -> bytes:
            effort = 9 if thorough else 7
            return bytes(images.jpegxl_encode(image, lossless=True, effort=effort, numthreads=1))

        coders.append(ImageCoder("JPEG XL", jpeg_xl, _by_imagecodecs))
    return coders


def lossy_coders() -> list[ImageCoder]:
    """JPEG, WebP and AVIF where Pillow has them, JPEG XL where imagecodecs is installed."""
    from PIL import features

    coders = [ImageCoder("JPEG", _jpeg, _decoded, range(1, 101), COLOUR)]
    if features.check("webp"):
        coders.append(ImageCoder("WebP", partial(_webp, method=6), _decoded, range(101)))
    if features.check("avif"):
        coders.append(ImageCoder("AVIF", _avif, _decoded, range(101), COLOUR))
    if _jpeg_xl() is not None:
        coders.append(ImageCoder("JPEG XL", _jpeg_xl_lossy, _by_imagecodecs, DISTANCES))
    return coders


def _pillow(image: Array, kind: str, **wishes: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **wishes)
    return out.getvalue()


def _png(image: Array, setting: float, way: str) -> bytes:
    """The smallest of Pillow's; 16 bits of colour, which Pillow does not write, by imagecodecs."""
    if image.dtype == np.uint16 and image.ndim == 3:
        images = package("imagecodecs")
        if images is None:
            raise ValueError("Pillow writes no colour of 16 bits")
        return bytes(images.png_encode(image, level=9))
    plain = (_pillow(image, "PNG", compress_level=9, compress_type=kind) for kind in STRATEGIES)
    return min((_pillow(image, "PNG", optimize=True), *plain), key=len)


def _jpeg(image: Array, setting: float, way: str) -> bytes:
    """Optimised, and progressive where that is smaller: it is not for tiny images."""
    wishes: dict[str, Any] = {"quality": int(setting), "optimize": True}
    if image.ndim == 3:
        wishes["subsampling"] = way
    forms = (_pillow(_bytes(image), "JPEG", progressive=p, **wishes) for p in (True, False))
    return min(forms, key=len)


def _webp(image: Array, setting: float, way: str, **wishes: Any) -> bytes:
    return _pillow(_bytes(image), "WEBP", **{"quality": int(setting), **wishes})


def _avif(image: Array, setting: float, way: str) -> bytes:
    colour = way if image.ndim == 3 else "4:0:0"
    return _pillow(_bytes(image), "AVIF", quality=int(setting), subsampling=colour, max_threads=1)


def _bytes(image: Array) -> Array:
    """The image, if its pixels are of 8 bits."""
    if image.dtype != np.uint8:
        raise ValueError("pixels of 16 bits")
    return image


def _decoded(packed: bytes, like: Array) -> Array:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(packed)).convert("L" if like.ndim == 2 else "RGB"))


def _deep_decoded(packed: bytes, like: Array) -> Array:
    """A PNG of either depth."""
    if like.dtype == np.uint8:
        return _decoded(packed, like)
    from PIL import Image

    if like.ndim == 2:
        return np.asarray(Image.open(io.BytesIO(packed))).astype(like.dtype)
    images: Any = package("imagecodecs")
    found: Array = images.png_decode(packed)
    return found


def _jpeg_xl() -> Any | None:
    images = package("imagecodecs")
    return images if images is not None and images.JPEGXL.available else None


def _jpeg_xl_lossy(image: Array, setting: float, way: str) -> bytes:
    return bytes(_jpeg_xl_module().jpegxl_encode(image, distance=setting, numthreads=1))


def _jpeg_xl_module() -> Any:
    return package("imagecodecs")


def _by_imagecodecs(packed: bytes, like: Array) -> Array:
    found: Array = _jpeg_xl_module().jpegxl_decode(packed, numthreads=1)
    return found.reshape(like.shape)
