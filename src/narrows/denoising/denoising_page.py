"""The page of denoised images: before and after under one divider, details, and a table."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from narrows.denoising.compare_filters import run_filters
from narrows.denoising.image_quality import check_pixels, psnr, ssim, white_value
from narrows.exceptions import InputError
from narrows.io.photographs import MAX_PIXELS, read_photograph
from narrows.io.write import PAGES, atomic_write, check_output, pictures
from narrows.report.formatting import count, duration
from narrows.report.page import Page, Section, Table, asset, render, template
from narrows.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from narrows.denoising.denoise_folder import DenoisedFile

    Image = NDArray[Any]

NOISY, OURS, CLEAN = "noisy", "narrows", "clean"  # the methods' names on the page

# Whole pictures are JPEG, as a page of raw noise would have tens of megabytes; details are PNG.
MAX_PICTURE_SIDE = 1200  # pixels; larger pictures are shrunk
MIN_PICTURE_SIDE = 480  # pixels; smaller pictures are enlarged by a whole number
DETAIL_SIDE = 128  # pixels of the image
DETAIL_PAGE_SIDE = 256  # pixels on the page
N_DETAILS = 3
DETAIL_GRID = 16  # pixels between the places where a detail may begin


@dataclass(frozen=True, slots=True)
class Score:
    """The result of one method; what is not known is NaN."""

    method: str
    seconds: float = math.nan
    psnr: float = math.nan  # decibels
    ssim: float = math.nan

    def cells(self) -> list[str]:
        """The row of a table; PSNR and SSIM only if a clean image is known."""
        decibels = "∞" if math.isinf(self.psnr) else f"{self.psnr:.2f}"
        similarity = "–" if math.isnan(self.ssim) else f"{self.ssim:.4f}"
        seconds = "–" if math.isnan(self.seconds) else duration(self.seconds)
        middle = [] if math.isnan(self.psnr) else [decibels, similarity]
        return [self.method, *middle, seconds]


@dataclass(frozen=True)
class DenoisedImage:
    """One image before and after, and the results of other methods.

    All images have one shape, (H, W) or (H, W, 3), and one dtype: uint8, uint16 or floats with
    white at 1. ``noise`` is the estimated standard deviation, white being 255; ``seconds`` the time
    that denoising took; ``clean`` the image without noise, if known; ``baselines`` an image and its
    seconds by the method's name.

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
            raise InputError(f"A baseline cannot be called {min(taken)!r}; give it another name.")
        for method, image in self.images.items():
            what = f"The {method} image of {self.name!r}"
            white_value(image)  # raises for a dtype without a known white
            check_pixels(image, what)
            if image.shape != self.noisy.shape or image.dtype != self.noisy.dtype:
                raise InputError(
                    f"{what} has shape {image.shape} and dtype {image.dtype}, the noisy one "
                    f"{self.noisy.shape} and {self.noisy.dtype}; give all in one shape and dtype."
                )

    @property
    def images(self) -> dict[str, Image]:
        """Every image by its method, in the order of the page."""
        others = {name: image for name, (image, _) in self.baselines.items()}
        clean = {} if self.clean is None else {CLEAN: self.clean}
        return {NOISY: self.noisy, OURS: self.denoised, **others, **clean}

    def scores(self) -> list[Score]:
        """The results of all methods, sorted by PSNR if the clean image is known."""
        taken = {OURS: self.seconds} | {name: took for name, (_, took) in self.baselines.items()}
        clean = self.clean
        if clean is None:
            return [Score(name, seconds) for name, seconds in taken.items()]
        scores = []
        for name, image in self.images.items():
            if name != CLEAN:
                similarity = ssim(clean, image)
                similarity = math.nan if similarity is None else similarity
                seconds = taken.get(name, math.nan)
                scores.append(Score(name, seconds, psnr(clean, image), similarity))
        return sorted(scores, key=lambda score: -score.psnr)


