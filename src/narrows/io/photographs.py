"""Photographs as they are stored: at their own depth, with transparency and metadata.

What a photograph is read as can be written again without loss:

- 8 bits stay uint8, 16 bits uint16, floating point float32; nothing is scaled. Palettes become
  greys or colours, black and white 0 and 255.
- Transparency is kept apart from the colours, as it is.
- EXIF is kept, and with it the orientation: pixels are not turned. So are the colour profile (ICC)
  and the resolution. Other metadata (XMP, comments) is left out.
- CMYK and LAB become RGB, and their profile goes; of an animation there is the first frame. A
  warning says either.
- An image may claim ``max_pixels``: its header is checked before anything is decoded.

`Images` is a list of photographs or arrays of any sizes; `plan` settles which file each photograph
of a folder is written to before anything is computed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, InputTypeError, ParameterError
from narrows.io import image_files
from narrows.io.image_files import ORIENTATION, find_photographs
from narrows.io.sources import unmasked
from narrows.io.write import already_exists, atomic_write, check_folder, check_output, listed

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "WRITABLE",
    "Photograph",
    "check_can_hold",
    "counterparts",
    "find_photographs",
    "plan",
    "read_photograph",
    "white_and_doubt",
    "write_photograph",
]

Array = NDArray[Any]
Pair = tuple[Path, Path]  # the file that is read, and the one that is written

WRITABLE = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
FALLBACK_SUFFIX = ".png"  # for formats that are read and not written
MAX_PIXELS = 200_000_000
WHITES = (1.0, 255.0, 65535.0)  # what white may be in an image of floats
# for each white the next smaller one in use: 14 bits within 16 (as a share), per cent, 14 bits
LESSER = {1.0: 0.25, 255.0: 100.0, 65535.0: 16383.0}
EXIF_HEAD = b"Exif\0\0"

PNG = {"format": "PNG"}  # these are options of Pillow's
WEBP: dict[str, Any] = {"format": "WEBP", "lossless": True, "exact": True}
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}

DTYPE_NAMES = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floating-point numbers"}
# what each format can hold
FORMAT_DTYPES: dict[str, tuple[str, ...]] = dict.fromkeys(WRITABLE, ("uint8",))
FORMAT_DTYPES |= {".png": ("uint8", "uint16")} | dict.fromkeys((".tif", ".tiff"), (*DTYPE_NAMES,))
OPAQUE_FORMATS = (".jpg", ".jpeg")
MAX_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
MAX_JPEG_EXIF = 65_533  # bytes: the length of a segment has 16 bits
MAX_TIFF_BYTES = 2**32 - 2**24  # of pixels: offsets have 32 bits, and the directory needs room

CLIPPED_SHARE = 2e-3  # of the pixels
PIXELS_PER_STRIP = 2**20  # of a file that are converted together
MAX_QUANTILE_VALUES = 2**20  # of a large image only some
MAX_VALUE = 1e9  # beyond it, squares and their sums leave float32
MAX_HELD = 2**30  # bytes of decoded images kept in memory; of more, files are read when needed


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """A photograph and what must go with it when it is written again.

    ``pixels`` is (H, W) or (H, W, 3), uint8, uint16 or float32, as stored: not turned by EXIF's
    orientation; ``alpha`` (H, W) in the same dtype, or None; ``exif`` and ``icc`` the metadata and
    the colour profile as bytes, empty if there are none; ``dpi`` the resolution in pixels per
    inch, across and down, or None.

    >>> Photograph(np.zeros((2, 3), np.uint8)).planes.shape
    (2, 3, 1)
    """

    pixels: Array
    alpha: Array | None = None
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None

    @property
    def planes(self) -> Array:
        """Colours and transparency together, (H, W, 1 to 4)."""
        return np.dstack([self.pixels] if self.alpha is None else [self.pixels, self.alpha])

    @property
    def upright(self) -> Array:
        """``planes`` as they are to be seen: turned as EXIF's orientation says."""
        from PIL.Image import Exif

        exif, orientation = Exif(), 1
        # without a readable orientation, the image is not turned
        with image_files.pillow_settings(None), suppress(*image_files.DAMAGE):
            exif.load(self.exif)
            orientation = exif.get(ORIENTATION) or 1
        return image_files.reorient(self.planes, orientation)

    def with_pixels(self, pixels: Array) -> Photograph:
        """The same photograph with other pixels; InputError if shape or dtype differ."""
        old, new = (f"{p.dtype} of shape {p.shape}" for p in (self.pixels, pixels))
        if old != new:
            raise InputError(f"The new pixels are {new}, the photograph's {old}: give the same.")
        return replace(self, pixels=pixels)


