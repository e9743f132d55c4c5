"""What X may be: validation, the layout of a sample, and rows that are read by slices.

Bad input is refused here, before any work, with one sentence. `validate_X` returns the rows in the
networks' shape, (n, d), (n, C, L) or (n, C, H, W), and the `InputSpec` that later X must match.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.exceptions import InputError, InputTypeError
from narrows.io.sources import Source, as_source, nbytes
from narrows.training.streamed_batches import read_blocks

Array = NDArray[Any]
RANKS = {"CL": 3, "HW": 3, "CHW": 4, "HWC": 4}  # dimensions of X for each ``axes``
CHECKED_ELEMENTS = 2**22  # elements checked together, so that checking needs little memory
MEMINFO = Path("/proc/meminfo")  # Linux: memory of the machine
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # Linux: the limit of a container
UNKNOWN_FREE_MEMORY = 2**33  # bytes assumed free on a system that does not say
LARGEST_EXACT = 2**53  # float64 holds every integer up to here


class DataParameters(Protocol):
    """The parameters that decide how X is read; estimators have them as fields."""

    axes: str | None
    input_shape: tuple[int, ...] | None
    in_memory: bool | str
    missing: str | None


@dataclass(frozen=True)
class Layout:
    """One sample as the user gives it, and as the networks take it: (d,), (C, L) or (C, H, W)."""

    axes: str | None  # None: a table
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
        # the largest int64 is no float64: the bound is the float64 below it
        high = np.nextafter(float(info.max), 0) if info.max > LARGEST_EXACT else float(info.max)
        return np.clip(np.rint(rows), float(info.min), high).astype(dtype)
    if dtype.kind == "f":
        largest = np.finfo(dtype).max
        rows = np.clip(rows, -largest, largest)
    return rows.astype(dtype)


@dataclass(frozen=True)
class InputSpec:
    """What X was fitted on: later X must match it."""

    layout: Layout
    feature_names: NDArray[np.object_] | None = None  # columns of a frame


def sklearn_attributes(spec: InputSpec) -> dict[str, Any]:
    """The attributes of a fitted estimator that scikit-learn reads."""
    names = {} if spec.feature_names is None else {"feature_names_in_": spec.feature_names}
    return {"n_features_in_": spec.layout.n_features, **names}


class CheckedRows:
    """The rows of a source in the networks' shape; each slice is read, checked and rearranged.

    ``spec=None`` leaves rows in the user's shape. ``missing``: see `refuse_not_finite`.
    """

    def __init__(
        self, source: Source, spec: InputSpec | None = None, missing: bool | None = None
    ) -> None:
        self.source, self.missing = source, missing
        self.layout = None if spec is None else spec.layout
        self.names = None if spec is None else spec.feature_names
        given = np.dtype(source.dtype)
        wide = given.kind == "f" and given.itemsize > 8
        self.dtype = np.dtype(np.float64) if wide else given.newbyteorder("=")
        self.chunks = getattr(source, "chunks", None)
        self.picked: NDArray[np.int64] | None = None

    def pick(self, rows: NDArray[np.int64]) -> CheckedRows:
        """Only these rows, whose numbers are sorted."""
        found = copy.copy(self)
        found.picked = rows
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *event)."""
        if self.layout is not None:
            return (len(self), *self.layout.shape)
        return (len(self), *self.source.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.source.shape[0]) if self.picked is None else len(self.picked)

    def __getitem__(self, rows: slice) -> Array:
        """These rows; InputError where one holds NaN or infinity."""
        start, stop, _ = rows.indices(len(self))
        if self.picked is None or stop <= start:
            return self._read(start, stop)
        at = self.picked[start:stop]
        found: Array = self._read(int(at[0]), int(at[-1]) + 1)[at - at[0]]
        return found

    def _read(self, start: int, stop: int) -> Array:
        found = np.asarray(self.source[start:stop])
        expected = (max(0, stop - start), *self.source.shape[1:])
        if found.shape != expected:
            raise InputError(
                f"Rows {start} to {stop} of X have shape {found.shape}, but X promised {expected}; "
                "its length and shape must be those of what its slices give."
            )
        found = found.astype(self.dtype, copy=False)
        refuse_not_finite(found, self.names, first=start, missing=self.missing)
        return found if self.layout is None else self.layout.to_model(found)


Given = Array | CheckedRows


def in_steps(rows: Source, step: int) -> Iterator[tuple[int, Array]]:
    """Every ``step`` rows, and where they begin; of a lazy source many steps are read at once."""
    blocks = [(0, rows)] if isinstance(rows, np.ndarray) else read_blocks(rows, step)
    for first, block in blocks:
        for start in range(0, len(block), step):
            yield first + start, block[start : start + step]


