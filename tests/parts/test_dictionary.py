"""Sparse dictionaries: few directions a row, of length one, and none that stays dead."""

import numpy as np
import pytest
import torch

from narrows import ParameterError, SparseDictionary
from narrows._types import Clock, Node, Trace
from narrows.parts.latents.dictionary import (
    DEAD_AFTER_ROWS,
    DeadLatentLoss,
    DictionaryDecoder,
    dictionary_networks,
)
from narrows.parts.networks.architectures import NetworkOptions


def mixtures(n: int = 600, d: int = 12, k: int = 24, active: int = 2) -> tuple[np.ndarray, ...]:
    """Rows that each use few of k directions in d dimensions, and the directions."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(k, d))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    codes = np.zeros((n, k))
    for row in codes:
        row[rng.choice(k, active, replace=False)] = rng.uniform(1, 3, active)
    return codes @ true + 0.02 * rng.normal(size=(n, d)), true


def test_it_beats_pca_of_as_many_numbers_and_finds_directions() -> None:
    X, true = mixtures(2000)
    model = SparseDictionary(
        latent_dim=48, n_active=2, scaling="none", max_epochs=60, random_state=0
    ).fit(X)
    assert len(model.pca_.pca.components) == 2  # as many numbers a row
    ours = np.square(X - model.reconstruct(X)).mean()
    assert ours < 0.5 * np.square(X - model.pca_.reconstruct(X)).mean()
    found = model.model_.g.directions().detach().numpy()
    assert (true @ found.T).max(1).mean() > 0.85


def test_codes_are_sparse_wide_and_their_directions_of_length_one() -> None:
    X, _ = mixtures(100)
    model = SparseDictionary(n_active=3, max_epochs=2, random_state=0).fit(X)
    assert model.latent_dim_ == 4 * 12
    Z = model.transform(X)
    assert (Z >= 0).all() and ((Z != 0).sum(1) <= 3).all()
    norms = model.model_.g.directions().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(48))


class Toy:
    def __init__(self, idle: torch.Tensor, g: DictionaryDecoder) -> None:
        self.q, self.g = type("Q", (), {"idle": idle})(), g


def trace(
    h: torch.Tensor, x: torch.Tensor, output: torch.Tensor, mask: torch.Tensor | None = None
) -> Trace:
    node = Node(z=h[None], extras={"h": h})
    return Trace(
        x, x, mask, [node], output[None], torch.zeros(1, len(x)), Clock(), torch.Generator()
    )


def test_the_revival_is_what_dead_numbers_leave_of_the_residual() -> None:
    rng = torch.Generator().manual_seed(0)
    g = DictionaryDecoder(4, (3,))
    torch.nn.init.normal_(g.weight, generator=rng)
    torch.nn.init.zeros_(g.bias)
    h, x, output = (torch.randn(5, n, generator=rng) for n in (4, 3, 3))
    idle = torch.tensor([0.0, DEAD_AFTER_ROWS, DEAD_AFTER_ROWS, 0.0])
    found = DeadLatentLoss(1)(Toy(idle, g), trace(h, x, output))
    d = (g.weight / g.weight.norm(dim=1, keepdim=True)).detach().numpy()
    H, left = h.numpy(), (x - output).numpy()
    total = 0.0
    for row, e in zip(H, left, strict=True):
        j = 1 if row[1] >= row[2] else 2
        total += 0.5 * np.square(e - row[j] * d[j]).sum()
    assert float(found.detach()) == pytest.approx(total / 5, rel=1e-5)
    nobody = torch.zeros(4)
    assert float(DeadLatentLoss(1)(Toy(nobody, g), trace(h, x, output)).detach()) == 0.0


def test_the_revival_does_not_see_what_is_missing() -> None:
    """What fills a gap is not explained, and its residual pulls at no direction."""
    rng = torch.Generator().manual_seed(0)
    g, idle = DictionaryDecoder(4, (3,)), torch.full((4,), float(DEAD_AFTER_ROWS))
    torch.nn.init.normal_(g.weight, generator=rng)
    torch.nn.init.zeros_(g.bias)
    h, x, output, other = (torch.randn(5, n, generator=rng) for n in (4, 3, 3, 3))
    mask = (torch.rand(5, 3, generator=rng) > 0.4).float()
    filled = torch.where(mask > 0, x, other)
    found = [DeadLatentLoss(2)(Toy(idle, g), trace(h, t, output, mask)) for t in (x, filled)]
    assert float(found[0].detach()) == pytest.approx(float(found[1].detach()), rel=1e-6)
    whole = [float(DeadLatentLoss(2)(Toy(idle, g), trace(h, x, output, m)).detach()) for m in (
        None, torch.ones(5, 3), torch.zeros(5, 3))]  # fmt: skip
    assert whole[0] == whole[1] > float(found[0].detach()) > whole[2] == 0
    hidden = trace(h, x, output, torch.tensor([1.0, 0, 1]).expand(5, 3))
    (slope,) = torch.autograd.grad(DeadLatentLoss(2)(Toy(idle, g), hidden), g.weight)
    plain = torch.autograd.grad(DeadLatentLoss(2)(Toy(idle, g), trace(h, x, output)), g.weight)[0]
    assert not torch.allclose(slope.to_dense(), plain.to_dense())


def test_a_dead_number_comes_back() -> None:
    X, _ = mixtures(1500)
    alive = {}
    for weight in (0.0, 1.0):
        model = SparseDictionary(
            latent_dim=32, n_active=2, scaling="none", max_epochs=2, revival=weight,
            random_state=0, warm_start=True,
        ).fit(X)  # fmt: skip
        with torch.no_grad():
            model.model_.f.bias[:16] = -4.0
        model.set_params(max_epochs=40).fit(X)
        alive[weight] = int((model.transform(X)[:, :16] != 0).any(0).sum())
    assert alive[0.0] == 0
    assert alive[1.0] >= 4


def test_sums_of_few_directions_have_the_gradients_of_the_whole_sum() -> None:
    rng = torch.Generator().manual_seed(0)
    f, g = dictionary_networks("dense", NetworkOptions(shape=(5,), latent_dim=9), rng)
    torch.nn.init.normal_(g.weight, generator=rng)  # of any length
    torch.nn.init.normal_(g.bias, generator=rng)
    values, x = torch.randn(4, 2, generator=rng).requires_grad_(), torch.randn(4, 5, generator=rng)
    indices = torch.tensor([[0, 3], [3, 7], [7, 0], [3, 0]])
    z = torch.zeros(4, 9).scatter(1, indices, values)
    slope, given = torch.randn(4, 5, generator=rng), (values, g.weight)
    wanted = torch.autograd.grad(z @ g.directions(), given, slope, retain_graph=True)
    for found in (g(z) - g.bias, g.combine_few(values, indices)):
        torch.testing.assert_close(found, z @ g.directions())
        for ours, exact in zip(
            torch.autograd.grad(found, given, slope, retain_graph=True), wanted, strict=True
        ):
            torch.testing.assert_close(ours.to_dense(), exact)
    assert (torch.autograd.grad(g.eval()(z), z, slope)[0] != 0).all()  # not in training alone
    plain = torch.nn.functional.linear(x - g.bias, f.weight, f.bias)
    torch.testing.assert_close(f(x), plain)
    given, slope = (f.weight, f.bias, g.bias), torch.randn(4, 9, generator=rng)
    ours, wanted = (torch.autograd.grad(h, given, slope) for h in (f(x), plain))
    torch.testing.assert_close(ours, wanted)


def test_classes_have_no_directions() -> None:
    X = np.random.default_rng(0).integers(0, 3, (40, 5)).astype(float)
    with pytest.raises(ParameterError, match=r"classes.*choose another distance"):
        SparseDictionary(distance="mixed", latent_dim=8, n_active=2).fit(X)
