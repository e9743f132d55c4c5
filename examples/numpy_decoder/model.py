"""The model: from codes to a prediction, in integers and shifts ("The model")."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from .container import MAX_MODEL, need
from .integers import Shape

ARRAYS = {"<f8", "<i2", "<i4", "<i8", "<u2", "<u4", "|i1", "|u1"}


def unpack(stream: bytes) -> bytes:
    """The payload of an embedded model."""
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(stream, MAX_MODEL + 1)
    except zlib.error:
        payload = b""
    whole = inflater.eof and not inflater.unused_data and len(payload) <= MAX_MODEL
    need(whole, "The model in the file cannot be inflated, or is too large.")
    return payload


def unwrap(file: bytes) -> bytes:
    """The payload of a codec's file: one tensor of bytes in a safetensors file."""
    size = int.from_bytes(file[:8], "little")
    try:
        found = json.loads(file[8 : 8 + size])["payload"]
        start, end = found["data_offsets"]
        right = found["dtype"] in ("U8", "I8") and 0 <= start <= end <= len(file) - 8 - size
    except (ValueError, KeyError, TypeError):
        right, start, end = False, 0, 0
    need(right, "The model's file is no codec that was saved.")
    return file[8 + size + start : 8 + size + end]


def read_arrays(payload: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    need(len(payload) >= 4, "The model is cut off.")
    (size,) = struct.unpack_from("<I", payload)
    try:
        head = json.loads(payload[4 : 4 + size])
        listed, structure, at = head["arrays"], head["structure"], 4 + size
        names = [name for name, _, _ in listed]
        need(names == sorted(set(names)), "The model's arrays are not in order.")
        arrays = {}
        for name, dtype, shape in listed:
            need(dtype in ARRAYS, "An array of the model has another dtype.")
            count = math.prod(shape)
            arrays[name] = np.frombuffer(payload, dtype, count, at).reshape(shape)
            at += arrays[name].nbytes
    except (KeyError, TypeError, json.JSONDecodeError):
        need(False, "The model's head is broken.")
    need(at == len(payload), "Something follows the model's arrays.")
    return structure, arrays


def convolve(
    weight: np.ndarray, a: np.ndarray, i: int = 0, j: int = 0, step: int = 1
) -> np.ndarray:
    """Sums over inputs and cells around, for cells from (i, j) on, in float64 (all below 2⁵³)."""
    side = weight.shape[2]
    (n, channels, rows, columns), r = a.shape, side // 2
    wide = np.pad(a.astype(np.float64), ((0, 0), (0, 0), (r, r), (r, r)))
    out: Any = 0.0
    for u in range(side):
        for v in range(side):
            part = wide[:, :, u + i : u + rows : step, v + j : v + columns : step]
            flat = weight[:, :, u, v].astype(np.float64) @ part.reshape(n, channels, -1)
            out = out + flat.reshape(n, -1, *part.shape[2:])
    return out.astype(np.int64)


def layer(
    weight: np.ndarray, bias: np.ndarray, shift: int, a: np.ndarray, largest: int, *cells: int
) -> np.ndarray:
    """⌊(Σ weight · a + bias + half) / 2^shift⌋, if no sum can be rounded for |a| ≤ largest."""
    good = (
        weight.ndim == 4
        and weight.shape[2] == weight.shape[3]
        and weight.shape[2] in range(1, 16, 2)
    )
    need(good and weight.shape[1] == a.shape[1], "A layer of the model does not fit.")
    need(0 <= shift <= 52 and bias.shape == weight.shape[:1], "A layer of the model is broken.")
    half = 1 << shift >> 1
    total = np.abs(weight.astype(np.float64)).sum((1, 2, 3)) * largest + half
    exact = (total + np.abs(bias.astype(np.float64)) < 2.0**53).all()
    need(exact, "A layer of the model could not be computed exactly.")
    sums = convolve(weight, a, *cells) + bias.astype(np.int64)[:, None, None]
    return (sums + half) >> shift


class Model:
    """From codes and a level to a prediction."""

    def __init__(self, payload: bytes, identity: str) -> None:
        digest = hashlib.sha256(payload).hexdigest()
        need(digest == identity, "The file was made with another model.")
        self.structure, self.arrays = read_arrays(payload)
        s = self.structure
        self.channels, self.height, self.width = s["channels"], s["height"], s["width"]
        self.event = None if s["event"] is None else tuple(s["event"])
        self.axes = s["axes"]
        self.levels, self.codes = self.arrays["back"].shape

    def grid(self, shape: Shape, images: bool) -> tuple[int, int, int, int, bool]:
        """n, channels, H and W of a chunk as images, and whether channels are last."""
        last = self.axes == "HWC"
        if self.event is not None:
            need(not images and shape[1:] == self.event, "The model is for other samples.")
            return shape[0], self.channels, self.height, self.width, last
        if images:
            need(len(shape) in (2, 3), "An image has another number of axes.")
            return 1, shape[2] if len(shape) == 3 else 1, *shape[:2], True
        if len(shape) >= 3 and self.channels > 1 and self.axes in ("CHW", "HWC"):
            c, h, w = (shape[-1], *shape[-3:-1]) if last else shape[-3:]
            return math.prod(shape[:-3]), c, h, w, last
        need(len(shape) >= 2, "A chunk has fewer axes than an image.")
        return math.prod(shape[:-2]), 1, *shape[-2:], False

    def cells(self, shape: Shape, images: bool) -> Shape:
        """The shape of a chunk's codes."""
        n, channels, height, width, _ = self.grid(shape, images)
        if self.channels == 1:
            n *= channels
        else:
            fits = channels == self.channels or (images and channels == 1)
            need(fits, "A chunk has another number of channels than the model.")
        rows, columns = -(-height // self.height), -(-width // self.width)
        widest = max(self.codes, self.channels * self.height * self.width)
        sizes = {name: array.size for name, array in self.arrays.items()}
        pixels = sum(sizes.get(f"context.{name}", 0) for name in ("w1", "w2", "wg", "w3", "wl"))
        work = sum(size for name, size in sizes.items() if name.endswith(".weight"))
        work += pixels * self.channels * self.height * self.width
        cells = n * rows * columns
        small = cells * widest <= 1 << 24 and cells * work <= 1 << 40
        need(small, "A chunk has more codes than it may have.")
        return n, self.codes, rows, columns

    def predict(self, z: np.ndarray, level: int, shape: Shape, images: bool) -> np.ndarray:
        """The prediction of a chunk, in float64 and of its shape."""
        n, channels, height, width, last = self.grid(shape, images)
        cells = np.concatenate([self.network(z[k : k + 256], level) for k in range(0, len(z), 256)])
        rows, columns = z.shape[2:]
        c, h, w = self.channels, self.height, self.width
        x = cells.reshape(-1, c, h, w, rows, columns).transpose(0, 1, 4, 2, 5, 3)
        x = x.reshape(-1, c, rows * h, columns * w)[:, :, :height, :width]
        if c == 1:
            x = x.reshape(n, channels, height, width)
        x = x[:, :channels]
        return (np.moveaxis(x, 1, -1) if last else x).reshape(shape)

    def network(self, z: np.ndarray, level: int) -> np.ndarray:
        """Cells in the units of the data, from codes."""
        arrays, shifts = self.arrays, self.structure["shifts"]
        back = arrays["back"][level].astype(np.int64)
        need(((back >= 1) & (back <= 1 << 24)).all(), "A step of the model is out of its range.")
        a = np.clip(z * back[:, None, None], -(1 << 24), 1 << 24)
        path = (arrays["path.weight"], arrays["path.bias"], shifts["path"])
        y, largest, i = layer(*path, a, 1 << 24), 1 << 24, 0
        while f"net.{i}.weight" in arrays:
            if i:
                a, largest = np.clip(a, 0, 65535), 65535
            named = (arrays[f"net.{i}.weight"], arrays[f"net.{i}.bias"], shifts[f"net.{i}"])
            a, i = layer(*named, a, largest), i + 1
        y = y + a if i else y
        n, _, rows, columns = z.shape
        cells = (self.channels, self.height, self.width)
        x = y.reshape(n, *cells, rows, columns).astype(np.float64)
        scale, shift, low, high = (
            np.broadcast_to(arrays[name], cells)[..., None, None]
            for name in ("scale", "shift", "low", "high")
        )
        finite = np.isfinite(scale).all() and np.isfinite(shift).all()
        need(
            finite and not np.isnan(low).any() and not np.isnan(high).any(), "Units are no numbers."
        )
        with np.errstate(over="ignore"):
            return np.minimum(np.maximum(x * scale + shift, low), high)


def as_dtype(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A prediction in the dtype of a lossy chunk."""
    if dtype.kind == "b":
        return x >= 0.5
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return np.clip(x, float(limits.min), float(limits.max)).astype(dtype)
    limits = np.iinfo(dtype)
    top = float(limits.max) if dtype.itemsize < 8 else np.nextafter(float(limits.max), 0)
    return np.clip(np.rint(x), float(limits.min), top).astype(dtype)
