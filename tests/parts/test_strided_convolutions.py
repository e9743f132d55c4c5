"""The products' gradients are the convolutions', in float64 to rounding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

import narrows
from narrows.parts.networks import architectures
from narrows.parts.networks.architectures import (
    Doubling,
    Halving,
    NetworkOptions,
    build_networks,
    roll,
    unroll,
)

SIZES = [(1, 1), (1, 2), (2, 3), (5, 4), (6, 6), (7, 9), (8, 8)]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code in float64, where an error of the formula cannot hide behind rounding."""
    monkeypatch.setattr(architectures, "_BF16", torch.float64)


@pytest.fixture
def rng() -> Generator:
    return Generator().manual_seed(0)


def narrow() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def conv_pair(size: tuple[int, int], channels: tuple[int, int]) -> nn.Sequential:
    """f and g: down twice and up again."""
    options = NetworkOptions((channels[0], *size), 3, channels=(channels[1], 4))
    return nn.Sequential(*build_networks("conv", options, Generator().manual_seed(1)))


def layer(size: tuple[int, int], channels: tuple[int, int], down: bool) -> nn.Module:
    """One that ends, or begins, with a picture of this size."""
    if down:
        return Halving(*channels)
    return Doubling(*channels[::-1], (size[0] % 2 ^ 1, size[1] % 2 ^ 1))


def random_like(shape: tuple[int, ...], rng: Generator) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def nodes(t: Tensor) -> set[str]:
    """The names of the nodes that made t."""
    waiting, seen = [t.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return {node.name() for node in seen}


def gradients(net: nn.Module, x: Tensor, cotangent: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What ``net`` answers, and the gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    out = net(x)
    return out, list(torch.autograd.grad(out, [x, *net.parameters()], cotangent))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(1, 4), (3, 1), (2, 3)])
@pytest.mark.parametrize("down", [True, False])
@pytest.mark.usefixtures("wide")
def test_gradients_are_those_of_autograd(
    size: tuple[int, int], channels: tuple[int, int], down: bool, rng: Generator
) -> None:
    net = layer(size, channels, down).double()
    small = tuple((side + 1) // 2 for side in size)
    large, little = (4, channels[0], *size), (4, channels[1], *small)
    x, cotangent = (random_like(s, rng) for s in ((large, little) if down else (little, large)))
    expected_out, expected = gradients(net, x, cotangent)
    with narrow():
        out, found = gradients(net, x, cotangent)
    assert "ConvolutionBackward0" not in nodes(out)
    torch.testing.assert_close(out, expected_out, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_and_their_sum_are_adjoint(size: tuple[int, int], channels: int) -> None:
    rng = Generator().manual_seed(2)
    x = random_like((2, *size, channels), rng)
    seen = unroll(x)
    y = random_like(tuple(seen.shape), rng)
    torch.testing.assert_close((seen * y).sum(), (x * roll(y, tuple(x.shape))).sum())


def test_unrolled_patches_are_those_of_a_convolution(rng: Generator) -> None:
    x, W = random_like((2, 5, 6, 3), rng), random_like((4, 3, 3, 3), rng)
    products = unroll(x) @ W.movedim(1, -1).flatten(1).t()
    expected = F.conv2d(x.movedim(-1, 1), W, stride=2, padding=1).movedim(1, -1)
    torch.testing.assert_close(products.view(2, 3, 3, 4), expected)


@pytest.mark.usefixtures("wide")
def test_a_gradient_can_be_differentiated_once_more(rng: Generator) -> None:
    """As penalties do: the slopes' squares, and their gradients in every weight and in x."""
    down, up = Halving(2, 2), Doubling(2, 2, (0, 1))
    net = nn.Sequential(down, nn.GELU(), up, nn.GELU(), down).double()  # one layer twice
    x, inputs = random_like((3, 2, 5, 6), rng), [*down.parameters(), *up.parameters()]

    def slopes(context: AbstractContextManager[object]) -> list[Tensor]:
        given = x.clone().requires_grad_()
        with context:
            out = net(given)
        slope = torch.autograd.grad(out.square().sum(), [given, *inputs], create_graph=True)
        total = sum((s.square().sum() for s in slope), torch.zeros(()))
        return [*slope, *torch.autograd.grad(total, [given, *inputs])]

    for ours, theirs in zip(slopes(narrow()), slopes(nullcontext()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_bfloat16_is_as_near_to_float32_as_autocast_is(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = conv_pair((12, 12), (1, 8))
    x = torch.randn((64, 1, 12, 12), generator=rng)
    cotangent = torch.randn((64, 1, 12, 12), generator=rng)
    _, exact = gradients(net, x, cotangent)
    errors = []
    for usual in (False, True):
        with narrow(), monkeypatch.context() as patch:
            if usual:
                patch.setattr(architectures, "_uses_products", lambda x: False)
            out, found = gradients(net, x, cotangent.bfloat16())
        assert out.dtype == torch.bfloat16
        pairs = zip(found, exact, strict=True)
        errors.append([float((a.float() - b).norm() / b.norm()) for a, b in pairs])
    for ours, theirs in zip(*errors, strict=True):
        assert ours < max(1.5 * theirs, 0.005)


def test_only_training_in_bfloat16_makes_products(rng: Generator) -> None:
    net, x = conv_pair((6, 6), (1, 2)), torch.randn((2, 1, 6, 6), generator=rng)
    ours = {"_HalveBackward", "_DoubleBackward"}
    with narrow():
        assert ours <= nodes(net(x))
    assert not ours & nodes(net(x))
    with torch.autocast("cpu", torch.float16):
        assert not ours & nodes(net(x))
    with narrow(), torch.no_grad():
        assert net(x).grad_fn is None


def test_fit_in_bfloat16_ends_as_low_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(architectures, "unroll", lambda x: calls.append(1) or unroll(x))
    X = load_digits().images[:400]
    errors = []
    for precision in ("float32", "bfloat16"):
        calls.clear()
        model = narrows.Autoencoder(
            latent_dim=8, architecture="conv", precision=precision, max_epochs=10, random_state=0
        ).fit(X)
        errors.append(1.0 - model.score(X))
        assert bool(calls) == (precision == "bfloat16")
    assert errors[1] < 1.03 * errors[0]
