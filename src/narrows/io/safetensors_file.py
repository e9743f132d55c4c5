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

    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise FileError(f"'{path}' {what}: give the path of a model that narrows saved.")
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            if "narrows" not in metadata:
                raise FileError(f"'{path}' is a safetensors file that narrows did not write.")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' is damaged or not a model file: copy it again.") from error
    text = metadata["narrows"]
    if metadata.get("sha256") != _digest(text, tensors):
        raise FileError(f"'{path}' is damaged: its contents do not match their checksum.")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise FileError(f"'{path}' is damaged: its header cannot be read.")
    if header["format"] > FORMAT:
        raise FileError(
            f"'{path}' has format {header['format']}, but this narrows reads formats up to "
            f"{FORMAT}; upgrade narrows to open it."
        )
    return tensors, header
