"""Method 5: small images whose pixels a network predicts ("5: context").

Names are those of the page: x what is seen, p a prediction, t, h1 to h3 the layers' outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .container import need
from .entropy import Symbols
from .integers import Shape
from .model import Model

PART = 16384


def read_images(
    model: Model, data: bytes, shape: Shape, approximation: np.ndarray | None
) -> np.ndarray:
    """Images of bytes of the shape (n, C, H, W)."""
    network, symbols = Network(model), Symbols(data)
    need(network.shape == shape[1:], "The context network is for other images.")
    need(network.side or approximation is None, "The context network sees no approximation.")
    parts, count = [], shape[0]
    for start in range(0, count, PART):
        n = min(PART, count - start)
        y = None if approximation is None else approximation[start : start + n]
        parts.append(Part(network, symbols, n, y).read())
    symbols.finish()
    return np.concatenate(parts)


class Network:
    """The arrays of the context network, and its layers."""

    def __init__(self, model: Model) -> None:
        settings = model.structure.get("context")
        need(settings is not None, "The model has no context network.")
        self.shape: Shape = tuple(settings["shape"])
        self.residual, self.side = settings["residual"], settings["side"]
        self.ceiling = settings["ceiling"]
        named = {k[8:]: v for k, v in model.arrays.items() if k.startswith("context.")}
        self.a = {k: v.astype(np.int64) for k, v in named.items()}
        self.check()
        groups = self.a["groups"]
        self.first = np.searchsorted(groups, np.arange(groups[-1] + 1))
        self.sizes = np.bincount(groups)

    def check(self) -> None:
        a = self.a
        need(len(self.shape) == 3 and np.prod(self.shape) <= 4096, "Images are too large.")
        need(1 <= self.ceiling <= 65535, "The ceiling of the context network is out of range.")
        down, right = a["own"].T
        earlier = (down < 0) | ((down == 0) & (right < 0))
        need(earlier.all(), "The context network sees pixels that are not known yet.")
        reach = max(np.abs(a[name]).max(initial=0) for name in ("own", "other"))
        need(reach <= 16, "The context network sees too far.")
        steps = np.diff(a["groups"])
        rises = a["groups"].shape == (256,) and a["groups"][0] == 0 and set(steps) <= {0, 1}
        need(rises, "The groups of symbols do not rise from 0 by 0 or 1.")
        e = a["exponentials"]
        need(2 <= len(e) <= 16384 and e[0] >= 1, "There are too few exponentials, or too many.")
        need(e.min() >= 0 and e.max() <= 65536, "An exponential is out of range.")
        for name in ("s1", "s2", "s3", "sg", "sl"):
            need(a[name].min() >= 0 and a[name].max() <= 30, "A shift is out of range.")
        self.check_bounds()

    def check_bounds(self) -> None:
        """Refuse layers whose sums could reach 2⁵³."""
        tables = {
            "1": ["row", "column", "channel", "given"],
            "2": ["b2"],
            "g": ["bg"],
            "3": ["group3"],
            "l": ["bl"],
        }
        for k, added in tables.items():
            most = np.abs(self.a["w" + k]).sum(0) * (255 if k == "1" else self.ceiling)
            for name in added:
                most = most + np.abs(np.atleast_2d(self.a[name])).max(0)
            if "near" + k in self.a:
                most = most + np.abs(self.a["near" + k]).max(1).sum(0)
            most = most + (1 << self.a["s" + k] >> 1)
            need(most.max() < 1 << 53, "A layer of the context network is not exact.")

    def layer(self, x: np.ndarray, k: str, more: np.ndarray) -> np.ndarray:
        """L(x; w, s, more); the sums are exact in float64."""
        sums = (x.astype(np.float64) @ self.a["w" + k].astype(np.float64)).astype(np.int64)
        s = self.a["s" + k]
        return (sums + more + (1 << s >> 1)) >> s

    def hidden(self, x: np.ndarray, k: str, more: np.ndarray) -> np.ndarray:
        return np.clip(self.layer(x, k, more), 0, self.ceiling)

    def starts(self, logits: np.ndarray, members: np.ndarray | None = None) -> np.ndarray:
        """The starts of each row's symbols, from logits."""
        e = self.a["exponentials"]
        lowest = np.iinfo(np.int64).min // 2
        inside = logits if members is None else np.where(members, logits, lowest)
        below = np.minimum(inside.max(1, keepdims=True) - inside, len(e) - 1)
        sums = np.cumsum(e[below], axis=1)
        n = logits.shape[1]
        ends = sums * (65536 - n) // sums[:, -1:] + np.arange(1, n + 1)
        return np.concatenate([np.zeros((len(ends), 1), np.int64), ends], axis=1)


