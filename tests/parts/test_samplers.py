"""What is fitted to the codes of a trained model, and drawn from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from torch import Tensor

import narrows
from narrows import ParameterError, RegularizedAE, VariationalAutoencoder
from narrows._types import Sizes
from narrows.estimators import generation as generating
from narrows.estimators.generation import sampler_name
from narrows.parts.latents.gaussian import Point
from narrows.parts.latents.scalar_quantizer import FiniteScalar, GumbelSoftmax
from narrows.parts.latents.vector_quantizer import ResidualQuantizer, VectorQuantizer
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import (
    SAMPLERS,
    AutoregressiveSampler,
    IAFSampler,
    MAFSampler,
    Sampler,
    TwoStageSampler,
    codes_of,
    draw,
    make_sampler,
    validate_sampler,
)
from narrows.training.batches import Rows, Scaling
from narrows.training.loop import Budget, TrainConfig, TrainState, train
from narrows.training.process_group import Group

X = load_digits().images[:150]
SMALL: dict[str, Any] = {
    "latent_dim": 2,
    "hidden_layer_sizes": (16,),
    "max_epochs": 1,
    "random_state": 0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(sampler: Sampler, codes: Tensor, epochs: int, rate: float = 1e-2) -> Sampler:
    """By the loop, as an estimator does it."""
    with torch.no_grad():
        left = sampler.init_from_codes(codes, seeded())
    if sampler.trained:
        rows, recipe = Rows(left, Scaling.none()), TrainConfig(rate, 0.0, 128, warmup_steps=10)
        state = TrainState(rng=seeded(1), order=seeded(2))
        for _ in train(sampler, WeightedObjective(), rows, recipe, Budget(epochs), state, Group()):
            pass
    return sampler.eval()


# ------------------------------------------------------------------ what is fitted to codes


def bent(n: int = 3000) -> Tensor:
    """Codes on a parabola, with noise, in units of their own."""
    t, noise = torch.randn(2, n, generator=seeded(4))
    return torch.stack([5 + 2 * t, 0.01 * (t.square() + 0.3 * noise)], 1)


@pytest.mark.parametrize("name", ["normal", "mixture", "maf", "iaf", "two_stage"])
def test_draws_have_the_moments_of_the_codes(name: str) -> None:
    codes = bent()
    epochs = {"iaf": 12, "two_stage": 16}.get(name, 4)
    sampler = fit(make_sampler(name, 2, Point(), seeded(7)), codes, epochs)
    assert sampler_name(sampler) == name
    z = sampler.sample(20_000, seeded(3))
    spread = codes.std(0)
    assert ((z.mean(0) - codes.mean(0)).abs() / spread).max() < 0.12
    # a VAE of little training does not reach the tails
    assert ((z.std(0) / spread).log().abs()).max() < (0.3 if name == "two_stage" else 0.15)
    assert float(torch.corrcoef(z.T)[0, 1] - torch.corrcoef(codes.T)[0, 1]) == pytest.approx(
        0, abs=0.12
    )
    cold = sampler.sample(2000, seeded(3), temperature=0.1)
    if name != "mixture":  # whose components stay where they are
        assert (cold.std(0) < 0.5 * spread).all()
    bending = torch.corrcoef(torch.stack([(z[:, 0] - 5).square(), z[:, 1]]))[0, 1]
    assert bending < 0.1 if name == "normal" else bending > (0.4 if name == "two_stage" else 0.9)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("cls", [MAFSampler, IAFSampler])
def test_a_flows_volume_is_autograds_and_its_density_is_that_of_its_draws(
    cls: type[MAFSampler], k: int
) -> None:
    flow: MAFSampler = fit(make_sampler(sampler_name(cls(k)), k, None, seeded(6)), bent()[:, :k], 2)  # type: ignore[assignment]
    for p in flow.parameters():  # far from the identity
        p.data.add_(0.05 * torch.randn(p.shape, generator=seeded(8)))
    u = torch.randn(6, k, generator=seeded(2))
    for way, back in ((flow.normalise, flow.generate), (flow.generate, flow.normalise)):
        z, volume = way(u)
        torch.testing.assert_close(back(z)[0], u, rtol=1e-3, atol=1e-4)
        for i in range(len(u)):
            J = torch.autograd.functional.jacobian(lambda v, way=way: way(v[None])[0][0], u[i])
            torch.testing.assert_close(torch.linalg.slogdet(J)[1], volume[i], rtol=1e-3, atol=1e-3)
    steps = torch.linspace(-12, 12, 20_000 if k == 1 else 400)
    grid = torch.cartesian_prod(*[steps] * k).view(-1, k)
    with torch.no_grad():
        density = (-flow.cost(grid, seeded())).exp()
        inside = float((flow.draw(50_000, seeded(4), 1.0).abs() < 12).all(1).float().mean())
    assert inside > 0.95
    assert float(density.sum() * (steps[1] - steps[0]) ** k) == pytest.approx(inside, abs=4e-3)


def test_the_fitted_mixture_is_scikit_learns() -> None:
    codes = bent(800)
    sampler: Any = fit(SAMPLERS["mixture"](2), codes, 0)
    seed = int(torch.randint(2**31 - 1, (), generator=seeded()))
    scaled = ((codes - sampler.mean) / sampler.scale).double().numpy()
    its = GaussianMixture(10, reg_covar=1e-5, max_iter=200, random_state=seed).fit(scaled)
    expected = its.score_samples(scaled) - float(sampler.scale.log().sum())
    log_prob = -sampler.cost(torch.from_numpy(scaled).float(), seeded()) - sampler.scale.log().sum()
    np.testing.assert_allclose(log_prob, expected, atol=1e-3)
    few: Any = fit(SAMPLERS["mixture"](2), codes[:60], 0)
    assert 0 < int((few.weights > 0).sum()) < 10
    assert torch.isfinite(few.cost((codes - few.mean) / few.scale, seeded())).all()


def test_two_stages_recover_a_known_noise() -> None:
    """Defect 14: the scale of what drawing adds must have been learned."""
    t, noise = torch.randn(4000, 1, generator=seeded(1)), torch.randn(4000, 2, generator=seeded(2))
    codes = torch.cat([t, -t], 1) + 0.3 * noise
    sampler = TwoStageSampler(2, inner=1)
    sampler.build(seeded(3))
    fit(sampler, codes, 10)
    z = sampler.sample(20_000, seeded(4))
    across = (z[:, 0] + z[:, 1]) / 2**0.5
    assert float(across.std()) == pytest.approx(0.3, rel=0.1)
    gamma = float(sampler.vae.D.log_scale.detach().exp() * sampler.scale.mean())  # type: ignore[union-attr, operator]
    assert gamma == pytest.approx(0.3, rel=0.1)


QUANTISERS = {
    "average": lambda: VectorQuantizer(5, 2),
    "gradient": lambda: VectorQuantizer(5, 2, update="gradient"),
    "residual": lambda: ResidualQuantizer(n_levels=2, n_embeddings=3, code_dim=2),
    "finite": lambda: FiniteScalar((3, 4, 2, 5)),
    "gumbel": lambda: GumbelSoftmax(2),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", QUANTISERS)
def test_every_sampler_of_every_quantiser(name: str, kind: str, monkeypatch: Any) -> None:
    """Defect 10: n is no multiple of what is drawn together."""
    monkeypatch.setattr(AutoregressiveSampler, "batch_size", 4)
    q: Any = QUANTISERS[kind]()
    q.build(Sizes((6,), 4), seeded())
    sampler = make_sampler(name, 4, q, seeded(1))
    with torch.no_grad():
        h = torch.randn(40, q.n_numbers(4), generator=seeded(2))
        codes = q.mode(h)
        codes = q.indices(codes).float() if sampler.discrete else codes
        fit(sampler, codes, 1)
        z = draw(sampler, q, 7, seeded(3), 1.0)
        again = draw(sampler, q, 7, seeded(3), 0.0)
    assert z.shape == again.shape == (7, 4)
    torch.testing.assert_close(q.vectors(q.indices(z)), z)
    assert len(again.unique(dim=0)) <= (
        sampler.max_components if hasattr(sampler, "weights") else 1
    )


def test_whole_numbers_are_drawn_as_often_as_they_are_seen() -> None:
    """The second number is the first one's neighbour, three times of four."""
    first = torch.randint(4, (4000,), generator=seeded())
    moved = torch.rand(4000, generator=seeded(1)) < 0.25
    codes = torch.stack([first, torch.where(moved, first, (first + 1) % 4)], 1).float()
    sampler = AutoregressiveSampler(2, 4)
    sampler.build(seeded(2))
    fit(sampler, codes, 6)
    j = sampler.sample(4001, seeded(3))
    counts = torch.bincount(4 * j[:, 0] + j[:, 1], minlength=16).view(4, 4) / len(j)
    expected = torch.eye(4) / 16 + torch.eye(4).roll(1, 1) * 3 / 16
    assert float((counts - expected).abs().max()) < 0.03
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4)).float()
    with torch.no_grad():
        assert float((-sampler.cost(every, seeded())).exp().sum()) == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------ within an estimator


