"""Arrays of integers ("2: integers", "Integers"). Everything wraps around at 64 bits."""

from __future__ import annotations

import math
import struct

import numpy as np

from .container import inflate, need
from .entropy import Symbols

Shape = tuple[int, ...]
GROUPS = 18


def unzigzag(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.uint64)
    return ((z >> np.uint64(1)) ^ (np.uint64(0) - (z & np.uint64(1)))).view(np.int64)


def view_of(shape: Shape) -> Shape:
    view = [size for size in shape if size != 1] or [1]
    while len(view) > 4:
        view[:2] = [view[0] * view[1]]
    return tuple(view)


def read_base(data: bytes) -> tuple[int, int]:
    """The base as a number below 2⁶⁴, and where the rest begins."""
    number = 0
    for k, byte in enumerate(data[1:11]):
        number |= (byte & 127) << 7 * k
        if byte < 128:
            need(number < 1 << 64, "The base of integers is too large.")
            return number, 2 + k
    need(False, "The base of integers is cut off, or too long.")
    raise AssertionError


def integers(
    data: bytes, shape: Shape, step: int = 1, prediction: np.ndarray | None = None,
    palettes: bool = True,
) -> np.ndarray:  # fmt: skip
    """base + running sums of D + prediction."""
    if not math.prod(shape):
        need(not data, "Integers of no elements have bytes.")
        return np.zeros(shape, np.int64)
    need(data, "Integers are cut off.")
    view, form, mask = view_of(shape), data[0] & 15, data[0] >> 4
    need(mask >> len(view) == 0, "Integers are summed along an axis that is not there.")
    need(mask == 0 or (step == 1 and form != 3), "Integers are summed that may not be.")
    base, at = read_base(data)
    rest = data[at:]
    if form == 2:
        out = Coded(rest, view, step).read()
    else:
        need(step == 1, "Integers with a step are not coded.")
        need(form in (0, 1) or (form == 3 and palettes), f"Integers have no form {form} here.")
        out = {0: packed, 1: deflated, 3: palette}[form](rest, view)
    for axis in range(len(view)):
        if mask >> axis & 1:
            out = np.cumsum(out, axis=axis, dtype=np.int64)
    out = out.reshape(shape) + unzigzag(np.array([base], np.uint64))
    return out if prediction is None else out + prediction


