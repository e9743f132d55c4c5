"""q: from f's answer h to the code z, with its density where it has one."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from narrows.core import Node

LOG_2PI = math.log(2 * math.pi)


class Point(nn.Module):
    """z = h: the plain autoencoder's code, without noise or density."""

    n_outputs = 1

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        return Node(z=h.expand(K, *h.shape))

    def mode(self, h: Tensor) -> Tensor:
        """The code itself."""
        return h


class DiagonalGaussian(nn.Module):
    """z ~ N(μ, diag σ²) with (μ, log σ²) = h, by reparameterisation (Kingma & Welling 2013)."""

    n_outputs = 2
    # log σ² beyond these is numerically a point or a plane, and exp would overflow
    lowest, highest = -20.0, 20.0

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², each (B, latent_dim)."""
        mu, log_variance = h.float().chunk(2, dim=-1)
        return mu, log_variance.clamp(self.lowest, self.highest)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, log_variance = self.split(h)
        eps = torch.randn((K, *mu.shape), generator=rng, device=mu.device, dtype=mu.dtype)
        z = mu + torch.exp(0.5 * log_variance) * eps
        log_q = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        # KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²): the closed form for a normal prior
        kl = 0.5 * (mu.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)
        return Node(z=z, log_q=log_q, kl=kl, extras={"mu": mu, "log_variance": log_variance})

    def mode(self, h: Tensor) -> Tensor:
        """The mean."""
        return self.split(h)[0]
