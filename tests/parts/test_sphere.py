"""von Mises-Fisher draws: their normaliser, moments, density and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import kstest, vonmises_fisher
from torch import Tensor

from narrows import ParameterError
from narrows._types import Sizes
from narrows.parts.latents.sphere import UniformSphere, VonMisesFisher, _Angle, log_area, normaliser

NO_MODEL: Any = None  # this prior does not read the model


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pinned(k: int, kappa: float, direction: list[float] | None = None) -> Tensor:
    """What f answers for this concentration, (1, k + 1)."""
    mu = torch.tensor(direction) if direction else torch.randn(k, generator=rng(k))
    raw = np.log(np.expm1(kappa - 1.0)) - 3.0 * k
    return torch.cat([mu.float(), torch.tensor([raw], dtype=torch.float32)])[None]


def mean_cosine(kappa: float, k: int) -> float:
    """A_k(κ), by Bessel functions."""
    return float(ive(k / 2, kappa) / ive(k / 2 - 1, kappa))


@pytest.mark.parametrize("k", [2, 3, 10, 128, 512])
def test_the_normaliser_is_bessels_wherever_that_can_be_had(k: int) -> None:
    kappa = torch.tensor([1e-3, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4], dtype=torch.float64)
    kappa.requires_grad_()
    log_total, below_one = normaliser(kappa, k)
    (slope,) = torch.autograd.grad(log_total.sum(), kappa)
    torch.testing.assert_close(slope, -below_one)
    kappas, found = kappa.detach().numpy(), log_total.detach().numpy()
    bessel = ive(k / 2 - 1, kappas)
    there = bessel > 1e-300
    assert there.sum() == (7 if k < 512 else 3)  # scipy's is 0 from there on
    expected = (
        k / 2 * np.log(2 * np.pi) + np.log(bessel[there]) - (k / 2 - 1) * np.log(kappas[there])
    )
    np.testing.assert_allclose(found[there], expected, rtol=1e-9, atol=1e-9)
    assert np.isfinite(found).all()
    # where κ is small: log Z = log area + κ²/2k, but for terms in κ⁴
    assert found[0] + 1e-3 == pytest.approx(log_area(k) + 1e-6 / (2 * k), abs=1e-9)


def test_areas_are_those_one_learns_at_school() -> None:
    expected = np.log([2, 2 * np.pi, 4 * np.pi, 2 * np.pi**2])
    np.testing.assert_allclose([log_area(k) for k in (1, 2, 3, 4)], expected)


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("kappa", [1.01, 4.0, 60.0])
def test_draws_have_the_moments_and_the_density_of_a_von_mises_fisher(k: int, kappa: float) -> None:
    q = VonMisesFisher()
    h = pinned(k, kappa)
    node = q(h, 40_000, rng())
    mu, z = q.mode(h)[0], node.z[:, 0]
    A = mean_cosine(kappa, k)
    along = (z @ mu).double()
    variance = 1 - A**2 - (k - 1) * A / kappa
    error = along.std() / 200
    assert float(along.var()) == pytest.approx(variance, rel=0.06)
    assert abs(float(along.mean()) - A) < 4 * float(error)
    across = z - along[:, None].float() * mu
    spread = across.std(0) / 200
    assert (across.mean(0).abs() < 4.5 * spread + 1e-6).all()
    peer = vonmises_fisher(mu.double().numpy(), kappa).logpdf(z[:200].double().numpy())
    np.testing.assert_allclose(node.log_q[:200, 0].numpy(), peer, atol=2e-3)


def test_the_whole_distribution_of_a_draw_is_right() -> None:
    """In three dimensions cos t has a distribution function in closed form."""
    z = VonMisesFisher()(pinned(3, 5.0, [0.0, 0.0, -2.0]), 20_000, rng()).z[:, 0]
    assert kstest(-z[:, 2].double(), lambda w: np.expm1(5 * (w + 1)) / np.expm1(10)).pvalue > 1e-3
    around = torch.atan2(z[:, 1], z[:, 0]) / (2 * torch.pi) + 0.5
    assert kstest(around.double(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("k", "kappa"), [(2, 1.2), (3, 5.0), (10, 20.0), (128, 300.0)])
def test_the_closed_kl_on_the_sphere_is_the_mean_of_its_samples(k: int, kappa: float) -> None:
    node = VonMisesFisher()(pinned(k, kappa), 20_000, rng())
    sampled = node.log_q - UniformSphere().log_prob(node.z, NO_MODEL)
    error = float(sampled.std()) / 20_000**0.5
    assert float(node.kl) == pytest.approx(float(sampled.mean()), abs=4 * error + 1e-4)


@pytest.mark.parametrize(("k", "kappa"), [(2, 1.5), (3, 1.1), (3, 40.0), (10, 8.0), (64, 2000.0)])
def test_an_angle_moves_with_the_concentration_as_its_quantile_does(k: int, kappa: float) -> None:
    """dt/dκ at a fixed share F(t; κ), against differences of the distribution function."""
    grid = np.linspace(0, np.pi, 400_001)

    def distribution(kappa: float) -> Any:
        sines = np.log(np.maximum(np.sin(grid), 1e-300))
        log_p = kappa * (np.cos(grid) - 1) + (k - 2) * sines
        p = np.exp(log_p - np.max(log_p))
        total = np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2)])
        return total / total[-1]

    shares, step = np.array([0.01, 0.1, 0.5, 0.9, 0.99]), 1e-3 * kappa
    below, at, above = (
        np.interp(shares, distribution(kappa + side * step), grid) for side in (-1, 0, 1)
    )
    K = torch.full((5,), kappa, dtype=torch.float64, requires_grad=True)
    t = _Angle.apply(K, normaliser(K, k)[1].detach(), torch.from_numpy(at), k)
    (found,) = torch.autograd.grad(t.sum(), K)
    np.testing.assert_allclose(found.numpy(), (above - below) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_gradients_of_draws_are_those_of_the_expectation(k: int) -> None:
    """E⟨a, z⟩ = A(κ) ⟨a, μ⟩, so its gradient in every number of h is known."""
    q, a, n = VonMisesFisher(), torch.randn(k, generator=rng(9)), 40_000
    one = pinned(k, 3.0)
    h = one.repeat(n, 1).requires_grad_()
    (drawn,) = torch.autograd.grad((q(h, 1, rng()).z[0] * a).sum(), h)
    exact = one.clone().requires_grad_()
    mu, kappa = q.split(exact)
    ((1 - normaliser(kappa, k)[1]) * (mu * a).sum()).sum().backward()
    error = drawn.std(0) / n**0.5
    assert ((drawn.mean(0) - exact.grad[0]).abs() < 4 * error + 1e-5).all()
    assert (error < 0.02).all()


@pytest.mark.parametrize("h", [0.0, 1e-9, 1e-3, 1e4, -1e4])
@pytest.mark.parametrize("k", [2, 3, 200])
def test_codes_on_the_sphere_have_length_one_whatever_f_answers(h: float, k: int) -> None:
    numbers = torch.full((4, k + 1), h, requires_grad=True)
    node = VonMisesFisher()(numbers, 3, rng())
    assert torch.allclose(node.z.norm(dim=-1), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(VonMisesFisher().mode(numbers).norm(dim=-1), torch.tensor(1.0))
    (node.z[..., 0].sum() + node.log_q.sum() + node.kl.sum()).backward()
    assert numbers.grad.isfinite().all()
    assert node.log_q.isfinite().all() and (node.kl >= 0).all()


def test_what_is_no_number_ends_the_draw_too() -> None:
    assert VonMisesFisher()(torch.full((2, 4), torch.nan), 2, rng()).z.isnan().all()


def test_the_uniform_prior_is_uniform_and_refuses_a_temperature() -> None:
    p = UniformSphere()
    p.build(Sizes((3,), 3), None)
    z = p.sample(20_000, rng(), 1.0, NO_MODEL)
    assert kstest(z[:, 2].double() / 2 + 0.5, "uniform").pvalue > 1e-3  # Archimedes
    assert float(p.log_prob(z, NO_MODEL)[0]) == pytest.approx(-np.log(4 * np.pi))
    with pytest.raises(ParameterError, match="temperature"):
        p.sample(2, rng(), 0.5, NO_MODEL)
