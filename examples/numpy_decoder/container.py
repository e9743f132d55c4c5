"""The file: frames, JSON, index and checksums ("The `.narrow` file")."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

MAGIC, END = b"\x89NRW\r\n\x1a\n", b"\x89NRWend\n"
MODEL, ITEM, CHUNK, INDEX = 1, 2, 3, 4
MAX_CHUNK, MAX_ALL, MAX_FRAMES, MAX_MODEL = 1 << 26, 1 << 31, 1 << 20, 1 << 26
KINDS = {"i": (2, 4, 8), "u": (2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
DTYPES = {f"{end}{kind}{size}" for end in "<>" for kind in KINDS for size in KINDS[kind]}
DTYPES |= {"|b1", "|i1", "|u1"}


class Refused(ValueError):
    """The file is wrong; the message says how, in one sentence."""


def need(truth: Any, sentence: str) -> None:
    if not truth:
        raise Refused(sentence)


def inflate(data: bytes, size: int, what: str, window: int = 15) -> bytes:
    """Inflate one stream, which must give ``size`` bytes and use all of ``data``."""
    stream = zlib.decompressobj(window)
    try:
        out = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise Refused(f"{what} cannot be inflated: {error}.") from None
    exact = len(out) == size and stream.eof and not stream.unused_data
    need(exact, f"{what} does not inflate to the {size} bytes it must have.")
    return out


def no_float(text: str) -> NoReturn:
    raise Refused(f"The file's JSON has the number {text}, but only integers are allowed.")


def depth(value: Any) -> int:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def integers_of(value: Any) -> list[int]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for v in inner for number in integers_of(v)]
    return [value] if isinstance(value, int) else []


def read_json(data: bytes, fields: dict[str, type], optional: dict[str, type]) -> dict[str, Any]:
    """A JSON object in the only allowed form, with these fields."""
    need(len(data) <= 65536, "A JSON object of the file is longer than 65,536 bytes.")
    try:
        found = json.loads(data.decode(), parse_float=no_float, parse_constant=no_float)
        text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        need(text.encode() == data, "A JSON object of the file is not in the form it must have.")
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, Refused) else Refused("Some JSON is broken.") from None
    need(isinstance(found, dict) and depth(found) <= 16, "Some JSON is too deep, or no object.")
    need(all(abs(n) < 1 << 63 for n in integers_of(found)), "A number of the JSON is too large.")
    for name, kind in {**fields, **optional}.items():
        if name in found or name in fields:
            need(type(found.get(name)) is kind, f"The field {name} is missing, or of another type.")
    unknown = set(found) - set(fields) - set(optional)
    need(not unknown, f"The field {min(unknown, default='')} is not known.")
    return found


def read_header(data: bytes) -> dict[str, Any]:
    fields = {"kind": str, "mode": str, "coder": dict}
    header = read_json(data, fields, {"error": str, "model": str, "level": int, "items": int})
    need(header["kind"] in ("array", "images"), "The file's kind is not known.")
    need(header["mode"] in ("lossy", "bounded", "lossless"), "The file's mode is not known.")
    coder = header["coder"] == {"name": "rans16", "version": 1}
    need(coder and header["coder"]["version"] is not True, "The file's coder is not known.")
    need("error" not in header or header["mode"] == "bounded", "An error belongs to mode bounded.")
    if "error" in header:
        try:
            error = float.fromhex(header["error"])
        except (ValueError, OverflowError):
            error = math.nan
        good = (
            math.isfinite(error) and math.copysign(1, error) > 0 and error.hex() == header["error"]
        )
        need(good, "The file's error is not a number in the form it must have.")
        header["error"] = error
    need(re.fullmatch("[0-9a-f]{64}", header.get("model", "0" * 64)), "The model's id is broken.")
    need(header.get("level", 0) >= 0 and header.get("items", 0) >= 0, "A count is negative.")
    return header


def good_name(name: str) -> bool:
    parts = name.split("/")
    return (
        len(name.encode()) <= 1024
        and not any(part in ("", ".", "..") for part in parts)
        and not re.search("[\\\\\x00-\x1f\x7f]|^[A-Za-z]:", name)
    )


@dataclass
class Chunk:
    method: int
    first: int
    rows: int
    decoded_crc: int
    payload: bytes


@dataclass
class Item:
    shape: tuple[int, ...]
    dtype: np.dtype
    row_axes: int
    name: str | None
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The product of the first sizes, or 0 if there are no elements."""
        return math.prod(self.shape[: self.row_axes]) if math.prod(self.shape) else 0


def read_item(data: bytes, images: bool) -> Item:
    fields = {"shape": list, "dtype": str, "row_axes": int}
    found = read_json(data, fields, {"name": str, "codec": dict})
    shape = found["shape"]
    whole = len(shape) <= 32 and all(type(size) is int and size >= 0 for size in shape)
    need(whole, "The shape of an item is not a list of at most 32 sizes.")
    need(found["dtype"] in DTYPES, "The dtype of an item is not known.")
    dtype = np.dtype(found["dtype"])
    size = math.prod(filter(None, shape)) * dtype.itemsize
    need(size < 1 << 63, "An item's shape is too large.")
    need(0 <= found["row_axes"] <= len(shape), "An item has more axes of rows than axes.")
    need("name" in found or not images, "An image has no name.")
    need(found.get("codec") != {}, "An item has an empty field codec.")
    need(good_name(found.get("name", "x")), "An item's name may not be used as a path.")
    return Item(tuple(shape), dtype, found["row_axes"], found.get("name"))


