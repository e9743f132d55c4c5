"""The contract of a latent q: from f's output h to the code z, with its density if it has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Generator, Tensor

from narrows._types import Node
from narrows.parts import Part

LOG_2PI = math.log(2 * math.pi)
Joint = Callable[[Tensor], Tensor]  # z (K, B, latent_dim) ↦ log p(x, z), (K, B)


class Latent(Part):
    """q(z | x). A subclass gives at least ``forward`` and ``mode``.

    Attributes
    ----------
    space : str
        The set of its codes: "real", "sphere", "ball", "codes" (a finite set) or "sparse".
    density : bool
        Whether ``forward`` gives log q(z | x).
    start : "point", "gaussian" or None
        How a model with this latent starts at PCA: h is the code, or h is (μ, log σ²). None: it
        cannot, because codes are not plain real numbers.
    needs_joint : bool
        Whether ``forward`` and ``mode`` take log p(x, z), a function of z, as a last argument.
    overcomplete : bool
        Whether codes are meant to have more numbers than x.
    min_latent_dim : int
        The smallest latent_dim.
    maps_codes : bool
        Whether ``decoder_input`` does anything.
    """

    space: ClassVar[str] = "real"
    density: ClassVar[bool] = False
    start: ClassVar[str | None] = "point"
    needs_joint: ClassVar[bool] = False
    overcomplete: ClassVar[bool] = False
    min_latent_dim: ClassVar[int] = 1
    maps_codes: ClassVar[bool] = False

    def n_numbers(self, latent_dim: int) -> int:
        """How many numbers f must output for a code of ``latent_dim`` numbers."""
        return latent_dim

    def pca_dim(self, latent_dim: int) -> int:
        """How many components a PCA has that is compared with such a code."""
        return latent_dim

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        """K draws of z for each row.

        Parameters
        ----------
        h : Tensor of shape (B, n_numbers)
            f's output.
        K : int
            Draws of each row.
        rng : Generator
            Where all random numbers come from.

        Returns
        -------
        Node
            z of shape (K, B, latent_dim), and what else is known of it.
        """
        raise NotImplementedError

    def mode(self, h: Tensor) -> Tensor:
        """The noise-free code, (B, latent_dim): what ``transform`` returns."""
        raise NotImplementedError

    def decoder_input(self, z: Tensor) -> Tensor:
        """What g gets in place of codes z (n, latent_dim); only used where ``maps_codes``."""
        return z

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The shortest path from codes a to b: (n, latent_dim) twice → (len(t), n, latent_dim).

        ``t`` holds the fractions of the path, from 0 (a) to 1 (b).
        """
        return torch.lerp(a, b, t[:, None, None])


def normal_log_prob(z: Tensor, mu: Tensor | float, log_variance: Tensor | float) -> Tensor:
    """log N(z; μ, diag σ²), summed over the last axis."""
    variance = log_variance.exp() if isinstance(log_variance, Tensor) else math.exp(log_variance)
    return -0.5 * ((z - mu).square() / variance + log_variance + LOG_2PI).sum(-1)


def straight_through(y: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` in the forward pass, with the gradient of ``y`` in the backward pass.

    Source: Bengio, Léonard & Courville, arXiv:1308.3432.
    """
    return y + (rounded - y).detach()


SPACES = {
    "real": "the real numbers",
    "sphere": "the unit sphere",
    "ball": "the Poincaré ball",
    "codes": "a finite set",
    "sparse": "the sparse vectors",
}  # the names of ``Latent.space`` and ``Prior.space`` in a message
