"""Numbers and units as text: counts, percentages, sizes, durations."""

from __future__ import annotations


def article(noun: str) -> str:
    """The noun with a or an.

    >>> article("image"), article("row")
    ('an image', 'a row')
    """
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def count(n: int, noun: str) -> str:
    """A number with its noun in the singular or plural.

    >>> count(1, "row"), count(12000, "row")
    ('1 row', '12,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def significant(value: float) -> str:
    """Three significant digits.

    >>> significant(0.61), significant(12.345), significant(1234.5)
    ('0.610', '12.3', '1,234')
    >>> significant(0.0000123), significant(0)
    ('1.23e-05', '0')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def short_number(value: float) -> str:
    """A value of a table in little room: three significant digits, whole from 100 on.

    >>> [short_number(v) for v in (13.24, 1285.2, 0.00012, -0.0, 2.5e7, True)]
    ['13.2', '1,285', '0.00012', '0', '2.5e+07', '1']
    """
    value = float(value)
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value + 0.0:.3g}"


def percent(share: float) -> str:
    """A share as a percentage; only 1 is shown as 100 % and only 0 as 0 %.

    >>> percent(0.987), percent(0.9999), percent(1.0), percent(0.001)
    ('99 %', 'over 99 %', '100 %', 'under 1 %')
    """
    if 0.995 <= share < 1:
        return "over 99 %"
    if 0 < share < 0.005:
        return "under 1 %"
    return f"{100 * share:.0f} %"


def byte_size(n_bytes: float) -> str:
    """A number of bytes in the largest unit that leaves at least 1.

    >>> byte_size(64), byte_size(2048), byte_size(3 * 2**20)
    ('64 B', '2.0 KiB', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"


def duration(seconds: float) -> str:
    """A time in microseconds, milliseconds, seconds or minutes.

    >>> duration(0.0000021), duration(0.0042), duration(12.34), duration(200)
    ('2.1 µs', '4.2 ms', '12.3 s', '3 min 20 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
