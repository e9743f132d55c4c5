"""The Denoiser: how much noise it removes, what it accepts and what it refuses."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import narrows
import narrows.denoising.denoiser as denoiser_file
from narrows import Denoiser, InputError, ParameterError
from narrows.denoising.denoiser import TRAINING_LEVEL
from narrows.exceptions import FileError
from narrows.io.photographs import Images


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    grey = load_sample_image("flower.jpg").mean(-1)[100:356, 150:406]
    return grey.round().astype(np.uint8)


def psnr(clean: np.ndarray, image: np.ndarray) -> float:
    error = np.mean((clean.astype(float) - np.clip(image, 0, 255)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="module")
def fitted(photograph: np.ndarray) -> Denoiser:
    images = [photograph[:128], photograph[128:, :128], photograph[128:, 128:]]
    return Denoiser(channels=(8, 16, 16), max_epochs=6, patch_size=32, random_state=0).fit(images)


@pytest.mark.parametrize("given", [None, 3.0, {"a": 1}])
def test_what_is_no_image_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="give an image, several, or a folder"):
        Denoiser(max_epochs=1).fit(given)


def test_noise_of_any_level_is_removed(fitted: Denoiser, photograph: np.ndarray) -> None:
    for sigma in (10, 25, 50):
        rng = np.random.default_rng(sigma)
        noisy = photograph + rng.normal(0, sigma, photograph.shape)
        noisy = noisy.round().clip(0, 255).astype(np.uint8)
        restored = fitted.denoise(noisy)
        assert restored.dtype == np.uint8 and restored.shape == noisy.shape
        assert psnr(photograph, restored) > psnr(photograph, noisy) + 3


def test_products_in_bfloat16_change_images_of_8_bits_little_and_no_others(
    fitted: Denoiser, photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, rng = copy.copy(fitted), np.random.default_rng(0)
    noisy = (photograph + rng.normal(0, 25, photograph.shape)).round().clip(0, 255).astype(np.uint8)
    deep = noisy.astype(np.uint16) * 257
    found = {}
    for precision, hardware in (("float32", True), ("auto", True), ("auto", False)):
        fitted.set_params(precision=precision)
        monkeypatch.setattr(denoiser_file, "multiplies_bfloat16", lambda device, has=hardware: has)
        found[precision, hardware] = fitted.denoise(noisy), fitted.denoise(deep)
    exact, rounded, without = (pair[0].astype(int) for pair in found.values())
    assert 0 < np.abs(rounded - exact).max() <= 2
    np.testing.assert_array_equal(without, exact)
    assert all((pair[1] == found["float32", True][1]).all() for pair in found.values())
    asked = fitted.set_params(precision="bfloat16").denoise(deep)  # as asked, whatever the image
    assert 0 < np.abs(asked - found["float32", True][1].astype(float)).max() < 2 * 257


def test_one_noisy_image_is_enough_to_learn_from(photograph: np.ndarray) -> None:
    noisy = photograph + np.random.default_rng(0).normal(0, 25, photograph.shape)
    model = Denoiser(
        noisy_targets=True, channels=(8, 16, 16), max_epochs=6, patch_size=32, random_state=0
    )
    restored = model.fit([noisy]).denoise(noisy)
    assert psnr(photograph, restored) > psnr(photograph, noisy) + 5


def test_photon_noise_meets_the_network_as_white_noise_of_the_level_it_is_told(
    photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White is 1 there; a network that changes nothing gives the image back."""
    usual = {"channels": (8,), "max_epochs": 0, "patch_size": 32, "random_state": 0}
    model = Denoiser(noise="photon", **usual).fit([photograph])
    shown: list[tuple[float, float, float]] = []

    def nothing(self: object, planes: torch.Tensor, level: float, views: int) -> torch.Tensor:
        flat = planes[:, :, :200]
        shown.append((float(planes.max()), float(flat.std(1).mean()), level))
        return planes

    monkeypatch.setattr(type(model.model_), "restore_image", nothing)
    rng = np.random.default_rng(0)
    clean = np.broadcast_to(np.linspace(40, 200, 200), (300, 200))
    noisy = np.float32(3.0 * rng.poisson(clean / 3.0))
    answer = model.denoise(noisy)
    (brightest, spread, level), *more = shown
    assert brightest == pytest.approx(1.0) and more == []
    assert spread == pytest.approx(level, rel=0.1)
    assert np.abs(answer - noisy).max() < 3.0  # the inverse is of means: less than a photon off


