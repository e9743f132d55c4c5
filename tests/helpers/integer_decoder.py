"""A second decoder of coded integers, written from docs/format.md alone: loops, no vectors."""

from __future__ import annotations

import itertools
import struct
import zlib
from math import prod
from typing import Any

Shape = tuple[int, ...]
Index = tuple[int, ...]


def signed(v: int) -> int:
    """Modulo 2^64, as int64."""
    v &= 2**64 - 1
    return v - 2**64 if v >> 63 else v


def unzigzag(z: int) -> int:
    return z >> 1 if z % 2 == 0 else -(z + 1) // 2


class Stream:
    """The entropy coder."""

    def __init__(self, data: bytes) -> None:
        n, words = struct.unpack_from("<HI", data)
        self.states = list(struct.unpack_from(f"<{n}I", data, 6))
        self.words = list(struct.unpack_from(f"<{words}H", data, 6 + 4 * n))
        self.t = 0

    def symbol(self, frequencies: list[int]) -> int:
        lane = self.t % len(self.states)
        x, start, s = self.states[lane], 0, 0
        while start + frequencies[s] <= x % 65536:
            start, s = start + frequencies[s], s + 1
        self.step(frequencies[s], x % 65536 - start)
        return s

    def bits(self, width: int) -> int:
        one = 65536 >> width
        slot = self.states[self.t % len(self.states)] % 65536
        self.step(one, slot % one)
        return slot // one

    def step(self, frequency: int, rest: int) -> None:
        lane = self.t % len(self.states)
        x = frequency * (self.states[lane] >> 16) + rest
        if x < 65536:
            x = x << 16 | self.words.pop(0)
        self.states[lane] = x
        self.t += 1

    def end(self) -> None:
        # lanes that had no turn start as they end; a step wants its word at once
        assert not self.words
        assert set(self.states) == {65536}


