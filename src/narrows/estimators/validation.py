"""What X may be: validation, the layout of a sample, and rows that are read by slices.

Bad input is refused here, before any work, with one sentence. `validate_X` returns the rows in the
networks' shape, (n, d), (n, C, L) or (n, C, H, W), and the `InputSpec` that later X must match.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.estimators.parameters import AXES, MAX_SIDE, as_ints, stored
from narrows.exceptions import InputError, InputTypeError
from narrows.io.sources import (
    NamedRows,
    Source,
    as_source,
    has_any,
    nbytes,
    refuse_container,
    unmasked,
)
from narrows.io.table_advice import EXACT_INTEGERS, MISSING, inexact, is_inexact, spellings
from narrows.training.streamed_batches import read_blocks

Array = NDArray[Any]
MAX_COLOURS = 4  # a last axis this short is one of channels, such as RGB with transparency
RANKS = {"CL": 3, "HW": 3, "CHW": 4, "HWC": 4}  # dimensions of X for each ``axes``
CHECKED_ELEMENTS = 2**22  # elements checked together, so that checking needs little memory
MEMINFO = Path("/proc/meminfo")  # Linux: memory of the machine
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # Linux: the limit of a container
UNKNOWN_FREE_MEMORY = 2**33  # bytes assumed free on a system that does not say
PLAIN = re.compile(r"(u?int|float)(8|16|32|64)|bool(ean)?")  # dtypes of frames that NumPy has too


# as dtype.str and as str(dtype); no other dtype is taken from a file ("V1000000000" asks for 1 GB)
_DTYPES = [np.dtype(code) for code in "?bhilqBHILQefdg"]
DTYPES = tuple(sorted({t for d in _DTYPES for e in (d, d.newbyteorder()) for t in (e.str, str(e))}))


class DataParameters(Protocol):
    """The parameters that decide how X is read; estimators have them as fields."""

    axes: str | None
    input_shape: tuple[int, ...] | None
    in_memory: bool | str
    missing: str | None


@dataclass(frozen=True)
class Layout:
    """One sample as the user gives it, and as the networks take it: (d,), (C, L) or (C, H, W)."""

    axes: str | None = stored(choices=AXES)  # None: a table
    user_shape: tuple[int, ...] = stored(kind=tuple, low=1, high=MAX_SIDE, most=3)
    dtype: str = stored(choices=DTYPES)
    folded: bool = stored(False, kind=bool)  # rows of a table that hold images

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
        high = np.nextafter(float(info.max), 0) if info.max > EXACT_INTEGERS else float(info.max)
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

    ``spec=None`` leaves rows in the user's shape. ``missing``, ``fitted``: see
    `refuse_not_finite`.
    """

    def __init__(
        self,
        source: Source,
        spec: InputSpec | None = None,
        missing: bool | None = None,
        fitted: bool = False,
    ) -> None:
        self.source, self.missing, self.fitted = source, missing, fitted
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
        found = np.asarray(unmasked(self.source[start:stop]))
        if found.dtype.kind == "f" != self.dtype.kind:
            raise InputError(
                f"Rows {start} to {stop} of X hold missing values, which its dtype {self.dtype} "
                "does not have: load it with in_memory=True."
            )
        expected = (max(0, stop - start), *self.source.shape[1:])
        if found.shape != expected:
            raise InputError(
                f"Rows {start} to {stop} of X have shape {found.shape}, but X promised {expected}; "
                "its length and shape must be those of what its slices give."
            )
        found = found.astype(self.dtype, copy=False)
        refuse_not_finite(found, self.names, start, missing=self.missing, fitted=self.fitted)
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
    titles = None
    if isinstance(X, NamedRows):
        titles, X = np.array(X.feature_names, dtype=object), X.rows
    source = None if type(X) is np.ndarray else as_source(X)
    if source is not None:
        if not fits_memory(source, estimator.in_memory):
            return _validate_lazy(estimator, source, spec, titles)
        X = unmasked(source[0 : len(source)])
    plain = type(X) is np.ndarray and X.ndim > 1 and X.dtype.kind in "fiub"
    if type(X) is not np.ndarray:
        refuse_container(X)
    array, names = _checked_count(estimator, X if plain or is_table(X) else _to_array(X), spec)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    fitted = spec is not None
    spec = spec or InputSpec(_infer_layout(estimator, array), names if titles is None else titles)
    _check_shape(estimator, array, spec.layout)
    refuse_not_finite(array, spec.feature_names, missing=_may_miss(estimator), fitted=fitted)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return spec.layout.to_model(native), spec