def test_a_loaded_model_gives_the_same_bits(fitted: Denoiser, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "d.safetensors")
    again = narrows.load(path)
    image = np.random.default_rng(0).random((37, 41)).astype(np.float32)
    np.testing.assert_array_equal(again.denoise(image), fitted.denoise(image))
    assert again.info() == fitted.info()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FileError, match="damaged"):
        narrows.load(path)


def test_a_resumed_run_gives_the_same_bits(photograph: np.ndarray, tmp_path: Path) -> None:
    run, killed = tmp_path / "run.checkpoint", tmp_path / "killed.checkpoint"
    images = [photograph[:64, :64], photograph[64:128, :64]]

    def fit(**more: object) -> Denoiser:
        model = Denoiser(channels=(4, 8), max_epochs=3, random_state=1, patch_size=16)
        return model.set_params(**more).fit(images)

    def keep(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:  # the file is that of the epoch before
            shutil.copy(run, killed)

    once = fit()
    kept = fit(checkpoint=run, checkpoint_every=1, listeners=keep)
    again = fit(checkpoint=killed, resume=True)
    image = photograph[:50, :50]
    for other in (kept, again):
        np.testing.assert_array_equal(other.denoise(image), once.denoise(image))
        assert other.n_iter_ == 3
    with pytest.raises(InputError, match="other data"):
        images.reverse()
        fit(checkpoint=run, resume=True)


@pytest.mark.slow
def test_two_processes_learn_as_well_as_one(photograph: np.ndarray) -> None:
    images = [photograph[:64, :64], photograph[64:128, :64]]
    given_ = {"channels": (4, 8), "max_epochs": 1, "random_state": 1, "patch_size": 16}
    one, two = (Denoiser(n_devices=n, **given_).fit(images) for n in (1, 2))
    # each process draws its own noise inside a step, so the results are similar, not the same
    assert two.info()["training"]["psnr"] == pytest.approx(one.info()["training"]["psnr"], abs=0.5)
    assert two.n_iter_ == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 400), (20, 30, 3)])
def test_shape_and_dtype_are_kept(fitted: Denoiser, shape: tuple[int, ...], dtype: type) -> None:
    white = {np.float32: 1, np.uint16: 60_000}.get(dtype, 200)
    image = (np.random.default_rng(0).random(shape) * white).astype(dtype)
    image.flat[0] = white
    restored = fitted.denoise(image)
    assert restored.shape == shape and restored.dtype == dtype
    assert np.isfinite(restored).all()


def test_lists_stacks_files_and_folders_give_the_same(fitted: Denoiser, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 20, 24), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    stack = fitted.denoise(images)
    assert stack.shape == images.shape
    for answers in (fitted.denoise(list(images)), fitted.denoise(tmp_path)):
        np.testing.assert_array_equal(np.stack(answers), stack)
    np.testing.assert_array_equal(fitted.denoise(tmp_path / "1.png"), stack[1])
    picture = Image.fromarray(images[1])
    np.testing.assert_array_equal(fitted.denoise(picture), stack[1])
    assert fitted.estimate_noise(picture) == fitted.estimate_noise(images[1])
    assert fitted.estimate_noise(images[0]) == pytest.approx(fitted.estimate_noise([*images])[0])


def test_floats_to_1_and_to_255_give_the_same(fitted: Denoiser, photograph: np.ndarray) -> None:
    noisy = photograph[:64, :64] + np.random.default_rng(0).normal(0, 20, (64, 64))
    as_floats = fitted.denoise((noisy / 255).astype(np.float32))
    in_bytes = fitted.denoise(noisy.astype(np.float32))
    np.testing.assert_allclose(in_bytes, 255 * as_floats, atol=0.01)


