"""f and g for whole images of any size: convolutions with skips around the code, without biases.

f gives a pyramid of feature maps, the finest first; the coarsest is the code. g goes back up and
adds the finer maps on its way, as RED-Net does (Mao, Shen & Yang 2016, arXiv:1606.08921) and U-Net
(Ronneberger, Fischer & Brox 2015, arXiv:1505.04597). What they make is what is *wrong* with the
image: g(f(y)) is taken off y, and is 0 before anything is learned.

Without biases, f(a·y, a·s) = a·f(y, s) for every a ≥ 0: a network that has learned to remove one
level of noise removes others too (Mohan et al. 2020, arXiv:1906.05478).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows.exceptions import ParameterError


def _conv(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, bias=False)


class Residual(nn.Module):
    """h + conv(relu(conv(h))), (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, h: Tensor) -> Tensor:
        answer: Tensor = h + self.second(F.relu(self.first(h)))
        return answer


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width) for _ in range(blocks)))


class Pyramid(nn.Module):
    """f: image (B, C, H, W) and noise level (B, 1, 1, 1) ↦ maps of width w₁, w₂, ... at H, H/2, ...

    The level is one more channel, the same everywhere (Zhang, Zuo & Zhang, "FFDNet", 2018,
    arXiv:1710.04026). H and W must be multiples of ``multiple(widths)``.
    """

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.widths, self.blocks = tuple(widths), blocks
        self.head = _conv(channels + 1, widths[0])
        self.stages = nn.ModuleList(_stage(width, blocks) for width in widths)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2, bias=False) for a, b in pairwise(widths)
        )

    def __repr__(self) -> str:
        falling = "→".join(map(str, self.widths))
        return f"convolutions 3×3 of widths {falling}, halved {len(self.widths) - 1} times"

    def forward(self, y: Tensor, level: Tensor) -> list[Tensor]:
        plane = level.expand(-1, 1, *y.shape[2:])
        # channels last: the order in memory in which convolutions are fast
        h = torch.cat([y, plane], 1).contiguous(memory_format=torch.channels_last)
        maps = [self.stages[0](self.head(h))]
        for down, stage in zip(self.down, list(self.stages)[1:], strict=True):
            maps.append(stage(down(maps[-1])))
        return maps


class Rebuild(nn.Module):
    """g: the maps of a ``Pyramid`` ↦ (B, C, H, W); each transposed convolution mirrors one of f."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2, bias=False) for a, b in pairwise(widths)
        )
        self.stages = nn.ModuleList(_stage(width, blocks) for width in widths[:-1])
        self.tail = _conv(widths[0], channels)

    def __repr__(self) -> str:
        rising = "→".join(map(str, reversed(self.widths)))
        return f"transposed convolutions of widths {rising}, each with f's map added"

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        h = maps[-1]
        for i in reversed(range(len(self.up))):
            h = self.stages[i](self.up[i](h) + maps[i])
        answer: Tensor = self.tail(h)
        return answer


def whole_networks(
    channels: int, widths: Sequence[int], blocks: int, rng: Generator | None
) -> tuple[Pyramid, Rebuild]:
    """f and g with weights drawn from ``rng``; without it nothing is drawn (for a skeleton).

    He's normal weights (He et al. 2015, arXiv:1502.01852); a residual's second convolution starts
    at a tenth of that, and g's last at zero.
    """
    if not widths:
        raise ParameterError("channels must name at least one width. Got none.")
    f, g = Pyramid(channels, widths, blocks), Rebuild(channels, widths, blocks)
    if rng is not None:
        for net in (f, g):
            for module in net.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    # the inputs of one answer: a transposed convolution of stride 2 has no overlap
                    fan = module.in_channels * (
                        1 if isinstance(module, nn.ConvTranspose2d) else module.weight[0, 0].numel()
                    )
                    nn.init.normal_(module.weight, 0.0, (2.0 / fan) ** 0.5, generator=rng)
            for module in net.modules():
                if isinstance(module, Residual):
                    module.second.weight.data.mul_(0.1)
        nn.init.zeros_(g.tail.weight)
    return f, g


def reach(widths: Sequence[int], blocks: int) -> int:
    """How far, in pixels, an answer may depend on what lies beside it: half the receptive field.

    A multiple of ``multiple(widths)``, so that tiles laid by it line up with the strides.
    """
    step = multiple(widths)
    total = 2  # head and tail
    for level in range(len(widths)):
        convolutions = 2 * blocks * (1 if level == len(widths) - 1 else 2)
        total += convolutions * 2**level
    total += step  # the strides' own cells
    return -(-total // step) * step


def multiple(widths: Sequence[int]) -> int:
    """What both sides of an image must be multiples of."""
    return int(2 ** (len(widths) - 1))
