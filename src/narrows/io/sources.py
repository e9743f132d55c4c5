"""Sources: data that is read slice by slice, so that it may be larger than the memory.

`Source` is the interface, `LazyRows` the base class of narrows' own sources, and `as_source`
recognises those of others: arrays stored on disk (zarr, h5py), and torch's map-style datasets.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, InputTypeError
from narrows.io.table_advice import first_inexact, inexact

Array = NDArray[Any]

ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")  # one of them is in every zarr folder
# What zarr's own code raises over a damaged description or chunk.
ZARR_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)


@runtime_checkable
class Source(Protocol):
    """Rows that are read when they are used: ``source[a:b]`` is a numpy array.

    Slices are contiguous (step 1) and may be read by a thread in the background, one thread at a
    time. A source whose rows lie in blocks may have ``chunks``, as zarr and HDF5 do: the rows of
    one block, then the block's other sides. Reading whole blocks in order is fast.
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
    """A source whose subclass reads the rows from ``start`` to ``stop``.

    It sets ``shape``, ``dtype`` and, if rows lie in blocks, ``chunks``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None

    @abstractmethod
    def _read(self, start: int, stop: int) -> Array:
        """The rows from ``start`` to before ``stop``, which is above ``start``."""

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Array:
        """The rows of a slice, as numpy gives them; InputError unless its step is 1."""
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


@dataclass(frozen=True, eq=False)
class NamedRows:
    """Rows of a table with the names of its columns, for a fit."""

    rows: Array | Source
    feature_names: list[str]


def nbytes(source: Source) -> int:
    """The memory that all rows take together."""
    return int(np.prod([float(side) for side in source.shape]) * source.dtype.itemsize)


def as_source(X: object) -> Source | None:
    """``X`` as a source, or None if it is data in memory, or not data at all.

    A `numpy.memmap` and arrays like those of h5py are returned as they are; those of zarr, which
    have no length, and torch's map-style datasets are wrapped. Raises InputError if a dataset has
    no length or no rows, or its first item is not an array of numbers.

    >>> as_source(np.eye(3)) is None
    True
    """
    if isinstance(X, np.memmap):
        return X
    torch = sys.modules.get("torch")
    if isinstance(X, np.ndarray | np.generic) or (torch and isinstance(X, torch.Tensor)):
        return None  # a nested tensor has no shape
    if isinstance(getattr(X, "dtype", None), np.dtype):
        return _as_stored_array(X)
    # Only with torch imported can X be a dataset of torch's.
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is not None and isinstance(X, torch_data.IterableDataset):
        raise InputTypeError(
            f"X is a {type(X).__name__}, an IterableDataset, whose rows can neither be counted nor "
            "read twice: give a map-style Dataset (with __len__ and __getitem__) or an array."
        )
    return DatasetRows(X) if _is_dataset(X) else None


def _as_stored_array(X: object) -> Source | None:
    """An array that is not numpy's, unless it is a frame, a sparse matrix or on a device."""
    if has_any(X, "to_frame", "columns", "toarray", "__dlpack__"):
        return None
    if not (has_any(X, "__getitem__") and getattr(X, "shape", None)):
        return None
    return X if isinstance(X, Source) else StoredRows(X)


def _is_dataset(X: object) -> bool:
    if isinstance(X, Sequence | Mapping | Set) or not has_any(X, "__getitem__"):
        return False
    is_array = has_any(X, "shape", "__array__", "__dataframe__", "__arrow_c_stream__")
    return isinstance(X, Sized) and not is_array and not has_any(X, "keys")


def has_any(X: object, *names: str) -> bool:
    """Whether the class of X has one of the names, which may be columns of a frame.

    >>> has_any([], "append", "shape")
    True
    """
    return any(hasattr(type(X), name) for name in names)


# What makes an array or a frame of a container that is none, by the method that the container has:
# Spark, polars and others that compute later, dask, DuckDB, Arrow's data sets and its readers,
# groups of pandas, TensorFlow, sparse arrays of PyData, iterators.
REMEDIES = {
    "toPandas": "X.toPandas()",
    "collect": "X.collect()",
    "compute": "X.compute()",
    "fetchdf": "X.fetchdf()",
    "to_table": "X.to_table()",
    "read_all": "X.read_all()",
    "get_group": "X.obj",
    "as_numpy_iterator": "list(X.as_numpy_iterator())",
    "todense": "X.todense()",
    "__next__": "list(X)",
}


def refuse_container(X: Any) -> None:
    """Raise InputTypeError, with the remedy, for a container of arrays, such as a dict."""
    if isinstance(X, np.ndarray | Sequence) or has_any(X, "toarray"):
        return
    kind, has = type(X).__name__, ""
    remedy = next((remedy for name, remedy in REMEDIES.items() if has_any(X, name)), "")
    if has_any(X, "layout") and str(X.layout).startswith("torch.sparse"):
        remedy = "X.to_dense()"
    elif "DataLoader" in (base.__name__ for base in type(X).__mro__):
        remedy = "X.dataset"
    elif callable(getattr(type(X), "keys", None)) and not has_any(X, "iloc", "columns"):
        names = list(X.keys())
        tables = (name for name in names if len(getattr(X[name], "shape", ())) > 1)
        one = next(tables, next(iter(names), "x"))
        remedy = "pandas.DataFrame(X)" if all(_is_column(X[n]) for n in names) else f"X[{one!r}]"
        has = f" with the entries {', '.join(map(str, names[:8])) or '(none)'}"
    if remedy:
        raise InputTypeError(f"X is a {kind}{has}, not an array of rows: give {remedy}.")


