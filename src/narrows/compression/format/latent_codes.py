"""Codes as bytes: whole numbers, each by the frozen table of its channel and level.

A table covers the numbers from its lowest on; its last symbol is the escape, after which the number
itself follows in 16 bits. Channels are coded one after another, each over all samples and cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.frequency_tables import TOTAL, Tables, frequencies_of
from narrows.compression.format.model_payload import Payload
from narrows.exceptions import Corrupt

Array = NDArray[Any]
FAR = 32767  # a code stays within ±this
WIDEST = 1024  # symbols of a table, at most
KEPT = 2.0**-18  # likelihood below which a number at a table's end is left to the escape


class CodeTables:
    """A table for each level and channel.

    ``lowest`` (levels, channels) is the number that a table's first symbol stands for, ``sizes``
    how many symbols it has with its escape, ``frequencies`` all of them in a row, less one each.
    """

    def __init__(self, payload: Payload, n_levels: int, channels: int) -> None:
        self.lowest = payload.get("table.lowest", "i", 2).astype(np.int64)
        self.sizes = payload.get("table.sizes", "u", 2).astype(np.int64)
        self._flat = payload.get("table.frequencies", "u", 1)
        fits = self.lowest.shape == self.sizes.shape == (n_levels, channels)
        if not fits or self.sizes.min() < 1 or self.sizes.max() > WIDEST:
            raise Corrupt("the model's tables have impossible sizes")
        if int(self.sizes.sum()) != len(self._flat):
            raise Corrupt("the model's tables are not all there")
        self._made: dict[int, Tables] = {}

    def at(self, level: int) -> Tables:
        """The tables of a level, one for each channel."""
        if level not in self._made:
            sizes = self.sizes[level]
            first = int(self.sizes[:level].sum())
            flat = self._flat[first : first + int(sizes.sum())].astype(np.int64) + 1
            wide = np.zeros((len(sizes), int(sizes.max())), np.int64)
            wide[np.arange(wide.shape[1]) < sizes[:, None]] = flat
            self._made = {level: Tables(wide)}  # one at a time: lookups are large
        return self._made[level]

    def encode(self, codes: Array, level: int, encoder: Encoder) -> None:
        """Codes (n, channels, rows, columns)."""
        tables = self.at(level)
        moved = np.moveaxis(codes, 1, 0).reshape(codes.shape[1], -1).astype(np.int64)
        escape = self.sizes[level][:, None] - 1
        symbols = moved - self.lowest[level][:, None]
        symbols = np.where((symbols < 0) | (symbols >= escape), escape, symbols)
        index = np.broadcast_to(np.arange(len(moved))[:, None], moved.shape)
        encoder.put_symbols(symbols, tables, index)
        encoder.put_bits(moved[symbols == escape] + FAR + 1, 16)

    def decode(self, decoder: Decoder, shape: tuple[int, ...], level: int) -> Array:
        """Codes of this shape, (n, channels, rows, columns), int64."""
        n, channels, rows, columns = shape
        index = np.repeat(np.arange(channels), n * rows * columns)
        symbols = decoder.get(len(index), self.at(level), index).reshape(channels, -1)
        codes = symbols + self.lowest[level][:, None]
        far = symbols == self.sizes[level][:, None] - 1
        codes[far] = decoder.get_bits(int(far.sum()), 16) - FAR - 1
        moved: Array = np.moveaxis(codes.reshape(channels, n, rows, columns), 0, 1)
        return moved


def freeze_tables(likely: Array, counts: Array | None, strength: float = 64.0) -> dict[str, Array]:
    """The arrays of a `CodeTables`.

    Parameters
    ----------
    likely : (levels, channels, 2·reach + 1)
        The prior's likelihood of the numbers from −reach to reach.
    counts : the same shape, optional
        How often each was seen in training.
    strength : float
        How many sightings the prior is worth.
    """
    likely = np.maximum(likely.astype(np.float64), 0)
    if counts is not None:
        likely = counts + strength * likely
    likely = likely / np.maximum(likely.sum(-1, keepdims=True), 1e-300)
    reach = likely.shape[-1] // 2
    lowest = np.zeros(likely.shape[:2], "<i2")
    sizes = np.zeros(likely.shape[:2], "<u2")
    rows = []
    for place in np.ndindex(*likely.shape[:2]):
        p = likely[place]
        kept = np.flatnonzero(p > KEPT)
        first, last = (int(kept[0]), int(kept[-1])) if len(kept) else (reach, reach)
        last = min(last, first + WIDEST - 2)
        inside = np.maximum(p[first : last + 1], KEPT)
        table = np.append(inside, max(1 - inside.sum(), 1.0 / TOTAL))
        rows.append(frequencies_of(table))
        lowest[place], sizes[place] = first - reach, len(table)
    flat = (np.concatenate(rows).astype(np.int64) - 1).astype("<u2")
    return {"table.lowest": lowest, "table.sizes": sizes, "table.frequencies": flat}
