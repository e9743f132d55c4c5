"""Codes of the autoencoder as bytes: whole numbers, coded by the prior of the model.

Two kinds of prior, of which a model has one:

- factorised: a fixed frequency table for each quality level and channel;
- conditional: networks in whole numbers predict each number from those coded before it.

Also here: how the tables and networks of a trained prior become whole numbers (`quantize_prior`,
`factorised_tables`, `conditional_tables`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format import integer_networks as networks
from narrows.compression.format.entropy_coder import TOTAL, Decoder, Encoder, Tables, frequencies_of
from narrows.compression.format.integer_networks import Payload, QuantizedLayer
from narrows.exceptions import Corrupt

MAX_CODE = 32767  # a code stays within ± this
MIN_LIKELIHOOD = 2.0**-18  # numbers less likely than this are coded by the escape symbol
STRENGTH = 64.0  # how many observations the prior's own density is worth
# of the factorised prior
MAX_SYMBOLS = 1024  # of a table
# of the conditional prior
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # the cells of a checkered grid: first row and column
MAX_SEEN = 2047  # codes are clipped to ± this where they predict others
UNIT = 256  # means and scales are in 256ths
MAX_MEAN = 1 << 23  # of a mean in 256ths: it stays within the codes
WIDTH = 254  # numbers that a table holds; one more symbol is the escape
HALF = WIDTH // 2
MAX_GROUPS = 4096
N_SCALES = 28
N_RESTS = 4  # kinds of remainder after rounding a mean
MIN_SCALE, MAX_SCALE = 0.04, 60.0  # of tables
THRESHOLDS = np.geomspace(MIN_SCALE, MAX_SCALE, N_SCALES - 1)


def _put_escaped(encoder: Encoder, codes: Array) -> None:
    """The codes after an escape symbol, in 16 bits."""
    encoder.put_bits(codes + MAX_CODE + 1, 16)


def _get_escaped(decoder: Decoder, escaped: Array) -> Array:
    return decoder.get_bits(int(escaped.sum()), 16) - MAX_CODE - 1


class FactorisedPriorCoder:
    """Codes by a table for each level and channel.

    A table covers the numbers from its lowest on; its last symbol is the escape, after which the
    number itself follows in 16 bits. Channels are coded one after another, each over all samples
    and cells. Arrays of the payload: ``table.lowest`` (levels, channels), ``table.sizes`` with the
    escapes, and ``table.frequencies``, all of them one after another, less 1 each.
    """

    def __init__(self, payload: Payload, n_levels: int, channels: int) -> None:
        self.lowest = payload.get("table.lowest", "i", 2).astype(np.int64)
        self.sizes = payload.get("table.sizes", "u", 2).astype(np.int64)
        self._frequencies = payload.get("table.frequencies", "u", 1)
        fits = self.lowest.shape == self.sizes.shape == (n_levels, channels)
        if not fits or self.sizes.min() < 1 or self.sizes.max() > MAX_SYMBOLS:
            raise Corrupt("the model's tables have impossible sizes")
        if int(self.sizes.sum()) != len(self._frequencies):
            raise Corrupt("the model's tables are not all there")
        self._tables: dict[int, Tables] = {}

    def at(self, level: int) -> Tables:
        """The tables of a level, one for each channel."""
        if level not in self._tables:
            sizes = self.sizes[level]
            first = int(self.sizes[:level].sum())
            flat = self._frequencies[first : first + int(sizes.sum())].astype(np.int64) + 1
            wide = np.zeros((len(sizes), int(sizes.max())), np.int64)
            wide[np.arange(wide.shape[1]) < sizes[:, None]] = flat
            self._tables = {level: Tables(wide)}  # one at a time: lookups are large
        return self._tables[level]

    def encode(self, codes: Array, level: int, encoder: Encoder) -> None:
        """Put codes (n, channels, rows, columns)."""
        tables = self.at(level)
        moved = np.moveaxis(codes, 1, 0).reshape(codes.shape[1], -1).astype(np.int64)
        escape = self.sizes[level][:, None] - 1
        symbols = moved - self.lowest[level][:, None]
        symbols = np.where((symbols < 0) | (symbols >= escape), escape, symbols)
        index = np.broadcast_to(np.arange(len(moved))[:, None], moved.shape)
        encoder.put_symbols(symbols, tables, index)
        _put_escaped(encoder, moved[symbols == escape])

    def decode(self, decoder: Decoder, shape: tuple[int, ...], level: int) -> Array:
        """The next codes of this shape, (n, channels, rows, columns), int64."""
        n, channels, rows, columns = shape
        index = np.repeat(np.arange(channels), n * rows * columns)
        symbols = decoder.get(len(index), self.at(level), index).reshape(channels, -1)
        codes = symbols + self.lowest[level][:, None]
        escaped = symbols == self.sizes[level][:, None] - 1
        codes[escaped] = _get_escaped(decoder, escaped)
        return np.moveaxis(codes.reshape(channels, n, rows, columns), 0, 1)


def factorised_tables(likely: Array, counts: Array | None) -> dict[str, Array]:
    """The arrays of a `FactorisedPriorCoder`.

    Parameters
    ----------
    likely : (levels, channels, 2·reach + 1)
        The prior's likelihood of the numbers from −reach to reach.
    counts : the same shape, optional
        How often each occurred in training.
    """
    likely = np.maximum(likely.astype(np.float64), 0)
    if counts is not None:
        likely = counts + STRENGTH * likely
    likely = likely / np.maximum(likely.sum(-1, keepdims=True), 1e-300)
    reach = likely.shape[-1] // 2
    lowest = np.zeros(likely.shape[:2], "<i2")
    sizes = np.zeros(likely.shape[:2], "<u2")
    rows = []
    for place in np.ndindex(*likely.shape[:2]):
        p = likely[place]
        kept = np.flatnonzero(p > MIN_LIKELIHOOD)
        first, last = (int(kept[0]), int(kept[-1])) if len(kept) else (reach, reach)
        last = min(last, first + MAX_SYMBOLS - 2)
        inside = np.maximum(p[first : last + 1], MIN_LIKELIHOOD)
        table = np.append(inside, max(1 - inside.sum(), 1.0 / TOTAL))
        rows.append(frequencies_of(table))
        lowest[place], sizes[place] = first - reach, len(table)
    flat = (np.concatenate(rows).astype(np.int64) - 1).astype("<u2")
    return {"table.lowest": lowest, "table.sizes": sizes, "table.frequencies": flat}


class GroupNetwork:
    """The network of a group of channels, ``first`` to ``last``, in whole numbers."""

    def __init__(self, payload: Payload, i: int, first: int, last: int, side: int) -> None:
        self.first, self.last, self.side = first, last, side
        names = [f"prior.{i}.{name}" for name in ("first", "middle", "last")]
        weights = [payload.get(f"{name}.weight", "i", 4) for name in names]
        hidden, out = weights[0].shape[0], 2 * (last - first)
        shapes = [(hidden, last, side, side), (hidden, hidden, 1, 1), (out, hidden, 1, 1)]
        if not 0 < hidden <= networks.MAX_WIDTH or [w.shape for w in weights] != shapes:
            raise Corrupt("the prior's layers do not fit its groups")
        self.shifts = _shifts(payload, i)
        biases = [
            payload.get(f"{name}.bias", "i", n) for name, n in zip(names, (3, 1, 2), strict=True)
        ]
        if [b.shape[-1] for b in biases] != [hidden, hidden, out]:
            raise Corrupt("the prior's biases do not fit its layers")
        inputs = (MAX_SEEN, networks.MAX_HIDDEN, networks.MAX_HIDDEN)
        layers = zip(weights, biases, self.shifts, inputs, strict=True)
        self.biases = [networks.rounding_bias(*layer) for layer in layers]
        self.kernels = weights[0].astype(np.float64).transpose(2, 3, 1, 0)
        self.middle, self.out = (
            np.ascontiguousarray(w[:, :, 0, 0].T, np.float64) for w in weights[1:]
        )

    def __call__(self, seen: Array, level: int, at: int) -> tuple[Array, Array]:
        """Means and scales in 256ths, (n, rows, columns, channels), of the cells of a pass.

        ``seen`` is (n, rows + 2, columns + 2, channels), with zeros around and where nothing is
        known yet; for one cell alone (n, 1, 1, channels).
        """
        cells = max(1, math.prod(seen.shape[1:3]) // len(PASSES))
        size = max(1, networks.BLOCK_NUMBERS // (cells * self.kernels.shape[3]))  # samples at once
        parts = [self._part(seen[i : i + size], level, at) for i in range(0, len(seen), size)]
        mean, scale = (np.concatenate(some) for some in zip(*parts, strict=True))
        return mean, scale

    def _part(self, seen: Array, level: int, at: int) -> tuple[Array, Array]:
        if self.side == 1:
            n, rows, columns = len(seen), 1, 1
            total = networks.product(seen.reshape(n, -1), self.kernels[0, 0])
        else:
            (i, j), (n, height, width, _) = PASSES[at], seen.shape
            rows, columns = len(range(i, height - 2, 2)), len(range(j, width - 2, 2))
            total = np.zeros((n * rows * columns, self.kernels.shape[3]))
            for di, dj in np.ndindex(3, 3):
                part = seen[:, i + di : height - 2 + di : 2, j + dj : width - 2 + dj : 2]
                total += networks.product(part.reshape(len(total), -1), self.kernels[di, dj])
        first, middle, last = self.biases
        h = networks.hidden(total, first[level, at], self.shifts[0])
        h = networks.hidden(networks.product(h, self.middle), middle, self.shifts[1])
        out = networks.shifted(networks.product(h, self.out), last[level], self.shifts[2])
        mean, scale = np.split(out.reshape(n, rows, columns, -1), 2, axis=-1)
        return np.clip(mean, -MAX_MEAN, MAX_MEAN).astype(np.int64), scale.astype(np.int64)


def _shifts(payload: Payload, i: int) -> list[int]:
    shifts = payload.structure.get("prior")
    mine = shifts[i] if isinstance(shifts, list) and i < len(shifts) else None
    if not isinstance(mine, list) or len(mine) != 3:
        raise Corrupt("the prior has no usable shifts")
    if not all(type(s) is int and 0 <= s <= networks.MAX_SHIFT for s in mine):
        raise Corrupt("the prior has no usable shifts")
    return mine


class ConditionalPriorCoder:
    """Codes, each by what the codes before it predict.

    Channels come in groups, the cells of a group in four passes over a checkered grid (`PASSES`).
    For each group and pass, with a = the codes known so far, clipped to ±2047, 0 where unknown:

        h₁ = clip(⌊(Σ W a + b₁[level, pass] + 2ˢ⁻¹) / 2ˢ⌋, 0, 65535)   over the 3 × 3 cells around
        h₂ = clip(⌊(V h₁ + b₂ + 2ᵗ⁻¹) / 2ᵗ⌋, 0, 65535)
        (m, r) = ⌊(U h₂ + b₃[level] + 2ᵘ⁻¹) / 2ᵘ⌋                      mean and scale, in 256ths

    The number k is coded as k − ⌊(m + 128) / 256⌋ by a table that depends on r and on the remainder
    of m; the same tables serve all channels.
    """

    def __init__(self, payload: Payload, n_levels: int, channels: int) -> None:
        ends = payload.get("prior.groups", "u", 1).astype(np.int64).tolist()
        fine = len(ends) <= MAX_GROUPS and ends == sorted(set(ends)) and ends[-1:] == [channels]
        if not fine or ends[0] < 1:
            raise Corrupt("the prior's groups do not cover the channels")
        side = 3 if payload.get("prior.0.first.weight", "i", 4).shape[-1] == 3 else 1
        groups = enumerate(pairwise([0, *ends]))
        self.groups = [GroupNetwork(payload, i, a, b, side) for i, (a, b) in groups]
        self.passes = PASSES if side == 3 else PASSES[:1]
        for group in self.groups:
            first, _, last = group.biases
            if first.shape[:2] != (n_levels, len(self.passes)) or len(last) != n_levels:
                raise Corrupt("the prior's biases do not fit its levels")
        self.thresholds = payload.get("prior.thresholds", "u", 1).astype(np.int64)
        if (np.diff(self.thresholds) <= 0).any():
            raise Corrupt("the prior's thresholds do not rise")
        flat = payload.get("prior.frequencies", "u", 2).astype(np.int64)
        n_scales = len(self.thresholds) + 1
        if flat.shape[0] % n_scales or flat.shape[1] != WIDTH + 1 or not len(flat):
            raise Corrupt("the prior's tables do not fit its scales")
        self.n_rests = flat.shape[0] // n_scales
        if (flat[:, WIDTH] == 0).any():
            raise Corrupt("a table of the prior has no escape")
        self.tables = Tables(flat)

    def _nearest(self, mean: Array, scale: Array) -> tuple[Array, Array]:
        """The whole number nearest to a mean, and the table for the difference from it."""
        near = (mean + UNIT // 2) >> 8
        rest = mean - (near << 8) + UNIT // 2  # 0 to 255
        size = np.searchsorted(self.thresholds, scale, side="right")
        return near, size * self.n_rests + ((rest * self.n_rests) >> 8)

    def _walk(
        self, shape: tuple[int, ...], level: int
    ) -> Iterator[tuple[tuple[slice, ...], Array, Array, Array]]:
        """For every group and pass: (its cells, the nearest numbers, the tables, known codes).

        The cells are an index into (n, rows, columns, channels); write what they hold, clipped,
        into the known codes before the next step.
        """
        n, channels, rows, columns = shape
        edge = 1 if len(self.passes) > 1 else 0
        if not edge and (rows, columns) != (1, 1):
            raise Corrupt("the prior is for cells that stand alone")
        seen = np.zeros((n, rows + 2 * edge, columns + 2 * edge, channels))
        known = seen[:, edge : edge + rows, edge : edge + columns]
        for group in self.groups:
            for at, (i, j) in enumerate(self.passes):
                channel = slice(group.first, group.last)
                cells = (slice(None), slice(i, None, 2), slice(j, None, 2), channel)
                if known[cells].size:
                    mean, scale = group(seen[..., : group.last], level, at)
                    yield (cells, *self._nearest(mean, scale), known)

    def encode(self, codes: Array, level: int, encoder: Encoder) -> None:
        """Put codes (n, channels, rows, columns)."""
        moved = np.moveaxis(codes, 1, -1)
        for cells, near, index, known in self._walk(codes.shape, level):
            k = moved[cells]
            symbols = k - near + HALF
            escaped = (symbols < 0) | (symbols >= WIDTH)
            symbols = np.where(escaped, WIDTH, symbols)
            escaped |= self.tables.frequencies[index, symbols] == 0
            encoder.put_symbols(np.where(escaped, WIDTH, symbols), self.tables, index)
            _put_escaped(encoder, k[escaped])
            known[cells] = np.clip(k, -MAX_SEEN, MAX_SEEN)

    def decode(self, decoder: Decoder, shape: tuple[int, ...], level: int) -> Array:
        """The next codes of this shape, (n, channels, rows, columns), int64."""
        n, channels, rows, columns = shape
        codes = np.empty((n, rows, columns, channels), np.int64)
        for cells, near, index, known in self._walk(shape, level):
            symbols = decoder.get(near.size, self.tables, index.ravel()).reshape(near.shape)
            k = symbols - HALF + near
            escaped = symbols == WIDTH
            k[escaped] = _get_escaped(decoder, escaped)
            codes[cells] = k
            known[cells] = np.clip(k, -MAX_SEEN, MAX_SEEN)
        return np.moveaxis(codes, -1, 1)

    def count(self, codes: Array, level: int, counts: Array) -> None:
        """Add to ``counts`` (tables, symbols) how often each symbol is coded by each table."""
        moved = np.moveaxis(codes, 1, -1)
        for cells, near, index, known in self._walk(codes.shape, level):
            symbols = np.clip(moved[cells] - near + HALF, -1, WIDTH)
            symbols[symbols < 0] = WIDTH
            flat = (index * (WIDTH + 1) + symbols).ravel()
            counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
            known[cells] = np.clip(moved[cells], -MAX_SEEN, MAX_SEEN)


class GroupWeights(NamedTuple):
    """Weights (out, in, side, side) and biases of one group's network, in floats."""

    first: Array
    bias: Array  # (levels, passes, hidden)
    middle: Array
    middle_bias: Array
    last: Array
    base: Array  # (levels, 2 · channels)


