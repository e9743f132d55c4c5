"""How well does a model take noise away, beside doing nothing, PCA and the filters of old?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Axes = tuple[int, ...]
    Error = Callable[[NDArray[Any]], float]
    Method = Callable[[NDArray[Any]], NDArray[Any]]
    Filter = Callable[[NDArray[Any], int, Axes], NDArray[Any]]  # at a width, along some axes

TUNING = 0.25  # the share of the rows on which a filter's width is chosen
WIDEST = 31  # samples that a filter looks at
WIDTHS = 64  # widths of PCA that are tried


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

    v is the variance of the clean rows: of each column of a table, of all elements of signals and
    images. A quarter of the rows, whose clean form is shown, chooses the best width of PCA (up to
    the code's) and of the filters, which smooth signals along time and images along height and
    width (Savitzky & Golay, Anal. Chem. 36, 1964); all methods are scored on the other rows.
    "training mean" answers the same whatever it is given.

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
    list of Cleaned
        In the order: nothing done, training mean, model, PCA of the code's width, best PCA,
        filters; what is made of PCA only where the model keeps one.

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
    ['nothing done', 'training mean', 'DenoisingAutoencoder', 'PCA, 1 number', 'best PCA, 1 number']
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
    tuning, scored = np.split(order, [max(1, round(TUNING * len(clean)))])
    axes = _smooth_axes(estimator)
    clean = clean.astype(np.float64)
    variance = clean.var(axis=None if axes else 0)
    variance = np.where(variance > 0, variance, 1.0)

    def error(rows: NDArray[Any], answer: NDArray[Any]) -> float:
        apart = answer.reshape(len(rows), *clean.shape[1:]) - clean[rows]
        return float(np.mean(apart**2 / variance))

    found = []
    for name, method in _methods(estimator, axes, noisy[tuning], partial(error, tuning)):
        started = time.perf_counter()
        answer = method(noisy[scored])
        found.append(Cleaned(name, error(scored, answer), time.perf_counter() - started))
    return found


def _smooth_axes(estimator: Any) -> Axes:
    """The axes of a batch along which neighbours are alike: time, or height and width."""
    rank = len(estimator.input_shape_)
    if rank == 1:
        return ()
    named = {"CL": (2,), "HW": (1, 2), "CHW": (2, 3), "HWC": (1, 2)}
    return named[estimator.axes or {2: "HW", 3: "CHW"}[rank]]


def _methods(
    estimator: Any, axes: Axes, noisy: NDArray[Any], error: Error
) -> Iterator[tuple[str, Method]]:
    """Every method by name, its width chosen where ``noisy`` rows have the least ``error``."""
    yield "nothing done", lambda X: X
    pca, k = estimator.pca_, estimator.latent_dim_
    if pca is not None:  # whose code of zeros stands for the mean of the training rows
        yield "training mean", partial(_cut, pca, 0)
    yield type(estimator).__name__, estimator.denoise
    if pca is not None:
        yield f"PCA, {_numbers(k)}", pca.reconstruct
        widths = np.unique(np.geomspace(1, k, WIDTHS).round().astype(int)).tolist()
        best = _best(lambda X, k: _cut(pca, k, X), widths, noisy, error)
        yield f"best PCA, {_numbers(best)}", partial(_cut, pca, best)
    longest = min([WIDEST, *(_folded(estimator, noisy).shape[axis] for axis in axes)])
    for name, smooth in _filters(axes).items() if longest >= 3 else ():

        def run(X: NDArray[Any], width: int, smooth: Filter = smooth) -> NDArray[Any]:
            return smooth(_folded(estimator, X), width, axes)

        width = _best(run, range(3, longest + 1, 2), noisy, error)
        yield f"{name}, width {width}", partial(run, width=width)


def _best(
    run: Callable[[NDArray[Any], int], NDArray[Any]],
    widths: Iterable[int],
    noisy: NDArray[Any],
    error: Error,
) -> int:
    return min(widths, key=lambda width: error(run(noisy, width)))


def _cut(pca: Any, k: int, X: NDArray[Any]) -> NDArray[Any]:
    """What PCA's first k numbers make of X."""
    Z = pca.transform(X)
    rows: NDArray[Any] = pca.inverse_transform(Z * (np.arange(Z.shape[1]) < k))
    return rows


def _numbers(k: int) -> str:
    return f"{k} number{'s' if k > 1 else ''}"


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
