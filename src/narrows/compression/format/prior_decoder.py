"""Codes as bytes, each number by what those coded before it tell: networks in whole numbers.

Channels come in groups; the cells of a group in four passes over a chequered grid (see PASSES). For
each group and pass, with a = the codes known so far, clipped to ±2047, 0 where none is known:

    h₁ = clip(⌊(Σ W a + b₁[level, pass] + 2ˢ⁻¹) / 2ˢ⌋, 0, 65535)   over the 3 × 3 cells around
    h₂ = clip(⌊(V h₁ + b₂ + 2ᵗ⁻¹) / 2ᵗ⌋, 0, 65535)
    (m, r) = ⌊(U h₂ + b₃[level] + 2ᵘ⁻¹) / 2ᵘ⌋                      mean and scale, in 256ths

The number k is coded as k − ⌊(m + 128) / 256⌋ by a table that follows from r and from what rounding
m left: the same tables serve all channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.exact_products import product
from narrows.compression.format.frequency_tables import Tables
from narrows.compression.format.integer_networks import AT_ONCE, EXACT, MOST_HIDDEN, TOP
from narrows.compression.format.model_payload import Payload
from narrows.exceptions import Corrupt

Array = NDArray[Any]
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
SEEN = 2047  # of a code, at most, by other codes
UNIT = 256  # of means and scales
FAR = 32767  # a code stays within ±this
MEAN = 1 << 23  # of a mean in 256ths, at most: it stays within the codes
WIDTH = 254  # numbers that a table holds; a last symbol is the escape
HALF = WIDTH // 2
MOST_GROUPS = 4096


class Step:
    """One group's network."""

    def __init__(self, payload: Payload, i: int, first: int, last: int, side: int) -> None:
        self.first, self.last, self.side = first, last, side
        names = [f"prior.{i}.{name}" for name in ("first", "middle", "last")]
        weights = [payload.get(f"{name}.weight", "i", 4) for name in names]
        hidden = weights[0].shape[0]
        shapes = [
            (hidden, last, side, side),
            (hidden, hidden, 1, 1),
            (2 * (last - first), hidden, 1, 1),
        ]
        if not 0 < hidden <= MOST_HIDDEN or [w.shape for w in weights] != shapes:
            raise Corrupt("the prior's layers do not fit its groups")
        self.shifts = _shifts(payload, i)
        self.biases = [
            payload.get(f"{name}.bias", "i", ndim).astype(np.float64)
            for name, ndim in zip(names, (3, 1, 2), strict=True)
        ]
        widths = (hidden, hidden, 2 * (last - first))
        if [b.shape[-1] for b in self.biases] != list(widths):
            raise Corrupt("the prior's biases do not fit its layers")
        for weight, bias, shift, most in zip(
            weights, self.biases, self.shifts, (SEEN, TOP, TOP), strict=True
        ):
            reach = np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)).max() * most
            if reach + np.abs(bias).max(initial=0) + 2.0**shift >= EXACT:
                raise Corrupt("the prior could leave the whole numbers that are exact")
        self.kernels = weights[0].astype(np.float64).transpose(2, 3, 1, 0)
        self.middle, self.out = (
            np.ascontiguousarray(w[:, :, 0, 0].T, np.float64) for w in weights[1:]
        )

    def __call__(self, seen: Array, level: int, at: int) -> tuple[Array, Array]:
        """Means and scales in 256ths, (n, rows, columns, channels), of the cells of a pass.

        ``seen`` is (n, rows + 2, columns + 2, channels) with zeros around and where nothing is
        known; for one cell alone (n, 1, 1, channels).
        """
        cells = max(1, math.prod(seen.shape[1:3]) // len(PASSES))
        size = max(1, AT_ONCE // (cells * self.kernels.shape[3]))  # samples that take little room
        parts = [self._part(seen[i : i + size], level, at) for i in range(0, len(seen), size)]
        mean, scale = (np.concatenate(some) for some in zip(*parts, strict=True))
        return mean, scale

    def _part(self, seen: Array, level: int, at: int) -> tuple[Array, Array]:
        if self.side == 1:
            n, rows, columns = len(seen), 1, 1
            total = product(seen.reshape(n, -1), self.kernels[0, 0])
        else:
            (i, j), (n, height, width, _) = PASSES[at], seen.shape
            rows, columns = len(range(i, height - 2, 2)), len(range(j, width - 2, 2))
            total = np.zeros((n * rows * columns, self.kernels.shape[3]))
            for di, dj in np.ndindex(3, 3):
                part = seen[:, i + di : height - 2 + di : 2, j + dj : width - 2 + dj : 2]
                total += product(part.reshape(len(total), -1), self.kernels[di, dj])
        h = np.clip(_shifted(total, self.biases[0][level, at], self.shifts[0]), 0, TOP)
        h = np.clip(_shifted(product(h, self.middle), self.biases[1], self.shifts[1]), 0, TOP)
        out = _shifted(product(h, self.out), self.biases[2][level], self.shifts[2])
        mean, scale = np.split(out.reshape(n, rows, columns, -1), 2, axis=-1)
        return np.clip(mean, -MEAN, MEAN).astype(np.int64), scale.astype(np.int64)


def _shifted(total: Array, bias: Array, shift: int) -> Array:
    total += bias + (2.0 ** (shift - 1) if shift else 0.0)
    total *= 2.0**-shift
    return np.floor(total, out=total)


def _shifts(payload: Payload, i: int) -> list[int]:
    shifts = payload.structure.get("prior")
    mine = shifts[i] if isinstance(shifts, list) and i < len(shifts) else None
    if not isinstance(mine, list) or len(mine) != 3:
        raise Corrupt("the prior has no usable shifts")
    if not all(type(s) is int and 0 <= s <= 52 for s in mine):
        raise Corrupt("the prior has no usable shifts")
    return mine


class Conditional:
    """Coder of codes by the prior of a payload."""

    def __init__(self, payload: Payload, n_levels: int, channels: int) -> None:
        ends = payload.get("prior.groups", "u", 1).astype(np.int64).tolist()
        fine = len(ends) <= MOST_GROUPS and ends == sorted(set(ends)) and ends[-1:] == [channels]
        if not fine or ends[0] < 1:
            raise Corrupt("the prior's groups do not cover the channels")
        first = payload.get("prior.0.first.weight", "i", 4)
        side = 3 if first.shape[-1] == 3 else 1
        self.steps = [Step(payload, i, a, b, side) for i, (a, b) in enumerate(pairwise([0, *ends]))]
        n_passes = len(PASSES) if side == 3 else 1
        for step in self.steps:
            if step.biases[0].shape[:2] != (n_levels, n_passes) or len(step.biases[2]) != n_levels:
                raise Corrupt("the prior's biases do not fit its levels")
        self.passes = PASSES[:n_passes]
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

    def _index(self, mean: Array, scale: Array) -> tuple[Array, Array]:
        """The whole number that a mean is near, and the table that goes with the rest."""
        near = (mean + UNIT // 2) >> 8
        rest = mean - (near << 8) + UNIT // 2  # 0 to 255
        size = np.searchsorted(self.thresholds, scale, side="right")
        return near, size * self.n_rests + ((rest * self.n_rests) >> 8)

    def _walk(
        self, shape: tuple[int, ...], level: int
    ) -> Iterator[tuple[Any, Array, Array, Array]]:
        """For every step: where its cells are in (n, rows, columns, channels), near, table; and the
        room to put what is known into.
        """
        n, channels, rows, columns = shape
        edge = 1 if len(self.passes) > 1 else 0
        if not edge and (rows, columns) != (1, 1):
            raise Corrupt("the prior is one of cells that stand alone")
        seen = np.zeros((n, rows + 2 * edge, columns + 2 * edge, channels))
        inner = seen[:, edge : edge + rows, edge : edge + columns]
        for step in self.steps:
            for at, (i, j) in enumerate(self.passes):
                place = (slice(None), slice(i, None, 2), slice(j, None, 2))
                mine = (*place, slice(step.first, step.last))
                if inner[mine].size:
                    mean, scale = step(seen[..., : step.last], level, at)
                    yield (mine, *self._index(mean, scale), inner)

    def encode(self, codes: Array, level: int, encoder: Encoder) -> None:
        """Codes (n, channels, rows, columns)."""
        moved = np.moveaxis(codes, 1, -1)
        for mine, near, index, inner in self._walk(codes.shape, level):
            k = moved[mine]
            symbols = k - near + HALF
            far = (symbols < 0) | (symbols >= WIDTH)
            far |= self.tables.frequencies[index, np.where(far, WIDTH, symbols)] == 0
            encoder.put_symbols(np.where(far, WIDTH, symbols), self.tables, index)
            encoder.put_bits(k[far] + FAR + 1, 16)
            inner[mine] = np.clip(k, -SEEN, SEEN)

    def decode(self, decoder: Decoder, shape: tuple[int, ...], level: int) -> Array:
        """Codes of this shape, (n, channels, rows, columns), int64."""
        n, channels, rows, columns = shape
        codes = np.empty((n, rows, columns, channels), np.int64)
        for mine, near, index, inner in self._walk(shape, level):
            symbols = decoder.get(near.size, self.tables, index.ravel()).reshape(near.shape)
            k = symbols - HALF + near
            far = symbols == WIDTH
            k[far] = decoder.get_bits(int(far.sum()), 16) - FAR - 1
            codes[mine] = k
            inner[mine] = np.clip(k, -SEEN, SEEN)
        return np.moveaxis(codes, -1, 1)

    def count(self, codes: Array, level: int, counts: Array) -> None:
        """Add how often each symbol follows each table: what the tables are made from."""
        moved = np.moveaxis(codes, 1, -1)
        for mine, near, index, inner in self._walk(codes.shape, level):
            symbols = np.clip(moved[mine] - near + HALF, -1, WIDTH)
            symbols[symbols < 0] = WIDTH
            flat = (index * (WIDTH + 1) + symbols).ravel()
            counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
            inner[mine] = np.clip(moved[mine], -SEEN, SEEN)
