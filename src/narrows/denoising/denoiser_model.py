"""The Denoiser's network: a U-Net without biases, for images of any size.

The encoder f gives feature maps at ever coarser resolutions; the coarsest is the code. The decoder
g goes back to full resolution and adds the encoder's map of each resolution on its way, as RED-Net
does (Mao, Shen & Yang 2016, arXiv:1606.08921) and U-Net (Ronneberger, Fischer & Brox 2015,
arXiv:1505.04597). The network predicts the noise: g(f(y)) is subtracted from y, and it is 0 before
training.

Without biases, f(a·y, a·s) = a·f(y, s) for every a ≥ 0: a network that has learned to remove noise
of one level removes other levels too (Mohan et al. 2020, arXiv:1906.05478).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Trace
from narrows.denoising.noise_pairs import NoisePairs
from narrows.exceptions import ParameterError
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.model import in_words
from narrows.parts.objective import WeightedObjective
from narrows.training.batches import Rows
from narrows.training.patches import SYMMETRIES, fill, symmetry, undo_symmetry

TILE_SIDE = 512  # pixels: larger images are denoised tile by tile, to bound the memory


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class ConvResidualBlock(nn.Module):
    """h + conv(relu(conv(h))), (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.second(F.relu(self.first(h)))
        return out


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ConvResidualBlock(width) for _ in range(blocks)))


class UNetEncoder(nn.Module):
    """f: image (B, C, H, W), noise level (B, 1, 1, 1) ↦ maps of width w₁, w₂, ... at H, H/2, ...

    The level is one more channel with the same value everywhere (Zhang, Zuo & Zhang, "FFDNet",
    2018, arXiv:1710.04026). H and W must be multiples of ``size_multiple(widths)``.
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


class UNetDecoder(nn.Module):
    """g: the maps of a ``UNetEncoder`` ↦ (B, C, H, W); transposed convolutions double the size."""

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
        out: Tensor = self.tail(h)
        return out


def unet(
    channels: int, widths: Sequence[int], blocks: int, rng: Generator | None
) -> tuple[UNetEncoder, UNetDecoder]:
    """f and g with weights drawn from ``rng``; with None the weights are left for a file to fill.

    He's normal weights (He et al. 2015, arXiv:1502.01852). The second convolution of a residual
    block starts at a tenth of that, and g's last convolution at zero.
    """
    if not widths:
        raise ParameterError("channels is empty; give at least one width, as channels=(16, 32).")
    f, g = UNetEncoder(channels, widths, blocks), UNetDecoder(channels, widths, blocks)
    modules = [] if rng is None else [*f.modules(), *g.modules()]
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # how many inputs one output sums; a transposed convolution of stride 2 does not overlap
            taps = 1 if isinstance(module, nn.ConvTranspose2d) else module.weight[0, 0].numel()
            deviation = (2.0 / (module.in_channels * taps)) ** 0.5
            nn.init.normal_(module.weight, 0.0, deviation, generator=rng)
    for module in modules:
        if isinstance(module, ConvResidualBlock):
            module.second.weight.data.mul_(0.1)
    nn.init.zeros_(g.tail.weight)
    return f, g


def size_multiple(widths: Sequence[int]) -> int:
    """What the height and width of the network's input must be multiples of."""
    return int(2 ** (len(widths) - 1))


