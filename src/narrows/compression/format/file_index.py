"""The index at the end of a .narrow file: where every item and chunk of it starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.frames import (
    END,
    INDEX,
    MOST_DIGITS,
    MOST_FRAMES,
    PLAIN,
    TAIL,
    Source,
    Window,
    read_frame,
)
from narrows.exceptions import Corrupt, TooLarge, Truncated


@dataclass(frozen=True, slots=True)
class Index:
    """Where the items and chunks of a file start, and where the index itself does."""

    offsets: NDArray[np.int64]
    is_item: NDArray[np.bool_]
    end: int

    @classmethod
    def find(cls, source: Source, first: int) -> Index:
        """From the end of a stream that seeks, whose frames start at ``first``."""
        tail = source.size - TAIL.size
        if tail < first + PLAIN.size:
            raise Truncated("the file ends before its index: was it copied whole?")
        _, length, end = TAIL.unpack(source.at(tail, TAIL.size))
        if end != END:
            raise Truncated("the file does not end as it should: was it copied whole?")
        window = Window(source, tail - length)
        if window.position < first:
            raise Corrupt("the end of the file points to an index that starts too early")
        frame = read_frame(window)
        if frame.kind != INDEX or window.position != tail:
            raise Corrupt("the end of the file points to what is no index")
        return cls.unpack(frame.payload, first, frame.position)

    @classmethod
    def unpack(cls, payload: bytes, first: int, end: int) -> Index:
        """From the numbers of an INDEX frame that starts at ``end``."""
        digits = np.frombuffer(payload, np.uint8)
        ends = np.flatnonzero(digits < 128)
        starts = np.concatenate([np.zeros(1, np.intp), ends + 1])[: len(ends)]
        lengths = ends + 1 - starts
        if len(starts) > MOST_FRAMES:
            raise TooLarge(f"the index has more than the {MOST_FRAMES} items and chunks allowed")
        if (lengths > MOST_DIGITS).any() or (len(digits) and digits[-1] > 127):
            raise Corrupt("the index holds what is no number")
        place = np.arange(len(digits)) - np.repeat(starts, lengths)
        shifted = (digits & 127).astype(np.int64) << 7 * place
        numbers = np.add.reduceat(shifted, starts) if len(starts) else np.empty(0, np.int64)
        distances = numbers >> 1
        # a distance above the file's length would let the sum overflow
        fine = not len(numbers) or bool((distances > 0).all() and (distances < end).all())
        offsets = np.cumsum(distances) if fine else distances
        if not fine or (len(offsets) and not first <= offsets[0] <= offsets[-1] < end):
            raise Corrupt("the index points outside of the file")
        return cls(offsets, (numbers & 1).astype(bool), end)

    def __len__(self) -> int:
        """How many items there are."""
        return int(self.is_item.sum())

    def after(self, position: int) -> int:
        """Where the next frame starts."""
        k = int(np.searchsorted(self.offsets, position, side="right"))
        return int(self.offsets[k]) if k < len(self.offsets) else self.end

    def names_item(self, position: int) -> bool:
        """Whether an item starts here."""
        k = int(np.searchsorted(self.offsets, position))
        return k < len(self.offsets) and self.offsets[k] == position and bool(self.is_item[k])
