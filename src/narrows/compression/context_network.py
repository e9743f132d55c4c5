"""A network that predicts each pixel of a small 8-bit image from those before it (lossless coding).

    nats of an image = −Σ log p(group of v | around, place) + log p(v | group, around, place)

The choice among 256 values is made in two steps: first a group of values, then one value of the
group. Training predicts a random part of the pixels in each step; ``quantize_context`` in
``quantize_weights`` then gives the whole numbers that `format.context_model` computes with. For
that, hidden numbers have an upper limit.

Pixels are coded as their values, where the values of the nearest pixels also select rows of
tables, as words do in a language model; or as their differences from LOCO-I's prediction
(Weinberger, Seroussi & Sapiro 2000), where that costs about the same.

One pixel from those before it: Bengio & Bengio, "Modeling high-dimensional discrete data with
multi-layer neural networks" (NIPS 1999); with shared parameters: PixelRNN (van den Oord et al.
2016, arXiv:1601.06759).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from narrows.estimators.parameters import MAX_SIDE, stored
from narrows.parts.networks.architectures import allocate, initialise

UP, ASIDE = 5, 5  # how far the window of pixels before reaches
AROUND = 2  # how far windows reach where all pixels are known: earlier planes, approximations
NEAREST = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))  # row and column offsets
NEAREST_IN_GROUP = 4  # of the nearest: their values also select table rows for the second step
PIXELS_PER_STEP = 12_000
PIXELS_AT_ONCE = 1 << 15
GROUP_SIZE = 16  # symbols, at most
MIN_SHARE_ALONE, MAX_ALONE = 0.004, 12  # a symbol as frequent as this is a group of its own
SURVEYED_PIXELS = 1_000_000
# values are coded if their entropy, given the prediction, is below this part of the differences'
VALUES_BELOW = 0.9
HIDDEN_UNIT = 128  # the decoder holds hidden numbers in 128ths ...
CEILING = 1023  # ... as whole numbers up to this


@dataclass(frozen=True)
class ContextOptions:
    """What a `ContextNetwork` is built from: plain numbers, which a file can hold."""

    shape: tuple[int, int, int] = stored(kind=tuple, low=1, high=MAX_SIDE, most=3)
    residual: bool = stored(kind=bool)  # whether symbols are differences from a prediction
    # the first symbol of each group
    firsts: tuple[int, ...] = stored(kind=tuple, low=0, high=255, most=256)
    # whether there are inputs for an approximation of the image
    side: bool = stored(False, kind=bool)
    widths: tuple[int, int, int] = stored((64, 64, 64), kind=tuple, low=1, high=4096, most=3)


@dataclass(frozen=True)
class PixelBatch:
    """The network's inputs for m pixels, and the symbols to predict."""

    x: Tensor  # (m, inputs), scaled to about 1
    near: Tensor  # (m, nearest), values
    symbols: Tensor
    c: Tensor
    i: Tensor
    j: Tensor
    shown: Tensor | None  # (m,): whether the approximation is among the inputs


