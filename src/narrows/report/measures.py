"""The numbers of a report as plain data (errors, times, sizes, probes), and its labels."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.estimators.fit_setup import (
    data_marks,
    rows_kept_back,
    same_mark,
    unobserved,
    validation_rows,
    without,
)
from narrows.exceptions import InputError, ParameterError
from narrows.models.denoising_autoencoder import DenoisingAutoencoder
from narrows.report.formatting import count
from narrows.report.probe import Probe, check_labels, linear_probe

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from narrows.estimators.base import Estimator
    from narrows.estimators.reconstruction import ReconstructionMixin

TIMED_ROWS = 1000  # rows encoded and decoded to measure the time
NOISY_ROWS = 500  # rows on which denoising is measured
MAX_CLASSES = 100  # whole numbers of more kinds than this are measurements
ROUNDING = 1e-10  # a squared error, in scaled units, that float32's rounding alone can make


@dataclass(frozen=True, slots=True)
class Labels:
    """One label per row: ``names[index]`` for classes; ``values`` for measurements (no names)."""

    names: list[str]
    index: NDArray[np.int64]
    values: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.intp]) -> Labels:
        return Labels(self.names, self.index[rows], self.values[rows])

    def name(self, row: int) -> str:
        """The label of one row as text."""
        return self.names[self.index[row]] if self.names else f"{self.values[row]:.3g}"


def parse_labels(y: ArrayLike, n_rows: int) -> Labels:
    """Decide whether labels are classes or measurements.

    Strings, booleans and whole numbers of at most 100 kinds are classes; other numbers are
    measurements. Raises `InputError` for a wrong length or a missing label.

    >>> parse_labels(["cat", "dog", "cat"], 3).names
    ['cat', 'dog']
    >>> parse_labels([0.5, 1.25], 2).names
    []
    """
    labels = check_labels(y, n_rows)
    kinds, index = np.unique(labels, return_inverse=True)
    numeric = labels.dtype.kind in "iuf"
    values = labels.astype(np.float64) if numeric else np.zeros(n_rows)
    whole = numeric and bool((np.isfinite(values) & (values == np.round(values))).all())
    if numeric and (not whole or len(kinds) > MAX_CLASSES):
        return Labels([], np.zeros(n_rows, dtype=np.int64), values)
    names = [str(int(kind)) if whole else str(kind) for kind in kinds]
    return Labels(names, index.astype(np.int64), values)


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows that a report measures on, by number, and what the fit did with them.

    ``kind`` is "test" (kept back by ``test_size``), "validation" (the best epoch was chosen by
    them), "fitted" (trained on, as none were held out) or "unknown" (not the data of the fit).
    """

    rows: NDArray[np.int64]
    kind: str

    def in_words(self, n_rows: int) -> str:
        """As text, among ``n_rows`` rows given."""
        shown = count(len(self.rows), "row")
        given = f"{shown} of {n_rows:,} given (the others have no value)"
        return {
            "test": f"{shown} of {n_rows:,} that fit kept back (test_size)",
            "validation": f"{shown} of {n_rows:,} that fit held out for validation",
            "fitted": f"{shown} that the model was fitted on",
        }.get(self.kind, f"all {shown} given" if len(self.rows) == n_rows else given)


def measured_rows(est: Estimator, X: Any) -> Measured:
    """Which rows of X are measured: those that the fit held out, if X is the data of the fit.

    Parameters
    ----------
    est : fitted estimator
    X : array of shape (n, \\*input_shape_)

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, test_size=0.25, random_state=0).fit(X)
    >>> found = measured_rows(est, X)
    >>> len(found.rows), found.kind, measured_rows(est, X[:20]).kind
    (10, 'test', 'unknown')
    """
    rows = est._validate(X)
    known, validated = [*(est.state_.data or []), None, None][:2]
    full = np.delete(np.arange(len(rows)), unobserved(rows))  # without a value there is no error
    try:
        test = rows_kept_back(len(rows), est.test_size)
    except ParameterError:  # too few rows to be those of the fit
        known = None
    if known is None:
        return Measured(full, "unknown")
    fitted = data_marks([without(rows, test)], whole=bool(known.get("whole")))[0]
    if not same_mark(known, fitted):
        return Measured(full, "unknown")
    if len(test):
        return Measured(np.intersect1d(test, full), "test")
    fraction = est.validation_fraction if validated is None else 0.0
    held = validation_rows(rows, full, fraction, est.state_.seed, bool(known["streamed"]))
    return Measured(held, "validation") if len(held) else Measured(full, "fitted")


