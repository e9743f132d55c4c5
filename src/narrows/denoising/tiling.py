"""Cleaning an image of any size: in tiles that leave no seam, and seen from eight sides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from narrows.denoising.denoiser_model import Restorer
from narrows.denoising.noise_level import noise_level, stabilizer
from narrows.denoising.unet import reach
from narrows.training.patches import SYMMETRIES, fill, symmetry, undo_symmetry

TILE = 512  # pixels: the side of what is answered at a time


def clean_planes(
    model: Restorer, planes: Tensor, level: float | None, photon: bool, sides: int
) -> Tensor:
    """Planes (C, H, W) without their noise, of a level that is given or found in them.

    With ``photon`` it grows with brightness: they are seen through a lens that makes it white.
    """
    lens = stabilizer(planes) if photon else None
    if lens is not None:
        seen = lens.forward(planes)
        unit = seen.max()  # white, as it were; noise is of level 1 there
        return lens.inverse(restore_whole(model, seen / unit, float(1 / unit), sides) * unit)
    level = noise_level(planes) if level is None else level
    return restore_whole(model, planes, level, sides) if level > 0 else planes


@torch.no_grad()
def restore_whole(model: Restorer, image: Tensor, level: float, sides: int) -> Tensor:
    """The image (C, H, W) without its noise.

    ``sides`` is 1, or 8 for the mean of what the model answers for the image turned and mirrored.
    """
    total = torch.zeros_like(image)
    for k in range(sides):
        total += undo_symmetry(_restore(model, symmetry(image, k % SYMMETRIES), level), k)
    return total / sides


def _restore(model: Restorer, image: Tensor, level: float) -> Tensor:
    height, width = image.shape[-2:]
    cell = model.cell
    padded = fill(image, -(-height // cell) * cell, -(-width // cell) * cell)
    out = torch.empty_like(padded)
    border = reach(model.f.widths, model.f.blocks)
    for inner, outer in tiles(padded.shape[-2], padded.shape[-1], border, cell):
        (top, bottom), (left, right) = inner
        (first, last), (start, stop) = outer
        answer = model.restore(padded[None, :, first:last, start:stop], level)[0]
        out[:, top:bottom, left:right] = answer[
            :, top - first : bottom - first, left - start : right - start
        ]
    return out[:, :height, :width]


Span = tuple[int, int]


def tiles(
    height: int, width: int, border: int, cell: int
) -> Iterator[tuple[tuple[Span, Span], tuple[Span, Span]]]:
    """Where each tile is answered, and what must be seen for it: rows and columns.

    Beyond ``border`` nothing has an influence, and all begin at multiples of ``cell``, so that what
    is answered for a tile is what would be answered for the whole.
    """
    side = max(1, TILE // cell) * cell
    for top in range(0, height, side):
        bottom = min(top + side, height)
        for left in range(0, width, side):
            right = min(left + side, width)
            outer = (
                (max(0, top - border), min(height, bottom + border)),
                (max(0, left - border), min(width, right + border)),
            )
            yield ((top, bottom), (left, right)), outer
