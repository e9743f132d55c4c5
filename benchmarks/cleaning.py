"""Remaining noise: the denoising autoencoder compared with doing nothing, PCA and filters.

    OMP_NUM_THREADS=1 python benchmarks/cleaning.py

On data that come with scikit-learn or are generated here, three seeds each: the split, the noise
and the model follow from the seed. The model has its defaults except for the noise and the epochs;
"wide" has a code of one number less than the data; "blind" is one model fitted on a range of levels
and tested at the level of each line. Rows are appended to ``results/cleaning.jsonl``, from which
``results/cleaning.md`` is written.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split

import narrows
from narrows import DenoisingAutoencoder
from narrows.denoising import compare_cleaning
from records import HERE, Book, footnote, groups, show, table

KEYS = ("data", "noise", "level")
OWN = ("narrows", "narrows, wide", "narrows, blind")
METHODS = ("nothing done", "training mean", "PCA", "best PCA", "best filter", *OWN)
VERSIONS = {"narrows": narrows.__version__, "torch": torch.__version__}


def signals(seed: int) -> NDArray[np.float64]:
    """Rows (1000, 1, 96) of two damped sines; the same in every run."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 96)
    frequency, decay, phase = rng.uniform(
        [[[1]], [[0]], [[0]]], [[[9]], [[4]], [[7]]], (3, 1000, 2)
    )
    waves = np.exp(-decay[..., None] * t) * np.sin(
        2 * np.pi * frequency[..., None] * t + phase[..., None]
    )
    return waves.sum(1, keepdims=True)


SETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "digits": (lambda: load_digits().images, {}),
    "breast cancer": (lambda: load_breast_cancer().data, {}),
    "wine": (lambda: load_wine().data, {}),
    "signals": (lambda: signals(0), {"axes": "CL"}),
}
LINES: dict[str, list[tuple[str, float]]] = {
    "digits": [
        ("gaussian", 0.25),
        ("gaussian", 0.5),
        ("gaussian", 1.0),
        ("poisson", 0.4),
        ("masking", 0.3),
        ("salt_and_pepper", 0.2),
        ("blur", 0.8),
    ],
    "breast cancer": [("gaussian", 0.25), ("gaussian", 0.5), ("masking", 0.2), ("swap", 0.15)],
    "wine": [("gaussian", 0.5), ("masking", 0.2), ("swap", 0.15)],
    "signals": [("gaussian", 0.25), ("gaussian", 0.5), ("dropout", 0.2), ("salt_and_pepper", 0.1)],
}
BLIND = {"gaussian": (0.0, 1.0)}  # the levels that one model learns together


def measure(name: str, seed: int, epochs: int, methods: list[str], book: Book) -> None:
    """Every kind of noise on one set with one seed."""
    load, wishes = SETS[name]
    X, X_test = train_test_split(load(), test_size=0.25, random_state=seed)
    wishes = {**wishes, "max_epochs": epochs, "random_state": seed}

    @cache
    def fitted(**own: Any) -> DenoisingAutoencoder:
        return DenoisingAutoencoder(**{**wishes, **own}).fit(X)

    facts = {"data": name, "seed": seed, "epochs": epochs, "versions": VERSIONS}
    widest = X[0].size - 1
    for noise, level in LINES[name]:
        given = {"noise": noise, "noise_level": level}
        simple = fitted(**given, latent_dim=widest, max_epochs=0)  # PCA of nearly all components
        noisy = simple.corrupt(X_test, seed)
        rows = compare_cleaning(simple, X_test, seed, X_noisy=noisy)
        rows = [row for row in rows if row.method in ("nothing done", "training mean")
                or row.method.startswith("best PCA") or "width" in row.method]  # fmt: skip
        wanted = {"narrows": given, "narrows, wide": {**given, "latent_dim": widest}}
        if noise in BLIND:
            wanted["narrows, blind"] = {**given, "noise_level": BLIND[noise]}
        for method, own in wanted.items():
            if method in methods:
                found = compare_cleaning(fitted(**own), X_test, seed, X_noisy=noisy)
                rows.append(replace(found[2], method=method))
                rows += found[3:4] if method == "narrows" else []  # PCA of the same width
        for row in rows:
            book.add({**facts, "noise": noise, "level": level, **asdict(row)})


def mean(rows: list[dict[str, Any]]) -> float | None:
    return float(np.mean([row["mse"] for row in rows])) if rows else None


def by_column(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the seeds; of the filters the best one of each run, as a user would choose."""
    plain = groups(rows, "method")
    found = {m: mean(plain.get((m,), [])) for m in METHODS}
    for name in ("PCA", "best PCA"):
        found[name] = mean([row for row in rows if row["method"].startswith(f"{name},")])
    filters = [r for r in rows if ", width" in r["method"]]
    best = [min(mine, key=lambda r: r["mse"]) for mine in groups(filters, "seed").values()]
    return {**found, "best filter": mean(best)}


def write(book: Book) -> None:
    """One line for each kind of noise on each set; the lowest error in bold."""
    rows = book.rows(*KEYS, "seed", "method")
    lines = []
    for (data, noise, level), mine in groups(rows, *KEYS).items():
        found = by_column(mine)
        least = min(value for value in found.values() if value is not None)
        cells = [show(found[m], ".3f") for m in METHODS]
        cells = [
            f"**{c}**" if found[m] == least else c for m, c in zip(METHODS, cells, strict=True)
        ]
        lines.append([data, noise, f"{level:g}", *cells])
    book.write(
        "# What is left of noise\n\nMean squared error of held-out rows as a share of the clean "
        "data's variance, means over the seeds. PCA has as many numbers as the code; the best "
        "PCA and each filter have the width that is best on a quarter of the held-out rows, and of "
        "a moving average, a median and (signals) Savitzky–Golay the best one is shown. "
        "narrows knows the level of the line; wide, its code has one number less than the data; "
        "blind, it learned all levels from 0 to 1. Written by "
        "`benchmarks/cleaning.py`; every row is in `cleaning.jsonl`.\n\n"
        + table(["data", "noise", "level", *METHODS], lines)
        + footnote(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(OWN), choices=list(OWN))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    book = Book("cleaning", options.out)
    for seed in options.seeds:
        for name in options.data:
            measure(name, seed, options.epochs, options.methods, book)
    write(book)


if __name__ == "__main__":
    main()
