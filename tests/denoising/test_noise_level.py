"""The estimated noise level is the true one; the Anscombe transform makes photon noise white."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from sklearn.datasets import load_sample_image

from narrows.denoising import noise_level
from narrows.denoising.noise_level import (
    AnscombeTransform,
    _fit_line,
    estimate_noise_level,
    estimate_photon_noise,
    fit_anscombe,
)


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    grey = load_sample_image("china.jpg").mean(-1)
    # halved: the compression's own noise and blocks are averaged out
    return torch.from_numpy(grey[:426, :640].reshape(213, 2, 320, 2).mean((1, 3))).float()


@pytest.mark.parametrize("sigma", [10.0, 25.0, 50.0])
def test_white_noise_on_a_photograph_is_estimated(photograph: torch.Tensor, sigma: float) -> None:
    rng = torch.Generator().manual_seed(int(sigma))
    noise = sigma * torch.randn((2, *photograph.shape), generator=rng)
    assert estimate_noise_level(photograph + noise) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("name", ["camera", "grass", "gravel", "coins", "brick", "page", "coffee"])
def test_texture_is_not_taken_for_noise(name: str) -> None:
    image = torch.from_numpy(getattr(skimage.data, name)()).float()
    if name in ("camera", "coffee"):  # sharper than a photograph of this size usually is
        image = image[::2, ::2]
    image = image.movedim(-1, 0) if image.ndim == 3 else image
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    levels = [estimate_noise_level(image + sigma * noise) for sigma in (0, 2, 5, 15, 50)]
    assert levels[0] < 4
    assert levels[1] < 4
    assert levels[2] == pytest.approx(5, abs=1 if name in ("grass", "gravel") else 0.35)
    assert levels[3:] == pytest.approx([15, 50], rel=0.07)


def test_the_estimate_has_no_bias_on_an_edge_between_two_textures() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.arange(256.0)
    stripes = 100 * torch.sin(0.9 * x)[:, None] * torch.ones(256)
    checks = 60 * ((x[:, None] // 2 + x // 3) % 2)
    clean = torch.where(x < 170, stripes, torch.where(x < 220, checks, x[:, None]))
    levels = [
        estimate_noise_level(clean + 8 * torch.randn(clean.shape, generator=rng)) for _ in range(4)
    ]
    assert np.mean(levels) == pytest.approx(8, rel=0.04)


def test_clipped_noise_is_left_out(photograph: torch.Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    dark = torch.cat([photograph + 60, torch.zeros(300, 320)])  # more than half of it is black
    noisy = dark + 25 * torch.randn(dark.shape, generator=rng)
    above = noisy[: len(photograph)]
    assert estimate_noise_level(noisy.clamp(0, 400)) == pytest.approx(
        estimate_noise_level(above), rel=0.05
    )


def test_the_estimate_scales_with_the_image_and_ignores_a_shift(photograph: torch.Tensor) -> None:
    level = estimate_noise_level(photograph)
    assert estimate_noise_level(3 * photograph) == pytest.approx(3 * level, rel=1e-4)
    assert estimate_noise_level(photograph + 1000) == pytest.approx(level, rel=1e-2)


@pytest.mark.parametrize("shape", [(64, 64), (9, 300), (40, 8), (3, 100, 50)])
def test_pure_noise_of_any_shape(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(7)
    levels = [estimate_noise_level(torch.randn(shape, generator=rng)) for _ in range(8)]
    assert np.mean(levels) == pytest.approx(1, rel=0.08)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 20_000)])
def test_tiny_and_thin_images_have_an_estimate(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(7)
    assert 0 <= estimate_noise_level(torch.rand(shape, generator=rng)) < 1
    assert estimate_noise_level(torch.full(shape, 3.0)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("side", [30, 80, 200])
def test_of_a_large_image_a_grid_of_about_as_many_patches_is_used(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_level, "MAX_PATCHES", 400)
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    assert 100 < len(noise_level._patches(noise)[0]) <= 440
    assert estimate_noise_level(noise) == pytest.approx(1, rel=0.15)


def test_photon_noise_is_a_line_over_brightness() -> None:
    rng = torch.Generator().manual_seed(0)
    clean = torch.linspace(5, 250, 400).expand(300, 400).contiguous()
    a, b = 2.0, 3.0
    found = []
    for _ in range(4):
        noisy = a * torch.poisson(clean / a, generator=rng)
        noisy = noisy + b * torch.randn(clean.shape, generator=rng)
        found.append(estimate_photon_noise(noisy))
    slope, floor = np.mean(found, 0)
    assert slope == pytest.approx(a, rel=0.1)
    assert slope * 5 + floor**2 == pytest.approx(a * 5 + b**2, rel=0.35)


def test_the_line_is_that_of_most_points_within_what_a_noise_can_be() -> None:
    """variance = a·mean + b², a and b² at least 0, whatever a third of the points are."""
    means = torch.linspace(0.0, 200.0, 90)
    for a, b in ((2.0, 3.0), (0.5, 0.0), (0.0, 4.0)):
        variances = a * means + b**2
        assert _fit_line(means, variances) == pytest.approx((a, b), abs=0.01)
        variances[torch.arange(0, 90, 3)] += 500.0  # texture
        assert _fit_line(means, variances) == pytest.approx((a, b), rel=0.05, abs=0.3)
    assert _fit_line(means, 100 - 0.3 * means)[0] == 0.0  # noise does not fall with brightness
    slope, floor = _fit_line(means, 2.0 * means - 30.0)  # below 0 at first: through the origin
    assert floor == 0.0 and 1.5 < slope < 2.0
    assert _fit_line(torch.zeros(9), torch.linspace(0, 1, 9))[0] == 0.0  # all is black
    assert _fit_line(torch.zeros(9), torch.full((9,), -1e-9)) == (0.0, 0.0)


def test_the_transform_makes_the_noise_one_everywhere_and_its_inverse_has_no_bias() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = 1.5, 2.0
    transform = AnscombeTransform(a, b)
    for brightness in (5.0, 20.0, 100.0, 250.0):
        clean = torch.full((400, 400), brightness)
        noisy = a * torch.poisson(clean / a, generator=rng)
        noisy = noisy + b * torch.randn(clean.shape, generator=rng)
        stabilized = transform.forward(noisy)
        assert float(stabilized.std()) == pytest.approx(1, rel=0.05)
        assert float(transform.inverse(stabilized.mean())) == pytest.approx(brightness, rel=0.01)


def test_an_image_without_photon_noise_has_no_transform() -> None:
    assert fit_anscombe(torch.full((50, 50), 0.5)) is None
