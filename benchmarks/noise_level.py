"""The noise level that is found in photographs, and what a wrong one costs.

    OMP_NUM_THREADS=1 python benchmarks/noise_level.py --test Set12 --model model.safetensors

White Gaussian noise of a known σ (white is 255) is added to the grey photographs of a folder and to
those of scikit-image, one seed per image, neither clipped nor rounded. ``results/noise_level.md``
has the mean level found for each set, the largest where there is no or almost no noise, and the
seconds per estimate; with ``--model`` (from ``denoising.py train``) also the PSNR of grey images
denoised with the level found and with the true one (one view, not eight).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from numpy.typing import NDArray

import narrows
from denoising import read_folder
from narrows import Denoiser
from narrows.denoising import psnr

Image = NDArray[np.float32]
GREY = ("camera", "coins", "moon", "page", "brick", "grass", "gravel", "clock", "cell")
COLOUR = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "retina")
COLOUR += ("hubble_deep_field",)
SIGMAS = (0, 2, 5, 10, 15, 25, 50)
DENOISED = (5, 15, 25, 50)
OUT = Path(__file__).parent / "results" / "noise_level.md"


def photographs() -> dict[str, Image]:
    """Those of scikit-image that come with it, white = 1, and one of every other pixel."""
    found = {name: np.asarray(getattr(skimage.data, name)()) for name in GREY + COLOUR}
    found["camera, every other pixel"] = found["camera"][::2, ::2]
    return {name: image.astype(np.float32) / 255 for name, image in found.items()}


def measure(
    clean: dict[str, Image], model: Denoiser | None, seeds: int
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Levels found (seeds, image, σ), PSNR lost in dB (seeds, image, σ) and seconds an estimate."""
    estimator = Denoiser(white=1.0)
    levels = np.zeros((seeds, len(clean), len(SIGMAS)))
    lost = np.full((seeds, len(clean), len(DENOISED)), np.nan)
    start, seconds = 0.0, 0.0
    for seed in range(seeds):
        for i, image in enumerate(clean.values()):
            for j, sigma in enumerate(SIGMAS):
                noise = np.random.default_rng([seed, i, sigma]).standard_normal(image.shape)
                noisy = (image + sigma / 255 * noise).astype(np.float32)
                start = time.perf_counter()
                levels[seed, i, j] = level = estimator.estimate_noise(noisy)
                seconds += time.perf_counter() - start
                if model is not None and sigma in DENOISED and image.ndim == 2:
                    told, found = (
                        psnr(image, model.denoise(noisy, s).clip(0, 1)) for s in (sigma, level)
                    )
                    lost[seed, i, DENOISED.index(sigma)] = told - found
    return levels, lost, seconds / levels.size


def table(
    name: str, clean: dict[str, Image], model: Denoiser | None, seeds: int
) -> tuple[list[str], NDArray[Any], NDArray[Any]]:
    """The lines of one set; the levels (image, σ) and the PSNR lost (image, σ)."""
    levels, lost, seconds = measure(clean, model, seeds)
    images = levels.mean(0)
    header = " | ".join(f"σ {sigma}" for sigma in SIGMAS)
    lines = [f"## {name}", "", f"| | {header} |", "|---" * (len(SIGMAS) + 1) + "|"]
    rows = {"mean of the images": images.mean(0), "the largest": levels.max((0, 1))}
    rows |= dict(zip(clean, images, strict=True))
    for title, row in rows.items():
        lines.append(f"| {title} | " + " | ".join(f"{level:.2f}" for level in row) + " |")
        if title == "mean of the images":
            off = [100 * (f / s - 1) if s else np.nan for f, s in zip(row, SIGMAS, strict=True)]
            cells = ["–" if np.isnan(o) else f"{o:+.1f} %" for o in off]
            lines.append("| its error | " + " | ".join(cells) + " |")
    if model is not None:
        losses = dict(zip(DENOISED, np.nanmean(lost, (0, 1)), strict=True))
        cells = [f"{losses[sigma]:+.3f}" if sigma in losses else "–" for sigma in SIGMAS]
        lines.append("| dB lost by the level found | " + " | ".join(cells) + " |")
    return [*lines, "", f"{seconds:.3f} s an estimate.", ""], images, lost.mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", type=Path, help="folder of grey photographs, such as Set12")
    parser.add_argument("--model", type=Path, help="a Denoiser; without it no PSNR")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    model: Denoiser | None = None
    if args.model is not None:
        model = narrows.load(args.model).set_params(sides=1, white=1.0)
    sets = {} if args.test is None else {args.test.name: read_folder(args.test)}
    sets["scikit-image"] = photographs()
    lines = ["# The noise level found in photographs", ""]
    levels, lost = [], []
    for name, clean in sets.items():
        added, found, cost = table(name, clean, model, args.seeds)
        levels.append(found)
        lost.append(cost)
        lines += added
        print("\n".join(added), flush=True)
    means, costs = np.concatenate(levels).mean(0), np.nanmean(np.concatenate(lost), 0)
    off = [f"{100 * (m / s - 1):+.1f} % at σ {s}" for m, s in zip(means, SIGMAS, strict=True) if s]
    lines += ["", f"All images together: {', '.join(off)}."]
    if model is not None:
        lines += [f"PSNR lost on average over σ 5, 15, 25 and 50: {costs.mean():.3f} dB."]
    lines += [
        "",
        f"Means of {args.seeds} seeds. scikit-image {skimage.__version__}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads.",
        "",
    ]
    args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
