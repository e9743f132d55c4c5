"""Running the loop for an estimator: its recipe, its budget, what watches it and how it ends."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from narrows._types import Clock
from narrows.estimators.checkpoint_writer import CheckpointWriter
from narrows.estimators.parameters import RunParameters, parse_time
from narrows.estimators.setup import Training
from narrows.estimators.summary import describe_run
from narrows.parts.networks.linear_path import pace
from narrows.training.batches import inference_batch, n_batches
from narrows.training.checkpoint import load_from_file, load_state_dict, state_dict
from narrows.training.listeners import Listeners
from narrows.training.loop import train
from narrows.training.monitor import Interrupt, Monitor, average_score, catch_interrupts
from narrows.training.process_group import (
    agree,
    align,
    align_buffers,
    all_reduce_reason,
    check_shares,
    rank_seed,
    rank_zero_only,
    world,
)
from narrows.training.state import Budget, TrainConfig, TrainState, make_optimizers

SHORT = 10  # epochs up to which half a run goes on at the full rate


def recipe_for(estimator: Any, n_rows: int, *, constant: bool = False) -> TrainConfig:
    """The default recipe with the user's wishes."""
    params: RunParameters = estimator
    batch = params.batch_size
    if isinstance(batch, str):
        batch = estimator._batch(n_rows)
    rate = params.learning_rate
    if isinstance(rate, str):
        # small batches give noisier steps
        rate = estimator._usual_rate * math.sqrt(int(batch) / 128)
    return TrainConfig(
        learning_rate=float(rate),
        weight_decay=float(params.weight_decay),
        batch_size=int(batch),
        # a short run has no time to lose at low rates; a long one over few rows must not overfit
        hold_fraction=0.5 * min(1.0, SHORT / max(1, params.max_epochs)),
        constant=constant,
        precision=estimator.choices_.precision,
        warmup_steps=20 if constant else 200,  # calls may be few and small
    )