def _validate_lazy(
    estimator: DataParameters,
    X: Source,
    spec: InputSpec | None,
    titles: NDArray[np.object_] | None,
) -> tuple[CheckedRows, InputSpec]:
    """The same checks on what X says of itself, and on its first rows."""
    rows = CheckedRows(X)
    _refuse_kinds(rows)
    # two rows: enough for scikit-learn to judge, few enough to copy
    _, names = _checked_count(estimator, np.asarray(X[0:2]), spec)
    fitted = spec is not None
    spec = spec or InputSpec(_infer_layout(estimator, rows), names if titles is None else titles)
    _check_shape(estimator, rows, spec.layout)
    return CheckedRows(X, spec, _may_miss(estimator), fitted), spec


def _may_miss(estimator: DataParameters) -> bool | None:
    """Whether NaN marks a missing value; None for estimators without that choice."""
    return None if estimator.missing is None else estimator.missing == "mask"


def _infer_layout(estimator: DataParameters, X: Given) -> Layout:
    shape, folded, axes = X.shape[1:], False, estimator.axes
    if estimator.input_shape is not None and X.ndim == 2:
        input_shape = as_ints(estimator.input_shape)
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
    axes = axes or ("HW" if rank == 3 else _which_channels(len(X), shape))
    if RANKS[axes] != rank:
        raise InputError(
            f"axes={axes!r} needs X of {RANKS[axes]} dimensions, but X has shape {X.shape}."
        )
    return Layout(axes, shape, X.dtype.str, folded)


def _which_channels(n: int, shape: tuple[int, ...]) -> str:
    """CHW or HWC for samples of three axes; InputError where channels last are likely.

    (H, W, 1) is Keras' form of grey images; one channel first is sure, as no image has one row.
    Channels last are likely if the last axis has 2 to 4 elements, or is shorter than the second and
    no longer than the first, or only the first two are equal. So feature maps (C, H, W) that are
    square or wider than high need no word, nor do fewer channels than columns.
    """
    first, height, width = shape
    if first == 1:
        return "CHW"
    if width == 1:
        return "HWC"
    if width <= MAX_COLOURS or first == height != width or first >= width < height:
        raise InputError(
            f"X has shape {(n, *shape)}, which reads as {first} channels of {height} × {width} "
            f'pixels; for channels last give axes="HWC" (or axes="CHW" if that is what it is).'
        )
    return "CHW"


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


def _to_array(X: Any) -> Array:
    """X, no frame, as an array of numbers; object arrays and text become float64."""
    try:
        array = np.asarray(_tensor_to_numpy(X) if isinstance(X, Tensor) else unmasked(X))
    except InputError:
        raise
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputTypeError(
            f"X is a {type(X).__name__} that NumPy does not read ({error}); give an array."
        ) from error
    except ValueError as error:
        raise InputError(
            "X is ragged: its samples have different shapes; make them all the same shape."
        ) from error
    if array.ndim == 0:
        raise InputTypeError(
            f"X must be an array or a frame with one sample per row. Got {type(X).__name__} "
            "instead; read a file first, for example with numpy.load or pandas.read_csv."
        )
    if isinstance(X, list | tuple) and array.dtype.kind == "f":  # NumPy rounds integers in them
        for place in np.argwhere(np.abs(array) >= EXACT_INTEGERS):
            cell: Any = X
            for i in place:
                cell = cell[i]
            if np.isfinite(array[tuple(place)]) and is_inexact(cell):
                raise InputError(inexact(f"X{place.tolist()}", cell))
    if array.dtype.names or (array.ndim == 1 and len(array) and isinstance(array[0], dict)):
        what = "a structured array" if array.dtype.names else "dicts"
        masked = isinstance(X, np.ma.MaskedArray)
        frame = "{name: X[name] for name in X.dtype.names}" if masked else "X"
        raise InputTypeError(
            f"X holds {what}, not rows of numbers: give pandas.DataFrame({frame})."
        )
    if array.dtype == object and array.ndim == 1 and len(array) and np.ndim(array[0]):
        rows = "X.to_pylist()" if hasattr(X, "to_pylist") else "numpy.stack(X)"
        raise InputError(f"X holds an array in each row: give {rows}, if all have one length.")
    if array.ndim == 1:
        raise InputError(
            f"Expected 2D array, got 1D array of shape {array.shape} instead. Reshape your data: "
            "numpy.reshape(X, (-1, 1)) is one feature, numpy.reshape(X, (1, -1)) one sample."
        )
    if array.dtype.kind not in "OUS":
        _refuse_kinds(array)
        return array
    columns = array.reshape(len(array), -1)
    numbers = [to_numbers(columns[:, j], f"Column {j}") for j in range(columns.shape[1])]
    return np.stack(numbers, 1).astype(float).reshape(array.shape) if numbers else array


