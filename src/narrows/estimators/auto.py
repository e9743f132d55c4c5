"""What "auto" becomes, decided from the data alone and stored with the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from narrows.estimators.validation import CheckedRows, Given
from narrows.exceptions import ParameterError
from narrows.parts.likelihoods.base import Range
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.parts.networks.linear_path import path_fits
from narrows.training.batches import Rows, Scaling, as_tensor, shared_axes
from narrows.training.statistics import Statistics, statistics
from narrows.training.streamed_batches import Stream, scan_statistics

WIDER = 4  # times the input: latent_dim="auto" where codes are meant to be wide
HELD = 0.9  # the share of the scaled variance that latent_dim="auto" keeps


@dataclass(frozen=True)
class ResolvedConfig:
    """Every "auto", resolved; with the class and its parameters enough to build the model again."""

    shape: tuple[int, ...]
    latent_dim: int
    architecture: str
    hidden: tuple[int, ...] | None
    channels: tuple[int, ...] | None
    down: str
    up: str
    activation: str
    tied: bool
    distance: str
    scaling: str
    linear_path: bool
    bounded: bool
    precision: str = "float32"
    kinds: tuple[int, ...] | None = None  # values that elements may have, where D must know

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ResolvedConfig:
        """From the JSON of a file."""
        lists = {k: tuple(v) for k, v in data.items() if isinstance(v, list)}
        return cls(**{**data, **lists})


def find_range(parts: Sequence[Statistics]) -> Range:
    """Find out whether x is binary, and whether its elements share a range that is really a bound.

    They do when at least half of the elements that vary reach both extremes of their channel
    exactly, as pixels do and measurements do not; pictures of bytes always do. ``parts`` tell of
    the training and of the validation rows: the promise "never below PCA" is about both.
    """
    low = torch.stack([part.low for part in parts]).amin(0)
    high = torch.stack([part.high for part in parts]).amax(0)
    dims = shared_axes(low.ndim)
    lowest, highest = low.amin(dims, keepdim=True), high.amax(dims, keepdim=True)
    varies = high > low
    reaches = (low == lowest) & (high == highest) & varies
    shared = bool(varies.sum() >= 2) and bool(reaches.sum() * 2 >= varies.sum())
    if parts[0].dtype == torch.uint8 and low.ndim > 1 and not shared:
        lowest, highest, shared = torch.zeros_like(lowest), torch.full_like(highest, 255.0), True
    return Range(
        binary=all(part.binary for part in parts),
        shared=shared,
        low=lowest,
        high=highest,
        each=(low, high),
        mean=parts[0].mean,
        whole=torch.stack([part.whole for part in parts]).all(0),
        dtype=parts[0].dtype,
    )


def unscaled(rows: Given, device: torch.device) -> Rows | Stream:
    """Checked rows in batches, before a scaling is known."""
    as_is = Scaling.none().to(device)
    if isinstance(rows, CheckedRows):
        return Stream(rows, as_is, np.empty(0, dtype=np.int64))
    return Rows(as_tensor(rows).to(device), as_is)


def statistics_of(rows: Rows | Stream) -> Statistics:
    """Range, mean and spread of unscaled rows, from one pass."""
    if isinstance(rows, Stream):
        found = scan_statistics(rows.source, rows.held, apart=True)[1]
        return found.to(rows.scaling.shift.device)
    return statistics([rows.data])


def choose_scaling(asked: str, found: Range, distance: str) -> str:
    """One shift and scale where elements share their units, else one for each column."""
    if not LIKELIHOODS[distance].scaled:
        if asked not in ("auto", "none"):
            raise ParameterError(
                f"distance={distance!r} takes values as they are, but scaling={asked!r} "
                'would change them; leave scaling="auto".'
            )
        return "none"
    if asked != "auto":
        return asked
    return "column" if found.each[0].ndim == 1 and not found.shared else "shared"


def choose_distance(asked: str, scaling: str, model_default: str, found: Range) -> str:
    """Bernoulli for zeros and ones that nobody wants scaled; else what the model is made for."""
    if asked != "auto":
        return asked
    return "bernoulli" if found.binary and scaling in ("auto", "none") else model_default


# Up to 32 × 32 grey pixels dense networks reached a lower error in the same time (see
# benchmarks/results/reconstruction.md); of larger pictures their matrices grow too fast.
LARGEST_DENSE = 1024


def choose_architecture(asked: str, shape: tuple[int, ...], own: bool) -> str:
    """Dense for tables and small pictures, conv for larger signals and images."""
    if own:
        return "own"
    if asked == "conv" and len(shape) == 1:
        raise ParameterError(
            'architecture="conv" needs signals or images, but X is a table; give input_shape, '
            'reshape X, or choose architecture="dense".'
        )
    if asked != "auto":
        return asked
    return "dense" if len(shape) == 1 or math.prod(shape) <= LARGEST_DENSE else "conv"


def check_latent_dim(asked: int | str, shape: tuple[int, ...]) -> None:
    """Warn where the code is no narrower than the input."""
    features = math.prod(shape)
    if not isinstance(asked, str) and asked >= features:
        warnings.warn(
            f"latent_dim={asked} is not smaller than the {features} numbers of a sample: such a "
            "code can copy its input and need not learn anything; choose a smaller one.",
            UserWarning,
            stacklevel=4,
        )


def choose_path(
    asked: object, distance: str, shape: tuple[int, ...], k: int, obstacle: str | None
) -> bool:
    """Whether the model starts at PCA: wherever g(z) is x' itself, and the path not too large.

    ``obstacle`` is what else keeps it from that, in words.
    """
    possible = LIKELIHOODS[distance].real and obstacle is None
    if asked is True and not possible:
        reason = obstacle or f"distance={distance!r}"
        raise ParameterError(
            f"linear_path=True starts the model at PCA, which has no meaning with {reason}; "
            'leave linear_path="auto".'
        )
    fits = path_fits(shape, k)
    if possible and not fits and asked is not False:
        features = math.prod(shape)
        warnings.warn(
            f"A linear path between {features:,} numbers and a code of {k:,} would be too large: "
            "the model starts at random weights, not at PCA, and may end below it.",
            UserWarning,
            stacklevel=5,
        )
    return bool(asked) and possible and fits


# Where PCA leaves less than this share of the variance, rounding to 8 bits would be the error.
SMALLEST_UNEXPLAINED = 1e-3


def choose_precision(asked: str, device: torch.device, unexplained: float | None) -> str:
    """bfloat16 where the hardware multiplies it faster and the data leave room for its rounding.

    ``unexplained`` is the share of the variance that PCA at the code's width leaves; None where
    PCA was not fitted: then nothing is risked.
    """
    if asked != "auto":
        return asked
    room = unexplained is not None and unexplained >= SMALLEST_UNEXPLAINED
    return "bfloat16" if room and multiplies_bfloat16(device) else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware is made for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # private, and the only way torch tells; a torch without them decides for float32
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
