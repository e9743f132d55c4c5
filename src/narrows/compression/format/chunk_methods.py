"""How one chunk is coded: every suitable method is tried, and the smallest result is kept.

    0  raw, 1  deflate      the bytes (`lossless`)
    2  plain prediction     the numbers as integers, within an error bound or exact
    3  autoencoder          codes alone: lossy
    4  autoencoder + residual   codes, and the difference from what they decode to
    5  context network      8-bit images pixel by pixel, with or without codes as well

The decoder needs the method's number, its payload, the chunk's shape and dtype, and what holds for
the whole file: mode, error bound and model.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from narrows.compression.format import Array, lossless
from narrows.compression.format.decoder import ExactDecoder, Grid, as_dtype
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.error_bound import decode_bounded, encode_bounded
from narrows.compression.format.latent_codes import MAX_CODE
from narrows.compression.format.lossless import DEFLATE, INTEGERS, RAW
from narrows.exceptions import Corrupt, TooLarge, WrongModel

AUTOENCODER, RESIDUAL, CONTEXT = 3, 4, 5
MODEL_METHODS = (AUTOENCODER, RESIDUAL, CONTEXT)
NAMES = {
    RAW: "raw",
    DEFLATE: "deflate",
    INTEGERS: "plain prediction",
    AUTOENCODER: "autoencoder",
    RESIDUAL: "autoencoder + residual",
    CONTEXT: "context network",
}
MAX_ELEMENTS = 1 << 24  # of a chunk, except raw and deflate: decoding takes memory for each
HEAD = struct.Struct("<BI")  # level, bytes of the codes
NO_CODES = 255  # in place of a level: no codes are stored with the pixels
# an error bound that saves less than 40 % may lose against lossless methods: try these too
LOSSLESS_BELOW = 0.6
# a method estimated to take 1.3 times the bytes of another one is not tried in full
MAX_ESTIMATE = 1.3
SAMPLE_SIDE = 256  # of the part of an image on which levels are compared


class AnalysisTransform(Protocol):
    """The encoder's half of a model, which decoding does not need."""

    def latents(self, planes: Array) -> Array:
        """Planes (n, C, H, W) in the user's units → latents before quantisation."""

    def quantize(self, latents: Array, level: int) -> Array:
        """Latents → codes at a quality level, whole numbers (n, latent_dim, rows, columns)."""


@dataclass(frozen=True)
class CodingSettings:
    """What holds for all chunks of a file.

    ``error`` is the largest absolute error of mode "bounded"; ``analysis`` is None for decoding,
    and for encoding without the autoencoder.
    """

    mode: str
    images: bool
    error: float | None = None
    model: ExactDecoder | None = None
    level: int | None = None
    analysis: AnalysisTransform | None = None

    @property
    def bound(self) -> float:
        """The largest error that is allowed; 0 where numbers must come back exactly."""
        return (self.error or 0.0) if self.mode == "bounded" else 0.0


@dataclass(frozen=True)
class CodedChunk:
    """The payload of a chunk, and what it decodes to; ``code_bytes`` of it hold codes."""

    method: int
    payload: bytes
    decoded: Array
    code_bytes: int = 0
    others: dict[int, int] = field(default_factory=dict)  # bytes by every method that was tried


def encode_chunk(chunk: Array, settings: CodingSettings) -> CodedChunk:
    """The chunk (native or little-endian, C order) by the method that takes the fewest bytes."""
    tried = sorted(_tried(chunk, settings), key=lambda coded: len(coded.payload))
    sizes = {coded.method: len(coded.payload) for coded in reversed(tried)}  # the smallest of each
    return replace(tried[0], others=sizes)


def _tried(chunk: Array, settings: CodingSettings) -> list[CodedChunk]:
    """The chunk by every method that is possible and promising."""
    model, analysis, grid = settings.model, settings.analysis, None
    if model is not None and analysis is not None:
        grid = model.grid(chunk.shape, settings.images)
    if model is None or analysis is None or grid is None:
        return _without_model(chunk, settings.bound)
    coder = ModelCoder(model, analysis, settings)
    if settings.mode == "lossy" and bool(np.isfinite(chunk).all()):
        return [coder.lossy(chunk, grid)]
    tried = _without_model(chunk, settings.bound)
    if settings.mode == "lossless" and chunk.dtype == np.uint8 and model.context is not None:
        tried.append(coder.pixels(chunk, grid))
    if chunk.dtype.kind in "iuf":
        coded = coder.residual(chunk, grid, min(len(coded.payload) for coded in tried))
        tried += [] if coded is None else [coded]
    return tried


