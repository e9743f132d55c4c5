"""Parquet files: read at once or lazily, and errors name file, row and column."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.slice_checks import sentence, twins
from narrows.exceptions import FileError, InputError
from narrows.io.parquet import ParquetRows
from narrows.io.read import read

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

N = 23  # rows


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
def test_missing_values_are_nan_and_integers_with_some_float64(
    tmp_path: Path, counted: bool
) -> None:
    none = [None] * 3
    columns = {
        "float": pa.array([1.5, None, 3, *none], pa.float32()),
        "integer": pa.array([1, 2, None, *none], pa.int8()),
        "boolean": pa.array([None, True, False, *none]),
        "decimal": pa.array([Decimal("1.10"), None, Decimal("-3"), *none], pa.decimal128(9, 2)),
        "nothing": pa.nulls(6),
        "category": pa.array([4, None, 5, *none]).dictionary_encode(),
    }
    _, eager = twins(parquet(tmp_path / "t.parquet", columns, 2, write_statistics=counted))
    nan = np.nan
    rows = [[1.5, 1, nan, 1.1, nan, 4], [nan, 2, 1, nan, nan, nan], [3, nan, 0, -3, nan, 5]]
    np.testing.assert_array_equal(eager.X, [*rows, *[[nan] * 6] * 3])
    assert eager.X.dtype == np.float64
    kept = parquet(tmp_path / "f.parquet", {"a": columns["float"]})
    assert read(kept).X.dtype == np.float32  # NaN needs no wider dtype


def test_integers_alone_keep_every_digit(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", {"a": [2**53 + 1], "b": [-(2**62) - 1]})
    assert read(path).X.tolist() == [[2**53 + 1, -(2**62) - 1]]


def test_a_type_that_pyarrow_does_not_read_is_no_damage(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(FileError) as caught:
        read(tmp_path / "t.parquet")
    sentence(caught, "t.parquet", "a type that pyarrow does not read")


def test_files_with_different_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", {"a": [1.0], "b": [2.0]})
    parquet(tmp_path / "2.parquet", {"b": [1.0], "a": [2.0]})
    with pytest.raises(InputError) as caught:
        read(tmp_path, lazy=True)
    sentence(caught, "1.parquet", "2.parquet", "same order")


def test_a_damaged_parquet_file_with_words_is_refused_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"w": list("abcdefgh") * 50, "n": list(range(400))}), path)
    stored = bytearray(path.read_bytes())
    stored[4:200] = bytes(byte ^ 0xFF for byte in stored[4:200])
    path.write_bytes(stored)
    with pytest.raises(FileError) as caught:
        read(path)
    sentence(caught, "t.parquet", "damaged")


@pytest.mark.parametrize(
    ("notes", "whole", "broken"),
    [
        ('["index', b"", b""),
        (b"\xff", b"", b""),
        ("{}", b"zebra", b"\xfbebra"),
        ("{}", b"%\x02\x18\x05zebra", b"%!\x18\x05zebra"),  # how often it occurs; pyarrow aborts
    ],
)
def test_a_parquet_file_whose_description_is_damaged(
    tmp_path: Path, notes: str | bytes, whole: bytes, broken: bytes
) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"a": [1.0, 2.0], "zebra": [1, 2]})
    pa.parquet.write_table(table.replace_schema_metadata({"pandas": notes}), path)
    assert whole in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(whole, broken))
    with pytest.raises(FileError) as caught:
        read(path)
    sentence(caught, "t.parquet", "damaged")


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


def test_parquet_keeps_the_columns_type_and_leaves_the_index_out(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]}, dtype="int16", index=["u", "v"])
    frame.to_parquet(tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet")
    np.testing.assert_array_equal(data.X, [[1, 3], [2, 4]])
    assert data.X.dtype == np.int16
    assert data.feature_names == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1, 2], "b": ["x", "y"]}, ['column "b" holds only words', "get_dummies"]),
        ({"a": [2**53 + 1, 2], "b": [1.5, 2]}, ["row 1", 'column "a"', "above 2**53"]),
        ({"a": [1, None, -(2**53) - 1]}, ["row 3", 'column "a"', "-9007199254740993"]),
        ({"a": []}, ["no rows"]),
    ],
)
def test_parquet_errors_name_the_column(
    tmp_path: Path, columns: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read(parquet(tmp_path / "t.parquet", columns))
    sentence(caught, "t.parquet", *words)


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(FileError) as caught:
        read(tmp_path / "t.parquet")
    sentence(caught, "t.parquet", "damaged")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "t.parquet", {"a": [1.0]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError) as caught:
        read(path, lazy=True)
    sentence(caught, "t.parquet", "pip install pyarrow")
