"""The composition for compressing: cells of numbers become whole numbers, and cells again.

x is cut into cells, each a vector: a whole small image, a row of a table, or a block of a large
image. f gives each cell its code, with the cells around it in sight where there are any.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Trace
from narrows.compression.conditional_prior import CellConv, ConditionalPrior
from narrows.compression.context_network import ContextNetwork
from narrows.compression.rounding import LogisticMixture
from narrows.parts import Composition
from narrows.parts.model import in_words
from narrows.parts.networks.architectures import initialise
from narrows.parts.networks.linear_path import BoundedHead, WithPath
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.regularizers.base import Regularizer

STEP = math.sqrt(12)  # a step of √12 σ leaves an error of σ


def to_cells(x: Tensor, block: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, C·h·w, H/h, W/w), a block of h × w in each cell."""
    (h, w), (batch, channels, height, width) = block, x.shape
    cells = x.reshape(batch, channels, height // h, h, width // w, w)
    return cells.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * h * w, height // h, width // w)


def from_cells(cells: Tensor, block: tuple[int, int]) -> Tensor:
    """The inverse of ``to_cells``: the pixel shuffle, for blocks of any sides."""
    (h, w), (batch, numbers, rows, columns) = block, cells.shape
    channels = numbers // (h * w)
    x = cells.reshape(batch, channels, h, w, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, channels, rows * h, columns * w)


def stack(widths: list[int], reach: int, activation: type[nn.Module]) -> nn.Sequential:
    """Layers on a grid of cells that see ``reach`` cells a side; the last its own cell alone."""
    net = nn.Sequential()
    for i, (a, b) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        side = 1 if last else 2 * reach + 1
        net.append(CellConv(a, b, side, padding=side // 2))
        if not last:
            net.append(activation())
    return net


class Coder(nn.Module):
    """x → cells → f → × gain → q (whole numbers) → ÷ gain → g → cells → x'.

    Each level has an error to aim at, σ, and gains of its own for every number of the code, so that
    one model serves several rates.

    Parameters
    ----------
    block : (int, int)
        The sides of a cell.
    numbers, latent_dim : int
        Numbers in a cell, and in its code.
    hidden : tuple of int
        Widths of f's layers between; g mirrors them.
    reach : int
        Cells that a layer sees on each side; 0 where a cell is all there is.
    sigmas : tuple of float
        Root mean squared error that each level aims at, in scaled units, falling.
    q : Module
        A quantiser.
    context : int
        Width of the networks that tell a number of the code from others; 0: none, each number has
        a prior of its own.
    """

    def __init__(
        self,
        block: tuple[int, int],
        numbers: int,
        latent_dim: int,
        hidden: tuple[int, ...],
        reach: int,
        sigmas: tuple[float, ...],
        q: nn.Module,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.block, self.sigmas, self.reach, self.numbers = block, sigmas, reach, numbers
        falling = [numbers, *hidden, latent_dim]
        self.f = WithPath(stack(falling, reach, nn.GELU), CellConv(numbers, latent_dim, 1))
        self.g = WithPath(stack(falling[::-1], reach, nn.ReLU), CellConv(latent_dim, numbers, 1))
        self.q = q
        self.p: LogisticMixture | ConditionalPrior
        if context:
            self.p = ConditionalPrior(len(sigmas), latent_dim, context, reach)
        else:
            self.p = LogisticMixture(len(sigmas), latent_dim)
        self.log_gain = nn.Parameter(torch.zeros(len(sigmas), latent_dim))
        self.log_back = nn.Parameter(torch.zeros(len(sigmas), latent_dim))
        self.head = BoundedHead(torch.tensor(-math.inf), torch.tensor(math.inf))

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int = 1) -> Trace:
        x = self.planes(x)
        level = self._levels(len(x), rng)
        y = self.latents(x) * self._gain(self.log_gain, level)
        rated, whole = self.q(y, clock.progress, rng)
        output = self.answer(whole * self._gain(self.log_back, level))
        sigma = x.new_tensor(self.sigmas)[level]
        squares = (x - output).square().flatten(1).sum(1)
        distance = squares / (2 * sigma.square())
        rate = self.p.nats(rated.float(), whole.float(), level)
        node = Node(whole[None], extras={"rate": rate, "level": level})
        return Trace(x, x, None, [node], output[None], distance[None], clock)

    def _levels(self, n: int, rng: Generator) -> Tensor:
        """A level for each sample: drawn while training, in turn otherwise."""
        device = self.log_gain.device
        if not self.training:
            return torch.arange(n, device=device) % len(self.sigmas)
        return torch.randint(len(self.sigmas), (n,), generator=rng, device=device)

    @staticmethod
    def _gain(logs: Tensor, level: Tensor) -> Tensor:
        return logs.exp()[level][:, :, None, None]

    def planes(self, x: Tensor) -> Tensor:
        """x as (B, C, H, W); a cell that is a whole sample may come in any shape."""
        return x.reshape(len(x), -1, *self.block) if self.reach == 0 else x

    def latents(self, x: Tensor) -> Tensor:
        """f(x), before any gain, (B, latent_dim, rows, columns)."""
        y: Tensor = self.f(to_cells(self.planes(x), self.block))
        return y

    def answer(self, z: Tensor) -> Tensor:
        """x' for codes times their steps."""
        x: Tensor = self.head(from_cells(self.g(z), self.block).float())
        return x

    def codes(self, y: Tensor, level: int) -> Tensor:
        """The whole numbers that stand for latents at a level, of the same shape."""
        gain = self.log_gain[level].exp()[:, None, None]
        was, _ = self.q.training, self.q.eval()
        whole: Tensor = self.q(y * gain, 1.0, torch.Generator(y.device))[1]
        self.q.train(was)
        return whole.round()

    @torch.no_grad()
    def start(self, pca: Any) -> None:
        """Become PCA of the cells (``mean``, ``components``, ``variances``), with one step."""
        mean, components, variances = pca.mean, pca.components, pca.variances
        into: Any = self.f.path
        out: Any = self.g.path
        k = len(components)
        for layer in (into, out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        into.weight[:k, :, 0, 0] = components
        into.bias[:k] = -components @ mean
        out.weight[:, :k, 0, 0] = components.T
        out.bias.copy_(mean)
        steps = STEP * torch.tensor(self.sigmas)
        self.log_gain.copy_(-steps.log()[:, None].expand_as(self.log_gain))
        self.log_back.copy_(steps.log()[:, None].expand_as(self.log_back))
        spread = torch.zeros(self.log_gain.shape[1])
        spread[:k] = variances.clamp_min(0).sqrt()
        self.p.start(spread / steps[:, None])

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        letters: dict[str, Any] = {"f": self.f, "g": self.g, "q": self.q}
        words = {name: in_words(part) for name, part in letters.items()}
        for name in ("f", "g"):
            words[name] += f"  ({sum(p.numel() for p in letters[name].parameters()):,} parameters)"
        words["p"] = repr(self.p)
        words["D"] = "squared"
        return words


def initialised(coder: Coder, rng: Generator) -> Coder:
    """Weights from ``rng`` alone; the networks answer 0 at first."""
    for part in (coder.f, coder.g):
        initialise(part.net[:-1], rng)  # type: ignore[index]
        for parameter in part.net[-1].parameters():  # type: ignore[index]
            nn.init.zeros_(parameter)
    if isinstance(coder.p, ConditionalPrior):
        coder.p.begin(rng)
    return coder


class Rate(Regularizer):
    """R: what the code costs, in nats a sample."""

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return trace.nodes[0].extras["rate"].mean()


class ContextBits(Regularizer):
    """R: what the pixels cost a network that expects each from those before it, in nats a sample.

    Half of the samples are shown the model's own answer beside, which learns nothing from it.

    Parameters
    ----------
    network : ContextNetwork
    shift, scale : tuple of float
        From scaled units to values from 0 to 255, of each channel.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, network: ContextNetwork, shift: tuple[float, ...], scale: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network = network
        for name, unit in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(unit).view(-1, 1, 1), persistent=False)

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        pixels, answer = (
            (x.detach() * self.scale + self.shift).round().clamp(0, 255)
            for x in (trace.x, trace.output[0])
        )
        # what is drawn must follow from the step alone: a run that goes on draws the same
        rng = torch.Generator(pixels.device).manual_seed(trace.clock.step)
        nats: Tensor = self.network(pixels, answer, rng)
        return nats.mean()


def rate_distortion(*more: Term) -> WeightedObjective:
    """E [ Σ (x − x')² / 2σ² + R ], in nats a sample.

    A step of Δ costs −log Δ nats and leaves Δ² / 12; their sum is least at Δ² = 12 σ², where the
    error is σ: that is why σ, and not a multiplier, names a level.
    """
    return WeightedObjective((Term("rate", Rate()), *more))
