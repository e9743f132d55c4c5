"""A dictionary of directions: a wide code of which each row uses a few numbers.

z = top_n relu(W (x − b) + a),   g(z) = Σ_j z_j d_j + b,   ‖d_j‖ = 1
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Node, Trace
from narrows.parts.latents.base import TopK
from narrows.parts.networks.architectures import NetworkOptions, make, refuse_classes
from narrows.parts.regularizers.base import Regularizer

DEAD = 2000  # rows without which a direction that never answered counts as dead


class Directions(nn.Module):
    """g: z ↦ Σ_j z_j d_j + b, each d_j of length 1 whatever training does to it."""

    def __init__(self, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(latent_dim, math.prod(shape)))
        self.bias = nn.Parameter(torch.empty(math.prod(shape)))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]} directions"

    def directions(self) -> Tensor:
        """d, (latent_dim, features), of unit length."""
        return F.normalize(self.weight, dim=1)

    def forward(self, z: Tensor) -> Tensor:
        flat: Tensor = z @ self.directions() + self.bias
        answer: Tensor = flat.unflatten(1, self.shape)
        return answer


class Looks(nn.Module):
    """f: x ↦ W (x − b) + a, with the b of g."""

    def __init__(self, latent_dim: int, g: Directions) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(g.weight))
        self.bias = nn.Parameter(torch.empty(latent_dim))
        self._g = (g,)  # in a tuple, so that g's parameters are not registered a second time

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1) - self._g[0].bias, self.weight, self.bias)


def dictionary_networks(
    name: str, options: NetworkOptions, rng: Generator | None
) -> tuple[nn.Module, nn.Module]:
    """f and g, as ``build_networks``; f starts as the transpose of g, as is usual."""
    refuse_classes(Directions, options)
    k = options.latent_dim
    g: Directions = make(lambda: Directions(k, options.shape), rng)
    f: Looks = make(lambda: Looks(k, g), rng)
    if rng is not None:
        with torch.no_grad():
            f.weight.copy_(g.directions())
    return f, g


class ActiveFew(TopK):
    """z = relu(h) where it is among a row's n largest, else 0; remembers who has long been idle."""

    wide = True
    idle: Tensor

    def build(self, sizes: Any, rng: Generator | None) -> None:
        self.register_buffer("idle", torch.zeros(sizes.latent_dim, dtype=torch.float32))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Any, rng: Generator) -> None:
        """Scale f so that g answers as far as x reaches: directions overlap, and sums overshoot."""
        answer = model.g(self.mode(model.f(x))).flatten(1)
        square = float(answer.square().sum())
        share = float((answer * x.flatten(1)).sum()) / square if square > 0 else 1.0
        model.f.weight.mul_(max(share, 0.1))

    def beside(self, latent_dim: int) -> int:
        return min(self.n_active, latent_dim)

    def mode(self, h: Tensor) -> Tensor:
        return super().mode(h.relu())

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        node = super().forward(h, K, rng)
        node.extras["h"] = h
        return node

    @torch.no_grad()
    def after_step(self, trace: Trace) -> None:
        """Count for each number the rows since it was last used."""
        used = (trace.z[0] != 0).any(0)
        self.idle.copy_(torch.where(used, 0.0, self.idle + len(trace.x)))


class Revival(Regularizer):
    """½ ‖e − ê‖², e = x − g(z) held fixed and ê what dead numbers of the code can say of it.

    A number is dead that no row used for ``DEAD`` rows; the largest ``n_active`` of them that a row
    has answer. So they learn what the others leave. Unlike in the paper they answer with h itself,
    which may be below 0: behind a relu the deadest would have no gradient.

    Source: Gao et al., "Scaling and evaluating sparse autoencoders", arXiv:2406.04093, section 2.4.
    """

    beside = True

    def __init__(self, n_active: int) -> None:
        super().__init__()
        self.n_active = n_active

    def forward(self, model: Any, trace: Trace) -> Tensor:
        dead = model.q.idle >= DEAD
        h = trace.nodes[0].extras["h"].float()
        left = (trace.x - trace.output[0]).detach().flatten(1)
        few = h.masked_fill(~dead, -torch.inf).topk(min(self.n_active, h.shape[1]), dim=1)
        z = torch.zeros_like(h).scatter(1, few.indices, few.values.nan_to_num(neginf=0.0))
        told = z @ model.g.directions()
        # where none is dead there is nothing to revive, and nothing to pay
        mean = 0.5 * (left - told).square().sum(1).mean()
        zero: Tensor = torch.where(dead.any(), mean, 0.0)
        return zero
