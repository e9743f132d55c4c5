"""Chunks by their methods, and items from their chunks."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from . import context, prior, reals
from .container import Chunk, Item, Refused, need, read
from .integers import Shape
from .model import Model, as_dtype, unpack, unwrap

Items = list[tuple[str | None, np.ndarray]]
NO_LEVEL = 255


def decode(file: bytes, model: bytes | None = None) -> tuple[str, Items]:
    """The kind of a file and its items, as pairs of a name or None and an array.

    ``model`` is the codec's file, where the model is not inside ``file``.
    """
    header, inside, items = read(file)
    payload = unpack(inside) if inside is not None else model and unwrap(model)
    decoder = Decoder(header, payload)
    return header["kind"], [(item.name, decoder.item(item)) for item in items]


class Decoder:
    def __init__(self, header: dict[str, Any], payload: bytes | None) -> None:
        self.header, self.images = header, header["kind"] == "images"
        self.error = header.get("error", 0.0)
        self.model: Model | None = None
        if "model" in header and payload is not None:
            try:
                self.model = Model(payload, header["model"])
            except (KeyError, TypeError) as error:
                raise Refused(f"The model lacks {error}.") from None

    def item(self, item: Item) -> np.ndarray:
        """The chunks' rows one after another, in the byte order of the dtype."""
        out = np.empty(item.shape, item.dtype)
        rows = out.reshape(item.rows, *item.shape[item.row_axes :]) if item.rows else None
        for chunk in item.chunks:
            found = np.ascontiguousarray(self.chunk(chunk, item))
            truths = item.dtype.kind != "b" or found.view(np.uint8).max() <= 1
            need(truths, "A truth is neither 0 nor 1.")
            crc = zlib.crc32(found.tobytes())
            need(crc == chunk.decoded_crc, "The CRC of a chunk's decoded bytes is wrong.")
            rows[chunk.first : chunk.first + chunk.rows] = found  # type: ignore[index]
        return out

    def chunk(self, chunk: Chunk, item: Item) -> np.ndarray:
        shape = (chunk.rows, *item.shape[item.row_axes :])
        dtype = item.dtype.newbyteorder("<")
        data, method = chunk.payload, chunk.method
        need(method <= 5, f"There is no method {method}.")
        few = method < 2 or int(np.prod(shape, dtype=object)) <= 1 << 24
        need(few, "A chunk has more elements than it may have.")
        if method < 2:
            return (reals.raw, reals.deflate)[method](data, shape, dtype)
        if method == 2:
            return reals.chunk(data, shape, dtype, self.error, None).reshape(shape)
        need(self.model is not None, "The file needs the model it was made with.")
        try:
            return self.by_model(method, data, shape, dtype).reshape(shape)
        except (KeyError, IndexError, TypeError) as error:
            raise Refused(f"The model does not have what a chunk needs: {error}.") from None

    def by_model(self, method: int, data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        need(len(data) >= 5, "A chunk is cut off.")
        need(dtype.kind != "c", "A model predicts no complex numbers.")
        level, size = struct.unpack_from("<BI", data)
        need(size <= len(data) - 5, "The codes of a chunk are cut off.")
        coded, rest = data[5 : 5 + size], data[5 + size :]
        assert self.model is not None
        p = None
        if method < 5 or level != NO_LEVEL:
            z = prior.read_codes(self.model, coded, level, self.model.cells(shape, self.images))
            p = self.model.predict(z, level, shape, self.images)
        else:
            need(not coded, "A chunk without a level has codes.")
        if method == 4:
            return reals.chunk(rest, shape, dtype, self.error, p)
        if method == 5:
            return self.context(rest, shape, dtype, p)
        need(not rest, "Something follows the codes of a chunk.")
        return as_dtype(p, dtype)  # type: ignore[arg-type]

    def context(
        self, data: bytes, shape: Shape, dtype: np.dtype, p: np.ndarray | None
    ) -> np.ndarray:
        model = self.model
        need(model and model.event is not None and dtype == np.uint8, "Method 5 has no place here.")
        n, c, h, w, last = model.grid(shape, self.images)
        y = None
        if p is not None:
            y = as_dtype(p, dtype).reshape((n, h, w, c) if last else (n, c, h, w))
            y = np.moveaxis(y, -1, 1) if last else y
        images = context.read_images(model, data, (n, c, h, w), y)
        return np.moveaxis(images, 1, -1) if last else images
