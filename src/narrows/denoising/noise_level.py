"""Estimate how noisy a photograph is, from the photograph alone; make photon noise white.

Small patches of a clean image lie near a plane of few dimensions, while white noise spreads over
all dimensions equally. So the smallest eigenvalues of the covariance of the patches, which PCA
would leave out, are the variance of the noise.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_SIDE = 8  # pixels; a patch has 64, and the covariance as many eigenvalues
N_EIGENVALUES = 2  # the smallest ones; further ones hold more of the image's texture
MAX_PATCHES = 2**16
BRIGHTNESS_BINS = 10
MIN_PATCHES_IN_BIN = 4 * PATCH_SIDE**2  # a covariance needs more patches than they have pixels
MAX_QUANTILE_VALUES = 2**20  # torch.quantile takes at most 2**24 numbers


def estimate_noise_level(image: Tensor) -> float:
    """The standard deviation of white noise in an image, in the image's own unit.

        σ² = mean of the smallest eigenvalues of cov(patches) / the same of noise with σ = 1

    Patches are 8 × 8 (smaller in smaller images). After Chen, Zhu & Heng, "An efficient statistical
    method for image noise level estimation", ICCV 2015, who choose the number of eigenvalues from
    the data; here it is the smallest two, compared with those of simulated noise. Fine texture
    counts as noise. Patches that are clipped at black or white are left out if enough others
    remain; if not, the estimate is too low.

    Parameters
    ----------
    image : Tensor of shape (H, W) or (C, H, W)
        Each channel is estimated alone; the answer is the root of their mean variance.

    Examples
    --------
    >>> rng = torch.Generator().manual_seed(0)
    >>> ramp = torch.linspace(0, 1, 128).expand(128, 128)
    >>> round(estimate_noise_level(ramp + 0.1 * torch.randn(128, 128, generator=rng)), 2)
    0.1
    """
    planes = image if image.ndim == 3 else image[None]
    variances = [_noise_variance(_patches(plane)) for plane in planes]
    return math.sqrt(sum(variances) / len(variances))


def estimate_photon_noise(image: Tensor) -> tuple[float, float]:
    """a and b of noise whose variance is a·x + b² where the clean image is x.

    a comes from counting photons, b from reading the sensor; both are at least 0. The variance is
    estimated as in ``estimate_noise_level`` from patches of similar brightness, ten times, and a
    line is fitted to it (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE TIP 17, 2008, has the model).

    Parameters
    ----------
    image : Tensor of shape (H, W) or (C, H, W)
    """
    planes = image if image.ndim == 3 else image[None]
    means, variances = [], []
    for plane in planes:
        patches = _patches(plane)
        if len(patches) < MIN_PATCHES_IN_BIN:
            continue
        brightness = patches.mean(1)
        some = brightness[:: max(1, len(brightness) // MAX_QUANTILE_VALUES)]
        edges = torch.quantile(some, torch.linspace(0, 1, BRIGHTNESS_BINS + 1).to(some))
        for low, high in pairwise(edges):
            inside = patches[(brightness >= low) & (brightness <= high)]
            if len(inside) >= MIN_PATCHES_IN_BIN:
                means.append(float(inside.mean()))
                variances.append(_noise_variance(inside))
    if not means:
        return 0.0, estimate_noise_level(image)
    return _fit_line(torch.tensor(means).double(), torch.tensor(variances).double())


def _unfold(plane: Tensor, side: int, step: int) -> Tensor:
    """The square patches of an (H, W) image as rows, (n, side²); one every ``step`` pixels."""
    return plane.unfold(0, side, step).unfold(1, side, step).reshape(-1, side * side)


def _patches(plane: Tensor) -> Tensor:
    """Patches of an (H, W) image that are not clipped, as rows; of a large image only some."""
    plane = plane.float()
    height, width = plane.shape
    # as in MIN_PATCHES_IN_BIN: four times as many patches as they have pixels
    sizes = range(min(PATCH_SIDE, height, width), 0, -1)
    side = next((s for s in sizes if (height - s + 1) * (width - s + 1) >= 4 * s * s), 1)
    count = (height - side + 1) * (width - side + 1)
    patches = _unfold(plane, side, max(1, math.ceil(math.sqrt(count / MAX_PATCHES))))
    patches = patches[patches.amax(1) > patches.amin(1)]  # a border of one colour has no noise
    if not len(patches):
        return patches
    # noise that was clipped makes several pixels of a patch black or white
    extreme = (patches == plane.min()) | (patches == plane.max())
    unclipped = patches[extreme.sum(1) <= 1]
    return unclipped if len(unclipped) >= 4 * side * side else patches


def _noise_variance(patches: Tensor) -> float:
    """The variance of white noise in patches, (n, d)."""
    n, d = patches.shape
    if n < 2 or d < 2:
        return 0.0  # noise cannot be estimated from single pixels
    return _smallest_eigenvalues(patches) / _smallest_eigenvalues_of_noise(n, d)


def _smallest_eigenvalues(patches: Tensor) -> float:
    """Their mean."""
    centred = (patches - patches.mean(0)).double()
    values = torch.linalg.eigvalsh(centred.T @ centred / (len(patches) - 1))
    return float(values[:N_EIGENVALUES].clamp_min(0.0).mean())


@lru_cache(maxsize=64)
def _smallest_eigenvalues_of_noise(n: int, d: int) -> float:
    """The same of n patches of simulated noise with σ = 1: below 1, as the smallest of a sample."""
    rng = torch.Generator().manual_seed(0)
    side = round(math.sqrt(d))
    rows = math.ceil(math.sqrt(n)) + side - 1  # patches overlap, as those of an image do
    noise = torch.randn((rows, rows), generator=rng)
    return max(_smallest_eigenvalues(_unfold(noise, side, 1)[:n]), 1e-3)


def _fit_line(means: Tensor, variances: Tensor) -> tuple[float, float]:
    """a ≥ 0 and b ≥ 0 of variance = a·mean + b², by least absolute deviations.

    Least squares 50 times, each time with weights that are the inverse distances to the last line.
    """
    weights = torch.ones_like(means)
    a = b = 0.0
    for _ in range(50):
        total = weights.sum()
        x, y = (weights * means).sum() / total, (weights * variances).sum() / total
        spread = (weights * (means - x).square()).sum()
        slope = float((weights * (means - x) * (variances - y)).sum() / spread) if spread > 0 else 0
        a = max(0.0, slope)
        b = float(y) - a * float(x)
        if b < 0:  # a line through the origin
            b, square = 0.0, float((weights * means.square()).sum())
            a = max(0.0, float((weights * means * variances).sum()) / square) if square > 0 else 0.0
        distances = (variances - a * means - b).abs()
        weights = 1.0 / distances.clamp_min(1e-3 * float(variances.median()) + 1e-12)
    return a, math.sqrt(b)


class AnscombeTransform:
    """Stabilise the variance of photon noise: a·x + b² becomes 1 everywhere, and back.

        t(x) = (2/a) √(a x + 3/8 a² + b²)

    is the generalised Anscombe transform; the inverse is the closed form of its exact unbiased
    inverse. Source: Mäkitalo & Foi, "Optimal inversion of the generalized Anscombe transformation
    for Poisson-Gaussian noise", IEEE TIP 22 (2013).

    Parameters
    ----------
    a, b : float
        The noise, as ``estimate_photon_noise`` gives it; a above 0.
    """

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        """t(x); 0 where the root is of a number below 0."""
        return 2 / self.a * torch.sqrt(F.relu(self.a * x + 0.375 * self.a**2 + self.b**2))

    def inverse(self, t: Tensor) -> Tensor:
        """The clean x of which noisy values have the mean t after the transform."""
        d = t.clamp_min(2 * math.sqrt(0.375 + (self.b / self.a) ** 2)).double()
        photons = (
            d.square() / 4
            + math.sqrt(1.5) / 4 / d
            - 11 / 8 / d.square()
            + 5 / 8 * math.sqrt(1.5) / d**3
            - 1 / 8
            - (self.b / self.a) ** 2
        )
        return (self.a * photons).to(t.dtype)


def fit_anscombe(image: Tensor) -> AnscombeTransform | None:
    """The transform that makes an image's photon noise white; None if it has no photon noise."""
    a, b = estimate_photon_noise(image)
    negligible = 1e-6 * float(image.abs().max())
    return AnscombeTransform(a, b) if a > negligible else None
