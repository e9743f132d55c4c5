"""Coded integers: exact for all of int64, whatever the shape; damage is seen."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from helpers import integer_decoder as plain_decoder
from narrows.compression.format.integer_arrays import (
    coded,
    decode_integers,
    encode_integers,
    simple,
    smallest,
)
from narrows.compression.format.predictors import (
    COLUMNS,
    CUBIC,
    LINE,
    NEIGHBOURS,
    ZERO,
    Plan,
    difference,
    interpolate,
    passes,
    undo_difference,
)
from narrows.compression.format.residual_tokens import (
    codes_of,
    log2_floor,
    tables_from,
    tokens_of,
    unzigzag,
    weights_of,
    zigzag,
)
from narrows.exceptions import Corrupt

ENDS = [-(2**63), -(2**63) + 1, -(2**62), -1, 0, 1, 2**62, 2**63 - 1]
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.sampled_from(ENDS)
ARRAYS = arrays(
    np.int64, array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9), elements=INTEGERS
)
PLANS = [
    Plan(),
    Plan(1),
    Plan(3, context=COLUMNS),
    Plan(7, (2, 1, 0), context=NEIGHBOURS),
    Plan(5, (0, 1, 2), context=NEIGHBOURS, shift=3, block=3),
    Plan(0, (0, 1, 2), (CUBIC,) * 4, NEIGHBOURS),
    Plan(0, (2,), (LINE, CUBIC, ZERO, LINE), NEIGHBOURS, block=2),
    Plan(0, (1, 2), (CUBIC, LINE, LINE, LINE), COLUMNS, alpha=8, beta=48),
    Plan(0, (2, 0), (LINE,) * 4),
]


def field(*shape: int) -> NDArray[np.int64]:
    """A smooth one with some noise, not the same along its axes."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    noise = np.random.default_rng(0).normal(size=shape)
    waves = sum(np.sin(a / (3 + 2 * i)) for i, a in enumerate(axes))
    return np.rint(50 * waves + noise).astype(np.int64)


@settings(max_examples=40)
@given(ARRAYS)
def test_all_integers_come_back(q: NDArray[np.int64]) -> None:
    assert (decode_integers(encode_integers(q), q.shape) == q).all()


@settings(max_examples=40)
@given(ARRAYS)
def test_a_prediction_is_taken_off_and_put_back(q: NDArray[np.int64]) -> None:
    guess = np.roll(q, 1) + 3
    payload = encode_integers(q, guess)
    assert (decode_integers(payload, q.shape, guess) == q).all()


def test_a_right_prediction_costs_nothing() -> None:
    q = np.random.default_rng(0).integers(-(2**60), 2**60, (20, 30))
    assert len(encode_integers(q, q)) <= 4


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 2, 7), (17, 16, 33), (2, 64, 3)])
def test_every_way_is_exact(plan: Plan, shape: tuple[int, ...]) -> None:
    extremes = np.random.default_rng(1).choice(ENDS, shape)
    for q in (field(*shape), extremes, np.zeros(shape, np.int64)):
        assert (decode_integers(coded(q, plan, 1, None), shape) == q).all()


@pytest.mark.parametrize("mask", range(8))
def test_the_ways_without_tables_are_exact(mask: int) -> None:
    q = field(5, 6, 7)
    for payload in simple(q, [mask]):
        assert (decode_integers(payload, q.shape) == q).all()


@pytest.mark.parametrize("step", [3, 9, 127, 255])
def test_a_step_keeps_every_integer_near(step: int) -> None:
    q = field(30, 40) * 40 + np.random.default_rng(1).integers(0, 40, (30, 40))
    payload = encode_integers(q, step=step)
    back = decode_integers(payload, q.shape, step=step)
    assert 0 < abs(back - q).max() <= step // 2
    assert len(payload) < len(encode_integers(q))


def test_what_is_free_costs_nothing() -> None:
    q = field(40, 50)
    free = np.zeros(q.shape, bool)
    free[10:30, 10:40] = True
    wild = np.where(free, np.random.default_rng(0).integers(-500, 500, q.shape), q)
    payload = encode_integers(wild, step=3, free=free)
    back = decode_integers(payload, q.shape, step=3)
    assert abs(back - q)[~free].max() <= 1
    assert len(payload) < len(encode_integers(q, step=3))


def test_a_palette_of_few_values_far_apart() -> None:
    q = np.random.default_rng(0).choice([-(10**15), 7, 123456, 2**62], (60, 70))
    payload = smallest(q)
    assert len(payload) < 60 * 70 / 4 + 120
    assert (decode_integers(payload, q.shape) == q).all()


def test_lorenzo_leaves_nothing_of_a_plane_and_lines_nothing_of_a_line() -> None:
    x, y = np.meshgrid(np.arange(9), np.arange(7), indexing="ij")
    assert not difference(4 * x - 3 * y + 2, 3)[1:, 1:].any()
    assert not difference(x * 5 + y**2, 3)[1:, 1:].any()
    line = 6 * np.arange(0, 40, 2)
    assert (interpolate(line, 0, 19, LINE) == line[:-1] + 6).all()


def test_cubics_leave_nothing_of_a_cubic() -> None:
    at = np.arange(-20, 21)
    cubic = 16 * at**3 - 48 * at**2 + 32 * at + 5
    inside = interpolate(cubic[::2], 0, 20, CUBIC)[1:-1]
    assert (inside == cubic[1::2][1:-1]).all()
    square = 16 * at**2 - 32 * at + 5
    assert (interpolate(square[::2], 0, 20, CUBIC) == square[1::2]).all()


