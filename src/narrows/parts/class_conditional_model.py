"""A composition that is told the class of each row: f and g see it beside x and z.

A row comes flat with the number of its class behind it; 0 stands for a class that is not told.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Sizes
from narrows.exceptions import ParameterError
from narrows.parts.latents.base import Latent
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.model import Model, fold
from narrows.parts.priors.base import Prior

UNTOLD = 0.1  # the share of the training rows that keep their class to themselves


def with_class(x: Tensor, given: Tensor) -> Tensor:
    """Rows with the numbers of their classes, flat: (B, ...) and (B,) → (B, d + 1)."""
    return torch.cat([x.flatten(1), given[:, None].to(x.dtype)], 1)


class Told(nn.Module):
    """f(x + E_y): the class comes in as a picture of its own, added to x.

    In the first layer of a dense network this is what a one-hot beside x would be.
    """

    def __init__(self, net: nn.Module, n_classes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net, self.shape = net, shape
        self.pictures = nn.Parameter(torch.empty(n_classes + 1, math.prod(shape)))
        nn.init.zeros_(self.pictures)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        told = torch.zeros(len(x), dtype=torch.long, device=x.device) if given is None else given
        answer: Tensor = self.net(x + self.pictures[told].unflatten(1, self.shape))
        return answer


class Conditional(Model):
    """x and its class y → f(x, y) → q → z → g(z, y) → D."""

    def __init__(
        self,
        f: nn.Module,
        g: nn.Module,
        q: Latent,
        D: Likelihood,
        *,
        sizes: Sizes,
        c: nn.Module | None = None,
        p: Prior | None = None,
        draws: Callable[[Clock], int] = lambda clock: 1,
        missing: bool = False,
    ) -> None:
        self.n_classes, self.shape = self.n_given(sizes) - 1, sizes.shape
        told = Told(f, self.n_classes, D.input_shape(sizes.shape))
        super().__init__(told, g, q, D, c, p, draws, missing)

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """One number for each class, and one for a class that is unknown."""
        return sizes.n_classes + 1

    def _apart(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        given = x[:, -1].round().long()
        if self.training and rng is not None:
            kept = torch.rand(len(given), generator=rng, device=x.device) >= UNTOLD
            given = given * kept
        return x[:, :-1].unflatten(1, self.shape), given

    def _encoded(self, x: Tensor, given: Tensor | None) -> Tensor:
        h: Tensor = self.f(self.D.to_model(x), given)
        return h

    def _decoded(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        assert given is not None
        beside = self.one_hot(given).expand(len(z), -1, -1)
        answer: Tensor = self.g(fold(torch.cat([z, beside], -1))).float()
        output: Tensor = answer.unflatten(0, z.shape[:2])
        return output

    def one_hot(self, given: Tensor) -> Tensor:
        """(B, n_classes + 1): what g takes beside a code."""
        each: Tensor = F.one_hot(given, self.n_classes + 1).float()
        return each


WAYS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
MOVED, STILL = 0.8, 0.8  # the share of rows that are moved at first; the progress at which none is


class Shifted(Conditional):
    """In training most images are moved by a pixel, and f and g are told which way.

    The model sees eight images more for each that there is, and is never asked to make one that was
    moved: class 0, untold, is the image as it is. Ever fewer are moved, towards the end none.

    Source: Jun et al., "Distribution augmentation for generative modeling", ICML 2020.
    """

    @classmethod
    def n_given(cls, sizes: Sizes) -> int:
        """One number for each direction, and one for an image that is not moved."""
        if len(sizes.shape) != 3:
            raise ParameterError(
                f"shifts=True moves images by a pixel, but a sample has shape {sizes.shape}; give "
                "input_shape or axes if it is an image, or leave shifts=False."
            )
        return len(WAYS) + 1

    def _apart(
        self, x: Tensor, rng: Generator | None = None, clock: Clock | None = None
    ) -> tuple[Tensor, Tensor | None]:
        still = torch.zeros(len(x), dtype=torch.long, device=x.device)
        if not self.training or rng is None or clock is None:
            return x, still
        share = MOVED * max(0.0, 1.0 - clock.progress / STILL)
        moved = torch.rand(len(x), generator=rng, device=x.device) < share
        ways = torch.randint(1, len(WAYS) + 1, (len(x),), generator=rng, device=x.device)
        given = torch.where(moved, ways, still)
        x = x.clone()
        for number, way in enumerate(WAYS, start=1):
            some = given == number
            x[some] = x[some].roll(way, (-2, -1))
        return x, given

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction that a code stands for; nothing is moved."""
        still = torch.zeros(len(z), dtype=torch.long, device=z.device)
        return super().decode(torch.cat([z, self.one_hot(still)], 1))
