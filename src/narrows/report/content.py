"""What a report shows: the rows picked, restored, denoised, mapped and drawn, before any HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report.manifold import CodeMap, code_map, decoded_grid, interpolate
from narrows.report.measures import Numbers, measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.report.curve_samples import LineLook
    from narrows.report.image_samples import ImageLook
    from narrows.report.labels import Labels
    from narrows.report.manifold import DecodedGrid

    Look = ImageLook | LineLook

MAP_ROWS = 4000
LARGEST_GRID = 2**22  # numbers in all pictures of a grid
WALKS = 4


@dataclass(frozen=True, slots=True)
class Samples:
    """A few rows with everything a gallery draws of them; codes in standard deviations."""

    original: NDArray[Any]
    codes: NDArray[np.float64]
    restored: NDArray[Any]
    pca: NDArray[Any] | None
    titles: list[str]


@dataclass(frozen=True)
class Content:
    """One fitted model and the rows it is reported on; each part is worked out when asked for."""

    est: Any
    X: NDArray[Any]  # (n, *input_shape_)
    labels: Labels | None
    look: Look
    numbers: Numbers
    seed: int

    @cached_property
    def map_rows(self) -> NDArray[np.intp]:
        """The rows drawn on the map: all, or a random 4,000 of them."""
        order = np.random.default_rng(self.seed).permutation(len(self.X))
        return np.sort(order[:MAP_ROWS])

    @cached_property
    def codes(self) -> NDArray[np.float64]:
        """The codes of ``map_rows``."""
        return np.asarray(self.est.transform(self.X[self.map_rows]), dtype=np.float64)

    @cached_property
    def view(self) -> CodeMap:
        """The map of the codes."""
        return code_map(self.codes)

    @cached_property
    def grid(self) -> DecodedGrid:
        """What lies under the map."""
        return decoded_grid(self.est, self.codes, size=self.look.grid_size, view=self.view)

    @cached_property
    def pca_codes(self) -> NDArray[np.float64] | None:
        """PCA's codes of ``map_rows``; None where the model keeps no PCA."""
        if self.est.pca_ is None:
            return None
        return np.asarray(self.est.pca_.transform(self.X[self.map_rows]), dtype=np.float64)

    def fold(self, events: Any) -> NDArray[Any]:
        """Rows as the estimator gives them, in the shape they are drawn in."""
        folded: NDArray[Any] = np.asarray(events).reshape(-1, *self.look.shape)
        return folded

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
        """A few rows noisy, denoised, clean, and as PCA denoises them."""
        rows = self._some(n)
        noisy = np.asarray(self.est.corrupt(self.X[rows], random_state=self.seed))
        found = {
            "noisy": self.fold(noisy),
            "denoised": self.fold(self.est.reconstruct(noisy)),
            "clean": self.fold(self.X[rows]),
        }
        if self.est.pca_ is not None:
            found["PCA"] = self.fold(self.est.pca_.reconstruct(noisy))
        return found

    def walks(self, steps: int = 9) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(walks, starts, ends) between pairs of rows, of different classes where there are any."""
        pairs = self._pairs()
        walks = interpolate(self.est, self.X, pairs, steps)
        starts, ends = np.array(pairs).T
        folded = np.asarray(walks).reshape(len(pairs), steps, *self.look.shape)
        return folded, self.fold(self.X[starts]), self.fold(self.X[ends])

    def generated(self, n: int) -> dict[str, NDArray[Any]]:
        """Rows of the data, rows drawn from the model, and rows drawn from a normal PCA."""
        found = {
            "data": self.fold(self.X[self._some(n)]),
            "model": self.fold(self.est.sample(n, random_state=self.seed)),
        }
        if self.pca_codes is not None:
            Z = self.pca_codes
            drawn = np.random.default_rng(self.seed).normal(Z.mean(0), Z.std(0), (n, Z.shape[1]))
            found["PCA"] = self.fold(self.est.pca_.inverse_transform(drawn.astype(np.float32)))
        return found

    def _some(self, n: int) -> NDArray[np.intp]:
        return np.random.default_rng(self.seed).permutation(len(self.X))[:n]

    def _pairs(self) -> list[tuple[int, int]]:
        """Pairs of distinct rows; of different classes where the draw offers them."""
        order = self._some(len(self.X))
        starts, pool = list(order[: min(WALKS, len(order) // 2) or 1]), list(order[::-1])
        pairs = []
        for start in starts:
            ends = [row for row in pool[:200] if self._differ(start, row)] or pool
            pool.remove(ends[0])
            pairs.append((int(start), int(ends[0])))
        return pairs

    def _differ(self, a: int, b: int) -> bool:
        if self.labels is None or not self.labels.names:
            return a != b
        return bool(self.labels.index[a] != self.labels.index[b])


def gather(
    est: Any, X: NDArray[Any], labels: Labels | None, names: list[str] | None, seed: int
) -> Content:
    """Measure the model on X and choose how to draw it."""
    shape = tuple(est.input_shape_)
    look = look_at(est, X, shape, names)
    n_show = 4 if hasattr(look, "pixels") else 3
    numbers = measure(est, X, labels, n_show=n_show, seed=seed)
    return Content(est, X, labels, look, numbers, seed)


def look_at(est: Any, X: NDArray[Any], shape: tuple[int, ...], names: list[str] | None) -> Look:
    """Images as pictures, table rows and signals as lines."""
    from narrows.report.curve_samples import line_look
    from narrows.report.image_samples import ImageLook

    some = X[:: max(1, len(X) // 2000)]
    some = some.reshape(len(some), *shape)
    if len(shape) == 1 or est.axes == "CL":
        return line_look(shape, some, names)
    axes = est.axes or {2: "HW", 3: "CHW"}[len(shape)]
    bounds = est.info()["bounds"] or [[float(some.min())], [float(some.max())]]
    # a sheet of large pictures is drawn small: fewer of them are decoded, for memory's sake
    side = int(np.clip(np.sqrt(LARGEST_GRID / math.prod(shape)), 4, 12))
    return ImageLook(shape, axes, min(bounds[0]), max(bounds[1]), grid_size=side)
