"""Running the loop for an estimator: its recipe, its budget, what watches it and how it ends."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from narrows.core import Clock
from narrows.engine.data import inference_batch, n_batches
from narrows.engine.distributed import align, align_buffers, check_shares, own_seed, world
from narrows.engine.training import Budget, Recipe, train
from narrows.engine.watching import Watch, average_score
from narrows.estimators.parameters import Parameters, parse_time
from narrows.estimators.preparing import Training


def recipe_for(params: Parameters, n_rows: int, *, constant: bool = False) -> Recipe:
    """The default recipe with the user's wishes."""
    batch = params.batch_size
    if isinstance(batch, str):
        batch = max(16, min(128, n_rows // 10))
    rate = params.learning_rate
    return Recipe(
        learning_rate=4e-3 if isinstance(rate, str) else float(rate),
        weight_decay=float(params.weight_decay),
        batch_size=int(batch),
        constant=constant,
        warmup_steps=20 if constant else 200,  # calls may be few and small
    )


def run(
    estimator: Any,
    training: Training,
    budget: Budget,
    recipe: Recipe,
    *,
    keep_best: bool = True,
    reason: str = "the budget was used",
) -> Watch:
    """Train within the budget; the model ends as the best one seen (or as the last)."""
    params: Parameters = estimator
    first = world().rank == 0  # who speaks
    n_rows, modules = len(training.rows), [training.model, training.objective]
    check_shares(n_rows, n_batches(n_rows, recipe.batch_size), recipe.batch_size)
    align(t for module in modules for t in module.state_dict().values())
    watch = Watch(
        modules,
        lambda: selection_score(training),
        params.n_iter_no_change if params.early_stopping else None,
        params.verbose and first,
        keep_best,
    )
    training.model.train()
    watch.start()
    try:
        with _private_randomness(estimator, training.seed):
            for record in train(
                training.model, training.objective, training.rows, recipe, budget, training.state
            ):
                if watch.see(record):
                    break
    except KeyboardInterrupt:
        reason = "interrupted"
    watch.finish(reason)
    if first:
        _speak_of(watch)
    return watch


def _private_randomness(estimator: Any, seed: int) -> AbstractContextManager[None]:
    """Our parts draw from a private generator; the user's own (an nn.Dropout) may not."""
    if estimator.choices_.architecture != "own":
        return nullcontext()
    return _forked(own_seed(seed))


@contextmanager
def _forked(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def selection_score(training: Training) -> float:
    """Nats a validation row, with the same draws every time and the weights of the end."""
    model, objective = training.model, training.objective
    rng = torch.Generator(training.state.rng.device).manual_seed(own_seed(training.seed))
    here, n_rows = world(), len(training.validation)

    def score(x: Tensor) -> Tensor:
        trace = model(x, Clock(progress=1.0, n_rows=len(training.rows)), rng)
        objective(model, trace)
        return objective.score(trace)

    rows = training.validation.part((here.rank, here.size))
    align_buffers([model, objective])
    model.eval()  # the user's own layers may behave otherwise while training
    try:
        return average_score(score, rows.in_order(inference_batch(rows.shape)), n_rows)
    finally:
        model.train()


def _speak_of(watch: Watch) -> None:
    from sklearn.exceptions import ConvergenceWarning

    if watch.stop_reason == "interrupted":
        warnings.warn("Training was interrupted; the best model so far is kept.", stacklevel=4)
    elif "no longer a number" in watch.stop_reason:
        warnings.warn(
            f"Training stopped because {watch.stop_reason}; the best model before it (epoch "
            f"{watch.best_epoch}) is kept. Lower learning_rate, or look for extreme rows in X.",
            ConvergenceWarning,
            stacklevel=4,
        )


def time_budget(params: Parameters, started: float | None = None) -> Budget:
    """The budget the user gave."""
    limit = params.max_time
    seconds = parse_time(limit) if isinstance(limit, str) else limit
    return Budget(
        int(params.max_epochs),
        None if seconds is None else float(seconds),
        started or time.monotonic(),
    )
