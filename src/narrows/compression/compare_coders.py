"""What ordinary coders, and PCA, make of what a codec has compressed, at no less quality.

Of large data a sample is coded, by the codec and by the others, so that both are held to the same
quality of the same numbers; the others' size of all the data follows from the codec's.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.compression.other_coders import Packed, pack_bounded, pack_lossless, pack_lossy
from narrows.compression.other_images import images_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.compression.format.pack import Summary

    Array = NDArray[Any]

__all__ = ["Beside", "Other", "compare", "pca_bits", "psnr_of"]

MOST_BYTES = 1 << 20  # of a sample
MOST_LOSSY = 3 << 18  # bytes of a sample that is coded again at each of many qualities
MOST_IMAGES = 500
MOST_FILES = 24  # that are coded one at a time, and again at each of many qualities
STRETCHES = 8  # of rows, spread evenly
LONG = 16  # rows of a stretch, at least
SMALL = 64  # a side of what is left of a row, at least
AS_FAR = "about as far off"


@dataclass(frozen=True)
class Other:
    """What another coder takes for all the data.

    ``equal``: its quality is no less than the codec's; ``ordinary``: it needs no model.
    """

    name: str
    nbytes: int
    quality: str = ""
    equal: bool = True
    ordinary: bool = True


@dataclass(frozen=True)
class Beside:
    """The others, the smallest first; in words what of the data they were given, and the codec's
    quality there.
    """

    others: list[Other] = field(default_factory=list)
    sample: str = ""
    quality: str = ""

    def best(self, *, ordinary: bool = False) -> Other | None:
        """The smallest of those that are as good."""
        fit = (o for o in self.others if o.equal and (o.ordinary or not ordinary))
        return next(fit, None)


def compare(
    codec: Any, X: Any, summary: Summary, how: Mapping[str, Any], *, whole: bool = False
) -> Beside:
    """What others make of what ``codec.compress_to(stream, X, **how)`` told ``summary`` of.

    Parameters: ``how`` the wishes for ``mode``, ``quality`` and ``autoencoder``; ``whole`` gives
    the others all of X, however long that takes.
    """
    from narrows.compression.api import items_of

    if not summary.original:
        return Beside()
    items, images = items_of(X)
    lossy = summary.mode == "lossy"
    if whole:
        sample, words = ([item.data for item in items] if images else np.asarray(X)), ""
    elif images:
        sample, words = some_images(items, MOST_LOSSY if lossy else MOST_BYTES)
    else:
        sample, words = some_rows(items[0].data, MOST_LOSSY if lossy else MOST_BYTES)
    wishes = {**how, "max_error": summary.error, "embed_model": False}
    stream = io.BytesIO()
    mine = codec.compress_to(stream, sample, **wishes) if words or lossy else summary
    rows = _unlike(_rows(codec, sample, mine, stream.getvalue()))
    # what a file has only once counts for little where it is large
    scale = summary.payload / max(1, mine.payload) if words else 1.0
    if words:  # all of them are judged by a sample
        rows = [replace(row, name=row.name.replace(" (from a sample)", "")) for row in rows]
    others = [_other(row, mine, scale) for row in rows]
    pca = _pca(codec, summary) if lossy else None
    others += [] if pca is None else [pca]
    others.sort(key=lambda other: other.nbytes)
    return Beside(others, words, _quality(mine, rows))


def _rows(codec: Any, sample: Any, mine: Summary, data: bytes) -> Iterator[Packed]:
    """The others on the sample."""
    images = images_of(sample)
    if mine.mode != "lossy":
        if mine.mode == "bounded" and mine.error:
            yield from pack_bounded(sample, mine.error)
        yield from pack_lossless(sample if images is None else images, most_images=MOST_IMAGES)
    elif images is not None:
        target = psnr_of(mine)
        if target is not None:
            yield from pack_lossy(images, target, most_images=MOST_FILES)
    elif not isinstance(sample, list):
        shift, scale = units_of(codec, sample.ndim)
        back = (codec.decompress(data) - shift) / scale
        scaled = ((sample - shift) / scale).astype(np.float32)
        mse = float(np.square(scaled - back).mean())
        # steps of 2 E leave a mean squared error of E² / 3
        yield from pack_bounded(scaled, math.sqrt(3 * mse))


def units_of(codec: Any, ndim: int) -> tuple[Array, Array]:
    """Shift and scale of a codec's numbers, as they broadcast against arrays of ``ndim`` axes."""
    choices, found = codec.choices_, []
    for values in (choices.shift, choices.scale):
        unit = np.asarray(values, np.float64)
        last = choices.axes in (None, "HWC") or len(unit) == 1
        found.append(unit if last else unit.reshape(-1, *[1] * (ndim - 2)))
    return found[0], found[1]


def psnr_of(summary: Summary, white: float | None = None) -> float | None:
    """PSNR in dB by the white of the data's dtype, or the one given; None where there is none."""
    if white is None:
        kinds = [np.dtype(name) for name in summary.dtypes]
        if len(kinds) != 1 or kinds[0].kind != "u" or kinds[0].itemsize > 2:
            return None
        white = float(np.iinfo(kinds[0]).max)
    if not summary.squares or not white:
        return None
    return 10 * math.log10(white**2 / summary.mse)


def _unlike(rows: Iterable[Packed]) -> list[Packed]:
    """Of the general coders, each in the form that suits the data."""
    kept: dict[str, Packed] = {}
    for row in rows:
        name = row.name.replace(", bytes by place", "")
        if name not in kept or row.nbytes < kept[name].nbytes:
            kept[name] = row
    return list(kept.values())


