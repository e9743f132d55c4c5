"""Sources: every slice is what the whole array gives, and items that cannot be read are named."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.slice_checks import same, sentence, twins
from narrows.exceptions import FileError, InputError
from narrows.io.read import read
from narrows.io.sources import Source, as_source

zarr = pytest.importorskip("zarr")

N = 23  # rows

# ---------------------------------------------------------------------------- what is a source


@pytest.mark.parametrize(
    "X",
    [
        np.eye(3),
        np.float64(1),
        [[1, 2], [3, 4]],
        (1, 2),
        range(3),
        "words",
        b"bytes",
        {"a": 1},
        {1, 2},
        None,
        3,
        np.ma.masked_array([1, 2]),
    ],
    ids=lambda X: type(X).__name__,
)
def test_data_in_memory_is_not_a_source(X: object) -> None:
    assert as_source(X) is None


def test_frames_tensors_and_sparse_matrices_are_not_sources() -> None:
    import pandas as pd
    import polars as pl
    import scipy.sparse
    import torch

    table = {"a": [1.0, 2.0]}
    frames = [pd.DataFrame(table), pd.Series([1.0]), pd.Index([1.0]), pd.array([1, 2])]
    frames += [pl.DataFrame(table), pl.Series([1.0])]
    others = [torch.eye(3), scipy.sparse.eye(3).tocsr(), scipy.sparse.coo_array(np.eye(3))]
    assert [as_source(X) for X in frames + others] == [None] * 9


def test_a_memory_map_is_its_own_source(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    X = read(tmp_path / "x.npy", lazy=True).X
    assert as_source(X) is X


class Stored:
    """An array like those of h5py: shape, dtype, length, slices, and none of numpy's methods."""

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (4, X.shape[1])

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.X[rows]


def test_a_stored_array_is_its_own_source() -> None:
    X = Stored(np.eye(3))
    assert as_source(X) is X


def test_an_array_on_a_device_is_not_a_source() -> None:
    class OnDevice(Stored):
        __dlpack__ = None  # what such arrays share

    assert as_source(OnDevice(np.eye(3))) is None


@pytest.mark.parametrize("rows", [slice(None, None, 2), slice(None, None, -1), 3, [1, 2], None])
def test_only_slices_with_step_1(rows: Any) -> None:
    source = dataset([1.0, 2.0, 3.0])
    with pytest.raises(InputError) as caught:
        source[rows]
    sentence(caught, repr(rows), "step 1", "asarray")


# ------------------------------------------------------------------------------------ datasets


