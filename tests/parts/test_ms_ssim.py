"""MS-SSIM is the measure of its paper, and the VAE that uses it costs what its formula says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from test_likelihoods import made
from torch import Tensor

from narrows import MSSSIMVAE, ParameterError, VariationalAutoencoder
from narrows._types import Clock
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.parts.likelihoods.ms_ssim import WEIGHTS, scales_for

Array = NDArray[Any]
DIGITS = load_digits().images


def similarity(a: Array, b: Array, window: int, weights: tuple[float, ...]) -> float:
    """MS-SSIM of two grey pictures in [0, 1], from the paper, with loops."""
    at = np.arange(window) - window // 2
    kernel = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    result = 1.0
    for j, weight in enumerate(weights):
        if j:
            a, b = (np.pad(x, [(n % 2, n % 2) for n in x.shape]) for x in (a, b))
            rows, columns = (n // 2 for n in a.shape)
            a, b = (
                x[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
                for x in (a, b)
            )
        views = [np.lib.stride_tricks.sliding_window_view(x, (window, window)) for x in (a, b)]
        ma, mb = ((v * kernel).sum((-2, -1)) for v in views)
        va, vb = (
            (kernel * (v - m[..., None, None]) ** 2).sum((-2, -1))
            for v, m in zip(views, (ma, mb), strict=True)
        )
        both = (views[0] - ma[..., None, None]) * (views[1] - mb[..., None, None])
        contrast = (2 * (kernel * both).sum((-2, -1)) + 0.03**2) / (va + vb + 0.03**2)
        luminance = (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
        last = j == len(weights) - 1
        result *= (luminance * contrast if last else contrast).mean() ** weight
    return float(result)


def pictures(*shape: int, noise: float = 0.2) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    waves = [np.sin(np.arange(n) / 4.0) for n in shape[-2:]]
    a = 0.5 + 0.2 * (waves[0][:, None] + waves[1][None]) + 0.05 * rng.normal(size=shape)
    return np.clip(a, 0, 1), np.clip(a + noise * rng.normal(size=shape) + 0.1, 0, 1)


def measured(a: Array, b: Array) -> Tensor:
    """MS-SSIM of (..., C, H, W) by D, whose range is [0, 1] here."""
    D = LIKELIHOODS["ms_ssim"]()
    D.build(a.shape[-3:], None)
    return D.similarity(*(torch.from_numpy(x).float() for x in (a, b)))


@pytest.mark.parametrize("size", [(176, 181), (45, 50), (28, 28), (8, 8), (6, 9)])
def test_ms_ssim_equals_another_implementation(size: tuple[int, int]) -> None:
    a, b = pictures(*size)
    window, weights = scales_for(size)
    expected = similarity(a, b, window, weights)
    assert 0.05 < expected < 0.95
    assert float(measured(a[None], b[None])) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_of_one_scale_is_the_ssim_of_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    a, b = pictures(40, 40)
    _, full = skimage.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    D = LIKELIHOODS["ms_ssim"]()
    D.build((1, 40, 40), None)
    D.weights = (1.0,)
    found = D.similarity(*(torch.from_numpy(x[None]).float() for x in (a, b)))
    assert float(found) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)


def test_as_many_scales_as_the_picture_has_room_for() -> None:
    assert scales_for((176, 500)) == (11, WEIGHTS)
    for side in range(6, 200):
        window, weights = scales_for((side, 300))
        assert window % 2 == 1 and 3 <= window <= 11
        assert side // 2 ** (len(weights) - 1) >= window
        assert sum(weights) == pytest.approx(1.0, abs=1e-4)
    assert len(scales_for((175, 175))[1]) == 4


def test_identical_pictures_cost_nothing_and_opposite_ones_about_their_size() -> None:
    D, scaled = made("ms_ssim", DIGITS[:50, None], "shared")
    x = scaled(DIGITS[:50, None])
    assert float(D.distance(x, x[None]).abs().max()) < 1e-3
    opposite = scaled(16 - DIGITS[:50, None])
    cost = D.distance(x, opposite[None])
    assert (cost > 0.6 * 64).all() and (cost <= 64).all()


def test_ms_ssim_is_the_same_in_any_units() -> None:
    a, b = pictures(3, 2, 20, 20)
    expected = measured(a, b)
    for factor, shift in ((1.0, 0.0), (500.0, -100.0)):
        rows = np.concatenate([a, np.zeros((1, 2, 20, 20)), np.ones((1, 2, 20, 20))])
        D, scaled = made("ms_ssim", factor * rows + shift, "shared")
        x, output = (scaled(factor * t + shift) for t in (a, b))
        cost = D.distance(x, torch.stack([output, output]))
        assert cost.shape == (2, 3)
        torch.testing.assert_close(cost[1], 800 * (1 - expected), rtol=1e-3, atol=1e-2)


def test_channels_are_averaged_and_rows_stand_alone() -> None:
    a, b = pictures(4, 3, 24, 24)
    together = measured(a, b)
    each = torch.stack([measured(a[:, [c]], b[:, [c]]) for c in range(3)], -1)
    torch.testing.assert_close(together, each.mean(-1))
    torch.testing.assert_close(measured(a[2:3], b[2:3])[0], together[2])


def test_the_loss_of_the_structural_vae_is_its_formula() -> None:
    X = DIGITS[:40] / 16
    vae = MSSSIMVAE(latent_dim=3, beta=2.0, max_epochs=2, random_state=0).fit(X)
    assert not hasattr(vae, "log_likelihood") and vae.sample(3, random_state=0).shape == (3, 8, 8)
    x = vae.scaling_.apply(torch.from_numpy(X[:, None]))
    with torch.no_grad():
        trace = vae.model_(x, Clock(), torch.Generator().manual_seed(0))
        loss = float(vae.objective_(vae.model_, trace)["model"])
        h = vae.model_.f(x).double().numpy()
    back = vae.scaling_.undo(trace.output[0]).numpy()
    window, weights = scales_for((8, 8))
    alike = [similarity(X[i], back[i, 0], window, weights) for i in range(40)]
    mean, log_variance = h[:, :3], h[:, 3:]
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    assert loss == pytest.approx(64 * (1 - np.mean(alike)) + 2.0 * kl.mean(), rel=1e-4)


def test_a_distance_that_is_no_density_has_no_likelihood() -> None:
    vae = VariationalAutoencoder(distance="ms_ssim", latent_dim=1, max_epochs=1).fit(DIGITS[:40])
    with pytest.raises(ParameterError, match="no density"):
        vae.log_likelihood(DIGITS[:4])
