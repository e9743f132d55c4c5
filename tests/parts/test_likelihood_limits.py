"""Every likelihood, to the limits that validation admits: scipy's value, a sum of 1, and the same
in other units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import log_expit

from helpers.likelihoods_made import made
from narrows import Autoencoder, InputError, VariationalAutoencoder
from narrows.parts.likelihoods.continuous import LIKELIHOODS, Likelihood

Array = NDArray[Any]
MOST = 2**24  # the largest whole number that is admitted


def both(D: Likelihood, x: torch.Tensor, output: torch.Tensor) -> tuple[Array, Array]:
    """log p of rows of one element for each output: of training, and of ``log_likelihood``."""
    output = output[:, None].expand(-1, len(x), -1)
    with torch.no_grad():
        cost = D.distance(x, output).numpy().astype(float) + D.log_normalizer()
        return -cost, D.log_prob(x.double(), output.double()).numpy()


def check(found: tuple[Array, Array], expected: Array) -> None:
    """In training float32 holds seven digits of a cost."""
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(found[1], expected, rtol=1e-7, atol=1e-5)


OUTPUTS = torch.tensor([-300.0, -3.0, -0.4, 0.0, 1e-3, 2.0, 77.0])
VALUES = torch.tensor([-1e4, -5.0, -0.4, 0.0, 1e-3, 1.9, 3.0, 1e4])[:, None]


def huber(r: Array) -> Array:
    """log density of residuals, normalised by quadrature over its two pieces."""
    log_z = np.log(np.sqrt(2 * np.pi) * (1 - 2 * stats.norm.sf(1)) + 2 * np.exp(-0.5))
    return -np.where(abs(r) <= 1, r**2 / 2, abs(r) - 0.5) - log_z


@pytest.mark.parametrize("log_scale", [-6.0, -2.0, 0.0, 3.0])
@pytest.mark.parametrize("name", ["mse", "mae", "huber", "gaussian", "laplace", "mixed"])
def test_densities_are_those_of_scipy(name: str, log_scale: float) -> None:
    D = LIKELIHOODS[name]()
    if name == "mixed":
        D.build((1,), (0,))
    learned = hasattr(D, "log_scale")
    if learned:
        D.log_scale.data.fill_(log_scale)
    scale = np.exp(log_scale) if learned else 1.0
    r = VALUES[:, 0].double().numpy() - OUTPUTS.double().numpy()[:, None]
    law: dict[str, Callable[[Array], Array]] = {
        "mae": lambda r: -abs(r) - np.log(2),  # scipy's underflows from 745 on
        "laplace": lambda r: -abs(r) / scale - np.log(2 * scale),
        "huber": huber,
    }
    expected = law.get(name, lambda r: stats.norm.logpdf(r, scale=scale))(r)
    check(both(D, VALUES, OUTPUTS[:, None]), expected)
    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)[:, None] * scale
    area = np.exp(both(D, grid, torch.zeros(1, 1))[1]).sum() * 120 / 60_000 * scale
    assert area == pytest.approx(1, abs=1e-6)


def test_zeros_and_ones_are_those_of_scipy() -> None:
    logits = torch.tensor([-1e4, -30.0, -1.0, 0.0, 17.0, 1e4])
    found = both(LIKELIHOODS["bernoulli"](), torch.tensor([[0.0], [1.0]]), logits[:, None])
    exact = logits.double().numpy()
    check(found, np.column_stack([log_expit(-exact), log_expit(exact)]))


@pytest.mark.parametrize(("name", "n"), [
    *(("categorical", n) for n in (1, 2, 20, 21, 256)), ("mixed", 2), ("mixed", 20),
])  # fmt: skip
def test_classes_are_those_of_scipy(name: str, n: int) -> None:
    D, scaled = made(name, np.arange(float(n))[:, None])
    logits = torch.randn(3, n, generator=torch.Generator().manual_seed(0)) * 30
    exact = logits.double().numpy()
    check(
        both(D, scaled(np.arange(n)[:, None]), logits),
        exact - np.logaddexp.reduce(exact, 1, keepdims=True),
    )


RATES = [0.5, 30.0, 1e3, 1e5, 1e6, 1e7, MOST - 20_000.0]


def counts_near(mean: float, deviation: float) -> Array:
    """Counts from far below the mean to far above it, as far as they are admitted."""
    found = mean + np.array([-1e9, -100, -8, -3, -1, -0.01, 0, 0.3, 2, 5, 20, 1e9]) * deviation
    return np.unique(np.clip(np.rint(found), 0, MOST))[:, None]


@pytest.mark.parametrize("mean", RATES)
def test_poisson_is_that_of_scipy(mean: float) -> None:
    D, scaled = made("poisson", np.full((2, 1), np.rint(mean)))
    x = counts_near(mean, mean**0.5)
    outputs = torch.tensor([[-3.0], [-1e-3], [0.0], [0.01], [2.0]])
    rate = max(np.rint(mean), 1e-3) * np.exp(outputs.double().numpy())
    check(both(D, scaled(x), outputs), stats.poisson(rate).logpmf(x[:, 0]))
    np.testing.assert_allclose(D.mean(outputs), rate, rtol=1e-6)
    every = np.arange(max(0, mean - 9 * mean**0.5 - 40), mean + 9 * mean**0.5 + 40).round()
    total = np.exp(both(D, scaled(every[:, None]), torch.zeros(1, 1))[1]).sum()
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("log_r", [-10.0, -1.0, 5.0, 12.0, 15.0])
@pytest.mark.parametrize("mean", RATES)
def test_negative_binomial_is_that_of_scipy(mean: float, log_r: float) -> None:
    D, scaled = made("negative_binomial", np.full((2, 1), np.rint(mean)))
    D.log_dispersion.data.fill_(log_r)
    r, mean = np.exp(min(log_r, 12.0)), max(np.rint(mean), 1e-3)
    deviation = np.sqrt(mean + mean**2 / r)
    x, outputs = counts_near(mean, deviation), torch.tensor([[-3.0], [0.0], [0.01], [2.0]])
    mu = mean * np.exp(outputs.double().numpy())
    check(both(D, scaled(x), outputs), stats.nbinom(r, r / (r + mu)).logpmf(x[:, 0]))
    if deviation < 5e4:  # others have tails too long to be summed
        every = np.arange(max(0, mean - 9 * deviation - 40), min(mean + 12 * deviation + 60, MOST))
        within = stats.nbinom(r, r / (r + mean)).cdf(every[-1].round())
        total = np.exp(both(D, scaled(every.round()[:, None]), torch.zeros(1, 1))[1]).sum()
        assert total == pytest.approx(within, abs=1e-6)


def cells(X: Array, low: float, high: float, mean: Array, scale: float) -> Array:
    """log of the logistic mass of each cell, the tails in the first and the last."""
    a, b = (X + 0.5 - mean) / scale, (X - 0.5 - mean) / scale
    inside = log_expit(a) + log_expit(-b) + np.log(-np.expm1(-1 / scale))
    ends = np.where(low >= X, log_expit(a), np.where(high <= X, log_expit(-b), inside))
    return np.where((low >= X) & (high <= X), 0.0, ends)


STARTS = [0, -7, 10_000, 2**23 - 100, 2**23 + 1, 10_000_000, MOST - 255, -MOST]


@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 0.0, 2.0])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4"])
def test_logistic_cells_are_those_of_scipy_wherever_they_begin(
    start: int, log_scale: float, dtype: str
) -> None:
    X = (start + np.arange(256.0))[:, None].astype(dtype)
    D, scaled = made("logistic", X)
    D.log_scale.data.fill_(log_scale)
    mean, spread = X.astype(float).mean(), X.astype(float).std()
    outputs = torch.tensor([[-40.0], [-1.72], [-0.3], [1e-4], [1.7], [25.0]])
    centre = mean + spread * outputs.double().numpy()
    found = both(D, scaled(X), outputs)
    check(
        found, cells(X[:, 0].astype(float), start, start + 255, centre, np.exp(log_scale) * spread)
    )
    np.testing.assert_allclose(np.exp(found[1]).sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(np.exp(found[0]).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "ends", [(0, MOST), (-MOST // 2, MOST // 2), (-(2**22), 2**22), (-MOST, 0)]
)
def test_logistic_cells_of_the_widest_ranges_have_their_ends(ends: tuple[int, int]) -> None:
    """All of them cannot be summed, but the tails are in the first and last cell alone."""
    low, high = ends
    X = np.linspace(low, high, 1001).round()[:, None]
    D, scaled = made("logistic", X)
    D.log_scale.data.fill_(-9.0)
    few = np.array([low, low + 1, low + 2, high - 2, high - 1, high], float)[:, None]
    outputs = torch.tensor([[-1.735], [1.7], [0.0]])
    centre = X.mean() + X.std() * outputs.double().numpy()
    check(both(D, scaled(few), outputs), cells(few[:, 0], low, high, centre, np.exp(-9) * X.std()))


def test_whole_numbers_that_float32_cannot_tell_apart_are_refused() -> None:
    X = np.full((400, 2), -MOST, dtype=float)
    X[:3] = [[MOST, 3], [MOST - 1, 3], [5, 3]]
    with pytest.raises(InputError, match=r"divide X by 10 and round it"):
        Autoencoder(distance="logistic", max_epochs=0).fit(X)
    Autoencoder(distance="logistic", max_epochs=0, latent_dim=1).fit(np.rint(X / 10))


WHOLE = np.rint(np.random.default_rng(0).normal(100, 20, (60, 3)) * np.array([1, 2, 0.3]))
OTHER_UNITS = {
    **dict.fromkeys(("mse", "mae", "huber", "gaussian", "laplace", "mixed"), (1e5, 1e9)),
    "logistic": (1.0, 2.0**23),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_other_units_shift_a_density_by_their_jacobian_and_leave_a_probability(name: str) -> None:
    factor, shift = OTHER_UNITS[name]
    found = []
    for X in (WHOLE, WHOLE * factor + shift):
        vae = VariationalAutoencoder(distance=name, latent_dim=1, max_epochs=0, random_state=0)
        found.append(vae.fit(X).log_likelihood(X, n_samples=3, random_state=0))
    np.testing.assert_allclose(found[0] - found[1], 3 * np.log(factor), atol=1e-3)


def test_a_fit_on_float32_takes_float64_for_the_same_rows() -> None:
    X = WHOLE + 2.0**23
    vae = VariationalAutoencoder(distance="logistic", latent_dim=1, max_epochs=1, random_state=0)
    vae.fit(X.astype(np.float32))
    for dtype in (np.float64, np.int64, np.int32):
        np.testing.assert_allclose(
            vae.log_likelihood(X.astype(dtype), random_state=0),
            vae.log_likelihood(X.astype(np.float32), random_state=0),
            atol=1e-3,
        )
