"""A .narrow file, written front to back and read without trust; docs/format.md specifies it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from narrows.compression.format.file_index import Index
from narrows.compression.format.frames import (
    CHUNK,
    CRC,
    END,
    INDEX,
    ITEM,
    MAGIC,
    MODEL,
    MOST_BYTES,
    MOST_FRAMES,
    MOST_MODEL,
    MOST_PAYLOAD,
    PREAMBLE,
    TAIL,
    VERSION,
    Adrift,
    BadPayload,
    Chunk,
    Decoded,
    Frame,
    Ledger,
    Source,
    Window,
    plain_bytes,
    read_frame,
)
from narrows.compression.format.header import MOST_CHUNK, MOST_JSON, Header, Item
from narrows.compression.format.raw_bytes import inflate
from narrows.exceptions import (
    Corrupt,
    NotOurFile,
    ParameterError,
    TooLarge,
    Truncated,
    UnsupportedVersion,
    WrongModel,
)

__all__ = ["Chunk", "Header", "Item", "Lost", "Reader", "Writer", "model_id", "need_model"]

MISSING = "chunks are missing"


def model_id(payload: bytes) -> str:
    """The name a file gives to the model with this canonical payload."""
    return hashlib.sha256(payload).hexdigest()


def need_model(header: Header, given: str | None) -> None:
    """Refuse any model but the one the file was made with; ``given`` is its `model_id`."""
    if header.model is None or header.model == given:
        return
    other = "none was given" if given is None else f"{given[:12]} was given"
    raise WrongModel(f"the file needs the model {header.model[:12]} it was made with, and {other}")


@contextmanager
def _as_parameters() -> Iterator[None]:
    """What a reader would call corrupt is a wrong parameter when it is to be written."""
    try:
        yield
    except Corrupt as refused:
        raise ParameterError(str(refused)) from None


class Writer:
    """Writes a file to any stream that takes bytes; it never seeks.

    An item, then its chunks in the order of their rows, and so on; `close` at the end. ``model`` is
    the canonical payload to embed. Raises ParameterError for what no reader would take.
    """

    def __init__(self, stream: Any, header: Header, model: bytes | None = None) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._ledger = Ledger(header, max_bytes=1 << 63)
        self.n_bytes = 0
        text = header.pack()
        start = PREAMBLE.pack(MAGIC, *VERSION, len(text)) + text
        self._write(start + CRC.pack(zlib.crc32(start)))
        before = self.n_bytes
        if model is not None:
            self._embed(model, header)
        self.embedded = self.n_bytes - before

    def item(self, item: Item) -> None:
        """Begin an item; the one before it must be whole."""
        item = replace(item, number=self._ledger.items)
        payload = item.pack()
        with _as_parameters():
            self._ledger.item(item, self.n_bytes)
        self._frame(Frame(ITEM, self.n_bytes, payload))

    def chunk(self, method: int, payload: bytes, decoded: Decoded) -> None:
        """The next rows of the item; ``decoded`` is what a reader will decode ``payload`` to."""
        data, item = plain_bytes(decoded), self._ledger.now
        row_bytes = item.row_bytes if item else 0
        if row_bytes == 0 or data.nbytes % row_bytes:
            raise ParameterError(f"{data.nbytes} bytes are no whole rows of {row_bytes} bytes")
        if len(payload) > MOST_PAYLOAD[CHUNK] or data.nbytes > MOST_CHUNK:
            raise TooLarge(f"a chunk has {data.nbytes} bytes, more than the {MOST_CHUNK} allowed")
        rows, first = data.nbytes // row_bytes, self._ledger.row
        frame = Frame(CHUNK, self.n_bytes, payload, method, first, rows, zlib.crc32(data))
        with _as_parameters():
            self._ledger.chunk(frame)
        self._frame(frame)

    def close(self) -> int:
        """Write the index and the end, and say how long the file is; the stream stays open."""
        with _as_parameters():
            self._ledger.end()
        start = self.n_bytes
        self._frame(Frame(INDEX, start, bytes(self._ledger.entries)))
        self._write(TAIL.pack(self._digest.digest(), self.n_bytes - start, END))
        return self.n_bytes

    def _embed(self, model: bytes, header: Header) -> None:
        if model_id(model) != header.model:
            raise ParameterError("the model to embed is not the one the header names")
        if len(model) > MOST_MODEL:
            raise TooLarge(f"the model has {len(model)} bytes, more than the {MOST_MODEL} allowed")
        self._frame(Frame(MODEL, self.n_bytes, zlib.compress(model, 9)))

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
    """What a damaged file no longer gives: ``rows`` rows of an item from ``first``.

    ``rows`` is None where all of the item is lost, ``item`` where only a check of the file failed.
    """

    why: str
    item: int | None
    first: int = 0
    rows: int | None = None


class Reader:
    """Reads a file from any stream of bytes, front to back; one item alone where it seeks.

    ``header`` is read at once. Iterating gives each `Item`, then its `Chunk`s, and ends only after
    the whole file proved right: use nothing of it for good before. Who decodes a chunk must call
    its ``check``. With ``salvage``, iterating passes damage by where that is possible, and gives
    what it cost as `Lost`, all of it also in ``lost``; `item` refuses damage always.

    Raises NotOurFile, UnsupportedVersion, Truncated, Corrupt or TooLarge, whatever the bytes.
    """

    def __init__(self, stream: Any, max_bytes: int = MOST_BYTES, salvage: bool = False) -> None:
        self._source = Source(stream)
        self._most, self._salvage = max_bytes, salvage
        self.header = _read_header(self._source)
        self._start = self._source.position  # of the frames
        self._ledger = Ledger(self.header, max_bytes)
        self._why = MISSING  # the damage that explains the next gap
        self._begun = False
        self.lost: list[Lost] = []

    @property
    def model(self) -> bytes | None:
        """The payload of the model in the file; None where there is none."""
        return self._opening[0]

    @property
    def n_model(self) -> int:
        """Bytes that it takes in the file."""
        model, first = self._opening
        return 0 if model is None or first is None else first.position - self._start

    @property
    def n_read(self) -> int:
        """Bytes read front to back so far."""
        return self._source.position

    def __iter__(self) -> Iterator[Item | Chunk | Lost]:
        if self._begun:
            raise ValueError("a reader reads a file once: make another")
        self._begun = True
        told = 0
        frame = self._opening[1]
        while frame is not None and frame.kind != INDEX:
            part = self._part(frame)
            yield from self.lost[told:]
            told = len(self.lost)
            if part is not None:
                self._why = MISSING
                yield part
            frame = self._next()
        self._finish(frame)
        yield from self.lost[told:]

    @cached_property
    def index(self) -> Index:
        """Where everything is, in a stream that seeks."""
        if not self._source.seeks:
            raise ParameterError(
                "one item alone cannot be read from a stream that does not seek: "
                "save it to a file first"
            )
        index = Index.find(self._source, self._start)
        if self.header.items not in (None, len(index)):
            raise Corrupt(f"the index has {len(index)} items, the header {self.header.items}")
        return index

    def item(self, number: int) -> tuple[Item, Iterator[Chunk]]:
        """One item and its chunks, read from where the index says they are."""
        index = self.index
        starts = np.flatnonzero(index.is_item)
        if not 0 <= number < len(starts):
            raise ParameterError(f"there is no item {number}: the file has {len(starts)}, from 0")
        first = int(starts[number])
        last = int(starts[number + 1]) if number + 1 < len(starts) else len(index.offsets)
        ledger = Ledger(self.header, self._most)
        frame = self._frame_at(int(index.offsets[first]), ITEM)
        item = Item.unpack(frame.payload, number)
        ledger.item(item, frame.position)
        return item, self._chunks(ledger, [int(x) for x in index.offsets[first + 1 : last]])

    def _chunks(self, ledger: Ledger, positions: list[int]) -> Iterator[Chunk]:
        for position in positions:
            yield ledger.chunk(self._frame_at(position, CHUNK))
        ledger.end_item()

    def _frame_at(self, position: int, kind: int) -> Frame:
        window = Window(self._source, position)
        frame = read_frame(window)
        if frame.kind != kind or window.position != self.index.after(position):
            raise Corrupt(f"{frame.where} is not what the index says")
        return frame

    @cached_property
    def _opening(self) -> tuple[bytes | None, Frame | None]:
        """The model, and the first frame after it."""
        frame = self._next()
        if frame is None or frame.kind != MODEL or frame.position != self._start:
            return None, frame
        model = inflate(frame.payload, MOST_MODEL)
        if model_id(model) != self.header.model:
            raise Corrupt("the model in the file is not the one its header names")
        return model, self._next()

    def _next(self) -> Frame | None:
        """The next frame that is whole; None where nothing more can be salvaged."""
        while True:
            position = self._source.position
            try:
                return read_frame(self._source)
            except (Adrift, BadPayload, Truncated) as error:
                if not self._salvage:
                    raise
                if not self._pass_by(position, error):
                    return None

    def _part(self, frame: Frame) -> Item | Chunk | None:
        """What a frame holds; None where it is wrong, but not the whole file is to be refused."""
        ledger = self._ledger
        try:
            if frame.kind == ITEM:
                self._lose_until(None)
                item = Item.unpack(frame.payload, ledger.items)
                ledger.item(item, frame.position)
                return item
            if frame.kind == CHUNK:
                self._lose_until(frame.first)
                return ledger.chunk(frame)
            raise Corrupt(f"{frame.where} is not where one may be")
        except Corrupt as error:
            if not self._salvage:
                raise
            self._why = str(error)
            if frame.kind == ITEM:
                self._lose_item()
            return None

    def _pass_by(self, position: int, error: Corrupt | Truncated) -> bool:
        """Go on after damage, and say whether that can be."""
        self._why = str(error)
        bad, index = isinstance(error, BadPayload), self._index_if_any
        kind = error.kind if isinstance(error, BadPayload) else None
        if kind == ITEM or (index is not None and index.names_item(position)):
            self._lose_item()
        elif position == self._start:
            self._lose(Lost(self._why, None))
        if isinstance(error, Truncated) or (index is None and not bad):
            return False
        if index is not None and not bad:
            self._source.jump(index.after(position))
        return kind != INDEX

    @cached_property
    def _index_if_any(self) -> Index | None:
        try:
            return self.index
        except (ParameterError, Corrupt, Truncated):
            return None

    def _lose_until(self, row: int | None) -> None:
        """In salvage, note that the rows from the next to this one did not come."""
        ledger = self._ledger
        item = ledger.now
        if not self._salvage or item is None:
            return
        row = item.rows if row is None else min(row, item.rows)
        if row > ledger.row:
            self._lose(Lost(self._why, item.number, ledger.row, row - ledger.row))
            ledger.row = row
            ledger.chunks += 1

    def _lose_item(self) -> None:
        self._lose_until(None)
        self._lose(Lost(self._why, self._ledger.items))
        self._ledger.now = None
        self._ledger.items += 1

    def _lose(self, lost: Lost) -> None:
        if len(self.lost) >= MOST_FRAMES:
            raise TooLarge(f"the file has lost more than the {MOST_FRAMES} parts allowed")
        self.lost.append(lost)

    def _finish(self, index: Frame | None) -> None:
        """Refuse a file that is not whole; in salvage, note it."""
        self._lose_until(None)
        try:
            self._ledger.end()
            if not self.lost:  # else it is known that these fail
                self._check_end(index)
        except (Corrupt, Truncated) as error:
            if not self._salvage:
                raise
            self.lost.append(Lost(str(error), None))

    def _check_end(self, index: Frame | None) -> None:
        if index is None:
            raise Corrupt(self._why)
        if index.payload != self._ledger.entries:
            raise Corrupt("the index does not agree with the items and chunks of the file")
        digest, length = self._source.digest.digest(), self._source.position - index.position
        said, said_length, end = TAIL.unpack(self._source.take(TAIL.size))
        if said != digest:
            raise Corrupt("the file does not have the SHA-256 that stands at its end")
        if said_length != length or end != END:
            raise Corrupt("the file does not end as it should")
        if self._source.stream.read(1):
            raise Corrupt("the file goes on after its end")


def _read_header(source: Source) -> Header:
    start = b""
    for byte in MAGIC:  # one by one: what is too short for the magic can still be ours
        start += source.take(1)
        if start[-1] != byte:
            raise NotOurFile("this is no compressed file of narrows: it starts with other bytes")
    start += source.take(PREAMBLE.size - len(MAGIC))
    _, major, minor, length = PREAMBLE.unpack(start)
    if major != VERSION[0] or minor > VERSION[1]:
        raise UnsupportedVersion(
            f"the file is of format {major}.{minor}, and this narrows reads up to "
            f"{VERSION[0]}.{VERSION[1]}: a newer one may read it"
        )
    if length > MOST_JSON:
        raise TooLarge(f"the header has {length} bytes, more than the {MOST_JSON} allowed")
    text = source.take(length)
    if CRC.unpack(source.take(CRC.size))[0] != zlib.crc32(start + text):
        raise Corrupt("the header of the file is damaged")
    return Header.unpack(text)
