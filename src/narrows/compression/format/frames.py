"""The frames of a .narrow file, the index over them, and reading them without trust."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.header import MOST_CHUNK, MOST_JSON, Header, Item
from narrows.exceptions import Corrupt, TooLarge, Truncated

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

MOST_MODEL = 1 << 26  # bytes, inflated
MOST_FRAMES = 1 << 20  # items and chunks
MOST_BYTES = 1 << 31  # of all items, decoded
MOST_DIGITS = 8  # bytes of a number in the index
MOST_PAYLOAD = {
    MODEL: MOST_MODEL + (1 << 16),
    ITEM: MOST_JSON,
    CHUNK: MOST_CHUNK + 1024,
    INDEX: MOST_FRAMES * MOST_DIGITS,
}
PIECE = 1 << 20  # bytes asked for at once: a length may lie

Decoded = bytes | bytearray | memoryview | NDArray[Any]


class Readable(Protocol):
    """What a file is read from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def read_exactly(stream: Readable, size: int, position: int) -> bytes:
    """The next ``size`` bytes; Truncated where there are fewer."""
    pieces, left = [], size
    while left:
        piece = stream.read(min(left, PIECE))
        if not piece:
            raise Truncated(
                f"the file ends at byte {position + size - left}, too early: was it copied whole?"
            )
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Source:
    """A stream read front to back and hashed as it goes; other places of it where it seeks."""

    def __init__(self, stream: Any) -> None:
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
        data = read_exactly(self.stream, size, self.position)
        self.position += size
        self.digest.update(data)
        return data

    def jump(self, position: int) -> None:
        """Go on elsewhere; the hash is of no use from here on."""
        self.stream.seek(self._base + position)
        self.position = position

    def at(self, position: int, size: int) -> bytes:
        """Bytes from elsewhere; the next `take` goes on where the last one ended."""
        self.stream.seek(self._base + position)
        try:
            return read_exactly(self.stream, size, position)
        finally:
            self.stream.seek(self._base + self.position)

    @property
    def size(self) -> int:
        """How long the file is."""
        end = int(self.stream.seek(0, io.SEEK_END))
        self.stream.seek(self._base + self.position)
        return end - self._base


class Window:
    """A place in a stream that seeks, read without moving the stream's own place."""

    def __init__(self, source: Source, position: int) -> None:
        self._source = source
        self.position = position

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        data = self._source.at(self.position, size)
        self.position += size
        return data


class Adrift(Corrupt):
    """The head of a frame is damaged, so that nobody knows where the next one starts."""


