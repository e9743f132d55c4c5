"""R: what is asked of a model beside a small distance. Each takes (model, trace), answers nats."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from narrows.core import ParameterError, Sizes, Trace, Weight, weight_at


class Regularizer(nn.Module):
    """What every R says of itself.

    ``needs`` what it reads: "density" (q has log q), "prior" (there is a p), "gaussian" (μ and
    log σ² of a diagonal Gaussian), "smooth" (codes that have a gradient). One with ``critic`` and
    ``own_loss`` brings a player of its own. ``beside`` says that it has a meaning beside any
    bound: it weighs no code against another.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    beside: ClassVar[bool] = False

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Make the parameters, if there are any; without ``rng`` on the device of the caller."""

    def forward(self, model: Any, trace: Trace) -> Tensor:
        """The term, averaged over the batch."""
        raise NotImplementedError


class KL(Regularizer):
    """KL(q(z | x) ‖ p(z)), summed over the nodes, averaged over the batch.

    The closed form where there is one, else log q − log p of the draws.

    Parameters
    ----------
    free : float
        Nats of every number of the code that cost nothing ("free bits": Kingma et al. 2016,
        arXiv:1606.04934, eq. 15): Σ_j max(free, mean KL_j). Of a latent without numbers that count
        apart, of all numbers together.
    capacity : number or function of progress, optional
        |KL − capacity| instead: Burgess et al. 2018, arXiv:1804.03599.
    """

    needs = frozenset({"density", "prior"})

    def __init__(self, free: float = 0.0, capacity: Weight | None = None) -> None:
        super().__init__()
        if free < 0:
            raise ParameterError(f"free must be at least 0 nats. Got {free!r}.")
        self.free, self.capacity = free, capacity

    def forward(self, model: Any, trace: Trace) -> Tensor:
        total = trace.distance.new_zeros(())
        for node in trace.nodes:
            if node.log_q is None and node.kl is None:
                continue
            total = total + self._of(node)
        if self.capacity is None:
            return total
        return (total - weight_at(self.capacity, trace.clock)).abs()

    def _of(self, node: Any) -> Tensor:
        each = node.extras.get("kl_each") if node.kl is not None else None
        if self.free and each is not None:
            floors: Tensor = each.mean(0).clamp_min(self.free).sum()
            return floors
        mean: Tensor = (node.log_q - node.log_p if node.kl is None else node.kl).mean()
        return mean.clamp_min(self.free * node.z.shape[-1]) if self.free else mean


class Commitment(Regularizer):
    """What the latents ask for themselves, as a codebook's commitment; averaged over the batch."""

    beside = True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        losses = [node.loss.mean() for node in trace.nodes if node.loss is not None]
        return torch.stack(losses).sum() if losses else trace.distance.new_zeros(())
