"""R on single rows: small, sparse or smooth codes, smooth networks, a quantiser's commitment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from narrows._types import Trace
from narrows.parts import Composition
from narrows.parts.model import merge_draws
from narrows.parts.regularizers.base import Regularizer


class L1Sparsity(Regularizer):
    """Σ_j |z_j|: numbers of a code that do not help go to 0."""

    needs = frozenset({"smooth"})

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return trace.z.float().abs().sum(-1).mean()


class KLSparsity(Regularizer):
    """Σ_j KL(Bernoulli(ρ) ‖ Bernoulli(ρ̂_j)), ρ̂_j the mean activity of z_j over the batch.

    The activity is 2 sigmoid(|z_j|) − 1 = tanh(|z_j| / 2), between 0 and 1: a number of the code
    may be large for some rows if it is near 0 for the others. (Ng's code is itself a sigmoid; ours
    has numbers of either sign.)

    Source: Ng, "Sparse autoencoder", CS294A lecture notes (2011).

    Parameters
    ----------
    target : float
        ρ, between 0 and 1.
    """

    needs = frozenset({"smooth"})

    def __init__(self, target: float = 0.05) -> None:
        super().__init__()
        self.target = target

    def extra_repr(self) -> str:
        return f"target={self.target:g}"

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        active = torch.tanh(0.5 * trace.z.float().abs()).mean((0, 1))
        # the logarithms stay finite for a number that is 0 everywhere, or huge
        active = active.clamp(1e-6, 1 - 1e-6)
        rho = torch.full_like(active, self.target)
        active_part = rho * (rho.log() - active.log())
        return (active_part + (1 - rho) * ((1 - rho).log() - (1 - active).log())).sum()


class CodeNorm(Regularizer):
    """½ ‖z‖²: codes stay near 0 (Ghosh et al. 2020, arXiv:1903.12436)."""

    needs = frozenset({"smooth"})

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return 0.5 * trace.z.float().square().sum(-1).mean()


class DecoderWeightDecay(Regularizer):
    """½ Σ w² over all parameters of g (Ghosh et al. 2020, arXiv:1903.12436)."""

    any_bound = True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        squares = [p.square().sum() for p in model.g.parameters()]
        return 0.5 * torch.stack(squares).sum()


class Commitment(Regularizer):
    """The loss that latents return themselves, as a codebook's commitment loss."""

    any_bound = True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        losses = [node.loss.mean() for node in trace.nodes if node.loss is not None]
        return torch.stack(losses).sum() if losses else trace.distance.new_zeros(())


MAX_EXACT_OUTPUTS = 8  # for more outputs than this one random estimate is faster


def squared_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, rng: Generator) -> Tensor:
    """‖∂function(x)/∂x‖², the squared Frobenius norm of the Jacobian J, averaged over rows, ().

    Exact for up to ``MAX_EXACT_OUTPUTS`` outputs. For more, an unbiased estimate: E ‖vᵀ J‖² = ‖J‖²
    for v of independent random signs (Hutchinson 1990). It can be differentiated, except under
    ``no_grad``, where it has a value as well.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        flat = function(x).float().flatten(1)
        if flat.shape[1] <= MAX_EXACT_OUTPUTS:
            eye = torch.eye(flat.shape[1], device=flat.device)
            vectors = eye[:, None].expand(-1, len(flat), -1)
        else:
            bits = torch.randint(0, 2, (1, *flat.shape), generator=rng, device=flat.device)
            vectors = 2.0 * bits - 1.0
        total = flat.new_zeros(len(flat))
        for v in vectors:
            (gradient,) = torch.autograd.grad(
                flat, x, v, retain_graph=True, create_graph=graph, materialize_grads=True
            )
            total = total + gradient.flatten(1).square().sum(1)
        nats = total.mean()
    return nats if graph else nats.detach()


class Contractive(Regularizer):
    """‖∂z/∂x‖²: the noise-free code changes little when x does.

    Source: Rifai et al., "Contractive auto-encoders", ICML 2011.
    """

    needs, any_bound = frozenset({"smooth"}), True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return squared_jacobian(model.encode, trace.x, trace.rng)


class GradientPenalty(Regularizer):
    """‖∂g(z)/∂z‖² at the codes of x: the decoder is smooth. f gets no gradient from it.

    Source: Ghosh et al. 2020, "From variational to deterministic autoencoders", arXiv:1903.12436.
    """

    needs, any_bound = frozenset({"smooth"}), True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return squared_jacobian(model.g, merge_draws(trace.z).float(), trace.rng)
