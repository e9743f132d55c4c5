"""What denoised rows are compared with: doing nothing, the mean, PCA and filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import savgol_filter

from helpers.small_data import curve, plane
from narrows import Autoencoder, DenoisingAutoencoder, InputError, ParameterError
from narrows.denoising import Cleaned, compare_cleaning

RNG = np.random.default_rng(0)
TIME = np.linspace(0, 1, 48)
WAVES = np.stack(
    [np.sin(2 * np.pi * (f * TIME + s)) for f, s in RNG.uniform([1, 0], [4, 1], (300, 2))]
)[:, None]


def fit(X: Any, **kwargs: Any) -> DenoisingAutoencoder:
    base = {"latent_dim": 3, "max_epochs": 1, "random_state": 0}
    return DenoisingAutoencoder(**{**base, **kwargs}).fit(X)


def by_name(rows: list[Cleaned]) -> dict[str, float]:
    return {row.method.partition(",")[0]: row.mse for row in rows}


def test_the_closed_forms_of_doing_nothing_and_of_the_mean() -> None:
    X = curve(4000) * [1, 10, 100, 1, 1, 1] + 7
    found = by_name(compare_cleaning(fit(X[:2000], noise_level=0.4), X[2000:]))
    assert found["nothing done"] == pytest.approx(0.16, rel=0.05)
    assert found["training mean"] == pytest.approx(1.0, rel=0.01)
    assert list(found)[2:] == ["DenoisingAutoencoder", "PCA", "best PCA"]


def test_a_model_that_is_pca_ties_with_it_and_one_that_learned_wins() -> None:
    X = curve(1500)
    tie = by_name(compare_cleaning(fit(X[:1000], max_epochs=0), X[1000:]))
    assert tie["DenoisingAutoencoder"] == pytest.approx(tie["PCA"], rel=1e-4)
    assert tie["best PCA"] <= tie["PCA"] * 1.001
    learned = by_name(compare_cleaning(fit(X[:1000], max_epochs=40), X[1000:]))
    assert learned["DenoisingAutoencoder"] < 0.8 * min(learned["PCA"], learned["nothing done"])


def test_the_best_width_of_pca_is_the_one_that_made_the_data() -> None:
    X = plane(1500, d=10, k=2, noise=0.01)
    rows = compare_cleaning(fit(X[:1000], latent_dim=9, max_epochs=0, noise_level=0.3), X[1000:])
    assert rows[4].method == "best PCA, 2 numbers"
    assert rows[4].mse == pytest.approx(0.3**2 * 2 / 10, rel=0.15)  # of the noise 2 in 10 stay
    assert rows[3].mse == pytest.approx(0.3**2 * 9 / 10, rel=0.15)


def test_filters_of_signals_have_the_best_width() -> None:
    est = fit(WAVES[:200], axes="CL", noise_level=0.5)
    noisy = est.corrupt(WAVES, 1)
    rows = compare_cleaning(est, WAVES, X_noisy=noisy)
    assert [row.method.partition(",")[0] for row in rows[5:]] == [
        "moving average",
        "median filter",
        "Savitzky–Golay",
    ]
    errors = {
        w: np.mean((savgol_filter(noisy, w, 2) - WAVES) ** 2) / WAVES.var() for w in range(3, 32, 2)
    }
    assert rows[7].mse == pytest.approx(min(errors.values()), rel=0.1)
    assert int(rows[7].method.split()[-1]) in sorted(errors, key=errors.__getitem__)[:3]
    assert rows[7].mse < rows[2].mse  # as one epoch with three numbers learns little
    assert all(row.seconds >= 0 for row in rows)


@pytest.mark.parametrize(
    ("X", "kwargs"),
    [
        (RNG.normal(size=(60, 9, 7, 3)), {"axes": "HWC"}),
        (RNG.integers(0, 17, (60, 8, 8)).astype(np.uint8), {}),
        (RNG.normal(size=(60, 36)), {"input_shape": (6, 6)}),
        (RNG.normal(size=(60, 2, 3)), {"axes": "CL"}),
        (RNG.normal(size=(60, 1, 2)), {"axes": "CL", "latent_dim": 1}),
    ],
)
def test_every_shape_and_dtype_is_scored(X: Any, kwargs: dict[str, Any]) -> None:
    rows = compare_cleaning(fit(X, **kwargs), X)
    assert all(np.isfinite(row.mse) for row in rows)
    wide = X.shape[-1] != 2  # too short to be smoothed
    assert any("median" in row.method for row in rows) == wide


def test_a_median_keeps_edges_that_a_mean_blurs() -> None:
    """A median over the channels too would mix the three, so this shows which axes are smoothed."""
    steps = (RNG.uniform(0.2, 0.8, (200, 1)) < TIME) * 1.0
    X = np.stack([steps, -steps, 5 * steps], 1)
    est = fit(X, axes="CL", noise="salt_and_pepper", noise_level=0.05)
    found = by_name(compare_cleaning(est, X))
    assert found["median filter"] < 0.3 * found["moving average"]
    assert found["median filter"] < 0.2 * found["nothing done"]


def test_the_same_seed_gives_the_same_errors() -> None:
    est = fit(WAVES, axes="CL")
    first, again, other = (by_name(compare_cleaning(est, WAVES, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_wrong_models_and_rows_are_refused() -> None:
    X = curve(60)
    with pytest.raises(ParameterError, match="Autoencoder does not; fit a Denoising"):
        compare_cleaning(Autoencoder(max_epochs=0).fit(X), X)
    est = fit(X)
    with pytest.raises(InputError, match="at least 2"):
        compare_cleaning(est, X[:1])
    with pytest.raises(InputError, match="the same rows twice"):
        compare_cleaning(est, X, X_noisy=X[:5])
