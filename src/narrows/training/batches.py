"""Rows: where they may come from, their scaling, and batches of them in scaled units.

Rows in memory stay one tensor in their own dtype (uint8 stays uint8) on the device; only the batch
that is being looked at is turned into scaled float32. ``streams`` has the rows that stay on a disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.training.statistics import Statistics

SAMPLE = 2**28  # elements of a sample of rows: 1 GiB in float32


def as_tensor(rows: NDArray[Any]) -> Tensor:
    """Rows as a tensor that shares their memory where torch can, in a dtype torch computes with."""
    wider = {"u2": np.int32, "u4": np.int64, "u8": np.float64}.get(rows.dtype.str[1:])
    if wider is not None:
        rows = rows.astype(wider)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


@dataclass(frozen=True)
class Scaling:
    """x ↦ (x − shift) / scale; both broadcast against one event and are kept in float64."""

    kind: str  # "column" | "shared" | "none"
    shift: Tensor
    scale: Tensor

    @classmethod
    def none(cls) -> Scaling:
        """The one that changes nothing: rows of which nobody knows more yet."""
        zero = torch.zeros((), dtype=torch.float64)
        return cls("none", zero, zero + 1)

    def apply(self, rows: Tensor) -> Tensor:
        """Scaled float32."""
        # a narrow dtype loses nothing in float32; a wide one must be centred before it is cut
        if rows.dtype in (torch.float64, torch.int64, torch.int32):
            return ((rows.double() - self.shift) / self.scale).float()
        return (rows.float() - self.shift.float()).div_(self.scale.float())

    def undo(self, scaled: Tensor) -> Tensor:
        """Back to the data's units, in float64."""
        return scaled.double() * self.scale + self.shift

    def undo_narrow(self, scaled: Tensor, dtype: torch.dtype) -> Tensor:
        """Back to float32 or to small integers, for which float32 is exact enough and faster."""
        rows = scaled * self.scale.float() + self.shift.float()
        if dtype.is_floating_point:
            return rows
        ends = torch.iinfo(dtype)
        return rows.round_().clamp_(ends.min, ends.max).to(dtype)

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """log |∂x/∂scaled| of one event: what a density in scaled units lacks in the user's."""
        return float(self.scale.expand(shape).log().sum())

    def to(self, device: torch.device) -> Scaling:
        """The same scaling on another device."""
        return Scaling(self.kind, self.shift.to(device), self.scale.to(device))


def fit_scaling(found: Statistics, kind: str) -> Scaling:
    """Mean and standard deviation of each column, or shared by each channel; constants keep 1."""
    low, high = found.low, found.high
    one = torch.ones([1] * low.ndim, dtype=torch.float64, device=low.device)
    if kind == "none":
        return Scaling(kind, torch.zeros_like(one), one)
    mean, scale, spread = found.mean, found.deviation, high - low
    if kind == "shared":
        dims = shared_axes(low.ndim)
        spread = high.amax(dims, keepdim=True) - low.amin(dims, keepdim=True)
        largest = torch.maximum(low.abs(), high.abs()).amax(dims, keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)  # 1e300 squared would not be a number
        each, scale = mean / largest, scale / largest
        mean = each.mean(dims, keepdim=True)
        variance = (scale.square() + (each - mean).square()).mean(dims, keepdim=True)
        mean, scale = mean * largest, variance.sqrt() * largest
    return Scaling(kind, mean, torch.where((spread > 0) & (scale > 0), scale, 1.0))


def shared_axes(ndim: int) -> tuple[int, ...]:
    """The axes of an event whose elements may share a unit: all but a picture's channels."""
    return tuple(range(0 if ndim == 1 else 1, ndim))


@dataclass(frozen=True)
class Rows:
    """Rows on the device in their own dtype, handed out in scaled batches."""

    data: Tensor  # (n, *event)
    scaling: Scaling

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.data.shape[1:])

    def scaled(self, index: Tensor | slice) -> Tensor:
        """The rows of ``index``, scaled."""
        if isinstance(index, slice):
            return self.scaling.apply(self.data[index])
        return self.scaling.apply(self.data.index_select(0, index))  # far faster than data[index]

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Every row once, in order."""
        for start in range(0, len(self), batch_size):
            yield self.scaled(slice(start, start + batch_size))

    def part(self, share: Share) -> Rows:
        """A process's share of the rows, one after another."""
        rank, size = share
        return Rows(self.data.tensor_split(size)[rank], self.scaling)

    def shuffled(
        self, batch_size: int, order: Generator, skip: int = 0, share: Share = (0, 1)
    ) -> Iterator[Tensor]:
        """Every row once, in an order drawn from ``order`` (a generator on the CPU).

        The first ``skip`` batches are passed over: an epoch that was broken off goes on there. Of
        each batch only this process's ``share`` (its rank, of how many) is given.
        """
        permutation = torch.randperm(len(self), generator=order).to(self.data.device)
        for start, stop in shares(len(self), batch_size, skip, share):
            yield self.scaled(permutation[start:stop])

    def sample(self, seed: int) -> Tensor:
        """Scaled rows on the CPU: all of them, or a random share of very many."""
        most = max(2, SAMPLE // max(1, math.prod(self.shape)))
        index: Tensor | slice = slice(None)
        if len(self) > most:
            rng = torch.Generator().manual_seed(seed)
            index = torch.randperm(len(self), generator=rng)[:most].sort().values
        return self.scaled(index).cpu()


Share = tuple[int, int]  # the rank of a process, and how many there are


def n_batches(n_rows: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(n_rows / batch_size)


def shares(n_rows: int, batch_size: int, skip: int, share: Share) -> Iterator[tuple[int, int]]:
    """Where this process's share of each batch after the first ``skip`` starts and stops."""
    rank, size = share
    count = n_batches(n_rows, batch_size)
    for i in range(skip, count):
        # batches of nearly one size: a last batch of one row would be a poor step
        start, stop = _part(n_rows, count, i)
        first, last = _part(stop - start, size, rank)
        yield start + first, start + last


def _part(n: int, count: int, i: int) -> tuple[int, int]:
    """Where part i of n things in ``count`` nearly equal parts starts and stops."""
    least, longer = divmod(n, count)
    start = i * least + min(i, longer)
    return start, start + least + (i < longer)


def inference_batch(shape: tuple[int, ...]) -> int:
    """Rows looked at together without gradients: 1.5 MiB of input, so that layers fit caches."""
    return max(1, min(8192, 3 * 2**17 // max(1, math.prod(shape))))
