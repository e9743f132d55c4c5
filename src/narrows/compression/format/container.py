"""Reading and writing a .narrow file: header, items and their chunks, index, checksum.

A file is written from front to back, and read without trusting anything in it. docs/format.md
specifies the bytes; `frames` has the parts, `chunk_methods` what a chunk's payload holds.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.format import frames
from narrows.compression.format.frames import Chunk, Decoded, Frame, StructureCheck
from narrows.compression.format.header import MAX_CHUNK_BYTES, MAX_JSON_BYTES, Header, Item
from narrows.compression.format.integer_arrays import inflate
from narrows.exceptions import (
    Corrupt,
    InputTypeError,
    NotOurFile,
    ParameterError,
    TooLarge,
    Truncated,
    UnsupportedVersion,
    WrongModel,
)

MISSING = "chunks are missing"
NO_LIMIT = 1 << 63  # of decoded bytes, where nothing is decoded


def check_binary(stream: Any, method: str, what: str) -> None:
    """Refuse an object that has no method ``read`` or ``write`` for bytes."""
    if not hasattr(stream, method) or isinstance(stream, io.TextIOBase):
        mode = method[0] + "b"
        raise InputTypeError(
            f"{what} an open binary file, such as open(path, '{mode}'). Got "
            f"{type(stream).__name__} instead."
        )


def model_id(payload: bytes) -> str:
    """The SHA-256 in hex by which a file names the model with this payload."""
    return hashlib.sha256(payload).hexdigest()


def check_model(header: Header, given: str | None) -> None:
    """Raise WrongModel unless ``given``, a `model_id`, is of the model that the file needs."""
    if header.model is None or header.model == given:
        return
    other = "none was given" if given is None else f"{given[:12]} was given"
    raise WrongModel(f"the file needs the model {header.model[:12]} it was made with, and {other}")


class Writer:
    """Writes a file to a stream; it never seeks.

    Call `item`, then `chunk` for its rows in order, and so on for every item; `close` at the end.

    Parameters
    ----------
    stream : binary stream
    header : Header
    model : bytes, optional
        The payload of the model, to embed it in the file.

    Raises
    ------
    ParameterError
        For anything that a reader would refuse.
    """

    def __init__(self, stream: BinaryIO, header: Header, model: bytes | None = None) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._check = StructureCheck(header, NO_LIMIT, ParameterError)
        self.n_bytes = 0
        text = header.pack()
        start = frames.PREAMBLE.pack(frames.MAGIC, *frames.VERSION, len(text)) + text
        self._write(start + frames.CRC.pack(zlib.crc32(start)))
        start_of_model = self.n_bytes
        if model is not None:
            self._embed(model, header)
        self.embedded = self.n_bytes - start_of_model  # bytes of the model's frame

    def item(self, item: Item) -> None:
        """Begin an item; the item before it must be complete."""
        item = replace(item, number=self._check.items)
        payload = item.pack()
        self._check.item(item, self.n_bytes)
        self._frame(Frame(frames.ITEM, self.n_bytes, payload))

    def chunk(self, method: int, payload: bytes, decoded: Decoded) -> None:
        """Write the next rows of the item; a reader decodes ``payload`` to ``decoded``."""
        data, item = frames.little_endian_bytes(decoded), self._check.now
        row_bytes = item.row_bytes if item else 0
        if row_bytes == 0 or data.nbytes % row_bytes:
            raise ParameterError(f"{data.nbytes} bytes are not whole rows of {row_bytes} bytes")
        if len(payload) > frames.MAX_PAYLOAD_BYTES[frames.CHUNK] or data.nbytes > MAX_CHUNK_BYTES:
            raise TooLarge(f"a chunk has {data.nbytes} bytes; {MAX_CHUNK_BYTES} are allowed")
        rows, first = data.nbytes // row_bytes, self._check.row
        frame = Frame(frames.CHUNK, self.n_bytes, payload, method, first, rows, zlib.crc32(data))
        self._check.chunk(frame)
        self._frame(frame)

    def close(self) -> int:
        """Write the index and the end; returns the length of the file. The stream stays open."""
        self._check.end()
        start = self.n_bytes
        self._frame(Frame(frames.INDEX, start, bytes(self._check.entries)))
        self._write(frames.TAIL.pack(self._digest.digest(), self.n_bytes - start, frames.END))
        return self.n_bytes

    def _embed(self, model: bytes, header: Header) -> None:
        if model_id(model) != header.model:
            raise ParameterError("the model to embed is not the one that the header names")
        limit = frames.MAX_MODEL_BYTES
        if len(model) > limit:
            raise TooLarge(f"the model has {len(model)} bytes; {limit} are allowed")
        self._frame(Frame(frames.MODEL, self.n_bytes, zlib.compress(model, 9)))

    def _frame(self, frame: Frame) -> None:
        self._write(frame.pack())
        self._write(frame.payload)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self.n_bytes += len(data)
        left = memoryview(data)
        while left:
            written = self._stream.write(left)
            left = left[len(left) if written is None else written :]


@dataclass(frozen=True, slots=True)
class Lost:
    """A part of a damaged file that is not recovered: ``rows`` rows of an item from ``first``.

    ``rows`` is None where the whole item is lost, ``item`` None where only a check of the file as a
    whole failed. ``why`` is the message.
    """

    why: str
    item: int | None
    first: int = 0
    rows: int | None = None


@dataclass
class ItemOutline:
    """An item, and how many chunks and bytes of it are coded by each method."""

    item: Item
    chunks: Counter[int] = field(default_factory=Counter)
    nbytes: Counter[int] = field(default_factory=Counter)

    def add(self, method: int, nbytes: int) -> None:
        """Count one more chunk."""
        self.chunks[method] += 1
        self.nbytes[method] += nbytes


@dataclass
class Outline:
    """What a file holds; ``model`` and ``nbytes`` are the bytes of its model and of all of it.

    ``whole``: all of it was read, and every checksum was right except those of decoded chunks.
    """

    header: Header
    nbytes: int
    model: int
    items: list[ItemOutline]
    whole: bool


class Reader:
    """Reads a file from a stream, from front to back; a single item where the stream seeks.

    ``header`` is read at once. Iterating gives each `Item`, then its `Chunk` objects, and ends
    without an error only if the whole file is right: do not use the data for good before. After
    decoding a chunk, call its ``check``. With ``salvage``, iterating skips damage where possible
    and gives `Lost` for what is missing (also in ``lost``); `item` always refuses damage.

    Parameters
    ----------
    stream : binary stream
    max_bytes : int
        Limit for all items together, decoded.
    salvage : bool

    Raises
    ------
    NotOurFile, UnsupportedVersion, Truncated, Corrupt, TooLarge
        Whatever the bytes are, no other error is raised.
    """

    def __init__(
        self, stream: BinaryIO, max_bytes: int = frames.MAX_DECODED_BYTES, salvage: bool = False
    ) -> None:
        self._source = frames.ByteSource(stream)
        self._max_bytes, self._salvage = max_bytes, salvage
        self.header = _read_header(self._source)
        self._start = self._source.position  # of the frames
        self._check = StructureCheck(self.header, max_bytes)
        self._why = MISSING  # the damage that explains the next gap
        self._begun = False
        self.lost: list[Lost] = []

    @property
    def model(self) -> bytes | None:
        """The payload of the model in the file, or None."""
        return self._opening[0]

    def __iter__(self) -> Iterator[Item | Chunk | Lost]:
        if self._begun:
            raise ValueError("a Reader can be iterated once; create a new one")
        self._begun = True
        given = 0
        frame = self._opening[1]
        while frame is not None and frame.kind != frames.INDEX:
            part = self._part(frame)
            yield from self.lost[given:]
            given = len(self.lost)
            if part is not None:
                self._why = MISSING
                yield part
            frame = self._next()
        self._finish(frame)
        yield from self.lost[given:]

    @cached_property
    def index(self) -> frames.Index:
        """The positions of all items and chunks; the stream must seek."""
        if not self._source.seeks:
            raise ParameterError("the stream does not seek: for one item, save it to a file first")
        index = frames.Index.find(self._source, self._start)
        if self.header.items not in (None, len(index)):
            raise Corrupt(f"the index has {len(index)} items; the header says {self.header.items}")
        return index

    def item(self, number: int) -> tuple[Item, Iterator[Chunk]]:
        """One item and its chunks, read from their positions in the index."""
        index = self.index
        starts = np.flatnonzero(index.is_item)
        if not 0 <= number < len(starts):
            raise ParameterError(f"there is no item {number}: the file has {len(starts)}, from 0")
        first = int(starts[number])
        last = int(starts[number + 1]) if number + 1 < len(starts) else len(index.offsets)
        check = StructureCheck(self.header, self._max_bytes)
        frame = self._frame_at(int(index.offsets[first]), frames.ITEM)
        item = Item.unpack(frame.payload, number)
        check.item(item, frame.position)
        return item, self._chunks(check, [int(x) for x in index.offsets[first + 1 : last]])

    def outline(self, verify: Callable[[Chunk], object] | None = None) -> Outline:
        """What the file holds.

        Where the stream seeks, only the heads of the frames are read, else all of it. With
        ``verify``, all of it is read, and ``verify`` is called with every chunk.
        """
        items: list[ItemOutline] = []
        if verify is not None or not self._source.seeks:
            for part in self:
                if isinstance(part, Item):
                    items.append(ItemOutline(part))
                elif isinstance(part, Chunk):
                    items[-1].add(part.method, len(part.payload))
                    if verify is not None:
                        verify(part)
            model, first = self._opening
            n_model = 0 if model is None or first is None else first.position - self._start
            return Outline(self.header, self._source.position, n_model, items, True)
        plain, index = frames.PLAIN, self.index
        kind, length, *_ = plain.unpack(self._head_at(self._start, plain.size, "first"))
        n_model = plain.size + int(length) if kind == frames.MODEL else 0
        for position, is_item in zip(index.offsets.tolist(), index.is_item.tolist(), strict=True):
            if is_item:
                payload = self._frame_at(position, frames.ITEM).payload
                items.append(ItemOutline(Item.unpack(payload, len(items))))
            elif not items:
                raise Corrupt("the index begins with a chunk that belongs to no item")
            else:
                head = frames.CHUNKED.unpack(self._head_at(position, frames.CHUNKED.size, "CHUNK"))
                items[-1].add(head[1], head[4])
        return Outline(self.header, self._source.size, n_model, items, False)

    def _chunks(self, check: StructureCheck, positions: list[int]) -> Iterator[Chunk]:
        for position in positions:
            yield check.chunk(self._frame_at(position, frames.CHUNK))
        check.end_item()

    def _frame_at(self, position: int, kind: int) -> Frame:
        """The frame of this kind that the index lists at ``position``."""
        frame = frames.read_frame(self._source, position)
        if frame.kind != kind or frame.end != self.index.after(position):
            raise Corrupt(f"{frame.where} is not what the index says")
        return frame

    def _head_at(self, position: int, size: int, what: str) -> bytes:
        """Only the head of a frame, for outlines."""
        head = self._source.at(position, size)
        if (head[0] == frames.CHUNK) != (size == frames.CHUNKED.size):
            raise Corrupt(f"the frame at byte {position} is not what the index says")
        frames.check_head(head, what, position)
        return head

    @cached_property
    def _opening(self) -> tuple[bytes | None, Frame | None]:
        """The model, and the first frame after it."""
        frame = self._next()
        if frame is None or frame.kind != frames.MODEL or frame.position != self._start:
            return None, frame
        model = inflate(frame.payload, frames.MAX_MODEL_BYTES)
        if model_id(model) != self.header.model:
            raise Corrupt("the model in the file is not the one its header names")
        return model, self._next()

    def _next(self) -> Frame | None:
        """The next undamaged frame; None where nothing more can be recovered."""
        while True:
            position = self._source.position
            try:
                return frames.read_frame(self._source)
            except (frames.DamagedHead, frames.DamagedPayload, Truncated) as error:
                if not self._salvage:
                    raise
                if not self._skip(position, error):
                    return None

    def _part(self, frame: Frame) -> Item | Chunk | None:
        """The content of a frame; None where it is wrong and the reader salvages."""
        check = self._check
        try:
            if frame.kind == frames.ITEM:
                self._lose_until(None)
                item = Item.unpack(frame.payload, check.items)
                check.item(item, frame.position)
                return item
            if frame.kind == frames.CHUNK:
                self._lose_until(frame.first)
                return check.chunk(frame)
            raise Corrupt(f"{frame.where} is at a place where none is allowed")
        except Corrupt as error:
            if not self._salvage:
                raise
            self._why = str(error)
            if frame.kind == frames.ITEM:
                self._lose_item()
            return None

    def _skip(self, position: int, error: Corrupt | Truncated) -> bool:
        """Continue after damage; returns whether that is possible."""
        self._why = str(error)
        kind = error.kind if isinstance(error, frames.DamagedPayload) else None
        index = self._index_if_any
        if kind == frames.ITEM or (index is not None and index.is_item_at(position)):
            self._lose_item()
        elif position == self._start:
            self._lose(Lost(self._why, None))
        if kind is not None:  # the source is at the end of the frame already
            return kind != frames.INDEX
        if index is None or isinstance(error, Truncated):
            return False
        self._source.jump(index.after(position))
        return True

    @cached_property
    def _index_if_any(self) -> frames.Index | None:
        try:
            return self.index
        except (ParameterError, Corrupt, Truncated):
            return None

    def _lose_until(self, row: int | None) -> None:
        """In salvage, note that the rows from the next one to ``row`` are missing."""
        check = self._check
        item = check.now
        if not self._salvage or item is None:
            return
        row = item.rows if row is None else min(row, item.rows)
        if row > check.row:
            self._lose(Lost(self._why, item.number, check.row, row - check.row))
            check.row = row
            check.chunks += 1

    def _lose_item(self) -> None:
        self._lose_until(None)
        self._lose(Lost(self._why, self._check.items))
        self._check.now = None
        self._check.items += 1

    def _lose(self, lost: Lost) -> None:
        if len(self.lost) >= frames.MAX_FRAMES:
            raise TooLarge(f"more than {frames.MAX_FRAMES} parts of the file are lost")
        self.lost.append(lost)

    def _finish(self, index: Frame | None) -> None:
        """Refuse an incomplete file; in salvage, note it."""
        self._lose_until(None)
        try:
            self._check.end()
            if not self.lost:  # after losses these checks always fail
                self._check_end(index)
        except (Corrupt, Truncated) as error:
            if not self._salvage:
                raise
            self.lost.append(Lost(str(error), None))

    def _check_end(self, index: Frame | None) -> None:
        if index is None:
            raise Corrupt(self._why)
        if index.payload != self._check.entries:
            raise Corrupt("the index does not agree with the items and chunks of the file")
        digest, length = self._source.digest.digest(), self._source.position - index.position
        stated, stated_length, end = frames.TAIL.unpack(self._source.take(frames.TAIL.size))
        if stated != digest:
            raise Corrupt("the SHA-256 at the end of the file is not that of its bytes")
        if stated_length != length or end != frames.END:
            raise Corrupt("the file does not end as it should")
        if self._source.stream.read(1):
            raise Corrupt("there are bytes after the end of the file")


def _read_header(source: frames.ByteSource) -> Header:
    start = b""
    # byte by byte, so that a file that is cut within the magic counts as truncated
    for byte in frames.MAGIC:
        start += source.take(1)
        if start[-1] != byte:
            raise NotOurFile("not a compressed file of narrows: it starts with other bytes")
    start += source.take(frames.PREAMBLE.size - len(frames.MAGIC))
    _, major, minor, length = frames.PREAMBLE.unpack(start)
    if major != frames.VERSION[0] or minor > frames.VERSION[1]:
        raise UnsupportedVersion(
            f"the file has format {major}.{minor}, and this version of narrows reads up to "
            f"{frames.VERSION[0]}.{frames.VERSION[1]}; use a newer version"
        )
    if length > MAX_JSON_BYTES:
        raise TooLarge(f"the header has {length} bytes; at most {MAX_JSON_BYTES} are allowed")
    text = source.take(length)
    if frames.CRC.unpack(source.take(frames.CRC.size))[0] != zlib.crc32(start + text):
        raise Corrupt("the header of the file is damaged")
    return Header.unpack(text)
