"""c: noise and other corruptions of x, before f. All random numbers come from ``rng``.

The level of a noise can be a range: then each row draws its own, and one model learns all levels.
x comes in scaled units, where 0 is the mean of the data.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows.exceptions import InputError, ParameterError

EVENTS = {1: "a table", 2: "signals", 3: "images"}  # by the number of dimensions of one event


def _uniform(x: Tensor, rng: Generator) -> Tensor:
    return torch.rand(x.shape, generator=rng, device=x.device, dtype=x.dtype)


class Corruption(nn.Module):
    """The contract of c. A subclass gives ``forward``."""

    def set_data_units(self, zero: Tensor, low: Tensor, high: Tensor) -> None:
        """Called once, before training: the user's 0, and the data's ends, in scaled units."""

    def forward(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor | None]:
        """c(x), and 1 where an element counts for D (None: everywhere)."""
        raise NotImplementedError


class Noise(Corruption):
    """c(x) at one level, or at a level drawn for each row from a range; no mask.

    Parameters
    ----------
    level : float, (low, high) or "auto"
        Each class says what it measures; "auto" is ``default_level``.
    shape : tuple of int
        Shape of one event: (d,), (C, L) or (C, H, W).

    Raises
    ------
    ParameterError
        The level is too high, or the noise is not defined for such events.
    """

    name: ClassVar[str]
    default_level: ClassVar[float]
    max_level: ClassVar[float] = math.inf  # 1 where the level is a share of the elements
    events: ClassVar[tuple[int, ...]] = tuple(EVENTS)

    def __init__(self, level: float | tuple[float, float] | str, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) not in self.events:
            wanted = " or ".join(EVENTS[rank] for rank in self.events)
            raise ParameterError(
                f"noise={self.name!r} is for {wanted}, but X is {EVENTS[len(shape)]}; give axes or "
                'input_shape if it is not, or choose noise="gaussian".'
            )
        self._set_level(level)

    def _set_level(self, level: float | tuple[float, float] | str) -> None:
        level = self.default_level if isinstance(level, str) else level
        low, high = level if isinstance(level, tuple | list) else (level, level)
        self.low, self.high = float(low), float(high)
        if self.high > self.max_level:
            raise ParameterError(
                f"With noise={self.name!r} noise_level is a share of the elements, at most "
                f"{self.max_level:g}. Got {level!r} instead."
            )

    def at(self, level: float | tuple[float, float] | str) -> Self:
        """The same noise at another level."""
        other = copy.copy(self)
        other._set_level(level)
        return other

    def extra_repr(self) -> str:
        return f"level={self.low:g}" + (f" to {self.high:g}" if self.high > self.low else "")

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        """c(x); ``level`` is (B, 1, ...)."""
        raise NotImplementedError

    def forward(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor | None]:
        level = x.new_full((len(x), *[1] * (x.ndim - 1)), self.low)
        if self.high > self.low:
            level = level + (self.high - self.low) * _uniform(level, rng)
        return self.corrupt(x, level, rng), None


class GaussianNoise(Noise):
    """x + ε, ε ~ N(0, level²) in scaled units: level 1 is noise as strong as the data.

    Source: Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010), section 3.3.
    """

    name, default_level = "gaussian", 0.5

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        return x + level * noise


MIN_POISSON_LEVEL = 1e-4  # 10⁸ counts, whose noise float32 can hardly represent


class PoissonNoise(Noise):
    """Counting noise: o + u N, N ~ Poisson((x − o) / u), u = level² (w − o).

    o is 0 in the user's units and w the largest training value (of the channel; of the column, if
    columns are scaled one by one). So 1 / level² is the count at the largest value: level 0.1 is
    100 counts there, with a standard deviation of a tenth of it. The mean stays x, the variance is
    u (x − o). The gradient is that of the mean.

    Source: Hasinoff, "Photon, Poisson noise", in Computer Vision: A Reference Guide (2014).
    """

    name, default_level = "poisson", 0.2
    zero: Tensor
    reach: Tensor  # w − o

    def __init__(self, level: float | tuple[float, float] | str, shape: tuple[int, ...]) -> None:
        super().__init__(level, shape)
        self.register_buffer("zero", torch.zeros(shape))
        self.register_buffer("reach", torch.ones(shape))

    @torch.no_grad()
    def set_data_units(self, zero: Tensor, low: Tensor, high: Tensor) -> None:
        """Set o and w; raise InputError if the data go below 0, as counts cannot."""
        if bool((low < zero).any()):
            raise InputError(
                'noise="poisson" is the noise of counts, which are never below 0, but X holds '
                'values below 0; choose noise="gaussian", or give X in units that start at 0.'
            )
        self.zero.copy_(zero)
        self.reach.copy_(torch.where(high > zero, high - zero, 1.0))

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        unit = self.reach * level.clamp(min=MIN_POISSON_LEVEL).square()
        counts = torch.poisson(((x - self.zero) / unit).clamp(min=0), generator=rng)
        noise = self.zero + unit * counts - x
        return x + torch.where(level < MIN_POISSON_LEVEL, 0.0, noise).detach()


class MaskingNoise(Noise):
    """A share ``level`` of the elements set to 0, the mean of scaled data.

    Source: Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010), section 3.3.
    """

    name, default_level, max_level = "masking", 0.25, 1.0

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        return x * (_uniform(x, rng) >= level)


class SaltAndPepper(Noise):
    """A share ``level`` of the elements set to the batch's smallest or largest value, half each.

    Source: Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010), section 3.3.
    """

    name, default_level, max_level = "salt_and_pepper", 0.2, 1.0

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        u = _uniform(x, rng)
        low, high = torch.aminmax(x)
        x = torch.where(u < level / 2, low, x)
        return torch.where(u > 1 - level / 2, high, x)


class SwapNoise(Noise):
    """A share ``level`` of the elements taken from random rows of the batch; for tables.

    Values stay in their column, so that the marginal distributions do not change.

    Source: Jahrer, winner's account of Porto Seguro's Safe Driver Prediction, Kaggle (2017).
    """

    name, default_level, max_level = "swap", 0.15, 1.0

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        rows = torch.randint(len(x), x.shape, generator=rng, device=x.device)
        other = x.gather(0, rows)
        return torch.where(_uniform(x, rng) < level, other, x)


class Blur(Noise):
    """x * k along each axis except the channels: k_t ∝ exp(−t² / 2 level²), level in samples.

    Channels are blurred one by one, and mirrored at the ends; k sums to 1. It ends at 4 times the
    level (the highest of a range), earlier on a short axis.

    Source: Gonzalez & Woods, Digital Image Processing, section 3.5 (4th edition, 2018).
    """

    name, default_level, events = "blur", 1.0, (2, 3)

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        for axis in range(2, x.ndim):
            x = self._along(x.movedim(axis, -1), level.flatten()).movedim(-1, axis)
        return x

    def _along(self, x: Tensor, level: Tensor) -> Tensor:
        """x blurred along its last axis, each row at its own level (B,)."""
        length = x.shape[-1]
        radius = min(int(4 * self.high + 0.5), length - 1)  # a mirrored axis is no longer
        t = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = (-0.5 * (t / level[:, None].clamp(min=1e-3)).square()).exp()
        kernel = (kernel / kernel.sum(1, keepdim=True))[:, :, None, None]
        flat = F.pad(x.flatten(1, -2), (radius, radius), mode="reflect")
        blurred = torch.zeros_like(flat[..., :length])
        for i in range(len(t)):  # a convolution would be in bfloat16 under autocast
            blurred = blurred + kernel[:, i] * flat[..., i : i + length]
        return blurred.view_as(x)


MAX_SPAN_SHARE = 1 / 8  # of the length of the signal


class SpanDropout(Noise):
    """Spans of a signal set to 0, the mean of scaled data, in all channels at once.

    Each row draws a length w from 1 to L / 8, and at every time step a span of that length starts
    with probability 1 − (1 − level)^(1/w). A step is kept if none of the last w steps started one,
    so the share lost is ``level`` for any w. Spans can overlap.

    Source: Hall, Introduction to the Theory of Coverage Processes (1988), chapter 2.
    """

    name, default_level, max_level, events = "dropout", 0.25, 1.0, (2,)

    def corrupt(self, x: Tensor, level: Tensor, rng: Generator) -> Tensor:
        longest = max(1, int(x.shape[-1] * MAX_SPAN_SHARE))
        width = torch.randint(1, longest + 1, level.shape, generator=rng, device=x.device)
        steps = x.shape[-1] + longest - 1  # a span may start before the signal
        u = torch.rand((len(x), 1, steps), generator=rng, device=x.device, dtype=x.dtype)
        time = torch.arange(steps, device=x.device)
        starts = u < 1 - (1 - level).pow(1 / width)
        last = torch.where(starts, time, -steps).cummax(-1).values
        lost = time - last < width
        return x * ~lost[..., longest - 1 :]


CORRUPTIONS: dict[str, type[Noise]] = {
    "gaussian": GaussianNoise,
    "poisson": PoissonNoise,
    "masking": MaskingNoise,
    "salt_and_pepper": SaltAndPepper,
    "swap": SwapNoise,
    "blur": Blur,
    "dropout": SpanDropout,
}
