"""Maps of two numbers: `NeighborAutoencoder` and `Autoencoder` at equal epochs, on held-out rows.

    OMP_NUM_THREADS=1 python benchmarks/neighbors.py digits
    OMP_NUM_THREADS=1 python benchmarks/neighbors.py mnist --folder FOLDER
    OMP_NUM_THREADS=1 python benchmarks/neighbors.py mnist-5min --folder FOLDER    # fashion-5min

Trustworthiness (scikit-learn's, of 15 neighbours), continuity (the same with rows and codes
exchanged), and the mean squared error divided by that of PCA with two numbers. The digits of
scikit-learn: 1,297 rows for training, 500 held out, 150 epochs. MNIST, IDX files in FOLDER: the
first 20,000 rows, 3,000 random test rows held out, 12 epochs; "5min": all 60,000 rows of MNIST or
of Fashion-MNIST for five minutes on one core. Seconds are CPU seconds of the fit.
Rows go to ``results/neighbors.jsonl``, the table to ``results/neighbors.md``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from narrows import Autoencoder, NeighborAutoencoder

Rows = NDArray[Any]
OUT = Path(__file__).parent / "results" / "neighbors.jsonl"
FIVE_MINUTES = {"max_time": 300, "max_epochs": 10_000}
BUDGETS: dict[str, dict[str, int]] = {
    "digits": {"max_epochs": 150},
    "mnist": {"max_epochs": 12},
    "mnist-5min": FIVE_MINUTES,
    "fashion-5min": FIVE_MINUTES,
}
MEASURES = {"trust": "trustworthiness", "cont": "continuity", "error": "error / PCA", "s": "s"}
NOTE = (
    "Written by `benchmarks/neighbors.py`, whose docstring describes the columns. What is not "
    "named is the default: `neighbor_weight=10`, `n_neighbors=3`; batches of 128 for few steps."
)
WEIGHTS: list[dict[str, float]] = [{"neighbor_weight": w} for w in (3, 10, 30, 100)]
OTHERS: list[dict[str, float]] = [{"n_neighbors": k} for k in (6, 10)]
OTHERS += [{"batch_size": size} for size in (256, 512)] + [{"distance_weight": 10}]


def read_rows(name: str, folder: Path, seed: int) -> tuple[Rows, Rows]:
    """The rows for training and the rows held out."""
    rng = np.random.default_rng(seed)
    if name == "digits":
        X = load_digits().images[rng.permutation(1797)]
        return X[:1297], X[1297:]
    train, test = (
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        for path in (folder / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k"))
    )
    return train[: 20_000 if name == "mnist" else None], test[rng.permutation(len(test))[:3000]]


def measure(name: str, options: dict[str, float] | None, X: Rows, held: Rows, seed: int) -> Any:
    """One fit and its measures; ``options=None`` is the plain autoencoder."""
    shared = {"latent_dim": 2, "random_state": seed, **BUDGETS[name]}
    model: Any = Autoencoder(**shared)
    if options is not None:
        model = NeighborAutoencoder(**shared, **options)
    start = time.process_time()
    model.fit(X)
    seconds = time.process_time() - start
    flat, Z = held.reshape(len(held), -1).astype(float), model.transform(held).astype(float)
    pca = PCA(2, random_state=seed).fit(X.reshape(len(X), -1))
    errors = [
        ((back.reshape(flat.shape) - flat) ** 2).mean()
        for back in (model.reconstruct(held), pca.inverse_transform(pca.transform(flat)))
    ]
    return {
        "set": name,
        "options": options,
        "seed": seed,
        "trust": float(trustworthiness(flat, Z, n_neighbors=15)),
        "cont": float(trustworthiness(Z, flat, n_neighbors=15)),
        "error": float(errors[0] / errors[1]),
        "s": seconds,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Means over seeds, one line for each set of options."""
    lines = ["# Maps of two numbers", "", NOTE]
    for name in dict.fromkeys(row["set"] for row in found):
        head = " | ".join(MEASURES.values())
        epochs = BUDGETS[name]["max_epochs"]
        budget = "five minutes" if "max_time" in BUDGETS[name] else f"{epochs} epochs"
        lines += ["", f"## {name.removesuffix('-5min')}, {budget}", "", f"| | seeds | {head} |"]
        lines += ["|---" * (len(MEASURES) + 2) + "|"]
        of_set = [row for row in found if row["set"] == name]
        for key in dict.fromkeys(json.dumps(row["options"]) for row in of_set):
            same = [row for row in of_set if json.dumps(row["options"]) == key]
            options = json.loads(key)
            words = ", ".join(f"{k}={v}" for k, v in (options or {}).items()) or "the default"
            title = "`Autoencoder`" if options is None else f"`NeighborAutoencoder`, {words}"
            means = {m: np.mean([row[m] for row in same]) for m in MEASURES}
            cells = [f"{v:.1f}" if m == "s" else f"{v:.3f}" for m, v in means.items()]
            lines.append(f"| {title} | {len(same)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=BUDGETS)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--options", type=json.loads, help="as JSON; in place of all of them")
    args = parser.parse_args()
    every: list[dict[str, float] | None] = [None, *WEIGHTS, *OTHERS]
    if "max_time" in BUDGETS[args.set]:
        every = [{}, None]
    every = args.options or every
    for seed in args.seeds:
        X, held = read_rows(args.set, args.folder, seed)
        for options in every:
            row = measure(args.set, options, X, held, seed)
            with OUT.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    found = [json.loads(line) for line in OUT.read_text().splitlines()]
    OUT.with_suffix(".md").write_text(table(found))


if __name__ == "__main__":
    main()
