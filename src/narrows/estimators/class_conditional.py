"""Models that are told a class with each row: how y travels to training, and to each question.

In training a row carries the number of its class behind it (``parts.conditions``); asked later,
the rows of one class are answered together by a ``PerClassView``, a ``ReconstructionMixin``.
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
from narrows.estimators.generation import GenerativeMixin
from narrows.estimators.model_file import Contents
from narrows.estimators.setup import Training
from narrows.estimators.split import split
from narrows.estimators.validation import Array
from narrows.exceptions import InputError, ParameterError
from narrows.parts.model import with_class
from narrows.training.batches import Rows, Scaling

MOST_CLASSES = 1000
KEPT = frozenset({"classes_"})  # in a file, beside what every model keeps


class PerClassView(GenerativeMixin):
    """The model, asked about rows or codes of one class (0: of a class that is not told)."""

    _generates = _likely = True

    def __init__(self, estimator: Any, given: int) -> None:
        self.estimator, self.given = estimator, given
        self.layout_, self.scaling_ = estimator.layout_, estimator.scaling_
        self.model_, self.choices_ = estimator.model_, estimator.choices_

    def _check_fitted(self) -> None:
        """Its estimator was asked already."""

    def _admit(self, X: Any) -> Any:
        return self.estimator._admit(X)

    def _n_codes(self) -> int:
        return int(self.estimator._n_codes())

    def _told(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.given, dtype=torch.long, device=x.device)

    def _encode(self, x: Tensor) -> Tensor:
        return self.model_.encode(with_class(x, self._told(x)))

    def _decode(self, z: Tensor) -> Tensor:
        model: Any = self.model_
        return self.model_.decode(torch.cat([z, model.one_hot(self._told(z))], 1))

    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
        return super()._log_mean_weight(with_class(x, self._told(x)), rng, n_samples)


class ClassConditional(Estimator):
    """An estimator whose ``fit`` takes classes y, and whose questions may name them.

    No dataclass: what it declares are no fields.
    """

    _in_file: ClassVar = Estimator._in_file | KEPT
    told_classes: ClassVar[bool] = True  # what sets it apart from models that ignore y
    classes_: NDArray[Any]
    _y: Any
    _given: NDArray[np.int64]

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Learn f and g from X and its classes y.

        Parameters
        ----------
        X : array of shape (n, \\*shape)
        y : array of shape (n,), optional
            The class of each row: numbers or words. Without it no class is told.
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
        before = dict(vars(self))
        self._y = y
        try:
            return self._fit(X, None)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        finally:
            for name in ("_y", "_given"):
                self.__dict__.pop(name, None)

    def _take(self, X: Any, *, reset: bool) -> Any:
        rows = super()._take(X, reset=reset)
        if reset:
            self.classes_, self._given = _classes(len(rows), self._y)
        elif self._y is None:
            self._given = np.zeros(len(rows), dtype=np.int64)
        else:
            self._given = self._numbers(self._y, len(rows))
        return rows

    # a later part of X might bring classes that the first has not
    partial_fit = available_if(lambda self: False)(Estimator.partial_fit)
    fit_sampler = available_if(lambda self: False)(Estimator.fit_sampler)

    def _prepare(self, rows: Any, held: Any) -> Training:
        return self._tell(super()._prepare(rows, held))

    def _resume(self, rows: Any, held: Any) -> Training:
        return self._tell(super()._resume(rows, held))

    def _tell(self, training: Training) -> Training:
        """The same rows, each with the number of its class behind it."""
        if not isinstance(training.rows, Rows) or not isinstance(training.validation, Rows):
            raise ParameterError(
                "Rows that are read by slices cannot be told classes; give in_memory=True."
            )
        given = torch.from_numpy(self._given)
        first, second = given, given
        if len(training.rows) < len(given):
            kept, held = split(len(given), self.validation_fraction, training.seed)
            first, second = given[kept], given[held]
        rows, validation = _beside(training.rows, first), _beside(training.validation, second)
        return replace(training, rows=rows, validation=validation)

    def _measure(self, training: Training) -> dict[str, float | None]:
        shape = self.choices_.shape
        validation = training.validation
        assert isinstance(validation, Rows)
        plain = Rows(validation.data[:, :-1].unflatten(1, shape), self.scaling_)
        return super()._measure(replace(training, validation=plain))

    # ------------------------------------------------------------------ questions

    def _encode(self, x: Tensor) -> Tensor:
        return PerClassView(self, 0)._encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        return PerClassView(self, 0)._decode(z)

    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
        untold = PerClassView(self, 0)
        return GenerativeMixin._log_mean_weight(
            self, with_class(x, untold._told(x)), rng, n_samples
        )

    def transform(self, X: Any, y: Any = None, **more: Any) -> Any:
        """The codes of X, (n, latent_dim); of rows whose classes y are told where y is given."""
        if y is None:
            return super().transform(X, **more)
        return self._by_class(y, len(X), lambda face, part: face.transform(X[part]))

    def inverse_transform(self, Z: Any, y: Any = None, **more: Any) -> Array:
        """What codes stand for, in the classes y where they are given."""
        if y is None:
            return super().inverse_transform(Z, **more)
        return self._by_class(y, len(Z), lambda face, part: face.inverse_transform(Z[part]))

    def reconstruct(self, X: Any, y: Any = None, **more: Any) -> Array:
        """X through the code and back; told the classes y where they are given."""
        if y is None:
            return super().reconstruct(X, **more)
        return self._by_class(y, len(X), lambda face, part: face.reconstruct(X[part]))

    def log_likelihood(
        self, X: Any, y: Any = None, *, n_samples: int = 100, random_state: Any = None
    ) -> NDArray[np.float64]:
        """log p(x | y) of each row in nats; log p(x) where no class is told.

        By importance sampling, as ``VariationalAutoencoder.log_likelihood``.
        """
        more = {"n_samples": n_samples, "random_state": random_state}
        if y is None:
            found: NDArray[np.float64] = super().log_likelihood(X, **more)
            return found
        return self._by_class(y, len(X), lambda face, part: face.log_likelihood(X[part], **more))

    def sample(
        self, n: int = 1, *, y: Any = None, random_state: Any = None, temperature: float = 1.0
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
        self, y: Any, n: int, answer: Callable[[PerClassView, NDArray[np.intp]], Any]
    ) -> NDArray[Any]:
        """The answers for all rows, those of each class together."""
        check_is_fitted(self, "model_")
        given = self._numbers(y, n)
        out: NDArray[Any] | None = None
        for number in np.unique(given):
            part = np.flatnonzero(given == number)
            found = np.asarray(answer(PerClassView(self, int(number)), part))
            out = np.empty((n, *found.shape[1:]), found.dtype) if out is None else out
            out[part] = found
        assert out is not None
        return out

    def _numbers(self, y: Any, n: int) -> NDArray[np.int64]:
        """The numbers of the classes y, from 1."""
        y, classes = _named(y), self.classes_
        if y.shape != (n,):
            raise InputError(f"y has shape {y.shape}; expected ({n},), a class for each row.")
        at = np.searchsorted(classes, y) if len(classes) else np.zeros(n, dtype=np.int64)
        at = np.minimum(at, max(0, len(classes) - 1))
        strange = y[classes[at] != y].tolist() if len(classes) else y.tolist()
        if strange:
            raise InputError(
                f"y holds {strange[0]!r}, a class that the model was not fitted with; it knows "
                f"{', '.join(map(str, classes[:10].tolist())) or 'none'}."
            )
        numbers: NDArray[np.int64] = at + 1
        return numbers

    # ------------------------------------------------------------------ files

    def _contents(self) -> Contents:
        tensors, fitted = super()._contents()
        return tensors, {**fitted, "classes_": self.classes_.tolist()}

    def _restore(self, path: Any, tensors: Any, header: Any, own: Any) -> None:
        self.classes_ = np.asarray(header["fitted"]["classes_"])
        super()._restore(path, tensors, header, own)

    def _n_classes(self) -> int:
        return len(self.classes_)


def _named(given: Any) -> NDArray[Any]:
    """Classes as an array of numbers or words."""
    y: NDArray[Any] = np.asarray(given)
    if y.dtype == object and len({type(v) for v in y.flat}) == 1:
        y = np.asarray(y.tolist())
    if y.dtype.kind not in "biufU":
        raise InputError(f"y holds classes of type {y.dtype}; give numbers or words, not both.")
    return y


def _classes(n: int, y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes, and the number of each of n rows', from 1; 0 where y is None."""
    if y is None:
        return np.empty(0), np.zeros(n, dtype=np.int64)
    y = _named(y)
    if y.shape != (n,):
        raise InputError(f"y has shape {y.shape}; expected ({n},), a class for each row of X.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise InputError("y holds NaN or infinity; drop such rows, or leave y out.")
    classes, given = np.unique(y, return_inverse=True)
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"y holds {len(classes):,} different values; expected at most {MOST_CLASSES:,} classes."
        )
    return classes, given.astype(np.int64) + 1


def _beside(rows: Rows, given: Tensor) -> Rows:
    data = rows.data.flatten(1)
    wide = data.dtype if given.max() < 127 else torch.promote_types(data.dtype, torch.int32)
    shape = rows.shape

    def more(t: Tensor, value: float) -> Tensor:
        return torch.cat([t.expand(shape).flatten(), t.new_full((1,), value)])

    scaling = rows.scaling
    own = Scaling(scaling.kind, more(scaling.shift, 0.0), more(scaling.scale, 1.0))
    told = given.to(data.device, wide)[:, None]
    return Rows(torch.cat([data.to(wide), told], 1), own)
