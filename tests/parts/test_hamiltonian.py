"""Hamiltonian posteriors: reversible, of constant volume, and their weights average to p(x)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from helpers.toy_densities import agrees, linear_gaussian_log_prob, ratios, toy_model
from narrows import HamiltonianVAE, ParameterError, RiemannianHamiltonianVAE
from narrows._types import Clock, Sizes
from narrows.parts.latents.hamiltonian import (
    FIXED_POINT_STEPS,
    MAX_STEP,
    Hamiltonian,
    LocalMetric,
    RiemannianHamiltonian,
    gradient_of,
)
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.kl_and_mmd import KL

DIGITS = load_digits().images[:150]
BOTH: list[type[Hamiltonian]] = [Hamiltonian, RiemannianHamiltonian]
SHAPE = torch.tensor([[2.0, 0.6, 0.1], [0.6, 1.5, -0.4], [0.1, -0.4, 1.0]], dtype=torch.float64)


def joint(z: Tensor) -> Tensor:
    """No Gaussian: its slope bends."""
    return -0.5 * ((z @ SHAPE) * z).sum(-1) - 0.3 * z.cos().sum(-1) * z[..., 0].sin()


def made(cls: type[Hamiltonian], *args: Any, k: int = 3, times: int = FIXED_POINT_STEPS) -> Any:
    """A built part in float64, with anchors of every shape."""
    q, rng = cls(*args), torch.Generator().manual_seed(0)
    q.build(Sizes((k,), k), rng)
    if isinstance(q, RiemannianHamiltonian):
        with torch.no_grad():
            q.factors.add_(0.2 * torch.randn(q.factors.shape, generator=rng))
            q.log_reach.fill_(0.7)
    return q.double()


def draw(n: int, k: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    z, rho = torch.randn(2, 1, n, k, generator=rng, dtype=torch.float64)
    return z, rho


def steps(size: float) -> Tensor:
    return size * torch.tensor([1.0, 0.6, 1.3], dtype=torch.float64)


def leap(q: Any, z: Tensor, rho: Tensor, size: float) -> tuple[Tensor, Tensor]:
    after: tuple[Tensor, Tensor] = q.leapfrog(z, rho, gradient_of(joint, z), steps(size), joint)[:2]
    return after


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Implicit equations solved to the last digit of float64."""
    monkeypatch.setattr("narrows.parts.latents.hamiltonian.FIXED_POINT_STEPS", 40)


