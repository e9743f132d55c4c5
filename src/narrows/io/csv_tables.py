"""Text tables, CSV and similar.

numpy's C reader is tried first. What it refuses (empty cells, True and False, words) is read again
in Python, cell by cell, where line and column of what has no meaning as a number are known.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError
from narrows.io.datasets import GZIP_DAMAGE, damaged_gzip
from narrows.io.table_advice import (
    EXACT_INTEGERS,
    MAX_DISTINCT_WORDS,
    MISSING,
    drop_or_encode,
    inexact,
    is_date,
    is_inexact,
    is_number,
    is_worth_encoding,
    respell,
)

PANDAS_MISSING = {"", "NA", "N/A", "#N/A", "#NA", "<NA>", "NaN", "nan", "-nan", "None", "null"}
PANDAS_MISSING |= {"n/a", "NULL", "-NaN"}
BOOLEANS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
LABEL_HEADERS = {"label", "labels", "class", "classes", "target", "y"}
DELIMITERS = ("\t", ";", "|", ",")
END = "\x1e end of the file"  # where it is in a cell, a quotation mark is open
SAMPLE_LINES = 20  # read to find the delimiter and the header
MAX_CELL_LENGTH = 40  # in a message
STRAY_SHARE = 20  # a column is one of words if 1 in 20 cells is a word; fewer are mistakes
YEARS = range(1800, 2201)
BLANKS = re.compile(r'"((?:[^"]|"")*)"|(\S+)')  # a cell between blanks
UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)?)?")  # also as pandas calls a column without a name
SVM_CELL = re.compile(r"(\S+ )?\d+:[-+.\d]+( .*)?")
# What else is often named like a text table: how it begins, and what to say.
OTHER_KINDS = {
    r"(?i)<(!doctype|\?xml|!--|html|head|meta|body|div|table|svg)": "a web page or XML: get the "
    "table itself.",
    r"version https://git-lfs": "a pointer of git LFS: get the file itself with `git lfs pull`.",
    r"(?i)@relation": "an ARFF file: remove the lines that begin with '@' or '%'.",
    r'\{|\[\s*[\[{"\d-]': "JSON: use {json}.to_csv('numbers.csv', index=False).",
}

Row = tuple[int, list[str]]  # the line's number, from 1, and its cells
Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Form:
    """How a text table is written."""

    path: Path
    delimiter: str | None  # None: blanks
    top: int  # lines above the first row of numbers
    names: list[str] | None = None  # "" for a column without a name
    header: int | None = None  # lines above the header; None: there is none, or it is a comment

    def where(self, line: int, column: int) -> str:
        """The place of a cell."""
        name = self.names[column] if self.names else ""
        where = f"'{self.path}', line {line}, column {column + 1}"
        return f'{where} "{_shortened(name)}"' if name else where

    def title(self, column: int) -> str:
        """A column's name, or its number from 1."""
        name = self.names[column] if self.names else ""
        return f'"{_shortened(name)}"' if name else str(column + 1)

    def pandas_call(self, columns: Sequence[_Column] = (), index: int = 0) -> str:
        """The call, not closed yet, that reads this table with pandas."""
        spelled = set().union(*(column.missing for column in columns)) - PANDAS_MISSING
        options = {
            "sep": {",": None, None: r"\s+"}.get(self.delimiter, self.delimiter),
            "skiprows": (self.top if self.header is None else self.header) or None,
            "index_col": list(range(index)) or None,
            "na_values": sorted(spelled) or None,
            "skipinitialspace": True if spelled else None,
        }
        given = "".join(f", {name}={v!r}" for name, v in options.items() if v is not None)
        names = f", names={self.plain_names()!r}" if self._is_renamed(index) else ""
        header = ", header=None" if self.header is None else ", header=0" if names else ""
        return f"pandas.read_csv({str(self.path)!r}{given}{header}{names}"

    def plain_names(self) -> list[str]:
        """A name of its own for every column."""
        found: dict[str, None] = {}
        for j, given in enumerate(self.names or []):
            name = given or f"column {j + 1}"
            found[f"{name} {j + 1}" if name in found else name] = None
        return list(found)

    def _is_renamed(self, index: int) -> bool:
        """Whether pandas would call a column, after the index, otherwise than we do."""
        if not self.names or self.header is None:
            return bool(self.names)
        with _text(self.path) as file:
            rows = islice(file, self.header, None)
            raw = next(csv.reader(rows, delimiter=self.delimiter or " "))
        if self.delimiter is not None and raw[-len(self.names) :] != self.names[-len(raw) :]:
            return True
        return self.plain_names()[index:] != self.names[index:]


