"""The one reader: from what a user names to arrays.

A source is a name (digits, mnist, fashion-mnist, with ``:test`` for the test split), a folder of
images or of .parquet files, a .zarr, or a file: .npy, .npz, .parquet, .csv (.tsv, .txt, .data) or
IDX, the last two gzipped or not. Nothing here is scaled or copied without need; what the numbers
are, NaN included, is the estimator's question. Pickles are never opened.
"""

from __future__ import annotations

import difflib
import re
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io import (
    csv_tables as tables,
)
from narrows.io import (
    datasets as named,
)
from narrows.io import (
    idx,
    parquet,
)
from narrows.io import (
    image_folders as images,
)
from narrows.io import (
    zarr_arrays as zarrs,
)
from narrows.io.image_folders import Resize
from narrows.io.sources import LazyRows, Source, nbytes

__all__ = ["READABLE", "Data", "read", "read_any", "read_labels"]

READABLE = (
    "digits, mnist, fashion-mnist (mnist:test for the test split), a folder of images or .parquet "
    "files, a .zarr, a .npy, .npz, .parquet, .csv or IDX file, the last two gz or not"
)
LARGE = 2**30  # bytes in memory, above which lazy="auto" leaves rows where they are
Lazy = bool | Literal["auto"]
TEXT = frozenset({".csv", ".tsv", ".txt", ".data"})
IDX_NAME = re.compile(r"(^|[-.])idx\d*([-.]|$)|ubyte(\.gz)?$")
MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}  # the last: no array


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What was read.

    ``X`` is (n, ...) in the source's own dtype, an array or, where it was to be read lazily, a
    `narrows.io.sources.Source`; ``y`` (n,) its labels where the source has them;
    ``axes`` what the estimators need to be told about ``X`` ("HWC" for colour images);
    ``feature_names`` the columns of a table; ``name`` a short name for titles; ``y_names`` what
    the integers of ``y`` stand for.
    """

    X: Any
    y: NDArray[Any] | None = None
    axes: str | None = None
    feature_names: list[str] | None = None
    name: str = "data"
    y_names: list[str] | None = None


def read(source: str | Path, *, resize: Resize = None, lazy: Lazy = False) -> Data:
    """Read any source narrows knows.

    A name wins over a file of that name; write ``./mnist`` for the folder. ``resize`` (pixels,
    or height and width, for folders of images only) scales each image to cover that size and
    crops what stands out. An .npz gives its array ``X`` (or its only one) and its ``y``; IDX
    images find the labels that lie beside them under MNIST's usual names. With ``lazy``, rows of
    images, parquet and zarr are read when they are asked for; "auto" does so where they would
    take more than 1 GiB. An .npy is always mapped.

    Raises FileError where the source is missing, damaged or of no known kind, InputError where
    its content cannot be used and ParameterError for a ``resize`` that makes no sense.

    >>> data = read("digits")
    >>> data.X.shape, data.y.shape, data.name
    ((1797, 8, 8), (1797,), 'digits')
    """
    text, path = str(source), _path(source)
    if isinstance(source, str) and named.is_name(text):
        _refuse_resize(text, resize)
        X, y, y_names = named.read_named(text)
        return Data(X, y, name=text, y_names=y_names)
    if not text or not _exists(path):
        raise FileError(_not_there(text, path))
    if path.is_dir() and not _is_table_or_array(path):
        data = _from_images(images.ImageFolder(path, resize), path)
    else:
        _refuse_resize(text, resize)
        data = _from_folder(path) if path.is_dir() else _read_file(path)
    return _settled(_checked(data, path), lazy)


def read_any(source: str | Path) -> Data:
    """Read numbers of any shape and type; images, a folder or one file, stay a path.

    What `read` reads and arrays that are no rows, such as a .npy of one number or of complex ones,
    for who only stores them.

    >>> read_any("digits").X.shape
    (1797, 8, 8)
    """
    text, path = str(source), _path(source)
    if isinstance(source, str) and named.is_name(text):
        return Data(named.read_named(text)[0], name=text)
    if not text or not _exists(path):
        raise FileError(_not_there(text, path, f"an image, {READABLE}"))
    folder_of_images = path.is_dir() and not _is_table_or_array(path)
    if folder_of_images or path.suffix.lower() in images.SUFFIXES:
        return Data(path, name=path.resolve().name)
    data = _from_folder(path) if path.is_dir() else _read_file(path)
    return _settled(data, "auto")


def _is_table_or_array(folder: Path) -> bool:
    return zarrs.is_zarr(folder) or bool(
        parquet.find_parquet(folder) and not images.find_images(folder)
    )


def _from_images(rows: images.ImageFolder, path: Path) -> Data:
    axes = "HWC" if len(rows.shape) == 4 else None
    return Data(rows, rows.y, axes, name=path.resolve().name, y_names=rows.y_names)


def _from_folder(path: Path) -> Data:
    if zarrs.is_zarr(path):
        return Data(zarrs.ZarrRows(path), name=path.resolve().name)
    return _from_parquet(path)


def _from_parquet(path: Path) -> Data:
    rows = parquet.ParquetRows(path)
    return Data(rows, feature_names=rows.feature_names, name=path.resolve().name)


def _settled(data: Data, lazy: Lazy) -> Data:
    """The rows in memory, or left where they are: what ``lazy`` says, or how large they are."""
    stays = nbytes(data.X) > LARGE if lazy == "auto" else lazy
    return data if stays or not isinstance(data.X, LazyRows) else replace(data, X=data.X[:])


def read_labels(path: str | Path) -> NDArray[Any]:
    """Labels, (n,), from a file of one column: text, .npy, IDX, or the ``y`` of an .npz.

    Text gives integers where every label is one, floats where every label is a number, else
    strings. Raises FileError and InputError as :func:`read` does.
    """
    text, path = str(path), _path(path)
    if not _exists(path) or path.is_dir():
        raise FileError(_not_there(text, path, expected="a file of one column"))
    kind = _kind(path)
    if kind == "text":
        return _typed(tables.read_column(path), path)
    y = np.asarray(_from_npz(path, "y")[0] if kind == "npz" else _read_file(path).X)
    y = _one_column(y)
    if y.ndim != 1 or y.dtype.kind not in "biufU":
        raise InputError(f"'{path}' holds {_described(y)} where labels need one column, (n,).")
    return y


def _typed(labels: list[str], path: Path) -> NDArray[Any]:
    if not labels or "" in labels:
        raise InputError(f"'{path}' has an empty cell or no labels: every row needs a label.")
    for dtype in (np.int64, np.float64):
        try:
            return np.array(labels, dtype=np.str_).astype(dtype)
        except ValueError:
            continue
    return np.array(labels, dtype=np.str_)


def _refuse_resize(text: str, resize: Resize) -> None:
    if resize is not None:
        raise ParameterError(
            f"resize={resize!r} is for folders of images and '{text}' is none: leave it out."
        )


def _path(source: str | Path) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~name, where nobody is called that
        return Path(source)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, or a folder that may not be looked into
        return False


def _not_there(text: str, path: Path, expected: str = READABLE) -> str:
    folder = path.parent
    around = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, [*named.NAMES, *around], n=1, cutoff=0.75)
    if close:
        found = close[0] if close[0] in named.NAMES else folder / close[0]
        return f"'{text}' is not there: did you mean '{found}'?"
    if not folder.is_dir():
        return f"'{text}' is not there, and neither is the folder '{folder}'."
    return f"'{text}' is not there: expected {expected}."


def _kind(path: Path) -> str:
    """How a file is read: by its first bytes where they tell, else by its suffix."""
    name = path.name.lower()
    suffix = Path(name).suffix
    try:
        start = idx.content_of(path, limit=8)
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    if not start:
        raise InputError(f"'{path}' is empty: it holds no bytes at all; save or copy it again.")
    if suffix in (".npy", ".npz"):
        return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "not numpy")
    if suffix == ".parquet":
        return "parquet"
    if Path(name.removesuffix(".gz")).suffix in TEXT:
        return "text"
    return "idx" if idx.is_idx(start) or IDX_NAME.search(name) else "unknown"


def _read_file(path: Path) -> Data:
    kind = _kind(path)
    name = path.name.removesuffix(".gz")
    if kind == "idx":
        return Data(idx.read_idx(path), idx.read_idx_labels(path), name=name)
    if kind == "text":
        X, names = tables.read_csv(path)
        return Data(X, feature_names=names, name=name)
    if kind == "parquet":
        return _from_parquet(path)
    if kind in ("npy", "npz"):
        X, y = _from_npz(path, "x") if kind == "npz" else (_from_npy(path), None)
        return Data(X, y, name=name)
    raise FileError(_unknown(path, kind))


def _unknown(path: Path, kind: str) -> str:
    if kind == "not numpy":
        return f"'{path}' is named like a numpy file and is none: save it with numpy.save."
    if path.suffix.lower() in images.SUFFIXES:
        return f"'{path}' is a single image: give the folder that holds the images."
    if path.suffix.lower() in (".pkl", ".pickle", ".joblib", ".pt", ".pth"):
        return (
            f"'{path}' may run code when opened, so narrows never opens it: save the array "
            "with numpy.save."
        )
    return f"'{path}' is of no kind narrows reads: expected {READABLE}."


def _from_npy(path: Path) -> NDArray[Any]:
    try:
        # A file is mapped, so that one larger than memory opens at once.
        X: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from None
    return X


def _from_npz(path: Path, wanted: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The array called ``wanted``, or the only one beside ``y``; and ``y``."""
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = {name.lower(): name for name in archive.files}
            others = [name for key, name in names.items() if key not in ("x", "y")]
            chosen = names.get(
                wanted, others[0] if others and len(names.keys() - {"y"}) == 1 else ""
            )
            X = archive[chosen] if chosen else None
            y = archive[names["y"]] if "y" in names else None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise _unreadable(path, error) from None
    if X is None:
        raise InputError(_no_array(path, list(names.values()), wanted))
    return X, None if y is None else _one_column(y)


