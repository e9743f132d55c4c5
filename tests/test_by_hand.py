"""The hand-written gradients are autograd's, in float64 to rounding; bfloat16 is autocast's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

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
            conv_pair(s, c, "gelu"),
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


def shared() -> nn.Sequential:
    """One layer twice: what it learns from both places must be counted once each."""
    layer = nn.Linear(6, 6)
    return nn.Sequential(Layers(layer, nn.GELU(), layer), Layers(nn.GELU(), layer))


TWICE: dict[str, Callable[[], tuple[nn.Sequential, tuple[int, ...]]]] = {
    "dense": lambda: (dense_pair("gelu"), (2, 3)),
    "conv": lambda: (conv_pair((5, 6), (2, 4), "gelu"), (2, 5, 6)),
    "shared": lambda: (shared(), (6,)),
}


@pytest.mark.parametrize("name", list(TWICE))
@pytest.mark.usefixtures("wide")
def test_a_gradient_can_be_differentiated_once_more(name: str, rng: Generator) -> None:
    """As penalties do: the slope's square, and its gradient in every weight and in x."""
    net, shape = TWICE[name]()
    net, x = net.double(), random_like((4, *shape), rng)
    inputs = list({id(p): p for p in net.parameters()}.values())

    def slopes(context: AbstractContextManager[object]) -> list[Tensor]:
        given = x.clone().requires_grad_()
        with context:
            out = net(given)
        slope = torch.autograd.grad(out.square().sum(), [given, *inputs], create_graph=True)
        total = sum((s.square().sum() for s in slope), torch.zeros(()))
        return [*slope, *torch.autograd.grad(total, [given, *inputs])]

    for ours, theirs in zip(slopes(narrow()), slopes(nullcontext()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_what_is_kept_is_let_go_after_the_way_back(rng: Generator) -> None:
    net = Layers(nn.Linear(6, 5), nn.ReLU())
    with narrow():
        out = net(torch.randn((4, 6), generator=rng))
    out.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.sum().backward()


def test_a_layer_with_a_hook_is_called_and_one_replaced_is_used(rng: Generator) -> None:
    net, x, calls = Layers(nn.Linear(6, 6), nn.ReLU()), torch.randn((4, 6), generator=rng), []
    with narrow():
        before = net(x)
        hook = net[0].register_forward_hook(lambda *given: calls.append(given))
        net(x)
        hook.remove()
        net[0] = nn.Linear(6, 6)
        after = net(x)
    assert len(calls) == 1
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.float(), torch.relu(net[0](x)), rtol=0.02, atol=0.02)


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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 6, bias=False),
        nn.Conv2d(1, 1, 3, padding=1),
        nn.Conv2d(1, 1, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(1, 1, 5, stride=2, padding=1),
        nn.ConvTranspose2d(1, 1, 3, stride=2, padding=0),
    ],
)
def test_layers_outside_the_rules_are_left_to_autograd(layer: nn.Module, rng: Generator) -> None:
    x = torch.randn((2, 1, 6, 6), generator=rng)
    with narrow():
        assert "_RunBackward" not in list(nodes(Layers(layer)(x)))
    depthwise = nn.Conv2d(2, 2, 3, stride=2, padding=1, groups=2)
    with narrow():
        assert "_RunBackward" not in list(nodes(Layers(depthwise)(x.expand(2, 2, 6, 6))))


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
