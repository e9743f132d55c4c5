"""The door: what X may be, and how its axes become the networks' and back again.

Bad input is found here, before any work, and answered with one sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.core import InputError, InputTypeError

Array = NDArray[Any]
RANKS = {"CL": 3, "HW": 3, "CHW": 4, "HWC": 4}
CHUNK = 2**22  # elements checked together, so that checking needs little memory


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

    def inward(self, X: Array) -> Array:
        """The user's rows in the networks' shape, still in their own dtype."""
        X = X.reshape(len(X), *self.user_shape)
        if self.axes == "HWC":
            X = np.moveaxis(X, -1, 1)
        return np.ascontiguousarray(X).reshape(len(X), *self.shape)

    def outward(self, rows: Array, dtype: str | None = None) -> Array:
        """Rows in the networks' shape as the user's own shape and dtype; integers are rounded."""
        if self.axes == "HWC":
            rows = np.moveaxis(rows, 1, -1)
        shape = (self.n_features,) if self.folded else self.user_shape
        return _cast(rows.reshape(len(rows), *shape), np.dtype(dtype or self.dtype))


def _cast(rows: Array, dtype: np.dtype[Any]) -> Array:
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


def _layout(X: Array, axes: str | None, input_shape: tuple[int, ...] | None) -> Layout:
    shape, folded = X.shape[1:], False
    if input_shape is not None:
        input_shape = tuple(int(s) for s in input_shape)
        if X.ndim == 2 and math.prod(input_shape) != X.shape[1]:
            raise InputError(
                f"input_shape={input_shape} holds {math.prod(input_shape)} numbers, but the rows "
                f"of X have {X.shape[1]}; give the shape of one sample."
            )
        if X.ndim == 2:
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


def admit(estimator: Any, X: Any, *, reset: bool) -> Array:
    """X checked and in the networks' shape; with ``reset`` its layout is learned anew.

    Sets ``input_shape_``, ``n_features_in_`` and ``feature_names_in_`` as scikit-learn does.
    """
    if hasattr(X, "detach"):  # a torch tensor
        X = X.detach().cpu()
        X = (X.float() if str(X.dtype) == "torch.bfloat16" else X).numpy()
    array = X if _is_table(X) else _to_array(X)
    least = 2 if reset else 1
    if not _is_table(array):
        _refuse_kinds(array)
    if getattr(array, "ndim", 2) <= 2:
        array = _checked_table(estimator, X, reset, least)
    elif len(array) < least:
        raise InputError(
            f"X has {len(array)} sample(s) (shape={array.shape}); at least {least} "
            f"{'are' if least > 1 else 'is'} needed."
        )
    _refuse_kinds(array, objects=False)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if 0 in array.shape[1:]:
        raise InputError(f"X has shape {array.shape}: a sample is empty.")
    layout = _known_layout(estimator, array, reset)
    if array.ndim > 2:
        _checked_table(estimator, array.reshape(len(array), -1), reset, least)
    _refuse_not_finite(array, getattr(estimator, "feature_names_in_", None))
    return layout.inward(array.astype(array.dtype.newbyteorder("="), copy=False))


def _is_table(X: Any) -> bool:
    return hasattr(X, "columns") or hasattr(X, "toarray")  # a frame, or a sparse matrix


def _to_array(X: Any) -> Array:
    try:
        return np.asarray(X)
    except ValueError as error:
        raise InputError(
            "X is ragged: its samples have different shapes; make them all the same shape."
        ) from error


def _checked_table(estimator: Any, X: Any, reset: bool, least: int) -> Array:
    from sklearn.utils.validation import validate_data

    if hasattr(X, "toarray"):
        raise InputError(
            "X is sparse, but narrows needs dense data; use X.toarray(), or reduce it first with "
            "sklearn.decomposition.TruncatedSVD."
        )
    try:
        checked: Array = validate_data(
            estimator, X, reset=reset, ensure_all_finite=False, ensure_min_samples=least
        )
    except (ValueError, TypeError) as error:
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        raise kind(_about_words(X) or str(error)) from error
    return checked


def _about_words(frame: Any) -> str | None:
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


def _refuse_kinds(array: Array, *, objects: bool = True) -> None:
    """Objects may turn out to be numbers, where scikit-learn still looks at them."""
    if array.dtype.kind not in ("fiubO" if objects else "fiub"):
        kinds = {"c": "complex numbers: Complex data not supported", "M": "dates", "O": "objects"}
        found = kinds.get(array.dtype.kind, "words" if array.dtype.kind in "USVT" else "no numbers")
        raise InputError(
            f"X holds {found} (dtype {array.dtype}); narrows needs real numbers: encode or convert "
            "them first."
        )


def _known_layout(estimator: Any, array: Array, reset: bool) -> Layout:
    if reset:
        estimator.layout_ = _layout(array, estimator.axes, estimator.input_shape)
        estimator.input_shape_ = estimator.layout_.user_shape
    layout: Layout = estimator.layout_
    given = array.shape[1:]
    flat = (layout.n_features,)
    if given != layout.user_shape and not (layout.folded and given == flat):
        if layout.axes is None and array.ndim == 2:
            return layout  # scikit-learn's own sentence about the number of features
        expected = flat if layout.folded else layout.user_shape
        raise InputError(
            f"Each sample of X has shape {given}, but {type(estimator).__name__} was fitted on "
            f"samples of shape {expected}."
        )
    return layout


def _refuse_not_finite(array: Array, names: Any) -> None:
    if array.dtype.kind != "f":
        return
    step = max(1, CHUNK // max(1, array[0].size))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        finite = np.isfinite(part)
        if finite.all():
            continue
        place = np.argwhere(~finite)[0]
        value = "NaN" if np.isnan(part[tuple(place)]) else "infinity"
        row, where = start + int(place[0]), ", ".join(str(i) for i in place[1:])
        column = f"column {where}" + (f" ({names[place[1]]!r})" if names is not None else "")
        spot = column if array.ndim == 2 else f"index ({where})"
        raise InputError(
            f"Input X contains {value} in row {row}, {spot}; drop such rows or fill them in "
            "(sklearn.impute.SimpleImputer) first."
        )
