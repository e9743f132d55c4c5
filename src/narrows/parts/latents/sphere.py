"""Codes on the unit sphere S^(k-1) of k numbers: von Mises-Fisher draws, and a uniform prior.

The density depends only on the angle t between a code and the mean direction, so that everything
is one-dimensional: p(t) ∝ exp(κ cos t) sin^(k−2) t. Integrals use Gauss-Legendre quadrature around
the peak, in float64, which works for every κ and k; the Bessel functions in the usual formulas
underflow where k is large.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import Latent
from narrows.parts.priors.base import Prior, validate_temperature

KNOTS, WEIGHTS = (torch.from_numpy((a + s) / 2) for a, s in zip(
    np.polynomial.legendre.leggauss(64), (1, 0), strict=True
))  # fmt: skip
PEAK_WIDTHS = 14.0  # of the peak; beyond, p(t) is negligible even on its heavier side
MIN_LENGTH = 1e-6  # a shorter vector has no reliable direction in float32


def log_area(k: int) -> float:
    """Log of the area of the unit sphere in k dimensions: 2 π^(k/2) / Γ(k/2)."""
    return math.log(2.0) + 0.5 * k * math.log(math.pi) - math.lgamma(0.5 * k)


def _log_shape(t: Tensor, kappa: Tensor, k: int) -> Tensor:
    """κ (cos t − 1) + (k − 2) log sin t: log p(t), up to a constant."""
    return -2.0 * kappa * (t / 2).sin().square() + (k - 2) * t.sin().clamp_min(1e-300).log()


def _peak(kappa: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The angle where p(t) is largest, and how far from it the integrals go."""
    cosine = 2 * kappa / (k - 2 + (kappa.square() * 4 + (k - 2) ** 2).sqrt()).clamp_min(1e-300)
    # sin² t = (k − 2) cos t / κ there
    sine = ((1 - cosine) * (1 + cosine)).sqrt() if k > 2 else torch.zeros_like(kappa)
    curvature = kappa * cosine + (k - 2) / sine.square().clamp_min(1e-300)
    return torch.atan2(sine, cosine), PEAK_WIDTHS / curvature.clamp_min(1e-300).sqrt()