class Items:
    """A map-style dataset without a base class, which counts what is asked of it."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.asked = items, []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        self.asked.append(i)
        return self.items[i]


def dataset(items: list[Any]) -> Source:
    source = as_source(Items(items))
    assert source is not None
    return source


ROWS = np.random.default_rng(1).normal(size=(N, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("wrap", ["x", "tuple", "dict", "list"])
@pytest.mark.parametrize("tensor", [False, True])
def test_items_of_every_kind(wrap: str, tensor: bool) -> None:
    import torch

    xs = [torch.from_numpy(row) if tensor else row for row in ROWS]
    wraps = {
        "x": lambda x: x,
        "tuple": lambda x: (x, 7),
        "dict": lambda x: {"image": x, "label": 7},
        "list": lambda x: x.tolist(),
    }
    same(dataset([wraps[wrap](x) for x in xs]), ROWS.astype("f8") if wrap == "list" else ROWS)


def test_a_torch_dataset() -> None:
    import torch
    from torch.utils.data import Subset, TensorDataset

    whole = TensorDataset(torch.from_numpy(ROWS), torch.arange(N))
    same(as_source(whole), ROWS)
    same(as_source(Subset(whole, [3, 1, 2])), ROWS[[3, 1, 2]])


def test_items_that_are_images() -> None:
    grey = np.arange(N * 12, dtype=np.uint8).reshape(N, 3, 4) % 251
    same(dataset([Image.fromarray(row) for row in grey]), grey)
    colour = np.stack([grey, grey[::-1], 255 - grey], -1)
    same(dataset([(Image.fromarray(row), 1) for row in colour]), colour)


def test_items_that_are_numbers() -> None:
    same(dataset([float(i) for i in range(N)]), np.arange(N, dtype=float)[:, None])
    same(dataset([(np.int16(i), "label") for i in range(N)]), np.arange(N, dtype="i2")[:, None])


def test_bfloat16_items() -> None:
    import torch

    same(dataset([torch.ones(2, dtype=torch.bfloat16, requires_grad=True)]), np.ones((1, 2), "f4"))


def test_only_the_items_of_the_slice_are_read() -> None:
    items = Items(list(ROWS))
    source = as_source(items)
    assert source is not None
    items.asked.clear()
    source[4:7]
    assert items.asked == [4, 5, 6]


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (np.zeros((3, 2), "f4"), ["(3, 2)", "(2, 3)", "shape"]),
        (np.zeros((2, 3), "f8"), ["float64", "float32", "dtype"]),
        ("words", ["str"]),
        (None, ["nothing"]),
        ((), ["nothing"]),
        ([[1, 2], [3]], ["list"]),
        (np.array(["a"]), ["<U1"]),
        (np.zeros((2, 3), complex), ["complex128"]),
    ],
)
def test_an_odd_item_is_named_by_its_index(odd: object, words: list[str]) -> None:
    source = dataset([*ROWS[:5], odd, *ROWS[6:]])
    np.testing.assert_array_equal(source[:5], ROWS[:5])
    with pytest.raises(InputError) as caught:
        source[4:8]
    sentence(caught, "Item 5", *words)


def test_datasets_that_cannot_be_used() -> None:
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

        def __len__(self) -> int:
            return 3

    with pytest.raises(InputError) as caught:
        as_source(Stream())
    sentence(caught, "Stream", "IterableDataset", "map-style")
    with pytest.raises(InputError) as caught:
        as_source(Items([]))
    sentence(caught, "Items", "no items")


# ---------------------------------------------------------------------------------------- zarr


def stored(path: Path, whole: np.ndarray, chunks: tuple[int, ...], **options: Any) -> Path:
    zarr.create_array(path, shape=whole.shape, chunks=chunks, dtype=whole.dtype, **options)
    zarr.open(str(path), mode="r+")[:] = whole
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("chunks", [(5, 2, 3), (1, 4, 4), (23, 1, 4)])
def test_zarr_arrays(
    tmp_path: Path, chunks: tuple[int, ...], compressors: Any, version: int
) -> None:
    whole = np.random.default_rng(0).integers(0, 999, (N, 4, 4)).astype("i2")
    options = {"compressors": compressors, "zarr_format": version}
    lazy, eager = twins(stored(tmp_path / "x.zarr", whole, chunks, **options))
    np.testing.assert_array_equal(eager.X, whole)
    assert lazy.X.chunks == chunks
    assert lazy.name == "x.zarr"


def test_an_open_zarr_array_becomes_a_source(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(N, 3))
    same(as_source(zarr.open(str(stored(tmp_path / "x.zarr", whole, (4, 3))), mode="r")), whole)


def test_zarr_groups(tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    zarr.open_group(str(path), mode="w")
    with pytest.raises(InputError) as caught:
        read(path)
    sentence(caught, "g.zarr", "no array")
    whole = np.arange(12.0).reshape(6, 2)
    stored(path / "b", whole, (4, 1))
    np.testing.assert_array_equal(twins(path)[1].X, whole)
    stored(path / "a", whole + 1, (4, 1))
    with pytest.raises(InputError) as caught:
        read(path, lazy=True)
    sentence(caught, "a, b", str(path / "a"))
    np.testing.assert_array_equal(twins(path / "a")[1].X, whole + 1)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"zarr_format": 3, "node_type": "array"}', None])
def test_a_damaged_zarr_description(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.zarr"
    path.mkdir()
    if text is not None:
        (path / "zarr.json").write_text(text)
    with pytest.raises(FileError) as caught:
        read(path)
    sentence(caught, "x.zarr", "damaged")


def test_a_damaged_zarr_chunk(tmp_path: Path) -> None:
    path = stored(tmp_path / "x.zarr", np.random.default_rng(0).normal(size=(N, 3)), (4, 3))
    (path / "c" / "1" / "0").write_bytes(b"xx")
    X = read(path, lazy=True).X
    assert X[:4].shape == (4, 3)
    with pytest.raises(FileError) as caught:
        X[4:5]
    sentence(caught, "x.zarr", "damaged")


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    ("whole", "word"), [(np.zeros(3), "(3,)"), (np.zeros((2, 2), "c8"), "complex64")]
)
def test_zarr_arrays_that_are_no_table(
    tmp_path: Path, whole: np.ndarray, word: str, lazy: bool
) -> None:
    path = stored(tmp_path / "x.zarr", whole, whole.shape)
    with pytest.raises(InputError) as caught:
        read(path, lazy=lazy)
    sentence(caught, "x.zarr", word, "expected")


@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("dtype", ["<f8", "|O"])
def test_zarr_never_opens_a_pickle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, dtype: str
) -> None:
    codec = {"id": "pickle", "protocol": 5}
    about = {"zarr_format": 2, "shape": [2, 2], "chunks": [2, 2], "dtype": dtype, "order": "C"}
    about |= {"fill_value": 0, "compressor": None, "filters": None}
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / ".zarray").write_text(
        json.dumps(about | {place: [codec] if place == "filters" else codec})
    )
    (path / "0.0").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises((FileError, InputError)):
        read(path)
    assert capsys.readouterr().out == ""


class Bomb:
    """Prints when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


def test_zarr_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(FileError) as caught:
        read(tmp_path / "x.zarr", lazy=True)
    sentence(caught, "x.zarr", "pip install zarr")
