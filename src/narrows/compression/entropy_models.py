"""Entropy models p(z): the likelihood of whole-numbered codes, which the entropy coder needs.

`FactorisedPrior` gives each number of the code a distribution of its own. `ConditionalPrior`
conditions each number on those coded before it:

    p(z) = Π over groups of channels, Π over four passes:  p(z here | groups before, cells before)

The passes are the four kinds of cells of a grid divided into squares of 2 × 2: a cell of the last
pass knows all eight cells around it. Within a step the numbers are independent of each other, so
that all of them are coded at once. Where there is only one cell, later groups of channels are
still conditioned on earlier ones.

Source: the factorised prior of Ballé et al., "Variational image compression with a scale
hyperprior", ICLR 2018, with the mixture of Salimans et al., "PixelCNN++", ICLR 2017; groups of
channels from Minnen & Singh, "Channel-wise autoregressive entropy models", ICIP 2020; passes from
He et al., "Checkerboard context model", CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from narrows.compression.format.latent_codes import MAX_SEEN, PASSES
from narrows.parts.networks.architectures import initialise

MIN_LIKELIHOOD = 1e-9  # of a whole number, so that its logarithm is finite
MIN_SCALE = 0.02
MIN_DEVIATION = 0.05  # a channel that is nearly constant still starts with some spread
N_LOGISTICS = 3  # of the factorised prior
# the conditional prior's two logistics: weight, and scale relative to the predicted scale; the
# wide one makes rare large errors cheap
LOGISTICS = ((0.75, 0.8), (0.25, 2.0))


def logistic_mass(distance: Tensor, scale: Tensor) -> Tensor:
    """The probability that a logistic gives to the interval of width 1 at ``distance`` ≥ 0.

    With the distance from the mean, not the signed difference: only in this tail do differences of
    sigmoids keep their digits.
    """
    return torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)


def logistic_nats(k: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """−log P(k) of whole numbers under a mixture of two logistics, elementwise."""
    distance = (k - mean).abs()
    narrow, wide = (w * logistic_mass(distance, scale * times) for w, times in LOGISTICS)
    return -(narrow + wide).clamp_min(MIN_LIKELIHOOD).log()


def logistic_scale(deviations: Tensor) -> Tensor:
    """The scale of logistics that have these standard deviations, s = σ √3 / π."""
    return deviations.clamp_min(MIN_DEVIATION) * math.sqrt(3) / math.pi


class FactorisedPrior(nn.Module):
    """A mixture of three logistics for each level and channel.

        P(k) = Σᵢ πᵢ [ σ((k + ½ − μᵢ) / sᵢ) − σ((k − ½ − μᵢ) / sᵢ) ]

    Parameters
    ----------
    n_levels, n_channels : int
        Quality levels, and numbers in the code of a cell.
    """

    def __init__(self, n_levels: int, n_channels: int) -> None:
        super().__init__()
        shape = (n_levels, n_channels, N_LOGISTICS)
        self.location = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.logit = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def init_scale(self, deviations: Tensor) -> None:
        """Start with these standard deviations of the channels, (n_levels, n_channels)."""
        spread = torch.tensor([-0.7, 0.0, 0.7])  # logarithms: half, once and twice the scale
        self.log_scale.copy_(logistic_scale(deviations).log()[..., None] + spread)

    def __repr__(self) -> str:
        n_levels, n_channels, _ = self.logit.shape
        return f"a mixture of {N_LOGISTICS} logistics for each of {n_levels} × {n_channels} numbers"

    def nats(self, k: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """−log P(k), (B,), of k (B, channels, ...) at levels (B,); ``context`` is not used."""
        return self._nats(k, level).flatten(1).sum(1)

    def _nats(self, k: Tensor, level: Tensor) -> Tensor:
        """−log P(k), elementwise."""
        k = k.unsqueeze(-1)
        extra = [1] * (k.ndim - 3)

        def at_level(p: Tensor) -> Tensor:
            return p[level].view(len(level), p.shape[1], *extra, N_LOGISTICS)

        distance = (k - at_level(self.location)).abs()
        mass = logistic_mass(distance, at_level(self.log_scale).exp())
        weights = F.softmax(at_level(self.logit), dim=-1)
        return -(weights * mass).sum(-1).clamp_min(MIN_LIKELIHOOD).log()

    @torch.no_grad()
    def probabilities(self, reach: int) -> Tensor:
        """P(k) for k from −reach to reach, (n_levels, n_channels, 2·reach + 1)."""
        k = torch.arange(-reach, reach + 1, device=self.logit.device, dtype=torch.float32)
        n_levels, n_channels, _ = self.logit.shape
        k = k.expand(n_levels, n_channels, -1)
        return (-self._nats(k, torch.arange(n_levels, device=k.device))).exp()


def groups_of(channels: int) -> list[tuple[int, int]]:
    """First and last channel (exclusive) of groups that double in size: 1, 1, 2, 4, ...

    They grow up to 32 channels, or an eighth of all channels if that is more.

    >>> groups_of(10)
    [(0, 1), (1, 2), (2, 4), (4, 8), (8, 10)]
    """
    ends = [0, 1]
    largest = max(32, -(-channels // 8))
    while ends[-1] < channels:
        ends.append(min(channels, ends[-1] + min(largest, ends[-1])))
    return list(pairwise(ends))


class CellConv(nn.Conv2d):
    """A convolution on a grid of cells; on a grid of one cell, the equal matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size != (1, 1) or x.shape[2:] != (1, 1):
            return super().forward(x)
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class GroupPredictor(nn.Module):
    """From earlier groups and neighbouring cells to the means and scales of one group."""

    def __init__(
        self, before: int, channels: int, hidden: int, n_levels: int, n_passes: int, side: int
    ) -> None:
        super().__init__()
        self.first = CellConv(before + channels, hidden, side, padding=side // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_levels, n_passes, hidden))
        self.middle = CellConv(hidden, hidden, 1)
        self.last = CellConv(hidden, 2 * channels, 1, bias=False)
        self.base = nn.Parameter(torch.zeros(n_levels, 2 * channels))

    def forward(self, known: Tensor, level: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """Means and scales, (B, channels, rows, columns), given the known codes, in pass ``at``."""
        h = F.relu(self.first(known) + self.bias[level, at][:, :, None, None])
        h = F.relu(self.middle(h))
        mean, scale = (self.last(h) + self.base[level][:, :, None, None]).chunk(2, 1)
        return mean, scale.clamp_min(0) + MIN_SCALE


class ConditionalPrior(nn.Module):
    """Each number of the code given the groups and cells before it.

    Parameters
    ----------
    n_levels, n_channels : int
        Quality levels, and numbers in the code of a cell.
    hidden : int
        Width of each group's network.
    reach : int
        0 where a grid has one cell.
    """

    def __init__(self, n_levels: int, n_channels: int, hidden: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.groups = groups_of(n_channels)
        n_passes, side = (4, 3) if reach else (1, 1)
        self.nets = nn.ModuleList(
            GroupPredictor(a, b - a, hidden, n_levels, n_passes, side) for a, b in self.groups
        )

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.parameters())
        where = "groups and cells" if self.reach else "groups"
        return f"given the {where} before, {len(self.groups)} groups  ({n:,} parameters)"

    def group_networks(self) -> Iterator[tuple[int, int, GroupPredictor]]:
        """First and last channel (exclusive) of each group, and its network."""
        for (a, b), net in zip(self.groups, self.nets, strict=True):
            assert isinstance(net, GroupPredictor)
            yield a, b, net

    def init_weights(self, rng: torch.Generator) -> None:
        """Weights from ``rng`` alone; at first no number depends on any other."""
        for _, _, net in self.group_networks():
            initialise(net, rng)
            nn.init.zeros_(net.bias)
            nn.init.zeros_(net.last.weight)

    @torch.no_grad()
    def init_scale(self, deviations: Tensor) -> None:
        """Start with these standard deviations of the channels, (n_levels, n_channels)."""
        scales = logistic_scale(deviations)
        for a, b, net in self.group_networks():
            net.base[:, : b - a] = 0
            net.base[:, b - a :] = scales[:, a:b]

    def nats(self, k: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """−log P(k), (B,), of k (B, channels, rows, columns) at levels (B,).

        ``context`` are the codes as neighbours see them. Each sample is measured in one pass, in
        turn over the batch, which counts for all four.
        """
        context = context.clamp(-MAX_SEEN, MAX_SEEN)  # as the decoder clips them
        total = k.new_zeros(len(k))
        every = torch.arange(len(k), device=k.device)
        turns = [every[i::4] for i in range(4)] if self.reach else [every]
        for at, rows in enumerate(turns):
            if len(rows):
                nats = self._nats_in_pass(k[rows], context[rows], level[rows], at)
                total = total.index_add(0, rows, nats)
        return total

    def _nats_in_pass(self, k: Tensor, context: Tensor, level: Tensor, at: int) -> Tensor:
        mask, share = self._known_cells(k, at)
        i, j = PASSES[at]
        nats = k.new_zeros(len(k))
        for a, b, net in self.group_networks():
            known = torch.cat([context[:, :a], context[:, a:b] * mask], 1)
            mean, scale = net(known, level, at)
            each = logistic_nats(k[:, a:b], mean, scale)
            if self.reach:
                each = each[:, :, i::2, j::2]
            nats = nats + each.flatten(1).sum(1)
        return nats * share

    def _known_cells(self, k: Tensor, at: int) -> tuple[Tensor, float]:
        """1 for the cells of earlier passes, and all cells divided by those of this pass."""
        rows, columns = k.shape[2:]
        mask = k.new_zeros(1, 1, rows, columns)
        for i, j in PASSES[:at]:
            mask[:, :, i::2, j::2] = 1
        if not self.reach:
            return mask, 1.0
        i, j = PASSES[at]
        here = len(range(i, rows, 2)) * len(range(j, columns, 2))
        return mask, rows * columns / max(1, here)
