"""Closed forms and equivalences: what the mathematics says must come out."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from helpers.small_data import curve, plane
from narrows import Autoencoder, VariationalAutoencoder
from narrows._types import Clock, Trace
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.likelihoods.continuous import LIKELIHOODS, Gaussian, Likelihood
from narrows.parts.networks.architectures import halve, transposed

LINEAR = {
    "hidden_layer_sizes": (),
    "linear_path": False,
    "early_stopping": False,
    "random_state": 0,
    "validation_fraction": 0.0,
    "weight_decay": 0.0,
}


def test_a_linear_autoencoder_spans_the_plane_of_pca() -> None:
    X = plane()
    ae = Autoencoder(latent_dim=2, scaling="none", max_epochs=150, **LINEAR).fit(X)
    columns = np.diff(ae.inverse_transform(np.array([[0, 0], [1, 0], [0, 1]])), axis=0)
    basis = np.array([columns[0], columns[0] + columns[1]])
    angles = subspace_angles(basis.T, PCA(2).fit(X).components_.T)
    assert np.degrees(angles.max()) < 0.1
    assert ae.score(X) == pytest.approx(PCA(2).fit(X).explained_variance_ratio_.sum(), abs=1e-4)


def test_a_linear_gaussian_vae_reaches_the_likelihood_of_probabilistic_pca() -> None:
    X = plane()
    vae = VariationalAutoencoder(latent_dim=2, scaling="none", max_epochs=150, **LINEAR).fit(X)
    found = vae.log_likelihood(X, n_samples=200, random_state=0).mean()
    assert found == pytest.approx(PCA(2).fit(X).score(X), abs=0.03)


def test_a_vae_starts_as_probabilistic_pca_whose_bound_is_tight() -> None:
    X = plane(noise=0.5)
    vae = VariationalAutoencoder(
        latent_dim=2, max_epochs=0, random_state=0, validation_fraction=0.0
    ).fit(X)
    scaled = (X - X.mean(0)) / X.std(0)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(0)
        trace = vae.model_(torch.from_numpy(scaled).float(), Clock(), rng, K=500)
        bound = float(trace.nodes[0].kl.mean() + trace.distance.mean())
    assert -bound == pytest.approx(PCA(2).fit(scaled).score(scaled), abs=0.01)


def test_importance_weights_average_to_the_exact_density() -> None:
    """E_q[p(x, z) / q(z | x)] = p(x), where p(x) is a Gaussian known in closed form."""
    X = plane(n=200)
    vae = VariationalAutoencoder(latent_dim=2, hidden_layer_sizes=(), random_state=0, max_epochs=3)
    model = vae.fit(X).model_
    x = vae.scaling_.apply(torch.from_numpy(X[:4]))
    with torch.no_grad():
        eye = torch.eye(2)
        m = model.g(torch.zeros(1, 2))
        W = (model.g(eye) - m).T.double().numpy()  # no hidden layer: g is affine
        variance = float(torch.exp(2 * model.D.log_scale))
        density = multivariate_normal(m[0].numpy(), W @ W.T + variance * np.eye(6))
        weights = model.log_weights(x, torch.Generator().manual_seed(0), 20_000).double().numpy()
    ratio = np.exp(weights - density.logpdf(x.numpy()))
    error = ratio.std(0) / np.sqrt(len(ratio))
    assert (np.abs(ratio.mean(0) - 1) < 4 * error + 1e-4).all()
    assert (error < 0.1).all()


def test_the_likelihood_is_that_of_the_users_own_units() -> None:
    X = plane(n=200)
    kwargs = {"latent_dim": 2, "max_epochs": 3, "random_state": 0}
    one = VariationalAutoencoder(**kwargs).fit(X).log_likelihood(X, random_state=0)
    ten = VariationalAutoencoder(**kwargs).fit(10 * X).log_likelihood(10 * X, random_state=0)
    assert ten - one == pytest.approx(-6 * np.log(10.0), abs=1e-2)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "gaussian", "laplace"])
def test_the_normaliser_makes_the_distance_a_density(name: str) -> None:
    D = LIKELIHOODS[name]()
    if isinstance(D, Gaussian):
        D = type(D)(log_scale=-0.7)
    mean = torch.full((1, 1, 1), 0.4)

    def density(x: float) -> float:
        with torch.no_grad():
            return float(D.log_prob(torch.tensor([[x]]), mean).exp())

    area, _ = quad(density, -40, 40, points=[0.4, -0.6, 1.4], limit=200)
    assert area == pytest.approx(1.0, abs=1e-4)


def test_the_bernoulli_is_a_probability() -> None:
    D, logits = LIKELIHOODS["bernoulli"](), torch.randn(1, 1, 3, generator=torch.Generator())
    total = sum(
        float(D.log_prob(torch.tensor([x]), logits).exp()) for x in product([0.0, 1.0], repeat=3)
    )
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "bernoulli", "gaussian", "laplace"])
def test_a_mask_leaves_out_what_it_hides_and_nothing_is_rescaled(name: str) -> None:
    D: Likelihood = LIKELIHOODS[name]()
    rng = torch.Generator().manual_seed(0)
    x, output = torch.rand(5, 8, generator=rng).round(), torch.randn(3, 5, 8, generator=rng)
    mask = (torch.rand(5, 8, generator=rng) > 0.4).float()
    parts = sum(D.distance(x[:, [j]], output[..., [j]]) * mask[:, j] for j in range(8))
    torch.testing.assert_close(D.distance(x, output, mask), parts)
    torch.testing.assert_close(D.distance(x, output, torch.ones(5, 8)), D.distance(x, output))
    torch.testing.assert_close(
        D.log_prob(x, output, mask), -parts - mask.sum(1) * D.log_normalizer()
    )


def test_huber_meets_its_pieces() -> None:
    D, x = LIKELIHOODS["huber"](), torch.zeros(1, 1)
    for r, cost in ((0.5, 0.125), (1.0, 0.5), (3.0, 2.5)):
        assert float(D.distance(x, torch.full((1, 1, 1), r))) == pytest.approx(cost)


def test_the_closed_kl_is_the_mean_of_its_samples() -> None:
    h = torch.tensor([[0.5, -1.0, 0.3, -0.8]])
    node = DiagonalGaussian()(h, 200_000, torch.Generator().manual_seed(0))
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(node.z).sum(-1)
    sampled = node.log_q - log_p
    error = float(sampled.std()) / np.sqrt(len(sampled))
    assert float(node.kl) == pytest.approx(float(sampled.mean()), abs=4 * error)


@pytest.mark.parametrize("size", [(1,), (2,), (7,), (28,), (1, 5), (13, 8), (2, 1)])
def test_a_transposed_convolution_is_the_adjoint_of_its_convolution(size: tuple[int, ...]) -> None:
    """⟨conv x, y⟩ = ⟨x, convᵀ y⟩ with the same weights."""
    dims, rng = len(size), torch.Generator().manual_seed(0)
    conv = (torch.nn.Conv1d, torch.nn.Conv2d)[dims - 1](3, 4, 3, stride=2, padding=1, bias=False)
    back = transposed(dims, 4, 3, halve(size), size)
    back.weight.data.copy_(conv.weight.data)
    back.bias.data.zero_()
    x = torch.randn(2, 3, *size, generator=rng)
    y = torch.randn(2, 4, *halve(size), generator=rng)
    assert back(y).shape == x.shape
    torch.testing.assert_close((conv(x) * y).sum(), (x * back(y)).sum(), rtol=1e-4, atol=1e-4)


DIGITS = load_digits().images


@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("distance", ["mse", "gaussian"])
def test_an_unfitted_start_is_pca_itself(architecture: str, distance: str) -> None:
    ae = Autoencoder(
        latent_dim=5, architecture=architecture, distance=distance, max_epochs=0, random_state=0
    ).fit(DIGITS)
    np.testing.assert_allclose(ae.reconstruct(DIGITS), ae.pca_.reconstruct(DIGITS), atol=1e-3)


def _held_out_ratio(X: np.ndarray, **kwargs: object) -> float:
    ae = Autoencoder(random_state=0, **kwargs).fit(X, X_val=X[::5])
    return float(ae.score_samples(X[::5]).mean() / ae.pca_.score_samples(X[::5]).mean())


@pytest.mark.parametrize("seed", range(3))
def test_never_below_pca_on_validation_whatever_the_units(seed: int) -> None:
    """Noise has nothing to learn: any network overfits it, and PCA must still be the floor."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 12)) * np.logspace(-3, 6, 12) + 1e4
    assert _held_out_ratio(X, latent_dim=3, learning_rate=0.1, max_epochs=8) <= 1.0 + 1e-6
    assert _held_out_ratio(X, latent_dim=3, max_epochs=0) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", ["f8", "u1"])
