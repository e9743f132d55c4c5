"""Damaged and hostile .narrow files, made from good ones; nothing here reads them back."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from narrows.compression.format.frames import (
    CHUNK,
    CHUNKED,
    END,
    INDEX,
    ITEM,
    MAGIC,
    PLAIN,
    PREAMBLE,
    TAIL,
    ByteSource,
    Frame,
    read_frame,
)

Mutator = Callable[[bytes, random.Random], bytes]
VALUES = [b"0", b"1", b"-1", b"2", b"33", b"255", b"65536", b"4294967295", b"4611686018427387904"]
VALUES += [b"9223372036854775807", b"9223372036854775808", b"1" + b"0" * 40, b"9" * 5000, b"1e5"]
VALUES += [
    b"NaN",
    b"-Infinity",
    b"0.5",
    b"true",
    b"null",
    b'""',
    b'"x"',
    b'"\\ud800"',
    b"[]",
    b"{}",
]
VALUES += [b"[" * 3000 + b"]" * 3000, b'{"a":' * 40 + b"1" + b"}" * 40, b'"../x"', b'"/x"', b"\xff"]
VALUES += [b'"<f4"', b'">i2"', b'"<f16"', b'"|O8"', b'"lossy"', b'"bounded"', b'"images"']


def split(data: bytes) -> tuple[bytes, list[Frame], bytes]:
    """The header's text, the frames, and the tail of a good file."""
    source = ByteSource(io.BytesIO(data))
    length = PREAMBLE.unpack(source.take(PREAMBLE.size))[3]
    text = source.take(length)
    source.take(4)
    frames = [read_frame(source)]
    while frames[-1].kind != INDEX:
        frames.append(read_frame(source))
    return text, frames, data[source.position :]


def preamble(text: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """A header's text as it stands at the start of a file."""
    start = PREAMBLE.pack(MAGIC, *version, len(text)) + text
    return start + struct.pack("<I", zlib.crc32(start))


def index_of(frames: list[Frame], start: int) -> bytes:
    """The payload of the INDEX of these frames, the first of which starts at ``start``."""
    payload, position, last = bytearray(), start, 0
    for frame in frames:
        if frame.kind in (ITEM, CHUNK):
            number = 2 * (position - last) + (frame.kind == ITEM)
            last = position
            while number > 127:
                payload.append(128 + number % 128)
                number //= 128
            payload.append(number)
        position += len(frame.pack()) + len(frame.payload)
    return bytes(payload)


def end_of(body: bytes, payload: bytes) -> bytes:
    """The index frame and the tail that belong behind ``body``."""
    frame = Frame(INDEX, 0, payload)
    index = frame.pack() + payload
    return index + TAIL.pack(hashlib.sha256(body + index).digest(), len(index), END)


def join(text: bytes, frames: list[Frame], tail: bytes) -> bytes:
    """The frames as they are, every CRC of theirs made right."""
    return preamble(text) + b"".join(frame.pack() + frame.payload for frame in frames) + tail


def seal(text: bytes, frames: list[Frame]) -> bytes:
    """The frames with the index and the hash that belong to them: only what they say is wrong."""
    frames = [frame for frame in frames if frame.kind != INDEX]
    body = join(text, frames, b"")
    return body + end_of(body, index_of(frames, len(preamble(text))))


def mutations(data: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """``n`` damaged versions of a good file: flipped, cut, spliced, edited with their CRCs right.

    None has the SHA-256 of its bytes, so that reading one must end in an error, unless it is the
    good file after all.
    """
    mutators = [*BLIND, *BLIND, *SEEING]
    for _ in range(n):
        mutated = rng.choice(mutators)(data, rng)
        if rng.random() < 0.1 and mutated:
            mutated = rng.choice(BLIND)(mutated, rng)
        yield mutated


def hostile(data: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """``n`` files whose index and every checksum are right, but not always what they say."""
    for _ in range(n):
        text, frames, _ = split(data)
        for _ in range(rng.choice([1, 1, 2, 3])):
            text, frames = _edited(text, frames, rng)
        yield seal(text, frames)


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice([1, 2, 4, 8, 64])
    filling = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return data[:start] + filling + data[start + length :]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[rng.choice([stop, min(stop, start + 4)]) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.choice([rng.randrange(len(data) + 1), len(data)])
    return data[:place] + rng.randbytes(rng.choice([1, 4, 30, 300])) + data[place:]


def _duplicate(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """A piece of the file over another one."""
    length = rng.randrange(1, 1 + len(data) // 2)
    start, goal = (rng.randrange(len(data) - length + 1) for _ in range(2))
    return data[:goal] + data[start : start + length] + data[goal + length :]


def _edit_head(data: bytes, rng: random.Random) -> bytes:
    """A field of a frame's head, with the head's CRC made right."""
    frame = rng.choice(split(data)[1])
    size = (CHUNKED if frame.kind == CHUNK else PLAIN).size
    head = bytearray(data[frame.position : frame.position + size - 4])
    place = rng.randrange(len(head))
    length = min(rng.choice([1, 1, 4]), len(head) - place)
    head[place : place + length] = rng.choice([bytes(length), rng.randbytes(length)])
    whole = bytes(head) + struct.pack("<I", zlib.crc32(head))
    return data[: frame.position] + whole + data[frame.position + size :]


def _edit_parts(data: bytes, rng: random.Random) -> bytes:
    text, frames, tail = split(data)
    text, frames = _edited(text, frames, rng)
    return join(text, frames, tail)


def _edited(text: bytes, frames: list[Frame], rng: random.Random) -> tuple[bytes, list[Frame]]:
    """The header's text or the frames, one of them changed, moved, doubled or left out."""
    if not frames:
        return _edited_json(text, rng), frames
    frames = list(frames)
    k = rng.randrange(len(frames))
    what = rng.choice(["header", "frame", "frame", "frame", "drop", "double", "swap"])
    if what == "header":
        return _edited_json(text, rng), frames
    if what == "frame":
        frames[k] = _edited_frame(frames[k], rng)
    elif what == "drop":
        del frames[k]
    elif what == "double":
        frames.insert(k, frames[k])
    else:
        other = rng.randrange(len(frames))
        frames[k], frames[other] = frames[other], frames[k]
    return text, frames


def _edited_frame(frame: Frame, rng: random.Random) -> Frame:
    if frame.kind == ITEM:
        return replace(frame, payload=_edited_json(frame.payload, rng))
    number = rng.choice([0, 1, 2, 3, 255, rng.randrange(1 << 16), (1 << 32) - 1])
    which = rng.choice(["payload", "method", "first", "rows", "decoded_crc"])
    if frame.kind != CHUNK or which == "payload":
        payload = rng.choice([_flip, _truncate, _insert])(frame.payload or b"\0", rng)
        return replace(frame, payload=payload)
    return replace(frame, **{which: number % 256 if which == "method" else number})


def _edited_json(text: bytes, rng: random.Random) -> bytes:
    """One value, key or byte of JSON changed."""
    tokens = list(re.finditer(rb'-?\d+|"[^"]*"|[\[{}\],:]', text))
    if rng.random() < 0.2 or not tokens:
        return rng.choice([_flip, _truncate, _insert])(text or b"{}", rng)
    token = rng.choice(tokens)
    return text[: token.start()] + rng.choice(VALUES) + text[token.end() :]


BLIND: list[Mutator] = [_flip, _overwrite, _truncate, _cut, _insert, _duplicate, _splice]
SEEING: list[Mutator] = [_edit_head, _edit_parts]
