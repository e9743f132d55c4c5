"""Folders of images, by Pillow, as one array that is read when its rows are asked for.

The rules, in one place:

- Files are found in subfolders too, in natural order (img2 before img10); hidden ones are
  passed over. Where every image lies in a subfolder, and there are two subfolders or more, the
  subfolders' names are the labels.
- Grey images give (n, H, W), colour ones (n, H, W, 3); one colour image makes all of them
  colour. A palette counts as grey when it holds greys only.
- 8 bits give uint8, 16 bits uint16; where both occur, 8-bit values are multiplied by 257, which
  maps 255 to 65,535 exactly. Pillow itself reads 16-bit *colour* as 8 bits. Floating-point
  images give float32 and mix with no others.
- Transparency is laid over white; an animation gives its first frame; the orientation noted by a
  camera (EXIF) is applied.
- ``resize`` keeps the proportions: each image is scaled until it covers the size asked for, and
  what stands out is cropped evenly from both sides (Lanczos filter).
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, NarrowsError, ParameterError
from narrows.io.sources import LazyRows

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp .pgm .ppm .pbm .pnm".split()  # noqa: SIM905
)
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
Size = tuple[int, int]  # height, width
Resize = int | str | tuple[int, int] | None
T = TypeVar("T")
LIMIT = threading.RLock()
# the ways in which decoders fail over damaged files
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError),
    *(AttributeError, RuntimeError, SystemError, AssertionError, struct.error, zlib.error),
)


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sorting key under which numbers count as numbers.

    >>> sorted(["b1", "a10", "a2"], key=natural_key)
    ['a2', 'a10', 'b1']
    """
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def parse_size(resize: Resize) -> Size | None:
    """Height and width from ``64``, ``"64"``, ``"48x64"`` or ``(48, 64)``.

    Raises ParameterError for anything else.

    >>> parse_size(64), parse_size("48x64")
    ((64, 64), (48, 64))
    """
    if resize is None:
        return None
    parts: list[Any] = [resize]
    if isinstance(resize, str):
        parts = re.split(r"[x×]", resize.lower())
    elif isinstance(resize, (tuple, list)):
        parts = list(resize)
    try:
        sizes = [int(part) if isinstance(part, str) else part.__index__() for part in parts]
    except (ValueError, AttributeError):
        sizes = []
    if len(sizes) not in (1, 2) or min(sizes) < 1 or any(isinstance(p, bool) for p in parts):
        raise ParameterError(
            f"resize={resize!r} makes no sense: give the height and width in pixels, "
            "such as 64 or 48x64."
        )
    return sizes[0], sizes[-1]