def white_and_doubt(pixels: Array) -> tuple[float, str]:
    """The value of white, and why it is a guess; empty if it is none.

    It is the largest of uint8 and uint16; of other numbers the first of 1, 255 and 65,535 whose
    double 95 % of the values do not exceed (whole numbers above 2 have no white of 1): noise, and
    bright dots in a few of the pixels, may be far above white.

    It is a guess if 99 % of the values are below 5/4 of the next smaller white in use (`LESSER`),
    which noise may exceed by that, or 1 % above 5/2 of white, or a single one above 4 times white.
    Eight bits are no guess.

    >>> white_and_doubt(np.zeros((2, 2), np.uint8)), white_and_doubt(np.array([[1.2, -0.1]]))
    ((255.0, ''), (1.0, ''))
    >>> white_and_doubt(np.array([[0, 4095]], np.uint16))
    (65535.0, 'its largest value is 4,095')
    """
    known = {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name)
    if pixels.dtype == np.uint8 or not pixels.size:
        return known or 1.0, ""
    largest = max(abs(float(pixels.min())), abs(float(pixels.max())))
    some = np.abs(pixels.ravel()[:: max(1, pixels.size // MAX_QUANTILE_VALUES)].astype(float))
    most, nearly_all = np.quantile(some, (0.95, 0.99), method="higher").tolist()
    whole = not known and largest > 2 and bool((pixels == np.rint(pixels)).all())
    white = known or next((white for white in WHITES[whole:] if most <= 2 * white), most)
    if largest <= 4 * white and (
        largest == 0 or 1.25 * LESSER.get(white, white) < nearly_all <= 2.5 * white
    ):
        return white, ""
    share = f"99 % of its values are at most {nearly_all:,.4g} and " if nearly_all < largest else ""
    return white, f"{share}its largest value is {largest:,.6g}"


# ------------------------------------------------------------------------------ reading


def read_photograph(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Photograph:
    """Read the photograph in a file, at the depth it is stored in.

    Warns of an animation, of which the first frame is read, and of CMYK and LAB colours, which
    become RGB.

    Parameters
    ----------
    path : str or Path
        A PNG, JPEG, BMP, GIF, TIFF, WebP or PNM file.
    max_pixels : int
        The largest size the file may claim.

    Raises
    ------
    FileError
        The file is missing, damaged, not an image, larger than ``max_pixels``, or holds values
        that cannot be a photograph's.
    ParameterError
        ``max_pixels`` is below 1.

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
        what = "is not a file" if path.exists() else "does not exist"
        raise FileError(f"The image '{path}' {what}: give the path of an image.")
    notes: list[str] = []
    with image_files.image_errors(path, max_pixels):
        found = _from_tifffile(path, max_pixels, notes) or _from_pillow(path, max_pixels, notes)
    for note in notes:
        warnings.warn(f"'{path}' {note}.", stacklevel=2)
    return found


def _check_size(width: int, height: int, max_pixels: int) -> None:
    from PIL.Image import DecompressionBombError

    if width * height > max_pixels:
        raise DecompressionBombError  # `image_errors` has the message


def _from_tifffile(path: Path, max_pixels: int, notes: list[str]) -> Photograph | None:
    """None if the file is for Pillow."""
    from PIL.ExifTags import Base

    tags = image_files.deep_tiff_tags(path)
    if tags is None:
        return None
    _check_size(tags[Base.ImageWidth], tags[Base.ImageLength], max_pixels)
    planes, n_pages = image_files.read_tiff(path)
    if n_pages > 1:
        notes.append(f"holds {n_pages} pictures: only the first is read")
    pixels, alpha = _split(planes)
    # 2: pixels per inch, 3: per centimetre
    per_inch = {2: 1.0, 3: 2.54}.get(tags.get(Base.ResolutionUnit, 2), 0.0)
    resolution = (tags.get(Base.XResolution, 0), tags.get(Base.YResolution, 0))
    dpi = _dpi(float(number) * per_inch for number in resolution)
    return Photograph(
        pixels, alpha, image_files.kept_tags(tags), tags.get(Base.InterColorProfile, b""), dpi
    )


def _from_pillow(path: Path, max_pixels: int, notes: list[str]) -> Photograph:
    with image_files.open_image(path) as image:
        _check_size(*image.size, max_pixels)
        if getattr(image, "is_animated", False):
            notes.append(image_files.SEVERAL)
        # These depend on how the image is stored: they are read before it is decoded.
        exif, orientation = b"", 1
        if image.format == "TIFF":
            tags = image.getexif()
            exif, orientation = image_files.kept_tags(tags), tags.get(ORIENTATION, 1)
        planes: Array | None = image_files.sixteen_bit_colours(image, path)
        marker = image_files.no_data_of(image)
        image.load()  # some of the metadata comes after the pixels
        if planes is None:
            image_files.refuse_no_data(marker, image)
        icc = image.info.get("icc_profile") or b""
        if image.mode in image_files.CONVERTED_MODES:
            lost = " and the colour profile is left out" if icc else ""
            notes.append(f"is {image.mode}: its colours become RGB{lost}")
        planes = _stored(image, icc) if planes is None else planes
        pixels, alpha = _split(image_files.undo_orientation(planes, orientation))
        key = image.info.get("transparency")
        if alpha is None and key is not None and pixels.dtype == np.uint16:
            # the one colour that is transparent
            shown = (pixels != np.array(key, np.uint16)).reshape(*pixels.shape[:2], -1).any(axis=2)
            alpha = shown * np.uint16(65_535)
        icc = b"" if image.mode in image_files.CONVERTED_MODES else icc
        dpi = _dpi(image.info.get("dpi", ()))
        return Photograph(pixels, alpha, exif or _exif(image), icc, dpi)


def _stored(image: Image, icc: bytes) -> Array:
    """(H, W) or (H, W, C) of what Pillow reads at its own depth."""
    if image_files.is_deep(image):
        return np.asarray(image)
    transparent = image.has_transparency_data
    # A profile for colours must not be stored with greys that a palette was turned into.
    grey = image_files.is_grey(image) and not (image.mode == "P" and icc[16:20] == b"RGB ")
    kept = [0, 3][: 1 + transparent] if grey else [0, 1, 2, 3][: 3 + transparent]
    (width, height), mode = image.size, "RGBA" if transparent else "RGB"
    planes = np.empty((height, width, len(kept)), np.uint8)
    # in strips, as Pillow's copies of a large image have four bytes a pixel
    step = max(1, PIXELS_PER_STRIP // width)
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        planes[top : top + step] = np.asarray(strip.convert(mode))[..., kept]
    return planes


def _split(planes: Array) -> tuple[Array, Array | None]:
    """Pixels and alpha of (H, W[, C]), in one of the three dtypes."""
    values = np.atleast_3d(image_files.in_three_dtypes(planes))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise image_files.NotReadTruly("it holds NaN or infinity; replace them first")
    n_colours = 3 if values.shape[2] > 2 else 1
    pixels = values[..., :3] if n_colours == 3 else values[..., 0]
    alpha = values[..., n_colours] if values.shape[2] > n_colours else None
    return _own(pixels), None if alpha is None else _own(alpha)


def _own(values: Array) -> Array:
    """In memory without gaps, and writable; copied only where it is not yet."""
    return np.require(values, requirements=["C", "W"])


def _exif(image: Image) -> bytes:
    stored: bytes = image.info.get("exif", b"")
    if stored:
        return stored if stored.startswith(EXIF_HEAD) else EXIF_HEAD + stored
    found = image.getexif()  # also from other places, such as a PNG's text
    return image_files.kept_tags(found) if len(found) else b""


def _dpi(stored: Any) -> tuple[float, float] | None:
    found = tuple(float(number) for number in stored)
    return (found[0], found[1]) if len(found) == 2 and all(0 < d < 1e6 for d in found) else None


# ------------------------------------------------------------------------------ writing


def check_can_hold(photograph: Photograph, path: str | Path) -> None:
    """Raise FileError if the format that ``path`` names cannot hold the photograph as it is.

    >>> check_can_hold(Photograph(np.zeros((2, 2), np.uint16)), "a.jpg")
    Traceback (most recent call last):
    narrows.exceptions.FileError: 'a.jpg' cannot hold 16 bits: give a name in .png, .tif or .tiff.
    """
    suffix = Path(path).suffix.lower()
    fitting = [kind for kind in WRITABLE if not _too_much(photograph, kind)]
    if suffix not in fitting:
        what = f"hold {_too_much(photograph, suffix)}" if suffix in FORMAT_DTYPES else "be written"
        choice = listed(fitting) or "no format that narrows writes"
        raise FileError(f"'{path}' cannot {what}: give a name in {choice}.")


def _too_much(photograph: Photograph, suffix: str) -> str:
    """What the format cannot hold; empty if it holds everything."""
    height, width = photograph.pixels.shape[:2]
    depth = photograph.pixels.dtype.name
    if depth not in FORMAT_DTYPES[suffix]:
        return DTYPE_NAMES[depth]
    if suffix in OPAQUE_FORMATS and photograph.alpha is not None:
        return "transparency"
    if max(height, width) > MAX_SIDE.get(suffix, height + width):
        return f"{width:,} × {height:,} pixels"
    if suffix in OPAQUE_FORMATS and len(photograph.exif) > MAX_JPEG_EXIF:
        return f"{len(photograph.exif):,} bytes of EXIF"
    n_bytes = height * width * 4 * photograph.pixels.itemsize  # at most
    return f"{n_bytes:,} bytes" if suffix.startswith(".tif") and n_bytes > MAX_TIFF_BYTES else ""


def write_photograph(photograph: Photograph, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a photograph to ``path``, in the format its suffix names, and return the path.

    The depth is the pixels' own. PNG, TIFF and WebP keep every bit; JPEG has quality 95 and full
    colour resolution (4:4:4).

    Raises FileError if the format cannot hold it, as `check_can_hold` says, if the folder cannot
    be written to, or if the file exists and ``overwrite`` is false.
    """
    check_can_hold(photograph, path)
    path = check_output(path, WRITABLE, overwrite=overwrite)
    suffix, planes = path.suffix.lower(), photograph.planes
    exif, icc, dpi = photograph.exif, photograph.icc, photograph.dpi
    with atomic_write(path) as place:
        if suffix in (".tif", ".tiff"):
            image_files.write_tiff(place, planes, exif, icc, dpi)
        elif planes.dtype == np.uint16:
            image_files.write_png(place, planes, exif, icc, dpi)
        else:
            from PIL import Image

            image = Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes)
            options = {".png": PNG, ".webp": WEBP}.get(suffix, JPEG)
            known: dict[str, Any] = {"exif": exif, "icc_profile": icc, "dpi": dpi}
            image.save(place, **options, **{name: value for name, value in known.items() if value})
    return path


# --------------------------------------------------------------- from which file to which


def plan(given: str | Path, out: str | Path, *, overwrite: bool = False) -> list[Pair]:
    """Which file each photograph of ``given`` is written to.

    ``given`` is an image or a folder of them. ``out`` is a file or a folder for one image, and a
    folder for a folder, whose names and subfolders are kept; formats that are read and not written
    become .png.

    Raises FileError if ``out`` cannot be written to, is or lies in ``given``, or exists already and
    ``overwrite`` is false; InputError if there is no image, or two would go to one file.
    """
    given, place = Path(given), Path(out)
    if not given.exists():
        raise FileError(f"'{given}' does not exist: give an image, or a folder of images.")
    if not given.is_dir() and not str(out).endswith(("/", os.sep)) and not place.is_dir():
        _check_pairs([(given, place)])
        check_output(place, WRITABLE, overwrite=overwrite)
        return [(given, place)]
    _check_folder(given, place)
    root = given if given.is_dir() else given.parent
    pairs = []
    for path in find_photographs(given) if given.is_dir() else [given]:
        name = path.relative_to(root)
        name = name if name.suffix.lower() in WRITABLE else name.with_suffix(FALLBACK_SUFFIX)
        pairs.append((path, place / name))
    _check_pairs(pairs)
    for _, target in pairs:
        if target.is_dir():
            raise FileError(f"'{target}' is a folder: choose another folder to write to.")
        if target.exists() and not overwrite:
            raise already_exists(target)
    return pairs


def _check_folder(given: Path, place: Path) -> None:
    """Raise FileError if ``place`` cannot be the folder that is written to."""
    if place.exists() and not place.is_dir():
        raise FileError(f"'{place}' is a file: give a folder to write to.")
    if not place.exists() and place.suffix.lower() in WRITABLE:
        raise FileError(f"'{given}' is a folder, and '{place}' names a file: give a folder.")
    if given.is_dir() and place.resolve().is_relative_to(given.resolve()):
        raise FileError(
            f"'{place}' is or lies in '{given}', where the images are: give a folder elsewhere."
        )
    check_folder(place if place.exists() else place.parent, place)


def _check_pairs(pairs: Sequence[Pair]) -> None:
    """No file may be written over an image that is given, or twice."""
    sources = {source.resolve() for source, _ in pairs}
    first: dict[Path, Path] = {}
    for source, target in pairs:
        if target.resolve() in sources:
            raise FileError(f"'{target}' is one of the images given: write to another place.")
        other = first.setdefault(target, source)
        if other != source:
            raise InputError(
                f"'{other}' and '{source}' would both be written to '{target}': rename one of them."
            )


def counterparts(pairs: Sequence[Pair], given: str | Path, others: str | Path) -> dict[Path, Path]:
    """For each source of ``pairs``, the image of the same name in ``others``.

    ``others`` is an image if ``given`` is one, and otherwise a folder laid out as ``given`` is;
    suffixes may differ. Raises FileError if one is missing.
    """
    given, others = Path(given), Path(others)
    if given.is_file() and others.is_file():
        return {source: others for source, _ in pairs}
    root = given if given.is_dir() else given.parent
    known = {path.relative_to(others).with_suffix(""): path for path in find_photographs(others)}
    found = {}
    for source, _ in pairs:
        name = source.relative_to(root).with_suffix("")
        if name not in known:
            raise FileError(
                f"There is no image '{others / name}' to compare with '{source}': add it."
            )
        found[source] = known[name]
    return found


# --------------------------------------------------------------- images of any sizes


class Images(Sequence[Any]):
    """Images of any sizes in order; files are decoded when needed, or kept if there is room.

    Parameters
    ----------
    given : str or Path, array, or a list of these
        A file, a folder (with its subfolders), one image (H, W) or (H, W, 3), or several: a list,
        (n, H, W), or (n, H, W, 3). Three axes of which the last has 3 elements (or 1) are one
        image.
    white : float, optional
        The value of white in all of them; otherwise `white_and_doubt` finds that of each image,
        with a warning where it is a guess.

    Attributes
    ----------
    sizes : list of (height, width); whites : list of float
    pixels : int
        Numbers in all images together.
    channels : int
        3 if any is in colour, otherwise 1; ``mixed``: there are both.
    clipped : bool
        Whether in one of them many pixels have the lowest or the highest value.
    dtype : numpy.dtype
        That of the first.

    Raises
    ------
    InputError, FileError
        There are none, or one of them is not an image; the message names it.
    """

    def __init__(self, given: object, white: float | None = None) -> None:
        self._sources = list(_named_sources(given))
        self._held: dict[int, Array] = {}
        self.sizes: list[tuple[int, int]] = []
        self.whites: list[float] = []
        self.pixels, self.clipped, nbytes = 0, False, 0
        dimensions, doubts = set(), []
        for i in range(len(self)):
            image = self[i]
            nbytes += image.nbytes
            if nbytes <= MAX_HELD:
                self._held[i] = image
            self.sizes.append((image.shape[0], image.shape[1]))
            found, doubt = white_and_doubt(image) if white is None else (white, "")
            self.whites.append(found)
            if doubt:
                doubts.append(
                    f"{self.name(i)}: white is taken as {found:,.0f}, a guess, as {doubt}"
                )
            self.pixels += image.size
            self.clipped = self.clipped or _is_clipped(image)
            dimensions.add(image.ndim)
        if not self._sources:
            raise InputError("X holds no images.")
        if doubts:
            rest = len(doubts) - 1
            more = f" (and for {rest} more image{'s' * (rest > 1)})" if rest else ""
            warnings.warn(f"{doubts[0]}{more}; if it is another, give white=.", stacklevel=2)
        self.channels = 3 if 3 in dimensions else 1
        self.mixed = len(dimensions) == 2
        self.dtype = self[0].dtype

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        held = self._held.get(i)
        return check_image(self.raw(i), self.name(i)) if held is None else held

    @property
    def in_memory(self) -> bool:
        """Whether all of them are kept."""
        return len(self._held) == len(self)

    def raw(self, i: int) -> Array:
        """Image ``i`` as it was given."""
        source = self._sources[i][1]
        pixels = read_photograph(source).pixels if isinstance(source, Path) else unmasked(source)
        return np.asarray(pixels)

    def name(self, i: int) -> str:
        """What messages call image ``i``."""
        return self._sources[i][0]


def _named_sources(given: object) -> Iterator[tuple[str, Any]]:
    """The name and the path or array of every image."""
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.exists():
            raise FileError(f"'{path}' does not exist; give an image or a folder of images.")
        paths = find_photographs(path) if path.is_dir() else [path]
        yield from ((f"'{p}'", p) for p in paths)
        return
    if isinstance(given, list | tuple):
        for i, item in enumerate(given):
            if isinstance(item, str | Path):
                yield from _named_sources(item)
            else:
                yield f"Image {i} of X", item
        return
    array = np.asarray(unmasked(given))
    if array.ndim == 0:
        raise InputError(f"X is a {type(given).__name__}; give an image, several, or a folder.")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
        yield "X", array
    elif array.ndim == 3 and _reads_as_channels(*array.shape):
        n, height, width = array.shape
        raise InputError(
            f"X has shape {array.shape}, which reads as one image of {width} channels; give grey "
            f"or (height, width, 3), or list(X) for {n} images of {height} × {width} pixels."
        )
    elif array.ndim in (3, 4):
        yield from ((f"Image {i} of X", image) for i, image in enumerate(array))
    else:
        raise InputError(
            f"X has shape {array.shape}; give one image (height, width) or (height, width, 3), "
            "several of them, or a folder."
        )


def _reads_as_channels(n: int, height: int, width: int) -> bool:
    """Whether (n, height, width) looks like one image of many channels, not n narrow images."""
    return n == height > width or 2 * width < min(n, height)


def check_image(pixels: object, name: str) -> Array:
    """One image, (H, W) or (H, W, 3), in a dtype that torch can compute with.

    Colours that are all grey become (H, W). Raises InputError, which calls the image ``name``.
    """
    image = np.asarray(unmasked(pixels))
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype.kind not in "uif":
        raise InputTypeError(f"{name} holds {image.dtype}, but pixels are numbers.")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"{name} has shape {image.shape}, but an image is (height, width) or "
            "(height, width, 3): put colours last, leave transparency out."
        )
    if not image.size:
        raise InputError(f"{name} has shape {image.shape}: it holds no pixels.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError(
            f"{name} holds NaN, infinity or masked values; replace them first, as filled() does."
        )
    if image.dtype.kind == "f" and (largest := float(np.abs(image).max())) > MAX_VALUE:
        raise InputError(f"{name} holds values up to {largest:.0e}; divide it by its white.")
    if image.ndim == 3 and (image[..., :1] == image[..., 1:]).all():
        image = image[..., 0]  # the same noise three times is not noise in three channels
    return np.ascontiguousarray(_as_torch_dtype(image, name))


def _as_torch_dtype(image: Array, name: str) -> Array:
    """uint8 or uint16, or float32 or float64, in this machine's byte order.

    Wider whole numbers become floats, as their dtype says nothing about their white.
    """
    if image.dtype.kind == "f":
        return image.astype(np.float64 if image.dtype.itemsize >= 8 else np.float32, copy=False)
    if image.dtype.itemsize > 2 or image.dtype.kind == "i":
        if image.min() < 0 or image.max() > 65535:
            raise InputError(
                f"{name} holds {image.dtype} from {image.min()} to {image.max()}; give uint8, "
                "uint16, or floats."
            )
        return image.astype(np.float32)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _is_clipped(image: Array) -> bool:
    """Whether many pixels share the lowest or the highest value, as noise does not leave them."""
    ends = (image == image.min()) | (image == image.max())
    return float(ends.mean()) > CLIPPED_SHARE


def as_stored(values: Tensor, like: Array) -> Array:
    """(C, H, W) in the axes and dtype of the image ``like``; integers rounded and clipped."""
    grey = like.ndim == 2 or like.shape[2] == 1
    values = values.mean(0, keepdim=True) if grey else values
    image = values.movedim(0, -1).cpu().numpy()
    dtype = np.dtype(np.uint8) if like.dtype == bool else like.dtype
    if dtype.kind in "ui":
        ends = np.iinfo(dtype)
        image = image.round().clip(max(ends.min, 0), min(ends.max, 65535))
    # Grey that is stored in three channels was denoised as one.
    image = np.broadcast_to(image, (*image.shape[:2], like.size // image[..., 0].size))
    return np.ascontiguousarray(image.astype(dtype)).reshape(like.shape)
