"""Posteriors whose draws are moved by Hamiltonian dynamics towards log p(x, z).

    z_0 ~ N(μ, diag σ²),  γ ~ N(0, G(z_0)),  ρ_0 = γ / √β_0;  n leapfrog steps from (z_0, ρ_0),
    after each of which the momentum is cooled, by all together √β_0

The steps keep the volume of (z, ρ), and the cooling takes back what the division by √β_0 brought,
so that with the momentum's own density beside each

    log w = log p(x, z_n) + log N(ρ_n; 0, G(z_n)) − log q_0(z_0) − log N(γ; 0, G(z_0)),

whose mean weight is p(x): ``log_q`` is what log p(x, z_n) − log_q needs to be this.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import DiagonalGaussian, Joint

LONGEST = 0.5  # of a step, in units of σ


def _logit(share: float) -> float:
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))


class Hamiltonian(DiagonalGaussian):
    """Tempered leapfrog steps with G = I; its code goes from μ, without momentum, the same way.

    Every number of the code has a learned length of step, in units of the row's own σ: steps that
    are short enough for one row need not be for another.

    Source: Caterini, Doucet & Sejdinovic, "Hamiltonian variational auto-encoder", arXiv:1805.11328.

    Parameters
    ----------
    n_leapfrog : int
        Steps; each takes one more pass through g.
    step_size : float
        Their length at the start, above 0 and below 0.5, which it never passes.
    beta_zero : float
        β_0 at the start, above 0 and at most 1: the inverse temperature before the first step.
    """

    needs_joint = True

    def __init__(self, n_leapfrog: int = 3, step_size: float = 0.2, beta_zero: float = 0.7) -> None:
        super().__init__()
        if not (n_leapfrog >= 1 and 0 < step_size < LONGEST and 0 < beta_zero <= 1):
            raise ParameterError(
                f"{type(self).__name__} needs n_leapfrog of at least 1, step_size above 0 and "
                f"below {LONGEST}, and beta_zero above 0 and at most 1. "
                f"Got {n_leapfrog!r}, {step_size!r} and {beta_zero!r}."
            )
        self.n_leapfrog, self.step_size, self.beta_zero = n_leapfrog, step_size, beta_zero

    def extra_repr(self) -> str:
        return f"{self.n_leapfrog} steps"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        raw = _logit(self.step_size / LONGEST)
        self.raw_steps = nn.Parameter(torch.full((sizes.latent_dim,), raw, dtype=torch.float32))
        raw = _logit(self.beta_zero)
        self.raw_beta = nn.Parameter(torch.full((), raw, dtype=torch.float32))

    def kick(self, z: Tensor, eps: Tensor) -> Tensor:
        """γ ~ N(0, G(z)) from eps ~ N(0, I)."""
        return eps

    def energy(self, z: Tensor, rho: Tensor) -> Tensor:
        """−log N(ρ; 0, G(z)) but for a constant."""
        return 0.5 * rho.square().sum(-1)

    def leap(
        self, z: Tensor, rho: Tensor, slope: Tensor, steps: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step, without cooling: z, ρ and ∇ log p(x, z) after it, from those before it.

        And what it costs where its equations could not be solved, in nats: here nothing.
        """
        half = rho + 0.5 * steps * slope
        z = z + steps * half
        slope = gradient(joint, z)
        return z, half + 0.5 * steps * slope, slope, z.new_zeros(z.shape[:-1])

    def cooling(self) -> Tensor:
        """What the momentum is multiplied by after each step: √β_{t−1} / √β_t, with β_n = 1.

        1 / √β_t goes to 1 with the square of t, the paper's schedule.
        """
        first = torch.sigmoid(self.raw_beta).rsqrt()
        t = torch.arange(self.n_leapfrog + 1, device=first.device, dtype=first.dtype)
        heat = first + (1.0 - first) * (t / self.n_leapfrog).square()  # 1 / √β_t
        return heat[1:] / heat[:-1]

    def go(
        self, z: Tensor, gamma: Tensor, deviation: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps: z_n and ρ_n from z_0 and γ, and what they cost."""
        steps = LONGEST * torch.sigmoid(self.raw_steps) * deviation
        rho = gamma * torch.sigmoid(self.raw_beta).rsqrt()
        slope, total = gradient(joint, z), z.new_zeros(z.shape[:-1])
        for cooled in self.cooling():
            z, rho, slope, cost = self.leap(z, rho, slope, steps, joint)
            rho, total = cooled * rho, total + cost
        return z, rho, total

    def forward(self, h: Tensor, K: int, rng: Generator | None, joint: Joint | None = None) -> Node:
        assert joint is not None
        with torch.autocast(h.device.type, enabled=False):
            node = super().forward(h, K, rng)
            z, log_q = node.z, node.log_q
            assert log_q is not None
            eps = torch.randn(z.shape, generator=rng, device=z.device, dtype=z.dtype)
            gamma = self.kick(z, eps)
            log_q = log_q - self.energy(z, gamma)
            deviation = torch.exp(0.5 * node.extras["log_variance"])
            z, rho, cost = self.go(z, gamma, deviation, joint)
            log_q = log_q + self.energy(z, rho) + cost
        return Node(z=z, log_q=log_q, extras={"mu": node.extras["mu"]})

    def mode(self, h: Tensor, joint: Joint | None = None) -> Tensor:
        """Where the mean goes, without momentum at the start."""
        assert joint is not None
        with torch.autocast(h.device.type, enabled=False):
            mu, log_variance = self.split(h)
            deviation = torch.exp(0.5 * log_variance)
            z, *_ = self.go(mu[None], torch.zeros_like(mu)[None], deviation, joint)
        return z[0]


def gradient(joint: Joint, z: Tensor) -> Tensor:
    """∇ log p(x, z) of every draw, also where gradients are off; in training it has its own."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        at = z if keep and z.requires_grad else z.detach().requires_grad_()
        # no row's log p(x, z) depends on another row: the gradient of the sum is that of each
        (slope,) = torch.autograd.grad(joint(at).sum(), at, create_graph=keep)
    return slope


MOST_NUMBERS = 64  # of a code, for a metric of so many numbers squared at every anchor
TIMES = 10  # that an implicit equation is put into itself
SOLVED = 1e-3  # what its two sides may differ by


class RiemannianHamiltonian(Hamiltonian):
    """The same on a space with a learned metric: G⁻¹(z) = Σ_i L_i L_iᵀ exp(−|z − c_i|² / T²) + λ I.

    Near the anchors c_i codes move easily, far from them hardly. The steps are those of the
    generalised leapfrog, whose implicit equations are iterated.

    In the paper there is an anchor for every training row, at its code, with L_i from a network
    that is given the row. Here there are ``n_anchors``, which begin at codes of training rows; c_i,
    L_i and T are learned: a saved model needs no training rows, and no row waits for others.

    Source: Chadebec, Mantoux & Allassonnière, "Geometry-aware Hamiltonian variational
    auto-encoder", arXiv:2010.11518; Chadebec et al., arXiv:2105.00026.

    Parameters
    ----------
    n_leapfrog, step_size, beta_zero
        As in ``Hamiltonian``.
    n_anchors : int
        How many anchors the metric has.
    floor : float
        λ, above 0.

    Raises
    ------
    ParameterError
        A code of more than 64 numbers.
    """

    pace = 0.3  # measured on digits: a metric that learns as fast as f and g runs ahead of them

    def __init__(
        self,
        n_leapfrog: int = 3,
        step_size: float = 0.2,
        beta_zero: float = 0.7,
        n_anchors: int = 32,
        floor: float = 0.01,
    ) -> None:
        super().__init__(n_leapfrog, step_size, beta_zero)
        if not (n_anchors >= 1 and floor > 0):
            raise ParameterError(
                "RiemannianHamiltonian needs n_anchors of at least 1 and a floor above 0. "
                f"Got {n_anchors!r} and {floor!r}."
            )
        self.n_anchors, self.floor = n_anchors, floor

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        super().build(sizes, rng)
        n, k = self.n_anchors, sizes.latent_dim
        if k > MOST_NUMBERS:
            raise ParameterError(
                f"RiemannianHamiltonian has a matrix of latent_dim² numbers at every code, and "
                f"takes at most latent_dim={MOST_NUMBERS}, not {k}; choose fewer, or Hamiltonian."
            )
        anchors = torch.zeros(n, k, dtype=torch.float32)
        self.anchors = nn.Parameter(anchors if rng is None else anchors.normal_(generator=rng))
        self.factors = nn.Parameter(torch.eye(k, dtype=torch.float32).repeat(n, 1, 1) / n**0.5)
        self.log_reach = nn.Parameter(torch.full((), 0.5 * math.log(k), dtype=torch.float32))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Any, rng: Generator) -> None:
        """Begin at the codes of some of these rows, with a metric that is about I there.

        T begins at the largest distance of an anchor from the one next to it.
        """
        rows = x[torch.arange(self.n_anchors, device=x.device) % len(x)]
        codes = self.split(model.f(model.D.to_model(rows)))[0]
        noise = torch.randn(codes.shape, generator=rng, dtype=codes.dtype)
        self.anchors.copy_(codes + 0.01 * noise)
        apart = torch.cdist(self.anchors, self.anchors)
        nearest = apart.kthvalue(min(2, len(apart)), dim=1).values  # but for itself
        self.log_reach.copy_(nearest.amax().clamp_min(1.0).log())
        near = torch.exp(-(apart / self.log_reach.exp()).square()).sum(1).mean()
        self.factors.copy_(torch.eye(codes.shape[1], dtype=codes.dtype) / near.sqrt())

    def kick(self, z: Tensor, eps: Tensor) -> Tensor:
        above = Around(self, z).root().mT  # G⁻¹ = R Rᵀ, so that R⁻ᵀ eps ~ N(0, G)
        gamma: Tensor = torch.linalg.solve_triangular(above, eps[..., None], upper=True)
        return gamma[..., 0]

    def energy(self, z: Tensor, rho: Tensor) -> Tensor:
        root = Around(self, z).root()
        along = (root * rho[..., None]).sum(-2)  # Rᵀ ρ
        # and ½ log|det G| = −Σ log R_ii
        return 0.5 * along.square().sum(-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def leap(
        self, z: Tensor, rho: Tensor, slope: Tensor, steps: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        here, pushed = Around(self, z), rho + 0.5 * steps * slope
        G = torch.cholesky_inverse(here.root())
        most = 1.0 + rho.abs().amax(-1, keepdim=True)  # an iteration that goes astray stays near
        half = pushed
        for _ in range(TIMES):
            half = pushed + (0.5 * steps * here.pull(half, G)).clamp(-most, most)
        off = half - pushed - 0.5 * steps * here.pull(half, G)
        leaving = new = here.velocity(half)
        for _ in range(TIMES):
            at = z + 0.5 * steps * (leaving + new)
            there = Around(self, at)
            new = there.velocity(half)
        off = torch.maximum(off.abs(), (z + 0.5 * steps * (leaving + new) - at).abs())
        # without a solution the step keeps no volume: such a draw counts for little, lest training
        # find a profit there
        cost = z.shape[-1] * (off.amax(-1) / SOLVED).clamp_min(1.0).log()
        G, slope = torch.cholesky_inverse(there.root()), gradient(joint, at)
        return at, half + 0.5 * steps * (slope + there.pull(half, G)), slope, cost


class Around:
    """The metric at some codes z, (..., k): its inverse, and how both change with z."""

    def __init__(self, q: RiemannianHamiltonian, z: Tensor) -> None:
        lower = q.factors.tril()
        self.matrices = (lower @ lower.mT).flatten(1)  # L_i L_iᵀ: (n, k²)
        self.squared = torch.exp(2 * q.log_reach)
        self.apart = z[..., None, :] - q.anchors
        self.shares = torch.exp(-self.apart.square().sum(-1) / self.squared)
        k = z.shape[-1]
        eye = q.floor * torch.eye(k, device=z.device, dtype=z.dtype)
        self.inverse = (self.shares @ self.matrices).unflatten(-1, (k, k)) + eye

    def root(self) -> Tensor:
        """R with G⁻¹ = R Rᵀ, lower triangular."""
        root: Tensor = torch.linalg.cholesky_ex(self.inverse)[0]
        return root

    def velocity(self, rho: Tensor) -> Tensor:
        """G⁻¹ ρ."""
        answer: Tensor = (self.inverse * rho[..., None, :]).sum(-1)
        return answer

    def pull(self, rho: Tensor, G: Tensor) -> Tensor:
        """−∇_z of ½ log|det G(z)| + ½ ρᵀ G⁻¹(z) ρ.

        With M_i = L_i L_iᵀ and shares s_i: 1/T² Σ_i s_i (ρᵀ M_i ρ − tr(G M_i)) (z − c_i).
        """
        each = (rho[..., :, None] * rho[..., None, :] - G).flatten(-2) @ self.matrices.T
        return ((self.shares * each)[..., None] * self.apart).sum(-2) / self.squared
