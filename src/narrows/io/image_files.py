"""Image files by Pillow and tifffile: finding, opening, decoding, and writing 16 bits and floats.

Two ways to decode, for two kinds of users:

- `read_header` and `read_pixels` give rows for an array (`narrows.io.image_folders`): grey or RGB,
  transparency laid over white, orientation applied.
- `narrows.io.photographs` keeps transparency and orientation apart.

Both give every bit that is stored, by `sixteen_bit_colours` and `read_tiff`: Pillow reads 16-bit
colours as 8 bits, and no TIFF with floating-point colours at all: PNGs are decoded by Pillow twice,
TIFFs by tifffile. `deep_tiff_tags` says which TIFF is for whom, and refuses what neither reads
truly.

PNGs of 16 bits in colour and TIFFs are written here: Pillow cannot write the former, and tifffile
cannot write a camera's EXIF directories.

W3C, "Portable Network Graphics (PNG) Specification", third edition, https://www.w3.org/TR/png-3/;
Adobe, "TIFF", revision 6.0 (1992), and its supplement 2 for deflate.
"""

from __future__ import annotations

import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, NarrowsError

if TYPE_CHECKING:
    from PIL.Image import Exif, Image
    from PIL.ImageFile import ImageFile

Array = NDArray[Any]
Size = tuple[int, int]  # height, width
Dpi = tuple[float, float] | None

SUFFIXES = frozenset(
    ".png .jpg .jpeg .bmp .gif .tif .tiff .webp .pgm .ppm .pbm .pnm".split()  # noqa: SIM905
)
# What decoders raise when a file is damaged.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError),
    *(AttributeError, RuntimeError, SystemError, AssertionError, struct.error, zlib.error),
)
PILLOW_LIMIT_LOCK = threading.RLock()

