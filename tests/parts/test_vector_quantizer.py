"""Quantisers: what k-means, counting and sums over all codes say must come out."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch import Tensor, nn

import narrows
from narrows._types import Clock, Sizes, Trace
from narrows.estimators.build import Parts
from narrows.estimators.registry import model_class
from narrows.exceptions import ParameterError
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.latents.scalar_quantizer import FiniteScalar, GumbelSoftmax, UniformCategorical
from narrows.parts.latents.vector_quantizer import (
    DEAD_AFTER,
    ResidualQuantizer,
    VectorQuantizer,
    k_means,
)
from narrows.parts.likelihoods.continuous import MSE
from narrows.parts.model import Model
from narrows.parts.regularizers.penalties import Commitment

X = load_digits().images[:150]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int = 300) -> Tensor:
    centres = torch.randn(5, 2, generator=rng()) * 3
    return centres[torch.arange(n) % 5] + torch.randn(n, 2, generator=rng(1))


def built(q: Any, latent_dim: int) -> Any:
    q.build(Sizes((latent_dim,), latent_dim), rng(3))
    return q


def bare(q: Any, latent_dim: int) -> Model:
    """A quantiser without networks."""
    return Model(nn.Identity(), nn.Identity(), built(q, latent_dim), MSE())


def passed(model: Model, x: Tensor, progress: float = 1.0, seed: int = 0) -> Trace:
    return model(x, Clock(progress=progress), rng(seed))


# ---------------------------------------------------------------------- books


def test_without_networks_it_is_k_means() -> None:
    x = blobs()
    model = bare(VectorQuantizer(6, 2, decay=0.0), 2).train()
    model.q.book[0] = x[:6]
    for steps in (1, 60):
        lloyd = KMeans(6, init=x[:6].numpy(), n_init=1, max_iter=steps, tol=0.0)
        with warnings.catch_warnings(action="ignore"):  # one step is no convergence
            lloyd.fit(x.numpy())
        for _ in range(1 if steps == 1 else 59):
            model.q.after_step(passed(model, x))
        np.testing.assert_allclose(model.q.book[0].numpy(), lloyd.cluster_centers_, atol=1e-4)
    trace = passed(model, x)
    assert 2 * float(trace.distance.sum()) == pytest.approx(lloyd.inertia_, rel=1e-5)
    np.testing.assert_array_equal(trace.nodes[0].extras["indices"][:, 0].numpy(), lloyd.labels_)


def test_a_book_starts_at_a_good_clustering() -> None:
    x = blobs()
    centres = k_means(x, 5, rng())
    found = torch.cdist(x, centres).amin(1).square().sum()
    best = KMeans(5, n_init=20, random_state=0).fit(x.numpy()).inertia_
    assert float(found) < 1.2 * best
    few = k_means(x[:3], 5, rng())  # more centres than points
    assert torch.cdist(x[:3], few).amin(1).max() < 1e-6


def test_moving_averages_follow_the_formula() -> None:
    """N ← γN + (1 − γ) n, m ← γm + (1 − γ) Σ h, e = m / N (appendix A.1 of the paper)."""
    model, x = bare(VectorQuantizer(4, 2, decay=0.8), 4).train(), blobs(80).view(40, 4)
    book = model.q.book[0].double().numpy().copy()
    N, m = np.ones(4), book.copy()
    for _ in range(3):
        points = x.view(-1, 2).double().numpy()
        nearest = ((points[:, None] - book) ** 2).sum(-1).argmin(1)
        for j in range(4):
            N[j] = 0.8 * N[j] + 0.2 * (nearest == j).sum()
            m[j] = 0.8 * m[j] + 0.2 * points[nearest == j].sum(0)
        book = m / N[:, None]
        model.q.after_step(passed(model, x))
        np.testing.assert_allclose(model.q.book[0].numpy(), book, rtol=1e-5, atol=1e-5)
        x = x.flip(0)[:30]  # another batch


def test_each_book_of_several_follows_what_the_books_before_it_leave() -> None:
    q = bare(ResidualQuantizer(4, 2, decay=0.8, n_levels=3), 4).train().q
    books, left = q.book.double().numpy().copy(), blobs(80).double().numpy()
    q.after_step(
        passed(Model(nn.Identity(), nn.Identity(), q, MSE()).train(), blobs(80).view(40, 4))
    )
    for level, book in enumerate(books):
        nearest = ((left[:, None] - book) ** 2).sum(-1).argmin(1)
        n = np.bincount(nearest, minlength=4)
        sums = np.stack([left[nearest == j].sum(0) for j in range(4)])
        used = 0.8 + 0.2 * n
        moved = (0.8 * book + 0.2 * sums) / used[:, None]
        np.testing.assert_allclose(q.book[level].numpy(), moved, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(q.used[level].numpy(), used, rtol=1e-5)
        np.testing.assert_array_equal(q.idle[level].numpy(), np.where(n > 0, 0, 80))
        left = left - book[nearest]


@pytest.mark.parametrize("update", ["average", "gradient"])
def test_unused_vectors_are_moved_to_codes_of_the_batch(update: str) -> None:
    x = blobs(60)
    q = bare(VectorQuantizer(3, 2, update=update), 2).train().q
    with torch.no_grad():
        q.book[0] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1e3, 1e3]])
    model = Model(nn.Identity(), nn.Identity(), q, MSE()).train()
    for step in range(3 * DEAD_AFTER // 60 + 1):
        alone, before = copy.deepcopy(model), q.book.detach().clone()
        trace = passed(model, x, seed=step)
        q.after_step(trace)
        assert (q.idle[0, :2] == 0).all()  # these are used
        if q.book[0, 2, 0] < 1e3:
            break
        torch.testing.assert_close(q.book[0, 2], before[0, 2])
    else:
        pytest.fail("it is still where nobody goes")
    assert 60 * (step + 1) >= DEAD_AFTER * 3 > 60 * step
    assert (x == q.book[0, 2]).all(1).any()
    assert (q.idle == 0).all()
    alone.q.after_step(passed(alone, x, seed=step))
    torch.testing.assert_close(alone.q.book, q.book, rtol=0, atol=0)


def test_the_processes_of_a_group_keep_one_book(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs(60)
    whole = bare(VectorQuantizer(4, 2, decay=0.5), 2).train()
    whole.q.book[0, 3], whole.q.idle[0, 3] = 1e3, 1e6  # to be revived
    start, sent = copy.deepcopy(whole), []
    whole.q.after_step(passed(whole, x))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    for exchange in (lambda mine: sent.append(mine.clone()), lambda mine: mine.copy_(sum(sent))):
        monkeypatch.setattr(dist, "all_reduce", exchange)
        each = [copy.deepcopy(start), copy.deepcopy(start)]
        for rank, model in enumerate(each):
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            model.q.after_step(passed(model, x[rank * 30 :][:30], seed=rank))
    torch.testing.assert_close(each[0].q.book, each[1].q.book, rtol=0, atol=0)
    torch.testing.assert_close(each[0].q.book[0, :3], whole.q.book[0, :3])
    assert (x[:30] == each[1].q.book[0, 3]).all(1).any()


QUANTISERS = {
    "average": lambda: VectorQuantizer(7, 2),
    "gradient": lambda: VectorQuantizer(7, 2, update="gradient"),
    "residual": lambda: ResidualQuantizer(7, 2, n_levels=3),
}


@pytest.mark.parametrize("name", QUANTISERS)
def test_a_repeated_batch_leaves_the_loss_unchanged(name: str) -> None:
    """The loss of one row does not depend on the number of rows."""
    model = bare(QUANTISERS[name](), 6).train()
    h = torch.randn(8, 6, generator=rng())
    one, three = passed(model, h), passed(model, h.repeat(3, 1))
    torch.testing.assert_close(Commitment()(model, one), Commitment()(model, three))
    torch.testing.assert_close(one.nodes[0].loss[:1], passed(model, h[:1]).nodes[0].loss)
    assert (one.nodes[0].loss > 0).all()


@pytest.mark.parametrize("name", QUANTISERS)
def test_the_loss_follows_the_formula(name: str) -> None:
    q = bare(QUANTISERS[name](), 6).train().q
    h = torch.randn(8, 6, generator=rng())
    node = q(h, 1, rng())
    books, total, left = q.book.detach().numpy(), 0.0, h.view(8, 3, 2).numpy()
    for book in books:
        nearest = ((left[:, :, None] - book) ** 2).sum(-1).argmin(-1)
        after = left - book[nearest]
        total = total + 0.25 * (after**2).sum((1, 2))
        if name == "gradient":
            total = total + (after**2).sum((1, 2))
        left = after
    np.testing.assert_allclose(node.loss.detach().numpy(), total, rtol=1e-5)
    np.testing.assert_allclose(
        node.z[0].detach().numpy(), h.numpy() - left.reshape(8, 6), atol=1e-5
    )


@pytest.mark.parametrize("name", QUANTISERS)
def test_gradients_go_straight_through(name: str) -> None:
    q = bare(QUANTISERS[name](), 6).train().q
    h = torch.randn(8, 6, generator=rng()).requires_grad_()
    weights = torch.randn(2, 8, 6, generator=rng(1))
    (q(h, 2, rng()).z * weights).sum().backward()
    torch.testing.assert_close(h.grad, weights.sum(0))
    assert all(p.grad is None or not p.grad.any() for p in q.parameters())  # the book's own loss


def test_by_gradient_the_book_learns_from_its_own_loss_alone() -> None:
    q = bare(VectorQuantizer(4, 2, update="gradient", commitment=0.0), 2).train().q
    h = blobs(40).requires_grad_()
    q(h, 1, rng()).loss.sum().backward()
    assert not h.grad.any()
    found = q.indices(h.detach())[:, 0]
    for j in range(4):  # d/de Σ ‖h − e‖² = 2 Σ (e − h)
        wanted = 2 * (q.book[0, j] - h[found == j]).sum(0)
        torch.testing.assert_close(q.book.grad[0, j], wanted.detach())


# ---------------------------------------------------------------------- several books


def test_each_book_leaves_less_than_those_before() -> None:
    x = torch.randn(500, 6, generator=rng())
    model = bare(ResidualQuantizer(8, 3, n_levels=5), 6)
    model.q.init_from_data(x, model, rng(1))
    chosen = model.q._lookup(model.q._nearest(x)).view(500, 2, 5, 3)
    errors = [float((x.view(500, 2, 3) - s).square().mean()) for s in chosen.cumsum(2).unbind(2)]
    assert all(b < 0.85 * a for a, b in zip([1.0, *errors], errors, strict=False))
    one = bare(VectorQuantizer(8, 3), 6)
    one.q.init_from_data(x, one, rng(1))
    torch.testing.assert_close(one.q.mode(x).view(500, 2, 3), chosen[:, :, 0])


def test_a_sum_is_taken_apart_into_its_vectors() -> None:
    """Also where the vector of the first book that is nearest to the sum is not in it."""
    x = torch.randn(500, 6, generator=rng())
    model = bare(ResidualQuantizer(16, 3, n_levels=3), 6)
    model.q.init_from_data(x, model, rng(1))
    z, chosen = model.q.mode(x), model.q.chosen(x)
    assert (model.q.chosen(z) != chosen).any()  # greedy search would be wrong
    torch.testing.assert_close(model.q.indices(z), chosen)
    torch.testing.assert_close(model.q.vectors(chosen), z, rtol=0, atol=0)
    assert chosen.shape == (500, model.q.positions(6))


# ---------------------------------------------------------------------- named models

SMALL = {"latent_dim": 6, "hidden_layer_sizes": (16,), "max_epochs": 2, "random_state": 0}
NAMED = {
    "VQVAE": {"n_embeddings": 16, "code_dim": 2},
    "ResidualVQVAE": {"n_embeddings": 8, "n_levels": 3},
    "GumbelVAE": {"n_categories": 3, "beta": 2.0},
    "FSQVAE": {"n_values": 4},
}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {name: model_class(name)(**SMALL, **own).fit(X) for name, own in NAMED.items()}


@pytest.mark.parametrize("name", NAMED)
def test_codes_lie_on_the_book_and_are_what_is_decoded(
    name: str, fitted: Any, tmp_path: Any
) -> None:
    model = fitted[name]
    Z, codes = model.transform(X), model.codes(X)
    q = model.model_.q
    assert codes.shape == (150, q.positions(6)) and codes.dtype == np.int64
    assert codes.min() >= 0 and codes.max() < q.n_values and codes.std(0).max() > 0
    np.testing.assert_array_equal(q.vectors(torch.from_numpy(codes)).numpy(), Z)
    np.testing.assert_array_equal(q.indices(torch.from_numpy(Z)).numpy(), codes)
    np.testing.assert_array_equal(model.reconstruct(X), model.inverse_transform(Z))
    np.testing.assert_array_equal(model.transform(X), Z)
    again = narrows.load(model.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(again.codes(X), codes)
    for key, tensor in q.state_dict().items():
        torch.testing.assert_close(again.model_.q.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMED)
def test_the_loss_of_a_named_model_is_its_formula(name: str, fitted: Any) -> None:
    model = fitted[name].model_
    x = fitted[name].scaling_.apply(torch.from_numpy(X[:20, None]))
    with torch.no_grad():
        trace = passed(model, x)
        loss = float(fitted[name].objective_(model, trace)["model"])
        h, z = model.f(x).double().numpy(), trace.z[0]
        error = ((x - model.g(z)).double().numpy() ** 2).reshape(20, -1).sum(1)
    if name == "GumbelVAE":
        sigma = float(model.D.log_scale.detach().exp())
        wanted = 0.5 * error / sigma**2 + 64 * np.log(sigma * np.sqrt(2 * np.pi))
        chances = np.exp(h.reshape(20, 2, 3))
        chances /= chances.sum(-1, keepdims=True)
        wanted += 2.0 * (chances * np.log(3 * chances)).sum((1, 2))
    else:
        wanted = 0.5 * error
    if "VQ" in name:
        book, left = model.q.book.numpy(), h.reshape(20, -1, model.q.width)
        for vectors in book:
            left = left - vectors[((left[:, :, None] - vectors) ** 2).sum(-1).argmin(-1)]
            wanted = wanted + 0.25 * (left**2).sum((1, 2))
    if name == "FSQVAE":
        np.testing.assert_array_equal(
            z.numpy().round(4), np.round(1.5 * np.tanh(h / 1.5) - 0.5) + 0.5
        )
    assert loss == pytest.approx(wanted.mean(), rel=1e-4)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 12])
def test_any_width_of_a_code_can_be_cut(width: int) -> None:
    parts = [VectorQuantizer(4), ResidualQuantizer(4), GumbelSoftmax(), FiniteScalar()]
    h = torch.randn(3, width, generator=rng())
    for q in parts:
        z = built(q, width).mode(h)
        assert z.shape == h.shape
        assert q.indices(z).shape == (3, q.positions(width))
        torch.testing.assert_close(q.vectors(q.indices(z)), z)
    assert parts[2].positions(width) < width or width == 1  # one category would say nothing


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(ParameterError, match=r"code_dim=2 does not .* choose latent_dim=6"):
        narrows.VQVAE(latent_dim=5, code_dim=2, max_epochs=1).fit(X)
    with pytest.raises(ParameterError, match="n_categories=4"):
        narrows.GumbelVAE(latent_dim=6, n_categories=4, max_epochs=1).fit(X)
    with pytest.raises(ParameterError, match="at least 2"):
        FiniteScalar((3, 1))
    with pytest.raises(ParameterError, match="2 numbers, but latent_dim=3"):
        built(FiniteScalar((3, 3)), 3)
    with pytest.raises(ParameterError, match=r"uniform categorical .* diagonal Gaussian"):
        Parts(q=DiagonalGaussian(), p=UniformCategorical())


def test_a_start_is_quantised_pca_and_training_improves_it() -> None:
    kwargs = {"latent_dim": 8, "random_state": 0, "n_embeddings": 64}
    start = narrows.VQVAE(max_epochs=0, **kwargs).fit(X)
    pca = start.pca_.score(X)
    assert 0.5 * pca < start.score(X) < pca
    for update in ("average", "gradient"):
        assert narrows.VQVAE(max_epochs=40, update=update, **kwargs).fit(X).score(X) > start.score(
            X
        )
