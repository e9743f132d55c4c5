"""A named model's module and objective without a fit: random weights, every layer alive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, nn

from narrows._types import Clock, Trace
from narrows.estimators.build import ResolvedConfig, build_model, parts_of
from narrows.parts.model import Model
from narrows.parts.networks.architectures import initialise
from narrows.parts.objective import WeightedObjective

CHOICES = ResolvedConfig(
    shape=(5,),
    latent_dim=3,
    architecture="dense",
    hidden=(8,),
    channels=None,
    down="stride",
    up="transpose",
    activation="gelu",
    tied=False,
    distance="mse",
    scaling="column",
    linear_path=False,
    bounded=False,
)


def built(estimator: Any, **choices: Any) -> tuple[Model, WeightedObjective]:
    """The model and its objective; critics that would begin at zero begin somewhere."""
    rng = Generator().manual_seed(0)
    parts = parts_of(estimator)
    model = build_model(parts, replace(CHOICES, **choices), None, rng)
    objective = parts.objective()
    for critic in objective._critics().values():
        initialise(critic.critic, rng)
    for net in (model, objective):
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1, generator=rng)
    return model, objective


def traced(model: Model, n: int = 16, seed: int = 1) -> tuple[Trace, Generator]:
    """A trace of n rows, and a generator that will give the draws its regularisers get."""
    shape = model.g(torch.zeros(1, 3)).shape[1:]
    x = torch.randn(n, *shape, generator=Generator().manual_seed(seed))
    rng = Generator().manual_seed(seed + 1)
    trace = model(x, Clock(), rng)
    return trace, Generator().set_state(rng.get_state())
