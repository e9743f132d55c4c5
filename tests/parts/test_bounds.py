"""Bounds: what they are worth, whose gradient is whose, and what has no meaning in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from torch import Tensor, nn

from helpers.toy_densities import linear_gaussian_log_prob, toy_model
from narrows import CIWAE, IWAE, MIWAE, PIWAE
from narrows._types import Clock, Node, Trace
from narrows.estimators.build import Parts
from narrows.exceptions import ParameterError
from narrows.parts import bounds
from narrows.parts.bounds import Bound
from narrows.parts.latents.base import normal_log_prob
from narrows.parts.latents.gaussian import DiagonalGaussian, FullGaussian, Point, TopK
from narrows.parts.latents.hamiltonian import Hamiltonian
from narrows.parts.latents.scalar_quantizer import GumbelSoftmax, UniformCategorical
from narrows.parts.model import Model
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.priors.base import Prior, StandardNormal
from narrows.parts.regularizers.kl_and_mmd import KL, TotalCorrelation
from narrows.parts.regularizers.penalties import (
    Contractive,
    DecoderWeightDecay,
    GradientPenalty,
    L1Sparsity,
)
from narrows.training.loop import step_players

GAUSSIAN = ("mu", "log_variance")
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))


def model_of(p: Prior | None = None) -> Model:
    return toy_model(
        DiagonalGaussian(), p or StandardNormal(), nn.Linear(2, 4), features=4, latent_dim=2
    )


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the toys' g
        yield


def traced(model: Model, K: int, seed: int = 0, x: Tensor = X) -> Trace:
    return model(x, Clock(n_rows=len(x)), torch.Generator().manual_seed(seed), K=K)


def numbers(trace: Trace) -> np.ndarray:
    """log w by NumPy, float64."""
    node = trace.nodes[0]
    log_w = node.log_p.double() - node.log_q.double() - trace.distance.double()
    return log_w.detach().numpy()


def log_mean_exp(a: np.ndarray, axis: int) -> np.ndarray:
    return logsumexp(a, axis=axis) - np.log(a.shape[axis])


def doubly(log_w: np.ndarray) -> float:
    return float(-log_mean_exp(log_w, 0).mean())


FORMULAS: dict[str, tuple[Bound, Callable[[np.ndarray], float]]] = {
    "importance": (bounds.ImportanceWeighted(12), lambda w: -log_mean_exp(w, 0).mean()),
    "miwae": (bounds.MIWAE(4, 3), lambda w: -log_mean_exp(w.reshape(4, 3, -1), 1).mean()),
    "piwae": (bounds.PIWAE(4, 3), lambda w: -log_mean_exp(w, 0).mean()),
    "ciwae": (
        bounds.CIWAE(12, beta=0.3),
        lambda w: -(0.3 * w.mean() + 0.7 * log_mean_exp(w, 0).mean()),
    ),
    "doubly": (bounds.DoublyReparameterised(12), doubly),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_bound_is_its_formula_and_so_is_its_score(name: str) -> None:
    """Not Σ w̃ log w, whose gradient is right and whose value is another."""
    bound, formula = FORMULAS[name]
    trace = traced(model_of(), bound.samples(Clock()))
    assert len(trace.distance) == 12
    assert float(bound(trace).detach()) == pytest.approx(formula(numbers(trace)), rel=1e-5)
    objective = WeightedObjective(bound=bound)
    losses = objective(model_of(), trace)
    for reported in (losses["model"], trace.terms["distance"], objective.score(trace)):
        assert float(reported.detach()) == pytest.approx(formula(numbers(trace)), rel=1e-5)


def test_the_ends_of_miwae_are_the_evidence_bound_and_iwae() -> None:
    trace = traced(model_of(), 10)
    elbo, tight = float(-numbers(trace).mean()), doubly(numbers(trace))
    assert elbo > tight + 0.1  # the two differ
    for bound, wanted in (
        (bounds.MIWAE(10, 1), elbo),
        (bounds.MIWAE(1, 10), tight),
        (bounds.CIWAE(10, beta=1.0), elbo),
        (bounds.CIWAE(10, beta=0.0), tight),
    ):
        assert float(bound(trace).detach()) == pytest.approx(wanted, rel=1e-5)
    piwae = bounds.PIWAE(10, 1)
    assert float(piwae.encoder(trace).detach()) == pytest.approx(elbo, rel=1e-5)
    one = traced(model_of(), 1)
    for bound in (bounds.ImportanceWeighted(1), bounds.MIWAE(1, 1), bounds.PIWAE(1, 1)):
        assert float(bound(one).detach()) == pytest.approx(float(-numbers(one).mean()), rel=1e-5)


@torch.no_grad()
def test_the_bound_grows_with_the_draws_up_to_the_density() -> None:
    model = model_of()
    log_p = linear_gaussian_log_prob(X, model.g.weight, model.g.bias, 0.7)
    worth = []
    for K in (1, 8, 64, 512):
        x = X.repeat(150, 1)
        tight = bounds.ImportanceWeighted(K)(traced(model, K, x=x))
        worth.append(float(-tight))
    assert np.diff(worth).min() > 0.02
    assert worth[-1] < float(log_p.mean()) < worth[-1] + 0.1


def test_before_it_begins_a_bound_has_one_draw() -> None:
    for bound, many in ((bounds.MIWAE(3, 2, begin=0.5), 6), (bounds.CIWAE(5, begin=0.5), 5)):
        assert bound.samples(Clock(progress=0.4)) == 1
        assert bound.samples(Clock(progress=0.5)) == bound.samples(Clock()) == many
        one = traced(model_of(), 1)
        assert float(bound(one).detach()) == pytest.approx(float(-numbers(one).mean()), rel=1e-5)


def test_each_player_of_piwae_gets_the_gradient_of_its_own_loss() -> None:
    model, bound = model_of(), bounds.PIWAE(4, 3)
    objective = WeightedObjective(bound=bound)
    players = objective.players(model)
    assert {id(p) for p in players["encoder"]} == {id(p) for p in model.f.parameters()}
    trace = traced(model, 12)
    log_w = bounds.log_weights(trace)
    miwae = -bounds.log_mean_exp(log_w.reshape(4, 3, -1), 1).mean()
    iwae = -bounds.log_mean_exp(log_w).mean()
    rest = players["model"]
    wanted = {
        "encoder": torch.autograd.grad(miwae, players["encoder"], retain_graph=True),
        "model": torch.autograd.grad(iwae, rest, retain_graph=True),
    }
    other = torch.autograd.grad(iwae, players["encoder"], retain_graph=True)
    assert (wanted["encoder"][0] - other[0]).abs().max() > 1e-3  # the two losses differ
    optimizers = {name: torch.optim.SGD(ps, lr=0.0) for name, ps in players.items()}
    step_players(objective(model, trace), players, optimizers)
    for name, gradients in wanted.items():
        for p, gradient in zip(players[name], gradients, strict=True):
            torch.testing.assert_close(p.grad, gradient)


class OfPosteriors(Prior):
    """The posterior of one learned input: a prior with a way of its own to f and q."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(0.5 * torch.ones(1, 4))

    def log_prob(self, z: Tensor, model: Any) -> Tensor:
        mu, log_variance = model.q.split(model.f(self.x))
        return normal_log_prob(z, mu, log_variance + 1.0)