def validate_X(
    estimator: DataParameters, X: object, spec: InputSpec | None
) -> tuple[Given, InputSpec]:
    """X, checked, in the networks' shape, and what it is like.

    Parameters
    ----------
    estimator : its parameters say how X is read; its class names it in messages
    X : anything that a user may give
    spec : what X must match; None in a first fit: then X decides

    Returns
    -------
    rows : an array, or `CheckedRows` where X is too large to load (``in_memory``): its values are
        checked as they are read
    spec : InputSpec
    """
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    source = None if type(X) is np.ndarray else as_source(X)
    if source is not None:
        if not fits_memory(source, estimator.in_memory):
            return _validate_lazy(estimator, source, spec)
        X = np.asarray(source[0 : len(source)])
    if is_table(X):
        array, names = _checked_count(estimator, X, spec)
    else:
        array = _to_array(X)
        _refuse_kinds(array)
        array, names = _checked_count(estimator, array, spec)
    _refuse_kinds(array, objects=False)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    spec = spec or InputSpec(_infer_layout(estimator, array), names)
    _check_shape(estimator, array, spec.layout)
    refuse_not_finite(array, spec.feature_names, missing=_may_miss(estimator))
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return spec.layout.to_model(native), spec


def _validate_lazy(
    estimator: DataParameters, X: Source, spec: InputSpec | None
) -> tuple[CheckedRows, InputSpec]:
    """The same checks on what X says of itself, and on its first rows."""
    rows = CheckedRows(X)
    _refuse_kinds(rows, objects=False)
    # two rows: enough for scikit-learn to judge, few enough to copy
    _, names = _checked_count(estimator, np.asarray(X[0:2]), spec)
    spec = spec or InputSpec(_infer_layout(estimator, rows), names)
    _check_shape(estimator, rows, spec.layout)
    return CheckedRows(X, spec, _may_miss(estimator)), spec


def _may_miss(estimator: DataParameters) -> bool | None:
    """Whether NaN marks a missing value; None for estimators without that choice."""
    return None if estimator.missing is None else estimator.missing == "mask"


def _infer_layout(estimator: DataParameters, X: Given) -> Layout:
    shape, folded, axes = X.shape[1:], False, estimator.axes
    if estimator.input_shape is not None and X.ndim == 2:
        input_shape = tuple(int(s) for s in estimator.input_shape)
        if math.prod(input_shape) != X.shape[1]:
            raise InputError(
                f"input_shape={input_shape} holds {math.prod(input_shape)} numbers, but the rows "
                f"of X have {X.shape[1]}; give the shape of one sample."
            )
        shape, folded = input_shape, True
    rank = len(shape) + 1
    if rank == 2:
        if axes is not None:
            raise InputError(
                f"axes={axes!r} needs X of {RANKS[axes]} dimensions, but X has shape {X.shape}; "
                f"reshape X, give input_shape, or leave axes=None for a table."
            )
        return Layout(None, shape, X.dtype.str, folded)
    if rank not in (3, 4):
        raise InputError(
            f"X has {X.ndim} dimensions; expected (n, features), (n, H, W), (n, C, L) with "
            f'axes="CL", (n, C, H, W), or (n, H, W, C) with axes="HWC".'
        )
    if axes is None and rank == 4 and shape[2] == 3 and shape[0] not in (1, 3):
        raise InputError(
            f"X has shape {X.shape}, which reads as {shape[0]} channels of {shape[1]} × {shape[2]} "
            f'pixels; for channels last give axes="HWC" (or axes="CHW" if that is what it is).'
        )
    axes = axes or {3: "HW", 4: "CHW"}[rank]
    if RANKS[axes] != rank:
        raise InputError(
            f"axes={axes!r} needs X of {RANKS[axes]} dimensions, but X has shape {X.shape}."
        )
    return Layout(axes, shape, X.dtype.str, folded)


def _check_shape(estimator: DataParameters, X: Given, layout: Layout) -> None:
    """Refuse samples of another shape than those of the fit."""
    given, flat = X.shape[1:], (layout.n_features,)
    if given == layout.user_shape or (layout.folded and given == flat):
        return
    if layout.axes is None and X.ndim == 2:
        return  # scikit-learn has its own sentence about the number of features
    expected = flat if layout.folded else layout.user_shape
    raise InputError(
        f"Each sample of X has shape {given}, but {type(estimator).__name__} was fitted on "
        f"samples of shape {expected}."
    )


def _checked_count(
    estimator: DataParameters, array: Any, spec: InputSpec | None
) -> tuple[Array, NDArray[np.object_] | None]:
    """X with enough rows, none of them empty; tables as scikit-learn takes them; column names."""
    least, names = 2 if spec is None else 1, None
    if getattr(array, "ndim", 2) <= 2:
        array, names = _checked_table(estimator, array, spec, least)
    elif len(array) < least:
        raise InputError(
            f"X has {len(array)} sample(s) (shape={array.shape}); at least {least} "
            f"{'are' if least > 1 else 'is'} needed."
        )
    if 0 in array.shape[1:]:
        raise InputError(f"X has shape {array.shape}: a sample is empty.")
    return array, names


def _to_array(X: object) -> Array:
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise InputError(
            "X is ragged: its samples have different shapes; make them all the same shape."
        ) from error
    if array.ndim == 0:
        raise InputTypeError(
            f"X must be an array or a frame with one sample per row. Got {type(X).__name__} "
            "instead; read a file first, for example with numpy.load or pandas.read_csv."
        )
    return array


