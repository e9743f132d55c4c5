"""Networks in whole numbers: the same answer on every machine, bit for bit.

    a = clip(q · back)                          code times its level's step, 2⁻ᴬ of a scaled unit
    h = clip(⌊(W a + b + 2ˢ⁻¹) / 2ˢ⌋, 0, 65535)  each hidden layer, over the cells around it
    y = ⌊(V h + c + 2ᵗ⁻¹) / 2ᵗ⌋ + ⌊(P a + d + 2ᵘ⁻¹) / 2ᵘ⌋

Products are carried in floats, where every partial sum is a whole number below 2²⁴ (float32) or 2⁵³
(float64). Such sums are exact: the order of summation, threads, libraries and devices cannot change
a bit.

Also here: the bytes of a model (`Payload`), and how the layers of a trained network are rounded to
whole numbers (`quantize_network`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from narrows.compression.format import Array
from narrows.exceptions import Corrupt, TooLarge

DTYPES = ("<f8", "<i2", "<i4", "<i8", "<u2", "<u4", "|i1", "|u1")
MAX_JSON_BYTES = 1 << 16
MAX_PAYLOAD_BYTES = 1 << 28
MAX_ARRAYS = 256
MAX_INPUT = 1 << 24  # of a code times its step
MAX_HIDDEN = 65535  # of a hidden activation
EXACT = 1 << 53  # float64 holds every whole number below this
BLOCK_NUMBERS = 1 << 21  # numbers of a layer that are computed at once
MAX_LAYERS = 16
MAX_KERNEL = 15  # the side of a kernel
MAX_WIDTH = 4096  # outputs of a layer that is not the last
MAX_SHIFT = 52
MAX_FRACTION = 40
# for quantising
MAX_WEIGHT = 32767  # int16
MAX_BIAS = 2.0**48
HEADROOM = 4.0  # times the largest activation in the sample, before it is clipped
FRACTION_BITS = 20  # of an output in scaled units, at most
STEP_BITS = 10  # of the smallest step


@dataclass(frozen=True)
class Payload:
    """What a decoder needs of a model: arrays by name, and what they are for, in canonical bytes.

        u32 length | JSON {"arrays": [[name, dtype, shape], ...], "structure": {...}} | the arrays

    The arrays follow in the order of their names, in C order, little-endian. The SHA-256 of these
    bytes identifies the model: equal bytes decode alike on every machine.
    """

    arrays: dict[str, Array]
    structure: dict[str, Any]

    @cached_property
    def data(self) -> bytes:
        """The canonical bytes."""
        arrays = [(name, a, _dtype_code(a)) for name, a in sorted(self.arrays.items())]
        listed = [[name, code, list(a.shape)] for name, a, code in arrays]
        head = _canonical({"arrays": listed, "structure": self.structure})
        blobs = [np.ascontiguousarray(a, code).tobytes() for _, a, code in arrays]
        return b"".join([len(head).to_bytes(4, "little"), head, *blobs])

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Payload:
        """The inverse of ``data``; raises ``Corrupt`` or ``TooLarge`` for anything else."""
        head, at = _parse_head(data)
        names = [name for name, _, _ in head["arrays"]]
        if names != sorted(set(names)) or len(names) > MAX_ARRAYS:
            raise Corrupt("the model's arrays are not in order")
        arrays = {}
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
        """An array that must exist, with one of these kinds of dtype ("iu", "f")."""
        found = self.arrays.get(name)
        if found is None or found.dtype.kind not in kinds or found.ndim != ndim:
            raise Corrupt(f"the model has no usable {name!r}")
        return found

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number of the structure within these bounds."""
        value = self.structure.get(name)
        if type(value) is not int or not low <= value <= high:
            raise Corrupt(f"the model's {name!r} is {value!r}, not from {low} to {high}")
        return value


