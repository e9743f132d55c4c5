"""f and g: symmetric networks, dense or convolutional, that restore any shape exactly.

A network is built without weights and given them by ``initialise`` from a private generator, so
that building one never touches torch's global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd  # what all convolutions, transposed too, are

from narrows.exceptions import ParameterError
from narrows.parts.networks.strided_convolutions import Doubling, Halving

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


@dataclass(frozen=True)
class NetworkOptions:
    """What f and g are built from: the shape of x, the numbers in and out, and the style.

    Where f is given, or g answers, another number of channels (of columns) than x has, ``into`` and
    ``out`` are the shapes of that; ``given`` are numbers that g takes beside those of the code.
    """

    shape: tuple[int, ...]  # (d,), (C, L) or (C, H, W)
    latent_dim: int
    numbers: int | None = None  # that f gives; None: as many as the code has
    into: tuple[int, ...] | None = None
    out: tuple[int, ...] | None = None
    given: int = 0
    hidden: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    down: str = "stride"
    up: str = "transpose"
    activation: str = "gelu"
    tied: bool = False

    @property
    def answers(self) -> int:
        """Numbers that f gives."""
        return self.latent_dim if self.numbers is None else self.numbers

    @property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape f is given, and the shape g answers."""
        return self.into or self.shape, self.out or self.shape


def dense_widths(features: int) -> tuple[int, ...]:
    """Two hidden widths, falling: about twice the input, between 64 and 512, then half of it."""
    first = min(512, max(64, 2 ** math.ceil(math.log2(2 * features))))
    return first, first // 2


