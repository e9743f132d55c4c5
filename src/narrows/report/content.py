"""The content of a report as arrays: rows, codes, reconstructions, interpolations, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.estimators.base import with_feature_names
from narrows.exceptions import InputError
from narrows.io.sources import has_any
from narrows.models.denoising_autoencoder import DenoisingAutoencoder
from narrows.report.manifold import (
    CodeMap,
    Traversal,
    code_map,
    decoded_grid,
    interpolate,
    traverse,
)
from narrows.report.measures import Labels, Measured, Numbers, measured_rows
from narrows.report.sample_figures import Plotter, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.estimators.base import Estimator
    from narrows.report.manifold import DecodedGrid

MAX_MAP_ROWS = 4000  # points on a map of codes
N_WALKS = 4  # interpolations shown
N_TRAVERSED = 4  # numbers of the code moved
MAX_TRIED = 200  # rows tried as the end of an interpolation before any row is taken


@dataclass(frozen=True)
class Content:
    """One fitted model and the rows it is reported on; each property is computed at first use."""

    est: Estimator
    X: NDArray[Any]  # (n, *input_shape_), the rows measured
    labels: Labels | None
    every: NDArray[Any]  # all rows given, which are on the map
    every_label: Labels | None
    measured: Measured
    plotter: Plotter
    numbers: Numbers
    seed: int
    n_steps: int = 9  # of an interpolation, its two ends included

    @cached_property
    def map_rows(self) -> NDArray[np.intp]:
        """The rows on the map: all, or 4,000 drawn at random."""
        return np.sort(self._random_rows(MAX_MAP_ROWS, len(self.every)))

    @cached_property
    def codes(self) -> NDArray[np.float64]:
        """The codes of ``map_rows``."""
        return np.asarray(self.est.transform(self.every[self.map_rows]), dtype=np.float64)

    @cached_property
    def view(self) -> CodeMap:
        """The map of the codes."""
        return code_map(self.codes)

    @cached_property
    def grid(self) -> DecodedGrid:
        """Decoded points of the map."""
        size = self.plotter.grid_size
        return decoded_grid(self.est, self.codes, size=size, view=self.view)

    @cached_property
    def pca_codes(self) -> NDArray[np.float64] | None:
        """PCA's codes of ``map_rows``; None if the model keeps no PCA."""
        if self.est.pca_ is None:
            return None
        return np.asarray(self.est.pca_.transform(self.every[self.map_rows]), dtype=np.float64)

    def fold(self, events: NDArray[Any]) -> NDArray[Any]:
        """Rows of the estimator in the shape in which they are drawn, (n, *shape)."""
        return np.asarray(events).reshape(-1, *self.plotter.shape)

    def samples(self, rows: Sequence[int]) -> Samples:
        """The rows ``rows`` of X with their codes and reconstructions."""
        named = None if self.labels is None else [self.labels.name(row) for row in rows]
        return restored_samples(self.est, self.X[list(rows)], self.plotter, self.codes, named)

    def denoised(self, n: int) -> dict[str, NDArray[Any]]:
        """``n`` rows with fresh noise, denoised, clean, and as PCA denoises them."""
        assert isinstance(self.est, DenoisingAutoencoder)
        rows = self._random_rows(n)
        noisy = np.asarray(self.est.corrupt(self.X[rows], random_state=self.seed))
        found = {
            "noisy": self.fold(noisy),
            "denoised": self.fold(self.est.reconstruct(noisy)),
            "clean": self.fold(self.X[rows]),
        }
        if self.est.pca_ is not None:
            found["PCA"] = self.fold(self.est.pca_.reconstruct(noisy))
        return found

    @cached_property
    def traversal(self) -> Traversal:
        """The numbers of the code with the largest effects, moved and decoded."""
        return traverse(self.est, self.codes, n_numbers=N_TRAVERSED)

    def walks(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(walks, starts, ends) of interpolations between pairs of rows, see ``_pairs``."""
        pairs = self._pairs()
        walks = interpolate(self.est, self.X, pairs, self.n_steps)
        starts, ends = np.array(pairs).T
        folded = np.asarray(walks).reshape(len(pairs), self.n_steps, *self.plotter.shape)
        return folded, self.fold(self.X[starts]), self.fold(self.X[ends])

    def generated(self, n: int) -> dict[str, NDArray[Any]]:
        """``n`` rows of the data, of the model, and of a normal distribution of PCA's codes."""
        found = {
            "data": self.fold(self.every[self._random_rows(n, len(self.every))]),
            "model": self.fold(self.est.sample(n, random_state=self.seed)),
        }
        Z = self.pca_codes
        if self.est.pca_ is not None and Z is not None:
            drawn = np.random.default_rng(self.seed).normal(Z.mean(0), Z.std(0), (n, Z.shape[1]))
            found["PCA"] = self.fold(self.est.pca_.inverse_transform(drawn.astype(np.float32)))
        return found

    def some_rows(self) -> NDArray[np.intp]:
        """At most as many of the rows measured as a map has."""
        return self._random_rows(MAX_MAP_ROWS)

    def _random_rows(self, n: int, among: int | None = None) -> NDArray[np.intp]:
        order = np.random.default_rng(self.seed).permutation(among or len(self.X))
        return order[:n]

    def _pairs(self) -> list[tuple[int, int]]:
        """Pairs of distinct rows, of different classes if such rows were drawn."""
        order = self._random_rows(len(self.X))
        starts, pool = list(order[: min(N_WALKS, len(order) // 2) or 1]), list(order[::-1])
        pairs = []
        for start in starts:
            ends = [row for row in pool[:MAX_TRIED] if self._differ(start, row)] or pool
            pool.remove(ends[0])
            pairs.append((int(start), int(ends[0])))
        return pairs

    def _differ(self, a: int, b: int) -> bool:
        if self.labels is None or not self.labels.names:
            return a != b
        return bool(self.labels.index[a] != self.labels.index[b])


def rows_and_names(
    est: Estimator, X: Any, names: Sequence[str] | None
) -> tuple[Estimator, NDArray[Any], list[str] | None, Measured]:
    """X checked and in memory: the estimator for arrays, X as one, its columns' names, `Measured`.

    Raises `InputError` if X does not fit the estimator, or the names do not fit X.
    """
    is_frame = has_any(X, "columns")
    fitted_names = getattr(est, "feature_names_in_", None)
    # scikit-learn warns when a model fitted on named columns is given arrays
    bare = est if fitted_names is None else with_feature_names(est, None)
    measured = measured_rows(est if is_frame else bare, X)
    if names is None:
        names = X.columns if is_frame else fitted_names
    rows = np.asarray(X)
    if names is not None and len(names) != rows[0].size:
        raise InputError(
            f"There are {len(names)} feature names for {rows[0].size} features; give one for each."
        )
    return bare, rows, None if names is None else [str(name) for name in names], measured


def restored_samples(
    est: Estimator,
    X: NDArray[Any],
    plotter: Plotter,
    codes: NDArray[np.float64],
    named: Sequence[str] | None = None,
) -> Samples:
    """Rows with their codes, in standard deviations of ``codes``, and their reconstructions.

    The titles are the rows' errors, after what they are ``named``.
    """

    def fold(rows: Any) -> NDArray[Any]:
        return np.asarray(rows).reshape(len(X), *plotter.shape)

    spread = codes.std(axis=0)
    Z = np.asarray(est.transform(X), dtype=np.float64)
    Z = (Z - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    pca = None if est.pca_ is None else fold(est.pca_.reconstruct(X))
    titles = [f"{error:.2g}" for error in -est.score_samples(X)]
    if named is not None:
        titles = [f"{name} · {title}" for name, title in zip(named, titles, strict=True)]
    return Samples(fold(X), Z, fold(est.reconstruct(X)), pca, titles)