@pytest.mark.slow
def test_clipped_noise_and_single_images_use_halves(photograph: np.ndarray) -> None:
    noisy = photograph + np.random.default_rng(0).normal(0, 25, photograph.shape)
    clipped = noisy.round().clip(0, 255).astype(np.uint8)
    made = {}
    for name, images in {"whole": [noisy, noisy], "clipped": [clipped] * 2, "one": [noisy]}.items():
        model = Denoiser(
            noisy_targets=True, channels=(4, 8), patch_size=16, max_epochs=0, random_state=0
        )
        made[name] = model.fit(images).choices_.pairs
    assert made == {"whole": "recorrupted", "clipped": "halves", "one": "halves"}
    model = Denoiser(noisy_targets=True, channels=(8, 16), max_epochs=5, patch_size=32)
    restored = model.set_params(random_state=0).fit([clipped]).denoise(clipped)
    assert psnr(photograph, restored) > psnr(photograph, clipped) + 3


@pytest.mark.slow
def test_photon_noise_is_removed(photograph: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noisy = 6.0 * rng.poisson(photograph / 6.0)
    model = Denoiser(
        noisy_targets=True,
        noise="photon",
        channels=(8, 16, 16),
        max_epochs=6,
        patch_size=32,
        random_state=0,
    )
    restored = model.fit([noisy]).denoise(noisy)
    assert psnr(photograph, restored) > psnr(photograph, noisy) + 5
    assert abs(restored.mean() - photograph.mean()) < 0.02 * photograph.mean()


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1, ::-1],
        lambda x: x[::2, ::3],
        lambda x: x.astype(">f4") / 255,
        lambda x: x.astype(">u2") * 257,
        lambda x: x.astype(int),
        lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    ],
)
def test_the_layout_in_memory_does_not_matter(fitted: Denoiser, view: Any) -> None:
    image = view(np.random.default_rng(0).integers(0, 255, (30, 36), dtype=np.uint8))
    plain = np.array(image, dtype=image.dtype.newbyteorder("="), order="C")
    restored = fitted.denoise(image)
    assert restored.dtype == image.dtype
    np.testing.assert_array_equal(restored, fitted.denoise(plain))


def test_grey_stored_in_three_channels_is_treated_as_grey(photograph: np.ndarray) -> None:
    noisy = photograph[:96, :96] + np.random.default_rng(0).normal(0, 25, (96, 96))
    noisy = noisy.round().clip(0, 255).astype(np.uint8)
    model = Denoiser(
        noisy_targets=True, channels=(4, 8), patch_size=16, max_epochs=1, random_state=0
    )
    alone = model.fit([noisy]).denoise(noisy)
    three = np.dstack([noisy] * 3)
    np.testing.assert_array_equal(model.fit([three]).denoise(three), np.dstack([alone] * 3))


@pytest.mark.slow
def test_a_model_of_colour_images_denoises_grey_ones(photograph: np.ndarray) -> None:
    colour = load_sample_image("flower.jpg")[100:228, 150:278]
    model = Denoiser(channels=(8, 16), max_epochs=5, patch_size=32, random_state=0)
    model.fit([colour, colour[:64]])
    noisy = photograph[:128, :128] + np.random.default_rng(0).normal(0, 25, (128, 128))
    clean = photograph[:128, :128]
    assert psnr(clean, model.denoise(noisy)) > psnr(clean, noisy) + 3


def test_validation_takes_enough_patches_of_any_size(photograph: np.ndarray) -> None:
    usual = {"channels": (8,), "max_epochs": 0, "random_state": 0}
    for side, least in ((16, 64), (64, 64), (128, 16)):
        model = Denoiser(patch_size=side, **usual).fit([photograph, photograph[:200]])
        assert model.rows_["validation"] == least


def test_validation_images_can_be_given(photograph: np.ndarray) -> None:
    model = Denoiser(channels=(4, 8), patch_size=16, max_epochs=1, random_state=0)
    model.fit([photograph[:64, :64]], X_val=[photograph[64:, :64]])
    assert model.info()["training"]["psnr"] > 10
    with pytest.raises(InputError, match="X_val holds colour"):
        model.fit([photograph[:64]], X_val=[load_sample_image("flower.jpg")[:50, :50]])


def test_warm_start_with_other_parameters_is_refused(photograph: np.ndarray) -> None:
    model = Denoiser(channels=(4, 8), patch_size=16, max_epochs=1, random_state=0, warm_start=True)
    model.fit([photograph[:64, :64]]).fit([photograph[:64, :64]])
    with pytest.raises(ParameterError, match="noisy_targets"):
        model.set_params(noisy_targets=True).fit([photograph[:64, :64]])


