"""The composition of c, f, q, g and D: ``forward`` makes the trace. Also with classes as input."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd  # the base class of all convolutions

from narrows._types import Clock, Node, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts.corruptions import Corruption
from narrows.parts.latents.base import Joint, Latent
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.networks.architectures import FlattenLast, UnflattenLast
from narrows.parts.networks.linear_path import WithPath
from narrows.parts.priors.base import Prior


def merge_draws(z: Tensor) -> Tensor:
    """(K, B, ...) → (K·B, ...): networks never see K."""
    return z.flatten(0, 1)


def one_draw(clock: Clock) -> int:
    """The default number of codes for each row; a function with a name can be pickled."""
    return 1


class Inputs(NamedTuple):
    """What a pass through the model starts from."""

    x: Tensor  # (B, ...), missing elements filled in
    corrupted: Tensor  # c(x), f's input
    mask: Tensor | None  # 1 where an element counts for D; None: everywhere
    condition: Tensor | None  # the class of each row, (B,), if the model takes one


class Model(nn.Module):
    """x → c(x) → f → q → z → g → D, the parts of the equation in one module.

    Parameters
    ----------
    f, g, q, D, c, p
        The parts; without c nothing is corrupted.
    draws : callable
        Clock → the number of codes drawn for each row.
    missing : bool
        Whether NaN in x marks a missing element: f gets the mean of the element in its place, and
        D ignores it.
    """

    usual: Tensor  # the means of all elements, for missing ones

    def __init__(
        self,
        f: nn.Module,
        g: nn.Module,
        q: Latent,
        D: Likelihood,
        c: Corruption | None = None,
        p: Prior | None = None,
        draws: Callable[[Clock], int] = one_draw,
        missing: bool = False,
        sizes: Sizes | None = None,  # of x and z, for compositions whose layers depend on them
    ) -> None:
        super().__init__()
        self.f, self.g, self.q, self.D, self.c, self.p = f, g, q, D, c, p
        self.draws, self.missing = draws, missing
        self.register_buffer("usual", torch.zeros(()) if missing else None)

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """Numbers that g gets after a code; ParameterError where the sizes do not fit."""
        return 0

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int | None = None) -> Trace:
        x, condition = self._split_condition(x, rng, clock)
        x, observed = self.fill_missing(x)
        corrupted, mask = (x, None) if self.c is None else self.c(x, rng)
        mask = mask if observed is None else observed if mask is None else mask * observed
        K = self.draws(clock) if K is None else K
        nodes, output = self._encode_decode(Inputs(x, corrupted, mask, condition), K, rng)
        # the distance is summed in float32, also where autocast computes products in bfloat16
        with torch.autocast(x.device.type, enabled=False):
            distance = self.D.distance(x, output, mask)
        return Trace(x, corrupted, mask, nodes, output, distance, clock, rng)

    def fill_missing(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x with missing elements filled in, and 1 where it was observed (None: everywhere)."""
        if not self.missing:
            return x, None
        observed = ~x.isnan()
        return torch.where(observed, x, self.usual), observed.float()

    def _split_condition(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A row's event, and the condition that comes with it; here there is none."""
        return x, None

    def _inputs(self, x: Tensor) -> Inputs:
        """The start of a pass without corruption."""
        x, condition = self._split_condition(x)
        x, mask = self.fill_missing(x)
        return Inputs(x, x, mask, condition)

    def _encode_decode(self, given: Inputs, K: int, rng: Generator) -> tuple[list[Node], Tensor]:
        """The latent nodes, and g's output (K, B, ...). Other compositions override this."""
        h = self._encoder(given.corrupted, given.condition)
        node: Node = self.q(h, K, rng, *self._joint(given))
        if self.p is not None:
            node.log_p = self.p.log_prob(node.z, self)
            if not self.p.closed:
                node.kl = None  # a closed form for another prior
        return [node], self._decoder(node.z, given.condition)

    def _encoder(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """h, f's output; f gets the condition if there is one."""
        more = () if condition is None else (condition,)
        h: Tensor = self.f(self.D.to_model(x), *more)
        return h

    def _decoder(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """g's output for z (K, B, latent_dim), in float32: (K, B, ...)."""
        output: Tensor = self.g(merge_draws(z)).float().unflatten(0, z.shape[:2])
        return output

    def _joint(self, given: Inputs) -> tuple[Joint, ...]:
        """log p(x, z) as a function of z, (K, B, latent_dim) → (K, B), if q takes it."""
        if not self.q.needs_joint:
            return ()
        # q computes in float32, but g's products here are as precise as those of the whole pass
        autocast = torch.is_autocast_enabled(given.x.device.type)

        def joint(z: Tensor) -> Tensor:
            assert self.p is not None
            with torch.autocast(z.device.type, enabled=autocast):
                output = self._decoder(z, given.condition)
            with torch.autocast(z.device.type, enabled=False):
                return self.p.log_prob(z, self) - self.D.distance(given.x, output, given.mask)

        return (joint,)

    def encoder_output(self, x: Tensor) -> Tensor:
        """f's output h for rows as ``encode`` takes them, float32."""
        given = self._inputs(x)
        return self._encoder(given.x, given.condition).float()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of a Gaussian q(z | x) for complete rows, each (B, latent_dim)."""
        assert isinstance(self.q, DiagonalGaussian)
        return self.q.split(self.f(self.D.to_model(x)))

    def encode(self, x: Tensor) -> Tensor:
        """The noise-free codes of rows, (B, latent_dim)."""
        given = self._inputs(x)
        code: Tensor = self.q.mode(self._encoder(given.x, given.condition), *self._joint(given))
        return code

    def decode(self, z: Tensor) -> Tensor:
        """The reconstructions of codes, in scaled units."""
        return self.D.mean(self.g(z))

    @property
    def encoder_parts(self) -> tuple[str, ...]:
        """The parts that ``encode`` uses."""
        return ("f", "q", "D", *(("g", "p") if self.q.needs_joint else ()))

    def only(self, *parts: str) -> Self:
        """The same model without its other parts; what it has it shares with this one."""
        found = copy.copy(self)
        found._modules = {name: part for name, part in self._modules.items() if name in parts}
        return found

    def sample(self, n: int, rng: Generator, temperature: float = 1.0) -> Tensor:
        """n codes drawn from the prior."""
        assert self.p is not None
        return self.p.sample(n, rng, temperature, self)

    def draw_nodes(self, x: Tensor, K: int, rng: Generator) -> list[Node]:
        """The latent nodes of K draws for each row, without corruption."""
        return self._encode_decode(self._inputs(x), K, rng)[0]

    def log_weights(self, x: Tensor, rng: Generator, K: int) -> Tensor:
        """log p(x | z) + log p(z) − log q(z | x) for K draws of z, (K, B), in float64.

        Their log-mean-exp estimates log p(x) from below (Burda et al. 2015, arXiv:1509.00519).
        """
        given = self._inputs(x)
        nodes, output = self._encode_decode(given, K, rng)
        total = self.D.log_prob(given.x.double(), output.double(), given.mask)
        for node in nodes:
            if node.log_p is None or node.log_q is None:
                raise NotImplementedError("a latent without a density has no importance weights")
            total = total + node.log_p - node.log_q
        return total

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        letters = {"f": self.f, "g": self.g, "q": self.q, "c": self.c, "D": self.D, "p": self.p}
        return {name: _counted(part) for name, part in letters.items() if part is not None}


def _counted(part: nn.Module) -> str:
    n = sum(p.numel() for p in part.parameters())
    return in_words(part) + (f"  ({n:,} parameters)" if n > 1 else "")


def in_words(part: nn.Module) -> str:
    """A network as text: its layers with their sizes, in order.

    >>> in_words(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 2)))
    'linear 64→8, gelu, linear 8→2'
    """
    if isinstance(part, WithPath):
        return f"[{in_words(part.net)}] + [{in_words(part.path)}]"
    if isinstance(part, nn.Sequential):
        return ", ".join(filter(None, map(in_words, part)))
    if isinstance(part, nn.Flatten | nn.Unflatten | FlattenLast | UnflattenLast | nn.Identity):
        return ""  # they only change the shape
    if isinstance(part, nn.Linear):
        return f"linear {part.in_features}→{part.out_features}"
    if isinstance(part, _ConvNd):
        kind = "transposed conv" if part.transposed else "conv"
        sides = "×".join(map(str, part.kernel_size))
        stride = f" stride {part.stride[0]}" if max(part.stride) > 1 else ""
        return f"{kind} {part.in_channels}→{part.out_channels} {sides}{stride}"
    if isinstance(part, nn.MaxPool1d | nn.MaxPool2d):
        return "max-pool 2"
    if isinstance(part, nn.GELU | nn.SiLU | nn.ReLU | nn.Tanh):
        return type(part).__name__.lower()
    return " ".join(repr(part).split())


# ------------------------------------------------------------------ models with a class as input

UNKNOWN_SHARE = 0.1  # of the training rows whose class is hidden, so that rows may come without


def with_class(x: Tensor, given: Tensor) -> Tensor:
    """Rows with the numbers of their classes, flat: (B, ...) and (B,) → (B, d + 1).

    Classes are numbered from 1; 0 is an unknown class.
    """
    return torch.cat([x.flatten(1), given[:, None].to(x.dtype)], 1)


class ClassEncoder(nn.Module):
    """f(x + E_y), with a learned E_y of x's shape for each class y.

    In the first layer of a dense network this is the same as a one-hot input next to x.
    """

    def __init__(self, net: nn.Module, n_classes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape
        self.pictures = nn.Parameter(torch.zeros(n_classes + 1, math.prod(shape)))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        unknown = torch.zeros(len(x), dtype=torch.long, device=x.device)
        shift = self.pictures[unknown if condition is None else condition]
        h: Tensor = self.net(x + shift.unflatten(1, self.shape))
        return h


class ClassConditionalModel(Model):
    """x and its class y → f(x, y) → q → z → g(z, y) → D; rows come as ``with_class`` makes them."""

    def __init__(
        self, f: nn.Module, g: nn.Module, q: Latent, D: Likelihood, *, sizes: Sizes, **more: Any
    ) -> None:
        self.n_classes, self.shape = self.n_given(sizes) - 1, sizes.shape
        self.latent_dim = sizes.latent_dim
        f = ClassEncoder(f, self.n_classes, D.input_shape(sizes.shape))
        super().__init__(f, g, q, D, sizes=sizes, **more)

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """One number for each class, and one for an unknown class."""
        return sizes.n_classes + 1

    def _split_condition(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if x.shape[1:].numel() == math.prod(self.shape):  # rows that come without a class
            return x, self._unknown(x)
        condition = x[:, -1].round().long()
        if self.training and rng is not None:
            known = torch.rand(len(condition), generator=rng, device=x.device) >= UNKNOWN_SHARE
            condition = condition * known
        return x[:, :-1].unflatten(1, self.shape), condition

    def _decoder(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        classes = self.one_hot(condition).expand(len(z), -1, -1)
        return super()._decoder(torch.cat([z, classes], -1))

    def decode(self, z: Tensor) -> Tensor:
        """The reconstructions of codes; of class 0 where no class comes with them."""
        if z.shape[1] == self.latent_dim:
            z = torch.cat([z, self.one_hot(self._unknown(z))], 1)
        return super().decode(z)

    def _unknown(self, rows: Tensor) -> Tensor:
        """Class 0 for each row."""
        return torch.zeros(len(rows), dtype=torch.long, device=rows.device)

    def one_hot(self, condition: Tensor) -> Tensor:
        """(B, n_classes + 1): what g gets after the code."""
        return F.one_hot(condition, self.n_classes + 1).float()


SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
SHIFTED_SHARE = 0.8  # of the rows at the start of training
SHIFTS_END = 0.8  # the progress from which no row is shifted


class ShiftedModel(ClassConditionalModel):
    """In training most images are shifted by a pixel, and f and g are given the direction.

    The model sees eight more images for each one. It is only used with class 0, "not shifted",
    so it never generates a shifted image. The share of shifted rows falls to 0.

    Source: Jun et al., "Distribution augmentation for generative modeling", ICML 2020.
    """

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """One number for each direction, and one for an image that is not shifted."""
        if len(sizes.shape) != 3:
            raise ParameterError(
                f"shifts=True shifts images by a pixel, but a sample has shape {sizes.shape}; give "
                "input_shape or axes if it is an image, or leave shifts=False."
            )
        return len(SHIFTS) + 1

    def _split_condition(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        unshifted = self._unknown(x)
        if not self.training or rng is None or clock is None:
            return x, unshifted
        share = SHIFTED_SHARE * max(0.0, 1.0 - clock.progress / SHIFTS_END)
        shifted = torch.rand(len(x), generator=rng, device=x.device) < share
        numbers = torch.randint(1, len(SHIFTS) + 1, (len(x),), generator=rng, device=x.device)
        condition = torch.where(shifted, numbers, unshifted)
        x = x.clone()
        for number, shift in enumerate(SHIFTS, start=1):
            rows = condition == number
            x[rows] = x[rows].roll(shift, (-2, -1))
        return x, condition
