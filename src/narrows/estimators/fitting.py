"""What ``fit`` does between the door and the fitted attributes."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from narrows.baselines import MOST_COMPONENTS, PCA, fit_pca
from narrows.core import Clock, ParameterError
from narrows.engine.data import Rows, fit_scaling, inference_batch
from narrows.engine.training import Budget, Recipe, TrainingState, train
from narrows.engine.watching import Watch, average_score
from narrows.estimators import choices as choose
from narrows.estimators.building import (
    Parts,
    build_model,
    copy_networks,
    scaled_bounds,
    set_bounds,
    start_at_pca,
    try_networks,
)
from narrows.estimators.door import Array
from narrows.estimators.face import as_tensor
from narrows.estimators.parameters import Parameters, parse_time
from narrows.parts.linear_path import path_fits
from narrows.parts.model import Model
from narrows.parts.objective import WeightedObjective

FEWEST_TO_SPLIT = 20  # with fewer rows, holding some out costs more than it tells


def seed_of(random_state: Any) -> int:
    """A seed from None, an int or a RandomState; numpy's global state is never drawn from."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)


def pick_device(asked: str) -> torch.device:
    """The device asked for, or the best there is."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(
            f"device={asked!r} is not to be had here; use 'auto' or 'cpu'."
        ) from error
    return device


@dataclass
class Training:
    """Everything a fit works with: the rows, the model and where its training stands."""

    model: Model
    objective: WeightedObjective
    state: TrainingState
    rows: Rows
    validation: Rows
    seed: int


def split(n: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation rows; the same ones where rows are few."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = round(n * fraction) if n >= FEWEST_TO_SPLIT else 0
    if fraction > 0 and n >= FEWEST_TO_SPLIT:
        held = max(1, held)
    if held == 0:
        return order.sort().values, order.sort().values
    return order[held:].sort().values, order[:held].sort().values


def prepare(estimator: Any, parts: Parts, rows: Array, X_val: Array | None) -> Training:
    """Decide every "auto", scale, fit PCA, build the model and start it there.

    Sets ``choices_``, ``scaling_`` and ``_pca`` of the estimator.
    """
    params: Parameters = estimator
    seed, device = seed_of(params.random_state), pick_device(params.device)
    training, validation = _divide(rows, X_val, params.validation_fraction, seed, device)
    found = choose.look_at_range([training, validation])
    distance = choose.choose_distance(params.distance, parts.distance, found)
    kind = choose.choose_scaling(params.scaling, training, found, distance)
    scaling = fit_scaling(training, kind)
    own = copy_networks(params.f, params.g)
    train_rows = Rows(training, scaling)
    latent_dim, pca = _choose_width(params, parts, train_rows, own, seed)
    chosen = _choose(estimator, latent_dim, distance, kind, found.shared, own is not None)
    model = build_model(parts, chosen, own, torch.Generator().manual_seed(seed))
    if chosen.bounded:
        set_bounds(model, *scaled_bounds(scaling, found))
    if chosen.linear_path and pca is not None:
        start_at_pca(model, pca)
    estimator.choices_, estimator.scaling_, estimator._pca = chosen, scaling, pca
    objective = WeightedObjective(parts.terms).to(device)
    validation_rows = Rows(validation, scaling)
    state = new_state(seed, device)
    return Training(model.to(device), objective, state, train_rows, validation_rows, seed)


def resume(estimator: Any, rows: Array, X_val: Array | None) -> Training:
    """Training that goes on from the fitted model, with its scaling, on rows like the first."""
    params: Parameters = estimator
    seed, device = seed_of(params.random_state), estimator.scaling_.shift.device
    training, validation = _divide(rows, X_val, params.validation_fraction, seed, device)
    scaling = estimator.scaling_
    state = estimator._state or new_state(seed, device)
    return Training(
        estimator.model_,
        estimator.objective_,
        state,
        Rows(training, scaling),
        Rows(validation, scaling),
        seed,
    )


def new_state(seed: int, device: torch.device) -> TrainingState:
    """Private generators, seeded."""
    return TrainingState(
        rng=torch.Generator(device).manual_seed(seed), order=torch.Generator().manual_seed(seed)
    )


def _divide(
    rows: Array, X_val: Array | None, fraction: float, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    data = as_tensor(rows)
    if X_val is not None:
        return data.to(device), as_tensor(X_val).to(device)
    training, validation = split(len(data), fraction, seed)
    return data[training].to(device), data[validation].to(device)


def _choose_width(
    params: Parameters,
    parts: Parts,
    rows: Rows,
    own: tuple[nn.Module, nn.Module] | None,
    seed: int,
) -> tuple[int, PCA | None]:
    """The width of the code, and PCA at that width (None where it would be too large)."""
    asked = params.latent_dim
    if own is not None:
        asked = try_networks(own, rows.shape, parts.q.n_outputs, asked)  # type: ignore[arg-type]
    choose.check_latent_dim(asked, rows.shape)
    if isinstance(asked, str):
        pca = fit_pca(rows, MOST_COMPONENTS, seed)
        features = rows.data[0].numel()
        width = max(1, min(pca.held(choose.HELD), features // 2))
        return width, pca.cut(width)
    width = int(asked)
    return width, fit_pca(rows, width, seed) if path_fits(rows.shape, width) else None


def _choose(
    estimator: Any, latent_dim: int, distance: str, kind: str, bounded: bool, own: bool
) -> choose.Choices:
    params: Parameters = estimator
    shape: tuple[int, ...] = estimator.layout_.shape
    return choose.Choices(
        shape=shape,
        latent_dim=latent_dim,
        architecture=choose.choose_architecture(params.architecture, shape, own),
        hidden=_widths(params.hidden_layer_sizes),
        channels=_widths(params.channels),
        down=params.down,
        up=params.up,
        activation="gelu" if params.activation == "auto" else params.activation,
        tied=params.tied,
        distance=distance,
        scaling=kind,
        linear_path=choose.choose_path(params.linear_path, distance, shape, latent_dim, own),
        bounded=bounded and distance != "bernoulli" and not own,
    )


def _widths(asked: Any) -> tuple[int, ...] | None:
    return None if isinstance(asked, str) else tuple(int(w) for w in asked)


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
    )


def run(
    estimator: Any,
    training: Training,
    budget: Budget,
    recipe: Recipe,
    *,
    keep_best: bool = True,
) -> Watch:
    """Train within the budget; the model ends as the best one seen (or as the last)."""
    params: Parameters = estimator
    watch = Watch(
        [training.model, training.objective],
        lambda: selection_score(training),
        params.n_iter_no_change if params.early_stopping else None,
        params.verbose,
        keep_best,
    )
    reason = "the budget was used"
    watch.start()
    try:
        for record in train(
            training.model, training.objective, training.rows, recipe, budget, training.state
        ):
            if watch.see(record):
                break
    except KeyboardInterrupt:
        reason = "interrupted"
    watch.finish(reason)
    _speak_of(watch)
    return watch


def selection_score(training: Training) -> float:
    """Nats a validation row, with the same draws every time and the weights of the end."""
    model, objective = training.model, training.objective
    rng = torch.Generator(training.state.rng.device).manual_seed(training.seed)

    def score(x: Tensor) -> Tensor:
        trace = model(x, Clock(progress=1.0, n_rows=len(training.rows)), rng)
        objective(model, trace)
        return objective.score(trace)

    rows = training.validation
    return average_score(score, rows.in_order(inference_batch(rows.shape)), len(rows))


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