def quantize_prior(
    groups: Sequence[GroupWeights], ends: Sequence[int], codes: Array
) -> tuple[dict[str, Array], list[list[int]]]:
    """The arrays of a `ConditionalPriorCoder` but its tables, and the shifts of the structure.

    ``ends`` are the channels after the last of each group, ``codes`` (n, channels, rows, columns)
    typical ones.
    """
    arrays: dict[str, Array] = {
        "prior.groups": np.asarray(ends, "<u2"),
        "prior.thresholds": np.rint(THRESHOLDS * UNIT).astype("<u2"),
    }
    shifts = []
    seen = np.clip(codes, -MAX_SEEN, MAX_SEEN).transpose(0, 2, 3, 1).astype(np.float64)
    for i, (group, end) in enumerate(zip(groups, ends, strict=True)):
        h = np.maximum(
            networks.convolve(seen[..., :end], group.first) + group.bias.max(axis=(0, 1)), 0
        )
        first = QuantizedLayer(f"prior.{i}.first", group.first, group.bias, 0)
        first.limit_output(h, 12)
        h = np.maximum(networks.convolve(h, group.middle) + group.middle_bias, 0)
        middle = QuantizedLayer(f"prior.{i}.middle", group.middle, group.middle_bias, first.out)
        middle.limit_output(h, 12)
        last = QuantizedLayer(f"prior.{i}.last", group.last, group.base, middle.out, min_out=8)
        last.out = 8  # means and scales are in 256ths
        for layer in (first, middle, last):
            arrays |= layer.arrays()
        shifts.append([layer.shift for layer in (first, middle, last)])
    return arrays, shifts


