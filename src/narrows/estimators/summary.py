"""A fitted model as plain JSON: what ``info`` returns, and what listeners get at the start."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from narrows.estimators.fit_setup import Training
from narrows.estimators.fitted_state import EstimatorState, History
from narrows.estimators.model_file import plain, versions
from narrows.estimators.parameters import Parameters, RunParameters, in_order
from narrows.io.safetensors_file import without_nan

SAME = 0.03  # the model and PCA count as equal if their errors differ by at most this share


def given_parameters(params: RunParameters) -> dict[str, Any]:
    """The parameters that are not at their default."""
    values = vars(params)
    return {
        f.name: plain(values[f.name])
        for f in in_order(params)
        if f.name != "listeners"  # not part of the model
        and not (type(values[f.name]) is type(f.default) and values[f.name] == f.default)
    }


def describe_run(params: RunParameters, training: Training[Any], epoch: int) -> dict[str, Any]:
    """What listeners get at the start; ``epoch``: of the history that a run goes on from."""
    about: dict[str, Any] = without_nan(
        {
            "model": type(params).__name__,
            "parameters": given_parameters(params),
            "choices": asdict(training.start.config),
            "rows": {"training": len(training.rows), "validation": len(training.validation)},
            "seed": training.start.seed,
            "epoch": epoch,
            "versions": versions(),
        }
    )
    return about


def _scaling_sentence(state: EstimatorState) -> str:
    if state.scaling.kind == "none":
        return "none"
    if state.scaling.kind == "column":
        return "each column to mean 0 and standard deviation 1"
    whole = len(state.config.shape) == 1
    return f"one shift and scale for {'the whole table' if whole else 'each channel'}"


def _bounds(state: EstimatorState) -> list[list[float]] | None:
    """Lowest and highest value of each channel of bounded data; None where it is not bounded."""
    if state.config.distance == "bernoulli":
        return [[0.0], [1.0]]
    buffers = dict(state.model.g.named_buffers())
    low = next((b for name, b in buffers.items() if name.endswith("low")), None)
    high = next((b for name, b in buffers.items() if name.endswith("high")), None)
    if low is None or high is None:
        return None
    ends = [state.scaling.undo(b).flatten().tolist() for b in (low, high)]
    # stored in float32, where 0 came back as 1e-8: as many digits as that can hold
    reach = max(map(abs, [*ends[0], *ends[1]]), default=0.0) or 1.0
    digits = 5 - math.floor(math.log10(reach))
    return [[round(value, digits) + 0.0 for value in side] for side in ends]  # no minus zero


def run_summary(history: History) -> dict[str, Any]:
    """How training went, as every ``info`` shows it."""
    return {
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "seconds": round(history.seconds, 3),
    }


def advice_on_pca(card: dict[str, Any]) -> tuple[bool, str]:
    """What to do if the model of this ``info`` is no better than PCA, and whether to train on."""
    # only a model that starts at PCA gets below it by training longer, if training was cut off
    if card["starts_at"] == "PCA" and "budget" in card["training"]["stop_reason"]:
        return True, "train longer (--max-time, --max-epochs; in Python max_time, max_epochs)"
    if "p" in card.get("parts", {}):
        return False, (
            "a model with a prior gives up accuracy for samples; to restore rows, fit --model "
            "autoencoder (Autoencoder in Python)"
        )
    return False, (
        "use PCA, or try more rows, another --latent-dim or wider --hidden-layer-sizes (latent_dim "
        "and hidden_layer_sizes in Python)"
    )


def estimator_summary(params: Parameters, state: EstimatorState) -> dict[str, Any]:
    """The answer of ``info``; None where a number is NaN."""
    config, history = state.config, state.history
    terms = [f"{t.name} × {plain(t.weight)}" for t in state.objective.terms]
    start = "probabilistic PCA" if state.model.q.start == "gaussian" else "PCA"
    sampler = {} if state.sampler is None else {"sampler": state.sampler.words}
    losses = [entry["loss"] for entry in history.epochs]
    found: dict[str, Any] = without_nan(
        {
            "model": type(params).__name__,
            "parameters": given_parameters(params),
            "input_shape": list(state.layout.user_shape),
            "dtype": state.layout.dtype,
            "latent_dim": config.latent_dim,
            "architecture": config.architecture,
            "distance": config.distance,
            "scaling": _scaling_sentence(state),
            "bounds": _bounds(state),
            "starts_at": start if config.linear_path else "random weights",
            "parts": {**state.model.describe(), "R": ", ".join(terms) or "none", **sampler},
            "n_parameters": sum(p.numel() for p in state.model.parameters()),
            "training": {
                "rows": history.rows["given"],
                "validation_rows": history.rows["validation"],
                **run_summary(history),
                "loss": losses[-1] if losses else None,
                "validation": history.scores[history.best_epoch],
                **history.errors,
                "stop_reason": history.stop_reason,
            },
            "versions": state.versions or versions(),
        }
    )
    return found
