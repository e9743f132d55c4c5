"""The page of denoised images: before and after under one divider, details, and a table."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.denoising.filters import FILTERS
from narrows.denoising.image_quality import psnr, ssim, white
from narrows.denoising.side_by_side import LONGEST, crops, sides
from narrows.exceptions import InputError
from narrows.io.write import atomic_write, check_output
from narrows.report import formatting as words
from narrows.report.page import Page, Section, Table, asset, render
from narrows.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Image = NDArray[Any]

NOISY, OURS, CLEAN = "noisy", "narrows", "clean"


@dataclass(frozen=True)
class Entry:
    """One image before and after, and what other methods made of it.

    All images of an entry have one shape, (H, W) or (H, W, 3), and one dtype: uint8, uint16 or
    floats with white at 1. ``noise`` is the standard deviation found, on the scale where white is
    255; ``seconds`` what denoising took; ``clean`` the image without noise, where there is one;
    ``baselines`` holds an image and its seconds by method's name.

    Raises `InputError` for anything else.
    """

    name: str
    noisy: Image
    denoised: Image
    noise: float
    seconds: float
    clean: Image | None = None
    baselines: Mapping[str, tuple[Image, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := {NOISY, OURS, CLEAN} & set(self.baselines):
            raise InputError(f"A baseline cannot be called {min(taken)!r}: give it another name.")
        for method, image in self.images.items():
            _check(self.name, method, image, self.noisy)

    @property
    def images(self) -> dict[str, Image]:
        """Every image by its method, in the order they are offered."""
        others = {name: image for name, (image, _) in self.baselines.items()}
        clean = {} if self.clean is None else {CLEAN: self.clean}
        return {NOISY: self.noisy, OURS: self.denoised, **others, **clean}

    def scores(self) -> list[Score]:
        """Every method's figures, by PSNR where the clean image is known."""
        taken = {OURS: self.seconds} | {name: took for name, (_, took) in self.baselines.items()}
        shown = {name: image for name, image in self.images.items() if name != CLEAN}
        if self.clean is None:
            return [Score(name, taken[name]) for name in shown if name != NOISY]
        scores = [
            Score(name, taken.get(name), psnr(self.clean, image), ssim(self.clean, image))
            for name, image in shown.items()
        ]
        return sorted(scores, key=lambda score: -score.psnr)


@dataclass(frozen=True, slots=True)
class Score:
    """What one method did: seconds, and where the clean image is known decibels and SSIM."""

    method: str
    seconds: float | None
    psnr: float = math.nan
    ssim: float | None = None

    def cells(self) -> list[str]:
        """The row of a table with the clean image known; without its middle where it is not."""
        decibels = "∞" if math.isinf(self.psnr) else f"{self.psnr:.2f}"
        likeness = "–" if self.ssim is None else f"{self.ssim:.4f}"
        seconds = "–" if self.seconds is None else words.duration(self.seconds)
        middle = [] if math.isnan(self.psnr) else [decibels, likeness]
        return [self.method, *middle, seconds]


def run_filters(image: Image, noise: float) -> dict[str, tuple[Image, float]]:
    """The classical filters' images with their seconds, as `Entry` takes them.

    Parameters: ``image`` (H, W) or (H, W, 3), uint8, uint16 or floats with white at 1; ``noise``
    its standard deviation on the scale where white is 255. What comes back has the image's dtype.
    Raises `ParameterError` where scikit-image or PyWavelets are not installed.

    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)
    >>> sorted(run_filters(image, 25.0))
    ['Gaussian', 'non-local means', 'total variation', 'wavelet']
    """
    top, found = white(image), {}
    for name, smooth in FILTERS.items():
        started = time.perf_counter()
        result = smooth((image / top).astype(np.float32), noise / 255).clip(0, 1) * top
        rounded = np.rint(result) if image.dtype.kind == "u" else result
        found[name] = rounded.astype(image.dtype), time.perf_counter() - started
    return found


