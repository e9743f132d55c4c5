"""What X may be, and the one sentence that answers what it may not be."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError

from helpers.small_data import curve
from narrows import Autoencoder, DenoisingAutoencoder, InputError, ParameterError
from narrows import VariationalAutoencoder as VAE

X = curve(60)


def fit(data: Any, **kwargs: Any) -> Autoencoder:
    return Autoencoder(**{"latent_dim": 1, "max_epochs": 1, "random_state": 0, **kwargs}).fit(data)


def put(value: float, row: int, *where: int, shape: tuple[int, ...] = (60, 6)) -> np.ndarray:
    data = np.resize(curve(60, 24), shape).copy()
    data[(row, *where)] = value
    return data


FRAME = pd.DataFrame({"age": [1.0, 2.0, 3.0], "city": ["Bern", "Rome", "Oslo"]})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (put(np.nan, 7, 3), r"contains NaN in row 7, column 3"),
        (put(-np.inf, 7, 3), r"contains infinity in row 7, column 3"),
        (put(np.nan, 7, 1, 2, shape=(60, 4, 6)), r"NaN in row 7, index \(1, 2\)"),
        (pd.DataFrame(put(np.nan, 2, 1), columns=list("abcdef")), r"column 1 \('b'\)"),
        (FRAME, r"Column 'city' of X holds words \('Bern'\)"),
        (np.zeros((0, 5)), r"0 sample"),
        (np.zeros((1, 5)), r"1 sample"),
        (np.zeros((1, 5, 5)), r"1 sample"),
        (np.zeros((5, 0)), r"0 feature"),
        (np.zeros((5, 3, 0)), r"is empty"),
        (np.zeros(5), r"Expected 2D array, got 1D"),
        (np.float64(3), r"must be an array or a frame .* Got float64"),
        ("table.csv", r"Got str instead; read a file first"),
        (None, r"Got NoneType"),
        (np.zeros((5, 2, 2, 2, 2)), r"5 dimensions"),
        ([[1.0, 2.0], [3.0]], r"ragged"),
        (scipy.sparse.eye(5).tocsr(), r"sparse.*toarray"),
        (np.array([["a", "b"], ["c", "d"]]), r"X holds words"),
        (np.ones((4, 3), complex), r"[Cc]omplex"),
        (np.ones((4, 3, 3), complex), r"[Cc]omplex"),
        (np.zeros((4, 2), "datetime64[s]"), r"X holds dates"),
        (np.zeros((9, 8, 8, 3)), r'axes="HWC"'),
    ],
)
def test_bad_input_gets_one_sentence(data: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(data)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (
            {"latent_dim": 0},
            "'latent_dim' parameter of Autoencoder must be 'auto' or an int",
        ),
        ({"latent_dim": -3}, "Got -3 instead"),
        ({"latent_dim": 2.5}, "Got 2.5 instead"),
        ({"latent_dim": True}, "Got True instead"),
        ({"latent_dim": "ten"}, "Got 'ten' instead"),
        ({"architecture": "deep"}, "must be one of 'auto', 'dense', 'conv'"),
        ({"architecture": "conv"}, "X is a table"),
        ({"max_time": "soon"}, "3m"),
        ({"max_time": 0}, "above 0"),
        ({"max_epochs": -1}, "at least 0"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "Got nan"),
        ({"random_state": -1}, "RandomState"),
        ({"validation_fraction": 1.0}, "at most 0.9"),
        ({"hidden_layer_sizes": (8, 0)}, "tuple of ints"),
        ({"distance": "bernoulli"}, "zeros and ones"),
        ({"distance": "l2"}, "must be one of"),
        ({"axes": "CL"}, "needs X of 3 dimensions"),
        ({"input_shape": (2, 2)}, "holds 4 numbers"),
        ({"tied": 1}, "True or False"),
        ({"device": "tpu"}, "'auto', 'cpu', or for a GPU 'cuda'"),
        ({"channels": (), "input_shape": (2, 3), "architecture": "conv"}, "at least one stage"),
    ],
)
def test_bad_parameters_get_one_sentence(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises((ParameterError, InputError), match=words):
        fit(X, **kwargs)


def test_a_constructor_only_stores() -> None:
    assert Autoencoder(latent_dim=-3).latent_dim == -3


@pytest.mark.parametrize(
    "data",
    [
        X.astype(np.float16),
        np.asfortranarray(X),
        X[::-1, ::-1],
        X.astype(">f8"),
        (X * 10).astype(np.int64),
        (X * 10).astype(np.int8),
        (X * 10 + 50).astype(np.uint16),
        X > 0,
        X.tolist(),
        X.astype(object),
        torch.from_numpy(X),
        X * 1e30,
        X * 1e300,
        X * 1e-30,
        X + 1e6,
        np.hstack([X, np.full((60, 2), 7.0)]),  # constant columns
        np.full((60, 3), 5.0),  # nothing varies at all
        X[:2],
        X[:, :1],
    ],
    ids=lambda d: f"{type(d).__name__}-{getattr(d, 'dtype', '')}-{np.shape(d)}",
)
def test_anything_numeric_is_fitted_and_comes_back_as_it_was(data: Any) -> None:
    array = np.asarray(data, dtype=float if isinstance(data, list) else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="latent_dim=1 is not smaller")
        ae = fit(data, max_epochs=3)
    back = ae.reconstruct(data)
    assert back.shape == array.shape
    native = array.dtype.newbyteorder("=")
    assert back.dtype == (np.float64 if array.dtype == object else native)
    assert np.isfinite(back.astype(float)).all()
    assert np.isfinite(ae.score(data))
    assert np.isfinite(ae.transform(data)).all()


def test_read_only_rows_are_read_only() -> None:
    data = X.copy()
    data.setflags(write=False)
    ae = fit(data)
    assert ae.reconstruct(data).flags.writeable
    np.testing.assert_array_equal(data, X)


def test_a_constant_is_restored_exactly_and_scores_one() -> None:
    data = np.full((60, 3), 5.0)
    ae = fit(data)
    np.testing.assert_allclose(ae.reconstruct(data), data, atol=1e-4)
    assert ae.score(data) == 1.0


def test_wide_offsets_keep_their_small_variations() -> None:
    """float32 cannot hold 1e9 ± 0.01; the shift is taken off before the precision is."""
    small = curve(300)
    near, far = fit(small, max_epochs=5).score(small), fit(small / 100 + 1e9, max_epochs=5)
    assert far.score(small / 100 + 1e9) == pytest.approx(near, abs=0.02)


def test_later_inputs_are_compared_with_words_that_name_both_shapes() -> None:
    images = curve(40, 30).reshape(40, 5, 6)
    ae = fit(images)
    with pytest.raises(InputError, match=r"\(6, 5\).*fitted on samples of shape \(5, 6\)"):
        ae.transform(images.transpose(0, 2, 1))
    with pytest.raises(InputError, match=r"\(30,\).*\(5, 6\)"):
        ae.transform(images.reshape(40, 30))
    with pytest.raises(InputError, match="X has 5 features, but Autoencoder is expecting 6"):
        fit(X).transform(X[:, :5])
    with pytest.raises(InputError, match=r"\(n, 1\)"):
        fit(X).inverse_transform(np.zeros((3, 2)))
    with pytest.raises(InputError, match="NaN or infinity in row 1"):
        fit(X).inverse_transform([[0.0], [np.nan]])


@pytest.mark.parametrize("method", ["transform", "reconstruct", "score", "score_samples", "info"])
def test_an_unfitted_model_says_so(method: str) -> None:
    with pytest.raises(NotFittedError):
        getattr(Autoencoder(), method)(*([] if method == "info" else [X]))
    with pytest.raises(NotFittedError):
        Autoencoder().save("nowhere.safetensors")


def test_a_code_as_wide_as_the_input_warns_why() -> None:
    with pytest.warns(UserWarning, match="can copy its input"):
        fit(X, latent_dim=6)


def test_a_fit_that_fails_leaves_the_model_as_it_was() -> None:
    ae = fit(X)
    before = ae.transform(X)
    with pytest.raises(InputError):
        ae.fit(np.full((9, 4), np.nan))
    np.testing.assert_array_equal(ae.transform(X), before)


def test_what_auto_becomes_follows_from_the_data() -> None:
    rng = np.random.default_rng(0)
    binary = (rng.random((80, 10)) > 0.5).astype(float)
    assert fit(binary).distance_ == "bernoulli"
    assert set(np.unique(VAE(latent_dim=2, max_epochs=1).fit(binary > 0).sample(4))) <= {
        True,
        False,
    }
    assert fit(X).distance_ == "mse"
    assert VAE(latent_dim=2, max_epochs=1, random_state=0).fit(X).distance_ == "gaussian"
    assert fit(X).scaling_.kind == "column"
    pixels = rng.integers(0, 17, size=(300, 12)).astype(float)  # every column from 0 to 16
    shared = fit(pixels)
    assert shared.scaling_.kind == "shared"
    np.testing.assert_allclose(shared.info()["bounds"], [[0.0], [16.0]], atol=1e-5)
    assert fit(X).info()["bounds"] is None
    assert fit(rng.normal(size=(20, 32, 32))).architecture_ == "dense"
    assert fit(rng.normal(size=(20, 32, 33))).architecture_ == "conv"
    assert fit(rng.normal(size=(20, 1100))).architecture_ == "dense"
    photos = rng.integers(30, 200, size=(30, 4, 4)).astype(np.uint8)
    np.testing.assert_allclose(fit(photos).info()["bounds"], [[0.0], [255.0]], atol=1e-4)


def test_latent_dim_auto_holds_nine_tenths_of_the_variance() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 20)) + 0.1 * rng.normal(size=(400, 20))
    ae = fit(data, latent_dim="auto", validation_fraction=0.0)
    held = PCA().fit((data - data.mean(0)) / data.std(0)).explained_variance_ratio_.cumsum()
    assert held[ae.latent_dim_ - 1] >= 0.9
    assert ae.latent_dim_ == 1 or held[ae.latent_dim_ - 2] < 0.9
    assert fit(rng.normal(size=(200, 10)), latent_dim="auto").latent_dim_ == 5  # at most half


@pytest.mark.parametrize("scaling", ["column", "shared", "none"])
@pytest.mark.parametrize("shape", [(300, 12), (300, 3, 4), (300, 2, 3, 4)])
def test_every_scaling_of_bounded_data_keeps_its_bounds(
    scaling: str, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, size=shape).astype(float)
    axes = "CHW" if len(shape) == 4 else None
    ae = fit(pixels, scaling=scaling, latent_dim=2, axes=axes)
    back = ae.reconstruct(pixels)
    assert back.min() > -1e-3
    assert back.max() < 16 + 1e-3
    errors = ae.validation_errors_
    assert errors["validation_error"] <= errors["validation_error_pca"] + 1e-6


def test_values_out_of_all_reach_are_refused_and_not_answered_by_nan() -> None:
    ae = fit(X)
    for method in (ae.transform, ae.reconstruct, ae.score, ae.score_samples):
        with pytest.raises(InputError, match="Row 2 of X is too far"):
            method(put(1e300, 2, 1))
    assert np.isfinite(ae.score_samples(X * 1e12)).all()
    with pytest.raises(InputError, match="overflow float32"):
        fit(X * 1e30, scaling="none")


def test_r2_is_exact_beside_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(500, 4)) + np.array([0, 0, 0, 3e6])
    ae = fit(data, scaling="none", max_epochs=0)
    shifted = ae.inverse_transform(ae.transform(data))
    true = 1 - np.square(data - shifted).sum() / np.square(data - data.mean(0)).sum()
    assert ae.score(data) == pytest.approx(true, abs=0.02)


def test_a_bernoulli_takes_zeros_and_ones_whenever_it_is_asked() -> None:
    binary = (np.random.default_rng(0).random((80, 6)) > 0.5).astype(float)
    vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(binary)
    for call in (vae.partial_fit, vae.log_likelihood):
        with pytest.raises(InputError, match="zeros and ones"):
            call(X)
    assert fit(binary, scaling="column").distance_ == "mse"
    with pytest.raises(ParameterError, match="takes values as they are"):
        fit(binary, scaling="column", distance="bernoulli")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit(X, latent_dim=10**12), "at most"),
        (lambda: fit(X, random_state=2**70), "RandomState"),
        (lambda: fit(X, device=None), "'auto', 'cpu', or for a GPU 'cuda'"),
        (lambda: fit(X, device="meta"), "Got 'meta'"),
        (lambda: fit(X, device="gpu"), "'auto', 'cpu', or for a GPU 'cuda'"),
        (lambda: fit(X, device="cuda:999"), "not available on this machine; use 'auto' or 'cpu'"),
        (lambda: DenoisingAutoencoder(noise="swap", noise_level=3).fit(X), "at most 1"),
        (lambda: VAE(max_epochs=0).fit(X).sample(2, random_state="a"), "random_state must be"),
        (lambda: VAE(max_epochs=0).fit(X).sample(2, temperature="a"), "temperature must be"),
        (lambda: VAE(max_epochs=0).fit(X).sample(0), "n must be"),
    ],
)
def test_what_seeds_and_widths_may_be(call: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        call()


def test_a_default_dtype_of_double_changes_nothing() -> None:
    before = fit(X).transform(X)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(fit(X).transform(X), before)
        assert VAE(latent_dim=1, max_epochs=1, random_state=0).fit(X).sample(2).shape == (2, 6)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_path_too_large_is_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from narrows.estimators import fit_setup as choices

    monkeypatch.setattr(choices, "path_fits", lambda shape, k: False)
    with pytest.warns(UserWarning, match="starts at random weights, not at PCA"):
        fit(X)
