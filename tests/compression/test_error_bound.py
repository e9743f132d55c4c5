"""Numbers within a largest error, and without one: every shape and dtype, whatever the values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from narrows.compression.format import error_bound as grid
from narrows.compression.format.error_bound import decode_bounded, encode_bounded
from narrows.compression.format.lossless import (
    decode_exact,
    decode_lossless,
    encode_exact,
    encode_lossless,
    from_ordered,
    from_real,
    get_exceptions,
    put_exceptions,
    real_form,
    to_ordered,
    to_real,
)
from narrows.exceptions import Corrupt

Array = NDArray[Any]
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
FLOATS = ["f2", "f4", "f8"]
DTYPES = ["?", *INTEGERS, *FLOATS, "c8", "c16", ">f4", ">i2", ">u8", ">c16", ">f8"]
ERRORS = [0.0, 1e-300, 1e-12, 1e-3, 0.5, 1.0, 3.7, 1e5, 2.0**62, 1e19, 1e300, float("inf")]
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


def distances(x: Array, back: Array) -> Array:
    """Per element, exact enough: 0 where the bits are the same, NaN never."""
    if x.dtype.kind in "iub":
        pairs = zip(x.ravel().tolist(), back.ravel().tolist(), strict=True)
        return np.array([float(abs(int(a) - int(b))) for a, b in pairs])
    kind = x.dtype.newbyteorder("=")
    x, back = np.ascontiguousarray(x, kind).ravel(), np.ascontiguousarray(back, kind).ravel()
    real = f"f{x.itemsize // 2}" if kind.kind == "c" else kind.str
    same = x.view(f"u{np.dtype(real).itemsize}") == back.view(f"u{np.dtype(real).itemsize}")
    a, b = x.view(real).astype(np.longdouble), back.view(real).astype(np.longdouble)
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.where(same, 0, abs(a - b))
        return np.hypot(far[::2], far[1::2]) if kind.kind == "c" else far


def within(x: Array, error: float, prediction: Array | None = None) -> bytes:
    """Encode, decode, and hold every element to the bound."""
    payload = encode_bounded(x, error, prediction)
    back = decode_bounded(payload, x.shape, x.dtype, error, prediction)
    assert back.shape == x.shape
    assert back.dtype == x.dtype
    assert not (distances(x, back) > error).any()
    assert not np.isnan(distances(x, back)).any()
    return payload


def exact(x: Array) -> bytes:
    """Encode and decode without loss, by the method that was chosen."""
    method, payload = encode_lossless(x)
    back = decode_lossless(method, payload, x.shape, x.dtype)
    assert back.dtype == x.dtype
    assert back.shape == x.shape
    assert back.tobytes() == x.tobytes()
    return payload


@st.composite
def anything(draw: st.DrawFn) -> Array:
    """Arrays of every dtype, byte order and stride, with all their special values."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    x = draw(arrays(dtype, draw(SHAPES)))
    if x.ndim and draw(st.booleans()):
        x = x[..., ::-1].T
    return x


@settings(max_examples=60)
@given(anything(), st.sampled_from(ERRORS))
def test_every_array_comes_back_within_the_bound(x: Array, error: float) -> None:
    within(x, error)


@settings(max_examples=60)
@given(anything())
def test_every_array_comes_back_exactly(x: Array) -> None:
    exact(x)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if "c" not in dtype])
