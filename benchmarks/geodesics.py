"""Shortest paths on a Swiss roll that a model has learned from points, beside the true lengths.

    OMP_NUM_THREADS=1 python benchmarks/geodesics.py --seeds 0 1 2

4,000 points of a roll without noise, one scaling for all columns, 200 pairs of points. The true
length is that on the unrolled sheet. ``geodesic`` has ``avoid_gaps=True``; its path, and the
straight line between the codes, are decoded and measured in the data's units. Rows go to
``results/geodesics.jsonl``, the table to ``results/geodesics.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows import Autoencoder, NeighborAutoencoder
from narrows.maps import geodesic, trustworthiness

OUT = Path(__file__).parent / "results" / "geodesics.jsonl"
N_ROWS, N_PAIRS = 4000, 200
SHARED = {"latent_dim": 2, "scaling": "shared", "max_epochs": 4000, "max_time": 60}
MODELS = {
    "Autoencoder": lambda seed: Autoencoder(random_state=seed, **SHARED),
    "NeighborAutoencoder(neighbor_weight=0.1)": lambda seed: NeighborAutoencoder(
        random_state=seed, neighbor_weight=0.1, **SHARED
    ),
}
Rows = NDArray[np.float64]


def roll(seed: int) -> tuple[Rows, Rows]:
    """Points of a Swiss roll, and their places on the unrolled sheet."""
    rng = np.random.default_rng(seed)
    t, height = 1.5 * np.pi * (1 + 2 * rng.random(N_ROWS)), 21 * rng.random(N_ROWS)
    X = np.stack([t * np.cos(t), height, t * np.sin(t)], 1)
    arc = (t * np.sqrt(1 + t * t) + np.arcsinh(t)) / 2
    return X, np.stack([arc, height], 1)


def length(model: Any, codes: Rows) -> float:
    """Of the decoded path through codes, in the data's units."""
    fine = np.concatenate([np.linspace(a, b, 20) for a, b in itertools.pairwise(codes)])
    rows = np.asarray(model.inverse_transform(fine.astype(np.float32)), dtype=np.float64)
    return float(np.linalg.norm(np.diff(rows, axis=0), axis=1).sum())


def measure(name: str, seed: int) -> dict[str, Any]:
    """One fit, and the ratios of 200 paths to the true lengths."""
    X, sheet = roll(seed)
    model = MODELS[name](seed).fit(X)
    Z = np.asarray(model.transform(X), dtype=np.float64)
    pairs = np.random.default_rng(seed).choice(N_ROWS, (N_PAIRS, 2), replace=False)
    shortest, straight = [], []
    for a, b in pairs:
        true = np.linalg.norm(sheet[a] - sheet[b])
        path = geodesic(model, Z[a], Z[b], codes=Z, avoid_gaps=True).codes
        shortest.append(length(model, path) / true)
        straight.append(length(model, np.linspace(Z[a], Z[b], 33)) / true)
    off = np.abs(np.array(shortest) - 1)
    return {
        "model": name,
        "seed": seed,
        "seconds": model.fit_seconds_,
        "error": float(-model.score_samples(X).mean()),
        "trust": trustworthiness(X, Z),
        "within 2 %": float((off < 0.02).mean()),
        "within 5 %": float((off < 0.05).mean()),
        "median": float(np.median(shortest)),
        "lowest": float(min(shortest)),
        "highest": float(max(shortest)),
        "straight": float(np.median(straight)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each fit."""
    lines = [
        "# Shortest paths on a learned Swiss roll",
        "",
        "Written by `benchmarks/geodesics.py`, whose docstring describes the run. Lengths are "
        "ratios to the true ones; `straight`: the median of the straight lines between codes.",
        "",
        "| model | seed | fit s | error | trustworthiness | within 2 % | within 5 % | median | "
        "lowest | highest | straight |",
        "|---" * 11 + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["model"], row["seed"])):
        shares = " | ".join(f"{row[key]:.0%}" for key in ("within 2 %", "within 5 %"))
        ratios = " | ".join(f"{row[k]:.3f}" for k in ("median", "lowest", "highest", "straight"))
        lines.append(
            f"| {row['model']} | {row['seed']} | {row['seconds']:.0f} | {row['error']:.1e} | "
            f"{row['trust']:.4f} | {shares} | {ratios} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.models:
            row = measure(name, seed)
            print(json.dumps(row), flush=True)
            with OUT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()]
    OUT.with_suffix(".md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