class TiedLinear(nn.Module):
    """h ↦ h W + b, where W is another layer's weight: the transpose of that layer."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(source.in_features))
        # in a tuple, so that the encoder's weight is not registered (and saved) a second time
        self._source = (source,)

    def __repr__(self) -> str:
        source = self._source[0]
        return f"tied linear {source.out_features}→{source.in_features}"

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self._source[0].weight.t(), self.bias)


def _layers(widths: Sequence[int], activation: str) -> Iterator[nn.Module]:
    for i, (a, b) in enumerate(pairwise(widths)):
        if i:
            yield ACTIVATIONS[activation]()
        yield nn.Linear(a, b)


def dense(options: NetworkOptions) -> tuple[nn.Module, nn.Module]:
    """Fully connected f and g whose widths fall and rise symmetrically.

    With ``tied`` the decoder's matrices are the encoder's, transposed (its biases are its own).
    """
    features = math.prod(options.shape)
    hidden = dense_widths(features) if options.hidden is None else options.hidden
    into, out = options.ends
    falling = [math.prod(into), *hidden, options.answers]
    f = nn.Sequential(nn.Flatten(), *_layers(falling, options.activation))
    unflatten = nn.Unflatten(1, out)
    if not options.tied:
        rising = [options.latent_dim + options.given, *reversed(hidden), math.prod(out)]
        return f, nn.Sequential(*_layers(rising, options.activation), unflatten)
    if rising_differs(options):
        raise ParameterError(
            "tied=True needs a decoder whose ends are the encoder's, but here the encoder turns "
            f"{math.prod(into)} numbers into {options.answers}, and the decoder "
            f"{options.latent_dim + options.given} into {math.prod(out)}; leave tied=False."
        )
    g = nn.Sequential()
    for layer in reversed([m for m in f if isinstance(m, nn.Linear)]):
        if len(g):
            g.append(ACTIVATIONS[options.activation]())
        g.append(TiedLinear(layer))
    return f, g.append(unflatten)


def rising_differs(options: NetworkOptions) -> bool:
    """Whether the decoder's ends are not the encoder's turned round."""
    into, out = options.ends
    return into != out or options.answers != options.latent_dim + options.given


# Convolutions in one and two dimensions have one text: the classes differ in a suffix only.
_CONV: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_POOL: dict[int, type[nn.MaxPool1d | nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


def halve(size: Sequence[int]) -> tuple[int, ...]:
    """The size after one stage down: half, rounded up, so that 1 stays 1."""
    return tuple((s + 1) // 2 for s in size)


def transposed(dims: int, a: int, b: int, small: Sequence[int], large: Sequence[int]) -> nn.Module:
    """The adjoint of a 3-wide convolution of stride 2 from ``large`` to ``small``."""
    # (small − 1)·2 − 2·1 + 3 = 2·small − 1, and one more where the large side was even
    extra = tuple(big - (2 * s - 1) for s, big in zip(small, large, strict=True))
    if dims == 2:
        return Doubling(a, b, (extra[0], extra[1]))
    return nn.ConvTranspose1d(a, b, 3, stride=2, padding=1, output_padding=extra[0])


class Shuffle(nn.Module):
    """(B, c·2ⁿ, *s) ↦ (B, c, *2s): the pixel shuffle, for signals as well as images."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    def __repr__(self) -> str:
        return "pixel shuffle"

    def forward(self, x: Tensor) -> Tensor:
        if self.dims == 2:
            return F.pixel_shuffle(x, 2)
        batch, channels, length = x.shape
        return (
            x.view(batch, channels // 2, 2, length).transpose(2, 3).reshape(batch, -1, 2 * length)
        )


class ResizeTo(nn.Module):
    """To an exact size: nearest or (bi)linear upsampling, or a crop of what is one too large."""

    def __init__(self, size: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.size, self.mode = size, mode

    def __repr__(self) -> str:
        return f"{self.mode} to {'×'.join(map(str, self.size))}"

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "crop":
            window: tuple[Any, ...] = (..., *(slice(s) for s in self.size))
            return x[window]
        if self.mode == "nearest":
            return F.interpolate(x, size=self.size, mode="nearest")
        mode = "linear" if len(self.size) == 1 else "bilinear"
        return F.interpolate(x, size=self.size, mode=mode, align_corners=False)


class FlattenLast(nn.Module):
    """(B, C, H, W) ↦ (B, H·W·C): free, where the channels lie last in memory as convolutions like.

    Between this and `UnflattenLast` nothing need be copied from one layout to the other, which
    makes a training step about a sixth faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


class UnflattenLast(nn.Module):
    """(B, H·W·C) ↦ (B, C, H, W), the channels last in memory."""

    def __init__(self, channels: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (*size, channels)

    def forward(self, h: Tensor) -> Tensor:
        channels_last: Tensor = h.unflatten(1, self.shape)
        return channels_last.movedim(-1, 1)


def _down(options: NetworkOptions, dims: int, a: int, b: int) -> list[nn.Module]:
    act = ACTIVATIONS[options.activation]
    if options.down == "stride":
        halving = Halving(a, b) if dims == 2 else nn.Conv1d(a, b, 3, stride=2, padding=1)
        return [halving, act()]
    return [_CONV[dims](a, b, 3, padding=1), act(), _POOL[dims](2, ceil_mode=True)]


def _up(
    options: NetworkOptions, a: int, b: int, small: tuple[int, ...], large: tuple[int, ...]
) -> list[nn.Module]:
    dims = len(large)
    if options.up == "transpose":
        return [transposed(dims, a, b, small, large)]
    if options.up == "shuffle":
        wide = _CONV[dims](a, b * 2**dims, 3, padding=1)
        return [wide, Shuffle(dims), ResizeTo(large, "crop")]
    return [ResizeTo(large, options.up), _CONV[dims](a, b, 3, padding=1)]


def conv_channels(size: Sequence[int]) -> tuple[int, ...]:
    """Channels that double from 32 to at most 256, one stage for each halving down to 7 or less."""
    channels = [32]
    size = halve(size)
    while max(size) > 7:
        channels.append(min(256, 2 * channels[-1]))
        size = halve(size)
    return tuple(channels)


def conv(options: NetworkOptions) -> tuple[nn.Module, nn.Module]:
    """Convolutional f and g for (C, L) and (C, H, W): channels grow as the picture halves.

    Every size from 1 up is restored exactly: each stage up knows the size its twin started from.
    """
    (n_channels, *size), (n_out, *_) = options.ends
    if options.tied:
        raise ParameterError(
            "tied=True shares the matrices of dense layers, but the architecture is conv; "
            'leave tied=False or choose architecture="dense".'
        )
    channels = conv_channels(size) if options.channels is None else options.channels
    if not channels:
        raise ParameterError("channels is empty; give at least one stage, as channels=(32, 64).")
    dims, sizes = len(size), [tuple(size)]
    act = ACTIVATIONS[options.activation]
    f = nn.Sequential()
    for a, b in pairwise([n_channels, *channels]):
        f.extend(_down(options, dims, a, b))
        sizes.append(halve(sizes[-1]))
    flat = channels[-1] * math.prod(sizes[-1])
    hidden = options.hidden or ()
    f.append(FlattenLast() if dims == 2 else nn.Flatten())
    f.extend(_layers([flat, *hidden, options.answers], options.activation))
    code = options.latent_dim + options.given
    g = nn.Sequential(*_layers([code, *reversed(hidden), flat], options.activation))
    back = UnflattenLast(channels[-1], sizes[-1]) if dims == 2 else None
    g.extend([act(), back or nn.Unflatten(1, (channels[-1], *sizes[-1]))])
    for i, (a, b) in enumerate(pairwise([*reversed(channels), n_out])):
        g.extend([act()] if i else [])
        g.extend(_up(options, a, b, sizes[-1 - i], sizes[-2 - i]))
    return f, g


ARCHITECTURES: dict[str, Callable[[NetworkOptions], tuple[nn.Module, nn.Module]]] = {
    "dense": dense,
    "conv": conv,
}


def build_networks(
    name: str, options: NetworkOptions, rng: Generator | None
) -> tuple[nn.Module, nn.Module]:
    """f and g of one architecture, with weights drawn from ``rng`` alone (None: left on "meta")."""
    with torch.device("meta"):
        f, g = (net.float() for net in ARCHITECTURES[name](options))
    if rng is None:
        return f, g
    for net in (f, g):
        net.to_empty(device="cpu")
        initialise(net, rng)
    return f, g


def refuse_classes(network: type[nn.Module], options: NetworkOptions) -> None:
    """Refuse a D for which f is given, or g answers, other numbers than those of x."""
    if options.ends != (options.shape, options.shape):
        raise ParameterError(
            f"The network {network.__name__} is one of the numbers of x as they are, but "
            'distance="categorical" and "mixed" ask for some of each class; choose another '
            "distance, or another model."
        )


def make(build: Callable[[], nn.Module], rng: Generator | None) -> Any:
    """A module that ``build`` describes, its weights drawn from ``rng`` alone (None: none drawn).

    What a part's own networks are made by: nothing else draws from torch's global generator.
    """
    with torch.device("meta"):
        net = build().float()
    if rng is not None:
        net.to_empty(device="cpu")
        initialise(net, rng)
    return net


def mlp(widths: Sequence[int], rng: Generator | None, activation: str = "gelu") -> nn.Sequential:
    """Linear layers of these widths with an activation between, made by ``make``."""
    net: nn.Sequential = make(lambda: nn.Sequential(*_layers(widths, activation)), rng)
    return net


def initialise(net: nn.Module, rng: Generator) -> None:
    """Xavier's uniform weights (Glorot & Bengio 2010), and biases of zero, everywhere."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or parameter.ndim < 2:
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, generator=rng)


def zero_last(net: nn.Module) -> None:
    """Set the last layer to zero, so that ``net`` answers 0 until it has learned something."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]
    if layers:  # a tied decoder has none of its own: it answers 0 as soon as the code does
        nn.init.zeros_(layers[-1].weight)
