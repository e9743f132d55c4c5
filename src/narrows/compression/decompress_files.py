"""Decompress a .narrow file to arrays, or to files on a disk; torch is not needed.

No file gets its final name before all of the .narrow file was decoded and checked. To a .npy, an
array is written as it is decoded: at most one chunk of it is in memory.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.container import Lost, check_binary
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.frames import MAX_DECODED_BYTES, Chunk
from narrows.compression.format.header import Item
from narrows.compression.format.integer_networks import Payload
from narrows.compression.format.pack import Unpacker
from narrows.exceptions import Corrupt, FileError, InputError, InputTypeError, ParameterError
from narrows.io.photographs import Photograph, write_photograph
from narrows.io.write import (
    ARRAYS,
    PICTURES,
    atomic_write,
    check_output,
    temporary_path,
    write_head,
    write_rows,
)

PAYLOAD = "payload"  # the name of the tensor in a model's file
ZEROS_AT_ONCE = 1 << 24  # bytes
SINGLE = (".png", ".npy", ".npz")  # the files that one image may be written to


@dataclass
class Decompressed:
    """What was written where: the first item and how many there were, and what was lost."""

    path: Path | None
    first: Item | None = None
    items: int = 0
    lost: list[Lost] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of files in a folder

    def add(self, item: Item) -> None:
        """Count one more item."""
        self.first = self.first or item
        self.items += 1

    def check_readable(self) -> None:
        """Raise ``Corrupt`` if there was no item at all."""
        if not self.items:
            raise Corrupt("no part of the file can be read" if self.lost else "the file is empty")


def decompress_to(unpacker: Unpacker, out: str | Path, *, overwrite: bool = False) -> Decompressed:
    """Write the contents of a file to ``out``.

    An array to .npy, .npz or .csv, or as pictures to .png or a folder; images to a folder under
    their names, or a single one to .png, .npy or .npz. Raises `FileError` and its children.
    """
    images = unpacker.settings.images
    path = _check_output(out, images=images, overwrite=overwrite)
    done = Decompressed(path)
    if images and path.suffix.lower() not in SINGLE:
        _write_folder(unpacker, path, done)
    elif not images and path.suffix.lower() == ".npy":
        with atomic_write(path) as place, place.open("wb") as file:
            _stream(unpacker, file, done)
    else:
        _write(_only(unpacker, done), path, unpacker, overwrite)
    return done


def decompress_item(
    unpacker: Unpacker, number: int, out: str | Path, *, overwrite: bool = False
) -> Decompressed:
    """Write one item of a file that can seek to ``out``, a single file; no other item is read."""
    images = unpacker.settings.images
    path = check_output(out, SINGLE if images else ARRAYS + PICTURES, overwrite=overwrite)
    item, array = unpacker.one(number)
    _write(array, path, unpacker, overwrite)
    return Decompressed(path, item, 1)


def decompress_to_stream(unpacker: Unpacker, stream: BinaryIO) -> Decompressed:
    """Write the only item of a file as the bytes of a .npy, each chunk as soon as it is decoded."""
    done = Decompressed(None)
    _stream(unpacker, stream, done)
    return done


def _check_output(out: str | Path, *, images: bool, overwrite: bool) -> Path:
    """The path ``out``, if the contents may be written there; raises `FileError` otherwise."""
    path = Path(out)
    if not images or path.suffix.lower() in SINGLE:
        return check_output(out, SINGLE if images else ARRAYS + PICTURES, overwrite=overwrite)
    if path.is_file() or (path.suffix and not str(out).endswith(("/", os.sep))):
        raise FileError(
            f"The file holds images: give a folder to write them to, or for a single image a name "
            f"that ends in .png, not '{out}'."
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise FileError(f"Cannot write '{out}': '{path.parent}' is not a folder that can be used.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileError(f"'{path}' exists already; choose another folder, or give --overwrite.")
    return path


# ------------------------------------------------------------------ to arrays


@contextmanager
def opened(source: Any) -> Iterator[Any]:
    """A binary stream of bytes, of the file at a path, or the given stream, which stays open."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise FileError(f"'{path}' {problem}.")
        with path.open("rb") as stream:
            yield stream
    else:
        check_binary(source, "read", "source must be bytes, a path or")
        yield source


