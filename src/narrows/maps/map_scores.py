"""How good a model's map is, beside PCA's, t-SNE's and UMAP's maps of the same rows."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing

from narrows.estimators.base import Estimator
from narrows.exceptions import InputError
from narrows.maps.map_quality import (
    continuity,
    distance_correlation,
    neighbourhood_hit,
    trustworthiness,
)
from narrows.report.manifold import CodeMap, code_map

N_NEIGHBORS = 15
MIN_ROWS = 40  # of fewer rows 15 neighbours are most of all rows


@dataclass(frozen=True)
class MapScore:
    """The measures of one map; None: the method or the rows do not have it."""

    name: str
    trustworthiness: float
    continuity: float
    neighbourhood_hit: float | None
    distance_correlation: float | None
    error: float | None  # mean squared error per number, scaled units
    places_new_rows: bool  # False: the rows measured are those it was fitted on


def compare_maps(
    model: Estimator,
    X: Any,
    y: ArrayLike | None = None,
    *,
    view: CodeMap | None = None,
    layouts: bool = True,
    random_state: int = 0,
) -> list[MapScore]:
    """The measures of a model's map of rows X, and of maps that others make of them.

    Distances in the data are those between rows in scaled units. PCA is the one fitted with the
    model; t-SNE, and UMAP where it is installed, are fitted on X itself, which favours them:
    t-SNE has no place for new rows. A code of more than two numbers is measured as it is shown:
    projected on two principal directions.

    Parameters
    ----------
    model : fitted estimator
    X : array of shape (n, \\*input_shape_), n at least 40
        Rows that were not trained on; those with a missing value are left out.
    y : array of shape (n,), optional
        Classes, for the neighbourhood hit.
    view : CodeMap, optional
        The projection of the model's codes. Default: that of the codes of X.
    layouts : bool
        Whether t-SNE and UMAP are compared, which takes seconds.
    random_state : int
        Seed of t-SNE and UMAP.

    Returns
    -------
    list of MapScore
        The model first, then PCA, t-SNE and UMAP.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import NeighborAutoencoder
    >>> from narrows.maps import compare_maps
    >>> X, y = load_digits(return_X_y=True)
    >>> model = NeighborAutoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X[:300])
    >>> [score.name for score in compare_maps(model, X[300:400], y[300:400])][:3]
    ['NeighborAutoencoder', 'PCA', 't-SNE']
    """
    scaled = _scaled_rows(model, X)
    whole = np.isfinite(scaled).all(1)
    X = _safe_indexing(X, np.flatnonzero(whole))
    scaled, codes = scaled[whole], np.asarray(model._codes(X))
    labels = None if y is None else np.asarray(y)[whole]
    view = view or code_map(codes)

    def score(name: str, Z: NDArray[Any], error: float | None, new_rows: bool) -> MapScore:
        k = min(N_NEIGHBORS, (len(Z) - 1) // 2)
        return MapScore(
            name,
            trustworthiness(scaled, Z, n_neighbors=k),
            continuity(scaled, Z, n_neighbors=k),
            None if labels is None else neighbourhood_hit(Z, labels, n_neighbors=k),
            _order(scaled, Z),
            error,
            new_rows,
        )

    def error(method: Any) -> float:
        return float(-np.mean(method.score_samples(X)))

    found = [score(type(model).__name__, view.points(codes), error(model), True)]
    if model.pca_ is not None:
        projected = np.asarray(model.pca_._codes(X))
        found.append(score("PCA", code_map(projected).points(projected), error(model.pca_), True))
    for name, layout in (("t-SNE", _tsne), ("UMAP", _umap)) if layouts else ():
        varies = np.ptp(scaled, axis=0).any()  # scikit-learn's t-SNE crashes on equal rows
        Z = layout(scaled, random_state) if varies else None
        if Z is not None and np.isfinite(Z).all():
            found.append(score(name, Z, None, False))
    return found


def _order(X: NDArray[Any], Z: NDArray[Any]) -> float | None:
    try:
        return distance_correlation(X, Z)
    except InputError:  # all distances are equal
        return None


def _scaled_rows(model: Estimator, X: Any) -> NDArray[np.float32]:
    """The rows in scaled units, flat."""
    parts = [x.flatten(1) for x in model._scaled(model._validate(X))]
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)


def _tsne(rows: NDArray[Any], seed: int) -> NDArray[Any] | None:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows) - 1) / 3)
    init = "pca" if rows.shape[1] > 1 else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(rows)
    return np.asarray(found)


def _umap(rows: NDArray[Any], seed: int) -> NDArray[Any] | None:
    if importlib.util.find_spec("umap") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        return np.asarray(UMAP(random_state=seed).fit_transform(rows))
