"""rans16: words become symbols ("Entropy coder")."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from .container import need

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # symbols, their starts, their frequencies


class Symbols:
    """One run of coded symbols: lanes take turns, and a lane whose state is low reads a word."""

    def __init__(self, data: bytes) -> None:
        need(len(data) >= 6, "Coded symbols are cut off.")
        self.lanes, count = struct.unpack_from("<HI", data)
        need(1 <= self.lanes <= 4096, "Coded symbols have no lanes, or too many.")
        exact = len(data) == 6 + 4 * self.lanes + 2 * count
        need(exact, "Coded symbols are not as long as they say.")
        self.states = np.frombuffer(data, "<u4", self.lanes, 6).astype(np.int64)
        need((self.states >= 65536).all(), "A state of coded symbols is too low.")
        self.words = np.frombuffer(data, "<u2", count, 6 + 4 * self.lanes).astype(np.int64)
        self.used = self.symbols = 0

    def take(self, starts: np.ndarray, which: np.ndarray) -> np.ndarray:
        """One symbol for each element of ``which``, by that row of ``starts``."""
        tables, width = len(starts), starts.shape[1] - 1
        offset = np.arange(tables, dtype=np.int64) * 65536
        ends = (starts[:, 1:] + offset[:, None]).ravel()

        def find(slot: np.ndarray, part: slice) -> Found:
            row = which[part]
            symbol = np.searchsorted(ends, slot + offset[row], side="right") - row * width
            start = starts[row, symbol]
            return symbol, start, starts[row, symbol + 1] - start

        return self.rounds(len(which), find)

    def bits(self, widths: np.ndarray) -> np.ndarray:
        """Numbers of the given numbers of bits, at most 16 each."""

        def find(slot: np.ndarray, part: slice) -> Found:
            rest = 16 - widths[part]
            symbol = slot >> rest
            return symbol, symbol << rest, np.int64(1) << rest

        return self.rounds(len(widths), find)

    def rounds(self, count: int, find: Callable[[np.ndarray, slice], Found]) -> np.ndarray:
        """Blocks of symbols that can be decoded at once: from the next lane to the last."""
        out, done = np.empty(count, np.int64), 0
        few = self.symbols + count <= 65536 * self.lanes or self.lanes == 4096
        need(few, "There are more symbols than so few lanes may have.")
        while done < count:
            lane = self.symbols % self.lanes
            n = min(self.lanes - lane, count - done)
            x = self.states[lane : lane + n]
            slot = x & 65535
            out[done : done + n], start, frequency = find(slot, slice(done, done + n))
            x = frequency * (x >> 16) + slot - start
            low = np.flatnonzero(x < 65536)
            need(self.used + len(low) <= len(self.words), "Coded symbols end too soon.")
            x[low] = x[low] << 16 | self.words[self.used : self.used + len(low)]
            self.states[lane : lane + n] = x
            self.used, done, self.symbols = self.used + len(low), done + n, self.symbols + n
        return out

    def finish(self) -> None:
        whole = self.used == len(self.words) and (self.states == 65536).all()
        need(whole, "Coded symbols do not end as they must.")
