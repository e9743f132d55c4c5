"""Sets of codes without a book: each is exactly what it says, and draws are as likely as said."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from test_vector_quantizer import bare, built, passed, rng
from torch import nn

from helpers.toy_densities import agrees, ratios, toy_model
from narrows.exceptions import ParameterError
from narrows.parts.latents.scalar_quantizer import FiniteScalar, GumbelSoftmax, UniformCategorical
from narrows.parts.model import Model

# ---------------------------------------------------------------------- rounded numbers


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_the_values_of_a_number_are_n_whole_steps(n: int) -> None:
    q = built(FiniteScalar(n), 1)
    h = torch.linspace(-30, 30, 6001)[:, None]
    z = q.mode(h)
    assert z.unique().tolist() == [i - (n - 1) / 2 for i in range(n)]
    assert (z.diff(dim=0) >= 0).all()
    assert float((q.mode(0.4 * z) - 0.4 * z).abs().max()) <= 0.5  # near 0: the nearest


def test_the_code_book_is_exactly_the_product_of_its_levels() -> None:
    q = built(FiniteScalar((2, 3, 5)), 3)
    z = q.mode(5 * torch.randn(3000, 3, generator=rng()))
    halves = [[-0.5, 0.5], [-1.0, 0.0, 1.0], [-2.0, -1.0, 0.0, 1.0, 2.0]]
    assert {tuple(row) for row in z.tolist()} == set(product(*halves))
    indices = q.indices(z)
    assert indices.amax(0).tolist() == [1, 2, 4] and q.n_values == 5 and q.positions(3) == 3
    torch.testing.assert_close(q.vectors(indices), z, rtol=0, atol=0)


def test_rounding_passes_the_gradient_of_its_bound() -> None:
    q, h = built(FiniteScalar(4), 3), torch.randn(5, 3, generator=rng()).requires_grad_()
    q(h, 1, None).z.sum().backward()
    torch.testing.assert_close(h.grad, 1 - torch.tanh(h.detach() / 1.5).square())


# ---------------------------------------------------------------------- categories


def gumbel_toy() -> Model:
    g = nn.Linear(6, 2)
    with torch.no_grad():
        g.weight.copy_(torch.randn(2, 6, generator=rng(5)))
        g.bias.zero_()
    return toy_model(GumbelSoftmax(3), UniformCategorical(), g, features=2, latent_dim=6)


def test_importance_weights_average_to_the_sum_over_all_codes() -> None:
    model, x = gumbel_toy(), 0.7 * torch.randn(6, 2, generator=rng())
    every = torch.tensor(list(product(range(3), repeat=2)))
    z = model.q.vectors(every)[:, None].expand(-1, 6, -1)
    with torch.no_grad():
        joint = model.p.log_prob(z, model) + model.D.log_prob(x, model._decoder(z))
        agrees(ratios(model, x, joint.logsumexp(0)))
        # exactly, too: Σ_z q(z | x) = 1 over what is drawn
        node = model.q(model.f(x), 4000, rng(2))
        for row in range(6):
            z, at = node.z[:, row].unique(dim=0, return_inverse=True)
            chances = torch.stack([node.log_q[at == i, row][0].exp() for i in range(len(z))])
            assert len(z) == 9
            assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_kl_is_the_mean_of_its_samples_and_draws_have_the_right_frequencies() -> None:
    q = built(GumbelSoftmax(4), 8).eval()
    h = 1.5 * torch.randn(2, 8, generator=rng())
    node = q(h, 100_000, rng(1))
    sampled = node.log_q + 2 * np.log(4.0)
    error = sampled.std(0) / 100_000**0.5
    assert ((node.kl - sampled.mean(0)).abs() < 4 * error).all()
    chances = h.view(2, 2, 4).softmax(-1).flatten(1)
    assert ((node.z.mean(0) - chances).abs() < 4 * (chances / 100_000).sqrt() + 1e-6).all()
    torch.testing.assert_close(node.extras["kl_each"].sum(-1), node.kl)
    uniform = q(torch.zeros(1, 8), 1, rng())
    assert float(uniform.kl) == pytest.approx(0.0, abs=1e-6)


def test_draws_are_relaxed_in_training_only_and_the_temperature_falls() -> None:
    model = bare(GumbelSoftmax(4, temperature=0.25), 8)
    h = torch.randn(200, 8, generator=rng())
    hard = passed(model.eval(), h).z
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    sharpest = []
    for progress in (0.0, 0.5, 1.0):
        trace = passed(model.train(), h, progress)
        model.q.after_step(trace)
        assert float(model.q.tau) == pytest.approx(0.25**progress)
        z = passed(model, h).z.view(200, 2, 4)
        torch.testing.assert_close(z.sum(-1), torch.ones(200, 2))
        torch.testing.assert_close(z.argmax(-1), hard.view(200, 2, 4).argmax(-1))  # same noise
        sharpest.append(float(z.amax(-1).mean()))
    assert sharpest == sorted(sharpest) and sharpest[0] < 0.7 < 0.85 < sharpest[-1]
    torch.testing.assert_close(passed(model.eval(), h).z, hard)  # the clock has no say
    schedule = GumbelSoftmax(4, temperature=lambda progress: 2 - progress)
    assert float(built(schedule, 8).tau) == 2.0


def test_the_uniform_prior_draws_every_code_alike() -> None:
    model = gumbel_toy()
    z = model.sample(9000, rng())
    codes, counts = z.unique(dim=0, return_counts=True)
    assert len(codes) == 9 and counts.min() > 850
    torch.testing.assert_close(
        model.p.log_prob(z, model), torch.full((9000,), -np.log(9.0)).float()
    )
    with pytest.raises(ParameterError, match="temperature"):
        model.sample(1, rng(), temperature=0.5)
