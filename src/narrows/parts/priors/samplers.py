"""Distributions that are fitted to the codes of training rows, once a model is trained.

Each is a module whose shapes follow from its name and the latent, so that a file can hold it. Those
that are trained are a model of their own: ``forward`` gives a trace whose distance is −log p.
"""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import SPACES, Latent, normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.latents.vector_quantizer import Quantizer
from narrows.parts.likelihoods.continuous import Gaussian
from narrows.parts.model import Model
from narrows.parts.networks.architectures import create, mlp
from narrows.parts.networks.masked_autoregressive import masked_autoregressive
from narrows.parts.priors.base import StandardNormal


def hidden_width(latent_dim: int) -> int:
    """Width of the hidden layers of networks that are trained on codes."""
    return min(512, max(64, 4 * latent_dim))


class Sampler(nn.Module):
    """The contract of a sampler; all inner methods see standardised codes.

    Attributes
    ----------
    trained : bool
        Whether the training loop must train it, after ``init_from_codes``.
    discrete : bool
        Whether it models the indices of a quantiser, and not the codes themselves.
    words : str
        What it is, for ``info``.
    """

    trained: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    words: ClassVar[str]
    mean: Tensor  # (latent_dim,)
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def build(self, rng: Generator | None) -> None:
        """Create the parameters; without ``rng`` nothing is drawn, on the caller's device."""

    def extra_repr(self) -> str:
        return self.words

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        """Fit what needs no training; returns the standardised codes to train on."""
        self.mean.copy_(codes.mean(0))
        spread = codes.std(0, correction=0)
        # a number that is constant over all rows keeps its units
        self.scale.copy_(torch.where(spread > 1e-6 * (1 + self.mean.abs()), spread, 1.0))
        return (codes - self.mean) / self.scale

    def refuse_damage(self) -> None:
        """Raise ValueError if numbers that were read from a file have no meaning."""

    @property
    def training_steps(self) -> int:
        """How many steps of the loop are enough."""
        return 1000

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        """−log p of standardised codes, or an upper bound of it, in nats, (B,)."""
        raise NotImplementedError

    def forward(self, z: Tensor, clock: Clock, rng: Generator) -> Trace:
        return Trace(z, z, None, [Node(z[None])], z[None], self.cost(z, rng)[None], clock, rng)

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        """n standardised codes."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """n codes, (n, latent_dim); ``temperature`` multiplies the noise they are made of."""
        return self.draw(n, rng, temperature) * self.scale + self.mean

    def _normal(self, n: int, rng: Generator, temperature: float) -> Tensor:
        shape = (n, self.latent_dim)
        return temperature * torch.randn(shape, generator=rng, device=rng.device)


class MixtureSampler(Sampler):
    """Σ_c w_c N(μ_c, L_c L_cᵀ), fitted by scikit-learn's expectation maximisation.

    Up to 10 components, fewer for few codes: the ex-post density estimation of Ghosh et al.,
    "From variational to deterministic autoencoders", arXiv:1903.12436.
    """

    trained, max_components, words = False, 10, "a mixture of Gaussians, fitted to the codes"
    weights: Tensor  # (max_components,); 0 for a component that is not used
    centres: Tensor
    roots: Tensor  # L_c

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        n = self.max_components
        self.register_buffer("weights", torch.zeros(n))
        self.register_buffer("centres", torch.zeros(n, latent_dim))
        self.register_buffer("roots", torch.eye(latent_dim).repeat(n, 1, 1))

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        codes = super().init_from_codes(codes, rng)
        n, k = codes.shape
        # a component has k(k + 3)/2 parameters; 5 (k + 3) codes bring ten numbers for each
        found = GaussianMixture(
            max(1, min(self.max_components, n // (5 * (k + 3)))),
            reg_covar=1e-5,
            max_iter=200,
            random_state=int(torch.randint(2**31 - 1, (), generator=rng)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # nearly converged is good enough
            found.fit(codes.double().cpu().numpy())
        count = len(found.weights_)
        self.weights[:count] = torch.from_numpy(found.weights_)
        self.centres[:count] = torch.from_numpy(found.means_)
        self.roots[:count] = torch.linalg.cholesky(torch.from_numpy(found.covariances_))
        return codes

    def refuse_damage(self) -> None:
        if not (bool((self.weights >= 0).all()) and 0.99 < float(self.weights.sum()) < 1.01):
            raise ValueError("its sampler has weights that are no probabilities")

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        differences = (z[:, None] - self.centres)[..., None]
        eps = torch.linalg.solve_triangular(self.roots, differences, upper=False)[..., 0]
        log_det = self.roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = normal_log_prob(eps, 0.0, 0.0) - log_det + self.weights.log()
        return -each.logsumexp(-1)

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = self._normal(n, rng, temperature)
        for c in range(self.max_components):
            mine = chosen == c
            z[mine] = self.centres[c] + z[mine] @ self.roots[c].T
        return z


class NormalSampler(MixtureSampler):
    """N(μ, Σ) with the mean and the covariance of the codes."""

    max_components, words = 1, "one Gaussian, fitted to the codes"


class MAFSampler(Sampler):
    """Masked autoregressive flow: u_i = (z_i − m_i(z_{<i})) exp(−s_i(z_{<i})), u ~ N(0, I).

    Several such steps, each in the reverse order of the last; trained by maximum likelihood.

    Source: Papamakarios, Pavlakou & Murray, arXiv:1705.07057.
    """

    n_steps, words = 4, "a masked autoregressive flow, trained on the codes"
    max_log_scale = 3.0  # |s_i| stays below this: exp(−s_i) must not overflow

    def build(self, rng: Generator | None) -> None:
        k, hidden = self.latent_dim, (hidden_width(self.latent_dim),) * 2
        nets = (masked_autoregressive(k, 2, hidden, rng=rng) for _ in range(self.n_steps))
        self.steps = nn.ModuleList(nets)

    def _conditioner(self, net: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
        """m and s, each (B, latent_dim)."""
        shift, log_scale = net(z).unbind(-1)
        return shift, self.max_log_scale * torch.tanh(log_scale / self.max_log_scale)

    def normalise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and log |∂u/∂z|, in one pass: m and s depend on the known z only."""
        log_det = z.new_zeros(len(z))
        for net in self.steps:
            shift, log_scale = self._conditioner(net, z)
            z = ((z - shift) * torch.exp(-log_scale)).flip(-1)
            log_det = log_det - log_scale.sum(-1)
        return z, log_det

    def generate(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse, with log |∂z/∂u|; number by number, because z_i needs z_1, ..., z_{i−1}."""
        log_det = u.new_zeros(len(u))
        for net in reversed(self.steps):
            u = u.flip(-1)
            z = torch.zeros_like(u)
            for i in range(self.latent_dim):
                shift, log_scale = self._conditioner(net, z)
                known = u[:, i] * torch.exp(log_scale[:, i]) + shift[:, i]
                z = torch.cat([z[:, :i], known[:, None], z[:, i + 1 :]], -1)
                log_det = log_det + log_scale[:, i]
            u = z
        return u, log_det

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        u, log_det = self.normalise(z)
        return -normal_log_prob(u, 0.0, 0.0) - log_det

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        return self.generate(self._normal(n, rng, temperature))[0]


class IAFSampler(MAFSampler):
    """Inverse autoregressive flow: the same steps in the other direction.

    Sampling takes one pass; a density is computed number by number, so training is slow.

    Source: Kingma et al., arXiv:1606.04934; both directions: Papamakarios et al., arXiv:1705.07057.
    """

    n_steps, words = 3, "an inverse autoregressive flow, trained on the codes"

    @property
    def training_steps(self) -> int:
        return max(100, 1500 // self.latent_dim)  # a step costs about latent_dim passes

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        u, log_det = self.generate(z)
        return -normal_log_prob(u, 0.0, 0.0) - log_det

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        return self.normalise(self._normal(n, rng, temperature))[0]


class TwoStageSampler(Sampler):
    """A second VAE, of the codes: z ~ N(g₂(u), γ²), u ~ N(0, I), with γ learned.

    γ is part of the second VAE's likelihood, so it becomes the noise that codes really have;
    drawing adds it.

    Source: Dai & Wipf, "Diagnosing and enhancing VAE models", arXiv:1903.05789.

    Parameters
    ----------
    inner : int, optional
        Numbers of u; None: as many as the code has.
    """

    words = "a second VAE, trained on the codes"

    def __init__(self, latent_dim: int, inner: int | None = None) -> None:
        super().__init__(latent_dim)
        self.inner = latent_dim if inner is None else inner

    def build(self, rng: Generator | None) -> None:
        width, k = hidden_width(self.latent_dim), self.latent_dim
        f, g = mlp([k, width, width, 2 * self.inner], rng), mlp([self.inner, width, width, k], rng)
        p = StandardNormal()
        p.build(Sizes((k,), self.inner), rng)
        self.vae = Model(f, g, DiagonalGaussian(), Gaussian(), p=p)

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        trace = self.vae(z, Clock(), rng, K=1)
        total: Tensor = trace.distance[0] + trace.nodes[0].kl
        return total

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        assert isinstance(self.vae.D, Gaussian)
        gamma = self.vae.D.log_scale.clamp(min=Gaussian.min_log_scale).exp()
        z: Tensor = self.vae.g(self.vae.sample(n, rng, temperature))
        return z + gamma * self._normal(n, rng, temperature)


class AutoregressiveSampler(Sampler):
    """P(j) = Π_i P(j_i | j_{<i}) over the indices of a quantiser, by a recurrent network (GRU).

    It takes the place of the PixelCNN of van den Oord et al. (arXiv:1711.00937); indices are in
    the order in which the code is cut into pieces.

    Parameters
    ----------
    n_positions, n_values : int
        How many indices a code has, and how many values each can take.
    """

    discrete, words = True, "an autoregressive network, trained on the codes"
    width, batch_size = 96, 4096  # of the network's layers; codes drawn at once

    def __init__(self, n_positions: int, n_values: int) -> None:
        nn.Module.__init__(self)  # indices are not standardised
        self.n_positions, self.n_values = n_positions, n_values

    def build(self, rng: Generator | None) -> None:
        # one more value: "nothing yet", before the first index
        def embedding(n: int) -> nn.Embedding:  # a plain one draws: torch imports torch._dynamo
            made: nn.Embedding = nn.Embedding.from_pretrained(
                torch.empty(n, self.width), freeze=False
            )
            return made

        self.before = create(lambda: embedding(self.n_values + 1), rng)
        self.place = create(lambda: embedding(self.n_positions), rng)
        self.net = create(lambda: nn.GRU(self.width, self.width, batch_first=True), rng)
        self.answer = create(lambda: nn.Linear(2 * self.width, self.n_values), rng)

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        return codes

    def _logits(
        self, before: Tensor, first: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, m, n_values) at the m positions from ``first``, given the index before each.

        Also the state of the network after them.
        """
        place = self.place.weight[first : first + before.shape[1]]
        h, state = self.net(self.before(before) + place, state)
        return self.answer(torch.cat([h, place.expand_as(h)], -1)), state

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        j = z.long()
        logits, _ = self._logits(F.pad(j[:, :-1], (1, 0), value=self.n_values), 0)
        each = F.cross_entropy(logits.flatten(0, 1), j.flatten(), reduction="none")
        return each.view(j.shape).sum(1)

    @torch.no_grad()
    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """n rows of indices, (n, n_positions)."""
        drawn = []
        for start in range(0, n, self.batch_size):
            count = min(self.batch_size, n - start)
            row = [torch.full((count, 1), self.n_values, device=rng.device)]
            state = None
            for i in range(self.n_positions):
                logits, state = self._logits(row[-1], i, state)
                # temperature 0: the most probable index, without dividing by 0
                probabilities = (logits[:, 0] / max(temperature, 1e-6)).softmax(-1)
                row.append(torch.multinomial(probabilities, 1, generator=rng))
            drawn.append(torch.cat(row[1:], 1))
        return torch.cat(drawn)


SAMPLERS: dict[str, type[Sampler]] = {
    "normal": NormalSampler,
    "mixture": MixtureSampler,
    "maf": MAFSampler,
    "iaf": IAFSampler,
    "two_stage": TwoStageSampler,
    "autoregressive": AutoregressiveSampler,
}


def validate_sampler(name: str, q: Latent, has_prior: bool) -> None:
    """Raise ParameterError if a sampler of this name cannot draw codes of this latent."""
    space = SPACES[q.space]
    if name == "prior" and not has_prior:
        raise ParameterError(
            "sampler='prior' draws from the model's prior, but this model has none; choose "
            "sampler='mixture', which is fitted to the codes."
        )
    if name not in SAMPLERS:
        return
    if SAMPLERS[name].discrete and q.space != "codes":
        raise ParameterError(
            f"sampler={name!r} draws from a finite set of codes, but this model's codes lie "
            f"in {space}; choose sampler='mixture' or 'prior'."
        )
    if q.space in ("sphere", "ball"):
        raise ParameterError(
            f"sampler={name!r} draws real numbers, but this model's codes lie in {space}; leave "
            "sampler='prior'."
        )


def make_sampler(name: str, latent_dim: int, q: Latent, rng: Generator | None) -> Sampler:
    """A sampler of this name for codes of q; without ``rng`` nothing is drawn."""
    sampler: Sampler
    if SAMPLERS[name] is AutoregressiveSampler:
        assert isinstance(q, Quantizer)
        sampler = AutoregressiveSampler(q.positions(latent_dim), q.n_values)
    else:
        sampler = SAMPLERS[name](latent_dim)
    sampler.build(rng)
    return sampler.float()


def codes_of(model: Model, x: Tensor, rng: Generator) -> Tensor:
    """The codes to fit a sampler to: draws of q(z | x) if it has a density, else noise-free ones.

    A decoder of a stochastic latent was trained on draws, and all draws together are the best
    prior (Dai & Wipf); codes without noise are fitted as they are (Ghosh et al.).
    """
    if not model.q.density:
        return model.encode(x).float()
    return torch.cat([node.z[0] for node in model.draw_nodes(x, 1, rng)], -1)


def draw(sampler: Sampler, q: Latent, n: int, rng: Generator, temperature: float) -> Tensor:
    """n codes in the space of q: the nearest in a finite set; sparse codes keep their largest."""
    drawn = sampler.sample(n, rng, temperature)
    if isinstance(q, Quantizer):
        drawn = drawn if sampler.discrete else q.indices(drawn).clamp(0, q.n_values - 1)
        drawn = q.vectors(drawn)
    return q.mode(drawn) if q.space == "sparse" else drawn
