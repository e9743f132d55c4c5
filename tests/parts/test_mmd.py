"""The maximum mean discrepancy, and the models that are held to the prior by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.unfitted_models import built, traced
from narrows import InfoVAE, ParameterError, WassersteinAE
from narrows.estimators.build import parts_of
from narrows.parts.regularizers import kl_and_mmd
from narrows.parts.regularizers.kl_and_mmd import SCALES, mmd


def normal(n: int, k: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def in_numpy(z: Any, drawn: Any, kernel: str) -> float:
    """The same from its definition, pair by pair."""
    z, drawn = np.asarray(z, float), np.asarray(drawn, float)

    def alike(a: Any, b: Any) -> float:
        total = 0.0
        for s in SCALES:
            C = 2 * len(a) * s
            square = sum((ai - bi) ** 2 for ai, bi in zip(a, b, strict=True))
            total += C / (C + square) if kernel == "imq" else np.exp(-square / C)
        return total

    def mean(A: Any, B: Any) -> Any:
        return np.mean([[alike(a, b) for b in B] for a in A])

    return float(mean(z, z) + mean(drawn, drawn) - 2 * mean(z, drawn))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_its_definition(kernel: str) -> None:
    z, drawn = 0.5 * normal(5) + 1.0, normal(7, seed=1)
    assert float(mmd(z, drawn, kernel)) == pytest.approx(in_numpy(z, drawn, kernel), abs=1e-5)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_nothing_for_equal_samples_and_positive_for_others(kernel: str) -> None:
    z, other = normal(500), normal(500, seed=1)
    assert float(mmd(z, z.flip(0), kernel)) == pytest.approx(0.0, abs=1e-5)
    same = float(mmd(z, other, kernel))
    assert 0.0 <= same < 0.03
    for different in (other + 0.5, 0.5 * other, 2.0 * other, other[:, [0, 0, 1]]):
        assert float(mmd(z, different, kernel)) > 3 * same


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_its_gradient_pulls_codes_towards_the_prior(kernel: str) -> None:
    prior = normal(500, seed=1)
    for begin, wish in ((normal(200) + 2.0, -1), (3.0 * normal(200), -1), (0.3 * normal(200), 1)):
        z = begin.clone().requires_grad_()
        mmd(z, prior, kernel).backward()
        assert z.grad is not None
        outwards = -(z.grad * begin).sum()  # of a step downhill: away from 0 or towards it
        assert torch.sign(outwards) == wish


def test_a_batch_repeated_gives_the_same_and_one_row_gives_a_number() -> None:
    model, objective = built(WassersteinAE(weight=1.0))
    values = []
    for rows in (traced(model)[0].x, traced(model)[0].x.repeat(3, 1), traced(model)[0].x[:1]):
        trace = model(rows, traced(model)[0].clock, torch.Generator().manual_seed(3))
        objective(model, trace)
        values.append(float(trace.terms["mmd"].detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert np.isfinite(values[2])
    assert values[2] > 0


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_the_losses_are_their_formulas(kernel: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(kl_and_mmd, "N_PRIOR_DRAWS", 9)
    for estimator in (
        WassersteinAE(weight=7.0, kernel=kernel),
        InfoVAE(alpha=0.25, divergence_weight=4.0, kernel=kernel),
    ):
        model, objective = built(estimator)
        trace, rng = traced(model)
        losses = objective(model, trace)
        drawn = torch.randn(9, 3, generator=rng).numpy()
        z, x = trace.z[0].detach().numpy(), trace.x.numpy()
        output = trace.output[0].detach().numpy()
        far = in_numpy(z, drawn, kernel)
        wanted = 0.5 * ((x - output) ** 2).sum(1).mean()
        if isinstance(estimator, InfoVAE):
            mu, log_variance = (
                trace.nodes[0].extras[name].detach().numpy() for name in ("mu", "log_variance")
            )
            kl = 0.5 * (mu**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
            wanted += 0.75 * kl + 3.25 * far
        else:
            wanted += 7.0 * far
        assert set(losses) == {"model"}
        assert float(losses["model"].detach()) == pytest.approx(wanted, rel=1e-4)


def test_no_weight_of_an_info_vae_is_negative() -> None:
    """Defect 4: with the weight of the paper's own symbols taken for that of the term."""
    weights = {term.name: term.weight for term in parts_of(InfoVAE()).terms}
    assert all(weight >= 0 for weight in weights.values())
    assert weights["mmd"] > 1
    X = normal(20).numpy()
    with pytest.raises(ParameterError, match="away from the prior") as refused:
        InfoVAE(alpha=0.0, divergence_weight=0.001).fit(X)
    assert str(refused.value).count(".") == str(refused.value).count("0.") + 1
    with pytest.raises(ParameterError, match="alpha"):
        InfoVAE(alpha=1.5).fit(X)
    parts_of(InfoVAE(alpha=0.0, divergence_weight=1.0))  # a variational autoencoder


def test_the_codes_of_a_wasserstein_autoencoder_become_normal() -> None:
    """Where PCA's own codes are far from it: one direction is ten times as long as the other."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) * [3.0, 0.3] @ rng.normal(size=(2, 4)) + 5.0
    ends = []
    for weight in (0.0, 30.0):
        wae = WassersteinAE(latent_dim=2, weight=weight, max_epochs=15, random_state=0)
        Z = wae.fit(X).transform(X)
        ends.append(np.linalg.eigvalsh(np.cov(Z.T)))
    assert ends[0].min() < 0.2
    assert ends[1].min() > 0.5
    assert ends[1].max() < 1.5
    assert np.abs(Z.mean(0)).max() < 0.2
