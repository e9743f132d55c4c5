"""R: what is asked of a model beside a small distance. Each takes (model, trace), answers nats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes, Trace, Weight, weight_at
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import LOG_2PI


class Regularizer(nn.Module):
    """What every R says of itself.

    ``needs`` what it reads: "density" (q has log q), "prior" (there is a p), "gaussian" (μ and
    log σ² of a diagonal Gaussian), "smooth" (codes that have a gradient). One with ``critic`` and
    ``own_loss`` brings a player of its own. ``beside`` says that it has a meaning beside any
    bound: it weighs no code against another. ``settles`` whether a model that does well without
    this term on validation does well: not where the term is what the model is for.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    beside: ClassVar[bool] = False
    settles: ClassVar[bool] = True

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Make the parameters, if there are any; without ``rng`` on the device of the caller."""

    def forward(self, model: Any, trace: Trace) -> Tensor:
        """The term, averaged over the batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Ramp:
    """A weight, or nats, that goes along a line to ``end`` over a share of the training."""

    end: float
    share: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        done = min(1.0, progress / self.share) if self.share else 1.0
        return self.start + (self.end - self.start) * done


class KL(Regularizer):
    """KL(q(z | x) ‖ p(z)), summed over the nodes, averaged over the batch.

    The closed form where there is one, else log q − log p of the draws.

    Parameters
    ----------
    free : number or function of progress
        Nats of every number of the code that cost nothing ("free bits": Kingma et al. 2016,
        arXiv:1606.04934, eq. 15): Σ_j max(free, mean KL_j). Of a latent without numbers that count
        apart, of all numbers together.
    capacity : number or function of progress, optional
        |KL − capacity| instead: Burgess et al. 2018, arXiv:1804.03599.
    """

    needs = frozenset({"density", "prior"})

    def __init__(self, free: Weight = 0.0, capacity: Weight | None = None) -> None:
        super().__init__()
        if not callable(free) and free < 0:
            raise ParameterError(f"free must be at least 0 nats. Got {free!r}.")
        self.free, self.capacity = free, capacity

    def forward(self, model: Any, trace: Trace) -> Tensor:
        total = trace.distance.new_zeros(())
        for node in trace.nodes:
            if node.log_q is None and node.kl is None:
                continue
            total = total + self._of(node, weight_at(self.free, trace.clock))
        if self.capacity is None:
            return total
        return (total - weight_at(self.capacity, trace.clock)).abs()

    def _of(self, node: Any, free: float) -> Tensor:
        each = node.extras.get("kl_each") if node.kl is not None else None
        if free and each is not None:
            floors: Tensor = each.mean(0).clamp_min(free).sum()
            return floors
        mean: Tensor = (node.log_q - node.log_p if node.kl is None else node.kl).mean()
        return mean.clamp_min(free * node.z.shape[-1]) if free else mean


class Commitment(Regularizer):
    """What the latents ask for themselves, as a codebook's commitment; averaged over the batch."""

    beside = True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        losses = [node.loss.mean() for node in trace.nodes if node.loss is not None]
        return torch.stack(losses).sum() if losses else trace.distance.new_zeros(())


ESTIMATORS = ("mss", "mws")
AT_ONCE = 512  # rows: what is compared with each other grows with the square


def aggregate_posterior(node: Node, n_rows: int, estimator: str) -> tuple[Tensor, Tensor]:
    """Of every draw log q(z) and Σ_j log q(z_j), (K, B); q(z) is the mean of q(z | x) over all x.

    Estimated from the rows of the batch, B of the N = ``n_rows`` that there are. "mss" (minibatch
    stratified sampling): the own row counts for itself, 1/N, and the others for all others,
    (N − 1)/N/(B − 1) each. (In the paper one of them makes up the difference; that all share in it
    has the same expectation, less noise and no order.) "mws" (weighted): 1/(N B) each, a lower
    bound.
    """
    mu, log_variance = node.extras["mu"], node.extras["log_variance"]
    B = len(mu)
    N = max(n_rows, B)
    apart = (node.z[:, :, None] - mu).square() / log_variance.exp()
    each = -0.5 * (apart + log_variance + LOG_2PI)  # (K, B, B, k): of draw i under row j
    if estimator == "mws" or B == 1:
        weights = each.new_full((B, B), -math.log(N * B) if B > 1 else 0.0)
    else:
        weights = each.new_full((B, B), math.log((N - 1) / (N * (B - 1))))
        weights.fill_diagonal_(-math.log(N))
    joint = (each.sum(-1) + weights).logsumexp(-1)
    return joint, (each + weights[..., None]).logsumexp(-2).sum(-1)


class TotalCorrelation(Regularizer):
    """KL(q(z) ‖ Π_j q(z_j)): how far the numbers of a code depend on each other, over all rows.

    With KL it is Chen et al.'s decomposition: KL = MI + TC + Σ_j KL(q(z_j) ‖ p(z_j)), so that
    α MI + β TC + γ Σ_j KL_j = α KL + (β − α) TC + (γ − α) Σ_j KL_j. Estimated from the draws and
    the rows of a batch, and the number of training rows.

    Source: Chen et al. 2018, arXiv:1802.04942, section 4.1 and appendix C.

    Parameters
    ----------
    estimator : str
        "mss" or "mws", see ``aggregate_posterior``; the second is of the right gradient
        but off by a constant.
    """

    needs = frozenset({"gaussian"})

    def __init__(self, estimator: str = "mss") -> None:
        super().__init__()
        if estimator not in ESTIMATORS:
            raise ParameterError(f"estimator must be one of {ESTIMATORS}. Got {estimator!r}.")
        self.estimator = estimator

    def forward(self, model: Any, trace: Trace) -> Tensor:
        node = trace.nodes[0]
        if len(trace.nodes) > 1:
            raise ParameterError(
                f"The regulariser {type(self).__name__} knows one Gaussian latent, but this model "
                f"has {len(trace.nodes)}, one given another; leave it out."
            )
        nats = [self._of(part, trace) for part in _parts(node, AT_ONCE)]
        return torch.cat(nats, 1).mean()

    def _of(self, node: Node, trace: Trace) -> Tensor:
        """The term of every draw, (K, B)."""
        joint, apart = aggregate_posterior(node, trace.clock.n_rows, self.estimator)
        return joint - apart


class DimensionwiseKL(TotalCorrelation):
    """KL(Π_j q(z_j) ‖ p(z)), with a prior whose numbers are independent Σ_j KL(q(z_j) ‖ p(z_j)).

    Source and parameters: those of ``TotalCorrelation``.
    """

    needs = frozenset({"gaussian", "prior"})

    def _of(self, node: Node, trace: Trace) -> Tensor:
        _, apart = aggregate_posterior(node, trace.clock.n_rows, self.estimator)
        assert node.log_p is not None
        return apart - node.log_p


def _parts(node: Node, n: int) -> list[Node]:
    """The node of about n rows at a time, evenly."""
    B = node.z.shape[1]
    pieces = [slice(*(B * i // -(-B // n) for i in (j, j + 1))) for j in range(-(-B // n))]
    log_p = node.log_p
    return [
        Node(
            z=node.z[:, rows],
            log_p=None if log_p is None else log_p[:, rows],
            extras={name: node.extras[name][rows] for name in ("mu", "log_variance")},
        )
        for rows in pieces
    ]
