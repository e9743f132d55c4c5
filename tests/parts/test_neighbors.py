"""The terms that compare the rows of a batch: neighbours and distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.small_data import curve
from narrows import NeighborAutoencoder, ParameterError
from narrows._types import Clock, Node, Trace
from narrows.estimators import fit_and_resume
from narrows.parts.regularizers.neighbors import (
    BLOCK_ROWS,
    DistanceCorrelation,
    NeighborContrast,
)

TERMS = [NeighborContrast(3), DistanceCorrelation()]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trace_of(x: Tensor, z: Tensor) -> Trace:
    """The trace of rows (B, ...) with codes (B, k) or (K, B, k)."""
    z = z if z.dim() == 3 else z[None]
    return Trace(x, x, None, [Node(z)], x, x, Clock(), torch.Generator())


def value(term: Any, x: Tensor, z: Tensor) -> Tensor:
    found: Tensor = term(None, trace_of(x, z))
    return found


def in_numpy(x: Any, z: Any, k: int) -> float:
    """KL(p ‖ q) of every row from its definition, pair by pair."""
    n, total = len(x), 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        kernel = {j: 1 / (1 + sum((z[i] - z[j]) ** 2)) for j in others}
        for j in sorted(others, key=lambda j: sum((x[i] - x[j]) ** 2))[:k]:
            total += math.log(1 / k / (kernel[j] / sum(kernel.values()))) / k
    return total / n


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_loss_of_neighbors_is_its_definition(k: int) -> None:
    x, z = drawn(9, 5), 2 * drawn(9, 2, seed=1)
    expected = in_numpy(x.numpy(), z.numpy(), k)
    assert float(value(NeighborContrast(k), x, z)) == pytest.approx(expected, abs=1e-12)
    images, far = x[:, None, :, None], z + 1e4  # a shift of all codes changes nothing
    assert float(value(NeighborContrast(k), images, far)) == pytest.approx(expected, abs=1e-6)
    several = torch.stack([z, drawn(9, 2, seed=2)])
    mean = (expected + in_numpy(x.numpy(), several[1].numpy(), k)) / 2
    assert float(value(NeighborContrast(k), x, several)) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_its_gradient_is_that_of_finite_differences(term: Any) -> None:
    x, z = drawn(9, 5), drawn(9, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value(term, x, z), z)


def test_codes_that_keep_neighbors_cost_nothing_and_others_more() -> None:
    x = torch.arange(8.0).repeat_interleave(4)[:, None] + 0.01 * drawn(32, 1).float()
    shuffled = x[torch.randperm(32, generator=torch.Generator().manual_seed(1))]
    best = float(value(NeighborContrast(3), x, 1e4 * x.round()))
    assert best == pytest.approx(0.0, abs=1e-3)
    assert (
        best
        < float(value(NeighborContrast(3), x, x))
        < float(value(NeighborContrast(3), x, shuffled))
    )


def test_distances_correlate_best_with_codes_like_the_input() -> None:
    x = drawn(20, 3)
    rotation = torch.linalg.qr(drawn(3, 3, seed=1)).Q
    for z in (x, 7 * x + 100, x @ rotation):
        assert float(value(DistanceCorrelation(), x, z)) == pytest.approx(-1.0, abs=1e-6)
    other = float(value(DistanceCorrelation(), x, drawn(20, 2, seed=2)))
    assert other > -0.5
    d = [np.linalg.norm(a[:, None] - a[None], axis=-1)[~np.eye(20, dtype=bool)]
         for a in (x.numpy(), drawn(20, 2, seed=2).numpy())]  # fmt: skip
    assert other == pytest.approx(-np.corrcoef(*d)[0, 1], abs=1e-9)


@pytest.mark.parametrize("term", TERMS)
def test_the_order_of_a_batch_does_not_count(term: Any) -> None:
    x, z = drawn(40, 5), drawn(40, 2, seed=1).requires_grad_()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    whole, mixed = value(term, x, z), value(term, x[order], z[order])
    torch.testing.assert_close(whole.detach(), mixed.detach())
    (a,), (b,) = torch.autograd.grad(whole, z), torch.autograd.grad(mixed, z)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("same", ["nothing", "x", "z", "both", "pairs"])
def test_few_and_equal_rows_give_finite_gradients(term: Any, n: int, same: str) -> None:
    x, z = drawn(n, 5).float(), 3 * drawn(n, 2, seed=1).float() + 50
    if same == "pairs":
        x, z = x.repeat(2, 1), z.repeat(2, 1)
    x = x[:1].expand_as(x) if same in ("x", "both") else x
    z = (z[:1].expand_as(z) if same in ("z", "both") else z).clone().requires_grad_()
    nats = value(term, x, z)
    nats.backward()
    assert z.grad is not None
    assert nats.isfinite()
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() < 100
    if len(x) < 3:
        assert float(nats.detach()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("term", TERMS)
def test_distances_are_in_full_precision_under_autocast(term: Any) -> None:
    x, z = drawn(30, 5).float(), drawn(30, 2, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = value(term, x, z)
    assert narrow.dtype == torch.float32
    assert float(narrow) == float(value(term, x, z))


def test_a_term_is_the_mean_over_the_rows_of_blocks() -> None:
    n = BLOCK_ROWS + 10
    x, z, term = drawn(n, 5), drawn(n, 2, seed=1), NeighborContrast(3)
    first, rest = (float(value(term, x[s], z[s])) for s in (slice(-10), slice(-10, None)))
    expected = (BLOCK_ROWS * first + 10 * rest) / n
    assert float(value(term, x, z)) == pytest.approx(expected, abs=1e-12)


def test_validation_rows_are_compared_in_batches_as_large_as_those_of_training(
    monkeypatch: Any,
) -> None:
    """Whatever fits the cache: fewer rows in a comparison have a smaller loss of neighbours."""
    X, scores = curve(640), []
    kwargs: dict[str, Any] = {"latent_dim": 2, "max_epochs": 1, "random_state": 0}
    for cached in (5, 100, 5000):
        monkeypatch.setattr(fit_and_resume, "inference_batch", lambda shape, n=cached: n)
        model = NeighborAutoencoder(**kwargs, batch_size=64, neighbor_weight=100).fit(X, X_val=X)
        scores.append(model.validation_curve_)
    assert scores[0] == scores[1] == scores[2]
    larger = NeighborAutoencoder(**kwargs, batch_size=320, neighbor_weight=100).fit(X, X_val=X)
    # the start is the same model; each row has five times as many others: ln 5, times the weight
    more = (larger.validation_curve_[0] - scores[0][0]) / 100
    assert more == pytest.approx(np.log(5), rel=0.4)


def test_a_code_does_not_depend_on_the_other_rows() -> None:
    X = curve(200)
    model = NeighborAutoencoder(latent_dim=2, max_epochs=2, distance_weight=1.0, random_state=0)
    Z = model.fit(X).transform(X)
    alone = np.concatenate([model.transform(row[None]) for row in X[:9]])
    np.testing.assert_allclose(alone, Z[:9], atol=1e-5)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ParameterError, match="n_neighbors must be at least 1"):
        NeighborContrast(0)
    with pytest.raises(ParameterError, match="n_neighbors"):
        NeighborAutoencoder(n_neighbors=0).fit(curve())


def test_a_weight_of_nothing_costs_no_time() -> None:
    for weight, names in ((0.0, ["neighbors"]), (2.0, ["neighbors", "distances"])):
        terms = NeighborAutoencoder(distance_weight=weight)._parts().terms
        assert [term.name for term in terms] == names
