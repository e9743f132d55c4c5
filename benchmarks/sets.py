"""The data of the benchmarks: rows as they are, and the same rows scaled for any library.

A name that ``narrows.io.read`` or ``synthetic.py`` knows, a file (.npy, .npz, .csv ...), or
``synthetic:ROWS`` or ``synthetic:ROWS:FEATURES``. Images of bytes become float32 pixels in [0, 1].
Other data are scaled by their training rows: to [0, 1] by the range of each column, of images of
all pixels together ("range"), or to mean 0 and variance 1, of each column ("column") or of all
elements together ("shared").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthetic import MADE, factor_bytes, make

Array = NDArray[Any]
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Split:
    """The same rows twice: ``given`` in their own dtype, ``ready`` as scaled float32.

    ``bounded`` tells whether the scale is [0, 1]. ``ready`` is computed at first use: a library
    that takes ``given`` never pays for it.
    """

    given: Array
    low: Array
    spread: Array
    bounded: bool = True

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
    def bounded(self) -> bool:
        """Whether ready rows are scaled to [0, 1]."""
        return self.train.bounded

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row: (d,) or (H, W)."""
        return tuple(self.train.given.shape[1:])


def load(
    name: str,
    *,
    rows: int | None = None,
    held: float = 0.1,
    seed: int = 0,
    scale: str = "range",
) -> Set:
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
    bounded = first.dtype == np.uint8 or scale == "range"
    low, spread = _range(first) if bounded else _deviation(first, 0 if scale == "column" else None)
    return Set(*(Split(part, low, spread, bounded) for part in (first, train[aside], test)))


def _read(name: str) -> tuple[Array, Array]:
    if name in MADE:
        return make(name)
    if name.startswith("synthetic:"):
        _, n, *width = name.split(":")
        X = factor_bytes(int(n) + 1000, int(width[0]) if width else 784)
        return X[:-1000], X[-1000:]
    from narrows.io.read import read

    X = read(name).X
    if name in ("mnist", "fashion-mnist"):
        return X, read(f"{name}:test").X
    X = X.reshape(len(X), -1) if X.ndim > 3 else X
    order = np.random.default_rng(0).permutation(len(X))
    cut = round(len(X) * TEST_SHARE)
    return X[order[cut:]], X[order[:cut]]


def _range(train: Array) -> tuple[Array, Array]:
    """Lowest value and spread; in float64, because a difference may not fit the data's dtype."""
    if train.dtype == np.uint8:
        return np.float32(0), np.float32(255)
    axes = 0 if train.ndim == 2 else None
    low, high = (np.asarray(end, dtype=np.float64) for end in (train.min(axes), train.max(axes)))
    return low, np.where(high > low, high - low, 1.0)


def _deviation(train: Array, axis: int | None) -> tuple[Array, Array]:
    """Mean and standard deviation, of each column or of all elements."""
    mean, deviation = (np.asarray(f(train, axis=axis, dtype=np.float64)) for f in (np.mean, np.std))
    return mean, np.where(deviation > 0, deviation, 1.0)
