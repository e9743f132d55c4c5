"""Penalties of single rows: closed forms where there are some, and the models made of them."""

from typing import Any

import numpy as np
import pytest
import torch
from test_regularizers import arrays, drawn, losses_of, trace_of
from torch import Tensor, nn

from narrows import ContractiveAutoencoder, RegularizedAE, SparseAutoencoder
from narrows._types import Clock, Node
from narrows.exceptions import ParameterError
from narrows.parts.latents.gaussian import Point
from narrows.parts.likelihoods.continuous import MSE
from narrows.parts.model import Model
from narrows.parts.networks.linear_path import LEAK
from narrows.parts.regularizers.penalties import (
    CodeNorm,
    Contractive,
    DecoderWeightDecay,
    GradientPenalty,
    KLSparsity,
    L1Sparsity,
)


def linear(features: int, k: int) -> Model:
    """f and g linear with known matrices."""
    f, g = nn.Linear(features, k), nn.Linear(k, features)
    with torch.no_grad():
        for seed, p in enumerate((*f.parameters(), *g.parameters())):
            p.copy_(drawn(*p.shape, seed=seed))
    return Model(f, g, Point(), MSE())


@pytest.mark.parametrize(("features", "k", "n"), [(5, 3, 4), (12, 10, 20_000)])
def test_for_a_linear_encoder_the_contraction_is_its_closed_form(
    features: int, k: int, n: int
) -> None:
    """Exact for short codes; of long ones each row draws its own estimate."""
    model = linear(features, k)
    trace = model(drawn(n, features), Clock(), torch.Generator().manual_seed(0))
    found, exact = Contractive()(model, trace), float(model.f.weight.detach().square().sum())
    assert float(found.detach()) == pytest.approx(exact, rel=1e-5 if k <= 8 else 0.02)


@pytest.mark.parametrize(("features", "k", "n"), [(5, 3, 4), (12, 3, 20_000)])
def test_for_a_linear_decoder_the_gradient_penalty_is_its_closed_form(
    features: int, k: int, n: int
) -> None:
    """‖∂g/∂z‖² at z, and not of g ∘ f at x."""
    model = linear(features, k)
    trace = model(drawn(n, features), Clock(), torch.Generator().manual_seed(0))
    penalty = GradientPenalty()(model, trace)
    exact = float(model.g.weight.detach().square().sum())
    assert float(penalty.detach()) == pytest.approx(exact, rel=1e-5 if features <= 8 else 0.02)
    weight, *to_f = torch.autograd.grad(
        penalty, [model.g.weight, *model.f.parameters()], allow_unused=True
    )
    assert to_f == [None, None]  # f has no part in it
    if features <= 8:
        torch.testing.assert_close(weight, 2 * model.g.weight)


def test_the_jacobian_of_a_bent_encoder_and_its_gradient() -> None:
    """Against torch's own Jacobian, row by row; and it can be learned from."""
    model = linear(5, 3)
    model.f = nn.Sequential(model.f, nn.Tanh(), nn.Linear(3, 3))
    x = drawn(4, 5)
    trace = model(x, Clock(), torch.Generator().manual_seed(0))
    rows = [
        torch.autograd.functional.jacobian(model.f, r[None], create_graph=True).square().sum()
        for r in x
    ]
    wanted, found = torch.stack(rows).mean(), Contractive()(model, trace)
    torch.testing.assert_close(found, wanted)
    first = model.f[0].weight
    torch.testing.assert_close(
        *(torch.autograd.grad(nats, first)[0] for nats in (found, wanted)), rtol=1e-4, atol=1e-5
    )


def test_the_gradient_penalty_of_a_bent_decoder_moves_g_alone() -> None:
    """Its Jacobian depends on z, and yet f gets no gradient through z."""
    model = linear(5, 3)
    model.g = nn.Sequential(model.g, nn.Tanh(), nn.Linear(5, 5))
    trace = model(drawn(4, 5), Clock(), torch.Generator().manual_seed(0))
    penalty = GradientPenalty()(model, trace)
    rows = [torch.autograd.functional.jacobian(model.g, z[None]) for z in trace.z[0].detach()]
    wanted = torch.stack([J.square().sum() for J in rows]).mean()
    assert float(penalty.detach()) == pytest.approx(float(wanted), rel=1e-5)
    *to_f, to_g = torch.autograd.grad(
        penalty, [*model.f.parameters(), model.g[0].weight], allow_unused=True
    )
    assert to_f == [None, None] and to_g.abs().sum() > 0


def test_the_contraction_is_that_at_x_whatever_f_was_shown() -> None:
    model, x = linear(5, 3), drawn(4, 5)
    model.f = nn.Sequential(model.f, nn.Tanh())
    trace = model(x, Clock(), torch.Generator().manual_seed(0))
    wanted = float(Contractive()(model, trace).detach())
    for shown in (x + 1, torch.full_like(x, torch.nan)):
        trace.corrupted = shown
        assert float(Contractive()(model, trace).detach()) == pytest.approx(wanted)


@pytest.mark.parametrize("R", [Contractive(), GradientPenalty()])
def test_jacobians_have_the_same_value_where_nothing_is_learned(R: Any) -> None:
    model = linear(5, 3)
    trace = model(drawn(4, 5), Clock(), torch.Generator().manual_seed(0))
    learned = R(model, trace)
    with torch.no_grad():
        still = R(model, model(drawn(4, 5), Clock(), torch.Generator().manual_seed(0)))
    assert learned.requires_grad and not still.requires_grad
    assert float(still) == pytest.approx(float(learned.detach()))