def read_csv(path: Path) -> tuple[Array, list[str] | None]:
    """The numbers of a text table, (n, d), and the names in its header, or None without one.

    Cells may be separated by commas, semicolons, tabs, bars or blanks. Lines above the table that
    begin with "#", and Excel's "sep=;", are no rows. The first line is a header if it holds words
    and no number, or words above columns of numbers, or exactly 0, 1, ..., d-1 (what pandas writes
    over a plain array); numpy's header is a comment with a name for each column. Empty cells and
    the usual words, such as NA, are NaN; True and yes are 1, False and no are 0. First columns
    without a name that hold whole numbers or words, other ones in every row, are an index, as
    pandas and R write it: they are left out.

    Raises InputError naming line and column of a word, of an integer that float64 cannot hold, or
    of a row of another length, and FileError if the file is not text.
    """
    form = _find_form(path)
    columns: list[_Column] = []
    try:
        X = np.loadtxt(
            str(path),
            delimiter=form.delimiter,
            skiprows=form.top,
            ndmin=2,
            comments=None,
            quotechar='"',
            encoding="utf-8-sig",
        )
    except ValueError:
        X, columns = _read_cells(form)
    except GZIP_DAMAGE:
        raise damaged_gzip(path) from None
    names = form.names
    if names and len(names) != X.shape[1]:
        raise _wrong_length(path, form.top + 1, [""] * X.shape[1], len(names))
    index = _index_width(form, X, columns)
    _refuse_words(form, columns, X, index)
    _refuse_inexact(form, X, index)
    if not names:
        return X, None
    # a delimiter at the end of every line makes a column of nothing
    kept = [j for j in range(index, len(names)) if names[j] or not np.isnan(X[:, j]).all()]
    X = X if len(kept) == X.shape[1] else X[:, kept]
    return X, [names[j] or f"column {j + 1}" for j in kept]


def read_column(path: Path) -> list[str]:
    """The cells of a text table of one column, without its header.

    The first line is a header if it is a word above numbers, or a usual name such as "label".
    """
    top, delimiter, _ = _preamble(path)
    rows = list(_rows(path, _sample(path, top, delimiter)[0], top))
    wide = next((row for row in rows if len(row[1]) != 1), None)
    if wide:
        raise InputError(
            f"'{path}', line {wide[0]}: found {len(wide[1])} cells where labels need one column."
        )
    cells = [row[1][0] for row in rows]
    word_above_numbers = len(cells) > 1 and is_number(cells[1]) and not is_number(cells[0])
    usual = cells[0].lower() in LABEL_HEADERS and cells[0] not in cells[1:]  # "y" may be a class
    return cells[1:] if word_above_numbers or usual else cells


# ------------------------------------------------------------------------------ lines


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, csv.Error):
        raise FileError(
            f"'{path}' is not a text table in UTF-8: save it as CSV in UTF-8, with rows of numbers "
            "such as 1.5,2,3."
        ) from None
    except GZIP_DAMAGE:
        raise damaged_gzip(path) from None


def _rows(path: Path, delimiter: str | None, top: int) -> Iterator[Row]:
    """The rows below the first ``top`` lines that are not blank; None splits them at blanks."""
    with _text(path) as file:
        lines = islice(file, top, None)
        if delimiter is None:
            for i, line in enumerate(lines, top + 1):
                if line.strip():
                    yield i, [quoted or plain for quoted, plain in BLANKS.findall(line)]
            return
        reader = csv.reader(chain(lines, [END]), delimiter=delimiter, skipinitialspace=True)
        first = top + 1  # a row in quotation marks may take several lines
        for cells in reader:
            if cells and cells != [END]:
                if cells[-1].endswith(END):
                    raise InputError(
                        f"'{path}', line {first}: a quotation mark opens a cell here and none "
                        "closes it; remove it, or add the other one."
                    )
                yield first, [cell.strip() for cell in cells]
            first = reader.line_num + top + 1


