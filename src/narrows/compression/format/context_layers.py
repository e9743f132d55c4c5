"""The network of `codec.context`, in whole numbers: from what surrounds a pixel to its tables.

    h₁ = clip(⌊(x·W₁ + row + column + channel (+ given) + Σ near₁ + 2^(s−1)) / 2^s⌋, 0, ceiling)
    h₂ = clip(⌊(h₁·W₂ + b₂ + 2^(s−1)) / 2^s⌋, 0, ceiling)           ℓ = ⌊(h₂·W + b + 2^(s−1)) / 2^s⌋
    h₃ = clip(⌊(h₂·W₃ + group₃ + Σ near₃ + 2^(s−1)) / 2^s⌋, 0, ceiling)    ℓ' likewise from h₃

Each number that comes out of a layer has a shift s of its own. ℓ are logits in 64ths, turned into
frequencies by a stored table of integers. All sums are whole numbers that a float holds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.exact_products import exact_kind, product
from narrows.compression.format.frequency_tables import TOTAL
from narrows.exceptions import Corrupt

Array = NDArray[Any]
MOST_WIDE = 1024  # a layer
MOST_SHIFT = 30
MOST_NEAR = 64
BLOCK = 2048  # rows that pass the layers together: what they make stays near the processor


class Layer:
    """x ↦ ⌊(x·W + what is added + 2^(s−1)) / 2^s⌋, for |x| ≤ ``most``; its arrays are checked."""

    def __init__(
        self, arrays: Mapping[str, Array], name: str, inputs: int, most: int, outputs: int = 0
    ) -> None:
        weights, shifts = arrays[f"w{name}"], arrays[f"s{name}"]
        fine = weights.ndim == 2 and weights.shape[0] == inputs
        if not fine or not 0 < weights.shape[1] <= MOST_WIDE:
            raise Corrupt(f"the context model's matrix w{name} has no possible shape")
        self.width = weights.shape[1]
        if outputs and self.width != outputs:
            raise Corrupt(f"the context model's matrix w{name} does not fit its groups")
        if shifts.shape != (self.width,) or (shifts < 0).any() or (shifts > MOST_SHIFT).any():
            raise Corrupt(f"the context model's shifts s{name} are none")
        self.weights = weights.astype(np.int64)
        self._shifts = shifts.astype(np.int64)
        self._half = (1 << self._shifts) >> 1
        self._bound = np.abs(self.weights).sum(axis=0) * most + self._half
        self._arrays = arrays
        self.tables: dict[str, Array] = {}

    def add(self, name: str, rows: tuple[int, ...]) -> Layer:
        """Expect a table (*rows, width); one of its rows, or one for each of rows[0], is added."""
        table = self._arrays[name]
        if table.shape != (*rows, self.width):
            raise Corrupt(f"the context model's {name} is not of shape {(*rows, self.width)}")
        sizes = np.abs(table.astype(np.int64)).reshape(-1, *rows[-1:], self.width)
        largest = sizes if not rows else sizes.max(axis=1, initial=0)
        self._bound = self._bound + largest.sum(axis=0)
        self.tables[name] = table
        return self

    def freeze(self) -> None:
        """Carry all numbers in the smallest floats that are exact for this layer."""
        kind = exact_kind(int(self._bound.max()))
        if kind is None:
            raise Corrupt("the context model's numbers are too large to be summed exactly")
        self.kind = kind
        self.weights = self.weights.astype(kind)
        self.half = self._half.astype(kind)
        self.scale = np.exp2(-self._shifts).astype(kind)
        self.tables = {name: table.astype(kind) for name, table in self.tables.items()}

    def __call__(self, x: Array, added: Array, near: str, values: Array) -> Array:
        """x·W, what is ``added``, and the rows of the tables ``near`` for ``values`` (k, n)."""
        sums = product(x.astype(self.kind, copy=False), self.weights)
        sums += added
        for table, row in zip(self.tables[near] if near else (), values, strict=False):
            sums += table.take(row, axis=0)
        sums *= self.scale
        return np.floor(sums, out=sums)


class Network:
    """All layers, from a model's arrays."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        shape: tuple[int, int, int],
        n_inputs: int,
        n_near: int,
        sizes: Array,
        ceiling: int,
    ) -> None:
        n_groups, n_low, n_third = len(sizes), int(sizes.max()), len(arrays["near3"])
        if n_third > n_near:
            raise Corrupt("the context model names more nearest pixels than it has")
        C, H, W = shape
        self.first = Layer(arrays, "1", n_inputs, 255)
        for name, rows in (("row", (H,)), ("column", (W,)), ("channel", (C,)), ("given", ())):
            self.first.add(name, rows)
        self.first.add("near1", (n_near, 256))
        self.second = Layer(arrays, "2", self.first.width, ceiling).add("b2", ())
        self.group = Layer(arrays, "g", self.second.width, ceiling, n_groups).add("bg", ())
        self.third = Layer(arrays, "3", self.second.width, ceiling).add("group3", (n_groups,))
        self.third.add("near3", (n_third, 256))
        self.low = Layer(arrays, "l", self.third.width, ceiling, n_low).add("bl", ())
        for layer in (self.first, self.second, self.group, self.third, self.low):
            layer.freeze()
        self._member = np.arange(n_low) < sizes[:, None]
        self._ceiling = ceiling
        self._exponentials = _exponentials(arrays["exponentials"])

    def groups(
        self, x: Array, near: Array, at: tuple[int, int, int], given: bool
    ) -> tuple[Array, Array]:
        """h₂ and the groups' cumulative tables of rows x (n, inputs), near (k, n), at one place."""
        tables = self.first.tables
        place = tables["channel"][at[0]] + tables["row"][at[1]] + tables["column"][at[2]]
        place = place + self.first.half + (tables["given"] if given else 0)
        hidden = np.empty((len(x), self.second.width), self.second.kind)
        found = np.empty((len(x), self.group.width + 1), np.int32)
        for i in range(0, len(x), BLOCK):
            part = slice(i, i + BLOCK)
            h = self._clipped(self.first(x[part], place, "near1", near[:, part]))
            h = self._clipped(self._plain(self.second, "b2", h))
            hidden[part] = h
            found[part] = self._cumulative(self._plain(self.group, "bg", h))
        return hidden, found

    def within(self, hidden: Array, groups: Array, near: Array) -> Array:
        """The cumulative tables within each row's group."""
        found = np.empty((len(hidden), self.low.width + 1), np.int32)
        for i in range(0, len(hidden), BLOCK):
            part = slice(i, i + BLOCK)
            added = self.third.tables["group3"][groups[part]] + self.third.half
            h = self._clipped(self.third(hidden[part], added, "near3", near[:, part]))
            logits = self._plain(self.low, "bl", h)
            found[part] = self._cumulative(np.where(self._member[groups[part]], logits, -np.inf))
        return found

    def _plain(self, layer: Layer, bias: str, h: Array) -> Array:
        return layer(h, layer.tables[bias] + layer.half, "", h)

    def _clipped(self, h: Array) -> Array:
        np.maximum(h, 0, out=h)
        return np.minimum(h, self._ceiling, out=h)

    def _cumulative(self, logits: Array) -> Array:
        """Logits (n, A) → rows that rise strictly from 0 to 2¹⁶, (n, A + 1).

        cᵢ = ⌊(Σ_{j<i} E_j)·(2¹⁶ − A) / Σ E⌋ + i, where E_j = exponentials[max ℓ − ℓ_j].
        """
        width = logits.shape[1]
        below = logits.max(axis=1, keepdims=True) - logits
        last = len(self._exponentials) - 1
        weights = self._exponentials[np.minimum(below, last, out=below).astype(np.int32)]
        # sums below 2⁵³, and a quotient that is no whole number is farther from the next one than
        # a float64 at its size can err: the floor of the division is the exact one
        sums = np.cumsum(weights, axis=1)
        rows = np.zeros((len(logits), width + 1), np.int32)
        rows[:, 1:] = np.floor(sums * (TOTAL - width) / sums[:, -1:])
        rows += np.arange(width + 1, dtype=np.int32)
        return rows


def _exponentials(table: Array) -> Array:
    """The table of about exp(−t/64)·2¹⁶ for t = 0, 1, ..., as floats; checked."""
    fine = table.ndim == 1 and 1 < len(table) <= 1 << 14
    if not fine or (table < 0).any() or (table > TOTAL).any() or table[0] < 1:
        raise Corrupt("the context model's table of exponentials is none")
    return table.astype(np.float64)
