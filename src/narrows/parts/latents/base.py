"""q: from f's answer h to the code z, with its density where it has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError

LOG_2PI = math.log(2 * math.pi)


def straight_through(y: Tensor, whole: Tensor) -> Tensor:
    """``whole`` on the way forward, the gradient of ``y`` on the way back."""
    return y + (whole - y).detach()


class Latent(nn.Module):
    """What every q says of itself; a subclass gives ``forward`` and ``mode``.

    ``space`` is where its codes lie: "real", "sphere", "ball", "codes" (a finite set) or "sparse".
    ``density`` says whether log q(z | x) is known; ``start`` how PCA can be its start ("point",
    "gaussian", or None where codes are no plain numbers); ``needs_joint`` whether it is handed
    log p(x, z), as a function of z; ``wide`` whether codes are meant to be wider than x; ``least``
    how many numbers a code must have.
    """

    space: ClassVar[str] = "real"
    density: ClassVar[bool] = False
    start: ClassVar[str | None] = "point"
    needs_joint: ClassVar[bool] = False
    wide: ClassVar[bool] = False
    least: ClassVar[int] = 1

    def n_numbers(self, latent_dim: int) -> int:
        """Numbers f must give for a code of ``latent_dim`` numbers."""
        return latent_dim

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Make the parameters, if there are any; without ``rng`` on the device of the caller."""

    def beside(self, latent_dim: int) -> int:
        """How many numbers PCA gets that stands beside such a code."""
        return latent_dim

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        """K draws for each row of ``h``, (B, n_numbers)."""
        raise NotImplementedError

    def mode(self, h: Tensor) -> Tensor:
        """The noise-free code, (B, latent_dim)."""
        raise NotImplementedError

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The way from codes a to b, (n, latent_dim), at the shares t: (len(t), n, latent_dim)."""
        return torch.lerp(a, b, t[:, None, None])


def normal_log_prob(z: Tensor, mu: Tensor | float, log_variance: Tensor | float) -> Tensor:
    """log N(z; μ, diag σ²), summed over the last axis."""
    variance = log_variance.exp() if isinstance(log_variance, Tensor) else math.exp(log_variance)
    return -0.5 * ((z - mu).square() / variance + log_variance + LOG_2PI).sum(-1)


class Point(Latent):
    """z = h: the plain autoencoder's code, without noise or density."""

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        return Node(z=h.expand(K, *h.shape))

    def mode(self, h: Tensor) -> Tensor:
        """The code itself."""
        return h


class DiagonalGaussian(Latent):
    """z ~ N(μ, diag σ²) with (μ, log σ²) = h, by reparameterisation (Kingma & Welling 2013)."""

    density, start = True, "gaussian"
    # log σ² beyond these is numerically a point or a plane, and exp would overflow
    lowest, highest = -20.0, 20.0

    def n_numbers(self, latent_dim: int) -> int:
        """μ and log σ²."""
        return 2 * latent_dim

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ², each (B, latent_dim)."""
        mu, log_variance = h.float().chunk(2, dim=-1)
        return mu, log_variance.clamp(self.lowest, self.highest)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, log_variance = self.split(h)
        eps = torch.randn((K, *mu.shape), generator=rng, device=mu.device, dtype=mu.dtype)
        z = mu + torch.exp(0.5 * log_variance) * eps
        log_q = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        each = 0.5 * (mu.square() + log_variance.exp() - 1.0 - log_variance)
        extras = {"mu": mu, "log_variance": log_variance, "kl_each": each}
        # KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²): the closed form for a normal prior
        return Node(z=z, log_q=log_q, kl=each.sum(-1), extras=extras)

    def mode(self, h: Tensor) -> Tensor:
        """The mean."""
        return self.split(h)[0]


class FullGaussian(Latent):
    """z ~ N(μ, L Lᵀ), L lower triangular with a positive diagonal: (μ, log diag L, the rest) = h.

    Source: Kingma & Welling, "An introduction to variational autoencoders", section 2.5.1,
    arXiv:1906.02691.
    """

    density, start = True, "gaussian"
    lowest, highest = -20.0, 20.0

    def n_numbers(self, latent_dim: int) -> int:
        """μ, log σ² and what is below the diagonal."""
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def split(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """μ (B, k), log L_ii² (B, k) and L (B, k, k)."""
        h = h.float()
        # k from k + k + k(k − 1)/2 numbers
        k = round((math.sqrt(9 + 8 * h.shape[-1]) - 3) / 2)
        mu, log_variance, rest = h.split([k, k, h.shape[-1] - 2 * k], dim=-1)
        log_variance = log_variance.clamp(self.lowest, self.highest)
        rows, columns = torch.tril_indices(k, k, -1, device=h.device)
        L = torch.diag_embed(torch.exp(0.5 * log_variance))
        L = L.index_put((torch.arange(len(h), device=h.device)[:, None], rows, columns), rest)
        return mu, log_variance, L

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, log_variance, L = self.split(h)
        eps = torch.randn((K, *mu.shape), generator=rng, device=mu.device, dtype=mu.dtype)
        z = mu + (L * eps[..., None, :]).sum(-1)  # no product: autocast would cut it short
        log_q = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        # KL(N(μ, L Lᵀ) ‖ N(0, I)) = ½ (‖μ‖² + ‖L‖² − k) − Σ log L_ii
        kl = 0.5 * (mu.square() - 1.0 - log_variance).sum(-1) + 0.5 * L.square().sum((-2, -1))
        return Node(z=z, log_q=log_q, kl=kl, extras={"mu": mu})

    def mode(self, h: Tensor) -> Tensor:
        """The mean."""
        return self.split(h)[0]


class TopK(Latent):
    """z = h where |h| is among a row's n largest, else 0: the k-sparse autoencoder.

    Source: Makhzani & Frey, "k-sparse autoencoders", arXiv:1312.5663.

    Parameters
    ----------
    n_active : int
        How many numbers of a code are not 0; at most all of them.
    """

    space, start = "sparse", None

    def __init__(self, n_active: int) -> None:
        super().__init__()
        if n_active < 1:
            raise ParameterError(f"n_active must be an int of at least 1. Got {n_active!r}.")
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


Joint = Callable[[Tensor], Tensor]  # z (K, B, latent_dim) ↦ log p(x, z), (K, B)


def at_home(space: str) -> str:
    """The name of a space in a sentence."""
    names = {"real": "real numbers", "sphere": "a sphere", "ball": "the Poincaré ball"}
    return names.get(space, "a finite set of codes" if space == "codes" else "sparse numbers")
