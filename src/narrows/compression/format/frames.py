"""The frames that a .narrow file consists of, the checks on their order, and the index of them.

A frame is a head with its own CRC, then a payload with a CRC. The kinds: MODEL (at most one, the
first), ITEM, CHUNK (of the item before it), INDEX (the last). docs/format.md specifies the bytes.
Nothing in a file is trusted: sizes are checked before memory is taken for them.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.header import MAX_CHUNK_BYTES, MAX_JSON_BYTES, Header, Item
from narrows.exceptions import Corrupt, NarrowsError, TooLarge, Truncated

MAGIC = b"\x89NRW\r\n\x1a\n"
END = b"\x89NRWend\n"
VERSION = (1, 0)
MODEL, ITEM, CHUNK, INDEX = 1, 2, 3, 4
KINDS = {MODEL: "MODEL", ITEM: "ITEM", CHUNK: "CHUNK", INDEX: "INDEX"}
METHODS = range(6)

PREAMBLE = struct.Struct("<8sHHI")  # magic, major, minor, bytes of the header
PLAIN = struct.Struct("<BIII")  # kind, bytes of the payload, its CRC, the head's CRC
CHUNKED = struct.Struct("<BBQIIIII")  # kind, method, first, rows, bytes, CRC, decoded CRC, head's
TAIL = struct.Struct("<32sI8s")  # SHA-256, bytes of the INDEX frame, end magic
CRC = struct.Struct("<I")

MAX_MODEL_BYTES = 1 << 26  # inflated
MAX_FRAMES = 1 << 20  # items and chunks
MAX_DECODED_BYTES = 1 << 31  # of all items together, unless the user allows more
MAX_NUMBER_BYTES = 8  # of a number in the index
MAX_PAYLOAD_BYTES = {
    MODEL: MAX_MODEL_BYTES + (1 << 16),  # deflate can make data a little longer
    ITEM: MAX_JSON_BYTES,
    CHUNK: MAX_CHUNK_BYTES + 1024,
    INDEX: MAX_FRAMES * MAX_NUMBER_BYTES,
}
READ_SIZE = 1 << 20  # bytes read at once: a stated length may be false

Decoded = bytes | bytearray | memoryview | NDArray[np.generic]


def _read_exactly(stream: BinaryIO, size: int, position: int) -> bytes:
    """The next ``size`` bytes; Truncated where there are fewer."""
    pieces, left = [], size
    while left:
        piece = stream.read(min(left, READ_SIZE))
        if not piece:
            end = position + size - left
            raise Truncated(f"the file ends at byte {end}, too early: it was not copied completely")
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ByteSource:
    """A stream read from front to back and hashed on the way; other positions where it seeks."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.position = 0
        self.digest = hashlib.sha256()
        try:
            self.seeks = bool(stream.seekable())
            self._base = stream.tell() if self.seeks else 0
        except (AttributeError, OSError):
            self.seeks, self._base = False, 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        data = _read_exactly(self.stream, size, self.position)
        self.position += size
        self.digest.update(data)
        return data

    def jump(self, position: int) -> None:
        """Continue at another position; from here on the hash no longer covers the whole file."""
        self.stream.seek(self._base + position)
        self.position = position

    def at(self, position: int, size: int) -> bytes:
        """Bytes from another position; the next `take` continues where the last one ended."""
        self.stream.seek(self._base + position)
        try:
            return _read_exactly(self.stream, size, position)
        finally:
            self.stream.seek(self._base + self.position)

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        end = int(self.stream.seek(0, io.SEEK_END))
        self.stream.seek(self._base + self.position)
        return end - self._base


class DamagedHead(Corrupt):
    """The head of a frame is damaged, so that the start of the next frame is unknown."""


class DamagedPayload(Corrupt):
    """The payload of a frame is damaged, but its head is not."""

    def __init__(self, kind: int, where: int) -> None:
        self.kind = kind
        super().__init__(f"the payload of the {KINDS[kind]} frame at byte {where} is damaged")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the file; the last four fields are used by CHUNK frames only."""

    kind: int
    position: int
    payload: bytes
    method: int = 0
    first: int = 0
    rows: int = 0
    decoded_crc: int = 0

    @property
    def where(self) -> str:
        """How messages name the frame."""
        return f"the {KINDS[self.kind]} frame at byte {self.position}"

    @property
    def end(self) -> int:
        """The position of the byte after the frame."""
        head = CHUNKED if self.kind == CHUNK else PLAIN
        return self.position + head.size + len(self.payload)

    def pack(self) -> bytes:
        """The head; in the file the payload follows it."""
        length, crc = len(self.payload), zlib.crc32(self.payload)
        if self.kind == CHUNK:
            place = (self.method, self.first, self.rows)
            head = CHUNKED.pack(CHUNK, *place, length, crc, self.decoded_crc, 0)
        else:
            head = PLAIN.pack(self.kind, length, crc, 0)
        return head[: -CRC.size] + CRC.pack(zlib.crc32(head[: -CRC.size]))


def check_head(head: bytes, name: str, position: int) -> None:
    """Refuse a frame's head with a wrong CRC."""
    if zlib.crc32(head[: -CRC.size]) != CRC.unpack(head[-CRC.size :])[0]:
        raise DamagedHead(f"the head of the {name} frame at byte {position} is damaged")


