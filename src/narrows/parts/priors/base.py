"""p: the prior over codes, and what samples from it.

What is fitted to the codes after training stands in ``samplers``; both answer the same questions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from narrows._types import Sizes
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import normal_log_prob


class Prior(nn.Module):
    """What every p says of itself.

    ``space`` is where its codes lie (see ``latents.Latent``); ``closed`` whether a latent's ``kl``
    is the divergence from this prior; ``needs`` what it asks of q: "gaussian" (a diagonal one).
    """

    space: ClassVar[str] = "real"
    closed: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Make the parameters, if there are any; without ``rng`` on the device of the caller."""
        self.latent_dim = sizes.latent_dim

    def log_prob(self, z: Tensor, model: Any) -> Tensor:
        """log p(z): (..., latent_dim) → (...); ``model`` has f and q, should they be needed."""
        raise NotImplementedError

    def sample(self, n: int, rng: Generator, temperature: float = 1.0, model: Any = None) -> Tensor:
        """n codes, (n, latent_dim); a lower temperature draws nearer to the typical."""
        raise NotImplementedError


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    closed = True

    def log_prob(self, z: Tensor, model: Any = None) -> Tensor:
        return normal_log_prob(z, 0.0, 0.0)

    def sample(self, n: int, rng: Generator, temperature: float = 1.0, model: Any = None) -> Tensor:
        shape = (n, self.latent_dim)
        eps = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return temperature * eps


def refuse_temperature(temperature: float, prior: nn.Module) -> None:
    """Of what is uniform no draw is more typical than another."""
    if temperature != 1.0:
        raise ParameterError(
            f"temperature={temperature!r} has no meaning for {type(prior).__name__}, under which "
            "all codes are equally likely; leave temperature=1."
        )
