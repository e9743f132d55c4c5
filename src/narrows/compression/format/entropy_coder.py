"""The entropy coder: interleaved rANS in NumPy, in integers only, and its frequency tables.

    coding a symbol of frequency f and start c:   x ↦ ⌊x / f⌋·2¹⁶ + (x mod f) + c

Every symbol has an interval [start, start + frequency) of [0, 2¹⁶) and costs 16 − log₂(frequency)
bits. Symbol t belongs to lane t mod L; a lane is one state x in [2¹⁶, 2³²), and all lanes step at
once. When a state would become too large, its low 16 bits are written as a word; all lanes share
one sequence of words, in the order in which the decoder needs them. Every state starts at 2¹⁶, so a
decoder that does not end there with all words used knows that the bytes are damaged.

Source: Duda, "Asymmetric numeral systems", arXiv:1311.2540; interleaving: Giesen, "Interleaved
entropy coders", arXiv:1402.3392.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from narrows.compression.format import Array
from narrows.exceptions import Corrupt

BITS = 16
TOTAL = 1 << BITS  # the sum of the frequencies of a table
MAX_LOOKUP_TABLES = 1024  # a lookup takes 64 or 128 KiB for each table
HEAD = struct.Struct("<HI")  # lanes, words
MIN_STATE = 1 << 16
MAX_LANES = 4096
BYTES_PER_LANE = 1800  # a lane costs about four bytes: 0.2 % of so many
EXTRA_LANES = 10  # for speed: they cost 40 bytes
SYMBOLS_PER_LANE = 4096  # above it lanes are added: each decoding step costs microseconds
MAX_SYMBOLS_PER_LANE = 65536


class Tables:
    """Tables of one width: ``frequencies`` (tables, symbols), each row summing to 2¹⁶.

    A symbol of frequency 0 cannot be coded. Raises ``Corrupt`` for anything else.
    """

    def __init__(self, frequencies: Array) -> None:
        frequencies = np.asarray(frequencies)
        fine = frequencies.ndim == 2 and frequencies.size > 0 and frequencies.dtype.kind in "ui"
        if not fine or (frequencies < 0).any() or (frequencies > TOTAL).any():
            raise Corrupt("a frequency table holds values that are not frequencies")
        if (frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise Corrupt("a frequency table does not sum to 65536")
        self.frequencies = frequencies.astype(np.uint32)
        ends = np.cumsum(self.frequencies, axis=1, dtype=np.uint32)
        # a last symbol of frequency 0 would start at 2¹⁶, too large for uint16; it is never coded
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
        """The end of each symbol's interval, all tables one after another."""
        ends = np.cumsum(self.frequencies, axis=1, dtype=np.int64)
        return (ends + (np.arange(len(self))[:, None] << BITS)).ravel()

    @cached_property
    def flat(self) -> tuple[Array, Array]:
        """Starts and frequencies as int64, all tables one after another."""
        return self.starts.ravel().astype(np.int64), self.frequencies.ravel().astype(np.int64)

    def find(self, slots: Array) -> Array:
        """The symbols whose intervals hold the slots, which are table · 2¹⁶ + position."""
        if len(self) <= MAX_LOOKUP_TABLES:
            return np.asarray(self.lookup.take(slots))
        # slower, but the lookup of the many tables that a small file may ask for fills the memory
        found = self._ends.searchsorted(slots, side="right")
        return np.asarray(found - (slots >> BITS) * self.frequencies.shape[1])


