"""In-memory rows: their scaling, and batches of them in scaled units.

Rows stay one tensor in their own dtype (uint8 stays uint8) on the device; only the batch that is
being looked at is turned into scaled float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

CHUNK = 2**22  # elements looked at together when statistics are taken: 32 MiB in float64


@dataclass(frozen=True)
class Scaling:
    """x ↦ (x − shift) / scale; both broadcast against one event and are kept in float64."""

    kind: str  # "column" | "shared" | "none"
    shift: Tensor
    scale: Tensor

    def apply(self, rows: Tensor) -> Tensor:
        """Scaled float32."""
        # a narrow dtype loses nothing in float32; a wide one must be centred before it is cut
        if rows.dtype in (torch.float64, torch.int64, torch.int32):
            return ((rows.double() - self.shift) / self.scale).float()
        return (rows.float() - self.shift.float()).div_(self.scale.float())

    def undo(self, scaled: Tensor) -> Tensor:
        """Back to the data's units, in float64."""
        return scaled.double() * self.scale + self.shift

    def log_volume(self, shape: tuple[int, ...]) -> float:
        """log |∂x/∂scaled| of one event: what a density in scaled units lacks in the user's."""
        return float(self.scale.expand(shape).log().sum())

    def to(self, device: torch.device) -> Scaling:
        """The same scaling on another device."""
        return Scaling(self.kind, self.shift.to(device), self.scale.to(device))


def chunks(rows: Tensor) -> Iterator[Tensor]:
    """The rows in order, a few megabytes at a time."""
    return iter(rows.split(max(1, CHUNK // max(1, rows[0].numel()))))


def extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each element of an event, float64."""
    low, high = rows[0].double(), rows[0].double()
    for chunk in chunks(rows):
        low = torch.minimum(low, chunk.amin(0).double())
        high = torch.maximum(high, chunk.amax(0).double())
    return low, high


def _moments(rows: Tensor, dims: tuple[int, ...], largest: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over rows and ``dims`` of rows / largest, in two passes."""
    kept = [1 if i in dims else s for i, s in enumerate(rows.shape[1:])]
    count = rows[0].numel() // max(1, math.prod(kept)) * len(rows)
    axes = (0, *(d + 1 for d in dims))
    mean = torch.zeros(kept, dtype=torch.float64, device=rows.device)
    for chunk in chunks(rows):
        mean += (chunk.double() / largest).sum(axes).view(kept) / count
    variance = torch.zeros_like(mean)
    for chunk in chunks(rows):
        variance += (chunk.double() / largest - mean).square().sum(axes).view(kept) / count
    return mean, variance.sqrt()


def fit_scaling(rows: Tensor, kind: str) -> Scaling:
    """Mean and standard deviation of each column, or shared by each channel; constants keep 1."""
    one = torch.ones([1] * (rows.ndim - 1), dtype=torch.float64, device=rows.device)
    if kind == "none":
        return Scaling(kind, torch.zeros_like(one), one)
    # shared: over everything but the channels, of which a table has none
    first = 0 if rows.ndim == 2 else 1
    dims = () if kind == "column" else tuple(range(first, rows.ndim - 1))
    low, high = extremes(rows)
    largest = torch.maximum(low.abs(), high.abs())  # 1e300 squared would not be a number
    spread = high - low
    if dims:
        largest = largest.amax(dims, keepdim=True)
        spread = high.amax(dims, keepdim=True) - low.amin(dims, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    mean, deviation = _moments(rows, dims, largest)
    scale = torch.where(spread > 0, deviation * largest, 1.0)
    return Scaling(kind, mean * largest, torch.where(scale > 0, scale, 1.0))


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
        rank, size = share
        # batches of nearly one size: a last batch of one row would be a poor step
        for index in permutation.tensor_split(n_batches(len(self), batch_size))[skip:]:
            yield self.scaled(index.tensor_split(size)[rank])


Share = tuple[int, int]  # the rank of a process, and how many there are


def n_batches(n_rows: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(n_rows / batch_size)


def inference_batch(shape: tuple[int, ...]) -> int:
    """Rows looked at together without gradients: about 4 MiB of input, which suits caches."""
    return max(1, min(8192, 2**20 // max(1, math.prod(shape))))
