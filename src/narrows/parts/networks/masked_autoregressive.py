"""A network whose i-th answers depend on the inputs before the i-th only: autoregressive by masks.

Source: Germain et al. 2015, "MADE: masked autoencoder for distribution estimation",
arXiv:1502.03509.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows.parts.networks.architectures import make, zero_last


class MaskedLinear(nn.Linear):
    """h ↦ (mask · W) h + b."""

    mask: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        # saved with the weights: what makes a module from a file only knows shapes
        self.register_buffer("mask", torch.empty(n_out, n_in, dtype=torch.bool))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """(z, context) ↦ n_out numbers for each z_i, of z_1, ..., z_{i−1} and the context alone.

    Made by ``made``, which draws the weights.

    Parameters
    ----------
    k : int
        Numbers of z.
    n_out : int
        Numbers answered for each of them.
    hidden : sequence of int
        Widths of the hidden layers; at least k each, lest some z_i be seen by nobody.
    context : int
        Numbers that every answer may depend on.
    """

    def __init__(self, k: int, n_out: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        self.k, self.n_out, self.hidden, self.context = k, n_out, tuple(hidden), context
        widths = [context + k, *hidden, k * n_out]
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in pairwise(widths))

    @torch.no_grad()
    def set_masks(self) -> None:
        """Who sees whom: each unit has a degree, how many z_i it may depend on."""
        # units of degree 0 see the context alone; without one they would see nothing
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
        with torch.autocast(z.device.type, enabled=False):  # the answers stand in densities
            h = z if context is None else torch.cat([context.to(z.dtype), z], -1)
            for i, layer in enumerate(self.layers):
                h = layer(F.gelu(h) if i else h)
        answers: Tensor = h.unflatten(-1, (self.k, self.n_out))
        return answers


def made(
    k: int,
    n_out: int,
    hidden: Sequence[int],
    context: int = 0,
    *,
    rng: Generator | None,
    zero: bool = True,
) -> MADE:
    """A ``MADE`` with weights drawn from ``rng`` (None: none drawn, as for a module from a file).

    With ``zero`` it answers 0 until it has learned something.
    """
    net: MADE = make(lambda: MADE(k, n_out, hidden, context), rng)
    if rng is not None:
        net.set_masks()
        if zero:
            zero_last(net)
    return net
