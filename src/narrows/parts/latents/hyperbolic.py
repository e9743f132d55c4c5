"""Codes in the Poincaré ball of curvature −c: wrapped normals, as posterior and as prior.

Points are vectors with √c |z| < 1. A tangent vector v is written in an orthonormal frame, so that
|v| is a hyperbolic length: ``exp_0(v)`` is at distance |v| from the centre. All computations are
in float64, because float32 cannot resolve points near the border; the codes are float32.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import LOG_2PI, normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.priors.base import Prior

# limits of √c |v|: 1e-12 avoids 0 / 0; beyond 15, |x| |y| in ``add`` rounds to 1 for two opposite
# points, and the denominator (1 − |x| |y|)² to 0
MIN_LENGTH, MAX_LENGTH = 1e-12, 15.0
BORDER = 1e-5  # √c |z| stays below 1 by this much
MAX_RADIUS = 10.0  # √(c k), the typical radius of a normal of k numbers that float32 can resolve


def _length(v: Tensor) -> Tensor:
    return v.square().sum(-1, keepdim=True).clamp_min(MIN_LENGTH**2).sqrt()


def exp_0(v: Tensor, c: float) -> Tensor:
    """The point at distance |v| from the centre, towards v: tanh(√c |v| / 2) v / (√c |v|)."""
    s = math.sqrt(c) * _length(v)
    return (s.clamp_max(MAX_LENGTH) / 2).tanh() / s * v


def log_0(z: Tensor, c: float) -> Tensor:
    """The inverse of ``exp_0``, in float64; a point outside the ball counts as the nearest code."""
    z = z.double()
    s = math.sqrt(c) * _length(z)
    return 2 * s.clamp_max(1 - BORDER / 10).atanh() / s * z


def add(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Möbius addition x ⊕ y: ``add(x, exp_0(v))`` is at distance |v| from x."""
    xx, yy = (c * w.square().sum(-1, keepdim=True) for w in (x, y))
    xy = c * (x * y).sum(-1, keepdim=True)
    return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)


def inside(z: Tensor, c: float) -> Tensor:
    """float32 codes, pulled back from the border."""
    return (z * (((1 - BORDER) / math.sqrt(c)) / _length(z)).clamp_max(1.0)).float()


def log_spread(v: Tensor, c: float) -> Tensor:
    """(k − 1) log(s / sinh s), s = √c |v|: minus the log volume factor of exp_0 at v."""
    s = math.sqrt(c) * _length(v).squeeze(-1)
    small = s < 0.01  # there the Taylor series −s²/6 + s⁴/180 is exact in float64
    large = torch.where(small, 1.0, s)
    log_large = math.log(2.0) + large.log() - large - (-torch.expm1(-2 * large)).log()
    square = torch.where(small, s, 0.0).square()
    return (v.shape[-1] - 1) * torch.where(small, square * (square / 180 - 1 / 6), log_large)


class WrappedNormal(DiagonalGaussian):
    """z = μ ⊕ exp_0(v), v ~ N(0, diag σ²), μ = exp_0(m), with (m, log σ²) = h.

    log q(z | x) = log N(v; 0, diag σ²) + (k − 1) log(√c |v| / sinh(√c |v|)), a density with respect
    to the hyperbolic volume. g gets log_0(z), which is not bounded as z is; with it the start at
    PCA is exact for the mean, and nearly so for draws.

    Source: Nagano et al., "A wrapped normal distribution on hyperbolic space for gradient-based
    learning", arXiv:1902.02992; Mathieu et al., "Continuous hierarchical representations with
    Poincaré variational auto-encoders", arXiv:1901.06033.

    Parameters
    ----------
    curvature : float, optional
        c, above 0. None: 1, and 5 / k for codes of more than 5 numbers: a normal of k numbers lies
        about √k from its mean, and where √(c k) is large nearly all draws lie further out than μ,
        so that the reconstruction from μ is poor.
    """

    space, maps_codes = "ball", True
    c = 1.0

    def __init__(self, curvature: float | None = None) -> None:
        super().__init__()
        self.curvature = curvature

    def extra_repr(self) -> str:
        return f"curvature={-self.c:g}"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        k = sizes.latent_dim
        self.c = min(1.0, 5 / k) if self.curvature is None else self.curvature
        if math.sqrt(self.c * k) > MAX_RADIUS:
            raise ParameterError(
                f"Codes of latent_dim={k} numbers lie too near the border of a ball of curvature "
                f"-{self.c:g} for float32; choose latent_dim of at most "
                f"{int(MAX_RADIUS**2 / self.c)}, or curvature of at most {MAX_RADIUS**2 / k:.3g}."
            )

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mean, log_variance = (part.double() for part in self.split(h))
        eps = torch.randn((K, *mean.shape), generator=rng, device=h.device, dtype=torch.float64)
        v = (0.5 * log_variance).exp() * eps
        z = inside(add(exp_0(mean, self.c), exp_0(v, self.c), self.c), self.c)
        log_normal = -0.5 * (eps.square() + log_variance + LOG_2PI).sum(-1)
        return Node(z=z, log_q=(log_normal + log_spread(v, self.c)).float())

    def mode(self, h: Tensor) -> Tensor:
        """The mean point."""
        return inside(exp_0(self.split(h)[0].double(), self.c), self.c)

    def decoder_input(self, z: Tensor) -> Tensor:
        """log_0(z)."""
        return log_0(z, self.c).to(z.dtype)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """Along the geodesic, at constant hyperbolic speed."""
        start = a.double()
        way = log_0(add(-start, b.double(), self.c), self.c)
        return inside(add(start, exp_0(t[:, None, None] * way, self.c), self.c), self.c)


class WrappedStandardNormal(Prior):
    """exp_0 of N(0, I), in the ball of the latent; a density as ``WrappedNormal``'s."""

    space = "ball"

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        v = log_0(z, model.q.c)
        return (normal_log_prob(v, 0.0, 0.0) + log_spread(v, model.q.c)).float()

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        shape = (n, self.latent_dim)
        eps = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float64)
        return inside(exp_0(temperature * eps, model.q.c), model.q.c)
