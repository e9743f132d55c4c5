"""Models that get the class of each row: labels in training, and in each method.

A row carries the number of its class behind it (see ``parts.model``): in training all rows do,
later each batch that goes through a `PerClassView`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from torch import Generator, Tensor

from narrows.estimators.base import Estimator
from narrows.estimators.fit_setup import FitData, Training, split_indices
from narrows.estimators.fitted_state import CLASSES, EstimatorState
from narrows.estimators.generation import GenerativeMixin
from narrows.estimators.parameters import named_plainly
from narrows.estimators.reconstruction import Codes, framed
from narrows.estimators.validation import Array, Given, column_cells
from narrows.exceptions import InputError, ParameterError
from narrows.parts.model import ClassConditionalModel, with_class
from narrows.training.batches import Rows, Scaling
from narrows.training.process_group import Group

MAX_CLASSES = 1000


class PerClassView(GenerativeMixin):
    """The model for rows, or codes, of the classes y; None: they are unknown (number 0)."""

    _generates = _likely = True

    def __init__(self, estimator: ClassConditional, y: object = None) -> None:
        self._estimator, self.y = estimator, y
        self.state_ = estimator.state_

    def _validate(self, X: object) -> Given:
        rows = self._estimator._validate(X)
        self._number(len(rows))
        return rows

    def _number(self, n: int) -> None:
        """Find the numbers of the classes of n rows or codes."""
        given = (
            np.zeros(n, np.int64) if self.y is None else _numbers(self.y, n, self.state_.classes)
        )
        self._labels = torch.from_numpy(given).to(self._device)

    def _scaled(self, rows: Given, first: int = 0) -> Iterator[Tensor]:
        return self._followed(super()._scaled(rows, first), first)

    def _code_batches(self, Z: Codes) -> Iterator[Tensor]:
        self._number(len(Z))
        return self._followed(super()._code_batches(Z), 0)

    def _followed(self, batches: Iterator[Tensor], first: int) -> Iterator[Tensor]:
        """The batches; while one is worked on, ``_now`` are the classes of its rows."""
        for batch in batches:
            self._now = self._labels[first : first + len(batch)]
            first += len(batch)
            yield batch

    def _encode(self, x: Tensor) -> Tensor:
        return self.state_.model.encode(with_class(x, self._now))

    def _decode(self, z: Tensor) -> Tensor:
        model = self.state_.model
        assert isinstance(model, ClassConditionalModel)
        return model.decode(torch.cat([z, model.one_hot(self._now)], 1))

    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
        return super()._log_mean_weight(with_class(x, self._now), rng, n_samples)


@named_plainly
class ClassConditional(Estimator):
    """An estimator whose ``fit`` takes classes y, and whose methods may name them.

    No dataclass: it adds no field.
    """

    _file_keys: ClassVar = {
        **Estimator._file_keys,
        CLASSES: {"each": {"kind": "class"}, "most": MAX_CLASSES},
    }

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes of y, sorted."""
        classes = self.state_.classes
        assert classes is not None
        return classes

    def fit(self, X: object, y: object = None, *, X_val: object = None) -> Self:
        """Learn f and g from X and its classes y.

        Parameters
        ----------
        X : array of shape (n, \\*shape)
        y : array of shape (n,), optional
            The class of each row: numbers or words. Without it no class is known.
        X_val : not supported: the rows held out must have classes, too

        Raises
        ------
        InputError
            X or y cannot be used.
        """
        if X_val is not None:
            raise ParameterError(
                "X_val has no classes; leave it out and set validation_fraction instead."
            )
        return self._fit(X, None, y)

    # a later part of X might bring classes that the first does not have
    partial_fit = available_if(lambda self: False)(Estimator.partial_fit)
    fit_sampler = available_if(lambda self: False)(Estimator.fit_sampler)

    def _validate_fit(
        self, X: object, X_val: object, y: object, fitted: EstimatorState | None
    ) -> FitData[Given]:
        data = super()._validate_fit(X, X_val, y, fitted)
        n = len(data.rows)
        if fitted is None:
            classes, labels = _classes(n, y)
        else:
            classes = self.classes_
            labels = np.zeros(n, dtype=np.int64) if y is None else _numbers(y, n, classes)
        return replace(data, classes=classes, labels=labels)

    def _setup(
        self, data: FitData[Given], group: Group, *, bounded: bool = True
    ) -> Training[EstimatorState]:
        return self._with_labels(super()._setup(data, group, bounded=bounded), data)

    def _resume(
        self, fitted: EstimatorState, data: FitData[Given], group: Group
    ) -> Training[EstimatorState]:
        return self._with_labels(super()._resume(fitted, data, group), data)

    def _with_labels(
        self, training: Training[EstimatorState], data: FitData[Given]
    ) -> Training[EstimatorState]:
        """The same rows, each with the number of its class behind it."""
        if not isinstance(training.rows, Rows) or not isinstance(training.validation, Rows):
            raise ParameterError(
                "Rows that are read by slices cannot have classes; give in_memory=True."
            )
        labels = torch.from_numpy(data.labels)
        first, second = labels, labels
        if len(training.rows) < len(labels):
            kept, held = split_indices(len(labels), self.validation_fraction, training.start.seed)
            first, second = labels[kept], labels[held]
        rows, validation = _labelled(training.rows, first), _labelled(training.validation, second)
        return replace(training, rows=rows, validation=validation)

    def _errors(self, training: Training[EstimatorState]) -> dict[str, float | None]:
        validation, start = training.validation, training.start
        assert isinstance(validation, Rows)
        plain = validation.data[:, :-1].unflatten(1, start.config.shape)
        return super()._errors(replace(training, validation=Rows(plain, start.scaling)))

    # ------------------------------------------------------------------ methods

    def transform(
        self, X: object, y: object = None, *, out: str | Path | None = None, overwrite: bool = False
    ) -> NDArray[np.float32]:
        """The codes of X, (n, latent_dim); for the classes y where they are given.

        In this method and the others y is an array, a list or a series of n classes that ``fit``
        has seen; ``out`` and ``overwrite`` are those of ``VariationalAutoencoder.transform``.
        """
        return PerClassView(self, y)._codes(X, out, overwrite)

    @framed
    def inverse_transform(
        self, Z: object, y: object = None, *, out: str | Path | None = None, overwrite: bool = False
    ) -> Array:
        """What codes stand for, in the classes y where they are given."""
        return PerClassView(self, y).inverse_transform(Z, out=out, overwrite=overwrite)

    @framed
    def reconstruct(
        self, X: object, y: object = None, *, out: str | Path | None = None, overwrite: bool = False
    ) -> Array:
        """X through the code and back; with the classes y where they are given."""
        return PerClassView(self, y).reconstruct(X, out=out, overwrite=overwrite)

    @framed
    def impute(
        self, X: object, y: object = None, *, out: str | Path | None = None, overwrite: bool = False
    ) -> Array:
        """X with its missing elements filled in; with the classes y where they are given."""
        return PerClassView(self, y).impute(X, out=out, overwrite=overwrite)

    def score(self, X: object, y: object = None) -> float:
        """The pooled R² of the reconstruction; with the classes y where they are given."""
        return PerClassView(self, y).score(X)

    def score_samples(self, X: object, y: object = None) -> NDArray[np.float64]:
        """Minus the mean squared error of each row; with the classes y where they are given."""
        return PerClassView(self, y).score_samples(X)

    def log_likelihood(
        self, X: object, y: object = None, *, n_samples: int = 100, random_state: object = None
    ) -> NDArray[np.float64]:
        """log p(x | y) of each row in nats; log p(x) without y.

        By importance sampling, as ``VariationalAutoencoder.log_likelihood``.
        """
        view = PerClassView(self, y)
        found: NDArray[np.float64] = view.log_likelihood(
            X, n_samples=n_samples, random_state=random_state
        )
        return found

    @framed
    def sample(
        self,
        n: int | None = None,
        *,
        y: ArrayLike | None = None,
        random_state: object = None,
        temperature: float = 1.0,
    ) -> Array:
        """n new samples; of the class y, or of n classes y, where it is given.

        Parameters
        ----------
        n : int, at least 1, optional
            Default: the number of classes in y, or 1.
        y : one class, or n of them, optional
        random_state : None, int or RandomState
        temperature : float
            Below 1 draws nearer to the typical.
        """
        many = len(np.asarray(y)) if y is not None and np.ndim(y) else None
        if many is not None and n not in (None, many):
            raise InputError(
                f"n is {n}, but y names {many} classes: leave n out, or give one class."
            )
        codes = self._sampled_codes((many or 1) if n is None else n, random_state, temperature)
        y = y if y is None or np.ndim(y) else np.repeat(_as_classes(y), len(codes))
        return self.inverse_transform(codes, y)


