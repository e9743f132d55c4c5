"""D that compares pictures by local means, contrasts and patterns, at several scales."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from narrows.exceptions import InputError
from narrows.parts.likelihoods.base import InUnits

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
WINDOW, SMALLEST_WINDOW = 11, 3  # pixels a side
SIGMA = 1.5  # of the window's Gaussian
SMALLEST = 1e-4  # of a scale's similarity, whose fractional power must exist


def scales_for(size: tuple[int, int]) -> tuple[int, tuple[float, ...]]:
    """The window's side, odd, and each scale's weight, for pictures of this size.

    The window has 11 pixels, fewer if the shorter side has not twice as many; every scale halves
    the picture, as often as the window still fits, at most to the five of the paper; their weights
    sum to one.

    >>> scales_for((256, 256))
    (11, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333))
    >>> scales_for((28, 28))[0], len(scales_for((28, 28))[1])
    (11, 2)
    """
    side = min(size)
    window = min(WINDOW, (side // 2 - 1) // 2 * 2 + 1)
    n = min(len(WEIGHTS), 1 + int(math.log2(max(side, 1) / max(window, 1))))
    total = sum(WEIGHTS[:n])
    return window, WEIGHTS if n == len(WEIGHTS) else tuple(w / total for w in WEIGHTS[:n])


class MSSSIM(InUnits):
    """n (1 − MS-SSIM(x, g(z))) for pictures of n elements (Wang, Simoncelli & Bovik 2003).

    MS-SSIM = l_M^w_M Π_j c_j^w_j over the scales j = 1, ..., M: c compares contrast and pattern at
    each scale, l the local means at the last one alone; both are averaged over a Gaussian window's
    places, and MS-SSIM over the channels. The constants are those of the paper, 0.01 and 0.03 of
    the data's range (each channel's lowest to highest value). It is no density. Pixels that a mask
    hides count as equal: no window sees a difference there.
    """

    density = False

    @classmethod
    def validate(cls, found: Any, kinds: tuple[int, ...] | None) -> None:
        shape = tuple(found.each[0].shape)
        if len(shape) != 3 or scales_for((shape[1], shape[2]))[0] < SMALLEST_WINDOW:
            side = 2 * SMALLEST_WINDOW
            raise InputError(
                f'distance="ms_ssim" compares images of at least {side} × {side} pixels, but an '
                f"event of X has shape {shape}; give such images, or choose another distance."
            )

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        super().build(shape, kinds)
        self.n = math.prod(shape)
        self.window, self.weights = scales_for((shape[1], shape[2]))

    @torch.no_grad()
    def set_data_units(self, scaling: Any, found: Any) -> None:
        # from scaled units to [0, 1], where the measure has its meaning
        spread = torch.where(found.high > found.low, found.high - found.low, 1.0)
        self.scale.copy_((scaling.scale / spread).expand(self.scale.shape))
        self.shift.copy_(((scaling.shift - found.low) / spread).expand(self.shift.shape))

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        a, b = (t * self.scale + self.shift for t in (x, output))
        if mask is not None:
            a, b = a * mask, b * mask
        return self.n * (1 - self.similarity(a.expand_as(b), b))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """MS-SSIM of pictures (..., C, H, W) with values in [0, 1]; (...), at most 1."""
        total = a.new_ones(())
        for j, weight in enumerate(self.weights):
            if j:
                a, b = (_halved(t) for t in (a, b))
            luminance, contrast = _compared(a, b, self.window)
            last = j == len(self.weights) - 1
            each = (luminance * contrast if last else contrast).mean((-2, -1))
            total = total * each.clamp(min=SMALLEST) ** weight
        return total.mean(-1)


def _halved(x: Tensor) -> Tensor:
    halved: Tensor = F.avg_pool2d(x.flatten(0, -3), 2).unflatten(0, x.shape[:-2])
    return halved


def _compared(a: Tensor, b: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast with structure, at each place where the window fits."""
    down, across = (_blur(n, window, a.device) for n in a.shape[-2:])

    def local(x: Tensor) -> Tensor:
        return down @ x @ across.T

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = local(a), local(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = local(a * b) - product, local(a.square() + b.square()) - squares
    return (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)


def _blur(n: int, window: int, device: torch.device) -> Tensor:
    """The matrix that takes n numbers to their Gaussian means where a window fits."""
    # products with it are exact in float32, where a convolution on a GPU may round to 10 bits
    places = torch.arange(n - window + 1, device=device)[:, None]
    apart = torch.arange(n, device=device) - places - window // 2
    weight = torch.exp(-0.5 * (apart / SIGMA) ** 2) * (apart.abs() <= window // 2)
    return weight / weight.sum(1, keepdim=True)
