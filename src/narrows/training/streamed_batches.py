"""Batches of rows that stay on a disk: read in blocks, shuffled among several blocks at a time.

The memory needed does not grow with the data: two buffers (one in use, one being read), and a
sample of the rows where one is needed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator as Items
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.exceptions import InputError
from narrows.io.sources import LazyRows, Source
from narrows.training.batches import Rows, Scaling, Share, as_tensor, shares
from narrows.training.statistics import Statistics, statistics

BLOCK_BYTES = 2**22  # read at once: 4 MiB, where a disk reaches its full speed
BUFFER_BYTES = 2**26  # rows are shuffled within this much: 64 MiB
MAX_VALIDATION_BYTES = 2**28  # rows held out are kept in memory: 256 MiB
MAX_SAMPLE_ELEMENTS = 2**26  # of a sample of rows: 256 MiB in float32
SAMPLE_PAGE_ROWS = 2**20  # a sample is drawn page by page: 8 MiB of row numbers each

Array = NDArray[Any]
Index = NDArray[np.int64]
T = TypeVar("T")


def row_bytes(source: Source) -> int:
    """Bytes that a row takes in memory, with its number (8 bytes)."""
    return math.prod(source.shape[1:]) * int(np.dtype(source.dtype).itemsize) + 8


def block_rows(source: Source) -> int:
    """Rows that are read at once: a few MiB, in whole chunks if the source has chunks."""
    rows = max(2, BLOCK_BYTES // row_bytes(source))
    chunks = getattr(source, "chunks", None)
    chunk = chunks[0] if chunks and isinstance(chunks[0], int | np.integer) else 1
    return max(int(chunk), rows // int(chunk) * int(chunk))


def sorted_sample(n: int, m: int, seed: int) -> Index:
    """m of the numbers below n, drawn without replacement, in order.

    Every page of numbers gives its share of them, so that memory is needed for one page only.
    """
    rng = np.random.default_rng(seed)
    pages = []
    for start in range(0, n, SAMPLE_PAGE_ROWS):
        stop = min(n, start + SAMPLE_PAGE_ROWS)
        share = m * stop // n - m * start // n
        pages.append(start + rng.choice(stop - start, share, replace=False, shuffle=False))
    return np.sort(np.concatenate(pages)).astype(np.int64)


def prefetch(items: Iterator[T]) -> Items[T]:
    """The same items, each made by a thread while the one before it is used.

    An error in making an item is raised where the item would be used. Closing this iterator ends
    the thread.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="narrows-read") as thread:
        coming: Future[Any] = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def read_rows(source: Source, index: Index) -> Iterator[Array]:
    """The rows of ``index``, which must be sorted, block by block."""
    size = block_rows(source)
    for block in np.unique(index // size).tolist():
        first, last = np.searchsorted(index, [block * size, (block + 1) * size])
        rows = source[block * size : (block + 1) * size]
        yield rows[index[first:last] - block * size]


def empty_rows(rows: Array) -> Index:
    """The numbers of the rows that have no observed value: all is NaN."""
    if rows.dtype.kind != "f":
        return np.empty(0, dtype=np.int64)
    flat = rows.reshape(len(rows), -1)
    some = np.flatnonzero(np.isnan(flat[:, 0]))  # few: only these are looked at as a whole
    return some[np.isnan(flat[some]).all(1)]


def warn_of_empty_rows(
    empty: Index, n: int, picked: Index | None = None, *, name: str = "X", least: int = 2
) -> None:
    """Say that these of ``n`` rows are left out of a fit.

    ``picked`` are the numbers that the n rows have in X, where they are not all of it. Raises
    InputError if fewer than ``least`` rows are left.
    """
    if not len(empty):
        return
    if (left := n - len(empty)) < least:
        raise InputError(
            f"{f'Only {left}' if left else 'None'} of the {n:,} rows of {name} has a value (where "
            f"all is NaN, nothing was observed); give at least {least} with a value."
        )
    empty = empty if picked is None else picked[empty]
    shown = ", ".join(map(str, empty[:5].tolist())) + (", ..." if len(empty) > 5 else "")
    warnings.warn(
        f"{len(empty):,} of the rows of {name} have no observed value (all are NaN) and are left "
        f"out of the fit: {shown}.",
        UserWarning,
        stacklevel=6,
    )


def scan_statistics(source: Source, held: Index, *, apart: bool) -> tuple[Array, Statistics, Index]:
    """The rows of ``held`` (sorted), the statistics of the rest, in one pass over the source, and
    which rows have no observed value.

    Without ``apart`` the statistics are of all rows.
    """
    kept = np.empty((len(held), *source.shape[1:]), source.dtype)
    empty = [np.empty(0, dtype=np.int64)]

    def others() -> Items[Tensor]:
        done = 0
        for first, rows in read_blocks(source):
            own = _within(held, first, len(rows))
            kept[done : done + len(own)] = rows[own]
            done += len(own)
            empty.append(first + empty_rows(rows))
            yield as_tensor(np.delete(rows, own, axis=0) if apart and len(own) else rows)

    with closing(others()) as rest:
        found = statistics(rest)
    return kept, found, np.concatenate(empty)


def read_blocks(source: Source, multiple: int = 1) -> Iterator[tuple[int, Array]]:
    """The first row's number and the rows of each block; the next block is read in the background.

    Every block but the last has a multiple of ``multiple`` rows.
    """
    size = multiple * max(1, block_rows(source) // multiple)
    starts = range(0, len(source), size)
    with closing(prefetch((start, source[start : start + size]) for start in starts)) as blocks:
        yield from blocks


def _within(held: Index, start: int, count: int) -> Index:
    """The numbers in ``held`` (sorted) from ``start`` to ``start + count``, less ``start``."""
    first, last = np.searchsorted(held, [start, start + count])
    return held[first:last] - start


class Span(LazyRows):
    """The rows of a source from ``first`` up to, without, ``stop``."""

    def __init__(self, source: Source, first: int, stop: int) -> None:
        self.source, self.first = source, first
        self.shape = (stop - first, *source.shape[1:])
        self.dtype = np.dtype(source.dtype)

    def _read(self, start: int, stop: int) -> Array:
        return self.source[self.first + start : self.first + stop]


@dataclass(frozen=True)
class Stream:
    """Rows of a source except those ``held`` out (sorted), with the methods of `Rows`."""

    source: Source
    scaling: Scaling
    held: Index

    def __len__(self) -> int:
        return len(self.source) - len(self.held)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.source.shape[1:])

    def part(self, share: Share) -> Stream:
        """The consecutive rows of one process; ``share`` is its rank and the number of them."""
        rank, size = share
        first, stop = (len(self.source) * r // size for r in (rank, rank + 1))
        held = _within(self.held, first, stop - first)
        return replace(self, source=Span(self.source, first, stop), held=held)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Every row once, in order."""
        spans = ((i, min(i + batch_size, len(self))) for i in range(0, len(self), batch_size))
        return self._given(self._starts(), spans, 0, None)

    def shuffled(
        self, batch_size: int, order: Generator, skip: int = 0, share: Share = (0, 1)
    ) -> Iterator[Tensor]:
        """Every row once, in batches as `Rows` gives them, with its ``skip`` and ``share``.

        The whole order follows from one draw of ``order`` at the start: blocks are shuffled, a few
        of them fill a buffer, and the rows in the buffer are shuffled.
        """
        seed = int(torch.randint(2**62, (), generator=order))
        starts = np.random.default_rng(seed).permutation(self._starts())
        spans = shares(len(self), batch_size, skip, share)
        first = next(shares(len(self), batch_size, skip, (0, 1)), (len(self), 0))[0]
        yield from self._given(starts, spans, first, seed)

    def sample(self, seed: int) -> Tensor:
        """Scaled rows on the CPU: all of them, or a random sample of very many."""
        most = max(2, MAX_SAMPLE_ELEMENTS // max(1, math.prod(self.shape)))
        index = sorted_sample(len(self), min(len(self), most), seed)
        # from numbers among the rows that are not held out to numbers among all rows
        index += np.searchsorted(self.held - np.arange(len(self.held)), index, side="right")
        found, done = torch.empty((len(index), *self.shape), dtype=torch.float32), 0
        for rows in read_rows(self.source, index):
            found[done : done + len(rows)] = self._scaled(rows).cpu()
            done += len(rows)
        return found

    def _scaled(self, rows: Array) -> Tensor:
        return self.scaling.apply(as_tensor(rows).to(self.scaling.shift.device))

    def _starts(self) -> Index:
        return np.arange(0, len(self.source), block_rows(self.source), dtype=np.int64)

    def _given(
        self, starts: Index, spans: Iterator[tuple[int, int]], first: int, seed: int | None
    ) -> Iterator[Tensor]:
        """Batches: the rows in each of ``spans`` of the order that ``starts`` and ``seed`` give.

        No span begins before ``first``, so that what lies before it is not read.
        """
        with closing(prefetch(self._buffers(starts, first, seed))) as buffers:
            begin, rows, order = 0, np.empty((0, *self.shape), self.source.dtype), None
            for start, stop in spans:
                parts: list[Array] = []
                while start < stop or not parts:
                    while start < stop and start >= begin + len(rows):
                        begin, rows, order = next(buffers)
                    span = slice(start - begin, min(stop - begin, len(rows)))
                    parts.append(rows[span] if order is None else rows[order[span]])
                    start += len(parts[-1])
                yield self._scaled(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _buffers(
        self, starts: Index, first: int, seed: int | None
    ) -> Iterator[tuple[int, Array, Index | None]]:
        """Each buffer's first row number, its rows, and their new order (None: unchanged)."""
        size, begin = block_rows(self.source), 0
        together = max(2, BUFFER_BYTES // (row_bytes(self.source) * size))
        for i in range(0, len(starts), together):
            group = starts[i : i + together]
            stops = np.minimum(group + size, len(self.source))
            held = np.searchsorted(self.held, stops) - np.searchsorted(self.held, group)
            count = int((stops - group - held).sum())
            if begin + count > first:  # a continued epoch does not read what it has done
                rng = None if seed is None else np.random.default_rng([seed, i])
                order = None if rng is None else rng.permutation(count)
                yield begin, self._read(group, count), order
            begin += count

    def _read(self, starts: Index, count: int) -> Array:
        size, done = block_rows(self.source), 0
        buffer = np.empty((count, *self.shape), self.source.dtype)
        for start in starts.tolist():
            rows = self.source[start : start + size]
            own = _within(self.held, start, len(rows))
            rows = np.delete(rows, own, axis=0) if len(own) else rows
            buffer[done : done + len(rows)] = rows
            done += len(rows)
        return buffer


def held_numbers(source: Source, fraction: float, seed: int) -> Index:
    """The sorted numbers of the rows that `hold_out` holds out."""
    n, most = len(source), max(1, MAX_VALIDATION_BYTES // row_bytes(source))
    return sorted_sample(n, min(most, max(1, round(n * fraction)) if fraction else n), seed)


def hold_out(
    source: Source, fraction: float, seed: int, picked: Index | None = None
) -> tuple[Stream, Rows, Statistics]:
    """Training rows, validation rows in memory, and the statistics of the training rows.

    Nothing is scaled. If ``fraction`` is 0, the validation rows are a sample of the training rows.
    Rows without any observed value are in neither. ``picked``: see `warn_of_empty_rows`.
    """
    held = held_numbers(source, fraction, seed)
    kept, found, empty = scan_statistics(source, held, apart=fraction > 0)
    warn_of_empty_rows(empty, len(source), picked)
    if len(empty) and len(full := np.delete(kept, empty_rows(kept), axis=0)):
        kept = full
    as_is = Scaling.none()
    dropped = np.union1d(held if fraction > 0 else held[:0], empty)
    return Stream(source, as_is, dropped), Rows(as_tensor(kept), as_is), found
