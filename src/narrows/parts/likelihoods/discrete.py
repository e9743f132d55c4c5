"""D for whole numbers (grey levels, counts, classes) and for tables of mixed columns.

Each exp(−distance) is a probability: it sums to one over what x may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from narrows.exceptions import InputError
from narrows.parts.likelihoods.base import InUnits, Likelihood, one_per_channel

FEW = 20  # up to so many classes f sees which it is, not its number
LARGEST = 2**24  # above, a float32 is no longer every whole number
LARGEST_LOG = 25.0  # of a rate: its square is still a float32


class Whole(Likelihood):
    """A D for whole numbers between the ends that ``most`` allows, or that a fit found."""

    discrete = True
    name: ClassVar[str]
    most: ClassVar[tuple[int, int]] = (0, LARGEST)

    @classmethod
    def validate(cls, found: Any, kinds: tuple[int, ...] | None) -> None:
        low, high = kinds or cls.most
        if not (found.whole.all() and low <= _ends(found)[0] and _ends(found)[1] <= high):
            raise InputError(
                f'distance="{cls.name}" needs an X of whole numbers, here from {low:,} to {high:,},'
                ' but X holds others; choose distance="auto", or fit on rows like these.'
            )


def _ends(found: Any) -> tuple[int, int]:
    low, high = found.each
    return int(low.min()), int(high.max())


class Logistic(Whole, InUnits):
    """−log of the mass of a logistic density in the cell of a grid of whole numbers.

    P(x) = σ((x + ½ − μ)/s) − σ((x − ½ − μ)/s) with μ = g(z) and one learned s for each channel
    (each column of a table); the first and the last cell take the tails (Salimans et al. 2017,
    "PixelCNN++", arXiv:1701.05517). The grid goes from the lowest to the highest value of the data,
    for bytes from 0 to 255. ``log_scale`` is log s, in scaled units.
    """

    name, most = "logistic", (-LARGEST, LARGEST)
    smallest = -9.0  # log s

    @classmethod
    def infer_support(cls, found: Any) -> tuple[int, ...]:
        """The ends of the grid."""
        cls.validate(found, None)
        return (0, 255) if found.dtype == torch.uint8 else _ends(found)

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        assert kinds is not None
        super().build(shape, kinds)
        self.low, self.high = kinds
        self.log_scale = one_per_channel(shape)

    def init_scale(self, deviation: float) -> None:
        self.log_scale.data.fill_(math.log(deviation * math.sqrt(3) / math.pi))

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        inverse = torch.exp(-self.log_scale.clamp(min=self.smallest))
        half = 0.5 / self.scale  # of a cell, in scaled units
        above, below = (x + half - output) * inverse, (x - half - output) * inverse
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − exp(b − a)), where nothing cancels
        both = torch.log(-torch.expm1(-2 * half * inverse))
        value = x * self.scale + self.shift
        first, last = value < self.low + 0.5, value > self.high - 0.5
        # the first cell has no lower end and the last no upper one
        upper = torch.where(last, 0.0, F.logsigmoid(above))
        lower = torch.where(first, 0.0, F.logsigmoid(-below))
        return -(upper + lower + torch.where(first | last, 0.0, both))


class Categorical(Whole):
    """−log softmax(g(z))_x for x = 0, ..., C − 1 in every element; C is found from the data.

    g answers C numbers for each element, f sees which class it is (of more than 20 classes its
    number, from −1 to 1), and the reconstruction is the most likely class.
    """

    real, scaled = False, False
    name, most = "categorical", (0, 255)

    @classmethod
    def infer_support(cls, found: Any) -> tuple[int, ...]:
        """The first class and the last."""
        cls.validate(found, None)
        return 0, _ends(found)[1]

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        assert kinds is not None
        self.shape, self.n_classes = shape, kinds[1] + 1

    def filling(self, mean: Tensor) -> Tensor:
        return torch.full_like(mean, -1.0)  # none of them

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.n_classes > FEW else self.output_shape(shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * self.n_classes, *shape[1:])

    def to_model(self, x: Tensor) -> Tensor:
        if self.n_classes > FEW:
            return 2 * x / (self.n_classes - 1) - 1
        return one_hot(x, self.n_classes).movedim(-1, 2).flatten(1, 2)

    def _logits(self, output: Tensor) -> Tensor:
        """The classes last."""
        rank = len(self.shape)
        split: Tensor = output.unflatten(-rank, (self.shape[0], self.n_classes))
        return split.movedim(-rank, -1)

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        return class_cost(x, self._logits(output))

    def mean(self, output: Tensor) -> Tensor:
        return self._logits(output).argmax(-1).float()


def one_hot(x: Tensor, n: int) -> Tensor:
    """1 at the class that x is, in a new last axis; nowhere, if it is none of the n."""
    return (x.round()[..., None] == torch.arange(n, device=x.device)).float()


def class_cost(x: Tensor, logits: Tensor) -> Tensor:
    """−log softmax(logits)_x, the classes last; what is no class is taken for the nearest."""
    index = x.round().clamp(0, logits.shape[-1] - 1).long().expand(logits.shape[:-1])
    return -logits.log_softmax(-1).gather(-1, index[..., None])[..., 0]


class Poisson(Whole):
    """λ − x log λ + log x! for counts x: λ = m exp(g(z)), m the mean of each element.

    f sees log(1 + x); the reconstruction is the rate λ.
    """

    real, scaled = False, False
    name = "poisson"
    log_usual: Tensor

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        self.register_buffer("log_usual", torch.zeros(shape))

    @torch.no_grad()
    def set_data_units(self, scaling: Any, found: Any) -> None:
        self.log_usual.copy_(found.mean.clamp(min=1e-3).log())

    def to_model(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).log1p()

    def _log_rate(self, output: Tensor) -> Tensor:
        return (output + self.log_usual).clamp(max=LARGEST_LOG)

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        log_rate = self._log_rate(output)
        return log_rate.exp() - x * log_rate + torch.lgamma(x + 1)

    def mean(self, output: Tensor) -> Tensor:
        return self._log_rate(output).exp()


class NegativeBinomial(Poisson):
    """Counts that scatter more than a Poisson's: mean μ = m exp(g(z)), variance μ + μ²/r.

    −log P(x) = log x! + log Γ(r) − log Γ(x + r) − r log(r/(r + μ)) − x log(μ/(r + μ)), with one
    learned r for each channel (each column of a table); ``log_dispersion`` is log r.
    """

    name = "negative_binomial"

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        super().build(shape, kinds)
        self.log_dispersion = one_per_channel(shape)

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        log_r = self.log_dispersion.clamp(-10.0, 12.0)
        apart = self._log_rate(output) - log_r
        cost = log_r.exp() * F.softplus(apart) + x * F.softplus(-apart)
        r, count = log_r.double().exp(), x.double()  # large logarithms that nearly cancel
        ways = torch.lgamma(count + r) - torch.lgamma(r) - torch.lgamma(count + 1)
        return cost - ways.float()


class Mixed(InUnits):
    """A table whose columns are of different kinds: each has the −log p of its kind, summed.

    Whole numbers from 0 to at most 19 are classes (zeros and ones are a Bernoulli: two of them);
    any other column is Gaussian with a learned scale of its own. f sees numbers scaled, classes as
    zeros and ones; the reconstruction of a column of classes is the most likely one. log p is a
    density over the numbers times a probability of the classes. ``kinds`` are how many classes a
    column has, 0 for one of numbers.
    """

    real = False
    smallest = -6.0

    @classmethod
    def infer_support(cls, found: Any) -> tuple[int, ...]:
        """How many classes each column has."""
        low, high = found.each
        if low.ndim != 1:
            raise InputError('distance="mixed" is for tables; choose distance="auto" for images.')
        classes = found.whole & (low >= 0) & (high < FEW)
        return tuple(torch.where(classes, (high + 1).clamp(2, FEW), 0).long().tolist())

    @classmethod
    def validate(cls, found: Any, kinds: tuple[int, ...] | None) -> None:
        low, high = found.each
        n = torch.tensor(kinds, device=low.device)
        # a column that nobody observed has no ends
        wrong = (n > 0) & (high >= low) & ~(found.whole & (low >= 0) & (high < n))
        for column in wrong.nonzero().flatten().tolist():
            raise InputError(
                f"Column {column} of X was one of whole numbers from 0 to {n[column] - 1} when the "
                "model was fitted, but holds others now; fit on rows like these, or choose "
                'distance="gaussian".'
            )

    def build(self, shape: tuple[int, ...], kinds: tuple[int, ...] | None) -> None:
        assert kinds is not None
        super().build(shape, kinds)
        self.classes = tuple(i for i, n in enumerate(kinds) if n)
        self.groups = {n: [i for i, k in enumerate(kinds) if k == n] for n in sorted({*kinds})}
        self.widths = [len(group) * max(n, 1) for n, group in self.groups.items()]
        order = [i for group in self.groups.values() for i in group]
        self.order = sorted(range(len(order)), key=order.__getitem__)  # back to the columns'
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def filling(self, mean: Tensor) -> Tensor:
        return self._for_classes((-1.0 - self.shift) / self.scale, mean)  # none of them

    def log_volume(self, log_scale: Tensor) -> Tensor:
        return self._for_classes(torch.zeros_like(log_scale), log_scale)

    def _for_classes(self, values: Tensor, others: Tensor) -> Tensor:
        chosen, columns = others.clone(), list(self.classes)
        chosen[columns] = values[columns]
        return chosen

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (sum(self.widths),)

    output_shape = input_shape

    def to_model(self, x: Tensor) -> Tensor:
        whole = x * self.scale + self.shift
        parts = (
            one_hot(whole[:, group], n).flatten(1) if n else x[:, group]
            for n, group in self.groups.items()
        )
        return torch.cat(list(parts), -1)

    def _grouped(self, output: Tensor) -> Iterator[tuple[int, list[int], Tensor]]:
        """Columns of one kind, and g's answer for them; classes in a last axis of their own."""
        parts = output.split(self.widths, -1)
        for (n, group), part in zip(self.groups.items(), parts, strict=True):
            yield n, group, part.unflatten(-1, (len(group), n)) if n else part

    def elementwise(self, x: Tensor, output: Tensor) -> Tensor:
        whole, log_scale = x * self.scale + self.shift, self.log_scale.clamp(min=self.smallest)
        costs = []
        for n, group, part in self._grouped(output):
            if n:
                costs.append(class_cost(whole[:, group], part))
                continue
            r = (part - x[:, group]) * torch.exp(-log_scale[group])
            costs.append(0.5 * r.square() + log_scale[group] + 0.5 * math.log(2 * math.pi))
        return torch.cat(costs, -1)[..., self.order]

    def mean(self, output: Tensor) -> Tensor:
        parts = [
            (part.argmax(-1) - self.shift[group]) / self.scale[group] if n else part
            for n, group, part in self._grouped(output)
        ]
        return torch.cat(parts, -1)[..., self.order]