class Frames:
    """The frames of a file, front to back; the CRC of every head and payload is checked."""

    def __init__(self, data: bytes) -> None:
        need(data[:8] == MAGIC, "This is not a .narrow file.")
        need(len(data) >= 16 + 4 + 44, "The file is cut off.")
        major, minor, length = struct.unpack_from("<HHI", data, 8)
        need((major, minor) == (1, 0), f"The file has version {major}.{minor}; 1.0 is known here.")
        need(length <= 65536 and len(data) >= 20 + length + 44, "The header is cut off.")
        self.check(data[: 16 + length], data[16 + length : 20 + length], "header")
        self.header = read_header(data[16 : 16 + length])
        need(data[-8:] == END, "The file is cut off, or something follows it.")
        digest = hashlib.sha256(data[:-44]).digest()
        need(digest == data[-44:-12], "The file's SHA-256 is wrong: it is damaged.")
        self.data, self.at, self.end = data, 20 + length, len(data) - 44
        (self.index_length,) = struct.unpack("<I", data[-12:-8])

    @staticmethod
    def check(data: bytes, crc: bytes, what: str) -> None:
        need(zlib.crc32(data) == int.from_bytes(crc, "little"), f"The CRC of a {what} is wrong.")

    def take(self, size: int) -> bytes:
        need(self.at + size <= self.end, "A frame reaches beyond the end of the file.")
        self.at += size
        return self.data[self.at - size : self.at]

    def frame(self) -> tuple[int, tuple[int, ...], bytes]:
        """The next frame's kind, the numbers of its head (of a chunk), and its payload."""
        head = self.take(1)
        kind = head[0]
        need(MODEL <= kind <= INDEX, f"There is no frame of kind {kind}.")
        head += self.take(25 if kind == CHUNK else 8)
        self.check(head, self.take(4), "frame's head")
        form = "<BBQIIII" if kind == CHUNK else "<BII"
        numbers = struct.unpack(form, head)
        length, crc = numbers[4:6] if kind == CHUNK else numbers[1:]
        limits = {MODEL: MAX_MODEL + 65536, ITEM: 65536, CHUNK: MAX_CHUNK + 1024}
        need(length <= limits.get(kind, 8 * MAX_FRAMES), "A frame is longer than it may be.")
        payload = self.take(length)
        self.check(payload, crc.to_bytes(4, "little"), "frame's payload")
        return kind, numbers, payload


def read_index(data: bytes) -> list[tuple[int, int]]:
    """Position and kind of every frame."""
    places, at, number, shift = [], 0, 0, 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if byte & 128:
            need(shift < 56, "A number of the index is too long.")
            continue
        need(byte or shift == 7, "A number of the index is longer than it need be.")
        at += number >> 1
        places.append((at, ITEM if number & 1 else CHUNK))
        number = shift = 0
    need(shift == 0, "The index is cut off.")
    return places


def add_chunk(items: list[Item], numbers: tuple[int, ...], payload: bytes) -> int:
    """Assign a chunk to the last item; return the number of bytes it decodes to."""
    need(items, "A chunk stands before the first item.")
    item, (_, method, first, rows, _, _, crc) = items[-1], numbers
    done = item.chunks[-1].first + item.chunks[-1].rows if item.chunks else 0
    fits = first == done and 0 < rows <= item.rows - done
    need(fits, "A chunk does not go on where the one before ended.")
    size = rows * math.prod(item.shape[item.row_axes :]) * item.dtype.itemsize
    need(size <= MAX_CHUNK, "A chunk is larger than a chunk may be.")
    item.chunks.append(Chunk(method, first, rows, crc, payload))
    return size


def read(data: bytes) -> tuple[dict[str, Any], bytes | None, list[Item]]:
    """The header, the model's payload if it is embedded, and the items with their chunks."""
    frames = Frames(data)
    header, model, items, places, total = frames.header, None, [], [], 0
    while True:
        start = frames.at
        kind, numbers, payload = frames.frame()
        if kind == INDEX:
            break
        if kind == MODEL:
            fits = model is None and not places and "model" in header
            need(fits, "A model stands where none may.")
            model = payload
            continue
        places.append((start, kind))
        need(len(places) <= MAX_FRAMES, "The file has too many frames.")
        if kind == ITEM:
            need(not items or complete(items[-1]), "An item's chunks are not all there.")
            items.append(read_item(payload, header["kind"] == "images"))
        else:
            total += add_chunk(items, numbers, payload)
            need(total <= MAX_ALL, "The items are larger than 2 GiB together.")
    need(not items or complete(items[-1]), "An item's chunks are not all there.")
    whole = frames.at == frames.end and frames.at - start == frames.index_length
    need(whole, "Something stands between the index and the tail.")
    need(read_index(payload) == places, "The index does not agree with the frames.")
    need(header.get("items", len(items)) == len(items), "The header counts other items.")
    need(header["kind"] == "images" or items, "The file holds no array.")
    names = [item.name for item in items if item.name is not None]
    need(len(set(names)) == len(names), "Two items have the same name.")
    return header, model, items


def complete(item: Item) -> bool:
    return sum(chunk.rows for chunk in item.chunks) == item.rows