def _tensor_to_numpy(X: Tensor) -> Array:
    """A dense tensor on any device; types that NumPy lacks become float32."""
    if X.is_nested:
        raise InputTypeError(
            "X is a nested tensor, whose rows may differ in length: give "
            'X.to_padded_tensor(float("nan")), whose NaN are missing values.'
        )
    if type(X).__name__ == "MaskedTensor":
        raise InputTypeError('X is a MaskedTensor: give X.to_tensor(float("nan")).')
    X = X.detach().cpu()
    given = X.is_floating_point() and X.dtype not in (torch.float16, torch.float32, torch.float64)
    found: Array = (X.float() if given else X).numpy()
    return found


def _frame_to_array(frame: Any) -> Array:
    """The columns of a frame side by side, as their common dtype."""
    kinds = {str(kind).lower() for kind in getattr(frame, "dtypes", ())}
    if len(kinds) == 1 and PLAIN.fullmatch(kind := next(iter(kinds))):
        whole = np.asarray(frame)  # much faster where there are many columns
        if whole.dtype.kind in "biu" or (whole.dtype.kind == "f" and kind.startswith("float")):
            return whole
    names = list(frame.column_names if has_any(frame, "column_names") else frame.columns)
    columns = []
    for j, name in enumerate(names):  # by position where there are any: names may occur twice
        column = frame.iloc[:, j] if has_any(frame, "iloc") else frame[name]
        columns.append(to_numbers(column_cells(column), f"Column {name!r}"))
    if not columns:
        return np.empty((len(frame), 0))
    kinds = {column.dtype.kind for column in columns}
    mixed = "b" in kinds and len(kinds) > 1
    dtype = np.dtype(float) if mixed else np.result_type(*{column.dtype for column in columns})
    array = np.empty((len(frame), len(columns)), dtype)
    for j, column in enumerate(columns):
        array[:, j] = column
        if column.dtype.kind in "iu" and dtype.kind == "f":
            _exact(column, array[:, j], f"Column {names[j]!r}")
    return array


def column_cells(column: Any) -> Array:
    """A column of any library; as objects where NumPy's own form would change or lose a value."""
    kind: Any = getattr(column, "type", getattr(column, "dtype", None))
    if str(kind).startswith("dictionary") and hasattr(
        column, "cast"
    ):  # pyarrow gives a gap in it the value beside
        column = column.cast(kind.value_type)
        kind = column.type
    if re.match("struct|u?int128", str(kind).lower()) and hasattr(column, "to_list"):  # of polars
        return np.array(column.to_list(), dtype=object)
    cells: Array = np.asarray(unmasked(column))
    if cells.dtype.kind == "f" and not isinstance(kind, np.dtype | None):
        with np.errstate(invalid="ignore"):
            far = (np.abs(cells) >= EXACT_INTEGERS).any()
        if far and not re.match("(float|double|half)", str(kind).lower()):  # integers with gaps
            exact = next(getattr(column, n) for n in ("to_pylist", "to_list") if hasattr(column, n))
            whole = column.astype(object) if hasattr(column, "astype") else exact()
            cells = np.array(whole, dtype=object)
    return cells


# Python's types of what stands in a column that holds no numbers
MISSING_TYPES = {"NoneType", "NAType", "NaTType"}
DATE_TYPES = {"Timestamp", "datetime", "date", "time", "datetime64", "Period"}
DATE_TYPES |= {"Timedelta", "timedelta", "timedelta64"}


def to_numbers(values: Array, title: str) -> Array:
    """A column as numbers: NaN where an object is missing, text as the number that it writes.

    Raises InputError that begins with ``title`` where it holds anything else.
    """
    if values.dtype.kind in "biuf" and values.ndim == 1:
        return values
    if values.dtype.kind in "OUS" and values.ndim == 1:
        try:
            numbers = values.astype(float)
        except (TypeError, ValueError, OverflowError):
            filled = [np.nan if type(v).__name__ in MISSING_TYPES else v for v in values]
            for value in filled:
                try:
                    float(value)
                except (TypeError, ValueError, OverflowError) as error:
                    raise _no_number(title, value, error) from error
            numbers = np.array(filled, dtype=float)
        for value in values:  # Python reads 1_000, no other reader does
            if isinstance(value, str | bytes) and "_" in str(value):
                raise _no_number(title, value, "")
        return _exact(values, numbers, title)
    raise _no_number(title, values[0] if len(values) else values, values.dtype)


