"""The one reader: from what a user names to arrays.

A source is a name (digits, mnist, fashion-mnist, with ``:test`` for the test split), a folder of
images or of .parquet files, a .zarr, or a file: .npy, .npz, .parquet, .csv (.tsv, .txt, .data) or
IDX, the last two gzipped or not. Nothing is scaled here, nor copied without need; NaN and infinity
are left to the estimator. Pickles are never opened.
"""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io import csv_tables, datasets, parquet
from narrows.io.image_files import SUFFIXES, find_images
from narrows.io.image_folders import ImageFolder, Resize
from narrows.io.sources import LazyRows, Source, ZarrRows, is_zarr, nbytes

READABLE = (
    "digits, mnist or fashion-mnist (mnist:test is the test split), a folder of images or .parquet "
    "files, a .zarr, or a .npy, .npz, .parquet, .csv or IDX file (the last two may be gzipped)"
)
LAZY_FROM_BYTES = 2**30  # lazy="auto" leaves rows that take more on disk
Lazy = bool | Literal["auto"]
TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".data"})
PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")
IDX_NAME = re.compile(r"(^|[-.])idx\d*([-.]|$)|ubyte(\.gz)?$")
# The first bytes; the last are those of a .npz without arrays.
MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What was read.

    ``X`` is (n, ...) in the source's own dtype, an array or, if read lazily, a
    `narrows.io.sources.Source`; ``y`` (n,) its labels if the source has them; ``axes`` what
    the estimators need to know about ``X`` ("HWC" for colour images); ``feature_names`` the columns
    of a table; ``name`` a short name for titles; ``y_names`` the names of the classes in ``y``.
    """

    X: Any
    y: NDArray[Any] | None = None
    axes: str | None = None
    feature_names: list[str] | None = None
    name: str = "data"
    y_names: list[str] | None = None


def read(source: str | Path, *, resize: Resize = None, lazy: Lazy = False) -> Data:
    """Read any source narrows knows.

    A name has precedence over a file of that name; write ``./mnist`` for the folder. An .npz gives
    its array ``X`` (or its only one) and its ``y``; IDX images find the labels in the same folder
    by MNIST's usual names.

    Parameters
    ----------
    source : str or Path
        A name, a folder or a file.
    resize : int, "HxW" or (H, W), optional
        For folders of images only: pixels. Each image is scaled to cover that size, and what sticks
        out is cropped.
    lazy : bool or "auto"
        Whether rows of images, parquet and zarr are read only when they are used; "auto": if
        they take more than 1 GiB. An .npy is always memory-mapped.

    Raises
    ------
    FileError
        The source is missing, damaged or of no known kind.
    InputError
        Its content cannot be used.
    ParameterError
        ``resize`` is not a size, or the source is not a folder of images.

    >>> data = read("digits")
    >>> data.X.shape, data.y.shape, data.name
    ((1797, 8, 8), (1797,), 'digits')
    """
    path = _path(source)
    is_name = isinstance(source, str) and datasets.is_name(source)
    if not is_name:
        _check_exists(source, path)
    is_images = not is_name and _is_image_folder(path)
    if resize is not None and not is_images:
        raise ParameterError(
            f"resize={resize!r} is for folders of images and '{source}' is none: leave it out."
        )
    if is_name:
        X, y, y_names = datasets.read_named(str(source))
        return Data(X, y, name=str(source), y_names=y_names)
    if is_images:
        rows = ImageFolder(path, resize)
        axes = "HWC" if len(rows.shape) == 4 else None
        data = Data(rows, rows.y, axes, name=path.resolve().name, y_names=rows.y_names)
    else:
        data = _read_path(path)
    _check_rows(data, path)
    return _in_memory(data, lazy)


def read_any(source: str | Path) -> Data:
    """Read numbers of any shape and type; images, a folder or one file, stay a path.

    For storing them only: besides what `read` reads, arrays without rows, such as an .npy of one
    number, and of other types, such as complex numbers.

    >>> read_any("digits").X.shape
    (1797, 8, 8)
    """
    path = _path(source)
    if isinstance(source, str) and datasets.is_name(source):
        return Data(datasets.read_named(source)[0], name=source)
    _check_exists(source, path, f"an image, {READABLE}")
    if _is_image_folder(path) or path.suffix.lower() in SUFFIXES:
        return Data(path, name=path.resolve().name)
    return _in_memory(_read_path(path), "auto")


def read_labels(path: str | Path) -> NDArray[Any]:
    """Labels, (n,), from a file of one column: text, .npy, IDX, or the ``y`` of an .npz.

    Text gives integers if every label is one, floats if every label is a number, otherwise
    strings. Raises FileError and InputError as :func:`read` does.
    """
    source, path = path, _path(path)
    _check_exists(source, path, "a file of one column", folders=False)
    kind = _kind(path)
    if kind == "text":
        return _typed(csv_tables.read_column(path), path)
    y = np.asarray(_read_npz(path, "y")[0] if kind == "npz" else _read_path(path).X)
    y = _one_column(y)
    if y.ndim != 1 or y.dtype.kind not in "biufU":
        raise InputError(f"'{path}' holds {_description(y)} where labels need one column, (n,).")
    return y


def _typed(labels: list[str], path: Path) -> NDArray[Any]:
    if not labels or "" in labels:
        raise InputError(f"'{path}' has an empty cell or no labels: every row needs a label.")
    text = np.array(labels, dtype=np.str_)
    for dtype in (np.int64, np.float64):
        with suppress(ValueError):
            return text.astype(dtype)
    return text


# ------------------------------------------------------------------------------ paths


def _path(source: str | Path) -> Path:
    # Path.expanduser raises if ~name is not a user of this machine.
    return Path(os.path.expanduser(source))  # noqa: PTH111


def _check_exists(
    source: str | Path, path: Path, expected: str = READABLE, *, folders: bool = True
) -> None:
    """Raise FileError if nothing is there, with the nearest name if one is near."""
    # Path.exists raises if a name is too long or a folder may not be read.
    if str(source) and os.path.exists(path) and (folders or not path.is_dir()):  # noqa: PTH110
        return
    folder, names = path.parent, datasets.NAMES
    around = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, [*names, *around], n=1, cutoff=0.75)
    if close:
        found = close[0] if close[0] in names else folder / close[0]
        raise FileError(f"'{source}' does not exist: did you mean '{found}'?")
    if not folder.is_dir():
        raise FileError(f"'{source}' does not exist, and neither does the folder '{folder}'.")
    raise FileError(f"'{source}' does not exist: expected {expected}.")


def _is_image_folder(path: Path) -> bool:
    if not path.is_dir() or is_zarr(path):
        return False
    return not parquet.find_parquet(path) or bool(find_images(path))


def _kind(path: Path) -> str:
    """How a file is read: by its first bytes if they are known, otherwise by its suffix."""
    name = path.name.lower()
    suffix = Path(name).suffix
    try:
        start = datasets.read_gzipped(path, limit=8)
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    if not start:
        raise InputError(f"'{path}' is empty (0 bytes): save it or copy it again.")
    if suffix in (".npy", ".npz"):
        return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "not numpy")
    if suffix == ".parquet":
        return "parquet"
    if Path(name.removesuffix(".gz")).suffix in TEXT_SUFFIXES:
        return "text"
    return "idx" if datasets.is_idx(start) or IDX_NAME.search(name) else "unknown"


# ------------------------------------------------------------------------------ files


def _read_path(path: Path) -> Data:
    """A file, or a folder of a zarr array or of parquet files."""
    if path.is_dir() and is_zarr(path):
        return Data(ZarrRows(path), name=path.resolve().name)
    kind = "parquet" if path.is_dir() else _kind(path)
    name = path.name.removesuffix(".gz")
    if kind == "parquet":
        rows = parquet.ParquetRows(path)
        return Data(rows, feature_names=rows.feature_names, name=path.resolve().name)
    if kind == "idx":
        return Data(datasets.read_idx(path), datasets.read_idx_labels(path), name=name)
    if kind == "text":
        table, names = csv_tables.read_csv(path)
        return Data(table, feature_names=names, name=name)
    if kind in ("npy", "npz"):
        X, y = _read_npz(path, "X") if kind == "npz" else (_map_npy(path), None)
        return Data(X, y, name=name)
    if kind == "not numpy":
        raise FileError(f"'{path}' is not a numpy file: save the array with numpy.save.")
    if path.suffix.lower() in SUFFIXES:
        raise FileError(f"'{path}' is a single image: give the folder that holds the images.")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FileError(f"'{path}' may run code when opened: save the array with numpy.save.")
    raise FileError(f"'{path}' is not a kind of file that narrows reads: expected {READABLE}.")


def _map_npy(path: Path) -> NDArray[Any]:
    try:
        # Memory-mapped, so that a file larger than memory opens at once.
        X: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged header makes NumPy, and Python's parser, raise
        raise _unreadable(path, error) from None
    return X


def _read_npz(path: Path, wanted: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The array called ``wanted``, or the only one if it is not ``y``; and ``y``."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            others = [name for name in names if name not in ("X", "x", "y", "Y")]
            only = others if len(others) == 1 and not {"X", "x"} & set(names) else []
            chosen = next((n for n in (wanted, wanted.swapcase(), *only) if n in names), "")
            labels = next((name for name in ("y", "Y") if name in names), "")
            X = archive[chosen] if chosen else None
            y = archive[labels] if labels else None
    except Exception as error:
        raise _unreadable(path, error) from None
    if X is not None:
        return X, None if y is None else _one_column(y)
    if {"indptr", "indices"} <= set(names):
        raise InputError(f"'{path}' holds a sparse matrix: save X.toarray() with numpy.save.")
    called = "X (and its labels y)" if wanted == "X" else "y"
    found = ", ".join(names) or "(none)"
    raise InputError(f"'{path}' holds the arrays {found}: save the one to read as {called}.")


def _one_column(y: NDArray[Any]) -> NDArray[Any]:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _unreadable(path: Path, error: Exception) -> FileError:
    # numpy's own words, when it reads an array of Python objects and when it maps one
    if "Object arrays" in str(error) or "Python objects" in str(error):
        return FileError(
            f"'{path}' holds Python objects (rows of different lengths, or mixed types), which "
            "only a pickle can store: save one array of numbers."
        )
    return FileError(f"'{path}' is damaged or incomplete: save it or copy it again.")


# ------------------------------------------------------------------------------ rows


def _in_memory(data: Data, lazy: Lazy) -> Data:
    """The rows in memory, unless ``lazy`` says otherwise."""
    stays = nbytes(data.X) > LAZY_FROM_BYTES if lazy == "auto" else lazy
    return data if stays or not isinstance(data.X, LazyRows) else replace(data, X=data.X[:])


def _description(X: NDArray[Any] | Source) -> str:
    return f"an array of shape {X.shape} and type {X.dtype}"


def _check_rows(data: Data, path: Path) -> None:
    """Refuse what cannot be rows of numbers while the file's name is known."""
    X, y = data.X, data.y
    if X.dtype.kind not in "biuf":
        raise InputError(f"'{path}' holds {_description(X)}: expected numbers.")
    if len(X.shape) < 2:
        raise InputError(
            f"'{path}' holds {_description(X)}: expected rows, (n, d); one feature is (n, 1)."
        )
    if y is not None and y.shape[:1] != X.shape[:1]:
        raise InputError(f"'{path}' has {len(X)} rows and its labels are {_description(y)}.")