@pytest.mark.parametrize("prior", [StandardNormal, OfPosteriors])
def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_less_noise(prior: Any) -> None:
    model = model_of(prior())
    # one row many times over
    n, K = 40_000, 8
    doubly = bounds.DoublyReparameterised(K)

    def gradients(loss: Callable[[Trace], Tensor], seed: int) -> Tensor:
        """Of the bias of f, from groups of rows, so that their scatter tells the noise."""
        found = []
        for group in range(40):
            trace = traced(model, K, seed + group, X[:1].expand(n // 40, 4))
            (slope,) = torch.autograd.grad(loss(trace), [model.f.bias])
            found.append(slope)
        return torch.stack(found).double()

    plain, other = gradients(doubly, 100), gradients(doubly.encoder, 200)
    error = (plain.var(0) / 40 + other.var(0) / 40).sqrt()
    assert ((plain.mean(0) - other.mean(0)).abs() < 4 * error).all()
    assert plain.mean(0).abs().max() > 20 * error.max()  # there is something to agree on
    if prior is StandardNormal:  # the way of the other's own is as noisy as ever
        assert other.var(0).sum() < 0.6 * plain.var(0).sum()


def test_the_doubly_reparameterised_gradient_is_that_of_the_paper() -> None:
    """Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ, with the slopes by finite differences."""
    model, K = model_of().double(), 5
    model.q.split = lambda h: h.chunk(2, -1)  # finite differences need float64
    trace = traced(model, K, x=X.double())
    node = trace.nodes[0]
    mu, log_variance = (node.extras[n].detach() for n in GAUSSIAN)

    @torch.no_grad()
    def log_w(z: Tensor) -> Tensor:
        output = model.g(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        log_q = normal_log_prob(z, mu, log_variance)
        return model.p.log_prob(z, model) - model.D.distance(X.double(), output) - log_q

    z, h = node.z.detach(), 1e-5
    slopes = torch.stack(
        [(log_w(z + h * e) - log_w(z - h * e)) / (2 * h) for e in torch.eye(2).double()], -1
    )
    share = log_w(z).softmax(0)
    eps = (z - mu) * torch.exp(-0.5 * log_variance)
    to_mu = -(share.square()[..., None] * slopes).sum(0) / len(X)
    # dz / d log σ² = ½ σ ε
    to_log_variance = -(
        share.square()[..., None] * slopes * 0.5 * torch.exp(0.5 * log_variance) * eps
    ).sum(0) / len(X)
    (whole,) = torch.autograd.grad(
        bounds.DoublyReparameterised(K).encoder(trace), [model.f.bias], retain_graph=True
    )
    wanted = torch.cat([to_mu.sum(0), to_log_variance.sum(0)])
    torch.testing.assert_close(whole, wanted, rtol=1e-5, atol=1e-7)
    # everybody else has the gradient of the bound itself
    objective = WeightedObjective(bound=bounds.DoublyReparameterised(K))
    one, two = (
        torch.autograd.grad(loss, model.g.parameters(), retain_graph=True)
        for loss in (objective(model, trace)["model"], bounds.ImportanceWeighted(K)(trace))
    )
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


def test_bounds_have_a_value_where_nothing_is_learned() -> None:
    with torch.no_grad():
        trace = traced(model_of(), 12)
        for bound, formula in FORMULAS.values():
            losses = WeightedObjective(bound=bound)(model_of(), trace)
            assert float(losses["model"]) == pytest.approx(formula(numbers(trace)), rel=1e-5)


VAE: dict[str, Any] = {"q": DiagonalGaussian(), "p": StandardNormal()}


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({**VAE, "terms": (Term("kl", KL()),)}, ("importance weighted", "KL")),
        ({**VAE, "terms": (Term("tc", TotalCorrelation()),)}, ("importance weighted", "total")),
        ({**VAE, "terms": (Term("l1", L1Sparsity()),)}, ("importance weighted", "L1 sparsity")),
        ({"q": Point(), "p": StandardNormal()}, ("importance weighted", "point")),
        ({"q": DiagonalGaussian()}, ("importance weighted", "without a prior")),
        (
            {**VAE, "q": FullGaussian(), "bound": bounds.DoublyReparameterised()},
            ("doubly reparameterised", "full Gaussian"),
        ),
        (
            {**VAE, "q": FullGaussian(), "bound": None, "terms": (Term("tc", TotalCorrelation()),)},
            ("total correlation", "full Gaussian"),
        ),
        ({"q": TopK(3), "bound": None, "terms": (Term("kl", KL()),)}, ("KL", "top K")),
        ({"q": Hamiltonian(), "bound": None}, ("Hamiltonian", "needs a prior")),
        ({"q": GumbelSoftmax(), "p": UniformCategorical()}, ("importance weighted", "Gumbel")),
    ],
)
def test_parts_without_a_meaning_together_are_refused(parts: Any, names: Any) -> None:
    bound = parts.get("bound", bounds.ImportanceWeighted())
    with pytest.raises(ParameterError) as caught:
        Parts(**{**parts, "bound": bound or bounds.Mean()})
    said = str(caught.value)
    assert all(name in said for name in names)
    assert ". " not in said
    assert "choose" in said or "leave" in said


def test_terms_that_do_not_depend_on_draws_work_with_any_bound() -> None:
    terms = [
        Term("w", DecoderWeightDecay()),
        Term("c", Contractive()),
        Term("g", GradientPenalty()),
    ]
    parts = Parts(**VAE, terms=tuple(terms), bound=bounds.ImportanceWeighted(3))
    model = model_of()
    trace = traced(model, 3)
    losses = parts.objective()(model, trace)
    total = sum(float(trace.terms[name].detach()) for name in ("distance", "w", "c", "g"))
    assert float(losses["model"].detach()) == pytest.approx(total, rel=1e-5)


def test_several_latents_are_too_many_for_the_doubly_reparameterised_gradient() -> None:
    trace = traced(model_of(), 2)
    trace.nodes.append(Node(z=trace.z, log_q=trace.nodes[0].log_q, log_p=trace.nodes[0].log_p))
    with pytest.raises(ParameterError, match="DoublyReparameterised needs one"):
        bounds.DoublyReparameterised(2).encoder(trace)


DIGITS = load_digits().images[:200]
NAMED = [
    (IWAE(n_importance=4), "doubly", 4),
    (IWAE(n_importance=4, gradient="plain"), "importance", 4),
    (MIWAE(n_bounds=4, n_importance=3), "miwae", 12),
    (PIWAE(n_bounds=4, n_importance=3), "piwae", 12),
    (CIWAE(n_importance=6, beta=0.3), "ciwae", 6),
]


@pytest.mark.parametrize(("estimator", "formula", "draws"), NAMED)
def test_the_loss_of_a_named_model_is_its_formula(estimator: Any, formula: str, draws: int) -> None:
    estimator.set_params(latent_dim=3, max_epochs=1, random_state=0, hidden_layer_sizes=(8,))
    estimator.fit(DIGITS)
    x = estimator.scaling_.apply(torch.from_numpy(DIGITS[:30, None])).float()
    trace = estimator.model_(x, Clock(n_rows=180), torch.Generator().manual_seed(0))
    losses = estimator.objective_(estimator.model_, trace)
    scale = float(estimator.model_.D.log_scale.detach().exp())
    z, output = trace.z.detach().double().numpy(), trace.output.detach().double().numpy()
    assert z.shape == (draws, 30, 3)
    node = trace.nodes[0]
    mu, log_variance = (node.extras[n].detach().double().numpy() for n in GAUSSIAN)
    half = 0.5 * np.log(2 * np.pi)
    log_q = (-0.5 * (z - mu) ** 2 / np.exp(log_variance) - 0.5 * log_variance - half).sum(-1)
    log_p = (-0.5 * z**2 - half).sum(-1)
    log_x = -0.5 * ((x.double().numpy() - output) / scale) ** 2 - np.log(scale) - half
    log_w = log_x.reshape(draws, 30, -1).sum(-1) + log_p - log_q
    wanted = FORMULAS[formula][1](log_w)
    assert float(losses["model"].detach()) == pytest.approx(wanted, rel=1e-4)
    assert set(losses) == ({"model", "encoder"} if formula in ("doubly", "piwae") else {"model"})
