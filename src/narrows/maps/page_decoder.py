"""A fitted decoder as data: the layers and weights that ``templates/decoder.js`` computes with.

Signals are images of height 1, so that the page needs convolutions in the plane only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # the base class of all convolutions

from narrows.estimators.base import Estimator
from narrows.estimators.reconstruction import ReconstructionMixin
from narrows.exceptions import ParameterError
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.likelihoods.continuous import Bernoulli
from narrows.parts.model import Model
from narrows.parts.networks.architectures import (
    ResizeTo,
    Shuffle,
    TiedLinear,
    UnflattenLast,
)
from narrows.parts.networks.linear_path import BoundedHead, WithPath

MAX_WEIGHTS = 2**23  # numbers in a page's decoder: 32 MiB
MAX_WORK = 2**26  # multiplications for one code: a tenth of a second in a browser
ACTIVATIONS = {nn.GELU: "gelu", nn.SiLU: "silu", nn.ReLU: "relu", nn.Tanh: "tanh",
               nn.Sigmoid: "sigmoid"}  # fmt: skip

Layer = dict[str, Any]  # "op", and what it needs; JSON


@dataclass(frozen=True)
class PageDecoder:
    """Layers from a code to a row in the user's units, and the weights that they refer to.

    A layer names the first of its weights by its place in ``weights``, float32. ``shape`` is the
    row's, (d,), (C, L) or (C, H, W).
    """

    layers: list[Layer]
    weights: NDArray[np.float32]
    shape: tuple[int, ...]


def page_decoder(model: Estimator) -> PageDecoder:
    """The decoder of a fitted model for the page.

    Raises `ParameterError` if the page cannot compute it: a decoder of other layers than those of
    narrows, one that decodes to classes or counts, or one with too many weights.
    """
    state, name = model.state_, type(model).__name__
    plain = (
        type(model)._decode is ReconstructionMixin._decode
        and type(state.model).decode is Model.decode
    )
    D = state.model.D
    if not plain or not (type(D).mean is Likelihood.mean or isinstance(D, Bernoulli)):
        raise ParameterError(
            f"{name} decodes with more than a network of layers, which a page cannot compute by "
            "itself; use `narrows explore`, which asks the model."
        )
    out = _Exported()
    layers = [*out.network(state.model.g)]
    if isinstance(D, Bernoulli):
        layers.append({"op": "sigmoid"})
    layers += _units(model)
    work = _work(model)
    if out.n_weights > MAX_WEIGHTS or work > MAX_WORK:
        raise ParameterError(
            f"The decoder of {name} has {out.n_weights:,} weights and multiplies {work:,} times "
            f"for a code; a page can do at most {MAX_WEIGHTS:,} and {MAX_WORK:,}. Use `narrows "
            "explore`, which asks the model."
        )
    shape = state.spec.layout.shape
    return PageDecoder(layers, np.concatenate([*out.weights, np.zeros(1, np.float32)]), shape)


def _work(model: Estimator) -> int:
    """Multiplications that decode one code, counted as the decoder runs once."""
    total = 0

    def count(part: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(part, _ConvNd):
            spread, each = (given[0], part.in_channels) if part.transposed else (
                output, part.out_channels)  # fmt: skip
            total += part.weight.numel() // each * (spread.numel() // spread.shape[0])
        elif isinstance(part, nn.Linear | TiedLinear):
            total += given[0].shape[1] * output.shape[1]

    g = model.state_.model.g
    hooks = [part.register_forward_hook(count) for part in g.modules()]
    try:
        with torch.no_grad():
            g(torch.zeros(1, model.state_.config.latent_dim, device=model._device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _units(model: Estimator) -> list[Layer]:
    """From scaled units to the user's; whole numbers are rounded and kept within their dtype."""
    scaling, layout = model.state_.scaling, model.state_.spec.layout
    numbers = {
        "scale": _per_element(scaling.scale, layout.shape),
        "shift": _per_element(scaling.shift, layout.shape),
    }
    layers: list[Layer] = [{"op": "affine", **numbers}]
    dtype = np.dtype(layout.dtype)
    if dtype.kind == "b":
        layers.append({"op": "round", "low": 0, "high": 1})
    elif dtype.kind in "iu":
        ends = np.iinfo(dtype)
        layers.append({"op": "round", "low": float(ends.min), "high": float(ends.max)})
    return layers


