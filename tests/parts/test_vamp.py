"""The VampPrior: its density, its draws and the model that has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from torch import nn

from helpers.toy_densities import agrees, ratios, toy_model
from narrows import ParameterError, VampVAE
from narrows._types import Clock
from narrows.estimators.build import Parts
from narrows.parts.latents.base import normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian, FullGaussian
from narrows.parts.model import SHIFTS
from narrows.parts.priors.vamp import VampPrior, mixture_log_prob

X = load_digits().images[:150]
SMALL: dict[str, Any] = {
    "latent_dim": 2,
    "hidden_layer_sizes": (16,),
    "max_epochs": 1,
    "random_state": 0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vamp(n_inputs: int, latent_dim: int = 2, features: int = 3) -> Any:
    """A linear toy, its pseudo-inputs spread out and its posteriors narrow."""
    g = nn.Linear(latent_dim, features)
    with torch.no_grad():
        g.weight.copy_(torch.randn(g.weight.shape, generator=seeded(5)))
        g.bias.zero_()
    model = toy_model(
        DiagonalGaussian(), VampPrior(n_inputs), g, features=features, latent_dim=latent_dim
    )
    with torch.no_grad():
        model.p.inputs.mul_(3.0)
    return model


def test_the_mixture_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    mixture = GaussianMixture(5, covariance_type="diag")
    mixture.weights_, mixture.means_ = np.full(5, 0.2), rng.normal(size=(5, 3)) + 100
    mixture.covariances_ = np.exp(rng.normal(size=(5, 3)) - 6)
    mixture.precisions_cholesky_ = mixture.covariances_**-0.5
    z = mixture.means_[rng.integers(5, size=40)] + 0.02 * rng.normal(size=(40, 3))
    mu, log_variance, z32 = (
        torch.from_numpy(a).float() for a in (mixture.means_, np.log(mixture.covariances_), z)
    )
    found = mixture_log_prob(z32.view(4, 10, 3), mu, log_variance)
    # far from 0, where a square multiplied out would have lost every digit
    np.testing.assert_allclose(found.view(-1), mixture.score_samples(z), atol=0.02)


def test_its_gradient_is_that_of_the_plain_formula() -> None:
    given = [torch.randn(s, generator=seeded(i)) for i, s in enumerate([(3, 4, 2), (5, 2), (5, 2)])]
    given = [t.requires_grad_() for t in given]
    up = torch.randn(3, 4, generator=seeded(9))
    plain = normal_log_prob(given[0][..., None, :], given[1], given[2]).logsumexp(-1) - np.log(5)
    found = mixture_log_prob(*given)
    torch.testing.assert_close(found, plain)
    for mine, its in zip(
        torch.autograd.grad(found, given, up), torch.autograd.grad(plain, given, up), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_draws_cover_all_components_and_follow_the_density() -> None:
    """Defect 7: of 50 inputs only the first few were drawn from, with another variance."""
    model = vamp(50)
    with torch.no_grad():
        mu, log_variance = model.posterior(model.p.inputs)
        # so narrow that one can tell them apart
        log_variance = torch.full_like(log_variance, -12.0)
        model.posterior = lambda _: (mu, log_variance)
        z = model.p.sample(1000, seeded(), 1.0, model)
        nearest = torch.cdist(z, mu).argmin(1)
        assert len(nearest.unique()) > 45
        torch.testing.assert_close(
            (z - mu[nearest]).std(), torch.tensor(np.exp(-6.0)).float(), rtol=0.05, atol=0.0
        )
        cold = model.p.sample(1000, seeded(), 0.0, model)
        assert ((cold[:, None] - mu).abs().amax(-1).amin(1) < 1e-5).all()


def test_draws_and_density_agree() -> None:
    """Importance weights from a wide normal to p average to 1, and move its mean to that of p."""
    model = vamp(20)
    with torch.no_grad():
        z = 3 * torch.randn(200_000, 2, generator=seeded(1))
        w = (model.p.log_prob(z, model) - normal_log_prob(z, 0.0, 2 * np.log(3.0))).exp()
        drawn = model.p.sample(20_000, seeded(2), 1.0, model)
    assert abs(float(w.mean()) - 1) < 4 * float(w.std()) / 200_000**0.5
    weighted = z[torch.multinomial(w, 20_000, replacement=True, generator=seeded(3))]
    for a, b in zip(weighted.T, drawn.T, strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3


def test_importance_weights_average_to_the_density_under_a_vamp_prior() -> None:
    """g is linear, so that p(x) is a mixture of Gaussians."""
    model = vamp(7)
    x = torch.randn(5, 3, generator=seeded(3))
    with torch.no_grad():
        mu, log_variance = (t.double() for t in model.posterior(model.p.inputs))
        W, b = model.g.weight.double(), model.g.bias.double()
        covariance = W @ torch.diag_embed(log_variance.exp()) @ W.T + 0.49 * torch.eye(3)
        normal = torch.distributions.MultivariateNormal(mu @ W.T + b, covariance)
        log_p = normal.log_prob(x.double()[:, None]).logsumexp(1) - np.log(7)
        agrees(ratios(model, x, log_p))


def test_the_loss_of_a_vamp_vae_is_its_formula() -> None:
    vae = VampVAE(n_inputs=6, **SMALL).fit(X)
    model, x = vae.model_, vae.scaling_.apply(torch.from_numpy(X[:20, None]))
    with torch.no_grad():
        trace = model(x, Clock(), seeded())
        loss = float(vae.objective_(model, trace)["model"])
        mu, log_variance = (t.double().numpy() for t in model.posterior(model.p.inputs))
        h, z = model.f(x).double().numpy(), trace.nodes[0].z[0].double().numpy()
        out, scale = trace.output[0].double().numpy(), float(model.D.log_scale.exp())

    def log_normal(v: Any, m: Any, s: Any) -> Any:
        return -0.5 * (((v - m) / s) ** 2 + np.log(2 * np.pi) + 2 * np.log(s)).sum(-1)

    log_q = log_normal(z, h[:, :2], np.exp(0.5 * h[:, 2:]))
    log_p = np.log(np.exp(log_normal(z[:, None], mu, np.exp(0.5 * log_variance))).mean(1))
    flat = x.numpy().reshape(20, -1)
    likelihood = log_normal(flat, out.reshape(20, -1), scale)
    assert loss == pytest.approx((log_q - log_p - likelihood).mean(), rel=1e-4)


def test_inputs_are_learned_and_stay_within_the_data() -> None:
    binary = (X > 8).astype(np.float32)
    start, vae = (VampVAE(**{**SMALL, "n_inputs": 9, "max_epochs": n}) for n in (0, 4))
    first = start.fit(binary).model_.p.inputs.detach()
    last = vae.fit(binary).model_.p.inputs.detach()
    assert first.shape == last.shape == (9, 1, 8, 8)
    assert float((first - last).abs().max()) > 0.01
    assert float(last.min()) >= 0
    assert float(last.max()) <= 1


def test_a_vamp_prior_refuses_what_is_no_diagonal_gaussian() -> None:
    with pytest.raises(ParameterError, match=r"prior vamp needs.*full Gaussian"):
        Parts(q=FullGaussian(), p=VampPrior())


def test_the_model_gets_the_direction_of_shifted_images_and_no_shift_at_the_end() -> None:
    """Distribution augmentation: shifted back by its direction, every image is the original."""
    model = VampVAE(latent_dim=3, n_inputs=9, shifts=True, max_epochs=1, random_state=0).fit(X)
    module, x = model.model_, model.scaling_.apply(torch.from_numpy(X)[:, None])
    module.train()
    moved, given = module._split_condition(x, seeded(), Clock(progress=0.0))
    assert set(given.tolist()) == set(range(len(SHIFTS) + 1))
    assert 0.65 < float((given > 0).float().mean()) < 0.95
    for image, was, way in zip(moved, x, given.tolist(), strict=True):
        dy, dx = SHIFTS[way - 1] if way else (0, 0)
        torch.testing.assert_close(image.roll((-dy, -dx), (-2, -1)), was)
    assert int(module._split_condition(x, seeded(), Clock(progress=0.9))[1].max()) == 0
    module.eval()
    still, unshifted = module._split_condition(x, seeded(), Clock(progress=0.0))
    assert int(unshifted.max()) == 0
    torch.testing.assert_close(still, x)
    assert model.sample(3, random_state=0).shape == (3, 8, 8)
    with pytest.raises(ParameterError, match="shifts images by a pixel"):
        VampVAE(shifts=True).fit(X.reshape(150, 64))
