"""The sentences and units of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows.report.measures import Numbers

SAME = 0.03  # within so much of PCA's error, nobody has won


def headline(numbers: Numbers, noun: str) -> str:
    """The result in one honest sentence about rows called ``noun``."""
    width = f"{count(numbers.sizes.latent_dim, 'number')} {each(noun)}"
    ratio = numbers.ratio
    if numbers.pca is None:
        r2 = f"{numbers.model.r2:.3f}"
        return f"R² is {r2} at {width}; PCA was too wide to be fitted beside it."
    if ratio is None:
        return f"PCA already restores these {noun}s exactly from {width}: nothing to gain."
    short = f"{ratio:.2f}" if ratio < 10 else figure(ratio)
    times = f"{short}\N{NO-BREAK SPACE}× PCA's error at {width}"
    if abs(ratio - 1) <= SAME:
        return f"No better than PCA: {times}."
    if ratio > 1:
        return f"PCA restores better here: the model makes {times}."
    better = numbers.share_better or 0.0
    return f"{times}, and closer to the original on {percent(better)} of the {noun}s."


def each(noun: str) -> str:
    """The noun with its article.

    >>> each("image"), each("row")
    ('an image', 'a row')
    """
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def caveat(n_rows: int, training_rows: int) -> str:
    """What the figures were measured on, and what that is worth."""
    return (
        f"Measured on the {count(n_rows, 'row')} given to this report; the model was fitted on "
        f"{count(training_rows, 'row')}. On rows it was fitted on, any model looks better than "
        "it is on new ones: for a fair figure, report on rows it has not seen."
    )


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "row"), count(12000, "row")
    ('1 row', '12,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def figure(value: float) -> str:
    """Three digits that count.

    >>> figure(0.61), figure(12.345), figure(1234.5), figure(0.0000123), figure(0)
    ('0.610', '12.3', '1,234', '1.23e-05', '0')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def percent(share: float) -> str:
    """A share as a percentage, never rounded up to all or down to none.

    >>> percent(0.987), percent(0.9999), percent(1.0), percent(0.001)
    ('99 %', 'over 99 %', '100 %', 'under 1 %')
    """
    if 0.995 <= share < 1:
        return "over 99 %"
    if 0 < share < 0.005:
        return "under 1 %"
    return f"{100 * share:.0f} %"


def size(n_bytes: float) -> str:
    """Bytes in the unit that fits.

    >>> size(64), size(2048), size(3 * 2**20)
    ('64 B', '2.0 KiB', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"


def duration(seconds: float) -> str:
    """A time in the unit that fits.

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
