"""PSNR, SSIM and classical filters: closed forms, and what every filter must keep and gain."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from narrows import InputError, ParameterError
from narrows.denoising.compare_filters import FILTERS, OPPONENT, run_filters, total_variation
from narrows.denoising.image_quality import psnr, ssim

RNG = np.random.default_rng(0)
SHAPES = [(1, 1), (1, 1, 3), (3, 200), (40, 1, 3), (33, 57), (64, 64, 3)]
every_filter = pytest.mark.parametrize("name", FILTERS)


def scene(colour: bool) -> Any:
    """Flat areas, an edge, a slope and fine stripes, white = 1."""
    y, x = np.mgrid[:96, :96] / 96
    grey = np.where(x + y < 0.8, 0.2, 0.5 + 0.4 * x) + 0.1 * (y > 0.8) * np.sin(60 * x)
    image = np.stack([grey, grey**2, 1 - grey], axis=-1) if colour else grey
    return image.astype(np.float32)


# ---------------------------------------------------------------- PSNR and SSIM


@pytest.mark.parametrize(("dtype", "white"), [("u1", 255), ("u2", 65535), ("f4", 1.0)])
def test_psnr_of_a_constant_shift_is_its_closed_form(dtype: str, white: float) -> None:
    clean = np.full((5, 7, 3), white // 5 if white > 1 else 0.25, dtype)
    shift = white // 5 if white > 1 else 0.25
    expected = 20 * np.log10(white / shift)
    assert psnr(clean, clean + clean.dtype.type(shift)) == pytest.approx(expected, abs=1e-5)
    assert psnr(clean + clean.dtype.type(shift), clean) == pytest.approx(expected, abs=1e-5)
    assert psnr(clean, clean) == float("inf")


@pytest.mark.parametrize("shape", [(3, 3), (3, 300), (10, 12), (11, 11, 3), (40, 30, 3)])
def test_ssim_of_equal_images_is_one(shape: tuple[int, ...]) -> None:
    image = RNG.integers(0, 255, shape).astype(np.uint8)
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)
    assert (ssim(image, 255 - image) or 0) < 0.5


def test_ssim_of_a_constant_shift_is_its_closed_form() -> None:
    """Two flat images differ in their means only: (2ab + c) / (a² + b² + c), c = (0.01 · 255)²."""
    clean, image = np.full((20, 20), 100, np.uint8), np.full((20, 20), 130, np.uint8)
    c = (0.01 * 255) ** 2
    expected = (2 * 100 * 130 + c) / (100**2 + 130**2 + c)
    assert ssim(clean, image) == pytest.approx(expected, abs=1e-9)


def test_images_too_small_for_a_window_have_no_ssim() -> None:
    assert ssim(np.zeros((2, 50)), np.zeros((2, 50))) is None


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_psnr_and_ssim_refuse_other_shapes_and_dtypes(measure: Any) -> None:
    clean = np.zeros((8, 8), np.uint8)
    for other in (clean[:4], clean.astype(np.uint16)):
        with pytest.raises(InputError, match="one shape and dtype"):
            measure(clean, other)
    with pytest.raises(InputError, match="no known value of white"):
        measure(clean.astype(int), clean.astype(int))


# ---------------------------------------------------------------- filters


@every_filter
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_keep_the_shape_and_return_float32(name: str, shape: tuple[int, ...]) -> None:
    image = RNG.random(shape, np.float32)
    before = image.copy()
    out = FILTERS[name](image, 0.1)
    assert out.shape == shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert (image == before).all()


@every_filter
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("sigma", [10, 50])
def test_every_filter_removes_noise(name: str, colour: bool, sigma: int) -> None:
    clean = scene(colour)
    noisy = clean + sigma / 255 * RNG.normal(size=clean.shape).astype(np.float32)
    gain = psnr(clean, FILTERS[name](noisy, sigma / 255)) - psnr(clean, noisy)
    assert gain > (1.5 if sigma == 10 else 7)  # the Gaussian gains least: it blurs edges


@every_filter
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_images_without_noise_and_flat_images_stay_as_they_are(name: str, colour: bool) -> None:
    clean = scene(colour)
    assert (FILTERS[name](clean, 0.0) == clean).all()
    flat = np.full_like(clean, 0.3)
    assert np.abs(FILTERS[name](flat, 0.1) - flat).max() < 1e-5


@every_filter
def test_filtering_commutes_with_transposing(name: str) -> None:
    """No axis is treated unlike the other."""
    noisy = scene(False)[:, :80] + 0.1 * RNG.normal(size=(96, 80)).astype(np.float32)
    out, turned = FILTERS[name](noisy, 0.1), FILTERS[name](np.ascontiguousarray(noisy.T), 0.1)
    assert np.abs(out - turned.T).mean() < 1e-3


def test_lightness_is_the_mean_and_the_colour_rotation_is_orthogonal() -> None:
    assert np.allclose(OPPONENT[0], 1 / 3)
    assert np.allclose(3 * OPPONENT @ OPPONENT.T, np.eye(3))


def test_grey_in_three_channels_is_filtered_like_grey_of_less_noise() -> None:
    """Lightness is filtered as a grey image of noise σ/√3, and equal channels have nothing else."""
    noisy = scene(False) + 0.1 * RNG.normal(size=(96, 96)).astype(np.float32)
    colour = total_variation(np.repeat(noisy[..., None], 3, axis=2), 0.1)
    grey = total_variation(noisy, 0.1 / 3**0.5)
    assert np.abs(colour - grey[..., None]).max() < 1e-4


@pytest.mark.parametrize(
    ("image", "sigma", "error", "words"),
    [
        (np.zeros((4, 4, 2)), 0.1, InputError, r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4)), 0.1, InputError, r"shape \(0, 4\)"),
        (np.full((4, 4), np.nan), 0.1, InputError, "NaN"),
        (np.zeros((4, 4)), -1.0, ParameterError, "sigma=-1.0"),
        (np.zeros((4, 4)), np.nan, ParameterError, "sigma=nan"),
    ],
)
@every_filter
def test_bad_input_is_refused(name: str, image: Any, sigma: float, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        FILTERS[name](image, sigma)


@every_filter
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pywt", "skimage.filters", "skimage.restoration"):
        monkeypatch.setitem(sys.modules, module, None)
    wanted = "PyWavelets" if name == "wavelet" else "scikit-image"
    with pytest.raises(ParameterError, match=f"{wanted}, which is not installed"):
        FILTERS[name](np.zeros((8, 8), np.float32), 0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_run_filters_keeps_dtype_and_scale(dtype: Any) -> None:
    """σ is on the scale to 255 whatever the depth: the same image gives the same answer."""
    clean = scene(False)
    noisy = (clean + 20 / 255 * RNG.normal(size=clean.shape)).clip(0, 1)
    top = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    given = np.rint(noisy * 255) / 255 * top
    found = run_filters(given.astype(dtype), 20.0)
    assert list(found) == list(FILTERS)
    for name, (image, seconds) in found.items():
        assert image.dtype == dtype
        assert seconds >= 0
        expected = FILTERS[name]((given / top).astype(np.float32), 20 / 255).clip(0, 1)
        assert np.abs(image / top - expected).max() < 1 / 255