def _is_value(cell: str) -> bool:
    """Whether a cell is read: a number, a boolean or a missing value."""
    return cell.lower() in MISSING or cell.lower() in BOOLEANS or is_number(cell)


# ------------------------------------------------------------------------------ the form


def _preamble(path: Path) -> tuple[int, str | None, str]:
    """The number of lines above the table, Excel's delimiter, and the last comment."""
    delimiter, comment, line = None, "", ""
    with _text(path) as file:
        for top, raw in enumerate(file):
            line = raw.strip()
            excel = re.fullmatch(r'"?sep=(.)"?', raw.rstrip("\r\n"), re.IGNORECASE)
            if excel and not top:
                delimiter = excel[1]
            elif line.startswith("#"):
                comment = line.lstrip("#").strip()
            elif line:
                in_lines = next(file, "").startswith("{")
                break
        else:
            raise InputError(f"'{path}' is empty: expected rows of numbers.")
    for pattern, words in OTHER_KINDS.items():
        if re.match(pattern, line):
            found = words.format(json=_json_call(path, in_lines))
            raise InputError(f"'{path}' is not a text table but {found}")
    return top, delimiter, comment


def _json_call(path: Path, in_lines: bool) -> str:
    """The call that reads a table stored as JSON with pandas."""
    source = repr(str(path))
    if in_lines:
        return f"pandas.read_json({source}, lines=True)"
    with _text(path) as file, suppress(ValueError, RecursionError):
        held = json.load(file)
        for key, rows in held.items() if isinstance(held, dict) else ():
            if {"columns", "data"} <= set(held) <= {"columns", "data", "index"}:
                return f"pandas.read_json({source}, orient='split')"
            if isinstance(rows, list) and rows and isinstance(rows[0], list | dict):
                return f"pandas.DataFrame(pandas.read_json({source}, typ='series')[{key!r}])"
    return f"pandas.read_json({source})"


def _sample(
    path: Path, top: int, known: str | None, words: bool = False
) -> tuple[str | None, list[Row]]:
    """What separates the cells (None: blanks), and the first rows; ``words`` may be in them."""
    if known:
        return known, list(islice(_rows(path, known, top), SAMPLE_LINES))
    samples, unclosed = {}, None
    for delimiter in DELIMITERS:
        with suppress(FileError):  # csv limits the length of a cell: of a line, if this is wrong
            try:
                samples[delimiter] = list(islice(_rows(path, delimiter, top), SAMPLE_LINES))
            except InputError as error:
                unclosed = error
    if not samples:
        if unclosed:
            raise unclosed
        return None, list(islice(_rows(path, None, top), SAMPLE_LINES))
    if not all(samples.values()):
        raise InputError(f"'{path}' is empty: expected rows of numbers.")
    widths = {d: [len(cells) for _, cells in rows] for d, rows in samples.items()}
    constant = [d for d in samples if min(widths[d]) > 1 and len(set(widths[d])) == 1]
    widest = max(reversed(samples), key=lambda d: max(widths[d]))
    chosen = constant[0] if constant else widest
    if max(widths[chosen]) > 1:
        return chosen, samples[chosen]
    if unclosed:
        raise unclosed
    blanks = list(islice(_rows(path, None, top), SAMPLE_LINES))
    last = blanks[-1][1]
    is_r = len(blanks[0][1]) == len(last) - 1  # R's table, whose rows have names
    if len(last) > 1 and all(map(_is_value, last[is_r:])):
        return None, blanks
    widths_below = {len(cells) for _, cells in blanks[1:]}
    even = widths_below == {len(last)} and len(blanks[0][1]) in (len(last), len(last) - is_r)
    if words and even and len(last) > 1 and any(map(is_number, last[is_r:])):
        return None, blanks
    return ",", samples.get(",", blanks)


