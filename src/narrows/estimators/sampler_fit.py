"""Fitting what new samples are drawn from to the codes of a trained model, by the one loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from narrows.estimators.setup import Training
from narrows.exceptions import ParameterError
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import SAMPLERS, Sampler, codes_of, make_sampler
from narrows.training.batches import Rows, Scaling, inference_batch
from narrows.training.loop import train
from narrows.training.process_group import align, world
from narrows.training.state import Budget, TrainConfig, TrainState
from narrows.training.streamed_batches import Stream

MOST = 20_000  # rows whose codes a sampler is fitted to
MOST_EPOCHS = 30  # of those that are trained


def fit_sampler(estimator: Any, batches: Iterable[Tensor], seed: int) -> Sampler | None:
    """What the estimator draws from, fitted to codes of scaled rows; None where it needs no fit."""
    name = estimator._sampler_name()
    if name not in SAMPLERS:
        return None
    device, model = estimator._device, estimator.model_
    own, there = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        codes = torch.cat([codes_of(model, x.to(device), there) for x in batches])
        codes = codes[torch.randperm(len(codes), generator=own)[:MOST].to(device)]
        codes = model.q.indices(codes).float() if SAMPLERS[name].whole else codes
        sampler = make_sampler(name, estimator.latent_dim_, model.q, own).to(device)
        codes = sampler.init_from_codes(codes, own)
    if sampler.trained:
        _train(sampler, codes, there, own)
    align(sampler.state_dict().values())  # of several processes all hold the first one's
    return sampler.eval()


def some_rows(training: Training) -> Iterable[Tensor]:
    """Scaled training rows in batches: all, or a random share of very many."""
    rows, batch = training.rows, inference_batch(training.rows.shape)
    if isinstance(rows, Stream):
        sampled: tuple[Tensor, ...] = rows.sample(training.seed).split(batch)
        return sampled
    if len(rows) > MOST:
        rng = torch.Generator().manual_seed(training.seed)
        picked = torch.randperm(len(rows), generator=rng)[:MOST].sort().values
        rows = Rows(rows.data.index_select(0, picked.to(rows.data.device)), rows.scaling)
    return rows.in_order(batch)


def _train(sampler: Sampler, codes: Tensor, rng: torch.Generator, order: torch.Generator) -> None:
    batch = max(32, min(256, len(codes) // 10))
    epochs = max(1, min(MOST_EPOCHS, math.ceil(sampler.training_steps * batch / len(codes))))
    recipe = TrainConfig(4e-3, 0.01, batch, warmup_steps=50, hold_fraction=0.3)
    rows = Rows(codes, Scaling.none().to(codes.device))
    state = TrainState(rng=rng, order=order)
    sampler.train()
    for _ in train(sampler, WeightedObjective(), rows, recipe, Budget(epochs), state, world()):
        pass


def restored_sampler(estimator: Any, tensors: dict[str, Tensor]) -> Sampler | None:
    """The sampler that a file holds, whose tensors are named sampler.NAME.*; None: it has none."""
    state = {n.split(".", 2)[2]: t for n, t in tensors.items() if n.startswith("sampler.")}
    if not state:
        return None
    name = next(n.split(".", 2)[1] for n in tensors if n.startswith("sampler."))
    with torch.device("meta"):
        sampler = make_sampler(name, estimator.latent_dim_, estimator.model_.q, None)
    # copied to where tensors usually lie: how a product rounds depends on that
    sampler.load_state_dict({n: t.clone() for n, t in state.items()}, assign=True)
    return sampler.eval()


def sampler_tensors(sampler: Sampler | None) -> dict[str, Tensor]:
    """The inverse of ``restored_sampler``."""
    if sampler is None:
        return {}
    return {f"sampler.{name_of(sampler)}.{n}": t for n, t in sampler.state_dict().items()}


def name_of(sampler: Sampler | None) -> str:
    """What a fitted sampler is called."""
    return next((name for name, cls in SAMPLERS.items() if type(sampler) is cls), "none")


def check_fitted_sampler(sampler: Sampler | None, asked: str) -> Sampler:
    """The sampler, if it is what is asked for."""
    if sampler is None or name_of(sampler) != asked:
        holds = f"another, {name_of(sampler)!r}" if sampler is not None else "none"
        raise ParameterError(
            f"sampler={asked!r} is fitted to codes at the end of fit, but this model holds {holds} "
            "(one of partial_fit, of a run broken off, or of another parameter); call "
            "fit_sampler(X)."
        )
    return sampler
