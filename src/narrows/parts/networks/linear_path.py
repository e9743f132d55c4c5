"""The linear path next to f and g that starts at PCA, and the head for bounded data.

With the last layers of f and g at zero, z = A(x − m) and x' = B z + m: the model *is* PCA at step
0, so that the best model on validation is never worse than PCA.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from narrows.parts.networks.architectures import initialise, zero_last

# features × latent_dim: above this the path's two matrices (128 MiB each) outweigh the networks
MAX_PATH_SIZE = 2**25


class WithPath(nn.Module):
    """h ↦ net(h) + path(h)."""

    def __init__(self, net: nn.Module, path: nn.Module) -> None:
        super().__init__()
        self.net, self.path = net, path
        zero_last(net)

    def forward(self, h: Tensor) -> Tensor:
        return torch.add(self.net(h), self.path(h))


def _zeros(into: int, out: int) -> nn.Linear:
    # created on "meta", because nn.Linear would draw from the global random generator
    layer = nn.Linear(into, out, device="meta")
    # zeros on the caller's device: "meta" again while a model is read from a file
    layer.load_state_dict({"weight": torch.zeros(out, into), "bias": torch.zeros(out)}, assign=True)
    return layer


def encoder_path(features: int, numbers: int) -> nn.Sequential:
    """x ↦ A x + b for x of any shape, with A and b zero."""
    return nn.Sequential(nn.Flatten(), _zeros(features, numbers))


def decoder_path(latent_dim: int, shape: tuple[int, ...]) -> nn.Sequential:
    """z ↦ B z + m, reshaped to ``shape``, with B and m zero."""
    return nn.Sequential(_zeros(latent_dim, math.prod(shape)), nn.Unflatten(1, shape))


def path_fits(shape: tuple[int, ...], latent_dim: int) -> bool:
    """Whether a linear path of this size is worth its memory."""
    return math.prod(shape) * latent_dim <= MAX_PATH_SIZE


@torch.no_grad()
def start_over(f: nn.Module, g: nn.Module, seed: int) -> None:
    """Draw f and g anew: A, b and B are zero, and g's path gives the mean alone."""
    rng = torch.Generator().manual_seed(seed)
    for net in (f, g):
        part = next(module for module in net.modules() if isinstance(module, WithPath))
        drawn = copy.deepcopy(part.net).cpu()
        initialise(drawn, rng)
        part.net.load_state_dict(drawn.state_dict())
        layer = next(module for module in part.path.modules() if isinstance(module, nn.Linear))
        nn.init.zeros_(layer.weight)
        if net is f:
            nn.init.zeros_(layer.bias)


LEAK = 0.05  # share of the gradient outside the bounds


class _Clamp(torch.autograd.Function):
    """min(max(x, low), high); outside, a part of the gradient passes, so that x can come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Any, high: Any, leak: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds, ctx.leak = (low, high), leak
        return torch.clamp(x, low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.bounds
        if isinstance(low, float):  # one pass, but for numbers only
            inside = torch.ops.aten.hardtanh_backward(grads[0], x, low, high)
        else:
            inside = grads[0] * ((x > low) & (x < high))
        return torch.lerp(inside, grads[0], ctx.leak), None, None, None


class BoundedHead(nn.Module):
    """Keep g's output within the bounds of the data.

    For x within the bounds a clamped output is never farther from x than the output itself, so
    the start at PCA is no worse than PCA; with a sigmoid it would be.
    ``low`` and ``high`` broadcast against one event.
    """

    low: Tensor
    high: Tensor
    leak = LEAK  # 0 for the true gradient

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def __repr__(self) -> str:
        return "kept within the data's bounds"

    def forward(self, x: Tensor) -> Tensor:
        low: Any = self.low
        high: Any = self.high
        if self.low.numel() == 1 and not self.low.is_cuda:  # on a GPU this would wait
            low, high = self.low.item(), self.high.item()
        if torch.is_grad_enabled():
            clamped: Tensor = _Clamp.apply(x, low, high, self.leak)  # type: ignore[no-untyped-call]
            return clamped
        return torch.clamp(x, low, high)


# Measured over tables, signals and images (benchmarks/recipes.md): one rate for all is too fast for
# the path, which starts where it should end, and too slow for matrices with few inputs.
PATH_WIDTH = 64  # a path with d inputs or outputs gets 64 / d of the rate, at most all of it
FULL_RATE_INPUTS = 512  # a matrix with n < 512 inputs gets √(512 / n) of the rate ...
MAX_MULTIPLIER = 3.0  # ... at most this


def lr_multipliers(*modules: nn.Module) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter of these modules is multiplied by.

    A module with an attribute ``lr_multiplier`` sets it for all its parameters.
    """
    found: dict[nn.Parameter, float] = {}
    for part in (part for module in modules for part in module.modules()):
        if isinstance(part, WithPath):
            longest = max(max(p.shape) for p in part.path.parameters() if p.ndim > 1)
            found |= dict.fromkeys(part.path.parameters(), min(1.0, PATH_WIDTH / longest))
        own = getattr(part, "lr_multiplier", None)
        if own is not None:
            found |= dict.fromkeys(part.parameters(), own)
    for parameter in (p for module in modules for p in module.parameters()):
        if parameter.ndim > 1 and parameter not in found:
            n_inputs = parameter[0].numel()
            wanted = math.sqrt(FULL_RATE_INPUTS / n_inputs)
            found[parameter] = min(MAX_MULTIPLIER, max(1.0, wanted))
    return found
