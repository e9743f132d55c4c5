"""Residuals as tokens and raw bits, and the frequency tables for the contexts of the tokens.

    z = 2t for t ≥ 0, −2t − 1 for t < 0;    z < 16 is its own token;
    else e = ⌊log₂ z⌋, token = 4e + ⌊z / 2^(e − 2)⌋ − 4, and the e − 2 bits below follow raw

A context is a small number that the decoder knows before the token: how large the residuals around
are, or the column. Each context selects one of at most 32 tables, which are at the start of the
payload and take about half a byte a token.
"""

from __future__ import annotations

from itertools import pairwise
from math import log2

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.entropy_coder import (
    MAX_LANES,
    TOTAL,
    Decoder,
    Encoder,
    Tables,
    n_lanes,
)
from narrows.exceptions import Corrupt

DIRECT = 16  # z below it is its own token
TOKENS = 256
CLASSES = 256  # classes of a context, at most
GROUPS = 18  # kinds of pass, each with its own contexts
BLOCKS = 17  # the last group: which blocks are not all 0
MAX_TABLES = 32
CODES = 61  # values by which a table's description states a frequency
FAST_STEPS, FAST_BYTES = 1024, 100  # symbols and bytes for each lane that is added for speed
TOKEN_BITS, TABLE_BITS, RUN_BITS = 4.0, 8.0, 6.0  # estimated cost of describing the tables


def zigzag(t: Array) -> Array:
    """Signed integers as unsigned ones: 0, −1, 1, −2, ... become 0, 1, 2, 3, ..."""
    t = np.asarray(t, np.int64)
    return np.asarray(((t << 1) ^ (t >> 63)).view(np.uint64))


def unzigzag(z: Array) -> Array:
    """The inverse of `zigzag`."""
    z = np.asarray(z, np.uint64)
    half: Array = (z >> np.uint64(1)).view(np.int64)
    return half ^ -(z & np.uint64(1)).view(np.int64)


def log2_floor(z: Array) -> Array:
    """⌊log₂ z⌋ of integers from 1 to 2⁶⁴ − 1, exactly."""
    z = np.asarray(z, np.uint64)
    high = z >> np.uint64(32)
    part = np.where(high > 0, high, z)  # below 2³²: exact in float64, whose exponent is wanted
    return (part.astype(np.float64).view(np.int64) >> 52) - 1023 + 32 * (high > 0)


def tokens_of(z: Array) -> tuple[Array, Array]:
    """(tokens, number of raw bits of each) of unsigned integers, flattened."""
    z = z.ravel()
    tokens = z.astype(np.uint8).astype(np.int64)
    n_bits = np.zeros(len(z), np.int64)
    large = np.flatnonzero(z >= DIRECT)
    if len(large):
        e = log2_floor(z[large])
        top = (z[large] >> (e - 2).astype(np.uint64)).astype(np.int64)
        tokens[large] = 4 * e + top - 4
        n_bits[large] = e - 2
    return tokens, n_bits


