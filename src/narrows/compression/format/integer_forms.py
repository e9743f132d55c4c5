"""The forms that integers take in a payload: bits, deflated bytes, coded residuals of a plan."""

from __future__ import annotations

import zlib
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.predictors import (
    ANCHORS,
    MOST_AXES,
    ZERO,
    Pass,
    Plan,
    busy,
    changes,
    members,
    sweep,
)
from narrows.compression.format.residual_tokens import (
    BLOCKS,
    GROUPS,
    TOKENS,
    cluster,
    codes_of,
    get_tables,
    get_values,
    lanes_for,
    put_raw,
    put_tables,
    tables_from,
    tokens_of,
    unzigzag,
    zigzag,
)
from narrows.exceptions import Corrupt

Array = NDArray[Any]
PACKED, DEFLATED, CODED, PALETTE = range(4)
MOST_PACKED = 4096  # values in packed bits
HEAD = 7  # bytes of a plan


class Symbols:
    """The residuals of one plan, by pass: tokens, contexts and raw bits, and what they cost."""

    def __init__(self, x: Array, plan: Plan, step: int = 1, free: Array | None = None) -> None:
        self.plan, self._x, self._free = plan, x, free
        self._rows: list[tuple[int, Array, Array | int]] = []
        sweep(x.shape, plan, step, self._code)
        self._count()

    def _code(self, one: Pass, expected: Array, width: int, classes: Array | int) -> Array:
        t = self._x[one.target] - expected
        if width > 1:
            steps = t // width  # rounded so that nothing overflows
            t = steps + (t - steps * width > width // 2)
        if self._free is not None and one.axis >= 0:
            t = np.where(self._free[one.target], 0, t)
        if one.group == ANCHORS and self.plan.kinds[3] != ZERO:
            t = changes(t)
        self._keep(one, zigzag(t).ravel(), classes if isinstance(classes, int) else classes.ravel())
        return t

    def _keep(self, one: Pass, z: Array, classes: Array | int) -> None:
        block = self.plan.block
        if block:
            blocks = busy(z, block)
            inside = members(blocks, block, len(z))
            self._rows.append((BLOCKS, blocks.astype(np.uint64), min(one.level, 4)))
            z = z[inside]
            classes = classes if isinstance(classes, int) else classes[inside]
        self._rows.append((one.group, z, classes))

    def _count(self) -> None:
        self._tokens = []
        raw = 0
        counts: list[tuple[int, Array]] = []
        for group, z, classes in self._rows:
            tokens, n_bits = tokens_of(z)
            self._tokens.append((tokens, n_bits))
            raw += int(n_bits.sum())
            flat = np.bincount(tokens + TOKENS * np.asarray(classes, np.int64), minlength=1)
            counts.append((group, flat))
        classes = max(-(-len(flat) // TOKENS) for _, flat in counts)
        total = np.zeros((GROUPS, classes * TOKENS), np.int64)
        for group, flat in counts:
            total[group, : len(flat)] += flat
        cube = total.reshape(GROUPS, classes, TOKENS)
        cube[0, 0, 0] += not cube.any()
        used = int(np.flatnonzero(cube.any(axis=(0, 1)))[-1]) + 1
        self._counts, self._maps, bits = cluster(cube[..., :used], self.plan.context != 2)
        self.bits = bits + raw + 8 * (HEAD + 10)

    def payload(self) -> bytes:
        """The coded bytes, without the head."""
        encoder = Encoder()
        codes = codes_of(self._counts)
        tables = tables_from(codes)
        maps = np.pad(self._maps, ((0, 0), (0, 256 - self._maps.shape[1])), mode="edge")
        put_tables(encoder, codes, maps)
        for (group, z, classes), (tokens, n_bits) in zip(self._rows, self._tokens, strict=True):
            encoder.put_symbols(tokens, tables, maps[group][classes])
            put_raw(encoder, z, n_bits)
        return encoder.finish(lanes_for(encoder))


def head_of(plan: Plan) -> bytes:
    """A plan in seven bytes; the differences stand in the first byte of all."""
    order = sum(axis << 2 * i for i, axis in enumerate(plan.order))
    kinds = sum(kind << 2 * i for i, kind in enumerate(plan.kinds))
    return bytes(
        [
            len(plan.order),
            order,
            kinds,
            plan.context | plan.block << 4,
            plan.shift,
            plan.alpha,
            plan.beta,
        ]
    )


def plan_from(mask: int, head: bytes, n_axes: int) -> Plan:
    """The plan that ``head`` tells, or ``Corrupt``."""
    n, order, kinds, context, shift, alpha, beta = head
    axes = tuple(order >> 2 * i & 3 for i in range(min(n, MOST_AXES)))
    four = tuple(kinds >> 2 * i & 3 for i in range(4))
    block, context = context >> 4, context & 15
    fine = n <= n_axes and len(set(axes)) == n and all(axis < n_axes for axis in axes)
    if not fine or max(four) > 2 or context > 2 or shift > 63 or beta < 16:
        raise Corrupt("the integers are coded in a way that is not known")
    return Plan(mask, axes, four, context, shift, alpha, beta, block)  # type: ignore[arg-type]


def decode_symbols(data: bytes, shape: tuple[int, ...], plan: Plan, step: int) -> Array:
    """The values of `Symbols.payload`."""
    decoder = Decoder(data)
    tables, maps = get_tables(decoder)

    def code(one: Pass, expected: Array, width: int, classes: Array | int) -> Array:
        sizes = [len(range(*s.indices(n))) for s, n in zip(one.target, shape, strict=True)]
        count = prod(sizes)
        mine = classes if isinstance(classes, int) else classes.ravel()
        if not plan.block:
            tokens = decoder.get(count, tables, maps[one.group][mine])
            return get_values(decoder, tokens).reshape(sizes)
        table = maps[BLOCKS][min(one.level, 4)]
        blocks = decoder.get(-(-count >> plan.block), tables, table)
        inside = members(blocks, plan.block, count)
        mine = mine if isinstance(mine, int) else mine[inside]
        tokens = decoder.get(int(inside.sum()), tables, maps[one.group][mine])
        t = np.zeros(count, np.int64)
        t[inside] = get_values(decoder, tokens)
        return t.reshape(sizes)

    values = sweep(shape, plan, step, code)
    decoder.finish()
    return values


def put_base(value: int) -> bytes:
    """A number as LEB128 of its zigzag."""
    z = int(zigzag(np.asarray([value], np.int64))[0])
    out = bytearray()
    while z > 127:
        out.append(z & 127 | 128)
        z >>= 7
    return bytes([*out, z])


def get_base(data: bytes, at: int) -> tuple[Array, int]:
    """The number at ``at``, and where it ends."""
    z = 0
    for i in range(10):
        if at + i >= len(data):
            break
        z |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            if z >> 64:
                break
            return unzigzag(np.asarray([z], np.uint64)), at + i + 1
    raise Corrupt("a number is cut short")


def packed(x: Array) -> bytes:
    """Few integers in bits, all equally wide."""
    z = zigzag(x).ravel()
    width = int(z.max()).bit_length()
    bits = (z[:, None] >> np.arange(width, dtype=np.uint64)) & np.uint64(1)
    return bytes([width]) + np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def unpacked(data: bytes, n: int) -> Array:
    """The inverse of `packed`."""
    if not data or n > MOST_PACKED or data[0] > 64 or len(data) - 1 != (n * data[0] + 7) // 8:
        raise Corrupt("packed integers are not as long as they should be")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=1), bitorder="little")
    if bits[n * data[0] :].any():
        raise Corrupt("packed integers end in what no encoder wrote")
    rows: Array = bits[: n * data[0]].reshape(n, data[0]).astype(np.uint64)
    return unzigzag((rows << np.arange(data[0], dtype=np.uint64)).sum(axis=1, dtype=np.uint64))


def deflated(x: Array, level: int = 6) -> bytes:
    """Integers as narrow as the widest, through raw deflate."""
    z = zigzag(x).ravel()
    width = max(1, (int(z.max()).bit_length() + 7) // 8)
    narrow = z.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return bytes([width]) + packer.compress(narrow.tobytes()) + packer.flush()


def inflated(data: bytes, n: int) -> Array:
    """The inverse of `deflated`."""
    if not data or not 1 <= data[0] <= 8:
        raise Corrupt("deflated integers are of no known width")
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(data[1:], n * data[0] + 1)
    except zlib.error as error:
        raise Corrupt("deflated integers are damaged") from error
    if len(plain) != n * data[0] or not unpacker.eof or unpacker.unused_data:
        raise Corrupt("deflated integers are not as long as they should be")
    wide = np.zeros((n, 8), np.uint8)
    wide[:, : data[0]] = np.frombuffer(plain, np.uint8).reshape(n, data[0])
    return unzigzag(wide.view("<u8")[:, 0].astype(np.uint64))
