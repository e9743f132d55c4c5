"""From a .narrow file to arrays and pictures on a disk; torch is not needed.

Nothing becomes final before all of the file proved right. An array is written as it is decoded, so
that no more than a chunk of it is ever in memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.container import Lost
from narrows.compression.format.frames import Chunk
from narrows.compression.format.header import Item
from narrows.compression.format.pack import Unpacker
from narrows.exceptions import Corrupt, FileError, InputError, ParameterError
from narrows.io.photographs import Photograph, write_photograph
from narrows.io.write import ARRAYS, PICTURES, atomic_write, check_output, write_head, write_rows

__all__ = ["Unpacked", "check_place", "unpack_item", "unpack_to", "unpack_to_stream"]

Array = NDArray[Any]
PIECE = 1 << 24  # bytes of zeros written at once
SINGLE = (".png", ".npy", ".npz")  # what one image may be written to


@dataclass
class Unpacked:
    """What was written where: the first items and how many there were, and what was lost."""

    path: Path | None
    first: Item | None = None
    items: int = 0
    lost: list[Lost] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of files in a folder

    def add(self, item: Item) -> None:
        """One item more."""
        self.first = self.first or item
        self.items += 1


def check_place(out: str | Path, *, images: bool, overwrite: bool) -> Path:
    """The path ``out``, if what is in the file may be written there.

    Raises `FileError`, as `check_output` does.
    """
    path = Path(out)
    if not images or path.suffix.lower() in SINGLE:
        return check_output(out, SINGLE if images else ARRAYS + PICTURES, overwrite=overwrite)
    if path.is_file() or (path.suffix and not str(out).endswith(("/", os.sep))):
        raise FileError(
            f"The file holds images: give a folder to write them to, or a name that ends in .png "
            f"for a single one, not '{out}'."
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise FileError(f"Cannot write '{out}': '{path.parent}' is no folder to write to.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileError(f"'{path}' exists already; choose another folder, or give --overwrite.")
    return path


def unpack_to(unpacker: Unpacker, out: str | Path, *, overwrite: bool = False) -> Unpacked:
    """Write all that is in a file to ``out``.

    An array to .npy, .npz or .csv, or as pictures to .png or a folder; images to a folder under
    their names, or a single one to .png or .npy. Raises `FileError` and its children.
    """
    images = unpacker.settings.images
    path = check_place(out, images=images, overwrite=overwrite)
    done = Unpacked(path)
    if not images and path.suffix.lower() == ".npy":
        with atomic_write(path) as place, place.open("wb") as file:
            _stream(unpacker, file, done)
    elif not images:
        _write_array(_only(unpacker, done), path, unpacker, overwrite)
    elif path.suffix.lower() in SINGLE:
        _write_image(_only(unpacker, done), path, overwrite)
    else:
        _write_folder(unpacker, path, done)
    return done


def unpack_item(
    unpacker: Unpacker, number: int, out: str | Path, *, overwrite: bool = False
) -> Unpacked:
    """Write one item of a file that seeks to ``out``, a single file; the others are not read."""
    images = unpacker.settings.images
    path = check_output(out, SINGLE if images else ARRAYS + PICTURES, overwrite=overwrite)
    item, array = unpacker.one(number)
    if images:
        _write_image(array, path, overwrite)
    else:
        _write_array(array, path, unpacker, overwrite)
    return Unpacked(path, item, 1)


def unpack_to_stream(unpacker: Unpacker, stream: Any) -> Unpacked:
    """Write the only item of a file as the bytes of a .npy, each chunk as soon as it is decoded."""
    done = Unpacked(None)
    _stream(unpacker, stream, done)
    return done


def _stream(unpacker: Unpacker, stream: Any, done: Unpacked) -> None:
    """The .npy of the only item, piece by piece; what is lost comes as zeros."""
    if (unpacker.header.items or 0) > 1:  # said before anything is written
        raise _several()
    item: Item | None = None
    row = 0
    for part in unpacker.reader:
        if isinstance(part, Lost):
            done.lost.append(part)
        elif isinstance(part, Item):
            if item is not None:
                raise _several()
            item = part
            done.add(item)
            write_head(stream, item.shape, np.dtype(item.dtype))
        elif item is not None:
            row = _put(stream, unpacker, part, row, done)
    if item is None:
        raise Corrupt("nothing in the file could be read" if done.lost else "the file is empty")
    _zeros(stream, item, item.rows - row)


def _several() -> ParameterError:
    return ParameterError(
        "it holds several images: give a folder to write them to, or choose one with --item."
    )


def _put(stream: Any, unpacker: Unpacker, chunk: Chunk, row: int, done: Unpacked) -> int:
    """The next chunk, after zeros for what is missing before it; the row that follows."""
    try:
        rows = unpacker.decode(chunk)
    except Corrupt as error:
        if not unpacker.salvage:
            raise
        done.lost.append(Lost(str(error), chunk.item.number, chunk.first, chunk.rows))
        return row
    _zeros(stream, chunk.item, chunk.first - row)
    stream.write(np.ascontiguousarray(rows, np.dtype(chunk.item.dtype)).reshape(-1).view(np.uint8))
    return chunk.first + chunk.rows


def _zeros(stream: Any, item: Item, rows: int) -> None:
    left = rows * item.row_bytes
    while left > 0:
        stream.write(bytes(min(left, PIECE)))
        left -= PIECE


def _only(unpacker: Unpacker, done: Unpacked) -> Array:
    """The only item of a file."""
    found: Array | None = None
    for item, array in unpacker:
        if found is not None:
            raise _several()
        done.add(item)
        found = array
    done.lost = unpacker.lost
    if found is None:
        raise Corrupt("nothing in the file could be read" if done.lost else "the file is empty")
    return found


def _write_array(array: Array, path: Path, unpacker: Unpacker, overwrite: bool) -> None:
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        write_rows(array, path, overwrite=overwrite)
        return
    if not array.size or array.dtype.kind == "c" or not array.ndim:
        raise InputError(
            f"An array of shape {array.shape} and {array.dtype} has no place in '{path}': give a "
            "name that ends in .npy or .npz."
        )
    model = unpacker.settings.model
    axes = model.axes if model is not None and model.axes != "CL" else None
    write_rows(array, path, axes=axes, overwrite=overwrite)


def _write_image(array: Array, path: Path, overwrite: bool) -> None:
    if path.suffix.lower() != ".png":
        write_rows(array, path, overwrite=overwrite)
    elif _suffix_for(array) == ".png":
        write_photograph(_photograph(array), path, overwrite=overwrite)
    else:
        raise InputError(
            f"A .png holds no image of shape {array.shape} and {array.dtype}: give a name that "
            "ends in .npy."
        )


def _write_folder(unpacker: Unpacker, path: Path, done: Unpacked) -> None:
    names = Names()
    with atomic_folder(path) as place:
        for item, array in unpacker:
            suffix = _suffix_for(array)
            name = names.give(item.name or f"{item.number:06d}", suffix)
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                write_rows(array, target)
            else:
                write_photograph(_photograph(array), target)
            done.add(item)
            done.names.append(name)
        done.lost = unpacker.lost
        if not done.items and done.lost:
            raise Corrupt("nothing in the file could be read")


def _suffix_for(array: Array) -> str:
    """The format that holds an image as it is: PNG, TIFF for floats, .npy for all else."""
    planes = array.shape[2] if array.ndim == 3 else 1
    if not array.size or array.ndim not in (2, 3) or not 1 <= planes <= 4:
        return ".npy"
    kinds = {"uint8": ".png", "uint16": ".png", "float32": ".tif"}
    return kinds.get(array.dtype.name, ".npy")


def _photograph(array: Array) -> Photograph:
    """An image whose last plane, of two or four, is its transparency."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.ndim == 2:
        return Photograph(native)
    planes = native.shape[2]
    colours = native[..., : planes - 1] if planes in (2, 4) else native
    colours = colours[..., 0] if colours.shape[2] == 1 else colours
    alpha = native[..., -1] if planes in (2, 4) else None
    return Photograph(
        np.ascontiguousarray(colours), None if alpha is None else np.ascontiguousarray(alpha)
    )