class BadPayload(Corrupt):
    """The payload of a frame is damaged, but not its head."""

    def __init__(self, kind: int, where: int) -> None:
        self.kind = kind
        super().__init__(f"the payload of the {KINDS[kind]} frame at byte {where} is damaged")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it stands in the file; the last four are of a CHUNK only."""

    kind: int
    position: int
    payload: bytes
    method: int = 0
    first: int = 0
    rows: int = 0
    decoded_crc: int = 0

    @property
    def where(self) -> str:
        """How a message calls it."""
        return f"the {KINDS[self.kind]} frame at byte {self.position}"

    def pack(self) -> bytes:
        """Its head; the payload follows it in the file."""
        length, crc = len(self.payload), zlib.crc32(self.payload)
        if self.kind == CHUNK:
            place = (self.method, self.first, self.rows)
            head = CHUNKED.pack(CHUNK, *place, length, crc, self.decoded_crc, 0)[: -CRC.size]
        else:
            head = PLAIN.pack(self.kind, length, crc, 0)[: -CRC.size]
        return head + CRC.pack(zlib.crc32(head))


def read_frame(source: Source | Window) -> Frame:
    """The next frame; Adrift or BadPayload where a CRC fails, TooLarge before it takes memory."""
    position = source.position
    start = source.take(1)
    kind = start[0]
    if kind not in KINDS:
        raise Adrift(f"no frame starts at byte {position}, where one should")
    layout = CHUNKED if kind == CHUNK else PLAIN
    head = start + source.take(layout.size - 1)
    if zlib.crc32(head[: -CRC.size]) != CRC.unpack(head[-CRC.size :])[0]:
        raise Adrift(f"the head of the {KINDS[kind]} frame at byte {position} is damaged")
    if kind == CHUNK:
        _, method, first, rows, length, crc, decoded_crc, _ = CHUNKED.unpack(head)
    else:
        _, length, crc, _ = PLAIN.unpack(head)
        method = first = rows = decoded_crc = 0
    if length > MOST_PAYLOAD[kind]:
        raise TooLarge(
            f"the {KINDS[kind]} frame at byte {position} has {length} bytes, "
            f"more than the {MOST_PAYLOAD[kind]} allowed"
        )
    payload = source.take(length)
    if zlib.crc32(payload) != crc:
        raise BadPayload(kind, position)
    return Frame(kind, position, payload, method, first, rows, decoded_crc)


def plain_bytes(decoded: Decoded) -> memoryview:
    """The C-order little-endian bytes of an array, or bytes as they are."""
    if not isinstance(decoded, np.ndarray):
        return memoryview(decoded).cast("B")
    little = decoded.astype(decoded.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows ``first`` to ``first + rows`` of an item, as a method coded them."""

    item: Item
    number: int
    method: int
    first: int
    rows: int
    payload: bytes
    crc: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what it decodes to."""
        return (self.rows, *self.item.row_shape)

    @property
    def decoded_size(self) -> int:
        """The bytes of what it decodes to."""
        return self.rows * self.item.row_bytes

    def __str__(self) -> str:
        return f"{self.item}, chunk {self.number}"

    def check(self, decoded: Decoded) -> None:
        """Refuse what is not, byte for byte, what was compressed."""
        data = plain_bytes(decoded)
        if data.nbytes != self.decoded_size or zlib.crc32(data) != self.crc:
            raise Corrupt(f"{self} does not decode to what was compressed")


class Ledger:
    """What has gone by in a file: it counts, sums, refuses, and writes the index on the way."""

    def __init__(self, header: Header, max_bytes: int) -> None:
        self._header = header
        self._most = max_bytes
        self._names: set[str] = set()
        self._frames = 0
        self._last = 0  # where the last frame of the index starts
        self.entries = bytearray()
        self.items = 0
        self.chunks = 0  # of the item
        self.row = 0  # of the item, the next
        self.total = 0
        self.now: Item | None = None

    def item(self, item: Item, position: int) -> None:
        """An item begins."""
        self.end_item()
        if self._header.items is not None and self.items >= self._header.items:
            raise Corrupt(f"the file has more items than the {self._header.items} of its header")
        if self._header.kind == "images" and item.name is None:
            raise Corrupt(f"{item} of a file of images has no name")
        if item.name in self._names:
            raise Corrupt(f"{item} has the name of an item before it")
        self.total += item.nbytes
        if self.total > self._most:
            raise TooLarge(
                f"up to {item}, the file decodes to {self.total} bytes, more than the "
                f"{self._most} allowed: allow more if it can be trusted"
            )
        self._names |= {item.name} if item.name else set()
        self._enter(position, 1)
        self.now, self.row, self.chunks = item, 0, 0
        self.items += 1

    def chunk(self, frame: Frame) -> Chunk:
        """A chunk of the item goes by."""
        item = self.now
        if item is None:
            raise Corrupt(f"{frame.where} belongs to no item")
        chunk = Chunk(
            item,
            self.chunks,
            frame.method,
            frame.first,
            frame.rows,
            frame.payload,
            frame.decoded_crc,
        )
        if frame.method not in METHODS:
            raise Corrupt(f"{chunk} is coded by the method {frame.method}, which does not exist")
        if frame.first != self.row or not 0 < frame.rows <= item.rows - frame.first:
            raise Corrupt(
                f"{chunk} has {frame.rows} rows from {frame.first} where {item.rows - self.row} "
                f"from {self.row} are left"
            )
        if chunk.decoded_size > MOST_CHUNK:
            raise TooLarge(
                f"{chunk} decodes to {chunk.decoded_size} bytes, more than the {MOST_CHUNK} allowed"
            )
        self._enter(frame.position, 0)
        self.row += frame.rows
        self.chunks += 1
        return chunk

    def end_item(self) -> None:
        """The item that went by must be whole."""
        if self.now is not None and self.row != self.now.rows:
            raise Corrupt(f"{self.now} ends after {self.row} of its {self.now.rows} rows")

    def end(self) -> None:
        """The whole file went by."""
        self.end_item()
        if self._header.items not in (None, self.items):
            raise Corrupt(f"the file has {self.items} items, not {self._header.items} as it says")

    def _enter(self, position: int, bit: int) -> None:
        self._frames += 1
        if self._frames > MOST_FRAMES:
            raise TooLarge(f"the file has more than the {MOST_FRAMES} items and chunks allowed")
        number = 2 * (position - self._last) + bit
        while number > 127:
            self.entries.append(number & 127 | 128)
            number >>= 7
        self.entries.append(number)
        self._last = position
