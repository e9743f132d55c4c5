"""Images of any sizes, from whatever a user has them in: files, folders, arrays, lists of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.core import FileError, InputError, InputTypeError
from narrows.engine.photographs import find_photographs, read_photograph, white_of

Array = NDArray[Any]
HELD = 2**30  # bytes of decoded images kept in memory; of more, files are read again when needed


def check_image(pixels: Any, name: str) -> Array:
    """One image (H, W) or (H, W, 3), or a sentence about what is wrong with it."""
    image = np.asarray(pixels)
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype.kind not in "uif":
        raise InputTypeError(f"{name} holds {image.dtype}, but pixels are numbers.")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"{name} has shape {image.shape}, but an image is (height, width) or "
            "(height, width, 3); transparency is no colour: leave it out."
        )
    if not image.size:
        raise InputError(f"{name} has shape {image.shape}: it holds no pixels.")
    if image.dtype.kind == "i":
        if image.min() < 0 or image.max() > 65535:
            raise InputError(
                f"{name} holds {image.dtype} from {image.min()} to {image.max()}; give uint8, "
                "uint16, or floats."
            )
        image = image.astype(np.uint8 if image.max() <= 255 else np.uint16)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError(f"{name} holds NaN or infinity; replace them first.")
    if image.dtype.kind == "u" and image.dtype.itemsize > 2:
        raise InputError(f"{name} holds {image.dtype}; give uint8, uint16, or floats.")
    return image


class Images(Sequence[Any]):
    """Images of any sizes in order; files are decoded when asked for, or kept where there is room.

    Parameters
    ----------
    given : str or Path, array, or a list of these
        A file, a folder (with its subfolders), one image (H, W) or (H, W, 3), or several: a list,
        (n, H, W), or (n, H, W, 3). Three axes of which the last has 3 elements are one colour
        image.

    Raises
    ------
    InputError, FileError
        There are none, or one of them is no image, by name.
    """

    def __init__(self, given: Any) -> None:
        self._sources = list(_each(given))
        self._held: dict[int, Array] = {}
        self.sizes: list[tuple[int, int]] = []
        self.whites: list[float] = []
        self.nbytes, colours = 0, False
        for i in range(len(self._sources)):
            image = self[i]
            self.nbytes += image.nbytes
            if self.nbytes <= HELD:
                self._held[i] = image
            self.sizes.append((image.shape[0], image.shape[1]))
            self.whites.append(white_of(image))
            colours = colours or image.ndim == 3
        if not self._sources:
            raise InputError("X holds no images.")
        self.channels = 3 if colours else 1
        self.dtype = self[0].dtype

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        held = self._held.get(i)
        if held is not None:
            return held
        name, source = self._sources[i]
        pixels = read_photograph(source).pixels if isinstance(source, Path) else source
        return check_image(pixels, name)

    def name(self, i: int) -> str:
        """What to call one of them."""
        return self._sources[i][0]


def _each(given: Any) -> Iterator[tuple[str, Any]]:
    """Name and source of every image."""
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.exists():
            raise FileError(f"'{path}' is not there; give an image or a folder of images.")
        paths = find_photographs(path) if path.is_dir() else [path]
        yield from ((f"'{p}'", p) for p in paths)
    elif isinstance(given, list | tuple):
        for i, item in enumerate(given):
            if isinstance(item, str | Path):
                yield from _each(item)
            else:
                yield f"Image {i} of X", item
    else:
        yield from _of_array(given)


def _of_array(given: Any) -> Iterator[tuple[str, Any]]:
    array = np.asarray(given)
    one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if one:
        yield "X", array
    elif array.ndim in (3, 4):
        yield from ((f"Image {i} of X", image) for i, image in enumerate(array))
    else:
        raise InputError(
            f"X has shape {array.shape}; give one image (height, width) or (height, width, 3), "
            "several of them, or a folder."
        )
