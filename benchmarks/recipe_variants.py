"""What a candidate recipe can change: schedule, optimizer, networks, linear path.

A candidate is written as changes from the default, as ``learning_rate=2e-3,decay=linear``;
``Variant.parse`` reads it. Used by ``recipes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd

from narrows.parts.networks import linear_path
from narrows.parts.networks.linear_path import WithPath


@dataclass(frozen=True)
class Variant:
    """One recipe; its defaults are the library's."""

    learning_rate: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 200
    warmup_share: float = 0.1  # of the whole run; the shorter of the two warm-ups counts
    decay: str = "cosine"  # or linear, sqrt, tail (the second half), late (a fifth), none
    batch_size: int = 0  # 0: the library's, 128 or fewer for few rows
    batch_power: float = 0.0  # the rate times (rows in a step / 128) to this
    batch_end: int = 0  # grows from batch_size to this, doubling; 0: it does not grow
    optimizer: str = "adamw"  # or muon, on matrices inside; or cautious AdamW
    muon_rate: float = 1.0  # times learning_rate
    muon_adjust: str = "rms"  # 0.2 √max(a, b), as large as Adam's steps; or shape: √max(1, a / b)
    muon_edges: bool = True  # the networks' first and last layers too
    muon_conv: bool = True  # convolution kernels too, flattened
    muon_momentum: float = 0.95
    muon_half: bool = False  # Newton-Schulz in bfloat16
    average: float = 0.0  # decay of an average of the weights, which is what is measured
    clip: float = 0.0
    activation: str = "gelu"  # or relu, silu, tanhgelu
    norm: str = "none"  # or rms, layer: before each activation of a dense network
    residual: bool = False  # h + linear(act(h)) after each dense activation, at zero first
    hidden: str = "auto"  # as 1024:512
    path: str = "both"  # or none, frozen, encoder, decoder, fading
    path_rate: float = 1.0  # times learning_rate
    path_width: float = 0.0  # a path of d features learns (this / d) times as fast, at most once
    last_rate: float = 1.0  # of the last layers of f and g
    fan_power: float = 0.0  # matrices of the networks learn (512 / fan-in) to this times as fast
    fan_width: float = 512.0  # in place of the 512 of fan_power
    fan_most: float = 4.0  # and at most this times
    last: float = 0.0  # the last layers start at Xavier's weights times this
    gain: float = 1.0  # of all other layers' starting weights
    leak: float = 0.05  # gradient that passes the clamped head
    input_scale: float = 1.0  # of what the encoder's network (not its path) sees

    @classmethod
    def parse(cls, text: str) -> Self:
        """``default``, or changes as ``name=value,name=value``."""
        kinds = {item.name: type(item.default) for item in fields(cls)}
        changes: dict[str, Any] = {}
        for part in text.split(",") if text != "default" else ():
            name, value = part.split("=")
            kind = kinds[name]
            changes[name] = value == "True" if kind is bool else kind(value)  # type: ignore[operator]
        return replace(cls(), **changes)

    def rate(self, step: int, progress: float) -> float:
        """The learning rate, as a share of the largest."""
        warm = max((step + 1) / self.warmup_steps, progress / max(self.warmup_share, 1e-9))
        shapes: dict[str, Callable[[float], float]] = {
            "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
            "linear": lambda p: 1 - p,
            "sqrt": lambda p: 1 - math.sqrt(p),
            "tail": lambda p: min(1.0, 2 * (1 - p)),
            "late": lambda p: min(1.0, 5 * (1 - p)),
            "none": lambda p: 1.0,
        }
        return min(1.0, warm) * shapes[self.decay](progress)

    def batch(self, n_rows: int, progress: float) -> int:
        """Rows in the next step."""
        first = self.batch_size or max(16, min(128, n_rows // 10))
        if not self.batch_end:
            return first
        doublings = round(math.log2(self.batch_end / first))
        return int(first * 2 ** math.floor(progress * (doublings + 1) * (1 - 1e-9)))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanhgelu": lambda: nn.GELU(approximate="tanh"),
    "gelu": nn.GELU,
}


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "rms": nn.RMSNorm,
    "layer": nn.LayerNorm,
    "bare": lambda width: nn.RMSNorm(width, elementwise_affine=False),
}


