"""What a .narrow file says of itself: its header, its items, and the JSON they are written in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from narrows.exceptions import Corrupt, ParameterError, TooLarge, UnsupportedVersion

MOST_JSON = 1 << 16
MOST_DEPTH = 16  # objects and lists in one another
MOST_AXES = 32
MOST_NAME = 1024  # bytes
MOST_NUMBER = 1 << 63
MOST_CHUNK = 1 << 26  # bytes, decoded

KINDS = ("array", "images")
MODES = ("lossy", "bounded", "lossless")
CODER = {"name": "rans16", "version": 1}
DTYPES = {"|b1", "|i1", "|u1"} | {
    order + kind
    for order in "<>"
    for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}


def to_json(fields: Mapping[str, Any]) -> bytes:
    """The one form in which a file may hold these fields; those that are None are left out."""
    kept = {key: value for key, value in fields.items() if value is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _integer(digits: str) -> int:
    number = int(digits)
    if abs(number) >= MOST_NUMBER:
        raise ValueError("a number of more than 63 bits")
    return number


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no integer")


def _depth(value: object) -> int:
    """How many objects and lists are in one another, counted to one more than is allowed."""
    depth, level = 0, [value]
    while level and depth <= MOST_DEPTH:
        lists = [x for x in level if isinstance(x, list)]
        lists += [list(x.values()) for x in level if isinstance(x, dict)]
        level = [inner for values in lists for inner in values]
        depth += bool(lists)
    return depth


def from_json(data: bytes, what: str) -> dict[str, Any]:
    """The fields in ``data``; Corrupt where it is not what `to_json` writes."""
    try:
        text = data.decode()
        fields = json.loads(
            text, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
        )
        fine = isinstance(fields, dict) and _depth(fields) <= MOST_DEPTH
        if fine and to_json(fields) == data:
            return dict(fields)
    except (ValueError, RecursionError) as error:  # of decoding, parsing and encoding again
        raise Corrupt(f"{what} is not written as it must be: {error}") from None
    raise Corrupt(f"{what} is not written as it must be")


def _written(fields: Mapping[str, Any], what: str) -> bytes:
    """What a writer was given, as JSON that a reader will take."""
    try:
        data = to_json(fields)
        if len(data) > MOST_JSON:
            raise TooLarge(f"{what} takes {len(data)} bytes, more than the {MOST_JSON} allowed")
        from_json(data, what)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, TooLarge):
            raise
        raise ParameterError(f"{what} cannot be written: {error}") from None
    return data


def _require(fine: bool, what: str, name: str, value: object) -> None:
    if not fine:
        raise Corrupt(f"{what} has {name} {value!r:.80}, which no encoder writes")


def _only(fields: Mapping[str, Any], required: set[str], optional: set[str], what: str) -> None:
    """Refuse fields that are missing or unknown."""
    missing, unknown = required - set(fields), set(fields) - required - optional
    if missing:
        raise Corrupt(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise Corrupt(f"{what} has the unknown field {min(unknown)!r:.80}")


def _counts(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST_NUMBER


def _error_of(text: object) -> float:
    """The bound on the error that a header states."""
    try:
        error = float.fromhex(text) if isinstance(text, str) else math.nan
    except (ValueError, OverflowError):
        error = math.nan
    fine = math.isfinite(error) and math.copysign(1, error) > 0 and error.hex() == text
    _require(fine, "the header", "error", text)
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What holds for the whole file; see docs/format.md.

    ``error`` is the absolute bound of mode "bounded", ``model`` the SHA-256 of the payload of the
    model it was made with, in hex, ``level`` the model's rate, ``items`` the number of items where
    it is known beforehand.
    """

    kind: str
    mode: str
    error: float | None = None
    model: str | None = None
    level: int | None = None
    items: int | None = None

    def pack(self) -> bytes:
        """As JSON; ParameterError where a reader would refuse it."""
        fields = {name: getattr(self, name) for name in ("kind", "mode", "model", "level", "items")}
        error = None if self.error is None else float(self.error).hex()
        data = _written({**fields, "coder": CODER, "error": error}, "the header")
        try:
            Header.unpack(data)
        except Corrupt as refused:
            raise ParameterError(str(refused)) from None
        return data

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """From JSON; Corrupt where it says what no writer says."""
        what = "the header"
        fields = from_json(data, what)
        optional = {"error", "model", "level", "items"}
        _only(fields, {"kind", "mode", "coder"}, optional, what)
        coder = fields.pop("coder")
        if coder != CODER or type(coder["version"]) is not int:
            raise UnsupportedVersion(
                f"the file is coded by {coder!r:.80}, which this narrows does not know: "
                "a newer one may"
            )
        _require(fields["kind"] in KINDS, what, "kind", fields["kind"])
        _require(fields["mode"] in MODES, what, "mode", fields["mode"])
        if "error" in fields:
            _require(fields["mode"] == "bounded", what, "an error in mode", fields["mode"])
            fields["error"] = _error_of(fields["error"])
        if "model" in fields:
            model = fields["model"]
            fine = isinstance(model, str) and re.fullmatch("[0-9a-f]{64}", model) is not None
            _require(fine, what, "model", model)
        for name in ("level", "items"):
            _require(name not in fields or _counts(fields[name]), what, name, fields.get(name))
        return cls(**fields)


