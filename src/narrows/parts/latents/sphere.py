"""Codes on the unit sphere S^(k-1) of k numbers: von Mises-Fisher draws, and a uniform prior.

All that depends on the angle t between a code and the mean direction is one-dimensional:
p(t) ∝ exp(κ cos t) sin^(k−2) t. Its integrals are taken by Gauss and Legendre's rule around the
peak, in float64, which holds for every κ and k; the Bessel functions they stand for underflow where
k is large.
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
from narrows.parts.latents.base import Latent
from narrows.parts.priors.base import Prior, refuse_temperature

KNOTS, WEIGHTS = (torch.from_numpy((a + s) / 2) for a, s in zip(
    np.polynomial.legendre.leggauss(64), (1, 0), strict=True
))  # fmt: skip
REACH = 14.0  # widths of the peak, beyond which nothing is left even of its heavier side
SHORT = 1e-6  # what is no longer has no direction in float32


def log_area(k: int) -> float:
    """Log of the area of the unit sphere in k dimensions: 2 π^(k/2) / Γ(k/2)."""
    return math.log(2.0) + 0.5 * k * math.log(math.pi) - math.lgamma(0.5 * k)


def _log_shape(t: Tensor, kappa: Tensor, k: int) -> Tensor:
    """κ (cos t − 1) + (k − 2) log sin t: log p(t) but for a constant."""
    return -2.0 * kappa * (t / 2).sin().square() + (k - 2) * t.sin().clamp_min(1e-300).log()


def _peak(kappa: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The angle where p(t) is highest, and how far from there it still counts."""
    cosine = 2 * kappa / (k - 2 + (kappa.square() * 4 + (k - 2) ** 2).sqrt()).clamp_min(1e-300)
    # sin² t = (k − 2) cos t / κ there
    sine = ((1 - cosine) * (1 + cosine)).sqrt() if k > 2 else torch.zeros_like(kappa)
    curvature = kappa * cosine + (k - 2) / sine.square().clamp_min(1e-300)
    return torch.atan2(sine, cosine), REACH / curvature.clamp_min(1e-300).sqrt()


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
    """t as a function of κ at a fixed share F(t; κ): dt/dκ = −(∂F/∂κ) / p(t).

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
        # ∂F/∂κ = ∫_0^t (cos s − E cos) p(s) ds, which is minus what is left from t to π: of the two
        # the one that goes away from the peak, where p(s) / p(t) ≤ 1
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

    (μ, κ) = h: μ is the direction of its first k numbers, κ = 1 + softplus(3k + the last): it
    begins where draws are near μ, and never ends where they tell nothing of μ, and nothing is
    learned any more. Draws are Wood's, whose proposals are uniform on the sphere and then bent
    towards μ; their gradient in κ is implicit, by quadrature.

    Source: Davidson et al., "Hyperspherical variational auto-encoders", arXiv:1804.00891; Wood,
    "Simulation of the von Mises Fisher distribution", Communications in Statistics 23 (1994).
    """

    # its start is PCA, but for the length of a code; √k is what that is on average
    space, density, start = "sphere", True, "point"
    least = 2  # of S^0, two points, there is nothing to learn by gradients
    highest = 1e4  # beyond which a draw is numerically μ itself

    def n_numbers(self, latent_dim: int) -> int:
        """The direction, and how concentrated."""
        return latent_dim + 1

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        if sizes.latent_dim < self.least:
            raise ParameterError(
                f"latent_dim={sizes.latent_dim} makes a sphere of two points only; choose at least "
                f"{self.least} for a code on a sphere."
            )

    def split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """μ (B, k), of length 1, and κ (B,), in float64."""
        raw = h[..., :-1].float()
        length = raw.square().sum(-1, keepdim=True).clamp_min(SHORT**2).sqrt()
        first = torch.zeros_like(raw)
        first[..., 0] = 1.0  # the direction of what has none
        mu = torch.where(length > SHORT, raw / length, first)
        kappa = 1.0 + F.softplus(h[..., -1].double() + 3.0 * raw.shape[-1])
        return mu, kappa.clamp_max(self.highest)

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
        # a reflection takes the first axis to ∓μ; of the two signs the one that divides by no less
        # than 2
        sign = torch.where(mu[:, :1] < 0, -1.0, 1.0)
        mirror = torch.cat([mu[:, :1] + sign, mu[:, 1:]], -1)
        share = (mirror * upright).sum(-1, keepdim=True) / mirror.square().sum(-1, keepdim=True)
        z = -sign * (upright - 2.0 * mirror * share)
        # KL(q ‖ uniform) = κ E[cos t] − log Z(κ) + log Z(0), where Z(κ) = e^κ exp(log_total)
        kl = log_area(k) - kappa * below_one - log_total
        return Node(z=z, log_q=log_q.float(), kl=kl.float(), extras={"mu": mu, "kappa": kappa})

    def chart(self, z: Tensor) -> Tensor:
        """What g is given: √k z, numbers of about the size that networks are made for."""
        return math.sqrt(z.shape[-1]) * F.normalize(z, dim=-1)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """Along the great circle, at a constant speed; between opposite codes along any."""
        angle = 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))[:, None]
        least = F.one_hot(a.abs().argmin(-1), a.shape[-1]).to(a)
        opposite = (a + b).norm(dim=-1, keepdim=True) < SHORT
        aside = torch.where(opposite, least, b)
        aside = F.normalize(aside - (aside * a).sum(-1, keepdim=True) * a, dim=-1)
        turn = t[:, None, None] * angle
        return turn.cos() * a + turn.sin() * aside


def _draw(kappa: Tensor, k: int, rng: Generator | None) -> tuple[Tensor, Tensor]:
    """Angles t and directions of length 1 across the mean: (K, B) and (K, B, k − 1).

    A proposal u, uniform on the sphere, has (1 − u_1) / 2 ~ Beta((k − 1)/2, (k − 1)/2), what Wood
    draws, and what is left of u is a direction across. Most are accepted, at every κ and k.
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
        below_one = 2 * half * beta / (1 - (1 - half) * beta)  # 1 − cos t, where small exactly
        t[todo] = 2 * (below_one / 2).sqrt().clamp_max(1.0).asin()
        side[todo] = F.normalize(u[:, 1:], dim=-1).float()
        # κ (cos t − x0) + (k − 1) log((1 − x0 cos t) / (1 − x0²)), which is never above 0
        log_ratio = torch.log((1 - at + at * below_one) / (1 - at.square()))
        chance = torch.rand(len(todo), generator=rng, device=flat.device, dtype=torch.float64)
        log_accepted = flat[todo] * (1 - at - below_one) + (k - 1) * log_ratio
        todo = todo[chance.log() > log_accepted]  # a κ that is no number is let through
    return t.view_as(kappa), side.view(*kappa.shape, k - 1)


class UniformSphere(Prior):
    """p(z) = 1 / area, on the unit sphere."""

    space, closed = "sphere", True

    def log_prob(self, z: Tensor, model: Any = None) -> Tensor:
        return z.new_full(z.shape[:-1], -log_area(z.shape[-1]))

    def sample(self, n: int, rng: Generator, temperature: float = 1.0, model: Any = None) -> Tensor:
        refuse_temperature(temperature, self)
        shape = (n, self.latent_dim)
        eps = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return F.normalize(eps, dim=-1)