class Names:
    """Names of files in a folder, each given once, whatever the file system thinks of case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()  # files
        self._folders: set[str] = set()

    def give(self, name: str, suffix: str) -> str:
        """``name`` with another suffix; with its own before it, or a number, where that is taken.

        >>> names = Names()
        >>> [names.give(name, ".png") for name in ("a/b.jpg", "a/b.png", "A/B.gif", "a/b.png")]
        ['a/b.png', 'a/b.png.png', 'A/B.gif.png', 'a/b-2.png']
        """
        path = PurePosixPath(name)
        above = [str(folder).casefold() for folder in path.parents][:-1]
        if self._taken & set(above):  # what must be a folder is a file already
            path, above = PurePosixPath("_".join(path.parts)), []
        stem = path.with_suffix("")
        tries = [f"{stem}{suffix}", f"{path}{suffix}"]
        number = 1
        while tries[0].casefold() in self._taken | self._folders:
            tries.pop(0)
            if not tries:
                number += 1
                tries = [f"{stem}-{number}{suffix}"]
        self._taken.add(tries[0].casefold())
        self._folders |= set(above)
        return tries[0]


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to write to; at the end it becomes ``path``, or its files go into the one there."""
    if not (path.is_dir() and any(path.iterdir())):
        with atomic_write(path) as place:
            place.mkdir()
            yield place
        return
    place = path.with_name(f".{path.name}.{os.getpid()}.partial")
    place.mkdir()
    try:
        yield place
        for found in sorted(place.rglob("*")):
            target = path / found.relative_to(place)
            if found.is_dir():
                target.mkdir(exist_ok=True)
            else:
                found.replace(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
