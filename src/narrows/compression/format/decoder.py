"""The exact decoder: a model as the file format uses it, made from its payload alone.

    value = shift + y · 2⁻ᶠ · scale     one IEEE multiplication and one addition in float64

How a chunk is laid out as images:

- models with an "event": each row of the chunk is one sample of that shape, and one cell;
- others: the last two axes of the chunk are an image's (with channels before or behind them, as
  "axes" says), cut into blocks; an incomplete block is filled up, and cut off again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.context_model import ContextModel
from narrows.compression.format.integer_networks import IntegerNetwork, Payload
from narrows.compression.format.latent_codes import ConditionalPriorCoder, FactorisedPriorCoder
from narrows.exceptions import Corrupt

AXES = (None, "CL", "HW", "CHW", "HWC")
MAX_NUMBERS = 1 << 24  # of a chunk in whole cells, and of its code
MAX_PRODUCTS = 1 << 40  # that a chunk may take: about a minute
MAX_CHANNELS = 1 << 16
MAX_SIDE = 1 << 26  # of a block


@dataclass(frozen=True)
class Grid:
    """A chunk's shape, and the planes (n, C, H, W) and cells (rows, columns) made of it."""

    shape: tuple[int, ...]
    channels_last: bool
    n: int
    channels: int
    height: int
    width: int
    rows: int
    columns: int


