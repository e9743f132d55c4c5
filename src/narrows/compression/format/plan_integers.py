"""Which of the ways to code integers is the smallest: tried on a part, done in full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.compression.format.integer_forms import (
    CODED,
    DEFLATED,
    HEAD,
    MOST_PACKED,
    PACKED,
    PALETTE,
    Symbols,
    deflated,
    head_of,
    packed,
    put_base,
)
from narrows.compression.format.predictors import (
    COLUMNS,
    CUBIC,
    LINE,
    NEIGHBOURS,
    NO_CONTEXT,
    ZERO,
    Plan,
    difference,
)

Array = NDArray[Any]
SAMPLE = 1 << 17  # integers on which ways are compared
MOST_COLORS = 4096
SPARSE = 0.5  # bits an integer, below which blocks of zeros are tried
HASTE = 1.02  # what blocks may cost, and so many bits: they save time
HASTE_BITS = 128
TIGHTER = ((0, 16), (4, 32), (8, 48), (12, 48), (16, 64))  # alpha, beta in 16ths


def sample_of(x: Array, limit: int = SAMPLE) -> tuple[slice, ...]:
    """A box in the middle, of at most about ``limit`` elements."""
    sizes = list(x.shape)
    while np.prod(sizes) > limit:
        axis = int(np.argmax(sizes))
        sizes[axis] = -(-sizes[axis] // 2)
    starts = [(n - m) // 2 for n, m in zip(x.shape, sizes, strict=True)]
    return tuple(slice(start, start + m) for start, m in zip(starts, sizes, strict=True))


class Trial:
    """Plans compared on one array; the best so far is kept."""

    def __init__(self, x: Array, step: int, free: Array | None) -> None:
        self.x, self.step, self.free = x, step, free
        self.best: tuple[float, Plan] | None = None
        self.seen: dict[Plan, float] = {}

    def bits(self, plan: Plan) -> float:
        """What the plan costs."""
        if plan not in self.seen:
            self.seen[plan] = symbols(self.x, plan, self.step, self.free).bits
            if self.best is None or self.seen[plan] < self.best[0]:
                self.best = (self.seen[plan], plan)
        return self.seen[plan]

    def least(self, plans: Iterable[Plan]) -> Plan:
        """The cheapest of some."""
        return min(plans, key=self.bits)


def base_of(x: Array, mask: int, kind: int) -> int:
    """The number taken off all: the first, or a middle one where nothing is predicted."""
    if mask or kind != ZERO:
        return int(x.flat[0])
    return int(np.sort(x, axis=None)[x.size // 2])


def symbols(x: Array, plan: Plan, step: int, free: Array | None) -> Symbols:
    """The symbols of a plan over integers that are not yet differences."""
    free = None if plan.mask else free  # running sums would carry them on
    base = np.int64(base_of(x, plan.mask, plan.kinds[3]))
    with np.errstate(over="ignore"):
        return Symbols(difference(x - base, plan.mask), plan, step, free)


def _shift(x: Array, axis: int, step: int) -> int:
    """How far magnitudes are shifted so that a usual one has six bits."""
    if x.shape[axis] < 2:
        return 0
    usual = int(np.median(np.abs(np.diff(x, axis=axis).astype(np.float64)))) // step
    return max(0, usual.bit_length() - 6)


def _axes(n: int) -> list[tuple[int, ...]]:
    """The orders of axes that levels are tried over."""
    ways = [tuple(range(n)), tuple(reversed(range(n)))]
    ways += [(axis,) for axis in range(n)]
    if n > 2:
        ways += [(n - 2, n - 1), (n - 1, n - 2)]
    if n > 3:
        ways += [(n - 3, n - 2, n - 1)]
    return list(dict.fromkeys(ways))


def _differences(trial: Trial) -> None:
    """Ways that predict by differences, or not at all."""
    n, x = trial.x.ndim, trial.x
    masks = sorted(range(1 << n), key=lambda mask: trial.bits(Plan(mask)))
    for mask in masks[:2]:
        if 1 < x.shape[-1] <= 256:
            trial.bits(Plan(mask, context=COLUMNS))
        d = difference(x, mask)
        orders = (
            [tuple(range(n)), tuple(reversed(range(n)))] if mask == masks[0] else [tuple(range(n))]
        )
        for order in dict.fromkeys(orders):
            shift = _shift(d, order[-1], 1)
            trial.bits(Plan(mask, order, context=NEIGHBOURS, shift=shift))


def _levels(trial: Trial) -> None:
    """Ways that predict between neighbours."""
    x, step = trial.x, trial.step
    axes = [a for a in _axes(x.ndim) if all(x.shape[i] > 2 for i in a)]
    if not axes:
        axes = [tuple(range(x.ndim))]
    start = [
        Plan(0, order, (kind,) * 4, NEIGHBOURS, _shift(x, order[-1], step))
        for order in axes
        for kind in (LINE, CUBIC)
    ]
    best = trial.least(start)
    other = LINE + CUBIC - best.kinds[0]
    mixed = [replace(best, kinds=(other, *best.kinds[1:]))]
    mixed += [replace(best, kinds=(*best.kinds[:1], other, other, other))]
    best = trial.least([best, *mixed])
    if step > 1:
        best = trial.least(replace(best, alpha=a, beta=b) for a, b in TIGHTER)
    trial.bits(replace(best, context=NO_CONTEXT))


def search(x: Array, step: int, free: Array | None) -> Trial:
    """The ways compared on all of ``x``."""
    trial = Trial(x, step, free)
    if step == 1:
        _differences(trial)
    _levels(trial)
    _blocks(trial)
    return trial


def _blocks(trial: Trial) -> None:
    """Where residuals are mostly 0, naming the blocks of zeros first; also for its speed."""
    assert trial.best is not None
    bits, plan = trial.best
    if bits > SPARSE * trial.x.size:
        return
    least, block = min((trial.bits(replace(plan, block=n)), n) for n in (3, 4, 5, 6, 7))
    if least < HASTE * bits + HASTE_BITS:
        trial.best = (least, replace(plan, block=block))


def coded(x: Array, plan: Plan, step: int, free: Array | None) -> bytes:
    """One plan in full."""
    base = base_of(x, plan.mask, plan.kinds[3])
    body = symbols(x, plan, step, free).payload()
    return bytes([CODED | plan.mask << 4]) + put_base(base) + head_of(plan) + body


def simple(x: Array, masks: Iterable[int]) -> Iterable[bytes]:
    """The ways without an entropy coder."""
    for mask in masks:
        base = base_of(x, mask, ZERO)
        with np.errstate(over="ignore"):
            d = difference(x - np.int64(base), mask)
        if x.size <= MOST_PACKED:
            yield bytes([PACKED | mask << 4]) + put_base(base) + packed(d)
        yield bytes([DEFLATED | mask << 4]) + put_base(base) + deflated(d)


def smallest(x: Array, step: int = 1, free: Array | None = None, depth: int = 0) -> bytes:
    """The integers in the smallest way."""
    box = sample_of(x)
    some = None if free is None else free[box]
    trial = search(x[box], step, some)
    assert trial.best is not None
    plan = trial.best[1]
    if step > 1:
        return coded(x, plan, step, free)
    masks = sorted({0, plan.mask, min((p for p in trial.seen if not p.order), key=trial.bits).mask})
    ways = []
    if x.size <= SAMPLE:
        ways = list(simple(x, masks))
    else:
        probe = list(simple(x[box], masks))
        least = min(range(len(probe)), key=lambda i: len(probe[i]))
        if 8 * len(probe[least]) < trial.best[0]:
            ways = list(simple(x, [masks[least]]))
    if not ways or min(map(len, ways)) > HEAD + 12:
        ways.append(coded(x, plan, step, free))
    if not depth and x.size > 64:
        ways += _palette(x, box)
    return min(ways, key=len)


def _palette(x: Array, box: tuple[slice, ...]) -> list[bytes]:
    """By rank among the values that occur, where these are few and far between."""
    some = np.unique(x[box])
    if (
        len(some) > MOST_COLORS
        or len(some) * 8 > x.size
        or int(some[-1]) - int(some[0]) == len(some) - 1
    ):
        return []
    colors, ranks = np.unique(x, return_inverse=True)
    if len(colors) > MOST_COLORS:
        return []
    inner = smallest(ranks.reshape(x.shape).astype(np.int64), depth=1)
    table = smallest(colors, depth=1)
    sizes = (len(colors) - 1).to_bytes(2, "little") + len(table).to_bytes(4, "little")
    return [bytes([PALETTE]) + put_base(0) + sizes + table + inner]
