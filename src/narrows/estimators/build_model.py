"""From a named model's parts and the choices made to a module, and its start at PCA.

``fit`` and ``load`` build by the same function; what differs is where the weights come from.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Sizes
from narrows.estimators.pca import PCA
from narrows.estimators.resolved_config import ResolvedConfig
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

SMALLEST_NOISE = 1e-4  # of a scaled variance: what a start calls zero


Networks = Callable[[str, NetworkOptions, Generator | None], tuple[nn.Module, nn.Module]]


@dataclass(frozen=True)
class Parts:
    """What a named model picks from the slots; parts that make no sense together are refused.

    ``model`` composes them, if not in the usual way; ``networks`` makes f and g, if they are not
    those of an architecture: as ``build_networks``. ``n_given`` are numbers that g takes beside
    the code. ``missing`` says that NaN in x stands for what nobody observed.
    """

    q: Latent
    distance: str = "mse"  # what distance="auto" becomes on real numbers
    c: Corruption | None = None
    p: Prior | None = None
    terms: tuple[Term, ...] = ()
    bound: Bound = field(default_factory=Mean)
    model: Callable[..., Model] = Model
    networks: Networks | None = None
    n_given: int = 0
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


def parts_of(estimator: Any) -> Parts:
    """The parts a model picks, with what its shared parameters say of all of them."""
    parts: Parts = replace(estimator._parts(), missing=estimator.missing == "mask")
    return parts


def scaled_bounds(scaling: Scaling, found: Range) -> tuple[Tensor, Tensor]:
    """The range of bounded data, in scaled units."""
    return tuple(((b - scaling.shift) / scaling.scale).float() for b in (found.low, found.high))  # type: ignore[return-value]


def measure_for(c: Corruption, scaling: Scaling, found: Range) -> None:
    """Tell a corruption where 0 in the user's units and the ends of the data lie once scaled."""
    low, high = found.each if scaling.kind == "column" else (found.low, found.high)
    ends = (torch.zeros_like(low), low, high)
    c.set_data_units(*((end - scaling.shift) / scaling.scale for end in ends))


def build_model(
    parts: Parts,
    choices: ResolvedConfig,
    own: tuple[nn.Module, nn.Module] | None,
    rng: Generator | None,
) -> Model:
    """The module, with networks drawn from ``rng`` and a linear path of zeros.

    Without ``rng`` nothing is drawn or allocated: under ``torch.device("meta")`` this is the
    skeleton that a file's tensors are put into.
    """
    D = make_distance(choices)
    options = _network_options(parts, D, choices)
    f, g = own or (parts.networks or build_networks)(choices.architecture, options, rng)
    features, k = math.prod(choices.shape), choices.latent_dim
    if choices.linear_path:
        f = WithPath(f, encoder_path(features, parts.q.n_numbers(k)))
        g = WithPath(g, decoder_path(k, choices.shape))
    if choices.bounded:
        each = len(choices.shape) > 1  # a channel has its own bounds, and with "column" all have
        event = [choices.shape[0] if each else 1, *[1] * (len(choices.shape) - 1)]
        event = list(choices.shape) if choices.scaling == "column" else event
        g = nn.Sequential(g, BoundedHead(torch.zeros(event), torch.zeros(event)))
    parts.build(Sizes(choices.shape, k), rng)
    if parts.q.maps_codes:  # a hook and no layer, so that g keeps its own names in a file
        g.register_forward_pre_hook(partial(_decoder_input, parts.q))
    draws, missing = parts.bound.samples, parts.missing
    model = parts.model(f, g, parts.q, D, c=parts.c, p=parts.p, draws=draws, missing=missing)
    if missing:
        model.usual = torch.zeros(choices.shape)
    return model.float()


def make_distance(choices: ResolvedConfig) -> Likelihood:
    """D, with what it must know of the data."""
    D = LIKELIHOODS[choices.distance]()
    D.build(choices.shape, choices.kinds)
    return D


def _decoder_input(q: Latent, g: nn.Module, given: tuple[Tensor]) -> Tensor:
    """A hook of g: it gets ``q.decoder_input(z)`` in place of z."""
    return q.decoder_input(given[0])


