"""A model as a decoder sees it: chunks of numbers as grids of cells, and answers in their units.

    value = shift + y · 2⁻ᶠ · scale     one IEEE multiplication and one addition in float64

Everything here follows from a payload alone. How a chunk is laid out as images:

- "whole" models: each row of the chunk is one cell, a sample of the shape "event";
- others: the last two axes of the chunk are an image's (with its channels before or behind them,
  as "axes" says), cut into blocks; what does not fill a block is filled up, and cut off again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.context_decoder import ContextModel
from narrows.compression.format.integer_networks import Network
from narrows.compression.format.latent_codes import CodeTables
from narrows.compression.format.model_payload import Payload
from narrows.compression.format.prior_decoder import Conditional
from narrows.exceptions import Corrupt

Array = NDArray[Any]
AXES = (None, "CL", "HW", "CHW", "HWC")
MOST_CELLS = 1 << 24  # numbers of a chunk in whole cells, and of its code
MOST_WORK = 1 << 40  # products that a chunk may take: about a minute
LARGEST_SIDE = 1 << 16


@dataclass(frozen=True)
class Grid:
    """A chunk's shape, and the planes (n, C, H, W) and cells (rows, columns) it makes."""

    shape: tuple[int, ...]
    channels_last: bool
    n: int
    channels: int
    height: int
    width: int
    rows: int
    columns: int


