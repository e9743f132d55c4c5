"""Maps of codes in the plane, decoded grids of a map, and interpolations between samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.reconstruction import ReconstructionMixin


@dataclass(frozen=True, slots=True)
class CodeMap:
    """A flat view of the codes: ``points = (Z − origin) directionsᵀ``, and the way back.

    ``origin`` is (k,), ``directions`` (m, k) with orthonormal rows, m = min(2, k); ``shares`` (m,)
    the share of the codes' variance along each; ``exact`` whether the map shows all of it (k ≤ 2).
    """

    origin: NDArray[np.float64]
    directions: NDArray[np.float64]
    shares: NDArray[np.float64]
    exact: bool

    def points(self, Z: ArrayLike) -> NDArray[np.float64]:
        """The points (n, m) of codes (n, k) on the map."""
        return (np.asarray(Z, dtype=np.float64) - self.origin) @ self.directions.T

    def codes(self, points: ArrayLike) -> NDArray[np.float64]:
        """The codes (n, k) under points (n, m): exact for k ≤ 2, else in the plane of the map."""
        return self.origin + np.asarray(points, dtype=np.float64) @ self.directions


@dataclass(frozen=True, slots=True)
class DecodedGrid:
    """A decoded grid of points of a map: rows from top to bottom, columns from left to right.

    ``x`` (columns,) and ``y`` (rows,), falling, are the points' coordinates on the map (y is empty
    when the code is one number); ``decoded`` is (rows, columns, ...) in the user's units.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    decoded: NDArray[Any]


def code_map(Z: ArrayLike) -> CodeMap:
    """The flat view of codes ``Z`` (n, k): themselves when k ≤ 2, else two principal directions.

    The directions are the two leading right singular vectors of the centred codes, signed so that
    their largest entry is positive.

    Raises `InputError` unless Z is a finite matrix with at least one row and one column.

    >>> import numpy as np
    >>> Z = np.array([[3.0, 0.0, 1.0], [-3.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    >>> view = code_map(Z)
    >>> view.points(Z).round(6).tolist()
    [[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    >>> np.allclose(view.codes(view.points(Z)), Z)
    True
    """
    Z = np.asarray(Z, dtype=np.float64)
    if Z.ndim != 2 or 0 in Z.shape or not np.isfinite(Z).all():
        raise InputError(f"Codes must be a finite matrix (rows, numbers); got shape {Z.shape}.")
    k = Z.shape[1]
    variances = Z.var(axis=0)
    if k <= 2:
        return CodeMap(np.zeros(k), np.eye(k), variances / (variances.sum() or 1.0), True)
    origin = Z.mean(axis=0)
    _, lengths, directions = np.linalg.svd(Z - origin, full_matrices=len(Z) < 2)
    lengths = np.append(lengths, 0.0)  # a single row has one singular value, but two directions
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    shares = lengths[:2] ** 2 / ((lengths**2).sum() or 1.0)
    return CodeMap(origin, directions * np.sign(largest), shares, False)


def decoded_grid(
    est: ReconstructionMixin,
    Z: ArrayLike,
    *,
    size: int = 12,
    view: CodeMap | None = None,
    cut: float = 0.02,
) -> DecodedGrid:
    """Decode a grid of points of the map of the codes ``Z`` (n, k).

    Along each axis the points are evenly spaced quantiles of the codes, from ``cut`` to
    1 − ``cut``, so that the grid is fine where the codes are dense. A code of one number gives
    one row.

    Raises `ParameterError` if size is below 2 or cut outside [0, 0.5).

    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> decoded_grid(est, est.transform(X), size=3).decoded.shape
    (3, 3, 5)
    """
    if size < 2 or not 0 <= cut < 0.5:
        raise ParameterError(f"size is {size} and cut {cut}; give size >= 2 and 0 <= cut < 0.5.")
    view = view or code_map(Z)
    quantiles = np.quantile(view.points(Z), np.linspace(cut, 1 - cut, size), axis=0)
    x = quantiles[:, 0]
    y = quantiles[::-1, 1] if quantiles.shape[1] == 2 else quantiles[:0, 0]
    points = x[:, None] if not len(y) else np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    decoded = np.asarray(est.inverse_transform(view.codes(points).astype(np.float32)))
    return DecodedGrid(x, y, decoded.reshape(len(y) or 1, size, *decoded.shape[1:]))


def interpolate(
    est: ReconstructionMixin, X: Any, pairs: Sequence[tuple[int, int]], steps: int = 9
) -> NDArray[Any]:
    """Decode evenly spaced points between the codes of pairs of rows of X.

        x_t = g((1 − t) f(x_i) + t f(x_j)),  t = 0, 1/(steps − 1), ..., 1

    where codes are vectors; on a sphere or a ball along its shortest path.

    ``pairs`` names rows of ``X`` (n, ...). Returns (pairs, steps, ...) in the user's units; the
    first and the last of each line are the two rows' reconstructions.

    Raises `ParameterError` if steps is below 2 or a pair names a row that does not exist.

    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> walk = interpolate(est, X, [(0, 1), (2, 3)], steps=4)
    >>> walk.shape, np.allclose(walk[0, -1], est.reconstruct(X)[1], atol=1e-5)
    ((2, 4, 5), True)
    """
    rows = np.asarray(pairs, dtype=np.intp).reshape(-1, 2)
    outside = rows[(rows < 0) | (rows >= len(X))]
    if len(outside) or not len(rows):
        raise ParameterError(
            f"pairs names {f'row {outside[0]}' if len(outside) else 'no row'}, but the {len(X):,} "
            f"rows are numbered from 0 to {len(X) - 1}."
        )
    from sklearn.utils import _safe_indexing

    starts, ends = (_safe_indexing(X, rows[:, side]) for side in (0, 1))
    return est.interpolate(starts, ends, steps=steps)
