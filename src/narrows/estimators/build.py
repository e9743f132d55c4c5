"""From a named model's parts and its resolved configuration to a module.

``fit`` and ``load`` build by the same function; they differ in where the weights come from.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Sizes
from narrows.estimators.parameters import MAX_SIDE, Parameters, resolved, stored
from narrows.exceptions import ParameterError
from narrows.parts.bounds import Bound, Mean
from narrows.parts.corruptions import Corruption
from narrows.parts.latents.base import Latent
from narrows.parts.likelihoods.base import Likelihood, Range
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.parts.model import Model
from narrows.parts.networks.architectures import NetworkOptions, build_networks
from narrows.parts.networks.linear_path import BoundedHead, WithPath, decoder_path, encoder_path
from narrows.parts.objective import Term, WeightedObjective, validate_parts
from narrows.parts.priors.base import Prior
from narrows.training.batches import Scaling

Networks = tuple[nn.Module, nn.Module]  # f and g
NetworkBuilder = Callable[[str, NetworkOptions, Generator | None], Networks]


def with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: its lists become tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


@dataclass(frozen=True)
class ResolvedConfig:
    """Every "auto", resolved; with the class and its parameters enough to build the model again."""

    shape: tuple[int, ...] = stored(kind=tuple, low=1, high=MAX_SIDE, most=3)
    latent_dim: int = stored(**resolved("latent_dim"))
    architecture: str = stored(choices=("dense", "conv", "own"))
    hidden: tuple[int, ...] | None = stored(**resolved("hidden_layer_sizes"), none=True)
    channels: tuple[int, ...] | None = stored(**resolved("channels"), none=True)
    down: str = stored(**resolved("down"))
    up: str = stored(**resolved("up"))
    activation: str = stored(**resolved("activation"))
    tied: bool = stored(kind=bool)
    distance: str = stored(**resolved("distance"))
    scaling: str = stored(**resolved("scaling"))
    linear_path: bool = stored(kind=bool)
    bounded: bool = stored(kind=bool)
    precision: str = stored("float32", **resolved("precision"))
    # values that elements may have, where D must know
    kinds: tuple[int, ...] | None = stored(
        None, kind=tuple, low=-MAX_SIDE, high=MAX_SIDE, most=MAX_SIDE, none=True
    )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ResolvedConfig:
        """From the JSON of a file."""
        return cls(**with_tuples(data))


@dataclass(frozen=True)
class Parts:
    """What a named model picks from the slots; parts that make no sense together are refused.

    ``c`` makes a corruption for the shape of one event; ``model`` composes the parts, if not in
    the usual way; ``networks`` makes f and g, if they are not those of an architecture: as
    ``build_networks``. ``missing`` says that NaN in x marks a missing value.
    """

    q: Latent
    distance: str = "mse"  # what distance="auto" becomes on real numbers
    c: Callable[[tuple[int, ...]], Corruption] | None = None
    p: Prior | None = None
    terms: tuple[Term, ...] = ()
    bound: Bound = field(default_factory=Mean)
    model: type[Model] = Model
    networks: NetworkBuilder | None = None
    missing: bool = False

    def __post_init__(self) -> None:
        validate_parts(self.q, self.p, self.terms, self.bound)

    def objective(self) -> WeightedObjective:
        """The loss of these parts."""
        return WeightedObjective(self.terms, self.bound)

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        """Let every part make its own parameters, now that the sizes are known."""
        for part in (self.q, self.p, *(term.regularizer for term in self.terms)):
            if part is not None:
                part.build(sizes, rng)


class ComposedParameters(Parameters):
    """The parameters of a model that is composed of parts. No dataclass: it adds no field."""

    def _parts(self) -> Parts:
        """The parts this model picks."""
        raise NotImplementedError


def parts_of(params: ComposedParameters) -> Parts:
    """The parts a model picks, and whether its data may miss values."""
    return replace(params._parts(), missing=params.missing == "mask")


def scaled_bounds(scaling: Scaling, found: Range) -> tuple[Tensor, Tensor]:
    """The range of bounded data, in scaled units."""
    low, high = (((b - scaling.shift) / scaling.scale).float() for b in (found.low, found.high))
    return low, high


def set_corruption_units(c: Corruption, scaling: Scaling, found: Range) -> None:
    """Give a corruption 0 in the user's units and the range of the data, both scaled."""
    low, high = found.each if scaling.kind == "column" else (found.low, found.high)
    ends = (torch.zeros_like(low), low, high)
    c.set_data_units(*((end - scaling.shift) / scaling.scale for end in ends))


def build_model(
    parts: Parts,
    config: ResolvedConfig,
    own: Networks | None,
    rng: Generator | None,
    n_classes: int = 0,
) -> Model:
    """The module, with networks drawn from ``rng`` and a linear path of zeros.

    Without ``rng`` nothing is drawn: under ``torch.device("meta")`` nothing is allocated either,
    and the module takes a file's tensors. ``own`` are the user's networks.
    """
    D, sizes = make_likelihood(config), Sizes(config.shape, config.latent_dim, n_classes)
    options = _network_options(parts, D, config, sizes)
    f, g = own or (parts.networks or build_networks)(config.architecture, options, rng)
    features, k = math.prod(config.shape), config.latent_dim
    if config.linear_path:
        f = WithPath(f, encoder_path(features, parts.q.n_numbers(k)))
        g = WithPath(g, decoder_path(k, config.shape))
    if config.bounded:
        per_channel = len(config.shape) > 1
        event = [config.shape[0] if per_channel else 1, *[1] * (len(config.shape) - 1)]
        event = list(config.shape) if config.scaling == "column" else event
        g = nn.Sequential(g, BoundedHead(torch.zeros(event), torch.zeros(event)))
    parts.build(sizes, rng)
    if parts.q.maps_codes:  # a hook and no layer, so that g keeps its own names in a file
        g.register_forward_pre_hook(partial(_decoder_input, parts.q))
    c = None if parts.c is None else parts.c(config.shape)
    draws, missing = parts.bound.samples, parts.missing
    model = parts.model(f, g, parts.q, D, c=c, p=parts.p, draws=draws, missing=missing, sizes=sizes)
    if missing:
        model.usual = torch.zeros(config.shape)
    return model.float()


