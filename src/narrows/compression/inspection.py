"""What a .narrow file holds: as plain JSON, and as lines to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.decompress_files import load_model
from narrows.compression.format.chunk_methods import MODEL_METHODS, NAMES
from narrows.compression.format.container import NO_LIMIT, Outline, Reader
from narrows.compression.format.header import Item
from narrows.compression.format.pack import Unpacker

CHECKED = {
    "heads only": "heads of its parts only; --verify checks all of it",
    "all but what chunks decode to": "all of the file; --verify also what it decodes to",
    "everything": "everything, and all of it is right",
}


def describe_file(
    stream: BinaryIO, *, verify: bool = False, model: str | Path | None = None
) -> dict[str, Any]:
    """The contents of a .narrow file as plain JSON.

    Of a stream that can seek, only the heads of its parts are read. With ``verify``, all of it is
    decoded and checked, for which ``model`` is the codec's file if it is not embedded.

    Raises the errors of `narrows.decompress`.
    """
    if verify:
        decoder = None if model is None else load_model(model)
        unpacker = Unpacker(stream, decoder, max_bytes=NO_LIMIT)
        heads, checked = unpacker.reader.outline(unpacker.decode), "everything"
    else:
        heads = Reader(stream, NO_LIMIT).outline()
        checked = "all but what chunks decode to" if heads.whole else "heads only"
    header = heads.header
    chunks: dict[str, dict[str, int]] = {}
    for held in heads.items:
        for method, count in held.chunks.items():
            name = NAMES.get(method, f"unknown method {method}")
            total = chunks.setdefault(name, {"count": 0, "bytes": 0})
            total["count"] += count
            total["bytes"] += held.nbytes[method]
    return {
        "what": _summary(heads),
        "kind": header.kind,
        "mode": header.mode,
        "error": header.error,
        "level": header.level,
        "model": header.model,
        "model_embedded": heads.model > 0,
        "bytes": {
            "file": heads.nbytes,
            "model": heads.model,
            "payload": sum(total["bytes"] for total in chunks.values()),
            "decoded": sum(held.item.nbytes for held in heads.items),
        },
        "chunks": chunks,
        "items": [
            {
                "number": held.item.number,
                "name": held.item.name,
                "shape": list(held.item.shape),
                "dtype": held.item.dtype,
                "chunks": held.chunks.total(),
                "bytes": held.nbytes.total(),
                "decoded": held.item.nbytes,
            }
            for held in heads.items
        ],
        "checked": checked,
    }


def count_in_words(n: int, word: str) -> str:
    """A number of things.

    >>> count_in_words(1, "image"), count_in_words(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{n:,} {word}{'s' * (n != 1)}"


def shape_in_words(shape: Sequence[int]) -> str:
    """A shape with its sides separated by ×."""
    return " × ".join(f"{side:,}" for side in shape) or "one number"


def _summary(heads: Outline) -> str:
    """One line about all of it."""
    header, items = heads.header, heads.items
    if header.kind == "images" or len(items) != 1:
        what = count_in_words(len(items), "image")
    else:
        what = describe_item(items[0].item)
    if header.mode == "bounded":
        return f"{what}, no element further off than {header.error or 0:.6g}"
    return f"{what}, {header.mode}"


def describe_item(item: Item) -> str:
    """Shape and dtype of an item.

    >>> describe_item(Item(shape=(1797, 8, 8), dtype=">u2", row_axes=1))
    '1,797 × 8 × 8, uint16 (big-endian)'
    """
    order = " (big-endian)" if item.dtype.startswith(">") else ""
    return f"{shape_in_words(item.shape)}, {item.little}{order}"


def description_lines(found: dict[str, Any], max_items: int | None) -> list[str]:
    """A description as lines, with at most so many items listed one by one."""
    sizes = found["bytes"]
    around = sizes["file"] - sizes["payload"] - sizes["model"]
    parts = f"payload {sizes['payload']:,}, header and frames {around:,}"
    parts += f", model {sizes['model']:,}" if sizes["model"] else ""
    model = "none is needed"
    if found["model"] is not None:
        level = "" if found["level"] is None else f", level {found['level']}"
        where = "in the file" if found["model_embedded"] else "not in the file"
        needed = {NAMES[method] for method in MODEL_METHODS} & set(found["chunks"])
        model = f"{found['model'][:12]}{level}, {where}{'' if needed else '; no chunk needs it'}"
    rows = [
        ("file", f"{sizes['file']:,} bytes: {parts}"),
        ("decoded", f"{sizes['decoded']:,} bytes"),
        ("model", model),
    ]
    for name, total in sorted(found["chunks"].items(), key=lambda pair: -pair[1]["bytes"]):
        count = count_in_words(total["count"], "chunk")
        rows.append((name, f"{count}, {total['bytes']:,} bytes"))
    rows.append(("checked", CHECKED[found["checked"]]))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {words}" for name, words in rows]
    return lines + list(_item_lines(found, max_items))


def _item_lines(found: dict[str, Any], max_items: int | None) -> Iterator[str]:
    """The images; an array is described by the first line."""
    items = [] if found["kind"] == "array" else found["items"]
    for item in items[:max_items]:
        shape = " × ".join(map(str, item["shape"]))
        dtype = np.dtype(item["dtype"]).name
        name = item["name"] if item["name"].isprintable() else ascii(item["name"])
        yield f"  {item['number']:>6}  {name}: {shape}, {dtype}, {item['bytes']:,} bytes"
    if max_items is not None and len(items) > max_items:
        yield f"  ... and {len(items) - max_items:,} more (--all)"
