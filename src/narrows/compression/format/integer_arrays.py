"""Arrays of integers as bytes: predicted, then coded by how well the neighbours were predicted.

    u8 form and axes of differences | LEB128 base | body:

    PACKED    integers in equally many bits, for a few
    DEFLATED  integers in equally many bytes, through raw deflate
    CODED     residuals of a `Plan` as tokens, through the entropy coder
    PALETTE   a list of the values that occur, and ranks in it

`encode_integers` tries many plans on a part of the array and keeps the smallest. Exact for all of
int64: every sum is taken modulo 2⁶⁴. docs/format-methods.md specifies the bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from narrows.compression.format import Array, predictors
from narrows.compression.format import residual_tokens as tokens
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.predictors import Pass, Plan
from narrows.exceptions import Corrupt

PACKED, DEFLATED, CODED, PALETTE = range(4)
MAX_PACKED = 4096  # integers in packed form
HEAD = 7  # bytes of a plan
HEAD_BITS = 8 * (HEAD + 10)  # of a plan, and about the rest around the symbols
MAX_SAMPLE = 1 << 17  # integers on which plans are compared
MAX_COLORS = 4096  # of a palette
SPARSE_BITS = 0.5  # bits an integer, below which blocks of zeros are tried
# blocks of zeros decode faster, so they are chosen even where they cost 2 % and 128 bits more
BLOCK_COST, BLOCK_COST_BITS = 1.02, 128
N_CLASSES = {predictors.NO_CONTEXT: 1, predictors.NEIGHBOURS: 34}  # of contexts
N_BLOCK_CLASSES = 5  # levels 0 to 3, and all above
TIGHTER = ((0, 16), (4, 32), (8, 48), (12, 48), (16, 64))  # alpha, beta that are tried, in 16ths
UNKNOWN = "the integers are coded in an unknown way"


def encode_integers(
    q: Array, prediction: Array | None = None, *, step: int = 1, free: Array | None = None
) -> bytes:
    """Integers of any shape as bytes, in the smallest of several ways.

    Parameters
    ----------
    q : int64, any shape
    prediction : int64, like q, optional
        Expected values; the decoder must be given the same.
    step : int
        An odd number: each integer may come back changed by up to ⌊step / 2⌋.
    free : bool, like q, optional
        Where any integer may come back.

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
    view = predictors.view_of(q.shape)
    q = q.reshape(view)
    if prediction is not None:
        q = q - np.asarray(prediction, np.int64).reshape(view)
    return smallest(q, step, None if free is None else free.reshape(view))


def decode_integers(
    payload: bytes, shape: Sequence[int], prediction: Array | None = None, *, step: int = 1
) -> Array:
    """The integers that `encode_integers` was given, within ⌊step / 2⌋.

    Raises ``Corrupt`` for bytes that no encoder writes. The shape and the prediction are trusted.
    """
    view = predictors.view_of(shape)
    if prod(shape) == 0:
        if payload:
            raise Corrupt("an empty array is followed by bytes")
        return np.zeros(shape, np.int64)
    values = _decode(bytes(payload), view, step)
    if prediction is not None:
        values = values + np.asarray(prediction, np.int64).reshape(view)
    return values.reshape(shape)


def _decode(payload: bytes, view: tuple[int, ...], step: int, in_palette: bool = False) -> Array:
    if not payload:
        raise Corrupt("the integers are missing")
    form, mask = payload[0] & 15, payload[0] >> 4
    if form > PALETTE or mask >> len(view) or (mask and (step > 1 or form == PALETTE)):
        raise Corrupt(UNKNOWN)
    if (form != CODED and step > 1) or (form == PALETTE and in_palette):
        raise Corrupt(UNKNOWN)
    base, at = _get_base(payload, 1)
    if form == PALETTE:
        return base + _decode_palette(payload[at:], view)
    if form == CODED:
        if len(payload) < at + HEAD:
            raise Corrupt("the integers are cut short")
        plan = _unpack_plan(mask, payload[at : at + HEAD], len(view))
        x = _decode_residuals(payload[at + HEAD :], view, plan, step)
    else:
        x = (_unpack_bits if form == PACKED else _inflate)(payload[at:], prod(view)).reshape(view)
    return base + predictors.undo_difference(x, mask)


