"""Figures of samples: images as pictures side by side, table rows and signals as curves or dots.

A *plotter* draws whatever a section shows of some samples: `ImagePlotter` for images, `LinePlotter`
for table rows and signals; `choose_plotter` picks one. Both have the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from narrows.report import figures
from narrows.report.figures import code_cells, full_axes, new_axes, new_figure, safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.base import Estimator

MAX_NAMED = 24  # tables of up to so many columns are drawn as dots next to the columns' names
MAX_CHANNELS = 4  # channels of a signal that are drawn
MAX_GRID_NUMBERS = 2**22  # numbers in all pictures of a decoded grid, to save memory


@dataclass(frozen=True, slots=True)
class Samples:
    """A few rows with all that a gallery draws of them; codes in standard deviations."""

    original: NDArray[Any]
    codes: NDArray[np.float64]
    restored: NDArray[Any]
    pca: NDArray[Any] | None
    titles: list[str]


def choose_plotter(est: Estimator, X: NDArray[Any], names: list[str] | None) -> Plotter:
    """Images are drawn as pictures, table rows and signals as lines.

    ``X`` (n, ...) gives the range of values, ``names`` are those of a table's columns.
    """
    shape = tuple(est.input_shape_)
    some = X[:: max(1, len(X) // 2000)]
    some = some.reshape(len(some), *shape)
    axes = est.layout_.axes
    if axes is None or axes == "CL":
        return _line_plotter(shape, some, names)
    low, high = est.info()["bounds"] or [[float(some.min())], [float(some.max())]]
    side = int(np.clip(np.sqrt(MAX_GRID_NUMBERS / math.prod(shape)), 4, 12))
    return ImagePlotter(shape, axes, min(low), max(high), grid_size=side)


# ------------------------------------------------------------------ images


class Strip(NamedTuple):
    """A row of cells (columns, H, W) or (columns, H, W, 3), and how their values are coloured."""

    name: str
    color: str  # of the name
    cells: NDArray[np.float64]
    colormap: str = "gray"
    limits: tuple[float, float] = (0.0, 1.0)
    height: float = 1.0  # as a multiple of a picture's


@dataclass(frozen=True)
class ImagePlotter:
    """Draws images: which axis holds the channels, and which values are black and white."""

    shape: tuple[int, ...]  # a row, folded to an image
    axes: str  # HW, CHW or HWC
    low: float
    high: float
    grid_size: int = 12

    noun: ClassVar = "image"
    n_ranked: ClassVar = 4  # samples in each gallery
    n_noisy: ClassVar = 5  # samples in each figure of denoising
    max_side: ClassVar = 6  # of a square of new samples
    walk_note: ClassVar = "the originals are at both ends."
    wide_walks: ClassVar = True

    @property
    def note(self) -> str:
        """What the reader must know about the drawing."""
        if self.n_channels in (1, 3):
            return ""
        return f"Drawn as the mean of {self.n_channels} channels."

    @property
    def n_channels(self) -> int:
        """How many channels an image has."""
        return {"HW": 1, "CHW": self.shape[0], "HWC": self.shape[-1]}[self.axes]

    @property
    def _aspect(self) -> float:
        """Height over width as drawn, limited to 1:4 and 4:1."""
        height, width = self.shape[-2:] if self.axes != "HWC" else self.shape[:2]
        return float(np.clip(height / width, 0.25, 4.0))

    def pixels(self, events: ArrayLike) -> NDArray[np.float64]:
        """Images (..., *shape) as grey (..., H, W) or colour (..., H, W, 3) in [0, 1]."""
        given = np.asarray(events, dtype=np.float64)
        images = given.reshape(*given.shape[: given.ndim - len(self.shape)], *self.shape)
        if self.axes != "HW":
            images = np.moveaxis(images, -3, -1) if self.axes == "CHW" else images
            images = images if self.n_channels == 3 else images.mean(axis=-1)
        return np.clip((images - self.low) / ((self.high - self.low) or 1.0), 0.0, 1.0)

    def difference(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
        """The absolute difference (..., H, W), averaged over channels, as a share of the range."""
        difference = np.abs(self.pixels(a) - self.pixels(b))
        return difference if self.n_channels != 3 else difference.mean(axis=-1)

    def gallery(self, samples: Samples) -> Figure:
        """Original, code, reconstruction and error, PCA's below, one column for each sample."""
        original, restored = samples.original, {"restored": (samples.restored, figures.MODEL)}
        if samples.pca is not None:
            restored["PCA"] = (samples.pca, figures.PCA)
        errors = {name: self.difference(x, original) for name, (x, _) in restored.items()}
        # both methods' errors in the same colours, with at least 2 % of the range as the darkest
        limits = (0.0, max(0.02, *(float(error.max()) for error in errors.values())))
        codes = np.stack([code_cells(code) for code in samples.codes])
        name, low_high, tall = f"code\n{samples.codes.shape[1]}", figures.CODE_RANGE, 0.32
        strips = [
            Strip("original", figures.INK, self.pixels(original)),
            Strip(name, figures.INK, codes, figures.DIVERGING, low_high, tall / self._aspect),
        ]
        for name, (x, color) in restored.items():
            strips.append(Strip(name, color, self.pixels(x)))
            strips.append(Strip("error", color, errors[name], "Reds", limits))
        return self._sheet(strips, width=3.4, left=0.66, titles=samples.titles)

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """Rows of pictures, each with its name on the left."""
        colors = {"denoised": figures.MODEL, "PCA": figures.PCA}
        strips = [
            Strip(name, colors.get(name, figures.INK), self.pixels(events))
            for name, events in named.items()
        ]
        return self._sheet(strips, width=4.4, left=0.2 + 0.07 * max(map(len, named)))

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """One row for each interpolation, the two originals at its ends, in one figure."""
        pixels = self.pixels(np.concatenate([starts[:, None], walks, ends[:, None]], axis=1))
        return [
            self._sheet([Strip("", figures.INK, cells) for cells in pixels], width=8.8, left=0.0)
        ]

    def _sheet(
        self, strips: list[Strip], width: float, left: float, titles: Sequence[str] = ()
    ) -> Figure:
        """Rows of cells placed in inches, so that no picture is stretched."""
        gap, columns, top = 0.05, len(strips[0].cells), 0.22 if titles else 0.0
        side = (width - left) / max(columns, 4) - gap
        height = top + sum(side * self._aspect * strip.height + gap for strip in strips)
        figure = new_figure(left + (side + gap) * columns, height)
        ax = full_axes(figure)
        y = height - top
        for strip in strips:
            tall = side * self._aspect * strip.height
            y -= tall + gap
            ax.text(left - 0.07, y + tall / 2, safe_text(strip.name), ha="right", va="center",
                    color=strip.color, fontsize=8.5)  # fmt: skip
            low, high = strip.limits
            for column, cell in enumerate(strip.cells):
                x = left + column * (side + gap)
                box = (x, x + side, y, y + tall)
                ax.imshow(cell, cmap=strip.colormap, vmin=low, vmax=high, extent=box, aspect="auto")
                if strip.colormap != "gray":  # all but pictures get a thin frame
                    frame_x, frame_y = [x, x + side, x + side, x, x], [y, y, y + tall, y + tall, y]
                    ax.plot(frame_x, frame_y, color=figures.FAINT, lw=0.8)
        for column, title in enumerate(titles):
            x = left + column * (side + gap) + side / 2
            ax.text(x, height - top + 0.05, safe_text(title, 16), ha="center", fontsize=7.5,
                    color=figures.MUTED)  # fmt: skip
        ax.set(xlim=(0, figure.get_figwidth()), ylim=(0, height))
        return figure

    def mosaic(self, events: NDArray[Any], title: str, color: str, width: float = 4.4) -> Figure:
        """Images (rows, columns, *shape) as one picture with thin gaps, under a title."""
        cells = self.pixels(events)
        rows, columns, height, length = cells.shape[:4]
        gap = max(1, round(0.04 * max(height, length)))
        cells = cells if cells.ndim == 5 else np.repeat(cells[..., None], 3, axis=-1)
        padded = np.ones((rows, columns, height + gap, length + gap, 3))
        padded[:, :, :height, :length] = cells
        shape = (rows * (height + gap), columns * (length + gap), 3)
        picture = padded.transpose(0, 2, 1, 3, 4).reshape(shape)[:-gap, :-gap]
        figure = new_figure(width, 0.3 + width * rows * self._aspect / columns)
        full_axes(figure, title, color).imshow(picture, aspect="auto")
        return figure


