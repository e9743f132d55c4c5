"""Estimate how noisy a photograph is, from the photograph alone; make photon noise white.

White noise is equally strong at every frequency and place, and texture is not: it is strong at low
frequencies where it is at all. So patches are chosen by their low frequencies, and noise is
measured in their high ones: of white noise the two are independent, and choosing has no bias.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_SIDE = 8  # pixels; a patch has 64 frequencies, of which 28 are high
QUIETEST = 0.02  # the share of the patches, those of least texture, that noise is measured in
MIN_QUIETEST = 512  # patches that overlap; of fewer the estimate is uncertain by more than 5 %
SQUARE_SIDE = 16  # pixels, of the chessboard that divides the patches into halves
WIDER = 4  # times as many patches show how texture adds to the noise
EXTRAPOLATION = 1.5  # to no texture, in steps from v₈ to v₂; chosen on Train400 and Set12, σ 5
MAX_PATCHES = 2**16
BRIGHTNESS_BINS = 10
MIN_PATCHES_IN_BIN = 4 * PATCH_SIDE**2
MAX_QUANTILE_VALUES = 2**20  # torch.quantile takes at most 2**24 numbers


def estimate_noise_level(image: Tensor) -> float:
    """The standard deviation of white noise in an image, in the image's own unit.

        σ² = v₂ − 3/2 (v₈ − v₂),   v = mean square of high DCT coefficients

    of the 2 % of the 8 × 8 patches with the least energy at low frequencies, v₂, and of the 8 %,
    v₈: the difference is texture, and what of it is left in v₂ is subtracted. Of the high
    frequencies the quietest third is used; it is chosen in one half of the patches and measured in
    the other. Clipped patches (black or white) are left out if enough others remain; if not, the
    estimate is too low. Where noise differs between places, it is that of quiet places.

    After Ponomarenko, Lukin, Zriakhov, Kaarna & Astola, "An automatic approach to lossy compression
    of AVIRIS images", IGARSS 2007, and Colom & Buades, "Analysis and extension of the Ponomarenko
    et al. method", IPOL 3 (2013), who choose patches so. ``benchmarks/noise_level.py`` measures it.

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
    variances = [_noise_variance(*_patches(plane))[0] for plane in planes]
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
        patches, squares = _patches(plane)
        if len(patches) < MIN_PATCHES_IN_BIN:
            continue
        brightness = patches.mean(1)
        some = brightness[:: max(1, len(brightness) // MAX_QUANTILE_VALUES)]
        edges = torch.quantile(some, torch.linspace(0, 1, BRIGHTNESS_BINS + 1).to(some))
        for low, high in pairwise(edges):
            inside = (brightness >= low) & (brightness <= high)
            if inside.sum() >= MIN_PATCHES_IN_BIN:
                variance, mean = _noise_variance(patches[inside], squares[inside])
                variances.append(variance)
                means.append(mean)
    if not means:
        return 0.0, estimate_noise_level(image)
    return _fit_line(torch.tensor(means).double(), torch.tensor(variances).double())


def _patches(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of an (H, W) image that are not clipped, as rows; of a large image only some.

    With each goes whether it lies on a black or a white square of a chessboard.
    """
    plane = plane.float()
    height, width = plane.shape
    # four times as many patches as they have pixels
    sizes = range(min(PATCH_SIDE, height, width), 0, -1)
    side = next((s for s in sizes if (height - s + 1) * (width - s + 1) >= 4 * s * s), 1)
    count = (height - side + 1) * (width - side + 1)
    step = max(1, math.ceil(math.sqrt(count / MAX_PATCHES)))
    grid = plane.unfold(0, side, step).unfold(1, side, step)
    down, across = (
        torch.arange(n, device=plane.device) * step // SQUARE_SIDE for n in grid.shape[:2]
    )
    squares = ((down[:, None] + across) % 2 == 1).flatten()
    patches = grid.reshape(-1, side * side)
    low, high = patches.amin(1), patches.amax(1)
    noisy = high > low  # a border of one colour has no noise
    # noise that was clipped makes several pixels of a patch black or white
    ends = plane.aminmax()
    extreme = ((low == ends.min) | (high == ends.max)).nonzero()[:, 0]
    some = patches.index_select(0, extreme)
    unclipped = noisy.clone()
    unclipped[extreme] &= ((some == ends.min) | (some == ends.max)).sum(1) <= 1
    kept = unclipped if unclipped.sum() >= 4 * side * side else noisy
    if not kept.all():
        patches, squares = patches[kept], squares[kept]
    return patches, squares


def _noise_variance(patches: Tensor, squares: Tensor) -> tuple[float, float]:
    """The variance of white noise in patches, (n, side²), and the brightness it belongs to.

    Brightness is extrapolated as the variance is: a line of one over the other stays that line.
    """
    n, side = len(patches), math.isqrt(patches.shape[1])
    if n < 2 or side < 2:
        return 0.0, 0.0  # noise cannot be estimated from single pixels
    place = torch.arange(side, device=patches.device)
    basis = torch.cos(math.pi / side * place[:, None] * (place + 0.5)) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    brightness = patches.mean(1)
    energies = ((patches - brightness[:, None]) @ torch.kron(basis, basis).T).square_()
    order = (place[:, None] + place).flatten()
    texture = energies.index_select(1, (order < side).nonzero()[:, 0])
    by_texture = texture.sum(1).argsort()  # the mean, order 0, is zero
    few = max(MIN_QUIETEST, round(QUIETEST * n))
    (v, mean), (wider, wider_mean) = (
        (
            _quietest_third(energies[chosen][:, order >= side], squares[chosen]),
            float(brightness[chosen].mean()),
        )
        for chosen in (by_texture[:few], by_texture[: WIDER * few])
    )
    mean -= EXTRAPOLATION * (wider_mean - mean)
    return max(v - EXTRAPOLATION * (wider - v), 0.1 * v), mean


def _quietest_third(energies: Tensor, squares: Tensor) -> float:
    """The mean over those columns of (n, frequencies) that have the least energy.

    They are chosen in the patches of black squares and measured in those of white ones, and the
    other way round: measured where they are chosen they would be too low.
    """
    halves = [energies[squares], energies[~squares]]
    if min(map(len, halves)) < PATCH_SIDE:
        return float(energies.mean())
    count = max(1, energies.shape[1] // 3)
    a, b = (half.mean(0) for half in halves)
    return float(b[a.argsort()[:count]].mean() + a[b.argsort()[:count]].mean()) / 2


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
