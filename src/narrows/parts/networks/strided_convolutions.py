"""3 by 3 convolutions of stride 2, in bfloat16 on a CPU as products with the patches they look at.

The backward pass that torch has for them there runs at a fraction of what a product of matrices
does. Anywhere else, and in float32, they are torch's own.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

NARROW = torch.bfloat16


class Halving(nn.Conv2d):
    """(B, a, H, W) ↦ (B, b, ⌈H/2⌉, ⌈W/2⌉), 3 by 3."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not _pays(x):
            return super().forward(x)
        return _Halve.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class Doubling(nn.ConvTranspose2d):
    """The adjoint of `Halving`: to sizes of 2·side − 1, or one more where ``extra`` is 1."""

    def __init__(self, a: int, b: int, extra: tuple[int, int]) -> None:
        super().__init__(a, b, 3, stride=2, padding=1, output_padding=extra)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _pays(x):
            return super().forward(x, output_size)
        pairs = zip(x.shape[2:], self.output_padding, strict=True)
        large = tuple(2 * side - 1 + extra for side, extra in pairs)
        return _Double.apply(x, self.weight, self.bias, large)  # type: ignore[no-any-return, no-untyped-call]


def _pays(x: Tensor) -> bool:
    """Whether x is trained on in bfloat16 on a CPU."""
    narrow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return narrow and torch.is_grad_enabled() and x.is_cpu and x.ndim == 4


class _Halve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        patches = unroll(_last(x))
        ctx.save_for_backward(x, W, patches)
        small = [(side + 1) // 2 for side in x.shape[2:]]
        out = torch.addmm(b.to(NARROW), patches, _matrix(W).t())
        return out.view(len(x), *small, len(b)).movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, W, patches = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants this gradient's gradient, in x too
            patches = unroll(_last(x))
        g, down = _last(grads[0]).flatten(0, 2), None
        if ctx.needs_input_grad[0]:
            n, channels, *size = x.shape
            down = roll(g @ _matrix(W), (n, *size, channels)).movedim(-1, 1).to(x.dtype)
        return down, _kernel(g.t() @ patches, W), g.sum(0).to(W.dtype)


class _Double(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, large: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, W)
        patches = _last(x).flatten(0, 2) @ _matrix(W)
        out = roll(patches, (len(x), *large, len(b))).add_(b.to(NARROW))
        return out.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, W = ctx.saved_tensors
        pixels, g, up = _last(x), _last(grads[0]), None
        patches = unroll(g)
        if ctx.needs_input_grad[0]:
            up = (patches @ _matrix(W).t()).view(pixels.shape).movedim(-1, 1).to(x.dtype)
        weight = _kernel(pixels.flatten(0, 2).t() @ patches, W)
        return up, weight, g.sum((0, 1, 2)).to(W.dtype), None


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C), narrow."""
    return x.to(NARROW).movedim(1, -1).contiguous()


def _matrix(W: Tensor) -> Tensor:
    """(a, b, 3, 3) as (a, 9·b), the channels b last, narrow."""
    return W.movedim(1, -1).flatten(1).to(NARROW)


def _kernel(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``_matrix``."""
    return matrix.view(like.movedim(1, -1).shape).movedim(-1, 1).to(like.dtype)


def unroll(x: Tensor) -> Tensor:
    """(B, H, W, C) ↦ (B·h·w, 9·C): what each place of half the size sees, 3 by 3 around it."""
    n, height, width, channels = x.shape
    small = (height + 1) // 2, (width + 1) // 2
    x = F.pad(x, (0, 0, 1, 1, 1, 1)).contiguous()
    a, b, c = x.stride()[:3]
    if channels == 1:  # single numbers lie nowhere together: copied one place in nine at a time
        taps = x.as_strided((3, 3, n, *small), (b, c, a, 2 * b, 2 * c))
        return taps.reshape(9, -1).t()
    patches = x.as_strided((n, *small, 3, 3 * channels), (a, 2 * b, 2 * c, b, 1))
    return patches.reshape(-1, 9 * channels)


def roll(patches: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The adjoint of ``unroll``: patches added where they overlap, in a picture of this shape.

    A place of even number is the middle of one patch; one of odd number the end of the patch
    before it and the beginning of the one after.
    """
    n, height, width, channels = shape
    small = (height + 1) // 2, (width + 1) // 2
    taps = patches.view(n, *small, 3, 3, channels).movedim((3, 4), (0, 1))
    out = patches.new_empty(shape)
    for a, b in product((0, 1), repeat=2):  # even and odd places
        target = out[:, a::2, b::2]
        for (i, top, above), (j, left, before) in product(_seen(a, height), _seen(b, width)):
            part, where = taps[i, j][:, top, left], target[:, above, before]
            if i and j:  # the first of these, which reaches everywhere
                where.copy_(part)
            else:
                where += part
    return out


def _seen(odd: int, side: int) -> list[tuple[int, slice, slice]]:
    """The taps that reach places of even or odd number: which, from where, and to where."""
    if not odd:
        return [(1, slice(None), slice(None))]
    return [(2, slice(side // 2), slice(None)), (0, slice(1, None), slice((side - 1) // 2))]
