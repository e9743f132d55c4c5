"""Samples that are table rows or signals: shown as curves or named dots, laid over one another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from narrows.report.content import Samples
    from narrows.report.manifold import DecodedGrid

NAMED = 24  # up to so many features are drawn as dots beside their names
CHANNELS = 4  # so many channels of a signal are drawn


@dataclass(frozen=True, slots=True)
class LineLook:
    """How to draw rows and signals: what puts their columns on one scale, and their names."""

    shape: tuple[int, ...]  # (d,) or (C, L)
    center: NDArray[np.float64]  # subtracted before drawing, the event's shape
    scale: NDArray[np.float64]  # divided by
    names: list[str]
    unit: str
    grid_size: int = 6
    n_noisy: int = 2
    walk_note: str = "from dark to light, the originals dotted."

    @property
    def noun(self) -> str:
        """What an event is called."""
        return "row" if len(self.shape) == 1 else "signal"

    @property
    def note(self) -> str:
        """What the reader must know about the drawing."""
        if len(self.shape) == 1 or self.shape[0] == 1:
            return ""
        shown = f"The first {CHANNELS} of {self.shape[0]} c" if self.shape[0] > CHANNELS else "C"
        return f"{shown}hannels stand one above the other, each in its own standard deviations."

    def heights(self, events: ArrayLike) -> NDArray[np.float64]:
        """Events (..., *shape) as curves (..., channels, length) on one scale."""
        scaled = (np.asarray(events, dtype=np.float64) - self.center) / self.scale
        if len(self.shape) == 1:
            return scaled[..., None, :]
        return scaled[..., :CHANNELS, :]

    def gallery(self, samples: Samples) -> Figure:
        """Each sample with its reconstruction and PCA's over it, and its code below."""
        n = len(samples.original)
        tall = 0.12 * self.shape[0] + 0.6 if self._dots else 1.25
        figure = canvas.new_figure(3.8, 0.55 + n * (tall + 0.45))
        axes = figure.subplots(2 * n, 1, gridspec_kw={"height_ratios": [tall, 0.16] * n})
        for i, title in enumerate(samples.titles):
            ax, strip = axes[2 * i], axes[2 * i + 1]
            self._draw(ax, samples.original[i], canvas.INK, "original", style="first")
            if samples.pca is not None:
                self._draw(ax, samples.pca[i], canvas.PCA, "PCA", style="second")
            self._draw(ax, samples.restored[i], canvas.MODEL, "restored", style="third")
            self._tidy(ax, title)
            self._name_features(ax)
            canvas.draw_code(strip, samples.codes[i])
            canvas.row_name(strip, "code")
        self._legend(figure, axes[0])
        return figure

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """The same samples under several names, laid over one another."""
        n = len(next(iter(named.values())))
        tall = 0.12 * self.shape[0] + 0.6 if self._dots else 1.25
        figure = canvas.new_figure(4.4, 0.5 + n * (tall + 0.25))
        axes = figure.subplots(n, 1, squeeze=False)[:, 0]
        looks = {
            "noisy": ("#9aa4b1", "faint"),
            "clean": (canvas.INK, "first"),
            "PCA": (canvas.PCA, "second"),
            "denoised": (canvas.MODEL, "third"),
        }
        for i, ax in enumerate(axes):
            for name, (color, style) in looks.items():
                if name in named:
                    self._draw(ax, named[name][i], color, name, style)
            self._tidy(ax)
            self._name_features(ax)
        self._legend(figure, axes[0])
        return figure

    def grid(self, grid: DecodedGrid, name: str, color: str) -> Figure:
        """The decoded points, each as a small curve."""
        rows, columns = grid.decoded.shape[:2]
        curves = self.heights(grid.decoded.reshape(-1, *self.shape))
        return self._cells(curves, rows, columns, name, color)

    def batch(self, events: NDArray[Any], name: str, color: str) -> Figure:
        """Some events as small curves under a title."""
        side = max(1, min(5, int(np.sqrt(len(events)))))
        return self._cells(self.heights(events[: side * side]), side, side, name, color, 3.4)

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """Each walk as curves that change colour on their way; the originals dotted."""
        import matplotlib

        figures = []
        colors = matplotlib.colormaps[canvas.SEQUENTIAL](np.linspace(0, 0.92, walks.shape[1]))
        for walk, start, end in zip(walks, starts, ends, strict=True):
            figure = canvas.new_figure(4.4, 2.6)
            ax = figure.subplots()
            for event, color in zip(walk, colors, strict=True):
                self._curves(ax, event, color=color, lw=1.2)
            for event, color in ((start, colors[0]), (end, colors[-1])):
                self._curves(ax, event, color=color, lw=1.2, ls=":")
            self._tidy(ax)
            if self._dots:
                words = [canvas.safe(name, 14) for name in self.names]
                ax.set_xticks(range(self.shape[0]), words, rotation=50, ha="right", fontsize=7)
                ax.set_ylabel(self.unit, color=canvas.MUTED, fontsize=8.5)
            figures.append(figure)
        return figures

    @property
    def _dots(self) -> bool:
        return len(self.shape) == 1 and self.shape[0] <= NAMED

    def _tidy(self, ax: Axes, title: str = "") -> None:
        """Numbers where they mean something: not beside channels that were moved apart."""
        canvas.tidy(ax, title=title, y="" if self._dots else self.unit)
        if len(self.shape) == 2 and self.shape[0] > 1:
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)

    def _draw(self, ax: Axes, event: NDArray[Any], color: str, label: str, style: str) -> None:
        if not self._dots:
            width = {"faint": 0.7, "first": 2.2, "second": 1.0, "third": 1.2}[style]
            alpha = 0.35 if style == "first" else 1.0
            self._curves(ax, event, color=color, lw=width, alpha=alpha, label=label)
            return
        marker = {"faint": ".", "first": "|", "second": "x", "third": "o"}[style]
        size = {"faint": 16, "first": 90, "second": 16, "third": 14}[style]
        at = np.arange(self.shape[0])
        ax.scatter(self.heights(event)[0], at, s=size, marker=marker, color=color, label=label,
                   linewidths=1.1)  # fmt: skip

    def _curves(self, ax: Axes, event: NDArray[Any], label: str = "", **how: Any) -> None:
        """One line for each channel, each above the next."""
        curves = self.heights(event)
        lift = 4.0 if len(curves) > 1 else 0.0
        for channel, curve in enumerate(curves):
            name = label if channel == 0 and label else "_hidden"
            mark = "." if len(curve) == 1 else None
            ax.plot(curve - lift * channel, label=name, marker=mark, **how)

    def _name_features(self, ax: Axes) -> None:
        if not self._dots:
            return
        ax.set_xlabel(self.unit, color=canvas.MUTED, fontsize=8.5)
        ax.set_yticks(range(self.shape[0]), [canvas.safe(name, 22) for name in self.names])
        ax.set_ylim(self.shape[0] - 0.5, -0.5)
        ax.grid(axis="y", color=canvas.FAINT, lw=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)

    def _legend(self, figure: Figure, ax: Axes) -> None:
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=len(names), frameon=False,
                      fontsize=8, labelcolor=canvas.INK, markerscale=0.9)  # fmt: skip

    def _cells(
        self,
        curves: NDArray[np.float64],
        rows: int,
        columns: int,
        name: str,
        color: str,
        width: float = 4.4,
    ) -> Figure:
        """Small curves (n, channels, length) side by side, all on one scale."""
        from matplotlib.collections import LineCollection

        curves = np.repeat(curves, 2, axis=-1) if curves.shape[-1] == 1 else curves
        low, span = curves.min(), float(np.ptp(curves)) or 1.0
        x = np.linspace(0.06, 0.94, curves.shape[-1])
        frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float64)
        corners = [
            1.08 * np.array([i % columns, rows - 1 - i // columns]) for i in range(len(curves))
        ]
        figure = canvas.new_figure(width, 0.3 + width * 0.8 * rows / columns)
        ax = canvas.whole(figure, name, color)
        ax.add_collection(LineCollection([frame + c for c in corners], color=canvas.FAINT, lw=0.8))
        for channel in reversed(range(curves.shape[1])):
            heights = 0.06 + 0.88 * (curves[:, channel] - low) / span
            drawn = [np.c_[x, y] + corner for y, corner in zip(heights, corners, strict=True)]
            shade = color if channel == 0 else canvas.CLASSES[channel]
            ax.add_collection(LineCollection(drawn, color=shade, lw=0.9))
        ax.set(xlim=(-0.02, 1.08 * columns - 0.06), ylim=(-0.02, 1.08 * rows - 0.06))
        return figure


def line_look(shape: tuple[int, ...], X: NDArray[Any], names: list[str] | None) -> LineLook:
    """Put a table's columns, or a signal's channels, on one scale, from the rows ``X`` given."""
    X = np.asarray(X, dtype=np.float64)
    d = math.prod(shape)
    if len(shape) == 1:
        center, scale, unit = X.mean(axis=0), X.std(axis=0), "s.d. from the mean"
    elif shape[0] == 1:
        center, scale, unit = np.zeros(shape), np.ones(shape), ""
    else:
        center = np.broadcast_to(X.mean(axis=(0, 2))[:, None], shape)
        scale = np.broadcast_to(X.std(axis=(0, 2))[:, None], shape)
        unit = ""
    scale = np.where(scale > 0, scale, 1.0)
    return LineLook(shape, center, scale, names or [f"x{i}" for i in range(d)], unit)
