"""Small 8-bit images without loss: each pixel by what a network expects of it, in exact integers.

    bits of a pixel v = −log₂ p(group of v | around, place) − log₂ p(v | group, around, place)

A small network looks at the pixels around that are coded already, at the values of the nearest as
names rather than numbers, at the place, and, where there is one, at an approximation of the image
that both sides know. All its numbers are whole and all its sums exact (`codec.products`), so
encoder and decoder expect the same, bit for bit, on any two machines. All images of a chunk are
coded side by side, pixel by pixel. docs/format.md has the method exactly; `parts.context` trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product as each
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.context_layers import MOST_NEAR, Network
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.exceptions import Corrupt, InputError

Array = NDArray[Any]
MOST_PIXELS = 4096  # of an image, its channels counted
MOST_INPUTS = 1024
REACH = 16  # of a window, in pixels
MOST_ABREAST = 1 << 14  # images


@dataclass
class Place:
    """One pixel of all n images, before it is known."""

    at: int  # where it is on the canvas
    offset: Array  # (n,): what a symbol falls short of a value, mod 256
    near: Array  # (k, n): the values of the nearest pixels
    same: Array  # (n,): which row of the two below is an image's
    hidden: Array  # (rows, width)
    tables: Array  # (rows, groups + 1)


class ContextModel:
    """The exact network, of ``arrays`` of integers and the ``structure`` that says what for.

    ``structure`` is {"shape": [C, H, W], "residual": bool, "side": bool, "ceiling": int}: whether
    a pixel is coded as its difference from a prediction, whether the network has inputs for an
    approximation, and the largest hidden number. Raises ``Corrupt`` where this is no model.
    """

    def __init__(self, arrays: Mapping[str, Array], structure: Mapping[str, Any]) -> None:
        self._arrays, self._structure = dict(arrays), dict(structure)
        try:
            self._read_structure()
            self._read_windows()
            self._read_groups()
            ceiling, near = self._structure["ceiling"], len(self._near)
            self._network = Network(
                self._arrays, self.shape, self._n_inputs, near, self._sizes, ceiling
            )
        except Corrupt:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(
                f"the context model lacks a part, or has a strange one: {error}"
            ) from error

    def arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What the model was made from."""
        return dict(self._arrays), dict(self._structure)

    def encode(self, images: Array, side: Array | None, encoder: Encoder) -> None:
        """Put images, uint8 (n, C, H, W), beside ``side``, what both sides know of them already."""
        self._check(images, side, len(images))
        for some in _parts(len(images)):
            self._encode(images[some], None if side is None else side[some], encoder)

    def decode(self, decoder: Decoder, n: int, side: Array | None) -> Array:
        """The next ``n`` images, uint8 (n, C, H, W); ``side`` as it was given to ``encode``."""
        images = np.zeros((n, *self.shape), np.uint8)
        self._check(images, side, n)
        for some in _parts(n):
            beside = None if side is None else side[some]
            images[some] = self._decode(decoder, images[some], beside)
        return images

    def bits(self, images: Array, side: Array | None = None) -> float:
        """What the images cost in the mind of the model, in bits."""
        encoder = Encoder()
        self.encode(images, side, encoder)
        return encoder.bits

    def _encode(self, images: Array, side: Array | None, encoder: Encoder) -> None:
        canvas = self._canvas(images)
        for place in self._places(canvas, side):
            symbols = (canvas[place.at] - place.offset) & 255
            groups = self._groups[symbols]
            _put(encoder, place.tables, place.same, groups)
            more = np.flatnonzero(self._sizes[groups] > 1)
            if len(more):
                low = self._within(place, groups, more)
                _put(encoder, low, np.arange(len(more)), symbols[more] - self._firsts[groups[more]])

    def _decode(self, decoder: Decoder, images: Array, side: Array | None) -> Array:
        canvas = self._canvas(images)
        for place in self._places(canvas, side):
            groups = decoder.get_by(place.tables[place.same])
            symbols = self._firsts[groups]
            more = np.flatnonzero(self._sizes[groups] > 1)
            if len(more):
                found = decoder.get_by(self._within(place, groups, more))
                if (found >= self._sizes[groups[more]]).any():
                    raise Corrupt("a pixel's value is not in the group it should be in")
                symbols[more] += found
            canvas[place.at] = (symbols + place.offset) & 255
        return self._inside(canvas).transpose(3, 0, 1, 2)

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
        shape, ceiling = tuple(structure["shape"]), structure["ceiling"]
        fine = len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)
        if not fine or shape[0] * shape[1] * shape[2] > MOST_PIXELS:
            raise Corrupt(f"the context model is for images of shape {shape}, which cannot be")
        self.shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])
        if type(ceiling) is not int or not 0 < ceiling < 1 << 16:
            raise Corrupt(f"the context model's largest hidden number is {ceiling!r}")
        if type(structure["residual"]) is not bool or type(structure["side"]) is not bool:
            raise Corrupt("the context model does not say what its pixels are seen beside")
        self._residual, self.side = structure["residual"], structure["side"]
        for name, array in self._arrays.items():
            if array.dtype.kind not in "iu" or array.dtype.itemsize > 4:
                raise Corrupt(f"the context model's {name} is no array of small integers")

    def _read_windows(self) -> None:
        own, other = self._window("own"), self._window("other")
        if not ((own[:, 0] < 0) | ((own[:, 0] == 0) & (own[:, 1] < 0))).all():
            raise Corrupt("the context model looks at pixels that are not decoded yet")
        C, H, W = self.shape
        both = np.concatenate([own, other, [[-1, -1]]])  # a prediction reaches one pixel
        self._up, self._aside = -int(both[:, 0].min()), int(np.abs(both[:, 1]).max())
        self._wide = W + 2 * self._aside
        self._tall = H + self._up + max(0, int(both[:, 0].max()))
        self._before = min(C - 1, 2)  # planes before a pixel's own that are looked at
        self._own, self._other = own @ [self._wide, 1], other @ [self._wide, 1]
        self._n_inputs = len(own) + len(other) * (self._before + self.side) + self._residual
        near = self._arrays["near"].astype(np.int64)
        if near.ndim != 1 or ((near < 0) | (near >= len(own))).any() or len(near) > MOST_NEAR:
            raise Corrupt("the context model's nearest pixels are not in its window")
        self._near = self._own[near]

    def _window(self, name: str) -> Array:
        window = self._arrays[name].astype(np.int64)
        if window.ndim != 2 or window.shape[1] != 2 or not 0 < len(window) <= MOST_INPUTS:
            raise Corrupt(f"the context model's window {name} has no possible shape")
        if (np.abs(window) > REACH).any():
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
        """Every pixel, in the order in which they are coded, with what is expected of it."""
        beside = None if side is None else self._canvas(side)
        for c, i, j in each(*map(range, self.shape)):
            at = (c * self._tall + self._up + i) * self._wide + self._aside + j
            yield self._place(canvas, beside, at, (c, i, j))

    def _place(
        self, canvas: Array, beside: Array | None, at: int, where: tuple[int, int, int]
    ) -> Place:
        seen = self._seen(canvas, beside, at, where[0])
        prediction = self._prediction(canvas, at, where[0])
        # where all around is 0, as most of MNIST is, all images expect the same
        busy = np.bitwise_or.reduce(seen, axis=0) | prediction
        rows = np.flatnonzero(busy)
        same = np.full(len(busy), len(rows), np.intp)
        same[rows] = np.arange(len(rows))
        if len(rows) < len(busy):
            rows = np.append(rows, busy.argmin())
        x = self._inputs(seen[:, rows], prediction[rows], where[0], beside is not None)
        near = canvas[at + self._near][:, rows]
        hidden, tables = self._network.groups(x, near, where, beside is not None)
        offset = prediction.astype(np.int64) - (128 if self._residual else 0)
        return Place(at, offset, near, same, hidden, tables)

    def _seen(self, canvas: Array, beside: Array | None, at: int, c: int) -> Array:
        """The values around a pixel: (own + other · planes, n), 0 for what there is not."""
        plane, other = self._tall * self._wide, len(self._other)
        seen = np.zeros((self._n_inputs - self._residual, canvas.shape[1]), np.uint8)
        seen[: len(self._own)] = canvas[at + self._own]
        for back in range(1, min(c, self._before) + 1):
            first = len(self._own) + (back - 1) * other
            seen[first : first + other] = canvas[at - back * plane + self._other]
        if beside is not None:
            seen[-other:] = beside[at + self._other]
        return seen

    def _prediction(self, canvas: Array, at: int, c: int) -> Array:
        """What a pixel is thought to be, uint8 (n,); 0 where values are coded as they are."""
        if not self._residual:
            return np.zeros(canvas.shape[1], np.uint8)
        found = _median(canvas, at, self._wide)
        if c:
            before = at - self._tall * self._wide
            found = found + canvas[before] - _median(canvas, before, self._wide)
        return np.clip(found, 0, 255).astype(np.uint8)

    def _inputs(self, seen: Array, prediction: Array, c: int, given: bool) -> Array:
        """x: the values seen, or how they differ from the prediction, and then the prediction."""
        if not self._residual:
            return np.ascontiguousarray(seen.T, np.float32)
        x = np.empty((len(seen) + 1, seen.shape[1]), np.float32)
        x[:-1], x[-1] = seen, prediction
        there = len(self._own) + len(self._other) * min(c, self._before)
        x[:there] -= x[-1]
        if given:
            x[-1 - len(self._other) : -1] -= x[-1]
        return np.ascontiguousarray(x.T)

    def _within(self, place: Place, groups: Array, more: Array) -> Array:
        """The tables within their groups of the images ``more``."""
        rows = place.same[more]
        return self._network.within(place.hidden[rows], groups[more], place.near[:, rows])


def _median(canvas: Array, at: int, wide: int) -> Array:
    """The median of left, above and left + above − above left: LOCO-I's guess."""
    left, above, corner = (canvas[at - k].astype(np.int64) for k in (1, wide, wide + 1))
    low, high = np.minimum(left, above), np.maximum(left, above)
    found: Array = np.clip(left + above - corner, low, high)
    return found


def _parts(n: int) -> Iterator[slice]:
    """Images that are coded side by side, and then the next: what bounds the memory."""
    return (slice(i, min(n, i + MOST_ABREAST)) for i in range(0, n, MOST_ABREAST))


def _put(encoder: Encoder, tables: Array, rows: Array, symbols: Array) -> None:
    starts = tables[rows, symbols]
    encoder.put(starts, tables[rows, symbols + 1] - starts)
