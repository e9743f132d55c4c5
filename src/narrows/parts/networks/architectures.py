"""f and g: symmetric networks, dense or convolutional, that restore any shape exactly.

A network is created without weights and gets them by ``initialise`` from a private generator, so
that torch's global random state never changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd import Function
from torch.nn.modules.conv import _ConvNd  # the base class of all convolutions

from narrows.exceptions import ParameterError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


@dataclass(frozen=True)
class NetworkOptions:
    """What f and g are built from."""

    shape: tuple[int, ...]  # of x: (d,), (C, L) or (C, H, W)
    latent_dim: int
    numbers: int | None = None  # outputs of f; None: latent_dim
    into: tuple[int, ...] | None = None  # the shape of f's input, if it is not that of x
    out: tuple[int, ...] | None = None  # the shape of g's output, if it is not that of x
    given: int = 0  # further inputs of g, after those of the code
    hidden: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    down: str = "stride"
    up: str = "transpose"
    activation: str = "gelu"
    tied: bool = False

    @property
    def code_numbers(self) -> int:
        """Outputs of f."""
        return self.latent_dim if self.numbers is None else self.numbers

    @property
    def ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of f's input, and the shape of g's output."""
        return self.into or self.shape, self.out or self.shape


def dense_widths(features: int) -> tuple[int, ...]:
    """Two hidden widths: at least twice the input (a power of 2, 64 to 512), then half of that.

    Of codecs and ladders, and of models fitted before `default_widths`: their files name no widths.
    """
    first = min(512, max(64, 2 ** math.ceil(math.log2(2 * features))))
    return first, first // 2


# At equal seconds (3 and 10, one core) tables have .68 to 1.05 of the error with ``dense_widths``;
# with 512 units and wide codes a third layer costs more than it gains.
MAX_NARROW_CODE = 10  # numbers


def default_widths(features: int, latent_dim: int) -> tuple[int, ...]:
    """The hidden widths of a dense encoder: w, w, w/2, with w about twice the input, 128 to 512.

    With w = 512 and a code of more than ten numbers they are w, w/2, which train faster.
    """
    first = min(512, max(128, 2 ** math.ceil(math.log2(2 * features))))
    if first == 512 and latent_dim > MAX_NARROW_CODE:
        return first, first // 2
    return first, first, first // 2


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


def dense(options: NetworkOptions) -> tuple[nn.Sequential, nn.Sequential]:
    """Fully connected f and g; the widths of g are those of f in reverse order.

    With ``tied`` the decoder's matrices are those of the encoder, transposed; its biases are free.
    """
    features = math.prod(options.shape)
    hidden = dense_widths(features) if options.hidden is None else options.hidden
    into, out = options.ends
    falling = [math.prod(into), *hidden, options.code_numbers]
    f = nn.Sequential(nn.Flatten(), *_layers(falling, options.activation))
    unflatten = nn.Unflatten(1, out)
    if not options.tied:
        rising = [options.latent_dim + options.given, *reversed(hidden), math.prod(out)]
        return f, nn.Sequential(*_layers(rising, options.activation), unflatten)
    if into != out or options.code_numbers != options.latent_dim + options.given:
        raise ParameterError(
            "tied=True needs a decoder that mirrors the encoder, but here the encoder maps "
            f"{math.prod(into)} numbers to {options.code_numbers}, and the decoder "
            f"{options.latent_dim + options.given} to {math.prod(out)}; leave tied=False."
        )
    g = nn.Sequential()
    for layer in reversed([m for m in f if isinstance(m, nn.Linear)]):
        if len(g):
            g.append(ACTIVATIONS[options.activation]())
        g.append(TiedLinear(layer))
    return f, g.append(unflatten)


