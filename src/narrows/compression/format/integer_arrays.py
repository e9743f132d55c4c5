"""Arrays of integers as bytes: predicted, then coded by how well the neighbours were predicted.

Exact for all of int64: every sum is taken modulo 2⁶⁴. docs/format.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.integer_forms import (
    CODED,
    HEAD,
    PACKED,
    PALETTE,
    decode_symbols,
    get_base,
    inflated,
    plan_from,
    unpacked,
)
from narrows.compression.format.plan_integers import smallest
from narrows.compression.format.predictors import undo_difference, view_of
from narrows.exceptions import Corrupt

Array = NDArray[Any]


def encode_integers(
    q: Array,
    prediction: Array | None = None,
    *,
    step: int = 1,
    free: Array | None = None,
) -> bytes:
    """Integers of any shape as bytes, in the smallest of several ways.

    Parameters
    ----------
    q : int64, any shape
    prediction : int64, like q: what is expected; the decoder must have the same
    step : an odd number: each integer may come back ⌊step / 2⌋ beside itself
    free : bool, like q: where any integer may come back

    Examples
    --------
    >>> plane = np.add.outer(np.arange(30), 5 * np.arange(40))
    >>> payload = encode_integers(plane)
    >>> len(payload), bool((decode_integers(payload, plane.shape) == plane).all())
    (39, True)
    """
    q = np.asarray(q, np.int64)
    if q.size == 0:
        return b""
    view = view_of(q.shape)
    q = q.reshape(view)
    if prediction is not None:
        q = q - np.asarray(prediction, np.int64).reshape(view)
    return smallest(q, step, None if free is None else free.reshape(view))


def decode_integers(
    payload: bytes, shape: Sequence[int], prediction: Array | None = None, *, step: int = 1
) -> Array:
    """The integers that `encode_integers` was given, within ⌊step / 2⌋ where a step was.

    Raises ``Corrupt`` for bytes that no encoder wrote. The shape and the prediction are trusted.
    """
    view, n = view_of(shape), prod(shape)
    if n == 0:
        if payload:
            raise Corrupt("an empty array is followed by bytes")
        return np.zeros(shape, np.int64)
    values = _decode(bytes(payload), view, step, 0)
    if prediction is not None:
        values = values + np.asarray(prediction, np.int64).reshape(view)
    return values.reshape(shape)


def _decode(payload: bytes, view: tuple[int, ...], step: int, depth: int) -> Array:
    if not payload:
        raise Corrupt("the integers are missing")
    form, mask = payload[0] & 15, payload[0] >> 4
    if form > PALETTE or mask >> len(view) or (mask and (step > 1 or form == PALETTE)):
        raise Corrupt("the integers are coded in a way that is not known")
    base, at = get_base(payload, 1)
    n = prod(view)
    if form == PALETTE:
        return base + _decode_palette(payload[at:], view, step, depth)
    if form == CODED:
        if len(payload) < at + HEAD:
            raise Corrupt("the integers are cut short")
        plan = plan_from(mask, payload[at : at + HEAD], len(view))
        x = decode_symbols(payload[at + HEAD :], view, plan, step)
    elif step > 1:
        raise Corrupt("the integers are coded in a way that is not known")
    else:
        x = (unpacked if form == PACKED else inflated)(payload[at:], n).reshape(view)
    return base + undo_difference(x, mask)


def _decode_palette(data: bytes, view: tuple[int, ...], step: int, depth: int) -> Array:
    if depth or step > 1 or len(data) < 6:
        raise Corrupt("the integers are coded in a way that is not known")
    count, length = int.from_bytes(data[:2], "little") + 1, int.from_bytes(data[2:6], "little")
    palette = _decode(data[6 : 6 + length], view_of((count,)), 1, 1)
    ranks = _decode(data[6 + length :], view, 1, 1)
    if ranks.min() < 0 or ranks.max() >= count:
        raise Corrupt("an integer is not in its palette")
    return palette[ranks]