FIXED = [65536 * (k + 1) // (k + 2) - 65536 * k // (k + 1) for k in range(255)]
FIXED.append(65536 - sum(FIXED))


def tables(stream: Stream) -> tuple[list[list[int]], list[list[int]]]:
    """(frequencies of each table, the table of each class of each group)."""

    def numbers(n: int) -> list[int]:
        return [stream.symbol(FIXED) for _ in range(n)]

    n = numbers(1)[0] + 1
    widths = [w + 1 for w in numbers(n)]
    out = []
    for width in widths:
        codes = list(itertools.accumulate(map(unzigzag, numbers(width))))
        weights = [c if c < 4 else (4 + (c - 4 & 3)) << (c - 4 >> 2) for c in codes]
        seen, total = sum(w > 0 for w in weights), sum(weights)
        f = [1 + w * (65536 - seen) // total if w else 0 for w in weights]
        f[weights.index(max(weights))] += 65536 - sum(f)
        out.append(f)
    runs = [k + 1 for k in numbers(18)]
    lengths = [[k + 1 for k in numbers(r - 1)] for r in runs]
    maps = []
    for length, run in zip(lengths, runs, strict=True):
        mine = numbers(run)
        line = [i for i, k in zip(mine, length, strict=False) for _ in range(k)]
        maps.append(line + [mine[-1]] * (256 - len(line)))
    return out, maps


def beyond(k: list[int], kind: int) -> int:
    if len(k) == 1:
        return k[-1]
    if len(k) == 2 or kind == 1:
        return 2 * k[-1] - k[-2]
    return 3 * (k[-1] - k[-2]) + k[-3]


def between(k: list[int], i: int, n: int, kind: int) -> int:
    """What is expected at target i of n."""
    k = [*k, signed(beyond(k, kind))] if len(k) == n else k
    if kind == 1:
        return signed(k[i] + k[i + 1] + 1) >> 1
    k = [signed(beyond(k[::-1], kind)), *k, signed(beyond(k, kind))]
    return signed(9 * (k[i + 1] + k[i + 2]) - k[i] - k[i + 3] + 8) >> 4


class Coded:
    """Form 2."""

    def __init__(self, data: bytes, view: Shape, step: int) -> None:
        h, order, kinds, context, self.shift, alpha, beta = data[:7]
        self.order = [order >> 2 * i & 3 for i in range(h)]
        self.kinds = [kinds >> 2 * i & 3 for i in range(4)]
        self.context, self.block = context & 15, context >> 4
        self.view, self.stream = view, Stream(data[7:])
        self.tables, self.maps = tables(self.stream)
        self.levels = max([(view[a] - 1).bit_length() for a in self.order], default=0)
        self.steps = [step]
        for _ in range(self.levels):
            last = self.steps[-1]
            self.steps.append(max(last * 16 // (16 + alpha), step * 16 // beta) | 1)
        self.values: dict[Index, int] = {}
        self.sizes: dict[Index, int] = {}

    def run(self) -> dict[Index, int]:
        strides = [2**self.levels if a in self.order else 1 for a in range(len(self.view))]
        grid = [range(0, n, s) for n, s in zip(self.view, strides, strict=True)]
        self.first(list(itertools.product(*grid)))
        for level in reversed(range(self.levels)):
            for place, c in enumerate(self.order):
                if self.view[c] > 2**level:
                    grid = [range(0, n, s) for n, s in zip(self.view, strides, strict=True)]
                    known = [list(g) for g in grid]
                    grid[c] = range(2**level, self.view[c], 2 ** (level + 1))
                    self.later(list(itertools.product(*grid)), known, c, level, place)
                strides[c] = 2**level
        self.stream.end()
        return self.values

    def first(self, targets: list[Index]) -> None:
        classes = [p[-1] % 256 if self.context == 2 else 0 for p in targets]
        residuals = self.residuals(classes, 16, self.levels)
        total = 0
        for p, t in zip(targets, residuals, strict=True):
            self.sizes[p] = abs(max(t, 1 - 2**63))
            total = total + t if self.kinds[3] else t
            self.values[p] = signed(total * self.steps[self.levels])

    def later(
        self, targets: list[Index], known: list[list[int]], c: int, level: int, place: int
    ) -> None:
        kind = self.kinds[min(level, 3)]
        n = len(range(2**level, self.view[c], 2 ** (level + 1)))
        if self.context == 1:
            classes = [self.neighbours(p, known, c, level) for p in targets]
        else:
            classes = [p[-1] % 256 if self.context == 2 else 0 for p in targets]
        residuals = self.residuals(classes, 4 * min(level, 3) + place, level)
        for p, t in zip(targets, residuals, strict=True):
            line = [self.values[(*p[:c], i, *p[c + 1 :])] for i in known[c]]
            i = p[c] >> level + 1
            expected = between(line, i, n, kind) if kind else 0
            self.values[p] = signed(expected + t * self.steps[level])
            self.sizes[p] = abs(max(t, 1 - 2**63))

    def neighbours(self, p: Index, known: list[list[int]], c: int, level: int) -> int:
        others = [a for a in range(len(self.view)) if a != c][-2:]
        i = p[c] >> level + 1
        total = 0
        for side in (known[c][i], known[c][min(i + 1, len(known[c]) - 1)]):
            for moves in itertools.product((-1, 0, 1), repeat=len(others)):
                at, weight = list(p), 1
                at[c] = side
                for a, move in zip(others, moves, strict=True):
                    j = known[a].index(p[a]) + move
                    at[a] = known[a][min(max(j, 0), len(known[a]) - 1)]
                    weight *= 1 if move else 2
                total += weight * min(self.sizes[tuple(at)] >> self.shift, 2047)
        total <<= 4 - 2 * len(others)
        e = total.bit_length()
        return 2 * e + (total >> e - 2 & 1 if e > 1 else 0)

    def residuals(self, classes: list[int], group: int, level: int) -> list[int]:
        n = len(classes)
        inside = [True] * n
        if self.block:
            table = self.tables[self.maps[17][min(level, 4)]]
            flags = [self.stream.symbol(table) > 0 for _ in range(-(-n >> self.block))]
            inside = [flags[i >> self.block] for i in range(n)]
        some = [c for c, used in zip(classes, inside, strict=True) if used]
        tokens = [self.stream.symbol(self.tables[self.maps[group][c]]) for c in some]
        widths = [token // 4 - 2 if token >= 16 else 0 for token in tokens]
        z = [
            (4 + token % 4) << w if token >= 16 else token
            for token, w in zip(tokens, widths, strict=True)
        ]
        for low in (0, 16, 32, 48):
            for i, w in enumerate(widths):
                if w > low:
                    z[i] |= self.stream.bits(min(16, w - low)) << low
        rest = iter(z)
        return [unzigzag(next(rest)) if used else 0 for used in inside]


def decode(data: bytes, shape: Shape, step: int = 1) -> list[int]:
    """The integers in C order."""
    view = [n for n in shape if n != 1] or [1]
    while len(view) > 4:
        view[:2] = [view[0] * view[1]]
    return part(data, tuple(view), step)


def part(data: bytes, view: Shape, step: int) -> list[int]:
    form, mask, n = data[0] & 15, data[0] >> 4, prod(view)
    end = next(i for i in range(1, 11) if data[i] < 128) + 1
    base = unzigzag(sum((b & 127) << 7 * i for i, b in enumerate(data[1:end])))
    data = data[end:]
    places = list(itertools.product(*map(range, view)))
    if form == 0:
        packed = int.from_bytes(data[1:], "little")
        d = [unzigzag(packed >> data[0] * i & (1 << data[0]) - 1) for i in range(n)]
    elif form == 1:
        plain, b = zlib.decompress(data[1:], -15), data[0]
        d = [unzigzag(int.from_bytes(plain[b * i : b * i + b], "little")) for i in range(n)]
    elif form == 3:
        count, size = struct.unpack_from("<HI", data)
        palette = part(data[6 : 6 + size], (count + 1,), 1)
        d = [palette[r] for r in part(data[6 + size :], view, 1)]
    else:
        values = Coded(data, view, step).run()
        d = [values[p] for p in places]
    grid: dict[Any, int] = dict(zip(places, d, strict=True))
    for axis in range(len(view)):
        if mask >> axis & 1:
            for p in places:
                if p[axis]:
                    before = (*p[:axis], p[axis] - 1, *p[axis + 1 :])
                    grid[p] = signed(grid[p] + grid[before])
    return [signed(base + grid[p]) for p in places]
