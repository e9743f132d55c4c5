"""The entropy coder: what goes in comes out, costs what it should, and damage is noticed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.compression.format.entropy_coder import (
    MAX_LANES,
    Decoder,
    Encoder,
    Tables,
    frequencies_of,
    n_lanes,
)
from narrows.exceptions import Corrupt


def tables_of(seed: int, n: int = 7, width: int = 20) -> Tables:
    return Tables(frequencies_of(np.random.default_rng(seed).random((n, width)) ** 8 + 1e-4))


def drawn(tables: Tables, n: int, seed: int) -> tuple[Any, Any]:
    """Symbols that follow their tables, and which table each has."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(tables), n)
    return tables.find((index << 16) + rng.integers(0, 65536, n)), index


@given(seed=st.integers(0, 9999), sizes=st.lists(st.integers(0, 3000), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_is_put_in_comes_out(seed: int, sizes: list[int]) -> None:
    """Symbols by table, plain bits, and tables made for one symbol, in any portions."""
    tables = tables_of(seed)
    rng = np.random.default_rng(seed)
    encoder, parts = Encoder(), []
    for i, n in enumerate(sizes):
        symbols, index = drawn(tables, n, seed + i)
        width = rng.integers(0, 17, n)
        values = rng.integers(0, 1 << width) if n else width
        rows = np.sort(rng.choice(65535, (n, 4)) + 1, axis=1)
        rows += np.arange(4)  # strictly rising
        rows = np.concatenate(
            [np.zeros((n, 1), int), rows.clip(max=65532 + np.arange(4)), np.full((n, 1), 65536)], 1
        )
        own = rng.integers(0, 5, n)
        low, high = rows[np.arange(n), own], rows[np.arange(n), own + 1]
        encoder.put_symbols(symbols, tables, index)
        encoder.put_bits(values, width)
        encoder.put(low, high - low)
        parts.append((n, symbols, index, values, width, rows, own))
    decoder = Decoder(encoder.finish())
    for n, symbols, index, values, width, rows, own in parts:
        assert (decoder.get(n, tables, index) == symbols).all()
        assert (decoder.get_bits(n, width) == values).all()
        totals = rng.integers(1, 1 << 24, n)
        # the smallest and the largest sums whose quotients are these
        sums = rows * totals[:, None] + np.where(rows < 65536, totals[:, None] - 1, 0) * (n % 2)
        sums[:, 0] = 0
        assert (decoder.get_by(sums.T.astype(float), totals.astype(float)) == own).all()
    decoder.finish()


def test_bytes_are_what_the_tables_say() -> None:
    tables = tables_of(1)
    symbols, index = drawn(tables, 400_000, 2)
    encoder = Encoder()
    encoder.put_symbols(symbols, tables, index)
    size = len(encoder.finish())
    cost = -np.log2(tables.frequencies[index, symbols] / 65536).sum() / 8
    assert encoder.bits / 8 == pytest.approx(cost)
    assert cost < size < 1.005 * cost + 64


def test_what_is_certain_costs_nothing() -> None:
    sure = Tables(np.array([[0, 65536]]))
    encoder = Encoder()
    encoder.put_symbols(np.ones(100_000, int), sure)
    data = encoder.finish()
    assert len(data) <= 6 + 4 * n_lanes(100_000, 0)
    assert (Decoder(data).get(100_000, sure) == 1).all()


def test_a_symbol_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="frequency 0"):
        Encoder().put_symbols(np.zeros(1, int), Tables(np.array([[0, 65536]])))


def test_lanes_follow_the_data() -> None:
    assert n_lanes(0, 0) == n_lanes(1, 10.0) == n_lanes(1000, 100.0) == 1
    assert n_lanes(10**9, 0) == n_lanes(10**9, 1e9) == MAX_LANES
    assert n_lanes(10**6, 12_000) > 1


@pytest.mark.parametrize("n", [1, 50, 1000])
def test_every_flipped_bit_is_noticed(n: int) -> None:
    """By the length, an impossible state, a word too few or too many, or the states at the end."""
    tables = tables_of(3)
    symbols, index = drawn(tables, n, 4)
    encoder = Encoder()
    encoder.put_symbols(symbols, tables, index)
    data = encoder.finish()
    rng = np.random.default_rng(5)
    for bit in rng.choice(8 * len(data), min(150, 8 * len(data)), replace=False):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decoder = Decoder(bytes(damaged))
            decoder.get(n, tables, index)
            decoder.finish()


def test_the_bytes_never_change() -> None:
    """What these symbols are coded to, by as many lanes, is part of the format."""
    width = np.arange(1, 41)
    tables = Tables(frequencies_of(np.stack([width, width[::-1] ** 2])))
    n = 3000
    symbols = np.arange(n) * 7919 % 40
    encoder = Encoder()
    encoder.put_symbols(symbols, tables, np.arange(n) % 2)
    encoder.put_bits(np.arange(100), 7)
    assert hashlib.sha256(encoder.finish(lanes=3)).hexdigest()[:16] == "cdf5898ac0f15c25"