def test_pca_is_kept_within_the_bounds_of_the_data_as_the_model_is(dtype: str) -> None:
    """Scikit-learn's PCA, clipped, is what the model is compared with, and where it starts."""
    X, test = DIGITS[:1400].astype(dtype), DIGITS[1400:]
    ae = Autoencoder(latent_dim=8, max_epochs=0, random_state=0).fit(X, X_val=X)
    pca = PCA(8).fit(X.reshape(-1, 64).astype(float))
    raw = pca.inverse_transform(pca.transform(test.reshape(-1, 64))).reshape(test.shape)
    assert raw.min() < -1
    clipped = np.clip(raw, 0, 16)
    expected = 1 - ((clipped - test) ** 2).sum() / ((test - test.mean(0)) ** 2).sum()
    assert ae.pca_.score(test) == pytest.approx(expected, abs=1e-4)
    assert ae.pca_.score(test) == pytest.approx(ae.score(test), abs=1e-6)
    assert ae.pca_.score_samples(test) == pytest.approx(ae.score_samples(test), rel=1e-4)
    far = ae.pca_.inverse_transform(100 * np.eye(8, dtype=np.float32))
    assert far.min() == pytest.approx(0, abs=1e-6) and far.max() == pytest.approx(16)
    errors = ae.validation_errors_
    assert errors["validation_error"] == pytest.approx(errors["validation_error_pca"], rel=1e-6)