def _numbers(y: object, n: int, classes: NDArray[Any] | None) -> NDArray[np.int64]:
    """The numbers of n rows' classes y among ``classes``, from 1."""
    assert classes is not None
    y = _as_classes(y)
    if y.shape != (n,):
        raise InputError(f"y has shape {y.shape}; expected ({n},), a class for each row.")
    at = np.searchsorted(classes, y) if len(classes) else np.zeros(n, dtype=np.int64)
    at = np.minimum(at, max(0, len(classes) - 1))
    unknown = y[classes[at] != y].tolist() if len(classes) else y.tolist()
    if unknown:
        raise InputError(
            f"y holds {unknown[0]!r}, a class that the model was not fitted with; it knows "
            f"{', '.join(map(str, classes[:10].tolist())) or 'none'}."
        )
    numbers: NDArray[np.int64] = at + 1
    return numbers


def _as_classes(given: object) -> NDArray[Any]:
    """Classes as an array of numbers or words."""
    y: NDArray[Any] = column_cells(given)
    if y.dtype == object and any(v is None for v in y.flat):
        raise InputError("y holds missing values, not numbers or words alone; drop such rows.")
    if y.dtype == object and len({type(v) for v in y.flat}) == 1:
        y = np.asarray(y.tolist())
    if y.dtype.kind not in "biufU":
        raise InputError(f"y holds classes of type {y.dtype}; give numbers or words, not both.")
    return y