def test_a_fit_that_learned_nothing_warns(photograph: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="Nothing was learned"):
        Denoiser(max_epochs=5, max_time=1e-6, random_state=0).fit([photograph])


@pytest.mark.slow
def test_ten_bits_stored_in_sixteen_can_be_learned_from(photograph: np.ndarray) -> None:
    deep = (photograph * 2.0 + np.random.default_rng(0).normal(0, 50, photograph.shape)).clip(0)
    noisy = deep.round().astype(np.uint16)  # ten bits kept in sixteen
    model = Denoiser(
        noisy_targets=True, channels=(8, 16, 16), max_epochs=6, patch_size=32, random_state=0
    )
    with pytest.warns(UserWarning, match="white is taken as 65,535, a guess"):
        restored = model.fit([noisy]).denoise(noisy) / 2.0
    assert psnr(photograph, restored) > psnr(photograph, noisy / 2.0) + 5


def test_one_bright_pixel_changes_no_scale(photograph: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 50, photograph.shape)
    noisy = (photograph + noise) / 255
    model = Denoiser(noise_level=50.0, max_epochs=1, patch_size=16, channels=(4, 8), random_state=0)
    model.fit([photograph])
    plain, level = model.denoise(noisy, 50), model.estimate_noise(noisy)
    noisy[5, 5] = 2.05
    bright = model.denoise(noisy, 50)
    assert model.estimate_noise(noisy) == pytest.approx(level, rel=0.02)
    assert np.abs(bright - plain)[40:, 40:].max() < 1e-3


def test_few_stars_on_a_black_sky_set_the_scale_of_a_picture() -> None:
    sky = np.zeros((64, 64))
    sky[3, 4] = sky[50, 9] = 0.8
    model = Denoiser(noisy_targets=True, noise_level=0.1)
    levels = [model._scale(Images(sky * white, white), 0)[0] / white for white in (1.0, 255.0)]
    np.testing.assert_allclose(levels, 0.8e-3 / TRAINING_LEVEL)
    flat = model._scale(Images(np.full((64, 64), 0.5)), 0)[0]
    assert flat == pytest.approx(1 / TRAINING_LEVEL)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((0, 4), np.uint8), "no pixels"),
        (np.zeros((4, 4, 2), np.uint8), "transparency"),
        (np.zeros((40, 50, 4), np.uint8), "transparency"),
        (np.full((4, 4), 1e300), "1e\\+300"),
        (None, "NoneType"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.array([["a", "b"]]), "numbers"),
        (np.zeros(5), "shape"),
        ([], "no images"),
        (np.array([[-5, 2], [3, 4]]), "uint8"),
        ([np.zeros((4, 4, 4), np.uint8)], "transparency"),
        (np.ma.masked_less(np.arange(16).reshape(4, 4), 3), "masked values"),
        ([np.ma.masked_less(np.arange(16.0).reshape(4, 4), 3)], "masked values"),
        (np.ma.masked_less(np.arange(48).reshape(4, 4, 3) * 1.0, 3), "masked values"),
        (np.zeros((64, 64, 5)), r"one image of 5 channels; .* list\(X\) for 64 images of 64 × 5"),
        (np.zeros((40, 48, 13)), "one image of 13 channels"),
        (np.zeros((64, 64, 40)), "one image of 40 channels"),
        (np.zeros((2, 64, 48, 7)), "colours last"),
        (np.zeros((2, 3, 48, 50)), "colours last"),
    ],
)
def test_input_that_is_no_image_is_refused(fitted: Denoiser, bad: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fitted.denoise(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"noisy_targets": "none"},
        {"noise_level": -1},
        {"noise_level": (50, 5)},
        {"noisy_targets": True, "noise_level": (5, 50)},
        {"noisy_targets": True, "distance": "mae"},
        {"sides": 2},
        {"channels": ()},
        {"patch_size": 2},
    ],
)
def test_wrong_parameters_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        Denoiser(**bad).fit([np.zeros((32, 32), np.uint8)])  # type: ignore[arg-type]


def test_a_failed_fit_leaves_the_model_as_it_was(fitted: Denoiser) -> None:
    image = np.random.default_rng(0).random((16, 16))
    before = fitted.denoise(image)
    with pytest.raises(InputError):
        fitted.fit([np.full((8, 8), np.nan)])
    np.testing.assert_array_equal(fitted.denoise(image), before)