ORIENTATION = 274  # this and the next are tags of EXIF, which are tags of TIFF
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
NO_DATA = 42113  # a tag of GDAL's: the value, as text, of pixels that were not measured
# Tags that describe the photograph (maker, date, artist ...) and not how a TIFF stores it.
ABOUT_TAGS = (270, 271, 272, 274, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # + is BigTIFF
# Pillow's other formats are never tried: some of them run other programs.
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# Colours of a pixel by a TIFF's tag 262: white is 0, black is 0, RGB, palette, CMYK, YCbCr, LAB.
TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
# Compressions that tifffile decodes without the package imagecodecs: none, deflate, PackBits.
TIFFFILE_DECODES = (1, 8, 32946, 32773)
SWAPPED_ORDER = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
CONVERTED_MODES = ("CMYK", "LAB")
SEVERAL = (
    "holds several pictures: only the first is read; save each as a file of its own to read all"
)
BLOCK_BYTES = 1 << 20  # pixels that are compressed at a time


# ------------------------------------------------------------------------------ finding


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sorting key under which numbers count as numbers.

    >>> sorted(["b1", "a10", "a2"], key=natural_key)
    ['a2', 'a10', 'b1']
    """
    parts = re.split(r"([0-9]+)", text.casefold())
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def find_images(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, in natural order; hidden ones are skipped."""
    inside = [path.relative_to(folder) for path in folder.rglob("*")]
    kept = [path for path in inside if path.suffix.lower() in SUFFIXES and not _is_hidden(path)]
    kept.sort(key=lambda path: ([natural_key(part) for part in path.parts], path.as_posix()))
    return [folder / path for path in kept if (folder / path).is_file()]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def find_photographs(folder: str | Path) -> list[Path]:
    """The photographs in a folder and its subfolders, in natural order; hidden ones are skipped.

    Raises InputError if there are none.
    """
    found = find_images(folder := Path(folder))
    if found:
        return found
    others = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not others:
        raise InputError(f"The folder '{folder}' is empty: expected images.")
    file = next((path for path in others if path.is_file()), None)
    hint = f"; to read another file, name it: '{file}'" if file else ""
    table = min((p for p in folder.rglob("*.parquet") if not _is_hidden(p)), default=None)
    hint = f"; to read .parquet files, name their folder: '{table.parent}'" if table else hint
    raise InputError(
        f"The folder '{folder}' holds no images ({', '.join(sorted(SUFFIXES))}){hint}."
    )


# ------------------------------------------------------------------------------ opening


@contextmanager
def image_errors(path: Path, max_pixels: int | None = None) -> Iterator[None]:
    """Turn every error of a decoder inside the block into a FileError that names ``path``.

    ``max_pixels`` is the largest size an image may claim, instead of Pillow's own limit.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with pillow_settings(max_pixels):
            yield
    except NarrowsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = max_pixels or Image.MAX_IMAGE_PIXELS or 0
        allow = "" if max_pixels is None else ", or allow more (narrows denoise: --max-pixels)"
        raise FileError(
            f"'{path}' claims more than {limit:,} pixels, as files made to fill the memory do: "
            f"make it smaller or remove it{allow}."
        ) from None
    except UnidentifiedImageError:
        raise FileError(_not_an_image(path)) from None
    except NotReadTruly as error:
        raise FileError(f"The image '{path}' is not read: {error}.") from None
    except DAMAGE as error:
        raise FileError(
            f"The image '{path}' cannot be read ({error}): replace it or remove it."
        ) from None


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile]:
    """An image file in Pillow.

    It gets an open file, no name: files that it opens by name it may map into memory, and of mapped
    TIFFs whose orientation swaps height and width Pillow 13 mixes up the rows.
    """
    from PIL import Image

    with path.open("rb") as file, Image.open(file, formats=PILLOW_FORMATS) as image:
        yield image


@contextmanager
def pillow_settings(max_pixels: int | None) -> Iterator[None]:
    """Pillow's limit and the filters of warnings, which belong to the whole process, for a while.

    The limit is changed by one thread at a time. The filters are changed in the main thread only:
    two threads that change them may leave them changed. Other threads read images that the main
    thread has opened before.
    """
    from PIL import Image

    limited, main = max_pixels is not None, threading.current_thread() is threading.main_thread()
    with (
        PILLOW_LIMIT_LOCK if limited else nullcontext(),
        warnings.catch_warnings() if main else nullcontext(),
    ):
        if main:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # notes about unusual metadata
        usual = Image.MAX_IMAGE_PIXELS
        if limited:
            Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            if limited:
                Image.MAX_IMAGE_PIXELS = usual


def _not_an_image(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"'{path}' is an empty file, not an image: remove it or save it again."
    if start.startswith((b"P7\n", *TIFF_HEADS)):
        kind = "a PAM" if start[:1] == b"P" else "a TIFF of a kind"
        return f"'{path}' is {kind} that narrows does not read: save it as .png or .npy."
    letters = start.decode("utf-8", "ignore")  # the last one may be cut
    is_text = all(letter.isprintable() or letter.isspace() for letter in letters)
    is_text &= len(letters.encode()) > len(start) - 4
    what = f"a text file (it begins {start[:20]!r})" if is_text else "of no known kind"
    return f"'{path}' is named like an image and is {what}: remove it or save it again."


# ------------------------------------------------------------------- pixels, as rows of an array


def is_deep(image: Image) -> bool:
    """Whether Pillow holds more than 8 bits a pixel; such images are grey."""
    return image.mode == "F" or image.mode.startswith("I")


def is_grey(image: Image) -> bool:
    """Whether an image of 8 bits is grey: by its mode, or as its palette holds greys only."""
    if image.mode != "P":
        return image.mode in ("1", "L", "LA", "La")
    palette = image.getpalette("RGB") or []
    return palette[0::3] == palette[1::3] == palette[2::3]


class NotReadTruly(ValueError):
    """What is stored would be changed by reading it; the message says what to do."""


class ImageHeader(NamedTuple):
    """What is known of an image file, mostly without decoding its pixels."""

    size: Size
    dtype: np.dtype[Any]
    is_grey: bool
    note: str  # what is lost of it; empty if nothing is


def read_header(path: Path) -> ImageHeader:
    """Height and width after the orientation is applied, dtype and colours of `read_pixels`."""
    with image_errors(path):
        tags = deep_tiff_tags(path)
        if tags is not None:
            return _tiff_header(path, tags)
        with open_image(path) as image:
            note = SEVERAL if getattr(image, "is_animated", False) else ""
            if image.mode in CONVERTED_MODES:
                note = f"is {image.mode}: its colours become RGB"
            rawmode = _sixteen_bit_rawmode(image)
            dtype = np.dtype(np.uint16) if rawmode else pixel_dtype(image)
            grey = rawmode[:2] == "LA" if rawmode else is_deep(image) or is_grey(image)
            return ImageHeader(_size(image), dtype, grey, note)


def _tiff_header(path: Path, tags: Exif) -> ImageHeader:
    import tifffile
    from PIL import Image

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        note = SEVERAL if len(file.pages) > 1 else ""
    height, width = page.imagelength, page.imagewidth
    if height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError  # `image_errors` has the message
    if tags.get(ORIENTATION) in SIDEWAYS:
        height, width = width, height
    dtype = in_three_dtypes(np.zeros(1, page.dtype)).dtype
    return ImageHeader((height, width), dtype, page.photometric.name != "RGB", note)


def _size(image: Image) -> Size:
    """Height and width after the orientation is applied, from the header alone."""
    # Pillow gives a TIFF's size after orientation; reading from a PNG what is not in its header
    # would decode all of it.
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    orientation = image.getexif().get(ORIENTATION) if known else None
    width, height = image.size
    return (width, height) if orientation in SIDEWAYS else (height, width)


def read_pixels(path: Path, size: Size | None = None) -> Array:
    """The pixels in a file, (H, W) or (H, W, 3), uint8, uint16 or float32, as `pixels` gives them.

    16 bits a colour and every TIFF are read truly, or refused.
    """
    with image_errors(path):
        tags = deep_tiff_tags(path)
        if tags is not None:
            planes, orientation = read_tiff(path)[0], tags.get(ORIENTATION)
            return _rows_of_planes(reorient(in_three_dtypes(planes), orientation or 1), size)
        with open_image(path) as image:
            deep = sixteen_bit_colours(image, path)
            if deep is None:
                return pixels(image, size)
            image.load()  # Pillow reorients a TIFF
            turned = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION) or 1
            return _rows_of_planes(reorient(deep, turned), size)


def _rows_of_planes(planes: Array, size: Size | None) -> Array:
    """(H, W[, C]) laid over white and scaled to ``size``, in its own dtype."""
    from PIL import Image, ImageOps

    dtype, planes = planes.dtype, np.atleast_3d(planes)
    whole, n_colours = dtype.kind == "u", 3 if planes.shape[2] > 2 else 1
    white = float(np.iinfo(dtype).max) if whole else 1.0
    values, alpha = planes[..., :n_colours], planes[..., n_colours:] / white
    if alpha.size:
        values = values * alpha + white * (1 - alpha)
    if size is not None:
        bands = [Image.fromarray(values[..., i].astype(np.float32)) for i in range(n_colours)]
        fitted = (ImageOps.fit(band, size[::-1], Image.Resampling.LANCZOS) for band in bands)
        values = np.dstack([np.asarray(band) for band in fitted])
    values = values if n_colours == 3 else values[..., 0]
    # Lanczos overshoots at edges: integers must not wrap around.
    return values.round().clip(0, white).astype(dtype) if whole else values.astype(dtype)


def in_three_dtypes(values: Array) -> Array:
    """Pixels as uint8, uint16 or float32, without a change; NotReadTruly if that cannot be."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.min() < 0 or values.max() > 65_535:
        raise NotReadTruly(
            f"its values {values.min()} to {values.max()} lie outside 0 to 65,535; save it as "
            "float32"
        )
    return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)