class Residual(nn.Module):
    """h ↦ h + linear(act(h)), the linear at zero first."""

    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__()
        self.act, self.linear = act, nn.Linear(width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.linear(self.act(h))
        return out


class Scaled(nn.Module):
    """h ↦ times · net(h)."""

    def __init__(self, net: nn.Module, times: float) -> None:
        super().__init__()
        self.net, self.times = net, times

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.net(h) * self.times
        return out


def paths(model: nn.Module) -> list[WithPath]:
    """The parts of f and g that have a linear path."""
    return [m for m in model.modules() if isinstance(m, WithPath)]


def networks(model: Any) -> list[nn.Module]:
    """f and g without their paths and the head."""
    found: list[nn.Module] = [p.net for p in paths(model)]
    return found or [model.f, model.g]


def weighty(net: nn.Module) -> list[nn.Module]:
    """The layers that have weights, in order."""
    return [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]


def _rebuild(net: nn.Sequential, variant: Variant) -> None:
    layers: list[nn.Module] = []
    width = channels = 0
    for layer in net:
        if isinstance(layer, nn.GELU):
            if variant.norm in NORMS and width:
                layers.append(NORMS[variant.norm](width))
            if variant.norm in NORMS and channels:
                layers.append(nn.GroupNorm(1, channels))
            layers.append(ACTIVATIONS[variant.activation]())
            if variant.residual and width:
                layers.append(Residual(width, ACTIVATIONS[variant.activation]()))
            continue
        layers.append(layer)
        width = layer.out_features if isinstance(layer, nn.Linear) else 0
        if isinstance(layer, nn.Linear | _ConvNd):
            channels = layer.out_channels if isinstance(layer, _ConvNd) else 0
    net._modules.clear()
    net.extend(layers)


@torch.no_grad()
def change_model(model: Any, variant: Variant, seed: int) -> None:
    """Change the model that narrows built into the candidate's."""
    linear_path.LEAK = variant.leak
    rng = Generator().manual_seed(seed + 1)
    for net in networks(model):
        for layer in weighty(net)[:-1]:
            layer.weight.mul_(variant.gain)  # type: ignore[operator, union-attr]
        if variant.norm != "none" or variant.residual or variant.activation != Variant.activation:
            _rebuild(net, variant)  # type: ignore[arg-type]
        if variant.last:
            nn.init.xavier_uniform_(weighty(net)[-1].weight, variant.last, generator=rng)  # type: ignore[arg-type]
    for i, part in enumerate(paths(model)):
        kept = {"encoder": i == 0, "decoder": i == 1}.get(variant.path, True)
        if variant.path == "frozen" or not kept:
            part.path.requires_grad_(False)
        if not kept:
            for p in part.path.parameters():
                p.zero_()
            nn.init.xavier_uniform_(weighty(part.net)[-1].weight, generator=rng)  # type: ignore[arg-type]
        if variant.path == "fading":
            part.path = Scaled(part.path, 1.0)
        if variant.input_scale != 1.0 and i == 0:
            part.net = nn.Sequential(Scaled(nn.Identity(), variant.input_scale), part.net)


def fade(model: nn.Module, progress: float) -> None:
    """The weight of a fading path: from one to nothing at half of the run."""
    for part in paths(model):
        if isinstance(part.path, Scaled):
            part.path.times = max(0.0, 1 - 2 * progress)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton and Schulz's steps (Jordan et al. 2024)."""

    def __init__(self, parameters: list[Tensor], variant: Variant) -> None:
        self.variant = variant
        super().__init__(parameters, {"lr": 0.0, "weight_decay": variant.weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every matrix."""
        v = self.variant
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].lerp_(p.grad, 1 - v.muon_momentum)
                update = p.grad.lerp(m, v.muon_momentum).flatten(1)
                update = orthogonal(update.bfloat16() if v.muon_half else update).to(p.dtype)
                a, b = update.shape
                size = 0.2 * math.sqrt(max(a, b)) if v.muon_adjust == "rms" else 0.0
                size = size or math.sqrt(max(1.0, a / b))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-group["lr"] * size)


def orthogonal(m: Tensor) -> Tensor:
    """Near the closest matrix of orthonormal rows (or columns), by five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.775, 2.0315
    tall = m.shape[0] > m.shape[1]
    x = m.T if tall else m
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Cautious(torch.optim.Optimizer):
    """AdamW that moves only where its step and the gradient agree (Liang et al. 2024)."""

    def __init__(self, parameters: list[Tensor], variant: Variant) -> None:
        self.variant, self.t = variant, 0
        super().__init__(parameters, {"lr": 0.0, "weight_decay": variant.weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter."""
        v = self.variant
        self.t += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"], state["s"] = torch.zeros_like(p), torch.zeros_like(p)
                m = state["m"].lerp_(p.grad, 1 - v.beta1)
                s = state["s"].lerp_(p.grad.square(), 1 - v.beta2)
                mask = (m * p.grad > 0).float()
                mask /= mask.mean().clamp(min=0.1)
                root = (s / (1 - v.beta2**self.t)).sqrt_().add_(v.eps)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] / (1 - v.beta1**self.t)
                p.addcdiv_(m * mask, root, value=-rate)


def optimizers(model: Any, variant: Variant) -> list[torch.optim.Optimizer]:
    """One or two optimisers, each group with ``times`` (its share of the learning rate)."""
    inside: list[Tensor] = []
    if variant.optimizer == "muon":
        for net in networks(model):
            layers = weighty(net)
            for layer in layers if variant.muon_edges else layers[1:-1]:
                if variant.muon_conv or isinstance(layer, nn.Linear):
                    inside.append(layer.weight)  # type: ignore[arg-type]
    by_path = [p for part in paths(model) for p in part.path.parameters()]
    last = [weighty(net)[-1].weight for net in networks(model)]
    taken = {id(p) for p in inside}
    groups: dict[float, list[Tensor]] = {}
    for p in _moving(model):
        if id(p) in taken:
            continue
        times = 1.0
        if any(p is q for q in by_path):
            features = max(by_path[0].shape)
            times = variant.path_rate * min(1.0, (variant.path_width or features) / features)
        times = variant.last_rate if any(p is q for q in last) else times
        if variant.fan_power and p.ndim > 1 and not any(p is q for q in by_path):
            faster = (variant.fan_width / p[0].numel()) ** variant.fan_power
            times *= min(variant.fan_most, max(1.0, faster))
        groups.setdefault(times, []).append(p)
    each = [{"params": ps, "times": times} for times, ps in groups.items()]
    if variant.optimizer == "cautious":
        return [Cautious(each, variant)]  # type: ignore[arg-type]
    betas, eps = (variant.beta1, variant.beta2), variant.eps
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(each, betas=betas, eps=eps, weight_decay=variant.weight_decay, fused=True)
    ]
    if inside:
        found.append(Muon([{"params": inside, "times": variant.muon_rate}], variant))  # type: ignore[list-item]
    return found


def _moving(model: nn.Module) -> Iterator[Tensor]:
    return (p for p in model.parameters() if p.requires_grad)


class Average:
    """An exponential average of the weights, short at first, that can be swapped in."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.weights = list(_moving(model))
        self.mean = [p.detach().clone() for p in self.weights]
        self.decay, self.t = decay, 0

    @torch.no_grad()
    def see(self) -> None:
        """Take the weights of one more step in."""
        self.t += 1
        decay = min(self.decay, self.t / (self.t + 10))
        torch._foreach_lerp_(self.mean, self.weights, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their average."""
        for p, mean in zip(self.weights, self.mean, strict=True):
            other = p.detach().clone()
            p.copy_(mean)
            mean.copy_(other)