def test_a_prediction_may_be_anything(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = (50 * rng.normal(size=(12, 13))).astype(np.float64).astype(dtype)
    real = to_real(x)
    for guess in (
        x.astype(np.float64),
        x.astype(np.float64) + rng.normal(size=x.shape),
        rng.choice([np.nan, np.inf, -np.inf, 1e300, 1e18, 0.0], x.shape),
    ):
        for error in (0.0, 0.01, 2.0):
            within(x, error, guess)
        back = decode_exact(encode_exact(real, guess), *real_form(x.shape, x.dtype), guess)
        assert from_real(back, x.shape, x.dtype).tobytes() == x.tobytes()


def test_a_good_prediction_helps() -> None:
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    guess = x + 1e-4
    assert len(within(x, 1e-3, guess)) < 0.1 * len(within(x, 1e-3))
    assert len(encode_exact(x, x.astype(np.float64))) < 20


def edges(dtype: str) -> Array:
    """What breaks grids, among ordinary numbers."""
    info = np.finfo(dtype)
    odd = [np.nan, np.inf, -np.inf, info.max, info.min, info.tiny, info.smallest_subnormal, -0.0]
    x = np.random.default_rng(0).normal(size=(20, 25)).cumsum(axis=0).astype(dtype)
    x.flat[::29] = np.resize(np.array(odd, dtype), len(x.flat[::29]))
    return x


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("error", [1e-320, 1e-30, 1e-7, 1e-3, 1e-2, 1.0, 1e30, 1e300])
def test_special_numbers_come_back_bit_for_bit(dtype: str, error: float) -> None:
    x = edges(dtype)
    within(x, error)
    back = decode_bounded(encode_bounded(x, error), x.shape, x.dtype, error)
    bits = f"u{x.itemsize}"
    special = ~np.isfinite(x)
    assert (x.view(bits)[special] == back.view(bits)[special]).all()


def test_a_nan_keeps_its_payload() -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x3F800000], np.uint32)
    x = np.tile(bits, 9).view(np.float32)
    back = decode_bounded(encode_bounded(x, 0.1), x.shape, x.dtype, 0.1)
    assert (back.view(np.uint32)[:3] == bits[:3]).all()
    assert exact(x)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("error", [1, 2.9, 100, 2**31, 2.0**61, 2.0**63, 1e30])
