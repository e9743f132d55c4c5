"""What a .narrow file holds, without decoding it: of a stream that seeks only heads are read."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from narrows.compression.format.container import Chunk, Header, Item, Reader
from narrows.compression.format.frames import (
    CHUNK,
    CHUNKED,
    CRC,
    ITEM,
    MODEL,
    PLAIN,
    Window,
    read_frame,
)
from narrows.exceptions import Corrupt

ENDLESS = 1 << 63  # nothing is decoded: how much it would be is only told


@dataclass
class Held:
    """An item, and how many chunks and bytes of it are coded by each method."""

    item: Item
    chunks: Counter[int] = field(default_factory=Counter)
    nbytes: Counter[int] = field(default_factory=Counter)

    def add(self, method: int, nbytes: int) -> None:
        """One chunk more."""
        self.chunks[method] += 1
        self.nbytes[method] += nbytes


@dataclass
class Heads:
    """What stands in a file; ``model`` and ``nbytes`` are bytes of the model in it and of it all.

    ``whole``: all of it was read, and every checksum held but those of what is decoded.
    """

    header: Header
    nbytes: int
    model: int
    items: list[Held]
    whole: bool


def look(stream: Any) -> Heads:
    """What is in a file; only heads are read where the stream seeks, else all of it.

    Raises the errors of a `Reader`.
    """
    return _Looker(stream, ENDLESS).heads()


class _Looker(Reader):
    """A reader of heads."""

    def heads(self) -> Heads:
        """What stands in the file."""
        if not self._source.seeks:
            return self._all()
        model = self._model_bytes()
        return Heads(self.header, self._source.size, model, self._by_index(), False)

    def _all(self) -> Heads:
        items: list[Held] = []
        for part in self:
            if isinstance(part, Item):
                items.append(Held(part))
            elif isinstance(part, Chunk):
                items[-1].add(part.method, len(part.payload))
        return Heads(self.header, self.n_read, self.n_model, items, True)

    def _model_bytes(self) -> int:
        """Of the model's frame, which is the first where there is one."""
        kind, length, *_ = PLAIN.unpack(self._head(self._start, PLAIN.size, "first"))
        return PLAIN.size + int(length) if kind == MODEL else 0

    def _by_index(self) -> list[Held]:
        items: list[Held] = []
        index = self.index
        for position, starts in zip(index.offsets.tolist(), index.is_item.tolist(), strict=True):
            if starts:
                items.append(Held(self._item_at(position, len(items))))
            elif not items:
                raise Corrupt("the index begins with a chunk that belongs to no item")
            else:
                head = CHUNKED.unpack(self._head(position, CHUNKED.size, "CHUNK"))
                items[-1].add(head[1], head[4])
        return items

    def _item_at(self, position: int, number: int) -> Item:
        frame = read_frame(Window(self._source, position))
        if frame.kind != ITEM:
            raise Corrupt(f"{frame.where} is not what the index says")
        return Item.unpack(frame.payload, number)

    def _head(self, position: int, size: int, what: str) -> bytes:
        head = self._source.at(position, size)
        if (head[0] == CHUNK) != (size == CHUNKED.size):
            raise Corrupt(f"the frame at byte {position} is not what the index says")
        if zlib.crc32(head[: -CRC.size]) != CRC.unpack(head[-CRC.size :])[0]:
            raise Corrupt(f"the head of the {what} frame at byte {position} is damaged")
        return head
