"""Posteriors that are a Gaussian passed through a flow: z = F(z_0).

    log q(z) = log q_0(z_0) − log|det J_F(z_0)|

A flow is a sequence of maps; each is invertible, its Jacobian determinant is cheap to compute, and
it starts as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.networks.masked_autoregressive import masked_autoregressive

SOFTPLUS_ONE = math.log(math.e - 1.0)  # softplus of this is 1
MIN_DETERMINANT = 1e-3  # lower limit of the factor by which a map stretches
GATE_BIAS = 2.0  # added to the gates of an autoregressive step, so that sigmoid starts near 1


def above_minus_one(x: Tensor) -> Tensor:
    """A rising function with 0 ↦ 0 and values above −1: it keeps a map invertible."""
    return (1.0 - MIN_DETERMINANT) * (F.softplus(x + SOFTPLUS_ONE) - 1.0)


def planar(z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """z + û tanh(⟨w, z⟩ + b), and log|det J|; the last axis of ``parameters`` holds (u, w, b).

    û is u, moved along w so that ⟨w, û⟩ > −1, which makes the map invertible.
    """
    k = z.shape[-1]
    u, w, b = parameters.split([k, k, 1], -1)
    product = (w * u).sum(-1, keepdim=True)
    limited = above_minus_one(product)
    # 1e-12 avoids 0 / 0 where w = 0
    u = u + (limited - product) * w / w.square().sum(-1, keepdim=True).clamp_min(1e-12)
    bent = torch.tanh((w * z).sum(-1, keepdim=True) + b)
    return z + u * bent, torch.log1p((1.0 - bent.square()) * limited)[..., 0]


def radial(z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """z + β (z − c) / (α + |z − c|), and log|det J|; the last axis holds (c, α, β), unbounded.

    α is made positive, and β > −α, which makes the map invertible.
    """
    k = z.shape[-1]
    c, alpha, beta = parameters.split([k, 1, 1], -1)
    alpha = F.softplus(alpha + SOFTPLUS_ONE) + MIN_DETERMINANT
    beta = alpha * above_minus_one(beta)
    r = (z - c).square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()  # √ has no gradient at 0
    pull = beta / (alpha + r)
    # J stretches by 1 + pull across the radius (k − 1 directions) and by d/dr (r + pull r) along it
    along = torch.log1p(pull * alpha / (alpha + r))
    return z + pull * (z - c), ((k - 1) * torch.log1p(pull) + along)[..., 0]


FLOWS = {"planar": planar, "radial": radial}
KINDS = (*FLOWS, "iaf")


class FlowPosterior(DiagonalGaussian):
    """z = F(z_0), z_0 ~ N(μ, diag σ²); the code is F(μ).

    "planar" and "radial": the parameters of each map are learned numbers plus f's output for the
    row (Rezende & Mohamed, arXiv:1505.05770). With a linear path the start is PCA.
    "iaf", inverse autoregressive: steps (s / s₀) z + (1 − s) m, where m_i and s_i depend on z_1,
    ..., z_{i−1} and on k numbers of f's output; every other step reverses the order (Kingma et al.,
    arXiv:1606.04934, eq. 13 and 14). At the start m = 0 and s = s₀: each step is the identity.

    Parameters
    ----------
    kind : str
        "planar", "radial" or "iaf".
    n_flows : int
        How many maps, one after another.
    hidden : sequence of int, optional
        Widths of the hidden layers for "iaf". None: two layers of 4 k, at least 64.
    """

    def __init__(
        self, kind: str = "iaf", n_flows: int = 4, hidden: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.kind, self.n_flows, self.hidden = kind, n_flows, hidden

    def extra_repr(self) -> str:
        return f"{self.n_flows} {self.kind}"

    def _parameters_per_map(self, k: int) -> int:
        return {"planar": 2 * k + 1, "radial": k + 2, "iaf": 0}[self.kind]

    def n_numbers(self, latent_dim: int) -> int:
        """μ and log σ², then the parameters of the maps, or the context of their networks."""
        iaf, each = self.kind == "iaf", self._parameters_per_map(latent_dim)
        return 2 * latent_dim + (latent_dim if iaf else self.n_flows * each)

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        k = self.k = sizes.latent_dim
        if self.kind == "iaf":
            hidden = self.hidden or (max(64, 4 * k),) * 2
            nets = (masked_autoregressive(k, 2, hidden, k, rng=rng) for _ in range(self.n_flows))
            self.steps = nn.ModuleList(nets)
            return
        numbers = torch.zeros(self.n_flows, self._parameters_per_map(k), dtype=torch.float32)
        if rng is not None:  # different directions w, or centres c, so that maps can differ
            start = slice(k, 2 * k) if self.kind == "planar" else slice(k)
            drawn = torch.randn(self.n_flows, k, generator=rng, dtype=torch.float32)
            numbers[:, start] = drawn / (math.sqrt(k) if self.kind == "planar" else 1.0)
        self.numbers = nn.Parameter(numbers)

    def push(self, z: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) and log|det J|, for z (K, B, k) and what f outputs after μ and log σ²."""
        total = z.new_zeros(z.shape[:-1])
        if self.kind == "iaf":
            context = rest.expand(*z.shape[:-1], -1)
            for i, step in enumerate(self.steps):
                z, log_det = _gated(z, step, context, reverse=i % 2 == 1)
                total = total + log_det
            return z, total
        parameters = rest.unflatten(-1, (self.n_flows, -1)) + self.numbers
        for i in range(self.n_flows):
            z, log_det = FLOWS[self.kind](z, parameters[:, i])
            total = total + log_det
        return z, total

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        base, rest = h.float().tensor_split([2 * self.k], -1)
        node = super().forward(base, K, rng)
        z, log_det = self.push(node.z, rest)
        assert node.log_q is not None
        return Node(z=z, log_q=node.log_q - log_det, extras={"mu": node.extras["mu"]})

    def mode(self, h: Tensor) -> Tensor:
        """The mean, passed through the flow."""
        base, rest = h.float().tensor_split([2 * self.k], -1)
        return self.push(self.split(base)[0][None], rest)[0][0]


def _gated(z: Tensor, step: nn.Module, context: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """One autoregressive step: s z / s₀ + (1 − s) m, s = sigmoid(gate + 2), s₀ = sigmoid(2)."""
    order = z.flip(-1) if reverse else z
    m, gate = step(order, context).unbind(-1)
    s = torch.sigmoid(gate + GATE_BIAS)
    log_scale = F.logsigmoid(gate + GATE_BIAS) + math.log1p(math.exp(-GATE_BIAS))
    moved = order * log_scale.exp() + (1.0 - s) * m
    return moved.flip(-1) if reverse else moved, log_scale.sum(-1)
