"""Files read lazily: each is slice by slice what it is when read at once."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.slice_checks import same, sentence, twins
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.parquet import ParquetRows
from narrows.io.read import read
from narrows.io.sources import as_source

N = 23

# ------------------------------------------------------------------------------------- parquet

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


def parquet(path: Path, columns: dict[str, Any], group: int = 4, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group, **options)
    return path


def test_parquet_over_row_groups(tmp_path: Path) -> None:
    columns = {"a": np.arange(N, dtype="i2"), "b.c": np.arange(N) / 3, "b": np.arange(N) % 2 == 0}
    lazy, eager = twins(parquet(tmp_path / "t.parquet", columns))
    np.testing.assert_array_equal(eager.X, np.column_stack(list(columns.values())))
    assert lazy.feature_names == ["a", "b.c", "b"]
    assert lazy.X.chunks == (4, 3)


def test_parquet_keeps_the_narrowest_dtype(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", {"a": np.arange(N, dtype="u1")})
    assert read(path, lazy=True).X.dtype == np.uint8


def test_a_folder_of_parquet_files_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        rows = np.arange(number, dtype="f4")
        parquet(tmp_path / f"part{number}.parquet", {"a": rows, "b": rows + number})
    parquet(tmp_path / "part1.parquet", {"a": [], "b": []})  # of no type and no rows
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.parquet").touch()
    _, eager = twins(tmp_path)
    assert eager.X[:, 1].tolist() == [*range(9, 18), *range(10, 20), *range(100, 200)]
    assert eager.name == tmp_path.name


def test_files_of_other_types_give_the_widest(tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", {"a": np.arange(5, dtype="i2")})
    parquet(tmp_path / "2.parquet", {"a": np.arange(5, dtype="f4") / 2})
    _, eager = twins(tmp_path)
    assert eager.X[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 0.5, 1, 1.5, 2]


def test_the_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1.5, 2, 3]}, index=pd.Index(["u", "v", "w"], name="i"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert twins(tmp_path / "t.parquet")[0].X[:].tolist() == [[1.5], [2], [3]]


def test_only_the_row_groups_needed_are_read_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = ParquetRows(parquet(tmp_path / "t.parquet", {"a": np.arange(N)}))
    asked: list[int] = []
    real = pq.ParquetFile.read_row_group

    def counting(self: Any, number: int, *rest: Any, **options: Any) -> Any:
        asked.append(number)
        return real(self, number, *rest, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    assert X[9:10].tolist() == [[9]]
    assert X[10:14].ravel().tolist() == [10, 11, 12, 13]
    assert X[14:15].tolist() == [[14]]
    assert asked == [2, 3]


@pytest.mark.parametrize("counted", [True, False])
def test_a_missing_value_is_named_by_file_row_and_column(tmp_path: Path, counted: bool) -> None:
    parquet(tmp_path / "1.parquet", {"a": [1.0] * 9})
    values = [1.0, 2, 3, 4, 5, None, 7]
    parquet(tmp_path / "2.parquet", {"a": values}, write_statistics=counted)
    with pytest.raises(InputError) as caught:
        read(tmp_path, lazy=True).X[9:16]
    sentence(caught, '2.parquet\', row 6, column "a"', "missing")
    if counted:
        with pytest.raises(InputError, match="missing"):
            read(tmp_path, lazy=True)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", {"a": [1.0], "b": [2.0]})
    parquet(tmp_path / "2.parquet", {"b": [1.0], "a": [2.0]})
    with pytest.raises(InputError) as caught:
        read(tmp_path, lazy=True)
    sentence(caught, "1.parquet", "2.parquet", "same order")


def test_a_parquet_file_damaged_in_the_middle(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", {"a": np.random.default_rng(0).normal(size=400)}, 100)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    X = read(path, lazy=True).X
    assert X[300:].shape == (100, 1)
    with pytest.raises(FileError) as caught:
        X[:100]
    sentence(caught, "t.parquet", "damaged")


# ---------------------------------------------------------------------------------------- zarr

zarr = pytest.importorskip("zarr")


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
def test_zarr_that_is_none(tmp_path: Path, text: str | None) -> None:
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
def test_zarr_that_is_no_data(tmp_path: Path, whole: np.ndarray, word: str, lazy: bool) -> None:
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


def test_zarr_and_pyarrow_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet(tmp_path / "t.parquet", {"a": [1.0]})
    for package, path in (("zarr", tmp_path / "x.zarr"), ("pyarrow", tmp_path / "t.parquet")):
        (tmp_path / "x.zarr").mkdir(exist_ok=True)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(FileError) as caught:
            read(path, lazy=True)
        sentence(caught, path.name, f"pip install {package}")


# ------------------------------------------------------------------------------- what is lazy


def test_what_is_in_memory_stays_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    assert type(read(tmp_path / "t.csv", lazy=True).X) is np.ndarray
    assert type(read("digits", lazy=True).X) is np.ndarray


def test_resize_is_for_images_only(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", {"a": [1.0]})
    stored(tmp_path / "x.zarr", np.eye(3), (2, 2))
    for path in (tmp_path, tmp_path / "t.parquet", tmp_path / "x.zarr"):
        with pytest.raises(ParameterError, match="folders of images"):
            read(path, resize=8)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")  # then the images are what is meant
    assert read(tmp_path, resize=4).X.shape == (1, 4, 4)
