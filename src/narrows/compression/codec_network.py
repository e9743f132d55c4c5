"""The network of a codec: cells of numbers to whole-numbered codes and back, and its loss.

x is cut into cells, each a vector: a whole small image, a row of a table, or a block of a large
image. f encodes each cell, and on a grid of cells also sees the cells around it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Trace
from narrows.compression.context_network import ContextNetwork, ContextOptions
from narrows.compression.entropy_models import CellConv, ConditionalPrior, FactorisedPrior
from narrows.compression.format import Array
from narrows.compression.format.latent_codes import MAX_CODE
from narrows.estimators.build import with_tuples
from narrows.estimators.parameters import AXES, MAX_LAYER_WIDTH, rules_of, stored
from narrows.estimators.pca import PCA
from narrows.estimators.validation import DTYPES
from narrows.parts import Composition
from narrows.parts.latents.base import straight_through
from narrows.parts.latents.scalar_quantizer import finite_scalar
from narrows.parts.model import in_words
from narrows.parts.networks.architectures import initialise
from narrows.parts.networks.linear_path import BoundedHead, WithPath
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.regularizers.base import Regularizer
from narrows.training.batches import inference_batch

MAX_CELL = 1 << 16  # numbers in a row or a signal, which are one cell
STEP = math.sqrt(12)  # rounding to steps of √12 σ leaves a root mean squared error of σ
NOISE_SHARE = 2 / 3  # of a run: until then the decoder sees noise, after that rounded codes


NUMBER = {"kind": float}
ABOVE_0 = {"kind": float, "low": 0, "open": True}


@dataclass(frozen=True)
class CodecConfig:
    """Every "auto" of a codec, resolved."""

    channels: int = stored(kind=int, low=1, high=MAX_CELL)
    block: tuple[int, int] = stored(kind=tuple, low=1, high=MAX_CELL, most=2)
    # shape of a sample that is one cell, in the user's axes
    event: tuple[int, ...] | None = stored(kind=tuple, low=1, high=MAX_CELL, most=3, none=True)
    axes: str | None = stored(choices=AXES)
    latent_dim: int = stored(kind=int, low=1, high=MAX_LAYER_WIDTH)
    hidden: tuple[int, ...] = stored(kind=tuple, low=1, high=MAX_LAYER_WIDTH)
    sigmas: tuple[float, ...] = stored(each={**ABOVE_0, "high": 1e9}, most=16)
    quantizer: str = stored(choices=("noise", "fsq"))
    n_values: int = stored(kind=int, low=3, high=255)
    scale: tuple[float, ...] = stored(each=ABOVE_0, most=MAX_CELL)  # of channels, or of columns
    shift: tuple[float, ...] = stored(each=NUMBER, most=MAX_CELL)
    # of each channel, where the data have bounds
    low: tuple[float, ...] | None = stored(each=NUMBER, most=MAX_CELL, none=True)
    high: tuple[float, ...] | None = stored(each=NUMBER, most=MAX_CELL, none=True)
    dtype: str = stored(choices=DTYPES)
    context: int = stored(0, kind=int, low=0, high=4096)  # width of the prior's networks; 0: none
    # options of the context network, if there is one
    pixels: dict[str, Any] | None = stored(None, **rules_of(ContextOptions), none=True)
    precision: str = stored("float32", choices=("float32",))
    architecture: str = stored("codec", choices=("codec",))

    @property
    def reach(self) -> int:
        """Cells that a layer sees on each side."""
        return 0 if self.event is not None else 1

    @property
    def numbers(self) -> int:
        """Numbers in a cell."""
        return self.channels * math.prod(self.block)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodecConfig:
        """From the header of a model file."""
        return cls(**with_tuples(data))

    def broadcastable(self, name: str) -> NDArray[np.float64]:
        """The "scale", "shift", "low" or "high" of the data, to broadcast against (C, h, w)."""
        units = {"scale": self.scale, "shift": self.shift, "low": self.low, "high": self.high}
        values = units[name]
        if values is None:
            return np.full((1, 1, 1), -math.inf if name == "low" else math.inf)
        array = np.asarray(values, np.float64)
        columns = self.event is not None and self.axes is None and len(array) > 1
        return array.reshape((1, 1, -1) if columns else (-1, 1, 1))

    def scaled_bounds(self) -> tuple[float, float]:
        """Bounds of the data in scaled units; infinite without bounds or with several units."""
        if self.low is None or self.high is None or len(self.scale) > 1:
            return -math.inf, math.inf
        shift, scale = self.shift[0], self.scale[0]
        return (self.low[0] - shift) / scale, (self.high[0] - shift) / scale


def to_cells(x: Tensor, block: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, C·h·w, H/h, W/w), a block of h × w in each cell."""
    (h, w), (batch, channels, height, width) = block, x.shape
    cells = x.reshape(batch, channels, height // h, h, width // w, w)
    return cells.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * h * w, height // h, width // w)


def from_cells(cells: Tensor, block: tuple[int, int]) -> Tensor:
    """The inverse of ``to_cells``: a pixel shuffle for blocks of any sides."""
    (h, w), (batch, numbers, rows, columns) = block, cells.shape
    channels = numbers // (h * w)
    x = cells.reshape(batch, channels, h, w, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, channels, rows * h, columns * w)


class UniformNoise(nn.Module):
    """y ↦ y + u, u ~ U(−½, ½): noise in place of rounding, so that there is a gradient.

    Source: Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017.
    """

    def quantize(self, y: Tensor, progress: float, rng: Generator) -> tuple[Tensor, Tensor]:
        """What the rate is computed from, and what the decoder sees; in evaluation both rounded.

        In training the rate always sees noise. The decoder sees noise at first, and codes rounded
        with a straight-through gradient in the last third of a run ("soft then hard", Guo et al.,
        ICML 2021, arXiv:2104.05168).
        """
        whole = y.round()
        if not self.training:
            return whole, whole
        noisy = y + torch.rand(y.shape, generator=rng, device=y.device, dtype=y.dtype) - 0.5
        return noisy, noisy if progress < NOISE_SHARE else straight_through(y, whole)

    def __repr__(self) -> str:
        return "uniform noise, then rounding"


class FSQ(nn.Module):
    """Finite scalar quantisation with the same odd number of values for every number of the code.

    Parameters
    ----------
    n_values : int
        Odd, at least 3, so that 0 is one of the values.
    """

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self.n_values = n_values

    def quantize(self, y: Tensor, progress: float, rng: Generator) -> tuple[Tensor, Tensor]:
        """The same twice: what the rate is computed from, and what the decoder sees."""
        whole = straight_through(*finite_scalar(y, (self.n_values - 1) / 2))
        return whole, whole

    def __repr__(self) -> str:
        return f"FSQ of {self.n_values} values"


def cell_layers(widths: list[int], reach: int, activation: type[nn.Module]) -> nn.Sequential:
    """Layers that see ``reach`` cells on each side; the last layer sees only its own cell."""
    net = nn.Sequential()
    for i, (a, b) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        side = 1 if last else 2 * reach + 1
        net.append(CellConv(a, b, side, padding=side // 2))
        if not last:
            net.append(activation())
    return net


class CodecNetwork(nn.Module):
    """x → cells → f → × gain → q (whole numbers) → ÷ gain → g → cells → x'.

    Each level has a target error σ and gains of its own for every number of the code, so that one
    network serves several rates.

    Parameters
    ----------
    block : (int, int)
        The sides of a cell.
    numbers, latent_dim : int
        Numbers in a cell, and in its code.
    hidden : tuple of int
        Widths of f's hidden layers; g mirrors them.
    reach : int
        Cells that a layer sees on each side; 0 where a sample is one cell.
    sigmas : tuple of float
        Target root mean squared error of each level, in scaled units, falling.
    q : UniformNoise or FSQ
    context : int
        Width of the conditional prior's networks; 0: a factorised prior.
    """

    def __init__(
        self,
        block: tuple[int, int],
        numbers: int,
        latent_dim: int,
        hidden: tuple[int, ...],
        reach: int,
        sigmas: tuple[float, ...],
        q: UniformNoise | FSQ,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.block, self.sigmas, self.reach, self.numbers = block, sigmas, reach, numbers
        falling = [numbers, *hidden, latent_dim]
        f, g = (cell_layers(falling, reach, nn.GELU), cell_layers(falling[::-1], reach, nn.ReLU))
        self.f = WithPath(f, CellConv(numbers, latent_dim, 1))
        self.g = WithPath(g, CellConv(latent_dim, numbers, 1))
        self.q = q
        self.p: FactorisedPrior | ConditionalPrior
        if context:
            self.p = ConditionalPrior(len(sigmas), latent_dim, context, reach)
        else:
            self.p = FactorisedPrior(len(sigmas), latent_dim)
        self.log_gain = nn.Parameter(torch.zeros(len(sigmas), latent_dim))
        self.log_back = nn.Parameter(torch.zeros(len(sigmas), latent_dim))
        self.head = BoundedHead(torch.tensor(-math.inf), torch.tensor(math.inf))

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int = 1) -> Trace:
        x = self.planes(x)
        level = self._levels(len(x), rng)
        y = self.latents(x) * self._gain(self.log_gain, level)
        noisy, whole = self.q.quantize(y, clock.progress, rng)
        output = self.decode(whole * self._gain(self.log_back, level))
        sigma = x.new_tensor(self.sigmas)[level]
        squares = (x - output).square().flatten(1).sum(1)
        distance = squares / (2 * sigma.square())
        rate = self.p.nats(noisy.float(), whole.float(), level)
        node = Node(whole[None], extras={"rate": rate, "level": level})
        return Trace(x, x, None, [node], output[None], distance[None], clock, rng)

    def _levels(self, n: int, rng: Generator) -> Tensor:
        """A level for each sample: drawn in training, in turn otherwise."""
        device = self.log_gain.device
        if not self.training:
            return torch.arange(n, device=device) % len(self.sigmas)
        return torch.randint(len(self.sigmas), (n,), generator=rng, device=device)

    @staticmethod
    def _gain(logs: Tensor, level: Tensor) -> Tensor:
        return logs.exp()[level][:, :, None, None]

    def planes(self, x: Tensor) -> Tensor:
        """x as (B, C, H, W); where a sample is one cell, x may have any shape."""
        return x.reshape(len(x), -1, *self.block) if self.reach == 0 else x

    def latents(self, x: Tensor) -> Tensor:
        """f(x), before any gain, (B, latent_dim, rows, columns)."""
        y: Tensor = self.f(to_cells(self.planes(x), self.block))
        return y

    def decode(self, z: Tensor) -> Tensor:
        """x' for codes divided by their gains."""
        x: Tensor = self.head(from_cells(self.g(z), self.block).float())
        return x

    def codes(self, y: Tensor, level: int) -> Tensor:
        """Latents rounded to whole numbers at a level, of the same shape."""
        gain = self.log_gain[level].exp()[:, None, None]
        training = self.q.training
        self.q.eval()
        whole = self.q.quantize(y * gain, 1.0, torch.Generator(y.device))[1]
        self.q.train(training)
        return whole.round()

    @torch.no_grad()
    def init_weights(self, rng: Generator) -> None:
        """Weights from ``rng`` alone; the last layers of f and g give 0 at first."""
        for net, _ in self._branches():
            initialise(net[:-1], rng)
            for parameter in net[-1].parameters():
                nn.init.zeros_(parameter)
        if isinstance(self.p, ConditionalPrior):
            self.p.init_weights(rng)

    def _branches(self) -> Iterator[tuple[nn.Sequential, CellConv]]:
        """The layers and the linear path of f, then those of g."""
        for part in (self.f, self.g):
            assert isinstance(part.net, nn.Sequential) and isinstance(part.path, CellConv)
            yield part.net, part.path

    @torch.no_grad()
    def init_from_pca(self, pca: PCA) -> None:
        """Become PCA of the cells, with one quantisation step for all components."""
        k = len(pca.components)
        (_, encode), (_, decode) = self._branches()
        assert encode.bias is not None and decode.bias is not None
        for parameter in (*encode.parameters(), *decode.parameters()):
            nn.init.zeros_(parameter)
        encode.weight[:k, :, 0, 0] = pca.components
        encode.bias[:k] = -pca.components @ pca.mean
        decode.weight[:, :k, 0, 0] = pca.components.T
        decode.bias.copy_(pca.mean)
        steps = STEP * torch.tensor(self.sigmas)
        self.log_gain.copy_(-steps.log()[:, None].expand_as(self.log_gain))
        self.log_back.copy_(steps.log()[:, None].expand_as(self.log_back))
        spread = torch.zeros(self.log_gain.shape[1])
        spread[:k] = pca.variances.clamp_min(0).sqrt()
        self.p.init_scale(spread / steps[:, None])

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        words = {"q": in_words(self.q), "p": repr(self.p), "D": "squared"}
        for name, part in (("f", self.f), ("g", self.g)):
            n = sum(p.numel() for p in part.parameters())
            words[name] = f"{in_words(part)}  ({n:,} parameters)"
        return {name: words[name] for name in "fgqpD"}


class LatentEncoder:
    """f and the rounding of a codec's network, from arrays to arrays.

    ``shift`` and ``scale`` are the units of X, shaped to broadcast against a cell.
    """

    def __init__(self, network: CodecNetwork, shift: Array, scale: Array) -> None:
        self.network, self.shift, self.scale = network, shift, scale

    @torch.no_grad()
    def latents(self, planes: Array) -> Array:
        """Latents before rounding, (n, latent_dim, rows, columns), of planes in X's units."""
        network, out = self.network.eval(), []
        device = network.log_gain.device
        for part in np.array_split(planes, -(-len(planes) // inference_batch(planes.shape[1:]))):
            with np.errstate(over="ignore"):  # values far beyond the training data
                x = ((part.astype(np.float64) - self.shift) / self.scale).astype(np.float32)
            out.append(network.latents(torch.from_numpy(x).to(device)).cpu())
        return np.asarray(torch.cat(out))

    @torch.no_grad()
    def quantize(self, latents: Array, level: int) -> Array:
        """Codes at a level, whole numbers."""
        device = self.network.log_gain.device
        codes = self.network.codes(torch.from_numpy(latents).to(device), level)
        whole: Array = codes.nan_to_num().clamp(-MAX_CODE, MAX_CODE).long().cpu().numpy()
        return whole


class Rate(Regularizer):
    """R: the cost of the code, in nats a sample."""

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return trace.nodes[0].extras["rate"].mean()


class ContextBits(Regularizer):
    """R: the cost of the pixels, each predicted from those before it, in nats a sample.

    For half of the samples the context network also sees the codec's reconstruction. No gradient
    reaches the codec from here.

    Parameters
    ----------
    network : ContextNetwork
    shift, scale : tuple of float
        From scaled units to values from 0 to 255, of each channel.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, network: ContextNetwork, shift: tuple[float, ...], scale: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network = network
        for name, unit in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(unit).view(-1, 1, 1), persistent=False)

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        pixels, reconstruction = (
            (x.detach() * self.scale + self.shift).round().clamp(0, 255)
            for x in (trace.x, trace.output[0])
        )
        # seeded by the step alone, so that a resumed run draws the same
        rng = torch.Generator(pixels.device).manual_seed(trace.clock.step)
        nats: Tensor = self.network(pixels, reconstruction, rng)
        return nats.mean()


def rate_distortion(*more: Term) -> WeightedObjective:
    """E [ Σ (x − x')² / 2σ² + R ], in nats a sample.

    A step of Δ costs −log Δ nats and leaves an error of Δ² / 12; their sum is least at Δ² = 12 σ²,
    where the error is σ. So σ, not a multiplier, defines a level.
    """
    return WeightedObjective((Term("rate", Rate()), *more))
