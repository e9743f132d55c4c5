"""Seconds to the error that the plain loop reaches after ten epochs.

The plain loop is run once, PCA once. narrows, with its defaults but the layers of the loop, is run
once for each budget of a ladder, each a whole fit whose schedule has ended: so many epochs, or,
where that is no whole number, so many times the seconds of the fit with one epoch. What counts is
the fit of the fewest seconds, everything included, whose error on rows held out from both is not
above the plain loop's. Test errors are only reported.

Where PCA alone is below the plain loop's error, the last column says so: what is won there is
narrows' start at PCA, and PCA needs a few milliseconds for it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from records import Book, Row, footnote, groups, median, peer, show, table
from sets import load

KEYS = ("data", "network", "latent", "plain_epochs", "rows")
HELD = 0.1


def measure(options: Any, book: Book) -> None:
    """Every set and network, a round for each seed; a code of at most half a row's width."""
    for data in options.data:
        for network in options.networks or ("dense", "conv"):
            shape = load(data, rows=2, held=0.0).shape
            if network == "conv" and len(shape) != 2:
                continue
            for seed in options.seeds:
                _round(options, book, data, network, seed, min(32, math.prod(shape) // 2))


def _round(options: Any, book: Book, data: str, network: str, seed: int, k: int) -> None:
    common = {"data": data, "network": network, "latent": k, "seed": seed}
    common |= {"rows": options.rows, "held": HELD}
    facts = {"plain_epochs": options.epochs}
    book.add({**peer("pca", **common, epochs=1), **facts, "budget": None})
    if options.names == ["pca"]:
        return
    if options.device != "cpu":
        common["device"] = options.device
    plain = book.add({**peer("plain", **common, epochs=options.epochs), **facts, "budget": None})
    one: float | None = None
    reached = False
    for budget in sorted(
        map(float, options.budgets), key=lambda b: (b != 1, b)
    ):  # 1 first: others need it
        if not budget.is_integer() and one is None:
            continue
        if budget > 1 and reached:
            break  # more epochs only take longer
        whole = budget.is_integer()
        wish = {"epochs": int(budget)} if whole else {"seconds": budget * (one or 0.0)}
        row = book.add({**peer("narrows", **common, **wish), **facts, "budget": budget})
        if budget == 1:
            one = row.get("seconds")
        if "failed" not in row and "failed" not in plain:
            reached |= row["mse_held"] <= plain["mse_held"]


def write(book: Book) -> None:
    """One line a set and network: medians over the seeds."""
    rows = [row for row in book.rows(*KEYS, "name") if row["name"] != "pca"]
    # PCA's error is the same on every machine; its milliseconds are not
    pca = [
        row for row in replace(book, cpu=None).rows(*KEYS, "name", "cpu") if row["name"] == "pca"
    ]
    pca = [{**row, "ms": 1e3 * row["seconds"] if row["cpu"] == book.cpu else None} for row in pca]
    simple = groups(sorted(pca, key=lambda row: row["ms"] is None), *KEYS, "seed")
    lines = []
    for setting_key, setting in groups(rows, *KEYS).items():
        data, network, latent, epochs, n = setting_key
        found = [
            _first(mine, *simple.get((*setting_key, seed), [])[:1])
            for (seed,), mine in groups(setting, "seed").items()
        ]
        reached = [row for row in found if row["seconds"] is not None]
        budgets = ", ".join(sorted({f"{row['budget']:g}" for row in reached}))
        single = " (single seed)" if len(found) == 1 else ""
        lines.append(
            [
                f"{data}{'' if n is None else f' ({n} rows)'}, {network} {latent}",
                *(str(epochs), f"{len(reached)} of {len(found)}{single}"),
                show(median(found, "plain_seconds"), ".2f"),
                show(median(reached, "seconds"), ".2f"),
                budgets or "–",
                show(median(reached, "speedup"), ".1f"),
                show(median(found, "plain_mse"), ".3g"),
                show(median(reached, "mse"), ".3g"),
                *_of_pca(found),
            ]
        )
    head = "set, network|plain epochs|seeds that reach it|plain s|narrows s|budget|times faster"
    head += "|plain test error|narrows test error|PCA's test error|PCA's ms|where PCA stands"
    text = "\n\n".join(" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:])
    book.write(
        f"# Seconds to the plain loop's error\n\n{text}\n\n"
        + table(head.split("|"), lines)
        + footnote(rows)
    )


def _first(rows: list[Row], pca: Row | None = None) -> Row:
    """The fit of the fewest seconds that reaches the plain loop's held-out error in this round."""
    plain = next((r for r in rows if r["name"] == "plain"), None)
    if plain is None:
        return {"seconds": None}
    good = [r for r in rows if r["name"] == "narrows" and r["mse_held"] <= plain["mse_held"]]
    best = min(good, key=lambda r: r["seconds"], default=None)
    out: Row = {"plain_seconds": plain["seconds"], "plain_mse": plain["mse"], "seconds": None}
    if pca is not None:
        out |= {"pca_mse": pca["mse"], "pca_ms": pca["ms"]}
        out["pca_is_below"] = pca["mse_held"] <= plain["mse_held"]
    if best is not None:
        out |= {"seconds": best["seconds"], "mse": best["mse"], "budget": best["budget"]}
        out["speedup"] = plain["seconds"] / best["seconds"]
    return out


def _of_pca(found: list[Row]) -> list[str]:
    """PCA's error, its milliseconds, and a word on what was won."""
    error, ms = median(found, "pca_mse"), median(found, "pca_ms")
    below = [row["pca_is_below"] for row in found if "pca_is_below" in row]
    words = "–"
    if below:
        words = "PCA alone is below the plain loop" if all(below) else "above the plain loop"
        words = words if len(set(below)) == 1 else f"below in {sum(below)} of {len(below)} seeds"
    return [show(error, ".3g"), show(ms, ".0f"), words]
