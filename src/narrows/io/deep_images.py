"""Images of more than 8 bits in colour or with transparency, which Pillow reads as 8 bits or not.

Their bytes are Pillow's to decode all the same: it is asked twice, once for the high byte of every
value and once for the low one. What is left, TIFFs of floating-point colours and some rare ones,
needs tifffile (the extra "denoise"). Writing needs nothing.

W3C, "Portable Network Graphics (PNG) Specification", third edition, https://www.w3.org/TR/png-3/;
Adobe, "TIFF", revision 6.0 (1992), and its supplement 2 for deflate.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError
from narrows.io.image_folders import DAMAGE

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.ImageFile import ImageFile

__all__ = [
    "below_eight_bits",
    "beyond_pillow",
    "kept_tags",
    "read_tiff",
    "turned_back",
    "write_png",
    "write_tiff",
]

Dpi = tuple[float, float] | None
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXIF, GPS, INTEROP = 34665, 34853, 40965
# The tags of a TIFF that say something of the photograph, not of how it is stored.
ABOUT = (270, 271, 272, 274, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
BLOCK = 1 << 20  # bytes of pixels that are compressed at a time


def below_eight_bits(image: ImageFile, path: Path) -> NDArray[np.uint16] | None:
    """(H, W, C) in full where ``image``, just opened, would lose what lies below its 8 high bits.

    None where Pillow loses nothing.
    """
    rawmode = _rawmode(image.tile[0]) if image.tile else ""
    if rawmode == "RGB" and image.format == "PPM" and _greatest(image.tile[0]) > 255:
        raise ValueError("it has more than 8 bits a colour, which would be cut: save it as .png")
    if image.mode not in ("RGB", "RGBA") or rawmode[-4:-1] != ";16":
        return None
    if rawmode == "LA;16B":  # four bytes a pixel, as RGBA has: two of grey, two of alpha
        return _decoded(path, "RGBA").view(">u2").astype(np.uint16)
    other = rawmode[:-1] + OTHER_ORDER[rawmode[-1]]
    high, low = (_decoded(path, raw).astype(np.uint16) for raw in (rawmode, other))
    whole: NDArray[np.uint16] = high * np.uint16(256) + low
    return whole


def turned_back(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) as it is stored in a TIFF, which Pillow turns by its ``orientation``."""
    undo: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        2: np.fliplr,
        3: lambda turned: turned[::-1, ::-1],
        4: np.flipud,
        5: lambda turned: turned.swapaxes(0, 1),
        6: np.rot90,
        7: lambda turned: turned[::-1, ::-1].swapaxes(0, 1),
        8: lambda turned: np.rot90(turned, -1),
    }
    return undo[orientation](planes) if orientation in undo else planes


def _rawmode(tile: Any) -> str:
    """How the bytes of a pixel are laid out in the file, in Pillow's words."""
    return tile[3] if isinstance(tile[3], str) else str((*tile[3], "")[0])


def _greatest(tile: Any) -> int:
    """The value of white in a PPM."""
    return 255 if isinstance(tile[3], str) else int(tile[3][-1])


def _decoded(path: Path, rawmode: str) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path, formats=("PNG", "TIFF")) as image:
        image.tile = [_as(tile, rawmode) for tile in image.tile]
        return np.asarray(image)


def _as(tile: Any, rawmode: str) -> Any:
    args = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    return type(tile)(*tile[:3], args) if hasattr(tile, "_replace") else (*tile[:3], args)


def beyond_pillow(path: Path) -> Exif | None:
    """The tags of a TIFF that Pillow does not read in full; None for every other file."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] not in TIFF_HEADS:
        return None
    tags = _tags(path, head)
    bits, n_samples = max(_numbers(tags, 258, 1)), tags.get(277, 1)
    kind = max(_numbers(tags, 339, 1))
    if bits > 8 and tags.get(262) == 0:
        raise ValueError("it counts from white to black: save it with black as 0")
    plain = bits == 16 and kind == 1 and n_samples in (3, 4) and tags.get(262) == 2
    if plain and tags.get(284, 1) == 1 and _numbers(tags, 338, 2) in ((2,), ()):
        return None
    half = kind == 3 and bits in (16, 64)  # floats that Pillow has no mode for
    return tags if bits > 8 and (n_samples > 1 or half) else None


def _numbers(tags: Exif, tag: int, usual: int) -> tuple[int, ...]:
    found = tags.get(tag, usual)
    return tuple(found) if isinstance(found, tuple) else (found,)


def _tags(path: Path, head: bytes) -> Exif:
    from PIL import Image

    big, order = b"+" in head[:4], "<" if head[:1] == b"I" else ">"
    tags = Image.Exif()
    tags.bigtiff, tags.endian = big, order
    (offset,) = struct.unpack_from(order + ("Q" if big else "L"), head, 8 if big else 4)
    with path.open("rb") as file:
        tags.load_from_fp(file, offset)
        for tag in (EXIF, GPS, INTEROP):  # read while the file is open
            tags.get_ifd(tag)
    return tags


def kept_tags(tags: Exif) -> bytes:
    """The tags that are about the photograph, as a block of EXIF.

    Empty where there are none, or they are damaged: that must not cost the photograph.
    """
    from PIL import Image

    kept = Image.Exif()
    try:
        for tag, value in _about(tags).items():
            kept[tag] = value
        return kept.tobytes() if len(kept) else b""
    except DAMAGE:
        return b""


def _about(tags: Exif) -> dict[int, Any]:
    found: dict[int, Any] = {tag: tags[tag] for tag in ABOUT if tag in tags}
    for tag in (EXIF, GPS):
        inside = dict(tags.get_ifd(tag))
        if INTEROP in inside:
            inside[INTEROP] = dict(tags.get_ifd(INTEROP))
        if inside:
            found[tag] = inside
    return found


def read_tiff(path: Path) -> tuple[NDArray[Any], int]:
    """(H, W[, C]) of a TIFF's first page, and how many pages there are."""
    try:
        import tifffile
    except ImportError:
        raise FileError(
            f"Reading '{path}' (a TIFF of more than 8 bits) needs tifffile, which is not "
            "installed: pip install 'narrows[denoise]'."
        ) from None
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            if page.photometric.name not in ("MINISBLACK", "RGB"):
                raise ValueError(f"its colours are {page.photometric.name}: save it as RGB")
            planes: NDArray[Any] = page.asarray()
            n_pages, extra = len(file.pages), page.extrasamples
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from None
    if page.axes.startswith("S"):
        planes = np.moveaxis(planes, 0, -1)
    n_colours = 3 if page.photometric.name == "RGB" else 1
    if planes.ndim > 3 or (planes.ndim == 3 and planes.shape[2] - n_colours not in (0, 1)):
        raise ValueError(f"its pixels are of shape {planes.shape}: save it as grey or RGB")
    return _undo_alpha(planes) if [int(e) for e in extra] == [1] else planes, n_pages


