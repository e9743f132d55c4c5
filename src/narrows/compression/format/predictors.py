"""Predicting integers from those decoded before them; all sums are taken modulo 2⁶⁴.

Two kinds of prediction that can be undone in a few vectorised steps:

- differences along some axes (along two it is the Lorenzo predictor), undone by running sums;
- levels: some axes are halved again and again, and the values in between are predicted from those
  already decoded, by lines or cubics through the neighbours along one axis:

      line:   (k₀ + k₁ + 1) >> 1          cubic:   (9(k₀ + k₁) − k₋₁ − k₂ + 8) >> 4

Source: Zhao et al., "Optimizing error-bounded lossy compression for scientific data by dynamic
spline interpolation", ICDE 2021; tighter bounds on coarse levels: Liu et al., "Dynamic quality
metric oriented error-bounded lossy compression", SC 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from narrows.compression.format import Array

MAX_AXES = 4
ZERO, LINE, CUBIC = range(3)
MAX_MAGNITUDE = 2047  # a weighted sum, with 32 in all, of such magnitudes fits 16 bits
ANCHORS = 16  # the group of the first pass, which has no neighbours
NO_CONTEXT, NEIGHBOURS, COLUMNS = range(3)


def view_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as 1 to 4 axes: those of length 1 dropped, then the first ones merged."""
    axes = [n for n in shape if n != 1] or [1]
    while len(axes) > MAX_AXES:
        axes[:2] = [axes[0] * axes[1]]
    return tuple(axes)


def difference(x: Array, mask: int) -> Array:
    """Differences along the axes whose bit in ``mask`` is set; the first value keeps itself."""
    for axis in range(x.ndim):
        if mask >> axis & 1:
            x = np.diff(x, axis=axis, prepend=np.zeros((), np.int64))
    return x


def undo_difference(x: Array, mask: int) -> Array:
    """The inverse of `difference`."""
    for axis in range(x.ndim):
        if mask >> axis & 1:
            x = np.cumsum(x, axis=axis, dtype=np.int64)
    return x


@dataclass(frozen=True)
class Pass:
    """Positions that are coded together, a slice for each axis.

    Each target lies between two known values along ``axis``; −1 for the first pass, which has no
    neighbours. ``group`` selects the contexts.
    """

    target: tuple[slice, ...]
    known: tuple[slice, ...]
    axis: int
    level: int
    group: int


def passes(shape: Sequence[int], order: Sequence[int]) -> Iterator[Pass]:
    """All passes over ``shape`` in coding order; the axes in ``order`` are halved in that order."""
    longest = max((shape[axis] for axis in order), default=1)
    n_levels = (longest - 1).bit_length()
    strides = [1] * len(shape)
    for axis in order:
        strides[axis] = 1 << n_levels
    first = tuple(slice(None, None, stride) for stride in strides)
    yield Pass(first, first, -1, n_levels, ANCHORS)
    for level in reversed(range(n_levels)):
        stride = 1 << level
        for place, axis in enumerate(order):
            if shape[axis] > stride:
                known = tuple(slice(None, None, s) for s in strides)
                between = slice(stride, None, 2 * stride)
                target = (*known[:axis], between, *known[axis + 1 :])
                yield Pass(target, known, axis, level, 4 * min(level, 3) + place)
            strides[axis] = stride


def part(x: Array, axis: int, start: int, stop: int) -> Array:
    """x[start:stop] along ``axis``."""
    out: Array = x[(slice(None),) * axis + (slice(start, stop),)]
    return out


def beyond(k: Array, axis: int, order: int) -> Array:
    """One value after the last along ``axis``: the polynomial through the last ones, continued."""
    n = k.shape[axis]
    a = part(k, axis, n - 1, n)
    if n == 1 or order == 0:
        return a
    b = part(k, axis, n - 2, n - 1)
    if n == 2 or order == 1:
        return 2 * a - b
    return 3 * (a - b) + part(k, axis, n - 3, n - 2)


def interpolate(k: Array, axis: int, n: int, kind: int) -> Array:
    """The ``n`` predictions between neighbours along ``axis`` of ``k``, which has n or n + 1."""
    if k.shape[axis] == n:
        k = np.concatenate([k, beyond(k, axis, kind)], axis=axis)
    if kind == LINE:
        line: Array = (part(k, axis, 0, n) + part(k, axis, 1, n + 1) + 1) >> 1
        return line
    before = beyond(np.flip(k, axis), axis, kind)
    k = np.concatenate([before, k, beyond(k, axis, kind)], axis=axis)
    near = part(k, axis, 1, n + 1) + part(k, axis, 2, n + 2)
    far = part(k, axis, 0, n) + part(k, axis, 3, n + 3)
    cubic: Array = (9 * near - far + 8) >> 4
    return cubic