@dataclass(frozen=True, slots=True)
class Method:
    """The result of one method on the rows given, and its cost."""

    name: str
    errors: NDArray[np.float64]  # (n,) mean squared error per element, scaled units
    r2: float  # pooled over all elements, user's units
    n_parameters: int
    encode_seconds: float  # per row
    decode_seconds: float

    @property
    def mse(self) -> float:
        """Mean squared error per element, in scaled units."""
        return float(self.errors.mean())


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows counted by their error, in the same bins for all methods."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    logarithmic: bool


@dataclass(frozen=True, slots=True)
class DenoisingErrors:
    """Mean squared distance to the clean rows, as a share of the data's variance.

    The columns of a table each have their own variance; all elements of other data share one.
    """

    n_rows: int
    noisy: float
    denoised: float
    pca: float | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything measured for a report."""

    latent_dim: int
    model: Method
    pca: Method | None
    model_bytes: int  # size of the model's file
    histogram: Histogram
    ranking: dict[str, list[int]]  # row numbers under "Typical", "Best", "Worst"
    probes: dict[str, Probe] = field(default_factory=dict)
    probe_note: str = ""
    majority: float | None = None  # the share of the most frequent class
    denoising: DenoisingErrors | None = None

    @property
    def methods(self) -> list[Method]:
        """The model, and PCA if there is one."""
        return [self.model] if self.pca is None else [self.model, self.pca]

    @property
    def n_rows(self) -> int:
        """How many rows were measured."""
        return len(self.model.errors)

    @property
    def ratio(self) -> float | None:
        """The model's error divided by PCA's; None without PCA, or if PCA's is only rounding."""
        if self.pca is None or self.pca.mse <= ROUNDING:
            return None
        return self.model.mse / self.pca.mse

    @property
    def share_better(self) -> float | None:
        """The share of rows on which the model's error is below PCA's."""
        if self.pca is None:
            return None
        return float(np.mean(self.model.errors < self.pca.errors))


def measure(
    est: Estimator,
    X: NDArray[Any],
    every: NDArray[Any],
    labels: Labels | None,
    *,
    n_show: int,
    seed: int,
) -> Numbers:
    """Measure a fitted estimator, and PCA of the same width, on rows ``X`` (n, ...).

    The linear probe, a cross-validation, takes ``every`` row and its label. ``n_show`` is how many
    rows each ranking lists; ``seed`` draws the noise and the probe's folds.
    """
    name = type(est).__name__
    model = _method(name, est, X, est.n_parameters_)
    pca = None
    if est.pca_ is not None:
        # PCA has no more directions than rows: its width may be below latent_dim_
        width = np.asarray(est.pca_.transform(X[:1])).shape[1]
        pca = _method("PCA", est.pca_, X, (width + 1) * math.prod(est.input_shape_))
    probes, note, majority = _probes(est, every, labels, seed)
    return Numbers(
        latent_dim=est.latent_dim_,
        model=model,
        pca=pca,
        model_bytes=_file_size(est),
        histogram=error_bins({m.name: m.errors for m in (model, pca) if m is not None}),
        ranking=ranking(model.errors, n_show),
        probes=probes,
        probe_note=note,
        majority=majority,
        denoising=_denoising(est, X, seed) if isinstance(est, DenoisingAutoencoder) else None,
    )


