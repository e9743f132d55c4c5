"""A trained codec as whole numbers: the payload that files are decoded with, saved with the model.

The decoder and the conditional prior are quantised by `format.integer_networks` and
`format.latent_codes`; the context network here, and the tables of codes are counted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from narrows.compression.codec_network import CodecConfig, CodecNetwork, ContextBits, from_cells
from narrows.compression.context_network import CEILING, HIDDEN_UNIT, ContextNetwork
from narrows.compression.entropy_models import (
    MIN_SCALE,
    ConditionalPrior,
    FactorisedPrior,
    GroupPredictor,
    logistic_nats,
)
from narrows.compression.format import Array
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.entropy_coder import Encoder
from narrows.compression.format.integer_networks import Payload, quantize_network
from narrows.compression.format.latent_codes import (
    HALF,
    WIDTH,
    ConditionalPriorCoder,
    FactorisedPriorCoder,
    GroupWeights,
    conditional_tables,
    factorised_tables,
    placeholder_tables,
    quantize_prior,
    table_centers,
)
from narrows.parts.objective import WeightedObjective
from narrows.training.batches import Rows
from narrows.training.patches import Patches
from narrows.training.streamed_batches import Stream

COUNTED_NUMBERS = 1 << 21  # of the samples whose codes are counted, about
MEASURED_NUMBERS = 1 << 20  # of the validation samples that levels are measured on, about
TABLE_REACH = 255  # largest code that a factorised table may hold
ACTIVATION_SAMPLES = 64  # samples by which activations are measured, at every level

LOGIT_UNIT = 64  # the context decoder holds logits in 64ths
TABLE_UNIT = 32  # the coarsest unit of the context network's tables of nearest values: 32nds
EXACT = (1 << 24) - 1  # float32 holds all whole numbers up to here
MAX_INT16 = (1 << 15) - 1
MAX_SHIFT = 20
# the context network's layers: letter in the payload, name, unit of its input and output, and the
# tables that are added to its output
CONTEXT_LAYERS = (
    ("1", "first", 1, HIDDEN_UNIT, ("row", "column", "channel", "given", "near1")),
    ("2", "second", HIDDEN_UNIT, HIDDEN_UNIT, ()),
    ("g", "group", HIDDEN_UNIT, LOGIT_UNIT, ()),
    ("3", "third", HIDDEN_UNIT, HIDDEN_UNIT, ("group3", "near3")),
    ("l", "low", HIDDEN_UNIT, LOGIT_UNIT, ()),
)


def as_float64(tensor: Tensor) -> Array:
    """A tensor's values on the CPU, as float64."""
    array: Array = tensor.detach().cpu().double().numpy()
    return array


def whole_codes(network: CodecNetwork, latents: Tensor, level: int) -> Array:
    """Codes at a level, int64."""
    codes: Array = network.codes(latents, level).cpu().numpy().astype(np.int64)
    return codes


@torch.no_grad()
def quantize_model(
    network: CodecNetwork,
    config: CodecConfig,
    level: int,
    batches: Iterable[Tensor],
    objective: WeightedObjective | None = None,
) -> Payload:
    """The payload: the decoder's weights, the tables that codes are coded with, the data's units.

    ``batches`` are samples like those to be compressed, whose codes are counted; ``level`` is the
    one that files have by default; the context network, if any, is in ``objective``.
    """
    latents = (network.latents(x) for x in batches)
    counted = [[whole_codes(network, y, at) for at in range(len(network.sigmas))] for y in latents]
    sample = np.concatenate([codes[:ACTIVATION_SAMPLES] for codes in counted[0]])
    steps = as_float64(network.log_back.exp())
    each = np.repeat(steps, [len(codes[:ACTIVATION_SAMPLES]) for codes in counted[0]], axis=0)
    path, *layers = (
        (as_float64(layer.weight), as_float64(layer.bias))
        for part in (network.g.path, network.g.net)
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d) and layer.bias is not None
    )
    arrays, structure = quantize_network(path, layers, steps, sample * each[:, :, None, None])
    structure |= {
        "level": level,
        "channels": config.channels,
        "height": config.block[0],
        "width": config.block[1],
        "axes": config.axes,
        "event": None if config.event is None else list(config.event),
    }
    units = {name: config.broadcastable(name) for name in ("scale", "shift", "low", "high")}
    units["scale"] = units["scale"] * 2.0 ** -structure["fraction"]
    arrays |= {name: unit.astype("<f8") for name, unit in units.items()}
    if objective is not None and "pixels" in objective.regularizers:
        bits = objective.regularizers["pixels"]
        assert isinstance(bits, ContextBits)
        context, structure["context"] = quantize_context(bits.network)
        arrays |= {f"context.{name}": array for name, array in context.items()}
    if isinstance(network.p, ConditionalPrior):
        return _with_prior(arrays, structure, network.p, counted, sample)
    return Payload(arrays | _factorised_tables(network.p, counted), structure)


