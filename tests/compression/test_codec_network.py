"""Truths of rate and distortion: closed forms, gradients, and the start at PCA."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from narrows._types import Clock
from narrows.compression.codec_network import (
    FSQ,
    CodecNetwork,
    UniformNoise,
    from_cells,
    rate_distortion,
    to_cells,
)
from narrows.compression.codec_setup import level_sigmas
from narrows.compression.entropy_models import (
    PASSES,
    ConditionalPrior,
    FactorisedPrior,
    groups_of,
    logistic_nats,
)
from narrows.estimators.pca import PCA


def rng_of(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_noise_replaces_rounding_in_training() -> None:
    """U(−½, ½) at first; then rounding with a gradient of one."""
    q = UniformNoise()
    y = torch.full((100_000,), 0.3, requires_grad=True)
    rated, seen = q.quantize(y, 0.1, rng_of())
    assert torch.equal(rated, seen)
    noise = (rated - y).detach()
    assert abs(float(noise.mean())) < 0.005 and float(noise.abs().max()) <= 0.5
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.02)
    rated, seen = q.quantize(y, 0.9, rng_of())
    assert set(seen.detach().tolist()) == {0.0} and not torch.equal(rated, seen)
    seen.sum().backward()
    assert torch.equal(y.grad, torch.ones_like(y))
    assert torch.equal(q.eval().quantize(y, 0.1, rng_of())[1], torch.zeros_like(y))


def test_fsq_has_exactly_its_values() -> None:
    q = FSQ(5)
    y = torch.linspace(-50, 50, 10_001, requires_grad=True)
    whole, seen = q.quantize(y, 0.0, rng_of())
    assert sorted(set(whole.round().tolist())) == [-2, -1, 0, 1, 2] and torch.equal(whole, seen)
    whole.sum().backward()
    assert float(y.grad[5000]) == pytest.approx(1.0)  # its slope at 0


@pytest.mark.parametrize("scale", [0.05, 0.7, 30.0])
def test_likelihoods_of_whole_numbers_sum_to_one(scale: float) -> None:
    k = torch.arange(-3000, 3001, dtype=torch.float64)
    nats = logistic_nats(k, torch.tensor(0.3), torch.tensor(scale))
    # the floor under a likelihood adds up over so many numbers that have none
    assert float((-nats).exp().sum()) == pytest.approx(1.0, abs=1e-5)
    prior = FactorisedPrior(1, 1)
    prior.init_scale(torch.tensor([[scale]]))
    assert float(prior.probabilities(3000).sum()) == pytest.approx(1.0, abs=1e-4)


def test_from_cells_inverts_to_cells() -> None:
    x = torch.randn((2, 3, 12, 10), generator=rng_of())
    cells = to_cells(x, (4, 5))
    assert cells.shape == (2, 60, 3, 2)
    assert torch.equal(cells[1, :, 2, 1].view(3, 4, 5), x[1, :, 8:12, 5:10])
    assert torch.equal(from_cells(cells, (4, 5)), x)


def gaussian(variances: list[float], n: int = 4096) -> tuple[torch.Tensor, PCA]:
    """Rotated Gaussian rows and their exact PCA."""
    d = len(variances)
    turn, _ = torch.linalg.qr(torch.randn((d, d), generator=rng_of(1)))
    z = torch.randn((n, d), generator=rng_of(2)) * torch.tensor(variances).sqrt()
    return (z @ turn.T)[:, None, None], PCA(torch.zeros(d), turn.T, torch.tensor(variances), 0.0)


def test_levels_follow_reverse_water_filling() -> None:
    """Σ ½ log₂ max(1, λ / σ²) bits, and Σ min(λ, σ²) of the variance left."""
    variances = [16.0, 4.0, 1.0, 0.25]
    pca = gaussian(variances)[1]
    (sigma,) = level_sigmas(pca, 0.75, 1)
    bits = sum(0.5 * math.log2(max(1, v / sigma**2)) for v in variances)
    assert bits / 4 == pytest.approx(0.75)
    (sigma,) = level_sigmas(pca, "auto", 1)
    assert sum(min(v, sigma**2) for v in variances) / sum(variances) == pytest.approx(0.02)
    several = level_sigmas(pca, 0.75, 5)
    assert all(a / b == pytest.approx(math.sqrt(2)) for a, b in pairwise(several))


@pytest.mark.parametrize("context", [0, 8])
@torch.no_grad()
def test_the_pca_start_is_near_the_rate_distortion_limit(context: int) -> None:
    """PCA with a uniform step takes a quarter of a bit a number more than the best possible code.

    At high rates a uniform quantiser with an ideal coder loses ½ log₂(2πe / 12) = 0.2546 bits
    against the rate-distortion function (Gish & Pierce 1968).
    """
    variances = [64.0, 16.0, 8.0]
    x, pca = gaussian(variances)
    sigma = 0.3
    coder = CodecNetwork((1, 3), 3, 3, (8,), 0, (sigma,), UniformNoise(), context)
    coder.init_weights(rng_of())
    coder.init_from_pca(pca)
    coder.eval()
    trace = coder(x, Clock(), rng_of())
    mse = float((trace.output[0] - trace.x).square().mean())
    assert mse == pytest.approx(sigma**2, rel=0.03)
    codes = coder.codes(coder.latents(x), 0)[:, :, 0, 0]
    bits = 0.0
    for c in range(3):
        counts = codes[:, c].unique(return_counts=True)[1] / len(codes)
        bits -= float((counts * counts.log2()).sum())
    limit = sum(0.5 * math.log2(v / mse) for v in variances)
    assert (bits - limit) / 3 == pytest.approx(0.2546, abs=0.03)
    rated = float(trace.nodes[0].extras["rate"].mean()) / math.log(2)
    assert bits - 0.05 < rated < bits + 0.5  # logistics for a Gaussian, and counts of a sample


@torch.no_grad()
def test_the_loss_is_rate_and_squares_in_nats() -> None:
    x, pca = gaussian([4.0, 1.0, 0.5], n=64)
    sigmas = (0.8, 0.4)
    coder = CodecNetwork((1, 3), 3, 3, (8,), 0, sigmas, UniformNoise(), 0)
    coder.init_weights(rng_of())
    coder.init_from_pca(pca)
    trace = coder.eval()(x, Clock(), rng_of())
    losses = rate_distortion()(coder, trace)
    level = np.arange(64) % 2
    squares = (trace.x - trace.output[0]).square().flatten(1).sum(1).detach().numpy()
    expected = (squares / (2 * np.square(sigmas)[level])).mean()
    expected += float(trace.nodes[0].extras["rate"].mean())
    assert float(losses["model"]) == pytest.approx(expected, rel=1e-5)


def test_the_prior_uses_only_earlier_codes() -> None:
    """Changing a code changes no likelihood in an earlier group or pass."""
    prior = ConditionalPrior(1, 5, 8, 1)
    prior.init_weights(rng_of())
    with torch.no_grad():
        for p in prior.parameters():
            p += 0.2 * torch.randn(p.shape, generator=rng_of(5))
    k = torch.randint(-5, 6, (1, 5, 6, 6), generator=rng_of(6)).float()

    def terms(at: int, whole: torch.Tensor) -> list[torch.Tensor]:
        mask, _ = prior._known_cells(whole, at)
        found = []
        for (a, b), net in zip(prior.groups, prior.nets, strict=True):
            seen = torch.cat([whole[:, :a], whole[:, a:b] * mask], 1)
            i, j = PASSES[at]
            found.append(net(seen, torch.zeros(1, dtype=torch.long), at)[0][:, :, i::2, j::2])
        return found

    group = 2
    first, _ = groups_of(5)[group]
    for pass_changed, (i, j) in enumerate(PASSES):
        other = k.clone()
        other[0, first, i, j] += 3
        for at in range(4):
            same = [torch.equal(a, b) for a, b in zip(terms(at, k), terms(at, other), strict=True)]
            assert all(same[:group])
            assert same[group] == (at <= pass_changed)


@torch.no_grad()
def test_each_number_is_counted_once_over_the_four_passes() -> None:
    prior = ConditionalPrior(1, 3, 8, 1)
    prior.init_weights(rng_of())
    prior.init_scale(torch.full((1, 3), 2.0))
    k = torch.randint(-5, 6, (1, 3, 5, 7), generator=rng_of(1)).float()
    level = torch.zeros(1, dtype=torch.long)
    shares = []
    for at, (i, j) in enumerate(PASSES):
        _, times = prior._known_cells(k, at)
        shares.append(float(prior._nats_in_pass(k, k, level, at)) / times)
        assert times == pytest.approx(35 / k[0, 0, i::2, j::2].numel())
    scale = float(prior.nets[0].base[0, 1]) + 0.02
    expected = float(logistic_nats(k, torch.tensor(0.0), torch.tensor(scale)).sum())
    assert sum(shares) == pytest.approx(expected, rel=1e-5)