def around(m: Array, axis: int, n: int) -> Array:
    """Weighted sums (weights 32 in all) of the magnitudes around each target along ``axis``."""
    others = [b for b in range(m.ndim) if b != axis][-2:]
    for b in others:
        last = m.shape[b] - 1
        before = np.concatenate([part(m, b, 0, 1), part(m, b, 0, last)], axis=b)
        after = np.concatenate([part(m, b, 1, last + 1), part(m, b, last, last + 1)], axis=b)
        m = 2 * m + before + after
    if m.shape[axis] == n:
        m = np.concatenate([m, part(m, axis, n - 1, n)], axis=axis)
    total = part(m, axis, 0, n) + part(m, axis, 1, n + 1)
    return total << np.uint16(4 - 2 * len(others))


def _classes() -> Array:
    """The class of every sum: 0, then two for each power of 2."""
    sums = np.arange(1 << 16)
    e = np.frexp(np.maximum(sums, 1).astype(np.float64))[1]  # bits of the sum
    second = np.where(e > 1, sums >> np.maximum(e - 2, 0) & 1, 0)
    return np.where(sums > 0, 2 * e + second, 0).astype(np.uint8)


CLASS = _classes()  # at most 33


@dataclass(frozen=True)
class Plan:
    """How an array is predicted and coded; these numbers are the head of the payload."""

    mask: int = 0  # axes of differences
    order: tuple[int, ...] = ()  # axes of levels
    kinds: tuple[int, int, int, int] = (ZERO,) * 4  # at the finest level, the next ..., the rest
    context: int = NO_CONTEXT
    shift: int = 0  # of magnitudes
    alpha: int = 0  # each coarser level has its step reduced by 16 / (16 + alpha)
    beta: int = 16  # ... and by 16 / beta at most
    block: int = 0  # if not 0: blocks of 2^block residuals that are all 0 are listed first

    def steps(self, step: int, n_levels: int) -> list[int]:
        """The odd step of every level, the finest first, and of the first pass."""
        out = [step]
        for _ in range(n_levels):
            out.append(max(out[-1] * 16 // (16 + self.alpha), step * 16 // self.beta) | 1)
        return out


# (pass, predictions of its targets, step, context class of each target or of all) → residuals
Code = Callable[[Pass, Array, int, Array | int], Array]


def sweep(shape: tuple[int, ...], plan: Plan, step: int, code: Code) -> Array:
    """The values of an array, pass by pass; ``code`` gives the residuals of each pass, in steps.

    Encoder and decoder share it: one computes the residuals, the other reads them.
    """
    values = np.zeros(shape, np.int64)
    near = plan.context == NEIGHBOURS
    magnitudes = np.zeros(shape if near else (0,) * len(shape), np.uint16)
    column = np.broadcast_to((np.arange(shape[-1]) & 255).astype(np.uint8), shape)
    steps: list[int] = []
    for one in passes(shape, plan.order):
        steps = steps or plan.steps(step, one.level)
        target, width = values[one.target], steps[one.level]
        classes: Array | int = column[one.target] if plan.context == COLUMNS else 0
        if one.axis < 0:
            t = code(one, np.zeros((), np.int64), width, classes)
            target[...] = (running(t) if plan.kinds[3] != ZERO else t) * width
        else:
            n = target.shape[one.axis]
            kind = plan.kinds[min(one.level, 3)]
            expected = np.zeros((), np.int64)
            if kind != ZERO:
                expected = interpolate(values[one.known], one.axis, n, kind)
            if near:
                classes = CLASS[around(magnitudes[one.known], one.axis, n)]
            t = code(one, expected, width, classes)
            target[...] = expected + t * width if width > 1 else expected + t
        if near and (one.level or one.group % 4 + 1 < len(plan.order)):
            magnitudes[one.target] = np.minimum(_size(t) >> plan.shift, MAX_MAGNITUDE)
    return values


def running(t: Array) -> Array:
    """Running sums in C order."""
    return np.cumsum(t, dtype=np.int64).reshape(t.shape)


def changes(t: Array) -> Array:
    """The inverse of `running`."""
    return np.diff(t.ravel(), prepend=np.zeros((), np.int64)).reshape(t.shape)


def _size(t: Array) -> Array:
    """|t|; 2⁶³ − 1 for −2⁶³, whose magnitude does not fit."""
    return np.abs(np.maximum(t, -(2**63 - 1)))
