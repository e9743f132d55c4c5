"""What an integer is expected to be, given those decoded before it; all modulo 2⁶⁴.

Two kinds that can be undone in a few vectorised steps:

- differences along some axes (along two it is the Lorenzo predictor), undone by running sums;
- levels: some axes are halved again and again, and what lies between is predicted from what is
  there already, by lines or cubics through the neighbours along one axis:

      line:   (k₀ + k₁ + 1) >> 1          cubic:   (9(k₀ + k₁) − k₋₁ − k₂ + 8) >> 4

Source: Zhao et al., "Optimizing error-bounded lossy compression for scientific data by dynamic
spline interpolation", ICDE 2021; levels held more tightly: Liu et al., "Dynamic quality metric
oriented error-bounded lossy compression", SC 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST_AXES = 4
ZERO, LINE, CUBIC = range(3)
LARGEST = 2047  # of a magnitude: the weighted sum of 32 of them fits 16 bits
ANCHORS = 16  # the group of the first pass
NO_CONTEXT, NEIGHBOURS, COLUMNS = range(3)


def view_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as 1 to 4 axes: those of length 1 dropped, then the first ones merged."""
    axes = [n for n in shape if n != 1] or [1]
    while len(axes) > MOST_AXES:
        axes[:2] = [axes[0] * axes[1]]
    return tuple(axes)


def difference(x: Array, mask: int) -> Array:
    """Differences along the axes of the bits of ``mask``; before the first stands 0."""
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
    """Positions that are coded together: every axis a slice, ``axis`` the one between neighbours.

    ``axis`` is −1 for the first pass, which has no neighbours.
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
    """One value after the last along ``axis``, on the polynomial through the last ones."""
    n = k.shape[axis]
    a = part(k, axis, n - 1, n)
    if n == 1 or order == 0:
        return a
    b = part(k, axis, n - 2, n - 1)
    if n == 2 or order == 1:
        return 2 * a - b
    return 3 * (a - b) + part(k, axis, n - 3, n - 2)


def interpolate(k: Array, axis: int, n: int, kind: int) -> Array:
    """What is expected between neighbours along ``axis``, ``n`` of them; k has n or n + 1."""
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
    """Weighted sums, 32 in all, of the magnitudes about each target between two along ``axis``."""
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
    """The class of every sum: 0, then two to an octave."""
    sums = np.arange(1 << 16)
    e = np.frexp(np.maximum(sums, 1).astype(np.float64))[1]  # bits of the sum
    second = np.where(e > 1, sums >> np.maximum(e - 2, 0) & 1, 0)
    return np.where(sums > 0, 2 * e + second, 0).astype(np.uint8)


CLASS = _classes()  # at most 33


@dataclass(frozen=True)
class Plan:
    """How an array is coded; the numbers of the payload's head."""

    mask: int = 0  # axes of differences
    order: tuple[int, ...] = ()  # axes of levels
    kinds: tuple[int, int, int, int] = (ZERO,) * 4  # at the finest level, the next ..., the rest
    context: int = NO_CONTEXT
    shift: int = 0  # of magnitudes
    alpha: int = 0  # levels held more tightly: by 16 / (16 + alpha) each
    beta: int = 16  # ... and at most by 16 / beta
    block: int = 0  # residuals stand in blocks of 2^block, of which those of zeros are named first

    def steps(self, step: int, n_levels: int) -> list[int]:
        """The odd step of every level, the finest first, and of the first pass."""
        out = [step]
        for _ in range(n_levels):
            out.append(max(out[-1] * 16 // (16 + self.alpha), step * 16 // self.beta) | 1)
        return out


# (pass, what is expected at its targets, the step, the class of each target or of all) → tokens' t
Code = Callable[[Pass, Array, int, Array | int], Array]


def sweep(shape: tuple[int, ...], plan: Plan, step: int, code: Code) -> Array:
    """Go through all passes; ``code`` answers the residual of each, in steps; the values follow."""
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
            magnitudes[one.target] = np.minimum(_size(t) >> plan.shift, LARGEST)
    return values


def running(t: Array) -> Array:
    """Sums of all before and itself, in C order."""
    return np.cumsum(t, dtype=np.int64).reshape(t.shape)


def changes(t: Array) -> Array:
    """The inverse of `running`."""
    return np.diff(t.ravel(), prepend=np.zeros((), np.int64)).reshape(t.shape)


def busy(t: Array, block: int) -> Array:
    """Which blocks of 2^block residuals, in C order, are not all 0."""
    t = t.ravel() != 0
    return np.logical_or.reduceat(t, np.arange(0, len(t), 1 << block))


def members(blocks: Array, block: int, n: int) -> Array:
    """Which of ``n`` residuals stand in the blocks that are set."""
    return np.repeat(blocks.astype(bool), 1 << block)[:n]


def _size(t: Array) -> Array:
    """|t|, and 2⁶³ − 1 for what has none."""
    return np.abs(np.maximum(t, -(2**63 - 1)))