def refuse_no_data(marker: object, values: Array | Image) -> None:
    """NotReadTruly if pixels hold what the tag `NO_DATA` marks; ``marker`` is None without it."""
    number = math.nan  # which `in_three_dtypes` lets through, and its callers refuse
    with suppress(ValueError):
        number = float(str(marker).strip("\0 "))
    count = 0 if math.isnan(number) else int((np.asarray(values, np.float64) == number).sum())
    if count:
        raise NotReadTruly(
            f"{count:,} of its values are {number:g}, which marks what was not measured "
            "(GDAL_NODATA); fill them and remove the mark, or save it as .npy with NaN"
        )


def no_data_of(image: Image) -> object:
    """What an open image has in the tag `NO_DATA`, or None."""
    return image.getexif().get(NO_DATA) if image.format == "TIFF" else None


def pixel_dtype(image: Image) -> np.dtype[Any]:
    """The dtype that `pixels` gives."""
    deep = np.dtype(np.float32 if image.mode == "F" else np.uint16)
    return deep if is_deep(image) else np.dtype(np.uint8)


def pixels(image: Image, size: Size | None = None) -> Array:
    """The pixels of an open image, (H, W) or (H, W, 3), uint8, uint16 or float32, by Pillow.

    The camera's orientation is applied, transparency laid over white. With ``size`` (height,
    width) the image is scaled until it covers that size, and what sticks out is cropped.
    """
    from PIL import Image as pillow
    from PIL import ImageOps

    refuse_no_data(no_data_of(image), image)
    image = ImageOps.exif_transpose(image)
    dtype = pixel_dtype(image)
    if is_deep(image):
        deep = np.asarray(image)
        if dtype == np.uint16 and (deep.min() < 0 or deep.max() > 65_535):
            raise NotReadTruly("its values lie outside 0 to 65,535; save it as float32")
        image = pillow.fromarray(deep.astype(np.float32))
    else:
        image = _without_transparency(image)
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), pillow.Resampling.LANCZOS)
    values: Array = np.array(image)
    # Lanczos overshoots at edges: integers must not wrap around.
    return values.round().clip(0, 65_535).astype(dtype) if dtype == np.uint16 else values