def _quality(mine: Summary, rows: Sequence[Packed]) -> str:
    """The codec's own, in the words of the others'."""
    if mine.mode == "lossless":
        return "bit for bit"
    if mine.mode == "bounded":
        return f"at most {mine.largest_error:.4g} off"
    psnr = psnr_of(mine) if any(row.psnr is not None for row in rows) else None
    return "" if psnr is None else f"{psnr:.2f} dB"


def _other(row: Packed, mine: Summary, scale: float) -> Other:
    nbytes = round(scale * row.nbytes)
    if mine.mode == "lossless" or (row.max_error == 0 and row.psnr is None):
        return Other(row.name, nbytes, "bit for bit")
    if row.psnr is not None:
        wanted = psnr_of(mine) or 0.0
        return Other(row.name, nbytes, f"{row.psnr:.2f} dB", row.psnr >= wanted - 1e-6)
    if mine.mode == "lossy":
        return Other(row.name, nbytes, AS_FAR)
    worst, bound = row.max_error or 0.0, mine.error or 0.0
    return Other(row.name, nbytes, f"at most {worst:.4g} off", worst <= bound)


def _pca(codec: Any, summary: Summary) -> Other | None:
    """PCA with the codec's own quantiser and coder, by what both took for the validation rows."""
    levels = getattr(codec, "levels_", [])
    if summary.level is None or not levels:
        return None
    found = levels[summary.level]
    bits = pca_bits(levels, found["mse"])
    if bits is None or found["bits_per_number"] <= 0:
        return None
    around = summary.coded - summary.embedded - summary.payload
    nbytes = round(summary.payload * bits / found["bits_per_number"] + around)
    return Other("PCA, same coder (by validation rows)", nbytes, "as far off", ordinary=False)


def pca_bits(levels: Sequence[Mapping[str, float]], mse: float) -> float | None:
    """Bits a number that PCA would take at an error, from its levels; None far from all of them.

    log₂ bits is taken as linear in log error between two levels, and for one level beyond the ends.

    >>> levels = [{"pca_mse": 0.4, "pca_bits_per_number": 1.0},
    ...           {"pca_mse": 0.1, "pca_bits_per_number": 4.0}]
    >>> pca_bits(levels, 0.2), pca_bits(levels, 1e-3)
    (2.0, None)
    """
    known = [
        (level["pca_mse"], level["pca_bits_per_number"])
        for level in levels
        if level.get("pca_mse", 0) > 0 and level.get("pca_bits_per_number", 0) > 0
    ]
    points = sorted((math.log(error), math.log2(bits)) for error, bits in known)
    if len({x for x, _ in points}) < 2 or mse <= 0:
        return None
    at = math.log(mse)
    k = min(max(1, int(np.searchsorted([x for x, _ in points], at))), len(points) - 1)
    (x0, y0), (x1, y1) = points[k - 1], points[k]
    share = (at - x0) / (x1 - x0)
    if not -1 <= share <= 2:
        return None
    return float(2 ** (y0 + share * (y1 - y0)))


def some_images(items: Sequence[Any], most: int) -> tuple[list[Array], str]:
    """Images, drawn at random, of about ``most`` bytes together; a first one larger is cut.

    Also in words what they are; nothing where they are all.
    """
    order = np.random.default_rng(0).permutation(len(items))[:MOST_IMAGES]
    found: list[Array] = []
    used = 0
    for i in order:
        image = np.asarray(items[int(i)].data)
        if found and used + image.nbytes > most:
            break
        found.append(image)
        used += image.nbytes
    cut = used > most
    if cut:
        found = [_middle(found[0], most)]
    if len(found) == len(items) and not cut:
        return found, ""
    part = "a part of one" if cut else f"{len(found):,}"
    return found, f"{part} of {len(items):,} image{'s' * (len(items) > 1)}"


def _middle(image: Array, most: int) -> Array:
    """The middle of an image (H, W, ...), of at most so many bytes."""
    share = math.sqrt(most / image.nbytes)
    height, width = (max(1, int(side * share)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def some_rows(data: Any, most: int) -> tuple[Any, str]:
    """Stretches of rows of an array, of about ``most`` bytes together, and in words what they are.

    A row that is larger is cut along its last two axes.
    """
    size = math.prod(data.shape) * data.dtype.itemsize
    if size <= most or not data.shape:
        return np.asarray(data[()] if not data.shape else data[:]), ""
    n = data.shape[0]
    count = max(1, most * n // size)
    parts = min(STRETCHES, max(1, count // LONG))
    length = count // parts
    starts = [int((i + 0.5) * n / parts - length / 2) for i in range(parts)]
    rows = np.concatenate([np.asarray(data[s : s + length]) for s in map(_from_0, starts)])
    if rows.nbytes <= most:
        return rows, f"{len(rows):,} of {n:,} rows"
    axes = (-1, -2)[: rows.ndim - 1]
    share = (most / rows.nbytes) ** (1 / len(axes))
    for axis in axes:
        kept = max(SMALL, int(rows.shape[axis] * share))
        rows = np.moveaxis(np.moveaxis(rows, axis, 0)[:kept], 0, axis)
    return np.ascontiguousarray(rows), f"a part of one of {n:,} rows"


def _from_0(start: int) -> int:
    return max(0, start)
