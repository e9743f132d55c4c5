"""Fill gaps in damped oscillations and remove their noise; compare with the best filters.

    python examples/clean_signals.py

The signals are generated: two damped sines in two channels, like two sensors on one vibrating beam.
The model is trained on clean signals and removes spans of them itself; the test signals have gaps
and, because no sensor is perfect, noise.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

from narrows import DenoisingAutoencoder
from narrows.denoising import compare_cleaning

TIME = np.linspace(0, 1, 128)


def make_signals(n: int, seed: int) -> np.ndarray:
    """Rows (n, 2, 128): two sensors of two modes, each with its own decay and phase."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform([2, 6], [5, 12], (n, 2))[:, :, None]
    decay, phase = rng.uniform([[[1]], [[0]]], [[[4]], [[2 * np.pi]]], (2, n, 2))[..., None]
    modes = np.exp(-decay * TIME) * np.sin(2 * np.pi * frequency * TIME + phase)
    return np.einsum("cm,nmt->nct", [[1.0, 0.5], [0.4, -0.8]], modes)


def main(out: str, max_epochs: int, rows: int) -> None:
    X, X_test = make_signals(rows, seed=0), make_signals(400, seed=1)
    dae = DenoisingAutoencoder(
        noise="dropout", noise_level=(0.0, 0.4), axes="CL", max_epochs=max_epochs, random_state=0
    ).fit(X)
    noise = np.random.default_rng(2).normal(0, 0.1, X_test.shape)
    noisy = dae.corrupt(X_test + noise, random_state=0, noise_level=0.25)
    compared = compare_cleaning(dae, X_test, X_noisy=noisy)
    for row in compared:
        print(f"{row.method:28s} {row.mse:.3f} of the variance is error")

    cleaned = dae.denoise(noisy)
    figure = Figure(figsize=(10.4, 4.6), dpi=110, facecolor="white", layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for i, column in enumerate(axes.T):
        for channel, ax in enumerate(column):
            ax.plot(TIME, X_test[i, channel], color="#cdd3da", lw=6, label="clean")
            ax.plot(TIME, noisy[i, channel], color="#D55E00", lw=0.9, label="given")
            ax.plot(TIME, cleaned[i, channel], color="#0072B2", lw=1.7, label="cleaned")
            ax.spines[["top", "right"]].set_visible(False)
    for channel, name in enumerate(("first sensor", "second sensor")):
        axes[channel, 0].set_ylabel(name)
    figure.supxlabel("time", fontsize=10)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="docs/clean-signals.png")
    parser.add_argument("--max-epochs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    main(**vars(parser.parse_args()))