def _without_transparency(image: Image) -> Image:
    """An 8-bit image as grey or RGB, laid over white."""
    from PIL import Image as pillow

    grey = is_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert("RGB").getchannel("R") if grey else image.convert("RGB")


# ------------------------------------------------------------------- every bit that is stored


def sixteen_bit_colours(image: ImageFile, path: Path) -> NDArray[np.uint16] | None:
    """The pixels (H, W, C) of an image, just opened, whose colours Pillow would cut to 8 bits.

    It is decoded twice: Pillow keeps the high byte of every value, and the low one if the file's
    byte order is given the wrong way round. None if Pillow loses nothing.
    """
    rawmode = _sixteen_bit_rawmode(image)
    if not rawmode:
        return None
    if rawmode == "LA;16B":  # four bytes a pixel, as RGBA has: two of grey, two of alpha
        return _decode_as(path, "RGBA").view(">u2").astype(np.uint16)
    other = rawmode[:-1] + SWAPPED_ORDER[rawmode[-1]]
    high, low = (_decode_as(path, raw).astype(np.uint16) for raw in (rawmode, other))
    whole: NDArray[np.uint16] = high * np.uint16(256) + low
    refuse_no_data(no_data_of(image), whole)
    return whole


def _sixteen_bit_rawmode(image: ImageFile) -> str:
    """How the file stores a pixel if it has colours of 16 bits; otherwise empty."""
    if not image.tile:
        return ""
    decoder, _, _, args = image.tile[0]
    args = (args,) if isinstance(args, str) else tuple(args or ("",))
    rawmode = str(args[0])
    if decoder.startswith("ppm") and rawmode == "RGB" and int(args[-1]) > 255:
        raise NotReadTruly("it has more than 8 bits a colour, which would be cut; save it as .png")
    if decoder.startswith("ppm") and rawmode != "1;I" and int(args[-1]) not in (255, 65_535):
        raise NotReadTruly(
            f"its white is {int(args[-1]):,}, and its values would be scaled; save it with a white "
            "(maxval) of 255 or 65535, or as .png"
        )
    return rawmode if image.mode in ("RGB", "RGBA") and rawmode[-4:-1] == ";16" else ""


