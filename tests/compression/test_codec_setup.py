"""The levels of a codec: the rate asked for, by reverse water-filling, in even steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from narrows.compression.codec_setup import (
    LEVEL_RATIO,
    TARGET_UNEXPLAINED_VARIANCE,
    level_sigmas,
)
from narrows.estimators.pca import PCA


def spectrum(*variances: float, noise: float = 0.0, features: int = 0) -> PCA:
    k, d = len(variances), max(features, len(variances))
    return PCA(torch.zeros(d), torch.eye(d)[:k], torch.tensor(variances), noise)


SPECTRA = {
    "flat": spectrum(*[2.0] * 7),
    "steep": spectrum(*(10.0 ** -np.arange(9))),
    "with a rest": spectrum(5.0, 1.0, 0.3, noise=0.125, features=20),
    "rounded below zero": spectrum(1.0, 0.1, -1e-9),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rate", [0.05, 0.7, 3.0, "auto"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_middle_level_has_the_rate_or_leaves_the_variance_asked_for(
    name: str, rate: float | str, n: int
) -> None:
    pca = SPECTRA[name]
    found = level_sigmas(pca, rate, n)
    assert len(found) == n
    np.testing.assert_allclose(np.divide(found[:-1], found[1:]), LEVEL_RATIO)
    squared = math.exp(np.mean(np.log(found))) ** 2  # of the middle
    rest = [pca.noise] * (len(pca.mean) - len(pca.variances))
    variances = np.clip([*pca.variances.double().tolist(), *rest], 0, None)
    if rate == "auto":
        left = np.minimum(variances, squared).sum() / variances.sum()
        assert left == pytest.approx(TARGET_UNEXPLAINED_VARIANCE, rel=1e-7)
    elif squared > 1.001e-12 * variances.sum():  # the least error that is tried
        bits = 0.5 * np.log2(np.maximum(1, variances / squared)).sum()
        assert bits / len(variances) == pytest.approx(rate, rel=1e-9, abs=1e-9)


def test_what_does_not_vary_has_levels_all_the_same() -> None:
    assert level_sigmas(spectrum(0.0, 0.0), "auto", 3) == pytest.approx((1.0, 0.5**0.5, 0.5))
