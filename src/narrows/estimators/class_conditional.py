"""Models that get the class of each row: labels in training, and in each method.

In training a row carries the number of its class behind it (see
``parts.model``); later the rows of one class go through a `PerClassView`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from narrows.estimators.base import Estimator
from narrows.estimators.fit_setup import FitData, Training, split_indices
from narrows.estimators.fitted_state import CLASSES, EstimatorState
from narrows.estimators.generation import GenerativeMixin
from narrows.estimators.parameters import named_plainly
from narrows.estimators.reconstruction import framed
from narrows.estimators.validation import Array, Given
from narrows.exceptions import InputError, ParameterError
from narrows.parts.model import ClassConditionalModel, with_class
from narrows.training.batches import Rows, Scaling
from narrows.training.process_group import Group

MAX_CLASSES = 1000


class PerClassView(GenerativeMixin):
    """The model for rows or codes of one class (number 0: the class is unknown)."""

    _generates = _likely = True

    def __init__(self, estimator: ClassConditional, label: int) -> None:
        self._estimator, self.label = estimator, label
        self.state_ = estimator.state_

    def _check_fitted(self) -> None:
        """The estimator has checked it."""

    def _validate(self, X: object) -> Given:
        return self._estimator._validate(X)

    def _labels(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.label, dtype=torch.long, device=x.device)

    def _encode(self, x: Tensor) -> Tensor:
        return self.state_.model.encode(with_class(x, self._labels(x)))

    def _decode(self, z: Tensor) -> Tensor:
        model = self.state_.model
        assert isinstance(model, ClassConditionalModel)
        return model.decode(torch.cat([z, model.one_hot(self._labels(z))], 1))

    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
        return super()._log_mean_weight(with_class(x, self._labels(x)), rng, n_samples)


@named_plainly
class ClassConditional(Estimator):
    """An estimator whose ``fit`` takes classes y, and whose methods may name them.

    No dataclass: it adds no field.
    """

    _file_keys: ClassVar = Estimator._file_keys | {CLASSES}

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

    def transform(self, X: Any, y: object = None, **more: Any) -> Any:
        """The codes of X, (n, latent_dim); for the classes y where they are given."""
        if y is None:
            return super().transform(X, **more)
        return self._by_class(y, len(X), lambda view, part: view.transform(X[part]))

    @framed
    def inverse_transform(self, Z: Any, y: object = None, **more: Any) -> Array:
        """What codes stand for, in the classes y where they are given."""
        if y is None:
            return super().inverse_transform(Z, **more)
        return self._by_class(y, len(Z), lambda view, part: view.inverse_transform(Z[part]))

    @framed
    def reconstruct(self, X: Any, y: object = None, **more: Any) -> Array:
        """X through the code and back; with the classes y where they are given."""
        if y is None:
            return super().reconstruct(X, **more)
        return self._by_class(y, len(X), lambda view, part: view.reconstruct(X[part]))

    def log_likelihood(
        self, X: Any, y: object = None, *, n_samples: int = 100, random_state: object = None
    ) -> NDArray[np.float64]:
        """log p(x | y) of each row in nats; log p(x) without y.

        By importance sampling, as ``VariationalAutoencoder.log_likelihood``.
        """
        more = {"n_samples": n_samples, "random_state": random_state}
        if y is None:
            found: NDArray[np.float64] = super().log_likelihood(X, **more)
            return found
        return self._by_class(y, len(X), lambda view, part: view.log_likelihood(X[part], **more))

    @framed
    def sample(
        self, n: int = 1, *, y: Any = None, random_state: object = None, temperature: float = 1.0
    ) -> Array:
        """n new samples; of the class y, or of n classes y, where it is given.

        Parameters
        ----------
        n : int, at least 1
        y : one class, or n of them, optional
        random_state : None, int or RandomState
        temperature : float
            Below 1 draws nearer to the typical.
        """
        if y is None:
            drawn: Array = super().sample(n, random_state=random_state, temperature=temperature)
            return drawn
        each = np.broadcast_to(np.asarray(y), (n,)) if np.ndim(y) == 0 else np.asarray(y)
        if each.shape != (n,):
            raise InputError(f"y has shape {each.shape}, but n is {n}; give one class, or n.")
        return self.inverse_transform(self._sampled_codes(n, random_state, temperature), each)

    def _by_class(
        self, y: object, n: int, answer: Callable[[PerClassView, NDArray[np.intp]], Any]
    ) -> NDArray[Any]:
        """The answers for all rows, those of each class together."""
        check_is_fitted(self, "state_")
        given = _numbers(y, n, self.classes_)
        out: NDArray[Any] | None = None
        for number in np.unique(given):
            part = np.flatnonzero(given == number)
            found = np.asarray(answer(PerClassView(self, int(number)), part))
            out = np.empty((n, *found.shape[1:]), found.dtype) if out is None else out
            out[part] = found
        assert out is not None
        return out


def _numbers(y: object, n: int, classes: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers of n rows' classes y among ``classes``, from 1."""
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
    y: NDArray[Any] = np.asarray(given)
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
    wide = data.dtype if given.max() < 127 else torch.promote_types(data.dtype, torch.int32)
    shape = rows.shape

    def more(t: Tensor, value: float) -> Tensor:
        return torch.cat([t.expand(shape).flatten(), t.new_full((1,), value)])

    scaling = rows.scaling
    own = Scaling(scaling.kind, more(scaling.shift, 0.0), more(scaling.scale, 1.0))
    labels = given.to(data.device, wide)[:, None]
    return Rows(torch.cat([data.to(wide), labels], 1), own)
