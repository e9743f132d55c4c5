"""One file for a whole model: from a fitted estimator to tensors and a header, and back.

The loader takes class names from the catalogue only, never a path from the file, and refuses any
field it does not know.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from narrows.baselines import PCA
from narrows.core import FileError, NarrowsError, ParameterError
from narrows.engine.data import Scaling
from narrows.engine.distributed import world
from narrows.engine.storage import read_file, write_file
from narrows.estimators.building import build_model, copy_networks, fingerprint, laid_out
from narrows.estimators.catalogue import MODELS, model_class
from narrows.estimators.choices import Choices
from narrows.estimators.describing import plain, versions
from narrows.estimators.door import Layout
from narrows.estimators.older import updated
from narrows.estimators.parameters import OBJECTS
from narrows.estimators.preparing import lasting, pick_device, seed_of
from narrows.parts.objective import WeightedObjective

HEADER = {"format", "class", "parameters", "fitted", "versions"}
FITTED = {
    "choices",
    "layout",
    "scaling",
    "feature_names_in_",
    "pca_noise",
    "history_",
    "validation_curve_",
    "best_epoch_",
    "stop_reason_",
    "fit_seconds_",
    "rows_",
    "validation_errors_",
    "networks",
}
# networks are code, and where a run is kept is no trait of the model
NOT_KEPT = OBJECTS | {"checkpoint", "checkpoint_every", "resume"}
Contents = tuple[dict[str, Tensor], dict[str, Any]]
AGREEMENT = 1e-3  # of the range: how far a loaded model may answer from what it answered when saved


def _probe(estimator: Any) -> Tensor:
    """One row whose answers are kept: every reload must give them again."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn((1, *estimator.choices_.shape), generator=rng, dtype=torch.float32)


@torch.no_grad()
def _answers(estimator: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    z = estimator._encode(x.to(estimator._device))
    return z.cpu(), estimator._decode(z).cpu()


def save(estimator: Any, path: Path, *, overwrite: bool) -> Path:
    """Write the estimator to ``path``."""
    if world().rank == 0:  # all processes of a group hold the same model
        write_file(path, *contents(estimator), overwrite=overwrite)
    return path


def contents(estimator: Any) -> Contents:
    """The tensors and the header of the estimator's file."""
    x = _probe(estimator)
    z, output = _answers(estimator, x)
    tensors = {f"model.{name}": t for name, t in estimator.model_.state_dict().items()}
    tensors |= {f"objective.{name}": t for name, t in estimator.objective_.state_dict().items()}
    tensors |= {f"scaling.{n}": getattr(estimator.scaling_, n) for n in ("shift", "scale")}
    tensors |= {"probe.x": x, "probe.z": z, "probe.output": output}
    if estimator._pca is not None:
        names = ("mean", "components", "variances")
        tensors |= {f"pca.{name}": getattr(estimator._pca, name) for name in names}
    # a layer used twice has two names for one tensor: a file holds each under its own
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    return tensors, _header(estimator)


def _header(estimator: Any) -> dict[str, Any]:
    parameters = {
        item.name: plain(getattr(estimator, item.name))
        for item in fields(estimator)
        if item.name not in NOT_KEPT
    }
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None  # a RandomState has moved on: it is no parameter to keep
    names = getattr(estimator, "feature_names_in_", None)
    model, own = estimator.model_, estimator.choices_.architecture == "own"
    kept = [name for name in FITTED if name.endswith("_") and name != "feature_names_in_"]
    return {
        "class": type(estimator).__name__,
        "parameters": parameters,
        "versions": getattr(estimator, "versions_", None) or versions(),
        "fitted": {
            "choices": estimator.choices_.as_json(),
            "layout": asdict(estimator.layout_),
            "scaling": estimator.scaling_.kind,
            "feature_names_in_": None if names is None else [str(n) for n in names],
            "pca_noise": None if estimator._pca is None else estimator._pca.noise,
            "networks": [fingerprint(model.f), fingerprint(model.g)] if own else None,
            **{name: getattr(estimator, name) for name in kept},
        },
    }


def load(path: Path, *, f: Any = None, g: Any = None) -> Any:
    """Read a model back; every damage and every strangeness is refused with a sentence.

    Of a checkpoint this is the best model so far.
    """
    tensors, header = read_file(path)
    header.pop("training", None)
    return restored(path, tensors, header, f, g)


def restored(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], f: Any, g: Any) -> Any:
    """The estimator that a file's tensors and header are."""
    _refuse_unknown(path, header)
    estimator = _unfitted(path, header)
    try:
        _restore(estimator, path, tensors, header, copy_networks(f, g))
        z, output = _answers(estimator, tensors["probe.x"])
        # whatever a header may hold of a wrong kind is found here, not by the first question
        estimator._outward(output.to(estimator._device))
        estimator.info()
    except (KeyError, TypeError, RuntimeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, NarrowsError):
            raise
        raise FileError(f"{path} does not hold a whole {header['class']}: {error}.") from error
    for now, then in ((z, tensors["probe.z"]), (output, tensors["probe.output"])):
        reach = float(then.max() - then.min()) if then.numel() > 1 else float(then.abs().max())
        if now.shape != then.shape or float((now - then).abs().max()) > AGREEMENT * max(
            reach, 1e-3
        ):
            raise FileError(
                f"{path} was read, but the model answers differently from when it was saved; it "
                "cannot be trusted."
            )
    return estimator


