"""MADE: a network whose i-th outputs depend on z_1, ..., z_{i−1} only, by masks on its weights.

Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation",
arXiv:1502.03509.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows.parts.networks.architectures import create, zero_last


class MaskedLinear(nn.Linear):
    """h ↦ (mask · W) h + b."""

    mask: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        # saved with the weights: a network that is read from a file does not compute its masks
        self.register_buffer("mask", torch.empty(n_out, n_in, dtype=torch.bool))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """(z, context) ↦ n_out numbers for each z_i, which depend on z_1, ..., z_{i−1} and context.

    Create it with ``masked_autoregressive``, which draws the weights.

    Parameters
    ----------
    k : int
        Numbers of z.
    n_out : int
        Outputs for each of them.
    hidden : sequence of int
        Widths of the hidden layers, at least k: in a narrower layer some z_i would have no unit.
    context : int
        Numbers of a context that all outputs may depend on.
    """

    def __init__(self, k: int, n_out: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        self.k, self.n_out, self.hidden, self.context = k, n_out, tuple(hidden), context
        widths = [context + k, *hidden, k * n_out]
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in pairwise(widths))

    @torch.no_grad()
    def set_masks(self) -> None:
        """Give each unit a degree d: it may depend on z_1, ..., z_d only."""
        # units of degree 0 depend on the context only; without a context they would be constant
        low = 0 if self.context or self.k == 1 else 1
        order = torch.arange(self.k)
        degrees = [torch.cat([order.new_zeros(self.context), order + 1])]
        degrees += [low + torch.arange(w) * (self.k - low) // w for w in self.hidden]
        degrees.append(order.repeat_interleave(self.n_out))
        for layer, (a, b) in zip(self.layers, pairwise(degrees), strict=True):
            assert isinstance(layer, MaskedLinear)
            layer.mask.copy_(b[:, None] >= a)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., k) and (..., context) → (..., k, n_out), in float32."""
        with torch.autocast(z.device.type, enabled=False):  # densities need float32
            h = z if context is None else torch.cat([context.to(z.dtype), z], -1)
            for i, layer in enumerate(self.layers):
                h = layer(F.gelu(h) if i else h)
        return h.view(*h.shape[:-1], self.k, self.n_out)


def masked_autoregressive(
    k: int, n_out: int, hidden: Sequence[int], context: int = 0, *, rng: Generator | None
) -> MADE:
    """A ``MADE`` that outputs 0 at first, its other weights drawn from ``rng``.

    Without ``rng`` nothing is drawn, as for a module that is read from a file.
    """
    net = create(lambda: MADE(k, n_out, hidden, context), rng)
    if rng is not None:
        net.set_masks()
        zero_last(net)
    return net
