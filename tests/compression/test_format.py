"""A reader written from docs/format.md alone, in plain Python, against what the library writes."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from narrows.compression.format import frames
from narrows.compression.format.container import Writer, model_id
from narrows.compression.format.entropy_coder import Encoder, Tables, frequencies_of
from narrows.compression.format.header import Header, Item
from narrows.compression.format.lossless import encode_deflate

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


def u(data: bytes) -> int:
    return int.from_bytes(data, "little")


def read(data: bytes) -> tuple[dict, bytes | None, list[dict]]:
    """Header, model and items of a file; each item has its decoded bytes under "data"."""
    assert data[:8] == bytes.fromhex("894E52570D0A1A0A")
    assert struct.unpack("<HH", data[8:12]) == (1, 0)
    at = 16 + u(data[12:16])
    header = json.loads(data[16:at])
    assert u(data[at : at + 4]) == zlib.crc32(data[:at])
    at += 4
    model, items, index, last = None, [], [], 0
    while data[at] != 4:
        kind, start = data[at], at
        head = 30 if kind == 3 else 13
        assert u(data[at + head - 4 : at + head]) == zlib.crc32(data[at : at + head - 4])
        length = u(data[at + 14 : at + 18]) if kind == 3 else u(data[at + 1 : at + 5])
        payload = data[at + head : at + head + length]
        assert zlib.crc32(payload) == u(data[at + head - 8 - 4 * (kind == 3) :][:4])
        at += head + length
        if kind == 1:
            model = zlib.decompress(payload)
            continue
        index.append(2 * (start - last) + (kind == 2))
        last = start
        if kind == 2:
            items.append(json.loads(payload) | {"data": b"", "next": 0})
        else:
            add_chunk(items[-1], data[start : start + 30], payload)
    end(data, at, index)
    return header, model, items


def add_chunk(item: dict, head: bytes, payload: bytes) -> None:
    method, first, rows = head[1], u(head[2:10]), u(head[10:14])
    width = int(item["dtype"][2:])
    row = width
    for size in item["shape"][item["row_axes"] :]:
        row *= size
    n = rows * row
    if method == 1:
        inside = zlib.decompress(payload)
        m = n // width
        payload = bytes(inside[k * m + j] for j in range(m) for k in range(width))
    assert first == item["next"]
    assert len(payload) == n
    assert u(head[22:26]) == zlib.crc32(payload)
    item["data"] += payload
    item["next"] += rows


def end(data: bytes, at: int, index: list[int]) -> None:
    length = u(data[at + 1 : at + 5])
    digits, numbers = data[at + 13 : at + 13 + length], []
    while digits:
        found = re.match(rb"[\x80-\xff]*[\x00-\x7f]", digits)
        assert found is not None
        numbers.append(sum((digit & 127) << 7 * k for k, digit in enumerate(found[0])))
        digits = digits[len(found[0]) :]
    assert numbers == index
    tail = data[at + 13 + length :]
    assert tail[:32] == hashlib.sha256(data[: at + 13 + length]).digest()
    assert u(tail[32:36]) == 13 + length
    assert tail[36:] == bytes.fromhex("894E5257656E640A")


def test_a_file_is_read_by_what_the_page_says() -> None:
    model = b"weights" * 99
    header = Header(kind="images", mode="bounded", error=1e-3, model=model_id(model), level=2)
    stream = io.BytesIO()
    writer = Writer(stream, header, model)
    pixels = np.arange(700, dtype=">i2").reshape(10, 7, 10)
    writer.item(Item(shape=(10, 7, 10), dtype=">i2", row_axes=2, name="ä/1.png", codec={"k": [1]}))
    little = pixels.astype("<i2").tobytes()
    writer.chunk(0, little[:400], little[:400])
    writer.chunk(1, encode_deflate(little[400:], 2), pixels.reshape(70, 10)[20:])
    writer.item(Item(shape=(), dtype="<f8", row_axes=0, name="0"))
    writer.chunk(0, struct.pack("<d", 0.1), np.float64(0.1)[None])
    writer.item(Item(shape=(3, 0), dtype="|b1", row_axes=1, name="1"))
    writer.close()
    found, found_model, items = read(stream.getvalue())
    assert found == {
        "coder": {"name": "rans16", "version": 1},
        "error": "0x1.0624dd2f1a9fcp-10",
        "kind": "images",
        "level": 2,
        "mode": "bounded",
        "model": hashlib.sha256(model).hexdigest(),
    }
    assert found_model == model
    assert [item["data"] for item in items] == [little, struct.pack("<d", 0.1), b""]
    assert items[0]["name"] == "ä/1.png"


def decode(data: bytes, tables: list[list[int]], which: list[int]) -> list[int]:
    """The symbols of these tables, as "Entropy coder" says."""
    lanes, n_words = u(data[:2]), u(data[2:6])
    assert len(data) == 6 + 4 * lanes + 2 * n_words
    states = [u(data[6 + 4 * k : 10 + 4 * k]) for k in range(lanes)]
    words = [u(data[k : k + 2]) for k in range(6 + 4 * lanes, len(data), 2)]
    symbols, used = [], 0
    for t, table in enumerate(which):
        x, slot = states[t % lanes], states[t % lanes] % 2**16
        frequencies, symbol, start = tables[table], 0, 0
        while slot >= start + frequencies[symbol]:
            start += frequencies[symbol]
            symbol += 1
        x = frequencies[symbol] * (x // 2**16) + slot - start
        if x < 2**16:
            x, used = 2**16 * x + words[used], used + 1
        states[t % lanes] = x
        symbols.append(symbol)
    assert used == n_words
    assert set(states) == {2**16}
    return symbols


def test_symbols_are_decoded_by_what_the_page_says() -> None:
    rng = np.random.default_rng(0)
    tables = Tables(frequencies_of(np.array([[90, 9, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]])))
    for n in (0, 1, 2, 9000):
        which = rng.integers(0, 3, n)
        symbols = np.where(which == 2, 1, np.where(which == 1, rng.integers(0, 4, n), 0))
        encoder = Encoder()
        encoder.put_symbols(symbols, tables, which)
        bits = rng.integers(0, 32, n)
        encoder.put_bits(bits, 5)
        rows = [*tables.frequencies.tolist(), [2**11] * 32]
        found = decode(encoder.finish(), rows, [*which.tolist(), *[3] * n])
        assert found == [*symbols.tolist(), *bits.tolist()]


def test_the_page_stays_short_and_describes_every_method() -> None:
    assert len(PAGE.read_text(encoding="utf-8").split()) < 1500  # two printed pages
    methods = PAGE.with_name("format-methods.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d)", methods, re.M) == list("012345")


def test_the_format_needs_numpy_and_the_standard_library_alone() -> None:
    """Two functions use more, if it is installed: torch multiplies, safetensors reads models."""
    folder = Path(frames.__file__).parent
    extra = {("integer_networks", "torch"), ("pack", "safetensors")}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                own = name.startswith(("narrows.compression.format", "narrows.exceptions"))
                allowed = root == "numpy" or root in sys.stdlib_module_names
                assert own or allowed or (path.stem, root) in extra, f"{path.name}: {name}"
