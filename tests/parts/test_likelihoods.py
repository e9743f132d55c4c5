"""Every D is what its name says: a probability that sums to one, or a measure known elsewhere."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from sklearn.datasets import load_digits
from torch import Tensor

import narrows
from helpers.likelihoods_made import made
from helpers.small_data import plane
from narrows import Autoencoder, InputError, VariationalAutoencoder
from narrows.estimators.fit_setup import find_range
from narrows.parts.likelihoods.continuous import LIKELIHOODS, MSE, Likelihood
from narrows.training.statistics import statistics

Array = NDArray[Any]
DIGITS = load_digits().images


def answer(D: Likelihood, shape: tuple[int, ...], *lead: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*lead, *D.output_shape(shape), generator=rng)


def chances(D: Likelihood, x: Tensor, output: Tensor) -> Array:
    """P(x | z) of each row of x, for one z."""
    with torch.no_grad():
        many = output.expand(1, len(x), *output.shape[2:])
        found: Array = D.log_prob(x, many)[0].double().exp().numpy()
    return found


GRID = np.arange(-3, 5)[:, None]


@pytest.mark.parametrize("log_scale", [-5.0, -1.0, 0.5, 4.0])
def test_the_cells_of_the_logistic_sum_to_one(log_scale: float) -> None:
    D, scaled = made("logistic", np.array([[-3.0], [4.0], [0.0]]))
    D.log_scale.data.fill_(log_scale)
    assert chances(D, scaled(GRID), torch.full((1, 1, 1), 0.4)).sum() == pytest.approx(1, abs=1e-5)


def test_the_cells_of_the_logistic_are_those_of_its_distribution() -> None:
    D, scaled = made("logistic", np.array([[-3.0], [4.0], [0.0]]))
    D.log_scale.data.fill_(-0.7)
    scale = np.array([-3.0, 4.0, 0.0]).std()
    logistic = stats.logistic(0.4 * scale + 1 / 3, np.exp(-0.7) * scale)
    upper, lower = logistic.cdf(GRID + 0.5), logistic.cdf(GRID - 0.5)
    upper[-1], lower[0] = 1.0, 0.0
    found = chances(D, scaled(GRID), torch.full((1, 1, 1), 0.4))
    np.testing.assert_allclose(found, (upper - lower)[:, 0], rtol=1e-4)


def test_a_grid_of_one_value_is_certain() -> None:
    D, scaled = made("logistic", np.array([[5.0], [5.0]]))
    assert chances(D, scaled([[5.0]]), torch.full((1, 1, 1), 9.0)) == pytest.approx(1.0)


def test_bytes_have_the_whole_grid() -> None:
    kinds = LIKELIHOODS["logistic"].infer_support(
        find_range([statistics([torch.tensor([[7], [9]], dtype=torch.uint8)])])
    )
    assert kinds == (0, 255)


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2), (2, 1)])
def test_the_classes_sum_to_one(shape: tuple[int, ...]) -> None:
    rows = np.array(list(product(range(3), repeat=2)), dtype=float).reshape(-1, *shape)
    D, scaled = made("categorical", rows)
    output = answer(D, shape, 1, 1)
    found = chances(D, scaled(rows), output)
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    best = D.mean(output[0])
    assert best.shape == (1, *shape)
    np.testing.assert_array_equal(best[0].numpy(), rows[found.argmax()])
    seen = D.to_model(scaled(rows))
    assert seen.shape[1:] == D.input_shape(shape)
    assert (seen.flatten(1).sum(1) == 2).all()


def test_the_classes_are_those_of_scipy() -> None:
    D, _ = made("categorical", np.arange(4.0)[:, None])
    output = answer(D, (1,), 1, 1)
    expected = np.exp(output[0, 0].numpy()) / np.exp(output[0, 0].numpy()).sum()
    found = chances(D, torch.arange(4.0)[:, None], output)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


COUNTS = np.array([[0.0, 2.0], [7.0, 900.0], [3.0, 40.0]])


def test_counts_are_poisson() -> None:
    D, _ = made("poisson", COUNTS)
    output = answer(D, (2,), 1, 1)
    rate = COUNTS.mean(0) * np.exp(output[0, 0].numpy())
    np.testing.assert_allclose(D.mean(output)[0, 0], rate, rtol=1e-5)
    with torch.no_grad():
        nats = D.elementwise(torch.from_numpy(COUNTS).float(), output.expand(1, 3, 2))
    np.testing.assert_allclose(-nats[0], stats.poisson(rate).logpmf(COUNTS), rtol=1e-4)


@pytest.mark.parametrize("dispersion", [0.3, 5.0, 2e4])
def test_scattered_counts_are_negative_binomial(dispersion: float) -> None:
    D, _ = made("negative_binomial", COUNTS)
    D.log_dispersion.data.fill_(np.log(dispersion))
    output = answer(D, (2,), 1, 1)
    mean = COUNTS.mean(0) * np.exp(output[0, 0].numpy())
    exact = stats.nbinom(dispersion, dispersion / (dispersion + mean))
    with torch.no_grad():
        nats = D.elementwise(torch.from_numpy(COUNTS).float(), output.expand(1, 3, 2))
    np.testing.assert_allclose(-nats[0], exact.logpmf(COUNTS), rtol=1e-4, atol=1e-3)


def table(n: int = 400, seed: int = 0) -> Array:
    """Zeros and ones, three classes, a number in units of its own: all follow one hidden number."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-1, 1, n)
    noisy = t + 0.1 * rng.normal(size=n)
    return np.column_stack([noisy > 0, np.digitize(noisy, [-0.4, 0.4]), 50 + 20 * noisy])


