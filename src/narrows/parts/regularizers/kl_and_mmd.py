"""R that compares q with p: the KL divergence and its parts, and maximum mean discrepancy (MMD)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from narrows._types import Node, Trace, Weight, weight_at
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import LOG_2PI
from narrows.parts.regularizers.base import Regularizer


class KL(Regularizer):
    """KL(q(z | x) ‖ p(z)), summed over the nodes, averaged over the batch.

    The closed form where there is one, else log q − log p of the draws.

    Parameters
    ----------
    free : number or function of progress
        Nats of every number of the code that cost nothing ("free bits": Kingma et al. 2016,
        arXiv:1606.04934, eq. 15): Σ_j max(free, mean KL_j). If the KL of single numbers is not
        known, max(k free, mean KL) for a code of k numbers.
    capacity : number or function of progress, optional
        |KL − capacity| instead: Burgess et al. 2018, arXiv:1804.03599.
    """

    needs = frozenset({"density", "prior"})

    def __init__(self, free: Weight = 0.0, capacity: Weight | None = None) -> None:
        super().__init__()
        self.free, self.capacity = free, capacity

    def schedules(self) -> tuple[Weight | None, ...]:
        return self.free, self.capacity

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        free, total = weight_at(self.free, trace.clock), trace.distance.new_zeros(())
        for node in trace.nodes:
            total = total + _kl_of(node, free)
        if self.capacity is None:
            return total
        return (total - weight_at(self.capacity, trace.clock)).abs()


def _kl_of(node: Node, free: float) -> Tensor:
    """The KL of one node, averaged over the batch, with so many free nats for each number."""
    if free and node.kl is not None and "kl_each" in node.extras:
        return node.extras["kl_each"].mean(0).clamp_min(free).sum()
    if node.kl is not None:
        mean = node.kl.mean()
    else:
        assert node.log_q is not None and node.log_p is not None
        mean = (node.log_q - node.log_p).mean()
    return mean.clamp_min(free * node.z.shape[-1]) if free else mean


MAX_COMPARED_ROWS = 512  # every row is compared with every other: memory grows with the square


def aggregate_posterior(node: Node, n_rows: int, estimator: str) -> tuple[Tensor, Tensor]:
    """Of every draw log q(z) and Σ_j log q(z_j), (K, B); q(z) is the mean of q(z | x) over all x.

    Estimated from the B rows of the batch, of N = ``n_rows`` in all. "mss" (minibatch stratified
    sampling): the draw's own row has the weight 1/N, and every other row (N − 1)/N/(B − 1). (In the
    paper one of the others takes the remainder; equal weights have the same expectation, less
    variance and do not depend on the order.) "mws" (minibatch weighted sampling): 1/(N B) each, a
    lower bound.
    """
    mu, log_variance = node.extras["mu"], node.extras["log_variance"]
    B = len(mu)
    N = max(n_rows, B)
    squares = (node.z[:, :, None] - mu).square() / log_variance.exp()
    each = -0.5 * (squares + log_variance + LOG_2PI)  # (K, B, B, k): of draw i under row j
    if estimator == "mws" or B == 1:
        weights = each.new_full((B, B), -math.log(N * B) if B > 1 else 0.0)
    else:
        weights = each.new_full((B, B), math.log((N - 1) / (N * (B - 1))))
        weights.fill_diagonal_(-math.log(N))
    joint = (each.sum(-1) + weights).logsumexp(-1)
    return joint, (each + weights[..., None]).logsumexp(-2).sum(-1)


class TotalCorrelation(Regularizer):
    """KL(q(z) ‖ Π_j q(z_j)): how much the numbers of a code depend on each other, over all rows.

    Chen et al. decompose KL = MI + TC + Σ_j KL(q(z_j) ‖ p(z_j)), so that
    α MI + β TC + γ Σ_j KL_j = α KL + (β − α) TC + (γ − α) Σ_j KL_j. Estimated from the draws and
    rows of a batch, and the number of training rows.

    Source: Chen et al. 2018, arXiv:1802.04942, section 4.1 and appendix C.

    Parameters
    ----------
    estimator : str
        "mss" or "mws", see ``aggregate_posterior``; the value of the second is off by a constant,
        which does not change the gradient.
    """

    needs = frozenset({"gaussian"})

    def __init__(self, estimator: str = "mss") -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        node = trace.nodes[0]
        if len(trace.nodes) > 1:
            raise ParameterError(
                "The total correlation needs one Gaussian latent, but this model "
                f"has {len(trace.nodes)} levels of them; leave it out."
            )
        nats = [self._of_draws(part, trace) for part in _parts(node, MAX_COMPARED_ROWS)]
        return torch.cat(nats, 1).mean()

    def _of_draws(self, node: Node, trace: Trace) -> Tensor:
        """The term of every draw, (K, B)."""
        joint, product = aggregate_posterior(node, trace.clock.n_rows, self.estimator)
        return joint - product


class DimensionwiseKL(TotalCorrelation):
    """KL(Π_j q(z_j) ‖ p(z)); Σ_j KL(q(z_j) ‖ p(z_j)) if the prior is a product as well.

    Source and parameters: those of ``TotalCorrelation``.
    """

    needs = frozenset({"gaussian", "prior"})

    def _of_draws(self, node: Node, trace: Trace) -> Tensor:
        assert node.log_p is not None
        return aggregate_posterior(node, trace.clock.n_rows, self.estimator)[1] - node.log_p


def _parts(node: Node, n: int) -> list[Node]:
    """The node in parts of equal size, of at most n rows each."""
    B = node.z.shape[1]
    count = -(-B // n)
    edges = [B * i // count for i in range(count + 1)]
    log_p = node.log_p
    return [
        Node(
            z=node.z[:, start:stop],
            log_p=None if log_p is None else log_p[:, start:stop],
            extras={name: node.extras[name][start:stop] for name in ("mu", "log_variance")},
        )
        for start, stop in pairwise(edges)
    ]


# kernels of r = ‖z − z'‖² / C, by name
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "imq": lambda r: 1.0 / (1.0 + r),
    "rbf": lambda r: torch.exp(-r),
}
# C = scale · 2k, where 2k is the mean of ‖z − z'‖² under N(0, I): differences at any scale count
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
N_PRIOR_DRAWS = 256  # for each batch, whatever its size


def mmd(z: Tensor, drawn: Tensor, kernel: str) -> Tensor:
    """MMD² of the samples z (n, k) and drawn (m, k), a number of at least 0."""

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        r = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
        r = r.clamp_min(0.0) / (2.0 * a.shape[1])  # rounding can make a small distance negative
        return torch.stack([KERNELS[kernel](r / scale).mean() for scale in SCALES]).sum()

    z, drawn = z.float(), drawn.float()
    with torch.autocast(z.device.type, enabled=False):
        return similarity(z, z) + similarity(drawn, drawn) - 2.0 * similarity(z, drawn)


class MMD(Regularizer):
    """MMD²(q(z), p(z)) = E k(z, z') + E k(p, p') − 2 E k(z, p), of all codes of the batch together.

    k is the sum over scales s of C / (C + ‖z − z'‖²) ("imq") or of exp(−‖z − z'‖² / C) ("rbf"),
    with C = 2ks. Its weight turns it into nats.

    The estimate is the V-statistic, the means over *all* pairs: it is never negative, is 0 for
    equal samples, is defined for a batch of one row, and does not change when a batch is repeated.
    The unbiased estimate has none of these properties. In return the variance of n codes is drawn
    to a value about 2/n too small.

    Source: Gretton et al., "A kernel two-sample test", JMLR 13 (2012); the kernel and its scales:
    Tolstikhin et al., "Wasserstein auto-encoders", arXiv:1711.01558.

    Parameters
    ----------
    kernel : str
        "imq" or "rbf".
    """

    needs = frozenset({"prior", "smooth"})

    def __init__(self, kernel: str = "imq") -> None:
        super().__init__()
        self.kernel = kernel

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}"

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        drawn = model.p.sample(N_PRIOR_DRAWS, trace.rng, 1.0, model)
        return mmd(trace.z.flatten(0, 1), drawn, self.kernel)
