"""The classical filters that stand beside a denoised image, each at a setting that is fair to it.

Each takes an image of floats, (H, W) or (H, W, 3), with white = 1, and the standard deviation σ of
its noise on the same scale (25 on the scale to 255 is 25/255), and gives float32 of the same shape,
which may reach a little beyond black and white. σ = 0 gives the image itself.

The settings follow from σ alone. Their rules are what is best on average over scikit-image's own
photographs at σ of 10 to 50 of 255: `benchmarks/filter_settings.py` finds them, and its table is in
`benchmarks/results/filter_settings.md`. They are defaults: every keyword may be given.

Colour is filtered as lightness and two colour differences where a filter knows one channel only.
The three are RGB turned (its discrete cosine transform) and divided by √3: lightness is then the
mean of R, G and B, and each has white noise of σ/√3. Colour differences are smoother than
lightness, so they are filtered as if they had ``chroma`` times the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Filter = Callable[[Array, float], Array]

__all__ = ["FILTERS", "gaussian", "non_local_means", "total_variation", "wavelet"]

PACKAGES = {"skimage": "scikit-image", "pywt": "PyWavelets"}

# rows: the mean of R, G, B; red against blue; green against both
OPPONENT = np.array([[1, 1, 1], [1.5**0.5, 0, -(1.5**0.5)], [0.5**0.5, -(2**0.5), 0.5**0.5]]) / 3


def gaussian(
    image: Array, sigma: float, *, width: float = 5.4, power: float = 0.65, chroma: float = 4.0
) -> Array:
    """Gaussian blur, ``width`` · σ^``power`` pixels wide (its standard deviation).

    Parameters: ``image`` (H, W) or (H, W, 3), white = 1; ``sigma`` the noise's standard deviation
    on that scale. Raises `InputError` for anything else than an image and `ParameterError` for a
    σ below 0, or where scikit-image is not installed; so do the other filters.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(gaussian(noisy, 0.1).std()) < 0.05
    True
    """
    blur = _package("skimage.filters").gaussian

    def one(plane: Array, sigma: float) -> Array:
        smooth: Array = blur(plane, width * sigma**power, mode="reflect")
        return smooth

    return _by_plane(one, image, sigma, chroma)


def total_variation(
    image: Array,
    sigma: float,
    *,
    weight: float = 1.4,
    power: float = 1.2,
    chroma: float = 1.5,
    steps: int = 100,
) -> Array:
    """The u that minimises ½ |u − image|² + ``weight`` · σ^``power`` · Σ |∇u| (Chambolle 2004).

    So many ``steps`` are always taken: the energy swings, and scikit-image's rule for an early end
    takes its turning point for the minimum, which loses 1 dB at some weights. Parameters and errors
    as for `gaussian`.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(total_variation(noisy, 0.1).std()) < 0.05
    True
    """
    denoise = _package("skimage.restoration").denoise_tv_chambolle

    def one(plane: Array, sigma: float) -> Array:
        smooth: Array = denoise(plane, weight * sigma**power, eps=0.0, max_num_iter=steps)
        return smooth

    return _by_plane(one, image, sigma, chroma)


def wavelet(
    image: Array,
    sigma: float,
    *,
    basis: str = "db2",
    levels: int = 5,
    strength: float = 1.1,
    chroma: float = 1.0,
) -> Array:
    """Soft thresholds on wavelet coefficients, each band's own (BayesShrink), at all shifts.

    t = ``strength`` · σ² / √max(v − σ², 0) for a band whose mean square is v (Chang, Yu and
    Vetterli 2000), on the stationary transform, which is the mean over all shifts of the image
    (Coifman and Donoho 1995). Parameters and errors as for `gaussian`; needs PyWavelets.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(wavelet(noisy, 0.1).std()) < 0.05
    True
    """
    pywt = _package("pywt")
    block = 2**levels  # sides must be multiples of it; the margin keeps the far side's wrap away

    def shrunk(band: Array, sigma: float) -> Array:
        signal = max(float(np.mean(np.square(band, dtype=np.float64))) - sigma**2, 1e-12)
        small: Array = pywt.threshold(band, strength * sigma**2 / signal**0.5, "soft")
        return small

    def one(plane: Array, sigma: float) -> Array:
        margins = [(block, block + -side % block) for side in plane.shape]
        wide = np.pad(plane, margins, mode="symmetric")
        bands = pywt.swt2(wide, basis, level=levels)
        bands = [(low, tuple(shrunk(band, sigma) for band in high)) for low, high in bands]
        smooth: Array = pywt.iswt2(bands, basis)
        height, width = plane.shape
        return smooth[block : block + height, block : block + width]

    return _by_plane(one, image, sigma, chroma)


def non_local_means(
    image: Array,
    sigma: float,
    *,
    patch: int | None = None,
    reach: int = 7,
    h: float | None = None,
) -> Array:
    """Mean of the pixels around whose own surroundings look alike (Buades, Coll and Morel 2005).

    Weights are exp(−max(d² − 2σ², 0) / (``h`` · σ)²), d² the mean squared difference of two
    ``patch`` × ``patch`` squares, for squares up to ``reach`` pixels away in each direction.
    None: 7 and 0.65 for grey, 5 and 0.55 for colour, where a square holds three times the numbers.
    Parameters and errors as for `gaussian`.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(non_local_means(noisy, 0.1).std()) < 0.05
    True
    """
    denoise = _package("skimage.restoration").denoise_nl_means
    image = _checked(image, sigma)
    if sigma == 0:
        return image
    axis, side, cut = (None, 7, 0.65) if image.ndim == 2 else (-1, 5, 0.55)
    smooth: Array = denoise(
        image,
        patch_size=patch or side,
        patch_distance=reach,
        h=(h or cut) * sigma,
        sigma=sigma,
        channel_axis=axis,
    )
    return smooth.reshape(image.shape).astype(np.float32, copy=False)


FILTERS: dict[str, Filter] = {
    "Gaussian": gaussian,
    "total variation": total_variation,
    "wavelet": wavelet,
    "non-local means": non_local_means,
}


def _by_plane(
    one: Callable[[Array, float], Array], image: Array, sigma: float, chroma: float
) -> Array:
    """``one`` on a grey image, or on lightness and the two colour differences."""
    image = _checked(image, sigma)
    if sigma == 0:
        return image
    if image.ndim == 2:
        return one(image, sigma).astype(np.float32, copy=False)
    planes = image @ OPPONENT.T.astype(np.float32)
    for i in range(3):
        noise = sigma / 3**0.5 * (chroma if i else 1.0)
        planes[..., i] = one(np.ascontiguousarray(planes[..., i]), noise)
    back: Array = planes @ (3 * OPPONENT).astype(np.float32)
    return back


def _checked(image: Array, sigma: float) -> Array:
    """A copy as float32, if it is an image and σ a deviation."""
    floats = np.array(image, dtype=np.float32)
    if floats.ndim not in (2, 3) or (floats.ndim == 3 and floats.shape[2] != 3) or not floats.size:
        raise InputError(
            f"A filter was given an array of shape {floats.shape}: give one image, (height, width) "
            "or (height, width, 3)."
        )
    if not np.isfinite(floats).all():
        raise InputError("A filter was given an image with NaN or infinity: replace these pixels.")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ParameterError(
            f"sigma={sigma!r} makes no sense: give the noise's standard deviation, 0 or more, on "
            "the scale where white is 1."
        )
    return floats


def _package(module: str) -> Any:
    """A module of the extra "denoise"."""
    try:
        return import_module(module)
    except ImportError:
        raise ParameterError(
            f"The classical filters need {PACKAGES[module.split('.')[0]]}, which is not installed; "
            "run pip install 'narrows[denoise]'."
        ) from None


def check_installed() -> None:
    """Raise ParameterError where a package that the filters need is not there."""
    for module in PACKAGES:
        _package(module)
