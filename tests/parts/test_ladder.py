"""The ladder of latents: its densities are those of the model it says it is."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.toy_densities import agrees, ratios
from narrows import LadderVAE
from narrows._types import Clock, Sizes
from narrows.parts.ladder import BottomUp, LadderModel, ResidualBlock, TopDown, level_sizes
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.likelihoods.continuous import Gaussian
from narrows.parts.networks.architectures import create
from narrows.parts.priors.base import StandardNormal


class Straight(ResidualBlock):
    """A block without its bend: the whole ladder becomes linear and Gaussian."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.second(self.first(h))


def ladder(features: int = 4, width: int = 5, sizes: tuple[int, ...] = (2, 1)) -> LadderModel:
    rng = torch.Generator().manual_seed(3)
    f = create(lambda: BottomUp(nn.Linear(features, width), width, len(sizes)), rng)
    g = create(lambda: TopDown(nn.Linear(width, features), width, list(sizes)), rng)
    with torch.no_grad():
        for p in (*f.parameters(), *g.parameters()):
            p.copy_(0.25 * torch.randn(p.shape, generator=rng))
        for head in g.prior:  # a variance that does not depend on what is above: all is Gaussian
            half = len(head.bias) // 2
            head.weight[half:] = 0.0
    p = StandardNormal()
    p.build(Sizes((features,), sizes[-1]), rng)
    return LadderModel(f, g, DiagonalGaussian(), Gaussian(0.3), p=p).eval()


def test_importance_weights_average_to_the_exact_density() -> None:
    """Two levels of linear Gaussians: p(x) by quadrature over both, three numbers in all."""
    model = ladder()
    for block in model.g.blocks:
        block.__class__ = Straight
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    # moments of x from many exact draws are not enough: the map z → x is affine, so follow it
    with torch.no_grad():
        zero = torch.zeros(1, 3)
        m = model.g(zero)
        W = (model.g(torch.eye(3)) - m).T  # x = W z + m + noise
        # z = (z_1, z_2) with z_2 ~ N(0, I), z_1 | z_2 ~ N(A z_2 + b, diag s)
        t0, t1 = (model.g.down(1, None, torch.tensor([[v]])) for v in (0.0, 1.0))
        b, log_s = model.q.split(model.g.prior[0](t0))
        A = (model.q.split(model.g.prior[0](t1))[0] - b).T
        mean = torch.cat([b[0], torch.zeros(1)])
        top = torch.cat([A, torch.ones(1, 1)])
        covariance = top @ top.T + torch.diag(torch.cat([log_s.exp()[0], torch.zeros(1)]))
        scale = model.D.log_scale.exp()
        density = torch.distributions.MultivariateNormal(
            (m[0] + W @ mean).double(), (W @ covariance @ W.T + scale**2 * torch.eye(4)).double()
        )
        agrees(ratios(model, x, density.log_prob(x.double()), K=40_000))


def test_the_closed_divergences_are_the_means_of_their_samples() -> None:
    model = ladder(sizes=(2, 2, 1))
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trace = model(x, Clock(), torch.Generator().manual_seed(1), K=40_000)
    for node in trace.nodes:
        sampled = node.log_q - node.log_p
        error = sampled.std(0) / len(sampled) ** 0.5
        assert ((sampled.mean(0) - node.kl).abs() < 4 * error + 1e-4).all()


def test_one_level_is_a_plain_variational_autoencoder() -> None:
    model = ladder(sizes=(3,))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        h = model.g.top(model.f(x)[-1])
        node = DiagonalGaussian()(h, 2, torch.Generator().manual_seed(7))
        trace = model(x, Clock(), torch.Generator().manual_seed(7), K=2)
    torch.testing.assert_close(trace.z, node.z)
    torch.testing.assert_close(trace.nodes[0].kl, node.kl)
    torch.testing.assert_close(model.encode(x), DiagonalGaussian().mode(h))


def test_samples_have_the_moments_of_the_levels() -> None:
    model = ladder()
    with torch.no_grad():
        z = model.sample(40_000, torch.Generator().manual_seed(0))
        t = model.g.down(1, None, z[:, 2:])
        mu, log_variance = model.q.split(model.g.prior[0](t))
    left = (z[:, :2] - mu) / torch.exp(0.5 * log_variance)
    torch.testing.assert_close(left.std(0), torch.ones(2), atol=0.03, rtol=0)
    torch.testing.assert_close(z[:, 2].std(), torch.tensor(1.0), atol=0.03, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_scales_the_noise_of_every_level(temperature: float) -> None:
    """0 gives the means from the top down; any other its share of the deviation, level by level."""
    model = ladder(sizes=(2, 2, 1))
    with torch.no_grad():
        z = model.sample(20_000, torch.Generator().manual_seed(0), temperature)
        fine, middle, top = z.split([2, 2, 1], -1)
        t = model.g.down(2, None, top)
        levels = [
            (top, torch.zeros(1), torch.zeros(1)),
            (middle, *model.q.split(model.g.prior[1](t))),
        ]
        t = model.g.down(1, t, middle)
        levels.append((fine, *model.q.split(model.g.prior[0](t))))
    for drawn, mu, log_variance in levels:
        noise = (drawn - mu) / torch.exp(0.5 * log_variance)
        wanted = torch.full((drawn.shape[1],), temperature)
        torch.testing.assert_close(noise.std(0), wanted, atol=0.03 * temperature + 1e-6, rtol=0)
        assert noise.mean(0).abs().max() < 0.03 * temperature + 1e-6


def test_every_number_of_the_code_has_a_level() -> None:
    assert level_sizes(80, 2) == [40, 40]
    assert level_sizes(3, 5) == [1, 1, 1]
    assert sum(level_sizes(11, 3)) == 11


@pytest.mark.parametrize("distance", ["categorical", "mixed"])
def test_a_ladder_takes_classes(distance: str) -> None:
    X = np.random.default_rng(0).integers(0, 3, (40, 5)).astype(float)
    model = LadderVAE(latent_dim=2, distance=distance, max_epochs=1, random_state=0).fit(X)
    assert set(np.unique(model.reconstruct(X))) <= {0.0, 1.0, 2.0}
    assert np.isfinite(model.log_likelihood(X, n_samples=3)).all()
