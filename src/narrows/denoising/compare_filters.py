"""What a denoiser is compared with: filters for photographs; PCA and filters for rows.

The filters of photographs (`FILTERS`) take an image of floats, (H, W) or (H, W, 3), with white = 1,
and the standard deviation σ of its noise on the same scale (25 on the scale to 255 is 25/255). They
give float32 of the same shape, which may go a little beyond black and white. σ = 0 gives the image
itself.

Their settings follow from σ alone: they are the best on average over scikit-image's own photographs
at σ of 10 to 50 of 255, found by `benchmarks/filter_settings.py`; the table is in
`benchmarks/results/filter_settings.md`. They are defaults: every keyword may be given.

A filter that knows one channel only gets the lightness and two colour differences of a colour
image: RGB rotated (its discrete cosine transform) and divided by √3. Lightness is then the mean of
R, G and B, and each has white noise of σ/√3. Colour differences are smoother than lightness, so
they are filtered as if they had ``chroma`` times the noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.denoising.image_quality import check_pixels, import_optional, white_value
from narrows.exceptions import InputError, ParameterError
from narrows.report.formatting import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.models.denoising_autoencoder import DenoisingAutoencoder

    Array = NDArray[np.float32]
    Rows = NDArray[Any]
    Method = Callable[[Rows], Rows]
    RowFilter = Callable[[Rows, int], Rows]  # of a width, in samples or pixels

# rows: the mean of R, G, B; red against blue; green against both
OPPONENT = np.array([[1, 1, 1], [1.5**0.5, 0, -(1.5**0.5)], [0.5**0.5, -(2**0.5), 0.5**0.5]]) / 3

TUNING_SHARE = 0.25  # of the rows: on these the widths of PCA and filters are chosen
MAX_FILTER_WIDTH = 31  # samples or pixels
MAX_PCA_WIDTHS = 64  # widths of PCA that are tried


# ---------------------------------------------------------------- filters for photographs


def gaussian(
    image: Array, sigma: float, *, width: float = 5.4, power: float = 0.65, chroma: float = 4.0
) -> Array:
    """Gaussian blur, ``width`` · σ^``power`` pixels wide (its standard deviation).

    Parameters: ``image`` (H, W) or (H, W, 3), white = 1; ``sigma`` the noise's standard deviation
    on that scale. Raises `InputError` if it is no image, `ParameterError` for a σ below 0 or if
    scikit-image is not installed; so do the other filters.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(gaussian(noisy, 0.1).std()) < 0.05
    True
    """
    blur = _package("skimage.filters").gaussian
    return _by_plane(
        lambda plane, s: blur(plane, width * s**power, mode="reflect"), image, sigma, chroma
    )


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

    All ``steps`` are always taken: the energy oscillates, and scikit-image's rule for stopping
    early takes a turning point for the minimum, which loses 1 dB at some weights. Parameters and
    errors as for `gaussian`.

    >>> import numpy as np
    >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    >>> float(total_variation(noisy, 0.1).std()) < 0.05
    True
    """
    denoise = _package("skimage.restoration").denoise_tv_chambolle
    return _by_plane(
        lambda plane, s: denoise(plane, weight * s**power, eps=0.0, max_num_iter=steps),
        image,
        sigma,
        chroma,
    )


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

    def shrink(band: Array, s: float) -> Array:
        signal = max(float(np.mean(np.square(band, dtype=np.float64))) - s**2, 1e-12)
        shrunk: Array = pywt.threshold(band, strength * s**2 / signal**0.5, "soft")
        return shrunk

    def smooth(plane: Array, s: float) -> Array:
        margins = [(block, block + -side % block) for side in plane.shape]
        bands = pywt.swt2(np.pad(plane, margins, mode="symmetric"), basis, level=levels)
        bands = [(low, tuple(shrink(band, s) for band in high)) for low, high in bands]
        smoothed: Array = pywt.iswt2(bands, basis)
        height, width = plane.shape
        return smoothed[block : block + height, block : block + width]

    return _by_plane(smooth, image, sigma, chroma)


