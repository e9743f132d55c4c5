"""What c does, against closed forms: moments, shares, spans, and what a level means to a user."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import ndimage
from torch import Tensor

import narrows
from helpers.command import TINY, done, refused
from helpers.small_data import curve
from narrows import DenoisingAutoencoder, InputError, ParameterError
from narrows.parts.corruptions import CORRUPTIONS, Noise

SIGNALS = np.random.default_rng(0).normal(size=(60, 2, 40)).cumsum(2)
SHAPES = {name: (2, 40) if 1 not in c.events else (6,) for name, c in CORRUPTIONS.items()}


def make(name: str, level: Any, shape: tuple[int, ...]) -> Noise:
    """The corruption of data from 0 to 4 in their own units."""
    c = CORRUPTIONS[name](level, shape)
    c.set_data_units(torch.zeros(shape), torch.zeros(shape), torch.full(shape, 4.0))
    return c


def apply(c: Noise, x: Tensor, seed: int = 0) -> Tensor:
    noisy, mask = c(x, torch.Generator().manual_seed(seed))
    assert mask is None
    return noisy


def rows(name: str, n: int = 50, seed: int = 0) -> Tensor:
    return 4 * torch.rand((n, *SHAPES[name]), generator=torch.Generator().manual_seed(seed))


def near(found: Tensor, mean: float, deviation: float) -> bool:
    """Whether the mean of independent draws is within four standard errors."""
    return abs(float(found.double().mean()) - mean) < 4 * deviation / math.sqrt(found.numel())


def fit(data: Any = SIGNALS, **kwargs: Any) -> DenoisingAutoencoder:
    base = {"latent_dim": 3, "max_epochs": 1, "random_state": 0}
    return DenoisingAutoencoder(**{**base, **kwargs}).fit(data)


@pytest.mark.parametrize("level", ["auto", (0.1, 0.9)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_generator_given_makes_all_the_noise(name: str, level: Any) -> None:
    x, c = rows(name), make(name, level, SHAPES[name])
    before, state = x.clone(), torch.random.get_rng_state()
    first, again, other = apply(c, x), apply(c, x), apply(c, x, seed=1)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "blur" and level == "auto")  # it draws nothing
    assert first.dtype == torch.float32
    assert first.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_level_zero_changes_nothing(name: str) -> None:
    assert torch.equal(apply(make(name, 0.0, SHAPES[name]), rows(name)), rows(name))


@pytest.mark.parametrize("value", [0.5, 4.0])
@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_mean_and_variance_are_those_of_the_formula(name: str, value: float) -> None:
    level, n = 0.3, 200_000
    noisy = apply(make(name, level, (n,)), torch.full((1, n), value)).double()
    variance = level**2 if name == "gaussian" else level**2 * 4.0 * value
    assert near(noisy, value, math.sqrt(variance))
    # fourth central moments: 3 σ⁴, and of u N (N ~ Poisson) 3 σ⁴ + u² σ²
    excess = 0.0 if name == "gaussian" else (level**2 * 4.0) ** 2 * variance
    spread = math.sqrt(2 * variance**2 + excess)
    assert near((noisy - value).square(), variance, spread)


def test_poisson_noise_counts_in_whole_numbers_from_zero() -> None:
    noisy = apply(make("poisson", 0.5, (1000,)), 4 * torch.rand(20, 1000))
    counts = noisy / (0.5**2 * 4.0)  # one count is level² of the largest value
    assert_allclose(counts, counts.round(), atol=1e-4)
    none = apply(make("poisson", 0.5, (9999,)), torch.full((1, 9999), 4.0)) == 0
    assert near(none.float(), math.exp(-4), math.sqrt(math.exp(-4)))  # of 4 expected


def test_poisson_noise_is_in_the_users_units() -> None:
    """Whatever shift and scale are inside: 25 counts at the largest value of each channel."""
    rng = np.random.default_rng(0)
    data = np.stack([rng.uniform(0, 10, (400, 7, 5)), rng.uniform(50, 2000, (400, 7, 5))], 1)
    est = fit(data, noise="poisson", noise_level=0.2)
    added = (est.corrupt(data, random_state=1) - data) ** 2
    for channel in range(2):
        top = data[:, channel].max()
        expected = (0.2**2 * top * data[:, channel]).mean()
        assert added[:, channel].mean() == pytest.approx(expected, rel=0.04)
    with pytest.raises(InputError, match="never below 0"):
        fit(data - 20, noise="poisson")


def test_poisson_noise_survives_columns_of_nothing_and_bytes() -> None:
    table = np.hstack([np.random.default_rng(0).poisson(5, (60, 5)), np.zeros((60, 1), int)])
    noisy = fit(table, noise="poisson").corrupt(table)
    assert noisy.dtype == np.float32
    assert np.isfinite(noisy).all()
    assert_allclose(noisy[:, 5], 0, atol=1e-6)


@pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "swap"])
def test_the_share_hit_is_the_level(name: str) -> None:
    level = 0.3
    x = torch.rand((2000, 50), generator=torch.Generator().manual_seed(1)) + 1
    noisy = apply(make(name, level, (50,)), x)
    share = level * (1 - 1 / 2000) if name == "swap" else level  # a row may be swapped with itself
    assert near((noisy != x).float(), share, math.sqrt(share * (1 - share)))
    if name == "salt_and_pepper":
        for end in (x.min(), x.max()):
            assert near((noisy == end).float(), level / 2, math.sqrt(level / 2))
    if name == "masking":
        assert not noisy[noisy != x].any()


def test_swap_noise_takes_every_value_from_its_own_column() -> None:
    x = torch.rand((500, 4)) + 10 * torch.arange(4)
    noisy = apply(make("swap", 0.9, (4,)), x)
    for j in range(4):
        assert torch.isin(noisy[:, j], x[:, j]).all()
        assert near(noisy[:, j] - x[:, j].mean(), 0.0, float(x[:, j].std()))


@pytest.mark.parametrize("shape", [(3, 50), (2, 31, 44)])
def test_blur_is_scipys_gaussian_filter(shape: tuple[int, ...]) -> None:
    x = torch.randn((4, *shape), generator=torch.Generator().manual_seed(0))
    sigma = (0, 0) + (1.7,) * (len(shape) - 1)
    expected = ndimage.gaussian_filter(x.double().numpy(), sigma, mode="mirror", truncate=4.0)
    assert_allclose(apply(make("blur", 1.7, shape), x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1, 20), (1, 2, 2)])
def test_blur_leaves_constants_whatever_the_size(shape: tuple[int, ...]) -> None:
    x = torch.full((5, *shape), 2.5)
    assert_allclose(apply(make("blur", (0.2, 30.0), shape), x), 2.5, rtol=1e-6)


def test_a_blur_of_a_range_differs_from_row_to_row_as_its_levels_do() -> None:
    x = torch.zeros((200, 1, 101))
    x[:, 0, 50] = 1.0
    blurred = apply(make("blur", (1.0, 3.0), (1, 101)), x).double()[:, 0]
    t = torch.arange(-50, 51)
    widths = (blurred * t**2).sum(1).sqrt()
    assert widths.min() > 0.99
    assert widths.max() < 3.01
    assert near(widths, 2.0, 2 / math.sqrt(12))


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_dropouts_take_their_share_of_time_in_spans_and_all_channels(level: float) -> None:
    length, n = 80, 4000
    lost = apply(make("dropout", level, (2, length)), torch.ones((n, 2, length))) == 0
    assert torch.equal(lost[:, 0], lost[:, 1])
    share = lost[:, 0].float()
    assert near(share.mean(1), level, float(share.mean(1).std()))
    assert near(share[:, 0], level, math.sqrt(level * (1 - level)))  # at the ends as elsewhere
    shortest = [min(inner(row), default=0) for row in lost[:, 0].tolist()]
    assert max(shortest) >= 8  # rows with long spans have no short ones
    assert set(range(1, 9)) <= set(shortest)
    if level == 0.1:  # a span begins a run unless the step before was lost already
        runs = (lost[:, 0, 1:] & ~lost[:, 0, :-1]).float()
        begin = [1 - (1 - level) ** (1 / w) for w in range(1, 11)]
        expected = (1 - level) * sum(begin) / 10
        assert near(runs.mean(1), expected, float(runs.mean(1).std()))


def inner(lost: list[bool]) -> list[int]:
    """The lengths of the runs of True that touch neither end."""
    parts = "".join("x" if gone else " " for gone in lost).split(" ")
    return [len(run) for run in parts[1:-1] if run]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_gradients_flow_where_x_is_still_seen(name: str) -> None:
    x = rows(name).requires_grad_()
    noisy = apply(make(name, "auto", SHAPES[name]), x)
    noisy.sum().backward()
    assert x.grad is not None
    if name in ("gaussian", "poisson"):  # E c(x) = x
        assert_allclose(x.grad, 1.0)
    elif name in ("masking", "dropout"):
        assert torch.equal(x.grad != 0, noisy != 0)
    else:  # elsewhere every answer is made of some x, with weights that sum to 1
        assert float(x.grad.sum()) == pytest.approx(x.numel(), rel=1e-5)


def test_a_range_draws_one_level_for_each_row() -> None:
    noisy = apply(make("gaussian", (0.1, 0.8), (20_000,)), torch.zeros((400, 20_000)))
    levels = noisy.std(1)
    assert_allclose([levels.min(), levels.max()], [0.1, 0.8], atol=0.02)
    assert near(levels, 0.45, 0.7 / math.sqrt(12))


@pytest.mark.parametrize(
    ("data", "noise", "words"),
    [
        (curve(60), "blur", "noise='blur' .* signals or images, but X is a table"),
        (curve(60), "dropout", "noise='dropout' .* signals, but X is a table"),
        (np.ones((9, 6, 6)), "dropout", "but X is images"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(data: Any, noise: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        fit(data, noise=noise)


@pytest.mark.parametrize("level", [-1, (0.5, 0.1), (0.1, 0.2, 0.3), ("auto", 1), "much", True])
def test_levels_that_are_none_are_refused(level: Any) -> None:
    with pytest.raises(ParameterError, match="a number, or two"):
        fit(curve(60), noise_level=level)
    with pytest.raises(ParameterError, match="a number, or two"):
        fit(curve(60)).corrupt(curve(60), noise_level=level)
    with pytest.raises(ParameterError, match="at most 1"):
        fit(curve(60), noise="masking", noise_level=(0.5, 1.5))


@pytest.mark.parametrize("noise", CORRUPTIONS)
def test_every_corruption_trains_and_comes_back_from_a_file(noise: str, tmp_path: Path) -> None:
    data = np.abs(SIGNALS)
    est = fit(data, axes="CL", noise=noise, noise_level=(0.1, 0.8))
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    assert again.noise_level == (0.1, 0.8)
    noisy = est.corrupt(data, random_state=3)
    np.testing.assert_array_equal(again.corrupt(data, random_state=3), noisy)
    np.testing.assert_array_equal(again.denoise(noisy), est.denoise(noisy))
    strong = est.corrupt(data, random_state=3, noise_level=0.8)
    assert np.square(strong - data).mean() > np.square(noisy - data).mean()


def test_corrupted_rows_are_in_the_users_units() -> None:
    data = 1000 * curve(2000)
    dae = fit(data)
    added = (dae.corrupt(data, random_state=1) - data).std(0)
    np.testing.assert_allclose(added, 0.5 * dae.scaling_.scale.numpy(), rtol=0.1)
    whole = (10 * curve(50)).astype(np.int32)
    assert fit(whole).corrupt(whole).dtype == np.float32


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper", "swap"])
def test_a_denoiser_takes_noise_away(noise: str) -> None:
    data = curve(600)
    level = 0.5 if noise == "gaussian" else 0.2
    dae = fit(data[:500], noise=noise, noise_level=level, max_epochs=30)
    noisy = dae.corrupt(data[500:], random_state=0)
    before, after = (np.square(a - data[500:]).mean() for a in (noisy, dae.denoise(noisy)))
    assert after < 0.6 * before


def test_the_command_takes_a_range_and_its_file_keeps_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", curve(60))
    words = ("fit", tmp_path / "x.npy", "-o", tmp_path / "m.safetensors", *TINY, "--noise", "swap")
    done(*words, "--model", "denoising-autoencoder", "--noise-level", "0.1,0.8")
    est = narrows.load(tmp_path / "m.safetensors")
    assert est.noise_level == (0.1, 0.8)
    assert est.info()["parts"]["c"] == "SwapNoise(level=0.1 to 0.8)"
    wrong = ("--model", "dae", "--overwrite", "--noise-level", "0.8,0.1")
    assert "noise_level" in refused(*words, *wrong)


def test_a_run_broken_off_goes_on_with_the_same_levels_drawn(tmp_path: Path) -> None:
    kwargs = {"noise": "poisson", "noise_level": (0.1, 0.5), "checkpoint_every": 1}
    data, path = np.abs(curve(80)), tmp_path / "run.checkpoint"
    whole = fit(data, max_epochs=4, **kwargs)

    def stop(entry: dict[str, float]) -> bool:
        if entry["epoch"] == 2:
            raise KeyboardInterrupt
        return False

    with pytest.warns(UserWarning, match="interrupted"):
        fit(data, max_epochs=4, checkpoint=path, listeners=stop, **kwargs)
    again = fit(data, max_epochs=4, checkpoint=path, resume=True, **kwargs)
    np.testing.assert_array_equal(again.denoise(data), whole.denoise(data))