# ------------------------------------------------------------------ table rows and signals


class LineStyle(NamedTuple):
    """How one version of a sample is drawn: as a curve, or as dots next to the columns' names."""

    color: str
    width: float  # of the curve
    marker: str  # of the dots
    size: float
    alpha: float = 1.0  # of the curve


STYLES = {  # in the order of drawing, the later ones on top
    "noisy": LineStyle("#9aa4b1", 0.7, ".", 16),
    "original": LineStyle(figures.INK, 2.2, "|", 90, alpha=0.35),
    "clean": LineStyle(figures.INK, 2.2, "|", 90, alpha=0.35),
    "PCA": LineStyle(figures.PCA, 1.0, "x", 16),
    "restored": LineStyle(figures.MODEL, 1.2, "o", 14),
    "denoised": LineStyle(figures.MODEL, 1.2, "o", 14),
}


@dataclass(frozen=True)
class LinePlotter:
    """Draws table rows and signals: what brings their columns to one scale, and their names."""

    shape: tuple[int, ...]  # (d,) or (C, L)
    center: NDArray[np.float64]  # subtracted before drawing; of the shape of a row
    scale: NDArray[np.float64]  # divided by
    names: list[str]
    unit: str

    grid_size: ClassVar = 6
    n_ranked: ClassVar = 3  # samples in each gallery
    n_noisy: ClassVar = 2  # samples in each figure of denoising
    max_side: ClassVar = 5  # of a square of new samples
    walk_note: ClassVar = "from dark to light, the originals dotted."
    wide_walks: ClassVar = False

    @property
    def noun(self) -> str:
        """What a sample is called."""
        return "row" if len(self.shape) == 1 else "signal"

    @property
    def note(self) -> str:
        """What the reader must know about the drawing."""
        if not self._channels:
            return ""
        c = self.shape[0]
        shown = f"The first {MAX_CHANNELS} of {c} channels" if c > MAX_CHANNELS else "Channels"
        return f"{shown} are drawn one above the other, each in its own standard deviations."

    @property
    def _channels(self) -> bool:
        """Whether a sample is a signal of several channels, drawn one above the other."""
        return len(self.shape) == 2 and self.shape[0] > 1

    @property
    def _dots(self) -> bool:
        """Whether a sample is a table row so narrow that every column is named."""
        return len(self.shape) == 1 and self.shape[0] <= MAX_NAMED

    @property
    def _height(self) -> float:
        """Inches of one sample."""
        return 0.12 * self.shape[0] + 0.6 if self._dots else 1.25

    def heights(self, events: ArrayLike) -> NDArray[np.float64]:
        """Samples (..., *shape) as curves (..., channels, length) on one scale."""
        scaled = (np.asarray(events, dtype=np.float64) - self.center) / self.scale
        if len(self.shape) == 1:
            return scaled[..., None, :]
        return scaled[..., :MAX_CHANNELS, :]

    def gallery(self, samples: Samples) -> Figure:
        """Each sample with its reconstruction and PCA's over it, and its code below."""
        n = len(samples.original)
        figure = new_figure(3.8, 0.55 + n * (self._height + 0.45))
        ratios = [self._height, 0.16] * n
        axes = figure.subplots(2 * n, 1, gridspec_kw={"height_ratios": ratios})
        drawn = {"original": samples.original, "restored": samples.restored}
        if samples.pca is not None:
            drawn["PCA"] = samples.pca
        for i, title in enumerate(samples.titles):
            self._overlay(axes[2 * i], {name: rows[i] for name, rows in drawn.items()}, title)
            self._draw_code(axes[2 * i + 1], samples.codes[i])
        self._legend(figure, axes[0])
        return figure

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """The same samples under several names, drawn over one another."""
        n = len(next(iter(named.values())))
        figure = new_figure(4.4, 0.5 + n * (self._height + 0.25))
        axes = figure.subplots(n, 1, squeeze=False)[:, 0]
        for i, ax in enumerate(axes):
            self._overlay(ax, {name: rows[i] for name, rows in named.items()})
        self._legend(figure, axes[0])
        return figure

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """Each interpolation as curves that change colour on their way; the originals dotted."""
        import matplotlib

        drawn = []
        colors = matplotlib.colormaps[figures.SEQUENTIAL](np.linspace(0, 0.92, walks.shape[1]))
        for walk, start, end in zip(walks, starts, ends, strict=True):
            figure, ax = new_axes(2.6)
            for event, color in zip(walk, colors, strict=True):
                self._curves(ax, event, color=color, lw=1.2)
            for event, color in ((start, colors[0]), (end, colors[-1])):
                self._curves(ax, event, color=color, lw=1.2, ls=":")
            self._style(ax)
            if self._dots:
                ticks = [safe_text(name, 14) for name in self.names]
                ax.set_xticks(range(self.shape[0]), ticks, rotation=50, ha="right", fontsize=7)
                ax.set_ylabel(self.unit, color=figures.MUTED, fontsize=8.5)
            drawn.append(figure)
        return drawn

    def _overlay(self, ax: Axes, versions: dict[str, NDArray[Any]], title: str = "") -> None:
        """The versions of one sample over one another, in the order of ``STYLES``."""
        for name, style in STYLES.items():
            if name not in versions:
                continue
            if self._dots:
                ax.scatter(self.heights(versions[name])[0], np.arange(self.shape[0]), s=style.size,
                           marker=style.marker, color=style.color, label=name,
                           linewidths=1.1)  # fmt: skip
            else:
                self._curves(ax, versions[name], color=style.color, lw=style.width,
                             alpha=style.alpha, label=name)  # fmt: skip
        self._style(ax, title)
        if self._dots:
            ax.set_xlabel(self.unit, color=figures.MUTED, fontsize=8.5)
            ax.set_yticks(range(self.shape[0]), [safe_text(name, 22) for name in self.names])
            ax.set_ylim(self.shape[0] - 0.5, -0.5)
            ax.grid(axis="y", color=figures.FAINT, lw=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)

    def _style(self, ax: Axes, title: str = "") -> None:
        """Ticks on the vertical axis only if channels were not moved apart."""
        figures.style_axes(ax, title=title, y="" if self._dots else self.unit)
        if self._channels:
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)

    def _curves(self, ax: Axes, event: NDArray[Any], label: str = "", **style: Any) -> None:
        """One line for each channel, each below the one before."""
        curves = self.heights(event)
        shift = 4.0 if len(curves) > 1 else 0.0  # standard deviations between two channels
        for channel, curve in enumerate(curves):
            name = label if channel == 0 and label else "_hidden"  # matplotlib leaves out "_..."
            marker = "." if len(curve) == 1 else None
            ax.plot(curve - shift * channel, label=name, marker=marker, **style)

    def _draw_code(self, ax: Axes, code: NDArray[np.float64]) -> None:
        low, high = figures.CODE_RANGE
        ax.imshow(code_cells(code), cmap=figures.DIVERGING, vmin=low, vmax=high, aspect="auto")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(figures.FAINT)
        ax.set_ylabel("code", rotation=0, ha="right", va="center", color=figures.INK, fontsize=8.5,
                      labelpad=6)  # fmt: skip

    def _legend(self, figure: Figure, ax: Axes) -> None:
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names), frameon=False,
                      fontsize=8, labelcolor=figures.INK, markerscale=0.9)  # fmt: skip

    def mosaic(self, events: NDArray[Any], title: str, color: str, width: float = 4.4) -> Figure:
        """Samples (rows, columns, *shape) as small curves on one scale, under a title."""
        from matplotlib.collections import LineCollection

        rows, columns = events.shape[:2]
        curves = self.heights(events.reshape(-1, *self.shape))
        curves = np.repeat(curves, 2, axis=-1) if curves.shape[-1] == 1 else curves
        low, span = curves.min(), float(np.ptp(curves)) or 1.0
        x = np.linspace(0.06, 0.94, curves.shape[-1])
        frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float64)
        corners = [
            1.08 * np.array([i % columns, rows - 1 - i // columns]) for i in range(len(curves))
        ]
        figure = new_figure(width, 0.3 + width * 0.8 * rows / columns)
        ax = full_axes(figure, title, color)
        ax.add_collection(LineCollection([frame + c for c in corners], color=figures.FAINT, lw=0.8))
        for channel in reversed(range(curves.shape[1])):
            heights = 0.06 + 0.88 * (curves[:, channel] - low) / span
            lines = [np.c_[x, y] + corner for y, corner in zip(heights, corners, strict=True)]
            shade = color if channel == 0 else figures.CLASSES[channel]
            ax.add_collection(LineCollection(lines, color=shade, lw=0.9))
        ax.set(xlim=(-0.02, 1.08 * columns - 0.06), ylim=(-0.02, 1.08 * rows - 0.06))
        return figure


def _line_plotter(shape: tuple[int, ...], X: NDArray[Any], names: list[str] | None) -> LinePlotter:
    """Bring a table's columns, or a signal's channels, to one scale, from the rows ``X``."""
    X = np.asarray(X, dtype=np.float64)
    center, scale, unit = np.zeros(shape), np.ones(shape), ""
    if len(shape) == 1:
        center, scale, unit = X.mean(axis=0), X.std(axis=0), "s.d. from the mean"
    elif shape[0] > 1:
        center = np.broadcast_to(X.mean(axis=(0, 2))[:, None], shape)
        scale = np.broadcast_to(X.std(axis=(0, 2))[:, None], shape)
    scale = np.where(scale > 0, scale, 1.0)
    names = names or [f"x{i}" for i in range(math.prod(shape))]
    return LinePlotter(shape, center, scale, names, unit)


Plotter = ImagePlotter | LinePlotter
