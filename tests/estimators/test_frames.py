"""Frames in, frames out: what ``set_output`` asks for, with the input's columns and index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.small_data import curve
from narrows import Autoencoder, ConditionalVAE, DenoisingAutoencoder, VariationalAutoencoder

X = curve(60)
FRAME = pd.DataFrame(X, columns=list("abcdef"), index=[f"row {i}" for i in range(60)])
SMALL: dict[str, Any] = {"latent_dim": 2, "max_epochs": 1, "random_state": 0}


def same(found: Any, expected: np.ndarray, like: pd.DataFrame = FRAME) -> None:
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == list(like.columns)
    assert list(found.index) == list(like.index)
    np.testing.assert_array_equal(found.to_numpy(), expected)


@pytest.mark.parametrize("model", [Autoencoder, VariationalAutoencoder, DenoisingAutoencoder])
def test_every_method_that_returns_rows_returns_a_frame(model: Any) -> None:
    est = model(missing="mask", **SMALL).fit(FRAME)
    gaps = FRAME.mask(np.arange(60)[:, None] % 7 == np.arange(6))
    Z = est.transform(FRAME)
    plain = [est.inverse_transform(Z), est.reconstruct(FRAME), est.impute(gaps)]
    assert all(isinstance(rows, np.ndarray) for rows in plain)
    est.set_output(transform="pandas")
    codes = est.transform(FRAME)
    same(est.inverse_transform(codes), plain[0])
    same(est.reconstruct(X=FRAME), plain[1])
    same(est.impute(gaps), plain[2])
    same(est.reconstruct(FRAME[40:]), plain[1][40:], FRAME[40:])
    assert not np.isnan(plain[2]).any()
    if hasattr(est, "sample"):
        assert list(est.sample(3).columns) == list("abcdef")
    if hasattr(est, "denoise"):
        same(est.denoise(FRAME), plain[1])
        assert list(est.corrupt(FRAME, random_state=0).index) == list(FRAME.index)
    assert est.interpolate(FRAME[:2], FRAME[2:4], steps=3).shape == (2, 3, 6)
    est.set_output(transform="polars")
    assert isinstance(est.reconstruct(FRAME), pl.DataFrame)
    assert est.reconstruct(pl.DataFrame(X, list("abcdef"))).columns == list("abcdef")


def test_classes_pipelines_and_the_global_setting_too() -> None:
    y = np.arange(60) % 2
    conditional = ConditionalVAE(**SMALL).fit(FRAME, y).set_output(transform="pandas")
    assert list(conditional.sample(3, y=1).columns) == list("abcdef")
    same(
        conditional.reconstruct(FRAME),
        conditional.set_output(transform="default").reconstruct(FRAME),
    )
    pipe = make_pipeline(StandardScaler(), Autoencoder(**SMALL)).fit(FRAME)
    back = pipe.inverse_transform(pipe.transform(FRAME))
    with sklearn.config_context(transform_output="pandas"):
        pipe = make_pipeline(StandardScaler(), Autoencoder(**SMALL)).fit(FRAME)
        assert list(pipe[1].inverse_transform(pipe.transform(FRAME)).columns) == list("abcdef")
        np.testing.assert_allclose(pipe.inverse_transform(pipe.transform(FRAME)), back)
        assert isinstance(pipe[1].pca_.reconstruct(FRAME), np.ndarray)


def test_what_is_no_table_stays_an_array_and_names_are_made_where_there_are_none() -> None:
    images = load_digits().images[:60]
    est = Autoencoder(**SMALL).fit(images).set_output(transform="pandas")
    assert est.inverse_transform(est.transform(images)).shape == (60, 8, 8)
    bare = Autoencoder(**SMALL).fit(X).set_output(transform="pandas")
    assert list(bare.reconstruct(X).columns) == [f"x{i}" for i in range(6)]