def _without_model(chunk: Array, bound: float) -> list[CodedChunk]:
    tried = []
    if bound:
        payload = encode_bounded(chunk, bound)
        decoded = decode_bounded(payload, chunk.shape, chunk.dtype, bound)
        tried.append(CodedChunk(INTEGERS, payload, decoded))
        if len(payload) <= LOSSLESS_BELOW * chunk.nbytes:
            return tried
    method, payload = lossless.encode_lossless(chunk)
    if not tried or method != INTEGERS:  # encode_bounded has tried exact integers already
        tried.append(CodedChunk(method, payload, chunk))
    return tried


@dataclass(frozen=True)
class ModelCoder:
    """The methods that need a model."""

    model: ExactDecoder
    analysis: AnalysisTransform
    settings: CodingSettings

    def latents(self, chunk: Array, grid: Grid) -> Array:
        """The latents of a chunk, before quantisation."""
        return self.analysis.latents(self.model.planes(chunk, grid))

    def codes(self, latents: Array, level: int) -> tuple[Array, Encoder]:
        """The codes at a level, and an entropy coder that holds them."""
        codes, encoder = self.analysis.quantize(latents, level), Encoder()
        self.model.tables.encode(codes, level, encoder)
        return codes, encoder

    def lossy(self, chunk: Array, grid: Grid) -> CodedChunk:
        """Codes alone."""
        model, level = self.model, self.settings.level
        level = model.level if level is None else level
        codes, encoder = self.codes(self.latents(chunk, grid), level)
        decoded = as_dtype(model.predict(codes, level, grid), chunk.dtype)
        return _with_codes(AUTOENCODER, level, encoder.finish(), b"", decoded)

    def residual(self, chunk: Array, grid: Grid, best: int) -> CodedChunk | None:
        """Codes, and what they missed; None where an estimate is far above ``best`` bytes."""
        finite = chunk if chunk.dtype.kind in "iu" else np.where(np.isfinite(chunk), chunk, 0)
        sample = self._sample(finite)
        level, bits = self._cheapest_level(sample)
        if bits / 8 * chunk.size / sample.size > MAX_ESTIMATE * best:
            return None
        codes, encoder = self.codes(self.latents(finite, grid), level)
        prediction, bound = self.model.predict(codes, level, grid), self.settings.bound
        if bound:
            rest = encode_bounded(chunk, bound, prediction)
            chunk = decode_bounded(rest, chunk.shape, chunk.dtype, bound, prediction)
        else:
            rest = lossless.encode_exact(lossless.to_real(chunk), prediction)
        return _with_codes(RESIDUAL, level, encoder.finish(), rest, chunk)

    def pixels(self, chunk: Array, grid: Grid) -> CodedChunk:
        """Pixels by the context network, with or without codes as well, whichever takes less.

        The level of the codes is chosen on a part of the images; they must pay for themselves. From
        the coarsest level on, finer ones are tried while they take less than the one before.
        """
        model, context, images = self.model, self.model.context, self.model.planes(chunk, grid)
        assert context is not None
        sample = self._sample(images)
        costs = {NO_CODES: context.bits(sample)}
        latents = self.analysis.latents(sample)
        for level in range(model.n_levels if context.side else 0):
            codes, encoder = self.codes(latents, level)
            side = model.approximation(codes, level)
            costs[level] = 8 * len(encoder.finish()) + context.bits(sample, side)
            if level and costs[level] > costs[level - 1]:
                break
        level = min(costs, key=costs.__getitem__)
        data, known = b"", None
        if level != NO_CODES:
            codes, encoder = self.codes(self.analysis.latents(images), level)
            data, known = encoder.finish(), model.approximation(codes, level)
        encoder = Encoder()
        context.encode(images, known, encoder)
        return _with_codes(CONTEXT, level, data, encoder.finish(), chunk)

    def _sample(self, chunk: Array) -> Array:
        """A part of a chunk: the corner of an image, or the first rows."""
        if self.settings.images or (self.model.event is None and chunk.ndim == 2):
            return chunk[:SAMPLE_SIDE, :SAMPLE_SIDE]
        return chunk[: max(1, SAMPLE_SIDE**2 // chunk[0].size)]

    def _cheapest_level(self, finite: Array) -> tuple[int, float]:
        """The level with the fewest bits for codes and residuals, these taken as Laplacian."""
        model, error = self.model, self.settings.bound
        grid = model.grid(finite.shape, self.settings.images)
        assert grid is not None
        latents = self.latents(finite, grid)
        step = 2 * error if finite.dtype.kind == "f" else 2 * int(error) + 1
        unit = step or float(np.spacing(np.abs(finite).max()))
        costs = []
        for level in range(model.n_levels):
            codes, encoder = self.codes(latents, level)
            missed = np.abs(finite.astype(np.float64) - model.predict(codes, level, grid))
            with np.errstate(over="ignore"):  # an infinite mean is a level that is not chosen
                mean = float((missed / unit).mean())
            # the entropy of a Laplacian of this mean magnitude is log₂(2e · mean); +1 keeps it ≥ 0
            costs.append(encoder.bits + missed.size * math.log2(1 + 2 * math.e * mean))
        return int(np.argmin(costs)), min(costs)


def _with_codes(method: int, level: int, data: bytes, rest: bytes, decoded: Array) -> CodedChunk:
    """A chunk with codes of a level, coded in ``data``, and what follows them."""
    payload = HEAD.pack(level, len(data)) + data + rest
    return CodedChunk(method, payload, decoded, len(data))


def decode_chunk(
    method: int,
    payload: bytes,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    settings: CodingSettings,
) -> Array:
    """The inverse of ``encode_chunk``; raises ``Corrupt`` for payloads that no encoder writes."""
    if method in (RAW, DEFLATE):
        return lossless.decode_lossless(method, payload, shape, dtype)
    if math.prod(shape) > MAX_ELEMENTS:
        raise TooLarge(f"a chunk has {math.prod(shape)} elements; {MAX_ELEMENTS} are allowed")
    if method == INTEGERS:
        if settings.bound:
            return decode_bounded(payload, shape, dtype, settings.bound)
        return lossless.decode_lossless(method, payload, shape, dtype)
    if method == AUTOENCODER and settings.mode != "lossy":
        raise Corrupt(f"a chunk is lossy in a file of mode {settings.mode!r}")
    usable = dtype == np.uint8 if method == CONTEXT else dtype.kind != "c"
    if method not in MODEL_METHODS or not usable:
        raise Corrupt(f"method {method} is unknown, or cannot hold {dtype}")
    model = settings.model
    if model is None:
        raise WrongModel("the file needs the model it was made with, and none was given")
    grid = model.grid(shape, settings.images)
    if grid is None or len(payload) < HEAD.size:
        raise Corrupt("the model cannot decode a chunk of this shape and type")
    if method == CONTEXT:
        return _decode_pixels(payload, model, grid)
    return _decode_with_codes(method, payload, grid, dtype, model, settings.bound)


def _decode_with_codes(
    method: int, payload: bytes, grid: Grid, dtype: np.dtype[Any], model: ExactDecoder, bound: float
) -> Array:
    level, length = HEAD.unpack_from(payload)
    codes = _decode_codes(payload, model, grid)
    rest = payload[HEAD.size + length :]
    if (method == AUTOENCODER) != (not rest):
        raise Corrupt("the codes of a chunk do not have the length that they state")
    prediction = model.predict(codes, level, grid)
    if method == AUTOENCODER:
        return as_dtype(prediction, dtype)
    if bound:
        return decode_bounded(rest, grid.shape, dtype, bound, prediction)
    numbers = lossless.decode_exact(rest, *lossless.real_form(grid.shape, dtype), prediction)
    return lossless.from_real(numbers, grid.shape, dtype)


def _decode_pixels(payload: bytes, model: ExactDecoder, grid: Grid) -> Array:
    context = model.context
    if context is None:
        raise Corrupt("a chunk needs a context network, which the model does not have")
    level, length = HEAD.unpack_from(payload)
    side = None
    if level != NO_CODES:
        if not context.side:
            raise Corrupt("a chunk has codes as well as pixels, which the model does not use")
        side = model.approximation(_decode_codes(payload, model, grid), level)
    elif length:
        raise Corrupt("a chunk has codes that nothing uses")
    decoder = Decoder(payload[HEAD.size + length :])
    images = context.decode(decoder, grid.n, side)
    decoder.finish()
    return model.from_planes(images, grid)


def _decode_codes(payload: bytes, model: ExactDecoder, grid: Grid) -> Array:
    """The codes at the start of a payload, after its head."""
    level, length = HEAD.unpack_from(payload)
    end = HEAD.size + length
    if level >= model.n_levels or end > len(payload):
        raise Corrupt("the codes of a chunk do not have the length that they state")
    decoder = Decoder(payload[HEAD.size : end])
    codes = model.tables.decode(decoder, model.code_shape(grid), level)
    decoder.finish()
    if codes.size and int(np.abs(codes).max()) > MAX_CODE:
        raise Corrupt("a code is larger than any that an encoder writes")
    return codes
