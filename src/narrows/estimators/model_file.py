"""One file for a whole model: from a fitted estimator to tensors and a header, and back.

The loader takes class names from the catalogue only, never a path from the file, and refuses any
field it does not know.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from narrows.estimators.build_model import copy_networks
from narrows.estimators.parameters import OBJECTS
from narrows.estimators.registry import KNOWN, model_class
from narrows.estimators.setup import lasting, pick_device, seed_of
from narrows.estimators.summary import plain, versions
from narrows.exceptions import FileError, NarrowsError, ParameterError
from narrows.io.safetensors_file import read_file, write_file
from narrows.training.process_group import world

HEADER = {"format", "class", "parameters", "fitted", "versions"}
# of how it was learned; beside what each class keeps of what was
RUN = (
    "history_",
    "validation_curve_",
    "best_epoch_",
    "stop_reason_",
    "fit_seconds_",
    "rows_",
    "validation_errors_",
)
# networks are code, and where a run is kept is no trait of the model
NOT_KEPT = OBJECTS | {"checkpoint", "checkpoint_every", "resume"}
Contents = tuple[dict[str, Tensor], dict[str, Any]]
AGREEMENT = 1e-3  # of the range: how far a loaded model may answer from what it answered when saved


def save(estimator: Any, path: Path, *, overwrite: bool) -> Path:
    """Write the estimator to ``path``."""
    if world().rank == 0:  # all processes of a group hold the same model
        write_file(path, *contents(estimator), overwrite=overwrite)
    return path


def contents(estimator: Any) -> Contents:
    """The tensors and the header of the estimator's file."""
    x = estimator._probe()
    tensors, fitted = estimator._contents()
    tensors |= {"probe.x": x, **_named(estimator._reply(x))}
    # a layer used twice has two names for one tensor: a file holds each under its own
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    parameters = {
        item.name: plain(getattr(estimator, item.name))
        for item in fields(estimator)
        if item.name not in NOT_KEPT
    }
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None  # a RandomState has moved on: it is no parameter to keep
    return tensors, {
        "class": type(estimator).__name__,
        "parameters": parameters,
        "versions": getattr(estimator, "versions_", None) or versions(),
        "fitted": {**fitted, **{name: getattr(estimator, name) for name in RUN}},
    }


def _named(answers: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The answers to the probe by name: the last is the output, the one before it the code."""
    names = ("probe.z", "probe.output")[-len(answers) :]
    return dict(zip(names, answers, strict=True))


def load(path: Path, *, f: Any = None, g: Any = None) -> Any:
    """Read a model back; every damage and every strangeness is refused with a sentence.

    Of a checkpoint this is the best model so far.
    """
    tensors, header = read_file(path)
    header.pop("training", None)
    return restored(path, tensors, header, f, g)


def restored(path: Path, tensors: dict[str, Tensor], header: dict[str, Any], f: Any, g: Any) -> Any:
    """The estimator that a file's tensors and header are."""
    estimator = _unfitted(path, header)
    try:
        _restore(estimator, path, tensors, header, copy_networks(f, g))
        now = _named(estimator._reply(tensors["probe.x"]))
        # whatever a header may hold of a wrong kind is found here, not by the first question
        estimator.info()
        for name, answer in now.items():
            _compare(path, answer, tensors[name])
    except (KeyError, TypeError, RuntimeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, NarrowsError):
            raise
        raise FileError(f"{path} does not hold a whole {header['class']}: {error}.") from error
    return estimator


def _compare(path: Path, now: Tensor, then: Tensor) -> None:
    reach = float(then.max() - then.min()) if then.numel() > 1 else float(then.abs().max())
    if now.shape != then.shape or float((now - then).abs().max()) > AGREEMENT * max(reach, 1e-3):
        raise FileError(
            f"{path} was read, but the model answers differently from when it was saved; it "
            "cannot be trusted."
        )


def _restore(
    estimator: Any, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
) -> None:
    fitted = header["fitted"]
    estimator._restore(path, tensors, header, own)
    history, curve = fitted["history_"], fitted["validation_curve_"]
    estimator._record(history, curve, fitted["best_epoch_"], fitted["stop_reason_"])
    for name in ("fit_seconds_", "rows_", "validation_errors_"):
        setattr(estimator, name, fitted[name])
    estimator.versions_, estimator._state = header["versions"], None
    estimator._seed, estimator._fitted_with = seed_of(estimator.random_state), lasting(estimator)
    to_own_device(estimator)


def _refuse_unknown(path: Path, header: dict[str, Any], known_fitted: frozenset[str]) -> None:
    fitted = header.get("fitted")
    found = set(header), set(fitted) if isinstance(fitted, dict) else set()
    for have, known in zip(found, (HEADER, known_fitted), strict=True):
        if have != known:
            strange = ", ".join(sorted(have - known)) or "none"
            missing = ", ".join(sorted(known - have)) or "none"
            raise FileError(
                f"{path} has a header this narrows cannot read (unknown fields: {strange}; "
                f"missing: {missing}); it may come from another version."
            )


def _unfitted(path: Path, header: dict[str, Any]) -> Any:
    name = header.get("class")
    if not isinstance(name, str) or name not in KNOWN:
        raise FileError(
            f"{path} holds a model called {name!r}, which this narrows does not know; "
            f"it knows {', '.join(KNOWN)}."
        )
    cls = model_class(name)
    _refuse_unknown(path, header, cls._in_file)
    try:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in header["parameters"].items()}
        if NOT_KEPT & set(given):
            raise TypeError(f"{NOT_KEPT & set(given)} are never kept in a file")
        estimator = cls(**given)
        estimator.check_parameters()
    except (TypeError, AttributeError, ParameterError) as error:
        raise FileError(f"{path} has parameters this narrows cannot take: {error}.") from error
    return estimator


def to_own_device(estimator: Any) -> None:
    """To the device the parameters ask for, or to the CPU where that is not to be had."""
    try:
        device = pick_device(estimator.device)
    except ParameterError:
        return
    if hasattr(estimator, "scaling_"):
        estimator.scaling_ = estimator.scaling_.to(device)
    estimator.model_.to(device)
    estimator.objective_.to(device)
    if getattr(estimator, "sampler_", None) is not None:
        estimator.sampler_.to(device)
