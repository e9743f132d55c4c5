"""Frequency tables of integers: how likely each symbol is, in 65,536ths, the same everywhere."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import Corrupt

Array = NDArray[Any]
BITS = 16
TOTAL = 1 << BITS  # what the frequencies of a table sum to
LOOKED_UP = 1024  # tables, at most: their lookup takes 64 or 128 KiB each


class Tables:
    """Tables of one width: ``frequencies`` (tables, symbols), each row summing to 2¹⁶.

    A symbol of frequency 0 cannot be coded. Raises ``Corrupt`` for anything that is no table.
    """

    def __init__(self, frequencies: Array) -> None:
        frequencies = np.asarray(frequencies)
        fine = frequencies.ndim == 2 and frequencies.size > 0 and frequencies.dtype.kind in "ui"
        if not fine or (frequencies < 0).any() or (frequencies > TOTAL).any():
            raise Corrupt("a frequency table holds what is no frequency")
        if (frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise Corrupt("a frequency table does not sum to 65536")
        self.frequencies = frequencies.astype(np.uint32)
        ends = np.cumsum(self.frequencies, axis=1, dtype=np.uint32)
        # a last symbol of frequency 0 would start at 2^16; it is never coded, so any start will do
        self.starts = np.minimum(ends - self.frequencies, TOTAL - 1)

    def __len__(self) -> int:
        return len(self.frequencies)

    @cached_property
    def lookup(self) -> Array:
        """The symbol of every slot, (tables · 2¹⁶,)."""
        n, width = self.frequencies.shape
        kind = np.uint8 if width <= 256 else np.uint16
        symbols = np.tile(np.arange(width, dtype=kind), n)
        return np.repeat(symbols, self.frequencies.ravel())

    @cached_property
    def _ends(self) -> Array:
        """Where the interval of each symbol ends, all tables in a row."""
        ends = np.cumsum(self.frequencies, axis=1, dtype=np.int64)
        return (ends + (np.arange(len(self))[:, None] << BITS)).ravel()

    @cached_property
    def flat(self) -> tuple[Array, Array]:
        """Starts and frequencies as int64, all tables in a row."""
        return self.starts.ravel().astype(np.int64), self.frequencies.ravel().astype(np.int64)

    def symbols(self, index: Array, slots: Array) -> Array:
        """The symbols in whose intervals the slots lie, of the tables ``index``."""
        return self.find((np.asarray(index, np.intp) << BITS) + slots)

    def find(self, slots: Array) -> Array:
        """The symbols of slots that are counted through all tables: table · 2¹⁶ + slot."""
        found: Array
        if len(self) <= LOOKED_UP:
            found = self.lookup.take(slots)
        else:  # slower, but a small file may ask for so many tables that a lookup takes all memory
            found = self._ends.searchsorted(slots, side="right")
            found -= (slots >> BITS) * self.frequencies.shape[1]
        return found


def frequencies_of(counts: Array) -> Array:
    """Counts (..., symbols) as frequencies that sum to 2¹⁶; what was counted keeps at least 1.

    Made once, by whoever writes a model or a file; readers only ever see the integers.

    >>> frequencies_of(np.array([[3, 0, 1]]))
    array([[49152,     0, 16384]], dtype=uint32)
    """
    counts = np.asarray(counts, np.float64)
    seen = counts > 0
    if not seen.any(axis=-1).all():
        raise ValueError("a table needs at least one symbol")
    share = counts / counts.sum(axis=-1, keepdims=True) * (TOTAL - seen.sum(-1, keepdims=True))
    frequencies = np.floor(share).astype(np.int64) + seen
    # what rounding left over goes to the largest, where it is the smallest change
    left = TOTAL - frequencies.sum(axis=-1, keepdims=True)
    largest = frequencies.argmax(axis=-1)[..., None]
    np.put_along_axis(
        frequencies, largest, np.take_along_axis(frequencies, largest, -1) + left, axis=-1
    )
    out: Array = frequencies.astype(np.uint32)
    return out