def _decode_as(path: Path, rawmode: str) -> NDArray[np.uint8]:
    """The image, decoded as if its bytes were laid out as Pillow's ``rawmode`` says."""

    def changed(tile: Any) -> Any:
        args = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
        # a plain tuple before Pillow 11
        return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)

    with open_image(path) as image:
        image.tile = [changed(tile) for tile in image.tile]
        return np.asarray(image)


def undo_orientation(seen: Array, orientation: int) -> Array:
    """(H, W, ...) as it is stored, from what is seen: Pillow reorients TIFFs when it reads them."""
    if orientation in SIDEWAYS:
        seen = seen.swapaxes(0, 1)
    rows, columns = (-1 if orientation in kinds else 1 for kinds in ((3, 4, 6, 7), (2, 3, 7, 8)))
    return seen[::rows, ::columns]


def reorient(stored: Array, orientation: int) -> Array:
    """(H, W, ...) as it is seen, from what is stored."""
    # All are their own inverse, except the two quarter turns: each is the other's.
    return undo_orientation(stored, {6: 8, 8: 6}.get(orientation, orientation))


def deep_tiff_tags(path: Path) -> Exif | None:
    """The tags of a TIFF that is for tifffile; None for every other file, which is for Pillow.

    Pillow reads TIFFs of 8 bits, and grey ones of 16 or 32. LZW and JPEG, which tifffile leaves to
    the package imagecodecs, are for Pillow where `sixteen_bit_colours` can help it. NotReadTruly
    for a TIFF that neither gives as it is stored.
    """
    from PIL.ExifTags import Base

    tags = _tiff_tags(path)
    if tags is None:
        return None
    bits = np.max(tags.get(Base.BitsPerSample, 1))
    n_samples = tags.get(Base.SamplesPerPixel, 1)
    # 1 is unsigned, 2 signed, 3 floating point, 5 and 6 complex
    sample_format = np.max(tags.get(Base.SampleFormat, 1))
    photometric = tags.get(Base.PhotometricInterpretation, 0)  # 0: white is 0; 2: RGB
    _refuse_tiff(tags, bits, sample_format, photometric)
    if bits <= 8:
        return tags if sample_format == 2 else None
    pillow_can = bits == 16 and sample_format == 1 and n_samples in (3, 4) and photometric == 2
    pillow_can &= tags.get(Base.PlanarConfiguration, 1) == 1
    pillow_can &= tags.get(Base.ExtraSamples, 2) in (2, (2,), ())  # 2: alpha, not multiplied in
    if pillow_can and tags.get(Base.Compression, 1) not in TIFFFILE_DECODES:
        return None
    if bits == 32 and sample_format != 3 and tags.get(Base.Compression, 1) in TIFFFILE_DECODES:
        return tags  # Pillow takes those without a sign as signed ones, or not at all
    return tags if n_samples > 1 or bits > 32 or (sample_format == 3 and bits == 16) else None


def _refuse_tiff(tags: Exif, bits: int, sample_format: int, photometric: int) -> None:
    """NotReadTruly for a TIFF of which a reader would give other values than are stored."""
    from PIL.ExifTags import Base

    if photometric not in TIFF_COLOURS:
        raise NotReadTruly(
            f"its PhotometricInterpretation is {photometric}; save it as grey or RGB"
        )
    if photometric == 0 and (bits > 8 or sample_format != 1):
        raise NotReadTruly("it counts from white to black; save it with black as 0")
    if sample_format > 3 or (sample_format == 3 and bits > 32):
        kind = "complex numbers" if sample_format > 3 else f"floats of {bits} bits"
        raise NotReadTruly(f"it holds {kind}; save it as float32")
    n_samples, colours = tags.get(Base.SamplesPerPixel, 1), TIFF_COLOURS[photometric]
    # 1 and 2: transparency; programs leave the tag out for RGB with transparency
    extra = tags.get(Base.ExtraSamples, 2 if photometric == 2 else 0)
    is_alpha = extra in (1, 2, (1,), (2,))
    if n_samples != colours and not (n_samples == colours + 1 and is_alpha):
        raise NotReadTruly(
            f"it has {n_samples} values a pixel, which are not grey or RGB with transparency; save "
            "each as an image of its own, or all as .npy"
        )


