"""Linear probes: the accuracy of a linear classifier on codes, PCA's codes and raw data.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes" (2016),
https://arxiv.org/abs/1610.01644.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError, ParameterError
from narrows.report.formatting import count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.base import Estimator

MAX_RAW_FEATURES = 10_000  # with more, a linear probe takes minutes and gigabytes


@dataclass(frozen=True, slots=True)
class Probe:
    """The accuracy of a linear classifier over the folds of a cross-validation."""

    accuracy: float  # mean over the folds
    sd: float  # standard deviation over the folds
    n_features: int
    n_rows: int


def linear_probe(
    est: Estimator,
    X: Any,
    y: ArrayLike,
    *,
    n_folds: int = 5,
    max_rows: int = 2000,
    random_state: int = 0,
) -> dict[str, Probe]:
    """Cross-validated accuracy of a linear classifier on the codes, on PCA's codes and on raw data.

    All three are given the same rows in the same stratified folds, each standardised on the
    training part of the fold, so they can be compared fold by fold.

    Parameters
    ----------
    est : fitted estimator
    X : array of shape (n, \\*input_shape_)
    y : array of shape (n,)
        Class names or numbers.
    n_folds : int, at least 2
    max_rows : int
        Of more rows than this, a subset of about this many is used, with each class at its share.
    random_state : int
        Seed of the subset and of the folds.

    Returns
    -------
    dict
        ``{"codes": Probe, "pca": Probe, "raw": Probe}``; without "pca" if the model keeps no PCA,
        without "raw" if rows have more than 10,000 numbers.

    Raises
    ------
    InputError
        y has another length than X, a missing value, a single class, or a class with fewer rows
        than folds.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = rng.normal(size=(60, 5)) + 8 * y[:, None]
    >>> est = Autoencoder(latent_dim=1, max_epochs=1, random_state=0).fit(X)
    >>> linear_probe(est, X, y)["codes"].accuracy
    1.0
    """
    from sklearn.utils import _safe_indexing

    classes = check_classes(y, len(X), n_folds)
    rows = stratified_rows(classes, max_rows, n_folds, random_state)
    X, classes = _safe_indexing(X, rows), classes[rows]
    features = {"codes": np.asarray(est.transform(X))}
    if est.pca_ is not None:
        features["pca"] = np.asarray(est.pca_.transform(X))
    raw = np.asarray(X).reshape(len(rows), -1)
    if raw.shape[1] <= MAX_RAW_FEATURES:
        features["raw"] = raw
    return {
        name: probe_features(F, classes, n_folds=n_folds, random_state=random_state)
        for name, F in features.items()
    }


def probe_features(F: ArrayLike, y: ArrayLike, *, n_folds: int = 5, random_state: int = 0) -> Probe:
    """Cross-validated accuracy of logistic regression on standardised features ``F`` (n, k).

    Raises `InputError` as `linear_probe` does.

    >>> import numpy as np
    >>> F = np.repeat([[0.0], [1.0]], 5, axis=0)
    >>> probe_features(F, ["no"] * 5 + ["yes"] * 5).accuracy
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    F = np.asarray(F, dtype=np.float64)
    classes = check_classes(y, len(F), n_folds)
    # the accuracy needs no exact optimum: a tolerance of 1e-3 (default 1e-4) saves most of the time
    classifier = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-3, max_iter=2000))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
    scores = cross_val_score(classifier, F, classes, cv=folds)
    return Probe(float(scores.mean()), float(scores.std()), F.shape[1], len(F))


def check_classes(y: ArrayLike, n_rows: int, n_folds: int) -> NDArray[np.int64]:
    """The labels as class numbers (n,); `InputError` if there is no probe of them."""
    if n_folds < 2:
        raise ParameterError(f"n_folds is {n_folds}; a cross-validation needs at least 2 folds.")
    labels = check_labels(y, n_rows)
    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"All {n_rows} labels are {str(names[0])!r}; a classifier needs at least two classes."
        )
    if counts.min() < n_folds:
        name = str(names[counts.argmin()])
        raise InputError(
            f"Class {name!r} has {count(int(counts.min()), 'row')}; {n_folds} folds need at least "
            f"{n_folds} of each class: give more rows, or merge or leave out rare classes."
        )
    return index.astype(np.int64)


def check_labels(y: ArrayLike, n_rows: int) -> NDArray[Any]:
    """The labels as an array (n_rows,) that can be sorted; `InputError` if one is missing."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != n_rows:
        raise InputError(
            f"The labels have shape {labels.shape}, the data {count(n_rows, 'row')}; "
            "give one label for each row, in the same order."
        )
    missing = np.array([_is_missing(value) for value in labels.tolist()], dtype=bool)
    if missing.any():
        raise InputError(
            f"The label of row {int(missing.argmax())} is missing; "
            "give every row a label, or leave such rows out."
        )
    return labels.astype(str) if labels.dtype == object else labels


def stratified_rows(
    classes: NDArray[Any], max_rows: int, at_least: int, random_state: int
) -> NDArray[np.intp]:
    """About ``max_rows`` row numbers, each class at its share but ``at_least`` rows of each."""
    if len(classes) <= max_rows:
        return np.arange(len(classes))
    rng = np.random.default_rng(random_state)
    chosen = []
    for name in np.unique(classes):
        rows = np.flatnonzero(classes == name)
        share = max(at_least, round(len(rows) * max_rows / len(classes)))
        chosen.append(rng.permutation(rows)[:share])
    return np.sort(np.concatenate(chosen))


def _is_missing(label: object) -> bool:
    # by its name, because comparing pandas' NA gives neither true nor false
    return label is None or type(label).__name__ in ("NAType", "NaTType") or label != label
