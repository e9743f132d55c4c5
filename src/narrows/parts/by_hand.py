"""Layers in bfloat16 on a CPU, their gradient written by hand.

What autocast and autograd do around a product of bfloat16 takes as long as the product: casts, a
node for each layer, and 3 by 3 convolutions of stride 2 whose backward pass runs at a fraction of
what a matrix product does. So a run of layers is one node here, and such a convolution a product
with the patches it looks at (`benchmarks/results/steps.md`). Weights, and the sums over steps that
the optimiser keeps, stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

NARROW = torch.bfloat16
Kept = tuple[Any, ...]  # what a layer needs again on the way back
Step = tuple[nn.Module, Any]  # a layer and its rule
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

    def forward(self, h: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        if not wanted or not h.is_cpu or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return super().forward(h)  # type: ignore[no-any-return, no-untyped-call]
        for ours, run in groupby(((layer, _rule(layer)) for layer in self), _has_rule):
            steps = list(run)
            if ours and h.ndim == next((r.takes for _, r in steps if r.takes), 0):
                # not parameters(): walking through modules takes longer than a small product
                own = [p for layer, _ in steps for p in layer._parameters.values()]
                h = _Run.apply(steps, h, *own)  # type: ignore[no-untyped-call]
            else:
                for layer, _ in steps:
                    h = layer(h)
        return h


class _Run(Function):
    """Layers as one node: ahead in order, back in reverse. Images have their channels last."""

    @staticmethod
    def forward(ctx: Any, steps: list[Step], h: Tensor, *parameters: Tensor) -> Tensor:
        out, kept = _ahead(steps, h, parameters)
        tensors = [t for one in kept for t in one if isinstance(t, Tensor)]
        ctx.save_for_backward(h, *parameters, *tensors)  # so that autograd can let go of them
        ctx.steps, ctx.n_given = steps, 1 + len(parameters)
        ctx.kept = [[None if isinstance(t, Tensor) else t for t in one] for one in kept]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        h, *parameters = ctx.saved_tensors[: ctx.n_given]
        if torch.is_grad_enabled():  # somebody wants this gradient's gradient: it must be tracked
            kept = _ahead(ctx.steps, h, parameters)[1]
        else:
            tensors = iter(ctx.saved_tensors[ctx.n_given :])
            kept = [tuple(next(tensors) if t is None else t for t in one) for one in ctx.kept]
        g = _last(grads[0].to(NARROW))
        found: list[Tensor | None] = []
        wanted = ctx.needs_input_grad[1]
        for i, (_, rule) in reversed(list(enumerate(ctx.steps))):
            g, *own = rule.back(kept[i], g, i > 0 or wanted)
            found += reversed(own)
        return None, _first(g).to(h.dtype) if wanted else None, *reversed(found)


def _ahead(steps: list[Step], h: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, list[Kept]]:
    """What the layers answer, and what each needs again on the way back."""
    h, kept, at = _last(h.to(NARROW)), [], 0
    for layer, rule in steps:
        n = len(layer._parameters)
        h, own = rule.ahead(layer, h, *parameters[at : at + n])
        kept.append(own)
        at += n
    return _first(h), kept


def _last(h: Tensor) -> Tensor:
    """Channels last, if there are any."""
    return h.movedim(1, -1).contiguous() if h.ndim == 4 else h


def _first(h: Tensor) -> Tensor:
    """Channels where torch has them."""
    return h.movedim(-1, 1) if h.ndim == 4 else h


class _Linear:
    """h ↦ h Wᵀ + b."""

    takes = 2

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

    takes = 4

    @staticmethod
    def ahead(layer: Any, x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Kept]:
        patches, kernel = unroll(x), _matrix(W)
        small = [(side + 1) // 2 for side in x.shape[1:3]]
        out = torch.addmm(b.to(NARROW), patches, kernel.t())
        return out.view(len(x), *small, len(b)), (patches, kernel, x.shape)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        patches, kernel, shape = kept
        g = g.reshape(-1, g.shape[-1])
        down = roll(g @ kernel, shape) if further else None
        weight, bias = _wide(g.t() @ patches, g.sum(0))
        return down, _kernel(weight, shape[-1]), bias


class _Up:
    """The adjoint of ``_Down``: each pixel adds its patch to a picture twice as large."""

    takes = 4

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
    x = F.pad(x, (0, 0, 1, 1, 1, 1)).contiguous()
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
                where.copy_(part)
            else:
                where += part
    return out if bias is None else out.add_(bias)


def _seen(odd: int, side: int) -> list[tuple[int, slice, slice]]:
    """The taps that reach places of even or odd number: which, from where, and to where."""
    if not odd:
        return [(1, slice(None), slice(None))]
    return [(2, slice(side // 2), slice(None)), (0, slice(1, None), slice((side - 1) // 2))]


class _Flatten:
    """(B, H, W, C) ↦ (B, H·W·C)."""

    takes = 4

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return h.flatten(1), (h.shape,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (g.reshape(kept[0]),)


class _Unflatten:
    """(B, H·W·C) ↦ (B, H, W, C)."""

    takes = 2

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return h.unflatten(1, layer.shape), ()

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (g.flatten(1),)


class _ReLU:
    """max(h, 0)."""

    takes = 0  # any

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        out = torch.relu(h)
        return out, (out,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (torch.ops.aten.threshold_backward(g, kept[0], 0),)


class _GELU:
    """h Φ(h)."""

    takes = 0

    @staticmethod
    def ahead(layer: Any, h: Tensor) -> tuple[Tensor, Kept]:
        return F.gelu(h), (h,)

    @staticmethod
    def back(kept: Kept, g: Tensor, further: bool) -> Grads:
        return (torch.ops.aten.gelu_backward(g, kept[0]),)


_RULES: dict[type[nn.Module], Any] = {
    nn.Linear: _Linear,
    nn.Conv2d: _Down,
    nn.ConvTranspose2d: _Up,
    FlattenLast: _Flatten,
    UnflattenLast: _Unflatten,
    nn.ReLU: _ReLU,
    nn.GELU: _GELU,
}


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _rule(layer: Any) -> Any:
    """How a layer goes ahead and back; None where that is left to autograd."""
    rule = _RULES.get(type(layer))
    if rule is None or any(getattr(layer, name) for name in HOOKS):
        return None
    # a bias may be missing, a weight be made of others
    weighted = rule in (_Linear, _Down, _Up)
    if weighted and (list(layer._parameters) != ["weight", "bias"] or layer.bias is None):
        return None
    if rule in (_Down, _Up):
        asked = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        usual = asked == ((3, 3), (2, 2), (1, 1), (1, 1))
        return rule if usual and layer.groups == 1 and layer.padding_mode == "zeros" else None
    if rule is _GELU:
        return rule if layer.approximate == "none" else None
    return rule if rule is not _Unflatten or len(layer.shape) == 3 else None


def _has_rule(step: Step) -> bool:
    return step[1] is not None
