"""Parquet files, by pyarrow, read by row groups as their rows are used."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError, NarrowsError
from narrows.io.image_files import natural_key
from narrows.io.sources import LazyRows, damaged, import_package
from narrows.io.table_advice import (
    EXACT_INTEGERS,
    MISSING,
    drop_or_encode,
    first_inexact,
    inexact,
    is_inexact,
    is_number,
    is_worth_encoding,
    spellings,
)


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """One row group: the rows of the table from ``start`` to before ``stop``."""

    path: Path
    metadata: Any  # of the whole file, so that its footer is read once
    number: int  # in its file
    start: int
    stop: int
    start_in_file: int


def find_parquet(folder: Path) -> list[Path]:
    """The parquet files directly in a folder, in natural order; hidden ones are skipped."""
    files = [path for path in folder.glob("*.parquet") if path.is_file() and path.name[0] != "."]
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


class ParquetRows(LazyRows):
    """The columns of a parquet file, or of all files of a folder, side by side: (n, d).

    The dtype is the columns' own type, or the widest if they differ; ``feature_names`` are
    their names. A missing value is NaN, so integers and booleans with some become float64, and so
    do decimals. An index stored by pandas is left out. The last row group is kept in memory, so
    that slices in order read each of them once.

    Raises InputError naming columns that hold no numbers, a file whose columns are not those of
    the first, or an integer that would become another float64; FileError if a file is damaged or
    pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.feature_names: list[str] = []
        self._groups: list[_RowGroup] = []
        self._last: tuple[_RowGroup | None, NDArray[Any]] = None, np.empty((0, 0))
        types: list[Any] = []
        for file in find_parquet(path) if path.is_dir() else [path]:
            types += self._add(file, path)
        n = self._groups[-1].stop if self._groups else 0
        if not n or not types:
            raise InputError(f"'{path}' has no rows of numbers.")
        self.dtype = np.result_type(*types)
        self.shape = n, len(self.feature_names)
        self.chunks = max(g.stop - g.start for g in self._groups), len(self.feature_names)

    def _add(self, path: Path, source: Path) -> list[Any]:
        """Append the row groups of a file; return the numpy types of its columns."""
        with _opened(path) as file:
            from pyarrow import types

            metadata, columns = file.metadata, _columns(file.schema_arrow)
            if not metadata.num_rows:  # the types of an empty file mean nothing
                return []
            _refuse_words(file, columns, path, source)
            if any(not types.is_floating(_plain_type(field.type)) for field in columns.values()):
                for number in range(metadata.num_row_groups):
                    # raises where a column's metadata are damaged; to ask them would end Python
                    next(file.iter_batches(1, [number]), None)
            kinds = [_dtype(file, i, field.type) for i, field in columns.items()]
        names = [field.name for field in columns.values()]
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
        return kinds

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

        with _opened(group.path, group.metadata) as file:
            columns = _columns(file.schema_arrow)
            table = file.read_row_group(group.number)
        block = np.empty((table.num_rows, len(columns)), self.dtype)
        # By position: names may occur twice, and pyarrow reads a point in a name as a path.
        for j, (position, field) in enumerate(columns.items()):
            column = table.column(position)
            values = _values(column)
            at, cells = None, values
            if self.dtype.kind == "f" and values.dtype.kind in "iu":
                at = first_inexact(values)
            elif pa.types.is_decimal(field.type) and (np.abs(values) >= EXACT_INTEGERS).any():
                cells = column.to_pylist()
                at = next((i for i, cell in enumerate(cells) if is_inexact(cell)), None)
            if at is not None:
                where = f"'{group.path}', row {group.start_in_file + at + 1}, column"
                raise InputError(inexact(f'{where} "{field.name}"', cells[at]))
            gaps = column.null_count and values.dtype.kind in "iub"
            block[:, j] = np.where(column.is_null(), np.nan, values) if gaps else values
        return block


@contextmanager
def _opened(path: Path, metadata: Any = None) -> Iterator[Any]:
    """A parquet file; what pyarrow cannot read or decode while it is open is damage."""
    pa: Any = import_package("pyarrow", path)
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, metadata=metadata) as file:
            yield file
    except NarrowsError:
        raise
    except pa.ArrowNotImplementedError as error:
        told = str(error).rstrip(".")
        raise FileError(f"'{path}' holds a type that pyarrow does not read: {told}.") from None
    except (pa.ArrowException, OSError, ValueError):  # ValueError: names and notes that are no text
        raise damaged(path, "a parquet file") from None


