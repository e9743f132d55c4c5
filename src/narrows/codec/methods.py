"""How one chunk is coded: every method that can is tried, and the smallest is kept.

The decoder needs the method's number, its payload, the chunk's shape and dtype, and what holds for
the whole file: the mode, the bound on the error, and the model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.codec.grid import decode_bounded, encode_bounded
from narrows.codec.model import Grid, Model, as_dtype
from narrows.codec.plain import (
    decode_exact,
    decode_lossless,
    encode_exact,
    encode_lossless,
    inner,
    numbers,
    outer,
)
from narrows.codec.rans import Decoder, Encoder
from narrows.core import Corrupt, WrongModel

Array = NDArray[Any]
RAW, DEFLATE, INTEGERS, AUTOENCODER, RESIDUAL, CONTEXT = range(6)
NAMES = {
    RAW: "raw",
    DEFLATE: "deflate",
    INTEGERS: "plain prediction",
    AUTOENCODER: "autoencoder",
    RESIDUAL: "autoencoder + residual",
    CONTEXT: "context network",
}
HEAD = struct.Struct("<BI")  # level, bytes of the codes
NO_ANSWER = 255  # in place of a level, where pixels are coded without one
HARDLY = 0.6  # of the bytes: when a bound saves no more, lossless methods are tried, too
SAMPLE = 1 << 16  # elements by which a level is chosen


@dataclass(frozen=True)
class Analysis:
    """The encoder's half of a model, which decoding does not need.

    ``latents`` makes of planes (n, C, H, W) in the user's units the numbers before quantisation,
    ``quantise`` makes codes of these at a level.
    """

    latents: Callable[[Array], Array]
    quantise: Callable[[Array, int], Array]


@dataclass(frozen=True)
class Wish:
    """What holds for all chunks of a file."""

    mode: str
    images: bool
    error: float | None = None
    model: Model | None = None
    level: int | None = None
    analysis: Analysis | None = None  # None: the autoencoder is switched off


@dataclass(frozen=True)
class Coded:
    """A chunk as bytes, and what they decode to; ``code_bytes`` of them carry the codes."""

    method: int
    payload: bytes
    decoded: Array
    code_bytes: int = 0
    others: dict[int, int] = field(default_factory=dict)  # bytes by every method that was tried


def encode_chunk(chunk: Array, wish: Wish) -> Coded:
    """The chunk (native or little-endian, C order) by the method that takes least."""
    tried = list(_tried(chunk, wish))
    best = min(tried, key=lambda coded: len(coded.payload))
    sizes: dict[int, int] = {}
    for coded in tried:
        size = len(coded.payload)
        sizes[coded.method] = min(size, sizes.get(coded.method, size))
    return Coded(best.method, best.payload, best.decoded, best.code_bytes, sizes)


def _tried(chunk: Array, wish: Wish) -> Iterator[Coded]:
    grid = None
    if wish.model is not None and wish.analysis is not None:
        grid = wish.model.grid(chunk.shape, wish.images)
    if wish.mode == "lossy" and grid is not None and bool(np.isfinite(chunk).all()):
        yield _lossy(chunk, wish, grid)
        return
    coded = None
    if wish.mode == "bounded" and wish.error:
        payload = encode_bounded(chunk, wish.error)
        decoded = decode_bounded(payload, chunk.shape, chunk.dtype, wish.error)
        coded = Coded(INTEGERS, payload, decoded)
        yield coded
    if coded is None or len(coded.payload) > HARDLY * chunk.nbytes:
        method, payload = encode_lossless(chunk)
        if coded is None or method != INTEGERS:  # which is what the bound has tried already
            yield Coded(method, payload, chunk)
    if grid is not None and chunk.dtype.kind in "iuf":
        yield _residual(chunk, wish, grid)
    pixels = wish.mode == "lossless" and chunk.dtype == np.uint8
    if grid is not None and pixels and _model(wish).context is not None:
        yield _expected(chunk, wish, grid)


def _lossy(chunk: Array, wish: Wish, grid: Grid) -> Coded:
    model, level = _model(wish), wish.level
    level = model.level if level is None else level
    codes, data = _codes(_latents(chunk, wish, grid), wish, level)
    decoded = as_dtype(model.predict(codes, level, grid), chunk.dtype)
    return Coded(AUTOENCODER, HEAD.pack(level, len(data)) + data, decoded, len(data))


def _latents(chunk: Array, wish: Wish, grid: Grid) -> Array:
    assert wish.analysis is not None
    return wish.analysis.latents(_model(wish).planes(chunk, grid))


def _codes(latents: Array, wish: Wish, level: int) -> tuple[Array, bytes]:
    assert wish.analysis is not None
    codes = wish.analysis.quantise(latents, level)
    encoder = Encoder()
    _model(wish).tables.encode(codes, level, encoder)
    return codes, encoder.finish()


def _residual(chunk: Array, wish: Wish, grid: Grid) -> Coded:
    """A coarse answer of the autoencoder and what it missed, at the level that promises least."""
    model = _model(wish)
    finite = chunk if chunk.dtype.kind in "iu" else np.where(np.isfinite(chunk), chunk, 0)
    latents = _latents(finite, wish, grid)
    level = _cheapest(finite, latents, wish, grid)
    codes, data = _codes(latents, wish, level)
    prediction = model.predict(codes, level, grid)
    if wish.mode == "bounded" and wish.error:
        rest = encode_bounded(chunk, wish.error, prediction)
        decoded = decode_bounded(rest, chunk.shape, chunk.dtype, wish.error, prediction)
    else:
        rest, decoded = encode_exact(numbers(chunk), prediction), chunk
    return Coded(RESIDUAL, HEAD.pack(level, len(data)) + data + rest, decoded, len(data))


def _expected(chunk: Array, wish: Wish, grid: Grid) -> Coded:
    """Pixels by the network that expects them, with or without an answer beside, what takes least.

    The answer's codes must pay for themselves; on a part of the images it is seen which level does.
    """
    model = _model(wish)
    latents, images = _latents(chunk, wish, grid), model.planes(chunk, grid)
    few = slice(0, max(1, SAMPLE // images[0].size))
    assert model.context is not None
    costs = {NO_ANSWER: model.context.bits(images[few])}
    for level in range(model.n_levels):
        if not model.context.side:
            break
        codes, data = _codes(latents[few], wish, level)
        costs[level] = 8 * len(data) + model.context.bits(images[few], _answer(codes, level, model))
    level = min(costs, key=costs.__getitem__)
    data, side = b"", None
    if level != NO_ANSWER:
        codes, data = _codes(latents, wish, level)
        side = _answer(codes, level, model)
    encoder = Encoder()
    model.context.encode(images, side, encoder)
    payload = HEAD.pack(level, len(data)) + data + encoder.finish()
    return Coded(CONTEXT, payload, chunk, len(data))


def _answer(codes: Array, level: int, model: Model) -> Array:
    """What codes of whole images stand for, uint8 (n, C, H, W)."""
    shape = (len(codes), *(model.event or ()))
    grid = model.grid(shape, False)
    assert grid is not None
    return model.planes(as_dtype(model.predict(codes, level, grid), np.dtype(np.uint8)), grid)


def _cheapest(finite: Array, latents: Array, wish: Wish, grid: Grid) -> int:
    """The level with the fewest bits for codes and residuals, these taken as Laplacian."""
    model = _model(wish)
    few = min(len(latents), max(1, SAMPLE * len(latents) // max(1, finite.size)))
    some, rows = latents[:few], len(finite) * few // len(latents)
    if few == len(latents) or model.event is None:  # a part of an image has no grid of its own
        some, rows = latents, len(finite)
    part = model.grid(finite[:rows].shape, wish.images)
    assert part is not None
    step = 2 * (wish.error or 0) if finite.dtype.kind == "f" else 2 * int(wish.error or 0) + 1
    costs = []
    for level in range(model.n_levels):
        codes, data = _codes(some, wish, level)
        away = np.abs(finite[:rows].astype(np.float64) - model.predict(codes, level, part))
        unit = step or float(np.spacing(np.abs(finite).max()))
        mean = float((away / unit).mean())
        costs.append(8 * len(data) + away.size * math.log2(1 + 2 * math.e * mean))
    return int(np.argmin(costs))


def decode_chunk(
    method: int, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], wish: Wish
) -> Array:
    """The inverse of ``encode_chunk``; raises ``Corrupt`` for what no encoder wrote."""
    if method in (RAW, DEFLATE):
        return decode_lossless(method, payload, shape, dtype)
    if method == INTEGERS:
        if wish.mode == "bounded" and wish.error:
            return decode_bounded(payload, shape, dtype, wish.error)
        return decode_lossless(method, payload, shape, dtype)
    if method in (AUTOENCODER, RESIDUAL):
        return _decode_with_codes(method, payload, shape, dtype, wish)
    if method == CONTEXT and dtype == np.uint8:
        return _decode_expected(payload, shape, wish)
    raise Corrupt(f"method {method} is not known")


def _decode_with_codes(
    method: int, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], wish: Wish
) -> Array:
    model = _model(wish)
    grid = model.grid(shape, wish.images)
    if grid is None or len(payload) < HEAD.size:
        raise Corrupt("the model has no place for a chunk of this shape")
    level, length = HEAD.unpack_from(payload)
    end = HEAD.size + length
    alone = method == AUTOENCODER
    if level >= model.n_levels or end > len(payload) or alone != (end == len(payload)):
        raise Corrupt("the codes of a chunk are not as long as they say")
    codes = _decode_codes(payload[HEAD.size : end], model, grid, level)
    prediction = model.predict(codes, level, grid)
    if alone:
        return as_dtype(prediction, dtype)
    if wish.mode == "bounded" and wish.error:
        return decode_bounded(payload[end:], shape, dtype, wish.error, prediction)
    return outer(decode_exact(payload[end:], *inner(shape, dtype), prediction), shape, dtype)


def _decode_expected(payload: bytes, shape: tuple[int, ...], wish: Wish) -> Array:
    model = _model(wish)
    grid = model.grid(shape, wish.images)
    if grid is None or model.context is None or len(payload) < HEAD.size:
        raise Corrupt("the model expects no pixels of such a chunk")
    level, length = HEAD.unpack_from(payload)
    end, side = HEAD.size + length, None
    if level != NO_ANSWER:
        if level >= model.n_levels or end > len(payload) or not model.context.side:
            raise Corrupt("the answer beside the pixels is of no level of the model")
        side = _answer(_decode_codes(payload[HEAD.size : end], model, grid, level), level, model)
    elif length:
        raise Corrupt("there are codes that nothing is made of")
    decoder = Decoder(payload[end:])
    images = model.context.decode(decoder, grid.n, side)
    decoder.finish()
    return model.outward(images, grid)


def _decode_codes(data: bytes, model: Model, grid: Grid, level: int) -> Array:
    decoder = Decoder(data)
    codes = model.tables.decode(decoder, model.code_shape(grid), level)
    decoder.finish()
    return codes


def _model(wish: Wish) -> Model:
    if wish.model is None:
        raise WrongModel("the file needs the model it was made with, and none was given")
    return wish.model