def _undo_alpha(planes: NDArray[Any]) -> NDArray[Any]:
    """Colours that are stored times their alpha, without it."""
    values = planes.astype(np.float64)
    colours, alpha = values[..., :-1], values[..., -1:]
    whole = planes.dtype.kind in "ui"
    white = np.iinfo(planes.dtype).max if whole else 1.0
    divided = np.divide(colours * white, alpha, out=np.zeros_like(colours), where=alpha > 0)
    colours = np.rint(divided).clip(0, white) if whole else divided
    return np.dstack([colours, alpha]).astype(planes.dtype)


def write_png(place: Path, planes: NDArray[np.uint16], exif: bytes, icc: bytes, dpi: Dpi) -> None:
    """Write (H, W, 1 to 4) as a PNG of 16 bits, every row as its difference to the one above."""
    height, width, n_planes = planes.shape
    kind = (0, 4, 2, 6)[n_planes - 1]
    with place.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">LLBBBBB", width, height, 16, kind, 0, 0, 0))
        if icc:
            _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
        if dpi:
            per_metre = [int(d / 0.0254 + 0.5) for d in dpi]
            _chunk(file, b"pHYs", struct.pack(">LLB", *per_metre, 1))
        if exif:
            _chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
        packer, above = zlib.compressobj(), np.zeros((1, width * n_planes * 2), np.uint8)
        for block in _blocks(planes):
            rows = block.astype(">u2").view(np.uint8).reshape(len(block), -1)
            moved = rows - np.vstack([above, rows[:-1]])  # modulo 256, as the format has it
            filtered = np.insert(moved, 0, 2, axis=1)  # 2 names this filter
            _chunk(file, b"IDAT", packer.compress(filtered.tobytes()))
            above = rows[-1:]
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: Any, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">L", len(data)) + name + data)
    file.write(struct.pack(">L", zlib.crc32(data, zlib.crc32(name))))


def _blocks(planes: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = _rows_in_block(planes)
    return (planes[i : i + step] for i in range(0, len(planes), step))


def _rows_in_block(planes: NDArray[Any]) -> int:
    return max(1, BLOCK // int(planes[0].nbytes))


def write_tiff(place: Path, planes: NDArray[Any], exif: bytes, icc: bytes, dpi: Dpi) -> None:
    """Write (H, W, 1 to 4), uint8, uint16 or float32, as a TIFF that is compressed by deflate."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    strips = [_strip(block) for block in _blocks(planes)]
    height, width, n_planes = planes.shape
    whole = planes.dtype.kind == "u"
    directory = ImageFileDirectory_v2()
    ends = np.cumsum([0, *map(len, strips)]).tolist()
    stored = {
        256: width,
        257: height,
        258: (8 * planes.itemsize,) * n_planes,
        259: 8,  # deflate
        262: 2 if n_planes > 2 else 1,  # RGB, or grey from black up
        273: tuple(ends[:-1]),  # from where the directory ends
        277: n_planes,
        278: _rows_in_block(planes),
        279: tuple(map(len, strips)),
        284: 1,
        317: 2 if whole else 1,  # differences along a row
        339: (1 if whole else 3,) * n_planes,
    }
    stored |= {338: (2,)} if n_planes in (2, 4) else {}
    stored |= {34675: icc} if icc else {}
    stored |= {282: dpi[0], 283: dpi[1], 296: 2} if dpi else {}
    for tag, value in (_about(_readable(exif)) | stored).items():
        directory[tag] = value
    with place.open("wb") as file:
        directory.save(file)
        file.writelines(strips)


def _strip(block: NDArray[Any]) -> bytes:
    values = block.astype(block.dtype.newbyteorder("<"))
    if block.dtype.kind == "u":
        values[:, 1:] -= block[:, :-1]
    return zlib.compress(values.tobytes())


def _readable(exif: bytes) -> Exif:
    """A block of EXIF as tags, those that can be written again."""
    from PIL import Image

    given, kept = Image.Exif(), Image.Exif()
    with suppress(*DAMAGE):
        given.load(exif)
        kept.load(kept_tags(given))
    return kept