class Model:
    """The exact decoder of a payload, with its tables and its units."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self.network = Network(payload)
        self.n_levels, self.latent_dim = self.network.back.shape
        self.tables: CodeTables | Conditional
        if "prior.groups" in payload.arrays:
            self.tables = Conditional(payload, self.n_levels, self.latent_dim)
        else:
            self.tables = CodeTables(payload, self.n_levels, self.latent_dim)
        self.level = payload.number("level", 0, self.n_levels - 1)
        self.channels = payload.number("channels", 1, LARGEST_SIDE)
        self.block = (
            payload.number("height", 1, 1 << 26),
            payload.number("width", 1, 1 << 26),
        )
        self.axes = payload.structure.get("axes")
        self.event = payload.structure.get("event")
        self._check()
        self.context = self._expects()
        self.work = self._products()
        self.scale, self.shift, self.low, self.high = (
            payload.get(name, "f", 3) for name in ("scale", "shift", "low", "high")
        )
        if not all(np.isfinite(unit).all() for unit in (self.scale, self.shift)):
            raise Corrupt("the model's units are not all finite")
        if np.isnan(self.low).any() or np.isnan(self.high).any():
            raise Corrupt("the model's bounds are not all numbers")
        for unit in (self.scale, self.shift, self.low, self.high):
            try:
                np.broadcast_to(unit, (self.channels, *self.block))
            except ValueError as error:
                raise Corrupt("the model's units do not fit its cells") from error

    def _check(self) -> None:
        numbers = self.channels * self.block[0] * self.block[1]
        if self.axes not in AXES or self.network.numbers != numbers:
            raise Corrupt("the model's cells do not fit its network")
        if self.event is not None:
            whole = isinstance(self.event, list) and all(type(s) is int for s in self.event)
            if not whole or min(self.event, default=0) < 1 or math.prod(self.event) != numbers:
                raise Corrupt("the model's samples have an impossible shape")

    def _expects(self) -> ContextModel | None:
        """The network that expects pixels, if the model has one."""
        structure = self.payload.structure.get("context")
        if structure is None:
            return None
        arrays = {
            name.removeprefix("context."): array
            for name, array in self.payload.arrays.items()
            if name.startswith("context.")
        }
        if not isinstance(structure, dict) or self.event is None:
            raise Corrupt("the model expects pixels of what are no images")
        context = ContextModel(arrays, structure)
        if context.shape != (self.channels, *self.block):
            raise Corrupt("the model expects pixels of images of another shape")
        return context

    def _products(self) -> int:
        """Products that a cell may take: one for each weight, and all pixels' of the context."""
        sizes = {name: array.size for name, array in self.payload.arrays.items()}
        pixels = sum(sizes.get(f"context.{name}", 0) for name in ("w1", "w2", "wg", "w3", "wl"))
        weights = sum(size for name, size in sizes.items() if name.endswith(".weight"))
        work: int = weights + pixels * self.network.numbers
        return work

    @cached_property
    def id(self) -> str:
        """SHA-256 of the payload, in hex."""
        return self.payload.id

    def grid(self, shape: tuple[int, ...], images: bool) -> Grid | None:
        """How this model sees a chunk of this shape; None where it has no place for it.

        ``images``: the chunk is part of one image (H, W) or (H, W, 3), not rows of an array.
        """
        if self.event is not None:
            if images or tuple(self.event) != tuple(shape[1:]):
                return None
            if not self._bears(shape[0]):
                return None
            last = self.axes == "HWC"
            return Grid(tuple(shape), last, shape[0], self.channels, *self.block, 1, 1)
        if images and len(shape) not in (2, 3):
            return None
        if images and len(shape) == 3:
            n, channels, (height, width), last = 1, shape[2], shape[:2], True
        elif self.axes in ("CHW", "HWC") and self.channels > 1 and len(shape) >= 3 and not images:
            last = self.axes == "HWC"
            sides = (-3, -2, -1) if last else (-2, -1, -3)
            height, width, channels = (shape[i] for i in sides)
            n = math.prod(shape[:-3])
        elif len(shape) >= 2:
            n, channels, (height, width), last = math.prod(shape[:-2]), 1, shape[-2:], False
        else:
            return None
        if self.channels == 1:  # channels are images of their own
            n, channels = n * channels, 1
        elif images and channels == 1:
            channels = self.channels  # grey, shown as colour
        if channels != self.channels or not n * height * width:
            return None
        rows, columns = -(-height // self.block[0]), -(-width // self.block[1])
        if not self._bears(n * rows * columns):
            return None
        return Grid(tuple(shape), last, n, channels, height, width, rows, columns)

    def _bears(self, cells: int) -> bool:
        """Whether so many cells take memory and time that a file may ask for."""
        room = cells * max(self.latent_dim, self.network.numbers)
        return room <= MOST_CELLS and cells * self.work <= MOST_WORK

    def planes(self, chunk: Array, grid: Grid) -> Array:
        """The chunk as (n, C, H, W), filled up to whole cells by its own mirror image."""
        x = chunk
        if grid.channels_last:
            x = np.moveaxis(x, -1, -3)
        if x.size < grid.n * grid.channels * grid.height * grid.width:
            x = np.broadcast_to(x, (grid.channels, grid.height, grid.width))
        x = x.reshape(grid.n, grid.channels, grid.height, grid.width)
        for axis, size in ((2, grid.rows * self.block[0]), (3, grid.columns * self.block[1])):
            n = x.shape[axis]
            if n < size:
                index = np.arange(size) % (2 * n)
                x = np.take(x, np.where(index < n, index, 2 * n - 1 - index), axis)
        return x

    def predict(self, codes: Array, level: int, grid: Grid) -> Array:
        """What the codes stand for, float64 in the user's units, of the chunk's shape."""
        (h, w), c = self.block, self.channels
        y = self.network(codes, level)
        cells = y.reshape(grid.n, c, h, w, grid.rows, grid.columns).transpose(0, 1, 4, 2, 5, 3)
        values = cells.astype(np.float64)
        with np.errstate(over="ignore"):  # by units that no data had
            for unit, apply in ((self.scale, np.multiply), (self.shift, np.add)):
                apply(values, unit[:, None, :, None, :], out=values)
        np.maximum(values, self.low[:, None, :, None, :], out=values)
        np.minimum(values, self.high[:, None, :, None, :], out=values)
        x = values.reshape(grid.n, c, grid.rows * h, grid.columns * w)
        return self.from_model(x[:, :, : grid.height, : grid.width], grid)

    def from_model(self, x: Array, grid: Grid) -> Array:
        size = math.prod(grid.shape)
        if x.size > size:  # grey, shown as colour
            return x[:, 0].reshape(grid.shape)
        if grid.channels_last:
            channels = grid.shape[-1]
            x = x.reshape(-1, channels, grid.height, grid.width)
            x = np.moveaxis(x, 1, -1)
        return np.ascontiguousarray(x).reshape(grid.shape)

    def code_shape(self, grid: Grid) -> tuple[int, int, int, int]:
        """(n, latent_dim, rows, columns)."""
        return (grid.n, self.latent_dim, grid.rows, grid.columns)


def as_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    """Finite float64 as numbers of a dtype, integers rounded to even and clipped."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        # the largest int64 is no float64: the one below it that is must be the bound
        high = np.nextafter(float(ends.max), 0) if ends.max > 1 << 53 else float(ends.max)
        return np.clip(np.rint(values), float(ends.min), high).astype(dtype)
    most = float(np.finfo(dtype).max)
    return np.clip(values, -most, most).astype(dtype)
