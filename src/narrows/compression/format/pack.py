"""Whole arrays to .narrow files and back, one chunk at a time.

`pack` writes a file, `Unpacker` reads one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.format import Array
from narrows.compression.format.chunk_methods import (
    MODEL_METHODS,
    NAMES,
    CodedChunk,
    CodingSettings,
    decode_chunk,
    encode_chunk,
)
from narrows.compression.format.container import Lost, Reader, Writer, check_model
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.frames import MAX_DECODED_BYTES, Chunk
from narrows.compression.format.header import Header, Item
from narrows.compression.format.integer_networks import Payload
from narrows.exceptions import Corrupt, InputError, InputTypeError, WrongModel

CHUNK_ELEMENTS = 1 << 22  # coding takes about 250 bytes for each
MAX_HELD_BYTES = 1 << 26  # of chunks kept until it is known whether the file needs the model
KINDS = "biufc"
STRIP = 64  # images are cut at multiples of so many rows, so that no block of 8 rows is cut


@dataclass
class Summary:
    """The outcome of compression: bytes in and out, by method, and the errors."""

    mode: str = "lossy"
    error: float | None = None  # the absolute bound
    level: int | None = None
    items: int = 0
    pixels: int = 0  # of images
    dtypes: Counter[str] = field(default_factory=Counter)  # items of each dtype
    embedded: int = 0  # bytes of the model's frame
    original: int = 0
    coded: int = 0  # bytes of the whole file
    chunks: int = 0
    payload: int = 0  # bytes of all chunks' payloads
    codes: int = 0  # bytes of them that hold codes of the autoencoder
    without: int | None = 0  # bytes of all payloads without the autoencoder; None if lossy
    elements: int = 0
    methods: Counter[str] = field(default_factory=Counter)  # chunks coded by each method
    largest_error: float = 0.0
    squares: float = 0.0  # summed squared errors of finite elements

    @property
    def mse(self) -> float:
        """Mean squared error, in the user's units."""
        return self.squares / max(1, self.elements)


@dataclass(frozen=True)
class Given:
    """An item to be compressed: anything with a shape, a dtype and slices."""

    data: Any
    name: str | None = None


def row_axes(shape: tuple[int, ...]) -> int:
    """How many leading axes are folded into rows, such that a row fits a chunk."""
    for axes in range(min(1, len(shape)), len(shape)):
        if math.prod(shape[axes:]) <= CHUNK_ELEMENTS:
            return axes
    return len(shape)


def pack(
    stream: BinaryIO,
    items: Iterable[Given],
    settings: CodingSettings,
    *,
    embed: bool = False,
    count: int | None = None,
    watch: Callable[[int], None] = lambda n: None,
) -> Summary:
    """Write a file to ``stream``.

    Parameters
    ----------
    stream : binary stream
    items : iterable of Given
    settings : CodingSettings
    embed : bool
        Write the model into the file.
    count : int, optional
        The number of items, if known, for the header.
    watch : callable
        Called with the bytes of every chunk that is done.
    """
    summary = Summary(settings.mode)
    steps = _steps(items, settings, summary, watch)
    first, needs = _first(steps, settings)
    model = settings.model if needs or embed else None
    level = None if model is None else model.level if settings.level is None else settings.level
    header = Header(
        kind="images" if settings.images else "array",
        mode=settings.mode,
        error=settings.error if settings.mode == "bounded" else None,
        model=None if model is None else model.id,
        level=level,
        items=count,
    )
    writer = Writer(stream, header, model.payload.data if embed and model is not None else None)
    summary.error, summary.level, summary.embedded = header.error, level, writer.embedded
    for step in chain(first, steps):
        if isinstance(step, Item):
            writer.item(step)
        else:
            writer.chunk(*step)
    summary.coded = writer.close()
    return summary


Step = Item | tuple[int, bytes, Array]  # or a chunk: its method, its payload, what it decodes to


def _steps(
    items: Iterable[Given], settings: CodingSettings, summary: Summary, watch: Callable[[int], None]
) -> Iterator[Step]:
    """The items and chunks to write, in order."""
    for given in items:
        data = given.data  # for an image file, this reads it
        item = _item_of(data, given.name)
        yield item
        summary.items += 1
        summary.pixels += math.prod(item.shape[:2]) if settings.images else 0
        summary.dtypes[str(item.little)] += 1
        for part in _parts(data, item, settings.images):
            coded = encode_chunk(part, settings)
            decoded = np.ascontiguousarray(coded.decoded, item.little)
            _count(summary, part, decoded, coded)
            watch(part.nbytes)
            yield coded.method, coded.payload, decoded


def _first(steps: Iterator[Step], settings: CodingSettings) -> tuple[list[Step], bool]:
    """The steps up to the first that needs the model, and whether there is one.

    A file must not name a model that none of its chunks needs. After MAX_HELD_BYTES the model is
    taken as needed.
    """
    held: list[Step] = []
    size = 0
    for step in steps if settings.model is not None else ():
        held.append(step)
        size += 0 if isinstance(step, Item) else step[2].nbytes
        if size > MAX_HELD_BYTES or (not isinstance(step, Item) and step[0] in MODEL_METHODS):
            return held, True
    return held, False


def _item_of(data: Any, name: str | None) -> Item:
    dtype = np.dtype(data.dtype)
    if dtype.kind not in KINDS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise InputTypeError(
            f"{name or 'X'} holds {dtype}, which a .narrow file cannot store; give booleans, "
            "integers, floats or complex numbers of at most 8 bytes a part."
        )
    shape = tuple(int(size) for size in data.shape)
    code = dtype.newbyteorder("<").str if dtype.isnative else dtype.str
    code = code.replace("=", "<")
    return Item(shape=shape, dtype=code, row_axes=row_axes(shape), name=name)