class Part:
    """Up to 16,384 images that advance together, pixel by pixel."""

    def __init__(self, net: Network, symbols: Symbols, n: int, y: np.ndarray | None) -> None:
        self.net, self.symbols, self.n = net, symbols, n
        self.given = y is not None
        self.y = None if y is None else y.astype(np.int64)
        self.v = np.zeros((n, *net.shape), np.int64)
        self.guesses = np.zeros_like(self.v)

    def read(self) -> np.ndarray:
        for at in np.ndindex(*self.net.shape):
            self.pixel(*at)
        return self.v.astype(np.uint8)

    def look(self, plane: np.ndarray | None, i: int, j: int, offsets: np.ndarray) -> np.ndarray:
        """A plane (n, H, W) at offsets from (i, j), 0 outside of it: (n, offsets)."""
        out = np.zeros((self.n, len(offsets)), np.int64)
        if plane is not None:
            for k, (down, right) in enumerate(offsets.tolist()):
                if 0 <= i + down < plane.shape[1] and 0 <= j + right < plane.shape[2]:
                    out[:, k] = plane[:, i + down, j + right]
        return out

    def predict(self, c: int, i: int, j: int) -> np.ndarray:
        """p, from neighbouring pixels in this plane and in the plane before."""
        around = np.array([[0, -1], [-1, 0], [-1, -1]])
        w, u, d = self.look(self.v[:, c], i, j, around).T
        guess = np.clip(w + u - d, np.minimum(w, u), np.maximum(w, u))
        self.guesses[:, c, i, j] = guess
        if c:
            guess = guess + self.v[:, c - 1, i, j] - self.guesses[:, c - 1, i, j]
        return np.clip(guess, 0, 255)

    def seen(self, c: int, i: int, j: int, p: np.ndarray) -> np.ndarray:
        a = self.net.a
        taken = p[:, None] if self.net.residual else 0
        parts = [self.look(self.v[:, c], i, j, a["own"]) - taken]
        planes: list[np.ndarray | None] = [
            self.v[:, c - k] if c >= k else None
            for k in range(1, min(self.net.shape[0] - 1, 2) + 1)
        ]
        if self.net.side:
            planes.append(None if self.y is None else self.y[:, c])
        for plane in planes:
            found = self.look(plane, i, j, a["other"])
            parts.append(found if plane is None else found - taken)
        if self.net.residual:
            parts.append(p[:, None])
        return np.concatenate(parts, axis=1)

    def pixel(self, c: int, i: int, j: int) -> None:
        net, a = self.net, self.net.a
        zero = np.zeros(self.n, np.int64)
        p = self.predict(c, i, j) if net.residual else zero
        z = self.look(self.v[:, c], i, j, a["own"][a["near"]])
        more = a["row"][i] + a["column"][j] + a["channel"][c]
        more = more + (a["given"] if self.given else 0) + sum(named(a["near1"], z), zero[:, None])
        h1 = net.hidden(self.seen(c, i, j, p), "1", more)
        h2 = net.hidden(h1, "2", a["b2"])
        starts = net.starts(net.layer(h2, "g", a["bg"]))
        group = self.symbols.take(starts, np.arange(self.n))
        more = a["group3"][group] + sum(named(a["near3"], z), zero[:, None])
        more_than_one = np.flatnonzero(net.sizes[group] > 1)
        inner = zero.copy()
        if len(more_than_one):
            h3 = net.hidden(h2[more_than_one], "3", more[more_than_one])
            logits = net.layer(h3, "l", a["bl"])
            size = net.sizes[group[more_than_one]]
            starts = net.starts(logits, np.arange(logits.shape[1]) < size[:, None])
            inner[more_than_one] = self.symbols.take(starts, np.arange(len(size)))
            need((inner[more_than_one] < size).all(), "A symbol is outside of its group.")
        symbol = net.first[group] + inner
        self.v[:, c, i, j] = (symbol - (128 if net.residual else 0) + p) % 256


def named(tables: np.ndarray, z: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of the first tables that the named values choose."""
    for r in range(len(tables)):
        yield tables[r][z[:, r]]