def _per_element(values: Tensor, shape: tuple[int, ...]) -> list[float]:
    """Numbers of a scaling: one for all elements of a row, one for each channel, or for each."""
    if values.numel() == 1:
        return [float(values)]
    event = values.reshape([1] * (len(shape) - values.ndim) + list(values.shape))
    if math.prod(event.shape[1:]) > 1:
        event = event.expand(shape)
    return [float(value) for value in event.flatten()]


@dataclass
class _Exported:
    """The weights of the layers exported so far."""

    weights: list[NDArray[np.float32]] = field(default_factory=list)
    n_weights: int = 0

    def keep(self, values: Tensor | None, n: int = 0) -> int:
        """The place of these weights; None stands for n zeros."""
        flat = (
            np.zeros(n, np.float32)
            if values is None
            else values.detach().float().cpu().numpy().ravel()
        )
        place = self.n_weights
        self.weights.append(flat)
        self.n_weights += flat.size
        return place

    def network(self, net: nn.Module) -> Iterable[Layer]:
        """The layers of a network."""
        if isinstance(net, nn.Sequential):
            for part in net:
                yield from self.network(part)
        elif isinstance(net, WithPath):
            parts = [list(self.network(part)) for part in (net.net, net.path)]
            yield {"op": "sum", "parts": parts}
        elif isinstance(net, nn.Identity):
            return
        else:
            yield self.layer(net)

    def layer(self, net: nn.Module) -> Layer:
        """One layer; raises ParameterError for one that the page does not know."""
        if type(net) in ACTIVATIONS and getattr(net, "approximate", "none") == "none":
            return {"op": ACTIVATIONS[type(net)]}
        if isinstance(net, nn.Linear):
            return self._dense(net.weight, net.bias)
        if isinstance(net, TiedLinear):
            return self._dense(net._source[0].weight.t(), net.bias)
        if isinstance(net, nn.Unflatten):
            return {"op": "shape", "shape": _image(net.unflattened_size)}
        if isinstance(net, UnflattenLast):
            *size, channels = net.shape
            return {"op": "channels-first", "shape": [channels, *size]}
        if isinstance(net, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            return self._conv(net)
        if isinstance(net, ResizeTo):
            return {"op": "resize", "mode": net.mode, "size": _plane(net.size, 1)}
        if isinstance(net, Shuffle):
            return {"op": "shuffle", "factors": [1, 2] if net.dims == 1 else [2, 2]}
        if isinstance(net, BoundedHead):
            n = net.low.numel()
            return {"op": "clamp", "low": self.keep(net.low), "high": self.keep(net.high), "n": n}
        raise ParameterError(
            f"The decoder has a layer {type(net).__name__}, which a page cannot compute by itself; "
            "use `narrows explore`, which asks the model."
        )

    def _dense(self, W: Tensor, b: Tensor | None) -> Layer:
        out, into = W.shape
        return {"op": "dense", "in": into, "out": out, "W": self.keep(W), "b": self.keep(b, out)}

    def _conv(self, net: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d) -> Layer:
        plain = net.groups == 1 and max(net.dilation) == 1 and net.padding_mode == "zeros"
        if not plain or isinstance(net.padding, str):
            raise ParameterError(
                "The decoder has a convolution in groups, dilated or with a padding of another "
                "kind, which a page cannot compute; use `narrows explore`, which asks the model."
            )
        return {
            "op": "transposed" if net.transposed else "conv",
            "in": net.in_channels,
            "out": net.out_channels,
            "kernel": _plane(net.kernel_size, 1),
            "stride": _plane(net.stride, 1),
            "padding": _plane(net.padding, 0),
            "extra": _plane(net.output_padding, 0),
            "W": self.keep(net.weight),
            "b": self.keep(net.bias, net.out_channels),
        }


def _plane(sides: Sequence[int], first: int) -> list[int]:
    """Sides of a plane; of a signal the first is that of its height 1."""
    return [first, *sides] if len(sides) == 1 else list(sides)


def _image(shape: Sequence[int]) -> list[int]:
    """(C, H, W) of a row of any shape."""
    channels, *size = shape
    return [channels, 1, 1] if not size else [channels, *_plane(size, 1)]
