"""Batches of rows in memory, and their scaling.

Rows stay one tensor in their own dtype (uint8 stays uint8) on the device; only the current batch
becomes scaled float32. Rows that stay on a disk are in ``streamed_batches``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.training.statistics import Statistics

WIDE = {torch.float64, torch.int64, torch.int32, torch.uint64, torch.uint32}
MAX_SAMPLE_ELEMENTS = 2**28  # of a sample of rows: 1 GiB in float32
MAX_FLOAT32_SHIFT = 2**10  # in standard deviations; beyond, rows are centred in float64


def as_tensor(rows: NDArray[Any]) -> Tensor:
    """Rows as a tensor, in a dtype that torch computes with; it shares their memory if it can."""
    wider = {"u2": np.int32, "u4": np.int64, "u8": np.float64}.get(rows.dtype.str[1:])
    if wider is not None:
        rows = rows.astype(wider)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


@dataclass(frozen=True)
class Scaling:
    """x ↦ (x − shift) / scale. Both are float64 and broadcast against one event (one row)."""

    kind: str  # "column" | "shared" | "none"
    shift: Tensor
    scale: Tensor

    @classmethod
    def none(cls) -> Scaling:
        """The scaling that changes nothing, for rows before their scaling is known."""
        zero = torch.zeros((), dtype=torch.float64)
        return cls("none", zero, zero + 1)

    @cached_property
    def _is_far(self) -> bool:
        """Whether ``shift`` in float32 would be off by much of what rows differ in."""
        return bool((self.shift.abs() > MAX_FLOAT32_SHIFT * self.scale).any())

    @cached_property
    def _float32(self) -> tuple[Tensor, Tensor]:
        return self.shift.float(), self.scale.float()

    def apply(self, rows: Tensor) -> Tensor:
        """Scaled float32."""
        # float32 holds narrow dtypes exactly; it loses integers above 2**24 and digits of float64,
        # so wide dtypes are centred first
        if rows.dtype in WIDE or self._is_far:
            return ((rows.double() - self.shift) / self.scale).float()
        shift, scale = self._float32
        # small integers are copied anyway; in place saves a pass over fresh memory
        centred = rows - shift if rows.dtype == torch.float32 else rows.float().sub_(shift)
        return centred.div_(scale)

    def undo(self, scaled: Tensor) -> Tensor:
        """Back to the data's units, in float64."""
        return scaled.double() * self.scale + self.shift

    def undo_narrow(self, scaled: Tensor, dtype: torch.dtype) -> Tensor:
        """Back to float32 or small integers, for which float32 is exact enough and faster."""
        if self._is_far:
            rows = self.undo(scaled).float()
        else:
            shift, scale = self._float32
            rows = scaled * scale + shift
        if dtype.is_floating_point:
            return rows
        ends = torch.iinfo(dtype)
        return rows.round_().clamp_(ends.min, ends.max).to(dtype)

    def to(self, device: torch.device) -> Scaling:
        """The same scaling on another device."""
        return Scaling(self.kind, self.shift.to(device), self.scale.to(device))


def fit_scaling(found: Statistics, kind: str) -> Scaling:
    """The scaling to mean 0 and deviation 1 of each column, or of each channel ("shared").

    What is constant keeps a scale of 1.
    """
    low, high = found.low, found.high
    one = torch.ones([1] * low.ndim, dtype=torch.float64, device=low.device)
    if kind == "none":
        return Scaling(kind, torch.zeros_like(one), one)
    mean, scale, spread = found.mean, found.deviation, high - low
    if kind == "shared":
        dims = shared_axes(low.ndim)
        spread = high.amax(dims, keepdim=True) - low.amin(dims, keepdim=True)
        largest = torch.maximum(low.abs(), high.abs()).amax(dims, keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)  # 1e300 squared overflows float64
        each, scale = mean / largest, scale / largest
        mean = each.mean(dims, keepdim=True)
        variance = (scale.square() + (each - mean).square()).mean(dims, keepdim=True)
        mean, scale = mean * largest, variance.sqrt() * largest
    return Scaling(kind, mean, torch.where((spread > 0) & (scale > 0), scale, 1.0))


def shared_axes(ndim: int) -> tuple[int, ...]:
    """The axes of an event that share one scaling: all but the channels of images and signals."""
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
        """The consecutive rows of one process; ``share`` is its rank and the number of them."""
        rank, size = share
        return Rows(self.data.tensor_split(size)[rank], self.scaling)

    def shuffled(
        self, batch_size: int, order: Generator, skip: int = 0, share: Share = (0, 1)
    ) -> Iterator[Tensor]:
        """Every row once, in an order drawn from ``order`` (a generator on the CPU).

        The first ``skip`` batches are left out, where an interrupted epoch continues. Of each batch
        only this process's ``share`` (its rank and the number of processes) is given.
        """
        permutation = torch.randperm(len(self), generator=order).to(self.data.device)
        for start, stop in shares(len(self), batch_size, skip, share):
            yield self.scaled(permutation[start:stop])

    def sample(self, seed: int) -> Tensor:
        """Scaled rows on the CPU: all of them, or a random sample of very many."""
        most = max(2, MAX_SAMPLE_ELEMENTS // max(1, math.prod(self.shape)))
        index: Tensor | slice = slice(None)
        if len(self) > most:
            rng = torch.Generator().manual_seed(seed)
            index = torch.randperm(len(self), generator=rng)[:most].sort().values
        return self.scaled(index).cpu()


Share = tuple[int, int]  # the rank of a process, and the number of processes


def n_batches(n_rows: int, batch_size: int) -> int:
    """The number of batches in an epoch."""
    return math.ceil(n_rows / batch_size)


def shares(n_rows: int, batch_size: int, skip: int, share: Share) -> Iterator[tuple[int, int]]:
    """Start and stop of this process's share of each batch after the first ``skip``."""
    rank, size = share
    count = n_batches(n_rows, batch_size)
    for i in range(skip, count):
        # batches of nearly equal size: a last batch of one row would give a poor step
        start, stop = _part(n_rows, count, i)
        first, last = _part(stop - start, size, rank)
        yield start + first, start + last


def _part(n: int, count: int, i: int) -> tuple[int, int]:
    """Start and stop of part i, if n rows are cut into ``count`` parts of nearly equal size."""
    least, longer = divmod(n, count)
    start = i * least + min(i, longer)
    return start, start + least + (i < longer)


def inference_batch(shape: tuple[int, ...]) -> int:
    """Rows a batch without gradients: 1.5 MiB of float32 input, so that layers fit the cache.

    Of wide tables 128 rows, as long as they take 64 MiB at most: a batch reads all weights.
    """
    size = max(1, math.prod(shape))
    least = min(128, 2**24 // size) if len(shape) == 1 else 1
    return max(1, least, min(8192, 3 * 2**17 // size))
