"""A trained coder as whole numbers: what a file is decoded by, made once, saved with the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from narrows.compression.codec_setup import CodecConfig
from narrows.compression.coder import Coder, from_cells
from narrows.compression.conditional_prior import LEAST_SCALE, ConditionalPrior, logistic_nats
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.entropy_coder import Encoder
from narrows.compression.format.integer_networks import Payload, quantize_network
from narrows.compression.format.latent_codes import (
    HALF,
    WIDTH,
    ConditionalPriorCoder,
    GroupWeights,
    conditional_tables,
    factorised_tables,
    placeholder_tables,
    quantize_prior,
    table_centers,
)
from narrows.compression.rounding import LogisticMixture
from narrows.parts.objective import WeightedObjective

Array = NDArray[Any]
COUNTED = 1 << 21  # numbers of the samples that codes are counted of, about
MEASURED = 1 << 20  # numbers of the validation samples that levels are measured on, about
REACH = 255  # of the numbers that a factorised table may hold
SHOWN = 64  # samples that activations are measured with, and their codes at every level


@torch.no_grad()
def freeze(
    coder: Coder,
    choices: CodecConfig,
    level: int,
    rows: Iterable[Tensor],
    objective: WeightedObjective | None = None,
) -> Payload:
    """The payload: the decoder's weights, what codes are coded by, and the units of the data.

    ``rows`` are batches of samples like those to come, by which tables are counted.
    """
    levels = range(len(coder.sigmas))
    latents = (coder.latents(x) for x in rows)
    batches = [[_codes(coder, y, at) for at in levels] for y in latents]
    sample = np.concatenate([codes[:SHOWN] for codes in batches[0]])
    steps = coder.log_back.exp().cpu().double().numpy()
    each = np.repeat(steps, [len(codes[:SHOWN]) for codes in batches[0]], axis=0)
    net = [_pair(layer) for layer in coder.g.net.modules() if isinstance(layer, nn.Conv2d)]
    arrays, structure = quantize_network(
        _pair(coder.g.path), net, steps, sample * each[:, :, None, None]
    )
    structure |= {
        "level": level,
        "channels": choices.channels,
        "height": choices.block[0],
        "width": choices.block[1],
        "axes": choices.axes,
        "event": None if choices.event is None else list(choices.event),
    }
    units = {name: choices.unit(name) for name in ("scale", "shift", "low", "high")}
    units["scale"] = units["scale"] * 2.0 ** -structure["fraction"]
    arrays |= {name: unit.astype("<f8") for name, unit in units.items()}
    if objective is not None and "pixels" in objective.regularizers:
        bits: Any = objective.regularizers["pixels"]
        expected, structure["context"] = bits.network.freeze()
        arrays |= {f"context.{name}": array for name, array in expected.items()}
    if isinstance(coder.p, ConditionalPrior):
        return _with_prior(arrays, structure, coder.p, batches, sample)
    return Payload(arrays | _factorised(coder.p, batches), structure)


def _codes(coder: Coder, latents: Tensor, level: int) -> Array:
    codes: Array = coder.codes(latents, level).cpu().numpy().astype(np.int64)
    return codes


def _factorised(p: LogisticMixture, batches: list[list[Array]]) -> dict[str, Array]:
    """The tables of a prior that has one for every number, counted."""
    likely = p.probabilities(REACH).cpu().numpy()
    counts = np.zeros(likely.shape, np.int64)
    channel = np.arange(likely.shape[1])[:, None, None]
    for codes in batches:
        for level, k in enumerate(codes):
            seen = np.clip(k, -REACH, REACH) + REACH
            flat = (seen + channel * likely.shape[2]).ravel()
            counts[level] += np.bincount(flat, minlength=counts[level].size).reshape(
                counts[level].shape
            )
    return factorised_tables(likely, counts)


def _with_prior(
    arrays: dict[str, Array],
    structure: dict[str, Any],
    p: ConditionalPrior,
    batches: list[list[Array]],
    sample: Array,
) -> Payload:
    """The networks of a conditional prior, and tables of what follows what they say."""
    groups = [_weights(net) for net in p.nets]
    more, shifts = quantize_prior(groups, [b for _, b in p.groups], sample)
    arrays, structure = arrays | more, structure | {"prior": shifts}
    blank = Payload(arrays | {"prior.frequencies": placeholder_tables()}, structure)
    counting = ConditionalPriorCoder(blank, len(batches[0]), p.groups[-1][1])
    counts = np.zeros(blank.arrays["prior.frequencies"].shape)
    for codes in batches:
        for level, k in enumerate(codes):
            counting.count(k, level, counts)
    sizes, remainders = (torch.from_numpy(a)[:, None] for a in table_centers())
    numbers = torch.arange(WIDTH) - HALF
    density = torch.exp(-logistic_nats(numbers, remainders, sizes + LEAST_SCALE)).numpy()
    left = np.maximum(1 - density.sum(axis=1, keepdims=True), 1e-6)
    tables = conditional_tables(counts, np.concatenate([density, left], axis=1))
    return Payload(arrays | {"prior.frequencies": tables}, structure)


def _weights(net: Any) -> GroupWeights:
    weights = [
        layer.weight.detach().cpu().double().numpy() for layer in (net.first, net.middle, net.last)
    ]
    biases = [b.detach().cpu().double().numpy() for b in (net.bias, net.middle.bias, net.base)]
    return GroupWeights(*(x for pair in zip(weights, biases, strict=True) for x in pair))


def _pair(layer: Any) -> tuple[Array, Array]:
    return layer.weight.detach().cpu().double().numpy(), layer.bias.detach().cpu().double().numpy()


def bits_of(codes: Array, tables: Any, level: int) -> float:
    """What codes (n, channels, rows, columns) cost by the frozen tables."""
    encoder = Encoder()
    tables.encode(codes, level, encoder)
    return encoder.bits


def some_rows(rows: Any, seed: int) -> Iterator[Tensor]:
    """Batches of rows to count codes of: all, or a share of very many."""
    seen, most = 0, COUNTED // math.prod(rows.shape)
    for x in rows.shuffled(256, torch.Generator().manual_seed(seed)):
        yield x
        seen += len(x)
        if seen >= most:
            return


@torch.no_grad()
def measured(coder: Coder, model: ExactDecoder, validation: Any) -> list[dict[str, float]]:
    """Bits and squared error (in scaled units) of a number at each level, by the exact decoder."""
    n_levels = len(coder.sigmas)
    bits, errors, n = [0.0] * n_levels, [0.0] * n_levels, 0
    for x in validation.in_order(256):
        if n > MEASURED:
            break
        x = coder.planes(x)
        latents = coder.latents(x)
        n += x.numel()
        for level in range(n_levels):
            codes = coder.codes(latents, level).cpu().numpy().astype(np.int64)
            bits[level] += bits_of(codes, model.tables, level)
            y = torch.from_numpy(model.network(codes, level)).double()
            y = from_cells(y * 2.0**-model.network.fraction, coder.block).float()
            errors[level] += float((coder.head(y.to(x.device)) - x).square().sum())
    return [{"bits_per_number": b / n, "mse": e / n} for b, e in zip(bits, errors, strict=True)]
