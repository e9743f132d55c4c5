"""How well a map Z keeps the neighbours, the classes and the distances of the data X.

Rows are compared by Euclidean distance, in the units given; scale the columns of a table first, or
give rows in the units in which the model was trained. Samples of any shape (images) are flattened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from narrows.estimators.parameters import check_value, seed_of
from narrows.exceptions import InputError, InputTypeError
from narrows.report.probe import check_labels

MAX_BLOCK = 2**23  # squared distances held at a time: 64 MiB
MAX_NARROW = 1e15  # the squares of larger numbers overflow float32


def trustworthiness(X: ArrayLike, Z: ArrayLike, *, n_neighbors: int = 15) -> float:
    """How far neighbours on the map Z are neighbours in the data X; 1: all of them.

        T = 1 − 2 / (n k (2n − 3k − 1)) Σ_i Σ_{j ∈ N_Z(i)} max(0, r_X(i, j) − k)

    N_Z(i) are the k nearest rows of row i in Z and r_X(i, j) is the rank of j by its distance from
    i in X, 1 for the nearest; of rows at the same distance each has the best rank. A map of random
    points has about ½. Distances are computed in blocks of rows: n × n are never in memory.

    Source: Venna and Kaski, "Neighborhood preservation in nonlinear projection methods: an
    experimental study", ICANN 2001. Without ties it is ``sklearn.manifold.trustworthiness``.

    Parameters
    ----------
    X : array of shape (n, ...)
        The data; rows of any shape are flattened.
    Z : array of shape (n, ...)
        The map (codes) of the same rows, in the same order.
    n_neighbors : int, at least 1 and below n / 2
        k.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    InputError
        X and Z differ in their number of rows, hold NaN, infinity or no numbers, or have too few
        rows.
    ParameterError
        n_neighbors is no whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows.maps import trustworthiness
    >>> Z = np.random.default_rng(0).normal(size=(200, 2))
    >>> X = np.hstack([Z, np.zeros((200, 8))])
    >>> trustworthiness(X, Z), round(trustworthiness(X, Z[::-1]), 1)
    (1.0, 0.5)
    """
    X, Z = _same_rows(X, Z)
    return 1.0 - _intrusion(X, Z, n_neighbors)


def continuity(X: ArrayLike, Z: ArrayLike, *, n_neighbors: int = 15) -> float:
    """How far neighbours in the data X stay neighbours on the map Z; 1: all of them.

        C = 1 − 2 / (n k (2n − 3k − 1)) Σ_i Σ_{j ∈ N_X(i)} max(0, r_Z(i, j) − k)

    It is ``trustworthiness`` with X and Z exchanged, from the same source: a map that tears the
    data apart has a low continuity, one that lays parts over one another a low trustworthiness.

    Parameters
    ----------
    X, Z, n_neighbors
        As in ``trustworthiness``.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    InputError, ParameterError
        As in ``trustworthiness``.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows.maps import continuity, trustworthiness
    >>> X = np.random.default_rng(0).normal(size=(200, 3))  # a ball, and its shadow on a plane
    >>> Z = X[:, :2]
    >>> round(trustworthiness(X, Z), 2), round(continuity(X, Z), 2)
    (0.85, 0.96)
    """
    X, Z = _same_rows(X, Z)
    return 1.0 - _intrusion(Z, X, n_neighbors)


def neighbourhood_hit(Z: ArrayLike, y: ArrayLike, *, n_neighbors: int = 15) -> float:
    """The share of the k nearest neighbours on the map Z that have the label of their row.

        H = 1 / (n k) Σ_i |{j ∈ N_Z(i) : y_j = y_i}|

    Of labels that say nothing about the map it is Σ_c p_c², up to rounding, with p_c the share of
    class c.

    Source: Paulovich, Nonato, Minghim and Levkowitz, "Least square projection", IEEE TVCG 2008.

    Parameters
    ----------
    Z : array of shape (n, ...)
        The map (codes).
    y : array of shape (n,)
        A label for each row: numbers or words.
    n_neighbors : int, at least 1 and below n
        k.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    InputError
        A label is missing, y and Z differ in their number of rows, Z holds NaN, infinity or no
        numbers, or has too few rows.
    ParameterError
        n_neighbors is no whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows.maps import neighbourhood_hit
    >>> y = np.repeat([0, 1], 50)
    >>> Z = np.random.default_rng(0).normal(size=(100, 2)) + 20 * y[:, None]
    >>> neighbourhood_hit(Z, y)
    1.0
    """
    Z = flat_rows(Z, "Z")
    labels = check_labels(y, len(Z))
    _check_neighbors(n_neighbors, len(Z), len(Z) - 1)
    return float((labels[nearest(Z, n_neighbors)[1]] == labels[:, None]).mean())


def distance_correlation(
    X: ArrayLike, Z: ArrayLike, *, max_rows: int = 2000, random_state: Any = 0
) -> float:
    """Spearman's rank correlation between the distances of all pairs of rows in X and in Z.

        ρ = corr(rank ‖x_i − x_j‖, rank ‖z_i − z_j‖),  i < j

    1 if the order of all distances is kept, about 0 if it is lost; ties have their mean rank. It
    measures the large shape of a map, where ``trustworthiness`` measures the neighbourhoods. (The
    distance correlation of Székely et al. is another measure, of dependence.)

    Source: Spearman, "The proof and measurement of association between two things", 1904.

    Parameters
    ----------
    X, Z : arrays of shape (n, ...)
        The data and the map of the same rows, in the same order.
    max_rows : int, at least 3
        Of more rows a random sample of this size is compared: 2,000 rows are 2 million pairs.
    random_state : None, int or RandomState
        Which rows are drawn.

    Returns
    -------
    float
        From −1 to 1.

    Raises
    ------
    InputError
        X and Z differ in their number of rows, hold NaN, infinity or no numbers, have fewer than 3
        rows, or all their distances are equal.
    ParameterError
        max_rows or random_state is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows.maps import distance_correlation
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(distance_correlation(X, 3 * X), 6)
    1.0
    """
    check_value("max_rows", max_rows, kind=int, low=3)
    X, Z = _same_rows(X, Z)
    rows = sampled_rows(len(X), max_rows, random_state)
    X, Z = X[rows], Z[rows]
    if len(X) < 3:
        raise InputError(f"X has {len(X)} rows; distances have an order from 3 rows on.")
    ranks = []
    for name, points in (("X", X), ("Z", Z)):
        rank = rankdata(pdist(points.astype(np.float64)))
        if rank.min() == rank.max():
            raise InputError(f"All distances in {name} are equal: they have no order.")
        ranks.append(rank)
    return float(np.corrcoef(*ranks)[0, 1])


def _intrusion(X: NDArray[Any], Z: NDArray[Any], k: int) -> float:
    """1 − T: by how much the k nearest rows in Z are too far in X, as a share of the worst."""
    n = len(X)
    _check_neighbors(k, n, (n - 1) // 2)
    X = X - X.mean(0)  # smaller numbers: less is lost in ‖x‖² − 2⟨x, x'⟩ + ‖x'‖²
    near, square = nearest(Z, k)[1], (X * X).sum(1)
    rounding = 8 * np.finfo(X.dtype).eps * square.max()  # distances this close are equal
    total, step = 0, max(1, MAX_BLOCK // n)
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        distances = square[block, None] + square - 2 * (X[block] @ X.T)
        distances[np.arange(len(distances)), np.arange(n)[block]] = np.inf
        limits = np.take_along_axis(distances, near[block], 1) - rounding
        for row, bounds in zip(distances, limits, strict=True):
            # the rank is 1 + the number of rows that are nearer; one contiguous row at a time,
            # which NumPy counts several times as fast as a matrix
            closer = (int(np.count_nonzero(row < bound)) for bound in bounds)
            total += sum(max(0, 1 + count - k) for count in closer)
    return float(2 * total / (n * k * (2 * n - 3 * k - 1)))


def nearest(rows: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Distances and numbers of the k nearest other rows of each row, (n, k) each, in order."""
    found = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()
    return found[0], found[1]


