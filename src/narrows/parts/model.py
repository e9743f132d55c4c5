"""The composition: c, f, q, g and D make a trace. ``forward`` *is* the trace."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd  # what all convolutions, transposed too, are

from narrows.core import Clock, Node, Trace
from narrows.parts.likelihoods import Distance
from narrows.parts.linear_path import WithPath
from narrows.parts.networks import FlattenLast, UnflattenLast
from narrows.parts.priors import StandardNormal


def fold(z: Tensor) -> Tensor:
    """(K, B, ...) → (K·B, ...): networks never see K."""
    return z.flatten(0, 1)


class Model(nn.Module):
    """x → c(x) → f → q → z → g → D, the parts of the equation in one module."""

    def __init__(
        self,
        f: nn.Module,
        g: nn.Module,
        q: nn.Module,
        D: Distance,
        c: nn.Module | None = None,
        p: StandardNormal | None = None,
    ) -> None:
        super().__init__()
        self.f, self.g, self.q, self.D, self.c, self.p = f, g, q, D, c, p

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int = 1) -> Trace:
        corrupted, mask = (x, None) if self.c is None else self.c(x, rng)
        node: Node = self.q(self.f(corrupted), K, rng)
        if self.p is not None:
            node.log_p = self.p.log_prob(node.z)
        output = self.g(fold(node.z)).float().unflatten(0, (K, len(x)))
        # sums are float32, whatever the precision of the products
        with torch.autocast(x.device.type, enabled=False):
            distance = self.D.distance(x, output, mask)
        return Trace(x, corrupted, mask, [node], output, distance, clock)

    def encode(self, x: Tensor) -> Tensor:
        """The noise-free code of x as it is given, (B, latent_dim)."""
        code: Tensor = self.q.mode(self.f(x))  # type: ignore[operator]
        return code

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction that a code stands for, in scaled units."""
        return self.D.mean(self.g(z))

    def log_weights(self, x: Tensor, rng: Generator, K: int) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x) for K draws of z, (K, B).

        Their log-mean-exp estimates log p(x) from below (Burda et al. 2015, arXiv:1509.00519).
        """
        node: Node = self.q(self.f(x), K, rng)
        if self.p is None or node.log_q is None:
            raise NotImplementedError("a point has no density")
        output = self.g(fold(node.z)).unflatten(0, (K, len(x)))
        return self.D.log_prob(x, output) + self.p.log_prob(node.z) - node.log_q

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        letters = {"f": self.f, "g": self.g, "q": self.q, "c": self.c, "D": self.D, "p": self.p}
        return {name: _counted(part) for name, part in letters.items() if part is not None}


def _counted(part: nn.Module) -> str:
    n = sum(p.numel() for p in part.parameters())
    return in_words(part) + (f"  ({n:,} parameters)" if n > 1 else "")


def in_words(part: nn.Module) -> str:
    """A network as one reads it: layers with their sizes, an arrow between, a plus beside.

    >>> in_words(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 2)))
    'linear 64→8, gelu, linear 8→2'
    """
    if isinstance(part, WithPath):
        return f"[{in_words(part.net)}] + [{in_words(part.path)}]"
    if isinstance(part, nn.Sequential):
        return ", ".join(filter(None, map(in_words, part)))
    if isinstance(part, nn.Flatten | nn.Unflatten | FlattenLast | UnflattenLast | nn.Identity):
        return ""  # they only fold
    if isinstance(part, nn.Linear):
        return f"linear {part.in_features}→{part.out_features}"
    if isinstance(part, _ConvNd):
        kind = "transposed conv" if part.transposed else "conv"
        sides = "×".join(map(str, part.kernel_size))
        stride = f" stride {part.stride[0]}" if max(part.stride) > 1 else ""
        return f"{kind} {part.in_channels}→{part.out_channels} {sides}{stride}"
    if isinstance(part, nn.MaxPool1d | nn.MaxPool2d):
        return "max-pool 2"
    if isinstance(part, nn.GELU | nn.SiLU | nn.ReLU | nn.Tanh):
        return type(part).__name__.lower()
    return " ".join(repr(part).split())
