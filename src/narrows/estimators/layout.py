"""What the axes of a sample mean: from the user's shape to the networks' and back again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """One sample as the user gives it, and as the networks take it: (d,), (C, L) or (C, H, W)."""

    axes: str | None  # None is a table
    user_shape: tuple[int, ...]
    dtype: str
    folded: bool = False  # rows of a table that hold images

    @property
    def shape(self) -> tuple[int, ...]:
        """The networks' shape."""
        if self.axes == "HW":
            return (1, *self.user_shape)
        if self.axes == "HWC":
            return (self.user_shape[2], *self.user_shape[:2])
        return self.user_shape

    @property
    def n_features(self) -> int:
        """Elements of one sample."""
        return math.prod(self.user_shape)

    def to_model(self, X: Array) -> Array:
        """The user's rows in the networks' shape, still in their own dtype."""
        X = X.reshape(len(X), *self.user_shape)
        if self.axes == "HWC":
            X = np.moveaxis(X, -1, 1)
        return np.ascontiguousarray(X).reshape(len(X), *self.shape)

    def from_model(self, rows: Array, dtype: str | None = None) -> Array:
        """Rows in the networks' shape as the user's own shape and dtype; integers are rounded."""
        if self.axes == "HWC":
            rows = np.moveaxis(rows, 1, -1)
        shape = (self.n_features,) if self.folded else self.user_shape
        native = np.dtype(dtype or self.dtype).newbyteorder("=")
        return _cast(rows.reshape(len(rows), *shape), native)


def _cast(rows: Array, dtype: np.dtype[Any]) -> Array:
    if rows.dtype == dtype:
        return rows
    if dtype.kind == "b":
        return rows >= 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        # the largest int64 is no float64: the one below it that is must be the bound
        high = np.nextafter(float(info.max), 0) if info.max > 2**53 else float(info.max)
        return np.clip(np.rint(rows), float(info.min), high).astype(dtype)
    if dtype.kind == "f":
        largest = np.finfo(dtype).max
        rows = np.clip(rows, -largest, largest)
    return rows.astype(dtype)
