"""The U-Net, its tiles, the pairs it learns from, and patches of images of any size."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows._types import Clock
from narrows.denoising import denoiser_model
from narrows.denoising.denoiser_model import (
    DenoiserModel,
    PSNRObjective,
    receptive_radius,
    size_multiple,
    tile_spans,
    unet,
)
from narrows.denoising.noise_pairs import (
    AddedNoise,
    RecorruptedToRecorrupted,
    ZeroShotNoise2Noise,
)
from narrows.parts.likelihoods.continuous import MSE
from narrows.training.patches import Patches, fill, symmetry, undo_symmetry

WIDTHS = (4, 6, 8)


def random_model(seed: int = 0, channels: int = 1, blocks: int = 1) -> DenoiserModel:
    """A model whose last layer is not zero, so that it changes its input."""
    rng = torch.Generator().manual_seed(seed)
    f, g = unet(channels, WIDTHS, blocks, rng)
    torch.nn.init.normal_(g.tail.weight, 0, 0.1, generator=rng)
    return DenoiserModel(f, g, MSE(), AddedNoise(0, 0.2)).double()


def random_image(height: int, width: int, channels: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand((channels, height, width), generator=rng, dtype=torch.float64)


# ---------------------------------------------------------------- networks and tiles


def test_a_new_model_changes_nothing() -> None:
    f, g = unet(1, WIDTHS, 1, torch.Generator().manual_seed(0))
    model, image = DenoiserModel(f, g, MSE(), AddedNoise(0, 1)), random_image(16, 16).float()
    assert torch.equal(model.restore(image[None], 0.1)[0], image)


@pytest.mark.parametrize("times", [0.1, 3.0, 255.0])
def test_scaling_image_and_noise_scales_the_output(times: float) -> None:
    model, image = random_model(), random_image(24, 20)
    with torch.no_grad():
        once = model.restore(image[None], 0.1)
        more = model.restore(times * image[None], 0.1 * times)
    torch.testing.assert_close(more, times * once)
    assert not torch.allclose(model.restore(image[None], 0.2), once)  # and the level matters


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_receptive_radius_is_an_upper_bound(blocks: int) -> None:
    model = random_model(blocks=blocks)
    radius = receptive_radius(WIDTHS, blocks)
    side = 2 * radius + 4 * size_multiple(WIDTHS)
    image = random_image(side, side)[None].requires_grad_()
    middle = side // 2
    model.restore(image, 0.1)[0, 0, middle, middle].backward()
    assert image.grad is not None
    farthest = int((image.grad[0, 0].nonzero() - middle).abs().max())
    # a bound that is far too large would make tiles slow
    assert radius / 2 <= farthest <= radius


@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.sampled_from([8, 16, 40]))
@settings(max_examples=40, deadline=None)
def test_tiles_give_what_the_whole_image_gives(height: int, width: int, side: int) -> None:
    model, image = random_model(), random_image(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser_model, "TILE_SIDE", 10**6)
        whole = model.restore_image(image, 0.1, 1)
        patch.setattr(denoiser_model, "TILE_SIDE", side)
        tiled = model.restore_image(image, 0.1, 1)
    assert whole.shape == image.shape
    torch.testing.assert_close(tiled, whole)


def test_tiles_cover_each_pixel_once() -> None:
    seen = np.zeros((100, 130), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoiser_model, "TILE_SIDE", 32)
        for (top, bottom, *_), (left, right, *_) in product(
            tile_spans(100, 16, 4), tile_spans(130, 16, 4)
        ):
            seen[top:bottom, left:right] += 1
        for start, stop, first, last in tile_spans(130, 16, 4):
            assert 0 <= first <= start < stop <= last <= 130
            assert first % 4 == 0
    assert (seen == 1).all()


def test_with_eight_views_the_output_rotates_with_the_image() -> None:
    model = random_model()
    even = random_image(20, 32)
    answer = model.restore_image(even, 0.1, 8)
    for k in range(8):
        turned = model.restore_image(symmetry(even, k).contiguous(), 0.1, 8)
        torch.testing.assert_close(undo_symmetry(turned, k), answer)


def test_the_eight_symmetries_differ_and_are_undone() -> None:
    image = random_image(5, 5)
    all_eight = [symmetry(image, k) for k in range(8)]
    assert all(torch.equal(undo_symmetry(s, k), image) for k, s in enumerate(all_eight))
    assert sum(torch.equal(a, b) for a, b in product(all_eight, all_eight)) == 8


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (5, 16)])
def test_fill_pads_like_numpy_symmetric(height: int, width: int) -> None:
    image = random_image(height, width)
    filled = fill(image, 12, 16)
    below, beside = max(0, 12 - height), max(0, 16 - width)
    expected = np.pad(image.numpy(), ((0, 0), (0, below), (0, beside)), mode="symmetric")
    np.testing.assert_array_equal(filled.numpy(), expected)


# ---------------------------------------------------------------- pairs and patches


def test_the_noises_of_input_and_target_are_independent() -> None:
    rng = torch.Generator().manual_seed(0)
    sigma, n = 0.3, 400_000
    noise = sigma * torch.randn((1, 1, 1, n), generator=rng)
    given_, target, level = RecorruptedToRecorrupted(sigma, alpha=0.5).pair(noise, rng)
    covariance = float((given_ * target).mean())
    assert abs(covariance) < 4 * float(given_.std() * target.std()) / np.sqrt(n)
    assert float(given_.std()) == pytest.approx(float(level), rel=0.01)
    assert float(target.std()) == pytest.approx(sigma * np.sqrt(1 + 4), rel=0.01)


def test_input_and_target_of_half_size_share_no_pixel_and_keep_the_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.arange(48.0).reshape(1, 1, 6, 8).requires_grad_()
    given_, target, level = ZeroShotNoise2Noise(0.2).pair(image, rng)
    grads = [torch.autograd.grad(x.sum(), image, retain_graph=True)[0] for x in (given_, target)]
    assert torch.equal(grads[0] + grads[1], torch.full_like(image, 0.5))
    assert not (grads[0] * grads[1]).any()
    assert float(level) == pytest.approx(0.2 / np.sqrt(2))


def test_noisy_targets_give_the_minimum_of_clean_targets() -> None:
    # one number per image to learn, so both minima are closed forms: the gradient of the mean
    # loss over noisy pairs is that over clean pairs at the input's level
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn((4000, 1, 8, 8), generator=rng)
    sigma = 0.5
    y = clean + sigma * torch.randn(clean.shape, generator=rng)
    given_, target, level = RecorruptedToRecorrupted(sigma).pair(y, rng)
    learned = float((given_ * target).mean() / given_.square().mean())
    s = float(level[0])
    assert learned == pytest.approx(1 / (1 + s**2), rel=0.02)


def test_added_noise_has_its_level() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.zeros((2000, 1, 16, 16))
    y, target, level = AddedNoise(0.1, 0.3).pair(x, rng)
    assert target is x
    found = y.flatten(1).std(1)
    assert 0.08 < float(found.min()) < 0.12 and 0.28 < float(found.max()) < 0.34
    ratio = level.flatten() / found
    assert float(ratio.mean()) == pytest.approx(1, abs=0.01)


def test_the_score_is_minus_the_psnr() -> None:
    model, rng = random_model().float(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        trace = model(random_image(16, 16)[None].float(), Clock(), rng)
    objective = PSNRObjective()
    objective(model, trace)
    error = float((trace.x - trace.output[0]).square().mean())
    assert float(objective.score(trace)) == pytest.approx(10 * np.log10(error), rel=1e-4)


def patches(images: list[np.ndarray], side: int = 16) -> Patches:
    return Patches(
        images=images,
        sizes=[image.shape[:2] for image in images],  # type: ignore[misc]
        whites=[255.0] * len(images),
        side=side,
        channels=1,
        nbytes=sum(image.nbytes for image in images),
    )


def test_patches_follow_from_the_order_and_can_skip_batches() -> None:
    images = [np.full((40, 30), 10 * i, np.uint8) for i in range(1, 9)]
    every = list(patches(images).shuffled(16, torch.Generator().manual_seed(3)))
    again = list(patches(images).shuffled(16, torch.Generator().manual_seed(3), skip=10))
    assert len(every) == len(again) + 10
    assert all(torch.equal(a, b) for a, b in zip(every[10:], again, strict=True))
    halves = [
        list(patches(images).shuffled(16, torch.Generator().manual_seed(3), share=(rank, 2)))
        for rank in (0, 1)
    ]
    for whole, first, second in zip(every, *halves, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))


def test_patches_of_images_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from narrows.training import patches as module

    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 3000)
    images = [np.full((40, 30), i, np.uint8) for i in range(8)]
    seen = torch.cat(list(patches(images).shuffled(16, torch.Generator().manual_seed(0))))
    found, counts = torch.unique((seen[:, 0, 0, 0] * 255).round(), return_counts=True)
    assert found.tolist() == list(range(8))
    assert float(counts.float().std()) < 0.4 * float(counts.float().mean())
