"""VampPrior: p(z) is the mean of the model's own posteriors at learned inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Sizes, Trace
from narrows.parts.latents.base import LOG_2PI
from narrows.parts.priors.base import Prior


def mixture_log_prob(z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
    """log 1/N Σ_n N(z; μ_n, diag σ_n²): (..., k) → (...), with μ and log σ² of shape (N, k).

    (z − μ)² is expanded, so that all is three products of matrices; far from 0 that would cost
    float32 its digits, and so everything is float64, where it is faster still than differences of
    S × N × k numbers.
    """
    with torch.autocast(z.device.type, enabled=False):
        centre = mu.mean(0).double()
        flat = z.double().reshape(-1, z.shape[-1]) - centre
        m, s = mu.double() - centre, torch.exp(-log_variance.double())
        far = flat.square() @ s.T - 2.0 * flat @ (m * s).T
        far = far + (m.square() * s + log_variance.double() + LOG_2PI).sum(-1)
        total = (-0.5 * far).logsumexp(-1) - math.log(len(mu))
        answer: Tensor = total.float().view(z.shape[:-1])
        return answer


class VampPrior(Prior):
    """p(z) = 1/N Σ_n q(z | u_n): a mixture of the model's own posteriors at N learned inputs u_n.

    They begin at training rows and stay within the range of those.

    Source: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_inputs : int
        N.
    """

    needs = frozenset({"gaussian"})
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
    def init_from_data(self, x: Tensor, model: Any, rng: Generator) -> None:
        """Begin a little aside some of these rows; of zeros and ones, at softer ones."""
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
        """Back into the range of x, where f knows its way: a step of projected gradient."""
        self.inputs.clamp_(self.low, self.high)

    def posteriors(self, model: Any) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q at the inputs, (n_inputs, latent_dim) each.

        Of a model of several levels, which says so by a method ``top``, at its highest.
        """
        if hasattr(model, "top"):
            mu, log_variance = model.top(self.inputs)
        else:
            mu, log_variance = model.q.split(model.f(model.D.to_model(self.inputs)))
        return mu, log_variance

    def log_prob(self, z: Tensor, model: Any) -> Tensor:
        return mixture_log_prob(z, *self.posteriors(model))

    def sample(self, n: int, rng: Generator, temperature: float = 1.0, model: Any = None) -> Tensor:
        mu, log_variance = self.posteriors(model)
        drawn = torch.randint(self.n_inputs, (n,), generator=rng, device=mu.device)
        eps = torch.randn((n, mu.shape[1]), generator=rng, device=mu.device, dtype=mu.dtype)
        return mu[drawn] + temperature * torch.exp(0.5 * log_variance[drawn]) * eps
