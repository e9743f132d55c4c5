"""How well does a model take noise away, beside doing nothing, PCA and the filters of old?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.core import InputError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Axes = tuple[int, ...]
    Method = Callable[[NDArray[Any]], NDArray[Any]]
    Filter = Callable[[NDArray[Any], int, Axes], NDArray[Any]]  # at a width, along some axes

TUNING = 0.25  # the share of the rows on which a filter's width is chosen
WIDEST = 31


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What is left of the noise: ``mse`` as a share of the clean data's variance (1 is the mean's).

    ``seconds`` is the time of one pass over the noisy rows that are scored.
    """

    method: str
    mse: float
    seconds: float


def compare_cleaning(
    estimator: Any, X_clean: Any, random_state: int = 0, *, X_noisy: Any = None
) -> list[Cleaned]:
    """The error of noisy rows cleaned by the model, by PCA of the same width and by filters.

        mse = mean over rows and elements of (x − x')² / v

    v is the variance of the clean rows that are scored: of each column of a table, of all elements
    of signals and images. "training mean" answers the same whatever it is given. A filter
    smooths signals along time and images along height and width (Savitzky & Golay, Anal. Chem. 36,
    1964); its best width is chosen on a quarter of the rows, where the clean ones are shown to it,
    and where the model needs none; the other rows are scored, by all methods. Tables have no
    filter, and all their rows are scored.

    Parameters
    ----------
    estimator : fitted DenoisingAutoencoder
    X_clean : array of shape (n, \\*input_shape_)
        Rows the estimator was not fitted on, at least 2.
    random_state : int
        Seeds the noise and the choice of rows.
    X_noisy : array like X_clean, optional
        The same rows with the noise they really have; else the model's own is added.

    Returns
    -------
    list of Cleaned, in the order: nothing done, training mean, model, PCA, filters (no PCA and no
    mean where the model keeps none)

    Raises
    ------
    ParameterError
        The model does not denoise.
    InputError
        There are fewer than 2 rows, or other rows in X_noisy.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import DenoisingAutoencoder
    >>> t = np.random.default_rng(0).normal(size=(200, 1))
    >>> X = t * np.arange(1, 7)
    >>> dae = DenoisingAutoencoder(latent_dim=1, max_epochs=20, random_state=0).fit(X[:150])
    >>> [row.method for row in compare_cleaning(dae, X[150:])]
    ['nothing done', 'training mean', 'DenoisingAutoencoder', 'PCA, 1 number']
    """
    if not hasattr(estimator, "corrupt"):
        raise ParameterError(
            f"compare_cleaning needs a model that denoises, but {type(estimator).__name__} does "
            "not; fit a DenoisingAutoencoder."
        )
    clean = np.asarray(X_clean)
    if len(clean) < 2:
        raise InputError(f"X_clean has {len(clean)} row(s); a comparison needs at least 2.")
    noisy = estimator.corrupt(clean, random_state) if X_noisy is None else np.asarray(X_noisy)
    if noisy.shape != clean.shape:
        raise InputError(
            f"X_noisy has shape {noisy.shape}, X_clean {clean.shape}; give the same rows twice."
        )
    order = np.random.default_rng(random_state).permutation(len(clean))
    axes = _smooth_axes(estimator)
    cut = max(1, round(TUNING * len(clean))) if axes else 0
    tuning, scored = order[:cut], order[cut:]
    error = _distance(clean[scored], table=not axes)
    rows = []
    for name, clean_up in _methods(estimator, axes, noisy[tuning], clean[tuning]):
        started = time.perf_counter()
        cleaned = clean_up(noisy[scored])
        rows.append(Cleaned(name, error(cleaned), time.perf_counter() - started))
    return rows


def _smooth_axes(estimator: Any) -> Axes:
    """The axes of a batch along which neighbours are alike: time, or height and width."""
    rank = len(estimator.input_shape_)
    if rank == 1:
        return ()
    named = {"CL": (2,), "HW": (1, 2), "CHW": (2, 3), "HWC": (1, 2)}
    return named[estimator.axes or {2: "HW", 3: "CHW"}[rank]]


def _distance(clean: NDArray[Any], *, table: bool) -> Callable[[NDArray[Any]], float]:
    clean = clean.astype(np.float64)
    variance = clean.var(axis=0 if table else None)
    variance = np.where(variance > 0, variance, 1.0)

    def error(other: NDArray[Any]) -> float:
        apart = other.reshape(clean.shape).astype(np.float64) - clean
        return float(np.mean(apart**2 / variance))

    return error


def _methods(
    estimator: Any, axes: Axes, noisy: NDArray[Any], clean: NDArray[Any]
) -> Iterator[tuple[str, Method]]:
    yield "nothing done", lambda X: X
    pca, k = estimator.pca_, estimator.latent_dim_
    if pca is not None:  # whose code of zeros stands for the mean of the training rows
        yield "training mean", lambda X: pca.inverse_transform(0 * pca.transform(X))
    yield type(estimator).__name__, estimator.denoise
    if pca is not None:
        yield f"PCA, {k} number{'s' if k > 1 else ''}", pca.reconstruct
    for name, smooth in _filters(axes).items():
        width = _best_width(smooth, _folded(estimator, noisy), _folded(estimator, clean), axes)
        if width is not None:
            yield f"{name}, width {width}", partial(_smoothed, estimator, smooth, width, axes)


def _smoothed(
    estimator: Any, smooth: Filter, width: int, axes: Axes, X: NDArray[Any]
) -> NDArray[Any]:
    return smooth(_folded(estimator, X), width, axes)


def _best_width(smooth: Filter, noisy: NDArray[Any], clean: NDArray[Any], axes: Axes) -> int | None:
    """The odd width from 3 on at which a filter errs least; None where an axis is too short."""
    longest = min(WIDEST, *(noisy.shape[axis] for axis in axes))
    widths = range(3, longest + 1, 2)
    errors = {w: np.mean((smooth(noisy, w, axes) - clean) ** 2) for w in widths}
    return min(errors, key=errors.__getitem__, default=None)


def _filters(axes: Axes) -> dict[str, Filter]:
    if not axes:
        return {}
    both: dict[str, Filter] = {"moving average": _moving_average, "median filter": _median}
    return both | {"Savitzky–Golay": _savitzky_golay} if len(axes) == 1 else both


def _folded(estimator: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Rows in the shape of a sample, which a table's row may hold."""
    return X.reshape(len(X), *estimator.input_shape_).astype(np.float64)


def _moving_average(X: NDArray[Any], width: int, axes: Axes) -> NDArray[Any]:
    from scipy.ndimage import uniform_filter

    smooth: NDArray[Any] = uniform_filter(X, _sides(X, width, axes), mode="mirror")
    return smooth


def _median(X: NDArray[Any], width: int, axes: Axes) -> NDArray[Any]:
    from scipy.ndimage import median_filter

    smooth: NDArray[Any] = median_filter(X, _sides(X, width, axes), mode="mirror")
    return smooth


def _savitzky_golay(X: NDArray[Any], width: int, axes: Axes) -> NDArray[Any]:
    from scipy.signal import savgol_filter

    smooth: NDArray[Any] = savgol_filter(X, width, 2, axis=axes[0])
    return smooth


def _sides(X: NDArray[Any], width: int, axes: Axes) -> list[int]:
    return [width if axis in axes else 1 for axis in range(X.ndim)]
