"""Images of any sizes, from whatever a user has them in: files, folders, arrays, lists of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from narrows.exceptions import FileError, InputError, InputTypeError
from narrows.io.photographs import find_photographs, read_photograph, white_of

Array = NDArray[Any]
TIED = 2e-3  # a share of the pixels
LARGEST = 1e9  # beyond, squares and sums of them would leave float32
HELD = 2**30  # bytes of decoded images kept in memory; of more, files are read again when needed


def check_image(pixels: Any, name: str) -> Array:
    """One image, (H, W) or (H, W, 3), or a sentence about what is wrong with it.

    Grey that is stored as colour is grey; the dtype is one that torch can compute with.
    """
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
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError(f"{name} holds NaN or infinity; replace them first.")
    if image.dtype.kind == "f" and np.abs(image).max() > LARGEST:
        raise InputError(
            f"{name} holds values up to {np.abs(image).max():.0e}; divide it by its white."
        )
    if image.ndim == 3 and (image[..., :1] == image[..., 1:]).all():
        image = image[..., 0]  # one noise in three channels is none of three
    return np.ascontiguousarray(_narrowed(image, name))


def _narrowed(image: Array, name: str) -> Array:
    """uint8 or uint16, or float32 or float64 in this machine's order of bytes."""
    if image.dtype.kind == "f":
        return image.astype(np.float64 if image.dtype.itemsize >= 8 else np.float32, copy=False)
    if image.dtype.itemsize > 2 or image.dtype.kind == "i":
        if image.min() < 0 or image.max() > 65535:
            raise InputError(
                f"{name} holds {image.dtype} from {image.min()} to {image.max()}; give uint8, "
                "uint16, or floats."
            )
        return image.astype(np.uint8 if image.max() <= 255 else np.uint16)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


class Images(Sequence[Any]):
    """Images of any sizes in order; files are decoded when asked for, or kept where there is room.

    Parameters
    ----------
    given : str or Path, array, or a list of these
        A file, a folder (with its subfolders), one image (H, W) or (H, W, 3), or several: a list,
        (n, H, W), or (n, H, W, 3). Three axes of which the last has 3 elements (or 1) are one
        image.
    white : float, optional
        The value of white in all of them; else it follows from each image's dtype, and of floats
        is 1, 255 or 65535, whichever the largest value goes with.

    Raises
    ------
    InputError, FileError
        There are none, or one of them is no image, by name.
    """

    def __init__(self, given: Any, white: float | None = None) -> None:
        self._sources = list(_each(given))
        self._held: dict[int, Array] = {}
        self.sizes: list[tuple[int, int]] = []
        self.whites: list[float] = []
        self.pixels, colours, greys = 0, False, False
        self.clipped = False
        nbytes = 0
        for i in range(len(self._sources)):
            image = self[i]
            nbytes += image.nbytes
            if nbytes <= HELD:
                self._held[i] = image
            self.sizes.append((image.shape[0], image.shape[1]))
            self.whites.append(white_of(image) if white is None else white)
            self.pixels += image.size
            self.clipped = self.clipped or _is_clipped(image)
            colours, greys = colours or image.ndim == 3, greys or image.ndim == 2
        if not self._sources:
            raise InputError("X holds no images.")
        self.channels = 3 if colours else 1
        self.mixed = colours and greys
        self.dtype = self[0].dtype

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        held = self._held.get(i)
        if held is not None:
            return held
        return check_image(self.raw(i), self.name(i))

    def raw(self, i: int) -> Array:
        """One of them as it came."""
        source = self._sources[i][1]
        return read_photograph(source).pixels if isinstance(source, Path) else np.asarray(source)

    def name(self, i: int) -> str:
        """What to call one of them."""
        return self._sources[i][0]


def _is_clipped(image: Array) -> bool:
    """Whether many pixels share the lowest or the highest value, as noise does not leave them."""
    ends = (image == image.min()) | (image == image.max())
    return float(ends.mean()) > TIED


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
    if array.ndim == 0:
        raise InputError(f"X is a {type(given).__name__}; give an image, several, or a folder.")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
        yield "X", array
    elif array.ndim in (3, 4):
        yield from ((f"Image {i} of X", image) for i, image in enumerate(array))
    else:
        raise InputError(
            f"X has shape {array.shape}; give one image (height, width) or (height, width, 3), "
            "several of them, or a folder."
        )


def as_stored(values: Tensor, like: Array) -> Array:
    """(C, H, W) as the image it comes from: its axes and dtype, integers rounded and clipped."""
    grey = like.ndim == 2 or like.shape[2] == 1
    values = values.mean(0, keepdim=True) if grey else values
    image = values.movedim(0, -1).cpu().numpy()
    dtype = np.dtype(np.uint8) if like.dtype == bool else like.dtype
    if dtype.kind in "ui":
        ends = np.iinfo(dtype)
        image = image.round().clip(max(ends.min, 0), min(ends.max, 65535))
    # grey that is stored in three channels is cleaned as one
    image = np.broadcast_to(image, (*image.shape[:2], like.size // image[..., 0].size))
    return np.ascontiguousarray(image.astype(dtype)).reshape(like.shape)
