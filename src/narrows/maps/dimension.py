"""The intrinsic dimension: how many numbers tell the rows of X apart where they lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narrows.estimators.parameters import check_value
from narrows.exceptions import InputError
from narrows.maps.map_quality import flat_rows, nearest, sampled_rows

KEPT_RATIOS = 0.9  # of the ratios r₂/r₁; Facco et al. leave out the largest tenth


class Dimension(NamedTuple):
    """Two estimates of the intrinsic dimension."""

    two_nn: float
    mle: float


def intrinsic_dimension(
    X: ArrayLike, *, n_neighbors: int = 20, max_rows: int = 10_000, random_state: Any = 0
) -> Dimension:
    """Estimate the dimension of the manifold that the rows of X lie near, in two ways.

    From r_j, the distance of a row to its j-th nearest neighbour, and the number of rows n:

        TwoNN: the slope, through the origin, of −log(1 − i/n) over log μ_i, where μ = r₂/r₁ is
               sorted and its largest tenth left out
        MLE:   d = [1/(n (k − 1)) Σ_rows Σ_{j<k} log(r_k / r_j)]⁻¹

    Both assume that the rows are equally dense as far as the neighbours reach. Noise adds
    dimensions at its own scale: where neighbours are nearer than the noise is large, the estimate
    is that of the noise (a roll of dimension 2 with noise of 0.5 in 20 columns gave 12 and 7).
    TwoNN looks at the smallest distances and feels noise first; MLE looks farther and is too low
    where few rows fill many dimensions (9 for a Gaussian of 10) and near borders. If the two
    differ much, trust neither: clean the data, or repeat with more rows or neighbours. Their
    standard errors are about d/√n.

    Source: Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by
    a minimal neighborhood information", Scientific Reports 7, 2017. Levina and Bickel, "Maximum
    likelihood estimation of intrinsic dimension", NeurIPS 2004, with the mean of inverses of MacKay
    and Ghahramani, "Comments on 'Maximum likelihood estimation of intrinsic dimension'", 2005.

    Parameters
    ----------
    X : array of shape (n, ...)
        The data, in units in which distances make sense; rows of any shape are flattened. Equal
        rows count once.
    n_neighbors : int, at least 3
        k, for MLE.
    max_rows : int
        Of more rows a random sample of this size is used.
    random_state : None, int or RandomState
        Which rows are drawn.

    Returns
    -------
    Dimension
        A tuple (two_nn, mle) of floats.

    Raises
    ------
    InputError
        X holds NaN, infinity or no numbers, or has at most ``n_neighbors`` different rows.
    ParameterError
        A parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows.maps import intrinsic_dimension
    >>> rng = np.random.default_rng(0)
    >>> plane = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 50))
    >>> [round(d, 1) for d in intrinsic_dimension(plane)]
    [2.0, 2.0]
    """
    check_value("n_neighbors", n_neighbors, kind=int, low=3)
    check_value("max_rows", max_rows, kind=int, low=n_neighbors + 1)
    rows = _different(flat_rows(X, "X"))
    rows = rows[sampled_rows(len(rows), max_rows, random_state)]
    if len(rows) <= n_neighbors:
        raise InputError(
            f"X has {len(rows)} different rows; n_neighbors={n_neighbors} needs at least "
            f"{n_neighbors + 1}."
        )
    distances = np.maximum(nearest(rows, n_neighbors)[0], np.finfo(np.float32).tiny)
    logs = np.log(distances.astype(np.float64))
    inverse = float((logs[:, -1:] - logs[:, :-1]).mean())
    ratio, n = np.sort(logs[:, 1] - logs[:, 0]), len(logs)
    ratio = ratio[: int(KEPT_RATIOS * n)]
    share = -np.log1p(-np.arange(1, len(ratio) + 1) / n)
    square = float(ratio @ ratio)
    # on a grid all neighbours are equally far: no finite dimension fits
    return Dimension(
        float(ratio @ share) / square if square else np.inf, 1 / inverse if inverse else np.inf
    )


def _different(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, each once, compared byte by byte (in columns, NumPy takes minutes)."""
    rows = np.ascontiguousarray(rows + 0.0)  # −0 becomes 0
    words = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
    return rows[np.sort(np.unique(words.ravel(), return_index=True)[1])]
