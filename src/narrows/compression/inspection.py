"""What is in a .narrow file: as plain JSON, and as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from narrows.compression.format.chunk_methods import NAMES
from narrows.compression.format.container import NO_LIMIT, ItemOutline, Lost, Outline
from narrows.compression.format.header import Header, Item

__all__ = ["card", "shown", "verified"]


def card(heads: Outline) -> dict[str, Any]:
    """Plain JSON of what was found."""
    header = heads.header
    chunks: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for held in heads.items:
        for method, count in held.chunks.items():
            name = NAMES.get(method, f"unknown method {method}")
            chunks[name] += count
            nbytes[name] += held.nbytes[method]
    return {
        "what": _what(header, heads.items),
        "kind": header.kind,
        "mode": header.mode,
        "error": header.error,
        "level": header.level,
        "model": header.model,
        "model_embedded": heads.model > 0,
        "bytes": {
            "file": heads.nbytes,
            "model": heads.model,
            "payload": sum(nbytes.values()),
            "decoded": sum(held.item.nbytes for held in heads.items),
        },
        "chunks": {name: {"count": chunks[name], "bytes": nbytes[name]} for name in chunks},
        "items": [_item(held) for held in heads.items],
        "checked": "all but what chunks decode to" if heads.whole else "heads only",
    }


def _item(held: ItemOutline) -> dict[str, Any]:
    item = held.item
    return {
        "number": item.number,
        "name": item.name,
        "shape": list(item.shape),
        "dtype": item.dtype,
        "chunks": sum(held.chunks.values()),
        "bytes": sum(held.nbytes.values()),
        "decoded": item.nbytes,
    }


def _what(header: Header, items: list[ItemOutline]) -> str:
    """One line about all of it."""
    if header.kind == "images" or len(items) != 1:
        what = f"{len(items):,} image{'s' * (len(items) != 1)}"
    else:
        what = described(items[0].item)
    if header.mode == "bounded":
        return f"{what}, no element further off than {header.error or 0:.6g}"
    return f"{what}, {header.mode}"


def described(item: Item) -> str:
    """Shape and type of an item.

    >>> described(Item(shape=(1797, 8, 8), dtype=">u2", row_axes=1))
    '1,797 × 8 × 8, uint16 (big-endian)'
    """
    shape = " × ".join(f"{side:,}" for side in item.shape) or "one number"
    return f"{shape}, {item.little}{' (big-endian)' if item.dtype.startswith('>') else ''}"


def verified(stream: Any, model: Any = None) -> dict[str, Any]:
    """The card of a file that was decoded and checked, all of it; ``model`` a codec's file.

    Raises the errors of `narrows.compression.format.pack.decompress`.
    """
    from narrows.compression.format.pack import Unpacker, load_model

    decoder = None if model is None else load_model(model)
    unpacker = Unpacker(stream, decoder, max_bytes=NO_LIMIT)
    items: list[ItemOutline] = []
    for part in unpacker.reader:
        if isinstance(part, Item):
            items.append(ItemOutline(part))
        elif not isinstance(part, Lost):
            items[-1].add(part.method, len(part.payload))
            unpacker.decode(part)
    reader = unpacker.reader
    found = card(Outline(reader.header, reader.n_read, reader.n_model, items, True))
    return {**found, "checked": "everything"}


CHECKED = {
    "heads only": "heads of its parts only; --verify checks all of it",
    "all but what chunks decode to": "all of the file; --verify also what it decodes to",
    "everything": "everything, and all of it is right",
}


def shown(found: dict[str, Any], most: int | None) -> list[str]:
    """A card as lines, at most so many items listed one by one."""
    sizes = found["bytes"]
    around = sizes["file"] - sizes["payload"] - sizes["model"]
    parts = f"payload {sizes['payload']:,}, header and frames {around:,}"
    parts += f", model {sizes['model']:,}" if sizes["model"] else ""
    rows = [
        ("file", f"{sizes['file']:,} bytes: {parts}"),
        ("decoded", f"{sizes['decoded']:,} bytes"),
        ("model", _model(found)),
    ]
    for name, held in sorted(found["chunks"].items(), key=lambda pair: -pair[1]["bytes"]):
        many = f"{held['count']:,} chunk{'s' * (held['count'] != 1)}"
        rows.append((name, f"{many}, {held['bytes']:,} bytes"))
    rows.append(("checked", CHECKED[found["checked"]]))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {said}" for name, said in rows] + list(_listed(found, most))


def _model(found: dict[str, Any]) -> str:
    if found["model"] is None:
        return "none is needed"
    level = "" if found["level"] is None else f", level {found['level']}"
    where = "in the file" if found["model_embedded"] else "not in the file"
    needed = {NAMES[method] for method in (3, 4, 5)} & set(found["chunks"])
    return f"{found['model'][:12]}{level}, {where}" + ("" if needed else "; no chunk needs it")


def _listed(found: dict[str, Any], most: int | None) -> Iterator[str]:
    """The items, where there are several or one has a name."""
    items = found["items"]
    if found["kind"] == "array":
        return
    for item in items[:most]:
        shape = " × ".join(map(str, item["shape"]))
        kind = np.dtype(item["dtype"]).name
        name = item["name"] if item["name"].isprintable() else ascii(item["name"])
        yield f"  {item['number']:>6}  {name}: {shape}, {kind}, {item['bytes']:,} bytes"
    if most is not None and len(items) > most:
        yield f"  ... and {len(items) - most:,} more (--all)"
