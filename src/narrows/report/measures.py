"""The figures of a report, as plain data: what the page says, before anything is drawn."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import InputError
from narrows.report.probe import Probe, linear_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.report.labels import Labels

TIMED_ROWS = 1000
NOISY_ROWS = 500
ROUNDING = 1e-10  # an error, in scaled units, that float32 alone can make


@dataclass(frozen=True, slots=True)
class Method:
    """How one method did on the rows given, and what it costs."""

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
class Sizes:
    """What one row and its code take, and the model beside them."""

    n_elements: int
    row_bytes: int
    latent_dim: int
    code_bytes: int
    model_bytes: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows counted by their error, in the same bins for both methods."""

    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    logarithmic: bool


@dataclass(frozen=True, slots=True)
class Denoising:
    """Mean squared distance to the clean rows, as a share of the data's variance.

    Of a table each column has its own variance, else all elements have one together.
    """

    n_rows: int
    noisy: float
    denoised: float
    pca: float | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything measured for a report."""

    n_rows: int
    model: Method
    pca: Method | None
    sizes: Sizes
    fit_seconds: float
    histogram: Histogram
    ranking: dict[str, list[int]]  # row numbers under "Typical", "Best", "Worst"
    probes: dict[str, Probe] = field(default_factory=dict)
    probe_note: str = ""
    commonest: float | None = None  # the share of the commonest class
    denoising: Denoising | None = None

    @property
    def ratio(self) -> float | None:
        """The model's error over PCA's; None where there is no PCA, or it errs by rounding only."""
        if self.pca is None or self.pca.mse <= ROUNDING:
            return None
        return self.model.mse / self.pca.mse

    @property
    def share_better(self) -> float | None:
        """The share of rows on which the model's error is below PCA's."""
        if self.pca is None:
            return None
        return float(np.mean(self.model.errors < self.pca.errors))


def measure(est: Any, X: Any, labels: Labels | None, *, n_show: int, seed: int) -> Numbers:
    """Measure a fitted estimator, and PCA beside it, on rows ``X`` (n, ...)."""
    name = type(est).__name__
    model = _method(name, est, X, est.n_parameters_)
    pca = None
    if est.pca_ is not None:
        width = np.asarray(est.pca_.transform(X[:1])).shape[1]  # fewer than asked of few rows
        pca = _method("PCA", est.pca_, X, (width + 1) * math.prod(est.input_shape_))
    probes, note, commonest = _probes(est, X, labels, seed)
    return Numbers(
        n_rows=len(X),
        model=model,
        pca=pca,
        sizes=_sizes(est, X),
        fit_seconds=float(est.fit_seconds_),
        histogram=histogram({m.name: m.errors for m in (model, pca) if m is not None}),
        ranking=ranking(model.errors, n_show),
        probes=probes,
        probe_note=note,
        commonest=commonest,
        denoising=_denoising(est, X, seed) if hasattr(est, "corrupt") else None,
    )


def ranking(errors: NDArray[np.float64], n_show: int) -> dict[str, list[int]]:
    """Which rows to show: around the median error, the smallest, the largest; no row twice.

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
    each = min(n_show, len(order) // 3)
    start = (len(order) - each) // 2
    return {
        "Typical": order[start : start + each],
        "Best": order[:each],
        "Worst": order[: -each - 1 : -1],
    }


def histogram(errors: dict[str, NDArray[np.float64]], n_bins: int = 40) -> Histogram:
    """Count each method's rows by error; logarithmic bins where the errors span more than 30×.

    >>> import numpy as np
    >>> histogram({"a": np.array([0.0, 1.0])}, n_bins=2).counts["a"].tolist()
    [1, 1]
    """
    together = np.concatenate(list(errors.values()))
    low, high = float(together.min()), float(together.max())
    logarithmic = low > 0 and high > 30 * low
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    edges = (
        np.geomspace(low, high, n_bins + 1) if logarithmic else np.linspace(low, high, n_bins + 1)
    )
    edges[0], edges[-1] = low, high  # geomspace may round the ends inwards and lose a row
    counts = {name: np.histogram(values, edges)[0] for name, values in errors.items()}
    return Histogram(edges, counts, logarithmic)


def _method(name: str, method: Any, X: Any, n_parameters: int) -> Method:
    errors = -np.asarray(method.score_samples(X), dtype=np.float64)
    some = X[:TIMED_ROWS]
    encode, Z = _timed(method.transform, some)
    decode, _ = _timed(method.inverse_transform, np.asarray(Z))
    n = len(some)
    return Method(name, errors, float(method.score(X)), int(n_parameters), encode / n, decode / n)


def _timed(function: Callable[[Any], Any], argument: Any) -> tuple[float, Any]:
    """Seconds of the second call: the first one pays for what is loaded and set up once."""
    function(argument)
    start = time.perf_counter()
    answer = function(argument)
    return time.perf_counter() - start, answer


def _sizes(est: Any, X: NDArray[Any]) -> Sizes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        est.save(file)
        model_bytes = file.stat().st_size
    n_elements = math.prod(est.input_shape_)
    code_bytes = est.latent_dim_ * np.dtype(np.float32).itemsize
    return Sizes(n_elements, n_elements * X.itemsize, est.latent_dim_, code_bytes, model_bytes)


def _probes(
    est: Any, X: Any, labels: Labels | None, seed: int
) -> tuple[dict[str, Probe], str, float | None]:
    if labels is None:
        return {}, "", None
    if not labels.names:
        return {}, "The labels are measurements, not classes, so no classifier reads them.", None
    counts = np.bincount(labels.index)
    commonest = float(counts.max() / counts.sum())
    folds = int(min(5, max(2, counts.min())))
    try:
        classes = np.array(labels.names)[labels.index]
        return linear_probe(est, X, classes, n_folds=folds, random_state=seed), "", commonest
    except InputError as error:
        return {}, f"No linear probe. {error}", commonest


def _denoising(est: Any, X: Any, seed: int) -> Denoising:
    rows = np.random.default_rng(seed).permutation(len(X))[:NOISY_ROWS]
    clean = X[np.sort(rows)]
    noisy = np.asarray(est.corrupt(clean, random_state=seed))
    table = len(est.input_shape_) == 1
    variance = np.var(np.asarray(X, dtype=np.float64), axis=0 if table else None)
    variance = np.where(variance > 0, variance, 1.0)

    def distance(other: Any) -> float:
        return float(np.mean((np.asarray(other, dtype=np.float64) - clean) ** 2 / variance))

    pca = None if est.pca_ is None else distance(est.pca_.reconstruct(noisy))
    return Denoising(len(clean), distance(noisy), distance(est.reconstruct(noisy)), pca)
