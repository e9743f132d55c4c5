"""The entropy coder: interleaved rANS in NumPy, in integers only.

    coding a symbol of frequency f and start c:   x ↦ ⌊x / f⌋·2¹⁶ + (x mod f) + c

Every symbol has an interval [start, start + frequency) of [0, 2¹⁶) and costs 16 − log₂(frequency)
bits. Symbol t belongs to lane t mod L; a lane is one state x in [2¹⁶, 2³²), and all lanes step at
once. What a state has too much leaves as 16-bit words, which all lanes share in the order in which
the decoder will want them. Every state starts at 2¹⁶, so a decoder that does not arrive there, with
all words used, knows that the bytes are damaged.

Source: Duda, "Asymmetric numeral systems", arXiv:1311.2540; interleaving: Giesen, "Interleaved
entropy coders", arXiv:1402.3392.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.frequency_tables import BITS, TOTAL, Tables
from narrows.exceptions import Corrupt

Array = NDArray[Any]
HEAD = struct.Struct("<HI")  # lanes, words
LEAST = 1 << 16  # of a state
MOST_LANES = 4096
BYTES_A_LANE = 1800  # a lane costs about four bytes: 0.2 % of so many
A_FEW = 10  # lanes more, for speed: 40 bytes
STEPS = 4096  # a lane's symbols, for which such are added: each step costs microseconds
MOST_STEPS = 65536  # a lane's symbols, at most, while lanes last


def n_lanes(n_symbols: int, n_bytes: float) -> int:
    """Lanes for so many symbols that take about so many bytes."""
    cheap = int(n_bytes) // BYTES_A_LANE
    faster = min(n_symbols // STEPS, cheap + A_FEW, int(n_bytes) // 128)
    wanted = max(cheap, faster, -(-n_symbols // MOST_STEPS), 1)
    return min(wanted, MOST_LANES, max(1, n_symbols))


class Encoder:
    """Takes symbols in the order in which they will be decoded; ``finish`` gives the bytes."""

    def __init__(self) -> None:
        self._starts: list[Array] = []
        self._frequencies: list[Array] = []

    def put(self, starts: Array, frequencies: Array) -> None:
        """Symbols by their intervals: start in [0, 2¹⁶), frequency from 1, both flattened."""
        self._starts.append(np.asarray(starts, np.uint16).ravel())
        self._frequencies.append(np.asarray(frequencies, np.uint32).ravel())

    def put_symbols(self, symbols: Array, tables: Tables, index: Array | int = 0) -> None:
        """Symbols by table: ``symbols`` of any shape, ``index`` the table of each, or of all."""
        symbols = np.asarray(symbols, np.intp)
        frequencies = tables.frequencies[index, symbols]
        if symbols.size and not frequencies.all():
            raise ValueError("a symbol has no place in its table")
        self.put(tables.starts[index, symbols], frequencies)

    def put_bits(self, values: Array, n_bits: Array | int) -> None:
        """Numbers of n_bits ≤ 16 bits each, all equally likely."""
        values = np.asarray(values, np.uint32)
        width = np.asarray(n_bits, np.uint32)
        one = np.broadcast_to(np.uint32(TOTAL) >> width, values.shape)
        self.put(values * one, one)

    @property
    def bits(self) -> float:
        """What the symbols so far cost in the mind of the model, in bits."""
        return sum(float((BITS - np.log2(f)).sum()) for f in self._frequencies if len(f))

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def finish(self, lanes: int | None = None) -> bytes:
        """All symbols as bytes; more ``lanes`` are faster to decode and cost three bytes each."""
        empty_start, empty = np.empty(0, np.uint16), np.empty(0, np.uint32)
        starts = np.concatenate([empty_start, *self._starts])
        frequencies = np.concatenate([empty, *self._frequencies])
        n = len(starts)
        lanes = lanes or n_lanes(n, self.bits / 8)
        states = np.full(lanes, LEAST, np.uint64)
        words: list[Array] = []
        for first in reversed(range(0, n, lanes)):
            f = frequencies[first : first + lanes].astype(np.uint64)
            x = states[: len(f)]
            over = x >> np.uint64(16) >= f  # x ≥ f·2¹⁶
            if over.any():
                words.append((x[over] & np.uint64(0xFFFF)).astype("<u2")[::-1])
                x = np.where(over, x >> np.uint64(16), x)
            quotient = x // f
            rest = x - quotient * f
            states[: len(f)] = (quotient << np.uint64(16)) + rest + starts[first : first + lanes]
        stream = np.concatenate([np.empty(0, "<u2"), *words])[::-1]
        return HEAD.pack(lanes, len(stream)) + states.astype("<u4").tobytes() + stream.tobytes()


class Decoder:
    """Gives back what an `Encoder` took, asked in the same order.

    Raises ``Corrupt`` where the bytes cannot be what an encoder wrote.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < HEAD.size:
            raise Corrupt("the coded symbols are cut short")
        lanes, n_words = HEAD.unpack_from(data)
        if not 0 < lanes <= MOST_LANES or len(data) != HEAD.size + 4 * lanes + 2 * n_words:
            raise Corrupt("the coded symbols are not as long as they say")
        # int64 throughout: states stay below 2⁴⁸, and indices need no conversion
        self._states = np.frombuffer(data, "<u4", lanes, HEAD.size).astype(np.int64)
        if (self._states < LEAST).any():
            raise Corrupt("the coded symbols start in an impossible state")
        self._words = np.frombuffer(data, "<u2", n_words, HEAD.size + 4 * lanes).astype(np.int64)
        # a symbol may cost no bits, so only this bounds the time that few bytes can ask for
        self._left = lanes * MOST_STEPS if lanes < MOST_LANES else None
        self._lane = 0
        self._used = 0

    def get(self, count: int, tables: Tables, index: Array | int = 0) -> Array:
        """The next ``count`` symbols; ``index`` is the table of each of them, or of all."""
        self._ask(count)
        symbols = np.empty(count, np.int64)
        starts, frequencies = tables.flat
        index = np.broadcast_to(np.asarray(index, np.int64), (count,))
        first, row = index << BITS, index * tables.frequencies.shape[1]
        done = 0
        while done < count:
            x = self._run(count - done)
            now = slice(done, done + len(x))
            slots = x & (TOTAL - 1)
            found = tables.find(first[now] + slots)
            symbols[now] = found
            at = row[now] + found
            self._advance(x, slots, starts.take(at), frequencies.take(at))
            done += len(x)
        return symbols

    def get_bits(self, count: int, n_bits: Array | int) -> Array:
        """The next ``count`` numbers of ``n_bits`` ≤ 16 bits each."""
        self._ask(count)
        values = np.empty(count, np.int64)
        width = np.broadcast_to(np.asarray(n_bits, np.intp), (count,))
        done = 0
        while done < count:
            x = self._run(count - done)
            slots = x & (TOTAL - 1)
            one = TOTAL >> width[done : done + len(x)]
            value = slots // one
            values[done : done + len(x)] = value
            self._advance(x, slots, value * one, one)
            done += len(x)
        return values

    def get_by(self, cumulative: Array) -> Array:
        """The next symbols, one for each row of ``cumulative``, (count, symbols + 1).

        A row rises strictly from 0 to 2¹⁶: its own table, made for this symbol alone.
        """
        count, width = cumulative.shape
        self._ask(count)
        symbols = np.empty(count, np.int64)
        done = 0
        while done < count:
            x = self._run(count - done)
            slots = (x & (TOTAL - 1)).astype(cumulative.dtype)
            rows = cumulative[done : done + len(x)]
            found = (rows[:, 1 : width - 1] <= slots[:, None]).sum(axis=1)
            low = np.take_along_axis(rows, found[:, None], 1)[:, 0]
            high = np.take_along_axis(rows, found[:, None] + 1, 1)[:, 0]
            symbols[done : done + len(x)] = found
            self._advance(x, slots, low, high - low)
            done += len(x)
        return symbols

    def finish(self) -> None:
        """Refuse bytes that do not end where an encoder starts."""
        if self._used != len(self._words) or (self._states != LEAST).any():
            raise Corrupt("the coded symbols do not end as they should")

    def _ask(self, count: int) -> None:
        if self._left is None:
            return
        self._left -= count
        if self._left < 0:
            raise Corrupt("there are too few lanes for so many symbols")

    def _run(self, count: int) -> Array:
        """The states of the lanes whose turn it is, ``count`` of them at most."""
        return self._states[self._lane : self._lane + count]

    def _advance(self, x: Array, slots: Array, starts: Array, frequencies: Array) -> None:
        x = frequencies.astype(np.int64, copy=False) * (x >> BITS)
        x += (slots - starts).astype(np.int64, copy=False)
        hungry = x < LEAST
        wanted = int(np.count_nonzero(hungry))
        if wanted:
            words = self._words[self._used : self._used + wanted]
            if len(words) < wanted:
                raise Corrupt("the coded symbols end too early")
            x[hungry] = x[hungry] << BITS | words
            self._used += wanted
        self._states[self._lane : self._lane + len(x)] = x
        self._lane = (self._lane + len(x)) % len(self._states)