def _exact(values: Array, numbers: Array, title: str) -> Array:
    """The numbers, unless an integer among the values became another."""
    for i in np.flatnonzero(np.abs(numbers) >= EXACT_INTEGERS):
        if np.isfinite(numbers[i]) and is_inexact(values[i]):
            raise InputError(inexact(f"Row {i}, {title[0].lower()}{title[1:]} of X", values[i]))
    return numbers


def _no_number(title: str, value: object, reason: object) -> InputError:
    kind = type(value).__name__
    if isinstance(value, str | bytes):
        text = (value.decode(errors="replace") if isinstance(value, bytes) else value).strip()
        if text.lower() in MISSING:
            return InputError(
                f"{title} of X holds {text!r}, which is no number; put NaN in its place if a value "
                "is missing."
            )
        if found := spellings(text):
            what, written = ", or ".join(found), " or ".join(found.values())
            return InputError(f"{title} of X holds {text!r}, {what}: write {written} as a number.")
        return InputError(
            f"{title} of X holds words ({str(value)!r}), not numbers; encode it first "
            "(sklearn.preprocessing.OneHotEncoder), or drop it."
        )
    if kind in DATE_TYPES:
        return InputTypeError(
            f"{title} of X holds dates or times ({value}), not numbers; convert it first, such as "
            "to the days since one of them, or drop it."
        )
    if isinstance(value, complex):
        return InputError(f"{title} of X holds complex numbers. Complex data not supported.")
    if isinstance(value, np.ndarray | list | tuple):
        return InputTypeError(
            f"{title} of X holds a {kind} in each row, not numbers; give numpy.stack of it, if "
            "all have one length, or drop it."
        )
    if isinstance(value, Mapping | np.void):
        return InputTypeError(
            f"{title} of X holds a {kind} of fields in each row ({value!r:.40}; {reason}); make a "
            "column of each of them, or drop it."
        )
    return InputTypeError(
        f"{title} of X holds {kind} ({value!r:.40}), not real numbers ({reason}); convert or drop "
        "it."
    )


def _checked_table(
    estimator: DataParameters, X: Any, spec: InputSpec | None, least: int
) -> tuple[Array, NDArray[np.object_] | None]:
    numbers = type(X) is np.ndarray and X.dtype.kind in "fiub" and len(X) >= least
    known = spec is not None and spec.feature_names is None and (spec.layout.n_features,)
    if numbers and known == X.shape[1:]:
        return X, None  # scikit-learn's checks would take as long as a small network
    from sklearn.utils.validation import check_array, validate_data

    if has_any(X, "toarray"):
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
    checks = {"ensure_all_finite": False, "ensure_min_samples": least}
    try:
        if not has_any(X, "columns"):
            return validate_data(copy, X, reset=spec is None, **checks), None
        validate_data(copy, X, reset=spec is None, skip_check_array=True)  # names of columns
        array = check_array(_frame_to_array(X), estimator=copy, **checks)
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        more = "; give each column its own name." if "unique column names" in str(error) else ""
        raise kind(" ".join(str(error).split()) + more) from error
    return array, getattr(copy, "feature_names_in_", None)


def _refuse_kinds(array: Given) -> None:
    """Refuse dtypes that are no real numbers."""
    kinds = {"c": "complex numbers: Complex data not supported", "M": "dates", "m": "times"}
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"X holds {kinds.get(array.dtype.kind, 'words')} (dtype {array.dtype}); narrows needs "
            "real numbers: encode or convert them first."
        )


def refuse_not_finite(
    array: Array,
    names: Sequence[object] | NDArray[Any] | None,
    first: int = 0,
    *,
    missing: bool | None = None,
    fitted: bool = False,
) -> None:
    """Refuse NaN and infinity, naming the first place; row numbers count from ``first``.

    With ``missing=True`` NaN marks a missing value; with ``missing=False`` the message names that
    choice, with None the estimator has none. ``fitted``: only a new fit can choose.
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
                f', or {"fit again and " * fitted}let missing="mask" (--missing mask) leave NaN '
                "out."
                if value == "NaN" and missing is not None
                else "."
            )
        )


def is_table(X: object) -> bool:
    """Whether X is a frame, or a sparse matrix."""
    return has_any(X, "columns", "toarray")


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
