"""What to do about columns of a table that hold no numbers: sentences, and commands that work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

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
# The words of pandas, R, SQL, Excel and SAS for a value that is missing, in small letters.
MISSING = {"", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "none", "null", "\\n"}
MISSING |= {"?", "-", "--", "."}
WHOLE = re.compile(r"\s*([+-]?\d+)(\.0*)?\s*")
GROUPS = " '’_\u00a0\u2009\u202f"  # between groups of three digits
MINUS = "\u2212\u2013"  # the minus of mathematics, and a dash
SIGNS = "$€£¥%"
# What a number that people write may have, what it looks like, and what is replaced to read it.
SPELLINGS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (THOUSANDS, r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", {",": ""}),
    ("thousands separators", r"[+-]?\d{1,2}(,\d{2})+,\d{3}(\.\d+)?", {",": ""}),  # of India
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

# Numbers with something beside them, which only their writer can bring to one unit.
NO_SPELLING = {
    "a fraction": r"[+-]?\d+( \d+)?/\d+",
    "a length of time": r"-?\d+ days?( .*)?|P(?=.*\d)(\d+[ymwd])*(t([\d.]+[hms])+)?",
    "a number with a unit": r"[+-]?[\d.,]+ ?(?!st|nd|rd|th|[ap]m)"
    r"([a-zµ°]{1,3}|[\"”″′°]|[bm]illion|thousand)(/[a-z]+|[²³])?",
}


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


def _read_by_pandas(cell: str, what: str) -> str:
    """What pandas makes of a cell where it reads numbers with these separators."""
    if what != DECIMAL:
        cell = cell.replace("," if what == THOUSANDS else ".", "")
    return cell if what == THOUSANDS else cell.replace(",", ".")


def _misread(cell: str, what: str, own: bool) -> bool:
    """Whether the option of pandas for these separators makes a cell another number, or none."""
    read = _read_by_pandas(cell, what)
    if what in spellings(cell) or cell.lower() in MISSING:
        return False
    if what == DECIMAL and "." in cell:  # no number to pandas: it stays text as it is
        return own
    return is_number(read) and not (is_number(cell) and float(cell) == float(read))


def respell(
    cell: str, others: Iterable[str], read: str, elsewhere: Iterable[tuple[str, str]] = ()
) -> str | None:
    """The end of a message about a number that is written in another way; None if it is none.

    ``others`` are further cells of its column, which may tell a thousands separator from a decimal
    comma; ``read`` is the call that reads the table, up to its last argument. ``elsewhere`` are
    all cells after the titles of their columns, "" for its own: pandas reads all of them alike.
    """
    others = list(others)
    for what, pattern in NO_SPELLING.items():
        if all(re.fullmatch(pattern, other, re.IGNORECASE) for other in (cell, *others)):
            return f"{what}: write the numbers alone, in one unit, or leave the column out."
    found = spellings(cell)
    shared = set(found).intersection(*filter(None, map(set, map(spellings, others))))
    found = {what: found[what] for what in found if what in shared} or found
    if not found:
        return None
    what, numbers = ", or ".join(found), " or ".join(found.values())
    option = COMMA_OPTIONS.get(what)
    if not option:
        return f"{what}: write {numbers}."
    for title, other in elsewhere:
        if _misread(other, what, not title):
            place = f"column {title}" if title else "the same column"
            shown = " ".join(other.split())  # a cell in quotation marks may hold line breaks
            return (
                f"{what}: write {numbers}, in this column alone: pandas with {option} misreads "
                f"'{shown}' in {place}."
            )
    command = f"everywhere with {read}, {option}).to_csv('numbers.csv', index=False)"
    return f"{what}: write {numbers}, {command}."


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
            f"{columns_hold(list(drop))} dates, words among numbers, or words that nearly all "
            "differ: leave out"
        )
        frame += f".drop(columns={list(drop.values())!r})"
    if encode:
        about.append(f"{columns_hold(encode)} only words: encode")
        frame = f"pandas.get_dummies({frame})"
    return f"{', '.join(about)}, for example with {frame}.{write}."


def is_inexact(value: object) -> bool:
    """Whether a cell is, or writes, an integer that float64 cannot hold.

    >>> is_inexact("9007199254740993"), is_inexact(2**53), is_inexact("1e300")
    (True, False, False)
    """
    if isinstance(value, float | np.floating):
        return False
    found = WHOLE.fullmatch(value.decode() if isinstance(value, bytes) else str(value))
    return found is not None and int(found[1]) != int(float(found[1]))


def first_inexact(values: NDArray[np.integer]) -> int | None:
    """The first place of an integer that float64 cannot hold; None if there is none."""
    far = np.flatnonzero((values > EXACT_INTEGERS) | (values < -EXACT_INTEGERS))
    return next((int(i) for i in far if int(values[i]) != int(float(values[i]))), None)


def inexact(where: str, value: object) -> str:
    """The message for an integer that float64 cannot hold; ``where`` names it."""
    return (
        f"{where}: {value} is above 2**53, where float64 does not hold every integer: leave the "
        f"column out if it is an identifier, or write {float(str(value))!r}."
    )
