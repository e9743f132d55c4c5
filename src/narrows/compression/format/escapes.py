"""Elements that are stored as they are, and where they stand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.integer_arrays import decode_integers, encode_integers
from narrows.compression.format.raw_bytes import encode_deflate, inflate
from narrows.exceptions import Corrupt

Array = NDArray[Any]
NONE, LISTED, MASKED = range(3)
FEW = 64  # one in so many is listed


def put_exceptions(x: Array, wrong: Array) -> bytes:
    """The elements of ``x`` where ``wrong`` is set: how many, where, and their bits."""
    places = np.flatnonzero(wrong)
    if not len(places):
        return bytes([NONE])
    values = encode_deflate(x.ravel()[places].tobytes(), x.dtype.itemsize)
    if len(places) * FEW < x.size:
        kind, where = LISTED, encode_integers(places)
    else:
        kind, where = MASKED, encode_integers(wrong.astype(np.int64))
    sizes = b"".join(n.to_bytes(4, "little") for n in (len(places), len(where), len(values)))
    return bytes([kind]) + sizes + where + values


def get_exceptions(
    data: bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[Array, Array, int]:
    """(places in C order, values, where the block ends) of a block that starts at ``at``."""
    kind = data[at] if at < len(data) else -1
    if kind == NONE:
        return np.empty(0, np.intp), np.empty(0, dtype), at + 1
    if kind not in (LISTED, MASKED) or len(data) < at + 13:
        raise Corrupt("the elements stored as they are begin wrongly")
    sizes = [int.from_bytes(data[i : i + 4], "little") for i in range(at + 1, at + 13, 4)]
    count, n_where, n_values = sizes
    size = int(np.prod(shape, dtype=np.int64))
    end = at + 13 + n_where + n_values
    if not 0 < count <= size or end > len(data):
        raise Corrupt("the elements stored as they are do not fit")
    where = data[at + 13 : at + 13 + n_where]
    if kind == LISTED:
        places = decode_integers(where, (count,))
        if places[0] < 0 or places[-1] >= size or (places[1:] <= places[:-1]).any():
            raise Corrupt("the elements stored as they are stand nowhere")
    else:
        mask = decode_integers(where, shape)
        if (mask >> 1).any() or int(mask.sum()) != count:
            raise Corrupt("the elements stored as they are stand nowhere")
        places = np.flatnonzero(mask)
    plain = inflate(data[at + 13 + n_where : end], count * dtype.itemsize)
    if len(plain) != count * dtype.itemsize:
        raise Corrupt("the elements stored as they are are cut short")
    planes = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, count)
    return places, np.ascontiguousarray(planes.T).view(dtype)[:, 0], end
