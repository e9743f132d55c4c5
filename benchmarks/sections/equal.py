"""Test error after equal seconds of training, every contender."""

from __future__ import annotations

from typing import Any

from contenders import ENTRIES
from records import Book, footnote, groups, median, peer, ratio, show, table

KEYS = ("data", "network", "latent", "seconds_given", "rows", "name")


def measure(options: Any, book: Book) -> None:
    """The seconds are for the whole fit of narrows and for the training of the others."""
    for network in options.networks:
        for latent in options.latents:
            for seed in options.seeds:
                for name in options.names:
                    if network in ENTRIES[name].networks:
                        wishes = {"network": network, "seconds": options.seconds, "seed": seed}
                        wishes |= {"latent": latent, "rows": options.rows, "data": options.data[0]}
                        row = peer(name, **wishes)
                        book.add({**row, "seconds_given": options.seconds})


def write(book: Book) -> None:
    """Medians over the seeds."""
    rows = book.rows(*KEYS)
    lines = []
    for (data, network, latent, seconds, n), setting in groups(rows, *KEYS[:-1]).items():
        by_name = groups(setting, "name")
        base = by_name.get(("plain",), [])
        for (name,), mine in sorted(by_name.items(), key=lambda x: median(x[1], "mse") or 1.0):
            lines.append(
                [
                    f"{data}{'' if n is None else f' ({n} rows)'}, {network} {latent}",
                    *(name, f"{seconds:g}", str(len(mine))),
                    show(median(mine, "seconds"), ".1f"),
                    show(median(mine, "epochs_done"), ".0f"),
                    show(median(mine, "mse"), ".5f"),
                    show(ratio(mine, "mse", base), ".3f"),
                ]
            )
    head = "network|contender|seconds given|seeds|seconds taken|epochs ended|test error|to plain"
    book.write(
        "# Test error after equal seconds\n\nThe lowest first. narrows' seconds hold its scaling "
        "and PCA; the others get their data ready.\n\n"
        + table(head.split("|"), lines)
        + footnote(rows)
    )
