"""What a fit learns from which rows: the scaling, PCA and N from training rows, never others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.small_data import curve
from narrows import Autoencoder, BetaTCVAE
from narrows._types import Clock
from narrows.estimators.fit_and_resume import usual_batch
from narrows.estimators.fit_setup import split_indices
from narrows.estimators.validation import Layout

X = curve(60)
QUICK: dict[str, Any] = {"latent_dim": 2, "random_state": 3, "hidden_layer_sizes": (8,)}


def parts(fraction: float) -> tuple[np.ndarray, np.ndarray]:
    training, held = split_indices(len(X), fraction, 3)
    return X[training.numpy()], X[held.numpy()]


@pytest.mark.parametrize("given", [True, False], ids=["X_val", "a share of X"])
def test_scaling_and_pca_are_those_of_the_training_rows(given: bool) -> None:
    training, held = (X, 5 * curve(25, seed=1) + 40) if given else parts(0.4)
    ae = Autoencoder(**QUICK, max_epochs=0, validation_fraction=0.4)
    ae.fit(X, X_val=held if given else None)
    np.testing.assert_allclose(ae.scaling_.shift, training.mean(0))
    np.testing.assert_allclose(ae.scaling_.scale, training.std(0))
    scaled = (training - training.mean(0)) / training.std(0)
    left = np.linalg.svd(scaled, compute_uv=False)[2:]
    rest = np.square((training - ae.pca_.reconstruct(training)) / training.std(0)).sum()
    assert rest == pytest.approx(np.square(left).sum(), rel=1e-4)  # no plane fits these rows better
    wanted = np.square((held - ae.pca_.reconstruct(held)) / training.std(0)).mean()
    assert ae.validation_errors_["validation_error_pca"] == pytest.approx(wanted, rel=1e-4)


def test_rows_held_out_are_a_share_and_no_others() -> None:
    for n, fraction, held in ((20, 0.1, 2), (60, 0.4, 24), (25, 0.01, 1), (30, 0.55, 16)):
        training, validation = split_indices(n, fraction, 0)
        assert len(validation) == held
        assert sorted([*training.tolist(), *validation.tolist()]) == list(range(n))
    few = Autoencoder(**QUICK, max_epochs=0).fit(X[:19])
    assert few.rows_ == {"given": 19, "validation": 19}
    assert Autoencoder(**QUICK, max_epochs=0).fit(X[:20]).rows_["validation"] == 2


def test_the_score_on_validation_rows_takes_n_from_the_training_rows() -> None:
    """The total correlation is that of all training rows, whose number enters the estimate."""
    vae = BetaTCVAE(**QUICK, beta=30.0, max_epochs=0, validation_fraction=0.25).fit(X)
    _, held = parts(0.25)
    x = vae.scaling_.apply(torch.from_numpy(held))
    found = {}
    for n in (len(X) - len(held), len(held)):
        rng = torch.Generator().manual_seed(vae.state_.seed)
        with torch.no_grad():
            trace = vae.model_(x, Clock(n_rows=n), rng)
            found[n] = float(vae.objective_(vae.model_, trace)["model"])
    assert vae.validation_curve_[0] == pytest.approx(found[45], rel=1e-5)
    assert abs(found[45] - found[15]) > 0.1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_integers_are_rounded_to_the_nearest_and_kept_within_their_dtype(dtype: str) -> None:
    layout, ends = Layout(None, (5,), dtype), np.iinfo(dtype)
    rows = np.array([[0.6, 1.4, 2.5, -0.6, 99.99], [1e30, -1e30, 3.5, 0.49, 7.0]])
    found = layout.from_model(rows)
    assert found.dtype == dtype
    assert found[0].tolist() == [1, 1, 2, max(-1, ends.min), 100]
    assert found[1, 1:].tolist() == [ends.min, 4, 0, 7]
    assert 0.999 * ends.max < float(found[1, 0]) <= ends.max


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint16"])
def test_a_reconstruction_of_integers_is_the_nearest_one(dtype: str) -> None:
    whole = np.random.default_rng(0).integers(0, 100, (60, 6)).astype(dtype)
    ae = Autoencoder(**QUICK, max_epochs=0).fit(whole)
    Z = ae.transform(whole)
    with torch.no_grad():
        exact = ae.scaling_.undo(ae.model_.decode(torch.from_numpy(Z))).numpy()
    assert np.abs(ae.inverse_transform(Z) - exact).max() <= 0.501
    far = ae.inverse_transform(1e4 * Z).astype(float)  # decoded far outside of 0 ... 99
    assert far.min() >= np.iinfo(dtype).min and far.max() <= np.iinfo(dtype).max
    assert np.unique(np.sign(far - exact.mean())).size == 2  # and on its own side: nothing wraps


@pytest.mark.parametrize(
    ("n_rows", "max_epochs", "size"),
    [
        (50, 100, 16),
        (900, 100, 90),
        (9_999, 100, 128),
        (10_000, 100, 256),
        (10_000, 51, 128),
        (20_000, 52, 512),
        (20_000, 100, 512),
        (60_000, 1, 128),
        (10**6, 0, 128),
    ],
)
def test_batches_grow_with_the_rows_where_steps_are_left(
    n_rows: int, max_epochs: int, size: int
) -> None:
    assert usual_batch(n_rows, max_epochs) == size
