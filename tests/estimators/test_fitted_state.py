"""The fitted state: assigned once, at the end of a fit, and enough to go on from anywhere."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import narrows
from narrows import Autoencoder, Codec, Denoiser, ParameterError, VariationalAutoencoder
from narrows.training.loop import train

X = np.random.default_rng(0).normal(size=(80, 6))
SMALL: dict[str, Any] = {"latent_dim": 2, "hidden_layer_sizes": (8,), "max_epochs": 2}


def own_networks() -> dict[str, torch.nn.Module]:
    return {"f": torch.nn.Linear(6, 2), "g": torch.nn.Linear(2, 6)}


def small(**more: Any) -> Autoencoder:
    return Autoencoder(random_state=0, **{**SMALL, **more})


@pytest.mark.parametrize("estimator", [Autoencoder(), Codec(), Denoiser()], ids=repr)
@pytest.mark.parametrize("name", ["state_", "model_", "history_"])
def test_before_fit_an_attribute_says_that_fit_is_missing(estimator: Any, name: str) -> None:
    assert not hasattr(estimator, name)
    with pytest.raises(NotFittedError, match="is not fitted yet; call fit first"):
        getattr(estimator, name)


def test_a_fit_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(warm_start=True).fit(X)
    state, before = model.state_, model.transform(X)
    weights = [p.clone() for p in model.model_.parameters()]

    def broken(*arguments: Any) -> Iterator[Any]:
        for step, record in enumerate(train(*arguments)):
            yield record
            if step == 3:
                raise RuntimeError("out of memory")

    monkeypatch.setattr("narrows.estimators.fit_and_resume.train", broken)
    for data, error in ((X, RuntimeError), (np.full((80, 6), np.inf), narrows.InputError)):
        for fit in (model.fit, model.partial_fit):
            with pytest.raises(error):
                fit(data)
    assert model.state_ is state
    assert all(torch.equal(p, w) for p, w in zip(model.model_.parameters(), weights, strict=True))
    np.testing.assert_array_equal(model.transform(X), before)


def test_training_goes_on_with_a_copy() -> None:
    model = small().partial_fit(X)
    first = model.state_
    weights = [p.clone() for p in first.model.parameters()]
    model.partial_fit(X)
    assert model.state_ is not first
    assert all(torch.equal(p, w) for p, w in zip(first.model.parameters(), weights, strict=True))
    assert first.history.epochs is not model.state_.history.epochs
    assert len(first.history.epochs) == 1


def test_the_copied_optimizers_move_the_copied_weights() -> None:
    model = small().partial_fit(X)
    copied = model.state_.copy()
    assert copied.train_state is not None
    moved = {
        id(p)
        for optimizer in copied.train_state.optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert moved == {id(p) for p in copied.model.parameters()}


@pytest.mark.parametrize("carried", ["loaded", "pickled"])
def test_own_networks_go_on_wherever_they_were_carried(carried: str, tmp_path: Path) -> None:
    model = Autoencoder(**own_networks(), max_epochs=2, random_state=0).fit(X)
    if carried == "loaded":
        path = model.save(tmp_path / "m.safetensors")
        given = own_networks()
        again = narrows.load(path, **given)
        assert again.f is not given["f"]  # a user's own networks never change
    else:
        again = pickle.loads(pickle.dumps(model))
    before = again.transform(X)
    np.testing.assert_array_equal(before, model.transform(X))
    again.partial_fit(X)
    again.set_params(warm_start=True, max_epochs=1).fit(X)
    assert not np.array_equal(again.transform(X), before)


def test_one_network_alone_is_refused(tmp_path: Path) -> None:
    path = Autoencoder(**own_networks(), max_epochs=1).fit(X).save(tmp_path / "m.safetensors")
    with pytest.raises(ParameterError, match="f and g are given together"):
        narrows.load(path, f=own_networks()["f"])


def test_an_array_after_a_frame_needs_no_feature_names() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = small().fit(frame)
    assert list(model.feature_names_in_) == list("abcdef")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, X_val=X[:10])
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (small(), X),
        (VariationalAutoencoder(sampler="mixture", random_state=0, **SMALL), X),
        (Codec(levels=2, max_epochs=1, random_state=0), X.astype(np.float32)),
        (Denoiser(max_epochs=1, patch_size=16, random_state=0), [np.eye(40, dtype=np.uint8) * 255]),
    ],
    ids=["Autoencoder", "sampler", "Codec", "Denoiser"],
)
def test_a_pickle_holds_the_state_without_optimizers(model: Any, data: Any) -> None:
    model.fit(data)
    again = pickle.loads(pickle.dumps(model))
    assert again.state_.train_state is None
    assert model.state_.train_state is not None
    assert again.info() == model.info()


def test_attributes_of_a_fitted_codec() -> None:
    codec = Codec(levels=2, max_epochs=1, random_state=0).fit(X)
    assert codec.n_features_in_ == 6
    assert codec.input_shape_ == (6,)
