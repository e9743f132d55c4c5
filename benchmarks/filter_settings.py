"""Fair settings of the classical filters: the best on average over photographs.

    OMP_NUM_THREADS=1 python benchmarks/filter_settings.py
    OMP_NUM_THREADS=1 python benchmarks/filter_settings.py --filters wavelet

scikit-image's own photographs, grey and colour separately, the middle 256 × 256 pixels of each,
with white Gaussian noise (seed 0, not clipped), σ on the scale to 255. For each filter and σ, the
PSNR of each setting is averaged over the photographs; ``results/filter_settings.md`` has the best
one and that of the rule in `narrows.denoising.compare_filters`. A good rule is near the best
setting.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray

from narrows.denoising import FILTERS, psnr

GREY = ("camera", "coins", "moon", "page", "brick", "clock")
COLOUR = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry")
SIGMAS = (10, 25, 50)
SIDE = 256
OUT = Path(__file__).parent / "results" / "filter_settings.md"

SWEEPS: dict[str, dict[str, tuple[Any, ...]]] = {
    "Gaussian": {"width": (4.4, 4.9, 5.4, 6.0, 6.6), "chroma": (2.0, 4.0, 6.0)},
    "total variation": {"weight": (1.0, 1.2, 1.4, 1.6, 1.9), "chroma": (1.0, 1.5, 2.0)},
    "wavelet": {"basis": ("db2", "sym4"), "strength": (1.0, 1.1, 1.25), "chroma": (1.0, 1.3)},
    "non-local means": {"patch": (5, 7), "h": (0.45, 0.55, 0.65, 0.8)},
}  # fmt: skip


def photographs(names: tuple[str, ...]) -> list[NDArray[np.float32]]:
    """The middle of each, white = 1."""
    found = []
    for name in names:
        whole = getattr(skimage.data, name)()
        top, left = (max(0, (side - SIDE) // 2) for side in whole.shape[:2])
        part = whole[top : top + SIDE, left : left + SIDE]
        found.append(part.astype(np.float32) / 255)
    return found


def mean_psnr(name: str, clean: list[NDArray[np.float32]], sigma: float, **given: Any) -> float:
    """Over the photographs, each with its own noise."""
    filtered = FILTERS[name]
    scores = []
    for i, image in enumerate(clean):
        noise = np.random.default_rng(i).normal(size=image.shape).astype(np.float32)
        scores.append(psnr(image, filtered(image + sigma * noise, sigma, **given)))
    return float(np.mean(scores))


def sweep(name: str, kind: str, clean: list[NDArray[np.float32]], sigma: int) -> list[str]:
    """The row of one filter at one σ."""
    grids = dict(SWEEPS[name])
    if kind == "grey":
        grids.pop("chroma", None)
    settings = [
        dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())
    ]
    scores = [mean_psnr(name, clean, sigma / 255, **given) for given in settings]
    best = settings[int(np.argmax(scores))]
    shown = ", ".join(f"{key} {value}" for key, value in best.items())
    rule = mean_psnr(name, clean, sigma / 255)
    return [name, kind, str(sigma), shown, f"{max(scores):.2f}", f"{rule:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filters", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    sets = {"grey": photographs(GREY), "colour": photographs(COLOUR)}
    lines = [
        "| filter | photographs | σ | best setting | PSNR, dB | by the rule, dB |",
        "|---" * 6 + "|",
    ]
    for name in arguments.filters:
        for kind, sigma in itertools.product(sets, SIGMAS):
            row = sweep(name, kind, sets[kind], sigma)
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    used = f"grey: {', '.join(GREY)}; colour: {', '.join(COLOUR)}"
    lines += ["", f"scikit-image {skimage.__version__}; {used}.", ""]
    arguments.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
