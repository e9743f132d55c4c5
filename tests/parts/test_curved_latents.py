"""Codes on spheres and in the Poincaré ball: densities, geodesics, and the models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import chi2, kstest
from sklearn.datasets import load_digits
from torch import Tensor, nn

from helpers.toy_densities import agrees, ratios, toy_model
from narrows import Autoencoder, ParameterError, PoincareVAE, SphericalVAE
from narrows._types import Clock, Sizes
from narrows.parts.latents.hyperbolic import (
    WrappedNormal,
    WrappedStandardNormal,
    add,
    exp_0,
    log_0,
)
from narrows.parts.latents.sphere import UniformSphere, VonMisesFisher
from narrows.parts.likelihoods.continuous import Gaussian
from narrows.parts.model import Model

DIGITS = load_digits().images[:200]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(k: int, c: float) -> WrappedNormal:
    q = WrappedNormal(c)
    q.build(Sizes((3,), k), None)
    return q


# ---------------------------------------------------------------------- E_q [p(x, z) / q] = p(x)


def toy(q: Any, p: Any, k: int) -> Model:
    g = nn.Sequential(nn.Linear(k, 3), nn.Tanh())
    with torch.no_grad():
        for parameter in g.parameters():
            parameter.copy_(1.5 * torch.randn(parameter.shape, generator=rng(5)))
    return toy_model(q, p, g, features=3, latent_dim=k)


def log_marginal(model: Model, x: Tensor, z: Tensor, volume: Tensor) -> Tensor:
    """log ∫ p(x | z) p(z) dz over points z with their shares of the volume."""
    with torch.no_grad():
        joint = model.D.log_prob(x, model.g(z)[:, None]) + model.p.log_prob(z, model)[:, None]
    return (joint.double() + volume.double().log()[:, None]).logsumexp(0)


X = torch.tensor([[0.5, -1.0, 0.3], [1.2, 0.1, -0.4], [0.0, 0.0, 0.0]])


def distance(a: Tensor, b: Tensor, c: float) -> Tensor:
    """The hyperbolic distance of a from b."""
    return log_0(add(-a.double(), b.double(), c), c).square().sum(-1).sqrt()


@pytest.mark.parametrize("k", [2, 3])
def test_importance_weights_average_to_the_density_on_spheres(k: int) -> None:
    model = toy(VonMisesFisher(), UniformSphere(), k)
    with torch.no_grad():
        model.f.bias[-1] = 1.0 - 3.0 * k  # κ about 2
    phi = 2 * torch.pi * (torch.arange(400) + 0.5) / 400
    if k == 2:
        z, volume = torch.stack([phi.cos(), phi.sin()], -1), torch.full((400,), torch.pi / 200)
    else:
        height, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(64))
        flat = (1 - height.square()).sqrt()[:, None]
        axes = [flat * phi.cos(), flat * phi.sin(), height[:, None].expand(-1, 400)]
        z = torch.stack(axes, -1).float().flatten(0, 1)
        volume = (weight[:, None] * torch.pi / 200).expand(-1, 400).flatten()
    agrees(ratios(model, X, log_marginal(model, X, z, volume)))


@pytest.mark.parametrize(("k", "c"), [(1, 1.0), (2, 1.0), (2, 0.3)])
def test_importance_weights_average_to_the_density_in_the_ball(k: int, c: float) -> None:
    model = toy(ball(k, c), WrappedStandardNormal(), k)
    with torch.no_grad():
        model.f.bias[k:] = 0.7  # wider than the posterior
    r, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(200))
    r, weight = 4 * (r + 1), 4 * weight  # hyperbolic distances up to 8
    phi = 2 * torch.pi * torch.arange(400) / 400 if k == 2 else torch.tensor([0.0, torch.pi])
    directions = torch.stack([phi.cos(), phi.sin()], -1)[:, :k].double()
    z = exp_0(r[:, None, None] * directions, c).float().flatten(0, 1)
    root = c**0.5
    grown = (root * r).sinh() / root * (torch.pi / 200) if k == 2 else torch.ones(200)
    volume = (weight * grown)[:, None].expand(-1, len(phi)).flatten()
    total = (model.p.log_prob(z, model).double().exp() * volume).sum()
    assert float(total) == pytest.approx(1.0, abs=1e-4)  # the prior is a density
    agrees(ratios(model, X, log_marginal(model, X, z, volume)))


# ---------------------------------------------------------------------- the ball


def log_wrapped(z: Any, mean: Any, deviation: Any, c: float) -> Any:
    """Nagano et al.'s density by their own way, in NumPy: log map at μ, transport back to 0."""
    dot = (mean * z).sum(-1, keepdims=True)
    mm, zz = (mean**2).sum(-1, keepdims=True), (z**2).sum(-1, keepdims=True)
    below = 1 - 2 * c * dot + c**2 * mm * zz
    moved = ((1 - 2 * c * dot + c * zz) * -mean + (1 - c * mm) * z) / below
    size = np.linalg.norm(moved, axis=-1, keepdims=True)
    # log_μ(z) = 2/(√c λ_μ) artanh(√c |−μ ⊕ z|) ..., whose norm at μ is λ_μ times as long
    v = 2 / c**0.5 * np.arctanh(c**0.5 * size) * moved / size
    s = c**0.5 * np.linalg.norm(v, axis=-1)
    normal = (-0.5 * (v / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)).sum(-1)
    return normal + (z.shape[-1] - 1) * np.log(s / np.sinh(s))