def read_frame(source: ByteSource, at: int | None = None) -> Frame:
    """The next frame, or the one at position ``at``.

    Raises DamagedHead or DamagedPayload where a CRC fails, TooLarge before memory is taken.
    """
    position = source.position if at is None else at
    start = source.take(1) if at is None else source.at(at, 1)
    kind = start[0]
    if kind not in KINDS:
        raise DamagedHead(f"no frame starts at byte {position}, where one should")
    layout = CHUNKED if kind == CHUNK else PLAIN
    size = layout.size
    head = start + source.take(size - 1) if at is None else source.at(at, size)
    check_head(head, KINDS[kind], position)
    if kind == CHUNK:
        _, method, first, rows, length, crc, decoded_crc, _ = CHUNKED.unpack(head)
    else:
        _, length, crc, _ = PLAIN.unpack(head)
        method = first = rows = decoded_crc = 0
    if length > MAX_PAYLOAD_BYTES[kind]:
        frame = f"the {KINDS[kind]} frame at byte {position}"
        raise TooLarge(f"{frame} has {length} bytes; {MAX_PAYLOAD_BYTES[kind]} are allowed")
    payload = source.take(length) if at is None else source.at(at + size, length)
    if zlib.crc32(payload) != crc:
        raise DamagedPayload(kind, position)
    return Frame(kind, position, payload, method, first, rows, decoded_crc)


