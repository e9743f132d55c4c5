"""Masked autoencoding: most patches of x are hidden from f, and D counts the hidden ones only.

A patch is a square of an image, a span of a signal, or some columns of a table. f is a transformer
over the visible patches; the mean of its outputs becomes the code.
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
from narrows.parts.corruptions import Corruption
from narrows.parts.model import Inputs, Model
from narrows.parts.networks.architectures import (
    NetworkOptions,
    build_networks,
    create,
    validate_plain_ends,
)

WIDTH, DEPTH, HEADS = 64, 2, 4  # of the transformer
TARGET_PATCHES = 64  # the number of patches that patch="auto" aims at


def patch_side(patch: int | str, shape: tuple[int, ...]) -> int:
    """The side of a patch: ``patch``, or for "auto" one that gives about 64 patches."""
    sides = shape if len(shape) == 1 else shape[1:]
    if not isinstance(patch, str):
        if int(patch) > max(sides):
            raise ParameterError(
                f"patch={patch} is larger than a sample of shape {shape}, so that nothing can be "
                f'hidden; choose at most {max(sides)}, or "auto".'
            )
        return int(patch)
    side: int = math.ceil((math.prod(sides) / TARGET_PATCHES) ** (1 / len(sides)))
    return max(1, side)


class PatchGrid(nn.Module):
    """x ↔ its patches, (B, *shape) ↔ (B, n, numbers); x is padded with 0 to whole patches."""

    def __init__(self, shape: tuple[int, ...], side: int) -> None:
        super().__init__()
        self.shape, self.side = shape, side
        self.channels, *sides = (1, *shape) if len(shape) == 1 else shape
        self.sides = tuple(sides)
        self.counts = tuple(math.ceil(s / side) for s in self.sides)
        self.n = math.prod(self.counts)
        self.numbers = self.channels * side ** len(self.sides)

    def to_patches(self, x: Tensor) -> Tensor:
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

    def to_elements(self, each: Tensor) -> Tensor:
        """One number for each patch, (B, n), repeated for all its elements, (B, *shape)."""
        x = each.view(-1, *self.counts)
        for axis, size in enumerate(self.sides, start=1):
            x = x.repeat_interleave(self.side, axis).narrow(axis, 0, size)
        whole = x[:, None].expand(-1, self.channels, *self.sides)
        return whole.reshape(len(each), *self.shape)


class PatchMask(Corruption):
    """c: hides a share of every row's patches, equally many in each; D counts those only.

    Source: He et al., "Masked autoencoders are scalable vision learners", arXiv:2111.06377.
    """

    def __init__(self, share: float, patch: int | str, shape: tuple[int, ...]) -> None:
        super().__init__()
        side = patch_side(patch, shape)
        self.share, self.patches = share, PatchGrid(shape, side)
        if self.patches.n < 2:
            raise ParameterError(
                f"A sample of shape {shape} (n_features = {math.prod(shape)}) is one patch of side "
                f"{side}, so that nothing can be hidden; choose a smaller patch, or another model."
            )

    @property
    def n_hidden(self) -> int:
        """Hidden patches of a row: at least one, and at least one stays visible."""
        return min(self.patches.n - 1, max(1, round(self.share * self.patches.n)))

    def extra_repr(self) -> str:
        return f"{self.n_hidden} of {self.patches.n} patches of side {self.patches.side}"

    def forward(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        shape = (len(x), self.patches.n)
        u = torch.rand(shape, generator=rng, device=x.device)
        hidden = torch.zeros_like(u).scatter(1, u.argsort(1)[:, : self.n_hidden], 1.0)
        mask = self.patches.to_elements(hidden)
        return torch.where(mask > 0, torch.nan, x), mask


class TransformerBlock(nn.Module):
    """t + attention(norm t), then t + mlp(norm t): without dropout.

    torch's ``TransformerEncoderLayer`` computes the same, but names its weights otherwise, so that
    files of older versions would need a translation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.told, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, t: Tensor) -> Tensor:
        batch, n, width = t.shape
        each = self.told(self.first(t)).view(batch, n, 3, HEADS, width // HEADS)
        queries, keys, values = each.permute(2, 0, 3, 1, 4)
        found = attention(queries, keys, values)
        t = t + self.answer(found.transpose(1, 2).reshape(batch, n, width))
        return torch.add(t, self.narrow(F.gelu(self.wide(self.second(t)))))


def attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v of each head, (B, heads, n, d); on a CPU in float32.

    torch's gradient of it on CPUs is 2 to 6 times as slow in bfloat16 as in float32.
    """
    if queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, keys, values)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(queries.float(), keys.float(), values.float())


class VisibleEncoder(nn.Module):
    """f: the visible patches, with a learned vector for each position, to h by a transformer."""

    def __init__(self, patches: PatchGrid, numbers: int) -> None:
        super().__init__()
        self.patches = patches
        self.enter = nn.Linear(patches.numbers, WIDTH)
        self.place = nn.Parameter(torch.empty(patches.n, WIDTH))
        self.blocks = nn.Sequential(*(TransformerBlock(WIDTH) for _ in range(DEPTH)))
        self.norm, self.leave = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, numbers)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """h of rows; ``visible`` (B, m) holds the indices of the patches to use (None: all)."""
        tokens = self.enter(self.patches.to_patches(x)) + self.place
        if visible is not None:
            tokens = tokens.gather(1, visible[..., None].expand(-1, -1, WIDTH))
        h: Tensor = self.leave(self.norm(self.blocks(tokens)).mean(1))
        return h


class MaskedModel(Model):
    """The composition: f's condition is the indices of the visible patches."""

    c: PatchMask

    def _encode_decode(self, given: Inputs, K: int, rng: Generator) -> tuple[list[Node], Tensor]:
        # hidden elements are NaN in c(x); the mask cannot be used, it also marks missing elements
        hidden = self.c.patches.to_patches(given.corrupted.isnan().float()).amax(2)
        order = torch.sort(hidden, dim=1, stable=True).indices
        visible = order[:, : self.c.patches.n - self.c.n_hidden]
        seen = given._replace(corrupted=given.corrupted.nan_to_num(), condition=visible)
        return super()._encode_decode(seen, K, rng)


def masked_networks(patch: int | str) -> Callable[..., tuple[nn.Module, nn.Module]]:
    """A function as ``build_networks``: f over patches, and the usual g."""

    def build(
        name: str, options: NetworkOptions, rng: Generator | None
    ) -> tuple[nn.Module, nn.Module]:
        validate_plain_ends(options)
        _, g = build_networks(name, replace(options, tied=False), rng)
        f = create(
            lambda: VisibleEncoder(
                PatchGrid(options.shape, patch_side(patch, options.shape)), options.latent_dim
            ),
            rng,
        )
        if rng is not None:  # ``initialise`` sets the scale of a layer norm to 0; 1 is neutral
            for module in f.modules():
                if isinstance(module, nn.LayerNorm):
                    nn.init.ones_(module.weight)
        return f, g

    return build
