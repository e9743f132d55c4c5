"""The contract of a prior p over codes, and the standard normal.

Distributions that are fitted to the codes after training are in ``samplers``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor

from narrows._types import Sizes
from narrows.exceptions import ParameterError
from narrows.parts import Composition, Part
from narrows.parts.latents.base import normal_log_prob


class Prior(Part):
    """p(z). A subclass gives ``log_prob`` and ``sample``.

    Attributes
    ----------
    space : str
        The set of its codes, one of ``latents.base.SPACES``; it must be that of the latent.
    closed : bool
        Whether a latent's closed form ``Node.kl`` is the divergence from this prior.
    needs : frozenset of str
        What it needs of the latent: "gaussian" (a ``DiagonalGaussian``).
    """

    space: ClassVar[str] = "real"
    closed: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.latent_dim = sizes.latent_dim

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        """log p(z): (..., latent_dim) → (...); some priors read f and q of the model."""
        raise NotImplementedError

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        """n codes, (n, latent_dim).

        ``temperature`` multiplies the standard deviation of the noise: 1 is the prior itself.
        """
        raise NotImplementedError


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    closed = True

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        return normal_log_prob(z, 0.0, 0.0)

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        shape = (n, self.latent_dim)
        eps = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return temperature * eps


def validate_temperature(temperature: float, what: str) -> None:
    """Raise ParameterError unless it is 1: a uniform prior has no spread to scale."""
    if temperature != 1.0:
        raise ParameterError(
            f"temperature={temperature!r} has no effect on a uniform prior over {what}: all codes "
            "are equally likely; leave temperature=1."
        )