def write_comparison(
    entries: Sequence[Entry],
    path: str | Path,
    *,
    title: str = "Denoised images",
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of denoised images, each beside the noisy one and other methods' results.

    The page is one file and needs nothing outside itself. For each image it has a divider between
    any two of its pictures, its details enlarged, and a table of the methods, by PSNR where the
    clean image is known.

    Parameters: ``entries`` at least one; ``path`` the page's file, .html; ``title`` the page's;
    ``overwrite`` replaces a page that is there. Returns the page's path.

    Raises `FileError` when something is there already or the folder is not, `InputError` when
    there is no entry, `ParameterError` when a clean image is given and scikit-image, which
    measures SSIM, is not installed.

    >>> import numpy as np, tempfile
    >>> clean = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    >>> entry = Entry("ramp.png", clean ^ 8, clean, noise=8.0, seconds=0.1, clean=clean)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_comparison([entry], folder + "/page.html")
    ...     page.name, "ramp.png" in page.read_text(encoding="utf-8")
    ('page.html', True)
    """
    path = check_output(path, (".html", ".htm"), overwrite=overwrite)
    if not entries:
        raise InputError("There is no image to compare: give at least one entry.")
    text = render(_page(entries, title))
    with atomic_write(path) as place:
        # a file's name may hold bytes that are no text
        place.write_text(text, encoding="utf-8", errors="replace")
    return path


def _page(entries: Sequence[Entry], title: str) -> Page:
    scores = [entry.scores() for entry in entries]
    measured = [
        each for each, entry in zip(scores, entries, strict=True) if entry.clean is not None
    ]
    means = _means(measured)
    images = [_image(i, *both) for i, both in enumerate(zip(entries, scores, strict=True), 1)]
    whole = [_overview(means, len(measured))] if len(measured) > 1 else []
    return Page(
        kicker=f"narrows denoise · {words.count(len(entries), 'image')}",
        title=title,
        headline=_headline(means, len(measured), len(entries)),
        caveat=f"{_source(len(measured), len(entries))} Levels of noise are standard deviations, "
        "on the scale where white is 255. The classical filters were given the level found.",
        tiles=_tiles(entries, means),
        sections=[*whole, *images],
        foot=f"Made with narrows {__version__}.",
        style=asset("comparison.css"),
        script=asset("comparison.js"),
    )


def _means(measured: list[list[Score]]) -> list[Score]:
    """Over the images, the methods that every one of them has."""
    common = [score.method for score in measured[0]] if measured else []
    by_name = [{score.method: score for score in scores} for scores in measured]
    found = []
    for name in [name for name in common if all(name in scores for scores in by_name)]:
        here = [scores[name] for scores in by_name]
        likeness = [score.ssim for score in here if score.ssim is not None]
        found.append(
            Score(
                name,
                None if here[0].seconds is None else _mean([s.seconds or 0.0 for s in here]),
                _mean([score.psnr for score in here]),
                _mean(likeness) if len(likeness) == len(here) else None,
            )
        )
    return sorted(found, key=lambda score: -score.psnr)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _headline(means: list[Score], n_measured: int, n: int) -> str:
    """The result in one honest sentence."""
    if not means:
        return f"{words.count(n, 'image')} denoised; with no clean image, nothing says how well."
    ours = next(score.psnr for score in means if score.method == OURS)
    others = [score for score in means if score.method not in (OURS, NOISY)]
    over = "" if n == 1 else f", over {words.count(n_measured, 'image')}"
    reached = _decibels(ours)
    if not others:
        before = next(score.psnr for score in means if score.method == NOISY)
        return f"From {_decibels(before)} to {reached}{over}."
    best = others[0]
    apart = ours - best.psnr
    if apart < 0:
        name = best.method[:1].upper() + best.method[1:]
        return f"{name} does better: {_decibels(best.psnr)}, narrows {reached}{over}."
    return f"{reached}, {_decibels(apart)} above the best filter ({best.method}){over}."


def _decibels(value: float) -> str:
    return f"{value:.2f}\N{NO-BREAK SPACE}dB"


def _source(n_measured: int, n: int) -> str:
    if n_measured == 0:
        return (
            "Without a clean image there is no PSNR and no SSIM: look at the details and judge "
            "what is noise and what was there."
        )
    held = "the clean image" if n == 1 else f"the clean images of {n_measured} of {n}"
    return f"Measured against {held}."


def _tiles(entries: Sequence[Entry], means: list[Score]) -> list[tuple[str, str]]:
    levels = sorted(entry.noise for entry in entries)
    span = f"{levels[0]:.1f}" if len(levels) == 1 else f"{levels[0]:.1f} to {levels[-1]:.1f}"
    took = _mean([entry.seconds for entry in entries])
    scores = [
        (_decibels(score.psnr), "PSNR before" if score.method == NOISY else "PSNR after")
        for score in reversed(means)
        if score.method in (NOISY, OURS)
    ]
    each = "to denoise" if len(entries) == 1 else "to denoise an image, on average"
    return [*scores, (span, "noise found, white = 255"), (words.duration(took), each)]


def _overview(means: list[Score], n: int) -> Section:
    table = _table(f"Means over the {n} images whose clean image is known", means)
    return Section("overview", "All images", "", tables=[table])


def _image(number: int, entry: Entry, scores: list[Score]) -> Section:
    height, width = entry.noisy.shape[:2]
    kind = "grey" if entry.noisy.ndim == 2 else "colour"
    depth = {"uint8": "8 bit", "uint16": "16 bit"}.get(entry.noisy.dtype.name, "floating point")
    lead = (
        f"{width:,} × {height:,} pixels, {kind}, {depth}. Noise found: {entry.noise:.1f} of 255. "
        f"Denoised in {words.duration(entry.seconds)}."
    )
    if max(height, width) > LONGEST:
        lead += (
            f" Shown at {LONGEST:,} pixels on its longer side, where noise looks weaker than it "
            "is; the details below are at full resolution."
        )
    detail = entry.denoised if entry.clean is None else entry.clean
    html = sides(entry.name, entry.images) + crops(entry.name, entry.images, detail)
    return Section(f"image-{number}", entry.name, lead, html=html, tables=[_table("", scores)])


def _table(caption: str, scores: list[Score]) -> Table:
    if math.isnan(scores[0].psnr):
        note = "Without a clean image there is no PSNR: only the time is known."
        header = ["", "Time"]
    else:
        note = (
            "PSNR: 10 log₁₀ (white² / mean squared error). SSIM: structural similarity, Wang et "
            "al. 2004. Sorted by PSNR."
        )
        header = ["", "PSNR, dB", "SSIM", "Time"]
    caption = caption or "Every method on this image"
    return Table(caption, header, [score.cells() for score in scores], note, wide=True)


def _check(name: str, method: str, image: Image, noisy: Image) -> None:
    white(image)
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise InputError(
            f"The {method} image of {name!r} has shape {image.shape}: give (height, width) or "
            "(height, width, 3)."
        )
    if image.shape != noisy.shape or image.dtype != noisy.dtype:
        raise InputError(
            f"The {method} image of {name!r} has shape {image.shape} and dtype {image.dtype}, the "
            f"noisy one {noisy.shape} and {noisy.dtype}: give all in one shape and dtype."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError(f"The {method} image of {name!r} holds NaN or infinity: replace them.")
