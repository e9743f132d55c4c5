"""The context network: small 8-bit images without loss, pixel by pixel, in exact integers.

    bits of a pixel v = −log₂ p(group of v | around, place) − log₂ p(v | group, around, place)

A small network sees the surrounding pixels that are already coded, the values of the nearest ones
as categories, the place, and optionally an approximation of the image that encoder and decoder both
have. All its numbers are whole and all its sums exact (see `integer_networks.product`), so encoder
and decoder get the same probabilities on any two machines. All images of a chunk are coded side by
side, pixel by pixel. docs/format-methods.md specifies the method; `compression.context_network`
trains the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product as all_pairs
from typing import Any

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.entropy_coder import TOTAL, Decoder, Encoder
from narrows.compression.format.integer_networks import exact_kind, product
from narrows.exceptions import Corrupt, InputError

MAX_PIXELS = 4096  # of an image, its channels counted
MAX_INPUTS = 1024
MAX_REACH = 16  # of a window, in pixels
MAX_WIDTH = 1024  # of a layer
MAX_SHIFT = 30
MAX_NEAR = 64
IMAGES_AT_ONCE = 1 << 14  # coded side by side; bounds the memory
ROWS_AT_ONCE = 2048  # that pass the layers together: the results stay in the processor's cache


@dataclass
class Place:
    """What is expected of one pixel in all n images.

    ``row_of`` is the row of ``hidden`` and ``tables`` of each image: images whose surroundings are
    all 0 share one.
    """

    at: int  # index on the canvas
    offset: Array  # (n,): a symbol is the value minus this, mod 256
    near: Array  # (k, rows): the values of the nearest pixels
    row_of: Array  # (n,)
    hidden: Array  # (rows, width)
    tables: Array  # (rows, groups + 1)


class ContextModel:
    """The exact network and the coder of pixels.

    Parameters
    ----------
    arrays : dict of integer arrays
    structure : dict
        {"shape": [C, H, W], "residual": bool, "side": bool, "ceiling": int}: whether a pixel is
        coded as its difference from a prediction, whether the network has inputs for an
        approximation, and the largest hidden activation.

    Raises
    ------
    Corrupt
        For arrays that are not a model.
    """

    def __init__(self, arrays: Mapping[str, Array], structure: Mapping[str, Any]) -> None:
        self._arrays, self._structure = dict(arrays), dict(structure)
        try:
            self._read_structure()
            self._read_windows()
            self._read_groups()
            ceiling, near = self._structure["ceiling"], len(self._near)
            self._network = ContextLayers(
                self._arrays, self.shape, self._n_inputs, near, self._sizes, ceiling
            )
        except Corrupt:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"the context model has a missing or wrong part: {error}") from error

    def encode(self, images: Array, side: Array | None, encoder: Encoder) -> None:
        """Put images, uint8 (n, C, H, W); ``side`` is their approximation, if there is one."""
        self._check(images, side, len(images))
        for some in _batches(len(images)):
            canvas = self._canvas(images[some])
            for place in self._places(canvas, None if side is None else side[some]):
                symbols = (canvas[place.at] - place.offset) & 255
                groups = self._groups[symbols]
                _put(encoder, place.tables, place.row_of, groups)
                more = np.flatnonzero(self._sizes[groups] > 1)
                if len(more):
                    tables, inside = self._tables_within(place, groups, more), symbols[more]
                    inside = inside - self._firsts[groups[more]]
                    _put(encoder, tables, np.arange(len(more)), inside)

    def decode(self, decoder: Decoder, n: int, side: Array | None) -> Array:
        """The next ``n`` images, uint8 (n, C, H, W); ``side`` as it was given to ``encode``."""
        images = np.zeros((n, *self.shape), np.uint8)
        self._check(images, side, n)
        for some in _batches(n):
            canvas = self._canvas(images[some])
            for place in self._places(canvas, None if side is None else side[some]):
                groups = decoder.get_by(place.tables[place.row_of])
                symbols = self._firsts[groups]
                more = np.flatnonzero(self._sizes[groups] > 1)
                if len(more):
                    found = decoder.get_by(self._tables_within(place, groups, more))
                    if (found >= self._sizes[groups[more]]).any():
                        raise Corrupt("a pixel's value is not in its group")
                    symbols[more] += found
                canvas[place.at] = (symbols + place.offset) & 255
            images[some] = self._inside(canvas).transpose(3, 0, 1, 2)
        return images

    def bits(self, images: Array, side: Array | None = None) -> float:
        """The cost of the images by the model's probabilities, in bits."""
        encoder = Encoder()
        self.encode(images, side, encoder)
        return encoder.bits

    def _check(self, images: Array, side: Array | None, n: int) -> None:
        for given in (images,) if side is None else (images, side):
            if given.dtype != np.uint8 or given.shape != (n, *self.shape):
                raise InputError(
                    f"the context model codes uint8 images of shape {self.shape}, {n} of them "
                    f"here, but was given {given.dtype} of shape {given.shape}"
                )
        if side is not None and not self.side:
            raise InputError("the context model has no inputs for an approximation; give None")

    def _read_structure(self) -> None:
        structure = self._structure
        C, H, W = structure["shape"]
        if not all(type(size) is int and size > 0 for size in (C, H, W)) or C * H * W > MAX_PIXELS:
            raise Corrupt(f"the context model is for images of the impossible shape {(C, H, W)}")
        self.shape: tuple[int, int, int] = (C, H, W)
        ceiling, residual, side = (structure[name] for name in ("ceiling", "residual", "side"))
        if type(ceiling) is not int or not 0 < ceiling < 1 << 16:
            raise Corrupt(f"the context model's largest hidden number is {ceiling!r}")
        if type(residual) is not bool or type(side) is not bool:
            raise Corrupt("the context model's 'residual' and 'side' are not both true or false")
        self._residual, self.side = residual, side
        for name, array in self._arrays.items():
            if array.dtype.kind not in "iu" or array.dtype.itemsize > 4:
                raise Corrupt(f"the context model's {name} is not an array of small integers")

    def _read_windows(self) -> None:
        own, other = self._window("own"), self._window("other")
        if not ((own[:, 0] < 0) | ((own[:, 0] == 0) & (own[:, 1] < 0))).all():
            raise Corrupt("the context model uses pixels that are not decoded yet")
        C, H, W = self.shape
        both = np.concatenate([own, other, [[-1, -1]]])  # the prediction reaches one pixel
        self._up, self._aside = -int(both[:, 0].min()), int(np.abs(both[:, 1]).max())
        self._wide = W + 2 * self._aside
        self._tall = H + self._up + max(0, int(both[:, 0].max()))
        self._before = min(C - 1, 2)  # how many earlier planes are inputs
        self._own, self._other = own @ [self._wide, 1], other @ [self._wide, 1]
        self._n_inputs = len(own) + len(other) * (self._before + self.side) + self._residual
        near = self._arrays["near"].astype(np.int64)
        if near.ndim != 1 or ((near < 0) | (near >= len(own))).any() or len(near) > MAX_NEAR:
            raise Corrupt("the context model's nearest pixels are not in its window")
        self._near = self._own[near]

    def _window(self, name: str) -> Array:
        window = self._arrays[name].astype(np.int64)
        if window.ndim != 2 or window.shape[1] != 2 or not 0 < len(window) <= MAX_INPUTS:
            raise Corrupt(f"the context model's window {name} has an impossible shape")
        if (np.abs(window) > MAX_REACH).any():
            raise Corrupt(f"the context model's window {name} reaches too far")
        return window

    def _read_groups(self) -> None:
        groups = self._arrays["groups"].astype(np.int64)
        if groups.shape != (256,) or groups[0] or not np.isin(np.diff(groups), (0, 1)).all():
            raise Corrupt("the context model's groups do not divide the values")
        self._groups, self._sizes = groups, np.bincount(groups)
        self._firsts = np.searchsorted(groups, np.arange(len(self._sizes)))

    def _canvas(self, images: Array) -> Array:
        """Images as (planes · tall · wide, n), with zeros around each plane."""
        canvas = np.zeros((self.shape[0] * self._tall * self._wide, len(images)), np.uint8)
        self._inside(canvas)[:] = images.transpose(1, 2, 3, 0)
        return canvas

    def _inside(self, canvas: Array) -> Array:
        """The images on a canvas, (C, H, W, n)."""
        C, H, W = self.shape
        planes = canvas.reshape(C, self._tall, self._wide, -1)
        return planes[:, self._up : self._up + H, self._aside : self._aside + W]

    def _places(self, canvas: Array, side: Array | None) -> Iterator[Place]:
        """Every pixel in coding order; the canvas must hold all pixels before it by then."""
        approximation = None if side is None else self._canvas(side)
        for c, i, j in all_pairs(*map(range, self.shape)):
            at = (c * self._tall + self._up + i) * self._wide + self._aside + j
            yield self._place(canvas, approximation, at, (c, i, j))

    def _place(
        self, canvas: Array, approximation: Array | None, at: int, where: tuple[int, int, int]
    ) -> Place:
        seen = self._seen(canvas, approximation, at, where[0])
        prediction = self._prediction(canvas, at, where[0])
        # where all around is 0, as in most of MNIST, the images share one row
        busy = np.bitwise_or.reduce(seen, axis=0) | prediction
        rows = np.flatnonzero(busy)
        row_of = np.full(len(busy), len(rows), np.intp)
        row_of[rows] = np.arange(len(rows))
        if len(rows) < len(busy):
            rows = np.append(rows, busy.argmin())
        given = approximation is not None
        x = self._inputs(seen[:, rows], prediction[rows], where[0], given)
        near = canvas[at + self._near][:, rows]
        hidden, tables = self._network.groups(x, near, where, given)
        offset = prediction.astype(np.int64) - (128 if self._residual else 0)
        return Place(at, offset, near, row_of, hidden, tables)

    def _seen(self, canvas: Array, approximation: Array | None, at: int, c: int) -> Array:
        """The values around a pixel: (own + other · planes, n), 0 where there is none."""
        plane, other = self._tall * self._wide, len(self._other)
        seen = np.zeros((self._n_inputs - self._residual, canvas.shape[1]), np.uint8)
        seen[: len(self._own)] = canvas[at + self._own]
        for back in range(1, min(c, self._before) + 1):
            first = len(self._own) + (back - 1) * other
            seen[first : first + other] = canvas[at - back * plane + self._other]
        if approximation is not None:
            seen[-other:] = approximation[at + self._other]
        return seen

    def _prediction(self, canvas: Array, at: int, c: int) -> Array:
        """The predicted value of a pixel, uint8 (n,); 0 where values are coded as they are."""
        if not self._residual:
            return np.zeros(canvas.shape[1], np.uint8)
        found = _median(canvas, at, self._wide)
        if c:
            before = at - self._tall * self._wide
            found = found + canvas[before] - _median(canvas, before, self._wide)
        return np.clip(found, 0, 255).astype(np.uint8)

    def _inputs(self, seen: Array, prediction: Array, c: int, given: bool) -> Array:
        """x: the values seen; with a prediction, their differences from it, and then itself."""
        if not self._residual:
            return np.ascontiguousarray(seen.T, np.float32)
        x = np.empty((len(seen) + 1, seen.shape[1]), np.float32)
        x[:-1], x[-1] = seen, prediction
        there = len(self._own) + len(self._other) * min(c, self._before)
        x[:there] -= x[-1]
        if given:
            x[-1 - len(self._other) : -1] -= x[-1]
        return np.ascontiguousarray(x.T)

    def _tables_within(self, place: Place, groups: Array, more: Array) -> Array:
        """The tables within the groups of the images ``more``."""
        rows = place.row_of[more]
        return self._network.within(place.hidden[rows], groups[more], place.near[:, rows])


