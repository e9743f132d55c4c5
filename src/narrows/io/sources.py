"""Sources: data that is read slice by slice, so that it may be larger than the memory.

`Source` says what the rest of narrows asks of one, `LazyRows` is what narrows' own are made of, and
`as_source` recognises those of others: arrays that lie on a disk, and torch's map-style datasets.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import InputError, InputTypeError

__all__ = ["DatasetRows", "LazyRows", "Source", "StoredRows", "as_source", "nbytes"]

Array = NDArray[Any]


@runtime_checkable
class Source(Protocol):
    """Rows that are read when they are asked for: ``source[a:b]``, as numpy gives them.

    Slices are contiguous (step 1) and may be asked for by a thread in the background, one thread
    at a time. A source whose rows lie in blocks may have ``chunks``, as zarr and HDF5 do: the rows
    of one block, then the block's other sides. Reading whole blocks in order is fast.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...), where n is the number of rows."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every slice."""

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, rows: slice, /) -> Array:
        """The rows of a slice with step 1, (m, ...)."""


class LazyRows(ABC):
    """A source of which a subclass says how the rows from ``start`` to ``stop`` are read.

    It sets ``shape``, ``dtype`` and, where rows lie in blocks, ``chunks``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None

    @abstractmethod
    def _read(self, start: int, stop: int) -> Array:
        """The rows from ``start`` to before ``stop``, which is not below it."""

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Array:
        """The rows of a slice, as numpy would give them; InputError where it is no plain one."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise InputError(
                f"Rows that are read from a source cannot be picked by {rows!r}: take a slice "
                "with step 1, such as X[0:100], or load all of it with numpy.asarray(X)."
            )
        start, stop, _ = rows.indices(len(self))
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return self._read(start, stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """All of it, in memory."""
        return np.asarray(self[:], dtype)


def nbytes(source: Source) -> int:
    """The memory that all rows take together."""
    return int(np.prod([float(side) for side in source.shape]) * source.dtype.itemsize)


def as_source(X: Any) -> Source | None:
    """``X`` as a source, or None where it is data in memory, or no data at all.

    A `numpy.memmap` and arrays like those of h5py come back as they are; those of zarr, which have
    no length, and torch's map-style datasets get one around them. Raises InputError where a
    dataset has no length or no rows, or its first item is no array of numbers.

    >>> as_source(np.eye(3)) is None
    True
    """
    if isinstance(X, np.memmap):
        return X
    if isinstance(X, np.ndarray | np.generic):
        return None
    if isinstance(getattr(X, "dtype", None), np.dtype):
        return _stored(X)
    _refuse_iterable(X)
    return DatasetRows(X) if _is_dataset(X) else None


def _stored(X: Any) -> Source | None:
    """An array that is not numpy's, if it lies on a disk rather than in a frame or a matrix."""
    in_memory = any(hasattr(X, name) for name in ("to_frame", "columns", "toarray", "__dlpack__"))
    if in_memory or not (hasattr(X, "__getitem__") and getattr(X, "shape", None)):
        return None
    return X if hasattr(X, "__len__") and isinstance(X, Source) else StoredRows(X)


class StoredRows(LazyRows):
    """A stored array that has a shape, a dtype and slices, but no length."""

    def __init__(self, stored: Any) -> None:
        self.shape = tuple(int(side) for side in stored.shape)
        self.dtype = stored.dtype
        self.chunks = getattr(stored, "chunks", None)
        self._stored = stored

    def _read(self, start: int, stop: int) -> Array:
        return np.asarray(self._stored[start:stop])


def _refuse_iterable(X: Any) -> None:
    # Who hands over a torch dataset has imported torch.
    utils = sys.modules.get("torch.utils.data")
    if utils is not None and isinstance(X, utils.IterableDataset):
        raise InputTypeError(
            f"X is a {type(X).__name__}, an IterableDataset, whose rows can neither be counted nor "
            "read twice: give a map-style Dataset (with __len__ and __getitem__) or an array."
        )


def _is_dataset(X: Any) -> bool:
    if isinstance(X, Sequence | Mapping | Set):
        return False
    others = ("shape", "__array__", "__dataframe__", "__arrow_c_stream__")
    return all(hasattr(X, name) for name in ("__getitem__", "__len__")) and not any(
        hasattr(X, name) for name in others
    )


class DatasetRows(LazyRows):
    """The x of every item of a map-style dataset, as torch's loaders take it.

    An item is x, or a tuple or dict that begins with x; x is a tensor, an array, a PIL image or
    a number. The first item decides shape and dtype. Raises InputError where there is no item,
    or one is of another shape, or of a dtype that the first one's cannot hold.
    """

    def __init__(self, dataset: Any) -> None:
        if not len(dataset):
            raise InputError(f"X is a {type(dataset).__name__} with no items: expected rows.")
        self._dataset = dataset
        first = self._item(0)
        self.shape = (len(dataset), *first.shape)
        self.dtype = first.dtype

    def _read(self, start: int, stop: int) -> Array:
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for i in range(start, stop):
            x = self._item(i)
            if x.shape != self.shape[1:]:
                raise InputError(
                    f"Item {i} of X has shape {x.shape}, the first one {self.shape[1:]}: bring all "
                    "items to one shape."
                )
            if not np.can_cast(x.dtype, self.dtype):
                raise InputError(
                    f"Item {i} of X has dtype {x.dtype}, the first one {self.dtype}: bring all "
                    "items to one dtype."
                )
            rows[i - start] = x
        return rows

    def _item(self, i: int) -> Array:
        item = self._dataset[i]
        if isinstance(item, Mapping):
            item = next(iter(item.values()), None)
        elif isinstance(item, tuple):
            item = item[0] if item else None
        try:
            x = _pixels_or_numbers(item)
        except (ValueError, TypeError):
            x = np.array(None)
        if x.dtype.kind not in "biuf" or not x.size:
            raise InputTypeError(
                f"Item {i} of X gives {_shown(item)} where numbers were expected: let each item be "
                "a tensor, an array, a PIL image or a number, or a tuple or dict that begins with "
                "one."
            )
        return np.atleast_1d(x)


def _pixels_or_numbers(x: Any) -> Array:
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        return np.asarray(x.float() if str(x.dtype) == "torch.bfloat16" else x)
    if hasattr(x, "getbands"):  # a PIL image
        from narrows.io.image_folders import pixels

        return pixels(x)
    return np.asarray(x)


def _shown(item: Any) -> str:
    if isinstance(item, np.ndarray):
        return f"an array of shape {item.shape} and dtype {item.dtype}"
    return "nothing" if item is None else f"a {type(item).__name__}"