@given(ARRAYS.filter(lambda q: q.ndim > 0 and q.ndim < 5), st.integers(0, 15))
def test_differences_are_undone_whatever_overflows(q: NDArray[np.int64], mask: int) -> None:
    assert (undo_difference(difference(q, mask), mask) == q).all()


@given(array_shapes(min_dims=1, max_dims=4, max_side=9), st.data())
def test_passes_reach_every_element_once(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(len(shape))))
    order = axes[: data.draw(st.integers(0, len(axes)))]
    seen = np.zeros(shape, int)
    for one in passes(shape, order):
        seen[one.target] += 1
    assert (seen == 1).all()


@given(st.lists(INTEGERS, min_size=1))
def test_zigzag_and_tokens(values: list[int]) -> None:
    t = np.array(values, np.int64)
    z = zigzag(t)
    assert (unzigzag(z) == t).all()
    assert [int(v) for v in z] == [2 * v if v >= 0 else -2 * v - 1 for v in values]
    tokens, n_bits = tokens_of(z)
    for v, token, n in zip(map(int, z), tokens, n_bits, strict=True):
        if v < 16:
            assert (token, n) == (v, 0)
        else:
            e = v.bit_length() - 1
            assert (token, n) == (4 * e + (v >> e - 2) - 4, e - 2)


def test_log2_is_exact_at_all_powers() -> None:
    for e in range(64):
        some = [2**e, 2**e + 2**e // 3, 2 ** (e + 1) - 1]
        assert (log2_floor(np.array(some, np.uint64)) == e).all()


@given(arrays(np.int64, (3, 20), elements=st.integers(0, 10**6)).filter(lambda c: c.any(1).all()))
def test_tables_are_near_their_counts(counts: NDArray[np.int64]) -> None:
    codes = codes_of(counts)
    tables = tables_from(codes)  # refuses what does not sum to 2^16
    assert ((tables.frequencies > 0) == (counts > 0)).all()
    assert (codes_of(weights_of(codes)) > 0).sum() == (counts > 0).sum()


def test_small_arrays_are_small() -> None:
    assert len(encode_integers(np.arange(10) + 10**6)) <= 8
    assert len(encode_integers(np.full((50, 60), 7))) <= 4
    assert len(encode_integers(np.array(3))) <= 3
    assert encode_integers(np.empty((3, 0))) == b""


SAMPLES = [field(12, 13), field(9, 10, 11), np.full((40,), 3), np.arange(10) * 10**9]
SAMPLES += [np.random.default_rng(0).choice([0, 1000, 10**8], (30, 30))]


@cache
def sample(which: int) -> bytes:
    return encode_integers(SAMPLES[which])


@settings(max_examples=60)
@given(st.sampled_from(range(len(SAMPLES))), st.data())
def test_damage_is_corrupt_or_harmless(which: int, data: st.DataObject) -> None:
    """Whatever the bytes: integers of the right shape, or `Corrupt`."""
    q = SAMPLES[which]
    payload = bytearray(sample(which))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for bad in (bytes(payload), bytes(payload[:cut]), bytes(payload[cut:])):
        refused_or_whole(bad, q.shape)


@given(st.binary(max_size=60), array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
def test_any_bytes_are_corrupt_or_integers(payload: bytes, shape: tuple[int, ...]) -> None:
    refused_or_whole(payload, shape)


def refused_or_whole(payload: bytes, shape: tuple[int, ...]) -> None:
    for step in (1, 127):
        try:
            out = decode_integers(payload, shape, step=step)
        except Corrupt:
            continue
        assert out.shape == shape
        assert out.dtype == np.int64


def test_flips_in_coded_symbols_are_noticed() -> None:
    """Nearly all: one among symbols of the same frequency leads to the same end."""
    q = field(30, 30) // 8
    payload = coded(q, Plan(3, (0, 1), context=NEIGHBOURS), 1, None)
    silent = 0
    for at in range(len(payload) - 100, len(payload)):
        bad = bytearray(payload)
        bad[at] ^= 1 << at % 8
        with contextlib.suppress(Corrupt):
            silent += decode_integers(bytes(bad), q.shape) is not None
    assert silent <= 5


def test_a_payload_for_another_shape_is_corrupt() -> None:
    payload = encode_integers(field(20, 21))
    for shape in ((20, 20), (0,), (3,), (20, 22), (2000, 2000)):
        with pytest.raises(Corrupt):
            decode_integers(payload, shape)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("step", [1, 127])
def test_a_decoder_written_from_the_format_alone_agrees(plan: Plan, step: int) -> None:
    if plan.mask and step > 1:
        return
    for q in (60 * field(6, 7, 9), np.random.default_rng(1).choice(ENDS[2:-1], (3, 5, 6))):
        payload = coded(q, plan, step, None)
        ours = decode_integers(payload, q.shape, step=step)
        assert ours.ravel().tolist() == plain_decoder.decode(payload, q.shape, step)


@pytest.mark.parametrize("q", SAMPLES[2:])
def test_that_decoder_knows_the_other_forms(q: NDArray[np.int64]) -> None:
    ways = [encode_integers(q), *simple(q, range(1 << q.ndim))]
    for payload in ways:
        assert plain_decoder.decode(payload, q.shape) == q.ravel().tolist()
