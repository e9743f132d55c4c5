"""A trained conditional prior as whole numbers, and its tables from what was counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.frequency_tables import frequencies_of
from narrows.compression.format.integer_networks import TOP
from narrows.compression.format.prior_decoder import HALF, SEEN, UNIT, WIDTH
from narrows.compression.format.quantize_network import ROOM, Frozen, bits_for, convolve

Array = NDArray[Any]
SCALES = 28
RESTS = 4  # kinds of what rounding a mean leaves
SMALLEST, LARGEST = 0.04, 60.0  # scales between which tables differ
STRENGTH = 64.0  # sightings that the density of a table is worth
KEPT = 2.0**-18  # likelihood below which a number is left to the escape
THRESHOLDS = np.geomspace(SMALLEST, LARGEST, SCALES - 1)


class GroupWeights(NamedTuple):
    """Weights (out, in, side, side) and biases of one group's network, in floats."""

    first: Array
    bias: Array  # (levels, passes, hidden)
    middle: Array
    middle_bias: Array
    last: Array
    base: Array  # (levels, 2 · channels)


def freeze_prior(
    groups: Sequence[GroupWeights], ends: Sequence[int], codes: Array
) -> tuple[dict[str, Array], list[list[int]]]:
    """Arrays without tables, and the shifts; ``codes`` (n, channels, rows, columns) as they are."""
    arrays: dict[str, Array] = {
        "prior.groups": np.asarray(ends, "<u2"),
        "prior.thresholds": np.rint(THRESHOLDS * UNIT).astype("<u2"),
    }
    shifts = []
    seen = np.clip(codes, -SEEN, SEEN).transpose(0, 2, 3, 1).astype(np.float64)
    for i, (group, end) in enumerate(zip(groups, ends, strict=True)):
        h = np.maximum(convolve(seen[..., :end], group.first) + group.bias.max(axis=(0, 1)), 0)
        first = Frozen(f"prior.{i}.first", group.first, group.bias, 0)
        first.out = min(bits_for(float(h.max()) * ROOM, TOP), 12, first.most)
        h = np.maximum(convolve(h, group.middle) + group.middle_bias, 0)
        middle = Frozen(f"prior.{i}.middle", group.middle, group.middle_bias, first.out)
        middle.out = min(bits_for(float(h.max()) * ROOM, TOP), 12, middle.most)
        last = Frozen(f"prior.{i}.last", group.last, group.base, middle.out, least=8)
        last.out = 8
        for layer in (first, middle, last):
            arrays |= layer.arrays()
        shifts.append([layer.most - layer.out for layer in (first, middle, last)])
    return arrays, shifts


def no_tables() -> Array:
    """Tables of no use, for a prior that only counts."""
    flat = np.zeros((SCALES * RESTS, WIDTH + 1), "<u2")
    flat[:, WIDTH], flat[:, HALF] = 1, 65535
    return flat


def freeze_prior_tables(counts: Array, densities: Array) -> Array:
    """Frequencies (tables, symbols): what was counted, and a density for what was seldom seen.

    ``densities`` (tables, symbols) are likelihoods; of the last symbol, the escape, what is left.
    """
    p = counts + STRENGTH * densities
    p = p / p.sum(axis=1, keepdims=True)
    p[:, :WIDTH][p[:, :WIDTH] < KEPT] = 0
    p[:, WIDTH] = np.maximum(p[:, WIDTH], 1 / 65536)
    return frequencies_of(p).astype("<u2")


def centres() -> tuple[Array, Array]:
    """The scale and the rest of a mean that each table stands for, (tables,) each."""
    edges = np.concatenate([[SMALLEST / 2], THRESHOLDS, [LARGEST * 1.2]])
    scale = np.sqrt(edges[:-1] * edges[1:])
    rest = (np.arange(RESTS) + 0.5) / RESTS - 0.5
    return np.repeat(scale, RESTS), np.tile(rest, SCALES)
