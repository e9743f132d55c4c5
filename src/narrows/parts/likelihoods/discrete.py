"""D for whole numbers (grey levels, counts, classes) and for tables of mixed columns.

Each exp(−distance) is a probability: it sums to one over the values that x can take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from narrows.exceptions import InputError
from narrows.parts.likelihoods.base import DataUnitsLikelihood, Likelihood, Range, one_per_channel

MAX_ONE_HOT = 20  # with more classes f gets the number of the class in place of a one-hot vector
MAX_EXACT = 2**24  # float32 loses integers above
MAX_LOG_RATE = 25.0  # log of a Poisson's rate: its square must not overflow float32


class WholeNumberLikelihood(Likelihood):
    """A D for whole numbers within ``allowed``, or within the support that a fit found."""

    discrete = True
    name: ClassVar[str]
    allowed: ClassVar[tuple[int, int]] = (0, MAX_EXACT)

    @classmethod
    def validate(cls, found: Range, support: tuple[int, ...] | None) -> None:
        (low, high), (lowest, highest) = support or cls.allowed, found.each
        if not (found.whole.all() and (lowest >= low).all() and (highest <= high).all()):
            raise InputError(
                f'distance="{cls.name}" needs an X of whole numbers, here from {low:,} to {high:,},'
                ' but X holds others; choose distance="auto", or fit on rows like these.'
            )


def _ends(found: Range) -> tuple[int, int]:
    low, high = found.each
    return int(low.min()), int(high.max())


class Logistic(WholeNumberLikelihood, DataUnitsLikelihood):
    """−log of the mass of a logistic density in the unit cell around a whole number.

    P(x) = σ((x + ½ − μ)/s) − σ((x − ½ − μ)/s) with μ = g(z) and one learned s for each channel
    (each column of a table). The first and last cell take the tails. Whole numbers go from the
    lowest to the highest of the data, for bytes from 0 to 255. ``log_scale`` is log s, in scaled
    units.

    Source: Salimans et al., "PixelCNN++", arXiv:1701.05517.
    """

    name, allowed = "logistic", (-MAX_EXACT, MAX_EXACT)
    min_log_scale = -9.0  # where all mass lies in one cell

    @classmethod
    def infer_support(cls, found: Range) -> tuple[int, ...]:
        """The lowest and the highest whole number."""
        cls.validate(found, None)
        return (0, 255) if found.dtype == torch.uint8 else _ends(found)

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        assert support is not None
        super().build(shape, support)
        self.low, self.high = support
        self.log_scale = one_per_channel(shape)

    def init_scale(self, deviation: float) -> None:
        # a logistic density of scale s has the standard deviation s π / √3
        self.log_scale.data.fill_(math.log(deviation * math.sqrt(3) / math.pi))

    @torch.no_grad()
    def set_data_units(self, shift: Tensor, scale: Tensor, found: Range) -> None:
        super().set_data_units(shift, scale, found)
        ends = torch.tensor([self.low, self.low + 1, self.high - 1, self.high]).double()
        # scaled x is float32: it must tell the first and the last cell from those next to them
        ends = ends.view(4, *[1] * self.shift.ndim).to(self.shift)
        back = self.in_data_units(((ends - self.shift) / self.scale).float())
        if bool(((back - ends).abs() >= 0.5).any()):
            raise InputError(
                f'distance="logistic" cannot tell the whole numbers of X from {self.low:,} to '
                f"{self.high:,} apart, so far are they from the mean; divide X by 10 and round "
                'it, or choose distance="gaussian".'
            )

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        # differences are taken in float64: a cell may be far smaller than what float32 resolves
        value = self.in_data_units(x).round()
        inverse = torch.exp(-self.log_scale.double().clamp(min=self.min_log_scale))
        half = 0.5 / self.scale * inverse  # half a cell, in units of s
        apart = ((value - self.shift) / self.scale - output.double()) * inverse
        above, below = (apart + half).to(output.dtype), (apart - half).to(output.dtype)
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − exp(b − a)), which has no cancellation
        both = torch.log(-torch.expm1(-2 * half)).to(output.dtype)
        # the first cell has no lower end and the last no upper one
        first, last = value <= self.low, value >= self.high
        upper = torch.where(last, 0.0, F.logsigmoid(above))
        lower = torch.where(first, 0.0, F.logsigmoid(-below))
        return -(upper + lower + torch.where(first | last, 0.0, both))


class Categorical(WholeNumberLikelihood):
    """−log softmax(g(z))_x for x = 0, ..., C − 1 in every element; C is found from the data.

    g outputs C numbers for each element; f gets a one-hot vector (with more than 20 classes the
    number of the class, scaled to −1 ... 1). The reconstruction is the most probable class.
    """

    real, scaled = False, False
    name, allowed = "categorical", (0, 255)

    @classmethod
    def infer_support(cls, found: Range) -> tuple[int, ...]:
        """The first class and the last."""
        cls.validate(found, None)
        return 0, _ends(found)[1]

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        assert support is not None
        self.shape, self.n_classes = shape, support[1] + 1

    def filling(self, mean: Tensor) -> Tensor:
        return torch.full_like(mean, -1.0)  # no class: its one-hot vector is 0

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.n_classes > MAX_ONE_HOT else self.output_shape(shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * self.n_classes, *shape[1:])

    def to_model(self, x: Tensor) -> Tensor:
        if self.n_classes > MAX_ONE_HOT:
            return 2 * x / (self.n_classes - 1) - 1
        return one_hot(x, self.n_classes).movedim(-1, 2).flatten(1, 2)

    def _logits(self, output: Tensor) -> Tensor:
        """g's output with the classes in the last axis."""
        event = len(self.shape)
        split: Tensor = output.unflatten(-event, (self.shape[0], self.n_classes))
        return split.movedim(-event, -1)

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return cross_entropy(x, self._logits(output))

    def mean(self, output: Tensor) -> Tensor:
        return self._logits(output).argmax(-1).float()

    def within(self, x: Tensor) -> Tensor:
        return x.clamp(0, self.n_classes - 1)


