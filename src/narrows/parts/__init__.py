"""The slots of the equation, a folder each: f and g, q, c, D, p, R, and the bound.

This file has what latents, priors and regularisers have in common; each folder's ``base.py`` adds
the contract of its slot.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Generator, Tensor, nn

from narrows._types import Sizes


class Composition(Protocol):
    """What priors and regularisers may read of a model (``parts.model.Model``)."""

    f: Any
    g: Any
    q: Any
    p: Any
    D: Any

    def encode(self, x: Tensor) -> Tensor:
        """The noise-free codes of rows, (B, latent_dim)."""

    def decode(self, z: Tensor) -> Tensor:
        """The reconstructions of codes, in scaled units."""

    def encoder_output(self, x: Tensor) -> Tensor:
        """f's output h for rows, (B, q.n_numbers(latent_dim)), float32."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z | x), each (B, latent_dim); of several levels the highest one's."""


class Part(nn.Module):
    """A latent, a prior or a regulariser.

    Attributes
    ----------
    starts_from_data : bool
        Whether ``init_from_data`` does anything. Rows are only drawn for parts that need them, so
        that other models use no random numbers for it.
    """

    starts_from_data: ClassVar[bool] = False

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Create parameters and buffers, now that the sizes are known; most parts have none.

        Parameters
        ----------
        sizes : Sizes
            The shape of x and the number of latent dimensions.
        rng : Generator or None
            Draws the initial values. None: the values come from a file, so nothing is drawn and
            tensors are created on the caller's device ("meta").
        """

    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Set the initial values from training rows; called once, after the start at PCA.

        Parameters
        ----------
        x : Tensor
            At most 4096 training rows in random order, scaled, missing elements filled in.
        model : Composition
            The whole model.
        rng : Generator
            The model's own random generator.
        """
