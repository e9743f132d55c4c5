"""Rows on a disk give the batches that rows in memory give, every row once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.counted_source import Counted, readers
from narrows.training import streamed_batches as streams
from narrows.training.batches import Rows, Scaling
from narrows.training.streamed_batches import Stream, hold_out, prefetch, sorted_sample

N = 1000
NOTHING = np.empty(0, dtype=np.int64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of 20 rows of one float64, five of them in a buffer; and no thread outlives a test."""
    monkeypatch.setattr(streams, "BLOCK_BYTES", 20 * 16)
    monkeypatch.setattr(streams, "BUFFER_BYTES", 5 * 20 * 16)
    monkeypatch.setattr(streams, "SAMPLE_PAGE_ROWS", 300)
    yield
    assert readers() == []


def numbered(n: int = N, **kwargs: Any) -> Counted:
    return Counted(np.arange(n, dtype=np.float64)[:, None], **kwargs)


def stream(source: Any = None, held: NDArray[np.int64] = NOTHING) -> Stream:
    return Stream(source or numbered(), Scaling.none(), held)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epoch(rows: Stream | Rows, seed: int = 0, **kwargs: Any) -> list[torch.Tensor]:
    return list(rows.shuffled(32, rng(seed), **kwargs))


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("n", [1, 5, 20, 21, 99, 100, 101, 999, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 150, 5000])
def test_every_row_once_in_batches_as_rows_in_memory(n: int, batch_size: int) -> None:
    source = numbered(n)
    found = list(stream(source).shuffled(batch_size, rng()))
    memory = Rows(torch.from_numpy(source.rows), Scaling.none())
    assert [len(b) for b in found] == [len(b) for b in memory.shuffled(batch_size, rng())]
    assert torch.cat(found).flatten().sort().values.tolist() == list(range(n))
    assert same(list(stream(source).in_order(batch_size)), list(memory.in_order(batch_size)))


