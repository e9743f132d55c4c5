"""Quantisers without a codebook: rounded numbers (FSQ), and categories (Gumbel-softmax)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from narrows._types import Clock, Node, Sizes, Trace, Weight, weight_at
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import straight_through
from narrows.parts.latents.vector_quantizer import Quantizer, piece_size
from narrows.parts.priors.base import Prior, validate_temperature


def finite_scalar(y: Tensor, reach: Tensor | float) -> tuple[Tensor, Tensor]:
    """FSQ: y bounded to ±reach, and rounded to one of 2 reach + 1 values, one apart.

    bounded = r tanh(y / r). The slope at 0 is one, so that values well within the range hardly
    change. For an even number of values these are ±½, ±1½, ...

    Source: Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", arXiv:2309.15505.

    Parameters
    ----------
    y : Tensor
    reach : float or Tensor that broadcasts against y
        The largest value, (n − 1) / 2 for n values.

    Returns
    -------
    bounded, rounded : Tensor like y
        ``straight_through(bounded, rounded)`` has a gradient.
    """
    bounded = reach * torch.tanh(y / reach)
    half = reach % 1  # 0.5 for an even number of values: none of them is 0
    return bounded, (bounded - half).round() + half


class FiniteScalar(Quantizer):
    """z = round(r tanh(h / r)), r = (n − 1) / 2: n values for each number, nothing to learn.

    See ``finite_scalar``.

    Parameters
    ----------
    n_values : int, or one for each number of the code
        At least 2. If they differ, indices go up to the largest.

    Raises
    ------
    ParameterError
        There are fewer than 2 values, or not one count for each number of the code.
    """

    reach: Tensor  # (latent_dim,): the largest value of each number

    def __init__(self, n_values: int | Sequence[int] = 8) -> None:
        super().__init__()
        self.levels = (n_values,) if isinstance(n_values, int) else tuple(n_values)
        self.n_values = max(self.levels)
        if min(self.levels) < 2:
            raise ParameterError(f"n_values must be at least 2. Got {n_values!r}.")

    def extra_repr(self) -> str:
        return f"{' × '.join(map(str, self.levels))} values"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        levels = self.levels * sizes.latent_dim if len(self.levels) == 1 else self.levels
        if len(levels) != sizes.latent_dim:
            raise ParameterError(
                f"n_values has {len(levels)} numbers, but latent_dim={sizes.latent_dim}; give one "
                "for each number of the code, or a single one for all."
            )
        self.register_buffer("reach", torch.tensor([(n - 1) / 2 for n in levels]))

    def mode(self, h: Tensor) -> Tensor:
        """The nearest values."""
        return finite_scalar(h.float(), self.reach)[1]

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        z = straight_through(*finite_scalar(h.float(), self.reach))
        return Node(z=z.expand(K, *h.shape), extras={"indices": self.indices(z.detach())})

    def indices(self, z: Tensor) -> Tensor:
        return (z + self.reach).round().long()

    def vectors(self, indices: Tensor) -> Tensor:
        return torch.minimum(indices, 2 * self.reach) - self.reach


class GumbelSoftmax(Quantizer):
    """Each piece of z is one of C categories, one-hot, with the probabilities softmax(h).

        training:   z = softmax((log softmax(h) + G) / τ),  G ~ Gumbel(0, 1)
        otherwise:  z one-hot, an exact draw:  log q(z | x) = Σ z · log softmax(h)

        KL(q ‖ uniform) = Σ_pieces (Σ_c q_c log q_c + log C)

    Source: Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax",
    arXiv:1611.01144.

    Parameters
    ----------
    n_categories : int or "auto"
        C; must divide latent_dim. auto: the divisor nearest to 8 (a code of one number has one
        category, and holds no information).
    temperature : number or function of progress
        τ. A number is the value at the end of training; τ starts at 1 and falls exponentially.

    Raises
    ------
    ParameterError
        ``n_categories`` does not divide latent_dim.
    """

    density = starts_from_data = True
    tau: Tensor  # (), the present temperature

    def __init__(self, n_categories: int | str = "auto", temperature: Weight = 0.5) -> None:
        super().__init__()
        self.n_categories, self.temperature = n_categories, temperature

    def extra_repr(self) -> str:
        return f"{self.n_values} categories"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        n, k = self.n_categories, sizes.latent_dim
        if isinstance(n, str):
            divisors = (d for d in range(2, k + 1) if k % d == 0)
            n = min(divisors, key=lambda d: abs(math.log(d / 8)), default=1)
        self.n_values = piece_size("n_categories", n, k, 1)
        self.register_buffer("tau", torch.tensor(self._temperature(Clock(progress=0.0))))

    def _temperature(self, clock: Clock) -> float:
        end = self.temperature
        return weight_at(end, clock) if callable(end) else float(end) ** clock.progress

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Start D's scale at the error of draws, which is far larger than PCA's."""
        x = x[:256]
        z = self.vectors(self._draw(model.encoder_output(x), 1, rng)[0].argmax(-1))
        model.D.init_scale(float((model.decode(z) - x).square().mean().sqrt().clamp_min(1e-2)))

    def _draw(self, h: Tensor, K: int, rng: Generator | None) -> Tensor:
        """log softmax(h) + G; its argmax is a draw: (B, latent_dim) → (K, B, positions, C)."""
        log_q = self._pieces(h).log_softmax(-1)
        noise = torch.empty((K, *log_q.shape), device=h.device, dtype=torch.float32)
        return log_q - noise.exponential_(generator=rng).clamp_min(1e-30).log()  # log 0 = −∞

    def after_step(self, trace: Trace) -> None:
        """Lower the temperature."""
        self.tau.fill_(self._temperature(trace.clock))

    def positions(self, latent_dim: int) -> int:
        return latent_dim // self.n_values

    def _pieces(self, h: Tensor) -> Tensor:
        return h.float().reshape(*h.shape[:-1], -1, self.n_values)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        log_q = self._pieces(h).log_softmax(-1)
        drawn = self._draw(h, K, rng)
        relaxed = (drawn / self.tau).softmax(-1).flatten(-2)
        z = relaxed if self.training else self.vectors(drawn.argmax(-1))
        each = (log_q.exp() * log_q).sum(-1) + math.log(self.n_values)
        chance = (self._pieces(z) * log_q).sum((-2, -1))
        return Node(z=z, log_q=chance, kl=each.sum(-1), extras={"kl_each": each})

    def mode(self, h: Tensor) -> Tensor:
        """The most probable category of each piece."""
        return self.vectors(self.indices(h))

    def indices(self, z: Tensor) -> Tensor:
        return self._pieces(z).argmax(-1)

    def vectors(self, indices: Tensor) -> Tensor:
        return F.one_hot(indices, self.n_values).float().flatten(-2)


class UniformCategorical(Prior):
    """p(z) = n_values ** −positions: all codes of a quantiser are equally likely."""

    space, closed = "codes", True

    def log_prob(self, z: Tensor, model: Composition) -> Tensor:
        chance = -model.q.positions(z.shape[-1]) * math.log(model.q.n_values)
        return torch.full(z.shape[:-1], chance, device=z.device, dtype=torch.float32)

    def sample(self, n: int, rng: Generator, temperature: float, model: Composition) -> Tensor:
        validate_temperature(temperature, "a finite set of codes")
        shape = (n, model.q.positions(self.latent_dim))
        drawn = torch.randint(model.q.n_values, shape, generator=rng, device=rng.device)
        vectors: Tensor = model.q.vectors(drawn)
        return vectors