def non_local_means(
    image: Array, sigma: float, *, patch: int | None = None, reach: int = 7, h: float | None = None
) -> Array:
    """Mean of the pixels whose surroundings look alike (Buades, Coll and Morel 2005).

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


FILTERS: dict[str, Callable[[Array, float], Array]] = {
    "Gaussian": gaussian,
    "total variation": total_variation,
    "wavelet": wavelet,
    "non-local means": non_local_means,
}


def run_filters(image: NDArray[Any], noise: float) -> dict[str, tuple[NDArray[Any], float]]:
    """The results of all `FILTERS` and their seconds, as `DenoisedImage` takes them.

    Parameters: ``image`` (H, W) or (H, W, 3), uint8, uint16 or floats with white at 1; ``noise``
    its standard deviation on the scale where white is 255. The results have the image's dtype.
    Raises `ParameterError` if scikit-image or PyWavelets is not installed.

    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)
    >>> sorted(run_filters(image, 25.0))
    ['Gaussian', 'non-local means', 'total variation', 'wavelet']
    """
    white, found = white_value(image), {}
    for name, smooth in FILTERS.items():
        start = time.perf_counter()
        result = smooth((image / white).astype(np.float32), noise / 255).clip(0, 1) * white
        rounded = np.rint(result) if image.dtype.kind == "u" else result
        found[name] = rounded.astype(image.dtype), time.perf_counter() - start
    return found


def check_filters_installed() -> None:
    """Raise ParameterError if a package that the filters need is not installed."""
    for module in ("skimage", "pywt"):
        _package(module)


def _by_plane(
    smooth: Callable[[Array, float], Array], image: Array, sigma: float, chroma: float
) -> Array:
    """``smooth(plane, sigma)`` of a grey image, or of lightness and the two colour differences."""
    image = _checked(image, sigma)
    if sigma == 0:
        return image
    if image.ndim == 2:
        return smooth(image, sigma).astype(np.float32, copy=False)
    planes = image @ OPPONENT.T.astype(np.float32)
    for i in range(3):
        noise = sigma / 3**0.5 * (chroma if i else 1.0)
        planes[..., i] = smooth(np.ascontiguousarray(planes[..., i]), noise)
    back: Array = planes @ (3 * OPPONENT).astype(np.float32)
    return back


def _checked(image: Array, sigma: float) -> Array:
    """A copy as float32, if it is an image and σ is a standard deviation."""
    floats = np.array(image, dtype=np.float32)
    check_pixels(floats, "The image to filter")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ParameterError(
            f"sigma={sigma!r} is not a standard deviation; give a number of at least 0, on the "
            "scale where white is 1."
        )
    return floats


def _package(module: str) -> Any:
    return import_optional(module, "The comparison with filters")


# ---------------------------------------------------------------- PCA and filters for rows


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Error left by one method: ``mse`` as a share of the clean data's variance (1 is the mean's).

    ``seconds`` is the time of one pass over the noisy rows that are scored.
    """

    method: str
    mse: float
    seconds: float


def compare_cleaning(
    estimator: DenoisingAutoencoder, X_clean: Any, random_state: int = 0, *, X_noisy: Any = None
) -> list[Cleaned]:
    """The error of noisy rows denoised by the model, by PCA of the same width and by filters.

        mse = mean over rows and elements of (x − x')² / v

    v is the variance of the clean rows: of each column of a table, of all elements of signals and
    images. A quarter of the rows, with their clean form, serves to choose the best width of PCA (up
    to the code's) and of the filters, which smooth signals along time and images along height and
    width (Savitzky & Golay, Anal. Chem. 36, 1964); all methods are scored on the other rows.
    "training mean" gives the same for every row.

    Parameters
    ----------
    estimator : fitted DenoisingAutoencoder
    X_clean : array of shape (n, \\*input_shape_)
        Rows the estimator was not fitted on, at least 2.
    random_state : int
        Seeds the noise and the choice of rows.
    X_noisy : array like X_clean, optional
        The same rows with the noise they really have. Default: the model's own noise is added.

    Returns
    -------
    list of Cleaned
        In the order: nothing done, training mean, model, PCA of the code's width, best PCA,
        filters. Without mean and PCA if the model keeps no PCA.

    Raises
    ------
    ParameterError
        The model does not denoise.
    InputError
        There are fewer than 2 rows, or X_noisy has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import DenoisingAutoencoder
    >>> t = np.random.default_rng(0).normal(size=(200, 1))
    >>> X = t * np.arange(1, 7)
    >>> dae = DenoisingAutoencoder(latent_dim=1, max_epochs=20, random_state=0).fit(X[:150])
    >>> [row.method for row in compare_cleaning(dae, X[150:])]
    ['nothing done', 'training mean', 'DenoisingAutoencoder', 'PCA, 1 number', 'best PCA, 1 number']
    """
    from narrows.models.denoising_autoencoder import DenoisingAutoencoder

    if not isinstance(estimator, DenoisingAutoencoder):
        raise ParameterError(
            f"compare_cleaning needs a model that denoises, but {type(estimator).__name__} does "
            "not; fit a DenoisingAutoencoder."
        )
    clean = np.asarray(X_clean)
    if len(clean) < 2:
        raise InputError(f"X_clean has {len(clean)} row(s); a comparison needs at least 2.")
    noisy = np.asarray(estimator.corrupt(clean, random_state) if X_noisy is None else X_noisy)
    if noisy.shape != clean.shape:
        raise InputError(
            f"X_noisy has shape {noisy.shape}, X_clean {clean.shape}; give the same rows twice."
        )
    order = np.random.default_rng(random_state).permutation(len(clean))
    tuning, scored = np.split(order, [max(1, round(TUNING_SHARE * len(clean)))])
    axes = _smooth_axes(estimator)
    clean = clean.astype(np.float64)
    variance = clean.var(axis=None if axes else 0)
    variance = np.where(variance > 0, variance, 1.0)

    def error(rows: Rows, output: Rows) -> float:
        difference = output.reshape(len(rows), *clean.shape[1:]) - clean[rows]
        return float(np.mean(difference**2 / variance))

    found = []
    for name, method in _methods(estimator, axes, noisy[tuning], partial(error, tuning)):
        start = time.perf_counter()
        output = method(noisy[scored])
        found.append(Cleaned(name, error(scored, output), time.perf_counter() - start))
    return found