def _refuse_unknown(path: Path, header: dict[str, Any]) -> None:
    fitted = header.get("fitted")
    found = set(header), set(fitted) if isinstance(fitted, dict) else set()
    for have, known in zip(found, (HEADER, FITTED), strict=True):
        if have != known:
            strange = ", ".join(sorted(have - known)) or "none"
            missing = ", ".join(sorted(known - have)) or "none"
            raise FileError(
                f"{path} has a header this narrows cannot read (unknown fields: {strange}; "
                f"missing: {missing}); it may come from another version."
            )


def _unfitted(path: Path, header: dict[str, Any]) -> Any:
    if not isinstance(header["class"], str) or header["class"] not in MODELS:
        raise FileError(
            f"{path} holds a model called {header['class']!r}, which this narrows does not know; "
            f"it knows {', '.join(MODELS)}."
        )
    cls = model_class(header["class"])
    try:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in header["parameters"].items()}
        if NOT_KEPT & set(given):
            raise TypeError(f"{NOT_KEPT & set(given)} are never kept in a file")
        estimator = cls(**given)
        estimator.check_parameters()
    except (TypeError, AttributeError, ParameterError) as error:
        raise FileError(f"{path} has parameters this narrows cannot take: {error}.") from error
    return estimator


def _restore(
    estimator: Any, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
) -> None:
    fitted = header["fitted"]
    choices = Choices.from_json(fitted["choices"])
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
        parts = estimator._parts()
        model = build_model(parts, choices, own, None)
    objective = WeightedObjective(parts.terms)
    tensors = updated(tensors, header["format"], model)
    for prefix, module in (("model.", model), ("objective.", objective)):
        state = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        module.load_state_dict(state, assign=True)
    estimator.n_features_in_ = layout.n_features
    if fitted["feature_names_in_"] is not None:
        estimator.feature_names_in_ = np.array(fitted["feature_names_in_"], dtype=object)
    estimator.model_, estimator.objective_ = laid_out(model.eval()), objective
    estimator.choices_, estimator._state = choices, None
    estimator.scaling_ = Scaling(
        fitted["scaling"], tensors["scaling.shift"], tensors["scaling.scale"]
    )
    estimator._pca = None
    if fitted["pca_noise"] is not None:
        kept = {n: tensors[f"pca.{n}"] for n in ("mean", "components", "variances")}
        estimator._pca = PCA(**kept, noise=fitted["pca_noise"])
    history, curve = fitted["history_"], fitted["validation_curve_"]
    estimator._record(history, curve, fitted["best_epoch_"], fitted["stop_reason_"])
    for name in ("fit_seconds_", "rows_", "validation_errors_"):
        setattr(estimator, name, fitted[name])
    estimator.versions_ = header["versions"]
    estimator._seed, estimator._fitted_with = seed_of(estimator.random_state), lasting(estimator)
    to_own_device(estimator)


def to_own_device(estimator: Any) -> None:
    """To the device the parameters ask for, or to the CPU where that is not to be had."""
    try:
        device = pick_device(estimator.device)
    except ParameterError:
        return
    estimator.scaling_ = estimator.scaling_.to(device)
    estimator.model_.to(device)
    estimator.objective_.to(device)


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
