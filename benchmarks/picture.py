"""The picture of README: originals, codes, reconstructions, and PCA's from as many numbers.

    python benchmarks/picture.py

The first held-out digit of each class; the autoencoder has its defaults.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from narrows import Autoencoder

OUT = Path(__file__).parent.parent / "docs" / "original-compressed-reconstruction.png"
LATENT_DIM, SEED = 8, 0


def main() -> None:
    digits = load_digits()
    X, X_test, _, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=SEED
    )
    ae = Autoencoder(latent_dim=LATENT_DIM, architecture="dense", random_state=SEED).fit(X)
    shown = X_test[[int(np.flatnonzero(y_test == label)[0]) for label in range(10)]]
    codes = ae.transform(shown) / ae.transform(X).std(0)
    errors = -ae.score_samples(X_test).mean(), -ae.pca_.score_samples(X_test).mean()
    restored, pca = ae.reconstruct(shown), ae.pca_.reconstruct(shown)
    rows = [
        ("original\n64 numbers", shown, {"cmap": "gray", "vmin": 0, "vmax": 16}),
        (
            f"compressed\n{LATENT_DIM} numbers",
            codes[:, None, :],
            {"cmap": "PuOr", "vmin": -2.5, "vmax": 2.5},
        ),
        ("reconstruction", restored, {"cmap": "gray", "vmin": 0, "vmax": 16}),
        (f"PCA\n{LATENT_DIM} numbers", pca, {"cmap": "gray", "vmin": 0, "vmax": 16}),
    ]
    figure = Figure(figsize=(10.4, 3.9), dpi=110, facecolor="white")
    heights = [len(cells[0]) if len(cells[0]) > 1 else 2.4 for _, cells, _ in rows]
    grid = figure.subplots(len(rows), 10, gridspec_kw={"height_ratios": heights})
    for line, (name, cells, style) in zip(grid, rows, strict=True):
        for ax, cell in zip(line, cells, strict=True):
            ax.imshow(cell, aspect="auto", **style)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("#c8ccd2")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, fontsize=11)
    figure.subplots_adjust(left=0.135, right=0.995, top=0.99, bottom=0.09, wspace=0.06, hspace=0.08)
    figure.text(
        0.135,
        0.022,
        f"Held-out error: narrows {errors[0]:.3f}, PCA {errors[1]:.3f} "
        f"({errors[0] / errors[1]:.2f} × PCA's), mean square in scaled units.",
        fontsize=10.5,
        color="#4a5260",
    )
    figure.savefig(OUT)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