def make_likelihood(config: ResolvedConfig) -> Likelihood:
    """D, with what it must know of the data."""
    D = LIKELIHOODS[config.distance]()
    D.build(config.shape, config.kinds)
    return D


def _decoder_input(q: Latent, g: nn.Module, given: tuple[Tensor]) -> Tensor:
    """A hook of g: it gets ``q.decoder_input(z)`` in place of z."""
    return q.decoder_input(given[0])


def _network_options(
    parts: Parts, D: Likelihood, config: ResolvedConfig, sizes: Sizes
) -> NetworkOptions:
    return NetworkOptions(
        shape=config.shape,
        latent_dim=config.latent_dim,
        numbers=parts.q.n_numbers(config.latent_dim),
        into=D.input_shape(config.shape),
        out=D.output_shape(config.shape),
        given=parts.model.n_given(sizes),
        hidden=config.hidden,
        channels=config.channels,
        down=config.down,
        up=config.up,
        activation=config.activation,
        tied=config.tied,
    )


def channels_last(model: Model) -> Model:
    """The model with its kernels' channels last in memory, which makes 2-D convolutions faster.

    The layout changes last bits, so whatever is built or loaded must pass through here.
    """
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def set_bounds(model: Model, low: Tensor, high: Tensor) -> None:
    """Tell the head the range of bounded data."""
    for module in model.g.modules():
        if isinstance(module, BoundedHead):
            module.low.copy_(low)
            module.high.copy_(high)


def within_bounds(model: Model, x: Tensor) -> Tensor:
    """Scaled rows kept within the bounds that the model's own reconstructions are kept in."""
    for module in model.g.modules():
        if isinstance(module, BoundedHead):
            x = module(x)
    return model.D.within(x)


@torch.no_grad()
def widen_bounds(model: Model, low: Tensor, high: Tensor) -> None:
    """Let the head reach what later rows reach."""
    for module in model.g.modules():
        if isinstance(module, BoundedHead):
            module.low.copy_(torch.minimum(module.low, low))
            module.high.copy_(torch.maximum(module.high, high))


def copy_networks(f: object, g: object) -> Networks | None:
    """The user's own networks, copied so that theirs never change; None where none are given."""
    if f is None and g is None:
        return None
    if not (isinstance(f, nn.Module) and isinstance(g, nn.Module)):
        raise ParameterError(
            f"f and g are given together, as two nn.Module; got {type(f).__name__} and "
            f"{type(g).__name__}."
        )
    copied: Networks = copy.deepcopy((f, g))  # at once: they may share layers
    if not any(p.requires_grad for net in copied for p in net.parameters()):
        raise ParameterError("f and g have no parameter to train; give networks that have.")
    return copied


# what a network may raise when its input does not fit it
UNFIT = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)


def fingerprint(net: nn.Module) -> str:
    """A short hash of a network's structure: what a file remembers of the user's own module."""
    state = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    return hashlib.sha256(repr((repr(net), sorted(state.items()))).encode()).hexdigest()[:16]


@torch.no_grad()
def try_networks(
    own: Networks,
    parts: Parts,
    D: Likelihood,
    sizes: Sizes,
    asked: int | str,
) -> int:
    """Run the user's networks once on two rows of zeros; return the width of the code."""
    if parts.networks is not None:
        raise ParameterError(
            "This model has networks of a kind of its own; leave f and g, or choose a model whose "
            "f and g are plain ones."
        )
    f, g = (net.float().eval() for net in own)
    x = torch.zeros(2, *D.input_shape(sizes.shape), dtype=torch.float32)
    device = next((p.device for p in f.parameters()), x.device)
    try:
        h = f(x.to(device))
        h.ndim, h.shape  # noqa: B018 - what is no tensor is found here
    except UNFIT as error:
        raise ParameterError(
            f"f cannot take an input of shape {tuple(x.shape)}: {error}"
        ) from error
    k = _code_width(parts.q, h, x)
    if not isinstance(asked, str) and asked != k:
        raise ParameterError(f"latent_dim={asked}, but f gives a code of {k} numbers.")
    taken = k + parts.model.n_given(sizes)
    try:
        back = g(torch.zeros(2, taken, device=device, dtype=torch.float32))
        back.shape  # noqa: B018
    except UNFIT as error:
        raise ParameterError(f"g cannot take a code of shape (2, {taken}): {error}") from error
    expected = (2, *D.output_shape(sizes.shape))
    if tuple(back.shape) != expected:
        raise ParameterError(
            f"g turns a code of shape (2, {taken}) into {tuple(back.shape)}; expected {expected}."
        )
    return k


def _code_width(q: Latent, h: Tensor, x: Tensor) -> int:
    """The width of the code that f's answer is for."""
    if h.ndim == 2 and len(h) == 2:
        for k in range(1, h.shape[1] + 1):
            if q.n_numbers(k) == h.shape[1]:
                return k
    wanted = ", ".join(str(q.n_numbers(k)) for k in (1, 2, 3))
    raise ParameterError(
        f"f turns an input of shape {tuple(x.shape)} into {tuple(h.shape)}; expected (2, numbers), "
        f"with {wanted}, ... numbers for a latent_dim of 1, 2, 3, ..."
    )
