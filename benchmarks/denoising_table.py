"""The tables of ``results/denoising.md``, from the rows of ``denoising.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from records import Book, Row, footnote, groups, seeds, show, table

# Published for Set12, averaged over its images (σ 15, 25, 50); trained on Train400 where trained.
PUBLISHED = {
    "DnCNN-S, one model a level (published)": (32.86, 30.44, 27.18),
    "DnCNN-B, blind (published)": (32.68, 30.36, 27.21),
    "BM3D (published)": (32.37, 29.97, 26.72),
}
KEYS = ("section", "data", "method", "sigma", "seed", "clipped", "budget")


def write_table(book: Book) -> None:
    """Write ``denoising.md`` from the last rows of each kind."""
    rows = book.rows(*KEYS)
    parts = ["# Denoising photographs\n"]
    by_section = groups(rows, "section")
    parts += [_trained(by_section.get(("train",), []))]
    for (data, clipped), some in groups(by_section.get(("test",), []), "data", "clipped").items():
        parts.append(_tested(data, clipped, some))
    parts += [
        _noisy(by_section.get(("noisy",), [])),
        _alone(by_section.get(("alone",), [])),
        _large(by_section.get(("large",), [])),
        footnote(rows),
    ]
    book.write("\n".join(filter(None, parts)))


def _mean(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _trained(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = [
        [
            r["data"],
            str(r["seed"]),
            f"{r['parameters']:,}",
            f"{r['seconds'] / 60:.1f}",
            str(r["threads"]),
            str(r["epochs"]),
            f"{r['validation_psnr']:.2f}",
            f"{r['megabytes']:.1f}",
        ]
        for r in rows
    ]
    head = [
        "clean images",
        "seed",
        "parameters",
        "minutes",
        "cores",
        "epochs",
        "held-out PSNR",
        "MB",
    ]
    return "One blind model, σ 0 to 55 (its held-out images have such noise, too):\n\n" + table(
        head, lines
    )


def _tested(data: str, clipped: bool, rows: list[Row]) -> str:
    sigmas = sorted({row["sigma"] for row in rows})
    lines: list[tuple[float, list[str]]] = []
    for (method,), some in groups(rows, "method").items():
        of = {s: [r for r in some if r["sigma"] == s] for s in sigmas}
        cells = [show(_mean(of[s], "psnr"), ".2f") if of[s] else "–" for s in sigmas]
        alike = [show(_mean(of[s], "ssim"), ".3f") if of[s] else "–" for s in sigmas]
        speed = _mean(some, "megapixels") / max(_mean(some, "seconds"), 1e-9)
        fast = show(speed, ".3g") if method != "noisy" else "–"
        lines.append((_mean(some, "psnr"), [method, *cells, *alike, fast]))
    if data == "Set12" and not clipped:
        for name, found in PUBLISHED.items():
            cells = [f"{v:.2f}" for v in found]
            lines.append((sum(found) / 3, [name, *cells, *["–"] * len(sigmas), "–"]))
    lines.sort(key=lambda line: -line[0])
    head = ["method", *(f"PSNR σ {s:g}" for s in sigmas), *(f"SSIM σ {s:g}" for s in sigmas)]
    kind = ", noisy images of 8 bits" if clipped else ""
    count = len({row["seed"] for row in rows})
    of_seeds = "" if count > 1 else "A single seed of noise for each image.\n\n"
    return f"## {data}{kind}\n\n{of_seeds}" + table(
        [*head, "Mpixel/s"], [line for _, line in lines]
    )


def _noisy(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = [
        [method, f"{budget / 60:g}", seeds(len(some)), f"{_mean(some, 'psnr'):.2f}"]
        for (method, budget), some in groups(rows, "method", "budget").items()
    ]
    return "## The same network without clean images, σ 25\n\n" + table(
        ["learned from", "minutes", "seeds", f"PSNR on {rows[0]['data']}"], lines
    )


def _alone(rows: list[Row]) -> str:
    parts = []
    for (data, sigma, clipped), some in groups(rows, "data", "sigma", "clipped").items():
        lines: list[tuple[float, list[str]]] = []
        for (method,), each in groups(some, "method").items():
            value = _mean(each, "psnr")
            seconds = f"{_mean(each, 'seconds'):.1f}"
            alike = f"{_mean(each, 'ssim'):.3f}"
            lines.append((value, [method, seeds(len(each)), f"{value:.2f}", alike, seconds]))
        lines.sort(key=lambda line: -line[0])
        kind = ", 8 bits" if clipped else ""
        parts.append(
            f"### {data}, σ {sigma:g}{kind}\n\n"
            + table(["method", "seeds", "PSNR", "SSIM", "seconds"], [line for _, line in lines])
        )
    return "## From the one image alone\n\n" + "\n".join(parts) if parts else ""


def _large(rows: list[Row]) -> str:
    if not rows:
        return ""
    row: dict[str, Any] = rows[-1]
    return (
        "## A large photograph\n\n"
        f"{row['megapixels']:.0f} million pixels, {row['method']}: {row['seconds']:.0f} s, at most "
        f"{row['peak_gigabytes']:.2f} GB of memory in all.\n"
    )
