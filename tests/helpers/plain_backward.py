"""The mistake that players must be safe from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def plain_backward(
    losses: Mapping[str, Tensor], players: Mapping[str, Any], optimizers: Mapping[str, Any]
) -> None:
    """The mistake: every loss's gradient reaches everybody."""
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    for loss in losses.values():
        loss.backward(retain_graph=True)
