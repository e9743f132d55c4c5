"""D for real numbers and for zeros and ones, and the table of all D by name, ``LIKELIHOODS``."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from narrows.exceptions import InputError
from narrows.parts.likelihoods.base import Likelihood, Range
from narrows.parts.likelihoods.discrete import (
    Categorical,
    Logistic,
    Mixed,
    NegativeBinomial,
    Poisson,
)
from narrows.parts.likelihoods.ms_ssim import MSSSIM


class _HalfSquares(torch.autograd.Function):
    """½ Σ r² over the last axis. Most models use it in every step: its gradient is one product,
    where autograd would take three.
    """

    @staticmethod
    def forward(ctx: Any, r: Tensor) -> Tensor:
        ctx.save_for_backward(r)
        squares: Tensor = torch.linalg.vecdot(r, r)
        return squares.mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        r: Tensor = ctx.saved_tensors[0]
        return grads[0][..., None] * r


class MSE(Likelihood):
    """½ (x − x')²: a Gaussian of unit variance in scaled units."""

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        residual = (output - x) if mask is None else (output - x) * mask.sqrt()
        squares: Tensor = _HalfSquares.apply(residual.flatten(2))  # type: ignore[no-untyped-call]
        return squares

    def log_normalizer(self) -> float:
        return 0.5 * math.log(2 * math.pi)


class MAE(Likelihood):
    """|x − x'|: a Laplace density of unit scale in scaled units."""

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return (output - x).abs()

    def log_normalizer(self) -> float:
        return math.log(2.0)


class Huber(Likelihood):
    """½ r² for |r| ≤ δ and δ(|r| − δ/2) beyond (Huber 1964); r = x − x', δ = 1."""

    delta = 1.0

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return F.huber_loss(output, x.expand_as(output), reduction="none", delta=self.delta)

    def log_normalizer(self) -> float:
        # ∫_{|r|≤δ} e^{−r²/2} = √(2π)·erf(δ/√2), and each tail ∫_δ^∞ e^{−δ(r−δ/2)} = e^{−δ²/2}/δ
        d = self.delta
        middle = math.sqrt(2 * math.pi) * math.erf(d / math.sqrt(2))
        return math.log(middle + 2 * math.exp(-(d**2) / 2) / d)


class Bernoulli(Likelihood):
    """−x log p − (1 − x) log(1 − p) on logits: p = sigmoid(g(z)), for x of zeros and ones."""

    real, scaled, discrete = False, False, True

    @classmethod
    def validate(cls, found: Range, support: tuple[int, ...] | None) -> None:
        if not found.binary:
            raise InputError(
                'distance="bernoulli" needs an X of zeros and ones, but X holds other values; '
                'choose distance="mse", or make X binary.'
            )

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        target = x.expand_as(output)
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def within(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


class Gaussian(Likelihood):
    """−log N(x; g(z), σ²) with one learned σ (Rybkin et al. 2021, arXiv:2006.13202).

    The normaliser depends on σ, so it is part of the distance. ``log_scale`` is log σ, in scaled
    units; with σ fixed at 1 this is ``MSE`` plus a constant.
    """

    # below, float32 residuals are rounding errors, and the density would diverge
    min_log_scale = -6.0
    unit: ClassVar[float] = 1.0  # the scale for a standard deviation of 1
    constant: ClassVar[float] = 0.5 * math.log(2 * math.pi)

    def __init__(self, log_scale: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))

    def extra_repr(self) -> str:
        return f"scale={float(self.log_scale.detach().exp()):.4g}"

    def init_scale(self, deviation: float) -> None:
        self.log_scale.data.fill_(math.log(deviation * self.unit))

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        log_scale = self.log_scale.to(output.dtype).clamp(min=self.min_log_scale)
        return self._cost((output - x) * torch.exp(-log_scale)) + log_scale + self.constant

    def _cost(self, r: Tensor) -> Tensor:
        """The cost of residuals in units of the scale, without constants."""
        return 0.5 * r.square()


class Laplace(Gaussian):
    """|x − g(z)| / b + log 2b with one learned b, in scaled units.

    Its tails are heavier than a Gaussian's, so that outliers cost less. With b fixed at 1 it is
    ``MAE`` plus a constant.
    """

    unit, constant = math.sqrt(0.5), math.log(2.0)

    def _cost(self, r: Tensor) -> Tensor:
        return r.abs()


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "logistic": Logistic,
    "categorical": Categorical,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "mixed": Mixed,
    "ms_ssim": MSSSIM,
}
