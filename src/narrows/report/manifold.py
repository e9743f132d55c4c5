"""What codes mean: maps, decoded grids, interpolations, traversals, directions of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from narrows.estimators.parameters import check_value
from narrows.estimators.reconstruction import validate_codes
from narrows.exceptions import InputError, ParameterError
from narrows.report.formatting import percent, significant
from narrows.report.measures import parse_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.reconstruction import ReconstructionMixin

EFFECT_ROWS = 10_000  # of the numbers of a code together: a wide code must not take minutes


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

    @property
    def axis_names(self) -> list[str]:
        """The names of the axes, with the share of the variance that a projection shows."""
        if self.exact:
            return [f"code {i + 1}" for i in range(len(self.origin))]
        shares = [percent(share) for share in self.shares]
        return [f"direction {i + 1} ({share} of variance)" for i, share in enumerate(shares)]

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
    Z = _checked(Z)
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


def _checked(Z: ArrayLike) -> NDArray[np.float64]:
    Z = np.asarray(Z, dtype=np.float64)
    if Z.ndim != 2 or 0 in Z.shape or not np.isfinite(Z).all():
        raise InputError(f"Codes must be a finite matrix (rows, numbers); got shape {Z.shape}.")
    return Z


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


# ------------------------------------------------------------------ numbers of the code


@dataclass(frozen=True, slots=True)
class Traversal:
    """Decoded codes of which one number at a time is moved.

    ``numbers`` (m,) are those numbers of the code, counted from 0, with the largest effect first;
    ``effects`` (m,) are `code_effects`; ``offsets`` (steps,) how far each is moved, in standard
    deviations; ``start`` (k,) the code that is moved; ``decoded`` (m, steps, ...) in the user's
    units.
    """

    numbers: NDArray[np.intp]
    effects: NDArray[np.float64]
    offsets: NDArray[np.float64]
    start: NDArray[np.float64]
    decoded: NDArray[Any]

    @property
    def names(self) -> list[str]:
        """The numbers in words, counted from 1, with their effects."""
        pairs = zip(self.numbers, self.effects, strict=True)
        return [f"code {number + 1}, effect {significant(effect)}" for number, effect in pairs]


def code_effects(
    est: ReconstructionMixin, Z: ArrayLike, *, max_rows: int | None = None
) -> NDArray[np.float64]:
    """How much the reconstruction changes when one number of the code moves.

        effect_j = mean over i of (‖g(z_i + s_j e_j) − g(z_i)‖² + ‖g(z_i − s_j e_j) − g(z_i)‖²) / 2d

    s_j is the standard deviation of number j over all rows of Z, e_j its unit vector, d the number
    of elements of a row. g decodes to scaled units, those of ``-score_samples``: in data scaled to
    variance 1, an effect of 0.1 is a tenth of the variance. Of a linear decoder
    g(z) = Wz + b it is s_j² ‖w_j‖² / d. A number that the decoder ignores has 0.

    Parameters
    ----------
    est : fitted estimator, or its ``pca_``
    Z : array of shape (n, k)
        Codes, such as ``est.transform(X)``.
    max_rows : int, at least 1, optional
        The mean is over so many evenly spaced rows of Z at most, each of which is decoded 2k + 1
        times. Default: 10,000 / k, from 8 to 500.

    Returns
    -------
    array of shape (k,), float64

    Raises
    ------
    InputError
        Z is no finite matrix of codes of this width.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> Z = est.pca_.transform(X)
    >>> np.allclose(code_effects(est.pca_, Z), Z.var(axis=0) / 5, rtol=1e-4)
    True
    """
    check_value("max_rows", max_rows, kind=int, low=1, none=True)
    Z = _checked(Z)
    max_rows = max_rows or int(np.clip(EFFECT_ROWS // Z.shape[1], 8, 500))
    spread, some = Z.std(axis=0), Z[_evenly(len(Z), max_rows)]
    middle = _scaled_rows(est, some)
    effects = np.empty(len(spread))
    for j, step in enumerate(np.diag(spread)):
        moved = [_scaled_rows(est, some + sign * step) - middle for sign in (1, -1)]
        effects[j] = np.mean(np.square(moved))
    return effects


def traverse(
    est: ReconstructionMixin,
    Z: ArrayLike,
    *,
    n_numbers: int = 6,
    steps: int = 9,
    reach: float = 2.0,
    start: ArrayLike | None = None,
) -> Traversal:
    """Move one number of a code at a time, from low to high, and decode.

        x_{j,t} = g(z_0 + t s_j e_j),  t = −reach, ..., reach

    s_j is the standard deviation of number j over the rows of Z. The numbers are those with the
    largest `code_effects`, the largest first.

    Parameters
    ----------
    est : fitted estimator, or its ``pca_``
    Z : array of shape (n, k)
        Codes, such as ``est.transform(X)``.
    n_numbers : int, at least 1
        How many numbers of the code at most.
    steps : int, at least 2
        Of an odd number the middle one is the start itself.
    reach : float, above 0
        In standard deviations.
    start : array of shape (k,), optional
        z_0. Default: the row of Z nearest to their mean, each number in its standard deviations.

    Returns
    -------
    Traversal

    Raises
    ------
    InputError
        Z is no finite matrix of codes of this width.
    ParameterError
        n_numbers, steps, reach or start is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> est = Autoencoder(latent_dim=3, max_epochs=1, random_state=0).fit(X)
    >>> found = traverse(est, est.transform(X), n_numbers=2, steps=5)
    >>> found.decoded.shape, found.offsets.tolist()
    ((2, 5, 5), [-2.0, -1.0, 0.0, 1.0, 2.0])
    """
    check_value("n_numbers", n_numbers, kind=int, low=1)
    check_value("steps", steps, kind=int, low=2)
    check_value("reach", reach, kind=float, low=0, open=True)
    Z = _checked(Z)
    spread = Z.std(axis=0)
    away = (Z - Z.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    first = Z[np.square(away).sum(axis=1).argmin()] if start is None else np.asarray(start, float)
    if first.shape != spread.shape:
        raise ParameterError(f"start has shape {first.shape}; give one code, ({len(spread)},).")
    effects = code_effects(est, Z)
    numbers = np.argsort(-effects, kind="stable")[:n_numbers]
    offsets = np.linspace(-reach, reach, steps)
    steps_of = offsets[:, None] * np.diag(spread)[numbers][:, None]  # (m, steps, k)
    codes = (first + steps_of).reshape(-1, len(spread)).astype(np.float32)
    decoded = np.asarray(est.inverse_transform(codes))
    decoded = decoded.reshape(len(numbers), steps, *decoded.shape[1:])
    return Traversal(numbers, effects[numbers], offsets, first, decoded)


def attribute_directions(Z: ArrayLike, y: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """For each class the way in the code that leads to it from all other rows.

        v_c = mean of z over the rows of class c − mean of z over all other rows

    In the units of the codes: z + v_c moves a code of another class as far as the means of the two
    are apart, z + t v_c by t times as much; ``est.inverse_transform`` shows what it looks like.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric",
    arXiv:1512.09300 (visual attribute vectors); White, "Sampling generative networks",
    arXiv:1609.04468.

    Parameters
    ----------
    Z : array of shape (n, k)
        Codes, such as ``est.transform(X)``.
    y : array of shape (n,)
        Classes: words, booleans, or whole numbers.

    Returns
    -------
    dict of str to array of shape (k,)
        By the name of the class, in sorted order.

    Raises
    ------
    InputError
        There are fewer than two classes, or y holds measurements or has another length.

    Examples
    --------
    >>> found = attribute_directions([[0.0, 1.0], [2.0, 1.0], [6.0, 0.0]], ["a", "a", "b"])
    >>> found["b"].tolist()
    [5.0, -1.0]
    """
    Z = _checked(Z)
    labels = parse_labels(y, len(Z))
    if len(labels.names) < 2:
        raise InputError("y must hold at least two classes: words, booleans or whole numbers.")
    members = {name: labels.index == i for i, name in enumerate(labels.names)}
    return {name: Z[own].mean(axis=0) - Z[~own].mean(axis=0) for name, own in members.items()}


def _evenly(n: int, most: int) -> NDArray[np.intp]:
    """At most so many row numbers below n, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


def _scaled_rows(est: ReconstructionMixin, Z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Codes decoded to scaled units, (n, elements)."""
    codes = validate_codes(Z, est._code_width())
    with torch.no_grad():
        rows = [est._decode(z).flatten(1).double().cpu() for z in est._code_batches(codes)]
    return torch.cat(rows).numpy()
