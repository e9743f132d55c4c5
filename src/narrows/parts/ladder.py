"""A ladder of latents: deterministic stages go up from x, draws go down, the coarsest first.

    p(x, z) = p(z_L) Π_l p(z_l | z_{>l}) p(x | z),   q(z | x) = q(z_L | x) Π_l q(z_l | x, z_{>l})

q and p share the top-down network, as in Sønderby et al. 2016 (arXiv:1602.02282) and Kingma et al.
2016 (arXiv:1606.04934). The code is z_1, ..., z_L, concatenated, the finest level first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Node
from narrows.parts.latents.base import normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.model import Inputs, Model, merge_draws
from narrows.parts.networks.architectures import (
    NetworkOptions,
    build_networks,
    create,
    dense_widths,
)


class ResidualBlock(nn.Module):
    """h + W₂ gelu(W₁ h), of constant width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return torch.add(h, self.second(nn.functional.gelu(self.first(h))))


def level_sizes(latent_dim: int, n_levels: int) -> list[int]:
    """How many of the code's numbers each level has, the finest first, as equal as possible.

    >>> level_sizes(7, 2)
    [4, 3]
    """
    n_levels = min(n_levels, latent_dim)
    size, more = divmod(latent_dim, n_levels)
    return [size + (level < more) for level in range(n_levels)]


