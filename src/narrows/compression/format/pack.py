"""From arrays to a .narrow file and back, a chunk at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.chunk_methods import (
    NAMES,
    WITH_MODEL,
    Wish,
    decode_chunk,
    encode_chunk,
)
from narrows.compression.format.container import (
    Chunk,
    Header,
    Item,
    Lost,
    Reader,
    Writer,
    need_model,
)
from narrows.compression.format.decoder import Model
from narrows.compression.format.model_payload import Payload
from narrows.exceptions import Corrupt, InputError, InputTypeError, WrongModel

Array = NDArray[Any]
AT_ONCE = 1 << 22  # elements of a chunk: coding takes about 250 bytes for each
HELD = 1 << 26  # bytes of chunks that wait for whether the model is needed
KINDS = "biufc"
STRIP = 64  # rows of an image that is cut are a multiple of this: no block of 8 rows is cut


@dataclass
class Summary:
    """What became of some data: bytes in and out, where they went, and how far off it is."""

    mode: str = "lossy"
    error: float | None = None  # the bound, absolute
    level: int | None = None
    items: int = 0
    pixels: int = 0  # of images
    dtypes: Counter[str] = field(default_factory=Counter)  # items by what they hold
    embedded: int = 0  # bytes of the model's frame
    original: int = 0
    coded: int = 0  # bytes of the whole file
    chunks: int = 0
    payload: int = 0  # bytes of all chunks' payloads
    codes: int = 0  # of these, what the codes of the autoencoder take
    without: int | None = 0  # the payloads, had the autoencoder been switched off; lossy: None
    elements: int = 0
    methods: Counter[str] = field(default_factory=Counter)  # chunks by the method that won
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
    """How many leading axes are folded into rows, so that a row fits a chunk."""
    for axes in range(min(1, len(shape)), len(shape)):
        if math.prod(shape[axes:]) <= AT_ONCE:
            return axes
    return len(shape)


def pack(
    stream: Any,
    items: Iterable[Given],
    wish: Wish,
    *,
    embed: bool = False,
    count: int | None = None,
    watch: Callable[[int], None] = lambda n: None,
) -> Summary:
    """Write a file to ``stream``, and tell what became of the data.

    ``watch`` is told the bytes of every chunk that is done.
    """
    summary = Summary(wish.mode)
    steps = _steps(items, wish, summary, watch)
    first, needs = _first(steps, wish)
    model = wish.model if needs or embed else None
    level = None if model is None else model.level if wish.level is None else wish.level
    header = Header(
        kind="images" if wish.images else "array",
        mode=wish.mode,
        error=wish.error if wish.mode == "bounded" else None,
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
    items: Iterable[Given], wish: Wish, summary: Summary, watch: Callable[[int], None]
) -> Iterator[Step]:
    """What is to be written, in order."""
    for given in items:
        data = given.data  # of a file, this decodes it
        item = _item_of(data, given.name)
        yield item
        summary.items += 1
        summary.pixels += math.prod(item.shape[:2]) if wish.images else 0
        summary.dtypes[str(item.little)] += 1
        for part in _parts(data, item, wish.images):
            coded = encode_chunk(part, wish)
            decoded = np.ascontiguousarray(coded.decoded, item.little)
            _note(summary, part, decoded, coded)
            watch(part.nbytes)
            yield coded.method, coded.payload, decoded


def _first(steps: Iterator[Step], wish: Wish) -> tuple[list[Step], bool]:
    """The steps up to one that the model is needed for, and whether there is any.

    A file of which no chunk needs the model must not ask for one. What is large is not held to find
    that out.
    """
    held: list[Step] = []
    size = 0
    for step in steps if wish.model is not None else ():
        held.append(step)
        size += 0 if isinstance(step, Item) else step[2].nbytes
        if size > HELD or (not isinstance(step, Item) and step[0] in WITH_MODEL):
            return held, True
    return held, False


def _item_of(data: Any, name: str | None) -> Item:
    dtype = np.dtype(data.dtype)
    if dtype.kind not in KINDS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise InputTypeError(
            f"{name or 'X'} holds {dtype}, which a .narrow file has no place for; give "
            "booleans, integers, floats or complex numbers of at most 8 bytes a part."
        )
    shape = tuple(int(size) for size in data.shape)
    code = dtype.newbyteorder("<").str if dtype.isnative else dtype.str
    code = code.replace("=", "<")
    return Item(shape=shape, dtype=code, row_axes=row_axes(shape), name=name)


def _parts(data: Any, item: Item, image: bool) -> Iterator[Array]:
    """The chunks of an item, (rows, *row shape), little-endian and in C order."""
    if not item.rows:
        return
    at_once = max(1, AT_ONCE // max(1, math.prod(item.row_shape)))
    if image and at_once < item.rows:
        strip = min(STRIP, 1 << at_once.bit_length() - 1)  # of a very wide one, lower strips
        at_once = at_once // strip * strip
    if item.row_axes == 1:
        for start in range(0, item.rows, at_once):
            yield np.ascontiguousarray(data[start : start + at_once], item.little)
        return
    # rows of several axes: the data lie in memory, or one slice of their first axis does
    for block in [data] if item.row_axes == 0 else (data[i : i + 1] for i in range(item.shape[0])):
        rows = np.ascontiguousarray(block, item.little).reshape(-1, *item.row_shape)
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once]


def _note(summary: Summary, part: Array, decoded: Array, coded: Any) -> None:
    summary.original += part.nbytes
    summary.chunks += 1
    summary.payload += len(coded.payload)
    summary.codes += coded.code_bytes
    summary.elements += part.size
    summary.methods[NAMES[coded.method]] += 1
    others = [size for method, size in coded.others.items() if method <= 2]
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
    """A file being read: its header, the model it embeds, and its items one after another.

    Parameters
    ----------
    stream : a binary stream
    model : Model, optional
        The model it was made with, where that is not embedded.
    max_bytes : int
        Of all items together, decoded.
    salvage : bool
        Go on after damage; ``lost`` tells what is missing, which comes as zeros.
    """

    def __init__(
        self,
        stream: Any,
        model: Model | None = None,
        *,
        max_bytes: int = 1 << 31,
        salvage: bool = False,
    ) -> None:
        self.reader = Reader(stream, max_bytes, salvage)
        self.salvage = salvage
        self.lost: list[Lost] = []
        header = self.reader.header
        embedded = self.reader.model
        if embedded is not None:
            model = Model(Payload.from_bytes(embedded))
        self.embedded = embedded is not None
        self._given = None if model is None else model.id
        if self._given != header.model:  # what needs none can be read all the same
            model = None
        self.wish = Wish(header.mode, header.kind == "images", header.error, model, header.level)

    @property
    def header(self) -> Header:
        """What the file says of itself."""
        return self.reader.header

    def __iter__(self) -> Iterator[tuple[Item, Array]]:
        item: Item | None = None
        array: Array | None = None
        for part in self.reader:
            if isinstance(part, Lost):
                self.lost.append(part)
            elif isinstance(part, Item):
                if item is not None and array is not None:
                    yield item, _as_user(array, item)
                item, array = part, _room(part)
            elif array is not None:
                self._fill(array, part)
        if item is not None and array is not None:
            yield item, _as_user(array, item)

    def one(self, number: int) -> tuple[Item, Array]:
        """One item alone, from a stream that seeks."""
        item, chunks = self.reader.item(number)
        array = _room(item)
        for chunk in chunks:
            self._fill(array, chunk)
        return item, _as_user(array, item)

    def _fill(self, array: Array, chunk: Chunk) -> None:
        try:
            array[chunk.first : chunk.first + chunk.rows] = self.decode(chunk)
        except Corrupt as error:
            if not self.salvage:
                raise
            self.lost.append(Lost(str(error), chunk.item.number, chunk.first, chunk.rows))

    def decode(self, chunk: Chunk) -> Array:
        """What a chunk holds, checked."""
        try:
            decoded = decode_chunk(
                chunk.method, chunk.payload, chunk.shape, chunk.item.little, self.wish
            )
        except WrongModel:
            need_model(self.header, self._given)
            raise Corrupt(f"{chunk} needs a model, and the file names none") from None
        except Corrupt as error:
            raise Corrupt(f"{chunk} is damaged: {error}") from error
        chunk.check(decoded)
        return decoded


def _room(item: Item) -> Array:
    return np.zeros((item.rows, *item.row_shape), item.little)


def _as_user(array: Array, item: Item) -> Array:
    """In the shape and the order of bytes that the user had."""
    back = array.reshape(item.shape)
    return back if np.dtype(item.dtype) == item.little else back.astype(item.dtype)


def range_of(items: Iterable[Given]) -> float:
    """Largest minus smallest finite value, 0 without any: what a relative error is relative to."""
    low, high = ends_of(items)
    if high - low == math.inf:
        raise InputError(
            "X holds numbers too far apart for a share of their range: give max_error in X's units."
        )
    return max(0.0, high - low)


def ends_of(items: Iterable[Given]) -> tuple[float, float]:
    """Smallest and largest finite value; ∞ and −∞ where there is none."""
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