def receptive_radius(widths: Sequence[int], blocks: int) -> int:
    """How many pixels away an input may influence an output, rounded up to ``size_multiple``."""
    multiple = size_multiple(widths)
    total = 2 + multiple  # one pixel each for head and tail; the strided convolutions
    for level in range(len(widths)):
        # f and g have a stage at every resolution, but only f has the coarsest
        n_convolutions = 2 * blocks * (1 if level == len(widths) - 1 else 2)
        total += n_convolutions * 2**level
    return -(-total // multiple) * multiple


class DenoiserModel(nn.Module):
    """y ↦ y − g(f(y, s)), for images of any size with noise of level s (white is 1).

    The code is f's coarsest map.

    Parameters
    ----------
    f, g : UNetEncoder and UNetDecoder
    D : Likelihood
        The distance between the output and the target.
    c : NoisePairs
        Makes input and target of an image.
    """

    def __init__(self, f: UNetEncoder, g: UNetDecoder, D: Likelihood, c: NoisePairs) -> None:
        super().__init__()
        self.f, self.g, self.D, self.c = f, g, D, c

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int = 1) -> Trace:
        y, target, level = self.c.pair(x, rng)
        maps = self.f(y, level)
        output = (y - self.g(maps)).float()[None]
        with torch.autocast(x.device.type, enabled=False):
            distance = self.D.distance(target, output)
        return Trace(target, y, None, [Node(maps[-1][None])], output, distance, clock, rng)

    def restore(self, y: Tensor, level: float | Tensor) -> Tensor:
        """The images (B, C, H, W) without their noise; sides must be multiples of ``multiple``.

        ``level`` is a number, or one for each image, (B, 1, 1, 1).
        """
        if not isinstance(level, Tensor):
            level = y.new_full((len(y), 1, 1, 1), level)
        restored: Tensor = y - self.g(self.f(y, level))
        return restored

    @torch.no_grad()
    def restore_image(self, image: Tensor, level: float, views: int) -> Tensor:
        """An image (C, H, W) of any size without its noise.

        ``views`` is 1, or 8 for the mean over the image's eight rotations and mirror images.
        """
        total = torch.zeros_like(image)
        for k in range(views):
            total += undo_symmetry(self._restore_tiles(symmetry(image, k % SYMMETRIES), level), k)
        return total / views

    def _restore_tiles(self, image: Tensor, level: float) -> Tensor:
        """The same for one view, tile by tile: seams cannot show, as tiles see all they depend on.

        Tiles begin at multiples of ``multiple``, so their grid is that of the whole image.
        """
        height, width = image.shape[-2:]
        multiple = self.multiple
        rows, columns = (-(-side // multiple) * multiple for side in (height, width))
        padded = fill(image, rows, columns)
        out = torch.empty_like(padded)
        radius = receptive_radius(self.f.widths, self.f.blocks)
        for (top, bottom, first, last), (left, right, start, stop) in product(
            tile_spans(rows, radius, multiple), tile_spans(columns, radius, multiple)
        ):
            tile = self.restore(padded[None, :, first:last, start:stop], level)[0]
            inner = tile[:, top - first : bottom - first, left - start : right - start]
            out[:, top:bottom, left:right] = inner
        return out[:, :height, :width]

    @torch.no_grad()
    def mean_psnr(self, rows: Rows, seed: int) -> tuple[float, float]:
        """Mean PSNR in decibels of noisy patches, and of the same patches denoised.

        The noise is that of training, drawn from ``seed``.
        """
        rng = torch.Generator(rows.data.device).manual_seed(seed)
        before, after = 0.0, 0.0
        for x in rows.in_order(64):
            y, clean, level = self.c.pair(x, rng)
            before += float(-10 * _log10_mse(clean, y).sum())
            after += float(-10 * _log10_mse(clean, self.restore(y, level)).sum())
        return before / len(rows), after / len(rows)

    @property
    def multiple(self) -> int:
        """What the height and width of an input must be multiples of."""
        return size_multiple(self.f.widths)

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        words = {"f": in_words(self.f), "g": in_words(self.g)}
        for name, network in {"f": self.f, "g": self.g}.items():
            words[name] += f"  ({sum(p.numel() for p in network.parameters()):,} parameters)"
        return {**words, "c": in_words(self.c), "D": in_words(self.D)}


def tile_spans(length: int, radius: int, multiple: int) -> Iterator[tuple[int, int, int, int]]:
    """Tiles along one axis: start and stop of each, and first and last of the pixels it depends on.

    ``radius`` is how far that dependence reaches; all but ``length`` are multiples of ``multiple``.
    """
    side = max(1, TILE_SIDE // multiple) * multiple
    for start in range(0, length, side):
        stop = min(start + side, length)
        yield start, stop, max(0, start - radius), min(length, stop + radius)


def _log10_mse(x: Tensor, output: Tensor) -> Tensor:
    """log₁₀ of each image's mean squared error; bounded, as equal images have no finite one."""
    return (x - output).square().flatten(1).mean(1).clamp_min(1e-12).log10()


class PSNRObjective(WeightedObjective):
    """E D(x, y − g(f(y))), and as its score minus the mean PSNR in decibels: lower is better.

        PSNR = −10 log₁₀ mean (x − x')², white being 1

    When the targets are noisy, the score only ranks models; it says nothing about clean images.
    """

    def score(self, trace: Trace) -> Tensor:
        return _log10_mse(trace.x, trace.output[0]).mean() * 10

    def in_words(self, score: float) -> str:
        """The PSNR that a score stands for."""
        return f"{-score:.2f} dB"
