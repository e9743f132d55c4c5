"""The Gaussian with a whole covariance: its density, its divergence, and what it can do."""

import torch
from torch import nn

from helpers.toy_densities import agrees, linear_gaussian_log_prob, ratios, toy_model
from narrows import Autoencoder
from narrows.parts.latents.base import normal_log_prob
from narrows.parts.latents.gaussian import FullGaussian
from narrows.parts.priors.base import StandardNormal


def test_importance_weights_average_to_the_exact_density() -> None:
    rng = torch.Generator().manual_seed(2)
    g = nn.Linear(3, 4)
    with torch.no_grad():
        g.weight.copy_(0.5 * torch.randn(4, 3, generator=rng))
        g.bias.copy_(0.2 * torch.randn(4, generator=rng))
    model = toy_model(FullGaussian(), StandardNormal(), g, features=4, latent_dim=3)
    x = torch.randn(3, 4, generator=rng)
    exact = linear_gaussian_log_prob(x, g.weight.detach(), g.bias.detach(), 0.7)
    agrees(ratios(model, x, exact))


def test_draws_density_and_divergence_are_those_of_its_covariance() -> None:
    q = FullGaussian()
    h = 0.5 * torch.randn(2, q.n_numbers(3), generator=torch.Generator().manual_seed(0))
    node = q(h, 100_000, torch.Generator().manual_seed(1))
    mu, _, L = q.split(h)
    for row in range(2):
        torch.testing.assert_close(
            torch.cov(node.z[:, row].T), L[row] @ L[row].T, atol=0.05, rtol=0
        )
        normal = torch.distributions.MultivariateNormal(mu[row], scale_tril=L[row])
        torch.testing.assert_close(node.log_q[:50, row], normal.log_prob(node.z[:50, row]))
    sampled = node.log_q - normal_log_prob(node.z, 0.0, 0.0)
    error = sampled.std(0) / len(sampled) ** 0.5
    assert ((sampled.mean(0) - node.kl).abs() < 4 * error).all()


def test_a_model_of_parts_has_it_by_name() -> None:
    X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).numpy()
    model = Autoencoder(
        latent="full_gaussian", prior="normal", regularizers="kl", latent_dim=2, max_epochs=3,
        random_state=0,
    ).fit(X)  # fmt: skip
    assert model.log_likelihood(X, n_samples=5, random_state=0).shape == (60,)
    assert type(model.model_.q) is FullGaussian