def frequencies_of(counts: Array) -> Array:
    """Counts (..., symbols) as frequencies that sum to 2¹⁶; a count above 0 keeps at least 1.

    Used only when a model or a file is written; readers get the integers.

    >>> frequencies_of(np.array([[3, 0, 1]]))
    array([[49152,     0, 16384]], dtype=uint32)
    """
    counts = np.asarray(counts, np.float64)
    seen = counts > 0
    if not seen.any(axis=-1).all():
        raise ValueError("a frequency table needs at least one count above 0")
    share = counts / counts.sum(axis=-1, keepdims=True) * (TOTAL - seen.sum(-1, keepdims=True))
    frequencies = np.floor(share).astype(np.int64) + seen
    # the rest that rounding left goes to the largest, which it changes least
    left = TOTAL - frequencies.sum(axis=-1, keepdims=True)
    frequencies += left * (np.arange(counts.shape[-1]) == frequencies.argmax(-1)[..., None])
    return np.asarray(frequencies, np.uint32)


def n_lanes(n_symbols: int, n_bytes: float) -> int:
    """How many lanes to use for this many symbols in about this many bytes."""
    cheap = int(n_bytes) // BYTES_PER_LANE
    faster = min(n_symbols // SYMBOLS_PER_LANE, cheap + EXTRA_LANES, int(n_bytes) // 128)
    wanted = max(cheap, faster, -(-n_symbols // MAX_SYMBOLS_PER_LANE), 1)
    return min(wanted, MAX_LANES, max(1, n_symbols))


class Encoder:
    """Collects symbols in the order in which they will be decoded; ``finish`` gives the bytes."""

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
            raise ValueError("a symbol of frequency 0 cannot be coded")
        self.put(tables.starts[index, symbols], frequencies)

    def put_bits(self, values: Array, n_bits: Array | int) -> None:
        """Numbers of n_bits ≤ 16 bits each, all equally likely."""
        values = np.asarray(values, np.uint32)
        width = np.asarray(n_bits, np.uint32)
        one = np.broadcast_to(np.uint32(TOTAL) >> width, values.shape)
        self.put(values * one, one)

    @property
    def bits(self) -> float:
        """The cost of the symbols so far by their frequencies, in bits."""
        return sum(float((BITS - np.log2(f)).sum()) for f in self._frequencies if len(f))

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def finish(self, lanes: int | None = None) -> bytes:
        """All symbols as bytes; more ``lanes`` decode faster and cost about four bytes each."""
        empty_start, empty = np.empty(0, np.uint16), np.empty(0, np.uint32)
        starts = np.concatenate([empty_start, *self._starts])
        frequencies = np.concatenate([empty, *self._frequencies])
        n = len(starts)
        lanes = lanes or n_lanes(n, self.bits / 8)
        states = np.full(lanes, MIN_STATE, np.int64)
        words: list[Array] = []
        for first in reversed(range(0, n, lanes)):
            f = frequencies[first : first + lanes].astype(np.int64)
            x = states[: len(f)]
            over = x >= f << BITS
            if over.any():
                words.append(x[over].astype("<u2")[::-1])  # the low 16 bits
                x >>= BITS * over
            # ⌊x / f⌋ in float64, exact for x below 2³²: faster than a division of integers
            quotient = (x / f).astype(np.int64)
            x += quotient * (TOTAL - f)  # quotient · 2¹⁶ + (x − quotient · f)
            x += starts[first : first + lanes]
        stream = np.concatenate([np.empty(0, "<u2"), *words])[::-1]
        return HEAD.pack(lanes, len(stream)) + states.astype("<u4").tobytes() + stream.tobytes()


class Decoder:
    """Decodes what an `Encoder` wrote; the calls must come in the same order.

    Raises ``Corrupt`` for bytes that no encoder writes.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < HEAD.size:
            raise Corrupt("the coded symbols are cut short")
        lanes, n_words = HEAD.unpack_from(data)
        if not 0 < lanes <= MAX_LANES or len(data) != HEAD.size + 4 * lanes + 2 * n_words:
            raise Corrupt("the coded symbols do not have the length that they state")
        # int64 throughout: states stay below 2⁴⁸, and indices need no conversion
        self._states = np.frombuffer(data, "<u4", lanes, HEAD.size).astype(np.int64)
        if (self._states < MIN_STATE).any():
            raise Corrupt("the coded symbols start in an impossible state")
        self._words = np.frombuffer(data, "<u2", n_words, HEAD.size + 4 * lanes).astype(np.int64)
        # a symbol may cost no bits: this limit alone bounds the time that a few bytes can ask for
        self._left = lanes * MAX_SYMBOLS_PER_LANE if lanes < MAX_LANES else None
        self._lane = 0
        self._used = 0

    def get(self, count: int, tables: Tables, index: Array | int = 0) -> Array:
        """The next ``count`` symbols; ``index`` is the table of each of them, or of all."""
        self._count(count)
        symbols = np.empty(count, np.int64)
        starts, frequencies = tables.flat
        index = np.broadcast_to(np.asarray(index, np.int64), (count,))
        first, row = index << BITS, index * tables.frequencies.shape[1]
        for now, x, slots in self._steps(count):
            found = symbols[now] = tables.find(first[now] + slots)
            at = row[now] + found
            self._advance(x, slots, starts.take(at), frequencies.take(at))
        return symbols

    def get_bits(self, count: int, n_bits: Array | int) -> Array:
        """The next ``count`` numbers of ``n_bits`` ≤ 16 bits each."""
        self._count(count)
        values = np.empty(count, np.int64)
        width = np.broadcast_to(np.asarray(n_bits, np.intp), (count,))
        for now, x, slots in self._steps(count):
            one = TOTAL >> width[now]
            value = values[now] = slots // one
            self._advance(x, slots, value * one, one)
        return values

    def get_by(self, sums: Array, totals: Array) -> Array:
        """The next symbols, one for each column of ``sums``, (symbols + 1, count), in float64.

        Symbol q of a column has the interval from ⌊sums[q] / total⌋ to ⌊sums[q + 1] / total⌋. These
        are whole numbers that rise from 0 to 2¹⁶ · total: a frequency table for this symbol alone.
        """
        width, count = sums.shape
        self._count(count)
        symbols = np.empty(count, np.int64)
        column, flat = np.arange(count), sums.ravel()
        for now, x, slots in self._steps(count):
            total = totals[now]
            passed = sums[1 : width - 1, now] < (slots + 1) * total  # ⌊a / b⌋ ≤ c: a < (c + 1)·b
            symbols[now] = passed.view(np.uint8).sum(axis=0, dtype=np.uint16)
            at = symbols[now] * count + column[now]
            low = (flat.take(at) / total).astype(np.int64)
            high = (flat.take(at + count) / total).astype(np.int64)
            self._advance(x, slots, low, high - low)
        return symbols

    def _count(self, count: int) -> None:
        """Refuse to decode more symbols than the lanes allow; before any memory is taken."""
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise Corrupt("the coded symbols have too few lanes for their number")

    def _steps(self, count: int) -> Iterator[tuple[slice, Array, Array]]:
        """For ``count`` symbols: (which of them, the states of their lanes, the slots in them)."""
        done = 0
        while done < count:
            x = self._states[self._lane : self._lane + count - done]
            yield slice(done, done + len(x)), x, x & (TOTAL - 1)
            done += len(x)

    def finish(self) -> None:
        """Raise Corrupt unless all words are used and all states are back at the start."""
        if self._used != len(self._words) or (self._states != MIN_STATE).any():
            raise Corrupt("the coded symbols do not end as they should")

    def _advance(self, x: Array, slots: Array, starts: Array, frequencies: Array) -> None:
        x = frequencies.astype(np.int64, copy=False) * (x >> BITS)
        x += (slots - starts).astype(np.int64, copy=False)
        low = x < MIN_STATE
        wanted = int(np.count_nonzero(low))
        if wanted:
            words = self._words[self._used : self._used + wanted]
            if len(words) < wanted:
                raise Corrupt("the coded symbols end too early")
            x[low] = x[low] << BITS | words
            self._used += wanted
        self._states[self._lane : self._lane + len(x)] = x
        self._lane = (self._lane + len(x)) % len(self._states)
