"""From a denoiser's parameters to its model, and from its images to patches to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.denoising.denoiser_model import Restorer, RestoringObjective
from narrows.denoising.noise_level import Stabilizer, noise_level, stabilizer
from narrows.denoising.noise_pairs import AddedNoise, Halves, Recorruption
from narrows.denoising.unet import multiple, whole_networks
from narrows.io.photographs import Images
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.training.batches import Rows
from narrows.training.patches import Patches, as_planes

LEVEL = 25 / 255  # to which noisy images are brought, so that one corruption serves all
LEAST = 1e-3  # of an image's range: where it has no noise, there is nothing to divide by
SEEN = 64, 256  # patches to validate on, at least and at most; fewer of a larger side
SIDE = 64  # of the patches for which that many are taken


@dataclass(frozen=True)
class DenoiserConfig:
    """Every "auto" of a denoiser, resolved."""

    channels: int
    widths: tuple[int, ...]
    blocks: int
    distance: str
    pairs: str = "recorrupted"  # of what use where targets are noisy
    architecture: str = "whole"
    precision: str = "float32"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DenoiserConfig:
        """The inverse of ``as_json``."""
        return cls(**{**data, "widths": tuple(data["widths"])})


def build(denoiser: Any, rng: Generator | None) -> tuple[Restorer, RestoringObjective]:
    """The model with weights drawn from ``rng`` (None: with none), and what it is to minimise."""
    choices: DenoiserConfig = denoiser.choices_
    f, g = whole_networks(choices.channels, choices.widths, choices.blocks, rng)
    c: AddedNoise | Recorruption | Halves
    if denoiser.noisy_targets:
        c = Halves(LEVEL) if choices.pairs == "halves" else Recorruption(LEVEL)
    else:
        level = denoiser.noise_level
        level = (0.0, 55.0) if isinstance(level, str) else level
        low, high = level if isinstance(level, tuple | list) else (level, level)
        c = AddedNoise(float(low) / 255, float(high) / 255)
    return Restorer(f, g, LIKELIHOODS[choices.distance](), c), RestoringObjective()


class _Some:
    """A part of a sequence of images, each seen through its lens where it has one."""

    def __init__(
        self, images: Images, which: list[int], lenses: Sequence[Stabilizer | None]
    ) -> None:
        self.images, self.which, self.lenses = images, which, lenses

    def __getitem__(self, i: int) -> NDArray[Any]:
        image: NDArray[Any] = self.images[self.which[i]]
        lens = self.lenses[i]
        if lens is None:
            return image
        seen: NDArray[Any] = lens.forward(torch.from_numpy(image.astype(np.float32))).numpy()
        return seen


def patches_of(
    denoiser: Any, images: Images, held: Images | None, seed: int, device: torch.device
) -> tuple[Patches, Rows]:
    """Patches to learn from, and fixed ones to validate on.

    Whole images are held out, at least one of two or more; a single one is validated on itself.
    """
    n, share = len(images), denoiser.validation_fraction
    order = np.random.default_rng(seed).permutation(n).tolist()
    apart = 0 if held is not None or not share or n == 1 else max(1, round(n * share))
    kept = sorted(order[apart:])
    patches = _patches(denoiser, images, kept, device)
    if held is not None:
        validation = _patches(denoiser, held, list(range(len(held))), device)
    else:
        validation = _patches(denoiser, images, sorted(order[:apart]) or kept, device)
    least, most = SEEN
    n = min(most, max(least, len(patches) // 16)) * SIDE**2 // max(SIDE, patches.side) ** 2
    return patches, validation.fixed(max(1, n), seed)


def _patches(denoiser: Any, images: Images, which: list[int], device: torch.device) -> Patches:
    lenses = [_lens(denoiser, images, i) for i in which]
    return Patches(
        images=_Some(images, which, lenses),
        sizes=[images.sizes[i] for i in which],
        whites=[_unit(denoiser, images, i, lens) for i, lens in zip(which, lenses, strict=True)],
        side=_side(denoiser),
        channels=denoiser.choices_.channels,
        nbytes=images.pixels * len(which) // len(images) * _bytes(denoiser, images),
        device=device,
    )


def _bytes(denoiser: Any, images: Images) -> int:
    """Of a pixel in memory: torch has no 16 bits, and what a lens gives are floats."""
    seen = denoiser.noisy_targets and denoiser.noise == "photon"
    return 1 if images.dtype == np.uint8 and not seen else 4


def _lens(denoiser: Any, images: Images, i: int) -> Stabilizer | None:
    """What makes the noise of a noisy image white; clean ones need none."""
    if not denoiser.noisy_targets or denoiser.noise != "photon":
        return None
    return stabilizer(as_planes(images[i]))


def _side(denoiser: Any) -> int:
    """The patches' side: as asked, a multiple of what the network halves (twice, for halves)."""
    cell = multiple(denoiser.choices_.widths)
    if denoiser.noisy_targets and denoiser.choices_.pairs == "halves":
        cell *= 2
    side: int = -(-int(denoiser.patch_size) // cell) * cell
    return side


def _unit(denoiser: Any, images: Images, i: int, lens: Stabilizer | None) -> float:
    """What image i is divided by: its white, or what brings its noise to ``LEVEL``."""
    white = images.whites[i]
    if not denoiser.noisy_targets:
        return white
    if lens is not None:
        return 1.0 / LEVEL
    image, asked = images[i], denoiser.noise_level  # once: it may have to be decoded
    level = noise_level(as_planes(image)) if isinstance(asked, str) else white * float(asked) / 255
    spread = float(image.max()) - float(image.min())
    return max(level, LEAST * spread or 1.0) / LEVEL


@torch.no_grad()
def psnr_of_patches(model: Restorer, rows: Rows, seed: int) -> tuple[float, float]:
    """Mean PSNR in decibels of patches with the noise of training, before and after."""
    rng = torch.Generator(rows.data.device).manual_seed(seed)
    before, after = 0.0, 0.0
    for x in rows.in_order(64):
        y, clean, level = model.c.pair(x, rng)  # type: ignore[operator]
        answer = y - model.g(model.f(y, level))
        before, after = before + _psnr(clean, y), after + _psnr(clean, answer)
    return before / len(rows), after / len(rows)


def _psnr(x: Tensor, answer: Tensor) -> float:
    """The sum of the images' PSNR in decibels, white being 1."""
    error = (x - answer).square().flatten(1).mean(1).clamp_min(1e-12)
    return float(-10 * error.log10().sum())
