"""Flows: determinants are autograd's, weights average to p(x), and they start as nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from helpers.toy_densities import agrees, linear_gaussian_log_prob, ratios, toy_model
from narrows import FlowVAE, ParameterError, VariationalAutoencoder, load
from narrows._types import Clock, Sizes
from narrows.parts.latents.flows import KINDS, FlowPosterior
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.networks.architectures import create
from narrows.parts.networks.masked_autoregressive import MADE, masked_autoregressive
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.kl_and_mmd import KL

DIGITS = load_digits().images[:150]


def bent(kind: str, k: int, scale: float = 1.0, n_flows: int = 3) -> FlowPosterior:
    """A flow that has left its start."""
    q, rng = FlowPosterior(kind, n_flows, hidden=(16,)), torch.Generator().manual_seed(k)
    q.build(Sizes((3,), k), rng)
    with torch.no_grad():
        for p in q.parameters():
            p.add_(scale * torch.randn(p.shape, generator=rng))
    return q


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_determinant_is_that_of_autograds_jacobian(kind: str, k: int) -> None:
    rng = torch.Generator().manual_seed(1)
    for scale in (0.5, 0.5) if kind == "iaf" else (1.0, 10.0):  # at 10 limits are needed
        q = bent(kind, k, scale).double()
        h = scale * torch.randn(6, q.n_numbers(k) - 2 * k, generator=rng, dtype=torch.float64)
        z = torch.randn(6, k, generator=rng, dtype=torch.float64)
        _, log_det = q.push(z[None], h)
        for i in range(6):

            def row(z: Tensor, q: Any = q, h: Tensor = h[[i]]) -> Tensor:
                pushed: Tensor = q.push(z[None, None], h)[0][0, 0]
                return pushed

            J = jacobian(row, z[i])
            torch.testing.assert_close(torch.logdet(J), log_det[0, i], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_flows", [1, 2])
def test_autoregressive_steps_have_their_orders_by_turns(n_flows: int) -> None:
    """One step depends on earlier numbers; with a second, reversed, all depend on all."""
    q = bent("iaf", 4, n_flows=n_flows)
    z, h = torch.randn(4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 4)
    seen = jacobian(lambda z: q.push(z[None, None], h)[0][0, 0], z).abs() > 1e-7
    whole = torch.ones(4, 4).bool()
    assert torch.equal(seen, whole.tril() if n_flows == 1 else whole)


@pytest.mark.parametrize(("k", "context"), [(1, 0), (1, 2), (4, 0), (4, 2)])
def test_outputs_of_a_masked_network_depend_on_earlier_inputs_only(k: int, context: int) -> None:
    net: MADE = create(lambda: MADE(k, 2, (16, 12), context), torch.Generator().manual_seed(0))
    net.set_masks()
    z, given = torch.randn(k + context, generator=torch.Generator().manual_seed(1)).split(
        [k, context]
    )
    by_z, by_given = jacobian(lambda z, t: net(z, t if context else None), (z, given))
    before = torch.ones(k, k).tril(-1).bool()
    for answer in range(2):
        assert torch.equal(by_z[:, answer].abs() > 0, before)
    assert bool((by_given.abs() > 0).all())
    zero = masked_autoregressive(k, 2, (8,), context, rng=torch.Generator())
    assert not zero(z, given if context else None).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_draws_average_to_the_likelihood(kind: str) -> None:
    rng = torch.Generator().manual_seed(3)
    g = nn.Linear(2, 3)
    q = FlowPosterior(kind, 3, hidden=(16,))
    model = toy_model(q, StandardNormal(), g, features=3, latent_dim=2)
    with torch.no_grad():
        g.weight.copy_(torch.randn(3, 2, generator=rng))
        for p in q.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng))
        # as wide as the prior: weights of a q that is too narrow have no variance
        model.f.bias[2:4] = 0.5
    x = torch.randn(4, 3, generator=rng)
    found = ratios(model, x, linear_gaussian_log_prob(x, g.weight.detach(), g.bias.detach(), 0.7))
    agrees(found)
    plain = DiagonalGaussian()(model.f(x)[:, :4], 1, torch.Generator().manual_seed(0))
    moved = q(model.f(x), 1, torch.Generator().manual_seed(0))
    assert float((plain.z - moved.z).abs().amax().detach()) > 0.2  # the flow does something


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_starts_as_nothing_and_then_bends_the_code(kind: str) -> None:
    kwargs: dict[str, Any] = {"latent_dim": 3, "random_state": 0, "hidden_layer_sizes": (16,)}
    plain = VariationalAutoencoder(max_epochs=0, **kwargs).fit(DIGITS)
    start = FlowVAE(flow=kind, max_epochs=0, **kwargs).fit(DIGITS)
    np.testing.assert_allclose(start.transform(DIGITS), plain.transform(DIGITS), atol=1e-5)
    np.testing.assert_allclose(start.reconstruct(DIGITS), plain.reconstruct(DIGITS), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_reconstructed_went_through_the_flow(kind: str) -> None:
    vae = FlowVAE(flow=kind, latent_dim=3, max_epochs=3, random_state=0).fit(DIGITS)
    model, x = vae.model_, vae.scaling_.apply(torch.from_numpy(DIGITS))
    with torch.no_grad():
        h = model.f(x)
        code = model.q.push(h[None, :, :3], h[:, 6:])[0][0]
    codes = vae.transform(DIGITS)
    np.testing.assert_allclose(codes, code.numpy(), atol=1e-5)
    assert np.abs(codes - h[:, :3].numpy()).max() > 1e-3
    np.testing.assert_allclose(vae.inverse_transform(codes), vae.reconstruct(DIGITS), atol=1e-4)


def test_a_masked_networks_masks_are_in_the_file(tmp_path: Any) -> None:
    vae = FlowVAE(flow="iaf", latent_dim=3, max_epochs=2, random_state=0).fit(DIGITS)
    again = load(vae.save(tmp_path / "flow.safetensors"))
    np.testing.assert_array_equal(again.transform(DIGITS), vae.transform(DIGITS))
    for a, b in zip(again.model_.buffers(), vae.model_.buffers(), strict=True):
        assert torch.equal(a, b)


def _fixed(kind: str) -> tuple[Any, Tensor, Tensor]:
    g = nn.Linear(2, 3)
    q = FlowPosterior(kind, 2)
    model = toy_model(q, StandardNormal(), g, features=3, latent_dim=2)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in [*g.parameters(), *q.parameters()]:
            p.copy_(torch.randn(p.shape, generator=rng))
    x = torch.randn(4, 3, generator=rng)
    eps = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(6))
    return model, x, eps


def _one_map(kind: str, z: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, float]:
    """The map and its log-determinant for one row, by another route: the whole matrix."""
    shift, least = np.log(np.e - 1), 1e-3

    def soft(t: float) -> float:
        return float(np.log1p(np.exp(t)))

    if kind == "planar":
        u, w, b = p[:2], p[2:4], p[4]
        u = u + ((1 - least) * (soft(w @ u + shift) - 1) - w @ u) * w / (w @ w)
        t = np.tanh(w @ z + b)
        J = np.eye(2) + (1 - t**2) * np.outer(u, w)
        return z + u * t, np.log(np.linalg.det(J))
    c, alpha = p[:2], soft(p[2] + shift) + least
    beta = alpha * (1 - least) * (soft(p[3] + shift) - 1)
    d = z - c
    r = np.sqrt(d @ d)
    J = (1 + beta / (alpha + r)) * np.eye(2) - beta / (alpha + r) ** 2 / r * np.outer(d, d)
    return z + beta * d / (alpha + r), np.log(np.linalg.det(J))


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_the_loss_is_that_of_numpy(kind: str) -> None:
    model, x, eps = _fixed(kind)
    objective = WeightedObjective([Term("kl", KL(), 0.5)])
    with torch.no_grad():
        found = objective(model, model(x, Clock(), torch.Generator().manual_seed(6)))["model"]
        h = model.f(x).double().numpy()
        W, b = (p.double().numpy() for p in model.g.parameters())
    numbers = model.q.numbers.detach().double().numpy()
    s2, total = 0.7**2, 0.0
    for i in range(4):
        mu, log_variance, rest = h[i, :2], h[i, 2:4], h[i, 4:].reshape(2, -1)
        e = eps[0, i].double().numpy()
        z = mu + np.exp(log_variance / 2) * e
        kl = -0.5 * (e @ e + log_variance.sum() + 2 * np.log(2 * np.pi))
        for j in range(2):
            z, log_det = _one_map(kind, z, numbers[j] + rest[j])
            kl -= log_det
        kl += 0.5 * (z @ z + 2 * np.log(2 * np.pi))
        r = x[i].double().numpy() - W @ z - b
        total += 0.5 * (r @ r / s2 + 3 * np.log(2 * np.pi * s2)) + 0.5 * kl
    assert float(found) == pytest.approx(total / 4, rel=1e-5)


def test_a_flow_of_no_kind_is_refused() -> None:
    with pytest.raises(ParameterError, match="planar"):
        FlowVAE(flow="circular").fit(torch.zeros(9, 2).numpy())
