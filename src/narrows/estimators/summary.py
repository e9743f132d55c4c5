"""A fitted model in words and numbers: what ``info`` answers and a file's header keeps."""

from __future__ import annotations

import math
import platform
from dataclasses import fields
from typing import Any

from narrows.estimators.parameters import in_order
from narrows.io.safetensors_file import without_nan
from narrows.version import __version__


def plain(value: Any) -> Any:
    """A parameter as plain JSON."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):  # numpy's scalars
        return value.item()
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)


def given_parameters(estimator: Any) -> dict[str, Any]:
    """The parameters that are not at their default."""
    values = {f.name: getattr(estimator, f.name) for f in fields(estimator)}
    return {
        f.name: plain(values[f.name])
        for f in in_order(estimator)
        if f.name != "listeners"  # they are no part of the model
        and not (type(values[f.name]) is type(f.default) and values[f.name] == f.default)
    }


def describe_run(estimator: Any, training: Any, epoch: int = 0) -> dict[str, Any]:
    """What listeners hear at the start; ``epoch``: how many of its history a run goes on from."""
    about: dict[str, Any] = without_nan(
        {
            "model": type(estimator).__name__,
            "parameters": given_parameters(estimator),
            "choices": estimator.choices_.as_json(),
            "rows": {"training": len(training.rows), "validation": len(training.validation)},
            "seed": training.seed,
            "epoch": epoch,
            "versions": versions(),
        }
    )
    return about


def _scaling_sentence(estimator: Any) -> str:
    kind = estimator.scaling_.kind
    if kind == "none":
        return "none"
    if kind == "column":
        return "each column to mean 0 and standard deviation 1"
    whole = len(estimator.choices_.shape) == 1
    return f"one shift and scale for {'the whole table' if whole else 'each channel'}"


def _bounds(estimator: Any) -> list[list[float]] | None:
    """Lowest and highest value of each channel of data that have such; None where they have not."""
    if estimator.distance_ == "bernoulli":
        return [[0.0], [1.0]]
    buffers = dict(estimator.model_.g.named_buffers())
    low = next((b for name, b in buffers.items() if name.endswith("low")), None)
    high = next((b for name, b in buffers.items() if name.endswith("high")), None)
    if low is None or high is None:
        return None
    ends = [estimator.scaling_.undo(b).flatten().tolist() for b in (low, high)]
    # kept in float32, where 0 came back as 1e-8: as many digits as that can hold
    reach = max(map(abs, [*ends[0], *ends[1]]), default=0.0) or 1.0
    digits = 5 - math.floor(math.log10(reach))
    return [[round(value, digits) + 0.0 for value in side] for side in ends]  # no minus zero


def versions() -> dict[str, str]:
    """What the model was made with."""
    import numpy
    import sklearn
    import torch

    return {
        "narrows": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }


def describe(estimator: Any) -> dict[str, Any]:
    """The answer of ``info``; None where a number was none."""
    card: dict[str, Any] = without_nan(_card(estimator))
    return card


def _card(estimator: Any) -> dict[str, Any]:
    parts = estimator.model_.describe()
    terms = [f"{t.name} × {plain(t.weight)}" for t in estimator.objective_.terms]
    start = "probabilistic PCA" if estimator.model_.q.start == "gaussian" else "PCA"
    rows = estimator.rows_
    fitted = estimator.sampler_  # beside the parts: it was fitted when they were learned
    sampled = {} if fitted is None else {"sampler": fitted.words}
    return {
        "model": type(estimator).__name__,
        "parameters": given_parameters(estimator),
        "input_shape": list(estimator.input_shape_),
        "dtype": estimator.layout_.dtype,
        "latent_dim": estimator.latent_dim_,
        "architecture": estimator.architecture_,
        "distance": estimator.distance_,
        "scaling": _scaling_sentence(estimator),
        "bounds": _bounds(estimator),
        "starts_at": start if estimator.choices_.linear_path else "random weights",
        "parts": {**parts, "R": ", ".join(terms) or "none", **sampled},
        "n_parameters": estimator.n_parameters_,
        "training": {
            "rows": rows["given"],
            "validation_rows": rows["validation"],
            "epochs": estimator.n_iter_,
            "best_epoch": estimator.best_epoch_,
            "seconds": round(estimator.fit_seconds_, 3),
            "loss": estimator.loss_curve_[-1] if estimator.loss_curve_ else None,
            "validation": estimator.best_loss_,
            **estimator.validation_errors_,
            "stop_reason": estimator.stop_reason_,
        },
        "versions": versions() if not hasattr(estimator, "versions_") else estimator.versions_,
    }
