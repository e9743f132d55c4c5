"""Pairs to learn from: of an image a noisy input, a target, and the level of the input's noise.

This is c of the equation. From a clean image the input is the image with noise added, and the
target is the image itself. From a noisy image both are made so that the noise of the input and the
noise of the target are independent. With the squared distance the network then learns the clean
image although it never sees one: noise in the target that cannot be predicted from the input only
adds a constant to the loss (Lehtinen et al., "Noise2Noise", 2018, arXiv:1803.04189).

Levels are standard deviations on the scale where white is 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

# 4 %: about the error of an estimate of the noise level, which the network gets when it denoises
LEVEL_ERROR = 0.04


class NoisePairs(nn.Module):
    """The contract: from images (B, C, H, W) make pairs to learn from."""

    def pair(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Input and target, both (B, C, h, w), and the level of the input's noise, (B, 1, 1, 1)."""
        raise NotImplementedError


class AddedNoise(NoisePairs):
    """x ↦ (x + ε, x), ε ~ N(0, s²), for clean x; s is drawn for each image from [low, high].

    The level that the network is given is s with a random error of 4 %, because the level will
    be estimated when an image is denoised. Of a batch of colour images one in eight becomes grey,
    with the same noise in all channels, so that the network can denoise grey images too.

    Parameters
    ----------
    low, high : float
        Range of the noise's standard deviation.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def extra_repr(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"

    def pair(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        shape = (len(x), 1, 1, 1)
        u = torch.rand(shape, generator=rng, device=x.device)
        level = self.low + (self.high - self.low) * u
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        if x.shape[1] > 1:
            n_grey = len(x) // 8
            x = torch.cat([x[:n_grey].mean(1, keepdim=True).expand_as(x[:n_grey]), x[n_grey:]])
            # an image may also be grey by itself
            grey = (x == x[:, :1]).flatten(1).all(1).view(shape)
            noise = torch.where(grey, noise[:, :1], noise)
        error = 1 + LEVEL_ERROR * torch.randn(shape, generator=rng, device=x.device)
        return x + level * noise, x, level * error


class RecorruptedToRecorrupted(NoisePairs):
    """y ↦ (y + α n, y − n / α), n ~ N(0, level²), for y with white Gaussian noise of that level.

    If y = x + e with e ~ N(0, level²), the noises e + α n and e − n / α have the covariance
    level² − level² = 0, so they are independent. Source: Pang, Zheng, Quan & Ji,
    "Recorrupted-to-recorrupted", CVPR 2021.

    Parameters
    ----------
    level : float
        The standard deviation of the noise in y.
    alpha : float
        Small: the input is close to y and the target is noisy. Large: the other way round.
    """

    def __init__(self, level: float, alpha: float = 0.5) -> None:
        super().__init__()
        self.level, self.alpha = level, alpha

    def extra_repr(self) -> str:
        return f"level={self.level:.4g}, alpha={self.alpha:g}"

    def pair(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype) * self.level
        # the variances of e and of α n add up
        level = x.new_full((len(x), 1, 1, 1), self.level * math.hypot(1, self.alpha))
        return x + self.alpha * noise, x - noise / self.alpha, level


class ZeroShotNoise2Noise(NoisePairs):
    """y ↦ two images of half the size made of different pixels.

    For any noise with mean 0 that is independent from pixel to pixel. Of every 2 × 2 pixels the
    mean of one diagonal goes to the input and the mean of the other to the target; which one is
    drawn for each image. Detail that only the full size shows is not learned. Source: Mansour &
    Heckel, "Zero-shot Noise2Noise", CVPR 2023, arXiv:2303.11253.

    Parameters
    ----------
    level : float
        The standard deviation of the noise in y, whose sides must be even.
    """

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def extra_repr(self) -> str:
        return f"level={self.level:.4g}"

    def pair(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        cells = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
        first, second = cells[:, :, (0, 3)].mean(2), cells[:, :, (1, 2)].mean(2)
        swapped = torch.rand((len(x), 1, 1, 1), generator=rng, device=x.device) < 0.5
        # the mean of two pixels has half the variance
        level = x.new_full((len(x), 1, 1, 1), self.level / math.sqrt(2))
        return torch.where(swapped, second, first), torch.where(swapped, first, second), level