def test_mixed_columns_are_a_density_times_probabilities() -> None:
    D, scaled = made("mixed", table())
    D.log_scale.data.fill_(-0.5)
    output = answer(D, (3,), 1, 1)
    assert output.shape == (1, 1, 6)

    def total(x: float) -> float:
        rows = [[bit, kind, x] for bit in (0, 1) for kind in (0, 1, 2)]
        return float(chances(D, scaled(rows), output).sum())

    area, _ = quad(total, -100, 200, points=[40, 60])
    assert area / table()[:, 2].std() == pytest.approx(1.0, abs=1e-4)


def test_mixed_columns_come_back_as_what_they_are() -> None:
    rows = table()
    D, scaled = made("mixed", rows)
    x = scaled(rows)
    seen = D.to_model(x)
    np.testing.assert_allclose(seen[:, 0], x[:, 2])  # numbers first
    np.testing.assert_allclose(seen[:, 1:3], np.eye(2)[rows[:, 0].astype(int)])
    np.testing.assert_allclose(seen[:, 3:], np.eye(3)[rows[:, 1].astype(int)])
    certain = torch.cat([x[:, [2]], 20 * seen[:, 1:]], -1)
    torch.testing.assert_close(D.mean(certain), x)
    with torch.no_grad():
        each = D.elementwise(x, certain[None])[0]
    assert float(each[:, :2].max()) < 1e-3  # sure of what is true
    assert float(each[:, 2].mean()) == pytest.approx(0.5 * np.log(2 * np.pi))


def test_classes_and_numbers_of_mixed_rows_do_not_touch_each_other() -> None:
    """A gap is no class, or the mean of a number; what is given stays as it is."""
    D, _ = made("mixed", table())
    mean, log_scale = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([1.0, 2.0, 3.0])
    filled = D.filling(mean)
    np.testing.assert_allclose(filled * D.scale + D.shift, [-1, -1, 0.5 * D.scale[2] + D.shift[2]])
    assert not D.to_model(filled[None])[:, 1:].any()
    assert D.log_volume(log_scale).tolist() == [0.0, 0.0, 3.0]
    assert mean.tolist() == pytest.approx([0.3, 0.4, 0.5]) and log_scale.tolist() == [1, 2, 3]