RAW_BITS = np.maximum(np.arange(TOKENS) // 4 - 2, 0) * (np.arange(TOKENS) >= DIRECT)


def put_raw(encoder: Encoder, z: Array, n_bits: Array) -> None:
    """The bits below the tokens, sixteen at a time, the lowest first."""
    z = z.ravel()
    for low in range(0, 64, 16):
        left = np.flatnonzero(n_bits > low)
        if not len(left):
            return
        width = np.minimum(n_bits[left] - low, 16)
        part = (z[left] >> np.uint64(low)) & (
            (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1)
        )
        encoder.put_bits(part, width)


def get_values(decoder: Decoder, tokens: Array) -> Array:
    """Signed integers from their tokens and the raw bits that follow."""
    if not len(tokens) or tokens.max() < DIRECT:
        return (tokens >> 1) ^ -(tokens & 1)
    z = tokens.astype(np.uint64)
    large = np.flatnonzero(tokens >= DIRECT)
    some = tokens[large]
    n_bits = RAW_BITS[some]
    value = (4 + (some & 3)).astype(np.uint64) << n_bits.astype(np.uint64)
    for low in range(0, 64, 16):
        left = np.flatnonzero(n_bits > low)
        if not len(left):
            break
        part = decoder.get_bits(len(left), np.minimum(n_bits[left] - low, 16))
        value[left] |= part.astype(np.uint64) << np.uint64(low)
    z[large] = value
    return unzigzag(z)


def lanes_for(encoder: Encoder) -> int:
    """The number of lanes that makes decoding fast for at most 3 % more bytes."""
    n, n_bytes = len(encoder), encoder.bits / 8
    quick = min(n // FAST_STEPS, int(n_bytes) // FAST_BYTES)
    return max(1, min(max(n_lanes(n, n_bytes), quick), MAX_LANES))


def _numbers() -> Tables:
    """The table of side information: k with probability 1 / ((k + 1)(k + 2)), the rest at 255."""
    k = np.arange(257)
    ends = TOTAL * k // (k + 1)
    ends[256] = TOTAL
    return Tables(np.diff(ends)[None])


NUMBERS = _numbers()


def weights_of(codes: Array) -> Array:
    """Codes 0..60 of frequencies as weights: 0, 1, 2, 3, then 2-bit mantissas, up to 2¹⁶."""
    codes = np.asarray(codes, np.int64)
    large = np.maximum(codes - 4, 0)
    return np.where(codes < 4, codes, (4 + (large & 3)) << (large >> 2))


WEIGHTS = weights_of(np.arange(CODES))


def tables_from(codes: Array) -> Tables:
    """Tables from codes (tables, tokens): shares of 2¹⁶; the rest goes to the first largest."""
    weight = weights_of(codes)
    total = weight.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise Corrupt("a table of residuals is empty")
    seen = weight > 0
    frequencies = weight * (TOTAL - seen.sum(axis=1, keepdims=True)) // total + seen
    rows = np.arange(len(codes))
    frequencies[rows, weight.argmax(axis=1)] += TOTAL - frequencies.sum(axis=1)
    return Tables(frequencies)


def codes_of(counts: Array) -> Array:
    """The nearest codes of counts (tables, tokens); a count above 0 never gets code 0."""
    share = counts * (TOTAL / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    middle = np.sqrt(WEIGHTS[1:-1] * WEIGHTS[2:].astype(np.float64))
    return np.where(counts > 0, 1 + np.searchsorted(middle, share), 0)


def put_tables(encoder: Encoder, codes: Array, maps: Array) -> None:
    """Write the tables, and which table each class of each group uses, as runs."""
    widths = codes.shape[1] - (codes[:, ::-1] > 0).argmax(axis=1)
    deltas = [np.diff(row[:width], prepend=0) for row, width in zip(codes, widths, strict=True)]
    runs = [np.flatnonzero(np.diff(row, append=-1)) for row in maps]

    def put(numbers: Array | list[int]) -> None:
        encoder.put_symbols(np.asarray(numbers, np.int64), NUMBERS)

    put([len(codes) - 1])
    put(widths - 1)
    put(zigzag(np.concatenate(deltas)).astype(np.int64))
    put([len(run) - 1 for run in runs])
    # the last run of a group ends at the last class, so its end is not written
    put(np.concatenate([np.diff(run[:-1], prepend=-1) - 1 for run in runs]))
    put(np.concatenate([row[run] for row, run in zip(maps, runs, strict=True)]))


def get_tables(decoder: Decoder) -> tuple[Tables, Array]:
    """What `put_tables` wrote: the tables and (groups, classes) → table."""
    n_tables = int(decoder.get(1, NUMBERS)[0]) + 1
    if n_tables > MAX_TABLES:
        raise Corrupt(f"there are {n_tables} tables of residuals; at most {MAX_TABLES} are allowed")
    widths = decoder.get(n_tables, NUMBERS) + 1
    deltas = unzigzag(decoder.get(int(widths.sum()), NUMBERS).astype(np.uint64))
    codes = np.zeros((n_tables, int(widths.max())), np.int64)
    for row, part in zip(codes, np.split(deltas, np.cumsum(widths)[:-1]), strict=True):
        row[: len(part)] = np.cumsum(part)
    if (codes < 0).any() or (codes >= CODES).any():
        raise Corrupt("a table of residuals holds values that are not frequencies")
    n_runs = decoder.get(GROUPS, NUMBERS) + 1
    lengths = decoder.get(int(n_runs.sum()) - GROUPS, NUMBERS) + 1
    ids = decoder.get(int(n_runs.sum()), NUMBERS)
    if (ids >= n_tables).any():
        raise Corrupt("a context uses a table that does not exist")
    maps = np.empty((GROUPS, CLASSES), np.int64)
    for row, length, mine in zip(
        maps,
        np.split(lengths, np.cumsum(n_runs - 1)[:-1]),
        np.split(ids, np.cumsum(n_runs)[:-1]),
        strict=True,
    ):
        if length.sum() >= CLASSES:
            raise Corrupt("a context has too many classes")
        row[:] = np.repeat(mine, [*length, CLASSES - length.sum()])
    return tables_from(codes), maps


def _bits(row: Array) -> float:
    """The cost in bits of a row of counts with its own table, the table included."""
    used = row[row > 0]
    n = float(used.sum())
    entropy = n * log2(max(n, 1.0)) - float(used @ np.log2(used))
    return entropy + TOKEN_BITS * len(used) + TABLE_BITS


def _merge(counts: Array, bonus: float) -> list[list[int]]:
    """Runs of rows that share a table; neighbouring rows should be similar.

    Merges the pair that costs fewest extra bits, while that is less than ``bonus`` or there are
    more than MAX_TABLES rows.
    """
    runs = [[i] for i in range(len(counts))]
    rows = list(counts.astype(np.float64))
    cost = [_bits(row) for row in rows]
    gain = [_bits(a + b) for a, b in pairwise(rows)]
    gain = [both - cost[i] - cost[i + 1] for i, both in enumerate(gain)]
    while len(rows) > 1:
        i = gain.index(min(gain))
        if gain[i] >= bonus and len(rows) <= MAX_TABLES:
            break
        rows[i : i + 2] = [rows[i] + rows[i + 1]]
        runs[i : i + 2] = [runs[i] + runs[i + 1]]
        cost[i : i + 2] = [_bits(rows[i])]
        del gain[i]
        for j in (i - 1, i):
            if 0 <= j < len(gain):
                gain[j] = _bits(rows[j] + rows[j + 1]) - cost[j] - cost[j + 1]
    return runs


def cluster(counts: Array, ordered: bool) -> tuple[Array, Array, float]:
    """(counts of the tables, map (groups, classes) → table, bits) from (groups, classes, tokens).

    ``ordered``: neighbouring classes are similar; if not, they are sorted first.
    """
    rows: list[Array] = []
    owners: list[tuple[int, list[int]]] = []
    for group, mine in enumerate(counts):
        used = np.flatnonzero(mine.any(axis=1))
        if ordered:
            for run in _merge(mine[used], RUN_BITS):
                owners.append((group, [int(used[i]) for i in run]))
                rows.append(mine[used[run]].sum(axis=0))
        else:
            owners += [(group, [int(c)]) for c in used]
            rows += list(mine[used])
    table = np.asarray(rows)
    order = np.argsort(table @ np.arange(table.shape[1]) / table.sum(axis=1), kind="stable")
    maps = np.zeros(counts.shape[:2], np.int64)
    seen = np.zeros(counts.shape[:2], bool)
    sums = []
    for new, run in enumerate(_merge(table[order], 0.0)):
        sums.append(table[order[run]].sum(axis=0))
        for member in order[run]:
            group, classes = owners[int(member)]
            maps[group, classes] = new
            seen[group, classes] = True
    _fill(maps, seen)
    bits = sum(map(_bits, sums)) + RUN_BITS * float((np.diff(maps, axis=1) != 0).sum())
    return np.asarray(sums), maps, float(bits)


def _fill(maps: Array, seen: Array) -> None:
    """Classes that never occur use the table of the class before, which costs no run."""
    at = np.where(seen, np.arange(maps.shape[1]), -1)
    np.maximum.accumulate(at, axis=1, out=at)
    first = np.where(seen.any(axis=1), seen.argmax(axis=1), 0)[:, None]
    maps[:] = np.take_along_axis(maps, np.where(at < 0, first, at), 1)
