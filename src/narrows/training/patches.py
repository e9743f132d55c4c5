"""Patches: square cuts of images of any size, turned and mirrored at random, for training.

`Patches` has the methods of `Rows` that the loop needs. Images keep their own dtype. Images in
files are decoded once if they fit in memory; otherwise group by group, in a new order every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from narrows.training.batches import Rows, Scaling, Share, as_tensor, n_batches, shares

MAX_IMAGE_BYTES = 2**30  # of images in memory at a time: 1 GiB
MIN_PATCHES = 1024  # in an epoch, however small the images are
SYMMETRIES = 8  # four quarter turns, each also mirrored


def symmetry(x: Tensor, k: int) -> Tensor:
    """An image (..., H, W) after k mod 4 quarter turns, and mirrored if k is 4 or more.

    >>> symmetry(torch.tensor([[0, 1], [2, 3]]), 4).tolist()
    [[1, 0], [3, 2]]
    """
    x = torch.rot90(x, k % 4, (-2, -1))
    return x.flip(-1) if k >= 4 else x


def undo_symmetry(x: Tensor, k: int) -> Tensor:
    """The inverse of ``symmetry(_, k)``."""
    x = x.flip(-1) if k >= 4 else x
    return torch.rot90(x, -(k % 4), (-2, -1))


def as_planes(pixels: NDArray[Any]) -> Tensor:
    """(H, W) or (H, W, C) as (C, H, W), in a dtype that torch computes with."""
    image = as_tensor(pixels)
    return image[None] if image.ndim == 2 else image.movedim(-1, 0)


Place = tuple[int, int, int]  # image, row and column


class ByNumber(Protocol):
    """Images by their number; may decode an image at each call."""

    def __getitem__(self, i: int, /) -> NDArray[Any]:
        """(H, W) or (H, W, C)."""


@dataclass(frozen=True)
class Patches:
    """Random square cuts of images, scaled so that white is 1.

    ``nbytes`` is the size of all images in memory; ``whites`` has the value of white of each image.
    An epoch has about as many pixels as the images have.
    """

    images: ByNumber
    sizes: Sequence[tuple[int, int]]  # height and width of each image
    whites: Sequence[float]
    side: int
    channels: int
    nbytes: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _held: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one patch."""
        return (self.channels, self.side, self.side)

    def __len__(self) -> int:
        """Patches in an epoch."""
        return max(MIN_PATCHES, sum(map(self._cuts, range(len(self.sizes)))))

    def _cuts(self, i: int) -> int:
        height, width = self.sizes[i]
        return math.ceil(height * width / self.side**2)

    def _image(self, i: int, keep: bool) -> Tensor:
        image = self._held.get(i)
        if image is None:
            image = as_planes(self.images[i]).to(self.device)
            image = image.expand(self.channels, -1, -1)  # a grey image among colour images
            if keep:
                self._held[i] = image
        return image

    def shuffled(
        self, batch_size: int, order: Generator, skip: int = 0, share: Share = (0, 1)
    ) -> Iterator[Tensor]:
        """An epoch of batches (B, C, side, side), drawn from ``order`` (a generator on the CPU).

        The first ``skip`` batches are left out; of each batch only this process's ``share`` (its
        rank and the number of processes) is given.
        """
        groups = self._groups(torch.randperm(len(self.sizes), generator=order).tolist())
        seeds = torch.randint(2**62, (n_batches(len(self), batch_size),), generator=order).tolist()
        bounds = list(shares(len(self), batch_size, 0, share))
        whole = list(shares(len(self), batch_size, 0, (0, 1)))
        images: dict[int, Tensor] = {}
        first, done = 0, 0.0
        for group, weight in groups:
            done += weight
            last = round(done * len(seeds))  # the weights sum to one
            if last > max(first, skip):  # a continued epoch does not decode what it has done
                images.clear()  # before the next ones are decoded
                images.update({i: self._image(i, keep=len(groups) == 1) for i in group})
                for b in range(max(first, skip), last):
                    start, stop = bounds[b]
                    begin = whole[b][0]
                    places, turn = self._draw(images, seeds[b], whole[b][1] - begin)
                    yield self._cut(images, places[start - begin : stop - begin], turn)
            first = last

    def fixed(self, n: int, seed: int) -> Rows:
        """``n`` patches for validation, the same for a seed; one image is decoded at a time."""
        rng = torch.Generator().manual_seed(seed)
        areas = torch.tensor([float(self._cuts(i)) for i in range(len(self.sizes))])
        counts = torch.bincount(torch.multinomial(areas, n, replacement=True, generator=rng))
        held = []
        for i, count in enumerate(counts.tolist()):
            if count:
                images = {i: self._image(i, keep=False)}
                held.append(self._cut(images, self._places([i] * count, rng), 0).cpu())
        return Rows(torch.cat(held).to(self.device), Scaling.none())

    def _groups(self, order: list[int]) -> list[tuple[list[int], float]]:
        """Groups of images that are in memory together, and each group's share of the epoch."""
        count = max(1, min(len(order), math.ceil(self.nbytes / MAX_IMAGE_BYTES)))
        groups = [order[k::count] for k in range(count)]
        total = sum(map(self._cuts, order))
        return [(group, sum(map(self._cuts, group)) / total) for group in groups]

    def _draw(self, images: dict[int, Tensor], seed: int, n: int) -> tuple[list[Place], int]:
        """The places of a batch's patches, more in larger images, and their symmetry."""
        rng = torch.Generator().manual_seed(seed)
        names = list(images)
        areas = torch.tensor([float(self._cuts(i)) for i in names])
        which = torch.multinomial(areas, n, replacement=True, generator=rng).tolist()
        places = self._places([names[k] for k in which], rng)
        return places, int(torch.randint(SYMMETRIES, (), generator=rng))

    def _places(self, images: list[int], rng: Generator) -> list[Place]:
        """A random place in each of these images."""
        u = torch.rand((len(images), 2), generator=rng, dtype=torch.float64).tolist()
        places = []
        for i, (a, b) in zip(images, u, strict=True):
            height, width = self.sizes[i]
            row, column = int(a * (height - self.side + 1)), int(b * (width - self.side + 1))
            places.append((i, max(0, row), max(0, column)))
        return places

    def _cut(self, images: dict[int, Tensor], places: list[Place], turn: int) -> Tensor:
        cuts = []
        for i, row, column in places:
            patch = images[i][:, row : row + self.side, column : column + self.side].float()
            cuts.append(fill(patch / self.whites[i], self.side, self.side))
        if not cuts:
            return torch.empty((0, *self.shape), device=self.device)
        return symmetry(torch.stack(cuts), turn).contiguous()


def fill(image: Tensor, height: int, width: int) -> Tensor:
    """An image (..., H, W), mirrored to the right and below up to ``height`` and ``width``.

    As ``numpy.pad(mode="symmetric")``: the mirror repeats, edges included, so that a single pixel
    can fill any size. A side that is large enough stays.
    """
    for dim, size in ((-2, height), (-1, width)):
        n = image.shape[dim]
        if n < size:
            index = torch.arange(size, device=image.device) % (2 * n)
            index = torch.where(index < n, index, 2 * n - 1 - index)
            image = image.index_select(dim, index)
    return image