@pytest.mark.parametrize(("k", "c"), [(1, 1.0), (2, 1.0), (3, 0.5), (10, 2.0)])
def test_draws_in_the_ball_know_their_density(k: int, c: float) -> None:
    q = ball(k, c)
    h = torch.cat([torch.randn(5, k, generator=rng(1)), torch.full((5, k), -1.0)], -1)
    node = q(h, 50, rng())
    mean = exp_0(h[:, :k].double(), c).numpy()
    expected = log_wrapped(node.z.double().numpy(), mean, np.exp(-0.5), c)
    # what the border's rounding hides of a code, it hides of its density
    room = (1 - c * node.z.square().sum(-1)).numpy()
    near = np.abs(node.log_q.numpy() - expected) < 2e-5 * k / room + 1e-4
    assert near.all()
    standard = WrappedStandardNormal()
    standard.build(Sizes((3,), k), None)
    prior = log_wrapped(node.z.double().numpy(), np.zeros(k), 1.0, c)
    of_prior = standard.log_prob(node.z, type("M", (), {"q": q}))
    np.testing.assert_allclose(of_prior.numpy(), prior, rtol=1e-4, atol=1e-4)


def test_a_wrapped_density_integrates_to_one_over_the_hyperbolic_disk() -> None:
    rho, weight = np.polynomial.legendre.leggauss(400)
    rho, weight = (rho + 1) / 2, weight / 2
    phi = 2 * np.pi * np.arange(200) / 200
    z = rho[:, None, None] * np.stack([np.cos(phi), np.sin(phi)], -1)
    area = (4 / (1 - rho**2) ** 2 * rho * weight)[:, None] * 2 * np.pi / 200
    log_p = log_wrapped(z, np.array([0.4, -0.3]), np.array([0.5, 0.8]), 1.0)
    assert float((np.exp(log_p) * area).sum()) == pytest.approx(1.0, abs=1e-3)


