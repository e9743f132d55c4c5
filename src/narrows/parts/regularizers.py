"""R: what is asked of a model beside a small distance. Each takes (model, trace)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from narrows.core import Trace


class KL(nn.Module):
    """KL(q(z | x) ‖ p(z)) in nats, averaged over the batch, summed over the nodes."""

    def forward(self, model: Any, trace: Trace) -> Tensor:
        total = trace.distance.new_zeros(())
        for node in trace.nodes:
            if node.kl is not None:
                total = total + node.kl.mean()
            elif node.log_q is not None and node.log_p is not None:
                total = total + (node.log_q - node.log_p).mean()
        return total