def _decode_palette(data: bytes, view: tuple[int, ...]) -> Array:
    if len(data) < 6:
        raise Corrupt(UNKNOWN)
    count, length = int.from_bytes(data[:2], "little") + 1, int.from_bytes(data[2:6], "little")
    palette = _decode(data[6 : 6 + length], predictors.view_of((count,)), 1, in_palette=True)
    ranks = _decode(data[6 + length :], view, 1, in_palette=True)
    if ranks.min() < 0 or ranks.max() >= count:
        raise Corrupt("an integer is not in its palette")
    return palette[ranks]


class Residuals:
    """The residuals of a plan, pass by pass: tokens, contexts and raw bits, and their cost.

    ``bits`` estimates the size of ``payload()`` without coding it.
    """

    def __init__(self, x: Array, plan: Plan, step: int = 1, free: Array | None = None) -> None:
        self.plan, self._x, self._free = plan, x, free
        columns = min(x.shape[-1], tokens.CLASSES)
        classes = columns if plan.context == predictors.COLUMNS else N_CLASSES[plan.context]
        classes = max(classes, N_BLOCK_CLASSES if plan.block else 1)
        counts = self._counts = np.zeros((tokens.GROUPS, classes, tokens.TOKENS), np.int64)
        self._parts: list[tuple[int, Array, Array | int, Array, Array]] = []
        predictors.sweep(x.shape, plan, step, self._code)
        counts[0, 0, 0] += not counts.any()  # a table needs one symbol at least
        used = int(np.flatnonzero(counts.any(axis=(0, 1)))[-1]) + 1
        tables = tokens.cluster(counts[..., :used], ordered=plan.context != predictors.COLUMNS)
        self._table_counts, self._maps, bits = tables
        raw = sum(int(n_bits.sum()) for *_, n_bits in self._parts)
        self.bits = bits + raw + HEAD_BITS

    def _code(self, one: Pass, expected: Array, width: int, classes: Array | int) -> Array:
        t = self._x[one.target] - expected
        if width > 1:
            steps = t // width  # rounded to the nearest, in a way that cannot overflow
            t = steps + (t - steps * width > width // 2)
        if self._free is not None and one.axis >= 0:
            t = np.where(self._free[one.target], 0, t)
        if one.group == predictors.ANCHORS and self.plan.kinds[3] != predictors.ZERO:
            t = predictors.changes(t)
        z, block = tokens.zigzag(t).ravel(), self.plan.block
        classes = classes if isinstance(classes, int) else classes.ravel()
        if block:
            blocks = np.logical_or.reduceat(z != 0, np.arange(0, len(z), 1 << block))
            self._add(tokens.BLOCKS, blocks.astype(np.uint64), min(one.level, N_BLOCK_CLASSES - 1))
            inside = _inside(blocks, block, len(z))
            z, classes = z[inside], classes if isinstance(classes, int) else classes[inside]
        self._add(one.group, z, classes)
        return t

    def _add(self, group: int, z: Array, classes: Array | int) -> None:
        symbols, n_bits = tokens.tokens_of(z)
        self._parts.append((group, z, classes, symbols, n_bits))
        counts = self._counts[group]
        place = symbols + tokens.TOKENS * np.asarray(classes, np.int64)
        counts += np.bincount(place, minlength=counts.size).reshape(counts.shape)

    def payload(self) -> bytes:
        """The coded bytes, without the head."""
        encoder = Encoder()
        codes = tokens.codes_of(self._table_counts)
        tables = tokens.tables_from(codes)
        more = tokens.CLASSES - self._maps.shape[1]
        maps = np.pad(self._maps, ((0, 0), (0, more)), mode="edge")
        tokens.put_tables(encoder, codes, maps)
        for group, z, classes, symbols, n_bits in self._parts:
            encoder.put_symbols(symbols, tables, maps[group][classes])
            tokens.put_raw(encoder, z, n_bits)
        return encoder.finish(tokens.lanes_for(encoder))


def _inside(blocks: Array, block: int, n: int) -> Array:
    """Which of ``n`` residuals, in C order, lie in the blocks of 2^block that are set."""
    return np.repeat(blocks.astype(bool), 1 << block)[:n]


def _decode_residuals(data: bytes, shape: tuple[int, ...], plan: Plan, step: int) -> Array:
    """The values of `Residuals.payload`."""
    decoder = Decoder(data)
    tables, maps = tokens.get_tables(decoder)

    def code(one: Pass, expected: Array, width: int, classes: Array | int) -> Array:
        sizes = [len(range(*s.indices(n))) for s, n in zip(one.target, shape, strict=True)]
        count = prod(sizes)
        mine = maps[one.group][classes if isinstance(classes, int) else classes.ravel()]
        if not plan.block:
            return tokens.get_values(decoder, decoder.get(count, tables, mine)).reshape(sizes)
        table = maps[tokens.BLOCKS][min(one.level, N_BLOCK_CLASSES - 1)]
        blocks = decoder.get(-(-count >> plan.block), tables, table)
        inside = _inside(blocks, plan.block, count)
        mine = mine[inside] if mine.ndim else mine
        t = np.zeros(count, np.int64)
        t[inside] = tokens.get_values(decoder, decoder.get(int(inside.sum()), tables, mine))
        return t.reshape(sizes)

    values = predictors.sweep(shape, plan, step, code)
    decoder.finish()
    return values


def head_of(plan: Plan) -> bytes:
    """A plan in seven bytes; its axes of differences are in the first byte of the payload."""
    order = sum(axis << 2 * i for i, axis in enumerate(plan.order))
    kinds = sum(kind << 2 * i for i, kind in enumerate(plan.kinds))
    context = plan.context | plan.block << 4
    return bytes([len(plan.order), order, kinds, context, plan.shift, plan.alpha, plan.beta])


def _unpack_plan(mask: int, head: bytes, n_axes: int) -> Plan:
    """The inverse of `head_of`."""
    n, order, kinds, context, shift, alpha, beta = head
    axes = tuple(order >> 2 * i & 3 for i in range(min(n, predictors.MAX_AXES)))
    a, b, c, d = (kinds >> 2 * i & 3 for i in range(4))
    block, context = context >> 4, context & 15
    fine = n <= n_axes and len(set(axes)) == n and all(axis < n_axes for axis in axes)
    fine = fine and max(a, b, c, d) <= predictors.CUBIC and context <= predictors.COLUMNS
    if not fine or shift > 63 or beta < 16:
        raise Corrupt(UNKNOWN)
    return Plan(mask, axes, (a, b, c, d), context, shift, alpha, beta, block)


def _put_base(value: int) -> bytes:
    """A number as LEB128 of its zigzag."""
    z = int(tokens.zigzag(np.asarray([value], np.int64))[0])
    out = bytearray()
    while z > 127:
        out.append(z & 127 | 128)
        z >>= 7
    return bytes([*out, z])


def _get_base(data: bytes, at: int) -> tuple[Array, int]:
    """The number at ``at``, and the position after it."""
    z = 0
    for i, byte in enumerate(data[at : at + 10]):
        z |= (byte & 127) << 7 * i
        if byte < 128 and not z >> 64:
            return tokens.unzigzag(np.asarray([z], np.uint64)), at + i + 1
        if byte < 128:
            break
    raise Corrupt("a number is cut short")


def _pack_bits(x: Array) -> bytes:
    """Integers in equally many bits."""
    z = tokens.zigzag(x).ravel()
    width = int(z.max()).bit_length()
    bits = (z[:, None] >> np.arange(width, dtype=np.uint64)) & np.uint64(1)
    return bytes([width]) + np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def _unpack_bits(data: bytes, n: int) -> Array:
    """The inverse of `_pack_bits`."""
    if not data or n > MAX_PACKED or data[0] > 64 or len(data) - 1 != (n * data[0] + 7) // 8:
        raise Corrupt("packed integers have a wrong length")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=1), bitorder="little")
    if bits[n * data[0] :].any():
        raise Corrupt("packed integers end in bits that should be 0")
    rows = bits[: n * data[0]].reshape(n, data[0]).astype(np.uint64)
    rows <<= np.arange(data[0], dtype=np.uint64)
    return tokens.unzigzag(rows.sum(axis=1, dtype=np.uint64))