# by the number of dimensions, signals or images
_CONV: dict[int, type[nn.Conv1d | nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_POOL: dict[int, type[nn.MaxPool1d | nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


def halve(size: Sequence[int]) -> tuple[int, ...]:
    """The size after one downsampling stage: half, rounded up, so that 1 stays 1."""
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
        pairs = x.view(batch, channels // 2, 2, length).transpose(2, 3)
        return pairs.reshape(batch, -1, 2 * length)


class ResizeTo(nn.Module):
    """To an exact size: by nearest or (bi)linear upsampling, or by cropping what is too large."""

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
    """(B, C, H, W) ↦ (B, H·W·C); no copy, because convolutions keep channels last in memory.

    With this and ``UnflattenLast`` a training step is about a sixth faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


class UnflattenLast(nn.Module):
    """(B, H·W·C) ↦ (B, C, H, W), the channels last in memory."""

    def __init__(self, channels: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (*size, channels)

    def forward(self, h: Tensor) -> Tensor:
        return h.view(-1, *self.shape).movedim(-1, 1)


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
    """One number for each stage, 32, 64, ... up to 256, until both sides are at most 7."""
    channels = [32]
    size = halve(size)
    while max(size) > 7:
        channels.append(min(256, 2 * channels[-1]))
        size = halve(size)
    return tuple(channels)


def conv(options: NetworkOptions) -> tuple[nn.Sequential, nn.Sequential]:
    """Convolutional f and g for (C, L) and (C, H, W): every stage of f halves the size.

    Every size from 1 up is restored exactly: each stage of g has the size of the input of its
    counterpart in f.
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
    f.extend(_layers([flat, *hidden, options.code_numbers], options.activation))
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
    """f and g of one architecture.

    Parameters
    ----------
    name : str
        A key of ``ARCHITECTURES``.
    options : NetworkOptions
    rng : Generator or None
        Draws the weights. None: they come from a file, and the networks stay on "meta".
    """
    f, g = create(lambda: nn.ModuleList(ARCHITECTURES[name](options)), rng)
    return f, g


def validate_plain_ends(options: NetworkOptions) -> None:
    """Raise ParameterError for a D with one-hot inputs, which only ``ARCHITECTURES`` support."""
    if options.ends != (options.shape, options.shape):
        raise ParameterError(
            'distance="categorical" and "mixed" turn values into classes, which the networks of '
            "this model do not support; choose another distance, or another model."
        )


M = TypeVar("M", bound=nn.Module)


def create(build: Callable[[], M], rng: Generator | None) -> M:
    """The module that ``build`` returns, with weights drawn from ``rng`` only.

    Without ``rng`` nothing is drawn and the module stays on "meta". Every network of a part is
    created by this function, so that nothing draws from torch's global generator.
    """
    with torch.device("meta"):
        net = build().float()
    if rng is not None:
        allocate(net)
        initialise(net, rng)
    return net


def allocate(net: nn.Module) -> None:
    """Give a module on "meta" memory on the CPU, its numbers undefined.

    As ``net.to_empty(device="cpu")``, which would import sympy for it: half a second.
    """
    empty = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in net.state_dict().items()}
    net.load_state_dict(empty, assign=True)


def mlp(widths: Sequence[int], rng: Generator | None) -> nn.Sequential:
    """Linear layers of these widths with GELU in between, created by ``create``."""
    return create(lambda: nn.Sequential(*_layers(widths, "gelu")), rng)


def initialise(net: nn.Module, rng: Generator) -> None:
    """Uniform Xavier weights (Glorot & Bengio 2010), and zero for everything of one dimension."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or parameter.ndim < 2:
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, generator=rng)


def zero_last(net: nn.Module) -> None:
    """Set the weights of the last layer to zero, so that ``net`` outputs 0 at first."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]
    if layers:  # a tied decoder has none of its own; it outputs 0 because the code is 0
        nn.init.zeros_(layers[-1].weight)


# 3 × 3 convolutions of stride 2. torch's backward pass for them in bfloat16 on a CPU is many times
# slower than a matrix product, so there they are products with the patches they cover. On other
# devices and in float32 they are torch's own.
_BF16 = torch.bfloat16


class Halving(nn.Conv2d):
    """(B, a, H, W) ↦ (B, b, ⌈H/2⌉, ⌈W/2⌉), 3 by 3."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not _uses_products(x):
            return super().forward(x)
        return _Halve.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class Doubling(nn.ConvTranspose2d):
    """The adjoint of ``Halving``: to sizes of 2·side − 1, or one more where ``extra`` is 1."""

    def __init__(self, a: int, b: int, extra: tuple[int, int]) -> None:
        super().__init__(a, b, 3, stride=2, padding=1, output_padding=extra)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _uses_products(x):
            return super().forward(x, output_size)
        pairs = zip(x.shape[2:], self.output_padding, strict=True)
        large = tuple(2 * side - 1 + extra for side, extra in pairs)
        return _Double.apply(x, self.weight, self.bias, large)  # type: ignore[no-any-return, no-untyped-call]


def _uses_products(x: Tensor) -> bool:
    """Whether this is training in bfloat16 on a CPU."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return dtype == torch.bfloat16 and torch.is_grad_enabled() and x.is_cpu and x.ndim == 4


class _Halve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        patches = unroll(_last(x))
        ctx.save_for_backward(x, W, patches)
        small = [(side + 1) // 2 for side in x.shape[2:]]
        out = torch.addmm(b.to(_BF16), patches, _matrix(W).t())
        return out.view(len(x), *small, len(b)).movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, W, patches = ctx.saved_tensors
        # a gradient of this gradient can be taken, with respect to x too
        if torch.is_grad_enabled():
            patches = unroll(_last(x))
        g, grad_x = _last(grads[0]).flatten(0, 2), None
        if ctx.needs_input_grad[0]:
            n, channels, *size = x.shape
            grad_x = roll(g @ _matrix(W), (n, *size, channels)).movedim(-1, 1).to(x.dtype)
        return grad_x, _kernel(g.t() @ patches, W), g.sum(0).to(W.dtype)


class _Double(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, large: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, W)
        patches = _last(x).flatten(0, 2) @ _matrix(W)
        out = roll(patches, (len(x), *large, len(b))).add_(b.to(_BF16))
        return out.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, W = ctx.saved_tensors
        pixels, g, grad_x = _last(x), _last(grads[0]), None
        patches = unroll(g)
        if ctx.needs_input_grad[0]:
            grad_x = (patches @ _matrix(W).t()).view(pixels.shape).movedim(-1, 1).to(x.dtype)
        weight = _kernel(pixels.flatten(0, 2).t() @ patches, W)
        return grad_x, weight, g.sum((0, 1, 2)).to(W.dtype), None


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C), in bfloat16."""
    return x.to(_BF16).movedim(1, -1).contiguous()


def _matrix(W: Tensor) -> Tensor:
    """(a, b, 3, 3) as (a, 9·b), the channels b last, in bfloat16."""
    return W.movedim(1, -1).flatten(1).to(_BF16)


def _kernel(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``_matrix``."""
    return matrix.view(like.movedim(1, -1).shape).movedim(-1, 1).to(like.dtype)


def unroll(x: Tensor) -> Tensor:
    """(B, H, W, C) ↦ (B·h·w, 9·C): the 3 × 3 patch around every second pixel in both directions."""
    n, height, width, channels = x.shape
    small = (height + 1) // 2, (width + 1) // 2
    x = F.pad(x, (0, 0, 1, 1, 1, 1)).contiguous()
    a, b, c = x.stride()[:3]
    if channels == 1:  # nine strided copies are faster than copying single numbers
        taps = x.as_strided((3, 3, n, *small), (b, c, a, 2 * b, 2 * c))
        return taps.reshape(9, -1).t()
    patches = x.as_strided((n, *small, 3, 3 * channels), (a, 2 * b, 2 * c, b, 1))
    return patches.reshape(-1, 9 * channels)


def roll(patches: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The adjoint of ``unroll``: an image of this shape, overlapping patches added up.

    A pixel with an even index is the middle of one patch; one with an odd index is the end of the
    patch before it and the start of the one after.
    """
    n, height, width, channels = shape
    small = (height + 1) // 2, (width + 1) // 2
    taps = patches.view(n, *small, 3, 3, channels).movedim((3, 4), (0, 1))
    out = patches.new_empty(shape)
    for a, b in product((0, 1), repeat=2):  # even and odd indices
        target = out[:, a::2, b::2]
        for (i, top, above), (j, left, before) in product(_taps(a, height), _taps(b, width)):
            part, where = taps[i, j][:, top, left], target[:, above, before]
            if i and j:  # the first, which covers all of the target
                where.copy_(part)
            else:
                where += part
    return out


def _taps(odd: int, side: int) -> list[tuple[int, slice, slice]]:
    """The taps that reach even or odd indices: (position in the patch, source, target)."""
    if not odd:
        return [(1, slice(None), slice(None))]
    return [(2, slice(side // 2), slice(None)), (0, slice(1, None), slice((side - 1) // 2))]
