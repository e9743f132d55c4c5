"""scikit-learn's own contract, over every public estimator."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers.small_data import TABLES
from narrows.estimators.registry import model_class

# its errors after 2 epochs are so large that float32 rounds them by more than a check's 1e-7
LONGER = {"SphericalVAE": 4}
ESTIMATORS = [model_class(name)(max_epochs=LONGER.get(name, 2), random_state=0) for name in TABLES]


@parametrize_with_checks(ESTIMATORS)  # no expected failure is declared: there is none
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


DIGITS = load_digits()
X, Y = DIGITS.data[:300], DIGITS.target[:300]
SMALL = {"latent_dim": 6, "max_epochs": 3, "random_state": 0}


@pytest.mark.slow
def test_pipeline_and_grid_search_run_in_two_processes() -> None:
    pipeline = make_pipeline(model_class("Autoencoder")(**SMALL), LogisticRegression(max_iter=500))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.6
    search = GridSearchCV(
        model_class("Autoencoder")(**SMALL), {"latent_dim": [1, 8]}, n_jobs=2, cv=2
    ).fit(X)
    assert search.best_params_ == {"latent_dim": 8}  # score is R²: more is better


def test_images_go_through_a_pipeline_as_they_are() -> None:
    images = DIGITS.images[:300]
    pipeline = make_pipeline(model_class("Autoencoder")(**SMALL), KMeans(4, random_state=0))
    assert pipeline.fit_predict(images).shape == (300,)
    assert pipeline[0].input_shape_ == (8, 8)


def test_frames_in_and_frames_out() -> None:
    import pandas as pd
    import polars as pl

    frame = pd.DataFrame(X[:, 20:26], columns=list("abcdef"))
    ae = model_class("Autoencoder")(latent_dim=2, max_epochs=2, random_state=0).fit(frame)
    assert list(ae.feature_names_in_) == list("abcdef")
    codes = ae.set_output(transform="pandas").transform(frame)
    assert list(codes.columns) == ["autoencoder0", "autoencoder1"]
    ae.set_output(transform="default")
    np.testing.assert_array_equal(ae.transform(pl.from_pandas(frame)), ae.transform(frame))


@pytest.mark.parametrize("name", ["Autoencoder", "VariationalAutoencoder", "VQVAE", "LadderVAE"])
def test_y_is_ignored(name: str) -> None:
    cls = model_class(name)
    with_y, without = cls(**SMALL).fit(X, Y), cls(**SMALL).fit(X)
    np.testing.assert_array_equal(with_y.transform(X), without.transform(X))
