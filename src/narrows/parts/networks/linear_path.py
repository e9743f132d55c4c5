"""The linear path beside f and g that starts at PCA, and the head that knows the data's bounds.

With the last layers of f and g at zero, z = A(x − m) and x' = B z + m: the model *is* PCA at step
0, so that "the best on validation" can never be worse than PCA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from narrows.parts.networks.architectures import zero_last

# features × numbers of the code: above this the path's matrices would outweigh the networks
LARGEST_PATH = 2**25


class WithPath(nn.Module):
    """h ↦ net(h) + path(h)."""

    def __init__(self, net: nn.Module, path: nn.Module) -> None:
        super().__init__()
        self.net, self.path = net, path
        zero_last(net)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.net(h) + self.path(h)
        return out


def _zeros(into: int, out: int) -> nn.Linear:
    device = torch.zeros(()).device  # the caller's: "meta" while a file's skeleton is built
    layer = nn.Linear(into, out, device="meta").to_empty(device=device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def encoder_path(features: int, numbers: int) -> nn.Module:
    """x ↦ A x + b for x of any shape, at zero."""
    return nn.Sequential(nn.Flatten(), _zeros(features, numbers))


def decoder_path(latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
    """z ↦ B z + m, folded to ``shape``, at zero."""
    return nn.Sequential(_zeros(latent_dim, math.prod(shape)), nn.Unflatten(1, shape))


def path_fits(shape: tuple[int, ...], latent_dim: int) -> bool:
    """Whether a linear path of this size is worth its memory."""
    return math.prod(shape) * latent_dim <= LARGEST_PATH


class _Clamp(torch.autograd.Function):
    """min(max(x, low), high); outside, a small gradient passes so that nothing gets stuck there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Any, high: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return torch.clamp(x, low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.bounds
        if isinstance(low, float):  # one fused pass; hardtanh takes numbers only
            inside = torch.ops.aten.hardtanh_backward(grads[0], x, low, high)
        else:
            inside = grads[0] * ((x > low) & (x < high))
        return torch.lerp(inside, grads[0], LEAK), None, None


LEAK = 0.05


class BoundedHead(nn.Module):
    """Keep the output within the range of bounded data.

    For x within the bounds a clamped answer is never farther from x than the answer itself, so
    this head keeps the promise "never below PCA", where a sigmoid would not.
    ``low`` and ``high`` broadcast against one event.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def __repr__(self) -> str:
        return "kept within the data's bounds"

    def forward(self, x: Tensor) -> Tensor:
        low: Any = self.low
        high: Any = self.high
        if low.numel() == 1 and not low.is_cuda:  # reading a number off a GPU would wait for it
            low, high = low.item(), high.item()
        if torch.is_grad_enabled():
            clamped: Tensor = _Clamp.apply(x, low, high)  # type: ignore[no-untyped-call]
            return clamped
        return torch.clamp(x, low, high)


# Measured over tables, signals and images (benchmarks/recipes.md): one rate for all is too fast for
# the path, which starts where it should end, and too slow for matrices with few inputs.
PATH_WIDTH = 64  # a path of d features learns this / d times as fast as the rate says, at most once
WIDE = 512  # a matrix with this many inputs learns at the rate; with fewer, faster as the root
MOST = 3.0


def pace(*modules: nn.Module) -> Callable[[nn.Parameter], float]:
    """How fast each parameter of these learns, times the learning rate."""
    paces: dict[int, float] = {}
    for part in (part for module in modules for part in module.modules()):
        if isinstance(part, WithPath):
            longest = max(max(p.shape) for p in part.path.parameters() if p.ndim > 1)
            paces |= {id(p): min(1.0, PATH_WIDTH / longest) for p in part.path.parameters()}
        own = getattr(part, "pace", None)  # of a network whose own measurements ask for another
        if own is not None:
            paces |= {id(p): own for p in part.parameters()}

    def times(parameter: nn.Parameter) -> float:
        if parameter.ndim > 1 and id(parameter) not in paces:
            inputs = parameter[0].numel()
            return min(MOST, max(1.0, math.sqrt(WIDE / inputs)))
        return paces.get(id(parameter), 1.0)

    return times