class BottomUp(nn.Module):
    """f: x ↦ d_1, ..., d_L, the coarsest last: d_1 from the usual encoder, d_{l+1} from d_l."""

    def __init__(self, first: nn.Module, width: int, n_levels: int) -> None:
        super().__init__()
        self.first = first
        self.stages = nn.ModuleList(ResidualBlock(width) for _ in range(n_levels - 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [self.first(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found


class TopDown(nn.Module):
    """g, from z_L down to x; also the layers for μ and log σ² of p and q of every level."""

    def __init__(self, last: nn.Module, width: int, sizes: list[int]) -> None:
        super().__init__()
        n = len(sizes)
        self.last, self.sizes = last, sizes
        self.enter = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in sizes)
        self.prior = nn.ModuleList(nn.Linear(width, 2 * sizes[i]) for i in range(n - 1))
        self.joined = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(n - 1))
        self.posterior = nn.ModuleList(nn.Linear(width, 2 * sizes[i]) for i in range(n - 1))
        self.top = nn.Linear(width, 2 * sizes[-1])

    def down(self, level: int, t: Tensor | None, z: Tensor) -> Tensor:
        """The state below ``level``, from the state t above it and its draw z."""
        h = self.enter[level](z)
        below: Tensor = self.blocks[level](h if t is None else t + h)
        return below

    def posterior_input(self, level: int, t: Tensor, d: Tensor) -> Tensor:
        """h of q(z_l | x, z_{>l}), from the state t above and f's output d."""
        joined = nn.functional.gelu(self.joined[level](torch.cat([d, t], -1)))
        h: Tensor = self.posterior[level](joined)
        return h

    def forward(self, z: Tensor) -> Tensor:
        """g's output for codes of all levels, (B, latent_dim)."""
        t: Tensor | None = None
        parts = z.split(self.sizes, -1)
        for level in reversed(range(len(self.sizes))):
            t = self.down(level, t, parts[level])
        output: Tensor = self.last(t)
        return output


class LadderModel(Model):
    """The composition for several levels, with its own pass, ``encode`` and ``sample``."""

    f: BottomUp
    g: TopDown
    q: DiagonalGaussian

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        if self.p is not None:
            self.p.latent_dim = self.g.sizes[-1]  # p is a prior over the highest level only

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z_L | x)."""
        return self.q.split(self.g.top(self.f(self.D.to_model(x))[-1]))

    def _encode_decode(self, given: Inputs, K: int, rng: Generator) -> tuple[list[Node], Tensor]:
        found = self.f(self.D.to_model(given.corrupted))
        lead = (K, len(given.x))
        node: Node = self.q(self.g.top(found[-1]), K, rng)
        assert self.p is not None
        node.log_p = self.p.log_prob(node.z, self)
        node.kl = node.kl if self.p.closed else None
        nodes = [node]
        t = self.g.down(len(found) - 1, None, merge_draws(node.z))
        for level in reversed(range(len(found) - 1)):
            d = merge_draws(found[level].expand(K, *found[level].shape))
            node = self._level(level, t, d, lead, rng)
            nodes.insert(0, node)
            t = self.g.down(level, t, merge_draws(node.z))
        output: Tensor = self.g.last(t).float()
        return nodes, output.unflatten(0, lead)

    def _level(
        self, level: int, t: Tensor, d: Tensor, lead: tuple[int, int], rng: Generator
    ) -> Node:
        """One draw of z_l for every draw of the levels above; its prior is p(z_l | z_{>l})."""
        node: Node = self.q(self.g.posterior_input(level, t, d), 1, rng)
        assert node.log_q is not None
        mu, log_variance = self.q.split(self.g.prior[level](t))
        log_p = normal_log_prob(node.z[0], mu, log_variance)
        m, s = node.extras["mu"], node.extras["log_variance"]
        # KL(N(m, s²) ‖ N(μ, σ²)) = ½ ((s² + (m − μ)²)/σ² − 1 − log s² + log σ²), each number
        ratio = (s - log_variance).exp() + (m - mu).square() / log_variance.exp()
        each = (0.5 * (ratio - 1.0 - s + log_variance)).unflatten(0, lead).mean(0)
        return Node(
            z=node.z[0].unflatten(0, lead),
            log_q=node.log_q[0].unflatten(0, lead),
            log_p=log_p.unflatten(0, lead),
            kl=each.sum(-1),
            extras={"mu": m.unflatten(0, lead), "kl_each": each},
        )

    @property
    def encoder_parts(self) -> tuple[str, ...]:
        """The parts that ``encode`` uses."""
        return ("f", "g", "q", "D")

    def encode(self, x: Tensor) -> Tensor:
        """The means, from the top level down, each given those above; (B, latent_dim)."""
        found = self.f(self.D.to_model(self.fill_missing(x)[0]))

        def mean(level: int, t: Tensor) -> Tensor:
            return self.q.mode(self.g.posterior_input(level, t, found[level]))

        return self._top_down(self.q.mode(self.g.top(found[-1])), mean)

    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """Codes of all levels: z_L from the prior, then every level given those above."""
        assert self.p is not None

        def draw(level: int, t: Tensor) -> Tensor:
            mu, log_variance = self.q.split(self.g.prior[level](t))
            eps = torch.randn(mu.shape, generator=rng, device=mu.device, dtype=mu.dtype)
            return mu + temperature * torch.exp(0.5 * log_variance) * eps

        return self._top_down(self.p.sample(n, rng, temperature, self), draw)

    def _top_down(self, z: Tensor, level_code: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The code of all levels, from z_L and ``level_code(level, state above it)``."""
        codes, t = [z], None
        for level in reversed(range(len(self.g.sizes) - 1)):
            t = self.g.down(level + 1, t, codes[0])
            codes.insert(0, level_code(level, t))
        return torch.cat(codes, -1)


def ladder_networks(n_levels: int) -> Callable[..., tuple[nn.Module, nn.Module]]:
    """A function as ``build_networks``, for a ladder: the usual f and g, and blocks above them."""

    def build(
        name: str, options: NetworkOptions, rng: Generator | None
    ) -> tuple[nn.Module, nn.Module]:
        sizes = level_sizes(options.latent_dim, n_levels)
        hidden = options.hidden or dense_widths(options.latent_dim * 8)
        below = replace(options, latent_dim=hidden[-1], numbers=None, hidden=hidden[:-1])
        first, last = build_networks(name, replace(below, tied=False), rng)
        f = create(lambda: BottomUp(nn.Identity(), hidden[-1], len(sizes)), rng)
        g = create(lambda: TopDown(nn.Identity(), hidden[-1], sizes), rng)
        f.first, g.last = nn.Sequential(first, nn.GELU()), nn.Sequential(nn.GELU(), last)
        return f, g

    return build
