"""One file for a whole model: from a fitted estimator to tensors and a header, and back.

The header has "class", "parameters", "versions" and, under "fitted", what the class's state holds
(see `fitted_state.py`). A stored probe, some input and the model's output, must come back the
same. The loader takes class names from the registry only, never a path from the file, and refuses
any field that it does not know.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from narrows.estimators.build import copy_networks
from narrows.estimators.fitted_state import DATA, Tensors
from narrows.estimators.parameters import CALL, FIT, MODEL
from narrows.estimators.registry import KNOWN, model_class
from narrows.exceptions import FileError, NarrowsError, ParameterError
from narrows.io.safetensors_file import read_file
from narrows.version import __version__

HEADER = {"format", "class", "parameters", "fitted", "versions"}
STORED_SCOPES = (MODEL, FIT, CALL)
PROBE_TOLERANCE = 1e-3  # of the output's range, between a loaded model and the one saved


def content(estimator: Any) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header of a fitted estimator's file."""
    state, x = estimator.state_, estimator._probe_input()
    tensors, fitted = state.to_tensors()
    tensors |= {"probe.x": x, **_named(estimator._probe_output(x))}
    # a layer used twice has two names for one tensor: a file holds each under its own
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    parameters = {name: plain(getattr(estimator, name)) for name in _stored(estimator)}
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None  # a RandomState has advanced: no seed to keep
    return tensors, {
        "class": type(estimator).__name__,
        "parameters": parameters,
        "versions": state.versions or versions(),
        "fitted": fitted,
    }


def plain(value: object) -> Any:
    """A parameter as plain JSON."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):  # numpy's scalars
        return value.item()
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)


def _stored(owner: Any) -> list[str]:
    """The parameters of an estimator or its class that a file keeps."""
    return [f.name for f in fields(owner) if f.metadata.get("scope", MODEL) in STORED_SCOPES]


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


def _named(outputs: tuple[Tensor, ...]) -> Tensors:
    """The outputs of the probe by name: the last is g's, the one before it the code."""
    names = ("probe.z", "probe.output")[-len(outputs) :]
    return dict(zip(names, outputs, strict=True))


def load(path: Path, *, f: object = None, g: object = None) -> Any:
    """Load a model file; of a checkpoint the best model so far.

    Raises FileError if it is damaged or was not written by narrows. ``f`` and ``g`` are the user's
    own networks, where the model was fitted with some.
    """
    tensors, header = read_file(path)
    header.pop("training", None)
    return estimator_from(path, tensors, header, f, g)


def estimator_from(
    path: Path,
    tensors: Tensors,
    header: Mapping[str, Any],
    f: object,
    g: object,
) -> Any:
    """The fitted estimator whose file holds these tensors and this header."""
    estimator = _unfitted(path, header)
    try:
        estimator._load_state(path, tensors, header, copy_networks(f, g))
        outputs = _named(estimator._probe_output(tensors["probe.x"]))
        estimator.info()  # finds values of a wrong kind in the header
        estimator._check_loaded(outputs["probe.output"])
        for name, output in outputs.items():
            _compare(path, output, tensors[name])
    except (KeyError, TypeError, RuntimeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, NarrowsError):
            raise
        raise FileError(f"{path} does not hold a whole {header['class']}: {error}.") from error
    return estimator


def _compare(path: Path, now: Tensor, then: Tensor) -> None:
    reach = float(then.max() - then.min()) if then.numel() > 1 else float(then.abs().max())
    tolerance = PROBE_TOLERANCE * max(reach, 1e-3)
    if now.shape != then.shape or float((now - then).abs().max()) > tolerance:
        raise FileError(
            f"{path} was read, but the model's output differs from that when it was saved; do not "
            "trust it."
        )


def _refuse_unknown_fields(
    path: Path, header: Mapping[str, Any], known_fitted: frozenset[str]
) -> None:
    fitted = header.get("fitted")
    found = set(header), set(fitted) if isinstance(fitted, dict) else set()
    for have, known in zip(found, (HEADER, known_fitted), strict=True):
        if have - known or known - have - {DATA}:
            unknown = ", ".join(sorted(have - known)) or "none"
            missing = ", ".join(sorted(known - have)) or "none"
            raise FileError(
                f"{path} has a header this narrows cannot read (unknown fields: {unknown}; "
                f"missing: {missing}); it may come from another version."
            )


def _unfitted(path: Path, header: Mapping[str, Any]) -> Any:
    name = header.get("class")
    if not isinstance(name, str) or name not in KNOWN:
        raise FileError(
            f"{path} holds a model called {name!r}, which this narrows does not know; "
            f"it knows {', '.join(KNOWN)}."
        )
    cls = model_class(name)
    _refuse_unknown_fields(path, header, cls._file_keys)
    try:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in header["parameters"].items()}
        for name in set(given) - set(_stored(cls)):
            known = name in {field.name for field in fields(cls)}
            raise TypeError(f"{name} is {'never in a file' if known else 'unknown'}")
        estimator = cls(**given)
        estimator.check_parameters()
    except (TypeError, AttributeError, ParameterError) as error:
        raise FileError(f"{path} has parameters this narrows cannot take: {error}.") from error
    return estimator