def write_comparison(
    entries: Sequence[DenoisedImage],
    path: str | Path,
    *,
    title: str = "Denoised images",
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of denoised images, with the noisy ones and other methods' results.

    The page is one file and needs nothing outside itself. For each image it has a divider between
    any two of its pictures, its details enlarged, and a table of the methods, by PSNR if the
    clean image is known.

    Parameters: ``entries`` at least one; ``path`` the page's file, .html; ``title`` the page's;
    ``overwrite`` replaces an existing page. Returns the page's path.

    Raises `FileError` if the file exists or its folder does not, `InputError` if there is no
    entry, `ParameterError` if a clean image is given and scikit-image, which measures SSIM, is not
    installed.

    >>> import numpy as np, tempfile
    >>> clean = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    >>> entry = DenoisedImage("ramp.png", clean ^ 8, clean, noise=8.0, seconds=0.1, clean=clean)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_comparison([entry], folder + "/page.html")
    ...     page.name, "ramp.png" in page.read_text(encoding="utf-8")
    ('page.html', True)
    """
    path = check_output(path, PAGES, overwrite=overwrite)
    if not entries:
        raise InputError("There is no image to compare; give at least one entry.")
    text = render(_page(entries, title))
    with atomic_write(path) as place:
        # a file's name may contain bytes that are no text
        place.write_text(text, encoding="utf-8", errors="replace")
    return path


def compare_files(
    done: Sequence[DenoisedFile],
    page: str | Path | None = None,
    *,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    echo: Callable[[str], object] = lambda line: None,
) -> None:
    """Run the classical filters on denoised files, and write a page of all results.

    Parameters: ``done`` the files that `denoise_files` denoised; ``page`` the page's file, None for
    no page; ``overwrite`` replaces it; ``max_pixels`` refuses larger images; ``echo`` is called
    with a line for each image (the filters' PSNR if the clean image is known, else their time),
    and when the page is written. Raises as `write_comparison` and `run_filters` do.
    """

    def pixels(path: Path) -> Image:
        return read_photograph(path, max_pixels=max_pixels).pixels

    images = []
    for item in done:
        noisy = pixels(item.source)
        image = DenoisedImage(
            item.source.name,
            noisy=noisy,
            denoised=pixels(item.target),
            noise=item.noise,
            seconds=item.seconds,
            clean=None if item.clean is None else pixels(item.clean),
            baselines=run_filters(noisy, item.noise),
        )
        results = [
            f"{name} {seconds:.1f} s"
            if image.clean is None
            else f"{name} {psnr(image.clean, filtered):.2f} dB"
            for name, (filtered, seconds) in image.baselines.items()
        ]
        echo(f"  filters: {', '.join(results)}")
        if page is not None:  # without a page no more than one image is kept in memory
            images.append(image)
    if page is not None:
        write_comparison(images, page, overwrite=overwrite)
        echo(f"wrote {page}")


def _page(entries: Sequence[DenoisedImage], title: str) -> Page:
    scores = [entry.scores() for entry in entries]
    measured = [
        each for each, entry in zip(scores, entries, strict=True) if entry.clean is not None
    ]
    n, n_measured = len(entries), len(measured)
    means = _means(measured)
    sections = [
        _image_section(i, *both) for i, both in enumerate(zip(entries, scores, strict=True), 1)
    ]
    if n_measured > 1:
        caption = f"Means over the {n_measured} images whose clean image is known"
        sections.insert(0, Section("overview", "All images", "", tables=[_table(caption, means)]))
    return Page(
        kicker=f"narrows denoise · {count(n, 'image')}",
        title=title,
        headline=_headline(means, n_measured, n),
        caveat=f"{_source(n_measured, n)} Noise levels are standard deviations on the scale where "
        "white is 255. The classical filters were given the estimated level.",
        tiles=_tiles(entries, means),
        sections=sections,
        foot=f"Made with narrows {__version__}.",
        style=asset("comparison.css", "narrows.denoising"),
        script=asset("comparison.js", "narrows.denoising"),
    )


def _means(measured: list[list[Score]]) -> list[Score]:
    """Means over the images, of the methods that every image has."""
    found = []
    for first in measured[0] if measured else ():
        same = [score for scores in measured for score in scores if score.method == first.method]
        if len(same) == len(measured):
            figures = [(score.seconds, score.psnr, score.ssim) for score in same]
            found.append(Score(first.method, *np.mean(figures, axis=0).tolist()))
    return sorted(found, key=lambda score: -score.psnr)


def _headline(means: list[Score], n_measured: int, n: int) -> str:
    """The result in one sentence."""
    if not means:
        return f"{count(n, 'image')} denoised; without a clean image no quality is known."
    decibels = {score.method: score.psnr for score in means}
    ours, noisy = decibels.pop(OURS), decibels.pop(NOISY)
    over = "" if n == 1 else f", over {count(n_measured, 'image')}"
    if not decibels:
        return f"From {_decibels(noisy)} to {_decibels(ours)}{over}."
    name, best = next(iter(decibels.items()))  # they are sorted
    if ours < best:
        name = name[:1].upper() + name[1:]
        return f"{name} is better: {_decibels(best)}, narrows {_decibels(ours)}{over}."
    return f"{_decibels(ours)}, {_decibels(ours - best)} above the best filter ({name}){over}."


def _decibels(value: float) -> str:
    return f"{value:.2f}\N{NO-BREAK SPACE}dB"


def _source(n_measured: int, n: int) -> str:
    if n_measured == 0:
        return (
            "Without a clean image there is no PSNR and no SSIM: look at the details to see what "
            "was removed."
        )
    clean = "the clean image" if n == 1 else f"the clean images of {n_measured} of {n}"
    return f"Measured against {clean}."


def _tiles(entries: Sequence[DenoisedImage], means: list[Score]) -> list[tuple[str, str]]:
    decibels = {score.method: _decibels(score.psnr) for score in means}
    levels = sorted(entry.noise for entry in entries)
    span = f"{levels[0]:.1f}" if len(levels) == 1 else f"{levels[0]:.1f} to {levels[-1]:.1f}"
    seconds = sum(entry.seconds for entry in entries) / len(entries)
    each = "to denoise" if len(entries) == 1 else "to denoise an image, on average"
    scores = [(NOISY, "PSNR before"), (OURS, "PSNR after")] if means else []
    return [
        *((decibels[method], label) for method, label in scores),
        (span, "estimated noise, white = 255"),
        (duration(seconds), each),
    ]


def _image_section(number: int, entry: DenoisedImage, scores: list[Score]) -> Section:
    height, width = entry.noisy.shape[:2]
    kind = "grey" if entry.noisy.ndim == 2 else "colour"
    depth = {"uint8": "8 bit", "uint16": "16 bit"}.get(entry.noisy.dtype.name, "floating point")
    lead = (
        f"{width:,} × {height:,} pixels, {kind}, {depth}. Estimated noise: {entry.noise:.1f} of "
        f"255. Denoised in {duration(entry.seconds)}."
    )
    if max(height, width) > MAX_PICTURE_SIDE:
        lead += (
            f" Shown at {MAX_PICTURE_SIDE:,} pixels on its longer side, where noise looks weaker "
            "than it is; the details below have full resolution."
        )
    table = _table("Every method on this image", scores)
    return Section(f"image-{number}", entry.name, lead, html=_views(entry), tables=[table])


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
    return Table(caption, header, [score.cells() for score in scores], note, wide=True)


# ---------------------------------------------------------------- pictures


class View(NamedTuple):
    """A picture on the page: its bytes as a data URI, and how it is shown."""

    method: str
    data: str
    alt: str
    width: int  # pixels on the page
    height: int
    whole: bool  # whether the divider offers it


def _views(entry: DenoisedImage) -> str:
    """The pictures of one image as HTML."""
    height, width = (min(DETAIL_SIDE, side) for side in entry.noisy.shape[:2])
    factor = max(1, DETAIL_PAGE_SIDE // max(height, width))

    def detail(method: str, image: Image, top: int, left: int) -> View:
        data = _data_uri(shades(image[top : top + height, left : left + width]), "PNG")
        alt = f"{method}: {width} by {height} pixels of {entry.name}, {left} from left, {top} down"
        return View(method, data, alt, width * factor, height * factor, False)

    where = find_details(entry.denoised if entry.clean is None else entry.clean)
    return template("image_views.html.jinja", "narrows.denoising").render(
        name=entry.name,
        whole=[_whole(entry.name, method, image) for method, image in entry.images.items()],
        enlarged=max(entry.noisy.shape[:2]) < MIN_PICTURE_SIDE,
        details=[[detail(*item, *place) for item in entry.images.items()] for place in where],
        factor=factor,
    )


def _whole(name: str, method: str, image: Image) -> View:
    from PIL import Image as pillow

    picture = pillow.fromarray(shades(image))
    picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), pillow.Resampling.LANCZOS)
    factor = max(1, MIN_PICTURE_SIDE // max(picture.size))
    data = _data_uri(np.asarray(picture), "JPEG", quality=95, subsampling=0)
    alt = f"{method}: the whole of {name}"
    return View(method, data, alt, picture.width * factor, picture.height * factor, True)


def _data_uri(image: NDArray[np.uint8], kind: str, **options: int) -> str:
    from PIL import Image as pillow

    buffer = io.BytesIO()
    pillow.fromarray(image).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def shades(image: Image) -> NDArray[np.uint8]:
    """The image in 8 bits: its white becomes 255; values beyond black and white are clipped.

    >>> shades(np.array([[0.0, 0.5, 2.0]])), shades(np.array([[257, 65535]], np.uint16))
    (array([[  0, 128, 255]], dtype=uint8), array([[  1, 255]], dtype=uint8))
    """
    axes = "HW" if image.ndim == 2 else "HWC"
    bounds = (0.0, white_value(image))
    shown: NDArray[np.uint8] = pictures(image[None], axes=axes, bounds=bounds)[0]
    return shown


def find_details(image: Image) -> list[tuple[int, int]]:
    """Top and left of the squares with the greatest mean slope that do not overlap.

    >>> image = np.zeros((512, 512), np.uint8)
    >>> image[300:310:2, 300:310] = 255
    >>> find_details(image)[0]
    (192, 192)
    """
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    slope = np.zeros(grey.shape, np.float32)
    slope[1:] += np.abs(np.diff(grey, axis=0))
    slope[:, 1:] += np.abs(np.diff(grey, axis=1))
    height, width = (min(DETAIL_SIDE, side) for side in grey.shape)
    # squares begin on a grid, and at the end of each side
    last = [max(0, side - DETAIL_SIDE) for side in grey.shape]
    y, x = (np.unique([*range(0, end, DETAIL_GRID), end]) for end in last)
    # the sum over each square, from the sums over all rectangles that begin at the top left corner
    sums = np.pad(slope, ((1, 0), (1, 0))).cumsum(0, dtype=np.float64).cumsum(1)
    high, low = sums[y + height], sums[y]
    totals = high[:, x + width] - high[:, x] - low[:, x + width] + low[:, x]
    chosen: list[tuple[int, int]] = []
    while len(chosen) < N_DETAILS and np.isfinite(totals).any():
        row, column = np.unravel_index(int(totals.argmax()), totals.shape)
        top, left = int(y[row]), int(x[column])
        chosen.append((top, left))
        totals[np.ix_(np.abs(y - top) < height, np.abs(x - left) < width)] = -np.inf
    return chosen