def flat_rows(X: ArrayLike, name: str) -> NDArray[Any]:
    """X as a matrix (n, d) of finite floats; ``name`` stands in the messages.

    float32 stays, as it halves time and memory; everything else becomes float64.

    Raises `InputError`.
    """
    try:
        rows = np.asarray(X)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"{name} is no array of numbers: {error}.") from error
    if rows.dtype.kind not in "fiub":
        raise InputTypeError(f"{name} must hold real numbers; its dtype is {rows.dtype}.")
    if rows.ndim < 2:
        raise InputError(
            f"{name} has shape {rows.shape}; give one row for each sample, (n, numbers), of one "
            f"number numpy.reshape({name}, (-1, 1))."
        )
    if rows.size == 0:
        raise InputError(f"{name} has shape {rows.shape} and holds no numbers.")
    rows = rows.reshape(len(rows), -1)
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise InputError(
            f"{name} contains NaN or infinity in row {int(finite.argmin())}; drop such rows, or "
            "fill them in."
        )
    narrow = rows.dtype == np.float32 and np.abs(rows).max() < MAX_NARROW
    return rows if narrow else rows.astype(np.float64)


def sampled_rows(n: int, max_rows: int, random_state: Any) -> NDArray[np.intp]:
    """The numbers of at most ``max_rows`` of n rows, drawn at random, in order."""
    if n <= max_rows:
        return np.arange(n)
    rng = np.random.default_rng(seed_of(random_state))
    return np.sort(rng.choice(n, max_rows, replace=False))


def _same_rows(X: ArrayLike, Z: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    X, Z = flat_rows(X, "X"), flat_rows(Z, "Z")
    if len(X) != len(Z):
        raise InputError(
            f"X has {len(X)} rows and Z {len(Z)}; give the map of the same rows, in the same order."
        )
    return X, Z


def _check_neighbors(k: int, n: int, most: int) -> None:
    """Raise an error unless ``k`` is from 1 to ``most``, of ``n`` rows."""
    check_value("n_neighbors", k, kind=int, low=1)
    if k > most:
        advice = f"give n_neighbors of at most {most}, or more rows" if most else "give more rows"
        raise InputError(f"{n} rows are too few for n_neighbors={k}; {advice}.")
