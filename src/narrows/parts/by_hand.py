"""Layers in bfloat16 on a CPU, their gradient written by hand.

What autocast and autograd do around a product of bfloat16 takes as long as the product: casts, a
node for each layer, and 3 by 3 convolutions of stride 2 whose backward pass runs at a fraction of
what a matrix product does. So a run of layers is one node here, and such a convolution a product
with the patches it looks at (`benchmarks/results/steps.md`). Weights, and the sums over steps that
the optimiser keeps, stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

NARROW = torch.bfloat16
Kept = tuple[Any, ...]  # what a layer needs again on the way back
Grads = tuple[Tensor | None, ...]  # of what a layer was given, then of its parameters


class FlattenLast(nn.Module):
    """(B, C, H, W) ↦ (B, H·W·C): free, where the channels lie last in memory as convolutions like.

    Between this and `UnflattenLast` nothing need be copied from one layout to the other, which
    makes a training step about a sixth faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


class UnflattenLast(nn.Module):
    """(B, H·W·C) ↦ (B, C, H, W), the channels last in memory."""

    def __init__(self, channels: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (*size, channels)

    def forward(self, h: Tensor) -> Tensor:
        channels_last: Tensor = h.unflatten(1, self.shape)
        return channels_last.movedim(-1, 1)


class Layers(nn.Sequential):
    """Layers one after another; those that can are one node while bfloat16 is trained on a CPU."""

    _plan: list[nn.Module | _Plan] | None = None

    def forward(self, h: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        if not wanted or h.device.type != "cpu":
            return super().forward(h)  # type: ignore[no-any-return, no-untyped-call]
        self._plan = self._plan or list(_planned(self))
        for part in self._plan:
            h = part(h)
        return h


class _Plan:
    """Layers that are one node."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers
        self.steps = [(layer, _rule(layer), len(list(layer.parameters()))) for layer in layers]

    def __call__(self, h: Tensor) -> Tensor:
        # not parameters(): walking through modules takes longer than a small product
        own = [p for layer in self.layers for p in layer._parameters.values()]
        if h.ndim in (2, 4):
            return _Run.apply(self, h, *own)  # type: ignore[no-any-return, no-untyped-call]
        for layer in self.layers:
            h = layer(h)
        return h


def _planned(layers: nn.Sequential) -> Iterator[nn.Module | _Plan]:
    for ours, run in groupby(layers, lambda layer: _rule(layer) is not None):
        if ours:
            yield _Plan(list(run))
        else:
            yield from run


class _Run(Function):
    """A plan as one node: ahead in order, back in reverse. Images have their channels last."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, h: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(h, *parameters)
        ctx.plan, ctx.kept = plan, []
        h = h.to(NARROW)
        h = h.movedim(1, -1).contiguous() if h.ndim == 4 else h
        at = 0
        for layer, rule, n in plan.steps:
            h, kept = rule.ahead(layer, h, *parameters[at : at + n])
            ctx.kept.append(kept)
            at += n
        return h.movedim(-1, 1) if h.ndim == 4 else h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():  # somebody wants this gradient's gradient
            return _differentiable(ctx, grads[0])
        g = grads[0].to(NARROW)
        g = g.movedim(1, -1).contiguous() if g.ndim == 4 else g
        found: list[Tensor | None] = []
        wanted = ctx.needs_input_grad[1]
        for i, (_, rule, _) in reversed(list(enumerate(ctx.plan.steps))):
            g, *own = rule.back(ctx.kept[i], g, i > 0 or wanted)
            found += reversed(own)
        if wanted:
            g = (g.movedim(-1, 1) if g.ndim == 4 else g).to(ctx.saved_tensors[0].dtype)
        return None, g if wanted else None, *reversed(found)


def _differentiable(ctx: Any, g: Tensor) -> Any:
    """The same by autograd, which can be differentiated once more."""
    inputs = [t for t in ctx.saved_tensors if t.requires_grad]
    with torch.enable_grad(), torch.autocast("cpu", NARROW):
        h = ctx.saved_tensors[0]
        for layer in ctx.plan.layers:
            h = layer(h)
        found = iter(torch.autograd.grad(h, inputs, g.to(h.dtype), create_graph=True))
    return None, *(next(found) if t.requires_grad else None for t in ctx.saved_tensors)


class _Linear:
    """h ↦ h Wᵀ + b."""

    @staticmethod
    def ahead(layer: Any, h: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Kept]:
        narrow = W.to(NARROW)
        return torch.addmm(b.to(NARROW), h, narrow.t()), (h, narrow)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        h, W = kept
        return g @ W if further else None, *_wide(g.t() @ h, g.sum(0))


class _Down:
    """A 3 by 3 convolution of stride 2: a product with the patches it looks at."""

    @staticmethod
    def ahead(layer: Any, x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Kept]:
        patches, kernel = unroll(x), _matrix(W)
        small = [(side + 1) // 2 for side in x.shape[1:3]]
        out = torch.addmm(b.to(NARROW), patches, kernel.t())
        return out.view(len(x), *small, -1), (patches, kernel, x.shape)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        patches, kernel, shape = kept
        g = g.reshape(-1, g.shape[-1])
        down = roll(g @ kernel, shape) if further else None
        weight, bias = _wide(g.t() @ patches, g.sum(0))
        return down, _kernel(weight, shape[-1]), bias


class _Up:
    """The adjoint of ``_Down``: each pixel adds its patch to a picture twice as large."""

    @staticmethod
    def ahead(layer: Any, x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Kept]:
        pairs = zip(x.shape[1:3], layer.output_padding, strict=True)
        large = [2 * side - 1 + more for side, more in pairs]
        pixels, kernel = x.reshape(-1, x.shape[-1]), _matrix(W)
        out = roll(pixels @ kernel, (len(x), *large, W.shape[1]), b.to(NARROW))
        return out, (pixels, kernel, x.shape)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        pixels, kernel, shape = kept
        patches = unroll(g)
        up = (patches @ kernel.t()).view(shape) if further else None
        weight, bias = _wide(pixels.t() @ patches, g.flatten(0, 2).sum(0))
        return up, _kernel(weight, g.shape[-1]), bias


def _wide(*grads: Tensor) -> list[Tensor]:
    return [g.float() if g.dtype == torch.bfloat16 else g for g in grads]


def _matrix(W: Tensor) -> Tensor:
    """(a, b, 3, 3) as (a, 9·b), the channels b last."""
    return W.movedim(1, -1).flatten(1).to(NARROW)


def _kernel(matrix: Tensor, channels: int) -> Tensor:
    """The inverse of ``_matrix``."""
    return matrix.view(-1, 3, 3, channels).movedim(-1, 1)


def unroll(x: Tensor) -> Tensor:
    """(B, H, W, C) ↦ (B·h·w, 9·C): what each place of half the size sees, 3 by 3 around it."""
    n, height, width, channels = x.shape
    small = (height + 1) // 2, (width + 1) // 2
    x = F.pad(x, (0, 0, 1, 1, 1, 1))
    a, b, c = x.stride()[:3]
    if channels == 1:  # single numbers lie nowhere together: copied one place in nine at a time
        taps = x.as_strided((3, 3, n, *small), (b, c, a, 2 * b, 2 * c))
        return taps.reshape(9, -1).t()
    patches = x.as_strided((n, *small, 3, 3 * channels), (a, 2 * b, 2 * c, b, 1))
    return patches.reshape(-1, 9 * channels)


def roll(patches: Tensor, shape: tuple[int, ...], bias: Tensor | None = None) -> Tensor:
    """The adjoint of ``unroll``, plus ``bias``: patches added where they overlap.

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
                torch.add(part, 0 if bias is None else bias, out=where)
            else:
                where += part
    return out


def _seen(odd: int, side: int) -> list[tuple[int, slice, slice]]:
    """The taps that reach places of even or odd number: which, from where, and to where."""
    if not odd:
        return [(1, slice(None), slice(None))]
    return [(2, slice(side // 2), slice(None)), (0, slice(1, None), slice((side - 1) // 2))]


class _Flatten:
    """(B, H, W, C) ↦ (B, H·W·C)."""

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return h.flatten(1), (h.shape,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (g.reshape(kept[0]),)


class _Unflatten:
    """(B, H·W·C) ↦ (B, H, W, C)."""

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return h.unflatten(1, layer.shape), ()

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (g.flatten(1),)


class _ReLU:
    """max(h, 0)."""

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        out = torch.relu(h)
        return out, (out,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (torch.ops.aten.threshold_backward(g, kept[0], 0),)


class _GELU:
    """h Φ(h)."""

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return F.gelu(h), (h,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (torch.ops.aten.gelu_backward(g, kept[0]),)


class _SiLU:
    """h σ(h)."""

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return F.silu(h), (h,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (torch.ops.aten.silu_backward(g, kept[0]),)


_RULES: dict[type[nn.Module], Any] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Down,
    nn.ConvTranspose2d: _Up,
    FlattenLast: _Flatten,
    UnflattenLast: _Unflatten,
    nn.ReLU: _ReLU,
    nn.GELU: _GELU,
    nn.SiLU: _SiLU,
}


def _rule(layer: Any) -> Any:
    """How a layer goes ahead and back; None where that is left to autograd."""
    rule = _RULES.get(type(layer))
    if rule in (_Down, _Up):
        usual = layer.kernel_size, layer.stride, layer.padding
        return rule if usual == ((3, 3), (2, 2), (1, 1)) else None
    return rule