@dataclass
class Run:
    """One run of the loop for an estimator: from ``begin`` or a checkpoint to the best model.

    ``given`` are X and X_val as admitted, by which a checkpoint knows its data again.
    """

    estimator: Any
    training: Training
    budget: Budget
    recipe: TrainConfig
    given: tuple[Any, ...] = ()
    keep_best: bool = True
    reason: str = "the budget was used"
    after: int = 0  # epochs that the history holds from calls before
    cut_short: bool = False  # by a signal
    setback: int = 0  # the epoch that ended in no number, if one did

    def __post_init__(self) -> None:
        params, training = self.estimator, self.training
        modules = {"model": training.model, "objective": training.objective}
        first = world().rank == 0  # of several processes the one that speaks
        n_rows, batch = len(training.rows), self.recipe.batch_size
        check_shares(n_rows, n_batches(n_rows, batch), batch)
        align(t for module in modules.values() for t in module.state_dict().values())
        self.listeners = Listeners(params.listeners if first else None)
        self.watch = Monitor(
            modules,
            lambda: selection_score(training),
            params.n_iter_no_change if params.early_stopping else None,
            params.verbose and first,
            self.keep_best and training.objective.settles,
            self._tell,
            training.objective.in_words,
            math.ceil(training.objective.settled * self.budget.max_epochs),
        )
        self.keeper = CheckpointWriter(params, training, self.watch, self.given)

    def _tell(self, entry: dict[str, float]) -> bool:
        """Tell the listeners of an epoch; whether any of them asks to stop."""
        if self.watch.diverged and self.training.state.lr_backoff == 1.0:
            return False  # the epoch will be undone
        asked = self.listeners.on_epoch({**entry, "epoch": entry["epoch"] + self.after})
        return agree(0.0, asked)[1]

    def go(self) -> Monitor:
        """Train within the budget; the model ends as the best one seen (or as the last)."""
        training, watch, stop = self.training, self.watch, Interrupt()
        before = len(training.saved[1]["history"]) if training.saved else self.after
        with self.listeners.following(describe_run(self.estimator, training, before)) as summary:
            with catch_interrupts(stop, on_terminate=self.estimator.checkpoint is not None):
                self._follow(stop)
            stopped = stop.reason if self.cut_short else ""
            watch.finish(stopped or self.reason)
            if not stopped:
                self.keeper.write()
            summary.update(watch.summary())
        with rank_zero_only():
            self._speak(stopped)
        return watch

    def _follow(self, stop: Interrupt) -> None:
        """From the beginning or from a checkpoint to the end."""
        training, watch, state = self.training, self.watch, self.training.state
        state.global_draws = self.estimator.choices_.architecture == "own"
        players = training.objective.players(training.model)
        state.optimizers = state.optimizers or make_optimizers(
            players, self.recipe, pace(training.model, training.objective)
        )
        training.model.train()
        watch.started = time.monotonic()
        with _private_randomness(state, training.seed):
            if training.saved is not None:
                load_from_file(training.saved, state, watch, self.keeper.path)
                self.budget.started -= training.saved[1]["seconds"]
                if world().rank > 0:  # the file holds the first one's
                    state.rng.manual_seed(rank_seed(training.seed + state.step))
            else:
                state.begin(self.budget.max_epochs)
                watch.start()
            try:
                self._train(stop)
            except KeyboardInterrupt:
                if world().size > 1:
                    raise  # the others stand elsewhere: there is nothing to close together
                stop.reason, self.cut_short = stop.reason or "interrupted", True

    def _train(self, stop: Interrupt) -> None:
        """The loop; after a loss that is no number once more from before it, with small steps."""
        training, state = self.training, self.training.state
        good = state_dict(state, self.watch)
        while not self.watch.stop_reason:
            for record in train(
                training.model,
                training.objective,
                training.rows,
                self.recipe,
                self.budget,
                state,
                world(),
            ):
                ended = self.watch.see(record)
                if ended and self.watch.diverged and state.lr_backoff == 1.0:
                    self.setback = len(self.watch.history)
                    load_state_dict(good, state, self.watch)
                    state.lr_backoff = SLOWER
                    break
                self.keeper.consider(record)
                # a signal may come while they agree: it is heard after the next step
                wish = all_reduce_reason(stop.reason)
                if wish:
                    stop.reason, self.cut_short = wish, True
                    self.keeper.write()
                if ended or wish:
                    return
                if record.end_of_epoch:
                    good = state_dict(state, self.watch)
            else:
                return

    def _speak(self, stopped: str) -> None:
        from sklearn.exceptions import ConvergenceWarning

        watch, kept = self.watch, self.keeper.kept
        where = f" {kept} holds the run: go on with resume=True (--resume)." if kept else ""
        if stopped == "terminated":
            warnings.warn(f"Training was ended by SIGTERM.{where}", stacklevel=4)
            raise SystemExit(128 + signal.SIGTERM)
        if stopped:
            warnings.warn(
                f"Training was interrupted; the best model so far is kept.{where}", stacklevel=4
            )
        elif "no longer a number" in watch.stop_reason:
            # where the budget ended with it there was no time left to try again
            again = self.training.state.lr_backoff < 1.0
            tried = f", also with {SLOWER} times the step size" if again else ""
            warnings.warn(
                f"Training stopped because {watch.stop_reason}{tried}; the best model before it "
                f"(epoch {watch.best_epoch}) is kept. Lower learning_rate, or look for extreme "
                "rows in X.",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif self.setback:
            warnings.warn(
                f"The loss was no longer a number in epoch {self.setback}: training went back to "
                f"the epoch before and on with {SLOWER} times the step size. Lower learning_rate.",
                ConvergenceWarning,
                stacklevel=4,
            )


SLOWER = 0.1  # times the step size, for the one new try after a loss that was no number


def _private_randomness(state: TrainState, seed: int) -> AbstractContextManager[None]:
    """Our parts draw from a private generator; the user's own (an nn.Dropout) may not."""
    return _forked(rank_seed(seed)) if state.global_draws else nullcontext()


@contextmanager
def _forked(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def selection_score(training: Training) -> float:
    """Nats a validation row, with the same draws every time and the weights of the end."""
    model, objective = training.model, training.objective
    rng = torch.Generator(training.state.rng.device).manual_seed(rank_seed(training.seed))
    here, n_rows = world(), len(training.validation)

    def score(x: Tensor) -> Tensor:
        trace = model(x, Clock(progress=1.0, n_rows=len(training.rows)), rng)
        objective(model, trace)
        return objective.score(trace)

    rows = training.validation.part((here.rank, here.size))
    align_buffers([model, objective])
    model.eval()  # the user's own layers may behave otherwise while training
    try:
        return average_score(score, rows.in_order(inference_batch(rows.shape)), n_rows, here)
    finally:
        model.train()


def time_budget(params: RunParameters, started: float | None = None) -> Budget:
    """The budget the user gave."""
    limit = params.max_time
    seconds = parse_time(limit) if isinstance(limit, str) else limit
    return Budget(
        int(params.max_epochs),
        None if seconds is None else float(seconds),
        started or time.monotonic(),
    )
