"""Denoise handwritten digits: noisy, denoised, restored by PCA, clean.

    python examples/denoise_digits.py

The data come with scikit-learn: 1,797 images of 8 × 8 pixels from 0 to 16. The model sees clean
digits only and adds noise itself in training; the digits in the picture are held out.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from narrows import DenoisingAutoencoder
from narrows.denoising import compare_cleaning


def main(out: str, max_epochs: int) -> None:
    digits = load_digits()
    X, X_test, _, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    dae = DenoisingAutoencoder(
        noise_level=1.0,  # as strong as the digits themselves
        latent_dim=16,
        max_epochs=max_epochs,
        random_state=0,
    ).fit(X)
    for row in compare_cleaning(dae, X_test):
        print(f"{row.method:28s} {row.mse:.3f} of the variance is error")

    noisy = dae.corrupt(X_test, random_state=0)
    answers = {
        "noisy": noisy,
        "denoised": dae.denoise(noisy),
        "PCA": dae.pca_.reconstruct(noisy),
        "clean": X_test,
    }
    shown = [int(np.flatnonzero(y_test == digit)[0]) for digit in range(10)]
    figure = Figure(figsize=(10.4, 3.95), dpi=110, facecolor="white")
    for line, (name, images) in zip(figure.subplots(4, 10), answers.items(), strict=True):
        error = ((images - X_test) ** 2).mean() / X_test.var()
        for ax, i in zip(line, shown, strict=True):
            ax.imshow(images[i], cmap="gray", vmin=0, vmax=16)
            ax.set(xticks=[], yticks=[])
        label = name if name == "clean" else f"{name}\nerror {error:.2f}"
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8, fontsize=11)
    figure.subplots_adjust(left=0.1, right=0.995, top=0.99, bottom=0.01, wspace=0.06, hspace=0.06)
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="docs/noisy-denoised-clean.png")
    parser.add_argument("--max-epochs", type=int, default=100)
    main(**vars(parser.parse_args()))