def inflate(payload: bytes, max_bytes: int, wbits: int = zlib.MAX_WBITS) -> bytes:
    """The content of a complete deflate stream, at most ``max_bytes`` of it."""
    unpacker = zlib.decompressobj(wbits)
    try:
        data = unpacker.decompress(payload, max_bytes + 1)
    except zlib.error as error:
        raise Corrupt("the deflated data is damaged") from error
    if len(data) > max_bytes:
        raise Corrupt(f"deflated data has more than the {max_bytes} bytes that belong there")
    if not unpacker.eof or unpacker.unused_data:
        raise Corrupt("the deflated data does not end where it should")
    return data


def _deflate(x: Array) -> bytes:
    """Integers in equally many bytes, through raw deflate."""
    z = tokens.zigzag(x).ravel()
    width = max(1, (int(z.max()).bit_length() + 7) // 8)
    narrow = z.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return bytes([width]) + packer.compress(narrow.tobytes()) + packer.flush()


def _inflate(data: bytes, n: int) -> Array:
    """The inverse of `_deflate`."""
    if not data or not 1 <= data[0] <= 8:
        raise Corrupt("deflated integers have an unknown width")
    width = data[0]
    plain = inflate(data[1:], n * width, -zlib.MAX_WBITS)
    if len(plain) != n * width:
        raise Corrupt("deflated integers have a wrong length")
    wide = np.zeros((n, 8), np.uint8)
    wide[:, :width] = np.frombuffer(plain, np.uint8).reshape(n, width)
    return tokens.unzigzag(wide.view("<u8")[:, 0].astype(np.uint64))


def sample_box(x: Array, limit: int = MAX_SAMPLE) -> tuple[slice, ...]:
    """The indices of a box in the middle of ``x``, of at most about ``limit`` elements."""
    sizes = list(x.shape)
    while np.prod(sizes) > limit:
        axis = int(np.argmax(sizes))
        sizes[axis] = -(-sizes[axis] // 2)
    starts = [(n - m) // 2 for n, m in zip(x.shape, sizes, strict=True)]
    return tuple(slice(start, start + m) for start, m in zip(starts, sizes, strict=True))


def _base_of(x: Array, mask: int, kind: int) -> np.int64:
    """The number subtracted from all: the first, or the median where nothing is predicted."""
    return np.int64(
        x.flat[0] if mask or kind != predictors.ZERO else np.sort(x, axis=None)[x.size // 2]
    )


def _residuals(x: Array, plan: Plan, step: int, free: Array | None) -> Residuals:
    """The residuals of a plan over integers of which no differences were taken yet."""
    free = None if plan.mask else free  # undoing differences would carry free values on
    with np.errstate(over="ignore"):
        x = predictors.difference(x - _base_of(x, plan.mask, plan.kinds[3]), plan.mask)
    return Residuals(x, plan, step, free)


class PlanSearch:
    """Plans compared on one array by their estimated bits; ``best`` is (bits, plan)."""

    def __init__(self, x: Array, step: int, free: Array | None) -> None:
        self._x, self._step, self._free = x, step, free
        self.seen: dict[Plan, float] = {}
        self.best = (np.inf, Plan())
        if step == 1:
            self._try_differences()
        self._try_levels()
        self._try_blocks()

    def bits(self, plan: Plan) -> float:
        """The estimated size with this plan."""
        if plan not in self.seen:
            bits = self.seen[plan] = _residuals(self._x, plan, self._step, self._free).bits
            if bits < self.best[0]:
                self.best = (bits, plan)
        return self.seen[plan]

    def _cheapest(self, plans: Iterable[Plan]) -> Plan:
        return min(plans, key=self.bits)

    def _try_differences(self) -> None:
        """Plans that predict by differences, or not at all."""
        n, x = self._x.ndim, self._x
        masks = sorted(range(1 << n), key=lambda mask: self.bits(Plan(mask)))
        forward, backward = tuple(range(n)), tuple(reversed(range(n)))
        for mask in masks[:2]:
            if 1 < x.shape[-1] <= tokens.CLASSES:
                self.bits(Plan(mask, context=predictors.COLUMNS))
            d = predictors.difference(x, mask)
            for order in (forward, backward) if mask == masks[0] else (forward,):
                shift = _magnitude_shift(d, order[-1], 1)
                self.bits(Plan(mask, order, context=predictors.NEIGHBOURS, shift=shift))

    def _try_levels(self) -> None:
        """Plans that interpolate between neighbours."""
        x, step = self._x, self._step
        orders = [order for order in _axis_orders(x.ndim) if all(x.shape[i] > 2 for i in order)]
        best = self._cheapest(
            Plan(0, order, (kind,) * 4, predictors.NEIGHBOURS, _magnitude_shift(x, order[-1], step))
            for order in orders or [tuple(range(x.ndim))]
            for kind in (predictors.LINE, predictors.CUBIC)
        )
        kind = best.kinds[0]
        other = predictors.CUBIC if kind == predictors.LINE else predictors.LINE
        mixed = [(other, kind, kind, kind), (kind, other, other, other)]
        best = self._cheapest([best, *(replace(best, kinds=kinds) for kinds in mixed)])
        if step > 1:
            best = self._cheapest(replace(best, alpha=a, beta=b) for a, b in TIGHTER)
        self.bits(replace(best, context=predictors.NO_CONTEXT))

    def _try_blocks(self) -> None:
        """Where residuals are mostly 0: first which blocks are all 0; it also saves time."""
        bits, plan = self.best
        if bits > SPARSE_BITS * self._x.size:
            return
        fewest, block = min((self.bits(replace(plan, block=n)), n) for n in (3, 4, 5, 6, 7))
        if fewest < BLOCK_COST * bits + BLOCK_COST_BITS:
            self.best = (fewest, replace(plan, block=block))


def _magnitude_shift(x: Array, axis: int, step: int) -> int:
    """The shift of magnitudes that leaves six bits of a typical one."""
    if x.shape[axis] < 2:
        return 0
    typical = int(np.median(np.abs(np.diff(x, axis=axis).astype(np.float64)))) // step
    return max(0, typical.bit_length() - 6)


def _axis_orders(n: int) -> list[tuple[int, ...]]:
    """The orders of axes in which levels are tried."""
    orders = [tuple(range(n)), tuple(reversed(range(n)))]
    orders += [(axis,) for axis in range(n)]
    if n > 2:
        orders += [(n - 2, n - 1), (n - 1, n - 2)]
    if n > 3:
        orders += [(n - 3, n - 2, n - 1)]
    return list(dict.fromkeys(orders))


def coded(x: Array, plan: Plan, step: int, free: Array | None) -> bytes:
    """The payload of form CODED by one plan."""
    base = _put_base(int(_base_of(x, plan.mask, plan.kinds[3])))
    body = _residuals(x, plan, step, free).payload()
    return bytes([CODED | plan.mask << 4]) + base + head_of(plan) + body


def simple(x: Array, masks: Iterable[int]) -> list[bytes]:
    """The payloads of forms PACKED and DEFLATED."""
    ways = []
    for mask in masks:
        base = _base_of(x, mask, predictors.ZERO)
        with np.errstate(over="ignore"):
            d = predictors.difference(x - base, mask)
        if x.size <= MAX_PACKED:
            ways.append(bytes([PACKED | mask << 4]) + _put_base(int(base)) + _pack_bits(d))
        ways.append(bytes([DEFLATED | mask << 4]) + _put_base(int(base)) + _deflate(d))
    return ways


def smallest(x: Array, step: int = 1, free: Array | None = None, in_palette: bool = False) -> bytes:
    """The integers in the smallest of all ways."""
    box = sample_box(x)
    search = PlanSearch(x[box], step, None if free is None else free[box])
    bits, plan = search.best
    if step > 1:
        return coded(x, plan, step, free)
    plain = min((p for p in search.seen if not p.order), key=search.bits)
    masks = sorted({0, plan.mask, plain.mask})
    ways = simple(x[box], masks)
    if x.size > MAX_SAMPLE:  # only the best of them on the whole array, where it may win
        sizes = list(map(len, ways))
        smallest_way = sizes.index(min(sizes))
        ways = simple(x, [masks[smallest_way]]) if 8 * min(sizes) < bits else []
    if not ways or min(map(len, ways)) > HEAD + 12:
        ways.append(coded(x, plan, step, free))
    if not in_palette and x.size > 64:
        ways += _palette(x, box)
    return min(ways, key=len)


def _palette(x: Array, box: tuple[slice, ...]) -> list[bytes]:
    """The payload of form PALETTE, where the values that occur are few and far apart."""
    colors = np.unique(x[box])
    dense = int(colors[-1]) - int(colors[0]) == len(colors) - 1
    if len(colors) > MAX_COLORS or len(colors) * 8 > x.size or dense:
        return []
    colors, ranks = np.unique(x, return_inverse=True)
    if len(colors) > MAX_COLORS:
        return []
    inner = smallest(ranks.reshape(x.shape).astype(np.int64), in_palette=True)
    table = smallest(colors, in_palette=True)
    sizes = (len(colors) - 1).to_bytes(2, "little") + len(table).to_bytes(4, "little")
    return [bytes([PALETTE]) + _put_base(0) + sizes + table + inner]