@pytest.fixture(scope="module", params=["mixture", "maf", "two_stage"])
def sampled(request: Any) -> Any:
    return RegularizedAE(sampler=request.param, **SMALL).fit(X)


def test_a_fitted_sampler_is_kept_in_the_file(sampled: Any, tmp_path: Path) -> None:
    again = narrows.load(sampled.save(tmp_path / "model.safetensors"))
    drawn = sampled.sample(7, random_state=3)
    assert drawn.shape == (7, 8, 8)
    np.testing.assert_array_equal(again.sample(7, random_state=3), drawn)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(sampled)).sample(7, random_state=3), drawn
    )
    assert "fitted" in sampled.info()["parts"]["sampler"] or "trained" in str(sampled.info())
    assert again.info()["parts"]["sampler"] == sampled.info()["parts"]["sampler"]


def test_the_same_seed_gives_the_same_sampler_and_no_global_draw(sampled: Any) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = RegularizedAE(sampler=sampled.sampler, **SMALL).fit(X)
    np.testing.assert_array_equal(
        again.sample(3, random_state=1), sampled.sample(3, random_state=1)
    )
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_codes_are_draws_where_the_latent_has_a_density_and_else_noise_free() -> None:
    vae, plain = VariationalAutoencoder(**SMALL).fit(X), RegularizedAE(**SMALL).fit(X)
    with torch.no_grad():
        x = vae.scaling_.apply(torch.from_numpy(X[:, None]))
        mu, log_variance = vae.model_.q.split(vae.model_.f(x))
        apart = (codes_of(vae.model_, x, seeded()) - mu) * torch.exp(-0.5 * log_variance)
        codes = codes_of(plain.model_, x, seeded())
    assert float(apart.std()) == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(codes, plain.transform(X), atol=1e-5)