def packed(data: bytes, view: Shape) -> np.ndarray:
    count = math.prod(view)
    need(count <= 4096 and data and data[0] <= 64, "Packed integers are too many or too wide.")
    width = data[0]
    need(len(data) == 1 + (count * width + 7) // 8, "Packed integers have another length.")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=1), bitorder="little")
    need(not bits[count * width :].any(), "Packed integers do not end in zeros.")
    powers = np.uint64(1) << np.arange(width, dtype=np.uint64)
    z = (bits[: count * width].reshape(count, width) * powers).sum(1, dtype=np.uint64)
    return unzigzag(z).reshape(view)


def deflated(data: bytes, view: Shape) -> np.ndarray:
    count = math.prod(view)
    need(data and 1 <= data[0] <= 8, "Deflated integers have another width.")
    plain = inflate(data[1:], count * data[0], "An array of integers", -15)
    wide = np.zeros((count, 8), np.uint8)
    wide[:, : data[0]] = np.frombuffer(plain, np.uint8).reshape(count, -1)
    return unzigzag(wide.view("<u8")[:, 0]).reshape(view)


def palette(data: bytes, view: Shape) -> np.ndarray:
    need(len(data) >= 6, "A palette is cut off.")
    count, size = struct.unpack_from("<HI", data)
    need(size <= len(data) - 6, "A palette is cut off.")
    values = integers(data[6 : 6 + size], (count + 1,), palettes=False)
    ranks = integers(data[6 + size :], view, palettes=False)
    inside = ranks.min() >= 0 and ranks.max() <= count
    need(inside, "A rank is outside of its palette.")
    return values[ranks]


def weight(code: int) -> int:
    return code if code < 4 else (4 + ((code - 4) & 3)) << ((code - 4) >> 2)


def starts_of(codes: list[int]) -> np.ndarray:
    """The 257 starts of a table of 256 tokens, from the codes of the first ones."""
    need(all(0 <= code <= 60 for code in codes), "A table has a code that does not exist.")
    weights = [weight(code) for code in codes] + [0] * (256 - len(codes))
    some, total = sum(map(bool, weights)), sum(weights)
    need(total, "A table has no tokens.")
    f = [1 + v * (65536 - some) // total if v else 0 for v in weights]
    f[weights.index(max(weights))] += 65536 - sum(f)
    return np.cumsum([0, *f], dtype=np.int64)


class Coded:
    """Form 2: residuals of passes from coarse to fine, in one run of coded symbols."""

    def __init__(self, data: bytes, view: Shape, step: int) -> None:
        need(len(data) >= 7, "Coded integers are cut off.")
        h, order, kinds, context, self.shift, alpha, beta = data[:7]
        axes = [order >> 2 * j & 3 for j in range(min(h, 4))]
        good = h <= len(view) and len(set(axes)) == h and max(axes, default=0) < len(view)
        need(good, "The axes of coded integers are not there.")
        self.kinds = [kinds >> 2 * k & 3 for k in range(4)]
        self.context, self.block = context & 15, context >> 4
        known = max(self.kinds) < 3 and self.context < 3 and self.shift < 64 and beta >= 16
        need(known, "Coded integers have a setting that is not known.")
        self.view, self.axes = view, axes
        self.levels = (max((view[axis] for axis in axes), default=1) - 1).bit_length()
        self.steps = [step]
        for _ in range(self.levels):
            self.steps.append(max(self.steps[-1] * 16 // (16 + alpha), step * 16 // beta) | 1)
        self.symbols = Symbols(data[7:])
        self.read_tables()

    def numbers(self, count: int) -> list[int]:
        starts = [65536 * k // (k + 1) for k in range(256)] + [65536]
        which = np.zeros(count, np.int64)
        return self.symbols.take(np.array([starts], np.int64), which).tolist()

    def read_tables(self) -> None:
        count = self.numbers(1)[0] + 1
        need(count <= 32, "Coded integers have too many tables.")
        widths = [width + 1 for width in self.numbers(count)]
        tables = []
        for width in widths:
            steps = unzigzag(np.array(self.numbers(width)))
            tables.append(starts_of(np.cumsum(steps).tolist()))
        self.starts = np.stack(tables)
        runs = [run + 1 for run in self.numbers(GROUPS)]
        lengths = [[n + 1 for n in self.numbers(run - 1)] for run in runs]
        need(all(sum(row) < 256 for row in lengths), "The runs of a group are too long.")
        named = [self.numbers(run) for run in runs]
        need(max(map(max, named)) < count, "A run names a table that is not there.")
        full = [[*row, 256 - sum(row)] for row in lengths]
        self.table = np.stack([np.repeat(*pair) for pair in zip(named, full, strict=True)])

    def read(self) -> np.ndarray:
        self.values = np.zeros(self.view, np.int64)
        self.magnitudes = np.zeros(self.view, np.int64)
        stride = [1 << self.levels if i in self.axes else 1 for i in range(len(self.view))]
        self.first_pass(tuple(slice(None, None, s) for s in stride))
        for level in reversed(range(self.levels)):
            for place, axis in enumerate(self.axes):
                if self.view[axis] > 1 << level:
                    self.next_pass(level, place, axis, stride)
                stride[axis] = 1 << level
        self.symbols.finish()
        return self.values

    def first_pass(self, where: tuple[slice, ...]) -> None:
        shape = self.values[where].shape
        classes = self.columns(shape, where) if self.context == 2 else np.zeros(shape, np.int64)
        t = self.residuals(16, classes, self.levels)
        self.keep(where, t)
        if self.kinds[3]:
            t = np.cumsum(t, dtype=np.int64).reshape(shape)
        self.values[where] = t * np.int64(self.steps[-1])

    def next_pass(self, level: int, place: int, axis: int, stride: list[int]) -> None:
        unit = 1 << level
        known = [slice(None, None, s) for s in stride]
        known[axis] = slice(0, None, 2 * unit)
        target = list(known)
        target[axis] = slice(unit, None, 2 * unit)
        where = tuple(target)
        shape = self.values[where].shape
        classes = np.zeros(shape, np.int64)
        if self.context == 1:
            classes = neighbours(self.magnitudes[tuple(known)], axis, shape[axis])
        elif self.context == 2:
            classes = self.columns(shape, where)
        t = self.residuals(4 * min(level, 3) + place, classes, level)
        self.keep(where, t)
        k = np.moveaxis(self.values[tuple(known)], axis, -1)
        x = np.moveaxis(between(k, shape[axis], self.kinds[min(level, 3)]), -1, axis)
        self.values[where] = x + t * np.int64(self.steps[level])

    def columns(self, shape: Shape, where: tuple[slice, ...]) -> np.ndarray:
        return np.broadcast_to(np.arange(self.view[-1])[where[-1]] % 256, shape)

    def keep(self, where: tuple[slice, ...], t: np.ndarray) -> None:
        size = np.where(t == -(1 << 63), (1 << 63) - 1, np.abs(t))
        self.magnitudes[where] = np.minimum(size >> self.shift, 2047)

    def residuals(self, group: int, classes: np.ndarray, level: int) -> np.ndarray:
        count = classes.size
        out, there = np.zeros(count, np.uint64), np.ones(count, bool)
        if self.block:
            blocks = np.full(-(-count >> self.block), self.table[17, min(level, 4)])
            flags = self.symbols.take(self.starts, blocks) > 0
            there = np.repeat(flags, 1 << self.block)[:count]
        rows = self.table[group][classes.ravel()[there]]
        token = self.symbols.take(self.starts, rows)
        e = np.where(token < 16, 2, token >> 2)  # a token below 16 has no raw bits
        z = token.astype(np.uint64)
        wide = token >= 16
        z[wide] = (4 + (token[wide] & 3)).astype(np.uint64) << (e[wide] - 2).astype(np.uint64)
        for low in (0, 16, 32, 48):
            more = e - 2 > low
            bits = self.symbols.bits(np.minimum(16, e[more] - 2 - low))
            z[more] |= bits.astype(np.uint64) << np.uint64(low)
        out[there] = z
        return unzigzag(out).reshape(classes.shape)


def following(k: np.ndarray, cubic: bool) -> np.ndarray:
    """next(k): one value after the last ones … c, b, a."""
    a = k[..., -1:]
    if k.shape[-1] == 1:
        return a
    b = k[..., -2:-1]
    if k.shape[-1] == 2 or not cubic:
        return 2 * a - b
    return 3 * (a - b) + k[..., -3:-2]


def between(k: np.ndarray, count: int, kind: int) -> np.ndarray:
    """``count`` values between the known ones of the last axis."""
    if kind == 0:
        return np.zeros((*k.shape[:-1], count), np.int64)
    if count == k.shape[-1]:
        k = np.concatenate([k, following(k, kind == 2)], axis=-1)
    if kind == 1:
        return (k[..., :-1] + k[..., 1:] + 1) >> 1
    before, after = following(k[..., ::-1], True), following(k, True)
    k = np.concatenate([before, k, after], axis=-1)
    return (9 * (k[..., 1:-2] + k[..., 2:-1]) - k[..., :-3] - k[..., 3:] + 8) >> 4


def neighbours(m: np.ndarray, axis: int, count: int) -> np.ndarray:
    """The classes of context 1, from the magnitudes of the known positions."""
    used = [i for i in range(m.ndim) if i != axis][-2:]
    for i in used:
        line = np.moveaxis(m, i, -1)
        wide = np.concatenate([line[..., :1], line, line[..., -1:]], axis=-1)
        m = np.moveaxis(2 * line + wide[..., :-2] + wide[..., 2:], -1, i)
    m = np.moveaxis(m, axis, -1)
    if count == m.shape[-1]:
        m = np.concatenate([m, m[..., -1:]], axis=-1)
    total = (m[..., :-1] + m[..., 1:]) << (4 - 2 * len(used))
    e = np.frexp(total.astype(np.float64))[1].astype(np.int64)  # the bit length: totals are small
    more = np.where(e > 1, total >> np.maximum(e - 2, 0) & 1, 0)
    return np.moveaxis(np.where(total == 0, 0, 2 * e + more), -1, axis)
