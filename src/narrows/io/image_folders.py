"""Folders of images as one array that is read when its rows are used.

The rules:

- Files are found in subfolders too, in natural order (img2 before img10); hidden ones are
  skipped. If every image lies in a subfolder, and there are two subfolders or more, the
  subfolders' names are the labels.
- Grey images give (n, H, W), colour ones (n, H, W, 3); one colour image makes all of them
  colour. A palette counts as grey if it holds greys only.
- 8 bits give uint8, 16 bits uint16; if both occur, 8-bit values are multiplied by 257, which
  maps 255 to 65,535 exactly. Floating-point images give float32 and cannot be mixed with others.
- Transparency is laid over white; the orientation noted by a camera (EXIF) is applied. Of an
  animation or a TIFF of several pages the first is read, and a warning says so.
- ``resize`` keeps the proportions: each image is scaled until it covers the size asked for, and
  what sticks out is cropped evenly from both sides (Lanczos filter).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.image_files import (
    Size,
    find_photographs,
    natural_key,
    read_header,
    read_pixels,
)
from narrows.io.sources import LazyRows

Resize = int | str | tuple[int, int] | None


def parse_size(resize: Resize) -> Size | None:
    """Height and width from ``64``, ``"64"``, ``"48x64"`` or ``(48, 64)``.

    Raises ParameterError for anything else.

    >>> parse_size(64), parse_size("48x64")
    ((64, 64), (48, 64))
    """
    if resize is None:
        return None
    text = "x".join(map(str, resize)) if isinstance(resize, tuple | list) else str(resize)
    found = re.fullmatch(r"\s*(\d+)(?:\s*[x×]\s*(\d+))?\s*", text.lower())
    sizes = [int(number) for number in found.groups() if number] if found else [0]
    if min(sizes) < 1:
        advice = "give the height and width in pixels, such as 64 or 48x64"
        raise ParameterError(f"resize={resize!r} is not a size: {advice}.")
    return sizes[0], sizes[-1]


class ImageFolder(LazyRows):
    """All images of a folder, (n, H, W) or (n, H, W, 3), decoded when their rows are read.

    ``y`` and ``y_names`` are the labels and their names, or None. Every image is opened once
    at the start, to see its size and kind; the first is decoded too.

    Raises InputError if there is no image, or sizes differ and no ``resize`` is given, and
    FileError for a file that cannot be read, by name.
    """

    def __init__(self, folder: Path, resize: Resize = None) -> None:
        self._folder, self._size = folder, parse_size(resize)
        self._files = find_photographs(folder)
        headers = [read_header(path) for path in self._files]
        if self._size is None:
            _check_sizes(folder, Counter(header.size for header in headers))
        self.dtype = _common_dtype(folder, {header.dtype for header in headers})
        several = [f for f, h in zip(self._files, headers, strict=True) if h.is_first_of_several]
        if several:
            others = f" (and {len(several) - 1} more)" if len(several) > 1 else ""
            warnings.warn(
                f"'{several[0]}'{others} holds several pictures: only the first is read; save each "
                "as a file of its own to read all.",
                stacklevel=2,
            )
        # Some files note the orientation after the pixels: the first image is decoded to know.
        sides = read_pixels(self._files[0], self._size).shape[:2]
        channels = () if all(header.is_grey for header in headers) else (3,)
        self.shape = (len(self._files), *sides, *channels)
        self.y, self.y_names = _labels(folder, self._files)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        X = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for row, path in zip(X, self._files[start:stop], strict=True):
            image = read_pixels(path, self._size)
            self._check(path, image)
            row[...] = image[..., None] if image.ndim < row.ndim else image
            if image.dtype != self.dtype:
                row *= 257
        return X

    def _check(self, path: Path, image: NDArray[Any]) -> None:
        (height, width), (h, w) = self.shape[1:3], image.shape[:2]
        if (height, width) != (h, w):  # its header did not give the orientation
            raise InputError(
                f"The image '{path}' is {h}x{w} and the first of its folder {height}x{width} "
                f"(height x width): {_advice(min((height, width), (h, w)))}"
            )
        widest = _common_dtype(self._folder, {image.dtype, self.dtype})
        if image.ndim >= len(self.shape) or widest != self.dtype:
            raise FileError(f"'{path}' changed while the folder was read: read it again.")


def _check_sizes(folder: Path, sizes: Counter[Size]) -> None:
    if len(sizes) < 2:
        return
    shown = ", ".join(f"{count} of {h}x{w}" for (h, w), count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} sizes more" if len(sizes) > 3 else ""
    found = f"height x width: {shown}{more}"
    raise InputError(f"The images in '{folder}' differ in size ({found}): {_advice(min(sizes))}")


def _advice(size: Size) -> str:
    height, width = size
    options = f"--resize {min(size)} (square)"
    options += f" or --resize {height}x{width}" if height != width else ""
    return f"bring them to one size with {options}, in Python resize=({height}, {width})."


def _labels(folder: Path, files: list[Path]) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    names = [path.parent.name for path in files]
    classes = sorted(set(names), key=lambda name: (natural_key(name), name))
    if len(classes) < 2 or any(path.parent == folder for path in files):
        return None, None
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], dtype=np.int64), classes


def _common_dtype(folder: Path, dtypes: set[np.dtype[Any]]) -> np.dtype[Any]:
    """The widest; floating point cannot be mixed with others."""
    dtype = max(dtypes, key=lambda d: d.itemsize)
    if dtype == np.float32 and len(dtypes) > 1:
        advice = "save all as 8 or 16 bits, or all as floating point"
        raise InputError(f"'{folder}' mixes floating-point images with others: {advice}.")
    return dtype
