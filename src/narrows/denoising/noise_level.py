"""How noisy an image is, from the image alone.

Small patches of a clean image lie near a plane of few dimensions; white noise fills all dimensions
alike. So the smallest eigenvalues of the patches' covariance are the variance of the noise: what
PCA leaves over.
"""

from __future__ import annotations

import math
import numbers
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 8  # of a patch; its square is the number of eigenvalues
KEPT = 2  # of the smallest eigenvalues: more of them hold more of the image's texture
MOST = 2**16  # patches looked at
BINS = 10  # of brightness, for noise that grows with it
FEWEST = 4 * SIDE**2  # patches of like brightness from which a covariance can be told


def noise_level(image: Tensor) -> float:
    """The standard deviation of white noise in an image, in the image's own unit.

        σ² = mean of the smallest eigenvalues of cov(patches) / the same of noise with σ = 1

    Patches are 8 × 8 (smaller in smaller images). After Chen, Zhu & Heng, "An efficient statistical
    method for image noise level estimation", ICCV 2015, who take as many eigenvalues as are alike;
    here it is the smallest two, and what chance makes of them is found from noise made for it.
    Fine texture counts as noise. Patches that are clipped at black or white are left out, as far
    as there are others; where all are, the noise is found smaller than it was.

    Parameters
    ----------
    image : Tensor of shape (H, W) or (C, H, W)
        Channels are looked at one by one; the answer is the root of their mean variance.

    Examples
    --------
    >>> rng = torch.Generator().manual_seed(0)
    >>> ramp = torch.linspace(0, 1, 128).expand(128, 128)
    >>> round(noise_level(ramp + 0.1 * torch.randn(128, 128, generator=rng)), 2)
    0.1
    """
    planes = image if image.ndim == 3 else image[None]
    variances = [_variance(_patches(plane)) for plane in planes]
    return math.sqrt(sum(variances) / len(variances))


def photon_noise(image: Tensor) -> tuple[float, float]:
    """a and b of noise whose variance is a·x + b² where the clean image is x: photons and reading.

    The variance is found as in ``noise_level`` among patches of like brightness, and a line is
    laid through it (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE TIP 17, 2008, has the model). Both are at least 0.

    Parameters
    ----------
    image : Tensor of shape (H, W) or (C, H, W)
    """
    planes = image if image.ndim == 3 else image[None]
    means, variances = [], []
    for plane in planes:
        patches = _patches(plane)
        if len(patches) < FEWEST:
            continue
        brightness = patches.mean(1)
        edges = torch.quantile(_some(brightness), torch.linspace(0, 1, BINS + 1).to(brightness))
        for low, high in pairwise(edges):
            inside = patches[(brightness >= low) & (brightness <= high)]
            if len(inside) >= FEWEST:
                means.append(float(inside.mean()))
                variances.append(_variance(inside))
    if not means:
        return 0.0, noise_level(image)
    return _line(torch.tensor(means).double(), torch.tensor(variances).double())


def _some(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // 2**20)]  # torch.quantile takes 2**24 numbers at most


def _patches(plane: Tensor) -> Tensor:
    """Patches of an (H, W) image as rows; of a large one those on a coarser grid."""
    plane = plane.float()
    height, width = plane.shape
    # a covariance needs several times as many patches as they have pixels
    sizes = range(min(SIDE, height, width), 0, -1)
    side = next((s for s in sizes if (height - s + 1) * (width - s + 1) >= 4 * s * s), 1)
    count = (height - side + 1) * (width - side + 1)
    step = max(1, math.ceil(math.sqrt(count / MOST)))
    cut = plane.unfold(0, side, step).unfold(1, side, step).reshape(-1, side * side)
    cut = cut[cut.amax(1) > cut.amin(1)]  # a border of one colour has no noise to tell of
    if not len(cut):
        return cut
    # where several pixels of a patch stand at an end, the noise was clipped there
    ends = (cut == plane.min()) | (cut == plane.max())
    whole = cut[ends.sum(1) <= 1]
    return whole if len(whole) >= 4 * side * side else cut


def _variance(patches: Tensor) -> float:
    """The variance of white noise in patches, (n, d)."""
    n, d = patches.shape
    if n < 2 or d < 2:
        return 0.0  # a single pixel says nothing of its noise
    return _smallest(patches) / _smallest_of_noise(n, d)


def _smallest(patches: Tensor) -> float:
    centred = (patches - patches.mean(0)).double()
    values = torch.linalg.eigvalsh(centred.T @ centred / (len(patches) - 1))
    return float(values[:KEPT].clamp_min(0.0).mean())


@lru_cache(maxsize=64)
def _smallest_of_noise(n: int, d: int) -> float:
    """What chance makes of the smallest eigenvalues of n patches of pure noise: below 1."""
    rng = torch.Generator().manual_seed(0)
    side = round(math.sqrt(d))
    rows = math.ceil(math.sqrt(n)) + side - 1  # patches overlap, as those of an image do
    noise = torch.randn((rows, rows), generator=rng)
    cut = noise.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, d)[:n]
    return max(_smallest(cut), 1e-3)


def _line(means: Tensor, variances: Tensor) -> tuple[float, float]:
    """a ≥ 0 and b ≥ 0 of variance = a·mean + b², by least absolute deviations."""
    weights = torch.ones_like(means)
    a = b = 0.0
    for _ in range(50):  # least squares, again and again, with far points counting less
        total = weights.sum()
        x, y = (weights * means).sum() / total, (weights * variances).sum() / total
        spread = (weights * (means - x).square()).sum()
        slope = float((weights * (means - x) * (variances - y)).sum() / spread) if spread > 0 else 0
        a = max(0.0, slope)
        b = float(y) - a * float(x)
        if b < 0:  # through the origin
            b, square = 0.0, float((weights * means.square()).sum())
            a = max(0.0, float((weights * means * variances).sum()) / square) if square > 0 else 0.0
        off = (variances - a * means - b).abs()
        weights = 1.0 / off.clamp_min(1e-3 * float(variances.median()) + 1e-12)
    return a, math.sqrt(b)


def stabilizer(image: Tensor) -> Stabilizer | None:
    """What makes an image's photon noise white; None where there is none to speak of."""
    a, b = photon_noise(image)
    least = 1e-6 * float(image.abs().max())
    return Stabilizer(a, b) if a > least else None


class Stabilizer:
    """Make noise of variance a·x + b² the same everywhere, and back.

        t(x) = (2/a) √(a x + 3/8 a² + b²)

    has noise of variance close to 1 (the generalised Anscombe transform); the way back is the
    closed form of its exact unbiased inverse. Source: Mäkitalo & Foi, "Optimal inversion of the
    generalized Anscombe transformation for Poisson-Gaussian noise", IEEE TIP 22 (2013).

    Parameters
    ----------
    a, b : float
        a above 0, in the image's unit; b the standard deviation of what does not grow with it.
    """

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        """t(x); below where the root has a number, 0."""
        return 2 / self.a * torch.sqrt(F.relu(self.a * x + 0.375 * self.a**2 + self.b**2))

    def inverse(self, t: Tensor) -> Tensor:
        """The x whose noisy t(x) is t on average."""
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


def is_level(value: Any) -> bool:
    """Whether ``value`` can be a standard deviation: a number from 0."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return bool(number and 0 <= value < math.inf)
