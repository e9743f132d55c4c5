"""The summary of a compression: sizes, quality, speed, and what other coders make of the same data.

Large data are compared by a sample, which the codec and the others compress: all are held to the
same quality of the same numbers. The others' size of all the data is scaled from the sample by the
codec's own.
"""

from __future__ import annotations

import io
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.codec import Codec
from narrows.compression.codec_input import read_items
from narrows.compression.format import Array
from narrows.compression.format.chunk_methods import MODEL_METHODS, NAMES
from narrows.compression.format.pack import Given, Summary, range_of
from narrows.compression.inspection import count_in_words, shape_in_words
from narrows.compression.other_coders import (
    CoderResult,
    bounded_results,
    images_of,
    lossless_results,
    lossy_results,
)
from narrows.io.photographs import find_photographs
from narrows.io.write import atomic_write, check_output

MAX_BYTES = 1 << 20  # of a sample
MAX_LOSSY_BYTES = 3 << 18  # of a sample that is coded again at each of many qualities
MAX_IMAGES = 500
MAX_LOSSY_FILES = 24  # coded one at a time, again at each of many qualities
STRETCHES = 8  # of rows, spread evenly
MIN_STRETCH = 16  # rows
MIN_SIDE = 64  # of what a row is cut to
SAME_ERROR = "about the same error"


@dataclass(frozen=True)
class Competitor:
    """The size of all the data by another coder.

    ``equal``: its quality is not below the codec's; ``ordinary``: it needs no model.
    """

    name: str
    nbytes: int
    quality: str = ""
    equal: bool = True
    ordinary: bool = True


@dataclass(frozen=True)
class Comparison:
    """The other coders, the smallest first; the sample they were given, and the codec's quality."""

    others: list[Competitor] = field(default_factory=list)
    sample: str = ""
    quality: str = ""

    def best(self, *, ordinary: bool = False) -> Competitor | None:
        """The smallest of those with the codec's quality."""
        fit = (o for o in self.others if o.equal and (o.ordinary or not ordinary))
        return next(fit, None)


@dataclass(frozen=True)
class CompressionReport:
    """A compression and its measures.

    Parameters: ``name`` of the file; ``seconds`` it took; ``model`` the bytes of the model in a
    file that embeds it; ``n_levels`` of the model; ``shape`` of an array, None for images;
    ``autoencoder`` whether it was used; ``spread`` the largest minus the smallest number, if
    errors are measured by that; ``stored`` the bytes of the image files that were read.
    """

    name: str
    summary: Summary
    seconds: float
    model: int
    n_levels: int
    shape: tuple[int, ...] | None
    autoencoder: bool = True
    spread: float | None = None
    stored: int | None = None
    comparison: Comparison | None = None

    @property
    def needs_model(self) -> bool:
        """Whether decoding needs the model."""
        return any(NAMES[method] in self.summary.methods for method in MODEL_METHODS)

    @property
    def without_model(self) -> int:
        """Bytes of the file without the model."""
        return self.summary.coded - self.summary.embedded

    def files_to_pay(self, other: Competitor) -> int | None:
        """How many such files until they and the model are smaller than by ``other``; None: never.

        The model is counted once.
        """
        saved = other.nbytes - self.without_model
        return math.ceil(max(1, self.model) / saved) if saved > 0 else None