def load_model(path: str | Path) -> ExactDecoder:
    """The decoder in the safetensors file of a codec; works without torch.

    Raises ``FileError`` for a file without one.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileError(f"'{path}' does not exist; give the file that the codec was saved to.")
    try:
        with safe_open(path, "np") as stream:
            if PAYLOAD not in set(stream.keys()):
                raise FileError(f"'{path}' holds no codec; fit one: narrows fit --model codec.")
            data = stream.get_tensor(PAYLOAD).tobytes()
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"'{path}' cannot be read as a model file; it is damaged or another kind of file."
        ) from error
    return ExactDecoder(Payload.from_bytes(data))


def decompress(source: Any, model: Any = None, *, max_bytes: int = MAX_DECODED_BYTES) -> Any:
    """See `narrows.decompress`."""
    if isinstance(model, str | Path):
        model = load_model(model)
    elif hasattr(model, "decoder_"):
        model = model.decoder_
    if not isinstance(model, ExactDecoder | None):
        raise InputTypeError(
            "model must be a fitted Codec or the path of its file. Got an object of type "
            f"{type(model).__name__}, which is not a codec or not fitted."
        )
    with opened(source) as stream:
        unpacker = Unpacker(stream, model, max_bytes=max_bytes)
        arrays = [array for _, array in unpacker]
        if not arrays and not unpacker.settings.images:
            raise Corrupt("the file is empty: it holds no array")
        return arrays if unpacker.settings.images or len(arrays) > 1 else arrays[0]


# ------------------------------------------------------------------ one item


def _stream(unpacker: Unpacker, stream: BinaryIO, done: Decompressed) -> None:
    """The .npy of the only item, chunk by chunk; lost chunks are written as zeros."""
    if (unpacker.header.items or 0) > 1:  # before anything is written
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
            row = _write_chunk(stream, unpacker, part, row, done)
    done.check_readable()
    if item is not None:
        _write_zeros(stream, item, item.rows - row)


def _several() -> ParameterError:
    return ParameterError(
        "it holds several images: give a folder to write them to, or choose one with --item."
    )


def _write_chunk(
    stream: BinaryIO, unpacker: Unpacker, chunk: Chunk, row: int, done: Decompressed
) -> int:
    """Zeros for missing rows from ``row`` on, then the chunk; returns the row after it."""
    try:
        rows = unpacker.decode(chunk)
    except Corrupt as error:
        if not unpacker.salvage:
            raise
        done.lost.append(Lost(str(error), chunk.item.number, chunk.first, chunk.rows))
        return row
    _write_zeros(stream, chunk.item, chunk.first - row)
    stored = np.ascontiguousarray(rows, np.dtype(chunk.item.dtype))
    stream.write(stored.reshape(-1).view(np.uint8).data)
    return chunk.first + chunk.rows


def _write_zeros(stream: BinaryIO, item: Item, rows: int) -> None:
    left = rows * item.row_bytes
    while left > 0:
        stream.write(bytes(min(left, ZEROS_AT_ONCE)))
        left -= ZEROS_AT_ONCE


def _only(unpacker: Unpacker, done: Decompressed) -> Array:
    """The only item of a file."""
    found: Array = np.empty(0)
    for item, array in unpacker:
        if done.items:
            raise _several()
        done.add(item)
        found = array
    done.lost = unpacker.lost
    done.check_readable()
    return found


def _write(array: Array, path: Path, unpacker: Unpacker, overwrite: bool) -> None:
    """An array, or an image, to a single file, or an array of pictures to a folder."""
    kind, axes = path.suffix.lower(), None
    if unpacker.settings.images and kind == ".png":
        if _suffix_for(array) != ".png":
            raise InputError(
                f"A .png cannot hold an image of shape {array.shape} and {array.dtype}: give a "
                "name that ends in .npy."
            )
        write_photograph(_photograph(array), path, overwrite=overwrite)
        return
    if kind not in (".npy", ".npz"):
        if not array.size or array.dtype.kind == "c" or not array.ndim:
            raise InputError(
                f"'{path}' cannot hold an array of shape {array.shape} and {array.dtype}: give a "
                "name that ends in .npy or .npz."
            )
        model = unpacker.settings.model
        axes = model.axes if model is not None and model.axes != "CL" else None
    write_rows(array, path, axes=axes, overwrite=overwrite)


def _suffix_for(array: Array) -> str:
    """The format that holds an image unchanged: PNG, TIFF for float32, .npy for all else."""
    planes = array.shape[2] if array.ndim == 3 else 1
    if not array.size or array.ndim not in (2, 3) or not 1 <= planes <= 4:
        return ".npy"
    suffixes = {"uint8": ".png", "uint16": ".png", "float32": ".tif"}
    return suffixes.get(array.dtype.name, ".npy")


def _photograph(array: Array) -> Photograph:
    """An image (H, W) or (H, W, planes); the last of two or four planes is its transparency."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.ndim == 2:
        return Photograph(native)
    *colours, alpha = np.moveaxis(native, 2, 0)
    if native.shape[2] in (1, 3):
        colours, alpha = [*colours, alpha], None
    planes = colours[0] if len(colours) == 1 else np.stack(colours, 2)
    return Photograph(
        np.ascontiguousarray(planes), None if alpha is None else np.ascontiguousarray(alpha)
    )


# ------------------------------------------------------------------ a folder of images


def _write_folder(unpacker: Unpacker, path: Path, done: Decompressed) -> None:
    names = UniqueNames()
    with atomic_folder(path) as place:
        for item, array in unpacker:
            suffix = _suffix_for(array)
            name = names.add(item.name or f"{item.number:06d}", suffix)
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                write_rows(array, target)
            else:
                write_photograph(_photograph(array), target)
            done.add(item)
            done.names.append(name)
        done.lost = unpacker.lost
        if done.lost:
            done.check_readable()


class UniqueNames:
    """Names of files in a folder, each only once, also where the file system ignores case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()  # files
        self._folders: set[str] = set()

    def add(self, name: str, suffix: str) -> str:
        """``name`` with another suffix; if that is taken, after its own suffix, or with a number.

        >>> names = UniqueNames()
        >>> [names.add(name, ".png") for name in ("a/b.jpg", "a/b.png", "A/B.gif", "a/b.png")]
        ['a/b.png', 'a/b.png.png', 'A/B.gif.png', 'a/b-2.png']
        """
        path = PurePosixPath(name)
        above = [str(folder).casefold() for folder in path.parents][:-1]
        if self._taken & set(above):  # a folder of this name is a file already
            path, above = PurePosixPath("_".join(path.parts)), []
        stem = path.with_suffix("")
        numbered = (f"{stem}-{number}{suffix}" for number in count(2))
        choices = chain((f"{stem}{suffix}", f"{path}{suffix}"), numbered)
        used = self._taken | self._folders
        chosen = next(choice for choice in choices if choice.casefold() not in used)
        self._taken.add(chosen.casefold())
        self._folders |= set(above)
        return chosen


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to write to; at the end it becomes ``path``, or its files move into ``path``."""
    if not (path.is_dir() and any(path.iterdir())):
        with atomic_write(path) as place:
            place.mkdir()
            yield place
        return
    place = temporary_path(path)
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
