"""The composition: c, f, q, g and D make a trace. ``forward`` *is* the trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd  # what all convolutions, transposed too, are

from narrows._types import Clock, Node, Sizes, Trace
from narrows.parts.latents.base import Joint, Latent
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.networks.architectures import FlattenLast, UnflattenLast
from narrows.parts.networks.linear_path import WithPath
from narrows.parts.priors.base import Prior


def fold(z: Tensor) -> Tensor:
    """(K, B, ...) → (K·B, ...): networks never see K."""
    return z.flatten(0, 1)


class Model(nn.Module):
    """x → c(x) → f → q → z → g → D, the parts of the equation in one module.

    ``draws`` says how many codes each row gets (the bound's wish). Where ``missing``, an element
    of x that is NaN is one that nobody observed: f sees its mean in its place, D leaves it out.
    """

    usual: Tensor  # what stands for an element that nobody observed: its mean

    def __init__(
        self,
        f: nn.Module,
        g: nn.Module,
        q: Latent,
        D: Likelihood,
        c: nn.Module | None = None,
        p: Prior | None = None,
        draws: Callable[[Clock], int] = lambda clock: 1,
        missing: bool = False,
        sizes: Sizes | None = None,  # of x and z, for compositions whose layers depend on them
    ) -> None:
        super().__init__()
        self.f, self.g, self.q, self.D, self.c, self.p = f, g, q, D, c, p
        self.draws, self.missing = draws, missing
        self.register_buffer("usual", torch.zeros(()) if missing else None)

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """Numbers that g takes beside a code; ParameterError where the sizes do not fit."""
        return 0

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int | None = None) -> Trace:
        x, given = self._apart(x, rng, clock)
        x, observed = self._observed(x)
        corrupted, mask = (x, None) if self.c is None else self.c(x, rng)
        mask = mask if observed is None else observed if mask is None else mask * observed
        K = self.draws(clock) if K is None else K
        nodes, output = self._pass(x, corrupted, mask, K, rng, given)
        # sums are float32, whatever the precision of the products
        with torch.autocast(x.device.type, enabled=False):
            distance = self.D.distance(x, output, mask)
        return Trace(x, corrupted, mask, nodes, output, distance, clock, rng)

    def _apart(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A row's event, and what is given beside it: here nothing."""
        return x, None

    def _observed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x with what is missing filled in, and what is not missing (None: nothing is)."""
        if not self.missing:
            return x, None
        there = ~x.isnan()
        return torch.where(there, x, self.usual), there.float()

    def _pass(
        self,
        x: Tensor,
        corrupted: Tensor,
        mask: Tensor | None,
        K: int,
        rng: Generator,
        given: Tensor | None,
    ) -> tuple[list[Node], Tensor]:
        """The latent nodes of what f sees, and g's answer, (K, B, ...); what other compositions
        do otherwise.
        """
        h = self._encoded(corrupted, given)
        more = (self._joint(x, mask, given),) if self.q.needs_joint else ()
        node: Node = self.q(h, K, rng, *more)
        if self.p is not None:
            node.log_p = self.p.log_prob(node.z, self)
            if not self.p.closed:
                node.kl = None  # it is the divergence from another prior
        return [node], self._decoded(node.z, given)

    def _encoded(self, x: Tensor, given: Tensor | None) -> Tensor:
        """f's answer."""
        h: Tensor = self.f(self.D.to_model(x))
        return h

    def _decoded(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        """g of (K, B, latent_dim), in float32."""
        output: Tensor = self.g(fold(z)).float().unflatten(0, z.shape[:2])
        return output

    def _joint(self, x: Tensor, mask: Tensor | None, given: Tensor | None) -> Joint:
        """log p(x, z) as a function of z, (K, B, latent_dim) → (K, B)."""

        def joint(z: Tensor) -> Tensor:
            assert self.p is not None
            output = self._decoded(z, given)
            with torch.autocast(x.device.type, enabled=False):
                return self.p.log_prob(z, self) - self.D.distance(x, output, mask)

        return joint

    def encode(self, x: Tensor) -> Tensor:
        """The noise-free code of x as it is given, (B, latent_dim)."""
        x, given = self._apart(x)
        x, mask = self._observed(x)
        more = (self._joint(x, mask, given),) if self.q.needs_joint else ()
        code: Tensor = self.q.mode(self._encoded(x, given), *more)
        return code

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction that a code stands for, in scaled units."""
        return self.D.mean(self.g(z))

    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """n codes drawn from the prior."""
        assert self.p is not None
        return self.p.sample(n, rng, temperature, self)

    def log_weights(self, x: Tensor, rng: Generator, K: int) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x) for K draws of z, (K, B).

        Their log-mean-exp estimates log p(x) from below (Burda et al. 2015, arXiv:1509.00519).
        """
        x, given = self._apart(x)
        x, mask = self._observed(x)
        nodes, output = self._pass(x, x, mask, K, rng, given)
        total = self.D.log_prob(x, output, mask)
        for node in nodes:
            if node.log_p is None or node.log_q is None:
                raise NotImplementedError("a point has no density")
            total = total + node.log_p - node.log_q
        return total

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
