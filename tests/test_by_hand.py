"""The hand-written gradients are autograd's, in float64 to rounding; bfloat16 is autocast's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

import narrows
from narrows.parts import by_hand
from narrows.parts.by_hand import FlattenLast, Layers, UnflattenLast, roll, unroll
from narrows.parts.networks import ACTIVATIONS, NetworkOptions, build_networks

SIZES = [(1, 1), (1, 2), (2, 3), (5, 4), (6, 6), (7, 9), (8, 8)]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code in float64, where an error of the formula cannot hide behind rounding."""
    monkeypatch.setattr(by_hand, "NARROW", torch.float64)


@pytest.fixture
def rng() -> Generator:
    return Generator().manual_seed(0)


def narrow() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def conv_pair(size: tuple[int, int], channels: tuple[int, int], activation: str) -> nn.Sequential:
    """Down and up again, as ``networks.conv`` has it."""
    options = NetworkOptions(
        (channels[0], *size), 3, channels=(channels[1], 4), activation=activation
    )
    f, g = build_networks("conv", options, Generator().manual_seed(1))
    return nn.Sequential(f, g)


def dense_pair(activation: str) -> nn.Sequential:
    options = NetworkOptions((2, 3), 2, hidden=(5, 4), activation=activation)
    return nn.Sequential(*build_networks("dense", options, Generator().manual_seed(1)))


NETWORKS: dict[str, Callable[[], tuple[nn.Sequential, tuple[int, ...]]]] = {
    **{f"dense {a}": lambda a=a: (dense_pair(a), (2, 3)) for a in sorted(ACTIVATIONS)},
    **{
        f"conv {size} {channels}": lambda s=size, c=channels: (
            conv_pair(s, c, "silu"),
            (c[0], *s),
        )
        for size, channels in itertools.product(SIZES, [(1, 4), (3, 1), (2, 3)])
    },
}


def random_like(shape: tuple[int, ...], rng: Generator) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def gradients(net: nn.Module, x: Tensor, cotangent: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What ``net`` answers, and the gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    out = net(x)
    return out, list(torch.autograd.grad(out, [x, *net.parameters()], cotangent))


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.usefixtures("wide")
def test_gradients_are_those_of_autograd(name: str, rng: Generator) -> None:
    net, shape = NETWORKS[name]()
    net = net.double()
    x, cotangent = random_like((4, *shape), rng), random_like((4, *shape), rng)
    expected_out, expected = gradients(net, x, cotangent)
    with narrow():
        out, found = gradients(net, x, cotangent)
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


def test_patches_are_what_a_convolution_sees(rng: Generator) -> None:
    x, W = random_like((2, 5, 6, 3), rng), random_like((4, 3, 3, 3), rng)
    products = unroll(x) @ W.movedim(1, -1).flatten(1).t()
    expected = F.conv2d(x.movedim(-1, 1), W, stride=2, padding=1).movedim(1, -1)
    torch.testing.assert_close(products.view(2, 3, 3, 4), expected)


def test_a_gradient_can_be_differentiated_once_more(rng: Generator) -> None:
    """As the contractive penalty does: the slope's square, and its gradient in every weight."""

    def slopes(net: nn.Module) -> list[Tensor]:
        given = x.clone().requires_grad_()
        with narrow():
            out = net(given)
        (slope,) = torch.autograd.grad(out.float().square().sum(), given, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), list(net.parameters())))

    layers = Layers(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    x = torch.randn((4, 6), generator=rng)
    usual = nn.Sequential(*layers)
    for ours, theirs in zip(slopes(layers), slopes(usual), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))
        assert float(theirs.abs().max()) > 0


def test_bfloat16_is_as_near_to_float32_as_autocast_is(rng: Generator) -> None:
    net = conv_pair((12, 12), (1, 8), "gelu")
    x = torch.randn((64, 1, 12, 12), generator=rng)
    cotangent = torch.randn((64, 1, 12, 12), generator=rng)
    _, exact = gradients(net, x, cotangent)
    errors = []
    for usual in (False, True):
        with narrow():
            if usual:
                for layers in net:
                    layers.__class__ = nn.Sequential
            out, found = gradients(net, x, cotangent.bfloat16())
        assert out.dtype == torch.bfloat16
        pairs = zip(found, exact, strict=True)
        errors.append([float((a.float() - b).norm() / b.norm()) for a, b in pairs])
    for ours, theirs in zip(*errors, strict=True):
        assert ours < max(1.5 * theirs, 0.005)


def nodes(t: Tensor) -> Iterator[str]:
    """The names of the nodes that made t."""
    waiting, seen = [t.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node.name()
            waiting += [parent for parent, _ in node.next_functions]


def test_only_training_in_bfloat16_goes_by_hand(rng: Generator) -> None:
    net, x = dense_pair("relu"), torch.randn((4, 2, 3), generator=rng)
    with narrow():
        names = list(nodes(net(x)))
    assert names.count("_RunBackward") == 2
    assert "AddmmBackward0" not in names
    assert "_RunBackward" not in list(nodes(net(x)))
    with narrow(), torch.no_grad():
        answer = net(x)
    assert answer.grad_fn is None


def test_layers_outside_the_rules_are_left_to_autograd(rng: Generator) -> None:
    odd = Layers(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=2, padding=1))
    with narrow():
        names = list(nodes(odd(torch.randn((2, 1, 6, 6), generator=rng))))
    assert "ConvolutionBackward0" in names
    assert "_RunBackward" in names


def test_flattening_is_undone() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(UnflattenLast(3, (2, 2))(FlattenLast()(x)), x)


def test_fit_trains_by_hand_and_ends_as_low_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    ahead = by_hand._Linear.ahead
    monkeypatch.setattr(
        by_hand._Linear, "ahead", staticmethod(lambda *a: calls.append(1) or ahead(*a))
    )
    X = load_digits().data[:400]
    errors = []
    for precision in ("float32", "bfloat16"):
        calls.clear()
        model = narrows.Autoencoder(
            latent_dim=8, precision=precision, max_epochs=20, random_state=0
        ).fit(X)
        errors.append(1.0 - model.score(X))
        assert bool(calls) == (precision == "bfloat16")
    assert errors[1] < 1.03 * errors[0]
