"""What image coders make of a set of images: a file each, and small ones as mosaics, too.

The lossy ones are asked for a PSNR and search their quality settings for the smallest files that
have it. Colour is tried with colour differences at half and at full resolution.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.compression.other_coders import MOST_IMAGES, REFUSALS, Packed, native
from narrows.compression.other_image_coders import ImageCoder, lossless_coders, lossy_coders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Data = Array | Sequence[Array]

__all__ = ["Coded", "Form", "curve", "forms_of", "images_of", "mosaics"]

MOSAIC_SIDE = 2048  # larger sheets JPEG XL sees a part at a time, and loses 15 % on digits
SMALL = 128  # sides of images that are worth a mosaic
PROBES = 200  # so many files tell about where the wanted setting lies
EXACT = 1e-10  # mean squared error, peak 1, that stands for none: 100 dB


def images_of(data: Data) -> list[Array] | None:
    """The images that ``data`` holds, (H, W) or (H, W, 3); None where it is something else.

    An array of uint8 or uint16 may be (H, W), (H, W, 3), (n, H, W), (n, H, W, 1 or 3) or
    (n, 1 or 3, H, W).

    >>> import numpy as np
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


def mosaics(images: Sequence[Array]) -> list[Array]:
    """Small images of one shape side by side, in as few sheets of at most 2048 pixels as hold them.

    Empty where the images are not such. What is left over on a sheet is black.

    >>> import numpy as np
    >>> [sheet.shape for sheet in mosaics([np.zeros((28, 28), np.uint8)] * 6)]
    [(56, 84)]
    """
    kinds = {(x.shape, x.dtype) for x in images}
    if len(kinds) != 1 or len(images) < 2 or max(images[0].shape[:2]) > SMALL:
        return []
    height, width = images[0].shape[:2]
    sheets = -(-len(images) // ((MOSAIC_SIDE // height) * (MOSAIC_SIDE // width)))
    each = -(-len(images) // sheets)
    return [_sheet(images[i : i + each]) for i in range(0, len(images), each)]


def _sheet(images: Sequence[Array]) -> Array:
    shape = images[0].shape
    height, width = shape[:2]
    square = int(np.ceil(np.sqrt(len(images) * height / width)))
    columns = min(max(square, 1), MOSAIC_SIDE // width, len(images))
    columns = max(columns, -(-len(images) // (MOSAIC_SIDE // height)))
    rows = -(-len(images) // columns)
    cells = np.zeros((rows * columns, *shape), images[0].dtype)
    cells[: len(images)] = images
    grid = cells.reshape(rows, columns, *shape).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * height, columns * width, *shape[2:]))


def _cut(sheet: Array, shape: tuple[int, ...]) -> list[Array]:
    """The pieces of a mosaic, row by row."""
    height, width = shape[:2]
    grid = sheet.reshape(sheet.shape[0] // height, height, -1, width, *shape[2:]).swapaxes(1, 2)
    return list(grid.reshape(-1, *shape))


@dataclass(frozen=True, eq=False)
class Form:
    """The files that are to hold the images, and how many times as many images there are in all."""

    word: str
    files: list[Array]
    images: list[Array]
    more: float = 1.0

    def part(self, most: int) -> Form:
        """At most so many of the files, evenly spread; only where a file is an image."""
        n = len(self.images)
        if n <= most or self.files is not self.images:
            return self
        some = [self.images[i * n // most] for i in range(most)]
        return Form(self.word, some, some, self.more * n / most)

    def back(self, files: list[Array]) -> list[Array]:
        """The images that decoded files hold."""
        if self.files is self.images:
            return files
        each = -(-len(self.images) // len(files))
        cut = [image for sheet in files for image in _cut(sheet, self.images[0].shape)[:each]]
        return cut[: len(self.images)]

    @property
    def name(self) -> str:
        """As a row's name ends."""
        return f"{self.word} (from a sample)" if self.more > 1 else self.word


def forms_of(data: Data, most: int = MOST_IMAGES) -> list[Form]:
    """A file for each image, and the mosaic where there is one; none where there are no images.

    >>> import numpy as np
    >>> [form.word for form in forms_of(np.zeros((9, 8, 8), np.uint8))]
    ['a file each', 'mosaic']
    """
    images = images_of(data)
    if images is None:
        return []
    sheets = mosaics(images)
    word = "a file each" if len(images) > 1 else "one file"
    return [
        Form(word, images, images).part(most),
        *([Form("mosaic", sheets, images)] * bool(sheets)),
    ]


@dataclass(frozen=True)
class Coded:
    """A form coded at one setting; ``nbytes`` and seconds of all the images."""

    setting: float
    nbytes: float
    psnr: float
    max_error: float
    seconds: float
    decode_seconds: float

    def row(self, name: str, psnr: float | None) -> Packed:
        """As callers see it."""
        size = round(self.nbytes)
        return Packed(name, size, psnr, self.max_error, self.seconds, self.decode_seconds)


def code(
    coder: ImageCoder, form: Form, setting: float = 0.0, way: str = "", pooled: bool = True
) -> Coded:
    """Encode and decode every file; raises one of REFUSALS where the coder does not take it."""
    start = time.perf_counter()
    packed = [coder.encode(x, setting, way) for x in form.files]
    middle = time.perf_counter()
    decoded = [coder.decode(one, x) for one, x in zip(packed, form.files, strict=True)]
    back = time.perf_counter() - middle
    quality, worst = fidelity(form.images, form.back(decoded), pooled)
    size, seconds = form.more * sum(map(len, packed)), form.more * (middle - start)
    return Coded(setting, size, quality, worst, seconds, form.more * back)


def fidelity(
    images: Sequence[Array], found: Sequence[Array], pooled: bool = True
) -> tuple[float, float]:
    """PSNR in dB, 100 where nothing was lost, and the largest error.

    Of the mean squared error over all images, or the mean of the images' own PSNRs.
    """
    shares, sizes, worst = [], [], 0.0
    for x, y in zip(images, found, strict=True):
        difference = np.abs(x.astype(np.float32) - y.astype(np.float32))
        peak = float(np.iinfo(x.dtype).max)
        shares.append(float(np.square(difference / peak, dtype=np.float64).mean()))
        sizes.append(x.size)
        worst = max(worst, float(difference.max()))
    errors = [float(np.average(shares, weights=sizes))] if pooled else shares
    return float(np.mean(-10 * np.log10(np.maximum(errors, EXACT)))), worst


def lossless_images(data: Data, thorough: bool, most: int) -> Iterator[Packed]:
    """PNG, WebP and JPEG XL, a file each and as a mosaic."""
    for form in forms_of(data, most):
        for coder in lossless_coders(thorough):
            try:
                coded = code(coder, form)
            except REFUSALS:  # too large, or too many bits
                continue
            if coded.max_error == 0:
                yield coded.row(f"{coder.name}, {form.name}", None)


def lossy_images(data: Data, target: float, pooled: bool, most: int) -> Iterator[Packed]:
    """JPEG, WebP, AVIF and JPEG XL at a PSNR of ``target``, a file each and as a mosaic."""
    for form in forms_of(data, most):
        for coder in lossy_coders():
            found = [_search(coder, form, way, target, pooled) for way in ways_of(coder, form)]
            every = [coded for coded in found if coded is not None]
            good = [coded for coded in every if coded.psnr >= target]
            if good:
                best = min(good, key=lambda coded: coded.nbytes)
                word = " (its lowest)" if best.setting == coder.settings[0] else ""
            elif every:
                best, word = max(every, key=lambda coded: coded.psnr), " (its highest)"
            else:
                continue
            yield best.row(f"{coder.name}, {form.name}{word}", best.psnr)


def ways_of(coder: ImageCoder, form: Form) -> Sequence[str]:
    """How the coder may treat colour; there is nothing to choose for grey."""
    return coder.ways if any(x.ndim == 3 for x in form.images) else coder.ways[:1]


def _search(coder: ImageCoder, form: Form, way: str, target: float, pooled: bool) -> Coded | None:
    """At the lowest setting whose PSNR reaches ``target``; at the highest where none does.

    By bisection on some of the files, then step by step on all of them.
    """
    few, last = form.part(PROBES), len(coder.settings) - 1

    @cache
    def at(place: int, form: Form) -> Coded:
        return code(coder, form, coder.settings[place], way, pooled)

    try:
        place = bisect_left(range(last), target, key=lambda i: at(i, few).psnr)
        while place < last and at(place, form).psnr < target:
            place += 1
        while place and at(place - 1, form).psnr >= target:
            place -= 1
        return at(place, form)
    except REFUSALS:
        return None


def curve(
    coder: ImageCoder, form: Form, settings: Sequence[float], pooled: bool = True
) -> list[Coded]:
    """Size and quality at each setting, in each way of treating colour.

    Raises one of REFUSALS where the coder does not take the images.
    """
    ways = ways_of(coder, form)
    return [code(coder, form, setting, way, pooled) for way in ways for setting in settings]
