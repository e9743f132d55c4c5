"""The codes of a chunk by the model's prior ("Codes")."""

from __future__ import annotations

import numpy as np

from .container import need
from .entropy import Symbols
from .integers import Shape
from .model import Model, layer

LARGEST = 32767
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))


def read_codes(model: Model, data: bytes, level: int, shape: Shape) -> np.ndarray:
    """Codes (n, k, R, S)."""
    need(level < model.levels, "A chunk has a level that the model has not.")
    symbols = Symbols(data)
    conditional = "prior.groups" in model.arrays
    z = (Conditional(model, level) if conditional else Factorised(model, level)).read(
        symbols, shape
    )
    symbols.finish()
    need(np.abs(z).max(initial=0) <= LARGEST, "A code is too large.")
    return z


def escaped(symbols: Symbols, z: np.ndarray, escapes: np.ndarray) -> np.ndarray:
    """The codes that have no symbol, in 16 bits each."""
    count = int(escapes.sum())
    z[escapes] = symbols.bits(np.full(count, 16)) - 32768
    return z


def starts_of(frequencies: np.ndarray) -> np.ndarray:
    starts = np.cumsum([0, *frequencies.tolist()], dtype=np.int64)
    need(starts[-1] == 65536, "The frequencies of a table of the model do not add up.")
    return starts


class Factorised:
    """A table for each channel."""

    def __init__(self, model: Model, level: int) -> None:
        sizes = model.arrays["table.sizes"].astype(np.int64)
        self.lowest = model.arrays["table.lowest"][level].astype(np.int64)
        at = np.cumsum([0, *sizes.ravel().tolist()])[level * model.codes :]
        all_of = model.arrays["table.frequencies"].astype(np.int64) + 1
        self.tables = [starts_of(all_of[at[c] : at[c + 1]]) for c in range(model.codes)]

    def read(self, symbols: Symbols, shape: Shape) -> np.ndarray:
        n, k, rows, columns = shape
        z, escapes = np.empty((2, k, n * rows * columns), np.int64)
        for c, starts in enumerate(self.tables):
            found = symbols.take(starts[None], np.zeros(z.shape[1], np.int64))
            z[c], escapes[c] = found + self.lowest[c], found == len(starts) - 2
        escaped(symbols, z, escapes > 0)
        return z.reshape(k, n, rows, columns).swapaxes(0, 1)


class Conditional:
    """A table for each code, chosen by a small network from codes that are already known."""

    def __init__(self, model: Model, level: int) -> None:
        self.arrays, self.level, self.model = model.arrays, level, model
        frequencies = model.arrays["prior.frequencies"].astype(np.int64)
        self.starts = np.stack([starts_of(row) for row in frequencies.reshape(-1, 255)])
        self.thresholds = model.arrays["prior.thresholds"].astype(np.int64)
        self.places = len(self.starts) // (len(self.thresholds) + 1)

    def read(self, symbols: Symbols, shape: Shape) -> np.ndarray:
        z = np.zeros(shape, np.int64)
        first = 0
        for g, end in enumerate(self.arrays["prior.groups"].tolist()):
            need(first < end <= shape[1], "The groups of the model's channels do not rise.")
            passes = self.arrays[f"prior.{g}.first.bias"].shape[1]
            for p, (i, j) in enumerate(PASSES[:passes]):
                if i < shape[2] and j < shape[3]:
                    mean, spread = self.expected(z, g, end, p)
                    z[:, first:end, i::2, j::2] = self.one_pass(symbols, mean, spread)
            first = end
        need(first == shape[1], "The groups do not hold all of the model's channels.")
        return z

    def expected(self, z: np.ndarray, g: int, end: int, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread of a group's codes at the cells of a pass, (n, m, rows, columns)."""
        arrays, shifts = self.arrays, self.model.structure["prior"][g]
        first, middle, last = (arrays[f"prior.{g}.{name}.weight"] for name in LAYERS)
        biases = [arrays[f"prior.{g}.{name}.bias"] for name in LAYERS]
        a = np.clip(z[:, :end], -2047, 2047)
        cells = (*PASSES[p], 2)
        h = np.clip(layer(first, biases[0][self.level, p], shifts[0], a, 2047, *cells), 0, 65535)
        h = np.clip(layer(middle, biases[1], shifts[1], h, 65535), 0, 65535)
        out = layer(last, biases[2][self.level], shifts[2], h, 65535)
        m = out.shape[1] // 2
        return np.clip(out[:, :m], -(1 << 23), 1 << 23), out[:, m:]

    def one_pass(self, symbols: Symbols, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Codes in the order n, row, column, channel."""
        mean, spread = np.moveaxis(mean, 1, -1), np.moveaxis(spread, 1, -1)
        near = (mean + 128) >> 8
        place = (mean - 256 * near + 128) * self.places >> 8
        row = place + self.places * np.searchsorted(self.thresholds, spread, side="right")
        found = symbols.take(self.starts, row.ravel()).reshape(mean.shape)
        z = escaped(symbols, found + near - 127, found == 254)
        return np.moveaxis(z, -1, 1)


LAYERS = ("first", "middle", "last")
