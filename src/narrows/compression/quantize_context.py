"""From a context network's weights to the whole numbers that code.

Hidden numbers are held in 128ths, logits in 64ths. Every number that comes out of a layer has its
own power of two for its weights, the largest that keeps all sums below 2²⁴, where float32 is
exact, and all weights within 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
HIDDEN_UNIT, LOGIT_UNIT = 128, 64
NAMED_UNIT = 32  # of the tables of named values
CEILING = 1023  # of a hidden number
EXACT = (1 << 24) - 1
LARGEST = (1 << 15) - 1
MOST_SHIFT = 20
# a layer's letter, its input's unit, its output's, and what may be added to it
LAYERS = {
    "1": ("first", 1, HIDDEN_UNIT, ("row", "column", "channel", "given", "near1")),
    "2": ("second", HIDDEN_UNIT, HIDDEN_UNIT, ()),
    "g": ("group", HIDDEN_UNIT, LOGIT_UNIT, ()),
    "3": ("third", HIDDEN_UNIT, HIDDEN_UNIT, ("group3", "near3")),
    "l": ("low", HIDDEN_UNIT, LOGIT_UNIT, ()),
}


def frozen(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The layers' integers, from float64 weights whose inputs to the first are pixel values."""
    arrays: dict[str, Array] = {}
    for letter, (name, unit_in, unit_out, tables) in LAYERS.items():
        matrix = weights[f"{name}.weight"].T * (unit_out / unit_in)
        added = {table: weights[f"{table}_bias"] * unit_out for table in tables}
        if not tables:
            added[f"b{letter}"] = weights[f"{name}.bias"] * unit_out
        shifts = _shifts(matrix, 255 if letter == "1" else CEILING, list(added.values()))
        arrays[f"w{letter}"] = _whole(matrix, shifts)
        arrays[f"s{letter}"] = shifts.astype(np.uint8)
        for table, value in added.items():
            # the largest tables by far: finer steps would be noise, which takes room in a file
            coarse = HIDDEN_UNIT // NAMED_UNIT if table.startswith("near") else 0
            arrays[table] = _whole(value, shifts, coarse)
    far = np.arange(int(LOGIT_UNIT * np.log(2.0**17)) + 2)
    exponentials = np.rint(2.0**16 * np.exp(-far / LOGIT_UNIT))
    exponentials[-1] = 0
    arrays["exponentials"] = exponentials.astype(np.int32)
    return arrays


def _shifts(matrix: Array, ceiling: int, added: list[Array]) -> Array:
    """For each number that comes out, the largest power of two that leaves all sums exact."""
    width = matrix.shape[1]
    sums, largest = np.abs(matrix).sum(axis=0) * ceiling, np.abs(matrix).max(axis=0)
    # rounding may add a half to every weight, and half a step to a table's rows
    spare = np.full(width, len(matrix) * ceiling / 2 + 8.0)
    for table in added:
        rows = np.abs(table).reshape(-1, *table.shape[-2:-1], width)
        each = rows.max(axis=1, initial=0) if table.ndim > 1 else rows
        half_step = HIDDEN_UNIT / NAMED_UNIT / 2
        sums, spare = sums + (each + half_step).sum(axis=0), spare + len(each)
        largest = np.maximum(largest, rows.reshape(-1, width).max(axis=0, initial=0))
    shifts = np.zeros(width, np.int64)
    for shift in range(1, MOST_SHIFT + 1):
        fits = (sums * 2.0**shift + 2.0 ** (shift - 1) + spare < EXACT) & (
            largest * 2.0**shift < LARGEST
        )
        shifts[fits] = shift
    return shifts


def _whole(values: Array, shifts: Array, coarse: int = 0) -> Array:
    """Values times powers of two, in whole numbers, or in multiples of ``coarse`` of such units."""
    step = np.maximum(1, coarse * 2.0**shifts) if coarse else 1
    most = LARGEST // step * step
    scaled = np.rint(values * 2.0**shifts / step) * step
    return np.clip(scaled, -most, most).astype(np.int16)
