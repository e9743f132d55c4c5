"""What a .narrow file holds: as plain JSON, and as lines to print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from narrows.compression.format.chunk_methods import MODEL_METHODS, NAMES
from narrows.compression.format.container import (
    NO_LIMIT,
    ItemOutline,
    Lost,
    Outline,
    read_outline,
)
from narrows.compression.format.header import Item
from narrows.compression.format.pack import Unpacker, load_model

__all__ = ["describe_file", "describe_item", "description_lines"]

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
        heads, checked = _decoded(stream, model), "everything"
    else:
        heads = read_outline(stream)
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


def _decoded(stream: BinaryIO, model: str | Path | None) -> Outline:
    """The same as ``read_outline``, after decoding everything."""
    unpacker = Unpacker(stream, None if model is None else load_model(model), max_bytes=NO_LIMIT)
    items: list[ItemOutline] = []
    for part in unpacker.reader:
        if isinstance(part, Item):
            items.append(ItemOutline(part))
        elif not isinstance(part, Lost):
            items[-1].add(part.method, len(part.payload))
            unpacker.decode(part)
    reader = unpacker.reader
    return Outline(reader.header, reader.n_read, reader.n_model, items, True)


def _summary(heads: Outline) -> str:
    """One line about all of it."""
    header, items = heads.header, heads.items
    if header.kind == "images" or len(items) != 1:
        what = f"{len(items):,} image{'s' * (len(items) != 1)}"
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
    shape = " × ".join(f"{side:,}" for side in item.shape) or "one number"
    return f"{shape}, {item.little}{' (big-endian)' if item.dtype.startswith('>') else ''}"


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
        count = f"{total['count']:,} chunk{'s' * (total['count'] != 1)}"
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
