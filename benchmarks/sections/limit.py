"""The float32 products that the machine reaches, and the share that dense training reaches."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from records import Book, footnote, groups, median, peer, show, table

KEYS = ("name", "rows", "epochs")
WIDTHS = (784, 512, 256, 32, 256, 512, 784)


def flops_per_row(widths: tuple[int, ...] = WIDTHS) -> int:
    """Multiplications and additions of one step for one row: forward, and backward twice.

    The gradient of the rows themselves is not needed.
    """
    products = [a * b for a, b in pairwise(widths)]
    return 6 * sum(products) - 2 * products[0]


def product(size: int, repeats: int) -> list[float]:
    """FLOP/s of square products in float32, each timed separately."""
    import torch

    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=rng) for _ in range(2))
    out, rates = torch.empty(size, size), []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        rates.append(2 * size**3 / (time.perf_counter() - started))
    return rates[2:]


def measure(options: Any, book: Book) -> None:
    """A product before and after each training, because the speed of machines drifts."""
    for seed in options.seeds:
        for name in ("plain", "narrows-same"):
            before = product(options.size, options.repeats)
            wishes = {"epochs": options.epochs, "rows": options.rows, "seed": seed}
            row = peer(name, network="dense", latent=32, **wishes)
            rates = sorted(before + product(options.size, options.repeats))
            row |= {"flops": rates[len(rates) // 2], "flops_best": rates[-1], "size": options.size}
            speed = row.get("samples_per_s_later") or row.get("samples_per_s")
            if speed:
                row["reached"] = speed * flops_per_row()
                row["share"] = row["reached"] / row["flops"]
            book.add(row)


def write(book: Book) -> None:
    """Medians over the seeds."""
    rows = book.rows(*KEYS)
    lines = [
        [
            name,
            show((median(mine, "flops") or 0) / 1e9, ".0f"),
            show((median(mine, "flops_best") or 0) / 1e9, ".0f"),
            show((median(mine, "reached") or 0) / 1e9, ".0f"),
            show(median(mine, "share"), ".0%"),
        ]
        for (name, *_), mine in groups(rows, *KEYS).items()
    ]
    head = "contender|GFLOP/s of a square product, median|best|GFLOP/s in training|share of median"
    book.write(
        f"# The float32 limit\n\nDense network, {flops_per_row() / 1e6:.2f} MFLOP a row and step. "
        "A share above 1 is possible only with a narrower number than float32.\n\n"
        + table(head.split("|"), lines)
        + footnote(rows)
    )