def ranking(errors: NDArray[np.float64], n_show: int) -> dict[str, list[int]]:
    """The rows to show: around the median error, the smallest, the largest; no row twice.

    >>> import numpy as np
    >>> ranking(np.array([5.0, 1.0, 4.0, 2.0, 3.0]), 1)
    {'Typical': [4], 'Best': [1], 'Worst': [0]}
    >>> ranking(np.array([2.0, 1.0]), 4)
    {'Best': [1], 'Worst': [0]}
    """
    order = [int(row) for row in np.argsort(errors, kind="stable")]
    if len(order) == 1:
        return {"Typical": order}
    if len(order) == 2:
        return {"Best": order[:1], "Worst": order[1:]}
    n = min(n_show, len(order) // 3)
    start = (len(order) - n) // 2
    return {"Typical": order[start : start + n], "Best": order[:n], "Worst": order[: -n - 1 : -1]}


def error_bins(errors: dict[str, NDArray[np.float64]], n_bins: int = 40) -> Histogram:
    """Count each method's rows by error; logarithmic bins if the errors span more than 30×.

    >>> import numpy as np
    >>> error_bins({"a": np.array([0.0, 1.0])}, n_bins=2).counts["a"].tolist()
    [1, 1]
    """
    pooled = np.concatenate(list(errors.values()))
    low, high = float(pooled.min()), float(pooled.max())
    logarithmic = low > 0 and high > 30 * low
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    edges = (
        np.geomspace(low, high, n_bins + 1) if logarithmic else np.linspace(low, high, n_bins + 1)
    )
    edges[0], edges[-1] = low, high  # geomspace may round the ends inwards: a row would be lost
    counts = {name: np.histogram(values, edges)[0] for name, values in errors.items()}
    return Histogram(edges, counts, logarithmic)


def _method(name: str, method: ReconstructionMixin, X: NDArray[Any], n_parameters: int) -> Method:
    errors = -np.asarray(method.score_samples(X), dtype=np.float64)
    some = X[:TIMED_ROWS]
    encode, Z = _timed(method.transform, some)
    decode, _ = _timed(method.inverse_transform, np.asarray(Z))
    n = len(some)
    return Method(name, errors, float(method.score(X)), int(n_parameters), encode / n, decode / n)


def _timed(function: Callable[[Any], Any], argument: Any) -> tuple[float, Any]:
    """Seconds of the second call (the first one also loads and sets up), and its result."""
    function(argument)
    start = time.perf_counter()
    result = function(argument)
    return time.perf_counter() - start, result


def _file_size(est: Estimator) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return est.save(Path(folder) / "model.safetensors").stat().st_size


def _probes(
    est: Estimator, X: NDArray[Any], labels: Labels | None, seed: int
) -> tuple[dict[str, Probe], str, float | None]:
    if labels is None:
        return {}, "", None
    if not labels.names:
        return {}, "The labels are measurements, not classes: there is no linear probe.", None
    counts = np.bincount(labels.index)
    majority = float(counts.max() / counts.sum())
    folds = int(min(5, max(2, counts.min())))
    try:
        classes = np.array(labels.names)[labels.index]
        return linear_probe(est, X, classes, n_folds=folds, random_state=seed), "", majority
    except InputError as error:
        return {}, f"No linear probe. {error}", majority


def _denoising(est: DenoisingAutoencoder, X: NDArray[Any], seed: int) -> DenoisingErrors:
    rows = np.random.default_rng(seed).permutation(len(X))[:NOISY_ROWS]
    clean = X[np.sort(rows)]
    noisy = np.asarray(est.corrupt(clean, random_state=seed))
    table = len(est.input_shape_) == 1
    variance = np.var(np.asarray(X, dtype=np.float64), axis=0 if table else None)
    variance = np.where(variance > 0, variance, 1.0)

    def distance(rows: NDArray[Any]) -> float:
        return float(np.mean((np.asarray(rows, dtype=np.float64) - clean) ** 2 / variance))

    pca = None if est.pca_ is None else distance(est.pca_.reconstruct(noisy))
    return DenoisingErrors(len(clean), distance(noisy), distance(est.reconstruct(noisy)), pca)
