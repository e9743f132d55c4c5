"""Bytes and header of a model file: one safetensors file, written atomically, checked on reading.

The header's one metadata key, ``narrows``, holds JSON; ``sha256`` covers the JSON and every
tensor. Nothing in a file is ever executed, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from narrows.exceptions import FileError
from narrows.io.write import atomic_write, check_output

FORMAT = 2  # raised when the layout changes; every older one is still read
# What a file may hold, so that a hostile one costs no more memory and time than its size explains.
MAX_TENSORS = 1 << 16
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
# JSON with more objects and lists than this allows was not written by narrows: Python would need
# many times its size for them. The first thousand are free.
MIN_BYTES_PER_OBJECT = 16


def without_nan(value: Any) -> Any:
    """Plain data with None in place of NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def write_file(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write tensors and a JSON header to one file; FileError if it cannot be written."""
    from safetensors.torch import save

    check_output(path, [".safetensors", ".checkpoint"], overwrite=overwrite)
    ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(without_nan({"format": FORMAT, **header}), sort_keys=True, allow_nan=False)
    data = save(ready, {"narrows": text, "sha256": _digest(text, ready)})
    try:
        with atomic_write(path) as place:
            place.write_bytes(data)
    except OSError as error:
        raise FileError(f"'{path}' could not be written: {error.strerror or error}.") from error


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file.

    Raises FileError if it is missing, damaged, newer than this narrows, or not a model file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        what = "" if path.is_file() else "is not a file" if path.exists() else "does not exist"
    except (OSError, ValueError):  # a name that no file can have
        what = "does not exist"
    if what:
        raise FileError(f"'{path}' {what}: give the path of a model that narrows saved.")
    try:
        with safe_open(path, "pt") as stream:
            metadata, names = stream.metadata() or {}, stream.keys()
            if "narrows" not in metadata:
                raise FileError(f"'{path}' is a safetensors file that narrows did not write.")
            if len(names) > MAX_TENSORS:
                raise FileError(
                    f"'{path}' holds {len(names)} tensors, but no model has more than "
                    f"{MAX_TENSORS}: it was not written by narrows."
                )
            for name in names:
                if stream.get_slice(name).get_dtype() not in DTYPES:
                    raise FileError(
                        f"'{path}' holds a tensor of a dtype that no model has: {name}."
                    )
            tensors = {name: stream.get_tensor(name) for name in names}
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, UnicodeDecodeError) as error:
        if path.suffix not in (".safetensors", ".checkpoint"):
            raise FileError(
                f"'{path}' is not a model file: give one that narrows saved, a .safetensors; in a "
                "command it comes before the data."
            ) from error
        raise FileError(f"'{path}' is damaged or not a model file: copy it again.") from error
    text = metadata["narrows"]
    if metadata.get("sha256") != _digest(text, tensors):
        raise FileError(f"'{path}' is damaged: its contents do not match their checksum.")
    return tensors, _parsed(path, text)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """The header, whose numbers are all finite."""
    unreadable = f"'{path}' is damaged: its header cannot be read; copy the file again."
    if text.count("{") + text.count("[") > 1000 + len(text) // MIN_BYTES_PER_OBJECT:
        raise FileError(unreadable)
    try:
        header: dict[str, Any] = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise FileError(unreadable) from error
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise FileError(unreadable)
    if version > FORMAT:
        raise FileError(
            f"'{path}' has format {version}, but this narrows reads formats up to {FORMAT}; "
            "upgrade narrows to open it."
        )
    return header


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)
