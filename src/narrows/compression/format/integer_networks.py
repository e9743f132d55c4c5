"""The decoder in whole numbers: the same answer on every machine, bit for bit.

    a = clip(q · back)                          code times its level's step, 2⁻ᴬ of a scaled unit
    h = clip(⌊(W a + b + 2ˢ⁻¹) / 2ˢ⌋, 0, 65535)  each hidden layer, over the cells around it
    y = ⌊(V h + c + 2ᵗ⁻¹) / 2ᵗ⌋ + ⌊(P a + d + 2ᵘ⁻¹) / 2ᵘ⌋

Products are carried in float64, where every partial sum is a whole number below 2⁵³ and therefore
exact: the order of summation, threads, libraries and devices cannot matter.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.exact_products import product
from narrows.compression.format.model_payload import Payload
from narrows.exceptions import Corrupt

Array = NDArray[Any]
MOST = 1 << 24  # of a code times its step
TOP = 65535  # of a hidden activation
EXACT = 1 << 53  # whole numbers below this are float64
AT_ONCE = 1 << 21  # numbers of a layer that are looked at together
LAYERS = 16
WIDEST = 15  # the side of a kernel
MOST_HIDDEN = 4096  # outputs of a layer that is not the last


class Layer:
    """a ↦ ⌊(W a + b + 2ˢ⁻¹) / 2ˢ⌋ on a grid of cells, zeros around it.

    ``weight`` is (out, in, side, side), ``largest`` the largest |a| that may come.
    """

    def __init__(self, weight: Array, bias: Array, shift: int, largest: int) -> None:
        out, into, side, other = weight.shape
        odd = side == other <= WIDEST and side % 2
        if not odd or bias.shape != (out,) or not (out and into):
            raise Corrupt("a layer of the model has impossible sides")
        most = np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)) * largest
        half = 2.0 ** (shift - 1) if shift else 0.0
        if float((most + np.abs(bias.astype(np.float64))).max()) + half >= EXACT:
            raise Corrupt("a layer of the model could leave the whole numbers that are exact")
        self.side, self.shift = side, shift
        self.into, self.out = into, out
        self.kernels = weight.astype(np.float64).transpose(2, 3, 1, 0)  # (side, side, in, out)
        self.bias = bias.astype(np.float64) + half

    def __call__(self, a: Array) -> Array:
        """(n, rows, columns, in) → (n, rows, columns, out)."""
        n, rows, columns, _ = a.shape
        reach = self.side // 2
        if reach and (rows, columns) != (1, 1):
            a = np.pad(a, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
            places = [(i, j) for i in range(self.side) for j in range(self.side)]
        else:  # a cell alone sees itself only
            places = [(0, 0)]
        total: Array | None = None
        for i, j in places:
            kernel = self.kernels[i, j] if len(places) > 1 else self.kernels[reach, reach]
            seen = a[:, i : i + rows, j : j + columns].reshape(-1, self.into)
            part = product(seen, kernel)
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None
        total += self.bias
        np.floor(np.multiply(total, 2.0**-self.shift, out=total), out=total)
        return total.reshape(n, rows, columns, self.out)


class Network:
    """From codes to numbers in cells, in 2⁻ᶠ of a scaled unit, by a payload's arrays."""

    def __init__(self, payload: Payload) -> None:
        self.fraction = payload.number("fraction", 0, 40)
        self.back = payload.get("back", "iu", 2).astype(np.float64)
        if not self.back.size or (self.back < 1).any() or (self.back > MOST).any():
            raise Corrupt("the model's steps are out of range")
        self.n_levels, self.latent_dim = self.back.shape
        self.path = _layer(payload, "path", MOST)
        self.net = list(_net(payload))
        widths = [self.latent_dim, *(layer.out for layer in self.net)]
        fits = all(layer.into == w for layer, w in zip(self.net, widths, strict=False))
        fits = fits and (not self.net or widths[-1] == self.path.out) and self.path.side == 1
        if any(layer.out > MOST_HIDDEN for layer in self.net[:-1]):
            raise Corrupt("a layer of the model is too wide")
        if not fits or self.path.into != self.latent_dim:
            raise Corrupt("the layers of the model do not fit one another")
        self.numbers = self.path.out
        self._halo = sum(layer.side // 2 for layer in self.net)

    def __call__(self, codes: Array, level: int) -> Array:
        """Codes (n, latent_dim, rows, columns) → (n, numbers, rows, columns), int64."""
        n, _, rows, columns = codes.shape
        out = np.empty((n, self.numbers, rows, columns), np.int64)
        widest = max([layer.out for layer in self.net] + [self.numbers])
        size = max(1, AT_ONCE // (widest * columns))  # rows of cells at once
        if size >= rows:
            step = max(1, size // rows)
            for i in range(0, n, step):
                out[i : i + step] = self._band(codes[i : i + step], level)
            return out
        for i in range(n):
            for top in range(0, rows, size):
                low, high = max(0, top - self._halo), min(rows, top + size + self._halo)
                band = self._band(codes[i : i + 1, :, low:high], level)
                end = min(rows, top + size)
                out[i : i + 1, :, top:end] = band[:, :, top - low : end - low]
        return out

    def _band(self, codes: Array, level: int) -> Array:
        a = codes.transpose(0, 2, 3, 1) * self.back[level]
        np.clip(a, -MOST, MOST, out=a)
        y = self.path(a)
        if self.net:
            for layer in self.net[:-1]:
                a = np.clip(layer(a), 0, TOP)
            y = y + self.net[-1](a)
        moved: Array = y.transpose(0, 3, 1, 2).astype(np.int64)
        return moved


def _layer(payload: Payload, name: str, largest: int) -> Layer:
    shifts = payload.structure.get("shifts")
    shift = shifts.get(name) if isinstance(shifts, dict) else None
    if type(shift) is not int or not 0 <= shift <= 52:
        raise Corrupt(f"the model has no usable shift for {name!r}")
    weight = payload.get(f"{name}.weight", "iu", 4)
    return Layer(weight, payload.get(f"{name}.bias", "iu", 1), shift, largest)


def _net(payload: Payload) -> Any:
    for i in count():
        if f"net.{i}.weight" not in payload.arrays:
            return
        if i >= LAYERS:
            raise Corrupt("the model has too many layers")
        yield _layer(payload, f"net.{i}", TOP if i else MOST)