def little_endian_bytes(decoded: Decoded) -> memoryview:
    """The C-order little-endian bytes of an array; bytes stay as they are."""
    if not isinstance(decoded, np.ndarray):
        return memoryview(decoded).cast("B")
    little = decoded.astype(decoded.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows ``first`` to ``first + rows`` of an item, coded by ``method`` into ``payload``."""

    item: Item
    number: int
    method: int
    first: int
    rows: int
    payload: bytes
    crc: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded chunk."""
        return (self.rows, *self.item.row_shape)

    @property
    def decoded_size(self) -> int:
        """Bytes of the decoded chunk."""
        return self.rows * self.item.row_bytes

    def __str__(self) -> str:
        return f"{self.item}, chunk {self.number}"

    def check(self, decoded: Decoded) -> None:
        """Raise Corrupt unless these are, byte for byte, the data that were compressed."""
        data = little_endian_bytes(decoded)
        if data.nbytes != self.decoded_size or zlib.crc32(data) != self.crc:
            raise Corrupt(f"{self} does not decode to the data that were compressed")


class StructureCheck:
    """Checks the order and the sizes of the items and chunks that go by, and records the index.

    Writer and reader both use it, so that nothing is written that cannot be read; ``error`` is
    raised for a wrong structure.
    """

    def __init__(self, header: Header, max_bytes: int, error: type[NarrowsError] = Corrupt) -> None:
        self._header, self._error = header, error
        self._max_bytes = max_bytes
        self._names: set[str] = set()
        self._frames = 0
        self._last = 0  # position of the last frame that the index lists
        self.entries = bytearray()  # payload of the index
        self.items = 0
        self.chunks = 0  # of the current item
        self.row = 0  # the next row of the current item
        self.total = 0  # decoded bytes
        self.now: Item | None = None

    def item(self, item: Item, position: int) -> None:
        """An item begins."""
        self.end_item()
        if self._header.items is not None and self.items >= self._header.items:
            raise self._error(
                f"the file has more items than the {self._header.items} of its header"
            )
        if self._header.kind == "images" and item.name is None:
            raise self._error(f"{item} of a file of images has no name")
        if item.name in self._names:
            raise self._error(f"{item} has the name of an item before it")
        self.total += item.nbytes
        if self.total > self._max_bytes:
            raise TooLarge(
                f"up to {item}, the file decodes to {self.total} bytes, more than the "
                f"{self._max_bytes} allowed; if you trust the file, raise the limit"
            )
        self._names |= {item.name} if item.name else set()
        self._record(position, 1)
        self.now, self.row, self.chunks = item, 0, 0
        self.items += 1

    def chunk(self, frame: Frame) -> Chunk:
        """A chunk of the current item goes by."""
        item, first, rows = self.now, frame.first, frame.rows
        if item is None:
            raise self._error(f"{frame.where} belongs to no item")
        method, crc = frame.method, frame.decoded_crc
        chunk = Chunk(item, self.chunks, method, first, rows, frame.payload, crc)
        if method not in METHODS:
            raise self._error(f"{chunk} is coded by method {method}, which does not exist")
        left = item.rows - self.row
        if first != self.row or not 0 < rows <= left:
            place = f"where {left} from {self.row} are left"
            raise self._error(f"{chunk} has {rows} rows from {first} {place}")
        if chunk.decoded_size > MAX_CHUNK_BYTES:
            size = chunk.decoded_size
            raise TooLarge(f"{chunk} decodes to {size} bytes; {MAX_CHUNK_BYTES} are allowed")
        self._record(frame.position, 0)
        self.row += rows
        self.chunks += 1
        return chunk

    def end_item(self) -> None:
        """Check that the current item is complete."""
        if self.now is not None and self.row != self.now.rows:
            raise self._error(f"{self.now} ends after {self.row} of its {self.now.rows} rows")

    def end(self) -> None:
        """Check that the file is complete."""
        self.end_item()
        if self._header.items not in (None, self.items):
            raise self._error(
                f"the file has {self.items} items; its header says {self._header.items}"
            )

    def _record(self, position: int, is_item: int) -> None:
        """Add a frame to the index: the distance to the last one, times 2, plus ``is_item``."""
        self._frames += 1
        if self._frames > MAX_FRAMES:
            raise TooLarge(f"the file has more than the {MAX_FRAMES} items and chunks allowed")
        number = 2 * (position - self._last) + is_item
        while number > 127:  # LEB128: seven bits a byte, the lowest first
            self.entries.append(number & 127 | 128)
            number >>= 7
        self.entries.append(number)
        self._last = position


@dataclass(frozen=True, slots=True)
class Index:
    """The positions of the items and chunks of a file, and of the INDEX frame itself (``end``)."""

    offsets: NDArray[np.int64]
    is_item: NDArray[np.bool_]
    end: int

    @classmethod
    def find(cls, source: ByteSource, first: int) -> Index:
        """Read it from the end of a stream that seeks, whose frames start at ``first``."""
        tail = source.size - TAIL.size
        if tail < first + PLAIN.size:
            raise Truncated("the file ends before its index: it was not copied completely")
        _, length, end = TAIL.unpack(source.at(tail, TAIL.size))
        if end != END:
            raise Truncated("the file does not end as it should: it was not copied completely")
        if tail - length < first:
            raise Corrupt("the end of the file points to an index that starts too early")
        frame = read_frame(source, tail - length)
        if frame.kind != INDEX or frame.end != tail:
            raise Corrupt("the end of the file does not point to an index")
        return cls.unpack(frame.payload, first, frame.position)

    @classmethod
    def unpack(cls, payload: bytes, first: int, end: int) -> Index:
        """Decode the numbers of an INDEX frame that starts at ``end``."""
        digits = np.frombuffer(payload, np.uint8)
        ends = np.flatnonzero(digits < 128)
        starts = np.concatenate([np.zeros(1, np.intp), ends + 1])[: len(ends)]
        lengths = ends + 1 - starts
        if len(starts) > MAX_FRAMES:
            raise TooLarge(f"the index has more than the {MAX_FRAMES} items and chunks allowed")
        if (lengths > MAX_NUMBER_BYTES).any() or (len(digits) and digits[-1] > 127):
            raise Corrupt("the index holds an unfinished or too long number")
        place = np.arange(len(digits)) - np.repeat(starts, lengths)
        shifted = (digits & 127).astype(np.int64) << 7 * place
        numbers = np.add.reduceat(shifted, starts) if len(starts) else np.empty(0, np.int64)
        distances = numbers >> 1
        # a distance above the file's length could make the sum overflow
        fine = not len(numbers) or bool((distances > 0).all() and (distances < end).all())
        offsets = np.cumsum(distances) if fine else distances
        if not fine or (len(offsets) and not first <= offsets[0] <= offsets[-1] < end):
            raise Corrupt("the index points outside of the file")
        return cls(offsets, (numbers & 1).astype(bool), end)

    def __len__(self) -> int:
        """The number of items."""
        return int(self.is_item.sum())

    def after(self, position: int) -> int:
        """The position of the next frame."""
        k = int(np.searchsorted(self.offsets, position, side="right"))
        return int(self.offsets[k]) if k < len(self.offsets) else self.end

    def is_item_at(self, position: int) -> bool:
        """Whether an item starts at ``position``."""
        k = int(np.searchsorted(self.offsets, position))
        return k < len(self.offsets) and self.offsets[k] == position and bool(self.is_item[k])