@pytest.mark.usefixtures("solved")
@pytest.mark.parametrize("cls", BOTH)
def test_leapfrog_goes_back_where_it_came_from(cls: type[Hamiltonian]) -> None:
    q, (z, rho) = made(cls), draw(20)
    at, moved = z, rho
    for _ in range(3):
        at, moved = leap(q, at, moved, 0.1)
    assert float((at - z).abs().mean().detach()) > 0.05
    moved = -moved
    for _ in range(3):
        at, moved = leap(q, at, moved, 0.1)
    torch.testing.assert_close(at, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(-moved, rho, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cls", BOTH)
def test_leapfrog_keeps_volume(cls: type[Hamiltonian]) -> None:
    q, (z, rho) = made(cls), draw(5)
    for i in range(5):

        def whole(both: Tensor) -> Tensor:
            z, rho = both.split(3)
            return torch.cat(leap(q, z[None, None], rho[None, None], 0.1), -1)[0, 0]

        J = jacobian(whole, torch.cat([z[0, i], rho[0, i]]))
        assert float(torch.linalg.det(J)) == pytest.approx(1.0, abs=1e-6)
        assert float((J - torch.eye(6)).abs().max()) > 0.05


@pytest.mark.parametrize("beta", [1.0, 0.2])
@pytest.mark.parametrize("cls", BOTH)
def test_cooling_takes_back_the_volume_that_heat_brought(
    cls: type[Hamiltonian], beta: float
) -> None:
    q, (z, gamma) = made(cls, 4, 0.05, beta), draw(1)
    one = torch.ones(1, 3, dtype=torch.float64)

    def whole(both: Tensor) -> Tensor:
        z, gamma = both.split(3)
        return torch.cat(q.trajectory(z[None, None], gamma[None, None], one, joint)[:2], -1)[0, 0]

    J = jacobian(whole, torch.cat([z[0, 0], gamma[0, 0]]))
    assert float(torch.linalg.det(J)) == pytest.approx(1.0, abs=1e-5)
    # 1 / √β_t = (1 − 1/√β_0) t² / n² + 1/√β_0, and the factors are √β_{t−1} / √β_t
    t = np.arange(5)
    root = 1 / ((1 - 1 / np.sqrt(beta)) * t**2 / 16 + 1 / np.sqrt(beta))
    np.testing.assert_allclose(q.cooling().detach(), root[:-1] / root[1:], rtol=1e-5)


def energy_error(q: Any, size: float) -> float:
    """The mean change of −log p(x, z) − log N(ρ; 0, G(z)) over one unit of time."""
    (z, rho), n = draw(50), round(1 / size)

    def whole(z: Tensor, rho: Tensor) -> Tensor:
        energy: Tensor = q.kinetic_energy(z, rho) - joint(z)
        return energy

    with torch.no_grad():
        at, moved = 0.5 * z, 0.5 * rho
        before = whole(at, moved)
        for _ in range(n):
            at, moved = leap(q, at, moved, size)
        return float((whole(at, moved) - before).abs().mean())


@pytest.mark.parametrize("cls", BOTH)
def test_half_the_step_leaves_a_quarter_of_the_error_in_energy(cls: type[Hamiltonian]) -> None:
    q = made(cls)
    coarse, fine = energy_error(q, 1 / 16), energy_error(q, 1 / 32)
    assert coarse < 0.02
    assert coarse / fine == pytest.approx(4.0, rel=0.15)


def test_the_metrics_pull_is_minus_the_gradient_of_its_energy() -> None:
    q, (z, rho) = made(RiemannianHamiltonian, 3, 0.1, 0.3, 8, 0.05), draw(6)
    z.requires_grad_()
    here = LocalMetric(q, z)
    inverse = here.inverse
    energy = 0.5 * (rho[..., None, :] @ inverse @ rho[..., None])[..., 0, 0]
    energy = energy - 0.5 * torch.logdet(inverse)
    (wanted,) = torch.autograd.grad(energy.sum(), z, retain_graph=True)
    torch.testing.assert_close(here.force(rho, torch.linalg.inv(inverse)), -wanted)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(3).double(), torch.linalg.inv(inverse)
    )
    constant = 1.5 * np.log(2 * np.pi)
    torch.testing.assert_close(q.kinetic_energy(z, rho), -normal.log_prob(rho) - constant)
    # R⁻ᵀ applied to the axes: its columns times their transpose is the covariance
    columns = q.momentum(z[:, 0].expand(3, 3)[None], torch.eye(3).double()[None])[0]
    torch.testing.assert_close(columns.T @ columns, torch.linalg.inv(inverse[0, 0]))


CASES = [
    (Hamiltonian, (3, 0.1, 1.0)),
    (Hamiltonian, (5, 0.3, 0.3)),
    (RiemannianHamiltonian, (3, 0.1, 1.0, 8)),
    (RiemannianHamiltonian, (2, 0.2, 0.4, 5, 0.1)),
]


def toy(q: Hamiltonian) -> tuple[Any, Tensor, Tensor]:
    g, rng = nn.Linear(2, 3), torch.Generator().manual_seed(3)
    model = toy_model(q, StandardNormal(), g, features=3, latent_dim=2)
    with torch.no_grad():
        g.weight.copy_(torch.randn(3, 2, generator=rng))
    x = torch.randn(3, 3, generator=rng)
    return model, x, linear_gaussian_log_prob(x, g.weight.detach(), g.bias.detach(), 0.7)


@pytest.mark.parametrize(("cls", "args"), CASES)
def test_the_weights_of_draws_average_to_the_likelihood(
    cls: type[Hamiltonian], args: tuple[Any, ...]
) -> None:
    model, x, log_p = toy(cls(*args))
    agrees(ratios(model, x, log_p, K=10_000))


def test_a_draw_with_unsolved_equations_gets_little_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, log_p = toy(RiemannianHamiltonian(3, 0.49, 0.1, 6, 1e-3))
    with torch.no_grad():
        model.q.log_reach.fill_(-0.5)
        found = ratios(model, x, log_p, K=4000)
        node = model.q(model.f(x), 500, torch.Generator().manual_seed(0), lambda z: -z.sum(-1))
    assert bool(found.isfinite().all() & node.z.isfinite().all() & node.log_q.isfinite().all())
    assert bool((found.mean(0) < 1 + 4 * found.std(0) / len(found) ** 0.5).all())
    monkeypatch.setattr("narrows.parts.latents.hamiltonian.TOLERANCE", 1e9)  # as if all were
    free = ratios(model, x, log_p, K=4000)
    assert bool((found <= free * (1 + 1e-5)).all())
    assert 0.02 < float((found < 0.5 * free).double().mean()) < 0.9


def test_the_loss_is_that_of_numpy() -> None:
    model, x, _ = toy(Hamiltonian(3, 0.2, 0.4))
    objective = WeightedObjective([Term("kl", KL())])
    with torch.no_grad():
        found = objective(model, model(x, Clock(), torch.Generator().manual_seed(6)))["model"]
        h = model.f(x).double().numpy()
        W, b = (p.double().numpy() for p in model.g.parameters())
    rng, s2 = torch.Generator().manual_seed(6), 0.7**2
    e, gamma = (torch.randn(1, 3, 2, generator=rng)[0].double().numpy() for _ in range(2))
    mu, deviation, rows = h[:, :2], np.exp(h[:, 2:] / 2), x.double().numpy()

    def slope(z: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (rows - z @ W.T - b) @ W / s2 - z
        return moved

    z, rho, first = mu + deviation * e, gamma / np.sqrt(0.4), 1 / np.sqrt(0.4)
    for t in range(3):
        rho = rho + 0.1 * deviation * slope(z)
        z = z + 0.2 * deviation * rho
        rho = rho + 0.1 * deviation * slope(z)
        rho = rho * (first + (1 - first) * (t + 1) ** 2 / 9) / (first + (1 - first) * t**2 / 9)
    # of the four normals with two numbers each, two stand above and two below: no constants
    log_w = -0.5 * (z**2 + rho**2 - e**2 - gamma**2).sum(1) + np.log(deviation).sum(1)
    r = rows - z @ W.T - b
    log_w -= 0.5 * (r**2).sum(1) / s2 + 1.5 * np.log(2 * np.pi * s2)
    assert float(found) == pytest.approx(-log_w.mean(), rel=1e-5)


@pytest.mark.parametrize("cls", BOTH)
def test_the_gradient_goes_through_the_dynamics(cls: type[Hamiltonian]) -> None:
    """∂ of where the draw ends by a parameter of log p(x, z): as finite differences say."""
    q, (z, gamma) = made(cls), draw(4)
    one = torch.ones(4, 3, dtype=torch.float64)

    def end(theta: Tensor) -> Tensor:
        at, rho, _ = q.trajectory(z, gamma, one, lambda z: joint(theta * z))
        return (at + 0.5 * rho).sum()

    theta = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(end(theta), theta)
    with torch.no_grad():
        wanted = (end(theta + 1e-5) - end(theta - 1e-5)) / 2e-5
    assert abs(float(wanted)) > 0.1
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_products_in_bfloat16_change_the_gradient_by_rounding_only() -> None:
    """g is computed in bfloat16 in each leapfrog step too, codes and densities in float32."""
    model, x, _ = toy(Hamiltonian(3, 0.2, 0.4))
    objective, found, seen = WeightedObjective([Term("kl", KL())]), [], []
    model.g.register_forward_hook(lambda g, given, output: seen.append(output.dtype))
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            trace = model(x, Clock(), torch.Generator().manual_seed(6))
        node = trace.nodes[0]
        assert {node.z.dtype, node.log_q.dtype, trace.distance.dtype} == {torch.float32}
        loss = objective(model, trace)["model"]
        slopes = torch.autograd.grad(loss, [*model.f.parameters(), *model.g.parameters()])
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    assert seen == [torch.float32] * 5 + [torch.bfloat16] * 5
    exact, rounded = found
    assert 0 < float((rounded - exact).norm()) < 0.02 * float(exact.norm())


def test_the_dynamics_beat_the_best_gaussian_with_independent_numbers() -> None:
    model, x, log_p = toy(Hamiltonian(4, 0.25, 0.7))
    W, b = model.g.weight.detach(), model.g.bias.detach()
    with torch.no_grad():
        W.copy_(torch.tensor([[1.0, 0.9], [0.8, 1.0], [0.9, 0.9]]))
        log_p = linear_gaussian_log_prob(x, W, b, 0.7)
        precision = torch.eye(2) + W.T @ W / 0.7**2
        # the best such q: the posterior's mean, and the inverse of its precision's diagonal
        model.f.weight[:2] = torch.linalg.solve(precision, W.T / 0.7**2)
        model.f.bias[:2] = -model.f.weight[:2] @ b
        model.f.weight[2:] = 0.0
        model.f.bias[2:] = -precision.diagonal().log()
    gap = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
    optimizer, rng = torch.optim.Adam(model.q.parameters(), lr=0.1), torch.Generator()
    for _ in range(50):
        loss = -model.log_weights(x, rng, 64).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        left = log_p - model.log_weights(x, rng.manual_seed(1), 8000)
    error = float(left.std()) / left.numel() ** 0.5
    assert gap > 0.5
    assert -4 * error < float(left.mean()) < gap - 4 * error


@pytest.mark.parametrize("name", [HamiltonianVAE, RiemannianHamiltonianVAE])
def test_a_code_follows_the_slope_and_no_other_row(name: Any) -> None:
    vae = name(latent_dim=3, hidden_layer_sizes=(16,), max_epochs=3, random_state=0).fit(DIGITS)
    codes = vae.transform(DIGITS)
    np.testing.assert_array_equal(vae.transform(DIGITS), codes)
    np.testing.assert_allclose(vae.transform(DIGITS[5:8]), codes[5:8], atol=1e-5)
    np.testing.assert_allclose(vae.inverse_transform(codes), vae.reconstruct(DIGITS), atol=1e-4)
    model, x = vae.model_, vae.scaling_.apply(torch.from_numpy(DIGITS[:, None]))
    with torch.no_grad():
        mu = model.q.split(model.f(x))[0]
        log_p = model._joint(model._inputs(x))[0]
        assert float((mu - torch.from_numpy(codes)).abs().max()) > 1e-3
        gained = log_p(torch.from_numpy(codes)[None]) - log_p(mu[None])
    assert float((gained > 0).float().mean()) > 0.9


@pytest.mark.parametrize("name", [HamiltonianVAE, RiemannianHamiltonianVAE])
def test_images_of_any_shape(name: Any) -> None:
    X = np.random.default_rng(0).random((8, 3, 32, 32)).astype(np.float32)
    vae = name(latent_dim=2, channels=(2, 2), max_epochs=1, random_state=0).fit(X)
    assert vae.log_likelihood(X[:2], n_samples=2, random_state=0).shape == (2,)
    assert vae.reconstruct(X).shape == X.shape


def test_anchors_begin_at_codes_where_the_metric_is_about_one() -> None:
    vae = RiemannianHamiltonianVAE(latent_dim=3, n_anchors=20, max_epochs=0, random_state=0)
    model = vae.fit(DIGITS).model_
    with torch.no_grad():
        codes = model.q.split(model.f(vae.scaling_.apply(torch.from_numpy(DIGITS[:, None]))))[0]
        inverse = LocalMetric(model.q, model.q.anchors).inverse
        nearest = torch.cdist(model.q.anchors, codes).amin(1)
    assert float(nearest.max()) < 0.1
    assert float(inverse.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(1.0, abs=0.05)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ParameterError, match="step_size"):
        HamiltonianVAE(step_size=MAX_STEP).fit(torch.zeros(9, 2).numpy())
    with pytest.raises(ParameterError, match="choose at most 64"):
        RiemannianHamiltonian().build(Sizes((100,), 65), None)
