"""Files that are refused, each with its own error; what can be salvaged; what is not written."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from helpers.containers import Pipe, example, read, write
from helpers.mutated_files import end_of, index_of, join, preamble, seal, split
from narrows.compression.format import frames as layout
from narrows.compression.format.container import Reader, check_model, model_id
from narrows.compression.format.frames import CHUNK, INDEX, ITEM, MODEL, Frame
from narrows.compression.format.header import Header, Item
from narrows.compression.format.lossless import decode_deflate, decode_raw
from narrows.exceptions import (
    Corrupt,
    NotOurFile,
    TooLarge,
    Truncated,
    UnsupportedVersion,
    WrongModel,
)

FILE = write(*example())
HEADER = b'{"coder":{"name":"rans16","version":1},"kind":"array","mode":"lossless"}'
ITEM_TEXT = b'{"dtype":"|u1","row_axes":1,"shape":[2]}'
RAW = Frame(CHUNK, 0, b"ab", 0, 0, 2, zlib.crc32(b"ab"))


def refused(data: bytes, error: type[Exception], words: str, **more: Any) -> None:
    """Refused front to back, through a pipe as well as where the stream seeks."""
    for stream in (io.BytesIO(data), Pipe(data)):
        with pytest.raises(error, match=words) as caught:
            read(stream, **more)
        assert type(caught.value) is error or type(caught.value).__base__ is error


def with_header(text: bytes) -> bytes:
    return seal(text, [])


def with_item(text: bytes, *chunks: Frame) -> bytes:
    return seal(HEADER, [Frame(ITEM, 0, text), *chunks])


def changed(fields: dict[str, Any], text: bytes = HEADER) -> bytes:
    """JSON with some fields other ones."""
    both = {**json.loads(text), **fields}
    return json.dumps(both, sort_keys=True, separators=(",", ":")).encode()


def test_the_small_file_that_others_are_made_of_is_good() -> None:
    _, _, content = read(io.BytesIO(with_item(ITEM_TEXT, RAW)))
    assert content == [(Item(shape=(2,), dtype="|u1", row_axes=1), b"ab")]


def test_every_cut_is_called_truncated() -> None:
    for stop in range(len(FILE)):
        refused(FILE[:stop], Truncated, "ends at byte")
        if stop >= 200:
            with pytest.raises((Truncated, Corrupt)):
                Reader(io.BytesIO(FILE[:stop])).item(0)


def test_every_flipped_bit_is_noticed() -> None:
    small = write(*example(n_items=2))
    for place in range(8 * len(small)):
        data = bytearray(small)
        data[place // 8] ^= 1 << place % 8
        error = NotOurFile if place < 64 else (Corrupt, UnsupportedVersion, Truncated, TooLarge)
        with pytest.raises(error):
            read(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("data", [b"PK\3\4 something else", b"\x89PNG\r\n\x1a\n", b"\0" * 99])
def test_other_files_are_not_ours(data: bytes) -> None:
    refused(data, NotOurFile, "not a compressed file of narrows")


@pytest.mark.parametrize("version", [(1, 1), (2, 0), (0, 0), (65535, 65535)])
def test_other_versions_are_refused(version: tuple[int, int]) -> None:
    data = preamble(HEADER, version)
    refused(
        data,
        UnsupportedVersion,
        f"format {version[0]}.{version[1]}, and this version of narrows reads",
    )


HEADERS: dict[str, tuple[bytes, type[Exception], str]] = {
    "coder": (changed({"coder": {"name": "x", "version": 1}}), UnsupportedVersion, "coded by"),
    "coder true": (
        changed({"coder": {"name": "rans16", "version": True}}),
        UnsupportedVersion,
        "coded by",
    ),
    "coder kind": (changed({"coder": [1]}), UnsupportedVersion, "coded by"),
    "unknown field": (changed({"zip": 1}), Corrupt, "unknown field 'zip'"),
    "null": (changed({"items": None}), Corrupt, "not canonical JSON"),
    "kind": (changed({"kind": "film"}), Corrupt, "kind 'film'"),
    "kind as list": (changed({"kind": ["array"]}), Corrupt, "kind"),
    "mode": (changed({"mode": 3}), Corrupt, "mode 3"),
    "error elsewhere": (changed({"error": "0x0.0p+0"}), Corrupt, "an error in mode"),
    "model": (changed({"model": "A" * 64}), Corrupt, "model"),
    "level": (changed({"level": -1}), Corrupt, "level -1"),
    "items": (changed({"items": True}), Corrupt, "items True"),
    "more items": (changed({"items": 1}), Corrupt, "0 items; its header says 1"),
    "list": (b"[]", Corrupt, "not canonical JSON"),
    "nothing": (b"", Corrupt, "not canonical JSON"),
    "not UTF-8": (b'{"kind":"\xff"}', Corrupt, "not canonical JSON"),
    "space": (HEADER.replace(b":", b": ", 1), Corrupt, "not canonical JSON"),
    "order": (b'{"mode":"lossy","kind":"array"}', Corrupt, "not canonical JSON"),
    "twice": (HEADER[:-1] + b',"mode":"lossless"}', Corrupt, "not canonical JSON"),
    "nan": (HEADER[:-1] + b',"x":NaN}', Corrupt, "NaN is not an integer"),
    "fraction": (HEADER[:-1] + b',"x":0.5}', Corrupt, "0.5 is not an integer"),
    "large": (HEADER[:-1] + b',"x":9223372036854775808}', Corrupt, "more than 63 bits"),
    "very large": (HEADER[:-1] + b',"x":1' + b"0" * 9999 + b"}", Corrupt, "not canonical JSON"),
    "deep": (HEADER[:-1] + b',"x":' + b"[" * 16 + b"]" * 16 + b"}", Corrupt, "not canonical JSON"),
    "very deep": (b"[" * 60_000, Corrupt, "not canonical JSON"),
    "long": (HEADER + b" " * 65_536, TooLarge, "at most 65536"),
}
for wrong in ("1e-3", "inf", "nan", "-0x0.0p+0", "-0x1.0000000000000p+0", "0x1p+0", 1, "0x1p99999"):
    fields = {"mode": "bounded", "error": wrong}
    HEADERS[f"error {wrong}"] = (changed(fields), Corrupt, "the header has error")


@pytest.mark.parametrize(("text", "error", "words"), HEADERS.values(), ids=HEADERS)
def test_wrong_headers_are_refused(text: bytes, error: type[Exception], words: str) -> None:
    refused(with_header(text), error, words)


def test_a_missing_field_is_named() -> None:
    refused(with_header(b'{"kind":"array"}'), Corrupt, "lacks coder, mode")


ITEMS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown field": ({"x": 1}, Corrupt, "item 0 has the unknown field 'x'"),
    "dtype": ({"dtype": "<f16"}, Corrupt, "dtype"),
    "dtype as list": ({"dtype": []}, Corrupt, "dtype"),
    "object dtype": ({"dtype": "|O8"}, Corrupt, "dtype"),
    "row_axes": ({"row_axes": 2}, Corrupt, "row_axes 2"),
    "shape": ({"shape": 2}, Corrupt, "shape"),
    "negative": ({"shape": [-2]}, Corrupt, "shape"),
    "codec": ({"codec": {}}, Corrupt, "codec"),
    "axes": ({"shape": [1] * 33}, TooLarge, "33 axes"),
    "many axes": ({"shape": [2**62] * 3000}, TooLarge, "3000 axes"),
    "header bomb": ({"shape": [2**62, 2**62]}, TooLarge, "fits no memory"),
    "empty bomb": ({"shape": [0, 2**62, 2**62]}, TooLarge, "fits no memory"),
    "bomb": ({"shape": [2**31 + 1]}, TooLarge, "decodes to 2147483649 bytes"),
    "rows": ({"shape": [1, 2**26 + 1]}, TooLarge, "rows of 67108865 bytes"),
}
for wrong in ("", "/x", "x/", "../x", "a/../b", "a//b", ".", "a\\b", "C:x", "a\n", "x" * 1025, 3):
    ITEMS[f"name {wrong!r:.9}"] = ({"name": wrong}, Corrupt, "name")


@pytest.mark.parametrize(("fields", "error", "words"), ITEMS.values(), ids=ITEMS)
def test_wrong_items_are_refused(
    fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    data = with_item(changed(fields, ITEM_TEXT), RAW)
    refused(data, error, words)
    with pytest.raises(error, match=words):
        Reader(io.BytesIO(data)).item(0)


CHUNKS: dict[str, tuple[list[Frame], type[Exception], str]] = {
    "none": ([], Corrupt, "ends after 0 of its 2 rows"),
    "gap": ([replace(RAW, first=1, rows=1)], Corrupt, "1 rows from 1 where 2 from 0 are left"),
    "twice": ([RAW, RAW], Corrupt, "2 rows from 0 where 0 from 2 are left"),
    "too many rows": ([replace(RAW, rows=3)], Corrupt, "3 rows from 0"),
    "no rows": ([replace(RAW, rows=0), RAW], Corrupt, "0 rows from 0"),
    "method": ([replace(RAW, method=6)], Corrupt, "method 6, which does not exist"),
    "model": ([RAW, Frame(MODEL, 0, b"")], Corrupt, "at a place where none is allowed"),
    "decoded": ([replace(RAW, decoded_crc=1)], Corrupt, "item 0, chunk 0 does not decode"),
    "payload": ([replace(RAW, payload=b"abc")], Corrupt, "3 bytes where 2 belong"),
    "deflated": ([replace(RAW, method=1)], Corrupt, "is damaged"),
}


@pytest.mark.parametrize(("chunks", "error", "words"), CHUNKS.values(), ids=CHUNKS)
def test_wrong_chunks_are_refused(chunks: list[Frame], error: type[Exception], words: str) -> None:
    refused(with_item(ITEM_TEXT, *chunks), error, words)


def test_frames_belong_where_they_are() -> None:
    refused(seal(HEADER, [RAW]), Corrupt, "belongs to no item")
    refused(preamble(HEADER) + b"\5" + bytes(99), Corrupt, "no frame starts at byte 92")
    twice = [Frame(ITEM, 0, changed({"name": "x"}, ITEM_TEXT)), RAW] * 2
    refused(seal(HEADER, twice), Corrupt, "item 1 .x. has the name of an item before")
    images = changed({"kind": "images"})
    refused(seal(images, [Frame(ITEM, 0, ITEM_TEXT), RAW]), Corrupt, "has no name")
    one = changed({"items": 1})
    refused(seal(one, [Frame(ITEM, 0, ITEM_TEXT), RAW] * 2), Corrupt, "more items than the 1")


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    for kind in (MODEL, ITEM, INDEX):
        head = struct.pack("<BII", kind, 2**32 - 1, 0)
        data = preamble(HEADER) + head + struct.pack("<I", zlib.crc32(head))
        refused(data, TooLarge, "has 4294967295 bytes")
    head = struct.pack("<BBQIIII", CHUNK, 0, 0, 2, 2**26 + 1025, 0, 0)
    refused(preamble(HEADER) + head + struct.pack("<I", zlib.crc32(head)), TooLarge, "67109889")


def test_a_chunk_that_decodes_to_too_much_is_refused() -> None:
    text = changed({"shape": [2**26 + 1]}, ITEM_TEXT)
    refused(with_item(text, replace(RAW, rows=2**26 + 1)), TooLarge, "67108865 bytes")


def test_more_than_the_user_allows_is_refused() -> None:
    size = sum(item.nbytes for item, _ in example()[1])
    read(io.BytesIO(FILE), max_bytes=size)
    refused(
        FILE, TooLarge, f"decodes to {size} bytes, more than the {size - 1}", max_bytes=size - 1
    )


def test_there_is_a_most_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    content = [(Item(shape=(0,), dtype="|u1", row_axes=1), b"")] * 6
    data = write(Header(kind="array", mode="lossy"), content)
    monkeypatch.setattr(layout, "MAX_FRAMES", 5)
    refused(data, TooLarge, "more than the 5 items and chunks")
    with pytest.raises(TooLarge, match="more than the 5 items and chunks"):
        write(Header(kind="array", mode="lossy"), content)


def test_the_end_must_fit() -> None:
    text, frames, tail = split(FILE)
    body = join(text, frames[:-1], b"")
    payload = index_of(frames, len(preamble(text)))
    assert body + end_of(body, payload) == FILE
    for wrong in (b"", payload[:-1], payload + b"\0", payload[:-1] + b"\x80" * 8 + b"\1"):
        refused(body + end_of(body, wrong), Corrupt, "the index does not agree")
    for wrong in (b"\x80", b"\0", b"\1" + payload[1:], b"\xff" * 7 + b"\x7f", b"\x80" * 9 + b"\0"):
        with pytest.raises(Corrupt, match="the index"):
            Reader(io.BytesIO(body + end_of(body, wrong))).item(0)
    other = seal(text, frames[:1] + frames[4:])
    stolen = body + other[other.rindex(frames[-1].pack()[:1]) :]
    with pytest.raises((Corrupt, Truncated)):
        Reader(io.BytesIO(stolen)).item(1)
    refused(FILE[:-44] + bytes(32) + tail[32:], Corrupt, "SHA-256")
    refused(FILE[:-12] + b"\0" + FILE[-11:], Corrupt, "does not end as it should")
    refused(FILE[:-1] + b"\0", Corrupt, "does not end as it should")
    refused(FILE + b"\0", Corrupt, "bytes after the end of the file")
    refused(FILE + FILE, Corrupt, "bytes after the end of the file")


def test_an_index_that_points_elsewhere_is_refused() -> None:
    text, frames, _ = split(FILE)
    body = join(text, frames[:-1], b"")
    swapped = [replace(frame, payload=frame.payload + b"x") for frame in frames]
    with pytest.raises(Corrupt):
        Reader(io.BytesIO(body + end_of(body, index_of(swapped, len(preamble(text)))))).item(1)


def test_a_model_in_the_file_is_checked() -> None:
    model = bytes(1000)
    text = changed({"model": model_id(model)})
    good = zlib.compress(model)
    Reader(io.BytesIO(seal(text, [Frame(MODEL, 0, good)])))
    for payload in (zlib.compress(model[1:]), good + b"x", good[:-1], b"", b"x"):
        refused(seal(text, [Frame(MODEL, 0, payload)]), Corrupt, "deflated data|model in the file")
    refused(seal(HEADER, [Frame(MODEL, 0, good)]), Corrupt, "not the one its header names")
    bomb = zlib.compress(bytes(2**26 + 1))
    refused(seal(text, [Frame(MODEL, 0, bomb)]), Corrupt, "more than the 67108864 bytes")


def test_another_model_is_refused_by_name() -> None:
    header = Header(kind="array", mode="lossy", model="ab" * 32)
    check_model(header, "ab" * 32)
    check_model(Header(kind="array", mode="lossy"), None)
    with pytest.raises(WrongModel, match=r"needs the model abababababab .* and none was given"):
        check_model(header, None)
    with pytest.raises(WrongModel, match=r"abababababab .* and cdcdcdcdcdcd was given"):
        check_model(header, "cd" * 32)


def test_payloads_of_another_length_are_refused() -> None:
    bomb = zlib.compress(bytes(10**7))
    wrong: list[Callable[[], bytes]] = [
        lambda: decode_raw(b"ab", 3),
        lambda: decode_deflate(bomb, 1000, 4),
        lambda: decode_deflate(zlib.compress(bytes(8)), 12, 4),
        lambda: decode_deflate(zlib.compress(bytes(8)) + b"x", 8, 4),
        lambda: decode_deflate(zlib.compress(bytes(8)), 9, 4),
        lambda: decode_deflate(b"", 0, 4),
    ]
    for decoding in wrong:
        with pytest.raises(Corrupt):
            decoding()
