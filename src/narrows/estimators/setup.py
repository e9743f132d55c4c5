"""From checked rows to a model ready to be trained: the split, the scaling, every "auto"."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from narrows.estimators import resolved_config as choose
from narrows.estimators.build_model import (
    Parts,
    build_model,
    copy_networks,
    laid_out,
    measure_for,
    scaled_bounds,
    set_bounds,
    start_at_pca,
    try_networks,
    widen_bounds,
)
from narrows.estimators.parameters import Parameters, check_seed
from narrows.estimators.pca import MOST_COMPONENTS, PCA, fit_pca
from narrows.estimators.reconstruction import FAR, mean_error
from narrows.estimators.split import Given, divide
from narrows.exceptions import InputError, ParameterError
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.parts.model import Model
from narrows.parts.networks.linear_path import path_fits
from narrows.parts.objective import WeightedObjective
from narrows.training.batches import Rows, Scaling, fit_scaling
from narrows.training.checkpoint import Saved
from narrows.training.process_group import broadcast, local_device, rank_seed, same_everywhere
from narrows.training.state import TrainState
from narrows.training.streamed_batches import Stream


def seed_of(random_state: Any) -> int:
    """A seed from None, an int or a RandomState; numpy's global state is never drawn from.

    Raises ``ParameterError`` for anything else.
    """
    check_seed(random_state)
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)


def pick_device(asked: str) -> torch.device:
    """The device asked for, or the best there is."""
    if asked == "auto":
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = local_device(torch.device(asked))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ParameterError(
            f"device={asked!r} is not to be had here; use 'auto' or 'cpu'."
        ) from error
    return device


@dataclass
class Training:
    """Everything a fit works with: the rows, the model and where its training stands."""

    model: Model
    objective: WeightedObjective
    state: TrainState
    rows: Rows | Stream
    validation: Rows | Stream
    seed: int
    saved: Saved | None = None  # where its run was broken off


def prepare(
    estimator: Any, parts: Parts, rows: Given, X_val: Given | None, *, more_to_come: bool = False
) -> Training:
    """Decide every "auto", scale, fit PCA, build the model and start it there.

    With ``more_to_come`` (partial_fit) the range of these rows bounds nothing. Sets ``choices_``,
    ``scaling_`` and ``_pca`` of the estimator.
    """
    params: Parameters = estimator
    seed, device = broadcast(seed_of(params.random_state)), pick_device(params.device)
    same_everywhere(rows, X_val)
    divided = divide(rows, X_val, params.validation_fraction, seed, device)
    found = choose.find_range(divided.statistics)
    _refuse_unobserved(divided.statistics[0].low)
    distance = choose.choose_distance(params.distance, params.scaling, parts.distance, found)
    kinds = LIKELIHOODS[distance].infer_support(found)
    kind = choose.choose_scaling(params.scaling, found, distance)
    scaling = fit_scaling(divided.statistics[0], kind)
    _refuse_extremes(scaling, found)
    own = copy_networks(params.f, params.g)
    train_rows, validation_rows = divided.scaled(scaling)
    D = LIKELIHOODS[distance]()
    D.build(train_rows.shape, kinds)
    latent_dim, pca = _choose_width(params, parts, D, train_rows, own, seed)
    bounded = found.shared and not more_to_come
    unexplained = None if pca is None else pca.unexplained
    precision = choose.choose_precision(params.precision, device, unexplained)
    chosen = _choose(estimator, parts, latent_dim, distance, kind, bounded, own is not None)
    chosen = replace(chosen, precision=precision, kinds=kinds)
    rng = torch.Generator().manual_seed(seed)
    model = build_model(parts, chosen, own, rng)
    model.D.set_data_units(scaling, found)
    if parts.missing:
        usual = ((found.mean - scaling.shift) / scaling.scale).float()
        model.usual.copy_(model.D.filling(usual.cpu()))
    if parts.c is not None:
        measure_for(parts.c, scaling, found)
    if chosen.bounded:
        set_bounds(model, *scaled_bounds(scaling, found))
    estimator.choices_, estimator.scaling_, estimator._pca = chosen, scaling, pca
    if chosen.linear_path and pca is not None:
        start_at_pca(model, pca, mean_error(estimator.pca_, validation_rows) or 0.0)
    start_parts(parts, model, train_rows, rng)
    objective = parts.objective().to(device)
    state = new_state(seed, device)
    return Training(laid_out(model.to(device)), objective, state, train_rows, validation_rows, seed)


STARTED_ON = 4096  # rows


@torch.no_grad()
def start_parts(parts: Parts, model: Model, rows: Rows | Stream, rng: torch.Generator) -> None:
    """Show training rows to the parts that begin with some: codebooks, pseudo-inputs."""
    regularizers = (term.regularizer for term in parts.terms)
    every: tuple[Any, ...] = (parts.q, parts.p, *regularizers)
    started = [part for part in every if hasattr(part, "start_with")]
    if started:
        x = rows.sample(int(torch.randint(2**31 - 1, (), generator=rng)))
        x, _ = model._observed(x[torch.randperm(len(x), generator=rng)[:STARTED_ON]])
        for part in started:
            part.init_from_data(x, model, rng)


def resume(estimator: Any, rows: Given, X_val: Given | None) -> Training:
    """Training that goes on from the fitted model, with its scaling, on rows like the first."""
    params: Parameters = estimator
    refuse_changes(params, estimator._fitted_with)
    # the seed of the first fit: rows once trained on must not become validation rows
    seed, device = estimator._seed, estimator.scaling_.shift.device
    same_everywhere(rows, X_val)
    divided = divide(rows, X_val, params.validation_fraction, seed, device)
    scaling = estimator.scaling_
    found = choose.find_range(divided.statistics)
    _refuse_extremes(scaling, found)
    estimator.model_.D.validate(found, estimator.choices_.kinds)
    widen_bounds(estimator.model_, *scaled_bounds(scaling, found))
    state = estimator._state or new_state(seed, device)
    return Training(estimator.model_, estimator.objective_, state, *divided.scaled(scaling), seed)


# What may change between a fit and the next that goes on from it.
FREE = {
    "max_epochs",
    "max_time",
    "in_memory",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "early_stopping",
    "n_iter_no_change",
    "validation_fraction",
    "sampler",
    "warm_start",
    "random_state",
    "device",
    "n_devices",
    "verbose",
    "checkpoint",
    "checkpoint_every",
    "resume",
    "listeners",
    "sides",  # of a denoiser's answers, not of what it learns
}


def lasting(params: Any) -> dict[str, Any]:
    """The parameters that a fitted model is made of."""
    values = {name: value for name, value in vars(params).items() if name in _names(params)}
    return {name: value for name, value in values.items() if name not in FREE}


def _names(params: Any) -> set[str]:
    return {item.name for item in fields(params)}


def refuse_changes(params: Any, before: dict[str, Any]) -> None:
    """Refuse to go on from a model that was fitted with other lasting parameters."""
    now = lasting(params)
    changed = [name for name, value in before.items() if now[name] is not value != now[name]]
    if changed:
        raise ParameterError(
            f"Training would go on from a model that was fitted with other {', '.join(changed)}; "
            "set them back, or fit anew with warm_start=False."
        )


def _refuse_extremes(scaling: Scaling, found: choose.Range) -> None:
    reach = max(float(((end - scaling.shift) / scaling.scale).abs().max()) for end in found.each)
    if not reach < FAR:
        raise InputError(
            f"X holds values of {reach:.0e} once scaled, whose squares are no numbers in float32; "
            'drop such rows, or leave scaling="auto".'
        )


def _refuse_unobserved(low: Tensor) -> None:
    """Of an element that is NaN in every training row nothing can be learned."""
    if bool(low.isinf().any()):
        place = ", ".join(str(int(i)) for i in low.isinf().nonzero()[0])
        raise InputError(
            f"Column ({place}) of X is NaN in every row that is trained on; drop it, or give rows "
            "that have it."
        )


def new_state(seed: int, device: torch.device) -> TrainState:
    """Private generators, seeded."""
    return TrainState(
        rng=torch.Generator(device).manual_seed(rank_seed(seed)),
        order=torch.Generator().manual_seed(seed),
    )


def _choose_width(
    params: Parameters,
    parts: Parts,
    D: Likelihood,
    rows: Rows | Stream,
    own: tuple[nn.Module, nn.Module] | None,
    seed: int,
) -> tuple[int, PCA | None]:
    """The width of the code, and PCA at that width (None where it would be too large)."""
    asked = params.latent_dim
    if own is not None:
        asked = try_networks(own, parts, D, rows.shape, asked)
    if parts.q.wide:
        asked = choose.WIDER * math.prod(rows.shape) if isinstance(asked, str) else asked
    else:
        choose.check_latent_dim(asked, rows.shape)
    if isinstance(asked, str):
        pca = fit_pca(rows, MOST_COMPONENTS, seed)
        width = max(parts.q.least, min(pca.held(choose.HELD), math.prod(rows.shape) // 2))
        return width, pca.cut(width)
    width = int(asked)
    beside = parts.q.beside(width)
    return width, fit_pca(rows, beside, seed) if path_fits(rows.shape, beside) else None


def _obstacle(parts: Parts, own: bool) -> str | None:
    """What keeps a model from starting at PCA, beside D."""
    if own:
        return "your own networks"
    if parts.q.start is None:
        return f"a latent such as {type(parts.q).__name__}"
    if parts.networks is not None or parts.n_given:
        return "networks of a kind of their own"
    return None


def _choose(
    estimator: Any,
    parts: Parts,
    latent_dim: int,
    distance: str,
    kind: str,
    bounded: bool,
    own: bool,
) -> choose.ResolvedConfig:
    params: Parameters = estimator
    shape: tuple[int, ...] = estimator.layout_.shape
    return choose.ResolvedConfig(
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
        linear_path=choose.choose_path(
            params.linear_path, distance, shape, latent_dim, _obstacle(parts, own)
        ),
        bounded=bounded and LIKELIHOODS[distance].real and not own and parts.networks is None,
    )


def _widths(asked: Any) -> tuple[int, ...] | None:
    return None if isinstance(asked, str) else tuple(int(w) for w in asked)