def _classes(n: int, y: object) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes, and the number of each of n rows', from 1; 0 where y is None."""
    if y is None:
        return np.empty(0), np.zeros(n, dtype=np.int64)
    y = _as_classes(y)
    if y.shape != (n,):
        raise InputError(f"y has shape {y.shape}; expected ({n},), a class for each row of X.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise InputError("y holds NaN or infinity; drop such rows, or leave y out.")
    classes, given = np.unique(y, return_inverse=True)
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"y holds {len(classes):,} different values; expected at most {MAX_CLASSES:,} classes."
        )
    return classes, given.astype(np.int64) + 1


def _labelled(rows: Rows, given: Tensor) -> Rows:
    """The rows, flat, each with its label as a last column."""
    data = rows.data.flatten(1)
    small = data.dtype != torch.bool and given.max() < 127
    wide = data.dtype if small else torch.promote_types(data.dtype, torch.int32)
    shape = rows.shape

    def more(t: Tensor, value: float) -> Tensor:
        return torch.cat([t.expand(shape).flatten(), t.new_full((1,), value)])

    scaling = rows.scaling
    own = Scaling(scaling.kind, more(scaling.shift, 0.0), more(scaling.scale, 1.0))
    labels = given.to(data.device, wide)[:, None]
    return Rows(torch.cat([data.to(wide), labels], 1), own)