def _find_form(path: Path) -> _Form:
    """How the table is written, from its first lines."""
    above, known, comment = _preamble(path)
    delimiter, first = _sample(path, above, known, words=True)
    line, cells = first[0]
    below = [row for _, row in first[1:]]
    if _is_header(cells, below):
        if not below:
            raise InputError(
                f"'{path}' has a header and no rows below it: expected rows of numbers."
            )
        comma = next((row for row in first[1:] if _are_commas(row[1], cells, delimiter)), None)
        if comma and not _is_quoted(path, comma[0]):
            raise _wrong_length(path, comma[0], comma[1], len(cells))
        if _has_row_names(cells, below):
            cells = ["", *cells]
        names = ["" if UNNAMED.fullmatch(name) else name for name in cells]
        return _Form(path, delimiter, first[1][0] - 1, names, line - 1)
    if comment:  # numpy.savetxt writes its header as a comment
        separated = (
            [comment] if delimiter is None else next(csv.reader([comment], delimiter=delimiter))
        )
        names = comment.split() if delimiter is None else [name.strip() for name in separated]
        if len(names) == len(cells) and _is_header(names, [cells, *below]):
            return _Form(path, delimiter, line - 1, names)
    _warn_of_numbers(path, line, cells, below)
    return _Form(path, delimiter, line - 1)


def _is_header(names: list[str], below: list[list[str]]) -> bool:
    rest = names[1:] if names[0] == "" else names
    numbers = [name for name in rest if is_number(name)]
    if len(names) > 1 and rest == [str(i) for i in range(len(rest))]:
        return True
    corner = names[0] == "" and len(names) > 1 and _is_index([row[:1] for row in below])
    if corner and "" not in rest and len(set(rest)) == len(rest):
        years = all(name.isdecimal() and int(name) in YEARS for name in rest)
        counted = [row[0] for row in below] == [str(i) for i in range(len(below))]
        whole = all(name.isdecimal() for name in numbers)
        return len(numbers) < len(rest) or years or (counted and whole and len(below) > 1)
    if all(map(_is_value, names)):
        return False
    if not numbers or (len(numbers) > 1 and _step(numbers)):
        return True
    words = [j for j, name in enumerate(names) if not is_number(name)]
    under = [[row[j] for row in below if j < len(row)] for j in words if names[j]]
    return bool(below) and all(
        all(map(_is_value, cells)) and any(cell.lower() not in MISSING for cell in cells)
        for cells in under
    )


def _step(cells: Sequence[str]) -> bool:
    """Whether the cells are whole numbers in equal steps, as years in a header."""
    if not all(cell.isdecimal() for cell in cells):
        return False
    steps = set(np.diff([float(cell) for cell in cells]).tolist())
    return steps == {1.0} or (len(cells) > 2 and len(steps) == 1 and min(steps) > 0)


def _warn_of_numbers(path: Path, line: int, cells: list[str], below: list[list[str]]) -> None:
    """Say so where the first row may be a header of numbers, such as years."""
    corner = cells[0] == "" and len(cells) > 1 and _is_index([row[:1] for row in below])
    names = cells[1:] if corner else cells
    corner = corner and all(map(is_number, names))
    if len(cells) < 2 or not below or not (corner or _step(cells)):
        return
    others = [cell for row in below for cell in row if is_number(cell)]
    is_year = [cell.isdecimal() and int(cell) in YEARS for cell in others]
    decimals = not all(cell.lstrip("+-").isdecimal() for cell in others)
    if corner or decimals or (int(cells[0]) in YEARS and not any(is_year)):
        shown = ", ".join(cells[:3]) + (", ..." if len(cells) > 3 else "")
        warnings.warn(
            f"'{path}', line {line} ({shown}) is read as a row of numbers; if it is the header, "
            f"put a letter before each name (y{names[0]}), or remove the line.",
            UserWarning,
            stacklevel=2,
        )


def _are_commas(cells: list[str], names: Sequence[str], delimiter: str | None) -> bool:
    """Whether a comma in every number would explain that there are twice as many cells."""
    whole = [cell.lstrip("+-").isdecimal() for cell in cells]
    return delimiter == "," and len(cells) == 2 * len(names) and all(whole)