def by_numpy(name: str, z: np.ndarray) -> float:
    if name == "l1":
        return float(np.abs(z).sum(1).mean())
    if name == "norm":
        return float(0.5 * (z**2).sum(1).mean())
    active, rho = (2 / (1 + np.exp(-np.abs(z))) - 1).mean(0), 0.05
    return float((rho * np.log(rho / active) + (1 - rho) * np.log((1 - rho) / (1 - active))).sum())


@pytest.mark.parametrize(
    ("name", "R"), [("l1", L1Sparsity()), ("norm", CodeNorm()), ("kl", KLSparsity(0.05))]
)
def test_a_penalty_of_codes_is_its_formula_however_often_a_row_comes(name: str, R: Any) -> None:
    z = drawn(9, 4)
    for times in (1, 3):
        trace = trace_of(Node(z=z.repeat(times, 1)[None]))
        assert float(R(None, trace)) == pytest.approx(by_numpy(name, z.numpy()), rel=1e-5)


def test_the_kl_sparsity_is_least_at_its_target_and_finite_everywhere() -> None:
    at = 2 * np.arctanh(0.2)  # as active as the target asks
    values = [
        float(KLSparsity(0.2)(None, trace_of(Node(z=torch.full((1, 5, 2), scale * at)))))
        for scale in (0.0, 0.5, 1.0, 2.0, 1e6)
    ]
    assert values[2] == pytest.approx(0.0, abs=1e-6)
    assert values[0] > values[1] > values[2] < values[3] < values[4] < 100
    for target in (0.0, 1.0):
        with pytest.raises(ParameterError, match="target"):
            SparseAutoencoder(target=target).fit(torch.zeros(9, 2).numpy())


def test_terms_do_not_change_when_a_batch_is_repeated() -> None:
    model = linear(5, 3)
    rng = torch.Generator().manual_seed(0)
    one, three = (model(drawn(6, 5).repeat(n, 1), Clock(), rng) for n in (1, 3))
    for R in (Contractive(), GradientPenalty(), DecoderWeightDecay(), CodeNorm(), L1Sparsity()):
        torch.testing.assert_close(R(model, one), R(model, three))


@pytest.mark.parametrize("sparsity", ["l1", "kl", "topk"])
def test_the_loss_of_a_sparse_autoencoder(sparsity: str) -> None:
    sae = SparseAutoencoder(sparsity=sparsity, sparsity_weight=0.3, target=0.05, n_active=2)
    _, trace, loss = losses_of(sae)
    x, output, z = arrays(trace)
    wanted = 0.5 * ((x - output) ** 2).sum(1).mean()
    wanted += 0.0 if sparsity == "topk" else 0.3 * by_numpy(sparsity, z)
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert ((z != 0).sum(1) <= (2 if sparsity == "topk" else 3)).all()


def jacobian_by_hand(net: nn.Module, rows: Tensor) -> Tensor:
    """The whole Jacobian of each row, by finite differences in float64."""
    net, rows, h = net.double(), rows.detach().double(), 1e-5
    with torch.no_grad():
        columns = [
            ((net(rows + h * e) - net(rows - h * e)) / (2 * h)).flatten(1)
            for e in torch.eye(rows[0].numel()).double().unflatten(1, rows.shape[1:])
        ]
    net.float()
    return torch.stack(columns, -1)


def test_the_loss_of_a_contractive_autoencoder() -> None:
    model, trace, loss = losses_of(ContractiveAutoencoder(contraction=0.3))
    x, output, _ = arrays(trace)
    J = jacobian_by_hand(model.f, trace.x).numpy()
    wanted = 0.5 * ((x - output) ** 2).sum(1).mean() + 0.3 * (J**2).sum((1, 2)).mean()
    assert loss == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("penalty", ["l2", "gradient"])
def test_the_loss_of_a_regularized_autoencoder(penalty: str) -> None:
    rae = RegularizedAE(penalty=penalty, code_weight=0.2, decoder_weight=0.3)
    model, trace, loss = losses_of(rae)
    x, output, z = arrays(trace)
    if penalty == "l2":
        R = 0.5 * sum(float(p.detach().double().square().sum()) for p in model.g.parameters())
    else:  # estimated with one vector of signs for each row; a point code has drawn nothing
        coins = torch.randint(0, 2, (30, 64), generator=torch.Generator().manual_seed(0))
        inner, head = model.g  # whose head is kept within the pixels' range
        J = jacobian_by_hand(inner, trace.z[0])
        free = inner(trace.z[0]).flatten(1).detach()
        inside = (free > head.low.flatten()) & (free < head.high.flatten())
        J = J * torch.where(inside, 1.0, LEAK)[..., None]
        signs = 2.0 * coins - 1.0
        R = float(torch.einsum("bd,bdk->bk", signs.double(), J).square().sum(1).mean())
    wanted = 0.5 * ((x - output) ** 2).sum(1).mean() + 0.2 * by_numpy("norm", z) + 0.3 * R
    assert loss == pytest.approx(wanted, rel=1e-4)
