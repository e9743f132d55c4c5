"""Toys whose p(x) is known, for the truth that importance weights average to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from narrows._types import Sizes
from narrows.parts.latents.base import Latent
from narrows.parts.likelihoods.continuous import Gaussian
from narrows.parts.model import Model
from narrows.parts.priors.base import Prior


def toy_model(
    q: Latent, p: Prior, g: nn.Module, *, features: int, latent_dim: int, seed: int = 0,
    scale: float = 0.7,
) -> Model:  # fmt: skip
    """x → a random linear f → q → g → N(x; g(z), scale²): small, and q far from the posterior."""
    rng = torch.Generator().manual_seed(seed)
    f = nn.Linear(features, q.n_numbers(latent_dim))
    with torch.no_grad():
        f.weight.copy_(0.3 * torch.randn(f.weight.shape, generator=rng))
        f.bias.copy_(0.3 * torch.randn(f.bias.shape, generator=rng))
    D = Gaussian(torch.tensor(scale).log().item())
    for part in (q, p):
        part.build(Sizes((features,), latent_dim), rng)
    return Model(f, g, q, D, p=p).eval()


def ratios(model: Any, x: Tensor, log_p: Tensor, K: int = 20_000, seed: int = 1) -> Tensor:
    """exp(log w − log p(x)) for K draws of each row, (K, B), in float64."""
    with torch.no_grad():
        weights = model.log_weights(x, torch.Generator().manual_seed(seed), K).double()
    return (weights - log_p.double()).exp()


def agrees(ratio: Tensor, largest: float = 0.1) -> None:
    """The mean is 1 within four standard errors, which must be small enough to tell."""
    error = ratio.std(0) / len(ratio) ** 0.5
    assert (error < largest).all(), error
    assert ((ratio.mean(0) - 1).abs() < 4 * error + 1e-4).all(), (ratio.mean(0), error)


def linear_gaussian_log_prob(x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
    """log p(x) of x = W z + b + scale·ε with z ~ N(0, I): a Gaussian."""
    covariance = weight @ weight.T + scale**2 * torch.eye(len(bias))
    normal = torch.distributions.MultivariateNormal(bias.double(), covariance.double())
    return normal.log_prob(x.double())
