"""A network that expects each pixel of a small 8-bit image from those before it.

    nats of an image = −Σ log p(group of v | around, place) + log p(v | group, around, place)

Trained with any step on some of the pixels; ``freeze`` then gives the whole numbers with which
`codec.context` codes. All is made for that: hidden numbers end at a ceiling, and the choice among
256 values is two small ones. Pixels are taken as they are, and the values of the nearest look up
tables of their own, as words do; or as their differences from LOCO-I's prediction (Weinberger,
Seroussi & Sapiro 2000), where the value predicted tells of the value no more than that it is near.

One pixel from those before it: Bengio & Bengio, "Modeling high-dimensional discrete data with
multi-layer neural networks" (NIPS 1999); with shared parameters: PixelRNN (van den Oord et al.
2016, arXiv:1601.06759).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from narrows.compression.quantize_context import CEILING, HIDDEN_UNIT, frozen
from narrows.parts.networks.architectures import initialise

UP, ASIDE = 5, 5  # how far the window reaches
AROUND = 2  # how far it reaches where all around is known: in planes before, in approximations
NEAREST = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
NAMED_TWICE = 4  # of the nearest: they are named to the second choice as well
PIXELS_A_STEP = 12_000
PIXELS_AT_ONCE = 1 << 15
GROUP = 16  # symbols, at most
SPIKE, MOST_SPIKES = 0.004, 12  # a symbol as frequent as this is a group of its own
SURVEYED = 1_000_000  # pixels
# values are coded if their entropy, given the prediction, is below this part of the differences'
NAMES_TELL = 0.9


@dataclass(frozen=True)
class ContextOptions:
    """What a `ContextNetwork` is built from: plain numbers, which a file can hold."""

    shape: tuple[int, int, int]
    residual: bool  # whether symbols are differences from a prediction
    firsts: tuple[int, ...]  # the first symbol of each group
    side: bool = False  # whether there are inputs for an approximation of the image
    widths: tuple[int, int, int] = (64, 64, 64)


@dataclass(frozen=True)
class Seen:
    """Pixels (m,), their symbols, and what is seen from each."""

    x: Tensor  # (m, inputs), of the size of 1
    near: Tensor  # (m, nearest), values
    symbols: Tensor
    c: Tensor
    i: Tensor
    j: Tensor
    shown: Tensor | None  # (m,): whether an approximation is


def context_options(images: NDArray[np.uint8], side: bool = False) -> ContextOptions:
    """Look at some of the images, (n, C, H, W), and say how their pixels are best divided."""
    C, H, W = images.shape[1:]
    some = torch.from_numpy(np.array(images[:: -(-images.size // SURVEYED)]))
    net = ContextNetwork(ContextOptions((C, H, W), True, (0,)))
    pairs = torch.zeros(256, 256, dtype=torch.float64)  # of a guess and the value that it was for
    for part in some.split(max(1, PIXELS_AT_ONCE // some[0].numel())):
        seen = net.look(part, None, None)
        guesses = (seen.x[:, -1] / net.scale[-1]).round().long()
        values = (guesses + seen.symbols - 128) & 255
        pairs += torch.bincount(guesses * 256 + values, minlength=65536).view(256, 256)
    differences = torch.zeros(256, dtype=torch.float64)
    shift = (torch.arange(256) - torch.arange(256)[:, None] + 128) & 255
    differences.index_add_(0, shift.flatten(), pairs.flatten())
    named = _entropy(pairs) - _entropy(pairs.sum(1))
    residual = named > NAMES_TELL * _entropy(differences)
    counts = differences if residual else pairs.sum(0)
    return ContextOptions((C, H, W), residual, _firsts(counts / counts.sum()), side)


def _entropy(counts: Tensor) -> float:
    """In nats, with Miller and Madow's correction for counts that are few."""
    n = counts.sum()
    sampled = torch.log(n) - torch.xlogy(counts, counts).sum() / n
    return float(sampled + ((counts > 0).sum() - 1) / (2 * n))


def _firsts(shares: Tensor) -> tuple[int, ...]:
    spikes = [int(v) for v in shares.argsort(descending=True)[:MOST_SPIKES] if shares[v] > SPIKE]
    after = {v + 1 for v in spikes} - {256}
    return tuple(sorted({*range(0, 256, GROUP), *spikes, *after}))


