"""R on single rows: codes that are small, sparse or smooth, and networks that are smooth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from narrows._types import Trace
from narrows.exceptions import ParameterError
from narrows.parts.model import fold
from narrows.parts.regularizers.base import Regularizer


class L1Sparsity(Regularizer):
    """Σ_j |z_j|: numbers of a code that are of no use go to 0."""

    needs = frozenset({"smooth"})

    def forward(self, model: Any, trace: Trace) -> Tensor:
        return trace.z.float().abs().sum(-1).mean()


class KLSparsity(Regularizer):
    """Σ_j KL(ρ ‖ ρ̂_j) between coins that fall heads so often; ρ̂_j is how active z_j is on average.

    Its activity is 2 sigmoid(|z_j|) − 1, from 0 at 0 to 1, and the average is over the batch: a
    number of the code may be large where it is needed, if it is near 0 elsewhere. (Ng's units give
    sigmoids themselves, which are near 0 at one end; ours give numbers of either sign.)

    Source: Ng, "Sparse autoencoder", CS294A lecture notes (2011).

    Parameters
    ----------
    target : float
        ρ, between 0 and 1.
    """

    needs = frozenset({"smooth"})

    def __init__(self, target: float = 0.05) -> None:
        super().__init__()
        if not 0 < target < 1:
            raise ParameterError(f"target must lie between 0 and 1. Got {target!r}.")
        self.target = target

    def extra_repr(self) -> str:
        return f"target={self.target:g}"

    def forward(self, model: Any, trace: Trace) -> Tensor:
        active = torch.tanh(0.5 * trace.z.float().abs()).mean((0, 1))
        # a code that is 0 everywhere, or huge, costs much but no infinity
        active = active.clamp(1e-6, 1 - 1e-6)
        rho = torch.full_like(active, self.target)
        heads = rho * (rho.log() - active.log())
        return (heads + (1 - rho) * ((1 - rho).log() - (1 - active).log())).sum()


class CodeNorm(Regularizer):
    """½ ‖z‖²: codes stay near 0 (Ghosh et al. 2020, arXiv:1903.12436)."""

    needs = frozenset({"smooth"})

    def forward(self, model: Any, trace: Trace) -> Tensor:
        return 0.5 * trace.z.float().square().sum(-1).mean()


class DecoderWeightDecay(Regularizer):
    """½ Σ w² over all parameters of g (Ghosh et al. 2020, arXiv:1903.12436)."""

    beside = True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        squares = [p.square().sum() for p in model.g.parameters()]
        return 0.5 * torch.stack(squares).sum()


EXACT = 8  # numbers of an answer up to which every one is differentiated by itself


def squared_jacobian(answer: Tensor, given: Tensor, rng: Generator | None, graph: bool) -> Tensor:
    """‖∂answer/∂given‖² of each row, (n,), summed over all elements of the matrix.

    Exact for answers of up to ``EXACT`` numbers. Of wider ones an estimate without bias:
    E ‖vᵀ J‖² = ‖J‖² for v of independent signs (Hutchinson 1990). With ``graph`` it can be
    differentiated itself.
    """
    flat = answer.flatten(1)
    if flat.shape[1] <= EXACT:
        vectors = torch.eye(flat.shape[1], device=flat.device)[:, None].expand(-1, len(flat), -1)
    else:
        coins = torch.randint(0, 2, (1, *flat.shape), generator=rng, device=flat.device)
        vectors = 2.0 * coins - 1.0
    total = flat.new_zeros(len(flat))
    for v in vectors:
        (slope,) = torch.autograd.grad(
            flat, given, v, retain_graph=True, create_graph=graph, materialize_grads=True
        )
        total = total + slope.flatten(1).square().sum(1)
    return total


class Contractive(Regularizer):
    """‖∂z/∂x‖²: the noise-free code hardly moves when x does.

    Source: Rifai et al., "Contractive auto-encoders", ICML 2011.
    """

    needs, beside = frozenset({"smooth"}), True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        graph = torch.is_grad_enabled()
        with torch.enable_grad():  # it has a value in evaluation, too
            x = trace.x.detach().requires_grad_()
            nats = squared_jacobian(model.encode(x).float(), x, trace.rng, graph).mean()
        return nats if graph else nats.detach()


class GradientPenalty(Regularizer):
    """‖∂g(z)/∂z‖² at the codes of x: the decoder is smooth. f has no part in it.

    Source: Ghosh et al. 2020, "From variational to deterministic autoencoders", arXiv:1903.12436.
    """

    needs, beside = frozenset({"smooth"}), True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            z = fold(trace.z).detach().float().requires_grad_()
            nats = squared_jacobian(model.g(z).float(), z, trace.rng, graph).mean()
        return nats if graph else nats.detach()
