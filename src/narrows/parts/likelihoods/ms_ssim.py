"""MS-SSIM: a D that compares images by local means, contrasts and patterns, at several scales."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from narrows.exceptions import InputError
from narrows.parts.likelihoods.base import DataUnitsLikelihood, Range

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the paper's, of the scales, finest first
WINDOW, MIN_WINDOW = 11, 3  # side of the window, in pixels
SIGMA = 1.5  # standard deviation of the window's Gaussian, in pixels
MIN_SIMILARITY = 1e-4  # of one scale: a fractional power of a negative number does not exist


def scales_for(size: tuple[int, int]) -> tuple[int, tuple[float, ...]]:
    """The side of the window, odd, and the weight of each scale, for images of this size.

    The window has 11 pixels, fewer if the shorter side of the image is below twice that. Every
    further scale halves the image, while the window still fits, up to the five of the paper. The
    weights sum to one.

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


class MSSSIM(DataUnitsLikelihood):
    """n (1 − MS-SSIM(x, g(z))) for images of n elements.

    MS-SSIM = mean(l_M c_M)^w_M Π_{j<M} mean(c_j)^w_j over the scales j = 1, ..., M: c compares
    contrast and pattern, l local means, at the last scale only. Means are over all positions of a
    Gaussian window; the result is averaged over channels. Images are halved as pytorch-msssim does
    it. The constants are those of the paper, 0.01 and 0.03 of each channel's range in the data. It
    is no density. Pixels where a mask is 0 count as equal.

    Source: Wang, Simoncelli & Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003.
    """

    density = False

    @classmethod
    def validate(cls, found: Range, support: tuple[int, ...] | None) -> None:
        shape = tuple(found.each[0].shape)
        if len(shape) != 3 or scales_for((shape[1], shape[2]))[0] < MIN_WINDOW:
            side = 2 * MIN_WINDOW
            raise InputError(
                f'distance="ms_ssim" needs images of at least {side} × {side} pixels, but a sample '
                f"of X has shape {shape}; choose another distance."
            )

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        super().build(shape, support)
        self.n = math.prod(shape)
        self.window, self.weights = scales_for((shape[1], shape[2]))

    @torch.no_grad()
    def set_data_units(self, shift: Tensor, scale: Tensor, found: Range) -> None:
        # from scaled units to [0, 1], for which MS-SSIM is defined
        spread = torch.where(found.high > found.low, found.high - found.low, 1.0)
        super().set_data_units((shift - found.low) / spread, scale / spread, found)
        self.float()  # as the images

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None = None) -> Tensor:
        a, b = (t * self.scale + self.shift for t in (x, output))
        if mask is not None:
            a, b = a * mask, b * mask
        return self.n * (1 - self.similarity(a.expand_as(b), b))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """MS-SSIM of images (..., C, H, W) with values in [0, 1] → (...), at most 1."""
        total = a.new_ones(())
        for j, weight in enumerate(self.weights):
            if j:
                a, b = (_halved(t) for t in (a, b))
            luminance, contrast = _compared(a, b, self.window)
            last = j == len(self.weights) - 1
            each = (luminance * contrast if last else contrast).mean((-2, -1))
            total = total * each.clamp(min=MIN_SIMILARITY) ** weight
        return total.mean(-1)


def _halved(x: Tensor) -> Tensor:
    """Means of 2 × 2 pixels; an odd side gets a zero at both ends, as in pytorch-msssim."""
    odd = [n % 2 for n in x.shape[-2:]]
    halved: Tensor = F.avg_pool2d(x.flatten(0, -3), 2, padding=odd).unflatten(0, x.shape[:-2])
    return halved


def _compared(a: Tensor, b: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Luminance l, and contrast with structure c, at each position of the window."""
    down, across = (_blur(n, window, a.device) for n in a.shape[-2:])

    def local(x: Tensor) -> Tensor:
        return down @ x @ across.T

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = local(a), local(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = local(a * b) - product, local(a.square() + b.square()) - squares
    return (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)


def _blur(n: int, window: int, device: torch.device) -> Tensor:
    """The matrix (n − window + 1, n) from n numbers to their Gaussian means under a window."""
    # a matrix product is exact in float32; a convolution on a GPU may round to 10 bits (TF32)
    places = torch.arange(n - window + 1, device=device)[:, None]
    offsets = torch.arange(n, device=device) - places - window // 2
    weight = torch.exp(-0.5 * (offsets / SIGMA) ** 2) * (offsets.abs() <= window // 2)
    return weight / weight.sum(1, keepdim=True)
