"""What the header of a .narrow file and the header of each item hold, and the JSON they are in.

A header is canonical JSON: sorted keys, no spaces, integers of at most 63 bits, no floats. Anything
else is refused, so that equal content always has equal bytes. docs/format.md specifies the fields.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from narrows.exceptions import Corrupt, ParameterError, TooLarge, UnsupportedVersion

MAX_JSON_BYTES = 1 << 16
MAX_JSON_DEPTH = 16  # objects and lists inside one another
MAX_AXES = 32
MAX_NAME_BYTES = 1024
INTEGER_LIMIT = 1 << 63  # every integer in a header is smaller
MAX_CHUNK_BYTES = 1 << 26  # decoded

KINDS = ("array", "images")
MODES = ("lossy", "bounded", "lossless")
CODER = {"name": "rans16", "version": 1}
DTYPES = {"|b1", "|i1", "|u1"} | {
    order + kind
    for order in "<>"
    for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}


def to_json(fields: Mapping[str, Any]) -> bytes:
    """The canonical JSON of ``fields``; those that are None are left out."""
    kept = {key: value for key, value in fields.items() if value is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def from_json(data: bytes, what: str) -> dict[str, Any]:
    """The fields in ``data``; raises Corrupt for anything that `to_json` does not write."""
    try:
        fields = json.loads(
            data.decode(), parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
        )
        usable = isinstance(fields, dict) and _depth(fields) <= MAX_JSON_DEPTH
        if usable and to_json(fields) == data:
            return dict(fields)
    except (ValueError, RecursionError) as error:  # of decoding, parsing and encoding again
        raise Corrupt(f"{what} is not canonical JSON: {error}") from None
    raise Corrupt(f"{what} is not canonical JSON")


def _integer(digits: str) -> int:
    number = int(digits)
    if abs(number) >= INTEGER_LIMIT:
        raise ValueError("a number of more than 63 bits")
    return number


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not an integer")


def _depth(value: object) -> int:
    """How many objects and lists are inside one another, counted to one above the limit."""
    depth, level = 0, [value]
    while level and depth <= MAX_JSON_DEPTH:
        lists = [x for x in level if isinstance(x, list)]
        lists += [list(x.values()) for x in level if isinstance(x, dict)]
        level = [inner for values in lists for inner in values]
        depth += bool(lists)
    return depth


def _checked_json(fields: Mapping[str, Any], what: str, unpack: Callable[[bytes], object]) -> bytes:
    """``fields`` as JSON that ``unpack``, the reader's check, accepts.

    Raises ParameterError where the reader would find it corrupt, TooLarge over a limit.
    """
    try:
        data = to_json(fields)
        if len(data) > MAX_JSON_BYTES:
            raise TooLarge(f"{what} takes {len(data)} bytes; {MAX_JSON_BYTES} are allowed")
        unpack(data)
    except TooLarge:
        raise
    except Corrupt as refused:
        raise ParameterError(str(refused)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"{what} cannot be written: {error}") from None
    return data


def _require(fine: bool, what: str, name: str, value: object) -> None:
    if not fine:
        raise Corrupt(f"{what} has {name} {value!r:.80}, which is not allowed")


def _check_names(
    fields: Mapping[str, Any], required: set[str], optional: set[str], what: str
) -> None:
    """Refuse fields that are missing or unknown."""
    missing, unknown = required - set(fields), set(fields) - required - optional
    if missing:
        raise Corrupt(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise Corrupt(f"{what} has the unknown field {min(unknown)!r:.80}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < INTEGER_LIMIT


def _error_from_hex(text: object) -> float:
    """The largest error that a header states, in the one form that ``float.hex`` writes."""
    try:
        error = float.fromhex(text) if isinstance(text, str) else math.nan
    except (ValueError, OverflowError):
        error = math.nan
    fine = math.isfinite(error) and math.copysign(1, error) > 0 and error.hex() == text
    _require(fine, "the header", "error", text)
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields that hold for a whole file.

    Parameters
    ----------
    kind : "array" or "images"
    mode : "lossy", "bounded" or "lossless"
    error : float, optional
        The largest absolute error; only with mode "bounded".
    model : str, optional
        SHA-256, in hex, of the payload of the model that the file was made with.
    level : int, optional
        The quality level of that model.
    items : int, optional
        The number of items, where it was known when writing began.
    """

    kind: str
    mode: str
    error: float | None = None
    model: str | None = None
    level: int | None = None
    items: int | None = None

    def pack(self) -> bytes:
        """The header as JSON; ParameterError where a reader would refuse it."""
        error = None if self.error is None else float(self.error).hex()
        fields = {**asdict(self), "coder": CODER, "error": error}
        return _checked_json(fields, "the header", Header.unpack)

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """The header in ``data``; Corrupt for values that no writer writes."""
        what = "the header"
        fields = from_json(data, what)
        optional = {"error", "model", "level", "items"}
        _check_names(fields, {"kind", "mode", "coder"}, optional, what)
        coder = fields.pop("coder")
        if coder != CODER or type(coder["version"]) is not int:
            raise UnsupportedVersion(f"the file is coded by {coder!r:.80}; use a newer narrows")
        _require(fields["kind"] in KINDS, what, "kind", fields["kind"])
        _require(fields["mode"] in MODES, what, "mode", fields["mode"])
        if "error" in fields:
            _require(fields["mode"] == "bounded", what, "an error in mode", fields["mode"])
            fields["error"] = _error_from_hex(fields["error"])
        if "model" in fields:
            model = fields["model"]
            fine = isinstance(model, str) and re.fullmatch("[0-9a-f]{64}", model) is not None
            _require(fine, what, "model", model)
        for name in ("level", "items"):
            _require(name not in fields or _is_count(fields[name]), what, name, fields.get(name))
        return cls(**fields)


