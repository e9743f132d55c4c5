"""Bounds: how the draws of a trace fold into one loss; ELBO (``Mean``), IWAE, MIWAE, PIWAE, CIWAE.

With log w = log p(x | z) + log p(z) − log q(z | x), (K, B), each class returns minus its bound of
log p(x), which is minimised, in nats a row.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from narrows._types import Clock, Trace
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import normal_log_prob


class Bound(nn.Module):
    """The contract of a bound. A subclass gives ``forward``.

    Attributes
    ----------
    importance : bool
        Whether densities stand inside the logarithm of a mean over draws, where most regularisers
        have no meaning.
    needs : frozenset of str
        "gaussian": it reads μ and log σ² of a ``DiagonalGaussian``.
    has_encoder : bool
        Whether f and q minimise another loss, ``encoder``.
    begin : float
        The progress from which the bound takes all its draws.
    """

    importance: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    has_encoder: ClassVar[bool] = False
    begin: float = 0.0

    def samples(self, clock: Clock) -> int:
        """Draws of z for each row."""
        return 1

    def forward(self, trace: Trace) -> Tensor:
        """The loss, ()."""
        raise NotImplementedError

    def encoder(self, trace: Trace) -> Tensor:
        """The loss of f and q, (); only where ``has_encoder``."""
        raise NotImplementedError

    def score(self, trace: Trace) -> Tensor:
        """What is compared on validation, ()."""
        return self.forward(trace)


class Mean(Bound):
    """E_x E_q D(x, g(z)); with the KL as a term, minus the evidence lower bound (ELBO)."""

    def forward(self, trace: Trace) -> Tensor:
        return trace.distance.mean()


def log_weights(trace: Trace) -> Tensor:
    """log w of every draw, (K, B), without the constants of D."""
    total = -trace.distance
    for node in trace.nodes:
        assert node.log_p is not None
        assert node.log_q is not None
        total = total + node.log_p - node.log_q
    return total


def log_mean_exp(weights: Tensor, dim: int = 0) -> Tensor:
    """log of the mean of exp(weights) over one axis."""
    return weights.logsumexp(dim) - math.log(weights.shape[dim])


class ImportanceWeighted(Bound):
    """−E_x log 1/K Σ_k w_k: the bound of IWAE.

    Source: Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519.

    Parameters
    ----------
    K : int
        Draws for each row; 1 is the evidence lower bound.
    begin : float
        Share of the training before which there is one draw only, so that steps are fast.
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


class MIWAE(ImportanceWeighted):
    """−E_x 1/M Σ_m log 1/K Σ_k w_{m,k}.

    Source: Rainforth et al. 2018, arXiv:1802.04537.

    Parameters
    ----------
    M, K : int
        M importance-weighted bounds of K draws each: M·K draws for each row. K = 1 is the evidence
        lower bound for any M, M = 1 the importance-weighted bound.
    begin : float
        As in ``ImportanceWeighted``.
    """

    def __init__(self, M: int = 5, K: int = 5, begin: float = 0.0) -> None:
        super().__init__(K, begin)
        self.M = M

    def extra_repr(self) -> str:
        return f"M={self.M}, {super().extra_repr()}"

    def samples(self, clock: Clock) -> int:
        return self.M * self.K if clock.progress >= self.begin else 1

    def forward(self, trace: Trace) -> Tensor:
        weights = log_weights(trace)
        # before ``begin`` there is one draw, a bound by itself
        each = weights.unflatten(0, (-1, min(self.K, len(weights))))  # (M, K, B)
        return -log_mean_exp(each, dim=1).mean()


class PIWAE(MIWAE):
    """MIWAE(M, K) for f and q; for all other parameters the tighter bound of all M·K draws.

    A tighter bound has a noisier gradient for f, but a better one for g. The score is the tighter
    one. Source and parameters: those of ``MIWAE``.
    """

    has_encoder = True

    def forward(self, trace: Trace) -> Tensor:
        return ImportanceWeighted.forward(self, trace)

    def encoder(self, trace: Trace) -> Tensor:
        return MIWAE.forward(self, trace)


class CIWAE(ImportanceWeighted):
    """β (−ELBO) + (1 − β) (−IWAE), both of the same K draws.

    Source: Rainforth et al. 2018, arXiv:1802.04537.

    Parameters
    ----------
    K, begin
        As in ``ImportanceWeighted``.
    beta : float
        β in [0, 1]: 1 is the evidence lower bound, 0 the importance-weighted bound.
    """

    def __init__(self, K: int = 5, beta: float = 0.05, begin: float = 0.0) -> None:
        super().__init__(K, begin)
        self.beta = beta

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def forward(self, trace: Trace) -> Tensor:
        weights = log_weights(trace)
        return -(self.beta * weights.mean() + (1 - self.beta) * log_mean_exp(weights).mean())


class DoublyReparameterised(ImportanceWeighted):
    """The importance-weighted bound, with a less noisy gradient for f and q.

    With w̃ = w / Σ w and the parameters of q's density held constant, that gradient is
    Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂(f, q). It has the same expectation as the plain one, and its
    signal-to-noise ratio grows with K. If the prior depends on f and q directly (``VampPrior``),
    that path counts w̃_k ∂log p(z_k), as it does for any other parameter of p. With K = 1 it is the
    path gradient of Roeder et al. (arXiv:1703.09194).

    Source: Tucker et al. 2018, arXiv:1810.04152. Parameters: those of ``ImportanceWeighted``.
    """

    needs = frozenset({"gaussian"})
    has_encoder = True

    def encoder(self, trace: Trace) -> Tensor:
        """A number with that gradient; its value has no meaning."""
        node = trace.nodes[0]
        if len(trace.nodes) > 1:
            raise ParameterError(
                "The bound DoublyReparameterised needs one Gaussian latent, but this model has "
                f"{len(trace.nodes)} levels of them; choose ImportanceWeighted."
            )
        if not node.z.requires_grad:
            return self.forward(trace)
        assert node.log_p is not None
        mu, log_variance = (node.extras[name].detach() for name in ("mu", "log_variance"))
        rest = -trace.distance - normal_log_prob(node.z, mu, log_variance)
        share = (rest + node.log_p).detach().softmax(0)
        (gradient,) = torch.autograd.grad(node.log_p.sum(), node.z, retain_graph=True)
        # share · log_p gives w̃ to all paths through p; the path through z must count w̃²
        through_z = (share.square() - share) * (gradient * node.z).sum(-1)
        return -(share.square() * rest + share * node.log_p + through_z).sum(0).mean()
