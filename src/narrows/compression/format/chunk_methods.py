"""How one chunk is coded: every method that can is tried, and the smallest is kept.

The decoder needs the method's number, its payload, the chunk's shape and dtype, and what holds for
the whole file: the mode, the bound on the error, and the model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.decoder import Grid, Model, as_dtype
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.error_bound import decode_bounded, encode_bounded
from narrows.compression.format.latent_codes import FAR
from narrows.compression.format.lossless import (
    decode_exact,
    decode_lossless,
    encode_exact,
    encode_lossless,
    inner,
    numbers,
    outer,
)
from narrows.exceptions import Corrupt, TooLarge, WrongModel

Array = NDArray[Any]
RAW, DEFLATE, INTEGERS, AUTOENCODER, RESIDUAL, CONTEXT = range(6)
MOST_ELEMENTS = 1 << 24  # of a chunk that is not stored as it is: decoding takes memory for each
WITH_MODEL = (AUTOENCODER, RESIDUAL, CONTEXT)
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
HOPELESS = 1.3  # times what another method takes: an estimate of so much is not followed
CORNER = 256  # the side of the part of an image by which a level is chosen


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
    tried = _tried(chunk, wish)
    best = min(tried, key=lambda coded: len(coded.payload))
    sizes: dict[int, int] = {}
    for coded in tried:
        size = len(coded.payload)
        sizes[coded.method] = min(size, sizes.get(coded.method, size))
    return Coded(best.method, best.payload, best.decoded, best.code_bytes, sizes)


def _tried(chunk: Array, wish: Wish) -> list[Coded]:
    """The chunk in every way that can be, and is not hopeless."""
    grid = None
    if wish.model is not None and wish.analysis is not None:
        grid = wish.model.grid(chunk.shape, wish.images)
    if wish.mode == "lossy" and grid is not None and bool(np.isfinite(chunk).all()):
        return [_lossy(chunk, wish, grid)]
    tried = _plain(chunk, wish)
    if grid is None:
        return tried
    if wish.mode == "lossless" and chunk.dtype == np.uint8 and _model(wish).context is not None:
        tried.append(_expected(chunk, wish, grid))
    if chunk.dtype.kind in "iuf":
        best = min(len(coded.payload) for coded in tried)
        coded = _residual(chunk, wish, grid, best)
        tried += [] if coded is None else [coded]
    return tried


def _plain(chunk: Array, wish: Wish) -> list[Coded]:
    """Without any model."""
    tried = []
    if wish.mode == "bounded" and wish.error:
        payload = encode_bounded(chunk, wish.error)
        decoded = decode_bounded(payload, chunk.shape, chunk.dtype, wish.error)
        tried.append(Coded(INTEGERS, payload, decoded))
        if len(payload) <= HARDLY * chunk.nbytes:
            return tried
    method, payload = encode_lossless(chunk)
    if not tried or method != INTEGERS:  # which is what the bound has tried already
        tried.append(Coded(method, payload, chunk))
    return tried


def _lossy(chunk: Array, wish: Wish, grid: Grid) -> Coded:
    model, level = _model(wish), wish.level
    level = model.level if level is None else level
    codes, data = _codes(_latents(chunk, wish, grid), wish, level)
    decoded = as_dtype(model.predict(codes, level, grid), chunk.dtype)
    return Coded(AUTOENCODER, HEAD.pack(level, len(data)) + data, decoded, len(data))


def _latents(chunk: Array, wish: Wish, grid: Grid) -> Array:
    assert wish.analysis is not None
    return wish.analysis.latents(_model(wish).planes(chunk, grid))


def _quantised(latents: Array, wish: Wish, level: int) -> Array:
    assert wish.analysis is not None
    return wish.analysis.quantise(latents, level)


def _codes(latents: Array, wish: Wish, level: int) -> tuple[Array, bytes]:
    codes = _quantised(latents, wish, level)
    encoder = Encoder()
    _model(wish).tables.encode(codes, level, encoder)
    return codes, encoder.finish()


def _residual(chunk: Array, wish: Wish, grid: Grid, best: int) -> Coded | None:
    """A coarse answer of the autoencoder and what it missed; None where that takes far more than
    ``best`` bytes.
    """
    model = _model(wish)
    finite = chunk if chunk.dtype.kind in "iu" else np.where(np.isfinite(chunk), chunk, 0)
    some = _some(finite, wish)
    level, bits = _cheapest(some, wish)
    if bits / 8 * chunk.size / some.size > HOPELESS * best:
        return None
    codes, data = _codes(_latents(finite, wish, grid), wish, level)
    prediction = model.predict(codes, level, grid)
    if wish.mode == "bounded" and wish.error:
        rest = encode_bounded(chunk, wish.error, prediction)
        decoded = decode_bounded(rest, chunk.shape, chunk.dtype, wish.error, prediction)
    else:
        rest, decoded = encode_exact(numbers(chunk), prediction), chunk
    return Coded(RESIDUAL, HEAD.pack(level, len(data)) + data + rest, decoded, len(data))


def _some(chunk: Array, wish: Wish) -> Array:
    """A part of a chunk that stands for it: some rows, or a corner of an image."""
    if wish.images or (_model(wish).event is None and chunk.ndim == 2):
        return chunk[:CORNER, :CORNER]
    return chunk[: max(1, CORNER**2 // chunk[0].size)]


def _expected(chunk: Array, wish: Wish, grid: Grid) -> Coded:
    """Pixels by the network that expects them, with or without an answer beside, what takes least.

    The answer's codes must pay for themselves; on a part of the images it is seen which level does.
    """
    model = _model(wish)
    context, images = model.context, model.planes(chunk, grid)
    assert context is not None
    few = _some(images, wish)
    costs = {NO_ANSWER: context.bits(few)}
    latents = _latents(chunk[: len(few)], wish, replace(grid, n=len(few)))
    for level in range(model.n_levels if context.side else 0):
        codes, data = _codes(latents, wish, level)
        costs[level] = 8 * len(data) + context.bits(few, _answer(codes, level, model))
    level = min(costs, key=costs.__getitem__)
    data, side = b"", None
    if level != NO_ANSWER:
        codes, data = _codes(_latents(chunk, wish, grid), wish, level)
        side = _answer(codes, level, model)
    encoder = Encoder()
    context.encode(images, side, encoder)
    payload = HEAD.pack(level, len(data)) + data + encoder.finish()
    return Coded(CONTEXT, payload, chunk, len(data))


def _answer(codes: Array, level: int, model: Model) -> Array:
    """What codes of whole images stand for, uint8 (n, C, H, W)."""
    shape = (len(codes), *(model.event or ()))
    grid = model.grid(shape, False)
    assert grid is not None
    return model.planes(as_dtype(model.predict(codes, level, grid), np.dtype(np.uint8)), grid)


def _cheapest(finite: Array, wish: Wish) -> tuple[int, float]:
    """The level with the fewest bits for codes and residuals, these taken as Laplacian."""
    model = _model(wish)
    grid = model.grid(finite.shape, wish.images)
    assert grid is not None
    latents = _latents(finite, wish, grid)
    step = 2 * (wish.error or 0) if finite.dtype.kind == "f" else 2 * int(wish.error or 0) + 1
    unit = step or float(np.spacing(np.abs(finite).max()))
    costs = []
    for level in range(model.n_levels):
        codes = _quantised(latents, wish, level)
        encoder = Encoder()
        model.tables.encode(codes, level, encoder)
        away = np.abs(finite.astype(np.float64) - model.predict(codes, level, grid))
        with np.errstate(over="ignore"):  # then it is a level that nobody wants
            mean = float((away / unit).mean())
        costs.append(encoder.bits + away.size * math.log2(1 + 2 * math.e * mean))
    return int(np.argmin(costs)), min(costs)


def decode_chunk(
    method: int, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], wish: Wish
) -> Array:
    """The inverse of ``encode_chunk``; raises ``Corrupt`` for what no encoder wrote."""
    if method in (RAW, DEFLATE):
        return decode_lossless(method, payload, shape, dtype)
    if math.prod(shape) > MOST_ELEMENTS:
        raise TooLarge(
            f"a chunk has {math.prod(shape)} elements, more than the {MOST_ELEMENTS} allowed"
        )
    if method == INTEGERS:
        if wish.mode == "bounded" and wish.error:
            return decode_bounded(payload, shape, dtype, wish.error)
        return decode_lossless(method, payload, shape, dtype)
    if method == AUTOENCODER and wish.mode != "lossy":
        raise Corrupt(f"a chunk is lossy in a file that says it is {wish.mode}")
    if method in (AUTOENCODER, RESIDUAL) and dtype.kind != "c":
        return _decode_with_codes(method, payload, shape, dtype, wish)
    if method == CONTEXT and dtype == np.uint8:
        return _decode_expected(payload, shape, wish)
    raise Corrupt(f"method {method} has no place for {dtype}, or is not known")


def _decode_with_codes(
    method: int, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], wish: Wish
) -> Array:
    model = _model(wish)
    grid = model.grid(shape, wish.images)
    if grid is None or len(payload) < HEAD.size:
        raise Corrupt("the model has no place for a chunk of this shape and type")
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
    return model.from_model(images, grid)


def _decode_codes(data: bytes, model: Model, grid: Grid, level: int) -> Array:
    decoder = Decoder(data)
    codes = model.tables.decode(decoder, model.code_shape(grid), level)
    decoder.finish()
    if codes.size and int(np.abs(codes).max()) > FAR:
        raise Corrupt("a code is larger than any encoder writes")
    return codes


def _model(wish: Wish) -> Model:
    if wish.model is None:
        raise WrongModel("the file needs the model it was made with, and none was given")
    return wish.model
