"""Regularisers: closed forms where there are some, and what each named model asks for."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from torch import Tensor

from narrows import AnnealedVAE, BetaTCVAE, BetaVAE, VariationalAutoencoder
from narrows._types import Clock, Node, Trace
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.regularizers.base import Ramp
from narrows.parts.regularizers.kl_and_mmd import (
    KL,
    MAX_COMPARED_ROWS,
    DimensionwiseKL,
    TotalCorrelation,
    aggregate_posterior,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gaussian_node(mu: Tensor, log_variance: Tensor, seed: int = 0) -> Node:
    node = DiagonalGaussian()(
        torch.cat([mu, log_variance], -1), 1, torch.Generator().manual_seed(seed)
    )
    node.log_p = normal_log_prob(node.z, 0.0, 0.0)
    return node


def trace_of(node: Node, n_rows: int = 1, seed: int = 0) -> Trace:
    B = node.z.shape[1]
    nothing = torch.zeros(1, B)
    rng = torch.Generator().manual_seed(seed)
    return Trace(nothing, nothing, None, [node], nothing, nothing, Clock(n_rows=n_rows), rng)


# ------------------------------------------------------------------ total correlation


def correlated(n: int, rho: float, seed: int = 0) -> tuple[Node, float]:
    """Posteriors N(m, ½ I) whose means make q(z) = N(0, [[1, ρ], [ρ, 1]]), and its TC."""
    covariance = torch.tensor([[0.5, rho], [rho, 0.5]])
    mu = drawn(n, 2, seed=seed) @ torch.linalg.cholesky(covariance).T
    node = gaussian_node(mu, torch.full((n, 2), float(np.log(0.5))), seed + 1)
    return node, -0.5 * np.log(1 - rho**2)


@pytest.mark.parametrize("rho", [0.0, 0.45])
def test_total_correlation_of_a_known_gaussian(rho: float) -> None:
    node, exact = correlated(2000, rho)
    whole = TotalCorrelation()._of_draws(node, trace_of(node, 2000))  # every row there is
    error = float(whole.std()) / 2000**0.5
    assert float(whole.mean()) == pytest.approx(exact, abs=4 * error + 0.01)
    # batches of one in twenty rows, each with the number of all rows
    found = []
    for start in range(0, 2000, 100):
        rows = slice(start, start + 200)
        part = Node(
            z=node.z[:, rows], log_p=node.log_p[:, rows],
            extras={name: value[rows] for name, value in node.extras.items()},
        )  # fmt: skip
        found.append(float(TotalCorrelation()(None, trace_of(part, 2000))))
    assert np.mean(found) == pytest.approx(exact, abs=0.05)


def test_the_three_parts_of_the_divergence_are_the_divergence() -> None:
    """α MI + β TC + γ Σ KL_j, with α = β = γ = 1, of the very same draws."""
    node, _ = correlated(300, 0.45)
    trace = trace_of(node, 300)
    joint, _ = aggregate_posterior(node, 300, "mss")
    information = (node.log_q - joint).mean()
    parts = information + TotalCorrelation()(None, trace) + DimensionwiseKL()(None, trace)
    torch.testing.assert_close(parts, (node.log_q - node.log_p).mean())
    # q(z) = N(0, C) with unit variances: nothing is left between its numbers and the prior's
    assert float(DimensionwiseKL()(None, trace)) == pytest.approx(0.0, abs=0.05)


def _density(z: np.ndarray, mu: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    half = 0.5 * np.log(2 * np.pi)
    return -0.5 * (z - mu) ** 2 / np.exp(log_variance) - 0.5 * log_variance - half


def aggregate_by_numpy(node: Node, N: int, estimator: str) -> tuple[np.ndarray, np.ndarray]:
    z, mu, log_variance = (
        t.detach().double().numpy() for t in (node.z[0], *map(node.extras.get, GAUSSIAN))
    )
    B, k = z.shape
    joint, apart = np.zeros(B), np.zeros(B)
    for i in range(B):
        weight = np.full(B, 1 / (N * B) if estimator == "mws" else (N - 1) / N / (B - 1))
        if estimator == "mss":
            weight[i] = 1 / N
        each = np.array([_density(z[i], mu[j], log_variance[j]) for j in range(B)])
        joint[i] = logsumexp(each.sum(1), b=weight)
        apart[i] = sum(logsumexp(each[:, j], b=weight) for j in range(k))
    return joint, apart


GAUSSIAN = ("mu", "log_variance")


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_the_density_of_all_codes_is_its_formula(estimator: str) -> None:
    node = gaussian_node(drawn(7, 3), 0.5 * drawn(7, 3, seed=1) - 1)
    for found, wanted in zip(
        aggregate_posterior(node, 50, estimator), aggregate_by_numpy(node, 50, estimator),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(found[0], wanted, rtol=1e-5)


def test_a_batch_estimates_the_density_of_all_codes_without_bias() -> None:
    """The mean over all batches that hold row 0, the others drawn from the rest, is q(z)."""
    N, B = 6, 3
    node = gaussian_node(drawn(N, 2), 0.5 * drawn(N, 2, seed=1))
    whole, _ = aggregate_posterior(node, N, "mss")
    found = []
    for a in range(1, N):
        for b in range(a + 1, N):
            rows = torch.tensor([0, a, b])
            extras = {name: node.extras[name][rows] for name in GAUSSIAN}
            part = Node(z=node.z[:, rows], extras=extras)
            found.append(aggregate_posterior(part, N, "mss")[0][0, 0].exp())
    assert len(found) == 10 and B == 3
    torch.testing.assert_close(torch.stack(found).mean(), whole[0, 0].exp())


def test_total_correlation_of_odd_batches() -> None:
    one = gaussian_node(drawn(1, 3), drawn(1, 3, seed=1))
    for estimator in ("mss", "mws"):  # one row: its numbers are independent
        assert float(TotalCorrelation(estimator)(None, trace_of(one, 100))) == pytest.approx(
            0.0, abs=1e-5
        )
    # many rows are taken some at a time, and none is lost
    n = MAX_COMPARED_ROWS + 101
    many = gaussian_node(drawn(n, 2), drawn(n, 2, seed=1))
    pieces = [slice(0, n // 2), slice(n // 2, n)]
    means = [
        aggregate_by_numpy_means(many, rows, 5000) * (rows.stop - rows.start) / n for rows in pieces
    ]
    found = float(TotalCorrelation()(None, trace_of(many, 5000)))
    assert found == pytest.approx(sum(means), rel=1e-4)


def aggregate_by_numpy_means(node: Node, rows: slice, N: int) -> float:
    extras = {name: node.extras[name][rows] for name in GAUSSIAN}
    joint, apart = aggregate_posterior(Node(z=node.z[:, rows], extras=extras), N, "mss")
    return float((joint - apart).mean())


def test_what_the_total_correlation_cannot_take_is_refused() -> None:
    with pytest.raises(ParameterError, match="'estimator' parameter of BetaTCVAE"):
        BetaTCVAE(estimator="all").fit(np.zeros((9, 2)))
    trace = trace_of(gaussian_node(drawn(4, 2), drawn(4, 2)))
    trace.nodes.append(trace.nodes[0])
    with pytest.raises(ParameterError, match="The total correlation needs one Gaussian latent"):
        TotalCorrelation()(None, trace)


def test_terms_do_not_change_when_a_batch_is_repeated() -> None:
    node = gaussian_node(drawn(6, 2), drawn(6, 2, seed=1))
    again = Node(
        z=node.z.repeat(1, 3, 1), log_p=node.log_p.repeat(1, 3),
        extras={name: node.extras[name].repeat(3, 1) for name in GAUSSIAN},
    )  # fmt: skip
    for R in (TotalCorrelation(), DimensionwiseKL(), TotalCorrelation("mws")):
        rows = (6, 18) if R.estimator == "mss" else (100, 100)
        torch.testing.assert_close(
            R(None, trace_of(node, rows[0])), R(None, trace_of(again, rows[1]))
        )


# ------------------------------------------------------------------ free bits and capacity


@pytest.mark.parametrize("free", [0.0, 0.3, 0.7, 5.0])
def test_free_nats_are_those_of_the_mean_of_each_number(free: float) -> None:
    """Σ_j max(free, mean KL_j): a row below may make up for one above (Kingma et al., eq. 15)."""
    each = drawn(40, 4).exp() * torch.tensor([0.1, 0.4, 1.0, 2.0])
    each.requires_grad_()
    node = Node(z=torch.zeros(1, 40, 4), kl=each.sum(1), extras={"kl_each": each})
    found = KL(free=lambda progress: free * progress)(None, trace_of(node))
    means = each.detach().mean(0).numpy()
    assert float(found.detach()) == pytest.approx(np.maximum(free, means).sum(), rel=1e-5)
    if free < means.max():  # what costs nothing has no gradient
        (slope,) = torch.autograd.grad(found, each)
        np.testing.assert_allclose(slope, np.tile((means > free) / 40, (40, 1)), rtol=1e-5)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("free", [0.0, 0.2, 2.0])
def test_free_nats_of_a_whole_code_count_its_numbers(closed: bool, free: float) -> None:
    """Where KL_j is not known: max(k free, mean KL), of the closed form or of log q − log p."""
    kl = drawn(30).abs() + 1.0
    log_q, log_p = drawn(2, 30, seed=1) + 1.5, drawn(2, 30, seed=2)
    node = Node(z=torch.zeros(2, 30, 3), log_q=log_q, log_p=log_p, kl=kl if closed else None)
    mean = float(kl.mean() if closed else (log_q - log_p).mean())
    assert float(KL(free)(None, trace_of(node))) == pytest.approx(max(3 * free, mean), rel=1e-5)
    two = trace_of(node)
    two.nodes.append(node)  # levels add up
    assert float(KL(free)(None, two)) == pytest.approx(2 * max(3 * free, mean), rel=1e-5)
    bound = float(KL(free, capacity=9.0)(None, two))
    assert bound == pytest.approx(abs(2 * max(3 * free, mean) - 9.0), rel=1e-4)


# ------------------------------------------------------------------ named models

X = load_digits().images[:200]
QUICK = {"latent_dim": 3, "max_epochs": 1, "random_state": 0, "hidden_layer_sizes": (8,)}


def losses_of(estimator: Any, clock: Clock | None = None) -> tuple[Any, Trace, float]:
    """Fitted shortly; a trace of some rows, and the loss of it."""
    estimator.set_params(**QUICK).fit(X)
    x = estimator.scaling_.apply(torch.from_numpy(X[:30, None])).float()
    clock = clock or Clock(n_rows=180)
    trace = estimator.model_(x, clock, torch.Generator().manual_seed(0))
    losses = estimator.objective_(estimator.model_, trace)
    assert set(losses) == {"model"}
    return estimator.model_, trace, float(losses["model"].detach())


def arrays(trace: Trace) -> tuple[np.ndarray, ...]:
    """x, g(z), z of one draw, flat."""
    return tuple(
        t.detach().double().flatten(1).numpy() for t in (trace.x, trace.output[0], trace.z[0])
    )


def gaussian_by_numpy(model: Any, trace: Trace) -> tuple[float, float]:
    """The mean of −log p(x | z), and the KL's closed form."""
    x, output, _ = arrays(trace)
    scale = float(model.D.log_scale.detach().exp())
    mu, log_variance = (trace.nodes[0].extras[n].detach().double().numpy() for n in GAUSSIAN)
    distance = -_density(x, output, np.full(1, 2 * np.log(scale))).sum(1).mean()
    kl = 0.5 * (mu**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
    return float(distance), float(kl)


def test_the_loss_of_a_beta_vae() -> None:
    model, trace, loss = losses_of(BetaVAE(beta=4.0))
    distance, kl = gaussian_by_numpy(model, trace)
    assert loss == pytest.approx(distance + 4 * kl, rel=1e-4)


@pytest.mark.parametrize(("progress", "capacity"), [(0.0, 0.0), (0.2, 4.0), (0.7, 10.0)])
def test_the_loss_of_an_annealed_vae(progress: float, capacity: float) -> None:
    vae = AnnealedVAE(capacity=10.0, gamma=7.0, anneal=0.5)
    model, trace, loss = losses_of(vae, Clock(progress=progress))
    distance, kl = gaussian_by_numpy(model, trace)
    assert loss == pytest.approx(distance + 7 * abs(kl - capacity), rel=1e-4)


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_the_loss_of_a_beta_tc_vae(estimator: str) -> None:
    """α MI + β TC + γ Σ KL_j, where their sum is the closed KL."""
    vae = BetaTCVAE(beta=5.0, alpha=0.5, gamma=2.0, estimator=estimator)
    model, trace, loss = losses_of(vae)
    distance, kl = gaussian_by_numpy(model, trace)
    node = trace.nodes[0]
    joint, apart = aggregate_by_numpy(node, 180, estimator)
    *_, z = arrays(trace)
    tc = (joint - apart).mean()
    each = (apart - (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(1)).mean()
    information = kl - tc - each
    assert loss == pytest.approx(distance + 0.5 * information + 5 * tc + 2 * each, rel=1e-4)


def test_a_beta_tc_vae_of_equal_weights_is_a_vae() -> None:
    one = losses_of(BetaTCVAE(beta=1.0))[2]
    assert one == pytest.approx(losses_of(VariationalAutoencoder())[2], rel=1e-6)


# ------------------------------------------------------------------ schedules


def test_the_selection_score_does_not_move_with_the_capacity() -> None:
    """With steps of next to no size the model stays; only the clock of the training moves."""
    vae = AnnealedVAE(
        capacity=25.0, gamma=10.0, anneal=1.0, latent_dim=3, max_epochs=4, learning_rate=1e-12,
        random_state=0,
    ).fit(X)  # fmt: skip
    assert len({round(entry["kl"], 1) for entry in vae.history_}) == 4  # the loss did move
    np.testing.assert_allclose(vae.validation_curve_, vae.validation_curve_[0], rtol=1e-4)


def test_patience_waits_until_the_weights_have_settled() -> None:
    """Otherwise training would stop before the capacity has grown."""
    short = {"latent_dim": 3, "max_epochs": 12, "n_iter_no_change": 2, "random_state": 0}
    vae = AnnealedVAE(capacity=8.0, anneal=0.75, **short).fit(X)
    assert len(vae.history_) >= 9
    objective = WeightedObjective([Term("kl", KL(), Ramp(2.0, 0.5)), Term("again", KL())])
    assert objective.settled == pytest.approx(0.5, abs=0.02)
    assert WeightedObjective([Term("kl", KL(), 3.0)]).settled == 0.0
    assert vae.objective_.settled == pytest.approx(0.75, abs=0.02)


def test_a_ramp_rises_along_a_line_and_stays() -> None:
    ramp = Ramp(8.0, 0.5)
    assert [ramp(p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 4.0, 8.0, 8.0]
    assert Ramp(8.0, 0.0)(0.0) == 8.0