CASES = {
    "tables": DIGITS[:30].reshape(30, 64)[:, 20:28],
    "images": DIGITS[:30],
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_a_mask_hides_counts_nowhere(name: str) -> None:
    rows = np.where(DIGITS > 8, 1.0, 0.0) if name == "bernoulli" else DIGITS
    rows = rows[:5].reshape(5, 64)[:, 20:28] if name == "mixed" else rows[:5, None]
    D, scaled = made(name, rows, "shared")
    x, output = scaled(rows), answer(D, rows.shape[1:], 3, 5)
    mask = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    other = scaled(np.roll(rows, 1, axis=0))
    with torch.no_grad():
        kept = D.distance(x, output, mask)
        torch.testing.assert_close(D.distance(torch.where(mask > 0, x, other), output, mask), kept)
        assert (D.distance(x, output, torch.zeros_like(x)).abs() < 1e-4).all()
        whole = D.distance(x, output)
        assert ((whole - kept).abs() > 1e-3).any()  # what is left out was part of it
        torch.testing.assert_close(D.distance(x, output, torch.ones_like(x)), whole)
        if name != "ms_ssim":  # whose windows see several elements together
            rest = D.distance(x, output, 1 - mask)
            torch.testing.assert_close(kept + rest, whole, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "noise", "spread"),
    [("gaussian", "normal", 1.0), ("laplace", "laplace", 1.0), ("logistic", "logistic", 3.0)],
)
def test_a_learned_scale_recovers_a_known_noise(name: str, noise: str, spread: float) -> None:
    rng = np.random.default_rng(0)
    truth = 20 * rng.normal(size=(2000, 4))
    X = truth + getattr(rng, noise)(0, spread, size=truth.shape)
    X = np.rint(X) if name == "logistic" else X
    D, scaled = made(name, X)
    x, output = scaled(X), scaled(truth)[None]
    optimizer = torch.optim.Adam(D.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        D.distance(x, output).mean().backward()
        optimizer.step()
    found = D.log_scale.detach().exp() * torch.from_numpy(X.std(0))
    np.testing.assert_allclose(found, spread, rtol=0.06)


@pytest.mark.parametrize("name", ["laplace", "logistic"])
def test_a_fit_begins_with_the_scale_of_what_pca_leaves(name: str) -> None:
    X = np.rint(10 * plane(noise=0.3))
    vae = VariationalAutoencoder(
        distance=name, latent_dim=2, scaling="none", max_epochs=0, random_state=0
    ).fit(X)
    scale = vae.model_.D.log_scale.detach().exp().numpy().ravel()
    unit = {"laplace": np.sqrt(0.5), "logistic": np.sqrt(3) / np.pi}[name]
    np.testing.assert_allclose(scale, 3 * unit, rtol=0.1)


SMALL = {"latent_dim": 1, "hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0}


@pytest.mark.parametrize("name", ["logistic", "categorical", "poisson", "negative_binomial"])
def test_the_likelihood_of_all_there_is_sums_to_one(name: str) -> None:
    """No change of units belongs to a probability: a Jacobian subtracted would show at once."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(300, 1))
    X = np.clip(np.rint(1.5 + t + 0.6 * rng.normal(size=(300, 2))), 0, 3)
    vae = VariationalAutoencoder(distance=name, **SMALL).fit(X)
    top = 4 if name in ("logistic", "categorical") else 30
    every = np.array(list(product(range(top), repeat=2)), dtype=float)
    found = np.exp(vae.log_likelihood(every, n_samples=300, random_state=0))
    assert found.sum() == pytest.approx(1.0, abs=0.02)


def test_the_likelihood_of_mixed_rows_is_a_density_over_their_numbers_alone() -> None:
    vae = VariationalAutoencoder(distance="mixed", **SMALL).fit(table())
    line = np.linspace(-50, 150, 101)
    every = np.array([[b, k, x] for b in (0, 1) for k in (0, 1, 2) for x in line])
    found = np.exp(vae.log_likelihood(every, n_samples=200, random_state=0))
    assert found.sum() * (line[1] - line[0]) == pytest.approx(1.0, abs=0.02)


def test_a_table_of_numbers_alone_is_mixed_too() -> None:
    X = plane(100)
    vae = VariationalAutoencoder(distance="mixed", missing="mask", **SMALL).fit(X)
    assert vae.model_.D.classes == ()
    ten = VariationalAutoencoder(distance="mixed", missing="mask", **SMALL).fit(10 * X)
    one, other = (m.log_likelihood(x, random_state=0) for m, x in ((vae, X), (ten, 10 * X)))
    np.testing.assert_allclose(other - one, -6 * np.log(10.0), atol=1e-2)


def test_mixed_columns_help_each_other() -> None:
    """The rows are likelier than if the columns had nothing to do with each other."""
    vae = VariationalAutoencoder(distance="mixed", latent_dim=1, max_epochs=30, random_state=0).fit(
        table(800)
    )
    X = table(300, seed=1)
    found = vae.log_likelihood(X, n_samples=100, random_state=0).mean()
    apart = stats.norm(X[:, 2].mean(), X[:, 2].std()).logpdf(X[:, 2]).mean()
    for column in X[:, :2].T:
        share = np.bincount(column.astype(int)) / len(X)
        apart += (share * np.log(share)).sum()
    assert found > apart + 0.8
    back = vae.reconstruct(X)
    assert set(np.unique(back[:, 0])) == {0.0, 1.0}
    assert set(np.unique(back[:, 1])) == {0.0, 1.0, 2.0}
    assert (back[:, :2] == X[:, :2]).mean() > 0.9


def test_classes_are_learned_from_pictures() -> None:
    X = np.floor(DIGITS[:400] / 4.26).astype(np.uint8)
    ae = Autoencoder(distance="categorical", latent_dim=8, max_epochs=30, random_state=0).fit(X)
    usual = np.array([np.bincount(c).argmax() for c in X.reshape(400, -1).T]).reshape(8, 8) == X
    back = ae.reconstruct(X)
    assert back.dtype == np.uint8
    assert (back == X).mean() > usual.mean() + 0.1


@pytest.mark.parametrize(
    ("name", "X", "words"),
    [
        ("poisson", -np.ones((30, 2)), "whole numbers, here from 0"),
        ("negative_binomial", np.full((30, 2), 0.5), "whole numbers, here from 0"),
        ("categorical", np.full((30, 2), 0.5), "whole numbers, here from 0"),
        ("categorical", np.arange(600.0).reshape(300, 2), "whole numbers, here from 0 to 255"),
        ("logistic", np.full((30, 2), 0.5), "whole numbers"),
        ("logistic", np.full((30, 2), 2.0**40), "whole numbers"),
        ("mixed", DIGITS[:30], "for tables"),
        ("ms_ssim", DIGITS[:30, 0], "at least 6 × 6 pixels"),
        ("ms_ssim", DIGITS[:30, :5], "at least 6 × 6 pixels"),
    ],
)
def test_data_that_a_distance_cannot_model_is_refused(name: str, X: Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Autoencoder(distance=name, max_epochs=1).fit(X)


@pytest.mark.parametrize("name", ["logistic", "categorical", "poisson", "mixed"])
def test_rows_that_cannot_be_have_no_likelihood(name: str) -> None:
    X = np.rint(table()[:, :2])
    vae = VariationalAutoencoder(distance=name, **SMALL).fit(X)
    wrong = X[:3].copy()
    wrong[1, 1] = 0.5
    with pytest.raises(InputError, match="whole numbers"):
        vae.log_likelihood(wrong)
    if name != "poisson":
        wrong[1, 1] = 3.0
        with pytest.raises(InputError, match=r"rows like these"):
            vae.log_likelihood(wrong)


@pytest.mark.parametrize("name", ["logistic", "categorical", "negative_binomial", "mixed"])
def test_a_file_keeps_the_support_of_the_data(name: str, tmp_path: Path) -> None:
    X = DIGITS[:60].reshape(60, 64) if name == "mixed" else DIGITS[:60]
    vae = VariationalAutoencoder(distance=name, **SMALL).fit(X)
    again = narrows.load(vae.save(tmp_path / "m.safetensors"))
    assert again.choices_ == vae.choices_
    for n in (1, 7):
        np.testing.assert_array_equal(
            *(m.log_likelihood(X, n_samples=n, random_state=0) for m in (vae, again))
        )


@pytest.mark.parametrize("masked", [False, True])
def test_the_squared_distance_has_its_own_slope(masked: bool) -> None:
    """It is written by hand: once and twice differentiated it is that of ½ Σ m (x − x')²."""
    rng = torch.Generator().manual_seed(0)
    x, output = (torch.randn(s, generator=rng).double() for s in ((3, 2, 4), (2, 3, 2, 4)))
    mask = torch.rand(3, 2, 4, generator=rng).double() if masked else None
    output.requires_grad_()
    distance = MSE().distance(x, output, mask)
    weights = torch.ones_like(x) if mask is None else mask
    torch.testing.assert_close(distance, 0.5 * (weights * (output - x).square()).flatten(2).sum(-1))
    (slope,) = torch.autograd.grad(distance.sum(), output, create_graph=True)
    torch.testing.assert_close(slope, weights * (output - x))
    assert torch.autograd.gradgradcheck(lambda o: MSE().distance(x, o, mask), output)