@pytest.mark.parametrize(
    ("distance", "low", "high"),
    [("bernoulli", 0, 1), ("categorical", 0, 3), ("poisson", 0, np.inf), ("mixed", 0, 3)],
)
def test_pca_is_kept_within_what_the_distance_can_answer(
    distance: str, low: float, high: float
) -> None:
    X = np.random.default_rng(0).integers(0, 2 if distance == "bernoulli" else 4, (80, 7)) * 1.0
    vae = VariationalAutoencoder(distance=distance, latent_dim=3, max_epochs=0, random_state=0)
    back = vae.fit(X).pca_.inverse_transform(20 * np.eye(3, dtype=np.float32))
    assert back.min() == pytest.approx(low, abs=1e-5) and back.max() > 1 - 1e-6
    assert back.max() <= high + 1e-5


def test_measurements_have_no_bounds_and_neither_has_their_pca() -> None:
    ae = Autoencoder(latent_dim=2, max_epochs=0, random_state=0).fit(plane())
    far = ae.pca_.inverse_transform(1e3 * np.eye(2, dtype=np.float32))
    assert far.max() > 10 * plane().max()


@pytest.mark.parametrize("top", [3, 255])
def test_the_score_of_integers_is_that_of_what_is_not_rounded_yet(top: int) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 8)) + rng.normal(size=(300, 8))
    X = (top * (hidden > 0)).astype(np.uint8)
    ae = Autoencoder(latent_dim=2, max_epochs=5, random_state=0).fit(X)

    def r2(back: np.ndarray) -> float:
        return 1 - ((back - X) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()

    scaled = ae._decode(torch.from_numpy(ae.transform(X))).detach()
    assert ae.score(X) == pytest.approx(r2(ae.scaling_.undo(scaled).numpy()), abs=1e-6)
    rounded = r2(ae.reconstruct(X).astype(float))
    assert ae.score(X) == pytest.approx(rounded, abs=0.05)
    assert (top > 3) or ae.score(X) != pytest.approx(rounded, abs=1e-3)


def test_a_bent_line_is_learned_far_better_than_pca() -> None:
    X = curve()
    ratio = _held_out_ratio(X, latent_dim=1, max_epochs=60)
    assert ratio < 0.3


def test_a_learned_scale_recovers_a_known_noise() -> None:
    X = plane(noise=0.3)
    vae = VariationalAutoencoder(latent_dim=2, scaling="none", max_epochs=40, random_state=0).fit(X)
    assert float(vae.model_.D.log_scale.detach().exp()) == pytest.approx(0.3, rel=0.1)


def test_the_selection_score_does_not_depend_on_the_clock() -> None:
    from narrows.parts.objective import Term, WeightedObjective
    from narrows.parts.regularizers.kl_and_mmd import KL

    vae = VariationalAutoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(plane(n=50))
    objective = WeightedObjective([Term("kl", KL(), lambda progress: progress)])
    x = vae.scaling_.apply(torch.from_numpy(plane(n=50)))

    @torch.no_grad()
    def score(progress: float) -> float:
        rng = torch.Generator().manual_seed(0)
        trace: Trace = vae.model_(x, Clock(progress=progress), rng)
        objective(vae.model_, trace)
        return float(objective.score(trace))

    assert score(0.0) == score(1.0)


def test_repeating_a_batch_leaves_every_term_unchanged() -> None:
    vae = VariationalAutoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(plane(n=50))
    x = vae.scaling_.apply(torch.from_numpy(plane(n=8)))
    h = vae.model_.f(x)
    node = vae.model_.q(h, 1, torch.Generator())
    again = vae.model_.q(h.repeat(3, 1), 1, torch.Generator())
    torch.testing.assert_close(node.kl.mean(), again.kl.mean())
    D, z = vae.model_.D, vae.model_.q.mode(h)
    one = D.distance(x, vae.model_.g(z)[None]).mean()
    three = D.distance(x.repeat(3, 1), vae.model_.g(z.repeat(3, 1))[None]).mean()
    torch.testing.assert_close(one, three)


def test_few_rows_of_many_columns_leave_the_noise_that_is_there() -> None:
    """PCA's noise is a mean over all d − k directions left out, also those n rows cannot span."""
    from narrows.estimators.pca import fit_pca
    from narrows.training.batches import Rows, Scaling

    X = np.random.default_rng(0).normal(size=(60, 300))
    one = torch.ones(1, dtype=torch.float64)
    rows = Rows(torch.from_numpy(X), Scaling("none", 0 * one, one))
    left = np.linalg.eigvalsh(np.cov(X.T))[::-1][50:].sum() / 250
    for pca in (fit_pca(rows, 50, 0), fit_pca(rows, 59, 0).cut(50)):
        assert pca.noise == pytest.approx(left, rel=1e-3)


def test_a_learned_scale_is_alive_where_pca_leaves_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 60))
    vae = VariationalAutoencoder(latent_dim=50, max_epochs=15, random_state=0).fit(X)
    assert vae.validation_curve_[0] < 1000  # nats of sixty numbers
    assert vae.best_loss_ < vae.validation_curve_[0]
