"""Figures of samples: images as pictures, table rows as bars and dots, signals as curves.

A *plotter* draws whatever a section shows of some samples: `ImagePlotter`, `TablePlotter` or
`SignalPlotter`; `choose_plotter` picks one. All have the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from narrows.report import figures
from narrows.report.figures import (
    Drawing,
    code_cells,
    full_axes,
    new_axes,
    new_figure,
    safe_text,
    split_axes,
)
from narrows.report.formatting import short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.base import Estimator

MAX_NAMED = 24  # columns of a table drawn next to their names
MAX_BARS = 16  # columns of a table drawn in each cell of a grid
RANKED_ROWS = 200  # rows by which the columns to draw are chosen
GAP = 0.05  # inches between two pictures
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

    def without_pca(self) -> Samples:
        """The same, to be drawn without PCA's reconstructions."""
        return replace(self, pca=None)


def choose_plotter(est: Estimator, X: NDArray[Any], names: list[str] | None) -> Plotter:
    """The plotter for the rows of a fitted model.

    ``X`` (n, ...) gives the range of values, ``names`` are those of a table's columns.
    """
    shape = tuple(est.input_shape_)
    some = X[:: max(1, len(X) // 2000)]
    some = some.reshape(len(some), *shape)
    axes = est.layout_.axes
    if axes is None:
        return _table_plotter(some.reshape(len(some), -1), names)
    if axes == "CL":
        return _signal_plotter(shape, some)
    low, high = est.info()["bounds"] or [[float(np.nanmin(some))], [float(np.nanmax(some))]]
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
    grid_note: ClassVar = ""
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

    def gallery(self, samples: Samples) -> Drawing:
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
        return self._sheet(strips, width=4.4, left=0.2 + 0.07 * max(map(len, named))).figure()

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """One row for each interpolation, the two originals at its ends, in one figure."""
        pixels = self.pixels(np.concatenate([starts[:, None], walks, ends[:, None]], axis=1))
        strips = [Strip("", figures.INK, cells) for cells in pixels]
        return [self._sheet(strips, width=8.8, left=0.0).figure()]

    def traversals(
        self, decoded: NDArray[Any], names: list[str], offsets: NDArray[np.float64]
    ) -> list[Drawing]:
        """One row for each number of the code, from low to high, in one drawing."""
        rows = zip(names, self.pixels(decoded), strict=True)
        strips = [Strip(name.replace(", ", "\n"), figures.INK, cells) for name, cells in rows]
        titles = [
            f"{offset:+.2g} sd".replace("-", "−") if offset else "start" for offset in offsets
        ]
        return [self._sheet(strips, width=8.8, left=1.0, titles=titles)]

    def _sheet(
        self, strips: list[Strip], width: float, left: float, titles: Sequence[str] = ()
    ) -> Drawing:
        """Rows of cells placed in inches, so that no picture is stretched."""
        columns = len(strips[0].cells)
        side = (width - left) / max(columns, 4) - GAP
        height = 0.22 if titles else 0.0
        height += sum(side * self._aspect * strip.height + GAP for strip in strips)
        size = left + (side + GAP) * columns, height
        draw = partial(self._draw_sheet, strips, titles, side, left, size)
        return Drawing(*size, draw, full=True)

    def _draw_sheet(
        self,
        strips: list[Strip],
        titles: Sequence[str],
        side: float,
        left: float,
        size: tuple[float, float],
        ax: Axes,
    ) -> None:
        """Pictures as wide as ``side``, right of ``left``, of a sheet of a size in inches."""
        height = size[1]
        y = top = height - 0.22 if titles else height
        for strip in strips:
            tall = side * self._aspect * strip.height
            y -= tall + GAP
            ax.text(left - 0.07, y + tall / 2, safe_text(strip.name), ha="right", va="center",
                    color=strip.color, fontsize=8.5)  # fmt: skip
            low, high = strip.limits
            for column, cell in enumerate(strip.cells):
                x = left + column * (side + GAP)
                box = (x, x + side, y, y + tall)
                ax.imshow(cell, cmap=strip.colormap, vmin=low, vmax=high, extent=box, aspect="auto")
                if strip.colormap != "gray":  # all but pictures get a thin frame
                    frame_x, frame_y = [x, x + side, x + side, x, x], [y, y, y + tall, y + tall, y]
                    ax.plot(frame_x, frame_y, color=figures.FAINT, lw=0.8)
        for column, title in enumerate(titles):
            x = left + column * (side + GAP) + side / 2
            ax.text(x, top + 0.05, safe_text(title, 16), ha="center", fontsize=7.5,
                    color=figures.MUTED)  # fmt: skip
        ax.set_axis_off()
        ax.set(xlim=(0, size[0]), ylim=(0, height), aspect="equal")

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


class Style(NamedTuple):
    """How one version of a sample is drawn: as a curve, or as dots next to the columns' names.

    Those drawn later are smaller, so that versions that coincide are all seen.
    """

    color: str
    width: float  # of the curve
    marker: str  # of the dots
    size: float
    alpha: float = 1.0  # of the curve
    filled: bool = True


STYLES = {  # in the order of drawing, the later ones on top
    "noisy": Style("#9aa4b1", 0.7, ".", 16),
    "original": Style(figures.INK, 3.2, "|", 90, alpha=0.3),
    "clean": Style(figures.INK, 3.2, "|", 90, alpha=0.3),
    "PCA": Style(figures.PCA, 1.9, "D", 26, filled=False),
    "restored": Style(figures.MODEL, 0.9, "o", 9),
    "denoised": Style(figures.MODEL, 0.9, "o", 9),
}


class OverlayPlotter:
    """Draws the versions of a sample over one another; a subclass says how one sample is drawn."""

    n_noisy: ClassVar = 2  # samples in each figure of denoising
    n_ranked: ClassVar = 3  # samples in each gallery
    wide_walks: ClassVar = False
    walk_room: ClassVar = 0.2  # inches by which an interpolation is higher than a sample

    @property
    def _height(self) -> float:
        """Inches of one sample."""
        raise NotImplementedError

    def _overlay(self, ax: Axes, versions: dict[str, NDArray[Any]], title: str = "") -> None:
        """The versions of one sample, in the order of ``STYLES``."""
        raise NotImplementedError

    def _draw_walk(self, ax: Axes, steps: list[Any], originals: list[Any]) -> None:
        """An interpolation: pairs of a row and its colour, for its steps and its two originals."""
        raise NotImplementedError

    def gallery(self, samples: Samples) -> Drawing:
        """Each sample with its reconstruction and PCA's over it, and its code below."""
        height = 0.55 + len(samples.original) * (self._height + 0.45)
        return Drawing(3.8, height, partial(self._draw_gallery, samples))

    def _draw_gallery(self, samples: Samples, ax: Axes) -> None:
        axes = split_axes(ax, [self._height, 0.16] * len(samples.original))
        drawn = {"original": samples.original, "restored": samples.restored}
        if samples.pca is not None:
            drawn["PCA"] = samples.pca
        for i, title in enumerate(samples.titles):
            self._overlay(axes[2 * i], {name: rows[i] for name, rows in drawn.items()}, title)
            self._draw_code(axes[2 * i + 1], samples.codes[i])
        self._legend(axes[0], above=1.9 if any(samples.titles) else 0.2)

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """The same samples under several names, drawn over one another."""
        n = len(next(iter(named.values())))
        figure = new_figure(4.4, 0.5 + n * (self._height + 0.25))
        axes = figure.subplots(n, 1, squeeze=False)[:, 0]
        for i, ax in enumerate(axes):
            self._overlay(ax, {name: rows[i] for name, rows in named.items()})
        self._legend(axes[0])
        return figure

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """Each interpolation in a figure of its own, from dark to light."""
        colors, drawn = self._way_colors(walks.shape[1]), []
        for walk, start, end in zip(walks, starts, ends, strict=True):
            figure, ax = new_axes(self._height + self.walk_room)
            originals = [(start, colors[0]), (end, colors[-1])]
            self._draw_walk(ax, list(zip(walk, colors, strict=True)), originals)
            drawn.append(figure)
        return drawn

    def traversals(
        self, decoded: NDArray[Any], names: list[str], offsets: NDArray[np.float64]
    ) -> list[Drawing]:
        """A drawing for each number of the code, from low (dark) to high (light)."""
        colors, height = self._way_colors(len(offsets)), self._height + 0.6

        def draw(way: NDArray[Any], name: str, ax: Axes) -> None:
            self._draw_walk(ax, list(zip(way, colors, strict=True)), [])
            figures.style_title(ax, name)

        ways = zip(decoded, names, strict=True)
        return [Drawing(4.4, height, partial(draw, way, name)) for way, name in ways]

    def _way_colors(self, steps: int) -> NDArray[np.float64]:
        """From dark to light."""
        import matplotlib

        return np.asarray(matplotlib.colormaps[figures.SEQUENTIAL](np.linspace(0, 0.92, steps)))

    def _draw_code(self, ax: Axes, code: NDArray[np.float64]) -> None:
        low, high = figures.CODE_RANGE
        ax.imshow(code_cells(code), cmap=figures.DIVERGING, vmin=low, vmax=high, aspect="auto")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(figures.FAINT)
        ax.set_ylabel("code", rotation=0, ha="right", va="center", color=figures.INK, fontsize=8.5,
                      labelpad=6)  # fmt: skip

    def _legend(self, ax: Axes, above: float = 0.2) -> None:
        """Over the axes, ``above`` them by so many lines, where a title stands between."""
        n = len(ax.get_legend_handles_labels()[1])
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=above, ncols=n,
                  frameon=False, fontsize=8, labelcolor=figures.INK, markerscale=0.9)  # fmt: skip


@dataclass(frozen=True)
class TablePlotter(OverlayPlotter):
    """Draws rows of a table: each column from its lowest to its highest value, in its own units."""

    shape: tuple[int, ...]  # (d,)
    low: NDArray[np.float64]  # (d,), where a column's drawing begins
    span: NDArray[np.float64]  # (d,), from there to its end
    names: list[str]
    ranked: NDArray[np.intp]  # the columns, those that vary most with the others first

    noun: ClassVar = "row"
    grid_size: ClassVar = 3
    max_side: ClassVar = 3  # of a square of new samples
    walk_note: ClassVar = (
        "each column from its value at the start (dark) to that at the end (light), with the two "
        "originals as upright strokes; beside it its first and last decoded value, in its units."
    )

    @property
    def note(self) -> str:
        """What the reader must know about the drawing."""
        return (
            "Each column is drawn from its lowest to its highest value in the data; beside it, in "
            f"its own units, the original and the restored value.{self._chosen(MAX_NAMED)}"
        )

    @property
    def grid_note(self) -> str:
        """What the reader must know about the cells of a grid."""
        return (
            "Each cell is a row: a bar for each column, from the column's lowest to its highest "
            f"value in the data, and the value in the column's own units.{self._chosen(MAX_BARS)}"
        )

    def _chosen(self, most: int) -> str:
        if self.shape[0] <= most:
            return ""
        return f" Of {self.shape[0]:,} columns those {most} are drawn that vary most with others."

    def _columns(self, most: int) -> NDArray[np.intp]:
        return np.sort(self.ranked[:most])

    @property
    def _height(self) -> float:
        return 0.12 * len(self._columns(MAX_NAMED)) + 0.6

    def places(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Rows (..., d) as fractions of the way from a column's lowest to its highest value.

        What lies outside is drawn a little outside.
        """
        return np.clip((np.asarray(rows, dtype=np.float64) - self.low) / self.span, -0.05, 1.05)

    def _overlay(self, ax: Axes, versions: dict[str, NDArray[Any]], title: str = "") -> None:
        shown = self._columns(MAX_NAMED)
        for name, style in STYLES.items():
            if name in versions:
                hollow = {"facecolors": "none", "edgecolors": style.color}
                color: dict[str, Any] = {"color": style.color} if style.filled else hollow
                ax.scatter(self.places(versions[name])[shown], np.arange(len(shown)), s=style.size,
                           marker=style.marker, label=name, linewidths=1.1, **color)  # fmt: skip
        ends = [versions[name][shown] for name in ("original", "restored") if name in versions]
        self._name_columns(ax, shown, ends, title)

    def _name_columns(
        self, ax: Axes, shown: NDArray[np.intp], ends: list[NDArray[Any]], title: str = ""
    ) -> None:
        """Columns from top to bottom, with their names, and two of their values on the right."""
        figures.style_axes(ax, title=title)
        ax.set_yticks(range(len(shown)), [safe_text(self.names[c], 22) for c in shown])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_xticks([0, 1], ["lowest", "highest"])
        ax.set_xlim(-0.08, 1.08)
        ax.grid(axis="y", color=figures.FAINT, lw=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        for y, pair in enumerate(zip(*ends, strict=True)):
            words = " → ".join(map(short_number, pair))
            ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), va="center", fontsize=7,
                    color=figures.INK)  # fmt: skip

    def _draw_walk(self, ax: Axes, steps: list[Any], originals: list[Any]) -> None:
        """Dots on the way of every column."""
        shown = self._columns(MAX_NAMED)
        y, walk = np.arange(len(shown)), [event[shown] for event, _ in steps]
        x = self.places([event for event, _ in steps])[:, shown]
        ax.hlines(y, x.min(0), x.max(0), color=figures.FAINT, lw=2, zorder=0)
        for place, (_, color) in zip(x, steps, strict=True):
            ax.scatter(place, y, s=20, color=color, linewidths=0)
        for original, color in originals:
            ax.scatter(self.places(original)[shown], y, s=70, marker="|", color=color)
        self._name_columns(ax, shown, [walk[0], walk[-1]])

    def mosaic(self, events: NDArray[Any], title: str, color: str, width: float = 4.4) -> Figure:
        """Rows (rows, columns, d) as cells of bars with their values, under a title."""
        shown = self._columns(MAX_BARS)
        lines, columns = events.shape[:2]
        tall = 0.125 * len(shown) + 0.1
        figure = new_figure(max(width, 4.4), 0.35 + lines * tall)
        figure.suptitle(safe_text(title, 60), color=color, fontsize=9.5, x=0.01, ha="left")
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for ax, event in zip(axes.flat, events.reshape(-1, events.shape[-1]), strict=True):
            values = event[shown]
            lengths = self.places(event)[shown].clip(min=0.0)
            ax.barh(np.arange(len(shown)), 1.0, 0.75, color=figures.FAINT, alpha=0.5)
            ax.barh(np.arange(len(shown)), lengths, 0.75, color=color, alpha=0.75)
            for y, value in enumerate(values):
                ax.text(1.06, y, short_number(value), va="center", fontsize=7.2, color=figures.INK)
            ax.set(xlim=(0, 1.75), ylim=(len(shown) - 0.5, -0.5), xticks=[])
            ax.set_yticks(range(len(shown)), [safe_text(self.names[c], 15) for c in shown])
            ax.tick_params(colors=figures.MUTED, labelsize=7.4, length=0)
            ax.spines[:].set_visible(False)
        return figure


@dataclass(frozen=True)
class SignalPlotter(OverlayPlotter):
    """Draws signals as curves: what brings their channels to one scale."""

    shape: tuple[int, ...]  # (C, L)
    center: NDArray[np.float64]  # subtracted before drawing; of the shape of a signal
    scale: NDArray[np.float64]  # divided by

    noun: ClassVar = "signal"
    grid_size: ClassVar = 6
    max_side: ClassVar = 5  # of a square of new samples
    walk_note: ClassVar = "from dark to light, the originals dotted."
    grid_note: ClassVar = ""
    _height: ClassVar = 1.25
    walk_room: ClassVar = 1.35

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
        """Whether there are several channels, drawn one above the other."""
        return self.shape[0] > 1

    def heights(self, events: ArrayLike) -> NDArray[np.float64]:
        """Signals (..., *shape) as curves (..., channels, length) on one scale."""
        scaled = (np.asarray(events, dtype=np.float64) - self.center) / self.scale
        return scaled[..., :MAX_CHANNELS, :]

    def _draw_walk(self, ax: Axes, steps: list[Any], originals: list[Any]) -> None:
        """Curves that change colour on their way; the originals dotted."""
        for event, color in steps:
            self._curves(ax, event, color=color, lw=1.2)
        for event, color in originals:
            self._curves(ax, event, color=color, lw=1.2, ls=":")
        self._style(ax)

    def _overlay(self, ax: Axes, versions: dict[str, NDArray[Any]], title: str = "") -> None:
        for name, style in STYLES.items():
            if name in versions:
                self._curves(ax, versions[name], color=style.color, lw=style.width,
                             alpha=style.alpha, label=name)  # fmt: skip
        self._style(ax, title)

    def _style(self, ax: Axes, title: str = "") -> None:
        """Ticks on the vertical axis only if channels were not moved apart."""
        figures.style_axes(ax, title=title)
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

    def mosaic(self, events: NDArray[Any], title: str, color: str, width: float = 4.4) -> Figure:
        """Signals (rows, columns, *shape) as small curves on one scale, under a title."""
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


def _table_plotter(X: NDArray[Any], names: list[str] | None) -> TablePlotter:
    """Range and order of a table's columns, from the rows ``X``."""
    table = np.ma.masked_invalid(np.asarray(X, dtype=np.float64))
    low = table.min(axis=0).filled(0.0)
    span = table.max(axis=0).filled(0.0) - low
    some = table[:: max(1, len(X) // RANKED_ROWS)]
    std = some.std(axis=0).filled(0.0)
    Z = ((some - some.mean(axis=0)) / np.where(std > 0, std, 1.0)).filled(0.0)
    shared = (Z * (Z @ Z.T @ Z)).sum(axis=0)  # the sum of its squared correlations with all
    ranked = np.argsort(-shared, kind="stable")
    names = names or [f"x{i}" for i in range(X.shape[1])]
    return TablePlotter((X.shape[1],), low, np.where(span > 0, span, 1.0), names, ranked)


def _signal_plotter(shape: tuple[int, ...], X: NDArray[Any]) -> SignalPlotter:
    """Bring a signal's channels to one scale, from the rows ``X``."""
    X = np.asarray(X, dtype=np.float64)
    center, scale = np.zeros(shape), np.ones(shape)
    if shape[0] > 1:
        center = np.broadcast_to(np.nanmean(X, axis=(0, 2))[:, None], shape)
        scale = np.broadcast_to(np.nanstd(X, axis=(0, 2))[:, None], shape)
    return SignalPlotter(shape, center, np.where(scale > 0, scale, 1.0))


Plotter = ImagePlotter | TablePlotter | SignalPlotter