def _is_safe_name(name: object) -> bool:
    """Whether it is a relative path that stays inside the folder it is written to."""
    return (
        isinstance(name, str)
        and len(name.encode()) <= MAX_NAME_BYTES
        and not {"", ".", ".."} & set(name.split("/"))
        and re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name) is None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The header of one array or image: its first ``row_axes`` axes are folded into rows.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
        As in NumPy's ``dtype.str``; it keeps the byte order of the user's array.
    row_axes : int
        How many leading axes form the rows that chunks are made of.
    name : str, optional
        A relative path.
    codec : dict
        Reserved for future methods.
    number : int
        Position in the file, from 0; set by a reader, not stored.
    """

    shape: tuple[int, ...]
    dtype: str
    row_axes: int
    name: str | None = None
    codec: dict[str, Any] = field(default_factory=dict)
    number: int = field(default=0, compare=False)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype[2:])

    @property
    def little(self) -> np.dtype[Any]:
        """The dtype of the decoded chunks: always little-endian."""
        return np.dtype(self.dtype.replace(">", "<"))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.shape[self.row_axes :]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, decoded."""
        return math.prod(self.row_shape) * self.itemsize

    @property
    def rows(self) -> int:
        """How many rows the chunks must cover; 0 for an array without elements."""
        return math.prod(self.shape[: self.row_axes]) if self.row_bytes else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole item, decoded."""
        return math.prod(self.shape) * self.itemsize

    def __str__(self) -> str:
        return f"item {self.number}" + (f" ({self.name})" if self.name else "")

    def pack(self) -> bytes:
        """The item as JSON; ParameterError where a reader would refuse it."""
        fields = {"dtype": self.dtype, "row_axes": self.row_axes, "name": self.name}
        fields |= {"shape": [int(size) for size in self.shape], "codec": self.codec or None}
        return _checked_json(fields, str(self), lambda data: Item.unpack(data, self.number))

    @classmethod
    def unpack(cls, data: bytes, number: int = 0) -> Item:
        """The item in ``data``; Corrupt for values that no writer writes, TooLarge over a limit."""
        what = f"item {number}"
        fields = from_json(data, what)
        _check_names(fields, {"shape", "dtype", "row_axes"}, {"name", "codec"}, what)
        shape, dtype, row_axes = (fields.pop(name) for name in ("shape", "dtype", "row_axes"))
        _require(isinstance(shape, list) and all(map(_is_count, shape)), what, "shape", shape)
        _require(isinstance(dtype, str) and dtype in DTYPES, what, "dtype", dtype)
        _require(_is_count(row_axes) and row_axes <= len(shape), what, "row_axes", row_axes)
        name, codec = fields.get("name", "x"), fields.get("codec", {"x": 0})
        _require(_is_safe_name(name), what, "name", name)
        _require(isinstance(codec, dict) and bool(codec), what, "codec", codec)
        item = cls(shape=tuple(shape), dtype=dtype, row_axes=row_axes, number=number, **fields)
        _check_size(item)
        return item


def _check_size(item: Item) -> None:
    if len(item.shape) > MAX_AXES:
        raise TooLarge(f"{item} has {len(item.shape)} axes; at most {MAX_AXES} are allowed")
    if math.prod(size for size in item.shape if size) * item.itemsize >= INTEGER_LIMIT:
        raise TooLarge(f"{item} has the shape {item.shape}, which fits no memory")
    if item.rows and item.row_bytes > MAX_CHUNK_BYTES:
        raise TooLarge(f"{item} has rows of {item.row_bytes} bytes; {MAX_CHUNK_BYTES} are allowed")
