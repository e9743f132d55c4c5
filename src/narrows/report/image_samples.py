"""Samples that are images: shown as pictures, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from narrows.report.content import Samples
    from narrows.report.manifold import DecodedGrid


Box = tuple[float, float, float, float]  # left, right, bottom, top
COLORS = {"denoised": canvas.MODEL, "PCA": canvas.PCA}


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of cells (columns, H, W) or (columns, H, W, 3), and how their values are coloured."""

    name: str
    color: str  # of the name
    cells: NDArray[np.float64]
    map: str = "gray"
    limits: tuple[float, float] = (0.0, 1.0)
    tall: float = 1.0  # height, in pictures'

    def draw(self, ax: Axes, cell: NDArray[np.float64], box: Box) -> None:
        """One cell in ``box``; all but pictures get a faint frame."""
        low, high = self.limits
        ax.imshow(cell, cmap=self.map, vmin=low, vmax=high, extent=box, aspect="auto")
        if self.map != "gray":
            left, right, bottom, top = box
            x, y = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
            ax.plot(x, y, color=canvas.FAINT, lw=0.8)


@dataclass(frozen=True, slots=True)
class ImageLook:
    """How to draw images: where their channels stand, and which values are black and white."""

    shape: tuple[int, ...]  # the event folded to an image
    axes: str  # HW, CHW or HWC
    low: float
    high: float
    grid_size: int = 12
    n_noisy: int = 5
    walk_note: str = "the originals stand at both ends."

    @property
    def noun(self) -> str:
        """What an event is called."""
        return "image"

    @property
    def note(self) -> str:
        """What the reader must know about the drawing."""
        if self.axes == "HW" or self.channels in (1, 3):
            return ""
        return f"Drawn as the mean of {self.channels} channels."

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return {"HW": 1, "CHW": self.shape[0], "HWC": self.shape[-1]}[self.axes]

    def pixels(self, events: ArrayLike) -> NDArray[np.float64]:
        """Events (..., *shape) as grey (..., H, W) or colour (..., H, W, 3) in [0, 1]."""
        flat = np.asarray(events, dtype=np.float64)
        lead = flat.shape[: flat.ndim - len(self.shape)]
        return np.clip((self._grey_or_colour(flat.reshape(*lead, *self.shape)) - self.low)
                       / ((self.high - self.low) or 1.0), 0.0, 1.0)  # fmt: skip

    def difference(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
        """The absolute difference (..., H, W), averaged over channels, as a share of the range."""
        apart = np.abs(self.pixels(a) - self.pixels(b))
        return apart if self.channels != 3 else apart.mean(axis=-1)

    def gallery(self, samples: Samples) -> Figure:
        """Original, code, reconstruction and error, PCA's below, one column for each sample."""
        original = samples.original
        apart = [self.difference(samples.restored, original)]
        codes = np.stack([canvas.code_cells(code) for code in samples.codes])
        strips = [
            Strip("original", canvas.INK, self.pixels(original)),
            Strip(f"code\n{samples.codes.shape[1]}", canvas.INK, codes, canvas.DIVERGING,
                  canvas.CODE_RANGE, 0.32 / self._tall),
            Strip("restored", canvas.MODEL, self.pixels(samples.restored)),
        ]  # fmt: skip
        if samples.pca is not None:
            apart.append(self.difference(samples.pca, original))
        limits = (0.0, max(0.02, *(float(block.max()) for block in apart)))
        strips.append(Strip("error", canvas.MODEL, apart[0], "Reds", limits))
        if samples.pca is not None:
            strips.append(Strip("PCA", canvas.PCA, self.pixels(samples.pca)))
            strips.append(Strip("error", canvas.PCA, apart[1], "Reds", limits))
        return self._sheet(strips, width=3.4, left=0.66, titles=samples.titles)

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """Rows of pictures, each with its name on the left."""
        strips = [
            Strip(name, COLORS.get(name, canvas.INK), self.pixels(events))
            for name, events in named.items()
        ]
        return self._sheet(strips, width=4.4, left=0.2 + 0.07 * max(map(len, named)))

    def grid(self, grid: DecodedGrid, name: str, color: str) -> Figure:
        """The decoded points as one mosaic."""
        decoded = grid.decoded.reshape(*grid.decoded.shape[:2], *self.shape)
        return self._mosaic(self.pixels(decoded), name, color)

    def batch(self, events: NDArray[Any], name: str, color: str) -> Figure:
        """A square of events under a title."""
        side = max(1, int(np.sqrt(len(events))))
        cells = self.pixels(events[: side * side])
        return self._mosaic(cells.reshape(side, side, *cells.shape[1:]), name, color, 3.4)

    def walks(self, walks: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> list[Figure]:
        """One row for each walk, the two originals at its ends, in one figure."""
        pixels = self.pixels(np.concatenate([starts[:, None], walks, ends[:, None]], axis=1))
        strips = [Strip("", canvas.INK, cells) for cells in pixels]
        return [self._sheet(strips, width=8.8, left=0.0)]

    def _grey_or_colour(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.axes == "HW":
            return images
        last = np.moveaxis(images, -3, -1) if self.axes == "CHW" else images
        return last if last.shape[-1] == 3 else last.mean(axis=-1)

    @property
    def _tall(self) -> float:
        """Height over width as drawn; very long images are squeezed."""
        height, width = self.shape[-2:] if self.axes != "HWC" else self.shape[:2]
        return float(np.clip(height / width, 0.25, 4.0))

    def _sheet(
        self, strips: list[Strip], width: float, left: float, titles: Sequence[str] = ()
    ) -> Figure:
        """Rows of cells placed to the point, in inches, so that no picture is stretched."""
        gap, columns, top = 0.05, len(strips[0].cells), 0.22 if titles else 0.0
        side = (width - left) / max(columns, 4) - gap
        height = top + sum(side * self._tall * strip.tall + gap for strip in strips)
        figure = canvas.new_figure(left + (side + gap) * columns, height)
        ax = canvas.whole(figure)
        y = height - top
        for strip in strips:
            tall = side * self._tall * strip.tall
            y -= tall + gap
            ax.text(left - 0.07, y + tall / 2, canvas.safe(strip.name), ha="right", va="center",
                    color=strip.color, fontsize=8.5)  # fmt: skip
            for column, cell in enumerate(strip.cells):
                x = left + column * (side + gap)
                strip.draw(ax, cell, (x, x + side, y, y + tall))
        for column, title in enumerate(titles):
            x = left + column * (side + gap) + side / 2
            ax.text(x, height - top + 0.05, canvas.safe(title, 16), ha="center", fontsize=7.5,
                    color=canvas.MUTED)  # fmt: skip
        ax.set(xlim=(0, figure.get_figwidth()), ylim=(0, height))
        return figure

    def _mosaic(
        self, cells: NDArray[np.float64], name: str, color: str, side: float = 4.4
    ) -> Figure:
        """Cells (rows, columns, H, W, ...) as one picture with thin gaps."""
        rows, columns, height, width = cells.shape[:4]
        gap = max(1, round(0.04 * max(height, width)))
        cells = cells if cells.ndim == 5 else np.repeat(cells[..., None], 3, axis=-1)
        padded = np.ones((rows, columns, height + gap, width + gap, 3))
        padded[:, :, :height, :width] = cells
        picture = padded.transpose(0, 2, 1, 3, 4).reshape(
            rows * (height + gap), columns * (width + gap), 3
        )[:-gap, :-gap]
        figure = canvas.new_figure(side, 0.3 + side * rows * self._tall / columns)
        ax = canvas.whole(figure, name, color)
        ax.imshow(picture, aspect="auto")
        return figure
