"""Photographs as they are stored: their own depth, with transparency and metadata beside them.

What a photograph is read as here can be written again without loss:

- 8 bits stay uint8, 16 bits uint16, floating point float32; nothing is scaled. Palettes become
  the greys or colours they stand for, black and white 0 and 255.
- Transparency is kept apart from the colours, as it is.
- EXIF is kept, and with it the orientation: pixels are not turned. So are the colour profile (ICC)
  and the resolution. Other metadata (XMP, comments) is left out.
- CMYK and LAB become RGB, and their profile goes; of an animation there is the first frame. Both
  are said in a warning.
- An image may claim ``max_pixels``, which is looked at in its header, before anything is decoded.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.deep_images import (
    below_eight_bits,
    beyond_pillow,
    kept_tags,
    read_tiff,
    turned_back,
    write_png,
    write_tiff,
)
from narrows.io.image_folders import ORIENTATION, SUFFIXES, explained, is_deep, is_grey
from narrows.io.photo_files import WRITABLE, counterparts, find_photographs, plan
from narrows.io.write import atomic_write, check_output

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "WRITABLE",
    "Photograph",
    "check_can_hold",
    "counterparts",
    "find_photographs",
    "plan",
    "read_photograph",
    "white_of",
    "write_photograph",
]

PHOTO_SUFFIXES = SUFFIXES
MAX_PIXELS = 200_000_000
# None of Pillow's others: some of them run other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
CONVERTED = ("CMYK", "LAB")
WHITES = (1.0, 255.0, 65535.0)  # what white may be in an image of floats
EXIF_HEAD = b"Exif\0\0"

DEPTHS = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floating-point numbers"}
EIGHT, SIXTEEN, ANY = ("uint8",), ("uint8", "uint16"), tuple(DEPTHS)
HOLDS = {".png": SIXTEEN, ".tif": ANY, ".tiff": ANY, ".jpg": EIGHT, ".jpeg": EIGHT, ".webp": EIGHT}
OPAQUE = (".jpg", ".jpeg")
LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
LARGEST_JPEG_EXIF = 65_533  # bytes
LARGEST_TIFF = 2**32 - 2**24  # bytes of pixels; its offsets have 32 bits


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """A photograph and what must go with it when it is written again.

    ``pixels`` is (H, W) or (H, W, 3), uint8, uint16 or float32, as stored: not turned by EXIF's
    orientation; ``alpha`` (H, W) in the same dtype, or None; ``exif`` and ``icc`` the metadata and
    the colour profile as bytes, empty where there are none; ``dpi`` the resolution in pixels per
    inch, across and down, or None.

    >>> Photograph(np.zeros((2, 3), np.uint8)).planes.shape
    (2, 3, 1)
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None

    @property
    def planes(self) -> NDArray[Any]:
        """Colours and transparency together, (H, W, 1 to 4)."""
        joined = [self.pixels] if self.alpha is None else [self.pixels, self.alpha]
        return np.dstack(joined)

    @property
    def upright(self) -> NDArray[Any]:
        """``planes``, turned as EXIF says they are to be seen."""
        from PIL import Image

        exif = Image.Exif()
        exif.load(self.exif)
        orientation = exif.get(ORIENTATION) or 1
        # to turn is to turn back the other way: a quarter's opposite is the other quarter
        return turned_back(self.planes, {6: 8, 8: 6}.get(orientation, orientation))

    def with_pixels(self, pixels: NDArray[Any]) -> Photograph:
        """The same photograph with other pixels, of the same shape and dtype.

        Raises InputError where they are of another.
        """
        old, new = (f"{p.dtype} of shape {p.shape}" for p in (self.pixels, pixels))
        if old != new:
            raise InputError(f"The new pixels are {new}, the photograph's {old}: give the same.")
        return replace(self, pixels=pixels)


def white_of(pixels: NDArray[Any]) -> float:
    """The value that stands for white: the largest of an integer dtype; of floats 1, 255 or 65535.

    Of these it is the least that twice exceeds no value, as noise may pass white by far.

    >>> white_of(np.zeros((2, 2), np.uint8)), white_of(np.array([[1.2, -0.1]]))
    (255.0, 1.0)
    """
    if pixels.dtype.kind in "ui":
        return float(np.iinfo(pixels.dtype).max)
    most = float(np.abs(pixels).max(initial=0.0))
    return next((white for white in WHITES if most <= 2 * white), most)


