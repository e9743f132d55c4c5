"""Seconds per epoch as the number of rows and the width grow, on synthetic bytes."""

from __future__ import annotations

from typing import Any

from records import Book, footnote, groups, median, peer, ratio, show, table

KEYS = ("data", "hidden", "name")
MAX_FLOAT_ROWS = 2_000_000  # other contenders need float32 rows, 3 kB each


def measure(options: Any, book: Book) -> None:
    """narrows with the same network, and the plain loop."""
    for seed in options.seeds:
        for n in options.sizes:
            _pair(book, n, (512, 256), seed, epochs=max(1, min(20, 200_000 // n)))
        for width in options.widths:
            _pair(book, options.width_rows, (width, max(1, width // 2)), seed, epochs=4)


def _pair(book: Book, n: int, hidden: tuple[int, ...], seed: int, epochs: int) -> None:
    for name in ("plain", "narrows-same"):
        if name == "plain" and n > MAX_FLOAT_ROWS:
            continue
        wishes = {"data": f"synthetic:{n}", "epochs": epochs, "seed": seed, "hidden": hidden}
        row = peer(name, network="dense", latent=32, **wishes)
        if "failed" not in row:
            each = row["epoch_seconds"][1:] or row["epoch_seconds"]
            row["epoch"] = sorted(each)[len(each) // 2]
        book.add(row)


def write(book: Book) -> None:
    """Medians over the seeds, of the median epoch after the first of each run."""
    rows = book.rows(*KEYS)
    lines = []
    for (data, _), setting in groups(
        ({**row, "width": row["hidden"][0]} for row in rows), "data", "width"
    ).items():
        by_name = groups(setting, "name")
        base = by_name.get(("plain",), [])
        n = int(data.split(":")[1])
        for (name,), mine in by_name.items():
            seconds = median(mine, "epoch")
            lines.append(
                [
                    *(f"{n:,}", "-".join(map(str, mine[0]["hidden"])), name),
                    show(seconds, ".3f"),
                    show(None if not seconds else 1e6 * seconds / n, ".1f"),
                    show(ratio(mine, "epoch", base), ".2f"),
                    show(median(mine, "seconds"), ".2f"),
                    show(median(mine, "peak_rss_mib"), ".0f"),
                ]
            )
    head = "rows|widths|contender|s an epoch|µs a row|ratio to plain|s in all|peak MiB"
    book.write(
        "# How training grows\n\nDense 784-...-32-...-784 on synthetic bytes.\n\n"
        + table(head.split("|"), lines)
        + footnote(rows)
    )
