"""What the file of a fixed-shape model holds: to tensors and plain JSON, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from narrows.estimators.build_model import (
    build_model,
    copy_networks,
    fingerprint,
    laid_out,
    parts_of,
)
from narrows.estimators.layout import Layout
from narrows.estimators.migrations import updated
from narrows.estimators.model_file import RUN, Contents
from narrows.estimators.pca import PCA
from narrows.estimators.resolved_config import ResolvedConfig
from narrows.estimators.sampler_fit import restored_sampler, sampler_tensors
from narrows.exceptions import FileError, ParameterError
from narrows.training.batches import Scaling

FITTED = frozenset(
    {"choices", "layout", "scaling", "feature_names_in_", "pca_noise", "networks", *RUN}
)


def contents(estimator: Any) -> Contents:
    """The tensors and what stands under "fitted" in the header."""
    model, own = estimator.model_, estimator.choices_.architecture == "own"
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"objective.{name}": t for name, t in estimator.objective_.state_dict().items()}
    tensors |= {f"scaling.{n}": getattr(estimator.scaling_, n) for n in ("shift", "scale")}
    tensors |= sampler_tensors(estimator.sampler_)
    if estimator._pca is not None:
        kept = ("mean", "components", "variances")
        tensors |= {f"pca.{name}": getattr(estimator._pca, name) for name in kept}
    names = getattr(estimator, "feature_names_in_", None)
    return tensors, {
        "choices": estimator.choices_.as_json(),
        "layout": asdict(estimator.layout_),
        "scaling": estimator.scaling_.kind,
        "feature_names_in_": None if names is None else [str(n) for n in names],
        "pca_noise": None if estimator._pca is None else estimator._pca.noise,
        "networks": [fingerprint(model.f), fingerprint(model.g)] if own else None,
    }


def restore(
    estimator: Any, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
) -> None:
    """Give ``estimator`` what ``contents`` took from another."""
    fitted = header["fitted"]
    choices = ResolvedConfig.from_json(fitted["choices"])
    if choices.architecture == "own":
        _check_own(path, own, fitted["networks"])
        estimator.f, estimator.g = own
        own = copy_networks(*own)
    elif own is not None:
        raise ParameterError(f"{path} holds its own networks; load it without f and g.")
    shape = fitted["layout"]["user_shape"]
    layout = Layout(**{**fitted["layout"], "user_shape": tuple(shape)})
    if layout.shape != choices.shape:
        raise ValueError("its shapes contradict each other")
    estimator.layout_, estimator.input_shape_ = layout, layout.user_shape
    with torch.device("meta"):  # a skeleton: nothing is allocated before all shapes agree
        parts = parts_of(estimator)
        model = build_model(parts, choices, own, None)
    objective = parts.objective()
    tensors = updated(tensors, header["format"], model)
    for prefix, module in (("model.", model), ("objective.", objective)):
        state = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        module.load_state_dict(state, assign=True)
    estimator.n_features_in_ = layout.n_features
    if fitted["feature_names_in_"] is not None:
        estimator.feature_names_in_ = np.array(fitted["feature_names_in_"], dtype=object)
    estimator.model_, estimator.objective_ = laid_out(model.eval()), objective
    estimator.choices_ = choices
    estimator.sampler_ = restored_sampler(estimator, tensors)
    estimator.scaling_ = Scaling(
        fitted["scaling"], tensors["scaling.shift"], tensors["scaling.scale"]
    )
    estimator._pca = None
    if fitted["pca_noise"] is not None:
        kept = {n: tensors[f"pca.{n}"] for n in ("mean", "components", "variances")}
        estimator._pca = PCA(**kept, noise=fitted["pca_noise"])


def _check_own(path: Path, own: Any, kept: list[str]) -> None:
    if own is None:
        raise FileError(
            f"{path} holds the weights of your own networks, not their code; load it with "
            "narrows.load(path, f=..., g=...)."
        )
    if [fingerprint(net) for net in own] != kept:
        raise FileError(
            f"The f and g given are built differently from those {path} was saved with; give the "
            "same two modules."
        )