def compress_file(
    codec: Codec,
    X: Any,
    out: str | Path | BinaryIO,
    *,
    how: Mapping[str, Any],
    overwrite: bool = False,
    compare: str = "sample",
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> CompressionReport:
    """Compress X to ``out``, a path or an open stream, and measure the result.

    Parameters: ``how`` the keyword arguments of ``Codec.compress_to``; ``compare`` what other
    coders are given: a "sample" of X, "all" of it, or "none". A file is written whole or not at
    all.

    Raises `FileError` if the file cannot be written, and what ``compress_to`` raises.
    """
    start = time.perf_counter()
    if isinstance(out, str | Path):
        path = check_output(out, (".narrow",), overwrite=overwrite)
        with atomic_write(path) as place, place.open("wb") as file:
            summary = codec.compress_to(file, X, watch=watch, **how)
    else:
        summary = codec.compress_to(out, X, watch=watch, **how)
        out.flush()
    seconds = time.perf_counter() - start
    comparison = None
    if compare != "none":
        comparison = compare_coders(codec, X, summary, how, whole=compare == "all")
    images = isinstance(X, str | Path | list)
    lossy_array = summary.mode == "lossy" and not images and summary.squares
    # columns of a table have ranges of their own
    by_range = lossy_array and psnr_of(summary) is None and len(codec.choices_.scale) == 1
    return CompressionReport(
        name=str(out) if isinstance(out, str | Path) else "standard output",
        summary=summary,
        seconds=seconds,
        model=len(zlib.compress(codec.decoder_.payload.data, 9)),  # as a file that embeds it has it
        n_levels=codec.decoder_.n_levels,
        shape=None if images else tuple(X.shape),
        autoencoder=how.get("autoencoder", True),
        spread=range_of([Given(X)]) if by_range else None,
        stored=_bytes_on_disk(X),
        comparison=comparison,
    )


def _bytes_on_disk(X: Any) -> int | None:
    """Bytes of the image files that X names."""
    if not isinstance(X, Path):
        return None
    return sum(path.stat().st_size for path in (find_photographs(X) if X.is_dir() else [X]))


def psnr_of(summary: Summary, white: float | None = None) -> float | None:
    """PSNR in dB for a peak of ``white``, by default the dtype's; None if there is none."""
    if white is None:
        kinds = [np.dtype(name) for name in summary.dtypes]
        if len(kinds) != 1 or kinds[0].kind != "u" or kinds[0].itemsize > 2:
            return None
        white = float(np.iinfo(kinds[0]).max)
    if not summary.squares or not white:
        return None
    return 10 * math.log10(white**2 / summary.mse)


# ------------------------------------------------------------------ the comparison


def compare_coders(
    codec: Codec, X: Any, summary: Summary, how: Mapping[str, Any], *, whole: bool = False
) -> Comparison:
    """Other coders on the data of ``summary``, which ``codec.compress_to(stream, X, **how)`` gave.

    ``whole`` gives them all of X, not a sample, however long that takes.
    """
    if not summary.original:
        return Comparison()
    items, images = read_items(X)
    lossy = summary.mode == "lossy"
    limit = MAX_LOSSY_BYTES if lossy else MAX_BYTES
    sample: Any
    if whole:
        sample, words = ([item.data for item in items] if images else np.asarray(X)), ""
    elif images:
        sample, words = sample_images(items, limit)
    else:
        sample, words = sample_rows(items[0].data, limit)
    stream = io.BytesIO()
    mine = summary
    if words or lossy:
        again = {**how, "max_error": summary.error, "embed_model": False}
        mine = codec.compress_to(stream, sample, **again)
    results = _results(codec, sample, mine, stream.getvalue())
    # by payloads: the rest of a file does not grow with the data
    scale = summary.payload / max(1, mine.payload) if words else 1.0
    others = [_competitor(result, mine, scale, bool(words)) for result in results]
    others += [pca] if lossy and (pca := _pca(codec, summary)) else []
    quality = "bit for bit"
    if mine.mode == "bounded":
        quality = f"at most {mine.largest_error:.4g} off"
    elif lossy:
        psnr = psnr_of(mine) if any(result.psnr is not None for result in results) else None
        quality = "" if psnr is None else f"{psnr:.2f} dB"
    return Comparison(sorted(others, key=lambda other: other.nbytes), words, quality)


def _results(codec: Codec, sample: Any, mine: Summary, data: bytes) -> list[CoderResult]:
    """Other coders on the sample, which the codec compressed to ``data``."""
    images = images_of(sample)
    if mine.mode != "lossy":
        bounded = mine.mode == "bounded" and mine.error
        results = bounded_results(sample, mine.error or 0.0) if bounded else []
        given = sample if images is None else images
        return results + lossless_results(given, max_images=MAX_IMAGES)
    if images is not None:
        target = psnr_of(mine)
        return [] if target is None else lossy_results(images, target, max_images=MAX_LOSSY_FILES)
    if isinstance(sample, list):
        return []
    shift, scale = _units(codec, sample.ndim)
    decoded = (codec.decompress(data) - shift) / scale
    scaled = ((sample - shift) / scale).astype(np.float32)
    mse = float(np.square(scaled - decoded).mean())
    return bounded_results(scaled, math.sqrt(3 * mse))  # steps of 2 E leave an MSE of E² / 3


def _units(codec: Codec, ndim: int) -> Iterator[Array]:
    """Shift and scale of a codec's numbers, shaped to broadcast against ``ndim`` axes."""
    for values in (codec.choices_.shift, codec.choices_.scale):
        unit = np.asarray(values, np.float64)
        last = codec.choices_.axes in (None, "HWC") or len(unit) == 1
        yield unit if last else unit.reshape(-1, *[1] * (ndim - 2))


def _competitor(result: CoderResult, mine: Summary, scale: float, sampled: bool) -> Competitor:
    nbytes = round(scale * result.nbytes)
    # if all coders were given a sample, the head of the table says so
    name = result.name.replace(" (from a sample)", "") if sampled else result.name
    if result.psnr is not None:
        reached = result.psnr >= (psnr_of(mine) or 0.0) - 1e-6
        return Competitor(name, nbytes, f"{result.psnr:.2f} dB", reached)
    if mine.mode == "lossy":
        return Competitor(name, nbytes, SAME_ERROR)
    if mine.mode == "lossless" or result.max_error == 0:
        return Competitor(name, nbytes, "bit for bit")
    kept = result.max_error <= (mine.error or 0.0)
    return Competitor(name, nbytes, f"at most {result.max_error:.4g} off", kept)


def _pca(codec: Codec, summary: Summary) -> Competitor | None:
    """PCA with the codec's own quantiser and coder, by the sizes of both on validation rows."""
    if summary.level is None or not codec.levels_:
        return None
    found = codec.levels_[summary.level]
    bits = pca_bits(codec.levels_, found["mse"])
    if bits is None or found["bits_per_number"] <= 0:
        return None
    around = summary.coded - summary.embedded - summary.payload
    nbytes = round(summary.payload * bits / found["bits_per_number"] + around)
    return Competitor("PCA, same coder (by validation rows)", nbytes, "same error", ordinary=False)


def pca_bits(levels: Sequence[Mapping[str, float]], mse: float) -> float | None:
    """Bits per number that PCA takes for an error, from its levels; None far from all of them.

    Between two levels, and for one level beyond the ends, log₂ bits is linear in log error.

    >>> levels = [{"pca_mse": 0.4, "pca_bits_per_number": 1.0},
    ...           {"pca_mse": 0.1, "pca_bits_per_number": 4.0}]
    >>> pca_bits(levels, 0.2), pca_bits(levels, 1e-3)
    (2.0, None)
    """
    known = [(lv.get("pca_mse", 0.0), lv.get("pca_bits_per_number", 0.0)) for lv in levels]
    points = sorted((math.log(e), math.log2(b)) for e, b in known if e > 0 and b > 0)
    if len({x for x, _ in points}) < 2 or mse <= 0:
        return None
    at = math.log(mse)
    k = min(max(1, int(np.searchsorted([x for x, _ in points], at))), len(points) - 1)
    (x0, y0), (x1, y1) = points[k - 1], points[k]
    share = (at - x0) / (x1 - x0)
    return float(2 ** (y0 + share * (y1 - y0))) if -1 <= share <= 2 else None


def sample_images(items: Sequence[Given], limit: int) -> tuple[list[Array], str]:
    """Images, drawn at random, of about ``limit`` bytes together; a first larger one is cropped.

    Also their number in words; empty if they are all images.
    """
    found: list[Array] = []
    left = limit
    for i in np.random.default_rng(0).permutation(len(items))[:MAX_IMAGES]:
        image = np.asarray(items[int(i)].data)
        if found and image.nbytes > left:
            break
        found.append(image)
        left -= image.nbytes
    if left < 0:  # the first image alone
        share = math.sqrt(limit / found[0].nbytes)
        height, width = (max(1, int(side * share)) for side in found[0].shape[:2])
        top, start = (found[0].shape[0] - height) // 2, (found[0].shape[1] - width) // 2
        middle = found[0][top : top + height, start : start + width]
        found = [np.ascontiguousarray(middle)]
    elif len(found) == len(items):
        return found, ""
    part = "a part of one" if left < 0 else f"{len(found):,}"
    return found, f"{part} of {count_in_words(len(items), 'image')}"


def sample_rows(data: Any, limit: int) -> tuple[Array, str]:
    """Stretches of rows of an array, about ``limit`` bytes together, and their number in words.

    A larger row is cropped along its last two axes. The words are empty if it is all the data.
    """
    if not data.shape or math.prod(data.shape) * data.dtype.itemsize <= limit:
        return np.asarray(data[:] if data.shape else data[()]), ""
    n = data.shape[0]
    count = max(1, limit * n // (math.prod(data.shape) * data.dtype.itemsize))
    parts = min(STRETCHES, max(1, count // MIN_STRETCH))
    length = count // parts
    starts = [max(0, int((i + 0.5) * n / parts - length / 2)) for i in range(parts)]
    rows = np.concatenate([np.asarray(data[start : start + length]) for start in starts])
    if rows.nbytes <= limit:
        return rows, f"{len(rows):,} of {n:,} rows"
    axes = (-1, -2)[: rows.ndim - 1]
    share = (limit / rows.nbytes) ** (1 / len(axes))
    for axis in axes:
        kept = max(MIN_SIDE, int(rows.shape[axis] * share))
        rows = rows.take(range(min(kept, rows.shape[axis])), axis)
    return np.ascontiguousarray(rows), f"a part of one of {n:,} rows"


# ------------------------------------------------------------------ in words


def report_lines(report: CompressionReport) -> list[str]:
    """The whole summary, a line each."""
    summary, shape = report.summary, report.shape
    if shape is None:
        what = f"{count_in_words(summary.items, 'image')}, {summary.pixels:,} pixels"
    else:
        what = shape_in_words(shape)
    mode = {
        "lossy": f"lossy, level {summary.level} of 0 to {report.n_levels - 1}",
        "bounded": f"no element further off than {summary.error or 0:.6g}",
        "lossless": "lossless",
    }[summary.mode]
    rows = dict(_rows(report))
    width = max(map(len, rows))
    head = f"{report.name}: {what}, {', '.join(sorted(summary.dtypes))}; {mode}"
    lines = [f"  {name:<{width}}  {words}" for name, words in rows.items()]
    return [head, *lines, *_comparison_lines(report)]


def _rows(report: CompressionReport) -> Iterator[tuple[str, str]]:
    """Name and text of each line about the file itself."""
    summary = report.summary
    files = f" ({report.stored:,} as the files that were read)" if report.stored is not None else ""
    yield "original", f"{summary.original:,} bytes{files}"
    ratio = summary.original / summary.coded
    times = f"{ratio:.4g} × smaller" if ratio > 1 else f"{1 / (ratio or 1):.3g} × larger"
    yield "file", f"{summary.coded:,} bytes" + (f", {times}" if ratio else "")
    parts = {"payload": summary.payload}
    if report.needs_model:
        rest = summary.payload - summary.codes
        parts = {"codes of the autoencoder": summary.codes, "rest of the payload": rest}
    parts["header and frames"] = summary.coded - summary.payload - summary.embedded
    parts |= {"model": summary.embedded} if summary.embedded else {}
    yield "made of", ", ".join(f"{name} {nbytes:,}" for name, nbytes in parts.items())
    if summary.elements:
        bits = 8 * report.without_model
        rate = f"{bits / summary.elements:.4g} bits a number"
        if summary.pixels not in (0, summary.elements):
            rate = f"{bits / summary.pixels:.4g} bits a pixel, {rate}"
        yield "rate", rate + (" (without the model)" if summary.embedded else "")
    yield "quality", _quality(report)
    chunks = ", ".join(f"{name} {count:,}" for name, count in summary.methods.most_common())
    yield "chunks", chunks or "none"
    if report.autoencoder and summary.mode != "lossy" and summary.without:
        more = summary.without / max(1, summary.payload) - 1
        saved = f", {100 * more:.3g} % more" if more > 0 else ": the autoencoder saves nothing here"
        yield "autoencoder off", f"{summary.without:,} bytes of payload{saved}"
    if report.autoencoder:
        yield from _model(report)
    speed = summary.original / max(report.seconds, 1e-9) / 1e6
    yield "speed", f"{speed:.3g} MB/s, {report.seconds:.1f} s"


def _quality(report: CompressionReport) -> str:
    summary = report.summary
    if summary.mode == "lossless":
        return "bit for bit"
    worst = f"largest error {summary.largest_error:.6g}"
    if summary.mode == "bounded":
        return f"{worst}, of {summary.error or 0:.6g} allowed"
    psnr, peak = psnr_of(summary), "white"
    if psnr is None and report.spread:
        psnr, peak = psnr_of(summary, report.spread), f"the range, {report.spread:.4g}"
    if psnr is None:
        return f"{worst}, root mean square {math.sqrt(summary.mse):.4g}"
    return f"PSNR {psnr:.2f} dB (the peak is {peak}), {worst}"


def _model(report: CompressionReport) -> Iterator[tuple[str, str]]:
    """The model's bytes, and after how many files they are saved."""
    where = "in the file" if report.summary.embedded else "not in the file"
    unneeded = "" if report.needs_model else "; decoding does not need it"
    yield "model", f"{report.model:,} bytes, {where}{unneeded}"
    best = None if report.comparison is None else report.comparison.best(ordinary=True)
    if best is None or not report.needs_model:
        return
    count = report.files_to_pay(best)
    pays = "never"
    if count is not None:
        files = "this file alone" if count == 1 else f"{count:,} such files"
        pays = f"for itself with {files}, counted once"
    yield "it pays", f"{pays}, against {best.name}"


def _comparison_lines(report: CompressionReport) -> list[str]:
    """The table of all coders, and a sentence about the smallest."""
    comparison, summary = report.comparison, report.summary
    if comparison is None or not summary.original:
        return []
    if not comparison.others:
        return ["not compared: no other coder takes these data at this quality."]
    name = "this file without its model" if summary.embedded else "this file"
    own = {name: report.without_model}
    if report.needs_model:
        own["this file and the model"] = report.without_model + report.model
    rows = [Competitor(name, nbytes, comparison.quality) for name, nbytes in own.items()]
    rows = sorted([*rows, *comparison.others], key=lambda row: row.nbytes)
    width = max(len(row.name) for row in rows)
    same = any(row.quality == SAME_ERROR for row in rows)
    quality = "about the same squared error" if same else "no less quality"
    sample = f", judged by {comparison.sample}" if comparison.sample else ""
    lines = [
        f"compared with other coders, at {quality}{sample}:",
        f"  {'':<{width}}  {'bytes':>14}  {'× smaller':>9}",
    ]
    for row in rows:
        ratio = summary.original / max(1, row.nbytes)
        line = f"  {row.name:<{width}}  {row.nbytes:>14,}  {ratio:>9.2f}  {row.quality}"
        lines.append(line.rstrip())
    return [*lines, _verdict(report, comparison)]


def _verdict(report: CompressionReport, comparison: Comparison) -> str:
    best, ordinary = comparison.best(), comparison.best(ordinary=True)
    if best is None:
        return "None of the others reaches this quality."
    own = report.without_model
    if best.nbytes < own:
        share = 100 * (1 - best.nbytes / own)
        return f"{best.name} is smaller: {share:.3g} % less than this file."
    words = f"This file is {100 * (1 - own / best.nbytes):.3g} % smaller than {best.name}"
    if report.needs_model and ordinary is not None and ordinary.nbytes < own + report.model:
        return f"{words}; with the model counted, {ordinary.name} is smaller."
    return f"{words}, the best of the others."


# ------------------------------------------------------------------ the summary of a fit


def fit_summary(codec: Codec, name: str) -> list[str]:
    """Lines on what a fitted codec learned from the data called ``name``.

    They give the bits and the error of the usual level, and the bits of PCA with the same coder.
    """
    info, choices = codec.info(), codec.state_.config
    whole = choices.event is not None
    sides = info["cell"] if whole or info["cell"][0] > 1 else info["cell"][1:]
    n, cell = info["training"]["rows"], " × ".join(map(str, sides))
    what = f"{n:,} rows, each" if whole else f"{n:,} image{'s' * (n != 1)}, each block"
    levels, level = codec.levels_, codec.decoder_.level
    bits, mse = levels[level]["bits_per_number"], levels[level]["mse"]
    quality = f"squared error {mse:.4g} (scaled units)"
    if choices.low and choices.high and len(choices.scale) == 1 and mse > 0:  # there are bounds
        peak = (max(choices.high) - min(choices.low)) / choices.scale[0]
        quality = f"PSNR {10 * math.log10(peak**2 / mse):.2f} dB"
    lines = [
        f"{info['model']} of {name}: {what} {cell} to {info['latent_dim']} whole numbers",
        f"chosen: networks of {info['n_parameters']:,} parameters; the decoder takes "
        f"{info['payload_bytes']:,} bytes, fewer once deflated",
        f"validation rows, level {level} of 0 to {len(levels) - 1}: {bits:.4g} bits a number, "
        f"{quality}",
    ]
    pca = pca_bits(levels, mse)
    if pca is not None and bits > 0:
        more = f"{abs(pca / bits - 1):.1%} {'more' if pca > bits else 'fewer'}"
        lines.append(f"PCA with the same coder takes {pca:.4g} bits at that error, {more}")
    return lines
