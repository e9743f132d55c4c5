"""Parquet files, by pyarrow, read by row groups as their rows are used."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import InputError
from narrows.io.csv_tables import columns_hold, missing_value
from narrows.io.image_files import natural_key
from narrows.io.sources import LazyRows, damaged, import_package


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """One row group: the rows of the table from ``start`` to before ``stop``."""

    path: Path
    metadata: Any  # of the whole file, so that its footer is read once
    number: int  # in its file
    start: int
    stop: int
    start_in_file: int

    @property
    def counts_missing(self) -> bool:
        """Whether the file itself says that a value is missing in these rows."""
        columns = self.metadata.row_group(self.number)
        statistics = (columns.column(j).statistics for j in range(columns.num_columns))
        return any(found is not None and bool(found.null_count) for found in statistics)


def find_parquet(folder: Path) -> list[Path]:
    """The parquet files directly in a folder, in natural order; hidden ones are skipped."""
    files = [path for path in folder.glob("*.parquet") if path.is_file() and path.name[0] != "."]
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


class ParquetRows(LazyRows):
    """The columns of a parquet file, or of all files of a folder, side by side: (n, d).

    The dtype is the columns' own type, or the widest if they differ; ``feature_names`` are
    their names. An index stored by pandas is left out. The last row group is kept in memory, so
    that slices in order read each of them once.

    Raises InputError naming columns that hold no numbers, a file whose columns are not those of
    the first, or a value that is missing; FileError if a file is damaged or pyarrow is not
    installed. If the files count their missing values, these are found before any row is read.
    """

    def __init__(self, path: Path) -> None:
        self.feature_names: list[str] = []
        self._groups: list[_RowGroup] = []
        self._last: tuple[_RowGroup | None, NDArray[Any]] = None, np.empty((0, 0))
        types: list[Any] = []
        for file in find_parquet(path) if path.is_dir() else [path]:
            types += self._add(file)
        n = self._groups[-1].stop if self._groups else 0
        if not n or not types:
            raise InputError(f"'{path}' has no rows of numbers.")
        self.dtype = np.result_type(*types)
        self.shape = n, len(self.feature_names)
        self.chunks = max(g.stop - g.start for g in self._groups), len(self.feature_names)
        for group in self._groups:
            if group.counts_missing:
                self._load(group)  # raises and names the first of them

    def _add(self, path: Path) -> list[Any]:
        """Append the row groups of a file; return the numpy types of its columns."""
        with _open(path) as file:
            metadata, fields = file.metadata, list(_columns(file.schema_arrow).values())
        if not metadata.num_rows:  # the types of an empty file mean nothing
            return []
        _refuse_words(path, fields)
        names = [field.name for field in fields]
        if names != (self.feature_names or names):
            raise InputError(
                f"'{path}' has other columns than '{self._groups[0].path}': expected all files of "
                "a folder to have the same, in the same order."
            )
        self.feature_names = names
        start, row = self._groups[-1].stop if self._groups else 0, 0
        for number in range(metadata.num_row_groups):
            stop = row + metadata.row_group(number).num_rows
            self._groups.append(_RowGroup(path, metadata, number, start + row, start + stop, row))
            row = stop
        return [field.type.to_pandas_dtype() for field in fields]

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        X = np.empty((stop - start, self.shape[1]), self.dtype)
        first = bisect.bisect_right(self._groups, start, key=lambda group: group.stop)
        for group in self._groups[first:]:
            if group.start >= stop:
                break
            low, high = max(start, group.start), min(stop, group.stop)
            rows = self._load(group)[low - group.start : high - group.start]
            X[low - start : high - start] = rows
        return X

    def _load(self, group: _RowGroup) -> NDArray[Any]:
        if self._last[0] is not group:
            self._last = None, np.empty((0, 0))  # two of them may not fit in memory
            self._last = group, self._decode(group)
        return self._last[1]

    def _decode(self, group: _RowGroup) -> NDArray[Any]:
        import pyarrow as pa

        with _open(group.path, group.metadata) as file:
            columns = _columns(file.schema_arrow)
            try:
                table = file.read_row_group(group.number)
            except (pa.ArrowException, OSError):
                raise damaged(group.path, "a parquet file") from None
        block = np.empty((table.num_rows, len(columns)), self.dtype)
        # By position: names may occur twice, and pyarrow reads a point in a name as a path.
        for j, (position, field) in enumerate(columns.items()):
            column = table.column(position)
            if column.null_count:
                row = group.start_in_file + int(column.is_null().to_numpy().argmax()) + 1
                where = f"'{group.path}', row {row}, column \"{field.name}\""
                raise InputError(missing_value(where, ""))
            block[:, j] = column.to_numpy()
        return block


def _open(path: Path, metadata: Any = None) -> Any:
    pa: Any = import_package("pyarrow", path)
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, metadata=metadata)
    except (pa.ArrowException, OSError):
        raise damaged(path, "a parquet file") from None


def _columns(schema: Any) -> dict[int, Any]:
    """The columns by their positions, without an index that pandas stored."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return {i: field for i, field in enumerate(schema) if field.name not in index}


def _refuse_words(path: Path, fields: list[Any]) -> None:
    from pyarrow import types

    numeric = (types.is_integer, types.is_floating, types.is_boolean)
    words = [f'"{f.name}"' for f in fields if not any(test(f.type) for test in numeric)]
    if words:
        raise InputError(
            f"'{path}': {columns_hold(words)} no numbers: remove or encode them first "
            "(for example with pandas.get_dummies)."
        )
