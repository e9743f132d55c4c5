"""What all that learn have in common: a fit by the one loop, its checkpoints, and a file.

A subclass says how data is taken in (``_take``), how training is prepared or gone on with
(``_prepare``, ``_resume``), what is measured at the end (``_measure``) and what its file holds.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from narrows.estimators import model_file as files
from narrows.estimators.checkpoint_writer import find_run, read_run
from narrows.estimators.parameters import RunParameters
from narrows.estimators.run import Run, recipe_for, time_budget
from narrows.estimators.setup import Training, lasting
from narrows.estimators.workers import fit_in_workers, same_checkpoint, wants_workers
from narrows.exceptions import ParameterError
from narrows.training.process_group import all_or_none, joined
from narrows.training.state import TrainState


class Learner(RunParameters):
    """Fit, resume, save and load, for whatever makes a trace. No dataclass: these are no fields."""

    # the names under "fitted" in a file's header, and those among them that are attributes
    _in_file: ClassVar[frozenset[str]]
    _usual_rate: ClassVar[float] = 4e-3  # the learning rate for batches of 128

    model_: Any
    objective_: Any
    choices_: Any
    history_: list[dict[str, float]]
    validation_curve_: list[float]
    loss_curve_: list[float]
    fit_seconds_: float
    rows_: dict[str, int]
    validation_errors_: dict[str, float | None]
    _state: TrainState | None
    _seed: int
    _fitted_with: dict[str, Any]

    def _take(self, X: Any, *, reset: bool) -> Any:
        """X checked; with ``reset`` it decides what later X must be like."""
        raise NotImplementedError

    def _prepare(self, rows: Any, held: Any) -> Training:
        """A model ready to be trained on these rows; sets what is learned from them at once."""
        raise NotImplementedError

    def _resume(self, rows: Any, held: Any) -> Training:
        """Training that goes on from the fitted model."""
        raise NotImplementedError

    def _batch(self, n_rows: int) -> int:
        """Rows in a step, where nobody asked for a number."""
        return max(16, min(128, n_rows // 10))

    def _measure(self, training: Training) -> dict[str, float | None]:
        """The errors on the validation rows that ``info`` shows."""
        raise NotImplementedError

    def _reply(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of a probe; a file keeps it and every reload must give it again."""
        raise NotImplementedError

    def _probe(self) -> Tensor:
        """Some input like that of training, the same every time."""
        raise NotImplementedError

    def _contents(self) -> files.Contents:
        """The tensors and what stands under "fitted" in this model's file."""
        raise NotImplementedError

    def _restore(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
    ) -> None:
        """The inverse of ``_contents``; ``own`` are the user's own networks, or None."""
        raise NotImplementedError

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON."""
        raise NotImplementedError

    # ------------------------------------------------------------------ fitting

    def _fit(self, X: Any, X_val: Any) -> Self:
        started = time.monotonic()
        self.check_parameters()
        if wants_workers(self):
            fit_in_workers(self, X, X_val)
            return self
        with joined(), all_or_nothing(self):
            again = self.warm_start and hasattr(self, "model_")
            with all_or_none():
                rows = self._take(X, reset=not again)
                held = None if X_val is None else self._take(X_val, reset=False)
                kept = find_run(self)
            same_checkpoint(kept)
            if kept is not None:
                training = self._go_on(kept, rows, held)
            else:
                training = (self._resume if again else self._prepare)(rows, held)
            self._hold(training, len(rows))
            recipe = recipe_for(self, len(training.rows))
            watch = Run(self, training, time_budget(self, started), recipe, (rows, held)).go()
            self._adopt(training)
            self._record(watch.history, watch.scores, watch.best_epoch, watch.stop_reason)
            before = training.saved[1]["seconds"] if training.saved else 0.0
            self.fit_seconds_ = before + time.monotonic() - started
        return self

    def _go_on(self, path: Path, rows: Any, held: Any) -> Training:
        """The run of a checkpoint, put back to where it was broken off."""
        found, saved, seed = read_run(self, path, rows, held)
        given = {item.name for item in fields(self)}
        self.__dict__.update({n: v for n, v in vars(found).items() if n not in given})
        self._seed, self._fitted_with = seed, lasting(self)
        training = self._resume(rows, held)
        training.saved = saved
        return training

    def _hold(self, training: Training, n_rows: int) -> None:
        """What a checkpoint needs to know before training ends."""
        self.model_, self.objective_ = training.model, training.objective
        self._seed, self._fitted_with = training.seed, lasting(self)
        self.__dict__.pop("versions_", None)  # those of a file this model once came from
        self.rows_ = {"given": n_rows, "validation": len(training.validation)}
        self.validation_errors_ = dict.fromkeys(self._errors)

    _errors: ClassVar[tuple[str, ...]]  # the names of what ``_measure`` answers

    def _adopt(self, training: Training) -> None:
        self._state = training.state
        self.model_.eval()
        self.validation_errors_ = self._measure(training)

    def _record(
        self, history: list[dict[str, float]], scores: list[float], best: int, reason: str
    ) -> None:
        self.history_, self.validation_curve_ = history, scores
        self.loss_curve_ = [entry["loss"] for entry in history]
        self.best_epoch_, self.stop_reason_ = best, reason
        self.best_loss_ = scores[best]
        self.n_iter_ = len(history)

    @property
    def n_parameters_(self) -> int:
        """Numbers that training moves."""
        return sum(p.numel() for p in self.model_.parameters())

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
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        if "model_" in state:
            state = {**state, "_state": None}
            # their run is over, and a lambda among them would keep the model from being pickled;
            # an estimator yet to be fitted takes them along, as to a process of GridSearchCV
            state["listeners"] = None
            for name in {"model_", "objective_", "sampler_"} & set(state):
                state[name] = copy.deepcopy(state[name])
                if state[name] is not None:
                    state[name].to(CPU)
            if "scaling_" in state:
                state["scaling_"] = state["scaling_"].to(CPU)
        return state


CPU = torch.device("cpu")


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """A fit that fails leaves the estimator as it was."""
    before = dict(vars(estimator))
    modules: list[nn.Module] = [before[n] for n in ("model_", "objective_") if n in before]
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