class ContextNetwork(nn.Module):
    """Nats of images from the pixels before each; weights are drawn from ``rng`` (None: none yet).

    A call costs the same for every batch: it looks at ``PIXELS_A_STEP`` pixels, unless ``whole``.
    """

    lr_multiplier = 3.0  # times the usual learning rate, by measurements on MNIST and Fashion-MNIST

    seen_at: Tensor
    other_at: Tensor
    plane_of: Tensor
    scale: Tensor
    firsts: Tensor
    sizes: Tensor
    group_of: Tensor
    outside: Tensor

    def __init__(self, options: ContextOptions, rng: Generator | None = None) -> None:
        super().__init__()
        self.options = options
        C, H, W = options.shape
        one, two, three = options.widths
        self._lay_out()
        n_groups, n_low = len(self.firsts), int(self.sizes.max())
        n_near = len(self.near_at)
        with torch.device("meta"):  # where making a layer draws no random numbers
            self.first = nn.Linear(len(self.scale), one, bias=False)
            self.second = nn.Linear(one, two)
            self.group = nn.Linear(two, n_groups)
            self.third = nn.Linear(two, three, bias=False)
            self.low = nn.Linear(three, n_low)
        for layer in (self.first, self.second, self.group, self.third, self.low):
            layer.to_empty(device="cpu")
        # rows of these are added to what a layer sums: biases that depend on something
        self.row_bias = nn.Parameter(torch.empty(H, one))
        self.column_bias = nn.Parameter(torch.empty(W, one))
        self.channel_bias = nn.Parameter(torch.empty(C, one))
        self.given_bias = nn.Parameter(torch.empty(one))
        self.near1_bias = nn.Parameter(torch.empty(n_near, 256, one))
        self.near3_bias = nn.Parameter(torch.empty(min(n_near, NAMED_TWICE), 256, three))
        self.group3_bias = nn.Parameter(torch.empty(n_groups, three))
        if rng is not None:
            initialise(self, rng)

    def __repr__(self) -> str:
        kind = "differences from a prediction" if self.options.residual else "values"
        return f"context network for {kind}, {len(self.options.firsts)} groups"

    def forward(
        self, x: Tensor, side: Tensor | None, rng: Generator | None, whole: bool = False
    ) -> Tensor:
        """Nats of each of x, (B, C, H, W), numbers 0 … 255, as (B,).

        ``side``, an approximation, is shown for a random half of the images; with ``whole`` it is
        shown for all, and all pixels are looked at instead of a random part that stands for them.
        """
        n, n_pixels = len(x), x[0].numel()
        if whole:
            size = max(1, PIXELS_AT_ONCE // n_pixels)
            sides = [None] * n if side is None else side.split(size)
            looks = (self.look(*part, None) for part in zip(x.split(size), sides, strict=False))
            return torch.cat([self._nats(seen).view(-1, n_pixels).sum(1) for seen in looks])
        # one pixel of each of so many equal parts, so that all are equally likely
        k = min(n_pixels, -(-PIXELS_A_STEP // n))
        start = torch.arange(k, device=x.device)
        at = (start + torch.rand(n, k, generator=rng, device=x.device)) * (n_pixels / k)
        shown = None if side is None else torch.rand(n, generator=rng, device=x.device) < 0.5
        seen = self.look(x, side, at.long().clamp_(max=n_pixels - 1), shown)
        answer: Tensor = self._nats(seen).view(n, k).sum(1) * (n_pixels / k)
        return answer

    def look(
        self, x: Tensor, side: Tensor | None, at: Tensor | None, shown: Tensor | None = None
    ) -> Seen:
        """What is seen from the pixels ``at`` (B, k) of each of x; None: from all of them.

        ``side`` is shown for the images that ``shown`` (B,) says; None: for all.
        """
        C, H, W = self.options.shape
        if at is None:
            at = torch.arange(C * H * W, device=x.device).expand(len(x), -1)
        c, i, j = at // (H * W), at // W % H, at % W
        canvas, other = self._canvas(x), None if side is None else self._canvas(side)
        image = torch.arange(len(x), device=x.device)[:, None] * canvas[0].numel()
        plane = c + self.n_before
        here = image + (plane * self.tall + UP + i) * self.wide + ASIDE + j
        c, i, j, here = (m.flatten() for m in (c, i, j, here))
        around, there = canvas.take(here[:, None] + self.seen_at), self.plane_of <= c[:, None]
        if self.options.side:
            if shown is None:
                shown = torch.full((len(x),), other is not None, device=x.device)
            beside = (canvas if other is None else other).take(here[:, None] + self.other_at)
            around = torch.cat([around, beside], 1)
            told = shown[:, None, None].expand(*at.shape, len(self.other_at)).flatten(0, 1)
            there = torch.cat([there, told], 1)
        near = around[:, self.near_at].long()
        inputs, symbols = around.float(), canvas.take(here).long()
        if self.options.residual:
            guess = self._guess(canvas, here, c)
            symbols = (symbols - guess + 128) & 255
            inputs = torch.cat([(inputs - guess[:, None]) * there, guess[:, None]], 1)
        else:
            inputs = inputs * there
        shown = there[:, -1:] if self.options.side else None
        return Seen(inputs * self.scale, near, symbols, c, i, j, shown)

    def freeze(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The whole numbers that `codec.context.ContextModel` is made of, and its structure."""
        window = {"own": self.own, "other": self.other, "near": self.near_at}
        arrays: dict[str, NDArray[Any]] = {k: np.array(v, np.int8) for k, v in window.items()}
        arrays["groups"] = self.group_of.cpu().numpy().astype(np.uint8)
        weights = {k: p.detach().double().cpu().numpy() for k, p in self.named_parameters()}
        weights["first.weight"] = weights["first.weight"] * self.scale.double().cpu().numpy()
        options = self.options
        structure = {
            "shape": list(options.shape),
            "residual": options.residual,
            "side": options.side,
            "ceiling": CEILING,
        }
        return {**arrays, **frozen(weights)}, structure

    def _lay_out(self) -> None:
        """Where the windows are on a canvas: planes with zeros around them, one after another."""
        options = self.options
        C, H, W = options.shape
        every = [(i, j) for i in range(-UP, 1) for j in range(-ASIDE, ASIDE + 1)]
        reach = range(-AROUND, AROUND + 1)
        self.own = [(i, j) for i, j in every if i < 0 or j < 0]
        self.other = [(i, j) for i in reach for j in reach]
        self.near_at = [] if options.residual else [self.own.index(place) for place in NEAREST]
        self.n_before = min(C - 1, 2)  # planes before a pixel's own that are seen
        self.wide, self.tall = W + 2 * ASIDE, H + UP + AROUND
        step, size = torch.tensor([self.wide, 1]), self.tall * self.wide
        own, other = ((torch.tensor(window) * step).sum(1) for window in (self.own, self.other))
        planes = [own, *(other - k * size for k in range(1, self.n_before + 1))]
        back = [torch.full((len(window),), k) for k, window in enumerate(planes)]
        firsts = torch.tensor(options.firsts)
        sizes = torch.diff(firsts, append=torch.tensor([256]))
        n_inputs = sum(map(len, planes)) + len(other) * options.side + options.residual
        scale = torch.full((n_inputs,), 1 / 64 if options.residual else 1 / 255)
        if options.residual:
            scale[-1] = 1 / 255
        constants = {
            "seen_at": torch.cat(planes),
            "other_at": other,
            "plane_of": torch.cat(back),  # how many planes back
            "scale": scale,
            "firsts": firsts,
            "sizes": sizes,
            "group_of": torch.repeat_interleave(torch.arange(len(firsts)), sizes),
            "outside": torch.arange(int(sizes.max())) >= sizes[:, None],
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def _canvas(self, x: Tensor) -> Tensor:
        """(B, planes, tall, wide), empty planes first for what is seen before the first."""
        return F.pad(x, (ASIDE, ASIDE, UP, AROUND, self.n_before, 0))

    def _guess(self, canvas: Tensor, here: Tensor, c: Tensor) -> Tensor:
        """LOCO-I's prediction, moved by how far it was off in the plane before."""
        guess = self._median(canvas, here)
        if self.n_before:
            before = here - self.tall * self.wide
            off = canvas.take(before).long() - self._median(canvas, before)
            guess = torch.where(c > 0, guess + off, guess)
        return guess.clamp(0, 255)

    def _median(self, canvas: Tensor, here: Tensor) -> Tensor:
        left, above, corner = (canvas.take(here - k).long() for k in (1, self.wide, self.wide + 1))
        low, high = torch.minimum(left, above), torch.maximum(left, above)
        return torch.minimum(torch.maximum(left + above - corner, low), high)

    def _nats(self, seen: Seen) -> Tensor:
        """−log p of the pixels, (m,)."""
        h = self.first(seen.x) + self.row_bias[seen.i] + self.column_bias[seen.j]
        if len(self.channel_bias) > 1:
            h = h + self.channel_bias[seen.c]
        if seen.shown is not None:
            h = h + seen.shown * self.given_bias
        h = _clipped(h + self._named(self.near1_bias, seen.near))
        h = _clipped(self.second(h))
        groups = self.group_of[seen.symbols]
        nats = F.cross_entropy(self.group(h), groups, reduction="none")
        more = (self.sizes[groups] > 1).nonzero()[:, 0]
        groups, near = groups[more], seen.near[more]
        third = self.third(h[more]) + self.group3_bias[groups]
        logits = self.low(_clipped(third + self._named(self.near3_bias, near)))
        within = seen.symbols[more] - self.firsts[groups]
        logits = logits.masked_fill(self.outside[groups], -torch.inf)
        return nats.index_add(0, more, F.cross_entropy(logits, within, reduction="none"))

    def _named(self, tables: Tensor, near: Tensor) -> Tensor | float:
        """The sum of each table's row for its own of the nearest values."""
        k = len(tables)
        if not k:
            return 0.0
        rows = near[:, :k] + 256 * torch.arange(k, device=near.device)
        return F.embedding_bag(rows, tables.flatten(0, 1), mode="sum")


def _clipped(h: Tensor) -> Tensor:
    """max(h, 0), and no more than the whole numbers have room for."""
    return h.clamp(0, CEILING / HIDDEN_UNIT)
