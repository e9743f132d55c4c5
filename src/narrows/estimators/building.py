"""From a named model's parts and the choices made to a module, and its start at PCA.

``fit`` and ``load`` build by the same function; what differs is where the weights come from.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows.baselines import PCA
from narrows.core import ParameterError
from narrows.engine.data import Scaling
from narrows.estimators.choices import Choices, Range
from narrows.parts.likelihoods import LIKELIHOODS, Gaussian
from narrows.parts.linear_path import BoundedHead, WithPath, decoder_path, encoder_path
from narrows.parts.model import Model
from narrows.parts.networks import NetworkOptions, build_networks
from narrows.parts.objective import Term
from narrows.parts.priors import StandardNormal

SMALLEST_NOISE = 1e-6  # of a scaled variance: what a start calls zero


@dataclass(frozen=True)
class Parts:
    """What a named model picks from the slots."""

    q: nn.Module
    distance: str = "mse"  # what distance="auto" becomes on real numbers
    c: nn.Module | None = None
    p: StandardNormal | None = None
    terms: tuple[Term, ...] = ()


def scaled_bounds(scaling: Scaling, found: Range) -> tuple[Tensor, Tensor]:
    """The range of bounded data, in scaled units."""
    return tuple(((b - scaling.shift) / scaling.scale).float() for b in (found.low, found.high))  # type: ignore[return-value]


def build_model(
    parts: Parts, choices: Choices, own: tuple[nn.Module, nn.Module] | None, rng: Generator
) -> Model:
    """The module, with networks drawn from ``rng`` and an empty linear path."""
    n_outputs: int = parts.q.n_outputs  # type: ignore[assignment]
    if own is not None:
        f, g = own
    else:
        options = NetworkOptions(
            shape=choices.shape,
            latent_dim=choices.latent_dim,
            n_outputs=n_outputs,
            hidden=choices.hidden,
            channels=choices.channels,
            down=choices.down,
            up=choices.up,
            activation=choices.activation,
            tied=choices.tied,
        )
        f, g = build_networks(choices.architecture, options, rng)
    features, k = math.prod(choices.shape), choices.latent_dim
    if choices.linear_path:
        numbers = k * n_outputs
        f = WithPath(f, encoder_path(torch.zeros(numbers, features), torch.zeros(numbers)))
        back = decoder_path(torch.zeros(features, k), torch.zeros(features), choices.shape)
        g = WithPath(g, back)
    if choices.bounded:
        event = [choices.shape[0] if len(choices.shape) > 1 else 1, *[1] * (len(choices.shape) - 1)]
        g = nn.Sequential(g, BoundedHead(torch.zeros(event), torch.zeros(event)))
    return Model(f, g, parts.q, LIKELIHOODS[choices.distance](), c=parts.c, p=parts.p)


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
def start_at_pca(model: Model, pca: PCA) -> None:
    """Make the model PCA, or with a Gaussian code probabilistic PCA (Tipping & Bishop 1999).

    Point code: z = C (x − m) / s with one scale s, so that codes have unit variance on average.
    Gaussian code, with component variances λ and noise σ²: x' = Cᵀ (λ − σ²)^½ z + m, and the exact
    posterior has mean (λ − σ²)^½ / λ · C (x − m) and variance σ² / λ.
    """
    k, found = _path(model.g).in_features, len(pca.components)
    noise = max(pca.noise, SMALLEST_NOISE)
    variances = pca.variances.clamp(min=noise)
    if model.q.n_outputs == 2:
        down = (variances - noise).sqrt() / variances
        up = (variances - noise).sqrt()
    else:
        scale = variances.mean().sqrt()
        down, up = (1 / scale).expand(found), scale.expand(found)
    into, out = _path(model.f), _path(model.g)
    into.weight[:found] = pca.components * down[:, None]
    into.bias[:found] = -into.weight[:found] @ pca.mean
    if model.q.n_outputs == 2:
        into.bias[k : k + found] = (noise / variances).log()
    out.weight[:, :found] = pca.components.T * up
    out.bias.copy_(pca.mean)
    if isinstance(model.D, Gaussian):
        model.D.log_scale.fill_(0.5 * math.log(noise))


def copy_networks(f: Any, g: Any) -> tuple[nn.Module, nn.Module] | None:
    """The user's own networks, copied so that theirs never change; None where none are given."""
    if f is None and g is None:
        return None
    if not (isinstance(f, nn.Module) and isinstance(g, nn.Module)):
        raise ParameterError(
            f"f and g are given together, as two nn.Module; got {type(f).__name__} and "
            f"{type(g).__name__}."
        )
    return copy.deepcopy(f), copy.deepcopy(g)


def fingerprint(net: nn.Module) -> str:
    """A short hash of a network's structure: what a file remembers of the user's own module."""
    state = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    return hashlib.sha256(repr((repr(net), sorted(state.items()))).encode()).hexdigest()[:16]


@torch.no_grad()
def try_networks(
    own: tuple[nn.Module, nn.Module], shape: tuple[int, ...], n_outputs: int, asked: int | str
) -> int:
    """Run the user's networks once on two rows of zeros; return the width of the code."""
    f, g = own
    x = torch.zeros(2, *shape)
    device = next((p.device for p in f.parameters()), x.device)
    try:
        h = f(x.to(device))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ParameterError(
            f"f cannot take an input of shape {tuple(x.shape)}: {error}"
        ) from error
    if h.ndim != 2 or len(h) != 2 or h.shape[1] % n_outputs:
        raise ParameterError(
            f"f turns an input of shape {tuple(x.shape)} into {tuple(h.shape)}; expected "
            f"(2, {n_outputs} × latent_dim)."
        )
    k = h.shape[1] // n_outputs
    if not isinstance(asked, str) and asked != k:
        raise ParameterError(f"latent_dim={asked}, but f gives a code of {k} numbers.")
    try:
        back = g(torch.zeros(2, k, device=device))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ParameterError(f"g cannot take a code of shape (2, {k}): {error}") from error
    if back.shape != x.shape:
        raise ParameterError(
            f"g turns a code of shape (2, {k}) into {tuple(back.shape)}; expected {tuple(x.shape)}."
        )
    return int(k)
