"""Every shape from 1 up comes back exactly, and reconstruct is decode after encode."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.small_data import TABLES, TOLD
from narrows import Autoencoder, DenoisingAutoencoder, InputError, ParameterError
from narrows.estimators.registry import model_class
from narrows.parts.networks.architectures import NetworkOptions, build_networks

SIDE = st.integers(1, 65)
SHAPES = st.one_of(
    st.tuples(SIDE).map(lambda s: (None, s)),
    st.tuples(SIDE, SIDE).map(lambda s: ("HW", s)),
    st.tuples(st.integers(1, 5), SIDE).map(lambda s: ("CL", s)),
    st.tuples(st.integers(1, 4), SIDE, SIDE).map(lambda s: ("CHW", s)),
    st.tuples(SIDE, SIDE, st.integers(1, 4)).map(lambda s: ("HWC", s)),
)


def _rows(shape: tuple[int, ...], n: int = 6, dtype: str = "float64") -> NDArray[Any]:
    rows = np.random.default_rng(0).normal(size=(n, *shape)) * 40 + 100
    return rows.clip(0, 255).astype(dtype)


def _fit(model: str, X: NDArray[Any], X_val: NDArray[Any] | None = None, **kwargs: Any) -> Any:
    kwargs = {"latent_dim": 1, "max_epochs": 1, "random_state": 0, **kwargs}
    with warnings.catch_warnings():
        # one number for a sample of one number is what this test wants
        warnings.filterwarnings("ignore", message="latent_dim=1 is not smaller")
        return model_class(model)(**kwargs).fit(X, X_val=X_val)


# the others need an image, two patches or two numbers of a code
ANY_SHAPE = sorted({*TABLES} - {"MaskedAutoencoder", "SphericalVAE"})


@settings(max_examples=60)
@given(
    SHAPES,
    st.sampled_from(ANY_SHAPE),
    st.sampled_from(["dense", "conv"]),
    st.sampled_from(["float64", "float32", "uint8"]),
    st.sampled_from(["auto", (3, 4)]),
)
def test_every_shape_is_restored_exactly(
    layout: tuple[Any, tuple[int, ...]], model: str, architecture: str, dtype: str, channels: Any
) -> None:
    axes, shape = layout
    X = _rows(shape, dtype=dtype)
    architecture = "dense" if axes is None else architecture
    est = _fit(model, X, axes=axes, architecture=architecture, channels=channels)
    Z = est.transform(X)
    back = est.inverse_transform(Z)
    assert Z.shape == (6, 1)
    assert Z.dtype == np.float32
    assert back.shape == X.shape
    assert back.dtype == X.dtype
    assert est.input_shape_ == shape
    np.testing.assert_array_equal(est.reconstruct(X), back)


@settings(max_examples=60)
@given(
    st.sampled_from([(2, 1), (3, 2), (1, 31), (2, 65), (1, 1, 1), (3, 1, 9), (2, 37, 64)]),
    st.sampled_from(["stride", "pool"]),
    st.sampled_from(["transpose", "nearest", "bilinear", "shuffle"]),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_way_down_and_up_restores_the_shape_and_reaches_every_weight(
    shape: tuple[int, ...], down: str, up: str, stages: int, hidden: bool
) -> None:
    options = NetworkOptions(
        shape, 3, down=down, up=up, channels=(4,) * stages, hidden=(5,) if hidden else None
    )
    f, g = build_networks("conv", options, torch.Generator().manual_seed(0))
    out = g(f(torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))))
    assert out.shape == (2, *shape)
    out.square().sum().backward()
    for parameter in (*f.parameters(), *g.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("model", [name for name in TABLES if name not in TOLD])
def test_gradients_reach_every_parameter_and_are_finite(model: str) -> None:
    from narrows._types import Clock

    est = _fit(model, _rows((9,), n=40), latent_dim=3)
    x = torch.randn(8, 9, generator=torch.Generator().manual_seed(0))
    trace = est.model_(x, Clock(), torch.Generator().manual_seed(0))
    est.objective_(est.model_, trace)["model"].backward()
    for name, parameter in est.model_.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_widths_fall_and_rise_symmetrically() -> None:
    f, g = build_networks("dense", NetworkOptions((20,), 3, hidden=(16, 8)), torch.Generator())
    widths = [
        [(m.in_features, m.out_features) for m in net if hasattr(m, "in_features")]
        for net in (f, g)
    ]
    assert widths == [[(20, 16), (16, 8), (8, 3)], [(3, 8), (8, 16), (16, 20)]]


def test_tied_weights_are_one_and_the_same() -> None:
    X = _rows((12,), n=60)
    tied = _fit("Autoencoder", X, latent_dim=3, tied=True, linear_path=False, max_epochs=3)
    free = _fit("Autoencoder", X, latent_dim=3, linear_path=False)
    matrices = [m.weight for m in tied.model_.f if hasattr(m, "weight")]
    assert tied.n_parameters_ == free.n_parameters_ - sum(m.numel() for m in matrices)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    layers = [m for m in tied.model_.g.modules() if type(m).__name__ == "TiedLinear"]
    by_hand = z
    for i, (layer, W) in enumerate(zip(layers, reversed(matrices), strict=True)):
        by_hand = by_hand @ W + layer.bias
        by_hand = torch.nn.functional.gelu(by_hand) if i < len(layers) - 1 else by_hand
    torch.testing.assert_close(tied.model_.g(z), by_hand)


def test_rows_of_a_table_fold_to_images() -> None:
    X = _rows((30,), n=40)
    est = _fit("Autoencoder", X, input_shape=(5, 6), architecture="conv")
    assert est.input_shape_ == (5, 6)
    assert est.reconstruct(X).shape == X.shape
    same = _fit("Autoencoder", X.reshape(-1, 5, 6), architecture="conv")
    np.testing.assert_array_equal(same.transform(X.reshape(-1, 5, 6)), est.transform(X))


def test_channels_last_is_channels_first_seen_otherwise() -> None:
    X = _rows((5, 6, 3), n=30)
    last = _fit("Autoencoder", X, axes="HWC")
    first = _fit("Autoencoder", np.moveaxis(X, -1, 1))
    np.testing.assert_array_equal(last.transform(X), first.transform(np.moveaxis(X, -1, 1)))


@pytest.mark.parametrize("model", ["Autoencoder", "VariationalAutoencoder"])
def test_one_channel_last_is_read_as_such(model: str) -> None:
    X = _rows((7, 5, 1), n=30, dtype="uint8")
    last = _fit(model, X, architecture="conv", X_val=X[:9])
    assert (last.layout_.axes, last.layout_.shape) == ("HWC", (1, 7, 5))
    same = _fit(model, X[..., 0], architecture="conv", X_val=X[:9, :, :, 0])
    np.testing.assert_array_equal(last.transform(X), same.transform(X[..., 0]))
    assert last.reconstruct(X).shape == X.shape


@pytest.mark.parametrize(
    "shape",
    [(1, 28, 28), (1, 9, 1), (3, 28, 28), (3, 9, 8), (16, 7, 9), (13, 8, 8), (5, 9, 6)],
)
def test_channels_first_need_no_word(shape: tuple[int, ...]) -> None:
    assert _fit("Autoencoder", _rows(shape)).layout_.axes == "CHW"


@pytest.mark.parametrize(
    "shape",
    [
        *((9, 8, 2), (28, 28, 3), (8, 8, 4), (6, 6, 5), (7, 7, 13), (3, 9, 4), (5, 5, 6)),
        *((10, 12, 5), (20, 24, 9), (16, 12, 11), (5, 8, 5), (6, 48, 6)),
    ],
)
def test_likely_channels_last_are_asked_about_and_either_answer_works(
    shape: tuple[int, ...],
) -> None:
    X = _rows(shape)
    folded = X.reshape(len(X), -1)
    for rows, more in ((X, {}), (folded, {"input_shape": shape})):
        with pytest.raises(InputError, match=r'axes="HWC" \(or axes="CHW"') as refused:
            _fit("Autoencoder", rows, **more)
        assert f"{(6, *shape)}" in str(refused.value)
        for axes in ("HWC", "CHW"):
            est = _fit("Autoencoder", rows, axes=axes, **more)
            assert est.layout_.axes == axes
            assert est.reconstruct(rows).shape == rows.shape


class Encoder(torch.nn.Module):
    def __init__(self, out: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(9, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_own_networks_are_used_and_never_changed() -> None:
    X, f, g = _rows((9,), n=60), Encoder(), torch.nn.Linear(3, 9)
    before = f.layer.weight.detach().clone()
    ae = Autoencoder(f=f, g=g, max_epochs=2, random_state=0).fit(X)
    assert (ae.architecture_, ae.latent_dim_) == ("own", 3)
    assert torch.equal(f.layer.weight, before)
    assert not torch.equal(ae.model_.f.layer.weight, before)


@pytest.mark.parametrize(
    ("f", "g", "kwargs", "words"),
    [
        (Encoder(), None, {}, "given together"),
        (torch.nn.Linear(5, 3), torch.nn.Linear(3, 9), {}, "f cannot take"),
        (torch.nn.Unflatten(1, (3, 3)), torch.nn.Linear(3, 9), {}, "f turns"),
        (Encoder(), torch.nn.Linear(4, 9), {}, "g cannot take"),
        (Encoder(), torch.nn.Linear(3, 8), {}, "g turns"),
        (Encoder(), torch.nn.Linear(3, 9), {"latent_dim": 2}, "gives a code of 3"),
        (Encoder(), torch.nn.Linear(3, 9), {"linear_path": True}, "your own networks"),
    ],
)
def test_own_networks_that_do_not_fit_are_refused(
    f: Any, g: Any, kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        Autoencoder(f=f, g=g, random_state=0, **kwargs).fit(_rows((9,), n=30))


def ends_of(dtype: str) -> tuple[float, float]:
    """The lowest and the highest integer of a dtype."""
    info = np.iinfo(dtype)
    return float(info.min), float(info.max) * (1 - 1e-9)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4"])
def test_values_at_the_ends_of_their_dtype_are_worth_what_they_are_in_float64(dtype: str) -> None:
    """No difference, square or mean is computed in the data's own dtype."""
    share, kind = np.random.default_rng(0).random((60, 4)), np.dtype(dtype).kind
    low, high = {"b": (0.0, 1.0), "f": (-6e4, 6e4)}.get(kind) or ends_of(dtype)
    X = np.rint(low + share * (high - low)).astype(dtype)
    wide = X.astype(np.float64)
    one, other = (
        DenoisingAutoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(rows)
        for rows in (X, wide)
    )
    np.testing.assert_allclose(one.transform(X), other.transform(wide), atol=1e-3)
    assert one.score(X) == pytest.approx(other.score(wide), abs=1e-4)
    assert one.pca_.score(X) == pytest.approx(other.pca_.score(wide), abs=1e-4)
    assert one.score_samples(X) == pytest.approx(other.score_samples(wide), rel=1e-3)
    assert one.validation_errors_ == pytest.approx(other.validation_errors_, rel=1e-3)
    assert one.reconstruct(X).dtype == X.dtype


@pytest.mark.parametrize("start", [0, 2**20, 1e7, 2**24 - 300])
def test_float32_far_from_0_comes_back_to_where_it_was(start: float) -> None:
    X = (start + np.random.default_rng(0).integers(0, 256, (200, 5))).astype(np.float32)
    ae = Autoencoder(latent_dim=4, max_epochs=0, random_state=0, validation_fraction=0).fit(X)
    off = ae.reconstruct(X).astype(float) - X
    assert abs(off.mean()) < 0.05
    wide = X.astype(np.float64)
    np.testing.assert_allclose(ae.transform(wide), ae.transform(X), atol=1e-5)
