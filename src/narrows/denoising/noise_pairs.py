"""c for whole images: from an image an input, a target to compare with, and the noise's level.

From clean images the input is noise added and the target the image. From noisy ones both are made
so that their noises are independent: with squared distance, what a network then learns is the clean
image, which nobody has, for noise in the target that the input does not know of only adds a
constant to the loss (Lehtinen et al., "Noise2Noise", 2018, arXiv:1803.04189).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

Pair = tuple[Tensor, Tensor, Tensor]  # input, target, and the level of the input's noise
UNSURE = 0.04  # of the level: how well an image's own level will be known when it is cleaned


class AddedNoise(nn.Module):
    """x ↦ (x + ε, x), ε ~ N(0, s²), with s drawn for each image from [low, high].

    The level handed to the network is s, a little wrong on purpose, as it will be when it is found
    in the image. Of colour images an eighth is shown in grey, with one noise for all channels, so
    that grey images can be cleaned, too.

    Parameters
    ----------
    low, high : float
        Standard deviations, white being 1.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def extra_repr(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"

    def pair(self, x: Tensor, rng: Generator) -> Pair:
        """Noisy, clean, and the level, (B, 1, 1, 1)."""
        shape = (len(x), 1, 1, 1)
        u = torch.rand(shape, generator=rng, device=x.device)
        level = self.low + (self.high - self.low) * u
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        if x.shape[1] > 1:
            x = torch.cat([_as_grey(x[: len(x) // 8]), x[len(x) // 8 :]])
            grey = (x == x[:, :1]).flatten(1).all(1).view(shape)
            noise = torch.where(grey, noise[:, :1], noise)
        off = 1 + UNSURE * torch.randn(shape, generator=rng, device=x.device)
        return x + level * noise, x, level * off


def _as_grey(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand_as(x)


class Recorruption(nn.Module):
    """y ↦ (y + α n, y − n / α), n ~ N(0, level²): right for white Gaussian noise of that level.

    If y = x + e with e ~ N(0, level²), the noises e + α n and e − n / α have the covariance
    level² − level² = 0, and so are independent. Source: Pang, Zheng, Quan & Ji,
    "Recorrupted-to-recorrupted", CVPR 2021.

    Parameters
    ----------
    level : float
        The standard deviation of the noise that is in y.
    alpha : float
        Small: an input close to y and a target that is noisy; large: the other way round.
    """

    def __init__(self, level: float, alpha: float = 0.5) -> None:
        super().__init__()
        self.level, self.alpha = level, alpha

    def extra_repr(self) -> str:
        return f"level={self.level:.4g}, alpha={self.alpha:g}"

    def pair(self, y: Tensor, rng: Generator) -> Pair:
        """Input and target, both like y, and the level, (B, 1, 1, 1)."""
        noise = torch.randn(y.shape, generator=rng, device=y.device, dtype=y.dtype)
        noise = noise * self.level
        level = y.new_full((len(y), 1, 1, 1), self.level * math.hypot(1, self.alpha))
        return y + self.alpha * noise, y - noise / self.alpha, level


class Halves(nn.Module):
    """y ↦ two images of half the size, of other pixels: right for any noise that is independent
    between pixels and zero on average.

    Of every 2 × 2 pixels one diagonal makes the mean of the input, the other that of the target,
    which of them being drawn for each image. Detail that only the full size has is learned from
    nothing. Source: Mansour & Heckel, "Zero-shot Noise2Noise", CVPR 2023, arXiv:2303.11253.
    """

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def extra_repr(self) -> str:
        return f"level={self.level:.4g}"

    def pair(self, y: Tensor, rng: Generator) -> Pair:
        """Input and target, (B, C, H/2, W/2), of an image with even sides, and the level."""
        cells = F.pixel_unshuffle(y, 2).unflatten(1, (-1, 4))
        first, second = cells[:, :, (0, 3)].mean(2), cells[:, :, (1, 2)].mean(2)
        swapped = torch.rand((len(y), 1, 1, 1), generator=rng, device=y.device) < 0.5
        level = y.new_full((len(y), 1, 1, 1), self.level / math.sqrt(2))  # a mean of two
        return torch.where(swapped, second, first), torch.where(swapped, first, second), level
