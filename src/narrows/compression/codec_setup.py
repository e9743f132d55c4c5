"""From a codec's parameters and data to training: cells, levels, units, and the start at PCA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.compression.coder import Coder, ContextBits, initialised, rate_distortion, to_cells
from narrows.compression.context_network import ContextNetwork, ContextOptions, context_options
from narrows.compression.rounding import FSQ, UniformNoise
from narrows.estimators.pca import MOST_COMPONENTS, PCA, fit_pca
from narrows.estimators.resolved_config import Range, choose_scaling, find_range
from narrows.estimators.split import divide, measured
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Images
from narrows.parts.networks.architectures import dense_widths
from narrows.parts.objective import Term, WeightedObjective
from narrows.training.batches import Rows, Scaling, fit_scaling
from narrows.training.patches import Patches

WHOLE = 4096  # numbers of an image up to which it is one cell
LARGEST_CELL = 1 << 16
BLOCK = 8  # the side of a cell of a larger image
SIDE = 64  # of the patches that are learned from
WIDTH = 96  # channels between the cells of a larger image and their codes
CONTEXT = 48  # width of the networks of a conditional prior
WORTH = 3  # times the finest level's squared error: a smaller component is not worth its weights
LEFT = 0.02  # the share of the variance that the middle level leaves, by default
APART = math.sqrt(2)  # between the errors of one level and the next: 3 dB
VALIDATION = 256  # patches
SURVEYED = 4096  # images by which the values of pixels are divided


@dataclass(frozen=True)
class CodecConfig:
    """Every "auto" of a codec, resolved."""

    channels: int
    block: tuple[int, int]
    event: tuple[int, ...] | None  # of a sample that is one cell, in the user's axes
    axes: str | None
    latent_dim: int
    hidden: tuple[int, ...]
    sigmas: tuple[float, ...]
    quantizer: str
    n_values: int
    scale: tuple[float, ...]  # of each channel, or of each column
    shift: tuple[float, ...]
    low: tuple[float, ...] | None  # of each channel, where the data have bounds
    high: tuple[float, ...] | None
    dtype: str
    context: int = 0  # width of the prior's networks; 0: none
    pixels: dict[str, Any] | None = None  # of the network that expects pixels, if there is one
    precision: str = "float32"
    architecture: str = "codec"

    @property
    def reach(self) -> int:
        """Cells that a layer sees on each side."""
        return 0 if self.event is not None else 1

    @property
    def numbers(self) -> int:
        """Numbers in a cell."""
        return self.channels * math.prod(self.block)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CodecConfig:
        """The inverse of ``as_json``."""
        lists = {k: tuple(v) for k, v in data.items() if isinstance(v, list)}
        return cls(**{**data, **lists})

    def unit(self, name: str) -> NDArray[np.float64]:
        """A unit as it broadcasts against a cell, (C, h, w)."""
        values = getattr(self, name)
        if values is None:
            return np.full((1, 1, 1), -math.inf if name == "low" else math.inf)
        array = np.asarray(values, np.float64)
        columns = self.event is not None and self.axes is None and len(array) > 1
        return array.reshape((1, 1, -1) if columns else (-1, 1, 1))


def build_coder(choices: CodecConfig, rng: Generator | None) -> Coder:
    """The model with weights drawn from ``rng`` (None: with none)."""
    q = FSQ(choices.n_values) if choices.quantizer == "fsq" else UniformNoise()
    with torch.device("meta"):
        coder = Coder(
            choices.block,
            choices.numbers,
            choices.latent_dim,
            choices.hidden,
            choices.reach,
            choices.sigmas,
            q,
            choices.context,
        )
    if rng is None:
        return coder
    coder.to_empty(device="cpu")
    for parameter in coder.parameters():
        torch.nn.init.zeros_(parameter)
    low, high = scaled_ends(choices)
    coder.head.low.copy_(low)
    coder.head.high.copy_(high)
    return initialised(coder, rng)


def choose_pixels(
    codec: Any, prepared: Prepared, event: tuple[int, ...] | None, axes: str | None
) -> dict[str, Any] | None:
    """What the network that expects pixels is made of; None where there is to be none."""
    shape = prepared.rows.shape
    images = event is not None and axes in ("HW", "CHW", "HWC") and math.prod(shape) <= WHOLE
    possible = images and prepared.dtype == "uint8" and isinstance(prepared.rows, Rows)
    if codec.context is True and not possible:
        raise ParameterError(
            f"context=True is for images of 8 bits and at most {WHOLE} numbers that are coded "
            "whole; leave context='auto'."
        )
    if not possible or codec.context is False:
        return None
    some = prepared.rows.data[:: -(-len(prepared.rows) // SURVEYED)]
    return asdict(context_options(some.cpu().numpy(), side=True))


def build_objective(choices: CodecConfig, rng: Generator | None) -> WeightedObjective:
    """What is to be minimised: distance and rate, and what the pixels cost if they are expected."""
    if choices.pixels is None:
        return rate_distortion()
    listed: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in choices.pixels.items()
    }
    network = ContextNetwork(ContextOptions(**listed), rng)
    bits = ContextBits(network, choices.shift, choices.scale)
    return rate_distortion(Term("pixels", bits))


def pca_coder(choices: CodecConfig, pca: PCA) -> tuple[Coder, CodecConfig]:
    """PCA with the same quantiser and coder, a table for each number: the simple method."""
    plain = replace(choices, hidden=(), context=0, quantizer="noise")
    coder = build_coder(plain, torch.Generator().manual_seed(0))
    coder.start(pca)
    return coder.eval(), plain


def scaled_ends(choices: CodecConfig) -> tuple[Tensor, Tensor]:
    """The bounds of all data, in scaled units; infinite where there are none, or several."""
    if choices.low is None or choices.high is None or len(choices.scale) > 1:
        return torch.tensor(-math.inf), torch.tensor(math.inf)
    shift, scale = choices.shift[0], choices.scale[0]
    return tuple(torch.tensor((e[0] - shift) / scale) for e in (choices.low, choices.high))  # type: ignore[return-value]


def levels_for(
    pca: PCA, rate: float | str, n_levels: int, apart: float = APART
) -> tuple[float, ...]:
    """The errors σ that the levels aim at, falling, with the asked rate in their middle.

    Reverse water-filling: with an error of σ² in every component of larger variance λ, a Gaussian
    takes Σ ½ log₂ max(1, λ / σ²) bits (Cover & Thomas, "Elements of information theory", §10.3).
    """
    features = len(pca.mean)
    rest = features - len(pca.variances)
    variances = torch.cat([pca.variances, torch.full((rest,), pca.noise)]).double().clamp_min(0)
    total = float(variances.sum())
    if total <= 0:
        return tuple(apart**-i for i in range(n_levels))

    def too_good(squared: float) -> bool:
        if isinstance(rate, str):
            return float(variances.clamp_max(squared).sum()) < LEFT * total
        bits = 0.5 * (variances / squared).clamp_min(1).log2().sum()
        return float(bits) > rate * features

    low, high = 1e-12 * total, total
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if too_good(middle) else (low, middle)
    centre = math.sqrt(high)
    return tuple(centre * apart ** ((n_levels - 1) / 2 - i) for i in range(n_levels))


@dataclass(frozen=True)
class Prepared:
    """Rows or patches to learn from and to validate on, and what was found about them."""

    rows: Any
    validation: Any
    scaling: Scaling
    bounds: tuple[Tensor, Tensor] | None
    channels: int
    dtype: str  # of the data as given


class _Some:
    """Some rows of an array as images (H, W, C), with one shift and scale for each channel."""

    def __init__(self, rows: Any, which: Sequence[int], scaling: Scaling) -> None:
        self.rows, self.which, self.scaling = rows, which, scaling

    def __getitem__(self, i: int) -> NDArray[Any]:
        k = self.which[i]
        row = torch.from_numpy(np.asarray(self.rows[k : k + 1]).astype(np.float64))
        scaled = ((row - self.scaling.shift) / self.scaling.scale)[0].float()
        return scaled.movedim(0, -1).numpy()


def prepare_whole(rows: Any, held: Any, codec: Any, seed: int, device: torch.device) -> Prepared:
    """Samples that are one cell each."""
    divided = divide(rows, held, codec.validation_fraction, seed, device)
    found = find_range(divided.statistics)
    kind = choose_scaling("auto", found, "mse")
    scaling = fit_scaling(divided.statistics[0], kind)
    training, validation = divided.scaled(scaling)
    shape = divided.training.shape
    if math.prod(shape) > LARGEST_CELL:
        raise InputError(
            f"A sample of X has {math.prod(shape)} numbers; a codec takes up to {LARGEST_CELL} in "
            "a row or a signal: cut them into shorter ones."
        )
    channels = 1 if len(shape) == 1 else shape[0]
    return Prepared(training, validation, scaling, _ends(found, kind), channels, str(rows.dtype))


def _ends(found: Range, kind: str) -> tuple[Tensor, Tensor] | None:
    return (found.low, found.high) if found.shared and kind == "shared" else None


def prepare_blocks(rows: Any, held: Any, codec: Any, seed: int, device: torch.device) -> Prepared:
    """Patches of the images in an array (n, C, H, W)."""
    statistics = measured(rows)
    found = find_range([statistics])
    scaling = fit_scaling(statistics, "shared")
    training, kept = _apart(len(rows), codec, seed, held is not None)
    patches = _patches_of_array(rows, training, scaling, device)
    source = (rows, kept) if held is None else (held, list(range(len(held))))
    validation = _patches_of_array(*source, scaling, device).fixed(VALIDATION, seed)
    ends = _ends(found, "shared")
    return Prepared(patches, validation, scaling, ends, rows.shape[1], str(rows.dtype))


def prepare_images(
    images: Images, held: Images | None, codec: Any, seed: int, device: torch.device
) -> Prepared:
    """Patches of images of any sizes."""
    white = float(np.iinfo(images.dtype).max) if images.dtype.kind == "u" else 1.0
    training, kept = _apart(len(images), codec, seed, held is not None)
    patches = _patches_of_images(images, training, images.channels, white, device)
    source = (images, kept) if held is None else (held, list(range(len(held))))
    validation = _patches_of_images(*source, images.channels, white, device)
    one = torch.ones((images.channels, 1, 1), dtype=torch.float64)
    bounds = None if white == 1.0 else (one * 0, one * white)
    scaling = Scaling("shared", one * 0, one * white)
    held_out, dtype = validation.fixed(VALIDATION, seed), str(images.dtype)
    return Prepared(patches, held_out, scaling, bounds, images.channels, dtype)


def _apart(n: int, codec: Any, seed: int, given: bool) -> tuple[list[int], list[int]]:
    """Images to learn from and to validate on, at least one of two or more held out."""
    order = np.random.default_rng(seed).permutation(n).tolist()
    share = codec.validation_fraction
    apart = 0 if given or not share or n == 1 else max(1, round(n * share))
    kept = sorted(order[apart:])
    return kept, sorted(order[:apart]) or kept


def _patches_of_array(
    rows: Any, which: Sequence[int], scaling: Scaling, device: torch.device
) -> Patches:
    _, channels, height, width = rows.shape
    count = len(which)
    images = _Some(rows, which, Scaling("shared", scaling.shift.cpu(), scaling.scale.cpu()))
    sizes, whites = [(height, width)] * count, [1.0] * count
    return Patches(images, sizes, whites, SIDE, channels, 4 * count * height * width, device)


class _Chosen:
    def __init__(self, images: Images, which: Sequence[int]) -> None:
        self.images, self.which = images, which

    def __getitem__(self, i: int) -> NDArray[Any]:
        image: NDArray[Any] = self.images[self.which[i]]
        return image


def _patches_of_images(
    images: Images, which: Sequence[int], channels: int, white: float, device: torch.device
) -> Patches:
    sizes = [images.sizes[i] for i in which]
    size = images.dtype.itemsize if images.dtype == np.uint8 else 4
    nbytes = channels * size * sum(h * w for h, w in sizes)
    chosen = _Chosen(images, which)
    return Patches(chosen, sizes, [white] * len(which), SIDE, channels, nbytes, device)


def cells_of(rows: Any, block: tuple[int, int], reach: int, seed: int) -> Rows:
    """A sample of cells, flat, to fit PCA on."""
    if reach == 0:
        return Rows(rows.sample(seed).flatten(1), Scaling.none())
    sample = rows.fixed(min(len(rows), 1024), seed).in_order(1024)
    cells = torch.cat([to_cells(x.cpu(), block) for x in sample])
    return Rows(cells.movedim(1, -1).flatten(0, -2).contiguous(), Scaling.none())


def choose(
    codec: Any, prepared: Prepared, event: tuple[int, ...] | None, axes: str | None, seed: int
) -> tuple[CodecConfig, PCA]:
    """Decide everything, from PCA of the cells."""
    shape = prepared.rows.shape
    if event is not None:
        block = (1, shape[-1]) if len(shape) < 3 else (shape[-2], shape[-1])
    else:
        block = (BLOCK, BLOCK) if isinstance(codec.block, str) else tuple(codec.block)
    cells = cells_of(prepared.rows, block, 0 if event is not None else 1, seed)
    pca = fit_pca(cells, MOST_COMPONENTS, seed)
    sigmas = levels_for(pca, codec.rate, int(codec.levels))
    wide = int((pca.variances > WORTH * sigmas[-1] ** 2).sum())
    latent_dim = wide if isinstance(codec.latent_dim, str) else int(codec.latent_dim)
    numbers = prepared.channels * math.prod(block)
    latent_dim = max(1, min(latent_dim, numbers))
    hidden = codec.hidden_layer_sizes
    usual = dense_widths(numbers) if event is not None else (WIDTH, WIDTH)
    bounds = prepared.bounds
    flat = [tuple(t.flatten().tolist()) for t in (prepared.scaling.scale, prepared.scaling.shift)]
    ends = (None, None) if bounds is None else tuple(tuple(b.flatten().tolist()) for b in bounds)
    return CodecConfig(
        channels=prepared.channels,
        block=block,
        event=event,
        axes=axes,
        latent_dim=latent_dim,
        hidden=usual if isinstance(hidden, str) else tuple(int(w) for w in hidden),
        sigmas=sigmas,
        quantizer=codec.quantizer,
        n_values=int(codec.n_values),
        scale=flat[0],
        shift=flat[1],
        low=ends[0],
        high=ends[1],
        dtype=prepared.dtype,
        context=CONTEXT if codec.prior == "conditional" else 0,
        pixels=choose_pixels(codec, prepared, event, axes),
    ), pca.cut(min(latent_dim, len(pca.variances)))
