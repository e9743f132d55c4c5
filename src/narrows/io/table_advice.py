"""What to do about columns of a table that hold no numbers: sentences, and commands that work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_NAMED_COLUMNS = 8  # in a message
MAX_DISTINCT_WORDS = 50  # of a column that is worth encoding: one new column for each
FEW_WORDS = 5  # always worth it, however few the rows
EXACT_INTEGERS = 2**53  # float64 holds every integer up to here

DATE = re.compile(r"\d{4}([-/.]\d{1,2}){1,2}([T ].*)?|\d{1,2}([-/.])\d{1,2}\3\d{2,4}( .*)?|"
                  r"\d{1,2}:\d{2}(:\d{2}.*)?")  # fmt: skip
THOUSANDS, DECIMAL, BOTH = (
    "a thousands separator",
    "a decimal comma",
    "a thousands separator and a decimal comma",
)
COMMA_OPTIONS = {THOUSANDS: "thousands=','", DECIMAL: "decimal=','",
                 BOTH: "thousands='.', decimal=','"}  # fmt: skip
GROUPS = " '’_\u00a0\u2009\u202f"  # between groups of three digits
MINUS = "\u2212\u2013"  # the minus of mathematics, and a dash
SIGNS = "$€£¥%"
# What a number that people write may have, what it looks like, and what is replaced to read it.
SPELLINGS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (THOUSANDS, r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", {",": ""}),
    (DECIMAL, r"[+-]?\d*,\d+(e[+-]?\d+)?", {",": "."}),
    (BOTH, r"[+-]?\d{1,3}(\.\d{3})+,\d+", {".": "", ",": "."}),
    ("thousands separators", r"[+-]?\d{1,3}(\.\d{3}){2,}", {".": ""}),
    ("thousands separators", rf"[+-]?\d{{1,3}}([{GROUPS}]\d{{3}})+([.,]\d+)?",
     {**dict.fromkeys(GROUPS, ""), ",": "."}),
    ("the exponent of Fortran", r"[+-]?\d+\.?\d*d[+-]?\d+", {"d": "E", "D": "E"}),
    ("a minus sign other than '-'", rf"[{MINUS}] ?[\d.].*", dict.fromkeys(MINUS, "-") | {" ": ""}),
    ("a currency or percent sign", rf"[+-]?[{SIGNS}] ?[+-]?\d.*|[+-]?[\d.].*[{SIGNS}]",
     dict.fromkeys(SIGNS + " ", "")),
    ("a negative number in brackets", r"\([\d.].*\)", {"(": "-", ")": ""}),
    ("quotation marks", r"'[^']+'", {"'": ""}),
)  # fmt: skip


def is_number(cell: str) -> bool:
    """Whether a cell is a number as every reader understands it."""
    if "_" in cell:  # Python reads 1_000, no other reader does
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_date(cell: str) -> bool:
    """Whether a cell is a date or a time of day."""
    return DATE.fullmatch(cell) is not None


def spellings(cell: str) -> dict[str, str]:
    """The ways to read a cell as a number: what it has that numbers here must not, the number.

    >>> spellings("1,234")
    {'a thousands separator': '1234', 'a decimal comma': '1.234'}
    """
    if re.fullmatch(r"[+-]?0x[0-9a-f]+", cell, re.IGNORECASE):
        return {"a hexadecimal number": str(int(cell, 16))}
    found = {}
    for what, pattern, replaced in SPELLINGS:
        if re.fullmatch(pattern, cell, re.IGNORECASE):
            number = cell.translate({ord(old): new for old, new in replaced.items()})
            if not is_number(number):  # such as $1,234.50: there is more than one habit in it
                number = next(iter(spellings(number).values()), "") if number != cell else ""
            if number:
                found[what] = number
    return found


def respell(cell: str, others: Iterable[str], read: str) -> str | None:
    """The end of a message about a number that is written in another way; None if it is none.

    ``others`` are further cells of its column, which may tell a thousands separator from a decimal
    comma; ``read`` is the call that reads the table, up to its last argument.
    """
    found = spellings(cell)
    shared = set(found).intersection(*filter(None, map(set, map(spellings, others))))
    found = {what: found[what] for what in found if what in shared} or found
    if not found:
        return None
    what, numbers = ", or ".join(found), " or ".join(found.values())
    option = COMMA_OPTIONS.get(what)
    command = f", everywhere with {read}, {option}).to_csv('numbers.csv', index=False)"
    return f"{what}: write {numbers}{command if option else ''}."


def columns_hold(names: Sequence[str]) -> str:
    """The beginning of a message about some columns of a table."""
    shown = ", ".join(names[:MAX_NAMED_COLUMNS])
    hidden = len(names) - MAX_NAMED_COLUMNS
    more = f" and {hidden} more" if hidden > 0 else ""
    return f"column {shown} holds" if len(names) == 1 else f"columns {shown}{more} hold"


def is_worth_encoding(n_distinct: int, n_rows: int) -> bool:
    """Whether a column of words has few enough distinct ones for a column each."""
    return n_distinct <= FEW_WORDS or n_distinct <= min(MAX_DISTINCT_WORDS, n_rows // 2)


def drop_or_encode(read: str, drop: Mapping[str, object], encode: Sequence[str], write: str) -> str:
    """The end of a message about columns of words: what to do, and one command that does it.

    ``read`` is the call that reads the table with pandas, ``write`` the one that writes it;
    ``drop`` the columns, by their titles, of too many words, ``encode`` the titles of the others.
    """
    about, frame = [], read
    if drop:
        about.append(
            f"{columns_hold(list(drop))} dates, or words that nearly all differ: leave out"
        )
        frame += f".drop(columns={list(drop.values())!r})"
    if encode:
        about.append(f"{columns_hold(encode)} only words: encode")
        frame = f"pandas.get_dummies({frame})"
    return f"{', '.join(about)}, for example with {frame}.{write}."


def is_inexact(value: object, number: float) -> bool:
    """Whether an integer, or a text that writes one, became another float64.

    >>> is_inexact("9007199254740993", 9007199254740993.0), is_inexact(9, 9.0)
    (True, False)
    """
    text = str(value).strip()
    return text.lstrip("+-").isdecimal() and int(text) != float(number)


def first_inexact(values: Sequence[object] | NDArray[Any], numbers: NDArray[Any]) -> int | None:
    """The first place where `is_inexact` holds of values and numbers; None if there is none."""
    far = np.flatnonzero((np.abs(numbers) >= EXACT_INTEGERS) & np.isfinite(numbers))
    return next((i for i in far.tolist() if is_inexact(values[i], numbers[i])), None)


def inexact(where: str, value: object) -> str:
    """The message for an integer that float64 cannot hold; ``where`` names it."""
    return (
        f"{where}: {value} is above 2**53, where float64 does not hold every integer: leave the "
        f"column out if it is an identifier, or give {float(str(value))!r}."
    )
