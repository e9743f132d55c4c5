"""Masked autoencoding: most patches of x are hidden, f sees the others, D counts the hidden ones.

A patch is a square of an image, a span of a signal, or some columns of a table. f is a transformer
over the patches that are visible, whichever they are; their mean becomes the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Node
from narrows.exceptions import ParameterError
from narrows.parts.model import Model
from narrows.parts.networks.architectures import (
    NetworkOptions,
    build_networks,
    make,
    refuse_classes,
)

WIDTH, DEPTH, HEADS = 64, 2, 4
PATCHES = 64  # about so many are cut, where nobody says how large they are


def patch_side(asked: int | str, shape: tuple[int, ...]) -> int:
    """The side of a patch: as asked, or so that there are at most about 64, and at least 4."""
    sides = shape if len(shape) == 1 else shape[1:]
    if not isinstance(asked, str):
        if int(asked) > max(sides):
            raise ParameterError(
                f"patch={asked} is larger than a sample of shape {shape}: nothing could be hidden; "
                'choose a smaller one, or "auto".'
            )
        return int(asked)
    fits: int = math.ceil((math.prod(sides) / PATCHES) ** (1 / len(sides)))
    return max(1, fits)


class Patches(nn.Module):
    """x ↔ its patches, (B, *shape) ↔ (B, n, numbers); what does not divide is filled with 0."""

    def __init__(self, shape: tuple[int, ...], side: int) -> None:
        super().__init__()
        self.shape, self.side = shape, side
        whole = (1, *shape) if len(shape) == 1 else shape
        self.channels, self.sides = whole[0], whole[1:]
        self.counts = tuple(math.ceil(s / side) for s in self.sides)
        self.n = math.prod(self.counts)
        self.numbers = self.channels * side ** len(self.sides)

    def cut(self, x: Tensor) -> Tensor:
        """(B, *shape) → (B, n, numbers)."""
        x = x.reshape(len(x), self.channels, *self.sides)
        pairs = zip(self.counts, self.sides, strict=True)
        more = [(0, count * self.side - s) for count, s in pairs]
        x = F.pad(x, [n for pair in reversed(more) for n in pair])
        batch, side = len(x), self.side
        if len(self.sides) == 1:
            x = x.view(batch, self.channels, self.n, side).movedim(2, 1)
        else:
            rows, columns = self.counts
            x = x.view(batch, self.channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(batch, self.n, self.numbers)

    def spread(self, each: Tensor) -> Tensor:
        """One number for each patch, (B, n), at each element of it, (B, *shape)."""
        x = each.unflatten(1, self.counts)
        for axis, size in enumerate(self.sides, start=1):
            x = x.repeat_interleave(self.side, axis).narrow(axis, 0, size)
        whole = x[:, None].expand(-1, self.channels, *self.sides)
        spread: Tensor = whole.reshape(len(each), *self.shape)
        return spread


class PatchMask(nn.Module):
    """c: hides a share of every row's patches, as many in each; D counts those alone.

    Source: He et al., "Masked autoencoders are scalable vision learners", arXiv:2111.06377.
    """

    def __init__(self, share: float, patch: int | str, shape: tuple[int, ...]) -> None:
        super().__init__()
        side = patch_side(patch, shape)
        self.share, self.patches = share, Patches(shape, side)
        if self.patches.n < 2:
            raise ParameterError(
                f"A sample of shape {shape} (n_features = {math.prod(shape)}) has one patch of "
                f"side {side}: nothing could be hidden; choose a smaller patch, or another model."
            )

    @property
    def n_hidden(self) -> int:
        """Of the patches of a row: at least one, and at least one is left."""
        return min(self.patches.n - 1, max(1, round(self.share * self.patches.n)))

    def extra_repr(self) -> str:
        return f"{self.n_hidden} of {self.patches.n} patches of side {self.patches.side}"

    def set_data_units(self, zero: Tensor, low: Tensor, high: Tensor) -> None:
        """Nothing to hear: what is hidden is not replaced, but NaN."""

    def forward(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        shape = (len(x), self.patches.n)
        u = torch.rand(shape, generator=rng, device=x.device)
        hidden = torch.zeros_like(u).scatter(1, u.argsort(1)[:, : self.n_hidden], 1.0)
        mask = self.patches.spread(hidden)
        return torch.where(mask > 0, torch.nan, x), mask


class Attention(nn.Module):
    """t + attention(norm t), then t + mlp(norm t): a transformer's block, without dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.told, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, t: Tensor) -> Tensor:
        batch, n, width = t.shape
        each = self.told(self.first(t)).view(batch, n, 3, HEADS, width // HEADS)
        queries, keys, values = each.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(queries, keys, values)
        t = t + self.answer(found.transpose(1, 2).reshape(batch, n, width))
        out: Tensor = t + self.narrow(F.gelu(self.wide(self.second(t))))
        return out


class VisibleEncoder(nn.Module):
    """f: the patches that are visible, with their places, through a transformer to a code."""

    def __init__(self, patches: Patches, numbers: int) -> None:
        super().__init__()
        self.patches = patches
        self.enter = nn.Linear(patches.numbers, WIDTH)
        self.place = nn.Parameter(torch.empty(patches.n, WIDTH))
        self.blocks = nn.Sequential(*(Attention(WIDTH) for _ in range(DEPTH)))
        self.norm, self.leave = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, numbers)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """The code of x; ``visible`` (B, m) are the numbers of the patches seen (None: all)."""
        tokens = self.enter(self.patches.cut(x)) + self.place
        if visible is not None:
            tokens = tokens.gather(1, visible[..., None].expand(-1, -1, WIDTH))
        answer: Tensor = self.leave(self.norm(self.blocks(tokens)).mean(1))
        return answer


class Masked(Model):
    """The composition: in training f is told which patches it may see."""

    c: PatchMask

    def _pass(
        self,
        x: Tensor,
        corrupted: Tensor,
        mask: Tensor | None,
        K: int,
        rng: Generator,
        given: Tensor | None,
    ) -> tuple[list[Node], Tensor]:
        # not from the mask, in which what nobody observed is left out, too
        visible = _visible(self.c, corrupted.isnan().float())
        nodes, output = super()._pass(x, corrupted.nan_to_num(), mask, K, rng, visible)
        return nodes, output

    def _encoded(self, x: Tensor, given: Tensor | None) -> Tensor:
        h: Tensor = self.f(self.D.to_model(x), given)
        return h


def _visible(c: PatchMask, hidden: Tensor) -> Tensor:
    """The numbers of the patches that nobody hid, (B, m); every row has as many."""
    order: Tensor = torch.sort(c.patches.cut(hidden).amax(2), dim=1, stable=True).indices
    return order[:, : c.patches.n - c.n_hidden]


def masked_networks(patch: int | str) -> Callable[..., tuple[nn.Module, nn.Module]]:
    """f over patches, and the usual g; as ``build_networks``."""

    def build(
        name: str, options: NetworkOptions, rng: Generator | None
    ) -> tuple[nn.Module, nn.Module]:
        refuse_classes(VisibleEncoder, options)
        _, g = build_networks(name, replace(options, tied=False), rng)
        patches = Patches(options.shape, patch_side(patch, options.shape))
        f = make(lambda: VisibleEncoder(patches, options.latent_dim), rng)
        if rng is not None:  # a layer norm starts by changing nothing
            for module in f.modules():
                if isinstance(module, nn.LayerNorm):
                    nn.init.ones_(module.weight)
        return f, g

    return build
