"""The door: what X may be, and how its axes become the networks' and back again.

Bad input is found here, before any work, and answered with one sentence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from narrows.estimators.layout import Array, Layout
from narrows.estimators.lazy_rows import CheckedRows, fits_memory, is_table, refuse_not_finite
from narrows.exceptions import InputError, InputTypeError
from narrows.io.sources import Source, as_source

__all__ = ["Array", "Layout", "validate_X"]

RANKS = {"CL": 3, "HW": 3, "CHW": 4, "HWC": 4}


def _layout(
    X: Array | CheckedRows, axes: str | None, input_shape: tuple[int, ...] | None
) -> Layout:
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


def validate_X(estimator: Any, X: Any, *, reset: bool) -> Array | CheckedRows:
    """X checked and in the networks' shape; with ``reset`` its layout is learned anew.

    Sets ``input_shape_``, ``n_features_in_`` and ``feature_names_in_`` as scikit-learn does. What
    is too large to load (``in_memory``) comes out lazy: its numbers are checked as they are read.
    """
    if hasattr(X, "detach"):  # a torch tensor
        X = X.detach().cpu()
        X = (X.float() if str(X.dtype) == "torch.bfloat16" else X).numpy()
    source = as_source(X)
    if source is not None:
        if not fits_memory(source, estimator.in_memory):
            return _admit_lazy(estimator, source, reset)
        X = np.asarray(source[0 : len(source)])
    array = X if is_table(X) else _to_array(X)
    if not is_table(array):
        _refuse_kinds(array)
    array = _checked_count(estimator, array, reset)
    _refuse_kinds(array, objects=False)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    layout = _known_layout(estimator, array, reset)
    if array.ndim > 2 and reset:  # later, that the shapes agree says it all
        _checked_table(estimator, array.reshape(len(array), -1), reset)
    names = getattr(estimator, "feature_names_in_", None)
    refuse_not_finite(array, names, missing=_missing(estimator))
    return layout.to_model(array.astype(array.dtype.newbyteorder("="), copy=False))


def _missing(estimator: Any) -> bool | None:
    """Whether NaN stands for what nobody observed; None for those that cannot be told so."""
    said = getattr(estimator, "missing", None)
    return None if said is None else said == "mask"


def _admit_lazy(estimator: Any, X: Source, reset: bool) -> CheckedRows:
    """The same checks: what X says of itself, and what its first rows are."""
    rows = CheckedRows(X)
    _refuse_kinds(rows, objects=False)
    # so few rows that scikit-learn may copy them, and enough for it to judge how many there are
    first = _checked_count(estimator, np.asarray(X[0:2]), reset)
    layout = _known_layout(estimator, rows, reset)
    if first.ndim > 2:
        _checked_table(estimator, first.reshape(len(first), -1), reset)
    names = getattr(estimator, "feature_names_in_", None)
    return CheckedRows(X, layout, names, _missing(estimator))


def _checked_count(estimator: Any, array: Any, reset: bool) -> Array:
    """As many rows as are needed, none of them empty; a table as scikit-learn takes it."""
    least = _least(reset)
    if getattr(array, "ndim", 2) <= 2:
        array = _checked_table(estimator, array, reset)
    elif len(array) < least:
        raise InputError(
            f"X has {len(array)} sample(s) (shape={array.shape}); at least {least} "
            f"{'are' if least > 1 else 'is'} needed."
        )
    if 0 in array.shape[1:]:
        raise InputError(f"X has shape {array.shape}: a sample is empty.")
    checked: Array = array
    return checked


def _least(reset: bool) -> int:
    return 2 if reset else 1


def _to_array(X: Any) -> Array:
    try:
        return np.asarray(X)
    except ValueError as error:
        raise InputError(
            "X is ragged: its samples have different shapes; make them all the same shape."
        ) from error


def _checked_table(estimator: Any, X: Any, reset: bool) -> Array:
    from sklearn.utils.validation import validate_data

    if hasattr(X, "toarray"):
        raise InputError(
            "X is sparse, but narrows needs dense data; use X.toarray(), or reduce it first with "
            "sklearn.decomposition.TruncatedSVD."
        )
    try:
        checked: Array = validate_data(
            estimator, X, reset=reset, ensure_all_finite=False, ensure_min_samples=_least(reset)
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


def _refuse_kinds(array: Array | CheckedRows, *, objects: bool = True) -> None:
    """Objects may turn out to be numbers, where scikit-learn still looks at them."""
    if array.dtype.kind not in ("fiubO" if objects else "fiub"):
        kinds = {"c": "complex numbers: Complex data not supported", "M": "dates", "O": "objects"}
        found = kinds.get(array.dtype.kind, "words" if array.dtype.kind in "USVT" else "no numbers")
        raise InputError(
            f"X holds {found} (dtype {array.dtype}); narrows needs real numbers: encode or convert "
            "them first."
        )


def _known_layout(estimator: Any, array: Array | CheckedRows, reset: bool) -> Layout:
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