class ExactDecoder:
    """The decoder of a payload: network, prior (``tables``), context network and units."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self.network = IntegerNetwork(payload)
        self.n_levels, self.latent_dim = self.network.back.shape
        conditional = "prior.groups" in payload.arrays
        prior = ConditionalPriorCoder if conditional else FactorisedPriorCoder
        self.tables = prior(payload, self.n_levels, self.latent_dim)
        self.level = payload.number("level", 0, self.n_levels - 1)
        self.channels = payload.number("channels", 1, MAX_CHANNELS)
        self.block = payload.number("height", 1, MAX_SIDE), payload.number("width", 1, MAX_SIDE)
        self.axes = payload.structure.get("axes")
        self.event = payload.structure.get("event")
        self._check_shapes()
        self.context = self._context_model()
        self.work = self._products_per_cell()
        units = [payload.get(name, "f", 3) for name in ("scale", "shift", "low", "high")]
        self.scale, self.shift, self.low, self.high = units
        if not np.isfinite(self.scale).all() or not np.isfinite(self.shift).all():
            raise Corrupt("the model's units are not all finite")
        if np.isnan(self.low).any() or np.isnan(self.high).any():
            raise Corrupt("the model's bounds are not all numbers")
        for unit in units:
            try:
                np.broadcast_to(unit, (self.channels, *self.block))
            except ValueError as error:
                raise Corrupt("the model's units do not fit its cells") from error

    def _check_shapes(self) -> None:
        numbers = self.channels * self.block[0] * self.block[1]
        if self.axes not in AXES or self.network.numbers != numbers:
            raise Corrupt("the model's cells do not fit its network")
        if self.event is not None:
            sizes = isinstance(self.event, list) and all(type(s) is int for s in self.event)
            if not sizes or min(self.event, default=0) < 1 or math.prod(self.event) != numbers:
                raise Corrupt("the model's samples have an impossible shape")

    def _context_model(self) -> ContextModel | None:
        """The context network, if the model has one."""
        structure = self.payload.structure.get("context")
        if structure is None:
            return None
        arrays = {
            name.removeprefix("context."): array
            for name, array in self.payload.arrays.items()
            if name.startswith("context.")
        }
        if not isinstance(structure, dict) or self.event is None:
            raise Corrupt("the model has a context network, but its samples are not images")
        context = ContextModel(arrays, structure)
        if context.shape != (self.channels, *self.block):
            raise Corrupt("the model's context network is for images of another shape")
        return context

    def _products_per_cell(self) -> int:
        """One for each weight, and for each pixel all weights of the context network."""
        sizes = {name: array.size for name, array in self.payload.arrays.items()}
        pixels = sum(sizes.get(f"context.{name}", 0) for name in ("w1", "w2", "wg", "w3", "wl"))
        weights = sum(size for name, size in sizes.items() if name.endswith(".weight"))
        return int(weights + pixels * self.network.numbers)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the payload, in hex."""
        return self.payload.id

    def grid(self, shape: tuple[int, ...], images: bool) -> Grid | None:
        """How this model sees a chunk of this shape; None where it cannot code it.

        ``images``: the chunk is part of one image (H, W) or (H, W, 3), not rows of an array.
        """
        if self.event is not None:
            if images or tuple(self.event) != tuple(shape[1:]) or not self._is_allowed(shape[0]):
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
        if self.channels == 1:  # channels are coded as images of their own
            n, channels = n * channels, 1
        elif images and channels == 1:
            channels = self.channels  # a grey image in all channels
        if channels != self.channels or not n * height * width:
            return None
        rows, columns = -(-height // self.block[0]), -(-width // self.block[1])
        if not self._is_allowed(n * rows * columns):
            return None
        return Grid(tuple(shape), last, n, channels, height, width, rows, columns)

    def _is_allowed(self, cells: int) -> bool:
        """Whether so many cells stay within the memory and time that a file may ask for."""
        numbers = cells * max(self.latent_dim, self.network.numbers)
        return numbers <= MAX_NUMBERS and cells * self.work <= MAX_PRODUCTS

    def planes(self, chunk: Array, grid: Grid) -> Array:
        """The chunk as (n, C, H, W), filled up to complete blocks by its own mirror image."""
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

    def from_planes(self, x: Array, grid: Grid) -> Array:
        """The inverse of `planes`, once the filling is cut off: in the shape of the chunk."""
        if x.size > math.prod(grid.shape):  # a grey image in all channels
            return x[:, 0].reshape(grid.shape)
        if grid.channels_last:
            x = np.moveaxis(x.reshape(-1, grid.shape[-1], grid.height, grid.width), 1, -1)
        return np.ascontiguousarray(x).reshape(grid.shape)

    def predict(self, codes: Array, level: int, grid: Grid) -> Array:
        """What the codes decode to: float64 in the user's units, in the shape of the chunk."""
        (h, w), c = self.block, self.channels
        y = self.network(codes, level)
        cells = y.reshape(grid.n, c, h, w, grid.rows, grid.columns).transpose(0, 1, 4, 2, 5, 3)
        values = cells.astype(np.float64)
        scale, shift, low, high = (
            unit[:, None, :, None, :] for unit in (self.scale, self.shift, self.low, self.high)
        )
        with np.errstate(over="ignore"):  # only a damaged model has such units
            values *= scale
            values += shift
        np.maximum(values, low, out=values)
        np.minimum(values, high, out=values)
        x = values.reshape(grid.n, c, grid.rows * h, grid.columns * w)
        return self.from_planes(x[:, :, : grid.height, : grid.width], grid)

    def approximation(self, codes: Array, level: int) -> Array:
        """What codes of whole images decode to, rounded: uint8 (n, C, H, W)."""
        grid = self.grid((len(codes), *(self.event or ())), False)
        assert grid is not None
        return self.planes(as_dtype(self.predict(codes, level, grid), np.dtype(np.uint8)), grid)

    def code_shape(self, grid: Grid) -> tuple[int, int, int, int]:
        """(n, latent_dim, rows, columns)."""
        return (grid.n, self.latent_dim, grid.rows, grid.columns)


def as_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    """Finite float64 as numbers of a dtype; integers are rounded to even and clipped."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        # the largest int64 is not a float64: use the largest float64 below it
        high = np.nextafter(float(ends.max), 0) if ends.max > 1 << 53 else float(ends.max)
        return np.clip(np.rint(values), float(ends.min), high).astype(dtype)
    largest = float(np.finfo(dtype).max)
    return np.clip(values, -largest, largest).astype(dtype)
