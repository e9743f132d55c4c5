"""How the draws of a trace fold into one number: the evidence bound, and its tighter kin.

With log w = log p(x | z) + log p(z) − log q(z | x), (K, B), each class reports the bound itself (to
be minimised: minus it), in nats a row.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from narrows.core import Clock, Trace


class Bound(nn.Module):
    """What every bound says of itself.

    ``importance`` means that densities stand inside a logarithm of a mean over draws: no other
    term has a meaning in there. ``encoder`` is another loss for f and q alone, where
    there is one. ``needs`` are the names of a node's extras that the bound reads.
    """

    importance: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    has_encoder: ClassVar[bool] = False

    def samples(self, clock: Clock) -> int:
        """Draws of z for each row."""
        return 1

    def forward(self, trace: Trace) -> Tensor:
        """The loss."""
        raise NotImplementedError

    def encoder(self, trace: Trace) -> Tensor:
        """The loss of f and q, where ``has_encoder``."""
        raise NotImplementedError

    def score(self, trace: Trace) -> Tensor:
        """What counts on validation."""
        value: Tensor = self(trace)
        return value


class Mean(Bound):
    """E_x E_q D(x, g(z)): with the KL as a term, minus the evidence lower bound."""

    def forward(self, trace: Trace) -> Tensor:
        return trace.distance.mean()


def log_weights(trace: Trace) -> Tensor:
    """log w of every draw, (K, B); constants of D that do not depend on anything are left out."""
    total = -trace.distance
    for node in trace.nodes:
        if node.log_p is None or node.log_q is None:
            raise ValueError("a point has no density")
        total = total + node.log_p - node.log_q
    return total


def log_mean_exp(weights: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of exp(weights)."""
    return weights.logsumexp(dim) - math.log(weights.shape[dim])


class ImportanceWeighted(Bound):
    """−E_x log 1/K Σ_k w_k (Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519).

    Parameters
    ----------
    K : int
        Draws for each row; 1 is the evidence bound.
    begin : float
        The share of the training before which the bound has one draw only; 0: from the first step.
    """

    importance = True

    def __init__(self, K: int = 5, begin: float = 0.0) -> None:
        super().__init__()
        self.K, self.begin = K, begin

    def extra_repr(self) -> str:
        return f"K={self.K}" + (f", begin={self.begin:g}" if self.begin else "")

    def samples(self, clock: Clock) -> int:
        return self.K if clock.progress >= self.begin else 1

    def forward(self, trace: Trace) -> Tensor:
        return -log_mean_exp(log_weights(trace)).mean()