def _is_quoted(path: Path, line: int) -> bool:
    """Whether a line begins with a quotation mark, as R's names of rows do."""
    with _text(path) as file:
        return next(islice(file, line - 1, None), "").startswith('"')


def _has_row_names(names: list[str], below: list[list[str]]) -> bool:
    """Whether the rows begin with a name that the header does not count, as R writes them."""
    if any(len(row) != len(names) + 1 or row[-1] == "" for row in below):
        return False
    first = [row[0] for row in below]
    counted = first == [str(i) for i in range(1, len(first) + 1)]
    return counted or (_is_index([[cell] for cell in first]) and not is_number(first[0]))


def _is_index(keys: Sequence[Sequence[str]]) -> bool:
    """Whether the cells of some columns, by rows, tell all rows apart as an index does."""
    if not keys or len(set(map(tuple, keys))) < len(keys):
        return False
    return all(
        all(cell.lower() not in MISSING for cell in column)
        and (not any(map(is_number, column)) or all(map(_is_whole, column)))
        for column in zip(*keys, strict=True)
    )


def _is_whole(cell: str) -> bool:
    return is_number(cell) and float(cell).is_integer()


# ------------------------------------------------------------------------------ the cells


@dataclass(slots=True)
class _Column:
    """What the cells of a column are that are no numbers."""

    missing: set[str] = field(default_factory=set)  # the words for it
    booleans: int = 0
    words: dict[str, int] = field(default_factory=dict)  # the first ones, and their lines
    n_words: int = 0
    first: tuple[int, str] = 0, ""  # boolean among numbers

    def value(self, cell: str, line: int) -> float:
        """The number in a cell; NaN where there is none, which is noted."""
        small = cell.lower()
        if small in MISSING:
            self.missing.add(cell)
            return np.nan
        if small in BOOLEANS:
            self.first = self.first if self.booleans else (line, cell)
            self.booleans += 1
            return BOOLEANS[small]
        if is_number(cell):
            return float(cell)
        self.n_words += 1
        if len(self.words) <= MAX_DISTINCT_WORDS:
            self.words.setdefault(cell, line)
        return np.nan


def _read_cells(form: _Form) -> tuple[Array, list[_Column]]:
    """The table read in Python, and what its columns hold beside numbers."""
    values, columns = array("d"), [_Column() for _ in form.names or ()]
    for line, cells in _rows(form.path, form.delimiter, form.top):
        columns = columns or [_Column() for _ in cells]
        if len(cells) != len(columns):
            raise _wrong_length(form.path, line, cells, len(columns), form.delimiter)
        try:
            numbers = list(map(float, cells))
        except ValueError:
            numbers = []
        if not numbers or "_" in "".join(cells):
            numbers = [c.value(cell, line) for c, cell in zip(columns, cells, strict=True)]
        values.extend(numbers)
    return np.frombuffer(values, np.float64).reshape(-1, len(columns)), columns


def _wrong_length(
    path: Path, line: int, cells: list[str], width: int, delimiter: str | None = ","
) -> InputError:
    if _are_commas(cells, [""] * width, delimiter):
        option = f"pandas.read_csv({str(path)!r}, sep=';', decimal=',')"
        command = f", everywhere with {option}.to_csv('numbers.csv', index=False)"
        return InputError(
            f"'{path}', line {line}: found {','.join(cells)!r} for {width} "
            f"{'number' if width == 1 else 'numbers'}; if this is a decimal comma, write "
            f"{', '.join(map('.'.join, zip(cells[::2], cells[1::2], strict=True)))}"
            f"{command if width == 1 else ''}; otherwise give every column a name."
        )
    if cells[0].startswith("#"):
        return InputError(
            f"'{path}', line {line} begins with '#': remove comments below the header."
        )
    return InputError(
        f"'{path}', line {line}: expected {width} cells, as in the lines before, found "
        f"{len(cells)}: add or remove cells, or remove the line if it is no row of the table."
    )


