"""The content of a report as arrays: rows, codes, reconstructions, interpolations, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.models.denoising_autoencoder import DenoisingAutoencoder
from narrows.report.manifold import CodeMap, code_map, decoded_grid, interpolate
from narrows.report.measures import Labels, Measured, Numbers
from narrows.report.sample_figures import Plotter, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.estimators.base import Estimator
    from narrows.report.manifold import DecodedGrid

MAX_MAP_ROWS = 4000  # points on a map of codes
N_WALKS = 4  # interpolations shown
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
        X = self.X[list(rows)]
        Z = np.asarray(self.est.transform(X), dtype=np.float64)
        spread = self.codes.std(axis=0)
        Z = (Z - self.codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        pca = None if self.est.pca_ is None else self.fold(self.est.pca_.reconstruct(X))
        errors = self.numbers.model.errors
        named = [f"{self.labels.name(row)} · " if self.labels else "" for row in rows]
        titles = [f"{name}{errors[row]:.2g}" for name, row in zip(named, rows, strict=True)]
        return Samples(self.fold(X), Z, self.fold(self.est.reconstruct(X)), pca, titles)

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
