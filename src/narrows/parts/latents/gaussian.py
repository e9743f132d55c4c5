"""Latents over the real numbers: a point, a Gaussian, and a point with few non-zero numbers."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from narrows._types import Node
from narrows.parts.latents.base import LOG_2PI, Latent


class Point(Latent):
    """z = h: the plain autoencoder's code, without noise or density."""

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        return Node(z=h.expand(K, *h.shape))

    def mode(self, h: Tensor) -> Tensor:
        """The code itself."""
        return h


class DiagonalGaussian(Latent):
    """z ~ N(μ, diag σ²) with (μ, log σ²) = h, by reparameterisation.

    Source: Kingma & Welling, "Auto-encoding variational Bayes", arXiv:1312.6114.
    """

    density, start = True, "gaussian"
    # below, a draw is numerically its mean; above, exp would overflow
    min_log_variance, max_log_variance = -20.0, 20.0

    def n_numbers(self, latent_dim: int) -> int:
        """μ and log σ²."""
        return 2 * latent_dim

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², each (B, latent_dim)."""
        mu, log_variance = h.float().chunk(2, dim=-1)
        return mu, log_variance.clamp(self.min_log_variance, self.max_log_variance)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, log_variance = self.split(h)
        eps = torch.randn((K, *mu.shape), generator=rng, device=mu.device, dtype=mu.dtype)
        z = mu + torch.exp(0.5 * log_variance) * eps
        log_q = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        # KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²): the closed form for a normal prior
        each = 0.5 * (mu.square() + log_variance.exp() - 1.0 - log_variance)
        extras = {"mu": mu, "log_variance": log_variance, "kl_each": each}
        return Node(z=z, log_q=log_q, kl=each.sum(-1), extras=extras)

    def mode(self, h: Tensor) -> Tensor:
        """The mean."""
        return self.split(h)[0]


class FullGaussian(Latent):
    """z ~ N(μ, L Lᵀ), L lower triangular: h = (μ, log L_ii², what is below the diagonal).

    Source: Kingma & Welling, "An introduction to variational autoencoders", section 2.5.1,
    arXiv:1906.02691.
    """

    density, start = True, "gaussian"
    min_log_variance = DiagonalGaussian.min_log_variance
    max_log_variance = DiagonalGaussian.max_log_variance

    def n_numbers(self, latent_dim: int) -> int:
        """μ, log L_ii² and the numbers below the diagonal."""
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def split(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ (B, k), log L_ii² (B, k) and L (B, k, k)."""
        h = h.float()
        # h has n = k + k + k(k − 1)/2 numbers, so k = (√(9 + 8n) − 3) / 2
        k = round((math.sqrt(9 + 8 * h.shape[-1]) - 3) / 2)
        mu, log_variance, rest = h.split([k, k, h.shape[-1] - 2 * k], dim=-1)
        log_variance = log_variance.clamp(self.min_log_variance, self.max_log_variance)
        rows, columns = torch.tril_indices(k, k, -1, device=h.device)
        L = torch.diag_embed(torch.exp(0.5 * log_variance))
        L = L.index_put((torch.arange(len(h), device=h.device)[:, None], rows, columns), rest)
        return mu, log_variance, L

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, log_variance, L = self.split(h)
        eps = torch.randn((K, *mu.shape), generator=rng, device=mu.device, dtype=mu.dtype)
        # a sum, not a matrix product, which autocast would compute in bfloat16
        z = mu + (L * eps[..., None, :]).sum(-1)
        log_q = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        # KL(N(μ, L Lᵀ) ‖ N(0, I)) = ½ (‖μ‖² + ‖L‖² − k) − Σ log L_ii
        kl = 0.5 * (mu.square() - 1.0 - log_variance).sum(-1) + 0.5 * L.square().sum((-2, -1))
        return Node(z=z, log_q=log_q, kl=kl, extras={"mu": mu})

    def mode(self, h: Tensor) -> Tensor:
        """The mean."""
        return self.split(h)[0]


class TopK(Latent):
    """z_j = h_j where |h_j| is among a row's n largest, else 0: the k-sparse autoencoder.

    Source: Makhzani & Frey, "k-sparse autoencoders", arXiv:1312.5663.

    Parameters
    ----------
    n_active : int
        How many numbers of a code may differ from 0.
    """

    space, start = "sparse", None

    def __init__(self, n_active: int) -> None:
        super().__init__()
        self.n_active = n_active

    def extra_repr(self) -> str:
        return f"n_active={self.n_active}"

    def mode(self, h: Tensor) -> Tensor:
        """The code with its largest numbers only."""
        kept = h.abs().topk(min(self.n_active, h.shape[-1]), dim=-1).indices
        return torch.zeros_like(h).scatter(-1, kept, h.gather(-1, kept))

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        z = self.mode(h)
        return Node(z=z.expand(K, *z.shape))