def _no_array(path: Path, names: list[str], wanted: str) -> str:
    if {"indptr", "indices"} <= set(names):
        return f"'{path}' holds a sparse matrix: save X.toarray() with numpy.save."
    called = "X (and its labels y)" if wanted == "x" else "y"
    return (
        f"'{path}' holds the arrays {', '.join(names) or '(none)'}: save the one to read as "
        f"{called}."
    )


def _one_column(y: NDArray[Any]) -> NDArray[Any]:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _unreadable(path: Path, error: Exception) -> FileError:
    # numpy's own words, when it reads an array of Python objects and when it maps one
    if "Object arrays" in str(error) or "Python objects" in str(error):
        return FileError(
            f"'{path}' holds Python objects (ragged rows, or mixed types), which only a pickle "
            "can store: save one array of numbers."
        )
    return FileError(f"'{path}' is damaged or incomplete: save or copy it again.")


def _described(X: NDArray[Any] | Source) -> str:
    return f"an array of shape {X.shape} and type {X.dtype}"


def _checked(data: Data, path: Path) -> Data:
    """Refuse what is certainly no data while the file's name is at hand."""
    X, y = data.X, data.y
    if X.dtype.kind not in "biuf":
        raise InputError(f"'{path}' holds {_described(X)}: expected numbers.")
    if len(X.shape) < 2:
        raise InputError(
            f"'{path}' holds {_described(X)}: expected rows, (n, d); one feature is (n, 1)."
        )
    if y is not None and y.shape[:1] != X.shape[:1]:
        raise InputError(f"'{path}' has {len(X)} rows and its labels are {_described(y)}.")
    return data
