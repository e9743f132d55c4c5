"""p: the prior over codes, and what samples from it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from narrows.parts.latents import LOG_2PI


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """(..., latent_dim) → (...)."""
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, n: int, latent_dim: int, rng: Generator) -> Tensor:
        """n codes, (n, latent_dim)."""
        return torch.randn((n, latent_dim), generator=rng, device=rng.device, dtype=torch.float32)
