"""The contract of D, a likelihood or a distance: what a reconstruction costs, in nats.

Costs are summed over an event (one row of a table, one signal, one image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Range:
    """What is known of the values of x, in the user's units, before any scaling."""

    binary: bool  # zeros and ones only
    shared: bool  # most elements share one range, as the pixels of an image do
    low: Tensor  # of each channel (of the whole table), shaped to broadcast against an event
    high: Tensor
    each: tuple[Tensor, Tensor]  # lowest and highest value of each element of an event
    mean: Tensor  # of each element, over the training rows
    whole: Tensor  # whether an element holds whole numbers only
    dtype: torch.dtype

    @property
    def varies(self) -> bool:
        """Whether any element takes two values."""
        return bool((self.each[1] > self.each[0]).any())


def sum_event(nats: Tensor, mask: Tensor | None) -> Tensor:
    """Sum (K, B, ...) over the event; elements where the mask is 0 count nothing, and the sum of
    the others is not rescaled.
    """
    if mask is not None:
        nats = nats * mask
    return nats.flatten(2).sum(-1)


def one_per_channel(shape: tuple[int, ...]) -> nn.Parameter:
    """A learned number, 0 at first, for each channel of an event or each column of a table."""
    return nn.Parameter(torch.zeros((shape[0], *[1] * (len(shape) - 1))))


class Likelihood(nn.Module):
    """D. A subclass gives ``elementwise`` or ``distance``, and what differs from the defaults.

    The defaults are those of a D for real numbers whose reconstruction is g's output itself.

    Attributes
    ----------
    real : bool
        Whether g's output is the reconstruction, for any real x. Only then can a model start at
        PCA.
    density : bool
        Whether exp(−distance − log_normalizer) is a density or a probability of x.
    discrete : bool
        Whether it is a probability: a change of units leaves those alone.
    scaled : bool
        Whether x comes standardised; else in the user's units.
    classes : tuple of int
        Columns of a table whose reconstructions are exact whole numbers.
    """

    real: ClassVar[bool] = True
    density: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    scaled: ClassVar[bool] = True
    classes: tuple[int, ...] = ()

    @classmethod
    def infer_support(cls, found: Range) -> tuple[int, ...] | None:
        """The whole numbers that x can be, in a form of D's own, for ``build``; None: not needed.

        It is stored with the model. Raises ``InputError`` if D cannot model such rows.
        """
        cls.validate(found, None)
        return None

    @classmethod
    def validate(cls, found: Range, support: tuple[int, ...] | None) -> None:
        """Raise ``InputError`` if D, or a D built with this support, cannot model such rows."""

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        """Create parameters and buffers, on the caller's device."""

    def set_data_units(self, shift: Tensor, scale: Tensor, found: Range) -> None:
        """Called once, before training: x in the user's units is scaled x · scale + shift."""

    def init_scale(self, deviation: float) -> None:
        """Called once: the standard deviation of the error that training starts with (scaled)."""

    def filling(self, mean: Tensor) -> Tensor:
        """What f gets for missing elements; ``mean`` is the mean of each element, scaled."""
        return mean

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of f's input, for events of ``shape``."""
        return shape

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of g's output, for events of ``shape``."""
        return shape

    def to_model(self, x: Tensor) -> Tensor:
        """f's input for rows x."""
        return x

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        """Nats of each element: x (B, ...) and g's output (K, B, ...) → (K, B, ...)."""
        raise NotImplementedError

    def log_normalizer(self) -> float:
        """log ∫ exp(−distance) dx of one element; 0 where the distance is −log p itself."""
        return 0.0

    def log_volume(self, log_scale: Tensor) -> Tensor:
        """log |∂x/∂scaled x| of each element, by which a density changes in the user's units."""
        return torch.zeros_like(log_scale) if self.discrete else log_scale

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """The cost of each draw, what training minimises: (B, ...) and (K, B, ...) → (K, B)."""
        return sum_event(self.elementwise(x, output), mask)

    def log_prob(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z), (K, B): minus the distance and the log normaliser of every element."""
        counted = x[0].numel() if mask is None else mask.flatten(1).sum(-1)
        return -self.distance(x, output, mask) - counted * self.log_normalizer()

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction for g's output, with any axes before those of the event."""
        return output

    def within(self, x: Tensor) -> Tensor:
        """Rows kept within the range that ``mean`` has, whatever g's output is."""
        return x


class DataUnitsLikelihood(Likelihood):
    """A D that computes in the user's units: scaled x · scale + shift, both float64."""

    shift: Tensor
    scale: Tensor

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.ones(shape))

    @torch.no_grad()
    def set_data_units(self, shift: Tensor, scale: Tensor, found: Range) -> None:
        self.shift = shift.to(self.shift.device, torch.float64).expand(self.shift.shape).clone()
        self.scale = scale.to(self.scale.device, torch.float64).expand(self.scale.shape).clone()

    def in_data_units(self, x: Tensor) -> Tensor:
        """Scaled x in the user's units, in float64: float32 would lose whole numbers from 2²³."""
        return x.double() * self.scale + self.shift
