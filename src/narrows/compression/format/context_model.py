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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
MAX_SHARED = 0.75  # of the rows: with more, it takes longer to leave out the others than it saves
UNLIKELY = -(2.0**30)  # the logit of a symbol that its group does not have


@dataclass(frozen=True)
class PixelTables:
    """Frequency tables, one a column: symbol q has ⌊sums[q] / total⌋ to ⌊sums[q + 1] / total⌋."""

    sums: Array  # (symbols + 1, n), whole numbers in float64
    totals: Array  # (n,)

    def put(self, encoder: Encoder, columns: Array, symbols: Array) -> None:
        """Put symbols by the table of each."""
        ends = self.sums[np.stack([symbols, symbols + 1]), columns] / self.totals[columns]
        starts, ends = ends.astype(np.int64)
        encoder.put(starts, ends - starts)

    def get(self, decoder: Decoder, columns: Array | None) -> Array:
        """The next symbols, by the table of each; None: one for each table."""
        if columns is None:
            return decoder.get_by(self.sums, self.totals)
        return decoder.get_by(self.sums.take(columns, axis=1), self.totals[columns])


@dataclass(frozen=True)
class Pixels:
    """What is expected of k pixels in all n images, one pixel after another.

    ``row_of`` is the row of ``hidden`` and the column of ``tables`` for each of the k · n: those
    whose surroundings are all 0 may share one. None: each has its own.
    """

    at: Array  # (k,): indices on the canvas
    offset: Array  # (k, n): a symbol is the value minus this, mod 256
    near: Array  # (nearest, rows): the values of the nearest pixels
    row_of: Array | None
    hidden: Array  # (rows, width)
    tables: PixelTables

    def rows(self, which: Array) -> Array:
        """The rows of some of the k · n."""
        return which if self.row_of is None else self.row_of[which]


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
            # all pixels are known, so of few images many pixels pass the network together
            at_once, n = max(1, ROWS_AT_ONCE // canvas.shape[1]), canvas.shape[1]
            for found in self._pixels(canvas, None if side is None else side[some], at_once):
                symbols = ((canvas[found.at] - found.offset) & 255).ravel()
                groups = self._groups[symbols]
                more = np.flatnonzero(self._sizes[groups] > 1)
                within = self._tables_within(found, groups, more)
                inside = symbols[more] - self._firsts[groups[more]]
                ends = np.searchsorted(more, n * np.arange(len(found.at) + 1))
                for i, (start, end) in enumerate(pairwise(ends)):
                    all_n = np.arange(i * n, (i + 1) * n)
                    found.tables.put(encoder, found.rows(all_n), groups[all_n])
                    within.put(encoder, np.arange(start, end), inside[start:end])

    def decode(self, decoder: Decoder, n: int, side: Array | None) -> Array:
        """The next ``n`` images, uint8 (n, C, H, W); ``side`` as it was given to ``encode``."""
        images = np.zeros((n, *self.shape), np.uint8)
        self._check(images, side, n)
        for some in _batches(n):
            canvas = self._canvas(images[some])
            for found in self._pixels(canvas, None if side is None else side[some]):
                groups = found.tables.get(decoder, found.row_of)
                symbols = self._firsts[groups]
                more = np.flatnonzero(self._sizes[groups] > 1)
                inside = self._tables_within(found, groups, more).get(decoder, None)
                if (inside >= self._sizes[groups[more]]).any():
                    raise Corrupt("a pixel's value is not in its group")
                symbols[more] += inside
                canvas[found.at] = (symbols + found.offset) & 255
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

    def _pixels(self, canvas: Array, side: Array | None, at_once: int = 1) -> Iterator[Pixels]:
        """Every pixel in coding order; the canvas must hold all pixels before those by then."""
        approximation = None if side is None else self._canvas(side)
        C, H, W = self.shape
        for c in range(C):
            for first in range(0, H * W, at_once):
                i, j = np.divmod(np.arange(first, min(H * W, first + at_once)), W)
                yield self._expected(canvas, approximation, c, i, j)

    def _expected(
        self, canvas: Array, approximation: Array | None, c: int, i: Array, j: Array
    ) -> Pixels:
        at = (c * self._tall + self._up + i) * self._wide + self._aside + j
        seen = self._seen(canvas, approximation, at, c)
        prediction = self._prediction(canvas, at, c)
        n, row_of = canvas.shape[1], None
        rows: Array | slice = slice(None)
        # where all around is 0, as in most of MNIST, the images share one row for each pixel
        busy = np.bitwise_or.reduce(seen, axis=0) | prediction.ravel()
        several = np.flatnonzero(busy)
        if len(several) < MAX_SHARED * len(busy):
            row_of = np.repeat(np.arange(len(several), len(several) + len(at)), n)
            row_of[several] = np.arange(len(several))
            shared = np.arange(len(at)) * n + busy.reshape(-1, n).argmin(axis=1)
            rows = np.append(several, shared)
        given = approximation is not None
        x = self._inputs(seen[:, rows], prediction.ravel()[rows], c, given)
        near = canvas[at + self._near[:, None]].reshape(len(self._near), len(busy))
        near = near[:, rows].astype(np.intp)
        place = self._network.places(c, i, j, given)
        added = place[0] if len(at) == 1 else place[np.arange(len(busy))[rows] // n]
        hidden, tables = self._network.groups(x, near, added)
        offset = prediction.astype(np.int64) - (128 if self._residual else 0)
        return Pixels(at, offset, near, row_of, hidden, tables)

    def _seen(self, canvas: Array, approximation: Array | None, at: Array, c: int) -> Array:
        """The values around k pixels: (own + other · planes, k · n), 0 where there is none."""
        plane, other = self._tall * self._wide, len(self._other)
        own, others = at + self._own[:, None], at + self._other[:, None]
        seen = np.zeros((self._n_inputs - self._residual, len(at), canvas.shape[1]), np.uint8)
        seen[: len(own)] = canvas[own]
        for back in range(1, min(c, self._before) + 1):
            first = len(own) + (back - 1) * other
            seen[first : first + other] = canvas[others - back * plane]
        if approximation is not None:
            seen[-other:] = approximation[others]
        return seen.reshape(len(seen), -1)

    def _prediction(self, canvas: Array, at: Array, c: int) -> Array:
        """The predicted values of k pixels, uint8 (k, n); 0 where values are coded as they are."""
        if not self._residual:
            return np.zeros((len(at), canvas.shape[1]), np.uint8)
        found = _median(canvas, at, self._wide)
        if c:
            before = at - self._tall * self._wide
            found = found + canvas[before] - _median(canvas, before, self._wide)
        return np.clip(found, 0, 255).astype(np.uint8)

    def _inputs(self, seen: Array, prediction: Array, c: int, given: bool) -> Array:
        """x, (inputs, rows): the values seen; or their differences from the prediction, and it."""
        if not self._residual:
            return seen
        x = np.empty((len(seen) + 1, seen.shape[1]), np.float32)
        x[:-1], x[-1] = seen, prediction
        there = len(self._own) + len(self._other) * min(c, self._before)
        x[:there] -= x[-1]
        if given:
            x[-1 - len(self._other) : -1] -= x[-1]
        return x

    def _tables_within(self, found: Pixels, groups: Array, more: Array) -> PixelTables:
        """The tables within the groups of those pixels of images that ``more`` lists."""
        rows = found.rows(more)
        return self._network.within(found.hidden[rows], groups[more], found.near[:, rows])


def _median(canvas: Array, at: Array, wide: int) -> Array:
    """The median of left, above and left + above − above left: the predictor of LOCO-I."""
    left, above, corner = (canvas[at - k].astype(np.int64) for k in (1, wide, wide + 1))
    low, high = np.minimum(left, above), np.maximum(left, above)
    return np.asarray(np.clip(left + above - corner, low, high))


def _batches(n: int) -> Iterator[slice]:
    return (slice(i, min(n, i + IMAGES_AT_ONCE)) for i in range(0, n, IMAGES_AT_ONCE))


class ContextLayer:
    """x ↦ ⌊(x·W + tables + 2^(s−1)) / 2^s⌋, for |x| ≤ ``max_input``, with a shift s per output.

    All numbers are held divided by 2^s, as the smallest floats that are exact for this layer. Of
    each of the ``tables``, of shape (*rows, width), one row is added, or one row for each of
    rows[0]; the rows of the first table have 2^(s−1) added to them.
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
        scale = np.exp2(-shifts.astype(np.int64)).astype(kind)
        self.kind, self.weights = kind, weights.astype(kind) * scale
        self.tables = {table: arrays[table].astype(kind) * scale for table in tables}
        self.tables[next(iter(tables))] += half.astype(kind) * scale

    def __call__(self, x: Array, added: Array, tables: Sequence[Array], rows: Array) -> Array:
        """The layer for x (n, inputs), with ``added`` and for each table its ``rows`` (k, n)."""
        sums = product(x.astype(self.kind, copy=False), self.weights)
        sums += added
        for table, row in zip(tables, rows, strict=False):
            sums += table.take(row, axis=0)
        return np.floor(sums, out=sums)

    def logits(self, h: Array, bias: str) -> Array:
        """The last layer of a table, (outputs, n): what follows goes along the outputs."""
        sums = product(self.weights.T, h.astype(self.kind, copy=False).T)
        sums += self.tables[bias][:, None]
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
        places = {"channel": (C,), "row": (H,), "column": (W,), "given": (), "near1": (n_near, 256)}
        groups = {"group3": (n_groups,), "near3": (n_third, 256)}
        self.first = ContextLayer(arrays, "1", n_inputs, 255, places)
        self.second = ContextLayer(arrays, "2", self.first.width, ceiling, {"b2": ()})
        self.group = ContextLayer(arrays, "g", self.second.width, ceiling, {"bg": ()}, n_groups)
        self.third = ContextLayer(arrays, "3", self.second.width, ceiling, groups)
        self.low = ContextLayer(arrays, "l", self.third.width, ceiling, {"bl": ()}, n_low)
        self._member, self._small = np.arange(n_low)[:, None] < sizes, sizes < n_low
        self._ceiling = ceiling
        self._exponentials = _exponentials(arrays["exponentials"])

    def places(self, c: int, i: Array, j: Array, given: bool) -> Array:
        """What the first layer adds for pixels (c, i, j) of any image, (pixels, width)."""
        tables = self.first.tables
        place = tables["channel"][c] + tables["row"][i] + tables["column"][j]
        return np.asarray(place + tables["given"] if given else place)

    def groups(self, x: Array, near: Array, added: Array) -> tuple[Array, PixelTables]:
        """h₂ (n, width) and the groups' tables of inputs x (inputs, n), near (k, n)."""
        n = x.shape[1]
        hidden = np.empty((n, self.second.width), self.second.kind)
        sums, totals = np.zeros((self.group.width + 1, n)), np.empty(n)
        for i in range(0, n, ROWS_AT_ONCE):
            part = slice(i, i + ROWS_AT_ONCE)
            own = added if added.ndim == 1 else added[part]
            values = x[:, part].astype(self.first.kind, copy=False).T
            h = self._clipped(self.first(values, own, self.first.tables["near1"], near[:, part]))
            h = self._clipped(self.second(h, self.second.tables["b2"], (), near))
            hidden[part] = h
            totals[part] = self._add_up(self.group.logits(h, "bg"), sums[:, part])
        return hidden, PixelTables(sums, totals)

    def within(self, hidden: Array, groups: Array, near: Array) -> PixelTables:
        """The tables within each row's group."""
        n, tables = len(hidden), self.third.tables
        sums, totals = np.zeros((self.low.width + 1, n)), np.empty(n)
        for i in range(0, n, ROWS_AT_ONCE):
            part = slice(i, i + ROWS_AT_ONCE)
            mine = groups[part]
            h = self.third(hidden[part], tables["group3"][mine], tables["near3"], near[:, part])
            logits = self.low.logits(self._clipped(h), "bl")
            small = np.flatnonzero(self._small[mine])
            member = self._member[:, mine[small]]
            logits[:, small] = np.where(member, logits[:, small], UNLIKELY)
            totals[part] = self._add_up(logits, sums[:, part])
        return PixelTables(sums, totals)

    def _clipped(self, h: Array) -> Array:
        return np.clip(h, 0, self._ceiling, out=h)

    def _add_up(self, logits: Array, sums: Array) -> Array:
        """Logits (A, n) → Σ E, (n,); ``sums`` (A + 1, n) become those of the tables.

        sums[q] = Σ_{j<q} (E_j·(2¹⁶ − A) + Σ E), where E_j = exponentials[max ℓ − ℓ_j], so that the
        tables rise strictly from 0 to 2¹⁶. All stay below 2⁵³, and a quotient that is not whole is
        farther from the next whole number than float64 can round: its floor is exact.
        """
        share = TOTAL - len(logits)
        below = (logits.max(axis=0) - logits).astype(np.intp)
        weights = (self._exponentials * share).take(below, mode="clip")
        totals = weights.sum(axis=0) / share
        weights += totals
        for row, before, after in zip(weights, sums, sums[1:], strict=False):
            np.add(before, row, out=after)
        return np.asarray(totals)


def _exponentials(table: Array) -> Array:
    """The table of about exp(−t/64)·2¹⁶ for t = 0, 1, ..., checked, as floats."""
    fine = table.ndim == 1 and 1 < len(table) <= 1 << 14
    if not fine or (table < 0).any() or (table > TOTAL).any() or table[0] < 1:
        raise Corrupt("the context model's table of exponentials is out of range")
    return table.astype(np.float64)