def _parts(data: Any, item: Item, image: bool) -> Iterator[Array]:
    """The chunks of an item, (rows, *row shape), little-endian and in C order."""
    if not item.rows:
        return
    at_once = max(1, CHUNK_ELEMENTS // max(1, math.prod(item.row_shape)))
    if image and at_once < item.rows:
        strip = min(STRIP, 1 << at_once.bit_length() - 1)  # lower strips of a very wide image
        at_once = at_once // strip * strip
    if item.row_axes == 1:
        for start in range(0, item.rows, at_once):
            yield np.ascontiguousarray(data[start : start + at_once], item.little)
        return
    # rows span several axes: all data are in memory, or one slice of the first axis at a time
    for block in [data] if item.row_axes == 0 else (data[i : i + 1] for i in range(item.shape[0])):
        rows = np.ascontiguousarray(block, item.little).reshape(-1, *item.row_shape)
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once]


def _count(summary: Summary, part: Array, decoded: Array, coded: CodedChunk) -> None:
    summary.original += part.nbytes
    summary.chunks += 1
    summary.payload += len(coded.payload)
    summary.codes += coded.code_bytes
    summary.elements += part.size
    summary.methods[NAMES[coded.method]] += 1
    others = [size for method, size in coded.others.items() if method not in MODEL_METHODS]
    if summary.without is not None:
        summary.without = summary.without + min(others) if others else None
    if decoded is part or np.array_equal(decoded, part):
        return
    with np.errstate(all="ignore"):
        wide = complex if part.dtype.kind == "c" else np.longdouble
        error = np.abs(decoded.astype(wide) - part.astype(wide))
        error = error[np.isfinite(error)]
        summary.squares += float(np.square(error.astype(np.float64)).sum())
    summary.largest_error = max(summary.largest_error, float(error.max(initial=0.0)))


class Unpacker:
    """Reads a file: its header, the model embedded in it, and its items one after another.

    Parameters
    ----------
    stream : a binary stream
    model : ExactDecoder, optional
        The model that the file was made with, if it is not embedded.
    max_bytes : int
        Limit for all items together, decoded.
    salvage : bool
        Continue after damage; ``lost`` lists what is missing, which is filled with zeros.
    """

    def __init__(
        self,
        stream: BinaryIO,
        model: ExactDecoder | None = None,
        *,
        max_bytes: int = MAX_DECODED_BYTES,
        salvage: bool = False,
    ) -> None:
        self.reader = Reader(stream, max_bytes, salvage)
        self.salvage = salvage
        self.lost: list[Lost] = []
        header = self.reader.header
        if self.reader.model is not None:
            model = ExactDecoder(Payload.from_bytes(self.reader.model))
        self._given = None if model is None else model.id
        if self._given != header.model:  # chunks that need no model can still be read
            model = None
        self.settings = CodingSettings(
            header.mode, header.kind == "images", header.error, model, header.level
        )

    @property
    def header(self) -> Header:
        """The header of the file."""
        return self.reader.header

    def __iter__(self) -> Iterator[tuple[Item, Array]]:
        current: tuple[Item, Array] | None = None
        for part in self.reader:
            if isinstance(part, Lost):
                self.lost.append(part)
            elif isinstance(part, Item):
                if current is not None:
                    yield _as_user(*current)
                current = part, _empty(part)
            elif current is not None:
                self._decode_into(current[1], part)
        if current is not None:
            yield _as_user(*current)

    def one(self, number: int) -> tuple[Item, Array]:
        """A single item, from a stream that seeks."""
        item, chunks = self.reader.item(number)
        array = _empty(item)
        for chunk in chunks:
            self._decode_into(array, chunk)
        return _as_user(item, array)

    def _decode_into(self, array: Array, chunk: Chunk) -> None:
        try:
            array[chunk.first : chunk.first + chunk.rows] = self.decode(chunk)
        except Corrupt as error:
            if not self.salvage:
                raise
            self.lost.append(Lost(str(error), chunk.item.number, chunk.first, chunk.rows))

    def decode(self, chunk: Chunk) -> Array:
        """The decoded chunk, checked."""
        try:
            decoded = decode_chunk(
                chunk.method, chunk.payload, chunk.shape, chunk.item.little, self.settings
            )
        except WrongModel:
            check_model(self.header, self._given)
            raise Corrupt(f"{chunk} needs a model, but the file names none") from None
        except Corrupt as error:
            raise Corrupt(f"{chunk} is damaged: {error}") from error
        chunk.check(decoded)
        return decoded


def _empty(item: Item) -> Array:
    return np.zeros((item.rows, *item.row_shape), item.little)


def _as_user(item: Item, array: Array) -> tuple[Item, Array]:
    """An item and its array in the shape and the byte order that the user had."""
    return item, array.reshape(item.shape).astype(item.dtype, copy=False)


def range_of(items: Iterable[Given]) -> float:
    """Largest minus smallest finite value (0 if there is none), the unit of relative errors."""
    low, high = ends_of(items)
    if high - low == math.inf:
        raise InputError(
            "The range of X is too large for a share of it: give max_error in X's units."
        )
    return max(0.0, high - low)


def ends_of(items: Iterable[Given]) -> tuple[float, float]:
    """Smallest and largest finite value; ∞ and −∞ if there is none."""
    low, high = math.inf, -math.inf
    for given in items:
        data = given.data
        for part in _parts(data, _item_of(data, given.name), False):
            if part.dtype.kind == "c":
                part = part.view(part.real.dtype)
            kept = part[np.isfinite(part)] if part.dtype.kind == "f" else part
            if kept.size:
                low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return low, high
