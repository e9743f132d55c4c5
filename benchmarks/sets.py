"""The data of the benchmarks: rows as they are, and the same rows scaled for any library.

A name that ``narrows.io.read`` knows, a file (.npy, .npz, .csv ...), or ``synthetic:ROWS``
or ``synthetic:ROWS:FEATURES``. Images of bytes become float32 pixels in [0, 1]; of other data each
column (of images: all pixels together) is scaled to [0, 1] by the range of its training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TEST_SHARE, FACTORS = 0.25, 20


@dataclass(frozen=True)
class Split:
    """The same rows twice: ``given`` in their own dtype, ``ready`` as float32 in [0, 1].

    ``ready`` is computed at first use: a library that takes ``given`` never pays for it.
    """

    given: Array
    low: Array
    spread: Array

    @cached_property
    def ready(self) -> NDArray[np.float32]:
        """(rows - low) / spread."""
        return ((self.given - self.low) / self.spread).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Set:
    """Rows to train on, rows held out from them, and test rows."""

    train: Split
    held: Split
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row: (d,) or (H, W)."""
        return tuple(self.train.given.shape[1:])


def load(name: str, *, rows: int | None = None, held: float = 0.1, seed: int = 0) -> Set:
    """Read a set; of its training rows at most ``rows``, a share ``held`` of them held out.

    The test rows never depend on ``seed``; the held-out rows and the order do.
    """
    train, test = _read(name)
    order = np.random.default_rng(seed).permutation(len(train))[:rows]
    cut = round(len(order) * held)
    aside, kept = np.sort(order[:cut]), np.sort(order[cut:])
    if rows is not None:
        test = test[: max(rows, 1)]
    first = train if len(kept) == len(train) else train[kept]  # no copy where all are wanted
    low, spread = _range(first)
    return Set(*(Split(part, low, spread) for part in (first, train[aside], test)))


def _read(name: str) -> tuple[Array, Array]:
    if name.startswith("synthetic:"):
        return _synthetic(name)
    from narrows.io.read import read

    X = read(name).X
    if name in ("mnist", "fashion-mnist"):
        return X, read(f"{name}:test").X
    X = X.reshape(len(X), -1) if X.ndim > 3 else X
    order = np.random.default_rng(0).permutation(len(X))
    cut = round(len(X) * TEST_SHARE)
    return X[order[cut:]], X[order[:cut]]


def _synthetic(name: str) -> tuple[Array, Array]:
    """Bytes from a few smooth factors and some noise, a thousand rows at a time."""
    _, n, *width = name.split(":")
    d = int(width[0]) if width else 784
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(FACTORS, d)).astype(np.float32)
    X = np.empty((int(n) + 1000, d), np.uint8)
    for start in range(0, len(X), 1000):
        part = X[start : start + 1000]
        codes = rng.normal(size=(len(part), FACTORS)).astype(np.float32)
        noise = rng.normal(size=part.shape).astype(np.float32)
        part[:] = np.clip(128 + 12 * (np.tanh(codes) @ loadings) + 5 * noise, 0, 255)
    return X[:-1000], X[-1000:]


def _range(train: Array) -> tuple[Array, Array]:
    """Lowest value and spread; in float64, because a difference may not fit the data's dtype."""
    if train.dtype == np.uint8:
        return np.float32(0), np.float32(255)
    axes = 0 if train.ndim == 2 else None
    low, high = (np.asarray(end, dtype=np.float64) for end in (train.min(axes), train.max(axes)))
    return low, np.where(high > low, high - low, 1.0)
