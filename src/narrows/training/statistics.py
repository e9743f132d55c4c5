"""What one pass over the rows tells: their range, mean and spread, element by element.

Blocks may come from memory or from a disk; nothing but one block is ever held. What is NaN was
observed by nobody and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**16  # elements looked at together: half a MiB in float64 stays in a cache
# Between these, sums of squares stay far inside float64; other values are measured in larger or
# smaller units.
SMALL, LARGE = 1e-100, 1e100


@dataclass(frozen=True)
class Statistics:
    """Of n rows: float64 tensors of the shape of one event, and the dtype.

    ``deviation`` is the standard deviation over the n rows, exactly zero where nothing varies;
    ``whole`` says which elements hold whole numbers only. Of an element that no row has, ``low`` is
    infinity and ``high`` minus infinity.
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
        """Whether all is 0 or 1."""
        return bool((self.whole & (self.low >= 0) & (self.high <= 1)).all())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.low.shape)

    def to(self, device: torch.device) -> Statistics:
        """The same on another device."""
        names = ("low", "high", "mean", "deviation", "whole")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def statistics(blocks: Iterable[Tensor]) -> Statistics:
    """The statistics of all rows in ``blocks``, each (n, *event), in one pass.

    Means and sums of squares are merged by Chan, Golub & LeVeque (1983), "Algorithms for computing
    the sample variance", which a large common offset does not harm. Raises ``ValueError`` where
    there are no rows.

    >>> import torch
    >>> found = statistics([torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])])
    >>> found.n, found.mean.item(), found.high.item()
    (3, 3.0, 6.0)
    """
    running: _Running | None = None
    for block in blocks:
        for chunk in _chunks(block):
            running = running or _Running(chunk)
            running.add(chunk)
    if running is None:
        raise ValueError("there are no rows to measure")
    return running.result()


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    if len(rows):
        # at least some rows: merging costs about as much as a row
        yield from rows.split(max(16, CHUNK // max(1, rows[0].numel())))


class _Running:
    """The sums so far, counted from the first row on (a large common offset is gone before anything
    is rounded) in ``unit``s, which are powers of two, so that changing them rounds nothing.
    """

    def __init__(self, first: Tensor) -> None:
        self.n, self.dtype = 0, first.dtype
        self.count: Tensor | int = 0  # of each element; a number until one is missing somewhere
        origin = first[0].double()
        if bool(origin.isnan().any()):
            origin = torch.where(origin.isnan(), first.double().nanmean(0), origin).nan_to_num()
        self.origin = origin
        self.low, self.high = (torch.full_like(origin, end) for end in (torch.inf, -torch.inf))
        self.mean, self.squares = torch.zeros_like(origin), torch.zeros_like(origin)
        self.whole = torch.ones_like(origin, dtype=torch.bool)
        self.unit: Tensor | None = None  # None is one everywhere

    def add(self, chunk: Tensor) -> None:
        """Take in some rows."""
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

    def _merge(self, count: Any, mean: Tensor, x: Tensor) -> None:
        """Take in ``count`` values of each element, with this mean; x is used up."""
        squares = x.sub_(mean).square_().sum(0)
        total: Any = self.count + count
        share = count / (total if isinstance(total, int) else total.clamp(min=1))
        apart_means = mean - self.mean
        self.mean = self.mean + apart_means * share
        between = apart_means.square() * (self.count * share)
        self.squares, self.count = self.squares + squares + between, total

    def _choose_unit(self) -> None:
        largest = torch.maximum(self.low.abs(), self.high.abs())
        largest = torch.where(self.high < self.low, 0.0, largest)  # nothing was seen there yet
        tame = (largest == 0) | ((largest > SMALL) & (largest < LARGE))
        if self.unit is None and bool(tame.all()):
            return
        # within a thousand, because two to the 1024th is no float64
        power = torch.frexp(largest).exponent.double().clamp(-1000, 1000)
        unit = torch.where(tame, 1.0, torch.exp2(power))
        change = unit if self.unit is None else unit / self.unit
        self.unit, self.mean = unit, self.mean / change
        self.squares = self.squares / change / change

    def result(self) -> Statistics:
        """What all rows so far tell."""
        unit = torch.ones_like(self.low) if self.unit is None else self.unit
        seen, count = self.high >= self.low, torch.as_tensor(self.count).clamp(min=1)
        deviation = torch.where(self.high > self.low, (self.squares / count).sqrt() * unit, 0.0)
        mean = (self.mean + self.origin / unit) * unit
        # rounding must not leave the range
        mean = torch.where(seen, mean.clamp(self.low, self.high), 0.0)
        return Statistics(self.n, self.low, self.high, mean, deviation, self.whole, self.dtype)
