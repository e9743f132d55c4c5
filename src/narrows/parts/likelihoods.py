"""D: what a reconstruction costs, in nats, summed over an event.

Each class gives the distance (what is minimised), the mean (the reconstruction that g's answer
stands for), and the normaliser that makes exp(−distance) a density over x, so that one estimator
of log p(x) serves all of them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _sum(nats: Tensor, mask: Tensor | None) -> Tensor:
    """Sum (K, B, ...) over the event; only what the mask keeps counts, and is not rescaled."""
    if mask is not None:
        nats = nats * mask
    return nats.flatten(2).sum(-1)


class Distance(nn.Module):
    """A D whose answer is the reconstruction itself, and whose scale is one.

    ``real`` says that it is so, for any real x: then a model may start at PCA. ``density`` says
    whether exp(−distance) is one up to ``log_normalizer``; ``scaled`` whether x comes standardised;
    ``looks`` whether D asks how many values an element has (``kinds``; 0: it is a number).
    """

    real: ClassVar[bool] = True
    density: ClassVar[bool] = True
    scaled: ClassVar[bool] = True
    looks: ClassVar[bool] = False

    @classmethod
    def find_kinds(cls, rows: Tensor) -> tuple[int, ...] | None:
        """What a look at some rows, not scaled, tells that D must know; None: nothing.

        Raises ``InputError`` where such rows have no meaning for D.
        """
        return None

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        """Make the parameters, on the device of the caller."""

    def measure(self, scaling: Any) -> None:
        """Hear by what x was scaled; most need not."""

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What f is given of an event of this shape."""
        return shape

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What g must answer for an event of this shape."""
        return shape

    def inward(self, x: Tensor) -> Tensor:
        """x as f sees it."""
        return x

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        """Nats for each element."""
        raise NotImplementedError

    def log_normalizer(self) -> float:
        """log ∫ exp(−distance) dx for one element."""
        raise NotImplementedError

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, ...) and (K, B, ...) → (K, B)."""
        return _sum(self.elementwise(x, output), mask)

    def log_prob(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z), (K, B): minus the distance and the normaliser of each element."""
        counted = x[0].numel() if mask is None else mask.flatten(1).sum(-1)
        return -self.distance(x, output, mask) - counted * self.log_normalizer()

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction."""
        return output


class MSE(Distance):
    """½ (x − x')²: a Gaussian of unit variance in scaled units."""

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        # the hot path: one subtraction and one fused product, no elementwise temporary
        residual = (output - x) if mask is None else (output - x) * mask.sqrt()
        flat = residual.flatten(2)
        squares: Tensor = torch.linalg.vecdot(flat, flat)
        return 0.5 * squares

    def log_normalizer(self) -> float:
        return 0.5 * math.log(2 * math.pi)


class MAE(Distance):
    """|x − x'|: a Laplace density of unit scale in scaled units."""

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return (output - x).abs()

    def log_normalizer(self) -> float:
        return math.log(2.0)


class Huber(Distance):
    """½ r² for |r| ≤ δ and δ(|r| − δ/2) beyond (Huber 1964); r = x − x', δ = 1."""

    delta = 1.0

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return F.huber_loss(output, x.expand_as(output), reduction="none", delta=self.delta)

    def log_normalizer(self) -> float:
        # ∫_{|r|≤δ} e^{−r²/2} = √(2π)·erf(δ/√2), and each tail ∫_δ^∞ e^{−δ(r−δ/2)} = e^{−δ²/2}/δ
        d = self.delta
        middle = math.sqrt(2 * math.pi) * math.erf(d / math.sqrt(2))
        return math.log(middle + 2 * math.exp(-(d**2) / 2) / d)


class Bernoulli(Distance):
    """−x log p − (1 − x) log(1 − p) on logits: p = sigmoid(g(z)), for x of zeros and ones."""

    real, scaled = False, False

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        target = x.expand_as(output)
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")

    def log_normalizer(self) -> float:
        return 0.0  # the two probabilities sum to one already

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)


class Gaussian(Distance):
    """−log N(x; g(z), σ²) with one learned σ (Rybkin et al. 2021, arXiv:2006.13202).

    The normaliser depends on σ and so is part of the distance. ``log_scale`` is log σ, in scaled
    units.
    """

    smallest = -6.0  # log σ: below, float32 residuals are rounding, and the density would run away

    def __init__(self, log_scale: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))

    def extra_repr(self) -> str:
        return f"scale={float(self.log_scale.detach().exp()):.4g}"

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        log_scale = self.log_scale.clamp(min=self.smallest)
        standardised = (output - x) * torch.exp(-log_scale)
        return 0.5 * standardised.square() + log_scale + 0.5 * math.log(2 * math.pi)

    def log_normalizer(self) -> float:
        return 0.0


LIKELIHOODS: dict[str, type[Distance]] = {
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
}