def _index_width(form: _Form, X: Array, columns: list[_Column]) -> int:
    """The number of first columns that are an index without a name; says so."""
    names = form.names or [" "]
    width = next((j for j, name in enumerate(names) if name), len(names) - 1)
    if not width:
        return 0
    if any(column.n_words or column.booleans for column in columns[:width]):
        rows = _rows(form.path, form.delimiter, form.top)
        keys = [cells[:width] for _, cells in rows]
    elif width == 1 and np.array_equal(X[:, 0], np.arange(len(X))):
        return 1  # pandas' own index
    else:
        keys = [[repr(value) for value in row] for row in X[:, :width].tolist()]
    found = _is_index(keys)
    if found or not any(column.n_words for column in columns[:width]):
        said = "left out as an index" if found else "read as data: remove it if it is an index"
        which = "column has no name" if width == 1 else f"{width} columns have no names"
        warnings.warn(f"The first {which} in '{form.path}': {said}.", UserWarning, stacklevel=3)
    return width if found else 0


def _refuse_words(form: _Form, columns: list[_Column], X: Array, index: int) -> None:
    """Raise the error for the columns that hold words; ``columns`` is empty if there are none."""
    drop: dict[str, object] = {}
    encode = []
    first: tuple[int, str] | None = None
    names = form.plain_names()
    for j, column in list(enumerate(columns))[index:]:
        values = X[~np.isnan(X[:, j]), j]
        numbers = len(values) - column.booleans
        if not column.words:
            if column.booleans and numbers and not set(np.unique(values)) <= {0.0, 1.0}:
                where = form.where(column.first[0], j)
                raise InputError(
                    f"{where}: found '{column.first[1]}' in a column of numbers; correct it or "
                    "remove the line."
                )
            continue
        cell, line = next(iter(column.words.items()))
        found = f"{form.where(line, j)}: found '{_shortened(cell)}'"
        cells = (
            ("" if k == j else form.title(k), other)
            for _, row in _rows(form.path, form.delimiter, form.top)
            for k, other in enumerate(row[index:], index)
        )
        spelled = respell(cell, column.words, form.pandas_call(columns, index), cells)
        if spelled:
            raise InputError(f"{found}, {spelled}")
        if SVM_CELL.fullmatch(cell) and not is_date(cell):
            raise InputError(
                f"{found}, the sparse format of LIBSVM: save "
                f"sklearn.datasets.load_svmlight_file({str(form.path)!r})[0].toarray() with "
                "numpy.save."
            )
        n_cells = len(values) + column.n_words
        if numbers and (column.n_words < 2 or column.n_words * STRAY_SHARE < n_cells):
            raise InputError(f"{found} where a number was expected; correct it or remove the line.")
        first = first or (line, f"{found} where a number was expected; ")
        if is_worth_encoding(len(column.words), len(X)) and not numbers and not is_date(cell):
            encode.append(form.title(j))
        else:
            drop[form.title(j)] = names[j] if names else j
    if first:
        write = f"to_csv('numbers.csv', index=False{'' if form.names else ', header=False'})"
        read = form.pandas_call(columns, index) + ")"
        raise InputError(first[1] + drop_or_encode(read, drop, encode, write))


def _shortened(cell: str) -> str:
    cell = " ".join(cell.split())  # a cell in quotation marks may hold line breaks
    return cell if len(cell) <= MAX_CELL_LENGTH else cell[: MAX_CELL_LENGTH - 3] + "..."


def _refuse_inexact(form: _Form, X: Array, index: int) -> None:
    """Refuse numbers that float64 cannot hold, rather than answer with others."""
    far = np.abs(X[:, index:]) >= EXACT_INTEGERS
    if not far.any():
        return
    for (line, cells), row in zip(_rows(form.path, form.delimiter, form.top), far, strict=True):
        for j in np.flatnonzero(row) + index:
            where, cell = form.where(line, int(j)), cells[j]
            if np.isinf(float(cell)) and "inf" not in cell.lower():
                raise InputError(f"{where}: {cell} is above 1.8e308, the largest float64; drop it.")
            if is_inexact(cell):
                raise InputError(inexact(where, cell))
