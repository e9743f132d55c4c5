"""What a decoder needs of a model: whole numbers and a few words about them, in canonical bytes.

    u32 length | JSON {"arrays": [[name, dtype, shape], ...], "structure": {...}} | the arrays

The arrays follow in the order of their names, in C order, little-endian. The SHA-256 of these bytes
is the model's identity: equal bytes decode alike on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import Corrupt, TooLarge

Array = NDArray[Any]
DTYPES = ("<f8", "<i2", "<i4", "<i8", "<u2", "<u4", "|i1", "|u1")
LONGEST = 1 << 16  # bytes of the JSON
LARGEST = 1 << 28  # bytes of all
MOST_ARRAYS = 256


@dataclass(frozen=True)
class Payload:
    """Arrays by name, and the structure that says what they are for."""

    arrays: dict[str, Array]
    structure: dict[str, Any]

    @cached_property
    def data(self) -> bytes:
        """The canonical bytes."""
        listed = [[name, _code(a), list(a.shape)] for name, a in sorted(self.arrays.items())]
        head = _json({"arrays": listed, "structure": self.structure})
        blobs = [
            np.ascontiguousarray(a, _code(a)).tobytes() for _, a in sorted(self.arrays.items())
        ]
        return b"".join([len(head).to_bytes(4, "little"), head, *blobs])

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Payload:
        """The inverse of ``data``; anything else is refused with ``Corrupt`` or ``TooLarge``."""
        head = _head(data)
        arrays, at = {}, 4 + int.from_bytes(data[:4], "little")
        names = [entry[0] for entry in head["arrays"]]
        if names != sorted(set(names)) or len(names) > MOST_ARRAYS:
            raise Corrupt("the model's arrays are not in order")
        for name, code, shape in head["arrays"]:
            size = math.prod(shape)
            end = at + size * np.dtype(code).itemsize
            if end > len(data):
                raise Corrupt("the model's arrays are cut short")
            arrays[name] = np.frombuffer(data, code, size, at).reshape(shape)
            at = end
        if at != len(data):
            raise Corrupt("the model holds more than its arrays")
        return cls(arrays, head["structure"])

    def get(self, name: str, kinds: str, ndim: int) -> Array:
        """An array that must be there, of one of these kinds of dtype ("iu", "f")."""
        found = self.arrays.get(name)
        if found is None or found.dtype.kind not in kinds or found.ndim != ndim:
            raise Corrupt(f"the model has no usable {name!r}")
        return found

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number of the structure within these bounds."""
        value = self.structure.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Corrupt(f"the model's {name!r} is {value!r}, not from {low} to {high}")
        return value


def _json(head: dict[str, Any]) -> bytes:
    """The one form in which a payload may begin."""
    return json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _code(array: Array) -> str:
    code = array.dtype.newbyteorder("<").str
    if code not in DTYPES:
        raise TypeError(f"a payload holds no {array.dtype}")
    return code


def _head(data: bytes) -> dict[str, Any]:
    if len(data) > LARGEST:
        raise TooLarge(
            f"the model is of {len(data)} bytes, more than the {LARGEST} that are allowed"
        )
    length = int.from_bytes(data[:4], "little")
    if len(data) < 4 or length > min(LONGEST, len(data) - 4):
        raise Corrupt("the model has no head")
    try:
        head = json.loads(data[4 : 4 + length])
        canonical = _json(head) == data[4 : 4 + length]
    except (ValueError, RecursionError) as error:
        raise Corrupt("the model's head is no JSON of finite numbers") from error
    if not canonical:
        raise Corrupt("the model's head is not written as it must be")
    fine = isinstance(head, dict) and set(head) == {"arrays", "structure"}
    if not (fine and isinstance(head["structure"], dict) and _listed(head["arrays"])):
        raise Corrupt("the model's head is not what it should be")
    return head  # type: ignore[no-any-return]


def _listed(entries: Any) -> bool:
    """Whether these are names, dtypes and shapes of arrays."""
    return isinstance(entries, list) and all(
        isinstance(entry, list)
        and len(entry) == 3
        and isinstance(entry[0], str)
        and entry[1] in DTYPES
        and isinstance(entry[2], list)
        and len(entry[2]) <= 8
        and all(type(size) is int and 0 <= size <= LARGEST for size in entry[2])
        for entry in entries
    )