def test_a_flat_ball_is_the_flat_space() -> None:
    """As c → 0 the code, seen from the centre, is the Gaussian's."""
    q = ball(4, 1e-8)
    h = torch.randn(6, 8, generator=rng(2))
    node = q(h, 200, rng())
    normal = torch.distributions.Normal(h[:, :4].double(), (h[:, 4:] / 2).exp().double())
    flat = normal.log_prob(q.decoder_input(node.z).double()).sum(-1)
    torch.testing.assert_close(node.log_q.double(), flat, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("k", [1, 2, 50])
def test_draws_of_the_prior_lie_as_far_out_as_a_normals(k: int) -> None:
    p, q = WrappedStandardNormal(), ball(k, 1.0)
    p.build(Sizes((3,), k), None)
    model = type("M", (), {"q": q})
    for temperature in (1.0, 0.5):
        far = log_0(p.sample(5000, rng(3), temperature, model), 1.0).square().sum(-1)
        assert kstest(far / temperature**2, chi2(k).cdf).pvalue > 1e-3


@pytest.mark.parametrize("h", [0.0, 1e-9, 3.0, 1e3, -1e4])
@pytest.mark.parametrize(("k", "c"), [(1, 1.0), (2, 4.0), (50, 1.0)])
def test_codes_stay_inside_the_ball_whatever_f_answers(h: float, k: int, c: float) -> None:
    q, numbers = ball(k, c), torch.full((4, 2 * k), h, requires_grad=True)
    node = q(numbers, 3, rng())
    log_p = WrappedStandardNormal().log_prob(node.z, type("M", (), {"q": q}))
    for z in (node.z, q.mode(numbers)):
        assert (c**0.5 * z.double().norm(dim=-1) < 1).all()
    (q.decoder_input(node.z).sum() + node.log_q.sum() + log_p.sum()).backward()
    assert numbers.grad.isfinite().all()
    assert node.log_q.isfinite().all() and log_p.isfinite().all()


def test_gradients_through_the_ball_are_those_of_differences() -> None:
    q = ball(3, 0.7)
    h = torch.randn(4, 6, generator=rng(4), dtype=torch.float64)

    def answer(h: Tensor) -> Tensor:
        node = q(h.float(), 2, rng())
        log_p = WrappedStandardNormal().log_prob(node.z, type("M", (), {"q": q}))
        return (node.z.double().sum(-1) + node.log_q.double() - log_p.double()).sum()

    h.requires_grad_()
    (found,) = torch.autograd.grad(answer(h), h)
    for i, j in ((0, 0), (1, 2), (2, 4), (3, 5)):
        step = torch.zeros_like(h)
        step[i, j] = 1e-2
        with torch.no_grad():
            slope = (answer(h + step) - answer(h - step)) / 2e-2
        assert float(found[i, j]) == pytest.approx(float(slope), rel=5e-3, abs=5e-3)


# ---------------------------------------------------------------------- geodesics


SHARES = torch.linspace(0, 1, 9)


@pytest.mark.parametrize("k", [2, 3, 20])
def test_walks_on_the_sphere_are_great_circles(k: int) -> None:
    q = VonMisesFisher()
    a, b = (q.mode(torch.randn(6, k + 1, generator=rng(s))) for s in (1, 2))
    b[0], b[1] = -a[0], a[1]  # opposite, and the same
    walk = q.between(a, b, SHARES)
    torch.testing.assert_close(walk[0], a)
    torch.testing.assert_close(walk[-1], b, atol=3e-6, rtol=0)
    torch.testing.assert_close(walk.norm(dim=-1), torch.ones(9, 6))
    chords = (walk[1:] - walk[:-1]).norm(dim=-1)
    torch.testing.assert_close(chords, chords[:1].expand(8, -1), atol=1e-5, rtol=0)
    angle = 2 * ((a - b).norm(dim=-1) / 2).clamp_max(1).asin()
    torch.testing.assert_close(16 * (chords[0] / 2).asin(), angle, atol=1e-3, rtol=0)  # the shorter


@pytest.mark.parametrize("c", [1.0, 0.2])
def test_walks_in_the_ball_are_geodesics(c: float) -> None:
    q = ball(3, c)
    a, b = (q.mode(1.5 * torch.randn(6, 6, generator=rng(s))) for s in (1, 2))
    b[0], b[1], b[2] = -a[0], a[1], torch.zeros(3)
    walk = q.between(a, b, SHARES)
    torch.testing.assert_close(walk[0], a)
    torch.testing.assert_close(walk[-1], b)
    steps = distance(walk[:-1], walk[1:], c)
    torch.testing.assert_close(
        steps, distance(a, b, c)[None].expand(8, -1) / 8, atol=1e-3, rtol=1e-3
    )
    # arcosh, the textbook's other formula for the distance
    a, b = a.double(), b.double()
    room = (1 - c * a.square().sum(-1)) * (1 - c * b.square().sum(-1))
    textbook = (1 + 2 * c * (a - b).square().sum(-1) / room).acosh() / c**0.5
    torch.testing.assert_close(distance(a, b, c), textbook, atol=1e-6, rtol=1e-6)


# ---------------------------------------------------------------------- the models


def losses(model: Any) -> tuple[dict[str, Tensor], Any]:
    x = model.scaling_.apply(torch.from_numpy(DIGITS[:20])).float()
    with torch.no_grad():
        trace = model.model_(x, Clock(), rng())
        return model.objective_(model.model_, trace), trace


def gaussian_nats(model: Any, trace: Any) -> float:
    D, r = model.model_.D, (trace.output[0] - trace.x).double().numpy()
    assert isinstance(D, Gaussian)
    sigma = float(D.log_scale.detach().exp())
    each = 0.5 * (r / sigma) ** 2 + np.log(sigma) + 0.5 * np.log(2 * np.pi)
    return float(each.reshape(20, -1).sum(1).mean())


SMALL: dict[str, Any] = {"max_epochs": 2, "random_state": 0, "hidden_layer_sizes": (16,)}


def test_the_loss_of_a_spherical_vae_is_its_formula() -> None:
    model = SphericalVAE(latent_dim=5, beta=0.5, **SMALL).fit(DIGITS)
    found, trace = losses(model)
    h = model.model_.f(trace.x).detach().double().numpy()
    kappa = 1 + np.log1p(np.exp(h[:, -1] + 15))
    log_Z = 2.5 * np.log(2 * np.pi) + np.log(ive(1.5, kappa)) + kappa - 1.5 * np.log(kappa)
    kl = kappa * ive(2.5, kappa) / ive(1.5, kappa) - log_Z + np.log(8 * np.pi**2 / 3)
    expected = gaussian_nats(model, trace) + 0.5 * kl.mean()
    assert float(found["model"]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_poincare_vae_is_its_formula() -> None:
    model = PoincareVAE(latent_dim=3, curvature=0.5, beta=0.5, **SMALL).fit(DIGITS)
    found, trace = losses(model)
    h = model.model_.f(trace.x).detach().double()
    z, mean = trace.z[0].double().numpy(), exp_0(h[:, :3], 0.5).numpy()
    log_q = log_wrapped(z, mean, np.exp(0.5 * h[:, 3:].numpy()), 0.5)
    kl = (log_q - log_wrapped(z, np.zeros(3), 1.0, 0.5)).mean()
    assert float(found["model"]) == pytest.approx(gaussian_nats(model, trace) + 0.5 * kl, rel=1e-5)


@pytest.mark.parametrize("cls", [SphericalVAE, PoincareVAE])
def test_codes_lie_on_their_space_and_reconstruct_goes_through_them(cls: Any) -> None:
    model = cls(latent_dim=4, **SMALL).fit(DIGITS)
    Z = model.transform(DIGITS)
    length = np.linalg.norm(Z, axis=1)
    if cls is SphericalVAE:
        np.testing.assert_allclose(length, 1.0, atol=1e-6)
    else:
        assert (length < 1).all()
    np.testing.assert_array_equal(model.reconstruct(DIGITS), model.inverse_transform(Z))
    # the decoder by itself is given codes, as that of any other model
    with torch.no_grad():
        alone = model.model_.g(torch.from_numpy(Z))
        torch.testing.assert_close(alone, model.model_.decode(torch.from_numpy(Z)))


def test_a_sphere_has_at_least_two_numbers() -> None:
    with pytest.raises(ParameterError, match="two points; choose at least 2"):
        SphericalVAE(latent_dim=1, **SMALL).fit(DIGITS)
    column = np.random.default_rng(0).normal(size=(40, 1))
    assert SphericalVAE(**SMALL).fit(column).transform(column).shape == (40, 2)


def test_a_ball_too_small_for_its_codes_is_refused_and_auto_grows_it() -> None:
    q = WrappedNormal(1.0)
    with pytest.raises(ParameterError, match=r"latent_dim of at most 100, or curvature of at most"):
        q.build(Sizes((3,), 400), None)
    auto = WrappedNormal()
    auto.build(Sizes((3,), 400), None)
    assert auto.c == 0.0125
    with pytest.raises(ParameterError, match="curvature"):
        PoincareVAE(curvature=0.0).check_parameters()


def test_their_own_networks_come_back_from_a_file(tmp_path: Any) -> None:
    """The map before g is a hook and no layer of g."""
    import narrows

    f, g = nn.Linear(6, 4), nn.Linear(2, 6)
    rows = np.random.default_rng(0).normal(size=(60, 6))
    model = PoincareVAE(f=f, g=g, max_epochs=1, random_state=0).fit(rows)
    again = narrows.load(model.save(tmp_path / "m.safetensors"), f=f, g=g)
    np.testing.assert_array_equal(again.reconstruct(rows), model.reconstruct(rows))
    assert not g._forward_pre_hooks


@pytest.mark.parametrize(("space", "named"), [("sphere", SphericalVAE), ("ball", PoincareVAE)])
def test_a_composed_model_has_the_chart_of_the_named_one(space: str, named: Any) -> None:
    same = {"latent_dim": 3, "max_epochs": 1, "random_state": 0}
    composed = Autoencoder(latent=space, prior=space, regularizers="kl", **same).fit(DIGITS)
    np.testing.assert_array_equal(
        composed.reconstruct(DIGITS), named(**same).fit(DIGITS).reconstruct(DIGITS)
    )