def placeholder_tables() -> Array:
    """Valid tables for a prior that only counts; they are not fit for coding."""
    flat = np.zeros((N_SCALES * N_RESTS, WIDTH + 1), "<u2")
    flat[:, WIDTH], flat[:, HALF] = 1, 65535
    return flat


def conditional_tables(counts: Array, densities: Array) -> Array:
    """Frequencies (tables, symbols) from counts, and from a density where counts are small.

    ``densities`` (tables, symbols) are likelihoods; the last symbol, the escape, has the rest.
    """
    p = counts + STRENGTH * densities
    p = p / p.sum(axis=1, keepdims=True)
    p[:, :WIDTH][p[:, :WIDTH] < MIN_LIKELIHOOD] = 0
    p[:, WIDTH] = np.maximum(p[:, WIDTH], 1 / TOTAL)
    return frequencies_of(p).astype("<u2")


def table_centers() -> tuple[Array, Array]:
    """The scale and the remainder of a mean that each table stands for, (tables,) each."""
    edges = np.concatenate([[MIN_SCALE / 2], THRESHOLDS, [MAX_SCALE * 1.2]])
    scale = np.sqrt(edges[:-1] * edges[1:])
    rest = (np.arange(N_RESTS) + 0.5) / N_RESTS - 0.5
    return np.repeat(scale, N_RESTS), np.tile(rest, N_SCALES)