def read_photograph(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read the photograph in the file ``path``, at the depth it is stored in.

    Parameters: ``path`` a file of one of ``PHOTO_SUFFIXES``; ``max_pixels`` the most pixels it may
    claim. Warns of an animation, of which there is the first frame, and of CMYK and LAB colours,
    which become RGB.

    Raises FileError where the file is missing, damaged, no image, larger than ``max_pixels`` or
    holds values that are no photograph's, and ParameterError where ``max_pixels`` is below 1.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> deep = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    >>> path = write_photograph(Photograph(deep), folder.name + "/deep.png")
    >>> bool((read_photograph(path).pixels == deep).all())
    True
    >>> folder.cleanup()
    """
    path = Path(path)
    if max_pixels < 1:
        raise ParameterError(f"max_pixels is {max_pixels}: give a number from 1 up.")
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise FileError(f"The image '{path}' {what}: give the path of an image.")
    notes: list[str] = []
    with explained(path, max_pixels):
        found = _from_tifffile(path, max_pixels, notes) or _from_pillow(path, max_pixels, notes)
    for note in notes:
        warnings.warn(f"'{path}' {note}.", stacklevel=2)
    return found


def _check_size(width: int, height: int, max_pixels: int) -> None:
    from PIL.Image import DecompressionBombError

    if width * height > max_pixels:
        raise DecompressionBombError  # `explained` has the sentence


def _from_tifffile(path: Path, max_pixels: int, notes: list[str]) -> Photograph | None:
    """The photograph, where it is one of the TIFFs that Pillow does not read in full."""
    tags = beyond_pillow(path)
    if tags is None:
        return None
    _check_size(tags[256], tags[257], max_pixels)
    planes, n_pages = read_tiff(path)
    if n_pages > 1:
        notes.append(f"holds {n_pages} pictures: only the first is read")
    pixels, alpha = _split(path, planes)
    scale = {2: 1.0, 3: 2.54}.get(tags.get(296, 2), 0.0)
    dpi = _dpi([float(tags.get(tag, 0)) * scale for tag in (282, 283)])
    return Photograph(pixels, alpha, kept_tags(tags), tags.get(34675, b""), dpi)


def _from_pillow(path: Path, max_pixels: int, notes: list[str]) -> Photograph:
    from PIL import Image

    with Image.open(path, formats=FORMATS) as image:
        _check_size(*image.size, max_pixels)
        if getattr(image, "is_animated", False):
            notes.append("holds several pictures: only the first is read")
        # before it is decoded: these see how it is stored
        exif, orientation = b"", 1
        if image.format == "TIFF":
            exif, orientation = kept_tags(image.getexif()), image.getexif().get(ORIENTATION, 1)
        planes = below_eight_bits(image, path)
        image.load()  # some of the metadata stands behind the pixels
        icc = image.info.get("icc_profile") or b""
        if image.mode in CONVERTED:
            lost = " and the colour profile is left out" if icc else ""
            notes.append(f"is {image.mode}: its colours become RGB{lost}")
        planes = _stored(image, icc) if planes is None else planes
        pixels, alpha = _split(path, turned_back(planes, orientation))
        alpha = _by_key(pixels, image.info.get("transparency")) if alpha is None else alpha
        kept = b"" if image.mode in CONVERTED else icc
        return Photograph(
            pixels, alpha, exif or _exif(image), kept, _dpi(image.info.get("dpi", ()))
        )


def _by_key(pixels: NDArray[Any], key: Any) -> NDArray[Any] | None:
    """The alpha of a deep image in which one colour, ``key``, stands for what is transparent."""
    if key is None or pixels.dtype != np.uint16:
        return None
    shown = (pixels != np.array(key, np.uint16)).reshape(*pixels.shape[:2], -1).any(axis=2)
    alpha: NDArray[Any] = shown * np.uint16(65_535)
    return alpha


def _stored(image: Image, icc: bytes) -> NDArray[Any]:
    """(H, W) or (H, W, C) of what Pillow reads at its own depth."""
    if is_deep(image):
        return np.asarray(image)
    transparent = image.has_transparency_data
    planes = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    # a profile for colours must not come to stand beside greys that a palette was made of
    if is_grey(image) and not (image.mode == "P" and icc[16:20] == b"RGB "):
        return planes[..., [0, 3]] if transparent else planes[..., 0]
    return planes


def _split(path: Path, planes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Pixels and alpha of (H, W[, C]), in one of the three dtypes."""
    values = _settled(path, planes)
    values = values[..., None] if values.ndim == 2 else values
    n_colours = 3 if values.shape[2] > 2 else 1
    pixels = values[..., :n_colours] if n_colours == 3 else values[..., 0]
    alpha = values[..., n_colours] if values.shape[2] > n_colours else None
    return np.array(pixels, order="C"), None if alpha is None else np.array(alpha, order="C")


def _settled(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise FileError(
                f"The image '{path}' holds values that are no numbers (NaN or infinity): replace "
                "them and save it again."
            )
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise FileError(
            f"The image '{path}' holds whole numbers from {low:,} to {high:,}, and 0 to 65,535 can "
            "be used: scale it and save it again."
        )
    return values.astype(np.uint16)


def _exif(image: Image) -> bytes:
    stored: bytes = image.info.get("exif", b"")
    if stored:
        return stored if stored.startswith(EXIF_HEAD) else EXIF_HEAD + stored
    found = image.getexif()  # what is told elsewhere, such as in a PNG's text
    return kept_tags(found) if len(found) else b""


def _dpi(stored: Any) -> tuple[float, float] | None:
    found = tuple(float(number) for number in stored)
    return (found[0], found[1]) if len(found) == 2 and all(0 < d < 1e6 for d in found) else None


def check_can_hold(photograph: Photograph, path: str | Path) -> None:
    """Raise FileError where the format that ``path`` names cannot hold the photograph as it is.

    >>> check_can_hold(Photograph(np.zeros((2, 2), np.uint16)), "a.jpg")
    Traceback (most recent call last):
    narrows.exceptions.FileError: 'a.jpg' cannot hold 16 bits: give a name in .png, .tif or .tiff.
    """
    suffix, said = Path(path).suffix.lower(), f"'{path}' cannot"
    fitting = [kind for kind in WRITABLE if not _wrong(photograph, kind)]
    choice = ", ".join(fitting[:-1]) + (" or " if fitting[1:] else "") + "".join(fitting[-1:])
    what = "be written" if suffix not in HOLDS else f"hold {_wrong(photograph, suffix)}"
    if suffix not in fitting:
        raise FileError(f"{said} {what}: give a name in {choice or 'no format we know'}.")


def _wrong(photograph: Photograph, suffix: str) -> str:
    """What the format cannot hold; nothing where it holds all."""
    height, width = photograph.pixels.shape[:2]
    depth = photograph.pixels.dtype.name
    if depth not in HOLDS[suffix]:
        return DEPTHS[depth]
    if suffix in OPAQUE and photograph.alpha is not None:
        return "transparency"
    if max(height, width) > LONGEST_SIDE.get(suffix, height + width):
        return f"{width:,} × {height:,} pixels"
    if suffix in OPAQUE and len(photograph.exif) > LARGEST_JPEG_EXIF:
        return f"{len(photograph.exif):,} bytes of EXIF"
    n_bytes = height * width * 4 * photograph.pixels.itemsize  # at most
    if suffix.startswith(".tif") and n_bytes > LARGEST_TIFF:
        return f"{n_bytes:,} bytes"
    return ""


def write_photograph(photograph: Photograph, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a photograph to ``path``, in the format its suffix names, and return the path.

    The depth is the pixels' own. PNG, TIFF and WebP keep every bit; JPEG has quality 95 and full
    colour resolution (4:4:4).

    Raises FileError where the format cannot hold it, as `check_can_hold` says, or nothing may be
    written there, or something is there already and ``overwrite`` is false.
    """
    check_can_hold(photograph, path)
    path = check_output(path, WRITABLE, overwrite=overwrite)
    with atomic_write(path) as place:
        if path.suffix.lower() in (".tif", ".tiff"):
            write_tiff(place, photograph.planes, photograph.exif, photograph.icc, photograph.dpi)
        elif photograph.pixels.dtype == np.uint16:
            write_png(place, photograph.planes, photograph.exif, photograph.icc, photograph.dpi)
        else:
            _write_eight_bits(photograph, path.suffix.lower(), place)
    return path


def _write_eight_bits(photograph: Photograph, suffix: str, place: Path) -> None:
    from PIL import Image

    kind = {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True, "exact": True},
        "JPEG": {"quality": 95, "subsampling": 0},
    }
    known = {"exif": photograph.exif, "icc_profile": photograph.icc, "dpi": photograph.dpi}
    planes = photograph.planes
    image = Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes)
    image.save(place, format=kind, **options.get(kind, {}), **{k: v for k, v in known.items() if v})