def _network_options(parts: Parts, D: Likelihood, choices: ResolvedConfig) -> NetworkOptions:
    return NetworkOptions(
        shape=choices.shape,
        latent_dim=choices.latent_dim,
        numbers=parts.q.n_numbers(choices.latent_dim),
        into=D.input_shape(choices.shape),
        out=D.output_shape(choices.shape),
        given=parts.n_given,
        hidden=choices.hidden,
        channels=choices.channels,
        down=choices.down,
        up=choices.up,
        activation=choices.activation,
        tied=choices.tied,
    )


def laid_out(model: Model) -> Model:
    """The model with its kernels' channels last in memory, which makes 2-D convolutions faster.

    The layout changes last bits, so whatever is built or loaded must pass through here.
    """
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _path(net: nn.Module) -> nn.Linear:
    for module in net.modules():
        if isinstance(module, WithPath):
            return next(m for m in module.path.modules() if isinstance(m, nn.Linear))
    raise LookupError("the network has no linear path")


@torch.no_grad()
def set_bounds(model: Model, low: Tensor, high: Tensor) -> None:
    """Tell the head the range of bounded data."""
    for module in model.g.modules():
        if isinstance(module, BoundedHead):
            module.low.copy_(low)
            module.high.copy_(high)


@torch.no_grad()
def widen_bounds(model: Model, low: Tensor, high: Tensor) -> None:
    """Let the head reach what later rows reach."""
    for module in model.g.modules():
        if isinstance(module, BoundedHead):
            module.low.copy_(torch.minimum(module.low, low))
            module.high.copy_(torch.maximum(module.high, high))


@torch.no_grad()
def start_at_pca(model: Model, pca: PCA, error: float) -> None:
    """Make the model PCA, or with a Gaussian code probabilistic PCA (Tipping & Bishop 1999).

    Point code: z = C (x − m) / s with one scale s, so that codes have unit variance on average.
    Gaussian code, with component variances λ and noise σ²: x' = Cᵀ (λ − σ²)^½ z + m, and the exact
    posterior has mean (λ − σ²)^½ / λ · C (x − m) and variance σ² / λ. ``error`` is PCA's mean
    squared error per element on the validation rows: where few rows have many columns PCA leaves
    nothing on the training rows, and σ must be what it leaves on others.
    """
    k, found = _path(model.g).in_features, len(pca.components)
    features = len(pca.mean)
    noise = max(pca.noise, error * features / max(1, features - found), SMALLEST_NOISE)
    variances = pca.variances.clamp(min=noise)
    if model.q.start == "gaussian":
        down = (variances - noise).sqrt() / variances
        up = (variances - noise).sqrt()
    else:
        scale = variances.mean().sqrt()
        down, up = (1 / scale).expand(found), scale.expand(found)
    into, out = _path(model.f), _path(model.g)
    into.weight[:found] = pca.components * down[:, None]
    into.bias[:found] = -into.weight[:found] @ pca.mean
    if model.q.start == "gaussian":
        into.bias[k : k + found] = (noise / variances).log()
    out.weight[:, :found] = pca.components.T * up
    out.bias.copy_(pca.mean)
    model.D.init_scale(math.sqrt(noise))


def copy_networks(f: Any, g: Any) -> tuple[nn.Module, nn.Module] | None:
    """The user's own networks, copied so that theirs never change; None where none are given."""
    if f is None and g is None:
        return None
    if not (isinstance(f, nn.Module) and isinstance(g, nn.Module)):
        raise ParameterError(
            f"f and g are given together, as two nn.Module; got {type(f).__name__} and "
            f"{type(g).__name__}."
        )
    copied: tuple[nn.Module, nn.Module] = copy.deepcopy((f, g))  # at once: they may share layers
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
    own: tuple[nn.Module, nn.Module],
    parts: Parts,
    D: Likelihood,
    shape: tuple[int, ...],
    asked: int | str,
) -> int:
    """Run the user's networks once on two rows of zeros; return the width of the code."""
    if parts.networks is not None:
        raise ParameterError(
            "This model has networks of a kind of its own; leave f and g, or choose a model whose "
            "f and g are plain ones."
        )
    f, g = (net.float().eval() for net in own)
    x = torch.zeros(2, *D.input_shape(shape), dtype=torch.float32)
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
    taken = k + parts.n_given
    try:
        back = g(torch.zeros(2, taken, device=device, dtype=torch.float32))
        back.shape  # noqa: B018
    except UNFIT as error:
        raise ParameterError(f"g cannot take a code of shape (2, {taken}): {error}") from error
    expected = (2, *D.output_shape(shape))
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