def _tiff_tags(path: Path) -> Exif | None:
    """All tags of a TIFF's first page, read without decoding it; None if it is no TIFF."""
    from PIL.Image import Exif

    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] not in TIFF_HEADS:
            return None
        tags = Exif()
        tags.bigtiff, tags.endian = b"+" in head[:4], "<" if head[:1] == b"I" else ">"
        first_page = head[8:16] if tags.bigtiff else head[4:8]  # where its tags start
        offset = int.from_bytes(first_page, "little" if tags.endian == "<" else "big")
        tags.load_from_fp(file, offset)
        for tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD):  # read while the file is open
            tags.get_ifd(tag)
    return tags


def read_tiff(path: Path) -> tuple[Array, int]:
    """(H, W[, C]) of a TIFF's first page by tifffile, not reoriented, and the number of pages."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        if page.photometric.name not in ("MINISBLACK", "RGB"):
            raise NotReadTruly(f"its colours are {page.photometric.name}; save it as RGB")
        planes: Array = page.asarray()
        n_pages = len(file.pages)
        refuse_no_data(page.tags.valueof(NO_DATA), planes)
    if page.axes.startswith("S"):
        planes = np.moveaxis(planes, 0, -1)
    n_colours = 3 if page.photometric.name == "RGB" else 1
    if planes.ndim > 3 or (planes.ndim == 3 and planes.shape[2] - n_colours not in (0, 1)):
        raise NotReadTruly(f"its pixels are of shape {planes.shape}; save it as grey or RGB")
    alpha_multiplied_in = [int(kind) for kind in page.extrasamples] == [1]
    return _divide_by_alpha(planes) if alpha_multiplied_in else planes, n_pages


def _divide_by_alpha(planes: Array) -> Array:
    values = planes.astype(np.float64)
    colours, alpha = values[..., :-1], values[..., -1:]
    whole = planes.dtype.kind in "ui"
    white = np.iinfo(planes.dtype).max if whole else 1.0
    divided = np.divide(colours * white, alpha, out=np.zeros_like(colours), where=alpha > 0)
    colours = np.rint(divided).clip(0, white) if whole else divided
    return np.dstack([colours, alpha]).astype(planes.dtype)


# ------------------------------------------------------------------------------ metadata


def kept_tags(tags: Exif) -> bytes:
    """The tags that describe the photograph, as a block of EXIF.

    Empty if there are none or they are damaged: damaged metadata must not cost the photograph.
    """
    from PIL.Image import Exif

    kept = Exif()
    try:
        for tag, value in _descriptive(tags).items():
            kept[tag] = value
        return kept.tobytes() if len(kept) else b""
    except DAMAGE:
        return b""


def _descriptive(tags: Exif) -> dict[int, Any]:
    """Tags and values; those of the EXIF and GPS directories as dictionaries inside."""
    found: dict[int, Any] = {tag: tags[tag] for tag in ABOUT_TAGS if tag in tags}
    for tag in (EXIF_IFD, GPS_IFD):
        inside = dict(tags.get_ifd(tag))
        if INTEROP_IFD in inside:
            inside[INTEROP_IFD] = dict(tags.get_ifd(INTEROP_IFD))
        if inside:
            found[tag] = inside
    return found


# ------------------------------------------------------------------------------ writing


def write_png(place: Path, planes: NDArray[np.uint16], exif: bytes, icc: bytes, dpi: Dpi) -> None:
    """Write (H, W, 1 to 4) as a PNG of 16 bits, every row as its difference to the one above."""
    from PIL.PngImagePlugin import putchunk

    height, width, n_planes = planes.shape
    colour_type = (0, 4, 2, 6)[n_planes - 1]  # grey, grey and alpha, RGB, RGBA
    with place.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        putchunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, 0))
        if icc:
            putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
        if dpi:
            per_metre = [int(d / 0.0254 + 0.5) for d in dpi]
            putchunk(file, b"pHYs", struct.pack(">LLB", *per_metre, 1))
        if exif:
            putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
        packer, above = zlib.compressobj(), np.zeros((1, width * n_planes * 2), np.uint8)
        for block in _blocks(planes):
            rows = block.astype(">u2").view(np.uint8).reshape(len(block), -1)
            differences = rows - np.vstack([above, rows[:-1]])  # modulo 256, as PNG defines it
            filtered = np.insert(differences, 0, 2, axis=1)  # 2 is the filter "up"
            putchunk(file, b"IDAT", packer.compress(filtered.tobytes()))
            above = rows[-1:]
        putchunk(file, b"IDAT", packer.flush())
        putchunk(file, b"IEND", b"")


def _blocks(planes: Array) -> list[Array]:
    step = _rows_per_block(planes)
    return [planes[i : i + step] for i in range(0, len(planes), step)]


def _rows_per_block(planes: Array) -> int:
    return max(1, BLOCK_BYTES // int(planes[0].nbytes))


def write_tiff(place: Path, planes: Array, exif: bytes, icc: bytes, dpi: Dpi) -> None:
    """Write (H, W, 1 to 4), uint8, uint16 or float32, as a TIFF that is compressed by deflate."""
    from PIL.ExifTags import Base
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    strips = [_strip(block) for block in _blocks(planes)]
    height, width, n_planes = planes.shape
    whole = planes.dtype.kind == "u"
    ends = np.cumsum([0, *map(len, strips)]).tolist()
    stored = {
        Base.ImageWidth: width,
        Base.ImageLength: height,
        Base.BitsPerSample: (8 * planes.itemsize,) * n_planes,
        Base.Compression: 8,  # deflate
        Base.PhotometricInterpretation: 2 if n_planes > 2 else 1,  # RGB, or grey with black as 0
        Base.StripOffsets: tuple(ends[:-1]),  # Pillow adds the length of the directory
        Base.SamplesPerPixel: n_planes,
        Base.RowsPerStrip: _rows_per_block(planes),
        Base.StripByteCounts: tuple(map(len, strips)),
        Base.PlanarConfiguration: 1,
        Base.Predictor: 2 if whole else 1,  # differences along a row, or none
        Base.SampleFormat: (1 if whole else 3,) * n_planes,
    }
    stored |= {Base.ExtraSamples: (2,)} if n_planes in (2, 4) else {}  # alpha, not multiplied in
    stored |= {Base.InterColorProfile: icc} if icc else {}
    if dpi:
        stored |= {Base.XResolution: dpi[0], Base.YResolution: dpi[1], Base.ResolutionUnit: 2}
    directory = ImageFileDirectory_v2()
    for tag, value in (_descriptive(_writable_tags(exif)) | stored).items():
        directory[tag] = value
    with place.open("wb") as file:
        directory.save(file)
        file.writelines(strips)


def _strip(block: Array) -> bytes:
    values = block.astype(block.dtype.newbyteorder("<"))
    if block.dtype.kind == "u":
        values[:, 1:] -= block[:, :-1]
    return zlib.compress(values.tobytes())


def _writable_tags(exif: bytes) -> Exif:
    """Those tags of a block of EXIF that can be written; none if it is damaged."""
    from PIL.Image import Exif

    given, kept = Exif(), Exif()
    with suppress(*DAMAGE):
        given.load(exif)
        kept.load(kept_tags(given))
    return kept
