"""A second decoder of context-coded images, written from docs/format.md alone: slow, whole numbers.

It shares no code with the package: Python's own integers, one pixel after another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


class Symbols:
    """The entropy decoder, one symbol at a time, by cumulative tables."""

    def __init__(self, data: bytes) -> None:
        n_lanes, n_words = struct.unpack_from("<HI", data)
        self.states = list(struct.unpack_from(f"<{n_lanes}I", data, 6))
        self.words = iter(struct.unpack_from(f"<{n_words}H", data, 6 + 4 * n_lanes))
        self.turn = 0

    def next(self, table: list[int]) -> int:
        x = self.states[self.turn]
        slot = x & 65535
        symbol = max(q for q in range(len(table) - 1) if table[q] <= slot)
        x = (table[symbol + 1] - table[symbol]) * (x >> 16) + slot - table[symbol]
        if x < 65536:
            x = x << 16 | next(self.words)
        self.states[self.turn] = x
        self.turn = (self.turn + 1) % len(self.states)
        return symbol


class Reader:
    """One part of n images, as nested lists images[n][c][i][j]."""

    def __init__(self, arrays: dict[str, Any], structure: dict[str, Any]) -> None:
        self.a = {name: array.tolist() for name, array in arrays.items()}
        self.C, self.H, self.W = structure["shape"]
        self.residual, self.side = structure["residual"], structure["side"]
        self.ceiling = structure["ceiling"]
        groups = self.a["groups"]
        self.members = [[s for s in range(256) if groups[s] == g] for g in range(groups[-1] + 1)]

    def read(self, data: bytes, n: int, side: Any = None) -> list[Any]:
        C, H, W = self.C, self.H, self.W
        images = [[[[0] * W for _ in range(H)] for _ in range(C)] for _ in range(n)]
        symbols = Symbols(data)
        places = ((c, i, j) for c in range(C) for i in range(H) for j in range(W))
        for place in places:
            known = [
                self.hidden(image, None if side is None else side[k], place)
                for k, image in enumerate(images)
            ]
            groups = [
                symbols.next(self.table(self.layer(h, "g", [self.a["bg"]]))) for h, *_ in known
            ]
            c, i, j = place
            for image, group, (h, p, near) in zip(images, groups, known, strict=True):
                members, within = self.members[group], 0
                if len(members) > 1:
                    within = symbols.next(self.within(h, group, near))
                image[c][i][j] = (members[within] - 128 * self.residual + p) % 256
        return images

    def pixel(self, image: Any, c: int, i: int, j: int) -> int:
        inside = c >= 0 and 0 <= i < self.H and 0 <= j < self.W
        return image[c][i][j] if inside else 0

    def guess(self, image: Any, c: int, i: int, j: int) -> int:
        w, u, d = (self.pixel(image, c, i - a, j - b) for a, b in ((0, 1), (1, 0), (1, 1)))
        return sorted((w, u, w + u - d))[1]

    def seen(
        self, image: Any, side: Any, place: tuple[int, int, int]
    ) -> Iterator[tuple[int, bool]]:
        c, i, j = place
        for a, b in self.a["own"]:
            yield self.pixel(image, c, i + a, j + b), True
        for k in range(1, min(self.C - 1, 2) + 1):
            for a, b in self.a["other"]:
                yield self.pixel(image, c - k, i + a, j + b), c >= k
        for a, b in self.a["other"] if self.side else ():
            yield (0 if side is None else self.pixel(side, c, i + a, j + b)), side is not None

    def hidden(
        self, image: Any, side: Any, place: tuple[int, int, int]
    ) -> tuple[list[int], int, list[int]]:
        c, i, j = place
        p = 0
        if self.residual:
            p = self.guess(image, c, i, j)
            if c:
                p += self.pixel(image, c - 1, i, j) - self.guess(image, c - 1, i, j)
            p = min(255, max(0, p))
        x = [v - p if there else 0 for v, there in self.seen(image, side, place)]
        x += [p] if self.residual else []
        near = [
            self.pixel(image, c, i + a, j + b)
            for a, b in map(self.a["own"].__getitem__, self.a["near"])
        ]
        added = [self.a["row"][i], self.a["column"][j], self.a["channel"][c]]
        added += [self.a["given"]] if side is not None else []
        added += [self.a["near1"][r][z] for r, z in enumerate(near)]
        h = self.clip(self.layer(x, "1", added))
        return self.clip(self.layer(h, "2", [self.a["b2"]])), p, near

    def within(self, h: list[int], group: int, near: list[int]) -> list[int]:
        tables = self.a["near3"]
        added = [self.a["group3"][group], *(t[z] for t, z in zip(tables, near, strict=False))]
        h = self.clip(self.layer(h, "3", added))
        return self.table(self.layer(h, "l", [self.a["bl"]]), len(self.members[group]))

    def layer(self, x: list[int], name: str, added: list[list[int]]) -> list[int]:
        w, shifts = self.a[f"w{name}"], self.a[f"s{name}"]
        sums = [
            sum(v * row[k] for v, row in zip(x, w, strict=True)) + sum(t[k] for t in added)
            for k in range(len(shifts))
        ]
        return [(v + (1 << s) // 2) >> s for v, s in zip(sums, shifts, strict=True)]

    def clip(self, h: list[int]) -> list[int]:
        return [min(self.ceiling, max(0, v)) for v in h]

    def table(self, logits: list[int], n_members: int | None = None) -> list[int]:
        exponentials, n = self.a["exponentials"], len(logits)
        members = logits[:n_members]
        last = len(exponentials) - 1
        below = [max(members) - v for v in members] + [last] * (n - len(members))
        e = [exponentials[min(t, last)] for t in below]
        return [sum(e[:q]) * (65536 - n) // sum(e) + q for q in range(n + 1)]