def _smooth_axes(estimator: DenoisingAutoencoder) -> tuple[int, ...]:
    """The axes of a batch along which neighbours are similar: time, or height and width."""
    by_axes = {None: (), "CL": (2,), "HW": (1, 2), "CHW": (2, 3), "HWC": (1, 2)}
    return by_axes[estimator.layout_.axes]


def _methods(
    estimator: DenoisingAutoencoder,
    axes: tuple[int, ...],
    noisy: Rows,
    error: Callable[[Rows], float],
) -> Iterator[tuple[str, Method]]:
    """Every method by name, with the width that has the least ``error`` on the ``noisy`` rows."""

    def best(run: Callable[[Rows, int], Rows], widths: Iterable[int]) -> int:
        return min(widths, key=lambda width: error(run(noisy, width)))

    yield "nothing done", lambda X: X
    model = type(estimator).__name__, estimator.denoise
    pca, k = estimator.pca_, estimator.latent_dim_
    if pca is None:
        yield model
    else:

        def reduced(X: Rows, k: int) -> Rows:
            """The reconstruction from PCA's first k numbers; from none it is the mean."""
            Z = pca.transform(X)
            return pca.inverse_transform(Z * (np.arange(Z.shape[1]) < k))

        yield "training mean", partial(reduced, k=0)
        yield model
        yield f"PCA, {count(k, 'number')}", pca.reconstruct
        widths = np.unique(np.geomspace(1, k, MAX_PCA_WIDTHS).round().astype(int)).tolist()
        width = best(reduced, widths)
        yield f"best PCA, {count(width, 'number')}", partial(reduced, k=width)

    shape = estimator.input_shape_  # a row of a table may hold an image
    longest = min([MAX_FILTER_WIDTH, *((len(noisy), *shape)[axis] for axis in axes)])
    for name, smooth in _row_filters(axes).items() if longest >= 3 else ():

        def run(X: Rows, width: int, smooth: RowFilter = smooth) -> Rows:
            return smooth(X.reshape(len(X), *shape).astype(np.float64), width)

        width = best(run, range(3, longest + 1, 2))
        yield f"{name}, width {width}", partial(run, width=width)


def _row_filters(axes: tuple[int, ...]) -> dict[str, RowFilter]:
    """Filters (rows, width) ↦ rows that smooth along these axes; no axes, no filters."""
    if not axes:
        return {}
    from scipy.ndimage import median_filter, uniform_filter
    from scipy.signal import savgol_filter

    def sizes(X: Rows, width: int) -> list[int]:
        return [width if axis in axes else 1 for axis in range(X.ndim)]

    filters: dict[str, RowFilter] = {
        "moving average": lambda X, width: uniform_filter(X, sizes(X, width), mode="mirror"),
        "median filter": lambda X, width: median_filter(X, sizes(X, width), mode="mirror"),
    }
    if len(axes) == 1:
        filters["Savitzky–Golay"] = lambda X, width: savgol_filter(X, width, 2, axis=axes[0])
    return filters