def test_without_a_sampler_there_is_no_sample() -> None:
    plain = RegularizedAE(sampler="none", **SMALL).fit(X)
    assert not hasattr(plain, "sample")
    assert not hasattr(plain, "fit_sampler")
    assert plain.sampler_ is None
    with pytest.raises(ParameterError, match="sampler='prior'"):
        RegularizedAE(sampler="prior", **SMALL).fit(X)


def test_after_partial_fit_a_sampler_is_fitted_when_it_is_used() -> None:
    model = RegularizedAE(**SMALL)
    model.partial_fit(X).partial_fit(X)
    with pytest.raises(ParameterError, match="fit_sampler"):
        model.sample(2)
    assert model.fit_sampler(X).sample(2).shape == (2, 8, 8)
    model.set_params(sampler="normal")
    with pytest.raises(ParameterError, match="another, 'mixture'"):
        model.sample(2)
    assert sampler_name(model.fit_sampler(X).sampler_) == "normal"
    model.partial_fit(X)
    assert model.sampler_ is None


def test_a_checkpoint_holds_no_sampler_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    model = RegularizedAE(checkpoint=path, checkpoint_every=1, **SMALL)
    whole = model.fit(X).sample(2, random_state=0)
    kept = narrows.load(path)
    with pytest.raises(ParameterError, match="fit_sampler"):
        kept.sample(2)
    model.set_params(resume=True)
    np.testing.assert_array_equal(model.fit(X).sample(2, random_state=0), whole)


def test_a_sampler_of_another_kind_of_code_is_refused() -> None:
    class OnSphere(Point):
        space = "sphere"

    for q, name, why in (
        (Point(), "autoregressive", "codes lie in the real numbers"),
        (OnSphere(), "mixture", "codes lie in the unit sphere"),
        (Point(), "prior", "model has none"),
    ):
        with pytest.raises(ParameterError, match=rf"sampler='{name}'.*{why}"):
            validate_sampler(name, q, has_prior=False)


@pytest.mark.parametrize("n_samples", [10, 150])
def test_a_likelihood_takes_exactly_so_many_draws_and_no_graph(
    n_samples: int, monkeypatch: Any
) -> None:
    """Defect 8; with so little room that neither rows nor draws fit at once, too."""
    vae = VariationalAutoencoder(**SMALL).fit(X)
    drawn: list[int] = []
    inner = type(vae.model_).log_weights

    def counted(x: Tensor, rng: Any, K: int) -> Tensor:
        weights = inner(vae.model_, x, rng, K)
        assert not weights.requires_grad
        drawn.append(weights.numel())
        return weights

    monkeypatch.setattr(vae.model_, "log_weights", counted)
    for room in (10_000, 40):
        monkeypatch.setattr(generating, "inference_batch", lambda shape, room=room: room)
        drawn.clear()
        found = vae.log_likelihood(X[:30], n_samples=n_samples, random_state=0)
        assert found.shape == (30,)
        assert sum(drawn) == 30 * n_samples
        assert max(drawn) <= room
