"""Samples that are images: shown as pictures, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from narrows.report.content import Samples
    from narrows.tasks import DecodedGrid


COLORS = {"denoised": canvas.MODEL, "PCA": canvas.PCA}


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
        rows: list[tuple[str, str, NDArray[Any]]] = [
            ("original", canvas.INK, self.pixels(samples.original)),
            (f"code\n{samples.codes.shape[1]}", canvas.INK, samples.codes),
            ("restored", canvas.MODEL, self.pixels(samples.restored)),
            ("error", canvas.MODEL, self.difference(samples.restored, samples.original)),
        ]
        if samples.pca is not None:
            rows += [
                ("PCA", canvas.PCA, self.pixels(samples.pca)),
                ("error", canvas.PCA, self.difference(samples.pca, samples.original)),
            ]
        top = max(0.02, *(float(block.max()) for name, _, block in rows if name == "error"))
        heights = [0.32 if name.startswith("code") else 1.0 for name, _, _ in rows]
        figure, axes = self._frame(len(samples.original), heights)
        for line, (name, color, block) in zip(axes, rows, strict=True):
            canvas.row_name(line[0], name, color)
            for ax, cell in zip(line, block, strict=True):
                if name.startswith("code"):
                    canvas.draw_code(ax, cell)
                else:
                    self._show(ax, cell, 1.0 if name != "error" else top, name == "error")
        for ax, title in zip(axes[0], samples.titles, strict=True):
            ax.set_title(canvas.safe(title, 16), fontsize=7.5, color=canvas.MUTED)
        return figure

    def rows(self, named: dict[str, NDArray[Any]]) -> Figure:
        """Rows of pictures, each with its name on the left."""
        columns = len(next(iter(named.values())))
        figure, axes = self._frame(columns, [1.0] * len(named), width=4.4, top=0.05)
        for line, (name, events) in zip(axes, named.items(), strict=True):
            canvas.row_name(line[0], name, COLORS.get(name, canvas.INK))
            for ax, cell in zip(line, self.pixels(events), strict=True):
                self._show(ax, cell)
        return figure

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
        cells = np.concatenate([starts[:, None], walks, ends[:, None]], axis=1)
        pixels = self.pixels(cells)
        figure, axes = self._frame(
            pixels.shape[1], [1.0] * len(pixels), width=8.8, left=0.0, top=0.0
        )
        for line, row in zip(axes, pixels, strict=True):
            for ax, cell in zip(line, row, strict=True):
                self._show(ax, cell)
        return [figure]

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

    def _frame(
        self,
        columns: int,
        heights: list[float],
        width: float = 3.4,
        left: float = 0.66,
        top: float = 0.22,
    ) -> tuple[Figure, NDArray[Any]]:
        """Cells placed to the point, so that no picture is stretched; heights in pictures'."""
        gap = 0.05
        cell = (width - left) / max(columns, 4) - gap
        tall = [cell * self._tall * share for share in heights]
        height = top + sum(tall) + gap * len(tall)
        figure = canvas.new_figure(left + (cell + gap) * columns, height)
        figure.set_layout_engine("none")
        axes = np.empty((len(heights), columns), dtype=object)
        y = height - top
        for line, share in zip(axes, tall, strict=True):
            y -= share
            for column in range(columns):
                x = left + column * (cell + gap)
                box = (x / figure.get_figwidth(), y / height)
                size = (cell / figure.get_figwidth(), share / height)
                line[column] = figure.add_axes((*box, *size))
            y -= gap
        return figure, axes

    def _show(self, ax: Any, cell: NDArray[Any], top: float = 1.0, error: bool = False) -> None:
        colours = "Reds" if error else "gray"
        ax.imshow(cell, cmap=colours, vmin=0, vmax=top, aspect="auto")
        canvas.framed(ax) if error else canvas.bare(ax)

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
        ax = figure.subplots()
        ax.imshow(picture, aspect="auto")
        canvas.bare(ax)
        ax.set_title(canvas.safe(name, 60), fontsize=9.5, color=color, loc="left")
        return figure
