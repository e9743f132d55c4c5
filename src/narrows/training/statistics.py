"""Range, mean and standard deviation of the rows, element by element, in one pass.

Blocks may come from memory or from a disk; only one block is in memory at a time. NaN marks a
missing value and is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**16  # processed together: half a MiB in float64 fits the cache
# Squares of values between these stay far inside float64 (1e-308 to 1e308); other values are
# measured in larger or smaller units.
MIN_UNSCALED, MAX_UNSCALED = 1e-100, 1e100


@dataclass(frozen=True)
class Statistics:
    """Of n rows: float64 tensors of the shape of one event, and the dtype.

    ``deviation`` is the standard deviation over the n rows, exactly zero for a constant element;
    ``whole`` is True for elements with whole numbers only. For an element that is missing in every
    row, ``low`` is infinity and ``high`` minus infinity.
    """

    n: int
    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor
    whole: Tensor
    dtype: torch.dtype

    @property
    def binary(self) -> bool:
        """Whether all values are 0 or 1."""
        return bool((self.whole & (self.low >= 0) & (self.high <= 1)).all())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.low.shape)

    def to(self, device: torch.device) -> Statistics:
        """The same on another device."""
        low, high, mean = self.low.to(device), self.high.to(device), self.mean.to(device)
        deviation, whole = self.deviation.to(device), self.whole.to(device)
        return Statistics(self.n, low, high, mean, deviation, whole, self.dtype)


def statistics(blocks: Iterable[Tensor]) -> Statistics:
    """The statistics of all rows in ``blocks``, each (n, *event), in one pass.

    Means and sums of squares are merged by Chan, Golub & LeVeque (1983), "Algorithms for computing
    the sample variance", which keep their precision under a large common offset. Raises
    ``ValueError`` if there are no rows.

    >>> import torch
    >>> found = statistics([torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])])
    >>> found.n, found.mean.item(), found.high.item()
    (3, 3.0, 6.0)
    """
    running: _Running | None = None
    for block in blocks:
        # at least 16 rows: merging a chunk costs about as much as processing a row
        rows = max(16, CHUNK_ELEMENTS // max(1, math.prod(block.shape[1:])))
        for chunk in block.split(rows) if len(block) else ():
            running = running or _Running(chunk)
            running.add(chunk)
    if running is None:
        raise ValueError("there are no rows to measure")
    return running.result()


class _Running:
    """The sums so far of differences from the first row, in multiples of ``unit``.

    The differences remove a large common offset before anything is rounded. Units are powers of
    two, so that changing them rounds nothing.
    """

    def __init__(self, first: Tensor) -> None:
        self.n, self.dtype = 0, first.dtype
        self.count: Tensor | int = 0  # rows of each element; an int until a value is missing
        origin = first[0].double()
        if bool(origin.isnan().any()):
            origin = torch.where(origin.isnan(), first.double().nanmean(0), origin).nan_to_num()
        self.origin = origin
        self.low, self.high = (torch.full_like(origin, end) for end in (torch.inf, -torch.inf))
        self.mean, self.squares = torch.zeros_like(origin), torch.zeros_like(origin)
        self.whole = torch.ones_like(origin, dtype=torch.bool)
        self.unit: Tensor | None = None  # None: 1 everywhere

    def add(self, chunk: Tensor) -> None:
        """Add the rows of ``chunk``."""
        low, high = chunk.amin(0).double(), chunk.amax(0).double()
        there, count = None, len(chunk)
        if bool(low.isnan().any()):
            there = ~chunk.isnan()
            low = torch.where(there, chunk, torch.inf).amin(0).double()
            high = torch.where(there, chunk, -torch.inf).amax(0).double()
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        if chunk.is_floating_point() and bool(self.whole.any()):
            whole = chunk == chunk.round()
            self.whole &= (whole if there is None else whole | ~there).all(0)
        self._choose_unit()
        x, origin = chunk.double(), self.origin
        if self.unit is not None:
            x, origin = x / self.unit, origin / self.unit
        x = x - origin
        if there is None:
            self._merge(count, x.mean(0), x)
        else:
            each = there.sum(0).double()
            mean = torch.where(there, x, 0.0).sum(0) / each.clamp(min=1)
            self._merge(each, mean, torch.where(there, x, mean))
        self.n += count

    def _merge(self, count: Tensor | int, mean: Tensor, x: Tensor) -> None:
        """Add ``count`` values of each element with this mean; overwrites ``x``."""
        squares = x.sub_(mean).square_().sum(0)
        total = self.count + count
        share = count / (total if isinstance(total, int) else total.clamp(min=1))
        apart_means = mean - self.mean
        self.mean = self.mean + apart_means * share
        between = apart_means.square() * (self.count * share)
        self.squares, self.count = self.squares + squares + between, total

    def _choose_unit(self) -> None:
        largest = torch.maximum(self.low.abs(), self.high.abs())
        largest = torch.where(self.high < self.low, 0.0, largest)  # no value so far
        tame = (largest == 0) | ((largest > MIN_UNSCALED) & (largest < MAX_UNSCALED))
        if self.unit is None and bool(tame.all()):
            return
        # at most 1000, because 2**1024 overflows float64
        power = torch.frexp(largest).exponent.double().clamp(-1000, 1000)
        unit = torch.where(tame, 1.0, torch.exp2(power))
        change = unit if self.unit is None else unit / self.unit
        self.unit, self.mean = unit, self.mean / change
        self.squares = self.squares / change / change

    def result(self) -> Statistics:
        """The statistics of all rows so far."""
        unit = torch.ones_like(self.low) if self.unit is None else self.unit
        seen, count = self.high >= self.low, torch.as_tensor(self.count).clamp(min=1)
        deviation = torch.where(self.high > self.low, (self.squares / count).sqrt() * unit, 0.0)
        mean = (self.mean + self.origin / unit) * unit
        # rounding must not move the mean out of the range
        mean = torch.where(seen, mean.clamp(self.low, self.high), 0.0)
        return Statistics(self.n, self.low, self.high, mean, deviation, self.whole, self.dtype)
