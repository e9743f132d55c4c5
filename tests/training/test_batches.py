"""Scaling and back: each is the other's inverse, within the dtype of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from narrows.training.batches import Scaling, as_tensor, inference_batch

INTEGERS = [torch.uint8, torch.int8, torch.int16]


def scaling(shift: float, scale: float) -> Scaling:
    one = torch.ones(1, dtype=torch.float64)
    return Scaling("shared", shift * one, scale * one)


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "int64", "uint16", "uint32"])
@pytest.mark.parametrize("writeable", [True, False])
def test_a_tensor_of_rows_has_their_values_and_writes_into_none_that_are_read_only(
    dtype: str, writeable: bool
) -> None:
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    rows[0, 0] = np.iinfo(dtype).max if rows.dtype.kind in "ui" else 0.1
    kept = rows.copy()
    rows.flags.writeable = writeable
    tensor = as_tensor(rows)
    np.testing.assert_array_equal(tensor.numpy(), kept)
    tensor.fill_(7)
    if not writeable:
        np.testing.assert_array_equal(rows, kept)
    elif dtype not in ("uint16", "uint32"):  # their memory is shared: no second copy of the data
        assert (rows == 7).all()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_small_integer_comes_back_and_others_are_rounded_and_kept_within(
    dtype: torch.dtype,
) -> None:
    ends, units = torch.iinfo(dtype), scaling(37.0, 12.5)
    every = torch.arange(ends.min, ends.max + 1, dtype=torch.int64).to(dtype)[:, None]
    scaled = units.apply(every)
    torch.testing.assert_close(units.undo_narrow(scaled, dtype), every, rtol=0, atol=0)
    for off in (0.45, -0.45):  # of a unit: the nearest integer is the same
        near = scaled + off / 12.5
        torch.testing.assert_close(units.undo_narrow(near, dtype), every, rtol=0, atol=0)
    beyond = units.apply(torch.tensor([[ends.min - 1e3], [ends.max + 1e3]]))
    assert units.undo_narrow(beyond, dtype).flatten().tolist() == [ends.min, ends.max]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.int32])
def test_undo_takes_apply_back(dtype: torch.dtype) -> None:
    rows = (torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 1e3).to(dtype)
    units = scaling(-250.0, 31.0)
    torch.testing.assert_close(units.apply(rows).double(), (rows.double() + 250) / 31, rtol=1e-6,
                               atol=1e-6)  # fmt: skip
    torch.testing.assert_close(units.undo(units.apply(rows)), rows.double(), rtol=1e-5, atol=1e-3)
    assert units.undo_narrow(torch.full((1, 1), np.pi), torch.float32).item() == pytest.approx(
        np.pi * 31 - 250, rel=1e-6
    )


def test_batches_of_wide_tables_do_not_become_small() -> None:
    """Each reads all weights; images, whose layers are small, stay in the cache."""
    shapes = [(50,), (3072,), (10_000,), (1_000_000,), (3, 128, 128)]
    assert [inference_batch(shape) for shape in shapes] == [7864, 128, 128, 16, 8]
