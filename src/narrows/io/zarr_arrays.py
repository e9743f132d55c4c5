"""Zarr arrays: a folder with an array in compressed chunks, by the zarr package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError
from narrows.io.sources import StoredRows

__all__ = ["ZarrRows", "is_zarr"]

SIGNS = ("zarr.json", ".zarray", ".zgroup")  # one of them lies in every zarr folder
# the many ways in which zarr's own code fails over a damaged description or chunk
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr array or group, by its name or what lies in it.

    >>> is_zarr(Path("x.zarr"))
    True
    """
    return folder.suffix.lower() == ".zarr" or any((folder / sign).is_file() for sign in SIGNS)


class ZarrRows(StoredRows):
    """The zarr array in a folder, or the only one of a group; only chunks asked for are read.

    Raises InputError naming the arrays of a group that has not just one, and FileError where the
    folder is damaged or zarr is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(_only_array(path))

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        try:
            return super()._read(start, stop)
        except DAMAGE:
            raise _damaged(self._path) from None


def _only_array(path: Path) -> Any:
    try:
        import zarr
    except ImportError:
        raise FileError(
            f"Reading '{path}' needs zarr, which is not installed: pip install zarr."
        ) from None
    try:
        found: Any = zarr.open(str(path), mode="r")
        arrays = dict(found.arrays()) if isinstance(found, zarr.Group) else {"": found}
    except DAMAGE:
        raise _damaged(path) from None
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise InputError(f"'{path}' is a zarr group that holds no array: give the path of one.")
    names = sorted(arrays)
    raise InputError(
        f"'{path}' is a zarr group that holds the arrays {', '.join(names)}: give the path of "
        f"one, such as '{path / names[0]}'."
    )


def _damaged(path: Path) -> FileError:
    return FileError(
        f"'{path}' is no zarr array that can be read, or is damaged: save or copy it again."
    )
