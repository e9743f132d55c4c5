"""From a codec's parameters and data to training: cells, levels, units, and the start at PCA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.compression.codec_network import (
    FSQ,
    MAX_CELL,
    CodecConfig,
    CodecNetwork,
    ContextBits,
    UniformNoise,
    rate_distortion,
    to_cells,
)
from narrows.compression.context_network import ContextNetwork, ContextOptions, context_options
from narrows.estimators.build import with_tuples
from narrows.estimators.fit_setup import (
    FitData,
    choose_scaling,
    find_range,
    statistics_of,
    train_validation_split,
    unscaled,
)
from narrows.estimators.parameters import as_ints
from narrows.estimators.pca import MAX_COMPONENTS, PCA, fit_pca
from narrows.estimators.validation import Given
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Images
from narrows.parts.networks.architectures import allocate, dense_widths
from narrows.parts.objective import Term, WeightedObjective
from narrows.training.batches import Rows, Scaling, fit_scaling
from narrows.training.patches import Patches
from narrows.training.streamed_batches import Stream

MAX_WHOLE = 4096  # numbers of an image up to which it is one cell
BLOCK_SIDE = 8  # of a cell of a larger image
PATCH_SIDE = 64  # of the patches of large images that are trained on
BLOCK_WIDTH = 96  # hidden channels of f and g for blocks
PRIOR_WIDTH = 48  # of the networks of a conditional prior
# a component is coded if its variance is above 3 times the finest level's squared error, about
# half a bit; below that it is not worth its weights
MIN_VARIANCE_RATIO = 3
TARGET_UNEXPLAINED_VARIANCE = 0.02  # share of the variance left by the middle level, by default
LEVEL_RATIO = math.sqrt(2)  # of the errors of one level and the next: 3 dB
VALIDATION_PATCHES = 256
SURVEYED_IMAGES = 4096  # by which the context network's groups of values are chosen


@dataclass(frozen=True)
class CodecData:
    """Rows or patches to train and validate on, and what was found about them."""

    rows: Rows | Stream | Patches
    validation: Rows | Stream
    scaling: Scaling
    bounds: tuple[Tensor, Tensor] | None  # lowest and highest value of each channel
    channels: int
    dtype: str  # of the data as given


# ------------------------------------------------------------------ the network


def build_model(config: CodecConfig, seed: int | None) -> tuple[CodecNetwork, WeightedObjective]:
    """The network, and its objective: distance and rate, and with a context network its cost.

    The weights are drawn from generators with ``seed``; None: there are none yet.
    """
    network = _build_network(config, _generator(seed))
    if config.pixels is None:
        return network, rate_distortion()
    options = ContextOptions(**with_tuples(config.pixels))
    bits = ContextBits(ContextNetwork(options, _generator(seed)), config.shift, config.scale)
    return network, rate_distortion(Term("pixels", bits))


def _generator(seed: int | None) -> Generator | None:
    return None if seed is None else Generator().manual_seed(seed)


def _build_network(config: CodecConfig, rng: Generator | None) -> CodecNetwork:
    """The network with weights drawn from ``rng``; None: with no weights yet."""
    q = FSQ(config.n_values) if config.quantizer == "fsq" else UniformNoise()
    with torch.device("meta"):
        network = CodecNetwork(
            config.block,
            config.numbers,
            config.latent_dim,
            config.hidden,
            config.reach,
            config.sigmas,
            q,
            config.context,
        )
    if rng is None:
        return network
    allocate(network)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    low, high = config.scaled_bounds()
    network.head.low.fill_(low)
    network.head.high.fill_(high)
    network.init_weights(rng)
    return network


def pca_network(config: CodecConfig, pca: PCA) -> tuple[CodecNetwork, CodecConfig]:
    """PCA with the same quantiser and entropy coder and a factorised prior: the simple method."""
    plain = replace(config, hidden=(), context=0, quantizer="noise")
    network = _build_network(plain, _generator(0))
    network.init_from_pca(pca)
    return network.eval(), plain


# ------------------------------------------------------------------ every "auto"


def resolve_config(
    codec: Any, data: CodecData, event: tuple[int, ...] | None, axes: str | None, seed: int
) -> tuple[CodecConfig, PCA]:
    """Decide every "auto" of a ``Codec`` from PCA of the cells; also that PCA, cut to the code.

    ``event`` is the shape of a sample that is one cell; None: images are cut into blocks.
    """
    shape = data.rows.shape
    if event is not None:
        block = (1, shape[-1]) if len(shape) < 3 else (shape[-2], shape[-1])
    else:
        asked = (BLOCK_SIDE, BLOCK_SIDE) if isinstance(codec.block, str) else as_ints(codec.block)
        block = asked[0], asked[1]
    pca = fit_pca(_sample_cells(data.rows, block, seed), MAX_COMPONENTS, seed)
    sigmas = level_sigmas(pca, codec.rate, int(codec.levels))
    numbers = data.channels * math.prod(block)
    latent_dim, hidden = codec.latent_dim, codec.hidden_layer_sizes
    if latent_dim == "auto":
        latent_dim = (pca.variances > MIN_VARIANCE_RATIO * sigmas[-1] ** 2).sum()
    latent_dim = max(1, min(int(latent_dim), numbers))
    if isinstance(hidden, str):
        hidden = (BLOCK_WIDTH, BLOCK_WIDTH) if event is None else dense_widths(numbers)
    low, high = (None, None) if data.bounds is None else map(_numbers, data.bounds)
    return CodecConfig(
        channels=data.channels,
        block=block,
        event=event,
        axes=axes,
        latent_dim=latent_dim,
        hidden=as_ints(hidden),
        sigmas=sigmas,
        quantizer=codec.quantizer,
        n_values=int(codec.n_values),
        scale=_numbers(data.scaling.scale),
        shift=_numbers(data.scaling.shift),
        low=low,
        high=high,
        dtype=data.dtype,
        context=PRIOR_WIDTH if codec.prior == "conditional" else 0,
        pixels=_context_options(codec.context, data, event, axes),
    ), pca.cut(min(latent_dim, len(pca.variances)))


def _numbers(tensor: Tensor) -> tuple[float, ...]:
    return tuple(tensor.flatten().tolist())


def _sample_cells(rows: Rows | Stream | Patches, block: tuple[int, int], seed: int) -> Rows:
    """Cells, flat, to fit PCA on: a sample of the rows, or all cells of some patches."""
    if not isinstance(rows, Patches):
        return Rows(rows.sample(seed).flatten(1), Scaling.none())
    sample = rows.fixed(min(len(rows), 1024), seed).in_order(1024)
    cells = torch.cat([to_cells(x.cpu(), block) for x in sample])
    return Rows(cells.movedim(1, -1).flatten(0, -2).contiguous(), Scaling.none())


def level_sigmas(pca: PCA, rate: float | str, n_levels: int) -> tuple[float, ...]:
    """The target error σ of each level, falling, with the requested rate in their middle.

    Reverse water-filling: with an error of σ² in every component of larger variance λ, a Gaussian
    takes Σ ½ log₂ max(1, λ / σ²) bits (Cover & Thomas, "Elements of information theory", §10.3).
    """
    features = len(pca.mean)
    rest = features - len(pca.variances)
    variances = torch.cat([pca.variances, torch.full((rest,), pca.noise)]).double().clamp_min(0)
    total = float(variances.sum())
    if total <= 0:
        return tuple(LEVEL_RATIO**-i for i in range(n_levels))

    def too_fine(squared: float) -> bool:
        if isinstance(rate, str):
            left = float(variances.clamp_max(squared).sum())
            return left < TARGET_UNEXPLAINED_VARIANCE * total
        bits = 0.5 * (variances / squared).clamp_min(1).log2().sum()
        return float(bits) > rate * features

    low, high = 1e-12 * total, total
    for _ in range(100):  # bisection of the logarithm
        middle = math.sqrt(low * high)
        low, high = (middle, high) if too_fine(middle) else (low, middle)
    centre = math.sqrt(high)
    return tuple(centre * LEVEL_RATIO ** ((n_levels - 1) / 2 - i) for i in range(n_levels))


def _context_options(
    wanted: bool | str, data: CodecData, event: tuple[int, ...] | None, axes: str | None
) -> dict[str, Any] | None:
    """Options of the context network; None: the codec has none."""
    rows = data.rows
    images = axes in ("HW", "CHW", "HWC") and math.prod(rows.shape) <= MAX_WHOLE
    if not (isinstance(rows, Rows) and event is not None and images and data.dtype == "uint8"):
        if wanted is True:
            raise ParameterError(
                f"context=True needs 8-bit images of at most {MAX_WHOLE} numbers that are coded "
                "whole; leave context='auto'."
            )
        return None
    if wanted is False:
        return None
    some = rows.data[:: -(-len(rows) // SURVEYED_IMAGES)]
    return asdict(context_options(some.cpu().numpy(), side=True))


# ------------------------------------------------------------------ the data


def prepare_data(
    data: FitData[Given | Images], whole: bool, fraction: float, seed: int, device: torch.device
) -> CodecData:
    """What to train on: samples that are one cell each if ``whole``, else patches of images."""
    rows, held = data.rows, data.held
    if isinstance(rows, Images) or isinstance(held, Images) or not whole:
        return _prepare_patches(rows, held, fraction, seed, device)
    return _prepare_samples(FitData(rows, held), fraction, seed, device)


def _prepare_samples(
    data: FitData[Given], fraction: float, seed: int, device: torch.device
) -> CodecData:
    """Samples that are one cell each; without X_val a ``fraction`` is held out."""
    split = train_validation_split(data, fraction, seed, device)
    found = find_range(split.statistics)
    kind = choose_scaling("auto", found, "mse")
    scaling = fit_scaling(split.statistics[0], kind)
    training, validation = split.scaled(scaling)
    shape = split.training.shape
    if math.prod(shape) > MAX_CELL:
        raise InputError(
            f"A sample of X has {math.prod(shape)} numbers, but a codec takes at most {MAX_CELL} "
            "in a row or a signal: cut them into shorter ones."
        )
    channels = 1 if len(shape) == 1 else shape[0]
    bounds = (found.low, found.high) if found.shared and kind == "shared" else None
    return CodecData(training, validation, scaling, bounds, channels, str(data.rows.dtype))


def _prepare_patches(
    rows: Given | Images,
    held: Given | Images | None,
    fraction: float,
    seed: int,
    device: torch.device,
) -> CodecData:
    """Patches of images of any sizes, or of those in an array (n, C, H, W)."""
    cpu = torch.device("cpu")
    bounds = None
    if isinstance(rows, Images):
        integers, channels = rows.dtype.kind == "u", rows.channels
        white = float(np.iinfo(rows.dtype).max) if integers else 1.0
        zero = torch.zeros((channels, 1, 1), dtype=torch.float64)
        scaling, source = Scaling("shared", zero, zero + white), SomeImages(rows, white)
        if integers:
            bounds = (zero, zero + white)
    else:
        statistics, channels = statistics_of(unscaled(rows, cpu)), rows.shape[1]
        found, scaling = find_range([statistics]), fit_scaling(statistics, "shared")
        source = SomeImages(rows, scaling=scaling.to(cpu))
        if found.shared:
            bounds = (found.low, found.high)
    patches, validation = _patches(source, held, fraction, seed, device)
    return CodecData(patches, validation, scaling, bounds, channels, str(rows.dtype))


@dataclass(frozen=True)
class SomeImages:
    """Some images of a list or of an array (n, C, H, W), by number; those of an array are scaled.

    ``white`` of the images; ``which`` of them, None: all.
    """

    source: Images | Given
    white: float = 1.0
    scaling: Scaling = field(default_factory=Scaling.none)
    which: Sequence[int] | None = None

    def __getitem__(self, i: int, /) -> NDArray[Any]:
        k = i if self.which is None else self.which[i]
        if isinstance(self.source, Images):
            return np.asarray(self.source[k])
        row = torch.from_numpy(np.asarray(self.source[k : k + 1]).astype(np.float64))
        return self.scaling.apply(row)[0].movedim(0, -1).numpy()

    def patches(self, device: torch.device) -> Patches:
        """Patches to train on."""
        which = range(len(self.source)) if self.which is None else self.which
        if isinstance(self.source, Images):
            sizes = [self.source.sizes[k] for k in which]
            channels, itemsize = self.source.channels, 1 if self.source.dtype == np.uint8 else 4
        else:
            _, channels, height, width = self.source.shape
            sizes, itemsize = [(height, width)] * len(which), 4
        nbytes = channels * itemsize * sum(h * w for h, w in sizes)
        return Patches(self, sizes, [self.white] * len(which), PATCH_SIDE, channels, nbytes, device)


def _patches(
    images: SomeImages,
    held: Images | Given | None,
    fraction: float,
    seed: int,
    device: torch.device,
) -> tuple[Patches, Rows]:
    """Patches to train on, and fixed patches to validate on.

    Unless ``held`` is given, a ``fraction`` of the images is held out, one of two at least.
    """
    n = len(images.source)
    order = np.random.default_rng(seed).permutation(n).tolist()
    n_held = 0 if held is not None or not fraction or n == 1 else max(1, round(n * fraction))
    training = sorted(order[n_held:])
    if held is not None:
        validation = replace(images, source=held)
    else:
        validation = replace(images, which=sorted(order[:n_held]) or training)
    fixed = validation.patches(device).fixed(VALIDATION_PATCHES, seed)
    return replace(images, which=training).patches(device), fixed