def one_hot(x: Tensor, n: int) -> Tensor:
    """1 at the class that x is, in a new last axis; all 0 if it is none of 0, ..., n − 1."""
    return (x.round()[..., None] == torch.arange(n, device=x.device)).float()


def cross_entropy(x: Tensor, logits: Tensor) -> Tensor:
    """−log softmax(logits)_x, classes last; an x that is no class counts as the nearest one."""
    index = x.round().clamp(0, logits.shape[-1] - 1).long().expand(logits.shape[:-1])
    return -logits.log_softmax(-1).gather(-1, index[..., None])[..., 0]


class Poisson(WholeNumberLikelihood):
    """λ − x log λ + log x! for counts x: λ = m exp(g(z)), m the mean of each element.

    f gets log(1 + x); the reconstruction is the rate λ. The terms are some x log x each and nearly
    cancel, to ½ log 2πλ at x = λ: they are computed in float64.
    """

    real, scaled = False, False
    name = "poisson"
    log_usual: Tensor  # log m

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        self.register_buffer("log_usual", torch.zeros(shape))

    @torch.no_grad()
    def set_data_units(self, shift: Tensor, scale: Tensor, found: Range) -> None:
        mean = found.mean.clamp(min=1e-3)  # elements that are always 0
        self.log_usual = mean.to(self.log_usual.device, torch.float64).log()

    def to_model(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).log1p()

    def _log_rate(self, output: Tensor) -> Tensor:
        """log λ, in float64."""
        return (output.double() + self.log_usual).clamp(max=MAX_LOG_RATE)

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return self._cost(x.double(), self._log_rate(output)).to(output.dtype)

    def _cost(self, x: Tensor, log_rate: Tensor) -> Tensor:
        return log_rate.exp() - x * log_rate + torch.lgamma(x + 1)

    def mean(self, output: Tensor) -> Tensor:
        return self._log_rate(output).exp().to(output.dtype)

    def within(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class NegativeBinomial(Poisson):
    """Counts with a larger variance than a Poisson's: mean μ = m exp(g(z)), variance μ + μ²/r.

    −log P(x) = log x! + log Γ(r) − log Γ(x + r) − r log(r/(r + μ)) − x log(μ/(r + μ)), with one
    learned r for each channel (each column of a table); ``log_dispersion`` is log r.
    """

    name = "negative_binomial"

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        super().build(shape, support)
        self.log_dispersion = one_per_channel(shape)

    def _cost(self, x: Tensor, log_rate: Tensor) -> Tensor:
        log_r = self.log_dispersion.double().clamp(-10.0, 12.0)
        r, log_ratio = log_r.exp(), log_rate - log_r  # log(μ/r)
        ways = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        # not softplus, which is linear from 20 on: 2e-9 off, times x
        return -r * F.logsigmoid(-log_ratio) - x * F.logsigmoid(log_ratio) - ways


class Mixed(DataUnitsLikelihood):
    """The sum of −log p over the columns of a table, each with a distribution of its own kind.

    A column of whole numbers from 0 to at most 19 is categorical (zeros and ones: two classes);
    any other column is Gaussian with a learned scale of its own. f gets scaled numbers and one-hot
    classes; the reconstruction of a categorical column is the most probable class. The support
    holds the number of classes of each column, 0 for a Gaussian one.
    """

    real = False
    min_log_scale = -6.0  # as in ``Gaussian``

    @classmethod
    def infer_support(cls, found: Range) -> tuple[int, ...]:
        """The number of classes of each column."""
        low, high = found.each
        if low.ndim != 1:
            raise InputError('distance="mixed" is for tables; choose distance="auto" for images.')
        classes = found.whole & (low >= 0) & (high < MAX_ONE_HOT)
        return tuple(torch.where(classes, (high + 1).clamp(2, MAX_ONE_HOT), 0).long().tolist())

    @classmethod
    def validate(cls, found: Range, support: tuple[int, ...] | None) -> None:
        low, high = found.each
        n = torch.tensor(support, device=low.device)
        # a column without any observed value has low > high
        wrong = (n > 0) & (high >= low) & ~(found.whole & (low >= 0) & (high < n))
        for column in wrong.nonzero().flatten().tolist():
            raise InputError(
                f"Column {column} of X held whole numbers from 0 to {n[column] - 1} when the model "
                "was fitted, but holds others now; fit on rows like these, or choose "
                'distance="gaussian".'
            )

    def build(self, shape: tuple[int, ...], support: tuple[int, ...] | None) -> None:
        assert support is not None
        super().build(shape, support)
        self.support, self.classes = support, tuple(i for i, n in enumerate(support) if n)
        # columns with equally many classes are computed together
        self.groups = {n: [i for i, k in enumerate(support) if k == n] for n in sorted({*support})}
        self.widths = [len(group) * max(n, 1) for n, group in self.groups.items()]
        order = [i for group in self.groups.values() for i in group]
        self.order = sorted(range(len(order)), key=order.__getitem__)  # back to the table's order
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def filling(self, mean: Tensor) -> Tensor:
        return self._for_classes((-1.0 - self.shift) / self.scale, mean)  # class −1: no class

    def log_volume(self, log_scale: Tensor) -> Tensor:
        return self._for_classes(torch.zeros_like(log_scale), log_scale)

    def _for_classes(self, values: Tensor, others: Tensor) -> Tensor:
        """``values`` for the categorical columns, ``others`` for the Gaussian ones."""
        chosen, columns = others.clone(), list(self.classes)
        chosen[columns] = values[columns].to(others)
        return chosen

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (sum(self.widths),)

    output_shape = input_shape

    def to_model(self, x: Tensor) -> Tensor:
        value = self.in_data_units(x)
        parts = (
            one_hot(value[:, group], n).flatten(1) if n else x[:, group]
            for n, group in self.groups.items()
        )
        return torch.cat(list(parts), -1)

    def _grouped(self, output: Tensor) -> Iterator[tuple[int, list[int], Tensor]]:
        """(n classes, its columns, g's output for them, classes in a last axis) of each group."""
        parts = output.split(self.widths, -1)
        for (n, group), part in zip(self.groups.items(), parts, strict=True):
            yield n, group, part.unflatten(-1, (len(group), n)) if n else part

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        value = self.in_data_units(x)
        log_scale = self.log_scale.to(output.dtype).clamp(min=self.min_log_scale)
        costs = []
        for n, group, part in self._grouped(output):
            if n:
                costs.append(cross_entropy(value[:, group], part))
                continue
            r = (part - x[:, group]) * torch.exp(-log_scale[group])
            costs.append(0.5 * r.square() + log_scale[group] + 0.5 * math.log(2 * math.pi))
        return torch.cat(costs, -1)[..., self.order]

    def mean(self, output: Tensor) -> Tensor:
        parts = [
            ((part.argmax(-1) - self.shift[group]) / self.scale[group]).to(part) if n else part
            for n, group, part in self._grouped(output)
        ]
        return torch.cat(parts, -1)[..., self.order]

    def within(self, x: Tensor) -> Tensor:
        n = torch.tensor(self.support, device=x.device)
        low, high = ((end - self.shift) / self.scale for end in (0, n - 1))
        return torch.where(n > 0, x.double().clamp(low, high).to(x), x)