def context_options(images: NDArray[np.uint8], side: bool = False) -> ContextOptions:
    """Options that suit some of the images, (n, C, H, W): values or differences, and groups."""
    C, H, W = images.shape[1:]
    some = torch.from_numpy(np.array(images[:: -(-images.size // SURVEYED_PIXELS)]))
    net = ContextNetwork(ContextOptions((C, H, W), True, (0,)))
    pairs = torch.zeros(256, 256, dtype=torch.float64)  # counts of (prediction, value)
    for part in some.split(max(1, PIXELS_AT_ONCE // some[0].numel())):
        batch = net.pixels(part, None, None)
        guesses = (batch.x[:, -1] / net.scale[-1]).round().long()
        values = (guesses + batch.symbols - 128) & 255
        pairs += torch.bincount(guesses * 256 + values, minlength=65536).view(256, 256)
    differences = torch.zeros(256, dtype=torch.float64)
    shift = (torch.arange(256) - torch.arange(256)[:, None] + 128) & 255
    differences.index_add_(0, shift.flatten(), pairs.flatten())
    conditional = _entropy(pairs) - _entropy(pairs.sum(1))
    residual = conditional > VALUES_BELOW * _entropy(differences)
    counts = differences if residual else pairs.sum(0)
    return ContextOptions((C, H, W), residual, _first_symbols(counts / counts.sum()), side)


def _entropy(counts: Tensor) -> float:
    """In nats, with Miller and Madow's correction for counts that are few."""
    n = counts.sum()
    plug_in = torch.log(n) - torch.xlogy(counts, counts).sum() / n
    return float(plug_in + ((counts > 0).sum() - 1) / (2 * n))


def _first_symbols(shares: Tensor) -> tuple[int, ...]:
    frequent = shares.argsort(descending=True)[:MAX_ALONE]
    alone = [int(v) for v in frequent if shares[v] > MIN_SHARE_ALONE]
    after = {v + 1 for v in alone} - {256}
    return tuple(sorted({*range(0, 256, GROUP_SIZE), *alone, *after}))


class ContextNetwork(nn.Module):
    """Nats of images from the pixels before each; weights are drawn from ``rng`` (None: none yet).

    A call costs the same for every batch: it predicts about ``PIXELS_PER_STEP`` pixels.
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
        # without torch's own initial weights, which would be drawn from the global generator
        with torch.device("meta"):
            self.first = nn.Linear(len(self.scale), one, bias=False)
            self.second = nn.Linear(one, two)
            self.group = nn.Linear(two, n_groups)
            self.third = nn.Linear(two, three, bias=False)
            self.low = nn.Linear(three, n_low)
        allocate(self)
        # rows of these are added to what a layer sums: biases that depend on something
        self.row_bias = nn.Parameter(torch.empty(H, one))
        self.column_bias = nn.Parameter(torch.empty(W, one))
        self.channel_bias = nn.Parameter(torch.empty(C, one))
        self.given_bias = nn.Parameter(torch.empty(one))
        self.near1_bias = nn.Parameter(torch.empty(n_near, 256, one))
        self.near3_bias = nn.Parameter(torch.empty(min(n_near, NEAREST_IN_GROUP), 256, three))
        self.group3_bias = nn.Parameter(torch.empty(n_groups, three))
        if rng is not None:
            initialise(self, rng)

    def __repr__(self) -> str:
        kind = "differences from a prediction" if self.options.residual else "values"
        return f"context network for {kind}, {len(self.options.firsts)} groups"

    def forward(self, x: Tensor, side: Tensor | None, rng: Generator) -> Tensor:
        """Nats of each of x, (B, C, H, W), numbers 0 … 255, as (B,), estimated.

        A random half of the images has the approximation ``side`` among its inputs. A random part
        of the pixels is predicted; their cost, scaled up, is the estimate for all pixels.
        """
        n, n_pixels = len(x), x[0].numel()
        # one pixel of each of so many equal parts, so that all are equally likely
        k = min(n_pixels, -(-PIXELS_PER_STEP // n))
        start = torch.arange(k, device=x.device)
        at = (start + torch.rand(n, k, generator=rng, device=x.device)) * (n_pixels / k)
        shown = None if side is None else torch.rand(n, generator=rng, device=x.device) < 0.5
        batch = self.pixels(x, side, at.long().clamp_(max=n_pixels - 1), shown)
        return self.nats(batch).view(n, k).sum(1) * (n_pixels / k)

    def pixels(
        self, x: Tensor, side: Tensor | None, at: Tensor | None, shown: Tensor | None = None
    ) -> PixelBatch:
        """The inputs and symbols of the pixels ``at`` (B, k) of each of x; None: of all of them.

        ``shown`` (B,) says for which images the approximation ``side`` is an input; None: for all.
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
            known = (canvas if other is None else other).take(here[:, None] + self.other_at)
            around = torch.cat([around, known], 1)
            given = shown[:, None, None].expand(*at.shape, len(self.other_at)).flatten(0, 1)
            there = torch.cat([there, given], 1)
        near = around[:, self.near_at].long()
        inputs, symbols = around.float(), canvas.take(here).long()
        if self.options.residual:
            guess = self._guess(canvas, here, c)
            symbols = (symbols - guess + 128) & 255
            inputs = torch.cat([(inputs - guess[:, None]) * there, guess[:, None]], 1)
        else:
            inputs = inputs * there
        shown = there[:, -1:] if self.options.side else None
        return PixelBatch(inputs * self.scale, near, symbols, c, i, j, shown)

    def _lay_out(self) -> None:
        """Where the windows are on a canvas: planes with zeros around them, one after another."""
        options = self.options
        C, H, W = options.shape
        every = [(i, j) for i in range(-UP, 1) for j in range(-ASIDE, ASIDE + 1)]
        reach = range(-AROUND, AROUND + 1)
        self.own = [(i, j) for i, j in every if i < 0 or j < 0]
        self.other = [(i, j) for i in reach for j in reach]
        self.near_at = [] if options.residual else [self.own.index(place) for place in NEAREST]
        self.n_before = min(C - 1, 2)  # earlier planes that are seen
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
        """(B, planes, tall, wide); the first planes are empty, for pixels with none before."""
        return F.pad(x, (ASIDE, ASIDE, UP, AROUND, self.n_before, 0))

    def _guess(self, canvas: Tensor, here: Tensor, c: Tensor) -> Tensor:
        """LOCO-I's prediction, corrected by its error in the plane before."""
        guess = self._median(canvas, here)
        if self.n_before:
            before = here - self.tall * self.wide
            error = canvas.take(before).long() - self._median(canvas, before)
            guess = torch.where(c > 0, guess + error, guess)
        return guess.clamp(0, 255)

    def _median(self, canvas: Tensor, here: Tensor) -> Tensor:
        left, above, corner = (canvas.take(here - k).long() for k in (1, self.wide, self.wide + 1))
        low, high = torch.minimum(left, above), torch.maximum(left, above)
        return torch.minimum(torch.maximum(left + above - corner, low), high)

    def nats(self, batch: PixelBatch) -> Tensor:
        """−log p of the pixels, (m,)."""
        h = self.first(batch.x) + self.row_bias[batch.i] + self.column_bias[batch.j]
        if len(self.channel_bias) > 1:
            h = h + self.channel_bias[batch.c]
        if batch.shown is not None:
            h = h + batch.shown * self.given_bias
        h = _limited(h + self._table_rows(self.near1_bias, batch.near))
        h = _limited(self.second(h))
        groups = self.group_of[batch.symbols]
        nats = F.cross_entropy(self.group(h), groups, reduction="none")
        several = (self.sizes[groups] > 1).nonzero()[:, 0]  # pixels whose group has several symbols
        groups, near = groups[several], batch.near[several]
        third = self.third(h[several]) + self.group3_bias[groups]
        logits = self.low(_limited(third + self._table_rows(self.near3_bias, near)))
        within = batch.symbols[several] - self.firsts[groups]
        logits = logits.masked_fill(self.outside[groups], -torch.inf)
        return nats.index_add(0, several, F.cross_entropy(logits, within, reduction="none"))

    def _table_rows(self, tables: Tensor, near: Tensor) -> Tensor | float:
        """The sum of each table's row for its own of the nearest values."""
        k = len(tables)
        if not k:
            return 0.0
        rows = near[:, :k] + 256 * torch.arange(k, device=near.device)
        return F.embedding_bag(rows, tables.flatten(0, 1), mode="sum")


def _limited(h: Tensor) -> Tensor:
    """max(h, 0), and at most what the decoder's whole numbers can hold."""
    return h.clamp(0, CEILING / HIDDEN_UNIT)
