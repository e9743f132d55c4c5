"""One file for a whole model: from a fitted estimator to tensors and a header, and back.

The header has "class", "parameters", "versions" and, under "fitted", what the class's state holds
(see `fitted_state.py`). A stored probe, some input and the model's output, must come back the
same. The loader takes class names from the registry only, never a path from the file, and refuses
any field that it does not know.
"""

from __future__ import annotations

import platform
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from narrows.estimators.build import copy_networks, with_tuples
from narrows.estimators.fitted_state import FIRST_ROWS, FittedState, Tensors, without_prefix
from narrows.estimators.parameters import CALL, FIT, MODEL, Rule, RunParameters, find_fault
from narrows.estimators.registry import KNOWN, model_class
from narrows.exceptions import FileError, NarrowsError, ParameterError, in_one_line
from narrows.io.safetensors_file import read_file
from narrows.training.checkpoint import COUNT, MARKS, RUN, TEXT, refuse_unknown
from narrows.version import __version__

# The rules of a header (see `find_fault`); those of "fitted" are the class's, those of parameters
# their own.
HEADER: dict[str, Rule] = {
    "format": COUNT,
    "class": TEXT,
    "parameters": {"each": {}, "named": True, "most": 200},
    "versions": {"each": TEXT, "named": True, "most": 20},
    "data": MARKS,
    "seed": COUNT,
    "training": RUN,
}
OPTIONAL = {
    "data",
    "seed",
    "training",
}  # what older files do not have, and what only checkpoints have
RUN_PREFIX = "training."  # of the tensors of a run
STORED_SCOPES = (MODEL, FIT, CALL)
PROBE_TOLERANCE = 1e-3  # of the output's range, between a loaded model and the one saved


def content(
    params: RunParameters, state: FittedState, x: Tensor, outputs: tuple[Tensor, ...]
) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header of a model's file; x and ``outputs`` are those of the probe."""
    tensors, fitted = state.to_tensors()
    tensors |= {"probe.x": x, **_named(outputs)}
    # a layer used twice has two names for one tensor: a file holds each under its own
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    parameters = {name: plain(vars(params)[name]) for name in _stored(params)}
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None  # a RandomState has advanced: no seed to keep
    return tensors, {
        "class": type(params).__name__,
        "parameters": parameters,
        "versions": state.versions or versions(),
        "fitted": fitted,
        "seed": state.seed,
        **({} if state.data is None else {"data": state.data}),
    }


def plain(value: object) -> Any:
    """A parameter as plain JSON."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
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


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the header of a model file or a checkpoint; of the header all is checked.

    Raises FileError if anything in the header is unknown, missing, or out of its range.
    """
    tensors, header = read_file(path)
    name = header.get("class")
    if not isinstance(name, str) or name not in KNOWN:
        raise FileError(
            f"'{path}' holds a model called {reprlib.repr(name)}, which this narrows does not "
            f"know; it knows {', '.join(KNOWN)}."
        )
    fitted = {"fields": model_class(name)._file_keys}
    fault = find_fault(header, {"fields": {**HEADER, "fitted": fitted}, "optional": OPTIONAL})
    if fault:
        fault = "".join(c if c.isprintable() else " " for c in fault)  # names in it are the file's
        raise FileError(
            f"'{path}' has a header this narrows cannot read, as it was damaged or comes from "
            f"another version: {fault.removeprefix('.').strip()}."
        )
    return tensors, header


def load(path: Path, *, f: object = None, g: object = None) -> Any:
    """Load a model file; of a checkpoint the best model so far.

    Raises FileError if it is damaged or was not written by narrows. ``f`` and ``g`` are the user's
    own networks, where the model was fitted with some.
    """
    return estimator_from(path, *read(path), f, g)


def estimator_from(
    path: Path,
    tensors: Tensors,
    header: Mapping[str, Any],
    f: object,
    g: object,
) -> Any:
    """The fitted estimator whose file holds these tensors and this header, as ``read`` gives them.

    Raises FileError for a tensor that is unknown, missing, of another shape or dtype, or not
    finite, and where the model's output for the probe is not what it was.
    """
    own = copy_networks(f, g)
    estimator = _unfitted(path, header)
    run = without_prefix(RUN_PREFIX, tensors)
    held = {name: t for name, t in tensors.items() if not name.startswith(RUN_PREFIX)}
    try:
        refuse_unknown(held, run if "training" in header else {})
        _refuse_not_finite(held, None if own is None else ("model.f.", "model.g."))
        estimator._load_state(path, held, header, own)
        if (
            held["probe.x"].shape != estimator._probe_shape
            or held["probe.x"].dtype != torch.float32
        ):
            raise ValueError("its probe has another shape than the model's input")
        outputs = _named(estimator._probe_output(held["probe.x"]))
        known = estimator.state_.to_tensors()[0].keys() | {"probe.x", *outputs}
        unknown = (held.keys() ^ known) | (set() if "training" in header else run.keys())
        if unknown:
            raise ValueError(f"unexpected or missing tensors: {', '.join(sorted(unknown)[:5])}")
        estimator.info()  # finds values of a wrong kind in the header
        estimator._check_loaded(outputs["probe.output"])
    except Exception as error:  # whatever a forged file makes torch or NumPy raise
        if isinstance(error, FileError) or (own is not None and isinstance(error, NarrowsError)):
            raise
        raise FileError(
            f"'{path}' does not hold a whole {header['class']}: {in_one_line(error)}."
        ) from error
    for name, output in outputs.items():
        _compare(path, output, held[name])
    return estimator


def _refuse_not_finite(tensors: Tensors, own: tuple[str, ...] | None) -> None:
    """Raise ValueError for NaN; for infinity too, except in a bound and in the user's networks."""
    for name, tensor in tensors.items():
        # rows of the data may hold NaN: they are checked where they are read
        if name != FIRST_ROWS and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            may = name.endswith((".head.low", ".head.high")) or (own and name.startswith(own))
            if not may or bool(tensor.isnan().any()):
                raise ValueError(f"{name} holds numbers that are not finite")


def _compare(path: Path, now: Tensor, then: Tensor) -> None:
    same = now.shape == then.shape and now.dtype == then.dtype and then.numel() > 0
    if same:
        reach = float(then.max() - then.min()) if then.numel() > 1 else float(then.abs().max())
        # not "> tolerance": of NaN no comparison is true
        same = float((now - then).abs().max()) <= PROBE_TOLERANCE * max(reach, 1e-3)
    if not same:
        raise FileError(
            f"'{path}' was read, but the model's output differs from that when it was saved; do "
            "not trust it."
        )


def _unfitted(path: Path, header: Mapping[str, Any]) -> Any:
    cls = model_class(header["class"])
    try:
        given = with_tuples(header["parameters"])
        for name in set(given) - set(_stored(cls)):
            known = name in {field.name for field in fields(cls)}
            raise TypeError(f"{name[:50]!r} is {'never in a file' if known else 'unknown'}")
        estimator = cls(**given)
        estimator.check_parameters()
    except (TypeError, AttributeError, ParameterError) as error:
        raise FileError(
            f"'{path}' has parameters this narrows cannot take: {in_one_line(error)}."
        ) from error
    return estimator