def _is_column(X: object) -> bool:
    return (isinstance(X, np.ndarray) and X.ndim == 1) or (
        isinstance(X, list) and not any(isinstance(cell, list | np.ndarray) for cell in X)
    )


def unmasked(X: Any) -> Any:
    """A masked array as a plain one, NaN where it is masked; integers become float64."""
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = unmasked(list(X)) if any(isinstance(row, np.ma.MaskedArray) for row in X) else X
    if isinstance(X, list | tuple):
        nested = any(isinstance(row, list | tuple | np.ma.MaskedArray) for row in X)
        return [unmasked(row) for row in X] if nested else X
    if not isinstance(X, np.ma.MaskedArray) or X.dtype.kind in "cmMV" or not np.ma.is_masked(X):
        return np.asarray(X) if isinstance(X, np.ma.MaskedArray) else X
    if X.dtype.kind in "OUS":
        dtype, gap = np.dtype(object), None
    else:
        dtype, gap = X.dtype if X.dtype.kind == "f" else np.dtype(np.float64), np.nan
    if X.dtype.kind in "iu" and (at := first_inexact(X.compressed())) is not None:
        raise InputError(inexact("X is masked, so its integers become float64", X.compressed()[at]))
    rows = np.array(X.data, dtype)
    rows[np.ma.getmaskarray(X)] = gap
    return rows


class StoredRows(LazyRows):
    """A stored array that has a shape, a dtype and slices, but no length."""

    def __init__(self, stored: Any) -> None:
        self.shape = tuple(int(side) for side in stored.shape)
        self.dtype = stored.dtype
        self.chunks = getattr(stored, "chunks", None)
        self._stored = stored

    def _read(self, start: int, stop: int) -> Array:
        return np.asarray(unmasked(self._stored[start:stop]))


# ------------------------------------------------------------------------------ zarr


def import_package(name: str, path: Path) -> ModuleType:
    """A package that is not always installed; FileError if reading ``path`` fails without it."""
    try:
        return import_module(name)
    except ImportError:
        advice = f"which is not installed: pip install {name}"
        raise FileError(f"Reading '{path}' needs {name}, {advice}.") from None


def damaged(path: Path, kind: str) -> FileError:
    """The error for a file that cannot be decoded."""
    return FileError(f"'{path}' is damaged or not {kind}: save it or copy it again.")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group, by its name or the files in it.

    >>> is_zarr(Path("x.zarr"))
    True
    """
    return folder.suffix.lower() == ".zarr" or any((folder / f).is_file() for f in ZARR_FILES)


class ZarrRows(StoredRows):
    """The zarr array in a folder, or the only one of a group; only the chunks needed are read.

    Raises InputError naming the arrays of a group that does not hold exactly one, and FileError if
    the folder is damaged or zarr is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._open())

    def _open(self) -> Any:
        path = self._path
        zarr: Any = import_package("zarr", path)
        try:
            found = zarr.open(str(path), mode="r")
            arrays = dict(found.arrays()) if isinstance(found, zarr.Group) else {"": found}
        except ZARR_DAMAGE:
            raise damaged(path, "a zarr array") from None
        if len(arrays) == 1:
            return next(iter(arrays.values()))
        if not arrays:
            raise InputError(f"'{path}' is a zarr group that holds no array: give the path of one.")
        names = sorted(arrays)
        raise InputError(
            f"'{path}' is a zarr group that holds the arrays {', '.join(names)}: give the path of "
            f"one, such as '{path / names[0]}'."
        )

    def _read(self, start: int, stop: int) -> Array:
        try:
            return super()._read(start, stop)
        except ZARR_DAMAGE:
            raise damaged(self._path, "a zarr array") from None


# ------------------------------------------------------------------------------ torch's datasets


class DatasetRows(LazyRows):
    """The x of every item of a map-style dataset, as torch's loaders take it.

    An item is x, or a tuple or dict that begins with x; x is a tensor, an array, a PIL image or
    a number. The first item decides shape and dtype. Raises InputError if there is no item, or one
    has another shape, or a dtype that the first one's cannot hold.
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
            if x.shape != self.shape[1:] or not np.can_cast(x.dtype, self.dtype):
                raise InputError(
                    f"Item {i} of X has shape {x.shape} and dtype {x.dtype}, the first one "
                    f"{self.shape[1:]} and {self.dtype}: bring all items to one shape and dtype."
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
            x = _as_array(item)
        except (ValueError, TypeError):
            x = np.array(None)
        if x.dtype.kind not in "biuf" or not x.size:
            found = "nothing" if item is None else f"a {type(item).__name__}"
            if isinstance(item, np.ndarray):
                found = f"an array of shape {item.shape} and dtype {item.dtype}"
            raise InputTypeError(
                f"Item {i} of X is {found}: expected a tensor, an array of numbers, a PIL image "
                "or a number, or a tuple or dict that begins with one."
            )
        return np.atleast_1d(x)


def _as_array(x: Any) -> Array:
    if has_any(x, "detach"):
        x = x.detach().cpu()
        return np.asarray(x.float() if str(x.dtype) == "torch.bfloat16" else x)
    if has_any(x, "getbands"):  # a PIL image
        from narrows.io.image_files import pixels

        return pixels(x)
    return np.asarray(unmasked(x))
