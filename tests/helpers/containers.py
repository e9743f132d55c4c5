"""Small .narrow files of methods 0 and 1, written and read back whole."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from narrows.compression.format.container import Reader, Writer
from narrows.compression.format.frames import Chunk
from narrows.compression.format.header import Header, Item
from narrows.compression.format.lossless import decode_deflate, decode_raw, encode_deflate
from narrows.exceptions import Corrupt

Content = list[tuple[Item, bytes]]


class Pipe(io.RawIOBase):
    """A stream that neither seeks nor tells, and gives a little at a time."""

    def __init__(self, data: bytes) -> None:
        self._inside = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inside.read(min(size, 37) if size >= 0 else 37)


def decode(chunk: Chunk) -> bytes:
    """What methods 0 and 1 decode to, checked."""
    if chunk.method == 0:
        data = decode_raw(chunk.payload, chunk.decoded_size)
    elif chunk.method == 1:
        data = decode_deflate(chunk.payload, chunk.decoded_size, chunk.item.itemsize)
    else:
        raise Corrupt(f"{chunk} is coded by a method that this test does not know")
    chunk.check(data)
    return data


def write(header: Header, content: Content, cuts: int = 3, **more: Any) -> bytes:
    """A file of these items, each in chunks of about a ``cuts``-th, raw and deflated in turn."""
    stream = io.BytesIO()
    writer = Writer(stream, header, **more)
    for item, data in content:
        writer.item(item)
        step = max(1, -(-item.rows // cuts)) * item.row_bytes
        for k in range(0, len(data), step or 1):
            piece = data[k : k + step]
            method = k // step % 2
            coded = encode_deflate(piece, item.itemsize) if method else piece
            writer.chunk(method, coded, piece)
    assert writer.close() == len(stream.getvalue())
    return stream.getvalue()


def read(stream: Any, **more: Any) -> tuple[Header, bytes | None, Content]:
    """Everything in a file, decoded and checked."""
    reader = Reader(stream, **more)
    content: Content = []
    for part in reader:
        if isinstance(part, Item):
            content.append((part, b""))
        elif isinstance(part, Chunk):
            item, data = content[-1]
            content[-1] = (item, data + decode(part))
    return reader.header, reader.model, content


def example(kind: str = "images", n_items: int = 4, **more: Any) -> tuple[Header, Content]:
    rng = np.random.default_rng(0)
    content: Content = []
    for k in range(n_items):
        shape = (7, 5, 3)[: 1 + k % 3]
        item = Item(shape=shape, dtype=("<f4", ">i2", "|u1")[k % 3], row_axes=1, name=f"{k}.png")
        content.append((item, rng.integers(0, 9, item.nbytes, np.uint8).tobytes()))
    return Header(kind=kind, mode="lossless", **more), content
