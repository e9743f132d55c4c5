"""VampPrior: p(z) is the mean of the model's own posteriors at learned inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows.core import Sizes, Trace
from narrows.parts.latents import LOG_2PI
from narrows.parts.priors import Prior

# draws × components that are looked at together: as many as stay in a cache, or fill a GPU
TOGETHER = {"cpu": 2**18, "cuda": 2**24}


class _Mixture(torch.autograd.Function):
    """log Σ_n exp(c_n − ½ Σ_j ((z_j − μ_nj) s_nj)²), one j after another: (S, k) → (S,).

    Nothing of S × N × k numbers is ever made, on the way forward or back.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, mu: Tensor, s: Tensor, c: Tensor) -> Tensor:
        apart = torch.zeros((len(z), len(mu)), dtype=z.dtype, device=z.device)
        for z_j, mu_j, s_j in zip(z.T, mu.T, s.T, strict=True):
            # the difference is taken first: expanded squares lose their digits far from 0
            r = (z_j[:, None] - mu_j).mul_(s_j)
            apart.addcmul_(r, r)
        each = c - 0.5 * apart
        total = each.logsumexp(-1)
        ctx.save_for_backward(z, mu, s, each.sub_(total[:, None]).exp_())
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        z, mu, s, share = ctx.saved_tensors
        share = share * gradient[:, None]
        found: list[list[Tensor]] = [[], [], []]
        for z_j, mu_j, s_j in zip(z.T, mu.T, s.T, strict=True):
            apart = z_j[:, None] - mu_j
            pull = share * apart
            found[0].append(-(pull * s_j.square()).sum(1))
            found[1].append(pull.sum(0) * s_j.square())
            found[2].append(-pull.mul_(apart).sum(0) * s_j)
        return *(torch.stack(parts, 1) for parts in found), share.sum(0)


def mixture_log_prob(z: Tensor, mu: Tensor, log_variance: Tensor) -> Tensor:
    """log 1/N Σ_n N(z; μ_n, diag σ_n²): (..., k) → (...), with μ and log σ² of shape (N, k)."""
    flat, scale = z.float().reshape(-1, z.shape[-1]), torch.exp(-0.5 * log_variance)
    constant = -0.5 * (log_variance + LOG_2PI).sum(-1) - math.log(len(mu))
    some = max(1, TOGETHER.get(z.device.type, 2**18) // len(mu))
    apply: Any = _Mixture.apply
    parts = [apply(part, mu, scale, constant) for part in flat.split(some)]
    return torch.cat(parts).view(z.shape[:-1])


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
    def start_with(self, x: Tensor, model: Any, rng: Generator) -> None:
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
            mu, log_variance = model.q.split(model.f(model.D.inward(self.inputs)))
        return mu, log_variance

    def log_prob(self, z: Tensor, model: Any) -> Tensor:
        return mixture_log_prob(z, *self.posteriors(model))

    def sample(self, n: int, rng: Generator, temperature: float = 1.0, model: Any = None) -> Tensor:
        mu, log_variance = self.posteriors(model)
        drawn = torch.randint(self.n_inputs, (n,), generator=rng, device=mu.device)
        eps = torch.randn((n, mu.shape[1]), generator=rng, device=mu.device, dtype=mu.dtype)
        return mu[drawn] + temperature * torch.exp(0.5 * log_variance[drawn]) * eps