def _checked_table(
    estimator: DataParameters, X: object, spec: InputSpec | None, least: int
) -> tuple[Array, NDArray[np.object_] | None]:
    from sklearn.utils.validation import validate_data

    if hasattr(X, "toarray"):
        raise InputError(
            "X is sparse, but narrows needs dense data; use X.toarray(), or reduce it first with "
            "sklearn.decomposition.TruncatedSVD."
        )
    # a copy: scikit-learn writes n_features_in_ and feature_names_in_ to it; a fit that fails
    # must not change the estimator
    copy: Any = object.__new__(type(estimator))
    copy.__dict__.update({**vars(estimator), "feature_names_in_": None})
    del copy.feature_names_in_  # of an earlier fit
    copy.__dict__.update({} if spec is None else sklearn_attributes(spec))
    try:
        checked: Array = validate_data(
            copy, X, reset=spec is None, ensure_all_finite=False, ensure_min_samples=least
        )
    except (ValueError, TypeError) as error:
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        raise kind(_first_word(X) or str(error)) from error
    return checked, getattr(copy, "feature_names_in_", None)


def _first_word(frame: Any) -> str | None:
    """The sentence about a frame's first column of words; None where there is none."""
    if not hasattr(frame, "columns"):
        return None
    for name in frame.columns:
        kind = np.asarray(frame[name])
        if kind.dtype.kind in "OUS":
            try:
                kind.astype(float)
            except (TypeError, ValueError):
                first = next(v for v in kind if not isinstance(v, int | float))
                return (
                    f"Column {name!r} of X holds words ({first!r}), not numbers; encode it first "
                    "(sklearn.preprocessing.OneHotEncoder), or drop it."
                )
    return None


def _refuse_kinds(array: Given, *, objects: bool = True) -> None:
    """Refuse dtypes that are no real numbers; ``objects`` may turn out to be some."""
    if array.dtype.kind not in ("fiubO" if objects else "fiub"):
        kinds = {"c": "complex numbers: Complex data not supported", "M": "dates", "O": "objects"}
        found = kinds.get(array.dtype.kind, "words" if array.dtype.kind in "USVT" else "no numbers")
        raise InputError(
            f"X holds {found} (dtype {array.dtype}); narrows needs real numbers: encode or convert "
            "them first."
        )


def refuse_not_finite(
    array: Array,
    names: Sequence[object] | NDArray[Any] | None,
    first: int = 0,
    *,
    missing: bool | None = None,
) -> None:
    """Refuse NaN and infinity, naming the first place; row numbers count from ``first``.

    With ``missing=True`` NaN marks a missing value, and only a row of nothing else is refused;
    with ``missing=False`` the message names that choice, with None the estimator has none.
    """
    if array.dtype.kind != "f":
        return
    step = max(1, CHECKED_ELEMENTS // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        finite = np.isfinite(part)
        if finite.all():
            continue
        if missing:
            _refuse_empty(part, first + start)
            finite |= np.isnan(part)
            if finite.all():
                continue
        place = np.argwhere(~finite)[0]
        value = "NaN" if np.isnan(part[tuple(place)]) else "infinity"
        row, where = first + start + int(place[0]), ", ".join(str(i) for i in place[1:])
        column = f"column {where}" + (f" ({names[place[1]]!r})" if names is not None else "")
        spot = column if array.ndim == 2 else f"index ({where})"
        raise InputError(
            f"Input X contains {value} in row {row}, {spot}; drop such rows, fill them in "
            "(sklearn.impute.SimpleImputer) first"
            + (
                ', or let missing="mask" leave NaN out.'
                if value == "NaN" and missing is not None
                else "."
            )
        )


def _refuse_empty(part: Array, first: int) -> None:
    empty = np.isnan(part).reshape(len(part), -1).all(axis=1)
    if empty.any():
        raise InputError(
            f"Row {first + int(empty.argmax())} of X has no observed value (all are NaN); drop "
            "such rows."
        )


def is_table(X: object) -> bool:
    """Whether X is a frame, or a sparse matrix."""
    return hasattr(X, "columns") or hasattr(X, "toarray")


def fits_memory(X: Source, asked: object) -> bool:
    """Whether X is to be loaded; "auto" loads what takes less than a quarter of free memory."""
    if asked != "auto":
        return bool(asked)
    return nbytes(X) * 4 < _free_memory()


def _free_memory() -> int:
    """Free bytes; the kernel's caches of files count as free."""
    free = _number_in(MEMINFO, "MemAvailable:")
    free = _unused_pages() if free is None else free * 1024
    limit = _number_in(CGROUP_LIMIT, r"\A")
    return free if limit is None else min(free, limit)


def _number_in(path: Path, before: str) -> int | None:
    """The number after some words in a file of the system, if there is one."""
    try:
        found = re.search(before + r"\s*(\d+)", path.read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None


def _unused_pages() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_FREE_MEMORY
