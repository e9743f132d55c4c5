"""Posteriors that are a Gaussian bent by a flow: z = F(z_0), log q(z) = log q_0(z_0) − log|det J|.

A flow is a row of maps, each invertible with a Jacobian determinant that is cheap to tell. All of
them begin as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.networks.masked_autoregressive import made

SHIFT = math.log(math.e - 1.0)  # softplus of this is 1
LEAST = 1e-3  # how far a determinant stays above 0
OPEN = 2.0  # the gates of an autoregressive step at the start, before their sigmoid


def above_minus_one(x: Tensor) -> Tensor:
    """A rising function from 0 at 0 that stays above −1: what keeps a map invertible."""
    return (1.0 - LEAST) * (F.softplus(x + SHIFT) - 1.0)


def planar(z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """z + û tanh(⟨w, z⟩ + b), and log|det J|; (u, w, b) are the last axis of ``numbers``.

    û is u moved along w until ⟨w, û⟩ > −1, which makes the map invertible.
    """
    k = z.shape[-1]
    u, w, b = numbers.split([k, k, 1], -1)
    along = (w * u).sum(-1, keepdim=True)
    kept = above_minus_one(along)
    u = u + (kept - along) * w / w.square().sum(-1, keepdim=True).clamp_min(1e-12)
    bent = torch.tanh((w * z).sum(-1, keepdim=True) + b)
    return z + u * bent, torch.log1p((1.0 - bent.square()) * kept)[..., 0]


def radial(z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """z + β (z − c) / (α + |z − c|), and log|det J|; (c, α, β) are the last axis, before limits.

    α is made positive, and β > −α, which makes the map invertible.
    """
    k = z.shape[-1]
    c, alpha, beta = numbers.split([k, 1, 1], -1)
    alpha = F.softplus(alpha + SHIFT) + LEAST
    beta = alpha * above_minus_one(beta)
    r = (z - c).square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
    pull = beta / (alpha + r)
    # across the radius each direction is stretched by 1 + pull, along it by d/dr (r + pull r)
    along = torch.log1p(pull * alpha / (alpha + r))
    return z + pull * (z - c), ((k - 1) * torch.log1p(pull) + along)[..., 0]


FLOWS = {"planar": planar, "radial": radial}
KINDS = (*FLOWS, "iaf")


class FlowPosterior(DiagonalGaussian):
    """q(z | x) of z = F(z_0), z_0 ~ N(μ, diag σ²); its code is F(μ).

    "planar" and "radial" (Rezende & Mohamed 2015, arXiv:1505.05770): the numbers of each map are
    learned ones, plus what f answers for the row. At the start that is PCA, where there is a linear
    path. "iaf", inverse autoregressive (Kingma et al. 2016, arXiv:1606.04934): steps
    s z + (1 − s) m, where m and s of z_i come from the z_j before it and k numbers that f answers;
    every other step has the order reversed. s is a sigmoid over its value at the start.

    Parameters
    ----------
    kind : str
        "planar", "radial" or "iaf".
    n_flows : int
        How many maps, one after another.
    hidden : sequence of int, optional
        Widths of the networks of "iaf". None: two layers of 4 k, at least 64.
    """

    def __init__(
        self, kind: str = "iaf", n_flows: int = 4, hidden: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if kind not in KINDS or n_flows < 1:
            raise ParameterError(
                f"A flow's kind must be one of {KINDS}, and n_flows an int of at least 1. "
                f"Got {kind!r} and {n_flows!r}."
            )
        self.kind, self.n_flows, self.hidden = kind, n_flows, hidden

    def extra_repr(self) -> str:
        return f"{self.n_flows} {self.kind}"

    def _each(self, k: int) -> int:
        """Numbers of one map."""
        return {"planar": 2 * k + 1, "radial": k + 2, "iaf": 0}[self.kind]

    def n_numbers(self, latent_dim: int) -> int:
        """μ and log σ², then those of the maps, or the context of their networks."""
        more = latent_dim if self.kind == "iaf" else self.n_flows * self._each(latent_dim)
        return 2 * latent_dim + more

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        k = self.k = sizes.latent_dim
        if self.kind == "iaf":
            hidden = self.hidden or (max(64, 4 * k),) * 2
            self.steps = nn.ModuleList(made(k, 2, hidden, k, rng=rng) for _ in range(self.n_flows))
            return
        numbers = torch.zeros(self.n_flows, self._each(k), dtype=torch.float32)
        if rng is not None:  # the direction w, or the centre c: apart from each other
            start = slice(k, 2 * k) if self.kind == "planar" else slice(k)
            drawn = torch.randn(self.n_flows, k, generator=rng, dtype=torch.float32)
            numbers[:, start] = drawn / (math.sqrt(k) if self.kind == "planar" else 1.0)
        self.numbers = nn.Parameter(numbers)

    def push(self, z: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) and log|det J|: (K, B, k) and what h holds beside μ and log σ²."""
        total = z.new_zeros(z.shape[:-1])
        if self.kind == "iaf":
            context = rest.expand(*z.shape[:-1], -1)
            for i, step in enumerate(self.steps):
                z, log_det = self._gated(z, step, context, reverse=i % 2 == 1)
                total = total + log_det
            return z, total
        numbers = rest.unflatten(-1, (self.n_flows, -1)) + self.numbers
        for i in range(self.n_flows):
            z, log_det = FLOWS[self.kind](z, numbers[:, i])
            total = total + log_det
        return z, total

    def _gated(self, z: Tensor, step: Any, context: Tensor, *, reverse: bool) -> tuple[Tensor, ...]:
        order = z.flip(-1) if reverse else z
        m, gate = step(order, context).unbind(-1)
        s = torch.sigmoid(gate + OPEN)
        log_scale = F.logsigmoid(gate + OPEN) + math.log1p(math.exp(-OPEN))
        moved = order * log_scale.exp() + (1.0 - s) * m
        return moved.flip(-1) if reverse else moved, log_scale.sum(-1)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        base, rest = h.float().split([2 * self.k, h.shape[-1] - 2 * self.k], -1)
        node = super().forward(base, K, rng)
        z, log_det = self.push(node.z, rest)
        assert node.log_q is not None
        return Node(z=z, log_q=node.log_q - log_det, extras={"mu": node.extras["mu"]})

    def mode(self, h: Tensor) -> Tensor:
        """The mean, pushed through the flow."""
        base, rest = h.float().split([2 * self.k, h.shape[-1] - 2 * self.k], -1)
        return self.push(self.split(base)[0][None], rest)[0][0]
