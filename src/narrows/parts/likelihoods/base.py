"""What every D has in common: its slots, with the answers most of them give."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


def summed(nats: Tensor, mask: Tensor | None) -> Tensor:
    """Sum (K, B, ...) over the event; only what the mask keeps counts, and is not rescaled."""
    if mask is not None:
        nats = nats * mask
    return nats.flatten(2).sum(-1)


def one_per_channel(shape: tuple[int, ...], value: float = 0.0) -> nn.Parameter:
    """A learned number for each channel of an event, or each column of a table."""
    return nn.Parameter(torch.full((shape[0], *[1] * (len(shape) - 1)), value))


class Likelihood(nn.Module):
    """A D whose answer is the reconstruction itself, and whose scale is one.

    ``real`` says that it is so, for any real x: then a model may start at PCA. ``density`` says
    whether exp(−distance) is one up to ``log_normalizer``; ``discrete`` whether it is a probability
    instead, which a change of units leaves alone; ``scaled`` whether x comes standardised.
    """

    real: ClassVar[bool] = True
    density: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    scaled: ClassVar[bool] = True
    classes: tuple[int, ...] = ()  # columns whose values must come back as exact whole numbers

    @classmethod
    def infer_support(cls, found: Any) -> tuple[int, ...] | None:
        """What D must know of the data, once and for all; None: nothing.

        ``found`` has, for each element of an event, the ends ``each``, the ``mean`` and whether it
        is ``whole``, not scaled, and the ``dtype``. Raises ``InputError`` where such rows have no
        meaning for D.
        """
        cls.validate(found, None)
        return None

    @classmethod
    def validate(cls, found: Any, kinds: tuple[int, ...] | None) -> None:
        """Raise ``InputError`` where rows have no meaning for D, or for one with these kinds."""

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        """Make the parameters and buffers, on the device of the caller."""

    def set_data_units(self, scaling: Any, found: Any) -> None:
        """Hear by what x was scaled, and what is known of it; most need not."""

    def init_scale(self, deviation: float) -> None:
        """Hear how large the error is that training starts with, in scaled units."""

    def filling(self, mean: Tensor) -> Tensor:
        """What stands for an element that nobody observed; ``mean`` is its mean, scaled."""
        return mean

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What f is given of an event of this shape."""
        return shape

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What g must answer for an event of this shape."""
        return shape

    def to_model(self, x: Tensor) -> Tensor:
        """x as f sees it."""
        return x

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        """Nats for each element."""
        raise NotImplementedError

    def log_normalizer(self) -> float:
        """log ∫ exp(−distance) dx for one element; 0 where the distance is minus log p itself."""
        return 0.0

    def log_volume(self, log_scale: Tensor) -> Tensor:
        """log |∂x/∂scaled| of each element, by which a density, no probability, is thinned."""
        return torch.zeros_like(log_scale) if self.discrete else log_scale

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, ...) and (K, B, ...) → (K, B)."""
        return summed(self.elementwise(x, output), mask)

    def log_prob(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z), (K, B): minus the distance and the normaliser of each element."""
        counted = x[0].numel() if mask is None else mask.flatten(1).sum(-1)
        return -self.distance(x, output, mask) - counted * self.log_normalizer()

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction, whatever axes stand before those of an event."""
        return output


class InUnits(Likelihood):
    """A D that knows the data's own units: x · scale + shift."""

    shift: Tensor
    scale: Tensor

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.ones(shape))

    @torch.no_grad()
    def set_data_units(self, scaling: Any, found: Any) -> None:
        self.shift.copy_(scaling.shift.expand(self.shift.shape))
        self.scale.copy_(scaling.scale.expand(self.scale.shape))