def find_images(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, in natural order."""
    inside = [path.relative_to(folder) for path in folder.rglob("*")]
    kept = [path for path in inside if path.suffix.lower() in SUFFIXES and not _hidden(path)]
    kept.sort(key=lambda path: ([natural_key(part) for part in path.parts], path.as_posix()))
    return [folder / path for path in kept if (folder / path).is_file()]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


class ImageFolder(LazyRows):
    """All images of a folder, (n, H, W) or (n, H, W, 3), decoded when they are asked for.

    ``y`` and ``y_names`` are the labels and their names, or None. Every image is opened once
    at the start, to see its size and kind; the first is decoded too.

    Raises InputError where there is no image or sizes differ and no ``resize`` is given, and
    FileError for a file that cannot be read, by name.
    """

    def __init__(self, folder: Path, resize: Resize = None) -> None:
        self._folder, self._size = folder, parse_size(resize)
        self._files = find_images(folder)
        if not self._files:
            raise InputError(nothing_in(folder))
        looks = [_with_image(path, _look) for path in self._files]
        if self._size is None:
            _check_sizes(folder, Counter(size for size, _, _ in looks))
        self.dtype = _common_dtype(folder, {dtype for _, dtype, _ in looks})
        # Not every header tells the orientation: what the first image is when decoded counts.
        sides = self._decoded(self._files[0]).shape[:2]
        channels = () if all(grey for _, _, grey in looks) else (3,)
        self.shape = (len(self._files), *sides, *channels)
        self.y, self.y_names = _labels(folder, self._files)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        X = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for row, path in zip(X, self._files[start:stop], strict=True):
            image = self._decoded(path)
            self._check(path, image)
            row[...] = image[..., None] if image.ndim < row.ndim else image
            if image.dtype != self.dtype:
                row *= 257
        return X

    def _decoded(self, path: Path) -> NDArray[Any]:
        return _with_image(path, lambda image: pixels(image, self._size))

    def _check(self, path: Path, image: NDArray[Any]) -> None:
        (height, width), (h, w) = self.shape[1:3], image.shape[:2]
        if (height, width) != (h, w):  # a header that did not tell how the camera was held
            raise InputError(
                f"The image '{path}' is {h}x{w} and the first of its folder {height}x{width} "
                f"(height x width): {_one_size(min((height, width), (h, w)))}"
            )
        widest = _common_dtype(self._folder, {image.dtype, self.dtype})
        if image.ndim >= len(self.shape) or widest != self.dtype:
            raise FileError(f"'{path}' changed while the folder was read: read it again.")


def nothing_in(folder: Path) -> str:
    """The sentence for a folder without images."""
    others = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not others:
        return f"The folder '{folder}' is empty: expected images."
    files = [path for path in others if path.is_file()]
    hint = f"; to read another file, name it: '{files[0]}'" if files else ""
    return f"The folder '{folder}' holds no images ({', '.join(sorted(SUFFIXES))}){hint}."


def _check_sizes(folder: Path, sizes: Counter[Size]) -> None:
    if len(sizes) < 2:
        return
    shown = ", ".join(f"{count} of {h}x{w}" for (h, w), count in sizes.most_common(3))
    more = f" and {len(sizes) - 3} sizes more" if len(sizes) > 3 else ""
    raise InputError(
        f"The images in '{folder}' differ in size (height x width: {shown}{more}): "
        f"{_one_size(min(sizes))}"
    )


def _one_size(size: Size) -> str:
    height, width = size
    either = f" or --resize {height}x{width}" if height != width else ""
    return (
        f"bring them to one size with --resize {min(size)} (square){either}, in Python "
        f"resize=({height}, {width})."
    )


def _labels(folder: Path, files: list[Path]) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    names = [path.parent.name for path in files]
    classes = sorted(set(names), key=lambda name: (natural_key(name), name))
    if len(classes) < 2 or any(path.parent == folder for path in files):
        return None, None
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], dtype=np.int64), classes


def _with_image(path: Path, read: Callable[[Image], T]) -> T:
    """What ``read`` makes of one opened image; whatever is wrong with it, said with its name."""
    from PIL import Image

    with explained(path), Image.open(path) as image:
        return read(image)


@contextmanager
def explained(path: Path, max_pixels: int | None = None) -> Iterator[None]:
    """Whatever goes wrong inside, over the image at ``path``, becomes one FileError that names it.

    ``max_pixels`` is the most an image may claim, instead of Pillow's own limit.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with _limit(max_pixels), _filters(Image.DecompressionBombWarning):
            yield
    except NarrowsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FileError(_too_large(path, max_pixels, Image.MAX_IMAGE_PIXELS)) from None
    except UnidentifiedImageError:
        raise FileError(_not_an_image(path)) from None
    except DAMAGE as error:
        raise FileError(
            f"The image '{path}' cannot be read ({error}): replace it, or take it away."
        ) from None


def _too_large(path: Path, max_pixels: int | None, usual: int | None) -> str:
    allow = "" if max_pixels is None else ", or allow more (narrows denoise: --max-pixels)"
    return (
        f"'{path}' claims more than {max_pixels or usual or 0:,} pixels, as files made to fill the "
        f"memory do: make it smaller or remove it{allow}."
    )


@contextmanager
def _limit(max_pixels: int | None) -> Iterator[None]:
    """Pillow's limit is the whole process's: changed by one at a time, and always put back."""
    from PIL import Image

    if max_pixels is None:
        yield
        return
    with LIMIT:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


@contextmanager
def _filters(bomb: type[Warning]) -> Iterator[None]:
    # Filters are the whole process's: changed beside the main thread they might stay changed. What
    # is read there has been opened here before.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", bomb)
        # Notes about odd metadata are no concern of who asked for the pixels.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _not_an_image(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"'{path}' is an empty file, not an image: remove it or save it again."
    printable = start.decode("utf-8", "ignore").isprintable() or start.isascii()
    what = f"a text file (it begins {start[:20]!r})" if printable else "of no known kind"
    return f"'{path}' is named like an image and is {what}: remove it or save it again."


def _size(image: Image) -> Size:
    """Height and width after the orientation is applied, from the header alone."""
    # A TIFF's size is turned already; asking a PNG for what is not in its header decodes it whole.
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    orientation = image.getexif().get(ORIENTATION) if known else None
    width, height = image.size
    return (width, height) if orientation in SIDEWAYS else (height, width)


def _look(image: Image) -> tuple[Size, np.dtype[Any], bool]:
    """Size, dtype and whether it is grey; only a palette makes Pillow decode the pixels."""
    return _size(image), _dtype(image), is_deep(image) or is_grey(image)


def is_deep(image: Image) -> bool:
    """Whether Pillow holds more than 8 bits a pixel, which is grey then."""
    return image.mode == "F" or image.mode.startswith("I")


def _dtype(image: Image) -> np.dtype[Any]:
    deep = np.dtype(np.float32 if image.mode == "F" else np.uint16)
    return deep if is_deep(image) else np.dtype(np.uint8)


def pixels(image: Image, size: Size | None = None) -> NDArray[Any]:
    """The pixels by the rules above: (H, W) or (H, W, 3), uint8, uint16 or float32."""
    from PIL import Image as pillow
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    dtype = _dtype(image)
    if is_deep(image):
        deep = np.asarray(image)
        if dtype == np.uint16 and (deep.min() < 0 or deep.max() > 65_535):
            raise ValueError("its values lie outside 0 to 65,535")
        image = pillow.fromarray(deep.astype(np.float32))
    else:
        image = _flat(image)
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), pillow.Resampling.LANCZOS)
    shades: NDArray[Any] = np.array(image)
    return shades.round().clip(0, 65_535).astype(dtype) if dtype == np.uint16 else shades


def _flat(image: Image) -> Image:
    """An 8-bit image as grey or RGB, what is transparent laid over white."""
    from PIL import Image as pillow

    grey = is_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert("RGB").getchannel("R") if grey else image.convert("RGB")


def is_grey(image: Image) -> bool:
    """Whether an image of 8 bits holds greys by its kind: a palette of nothing else is one."""
    if image.mode != "P":
        return image.mode in ("1", "L", "LA", "La")
    palette = image.getpalette("RGB") or []
    red, green, blue = palette[0::3], palette[1::3], palette[2::3]
    return red == green == blue


def _common_dtype(folder: Path, dtypes: set[np.dtype[Any]]) -> np.dtype[Any]:
    """The widest; floating point mixes with no other."""
    dtype = max(dtypes, key=lambda d: d.itemsize)
    if dtype == np.float32 and len(dtypes) > 1:
        raise InputError(
            f"The folder '{folder}' mixes floating-point images with others: save them in one kind."
        )
    return dtype
