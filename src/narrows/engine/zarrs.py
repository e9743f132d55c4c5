"""Zarr arrays: a folder with an array in compressed chunks, by the zarr package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from narrows.core import FileError, InputError

__all__ = ["is_zarr", "open_zarr"]

SIGNS = ("zarr.json", ".zarray", ".zgroup")  # one of them lies in every zarr folder


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group, by its name or what lies in it.

    >>> is_zarr(Path("x.zarr"))
    True
    """
    return folder.suffix.lower() == ".zarr" or any((folder / sign).is_file() for sign in SIGNS)


def open_zarr(path: Path) -> Any:
    """The zarr array in a folder, or the only one of a group; nothing of it is read yet.

    Raises InputError naming the arrays of a group of several, and FileError where the folder is
    damaged or zarr is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise FileError(
            f"Reading '{path}' needs zarr, which is not installed: pip install zarr."
        ) from None
    try:
        found: Any = zarr.open(str(path), mode="r")
        arrays = dict(found.arrays()) if isinstance(found, zarr.Group) else {"": found}
    # the many ways in which its own code fails over a damaged description
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise FileError(
            f"'{path}' is no zarr array that can be read, or is damaged: save or copy it again."
        ) from None
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays))
        example = f"such as '{path / min(arrays)}'" if arrays else "or one of its groups"
        raise InputError(
            f"'{path}' is a zarr group that holds the arrays {names or '(none)'}: give the path of "
            f"one, {example}."
        )
    return next(iter(arrays.values()))