def _is_name(name: object) -> bool:
    """Whether it is a path that stays inside the folder it is put in."""
    return (
        isinstance(name, str)
        and len(name.encode()) <= MOST_NAME
        and not {"", ".", ".."} & set(name.split("/"))
        and re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name) is None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One array or image of the file, seen as rows: its first ``row_axes`` axes folded into one.

    ``dtype`` keeps the order of bytes that the user had; ``codec`` belongs to the methods;
    ``number`` is its place in the file, set by a reader.
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
        """The dtype of what its chunks decode to."""
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
        """How many rows its chunks must cover; none where it has no elements."""
        return math.prod(self.shape[: self.row_axes]) if self.row_bytes else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole item, decoded."""
        return math.prod(self.shape) * self.itemsize

    def __str__(self) -> str:
        return f"item {self.number}" + (f" ({self.name})" if self.name else "")

    def pack(self) -> bytes:
        """As JSON; ParameterError where a reader would refuse it, TooLarge over a limit."""
        fields = {name: getattr(self, name) for name in ("dtype", "row_axes", "name")}
        shape = [int(size) for size in self.shape]
        data = _written({**fields, "shape": shape, "codec": self.codec or None}, str(self))
        try:
            Item.unpack(data, self.number)
        except Corrupt as refused:
            raise ParameterError(str(refused)) from None
        return data

    @classmethod
    def unpack(cls, data: bytes, number: int = 0) -> Item:
        """From JSON; Corrupt where it says what no writer says, TooLarge over a limit."""
        what = f"item {number}"
        fields = from_json(data, what)
        _only(fields, {"shape", "dtype", "row_axes"}, {"name", "codec"}, what)
        shape = fields.pop("shape")
        _require(isinstance(shape, list) and all(map(_counts, shape)), what, "shape", shape)
        dtype = fields["dtype"]
        _require(isinstance(dtype, str) and dtype in DTYPES, what, "dtype", dtype)
        row_axes = fields["row_axes"]
        _require(_counts(row_axes) and row_axes <= len(shape), what, "row_axes", row_axes)
        _require("name" not in fields or _is_name(fields["name"]), what, "name", fields.get("name"))
        codec = fields.get("codec", {"": 0})
        _require(isinstance(codec, dict) and bool(codec), what, "codec", codec)
        item = cls(shape=tuple(shape), number=number, **fields)
        _check_size(item)
        return item


def _check_size(item: Item) -> None:
    if len(item.shape) > MOST_AXES:
        raise TooLarge(f"{item} has {len(item.shape)} axes, more than the {MOST_AXES} allowed")
    if math.prod(size for size in item.shape if size) * item.itemsize >= MOST_NUMBER:
        raise TooLarge(f"{item} has the shape {item.shape}, more than any memory holds")
    if item.rows and item.row_bytes > MOST_CHUNK:
        raise TooLarge(
            f"{item} has rows of {item.row_bytes} bytes, more than the {MOST_CHUNK} of a chunk"
        )