def _factorised_tables(p: FactorisedPrior, counted: list[list[Array]]) -> dict[str, Array]:
    """A table for each level and channel, from the prior and the counted codes."""
    likely = p.probabilities(TABLE_REACH).cpu().numpy()
    counts = np.zeros(likely.shape, np.int64)
    channel = np.arange(likely.shape[1])[:, None, None]
    for codes in counted:
        for level, k in enumerate(codes):
            symbols = np.clip(k, -TABLE_REACH, TABLE_REACH) + TABLE_REACH
            flat = (symbols + channel * likely.shape[2]).ravel()
            found = np.bincount(flat, minlength=counts[level].size)
            counts[level] += found.reshape(counts[level].shape)
    return factorised_tables(likely, counts)


def _with_prior(
    arrays: dict[str, Array],
    structure: dict[str, Any],
    p: ConditionalPrior,
    counted: list[list[Array]],
    sample: Array,
) -> Payload:
    """The conditional prior's networks, and tables of the codes given what they predict."""
    groups = [group_weights(net) for _, _, net in p.group_networks()]
    more, shifts = quantize_prior(groups, [b for _, b in p.groups], sample)
    arrays, structure = arrays | more, structure | {"prior": shifts}
    blank = Payload(arrays | {"prior.frequencies": placeholder_tables()}, structure)
    counting = ConditionalPriorCoder(blank, len(counted[0]), p.groups[-1][1])
    counts = np.zeros(blank.arrays["prior.frequencies"].shape)
    for codes in counted:
        for level, k in enumerate(codes):
            counting.count(k, level, counts)
    sizes, remainders = (torch.from_numpy(a)[:, None] for a in table_centers())
    numbers = torch.arange(WIDTH) - HALF
    density = torch.exp(-logistic_nats(numbers, remainders, sizes + MIN_SCALE)).numpy()
    left = np.maximum(1 - density.sum(axis=1, keepdims=True), 1e-6)
    tables = conditional_tables(counts, np.concatenate([density, left], axis=1))
    return Payload(arrays | {"prior.frequencies": tables}, structure)


def group_weights(net: GroupPredictor) -> GroupWeights:
    """The weights of one group's network, as float64."""
    first, middle, last = net.first, net.middle, net.last
    assert middle.bias is not None
    tensors = (first.weight, net.bias, middle.weight, middle.bias, last.weight, net.base)
    return GroupWeights(*map(as_float64, tensors))