def test_shuffling_mixes_rows_of_far_blocks_and_does_not_repeat() -> None:
    rows = stream()
    order = rng()
    first, second = ([b.flatten() for b in rows.shuffled(32, order)] for _ in range(2))
    blocks = [len((batch // 20).unique()) for batch in first]
    assert min(blocks) >= 4
    assert not same(first, second)
    starts = torch.cat(first).view(-1, 100).mean(1)  # of each buffer: not in the file's order
    assert not torch.equal(starts, starts.sort().values)
    far = torch.cat(first).diff().abs()
    assert far.median() > 50


def test_the_same_seed_gives_the_same_bits_however_slow_the_disk() -> None:
    class Slow(Counted):
        def __getitem__(self, rows: slice) -> NDArray[Any]:
            time.sleep(0.002 * (rows.start % 3))
            return super().__getitem__(rows)

    slow = stream(Slow(numbered().rows))
    assert same(epoch(stream()), epoch(slow))
    assert not same(epoch(stream()), epoch(stream(), seed=1))


def test_an_epoch_draws_once_before_its_first_batch() -> None:
    order, after = rng(), rng()
    torch.randint(2**62, (), generator=after)
    batches = stream().shuffled(32, order)
    next(batches)
    assert torch.equal(order.get_state(), after.get_state())
    list(batches)
    assert torch.equal(order.get_state(), after.get_state())


@pytest.mark.parametrize("skip", [0, 1, 3, 4, 17, 31, 32])
def test_an_interrupted_epoch_continues_where_it_was(skip: int) -> None:
    source = numbered()
    assert same(epoch(stream(source), skip=skip), epoch(stream())[skip:])
    if skip == 17:  # five whole buffers are past, and are not read
        assert sum(stop - start for start, stop in source.asked) == 500


@pytest.mark.parametrize("size", [2, 3, 40])
def test_processes_share_every_batch(size: int) -> None:
    shares = [epoch(stream(), share=(rank, size)) for rank in range(size)]
    together = [torch.cat(parts) for parts in zip(*shares, strict=True)]
    assert same(together, epoch(stream()))
    for batch in zip(*shares, strict=True):
        assert max(map(len, batch)) - min(map(len, batch)) <= 1
    assert same(epoch(stream(), skip=9, share=(1, size)), shares[1][9:])


@pytest.mark.parametrize("n", [20, 21, 1000])
def test_validation_rows_are_held_out_of_every_epoch(n: int) -> None:
    source = numbered(n)
    training, validation, found = hold_out(source, 0.1, seed=3)
    assert len(validation) == round(n * 0.1)
    held = set(validation.data.flatten().tolist())
    given = torch.cat(epoch(training)).flatten().tolist()
    assert len(given) == len(set(given)) == len(training) == n - len(held)
    assert held | set(given) == set(range(n))
    assert held & set(given) == set()
    assert torch.equal(
        torch.cat(list(training.in_order(9))), torch.tensor(given).sort()[0][:, None]
    )
    assert found.n == len(given)
    np.testing.assert_allclose(found.mean, np.mean(given))
    assert sorted(training.sample(0).flatten().tolist()) == sorted(given)


def test_validation_rows_and_samples_of_much_data_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_VALIDATION_BYTES", 16 * 30)
    monkeypatch.setattr(streams, "MAX_SAMPLE_ELEMENTS", 70)
    training, validation, _ = hold_out(numbered(), 0.5, seed=0)
    assert len(validation) == 30
    assert len(training) == N - 30
    sample = training.sample(0).flatten()
    assert len(sample) == len(sample.unique()) == 70
    assert not set(sample.tolist()) & set(validation.data.flatten().tolist())
    assert sample.mean() == pytest.approx(500, abs=100)
    training, validation, found = hold_out(numbered(), 0, seed=0)
    assert (len(training), len(validation), found.n) == (N, 30, N)


@pytest.mark.parametrize("fraction", [0, 0.3])
def test_rows_without_any_value_are_neither_trained_nor_validated_on(fraction: float) -> None:
    rows = np.arange(N, dtype=np.float64)[:, None]
    empty = np.r_[0, 19, 20, 500:560, 999]
    rows[empty] = np.nan
    with pytest.warns(UserWarning, match=r"64 of the rows .*: 0, 19, 20, 500, 501, \.\.\."):
        training, validation, found = hold_out(Counted(rows), fraction, seed=0)
    seen = [torch.cat(list(training.in_order(32))), validation.data]
    assert len(training) == len(seen[0])
    assert found.low >= 1 and not torch.cat(seen).isnan().any()
    both = np.sort((torch.cat(seen) if fraction else seen[0]).flatten().numpy())
    np.testing.assert_array_equal(both, np.delete(np.arange(N), empty))
    assert len(torch.cat(epoch(training)).unique()) == len(training)


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (1000, 0), (1000, 1), (901, 333), (7, 3)])
def test_a_sample_is_sorted_and_has_no_row_twice(n: int, m: int) -> None:
    found = sorted_sample(n, m, 0)
    assert len(found) == m
    assert (np.diff(found) > 0).all()
    assert not m or (found[0] >= 0 and found[-1] < n)
    spread = np.bincount(np.concatenate([sorted_sample(50, 5, s) for s in range(2000)]))
    assert spread.min() > 140
    assert spread.max() < 260


def test_blocks_are_whole_chunks() -> None:
    assert streams.block_rows(numbered(chunks=(7, 1))) == 14
    assert streams.block_rows(numbered(chunks=(64, 1))) == 64
    assert streams.block_rows(numbered()) == 20
    source = numbered(chunks=(7, 1))
    epoch(stream(source))
    assert all(start % 7 == 0 for start, _ in source.asked)


def test_one_buffer_is_read_ahead_and_no_more() -> None:
    source = numbered()
    batches = stream(source).shuffled(100, rng())
    for i in range(1, 9):
        next(batches)
        time.sleep(0.02)
        assert len(source.asked) == 5 * (i + 1)
    batches.close()  # as Ctrl-C does
    assert readers() == []
    assert len(source.asked) == 45


def test_an_error_in_reading_surfaces_where_the_rows_are_used() -> None:
    class Broken(Counted):
        def __getitem__(self, rows: slice) -> NDArray[Any]:
            if rows.start >= 500:
                raise OSError("the disk is gone")
            return super().__getitem__(rows)

    with pytest.raises(OSError, match="the disk is gone"):
        epoch(stream(Broken(numbered().rows)))
    assert readers() == []


def test_prefetch_gives_everything_in_order() -> None:
    assert list(prefetch(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(prefetch(iter([]))) == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float64", "bool"])
def test_rows_are_scaled_as_rows_in_memory_are(dtype: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 200, (50, 3)).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    scaling = Scaling("column", torch.tensor([1.0, 2, 3]).double(), torch.tensor([9.0]).double())
    source = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = torch.cat(list(Stream(source, scaling, NOTHING).in_order(8)))
    np.testing.assert_allclose(found, (rows.astype(float) - [1, 2, 3]) / 9, rtol=1e-6)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_all_rows_in_order(size: int) -> None:
    held = np.array([0, 5, 333, 334, 999])
    whole = stream(held=held)
    parts = [whole.part((rank, size)) for rank in range(size)]
    rows = torch.cat([x for part in parts for x in part.in_order(50)])
    assert torch.equal(rows, torch.cat(list(whole.in_order(50))))
    assert sum(map(len, parts)) == len(whole)