def _median(canvas: Array, at: int, wide: int) -> Array:
    """The median of left, above and left + above − above left: the predictor of LOCO-I."""
    left, above, corner = (canvas[at - k].astype(np.int64) for k in (1, wide, wide + 1))
    low, high = np.minimum(left, above), np.maximum(left, above)
    return np.asarray(np.clip(left + above - corner, low, high))


def _batches(n: int) -> Iterator[slice]:
    return (slice(i, min(n, i + IMAGES_AT_ONCE)) for i in range(0, n, IMAGES_AT_ONCE))


def _put(encoder: Encoder, tables: Array, rows: Array, symbols: Array) -> None:
    starts = tables[rows, symbols]
    encoder.put(starts, tables[rows, symbols + 1] - starts)


class ContextLayer:
    """x ↦ ⌊(x·W + tables + 2^(s−1)) / 2^s⌋, for |x| ≤ ``max_input``, with a shift s per output.

    All numbers are held as the smallest floats that are exact for this layer. Of each of the
    ``tables``, of shape (*rows, width), one row is added, or one row for each of rows[0].
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        name: str,
        n_inputs: int,
        max_input: int,
        tables: Mapping[str, tuple[int, ...]],
        n_outputs: int = 0,
    ) -> None:
        weights, shifts = arrays[f"w{name}"], arrays[f"s{name}"]
        fine = weights.ndim == 2 and weights.shape[0] == n_inputs
        if not fine or not 0 < weights.shape[1] <= MAX_WIDTH:
            raise Corrupt(f"the context model's matrix w{name} has an impossible shape")
        self.width = weights.shape[1]
        if n_outputs and self.width != n_outputs:
            raise Corrupt(f"the context model's matrix w{name} does not fit its groups")
        if shifts.shape != (self.width,) or (shifts < 0).any() or (shifts > MAX_SHIFT).any():
            raise Corrupt(f"the context model's shifts s{name} are out of range")
        half = (1 << shifts.astype(np.int64)) >> 1
        bound = np.abs(weights.astype(np.int64)).sum(axis=0) * max_input + half
        for table, rows in tables.items():
            shape = (*rows, self.width)
            if arrays[table].shape != shape:
                raise Corrupt(f"the context model's {table} is not of shape {shape}")
            sizes = np.abs(arrays[table].astype(np.int64)).reshape(-1, *rows[-1:], self.width)
            largest = sizes.max(axis=1, initial=0) if rows else sizes
            bound = bound + largest.sum(axis=0)
        kind = exact_kind(int(bound.max()))
        if kind is None:
            raise Corrupt("the context model's numbers are too large to be summed exactly")
        self.kind, self.weights, self.half = kind, weights.astype(kind), half.astype(kind)
        self.scale = np.exp2(-shifts.astype(np.int64)).astype(kind)
        self.tables = {table: arrays[table].astype(kind) for table in tables}

    def __call__(self, x: Array, added: Array, near: str, values: Array) -> Array:
        """The layer for x, with ``added`` and the rows of tables ``near`` for ``values`` (k, n)."""
        sums = product(x.astype(self.kind, copy=False), self.weights)
        sums += added
        for table, row in zip(self.tables[near] if near else (), values, strict=False):
            sums += table.take(row, axis=0)
        sums *= self.scale
        return np.floor(sums, out=sums)


class ContextLayers:
    """All layers of a context model: from the surroundings of a pixel to its frequency tables.

        h₁ = clip(⌊(x·W₁ + row + column + channel (+ given) + Σ near₁ + 2^(s−1)) / 2^s⌋, 0, ceiling)
        h₂ = clip(⌊(h₁·W₂ + b₂ + 2^(s−1)) / 2^s⌋, 0, ceiling)       ℓ = ⌊(h₂·W + b + 2^(s−1)) / 2^s⌋
        h₃ = clip(⌊(h₂·W₃ + group₃ + Σ near₃ + 2^(s−1)) / 2^s⌋, 0, ceiling)    ℓ' likewise from h₃

    ℓ are logits in 64ths, turned into frequencies by a stored table of integers.
    """

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
            raise Corrupt("the context model uses more nearest pixels than it has")
        C, H, W = shape
        places = {"row": (H,), "column": (W,), "channel": (C,), "given": (), "near1": (n_near, 256)}
        groups = {"group3": (n_groups,), "near3": (n_third, 256)}
        self.first = ContextLayer(arrays, "1", n_inputs, 255, places)
        self.second = ContextLayer(arrays, "2", self.first.width, ceiling, {"b2": ()})
        self.group = ContextLayer(arrays, "g", self.second.width, ceiling, {"bg": ()}, n_groups)
        self.third = ContextLayer(arrays, "3", self.second.width, ceiling, groups)
        self.low = ContextLayer(arrays, "l", self.third.width, ceiling, {"bl": ()}, n_low)
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
        for i in range(0, len(x), ROWS_AT_ONCE):
            part = slice(i, i + ROWS_AT_ONCE)
            h = self._clipped(self.first(x[part], place, "near1", near[:, part]))
            h = self._clipped(self._plain(self.second, "b2", h))
            hidden[part] = h
            found[part] = self._cumulative(self._plain(self.group, "bg", h))
        return hidden, found

    def within(self, hidden: Array, groups: Array, near: Array) -> Array:
        """The cumulative tables within each row's group."""
        found = np.empty((len(hidden), self.low.width + 1), np.int32)
        for i in range(0, len(hidden), ROWS_AT_ONCE):
            part = slice(i, i + ROWS_AT_ONCE)
            added = self.third.tables["group3"][groups[part]] + self.third.half
            h = self._clipped(self.third(hidden[part], added, "near3", near[:, part]))
            logits = self._plain(self.low, "bl", h)
            found[part] = self._cumulative(np.where(self._member[groups[part]], logits, -np.inf))
        return found

    def _plain(self, layer: ContextLayer, bias: str, h: Array) -> Array:
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
        # sums stay below 2⁵³, and a quotient that is not whole is farther from the next whole
        # number than float64 can round: the floor is exact
        sums = np.cumsum(weights, axis=1)
        rows = np.zeros((len(logits), width + 1), np.int32)
        rows[:, 1:] = np.floor(sums * (TOTAL - width) / sums[:, -1:])
        rows += np.arange(width + 1, dtype=np.int32)
        return rows


def _exponentials(table: Array) -> Array:
    """The table of about exp(−t/64)·2¹⁶ for t = 0, 1, ..., checked, as floats."""
    fine = table.ndim == 1 and 1 < len(table) <= 1 << 14
    if not fine or (table < 0).any() or (table > TOTAL).any() or table[0] < 1:
        raise Corrupt("the context model's table of exponentials is out of range")
    return table.astype(np.float64)