def quantize_context(network: ContextNetwork) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the structure of a `format.context_model.ContextModel`.

    Hidden numbers are held in 128ths, logits in 64ths. Each output of a layer has its own power of
    two for its weights: the largest that keeps all sums below 2²⁴, where float32 is exact, and all
    weights within 16 bits.
    """
    window = {"own": network.own, "other": network.other, "near": network.near_at}
    arrays: dict[str, Array] = {name: np.array(v, np.int8) for name, v in window.items()}
    arrays["groups"] = network.group_of.cpu().numpy().astype(np.uint8)
    weights = {name: as_float64(p) for name, p in network.named_parameters()}
    weights["first.weight"] = weights["first.weight"] * as_float64(network.scale)
    for letter, name, unit_in, unit_out, tables in CONTEXT_LAYERS:
        matrix = weights[f"{name}.weight"].T * (unit_out / unit_in)
        added = {table: weights[f"{table}_bias"] * unit_out for table in tables}
        if not tables:
            added[f"b{letter}"] = weights[f"{name}.bias"] * unit_out
        shifts = _shifts(matrix, 255 if letter == "1" else CEILING, list(added.values()))
        arrays[f"w{letter}"] = _as_int16(matrix, shifts)
        arrays[f"s{letter}"] = shifts.astype(np.uint8)
        for table, value in added.items():
            # by far the largest tables: finer steps would only be noise, which takes up file space
            coarse = HIDDEN_UNIT // TABLE_UNIT if table.startswith("near") else 0
            arrays[table] = _as_int16(value, shifts, coarse)
    # e^(−k / unit) in 2⁻¹⁶ for the decoder's softmax, down to 2⁻¹⁷; the last entry is 0
    exponents = np.arange(int(LOGIT_UNIT * np.log(2.0**17)) + 2)
    exponentials = np.rint(2.0**16 * np.exp(-exponents / LOGIT_UNIT))
    exponentials[-1] = 0
    arrays["exponentials"] = exponentials.astype(np.int32)
    options = network.options
    return arrays, {
        "shape": list(options.shape),
        "residual": options.residual,
        "side": options.side,
        "ceiling": CEILING,
    }


def _shifts(matrix: Array, ceiling: int, added: list[Array]) -> Array:
    """For each output, the largest power of two that leaves all sums exact in float32."""
    width = matrix.shape[1]
    sums, largest = np.abs(matrix).sum(axis=0) * ceiling, np.abs(matrix).max(axis=0)
    # rounding may add a half to every weight, and half a step to a table's rows
    spare = np.full(width, len(matrix) * ceiling / 2 + 8.0)
    for table in added:
        rows = np.abs(table).reshape(-1, *table.shape[-2:-1], width)
        each = rows.max(axis=1, initial=0) if table.ndim > 1 else rows
        half_step = HIDDEN_UNIT / TABLE_UNIT / 2
        sums, spare = sums + (each + half_step).sum(axis=0), spare + len(each)
        largest = np.maximum(largest, rows.reshape(-1, width).max(axis=0, initial=0))
    shifts = np.zeros(width, np.int64)
    for shift in range(1, MAX_SHIFT + 1):
        total = sums * 2.0**shift + 2.0 ** (shift - 1) + spare
        shifts[(total < EXACT) & (largest * 2.0**shift < MAX_INT16)] = shift
    return shifts


def _as_int16(values: Array, shifts: Array, coarse: int = 0) -> Array:
    """Values times powers of two as whole numbers, or as multiples of ``coarse`` such units."""
    step = np.maximum(1, coarse * 2.0**shifts) if coarse else 1
    limit = MAX_INT16 // step * step
    scaled = np.rint(values * 2.0**shifts / step) * step
    return np.clip(scaled, -limit, limit).astype(np.int16)


def code_bits(
    codes: Array, tables: FactorisedPriorCoder | ConditionalPriorCoder, level: int
) -> float:
    """Bits of codes (n, channels, rows, columns) by a decoder's tables, without coding them."""
    encoder = Encoder()
    tables.encode(codes, level, encoder)
    return encoder.bits


def sample_batches(rows: Rows | Stream | Patches, seed: int) -> Iterator[Tensor]:
    """Batches of rows whose codes are counted: all rows, or a random part of very many."""
    seen, limit = 0, COUNTED_NUMBERS // math.prod(rows.shape)
    for x in rows.shuffled(256, torch.Generator().manual_seed(seed)):
        yield x
        seen += len(x)
        if seen >= limit:
            return


@torch.no_grad()
def measure_levels(
    network: CodecNetwork, model: ExactDecoder, validation: Rows | Stream
) -> list[dict[str, float]]:
    """Bits and squared error (scaled units) of a number at each level, by the exact decoder."""
    n_levels = len(network.sigmas)
    bits, errors, n = [0.0] * n_levels, [0.0] * n_levels, 0
    for x in validation.in_order(256):
        if n > MEASURED_NUMBERS:
            break
        x = network.planes(x)
        latents = network.latents(x)
        n += x.numel()
        for level in range(n_levels):
            codes = whole_codes(network, latents, level)
            bits[level] += code_bits(codes, model.tables, level)
            y = torch.from_numpy(model.network(codes, level)).double()
            y = from_cells(y * 2.0**-model.network.fraction, network.block).float()
            errors[level] += float((network.head(y.to(x.device)) - x).square().sum())
    return [{"bits_per_number": b / n, "mse": e / n} for b, e in zip(bits, errors, strict=True)]