def _rule(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Knots and weights between two angles, on a new last axis."""
    length = (high - low)[..., None]
    return low[..., None] + length * KNOTS.to(low.device), length * WEIGHTS.to(low.device)


def normaliser(kappa: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Log of the integral of exp(κ (cos t − 1)) over the sphere S^(k−1), and 1 − E[cos t].

    Parameters
    ----------
    kappa : float64 Tensor of any shape, at least 0
    k : int
        Numbers of a code, at least 2.

    Returns
    -------
    two Tensors like ``kappa``, with gradients
    """
    with torch.no_grad():
        peak, reach = _peak(kappa, k)
        t, weights = _rule((peak - reach).clamp_min(0.0), (peak + reach).clamp_max(math.pi))
    log_each = _log_shape(t, kappa[..., None], k) + weights.log()
    log_total = log_each.logsumexp(-1)
    shares = (log_each - log_total[..., None]).exp()
    return log_area(k - 1) + log_total, (shares * 2.0 * (t / 2).sin().square()).sum(-1)


class _Angle(torch.autograd.Function):
    """t as a function of κ at a fixed quantile F(t; κ): dt/dκ = −(∂F/∂κ) / p(t).

    Source: Figurnov, Mohamed & Mnih, "Implicit reparameterization gradients", arXiv:1805.08498.
    """

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, below_one: Tensor, t: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(kappa, below_one, t)
        ctx.k = k
        return t.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        kappa, below_one, t = ctx.saved_tensors
        peak, reach = _peak(kappa, ctx.k)
        # ∂F/∂κ = ∫_0^t (cos s − E cos) p(s) ds, and also minus the integral from t to π; of the
        # two, take the one that leads away from the peak, where p(s) / p(t) ≤ 1
        left = t < peak
        low = torch.where(left, (t - reach).clamp_min(0.0), t)
        high = torch.where(left, t, (t + reach).clamp_max(math.pi))
        s, weights = _rule(low, high)
        ratio = _log_shape(s, kappa[..., None], ctx.k) - _log_shape(t, kappa, ctx.k)[..., None]
        change = below_one[..., None] - 2.0 * (s / 2).sin().square()
        part = (change * ratio.exp() * weights).sum(-1)
        return grad * torch.where(left, -part, part), None, None, None


class VonMisesFisher(Latent):
    """q(z | x) ∝ exp(κ ⟨μ, z⟩) on the unit sphere, with a direction μ and a concentration κ ≥ 0.

    (μ, κ) = h: μ is the direction of the first k numbers, κ = 1 + softplus(3k + the last number).
    It starts at about 3k, where draws lie near μ, and stays above 1: at κ = 0 draws would not
    depend on μ, and f would get no gradient. Draws are made by Wood's rejection sampling; their
    gradient in κ is implicit, by quadrature.

    Source: Davidson et al., "Hyperspherical variational auto-encoders", arXiv:1804.00891; Wood,
    "Simulation of the von Mises Fisher distribution", Communications in Statistics 23 (1994).
    """

    # the start is PCA, except that every code gets length 1; PCA's have length √k on average
    space, density, maps_codes = "sphere", True, True
    min_latent_dim = 2  # S^0 is two points, where nothing can be learned by gradients
    max_kappa = 1e4  # beyond, a draw is numerically μ itself

    def n_numbers(self, latent_dim: int) -> int:
        """μ and κ."""
        return latent_dim + 1

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        if sizes.latent_dim < self.min_latent_dim:
            raise ParameterError(
                f"latent_dim={sizes.latent_dim} makes a sphere of two points; choose at least "
                f"{self.min_latent_dim} for codes on a sphere."
            )

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ (B, k), of length 1, and κ (B,), in float64."""
        raw = h[..., :-1].float()
        length = raw.square().sum(-1, keepdim=True).clamp_min(MIN_LENGTH**2).sqrt()
        first = torch.zeros_like(raw)
        first[..., 0] = 1.0  # the direction of a zero vector
        mu = torch.where(length > MIN_LENGTH, raw / length, first)
        kappa = 1.0 + F.softplus(h[..., -1].double() + 3.0 * raw.shape[-1])
        return mu, kappa.clamp_max(self.max_kappa)

    def mode(self, h: Tensor) -> Tensor:
        """The mean direction."""
        return self.split(h)[0]

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        mu, kappa = self.split(h)
        k = mu.shape[-1]
        log_total, below_one = normaliser(kappa, k)
        with torch.no_grad():
            t, side = _draw(kappa.expand(K, -1), k, rng)
        t = _Angle.apply(kappa.expand(K, -1), below_one.expand(K, -1).detach(), t, k)  # type: ignore[no-untyped-call]
        log_q = -2.0 * kappa * (t / 2).sin().square() - log_total
        angle = t[..., None].float()
        upright = torch.cat([angle.cos(), angle.sin() * side], -1)
        # a reflection maps the first axis to ∓μ; the sign is chosen so that the divisor is ≥ 2
        sign = torch.where(mu[:, :1] < 0, -1.0, 1.0)
        mirror = torch.cat([mu[:, :1] + sign, mu[:, 1:]], -1)
        share = (mirror * upright).sum(-1, keepdim=True) / mirror.square().sum(-1, keepdim=True)
        z = -sign * (upright - 2.0 * mirror * share)
        # KL(q ‖ uniform) = κ E[cos t] − log Z(κ) + log Z(0), where Z(κ) = e^κ exp(log_total)
        kl = log_area(k) - kappa * below_one - log_total
        return Node(z=z, log_q=log_q.float(), kl=kl.float(), extras={"mu": mu, "kappa": kappa})

    def decoder_input(self, z: Tensor) -> Tensor:
        """√k z: each number has a mean square of 1, as networks expect."""
        return math.sqrt(z.shape[-1]) * F.normalize(z, dim=-1)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """Along the great circle, at constant speed; between opposite codes along one of them."""
        angle = 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))[:, None]
        other = F.one_hot(a.abs().argmin(-1), a.shape[-1]).to(a)
        opposite = (a + b).norm(dim=-1, keepdim=True) < MIN_LENGTH
        side = torch.where(opposite, other, b)
        side = F.normalize(side - (side * a).sum(-1, keepdim=True) * a, dim=-1)
        turn = t[:, None, None] * angle
        return turn.cos() * a + turn.sin() * side


def _draw(kappa: Tensor, k: int, rng: Generator | None) -> tuple[Tensor, Tensor]:
    """Wood's rejection sampling: angles t (K, B), and unit vectors (K, B, k − 1) orthogonal to μ.

    For u uniform on the sphere, (1 − u_1) / 2 ~ Beta((k − 1)/2, (k − 1)/2), the distribution that
    Wood proposes from; u_2, ..., u_k give the direction. Most proposals are accepted for any κ, k.
    """
    flat = kappa.flatten()
    t, side = flat.new_empty(len(flat)), flat.new_empty((len(flat), k - 1), dtype=torch.float32)
    b = (k - 1) / (2 * flat + (4 * flat.square() + (k - 1) ** 2).sqrt())
    x0 = (1 - b) / (1 + b)
    todo = torch.arange(len(flat), device=flat.device)
    while len(todo):
        at, half = x0[todo], b[todo]
        u = torch.randn((len(todo), k), generator=rng, device=flat.device, dtype=torch.float64)
        u = F.normalize(u, dim=-1)
        beta = (1 - u[:, 0]) / 2
        below_one = 2 * half * beta / (1 - (1 - half) * beta)  # 1 − cos t, without cancellation
        t[todo] = 2 * (below_one / 2).sqrt().clamp_max(1.0).asin()
        side[todo] = F.normalize(u[:, 1:], dim=-1).float()
        # log of the acceptance: κ (cos t − x0) + (k − 1) log((1 − x0 cos t) / (1 − x0²)) ≤ 0
        log_ratio = torch.log((1 - at + at * below_one) / (1 - at.square()))
        chance = torch.rand(len(todo), generator=rng, device=flat.device, dtype=torch.float64)
        log_accepted = flat[todo] * (1 - at - below_one) + (k - 1) * log_ratio
        todo = todo[chance.log() > log_accepted]  # NaN is accepted: no endless loop
    return t.view_as(kappa), side.view(*kappa.shape, k - 1)


class UniformSphere(Prior):
    """p(z) = 1 / area, on the unit sphere."""

    space, closed = "sphere", True

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        return z.new_full(z.shape[:-1], -log_area(z.shape[-1]))

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        validate_temperature(temperature, "a sphere")
        shape = (n, self.latent_dim)
        eps = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return F.normalize(eps, dim=-1)