def _columns(schema: Any) -> dict[int, Any]:
    """The columns by their positions, without an index that pandas stored."""
    noted = schema.pandas_metadata
    index = noted.get("index_columns") if isinstance(noted, dict) else None
    index = index if isinstance(index, list) else []
    return {i: field for i, field in enumerate(schema) if field.name not in index}


def _plain_type(kind: Any) -> Any:
    """The type of a column's values; pandas stores categories as a dictionary."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _dtype(file: Any, position: int, kind: Any) -> Any:
    """The numpy type of a column of numbers."""
    from pyarrow import types

    kind = _plain_type(kind)
    if types.is_decimal(kind) or types.is_null(kind):
        return np.dtype(np.float64)
    if types.is_floating(kind) or not _has_missing(file, position):
        return kind.to_pandas_dtype()
    return np.dtype(np.float64)


def _has_missing(file: Any, position: int) -> bool:
    """Whether a column has missing values: as the file says, or, where it does not, as read."""
    for number in range(file.metadata.num_row_groups):
        counts = file.metadata.row_group(number).column(position).statistics
        if counts is None or not counts.has_null_count:
            if file.read_row_group(number).column(position).null_count:
                return True
        elif counts.null_count:
            return True
    return False


def _values(column: Any) -> NDArray[Any]:
    """The numbers of a column; NaN, or for integers and booleans 0, where one is missing."""
    from pyarrow import types

    kind = _plain_type(column.type)
    column = column.cast(kind)
    if types.is_decimal(kind) or types.is_null(kind):  # Python rounds decimals to the nearest float
        return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
    if column.null_count and not types.is_floating(kind):
        column = column.fill_null(0 if types.is_integer(kind) else False)
    return np.asarray(column.to_numpy())


def _text(cell: str | bytes) -> str:
    return (cell.decode(errors="replace") if isinstance(cell, bytes) else cell).strip()


def _refuse_words(file: Any, columns: dict[int, Any], path: Path, source: Path) -> None:
    """Raise the error for the columns that hold no numbers, with a command that makes some."""
    from pyarrow import types

    numeric = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    others = {
        i: field
        for i, field in columns.items()
        if not any(test(_plain_type(field.type)) for test in (*numeric, types.is_null))
    }
    if not others:
        return
    sample, read = file.read_row_group(0), f"pandas.read_parquet({str(source)!r})"
    drop, encode = {}, []
    for i, field in others.items():
        where, cells = f"'{path}', column \"{field.name}\"", sample.column(i).drop_null()
        if types.is_nested(field.type):
            raise InputError(
                f"{where} holds {field.type}, not numbers: leave it out, or save lists of one "
                f"length alone, with numpy.save('numbers.npy', numpy.stack({read}"
                f"[{field.name!r}]))."
            )
        kind = _plain_type(field.type)
        is_text = any(test in str(kind) for test in ("string", "binary"))
        words = list(dict.fromkeys(map(_text, cells.to_pylist()))) if is_text else []
        told = [word for word in words if word.lower() not in MISSING]
        if told and all(map(is_number, told)):
            column = repr(field.name)
            gaps = f"pandas.to_numeric(t[{column}].astype(str), errors='coerce')"
            whole = len(told) == len(words)
            call = f"astype({{{column}: float}})"
            call = call if whole else f"assign(**{{{column}: lambda t: {gaps}}})"
            raise InputError(
                f"{where} holds numbers as text, such as '{told[0]}': use "
                f"{read}.{call}.to_parquet('numbers.parquet')."
            )
        if told and all(is_number(word) or spellings(word) for word in told):
            odd = next(word for word in told if not is_number(word))
            what, numbers = ", or ".join(spellings(odd)), " or ".join(spellings(odd).values())
            raise InputError(f"{where} holds '{odd}', {what}: save it as the number {numbers}.")
        if words and is_worth_encoding(len(words), sample.num_rows):
            encode.append(f'"{field.name}"')
        else:
            drop[f'"{field.name}"'] = field.name
    advice = drop_or_encode(read, drop, encode, "to_parquet('numbers.parquet')")
    raise InputError(f"'{path}': {advice}")
