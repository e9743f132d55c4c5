"""Text tables, CSV and similar, by numpy's C reader.

The fast reader is tried first; only if it fails is the file read again in Python, to say which
line and which column is wrong.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, InputError
from narrows.io.datasets import GZIP_DAMAGE, damaged_gzip

MISSING = {"", "na", "n/a", "#n/a", "none", "null", "?", "-"}
LABEL_HEADERS = {"label", "labels", "class", "classes", "target", "y"}
DELIMITERS = ("\t", ";", ",")
SAMPLE_LINES = 20  # read to find the delimiter
MAX_NAMED_COLUMNS = 8  # in a message
MAX_CELL_LENGTH = 40  # in a message

Row = tuple[int, list[str]]  # the line's number, from 1, and its cells


def read_csv(path: Path) -> tuple[NDArray[np.float64], list[str] | None]:
    """The numbers of a text table, (n, d), and the names in its header, or None without one.

    Cells may be separated by commas, semicolons, tabs or blanks. The first line is a header if it
    holds words and no number, or words above a line of numbers alone, or exactly 0, 1, ..., d-1
    (what pandas writes over a plain array). A first column without a name that counts the rows
    from 0 is pandas' index and is left out.

    Raises InputError naming line and column of a word, a missing value or a row of another length,
    and FileError if the file is not text.
    """
    delimiter, first = _find_delimiter(path)
    names = first[0][1] if _has_header(first) else None
    skipped = first[0][0] if names else 0
    if names and len(first) < 2:
        raise InputError(f"'{path}' has a header and no rows below it: expected rows of numbers.")
    try:
        X = np.loadtxt(
            str(path),
            delimiter=delimiter,
            skiprows=skipped,
            ndmin=2,
            comments=None,
            quotechar='"',
            encoding="utf-8-sig",
        )
    except ValueError as error:
        raise _explain(path, delimiter, names, skipped, str(error)) from None
    except GZIP_DAMAGE:
        raise damaged_gzip(path) from None
    if names and len(names) != X.shape[1]:
        raise _wrong_length(path, first[1][0], X.shape[1], len(names))
    if not names:
        return X, None
    if names[0] == "" and len(names) > 1 and np.array_equal(X[:, 0], np.arange(len(X))):
        return X[:, 1:], names[1:]
    return X, [name or f"column {i}" for i, name in enumerate(names, 1)]


def read_column(path: Path) -> list[str]:
    """The cells of a text table of one column, without its header.

    The first line is a header if it is a word above numbers, or a usual name such as "label".
    """
    rows = list(_rows(path, _find_delimiter(path)[0]))
    wide = next((row for row in rows if len(row[1]) != 1), None)
    if wide:
        raise InputError(
            f"'{path}', line {wide[0]}: found {len(wide[1])} cells where labels need one column."
        )
    cells = [row[1][0] for row in rows]
    word_above_numbers = len(cells) > 1 and _is_number(cells[1]) and not _is_number(cells[0])
    usual = cells[0].lower() in LABEL_HEADERS and cells[0] not in cells[1:]  # "y" may be a class
    return cells[1:] if word_above_numbers or usual else cells


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(path: Path, delimiter: str | None) -> Iterator[Row]:
    """The rows that are not blank; delimiter None splits them at blanks."""
    try:
        with _open(path) as file:
            if delimiter is None:
                yield from ((i, line.split()) for i, line in enumerate(file, 1) if line.strip())
                return
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (UnicodeDecodeError, csv.Error):
        raise FileError(
            f"'{path}' is not a text table in UTF-8: expected rows of numbers, such as 1.5,2,3."
        ) from None
    except GZIP_DAMAGE:
        raise damaged_gzip(path) from None


def _find_delimiter(path: Path) -> tuple[str | None, list[Row]]:
    """What separates the cells (None: blanks), and the first rows."""
    samples = {d: list(islice(_rows(path, d), SAMPLE_LINES)) for d in DELIMITERS}
    if not any(any(cells) for _, cells in samples[","]):
        raise InputError(f"'{path}' is empty: expected rows of numbers.")
    widths = {d: [len(cells) for _, cells in rows] for d, rows in samples.items()}
    constant = [d for d in DELIMITERS if min(widths[d]) > 1 and len(set(widths[d])) == 1]
    widest = max(reversed(DELIMITERS), key=lambda d: max(widths[d]))
    chosen = constant[0] if constant else widest
    if max(widths[chosen]) > 1:
        return chosen, samples[chosen]
    blanks = list(islice(_rows(path, None), SAMPLE_LINES))
    if len(blanks[-1][1]) > 1 and all(map(_is_number, blanks[-1][1])):
        return None, blanks
    return ",", samples[","]


def _is_number(cell: str) -> bool:
    if "_" in cell:  # Python reads 1_000, no other reader does
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _has_header(first: Sequence[Row]) -> bool:
    names = first[0][1]
    counted = names[1:] if names[0] == "" else names
    if len(names) > 1 and counted == [str(i) for i in range(len(counted))]:
        return True
    if all(_is_number(cell) or cell.lower() in MISSING for cell in names):
        return False
    below = first[1][1] if len(first) > 1 else ["?"]
    return not any(map(_is_number, names)) or all(map(_is_number, below))


def _explain(
    path: Path, delimiter: str | None, names: list[str] | None, skipped: int, reason: str
) -> InputError:
    """The error that names the first cell, or the first row, that the fast reader refused."""
    titles = [f'"{name}"' if name else "" for name in names or []]
    width = len(titles)
    for line, cells in _rows(path, delimiter):
        if line <= skipped:
            continue
        width = width or len(cells)
        if len(cells) != width:
            return _wrong_length(path, line, len(cells), width)
        column = next((i for i, cell in enumerate(cells) if not _is_number(cell)), None)
        if column is None:
            continue
        title = f" {titles[column]}" if titles and titles[column] else ""
        where, cell = f"'{path}', line {line}, column {column + 1}{title}", cells[column]
        if cell.lower() in MISSING:
            return InputError(missing_value(where, cell))
        if re.fullmatch(r"[+-]?\d+,\d+", cell):
            return InputError(f"{where}: found '{cell}', a decimal comma: write it with a point.")
        words = _word_columns(path, delimiter, titles, skipped)
        remedy = (
            f"{columns_hold(words)} only words: remove or encode them first "
            "(for example with pandas.get_dummies)."
            if words
            else "correct it or remove the line."
        )
        shown = cell if len(cell) <= MAX_CELL_LENGTH else cell[: MAX_CELL_LENGTH - 3] + "..."
        return InputError(f"{where}: found '{shown}' where a number was expected; {remedy}")
    return InputError(f"'{path}' cannot be read as numbers: {reason}")


def _wrong_length(path: Path, line: int, found: int, width: int) -> InputError:
    return InputError(
        f"'{path}', line {line}: expected {width} cells, as in the lines before, found {found}: "
        "every line needs the same number."
    )


def missing_value(where: str, cell: str) -> str:
    """The message for a cell without a value; ``where`` names it."""
    found = f"'{cell}'" if cell else "an empty cell"
    return f"{where}: found {found}, a missing value: fill it in or remove the row or column."


def _word_columns(path: Path, delimiter: str | None, titles: list[str], skipped: int) -> list[str]:
    """The columns that hold no number at all: their titles, or their numbers from 1."""
    columns: list[int] | None = None
    for line, cells in _rows(path, delimiter):
        if line > skipped:
            among = range(len(cells)) if columns is None else columns
            columns = [i for i in among if i >= len(cells) or not _is_number(cells[i])]
    return [titles[i] if i < len(titles) and titles[i] else str(i + 1) for i in columns or ()]


def columns_hold(names: list[str]) -> str:
    """The beginning of a message about some columns of a table."""
    shown = ", ".join(names[:MAX_NAMED_COLUMNS])
    hidden = len(names) - MAX_NAMED_COLUMNS
    more = f" and {hidden} more" if hidden > 0 else ""
    return f"column {shown} holds" if len(names) == 1 else f"columns {shown}{more} hold"
