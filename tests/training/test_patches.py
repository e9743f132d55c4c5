"""Patches: each is a cut of an image, its place told by its own pixels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from narrows.training import patches as module
from narrows.training.patches import Patches, fill, symmetry

SIZES = [(20, 30), (9, 40), (64, 16), (8, 8), (50, 50)]
WHITES = [1.0, 2.0, 255.0, 1.0, 7.0]
BATCH = 64


class Images:
    """Pixels say which image, row and column they are; white is WHITES. Counts decoding."""

    def __init__(self) -> None:
        self.decoded: Counter[int] = Counter()

    def __getitem__(self, i: int) -> Any:
        self.decoded[i] += 1
        rows, columns = np.indices(SIZES[i])
        return ((i * 10_000 + rows * 100 + columns) * WHITES[i]).astype(np.float32)


def cut(nbytes: int = 100) -> tuple[Patches, Images]:
    images = Images()
    return Patches(images, SIZES, WHITES, side=8, channels=1, nbytes=nbytes), images


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place_of(patch: Tensor) -> tuple[int, int, int, int]:
    """Image, row, column and symmetry of a patch of unit whites; fails where it is no cut."""
    first = int(patch.min().round())
    i, row, column = first // 10_000, first // 100 % 100, first % 100
    whole = Images()[i] / WHITES[i]
    piece = torch.from_numpy(whole[row : row + 8, column : column + 8])
    assert piece.shape == (8, 8)
    turns = [k for k in range(8) if torch.allclose(symmetry(piece, k), patch[0], atol=0.01)]
    assert len(turns) == 1
    return i, row, column, turns[0]


def test_every_patch_is_a_cut_of_one_image_and_a_batch_is_turned_alike() -> None:
    patches, images = cut()
    batches = list(patches.shuffled(BATCH, rng()))
    assert [len(batch) for batch in batches] == [BATCH] * (1024 // BATCH)
    places = [[place_of(patch) for patch in batch] for batch in batches]
    assert all(len({turn for *_, turn in batch}) == 1 for batch in places)
    assert len({batch[0][3] for batch in places}) > 4
    assert all(len({i for i, *_ in batch}) > 2 for batch in places)  # images are mixed
    assert set(images.decoded.values()) == {1}
    # as many patches of an image as fit into it: 10, 6, 16, 1, 40 of 73
    counts = Counter(i for batch in places for i, *_ in batch)
    for i, wanted in enumerate(np.array([10, 6, 16, 1, 40]) / 73 * 1024):
        assert counts[i] == pytest.approx(wanted, abs=4 * wanted**0.5 + 1)
    rows = [row for batch in places for i, row, *_ in batch if i == 4]
    assert (min(rows), max(rows)) == (0, 42)  # the first and the last place there is
    second = list(patches.shuffled(BATCH, rng()))
    assert all(torch.equal(*each) for each in zip(batches, second, strict=True))
    assert set(images.decoded.values()) == {1}  # kept


@pytest.mark.parametrize("n", [2, 3, 99])
def test_images_that_do_not_fit_in_memory_are_decoded_group_by_group(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 10)
    patches, images = cut(10 * n)
    groups = [{place_of(p)[0] for p in batch} for batch in patches.shuffled(BATCH, rng())]
    assert max(map(len, groups)) <= -(-len(SIZES) // n)
    assert set(images.decoded.values()) == {1}
    apart = [group for i, group in enumerate(groups) if i == 0 or group & groups[i - 1] == set()]
    assert len(apart) <= min(n, len(SIZES))  # no group comes back
    rest = list(patches.shuffled(BATCH, rng(), skip=5))
    whole = list(patches.shuffled(BATCH, rng()))
    assert len(whole) == len(groups)
    assert all(torch.equal(*each) for each in zip(rest, whole[5:], strict=True))


def test_processes_share_the_patches_of_each_batch() -> None:
    patches, _ = cut()
    one = patches.shuffled(50, rng())
    shares = [patches.shuffled(50, rng(), share=(rank, 3)) for rank in range(3)]
    for batch, *parts in zip(one, *shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        torch.testing.assert_close(torch.cat(parts), batch, rtol=0, atol=0)


def test_patches_for_validation_are_not_turned_and_the_same_for_a_seed() -> None:
    patches, images = cut()
    fixed = patches.fixed(200, 3)
    assert fixed.shape == (1, 8, 8) and len(fixed) == 200
    assert {place_of(patch)[3] for patch in fixed.data} == {0}
    assert torch.equal(fixed.data, patches.fixed(200, 3).data)
    assert not torch.equal(fixed.data, patches.fixed(200, 4).data)
    assert max(images.decoded.values()) == 3  # not kept: once a call
    assert len(patches.fixed(1, 0)) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (8, 5), (2, 3), (9, 9)])
def test_small_images_are_filled_as_numpy_does(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((2, *size))
    more = [(0, max(0, 8 - side)) for side in size]
    wanted = np.pad(image, [(0, 0), *more], mode="symmetric")
    np.testing.assert_array_equal(fill(torch.from_numpy(image), 8, 8).numpy(), wanted)
