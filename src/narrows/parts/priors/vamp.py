"""VampPrior: p(z) is the mean of the model's own posteriors at learned inputs."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from narrows._types import Sizes, Trace
from narrows.parts import Composition
from narrows.parts.latents.base import LOG_2PI
from narrows.parts.priors.base import Prior


def mixture_log_prob(z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
    """log 1/N Σ_n N(z; μ_n, diag σ_n²): (..., k) → (...), with μ and log σ² of shape (N, k).

    (z − μ)² is expanded, so that three matrix products do all the work. Far from 0 float32 would
    lose digits in that, so it is float64; it is still faster than S × N × k differences.
    """
    with torch.autocast(z.device.type, enabled=False):
        centre = mu.mean(0).double()
        flat = z.double().reshape(-1, z.shape[-1]) - centre
        m, precision = mu.double() - centre, torch.exp(-log_variance.double())
        squares = flat.square() @ precision.T - 2.0 * flat @ (m * precision).T
        squares = squares + (m.square() * precision + log_variance.double() + LOG_2PI).sum(-1)
        total = (-0.5 * squares).logsumexp(-1) - math.log(len(mu))
        return total.float().view(z.shape[:-1])


class VampPrior(Prior):
    """p(z) = 1/N Σ_n q(z | u_n): a mixture of the model's own posteriors at N learned inputs u_n.

    The u_n start at training rows and stay within the range of x.

    Source: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_inputs : int
        N.
    """

    needs = frozenset({"gaussian"})
    starts_from_data = True
    low: Tensor  # the range of x, (): in scaled units
    high: Tensor

    def __init__(self, n_inputs: int = 100) -> None:
        super().__init__()
        self.n_inputs = n_inputs

    def extra_repr(self) -> str:
        return f"{self.n_inputs} inputs"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        super().build(sizes, rng)
        inputs = torch.empty((self.n_inputs, *sizes.shape), dtype=torch.float32)
        self.inputs = nn.Parameter(inputs if rng is None else inputs.normal_(generator=rng))
        self.register_buffer("low", torch.tensor(-math.inf))
        self.register_buffer("high", torch.tensor(math.inf))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Start near some of these rows; zeros and ones start at 0.05 and 0.95."""
        low, high = x.aminmax()
        self.low.copy_(low)
        self.high.copy_(high)
        some = x[torch.arange(self.n_inputs, device=x.device) % len(x)]
        if low == 0 and high == 1:
            some = some.lerp(torch.full_like(some, 0.5), 0.1)
        noise = torch.randn(some.shape, generator=rng, dtype=torch.float32)
        self.inputs.copy_((some + 0.01 * noise).clamp(low, high))

    @torch.no_grad()
    def after_step(self, trace: Trace) -> None:
        """Projected gradient: back into the range of x, where f was trained."""
        self.inputs.clamp_(self.low, self.high)

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        return mixture_log_prob(z, *model.posterior(self.inputs))

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        mu, log_variance = model.posterior(self.inputs)
        drawn = torch.randint(self.n_inputs, (n,), generator=rng, device=mu.device)
        eps = torch.randn((n, mu.shape[1]), generator=rng, device=mu.device, dtype=mu.dtype)
        return mu[drawn] + temperature * torch.exp(0.5 * log_variance[drawn]) * eps
