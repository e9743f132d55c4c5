"""The prior of a grid of codes: each number given those coded before it.

    p(z) = Π over groups of channels, Π over four passes:  p(z here | groups before, cells before)

The passes are the four kinds of cells in a chequered grid of 2 × 2: a cell of the last pass knows
all eight cells around it. Within a step nothing depends on anything, so that all of it is coded at
once. Where there is one cell only, its first channels still tell of its others.

Source: groups of channels from Minnen & Singh, "Channel-wise autoregressive entropy models", ICIP
2020; passes from He et al., "Checkerboard context model", CVPR 2021.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from narrows.parts.networks.architectures import initialise

PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column of a cell, modulo 2
LEAST_SCALE = 0.02
LEAST_LIKELY = 1e-9
MIXED = ((0.75, 0.8), (0.25, 2.0))  # two logistics: weight, and scale in units of the one given
FARTHEST = 2047.0  # what a cell tells others of a number; the coder cuts it off there, too


def groups_of(channels: int) -> list[tuple[int, int]]:
    """Channels in groups that double: 1, 1, 2, 4, ... to 32, or to an eighth of all, if more.

    >>> groups_of(10)
    [(0, 1), (1, 2), (2, 4), (4, 8), (8, 10)]
    """
    ends = [0, 1]
    most = max(32, -(-channels // 8))
    while ends[-1] < channels:
        ends.append(min(channels, ends[-1] + min(most, ends[-1])))
    return list(pairwise(ends))


class CellConv(nn.Conv2d):
    """A convolution on a grid of cells; where there is one cell only, the product that it is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size != (1, 1) or x.shape[2:] != (1, 1):
            return super().forward(x)
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class Group(nn.Module):
    """What the groups before and the cells around tell of a group: its means and scales."""

    def __init__(
        self, before: int, channels: int, hidden: int, n_levels: int, n_passes: int, side: int
    ) -> None:
        super().__init__()
        self.side = side
        self.first = CellConv(before + channels, hidden, side, padding=side // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_levels, n_passes, hidden))
        self.middle = CellConv(hidden, hidden, 1)
        self.last = CellConv(hidden, 2 * channels, 1, bias=False)
        self.base = nn.Parameter(torch.zeros(n_levels, 2 * channels))

    def forward(self, seen: Tensor, level: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """Means and scales, (B, channels, rows, columns), of what ``seen`` tells."""
        h = F.relu(self.first(seen) + self.bias[level, at][:, :, None, None])
        h = F.relu(self.middle(h))
        mean, scale = (self.last(h) + self.base[level][:, :, None, None]).chunk(2, 1)
        return mean, scale.clamp_min(0) + LEAST_SCALE


class ConditionalPrior(nn.Module):
    """The prior described above.

    Parameters
    ----------
    n_levels, n_channels : int
    hidden : int
        Width of each group's network.
    reach : int
        0 where a grid has one cell.
    """

    def __init__(self, n_levels: int, n_channels: int, hidden: int, reach: int) -> None:
        super().__init__()
        self.reach, self.hidden = reach, hidden
        self.groups = groups_of(n_channels)
        n_passes, side = (4, 3) if reach else (1, 1)
        self.nets = nn.ModuleList(
            Group(a, b - a, hidden, n_levels, n_passes, side) for a, b in self.groups
        )

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.parameters())
        where = "groups and cells" if self.reach else "groups"
        return f"given the {where} before, {len(self.groups)} groups  ({n:,} parameters)"

    def begin(self, rng: torch.Generator) -> None:
        """Weights from ``rng`` alone; nothing depends on anything at first."""
        for net in self.nets:
            initialise(net, rng)
            nn.init.zeros_(net.bias)  # type: ignore[arg-type]
            nn.init.zeros_(net.last.weight)  # type: ignore[union-attr, arg-type]

    @torch.no_grad()
    def start(self, deviations: Tensor) -> None:
        """Begin with channels of these standard deviations, (n_levels, n_channels)."""
        scales = deviations.clamp_min(0.05) * math.sqrt(3) / math.pi
        for (a, b), net in zip(self.groups, self.nets, strict=True):
            base: Any = net.base
            base[:, : b - a] = 0
            base[:, b - a :] = scales[:, a:b]

    def nats(self, k: Tensor, whole: Tensor, level: Tensor) -> Tensor:
        """−log P(k), (B,): k (B, channels, rows, columns), ``whole`` what other cells see of it.

        Each call looks at one pass, drawn by turns over the batch, and counts it for all four.
        """
        whole = whole.clamp(-FARTHEST, FARTHEST)
        total = k.new_zeros(len(k))
        for at, rows in enumerate(self._turns(len(k))):
            if len(rows):
                total = total.index_add(0, rows, self._pass(k[rows], whole[rows], level[rows], at))
        return total

    def _turns(self, n: int) -> list[Tensor]:
        """Which of the batch are looked at in which pass."""
        every = torch.arange(n, device=self.nets[0].base.device)  # type: ignore[arg-type]
        return [every[i::4] for i in range(4)] if self.reach else [every]

    def _pass(self, k: Tensor, whole: Tensor, level: Tensor, at: int) -> Tensor:
        mask, count = self._known(k, at)
        i, j = PASSES[at]
        nats = k.new_zeros(len(k))
        for (a, b), net in zip(self.groups, self.nets, strict=True):
            seen = torch.cat([whole[:, :a], whole[:, a:b] * mask], 1)
            mean, scale = net(seen, level, at)
            each = logistic_nats(k[:, a:b], mean, scale)
            if self.reach:
                each = each[:, :, i::2, j::2]
            nats = nats + each.flatten(1).sum(1)
        return nats * count

    def _known(self, k: Tensor, at: int) -> tuple[Tensor, float]:
        """1 for cells of the passes before, and how many times the cells of this pass there are."""
        rows, columns = k.shape[2:]
        mask = k.new_zeros(1, 1, rows, columns)
        for i, j in PASSES[:at]:
            mask[:, :, i::2, j::2] = 1
        if not self.reach:
            return mask, 1.0
        i, j = PASSES[at]
        here = len(range(i, rows, 2)) * len(range(j, columns, 2))
        return mask, rows * columns / max(1, here)


def logistic_nats(k: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """−log of the likelihood of whole numbers under two logistics, elementwise."""
    away = (k - mean).abs()  # the tail is where differences keep their digits
    inside: Any = 0.0
    for weight, times in MIXED:
        s = scale * times
        inside = inside + weight * (
            torch.sigmoid((0.5 - away) / s) - torch.sigmoid((-0.5 - away) / s)
        )
    nats: Tensor = -inside.clamp_min(LEAST_LIKELY).log()
    return nats
