"""Posteriors with draws that are moved towards large log p(x, z) by Hamiltonian dynamics.

    z_0 ~ N(μ, diag σ²),  γ ~ N(0, G(z_0)),  ρ_0 = γ / √β_0;  n leapfrog steps from (z_0, ρ_0),
    after each of which the momentum ρ is cooled, by √β_0 over all steps

Leapfrog steps keep the volume of (z, ρ), and the cooling cancels the division by √β_0, so that with
the density of the momentum

    log w = log p(x, z_n) + log N(ρ_n; 0, G(z_n)) − log q_0(z_0) − log N(γ; 0, G(z_0)),

and the mean of w is p(x). ``log_q`` is what makes log p(x, z_n) − log_q equal to log w.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import Joint
from narrows.parts.latents.gaussian import DiagonalGaussian

MAX_STEP = 0.5  # length of a leapfrog step, in units of σ; longer ones are unstable


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


class Hamiltonian(DiagonalGaussian):
    """Tempered leapfrog steps with G = I; the code is where μ moves to, without momentum.

    Every number of the code has a learned step length, in units of the row's own σ: a step that is
    short enough for one row can be too long for another.

    Source: Caterini, Doucet & Sejdinovic, "Hamiltonian variational auto-encoder", arXiv:1805.11328.

    Parameters
    ----------
    n_leapfrog : int
        Number of steps; each costs one more pass through g.
    step_size : float
        Step length at the start, above 0 and below 0.5; training keeps it below 0.5.
    beta_zero : float
        β_0 at the start, above 0 and at most 1: the inverse temperature before the first step.
    """

    needs_joint = True

    def __init__(self, n_leapfrog: int = 3, step_size: float = 0.2, beta_zero: float = 0.7) -> None:
        super().__init__()
        self.n_leapfrog, self.step_size, self.beta_zero = n_leapfrog, step_size, beta_zero

    def extra_repr(self) -> str:
        return f"{self.n_leapfrog} steps"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        raw = _logit(self.step_size / MAX_STEP)
        self.raw_steps = nn.Parameter(torch.full((sizes.latent_dim,), raw, dtype=torch.float32))
        self.raw_beta = nn.Parameter(torch.tensor(_logit(self.beta_zero), dtype=torch.float32))

    def momentum(self, z: Tensor, eps: Tensor) -> Tensor:
        """γ ~ N(0, G(z)) from eps ~ N(0, I)."""
        return eps

    def kinetic_energy(self, z: Tensor, rho: Tensor) -> Tensor:
        """−log N(ρ; 0, G(z)), up to a constant."""
        return 0.5 * rho.square().sum(-1)

    def leapfrog(
        self, z: Tensor, rho: Tensor, gradient: Tensor, steps: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step, without cooling.

        Parameters
        ----------
        z, rho, gradient : Tensor of shape (K, B, latent_dim)
            The position, the momentum, and ∇ log p(x, z) at the position.
        steps : Tensor
            Step lengths, one for each number of each row.
        joint : callable
            log p(x, z) as a function of z.

        Returns
        -------
        z, rho, gradient after the step, and the penalty (K, B) in nats if its equations could not
        be solved; here they are explicit, and the penalty is 0
        """
        half = rho + 0.5 * steps * gradient
        z = z + steps * half
        gradient = gradient_of(joint, z)
        return z, half + 0.5 * steps * gradient, gradient, z.new_zeros(z.shape[:-1])

    def cooling(self) -> Tensor:
        """What the momentum is multiplied by after step t: √β_{t−1} / √β_t, with β_n = 1.

        1 / √β_t goes to 1 with the square of t / n, the paper's schedule.
        """
        first = torch.sigmoid(self.raw_beta).rsqrt()
        t = torch.arange(self.n_leapfrog + 1, device=first.device, dtype=first.dtype)
        heat = first + (1.0 - first) * (t / self.n_leapfrog).square()  # 1 / √β_t
        return heat[1:] / heat[:-1]

    def trajectory(
        self, z: Tensor, gamma: Tensor, deviation: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps: z_n, ρ_n and the penalty, from z_0, γ and q_0's σ."""
        steps = MAX_STEP * torch.sigmoid(self.raw_steps) * deviation
        rho = gamma * torch.sigmoid(self.raw_beta).rsqrt()
        gradient, total = gradient_of(joint, z), z.new_zeros(z.shape[:-1])
        for cooled in self.cooling():
            z, rho, gradient, penalty = self.leapfrog(z, rho, gradient, steps, joint)
            rho, total = cooled * rho, total + penalty
        return z, rho, total

    def forward(self, h: Tensor, K: int, rng: Generator | None, joint: Joint | None = None) -> Node:
        assert joint is not None
        with torch.autocast(h.device.type, enabled=False):
            node = super().forward(h, K, rng)
            z, log_q = node.z, node.log_q
            assert log_q is not None
            eps = torch.randn(z.shape, generator=rng, device=z.device, dtype=z.dtype)
            gamma = self.momentum(z, eps)
            log_q = log_q - self.kinetic_energy(z, gamma)
            deviation = torch.exp(0.5 * node.extras["log_variance"])
            z, rho, penalty = self.trajectory(z, gamma, deviation, joint)
            log_q = log_q + self.kinetic_energy(z, rho) + penalty
        return Node(z=z, log_q=log_q, extras={"mu": node.extras["mu"]})

    def mode(self, h: Tensor, joint: Joint | None = None) -> Tensor:
        """Where the mean moves to, without momentum at the start."""
        assert joint is not None
        with torch.autocast(h.device.type, enabled=False):
            mu, log_variance = self.split(h)
            deviation = torch.exp(0.5 * log_variance)
            return self.trajectory(mu[None], torch.zeros_like(mu)[None], deviation, joint)[0][0]


def gradient_of(joint: Joint, z: Tensor) -> Tensor:
    """∇ log p(x, z) of every draw, also under ``no_grad``; in training it can be differentiated."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        at = z if keep and z.requires_grad else z.detach().requires_grad_()
        # log p(x, z) of one row does not depend on other rows: the gradient of the sum is enough
        return torch.autograd.grad(joint(at).sum(), at, create_graph=keep)[0]


MAX_LATENT_DIM = 64  # the metric holds latent_dim² numbers for every anchor and every code
FIXED_POINT_STEPS = 10  # iterations of each implicit equation
TOLERANCE = 1e-3  # the largest difference between its two sides


class RiemannianHamiltonian(Hamiltonian):
    """Hamiltonian with a learned metric: G⁻¹(z) = Σ_i L_i L_iᵀ exp(−|z − c_i|² / T²) + λ I.

    Codes move much near the anchors c_i and little elsewhere. Steps are those of the generalised
    leapfrog, whose implicit equations are solved by fixed-point iteration.

    In the paper every training row is an anchor, at its code, with L_i from a network of that row.
    Here ``n_anchors`` start at codes of training rows, and c_i, L_i and T are learned: a saved
    model needs no training rows.

    Source: Chadebec, Mantoux & Allassonnière, "Geometry-aware Hamiltonian variational
    auto-encoder", arXiv:2010.11518; Chadebec et al., arXiv:2105.00026.

    Parameters
    ----------
    n_leapfrog, step_size, beta_zero
        As in ``Hamiltonian``.
    n_anchors : int
        Number of anchors.
    floor : float
        λ, above 0.

    Raises
    ------
    ParameterError
        A code has more than 64 numbers.
    """

    starts_from_data = True
    lr_multiplier = 0.3  # measured on digits: at 1 the metric changes before f and g can follow

    def __init__(
        self,
        n_leapfrog: int = 3,
        step_size: float = 0.2,
        beta_zero: float = 0.7,
        n_anchors: int = 32,
        floor: float = 0.01,
    ) -> None:
        super().__init__(n_leapfrog, step_size, beta_zero)
        self.n_anchors, self.floor = n_anchors, floor

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        super().build(sizes, rng)
        n, k = self.n_anchors, sizes.latent_dim
        if k > MAX_LATENT_DIM:
            raise ParameterError(
                f"latent_dim={k} is too large for a Riemannian metric, which needs latent_dim² "
                f"numbers for every code; choose at most {MAX_LATENT_DIM}, or HamiltonianVAE."
            )
        anchors = torch.zeros(n, k, dtype=torch.float32)
        self.anchors = nn.Parameter(anchors if rng is None else anchors.normal_(generator=rng))
        self.factors = nn.Parameter(torch.eye(k, dtype=torch.float32).repeat(n, 1, 1) / n**0.5)
        self.log_reach = nn.Parameter(torch.tensor(0.5 * math.log(k), dtype=torch.float32))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Start with anchors at the codes of some of these rows, and a metric near I there.

        T starts at the largest distance from an anchor to the nearest other one.
        """
        rows = x[torch.arange(self.n_anchors, device=x.device) % len(x)]
        codes = self.split(model.f(model.D.to_model(rows)))[0]
        noise = torch.randn(codes.shape, generator=rng, dtype=codes.dtype)
        self.anchors.copy_(codes + 0.01 * noise)  # equal rows must not give equal anchors
        distances = torch.cdist(self.anchors, self.anchors)
        nearest = distances.kthvalue(min(2, len(distances)), dim=1).values  # the first is itself
        self.log_reach.copy_(nearest.amax().clamp_min(1.0).log())
        near = torch.exp(-(distances / self.log_reach.exp()).square()).sum(1).mean()
        self.factors.copy_(torch.eye(codes.shape[1], dtype=codes.dtype) / near.sqrt())

    def momentum(self, z: Tensor, eps: Tensor) -> Tensor:
        upper = LocalMetric(self, z).root().mT  # G⁻¹ = R Rᵀ, so that R⁻ᵀ eps ~ N(0, G)
        gamma: Tensor = torch.linalg.solve_triangular(upper, eps[..., None], upper=True)
        return gamma[..., 0]

    def kinetic_energy(self, z: Tensor, rho: Tensor) -> Tensor:
        root = LocalMetric(self, z).root()
        along = (root * rho[..., None]).sum(-2)  # Rᵀ ρ
        # ½ ρᵀ G⁻¹ ρ + ½ log|det G|, and ½ log|det G| = −Σ log R_ii
        return 0.5 * along.square().sum(-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def leapfrog(
        self, z: Tensor, rho: Tensor, gradient: Tensor, steps: Tensor, joint: Joint
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        here, pushed = LocalMetric(self, z), rho + 0.5 * steps * gradient
        G = torch.cholesky_inverse(here.root())
        limit = 1.0 + rho.abs().amax(-1, keepdim=True)  # bounds an iteration that diverges
        half = pushed
        for _ in range(FIXED_POINT_STEPS):
            half = pushed + (0.5 * steps * here.force(half, G)).clamp(-limit, limit)
        off = half - pushed - 0.5 * steps * here.force(half, G)
        leaving = new = here.velocity(half)
        for _ in range(FIXED_POINT_STEPS):
            at = z + 0.5 * steps * (leaving + new)
            there = LocalMetric(self, at)
            new = there.velocity(half)
        off = torch.maximum(off.abs(), (z + 0.5 * steps * (leaving + new) - at).abs())
        # an unsolved step does not keep volume; the penalty gives such draws little weight, so
        # that training gains nothing from them
        penalty = z.shape[-1] * (off.amax(-1) / TOLERANCE).clamp_min(1.0).log()
        G, gradient = torch.cholesky_inverse(there.root()), gradient_of(joint, at)
        rho = half + 0.5 * steps * (gradient + there.force(half, G))
        return at, rho, gradient, penalty


class LocalMetric:
    """The metric at codes z, (..., k): its inverse, and how both change with z."""

    def __init__(self, q: RiemannianHamiltonian, z: Tensor) -> None:
        lower = q.factors.tril()
        self.matrices = (lower @ lower.mT).flatten(1)  # L_i L_iᵀ: (n, k²)
        self.squared = torch.exp(2 * q.log_reach)  # T²
        self.differences = z[..., None, :] - q.anchors
        self.shares = torch.exp(-self.differences.square().sum(-1) / self.squared)
        k = z.shape[-1]
        eye = q.floor * torch.eye(k, device=z.device, dtype=z.dtype)
        self.inverse = (self.shares @ self.matrices).view(*z.shape, k) + eye

    def root(self) -> Tensor:
        """R with G⁻¹ = R Rᵀ, lower triangular."""
        root: Tensor = torch.linalg.cholesky_ex(self.inverse).L
        return root

    def velocity(self, rho: Tensor) -> Tensor:
        """G⁻¹ ρ."""
        return (self.inverse * rho[..., None, :]).sum(-1)

    def force(self, rho: Tensor, G: Tensor) -> Tensor:
        """−∇_z of ½ log|det G(z)| + ½ ρᵀ G⁻¹(z) ρ.

        With M_i = L_i L_iᵀ and shares s_i: 1/T² Σ_i s_i (ρᵀ M_i ρ − tr(G M_i)) (z − c_i).
        """
        each = (rho[..., :, None] * rho[..., None, :] - G).flatten(-2) @ self.matrices.T
        return ((self.shares * each)[..., None] * self.differences).sum(-2) / self.squared
