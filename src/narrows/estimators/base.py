"""The base every fixed-shape model stands on: scikit-learn's contract, once."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from narrows.baselines import PCA
from narrows.core import ParameterError
from narrows.engine.distributed import all_or_none, joined
from narrows.engine.training import Budget, TrainingState
from narrows.engine.watching import Watch
from narrows.estimators import files
from narrows.estimators.building import Parts
from narrows.estimators.checkpointing import find_run, read_run
from narrows.estimators.choices import Choices
from narrows.estimators.describing import describe
from narrows.estimators.door import admit
from narrows.estimators.face import Face, PCABeside, mean_error
from narrows.estimators.fitting import Run, recipe_for, time_budget
from narrows.estimators.layout import Array
from narrows.estimators.lazy import CheckedRows
from narrows.estimators.parameters import Parameters
from narrows.estimators.preparing import Training, lasting, prepare, resume
from narrows.estimators.together import alone, fit_in_workers, same_checkpoint, wants_workers
from narrows.parts.model import Model
from narrows.parts.objective import WeightedObjective


class Fitted(Face):
    """What a fitted model holds, and how it answers ``Face``. No dataclass: these are no fields."""

    model_: Model
    objective_: WeightedObjective
    choices_: Choices
    history_: list[dict[str, float]]
    validation_curve_: list[float]
    loss_curve_: list[float]
    fit_seconds_: float
    rows_: dict[str, int]
    validation_errors_: dict[str, float | None]
    _pca: PCA | None
    _state: TrainingState | None
    _seed: int
    _fitted_with: dict[str, Any]

    def _admit(self, X: Any) -> Array | CheckedRows:
        check_is_fitted(self, "model_")
        return admit(self, X, reset=False)

    def _encode(self, x: Tensor) -> Tensor:
        return self.model_.encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        return self.model_.decode(z)

    def _n_codes(self) -> int:
        check_is_fitted(self, "model_")
        return self.latent_dim_

    @property
    def pca_(self) -> PCABeside | None:
        """PCA of the same rows at the same width, asked the same questions; None if too wide."""
        return None if self._pca is None else PCABeside(self, self._pca)

    @property
    def encoder_(self) -> nn.Module:
        """f: scaled rows → what q makes a code of."""
        return self.model_.f

    @property
    def decoder_(self) -> nn.Module:
        """g: codes → scaled rows (logits where D is Bernoulli)."""
        return self.model_.g

    @property
    def latent_dim_(self) -> int:
        """Numbers in a code."""
        return self.choices_.latent_dim

    @property
    def _n_features_out(self) -> int:
        return self.choices_.latent_dim

    @property
    def architecture_(self) -> str:
        """``"dense"``, ``"conv"``, or ``"own"``."""
        return self.choices_.architecture

    @property
    def distance_(self) -> str:
        """The name of D."""
        return self.choices_.distance

    @property
    def n_parameters_(self) -> int:
        """Numbers that training moves."""
        return sum(p.numel() for p in self.model_.parameters())


@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(
    Parameters, Fitted, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Fit, transform, invert, score and save; a named model adds fields and ``_parts``."""

    def _parts(self) -> Parts:
        """The parts this model picks."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # codes are float32, whatever X is
        return tags

    def transform(self, X: Any, *, out: str | Path | None = None, overwrite: bool = False) -> Any:
        # repeated here because scikit-learn wraps for set_output only what a class itself defines
        return Face.transform(self, X, out=out, overwrite=overwrite)

    transform.__doc__ = Face.transform.__doc__

    # ------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Learn f and g from X.

        Parameters
        ----------
        X : array of shape (n, \\*shape), at least 2 rows
            A table (n, d), images (n, H, W) or (n, C, H, W), signals (n, C, L) with ``axes="CL"``;
            in any units and any real dtype. What is larger than memory comes as a memory map
            (``numpy.load(path, mmap_mode="r")``) or as anything else with ``shape``, ``dtype``,
            ``len`` and slices of rows, such as a zarr array or an h5py dataset; see ``in_memory``.
        y : ignored
        X_val : array like X, optional
            Rows to validate on, in place of a share of X (of what is larger than memory at most
            256 MiB).

        Raises
        ------
        InputError
            X cannot be used: it is empty, ragged, not finite, not numbers ...
        ParameterError
            A parameter is out of range or does not fit X.
        """
        started = time.monotonic()
        self.check_parameters()
        if wants_workers(self):
            fit_in_workers(self, X, X_val)
            return self
        with joined(), _all_or_nothing(self):
            again = self.warm_start and hasattr(self, "model_")
            with all_or_none():
                rows = admit(self, X, reset=not again)
                held = None if X_val is None else admit(self, X_val, reset=False)
                kept = find_run(self)
            same_checkpoint(kept)
            if kept is not None:
                training = self._go_on(kept, rows, held)
            elif again:
                training = resume(self, rows, held)
            else:
                training = prepare(self, self._parts(), rows, held)
            self._hold(training, len(rows))
            recipe = recipe_for(self, len(training.rows))
            watch = Run(self, training, time_budget(self, started), recipe, (rows, held)).go()
            self._adopt(training)
            self._record(watch.history, watch.scores, watch.best_epoch, watch.stop_reason)
            before = training.saved[1]["seconds"] if training.saved else 0.0
            self.fit_seconds_ = before + time.monotonic() - started
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One pass over X, warmed up once and then at a constant step size.

        The first call also learns the scaling and the PCA start, from its X alone.

        Parameters
        ----------
        X : array of shape (n, \\*shape)
        y : ignored
        """
        started = time.monotonic()
        self.check_parameters()
        alone(self)
        with joined(), _all_or_nothing(self):
            first = not hasattr(self, "model_")
            rows = admit(self, X, reset=first)
            if first:
                training = prepare(self, self._parts(), rows, rows, more_to_come=True)
            else:
                training = resume(self, rows, rows)
            self._hold(training, len(rows))
            recipe = recipe_for(self, len(training.rows), constant=True)
            reason = "partial_fit: one pass"
            after = 0 if first else len(self.history_)
            going = Run(self, training, Budget(1), recipe, (), False, reason, after)
            watch = going.go()
            if not first:
                self._append(watch)
            self._adopt(training)
            self._record(watch.history, watch.scores, watch.best_epoch, watch.stop_reason)
            seconds = 0.0 if first else self.fit_seconds_
            self.fit_seconds_ = seconds + time.monotonic() - started
        return self

    def _append(self, watch: Watch) -> None:
        """Let the history of one more pass go on from that of all before."""
        epochs, seconds = len(self.history_), self.fit_seconds_
        for entry in watch.history:
            entry["epoch"] += epochs
            entry["seconds"] += seconds
        watch.history = [*self.history_, *watch.history]
        kept = watch.best_epoch > 0  # not where the pass ended in no number
        watch.best_epoch = len(self.validation_curve_) if kept else self.best_epoch_
        watch.scores = [*self.validation_curve_, *watch.scores[1:]]

    def _go_on(self, path: Path, rows: Any, held: Any) -> Training:
        """The run of a checkpoint, put back to where it was broken off."""
        found, saved, seed = read_run(self, path, rows, held)
        given = {item.name for item in fields(self)}
        self.__dict__.update({n: v for n, v in vars(found).items() if n not in given})
        self._seed, self._fitted_with = seed, lasting(self)
        training = resume(self, rows, held)
        training.saved = saved
        return training

    def _hold(self, training: Training, n_rows: int) -> None:
        """What a checkpoint needs to know before training ends."""
        self.model_, self.objective_ = training.model, training.objective
        self._seed, self._fitted_with = training.seed, lasting(self)
        self.__dict__.pop("versions_", None)  # those of a file this model once came from
        self.rows_ = {"given": n_rows, "validation": len(training.validation)}
        self.validation_errors_ = {"validation_error": None, "validation_error_pca": None}

    def _adopt(self, training: Training) -> None:
        self._state = training.state
        self.model_.eval()
        self.validation_errors_ = {
            "validation_error": mean_error(self, training.validation),
            "validation_error_pca": mean_error(self.pca_, training.validation),
        }

    def _record(
        self, history: list[dict[str, float]], scores: list[float], best: int, reason: str
    ) -> None:
        self.history_, self.validation_curve_ = history, scores
        self.loss_curve_ = [entry["loss"] for entry in history]
        self.best_epoch_, self.stop_reason_ = best, reason
        self.best_loss_ = scores[best]
        self.n_iter_ = len(history)

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON.

        Examples
        --------
        >>> from narrows import Autoencoder
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(64, 5))
        >>> Autoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X).info()["latent_dim"]
        2
        """
        check_is_fitted(self, "model_")
        return describe(self)

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the whole model to one safetensors file: weights, parameters, scaling, summary.

        Raises
        ------
        FileError
            The file is there already (and not ``overwrite``), or cannot be written.
        """
        check_is_fitted(self, "model_")
        return files.save(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, *, f: Any = None, g: Any = None) -> Self:
        """Read a model of this class back from ``save``'s file.

        ``f`` and ``g`` are your own networks, where the model was fitted with some.
        """
        estimator = files.load(Path(path), f=f, g=g)
        if not isinstance(estimator, cls):
            raise ParameterError(
                f"{path} holds a {type(estimator).__name__}, not a {cls.__name__}; use "
                "narrows.load."
            )
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        # optimisers and generators stay behind, and the rest moves to the CPU: what is pickled
        # on one machine must open on any other
        state: dict[str, Any] = super().__getstate__()
        if "model_" in state:
            state = {**state, "_state": None, "scaling_": state["scaling_"].to(CPU)}
            # their run is over, and a lambda among them would keep the model from being pickled;
            # an estimator yet to be fitted takes them along, as to a process of GridSearchCV
            state["listeners"] = None
            for name in ("model_", "objective_"):
                state[name] = copy.deepcopy(state[name]).to(CPU)
        return state


CPU = torch.device("cpu")


@contextmanager
def _all_or_nothing(estimator: Estimator) -> Iterator[None]:
    """A fit that fails leaves the estimator as it was."""
    before = dict(vars(estimator))
    modules = [before[name] for name in ("model_", "objective_") if name in before]
    weights = [copy.deepcopy(module.state_dict()) for module in modules]
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        for module, kept in zip(modules, weights, strict=True):
            module.load_state_dict(kept)
            module.eval()
            estimator._state = None  # its optimisers have moved on
        raise