def test_integers_at_the_ends_of_their_dtype(dtype: str, error: float) -> None:
    info = np.iinfo(dtype)
    ends = [info.min, info.min + 1, info.max // 2, info.max - 1, info.max]
    within(np.random.default_rng(0).choice(np.array(ends, dtype), (9, 10)), error)
    within(np.linspace(info.min / 4, info.max / 4, 60).astype(dtype).reshape(6, 10), error)


@given(arrays(np.uint32, 20))
def test_ordered_integers_keep_the_order_of_floats(bits: Array) -> None:
    x = bits.view(np.float32)
    q = to_ordered(x)
    assert (from_ordered(q, x.dtype).view(np.uint32) == bits).all()
    numbers = ~np.isnan(x)
    by_order = x[numbers][np.argsort(q[numbers], kind="stable")]
    assert (by_order[1:] >= by_order[:-1]).all()


def test_numbers_with_few_digits_are_coded_by_them() -> None:
    x = np.round(np.random.default_rng(0).normal(20, 5, (300, 8)), 2)
    assert len(encode_exact(x)) < 0.25 * x.nbytes
    x[5, 5] = np.pi
    x[6] = np.nan
    exact(x)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i8"])
def test_random_bytes_hardly_grow(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, 40_000, np.uint8).view(dtype)
    assert len(exact(x)) <= 1.001 * x.nbytes + 256


def test_small_arrays_cost_few_bytes() -> None:
    assert len(within(np.arange(10, dtype=np.float32), 0.5)) < 20
    assert len(within(np.array(2.5), 0.1)) < 10
    assert encode_bounded(np.empty((0, 3)), 0.1) == b""


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(ValueError, match="largest error"):
        encode_bounded(np.ones(3), -1.0)
    with pytest.raises(ValueError, match="largest error"):
        encode_bounded(np.ones(3), float("nan"))
    with pytest.raises(TypeError, match="cannot be coded"):
        encode_lossless(np.array(["a"]))


@given(arrays(np.bool_, array_shapes(max_dims=3, max_side=12)))
def test_exceptions_come_back(wrong: Array) -> None:
    x = np.random.default_rng(0).normal(size=wrong.shape).astype("<f4")
    block = put_exceptions(x, wrong)
    places, values, end = get_exceptions(b"ab" + block + b"cd", 2, x.shape, x.dtype)
    assert end == 2 + len(block)
    assert (places == np.flatnonzero(wrong)).all()
    assert (values == x.ravel()[places]).all()


SAMPLES: list[tuple[Array, float]] = [
    (edges("f4"), 1e-3),
    (edges("f8"), 0.1),
    (edges("f2"), 0.0),
    (np.arange(300, dtype=np.uint8).reshape(20, 15) * 3, 2),
    (np.arange(300).reshape(20, 15) * 2**50, 2.0**40),
    (np.round(np.sin(np.arange(200.0)), 2), 0.0),
    (np.sin(np.arange(100)) > 0, 0.0),
]


@cache
def sample(which: int) -> bytes:
    return encode_bounded(*SAMPLES[which])


@settings(max_examples=80)
@given(st.sampled_from(range(len(SAMPLES))), st.data())
def test_damage_is_corrupt_or_an_array(which: int, data: st.DataObject) -> None:
    x, error = SAMPLES[which]
    payload = bytearray(sample(which))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for bad in (bytes(payload), bytes(payload[:cut])):
        try:
            back = decode_bounded(bad, x.shape, x.dtype, error)
        except Corrupt:
            continue
        assert (back.shape, back.dtype) == (x.shape, x.dtype)


@given(st.binary(max_size=60), SHAPES, st.sampled_from(DTYPES), st.sampled_from([0, 0.5, 3]))
def test_any_bytes_are_corrupt_or_an_array(
    payload: bytes, shape: tuple[int, ...], dtype: str, error: float
) -> None:
    try:
        back = decode_bounded(payload, shape, np.dtype(dtype), error)
    except Corrupt:
        return
    assert (back.shape, back.dtype) == (shape, np.dtype(dtype))


BLOCK = (64, 128, 512)  # 4 M numbers


def blocks(n: int) -> Iterator[Array]:
    """Numbers of many kinds, all special ones among them."""
    for seed in range(n):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(BLOCK, np.float32)
        kind = seed % 5
        if kind == 0:
            x = noise.cumsum(axis=2)
        elif kind == 1:
            x = noise * np.float32(10) ** rng.integers(-30, 30)
        elif kind == 2:
            x = rng.integers(0, 2**32, BLOCK, np.uint32).view(np.float32)
        elif kind == 3:
            x = np.ldexp(noise.astype(np.float64), rng.integers(-900, 900))
        else:
            x = np.sin(np.arange(BLOCK[2]) / 9).astype(np.float32) + noise / 1000
        x = np.ascontiguousarray(x)
        places = rng.integers(0, x.size, 40)
        with np.errstate(over="ignore"):
            odd = np.array([np.nan, np.inf, -np.inf, 1e300, 1e-310, 1e-44, -0.0, 3e38])
            x.reshape(-1)[places] = np.resize(odd, 40).astype(x.dtype)
        yield x


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_bound_holds_for_a_thousand_million_numbers() -> None:
    """On the grid and back as the encoder replays it; a part of some blocks through the bytes."""
    done = 0
    for i, x in enumerate(blocks(10**9 // int(np.prod(BLOCK)) + 1)):
        finite = np.abs(x.ravel()[::64].astype(np.float64))
        error = float(np.nanmedian(finite[finite < np.inf])) * 10.0 ** -(i % 7)
        held(x, replayed(x, error), error)
        if i % 8 == 0:
            some = np.ascontiguousarray(x[:1])
            payload = encode_bounded(some, error)
            held(some, decode_bounded(payload, some.shape, some.dtype, error), error)
        done += x.size
    assert done >= 10**9


def held(x: Array, back: Array, error: float) -> None:
    """Every element within the error, or the same bits."""
    far = ~(np.abs(x.astype(np.float64) - back.astype(np.float64)) <= error)
    bits = f"u{x.itemsize}"
    assert (x.view(bits)[far] == back.view(bits)[far]).all()


def replayed(x: Array, error: float) -> Array:
    """What the decoder makes of the grid and of the exceptions that the encoder stores."""
    delta = grid._delta(error, grid._tightness(x, error), 1)
    wide = x.astype(np.float64)
    back = grid._off_grid(grid._on_grid(wide, delta)[0], delta, x.dtype)
    return np.where(grid._wrong(wide, back, error), x, back)
