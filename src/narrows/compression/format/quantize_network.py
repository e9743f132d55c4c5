"""From a trained network's numbers to whole ones, made once, when a model is saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.integer_networks import MOST, TOP

Array = NDArray[Any]
WEIGHT = 32767  # int16
ROOM = 4.0  # times the largest activation seen, before it is cut off
FRACTION = 20  # bits after the point of an answer in scaled units
LARGEST_BIAS = 2.0**48
FINEST = 10  # bits of the smallest step


def bits_for(largest: float, limit: float) -> int:
    """The largest n with largest · 2ⁿ ≤ limit, within reason."""
    return int(np.clip(np.floor(np.log2(limit / max(largest, 1e-30))), -20, 40))


def freeze_network(
    path: tuple[Array, Array],
    net: Sequence[tuple[Array, Array]],
    steps: Array,
    sample: Array,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and structure of a `Network`.

    Parameters
    ----------
    path : (weight (out, k, 1, 1), bias (out,))
    net : the same for each layer with a ReLU between, (out, in, side, side)
    steps : (levels, k)
        What a code is multiplied by.
    sample : (n, k, rows, columns)
        Codes times steps such as they will come, to see how large activations get.
    """
    point = min(FINEST - int(np.floor(np.log2(max(float(steps.min()), 1e-12)))), 24)
    reach = float(np.abs(sample).max()) if sample.size else 1.0
    point = min(point, bits_for(reach * ROOM, MOST))
    frozen = [Frozen("path", *path, point)]
    bits, a = point, sample.transpose(0, 2, 3, 1)
    for i, (weight, bias) in enumerate(net):
        layer = Frozen(f"net.{i}", weight, bias, bits)
        if i < len(net) - 1:
            a = np.maximum(convolve(a, weight) + bias, 0)
            bits = layer.out = min(bits_for(float(a.max()) * ROOM, TOP), 16, layer.most)
        frozen.append(layer)
    ends = [frozen[0], *frozen[1:][-1:]]
    fraction = min([FRACTION, *(layer.most for layer in ends)])
    arrays: dict[str, Array] = {
        "back": np.clip(np.rint(steps * 2.0**point), 1, MOST).astype(np.int32)
    }
    for layer in frozen:
        layer.out = fraction if layer in ends else layer.out
        arrays |= layer.arrays()
    return arrays, {"shifts": {x.name: x.most - x.out for x in frozen}, "fraction": fraction}


class Frozen:
    """Weights times 2ⁿ, of input with ``into`` bits after the point; output of ``out`` bits."""

    def __init__(
        self, name: str, weight: Array, bias: Array, into: int, least: int | None = None
    ) -> None:
        self.name, self.weight, self.bias, self.into = name, weight, bias, into
        bits = bits_for(float(np.abs(weight).max()), WEIGHT)
        self.bits = min(bits, bits_for(float(np.abs(bias).max(initial=0)), LARGEST_BIAS) - into)
        if least is not None and self.bits + into < least:  # weights that int16 has no room for
            self.bits = least - into
        self.most = self.out = self.bits + into  # a shift goes one way only

    def arrays(self) -> dict[str, Array]:
        """The whole numbers."""
        weight = np.rint(self.weight * 2.0**self.bits).clip(-WEIGHT, WEIGHT).astype("<i2")
        bias = np.rint(self.bias * 2.0**self.most).astype("<i8")
        return {f"{self.name}.weight": weight, f"{self.name}.bias": bias}


def convolve(a: Array, weight: Array) -> Array:
    """(n, rows, columns, in) by (out, in, side, side), zeros around it."""
    _, rows, columns, _ = a.shape
    side = weight.shape[2]
    reach = side // 2
    a = np.pad(a, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    seen = [
        a[:, i : i + rows, j : j + columns] @ weight[:, :, i, j].T
        for i in range(side)
        for j in range(side)
    ]
    total: Array = np.sum(seen, axis=0)
    return total
