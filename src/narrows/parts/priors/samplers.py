"""What is fitted to the codes of training rows, once a model is trained, to draw new ones from.

Each is a module whose shapes follow from its name and the latent, so that a file can hold it. Those
that must be trained are a model of their own: ``forward`` is a trace whose distance is −log p.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts.bounds import Mean
from narrows.parts.latents.base import DiagonalGaussian, Latent, at_home, normal_log_prob
from narrows.parts.likelihoods.continuous import Gaussian
from narrows.parts.model import Model
from narrows.parts.networks.architectures import make, mlp
from narrows.parts.networks.masked_autoregressive import made
from narrows.parts.priors.base import StandardNormal


def width_for(latent_dim: int) -> int:
    """Of the hidden layers of what is trained on codes."""
    return min(512, max(64, 4 * latent_dim))


class Sampler(nn.Module):
    """What every sampler says of itself.

    ``trained`` whether the loop must train it, after ``begin``; ``whole`` whether it is one of
    whole numbers, and not of the codes themselves.
    """

    trained: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    words: ClassVar[str]
    mean: Tensor  # (latent_dim,)
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def build(self, rng: Generator | None) -> None:
        """Make the parameters; without ``rng`` on the device of the caller."""

    def extra_repr(self) -> str:
        return self.words

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        """Learn what can be learned at once; the codes that are left to train on."""
        self.mean.copy_(codes.mean(0))
        spread = codes.std(0, correction=0)
        # a number that never changes keeps its units
        self.scale.copy_(torch.where(spread > 1e-6 * (1 + self.mean.abs()), spread, 1.0))
        return (codes - self.mean) / self.scale

    @property
    def training_steps(self) -> int:
        """Steps of the loop that are enough."""
        return 1000

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        """−log p of standardised codes, or a bound of it, in nats, (B,)."""
        raise NotImplementedError

    def forward(self, z: Tensor, clock: Clock, rng: Generator) -> Trace:
        return Trace(z, z, None, [Node(z[None])], z[None], self.cost(z, rng)[None], clock, rng)

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        """n standardised codes."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """n codes, (n, latent_dim); a lower temperature draws nearer to the typical."""
        return self.draw(n, rng, temperature) * self.scale + self.mean

    def log_prob(self, z: Tensor, rng: Generator) -> Tensor:
        """log p of codes, (n,), in their own units; of a two-stage sampler a lower bound."""
        return -self.cost((z - self.mean) / self.scale, rng) - self.scale.log().sum()

    def _normal(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        shape = (n, self.latent_dim)
        return temperature * torch.randn(shape, generator=rng, device=rng.device)


class MixtureSampler(Sampler):
    """Σ_c w_c N(μ_c, L_c L_cᵀ), fitted by scikit-learn's expectation maximisation.

    At most 10 components, fewer for few codes; ex-post density estimation as of Ghosh et al.,
    "From variational to deterministic autoencoders", arXiv:1903.12436.
    """

    trained, most, words = False, 10, "a mixture of Gaussians, fitted to the codes"
    weights: Tensor  # (most,); 0 where there is no such component
    centres: Tensor
    roots: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("weights", torch.zeros(self.most))
        self.register_buffer("centres", torch.zeros(self.most, latent_dim))
        self.register_buffer("roots", torch.eye(latent_dim).repeat(self.most, 1, 1))

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        codes = super().init_from_codes(codes, rng)
        n, k = codes.shape
        # a component has k(k + 3)/2 numbers, and every code brings k
        found = GaussianMixture(
            max(1, min(self.most, n // (5 * (k + 3)))),
            reg_covar=1e-5,
            max_iter=200,
            random_state=int(torch.randint(2**31 - 1, (), generator=rng)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture nearly fitted will do
            found.fit(codes.double().cpu().numpy())
        count = len(found.weights_)
        self.weights[:count] = torch.from_numpy(found.weights_)
        self.centres[:count] = torch.from_numpy(found.means_)
        self.roots[:count] = torch.linalg.cholesky(torch.from_numpy(found.covariances_))
        return codes

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        apart = (z[:, None] - self.centres)[..., None]
        eps = torch.linalg.solve_triangular(self.roots, apart, upper=False)[..., 0]
        volume = self.roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = normal_log_prob(eps, 0.0, 0.0) - volume + self.weights.log()
        return -each.logsumexp(-1)

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = self._normal(n, rng, temperature)
        for c in range(self.most):
            mine = chosen == c
            z[mine] = self.centres[c] + z[mine] @ self.roots[c].T
        return z


class NormalSampler(MixtureSampler):
    """N(μ, Σ) with the mean and the covariance of the codes."""

    most, words = 1, "one Gaussian, fitted to the codes"


class MAFSampler(Sampler):
    """Masked autoregressive flow: u_i = (z_i − m_i(z_{<i})) exp(−s_i(z_{<i})), u ~ N(0, I).

    A few such steps, each in the order opposite to the last; trained by maximum likelihood.

    Source: Papamakarios, Pavlakou & Murray, arXiv:1705.07057.
    """

    n_steps, most, words = 4, 3.0, "a masked autoregressive flow, trained on the codes"

    def build(self, rng: Generator | None) -> None:
        width = width_for(self.latent_dim)
        nets = (made(self.latent_dim, 2, (width, width), rng=rng) for _ in range(self.n_steps))
        self.steps = nn.ModuleList(nets)

    def _told(self, net: nn.Module, before: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = net(before).unbind(-1)
        return shift, self.most * torch.tanh(log_scale / self.most)

    def at_once(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z through every step, and log |∂/∂z|: each number of a step depends on its input only."""
        volume = z.new_zeros(len(z))
        for net in self.steps:
            shift, log_scale = self._told(net, z)
            z = ((z - shift) * torch.exp(-log_scale)).flip(-1)
            volume = volume - log_scale.sum(-1)
        return z, volume

    def one_by_one(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of ``at_once``, and its log |∂/∂u|: each number needs those before it."""
        volume = u.new_zeros(len(u))
        for net in reversed(self.steps):
            u = u.flip(-1)
            z = torch.zeros_like(u)
            for i in range(self.latent_dim):
                shift, log_scale = self._told(net, z)
                known = u[:, i] * torch.exp(log_scale[:, i]) + shift[:, i]
                z = torch.cat([z[:, :i], known[:, None], z[:, i + 1 :]], -1)
                volume = volume + log_scale[:, i]
            u = z
        return u, volume

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        u, volume = self.at_once(z)
        return -normal_log_prob(u, 0.0, 0.0) - volume

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        return self.one_by_one(self._normal(n, rng, temperature))[0]


class IAFSampler(MAFSampler):
    """Inverse autoregressive flow: the same steps turned round, so that drawing is one pass.

    Its density is found one number after another, which makes it slow to train.

    Source: Kingma et al., arXiv:1606.04934; both ways: Papamakarios et al., arXiv:1705.07057.
    """

    n_steps, words = 3, "an inverse autoregressive flow, trained on the codes"

    @property
    def training_steps(self) -> int:
        return max(100, 1500 // self.latent_dim)

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        u, volume = self.one_by_one(z)
        return -normal_log_prob(u, 0.0, 0.0) - volume

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        return self.at_once(self._normal(n, rng, temperature))[0]


class TwoStageSampler(Sampler):
    """A second VAE, of the codes: z ~ N(g₂(u), γ²), u ~ N(0, I), with γ learned.

    γ stands in the second's likelihood, so that it is the noise that codes really have, and drawing
    adds it.

    Source: Dai & Wipf, "Diagnosing and enhancing VAE models", arXiv:1903.05789.

    Parameters
    ----------
    inner : int, optional
        Numbers of u; as many as the code has.
    """

    words = "a second VAE, trained on the codes"

    def __init__(self, latent_dim: int, inner: int | None = None) -> None:
        super().__init__(latent_dim)
        self.inner = latent_dim if inner is None else inner

    def build(self, rng: Generator | None) -> None:
        width, k = width_for(self.latent_dim), self.latent_dim
        f, g = mlp([k, width, width, 2 * self.inner], rng), mlp([self.inner, width, width, k], rng)
        p = StandardNormal()
        p.build(Sizes((k,), self.inner), rng)
        self.vae = Model(f, g, DiagonalGaussian(), Gaussian(), p=p, draws=Mean().samples)

    def cost(self, z: Tensor, rng: Generator) -> Tensor:
        trace = self.vae(z, Clock(), rng, K=1)
        assert trace.nodes[0].kl is not None
        total: Tensor = trace.distance[0] + trace.nodes[0].kl
        return total

    def draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        assert isinstance(self.vae.D, Gaussian)
        gamma = self.vae.D.log_scale.clamp(min=Gaussian.smallest).exp()
        z: Tensor = self.vae.g(self.vae.sample(n, rng, temperature))
        return z + gamma * self._normal(n, rng, temperature)


class AutoregressiveSampler(Sampler):
    """P(j) = Π_i P(j_i | j_{<i}) over a quantiser's whole numbers, by a recurrent network (GRU).

    As the PixelCNN of van den Oord et al. (arXiv:1711.00937) over a VQ-VAE's codes, in the order in
    which the code has its pieces.

    Parameters
    ----------
    n_positions, n_values : int
        How many whole numbers a code has, and how many there are to choose from.
    """

    whole, words = True, "an autoregressive network, trained on the codes"
    width, at_once = 96, 4096  # of the network; codes drawn together

    def __init__(self, n_positions: int, n_values: int) -> None:
        nn.Module.__init__(self)  # whole numbers are not standardised
        self.n_positions, self.n_values = n_positions, n_values

    def build(self, rng: Generator | None) -> None:
        # one more: what stands before the first
        self.before = make(lambda: nn.Embedding(self.n_values + 1, self.width), rng)
        self.place = make(lambda: nn.Embedding(self.n_positions, self.width), rng)
        self.net = make(lambda: nn.GRU(self.width, self.width, batch_first=True), rng)
        self.answer = make(lambda: nn.Linear(2 * self.width, self.n_values), rng)

    def init_from_codes(self, codes: Tensor, rng: Generator) -> Tensor:
        return codes

    def _logits(
        self, before: Tensor, first: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of what stands at ``first`` and after, from what stands before each: (B, m, n_values)."""
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
        """n rows of whole numbers, (n, n_positions)."""
        drawn = []
        for start in range(0, n, self.at_once):
            count = min(self.at_once, n - start)
            row = [torch.full((count, 1), self.n_values, device=rng.device)]
            state = None
            for i in range(self.n_positions):
                logits, state = self._logits(row[-1], i, state)
                shares = (logits[:, 0] / max(temperature, 1e-6)).softmax(-1)
                row.append(torch.multinomial(shares, 1, generator=rng))
            drawn.append(torch.cat(row[1:], 1))
        return torch.cat(drawn)


SAMPLERS: dict[str, type[Any]] = {
    "normal": NormalSampler,
    "mixture": MixtureSampler,
    "maf": MAFSampler,
    "iaf": IAFSampler,
    "two_stage": TwoStageSampler,
    "autoregressive": AutoregressiveSampler,
}


def refuse_sampler(name: str, q: Latent, has_prior: bool) -> None:
    """Refuse a sampler that has no meaning for this latent, with one sentence."""
    latent = type(q).__name__
    if name == "prior" and not has_prior:
        raise ParameterError(
            f"sampler='prior' draws from the model's own prior, but a model with the latent "
            f"{latent} has none here; choose sampler='mixture', which is fitted to the codes."
        )
    if name not in SAMPLERS:
        return
    if SAMPLERS[name].whole and q.space != "codes":
        raise ParameterError(
            f"sampler={name!r} is one of codes from a finite set, but {latent} has its codes among "
            f"{at_home(q.space)}; choose sampler='mixture' or 'prior'."
        )
    if q.space in ("sphere", "ball"):
        raise ParameterError(
            f"sampler={name!r} is one of real numbers, but {latent} has its codes among "
            f"{at_home(q.space)}; leave sampler='prior'."
        )


def make_sampler(name: str, latent_dim: int, q: Any, rng: Generator | None) -> Sampler:
    """A sampler of this name for such codes; without ``rng`` its shapes alone."""
    cls = SAMPLERS[name]
    sizes = (q.positions(latent_dim), q.n_values) if cls.whole else (latent_dim,)
    sampler: Sampler = cls(*sizes)
    sampler.build(rng)
    return sampler.float()


def codes_of(model: Any, x: Tensor, rng: Generator) -> Tensor:
    """The codes to fit a sampler to: draws of q(z | x) where there is such, or noise-free ones.

    Draws, because a decoder of a stochastic latent has learned to decode those: all of them
    together are what the prior should have been (Dai & Wipf). Codes without a density are what
    they are (Ghosh et al.).
    """
    if not model.q.density:
        return model.encode(x).float()  # type: ignore[no-any-return]
    x, given = model._apart(x)
    x, mask = model._observed(x)
    nodes, _ = model._pass(x, x, mask, 1, rng, given)
    return torch.cat([node.z[0] for node in nodes], -1)


def draw(sampler: Sampler, q: Any, n: int, rng: Generator, temperature: float) -> Tensor:
    """n codes where q has its codes: of a finite set the nearest, of sparse ones their largest."""
    drawn = sampler.sample(n, rng, temperature)
    if q.space == "codes":
        drawn = drawn if sampler.whole else q.indices(drawn).clamp(0, q.n_values - 1)
        drawn = q.vectors(drawn)
    return q.mode(drawn) if q.space == "sparse" else drawn
