"""Methods 0 and 1 of a .narrow file: the bytes as they are, and the bytes shuffled and deflated."""

from __future__ import annotations

import zlib

import numpy as np

from narrows.exceptions import Corrupt


def encode_raw(data: bytes | memoryview) -> bytes:
    """The bytes as they are."""
    return bytes(data)


def decode_raw(payload: bytes, nbytes: int) -> bytes:
    """The ``nbytes`` bytes that `encode_raw` took."""
    if len(payload) != nbytes:
        raise Corrupt(f"raw data has {len(payload)} bytes where {nbytes} belong")
    return payload


def encode_deflate(data: bytes | memoryview, itemsize: int, level: int = 6) -> bytes:
    """The bytes of elements of ``itemsize`` bytes: all first bytes, all second ones, ..., deflated.

    >>> decode_deflate(encode_deflate(bytes(range(12)), 4), 12, 4) == bytes(range(12))
    True
    """
    planes = np.frombuffer(data, np.uint8).reshape(-1, itemsize).T
    return zlib.compress(np.ascontiguousarray(planes).data, level)


def inflate(payload: bytes, most: int) -> bytes:
    """The inside of a zlib stream that must be whole and alone, at most ``most`` bytes of it."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(payload, most + 1)
    except zlib.error as error:
        raise Corrupt("the deflated data is damaged") from error
    if len(data) > most:
        raise Corrupt(f"deflated data has more than the {most} bytes that belong there")
    if not unpacker.eof or unpacker.unused_data:
        raise Corrupt("the deflated data does not end where it should")
    return data


def decode_deflate(payload: bytes, nbytes: int, itemsize: int) -> bytes:
    """The ``nbytes`` bytes that `encode_deflate` took."""
    if nbytes % itemsize:
        raise Corrupt(f"{nbytes} bytes are no whole number of elements of {itemsize} bytes")
    data = inflate(payload, nbytes)
    if len(data) != nbytes:
        raise Corrupt(f"deflated data has {len(data)} bytes where {nbytes} belong")
    planes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)
    return planes.T.tobytes()