def _canonical(head: dict[str, Any]) -> bytes:
    return json.dumps(head, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _dtype_code(array: Array) -> str:
    code = array.dtype.newbyteorder("<").str
    if code not in DTYPES:
        raise TypeError(f"a payload cannot hold {array.dtype}")
    return code


def _parse_head(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON at the start of a payload, and the position after it."""
    if len(data) > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"the model has {len(data)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
    end = 4 + int.from_bytes(data[:4], "little")
    if len(data) < 4 or end > min(4 + MAX_JSON_BYTES, len(data)):
        raise Corrupt("the model has no head")
    try:
        head = json.loads(data[4:end])
        canonical = _canonical(head) == data[4:end]
    except (ValueError, RecursionError) as error:
        raise Corrupt("the model's head is not JSON of finite numbers") from error
    if not canonical:
        raise Corrupt("the model's head is not canonical JSON")
    fine = isinstance(head, dict) and set(head) == {"arrays", "structure"}
    if not (fine and isinstance(head["structure"], dict) and _lists_arrays(head["arrays"])):
        raise Corrupt("the model's head has wrong fields")
    return head, end


def _lists_arrays(entries: object) -> bool:
    """Whether these are names, dtypes and shapes of arrays."""
    return isinstance(entries, list) and all(
        isinstance(entry, list)
        and [type(part) for part in entry] == [str, str, list]
        and entry[1] in DTYPES
        and len(entry[2]) <= 8
        and all(type(size) is int and 0 <= size <= MAX_PAYLOAD_BYTES for size in entry[2])
        for entry in entries
    )


def exact_kind(bound: int) -> np.dtype[Any] | None:
    """The smallest float that holds every whole number up to ``bound``; None if none does.

    >>> exact_kind(1 << 20), exact_kind(1 << 24), exact_kind(1 << 53)
    (dtype('float32'), dtype('float64'), None)
    """
    if bound < 1 << 24:
        return np.dtype(np.float32)
    return np.dtype(np.float64) if bound < EXACT else None


def product(a: Array, w: Array) -> Array:
    """a · w, (n, k) times (k, m), both float32 or both float64, exact within the bound above.

    In float64 torch does it where it is installed: on some machines three times as fast as NumPy.
    In float32 it never does, because there a user may have allowed torch to round (TF32).
    """
    if a.dtype == np.float64:
        try:
            import torch
        except ImportError:
            pass
        else:
            # torch warns of read-only memory, which the arrays of a file often are
            left, right = (torch.from_numpy(np.require(m, None, ["C", "W"])) for m in (a, w))
            return np.asarray(torch.mm(left, right).numpy())
    return np.asarray(a @ w)


def rounding_bias(weight: Array, bias: Array, shift: int, max_input: int) -> Array:
    """b + 2ˢ⁻¹ in float64; refuses a layer whose sums could leave the exact whole numbers.

    ``weight`` is (out, in, side, side), ``bias`` (..., out), ``max_input`` the largest input.
    """
    bias, half = bias.astype(np.float64), 2.0 ** (shift - 1) if shift else 0.0
    reach = np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)) * max_input
    if float((reach + np.abs(bias)).max(initial=0)) + half >= EXACT:
        raise Corrupt("a layer of the model could leave the whole numbers that are exact")
    return bias + half


def shifted(total: Array, bias: Array, shift: int) -> Array:
    """⌊(total + bias) / 2ˢ⌋, in place."""
    total += bias
    total *= 2.0**-shift
    return np.floor(total, out=total)


def hidden(total: Array, bias: Array, shift: int) -> Array:
    """clip(⌊(total + bias) / 2ˢ⌋, 0, 65535), in place."""
    h = shifted(total, bias, shift)
    return np.clip(h, 0, MAX_HIDDEN, out=h)


class IntegerLayer:
    """a ↦ ⌊(W a + b + 2ˢ⁻¹) / 2ˢ⌋ on a grid of cells, zeros around it.

    ``weight`` is (out, in, side, side), ``max_input`` the largest |a| that may come.
    """

    def __init__(self, weight: Array, bias: Array, shift: int, max_input: int) -> None:
        out, into, side, other = weight.shape
        odd = side == other <= MAX_KERNEL and side % 2
        if not odd or bias.shape != (out,) or not (out and into):
            raise Corrupt("a layer of the model has impossible sides")
        self.bias = rounding_bias(weight, bias, shift, max_input)
        self.side, self.shift = side, shift
        self.into, self.out = into, out
        self.kernels = weight.astype(np.float64).transpose(2, 3, 1, 0)  # (side, side, in, out)

    def __call__(self, a: Array) -> Array:
        """(n, rows, columns, in) → (n, rows, columns, out)."""
        n, rows, columns, _ = a.shape
        kernels, reach = self.kernels, self.side // 2
        if (rows, columns) == (1, 1):  # a cell alone has only zeros around it
            kernels, reach = kernels[reach : reach + 1, reach : reach + 1], 0
        if reach:
            a = np.pad(a, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        parts = (
            product(a[:, i : i + rows, j : j + columns].reshape(-1, self.into), kernels[i, j])
            for i, j in np.ndindex(*kernels.shape[:2])
        )
        total = next(parts)
        for part in parts:
            total += part
        return shifted(total, self.bias, self.shift).reshape(n, rows, columns, self.out)


class IntegerNetwork:
    """The decoder's network: a linear path plus layers with ReLU between."""

    def __init__(self, payload: Payload) -> None:
        self.fraction = payload.number("fraction", 0, MAX_FRACTION)
        self.back = payload.get("back", "iu", 2).astype(np.float64)
        if not self.back.size or (self.back < 1).any() or (self.back > MAX_INPUT).any():
            raise Corrupt("the model's steps are out of range")
        self.n_levels, self.latent_dim = self.back.shape
        self.path = _layer(payload, "path", MAX_INPUT)
        self.net: list[IntegerLayer] = []
        for i in count():
            if f"net.{i}.weight" not in payload.arrays:
                break
            if i >= MAX_LAYERS:
                raise Corrupt("the model has too many layers")
            self.net.append(_layer(payload, f"net.{i}", MAX_HIDDEN if i else MAX_INPUT))
        widths = [self.latent_dim, *(layer.out for layer in self.net)]
        fits = all(layer.into == w for layer, w in zip(self.net, widths, strict=False))
        fits = fits and (not self.net or widths[-1] == self.path.out) and self.path.side == 1
        if any(layer.out > MAX_WIDTH for layer in self.net[:-1]):
            raise Corrupt("a layer of the model is too wide")
        if not fits or self.path.into != self.latent_dim:
            raise Corrupt("the layers of the model do not fit one another")
        self.numbers = self.path.out
        self._halo = sum(layer.side // 2 for layer in self.net)

    def __call__(self, codes: Array, level: int) -> Array:
        """Codes (n, latent_dim, rows, columns) → (n, numbers, rows, columns), int64."""
        n, _, rows, columns = codes.shape
        out = np.empty((n, self.numbers, rows, columns), np.int64)
        widest = max([layer.out for layer in self.net] + [self.numbers])
        size = max(1, BLOCK_NUMBERS // (widest * columns))  # rows of cells at once
        if size >= rows:
            step = max(1, size // rows)
            for i in range(0, n, step):
                out[i : i + step] = self._band(codes[i : i + step], level)
            return out
        for i in range(n):
            for top in range(0, rows, size):
                end = min(rows, top + size)
                low, high = max(0, top - self._halo), min(rows, end + self._halo)
                band = self._band(codes[i : i + 1, :, low:high], level)
                out[i : i + 1, :, top:end] = band[:, :, top - low : end - low]
        return out

    def _band(self, codes: Array, level: int) -> Array:
        """Some rows of cells, with those around them that they depend on."""
        a = codes.transpose(0, 2, 3, 1) * self.back[level]
        np.clip(a, -MAX_INPUT, MAX_INPUT, out=a)
        y = self.path(a)
        if self.net:
            for layer in self.net[:-1]:
                a = np.clip(layer(a), 0, MAX_HIDDEN)
            y = y + self.net[-1](a)
        return np.asarray(y.transpose(0, 3, 1, 2), np.int64)


def _layer(payload: Payload, name: str, max_input: int) -> IntegerLayer:
    shifts = payload.structure.get("shifts")
    shift = shifts.get(name) if isinstance(shifts, dict) else None
    if type(shift) is not int or not 0 <= shift <= MAX_SHIFT:
        raise Corrupt(f"the model has no usable shift for {name!r}")
    weight = payload.get(f"{name}.weight", "iu", 4)
    return IntegerLayer(weight, payload.get(f"{name}.bias", "iu", 1), shift, max_input)


def bits_for(largest: float, limit: float) -> int:
    """The largest n with largest · 2ⁿ ≤ limit, within −20 to 40."""
    return int(np.clip(np.floor(np.log2(limit / max(largest, 1e-30))), -20, 40))


class QuantizedLayer:
    """Weights times 2ⁿ as int16, for input with ``into`` and output with ``out`` fraction bits.

    The sums have at least ``min_out`` fraction bits.
    """

    def __init__(
        self, name: str, weight: Array, bias: Array, into: int, min_out: int | None = None
    ) -> None:
        self.name, self.weight, self.bias, self.into = name, weight, bias, into
        bits = bits_for(float(np.abs(weight).max()), MAX_WEIGHT)
        self.bits = min(bits, bits_for(float(np.abs(bias).max(initial=0)), MAX_BIAS) - into)
        if (
            min_out is not None and self.bits + into < min_out
        ):  # weights too large for int16: clipped
            self.bits = min_out - into
        self.max_out = self.out = self.bits + into  # a shift can only drop bits

    @property
    def shift(self) -> int:
        """The bits that the layer drops."""
        return self.max_out - self.out

    def limit_output(self, activations: Array, max_bits: int) -> None:
        """Choose the fraction bits with which such activations stay within MAX_HIDDEN."""
        largest = float(activations.max()) * HEADROOM
        self.out = min(bits_for(largest, MAX_HIDDEN), max_bits, self.max_out)

    def arrays(self) -> dict[str, Array]:
        """The whole numbers."""
        weight = np.rint(self.weight * 2.0**self.bits).clip(-MAX_WEIGHT, MAX_WEIGHT).astype("<i2")
        bias = np.rint(self.bias * 2.0**self.max_out).astype("<i8")
        return {f"{self.name}.weight": weight, f"{self.name}.bias": bias}


def quantize_network(
    path: tuple[Array, Array], net: Sequence[tuple[Array, Array]], steps: Array, sample: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and structure of an `IntegerNetwork`, from a trained network.

    Parameters
    ----------
    path : (weight (out, k, 1, 1), bias (out,))
    net : the same for each layer with a ReLU between, (out, in, side, side)
    steps : (levels, k)
        What a code is multiplied by.
    sample : (n, k, rows, columns)
        Typical codes times steps, which show how large activations become.
    """
    bits = min(STEP_BITS - int(np.floor(np.log2(max(float(steps.min()), 1e-12)))), 24)
    reach = float(np.abs(sample).max()) if sample.size else 1.0
    bits = min(bits, bits_for(reach * HEADROOM, MAX_INPUT))
    back = np.clip(np.rint(steps * 2.0**bits), 1, MAX_INPUT).astype(np.int32)
    layers = [QuantizedLayer("path", *path, bits)]
    a = sample.transpose(0, 2, 3, 1)
    for i, (weight, bias) in enumerate(net):
        layer = QuantizedLayer(f"net.{i}", weight, bias, bits)
        if i < len(net) - 1:
            a = np.maximum(convolve(a, weight) + bias, 0)
            layer.limit_output(a, 16)
            bits = layer.out
        layers.append(layer)
    ends = layers[:1] + layers[1:][-1:]  # these two are added, so they share their fraction
    fraction = min([FRACTION_BITS, *(layer.max_out for layer in ends)])
    arrays: dict[str, Array] = {"back": back}
    for layer in layers:
        layer.out = fraction if layer in ends else layer.out
        arrays |= layer.arrays()
    return arrays, {"shifts": {x.name: x.shift for x in layers}, "fraction": fraction}


def convolve(a: Array, weight: Array) -> Array:
    """(n, rows, columns, in) convolved with (out, in, side, side), zeros around it."""
    _, rows, columns, _ = a.shape
    side = weight.shape[2]
    reach = side // 2
    a = np.pad(a, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    seen = [
        a[:, i : i + rows, j : j + columns] @ weight[:, :, i, j].T
        for i, j in np.ndindex(side, side)
    ]
    return np.asarray(np.sum(seen, axis=0))
