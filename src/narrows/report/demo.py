"""The demo: four models on real data in about a minute, as `narrows demo` runs it.

The data are scikit-learn's digits (1,797 images of 8 × 8, from the UCI repository), a fifth of them
held out. Every parameter except width, architecture and seed has its default; nothing was chosen by
looking at the held-out rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from narrows.exceptions import FileError
from narrows.io.write import check_output
from narrows.report.formatting import count
from narrows.report.measures import ranking
from narrows.report.model_report import commands_section, page_of, prepare
from narrows.report.page import Page, Picture, Section, Table, check_page, draw, publish, template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.report.content import Content

SEED = 0
LATENT_DIM = 8  # of 64 pixels
HELD_OUT = 0.2  # share of the images
FOLDS = 5
N_SHOWN = 6  # digits in each picture of all models

MODELS = {  # file stem: class and architecture
    "dense": ("Autoencoder", "dense"),
    "conv": ("Autoencoder", "conv"),
    "denoising": ("DenoisingAutoencoder", "dense"),
    "variational": ("VariationalAutoencoder", "dense"),
}
# The sections of the demo's own page, each of the model where there is most to see.
SECTIONS = (
    ("conv", ("samples",)),
    ("denoising", ("denoising",)),
    ("variational", ("map", "grid", "traversals", "interpolations", "generated")),
    ("conv", ("training", "errors", "comparison", "cost", "model")),
)
COLUMNS = ("model", "error", "× PCA's", "R²", "seconds")


class Digits(NamedTuple):
    """Real images with labels, split into training and test rows."""

    X: NDArray[np.float64]  # (n, 8, 8)
    X_test: NDArray[np.float64]
    y: NDArray[np.int64]
    y_test: NDArray[np.int64]


def run_demo(
    folder: str | Path = "narrows-demo",
    *,
    echo: Callable[[str], None] = print,
    overwrite: bool = False,
    max_epochs: int = 100,
    more_pages: Sequence[tuple[str, str]] = (),
) -> Path:
    """Fit four models on scikit-learn's digits; write tables, pictures, models and pages.

    Parameters
    ----------
    folder : str or Path
        Where everything is written; made if missing.
    echo : callable
        Called with each line of text.
    overwrite : bool
        Replace the files of an earlier demo.
    max_epochs : int
        The largest number of epochs of each fit.
    more_pages : list of (str, str)
        Files in the folder that the caller writes, and the text that links each.

    Returns
    -------
    Path
        The page that links all others.

    Raises
    ------
    FileError
        Files exist already and ``overwrite`` is false, or the folder cannot be made.
    """
    import torch

    started = time.monotonic()
    folder = Path(folder)
    _prepare_folder(folder, overwrite)
    # Such small networks gain nothing from more threads, and lose on a busy machine; one thread
    # also gives the same bits on any number of cores.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        index = _run(folder, echo, overwrite, max_epochs, more_pages)
    finally:
        torch.set_num_threads(n_threads)
    echo(f"\nPages, pictures and model files are in {folder}; start with {index}.")
    echo(f"The demo took {time.monotonic() - started:.0f} s.")
    return index


def _run(
    folder: Path,
    echo: Callable[[str], None],
    overwrite: bool,
    max_epochs: int,
    more_pages: Sequence[tuple[str, str]],
) -> Path:
    data = load_split()
    n, held = len(data.X), len(data.X_test)
    echo(f"scikit-learn's digits, 8 × 8: {n:,} images to fit on, {held} held out (seed {SEED}).\n")
    contents, pages = {}, {}
    for stem in MODELS:
        contents[stem] = _fit(stem, data, max_epochs)
        est = contents[stem].est
        echo(f"fitted {label(stem)}: {count(est.n_iter_, 'epoch')} in {est.fit_seconds_:.1f} s")
        est.save(folder / f"{stem}.safetensors", overwrite=overwrite)
        pages[stem] = page_of(contents[stem], _python(stem), label(stem), _caveat(data))
        publish(folder / f"{stem}.html", pages[stem])
    errors = compare(contents)
    echo(f"\nOn the held-out images, from {LATENT_DIM} numbers each:\n")
    echo(as_text(COLUMNS, errors))
    accuracies = classify(data, max_epochs)
    echo(f"\nLabels predicted by logistic regression, the same {FOLDS} folds (mean ± s.d.):\n")
    echo(as_text(("pipeline", "accuracy"), accuracies))
    links = [*more_pages, *((f"{stem}.html", f"The page of {label(stem)}") for stem in contents)]
    own = [_models_section(contents, errors, links), _classes_section(accuracies)]
    return publish(folder / "index.html", _index(own, contents, pages))


def load_split() -> Digits:
    """The digits, a stratified fifth held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits().images, load_digits().target
    return Digits(*train_test_split(X, y, test_size=HELD_OUT, stratify=y, random_state=SEED))


def label(stem: str) -> str:
    """The name of a model in tables, such as "Autoencoder, conv"."""
    return ", ".join(MODELS[stem])


def compare(contents: dict[str, Content]) -> list[list[str]]:
    """One row for each model and for PCA: error, its ratio to PCA's, R², seconds to fit."""
    rows = []
    for stem, content in contents.items():
        n = content.numbers
        ratio = "–" if n.ratio is None else f"{n.ratio:.3f}"
        rows.append((label(stem), n.model, ratio, f"{content.est.fit_seconds_:.1f}"))
    if n.pca is not None:
        rows.append(("PCA", n.pca, "1", ""))
    return [[name, f"{m.mse:.4f}", ratio, f"{m.r2:.4f}", s] for name, m, ratio, s in rows]


def classify(data: Digits, max_epochs: int) -> list[list[str]]:
    """Cross-validated accuracy of logistic regression on raw pixels, PCA's codes and codes.

    Every transformer is fitted again in each fold, on that fold's training rows only.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    from narrows.models.autoencoder import Autoencoder

    X = np.concatenate([data.X, data.X_test]).reshape(-1, 64)
    y = np.concatenate([data.y, data.y_test])
    k, last = LATENT_DIM, LogisticRegression(max_iter=5000)
    autoencoder = Autoencoder(latent_dim=k, max_epochs=max_epochs, random_state=SEED)
    pipelines = {
        "LogisticRegression on 64 raw pixels": make_pipeline(last),
        f"PCA({k}), LogisticRegression": make_pipeline(PCA(k, random_state=SEED), last),
        f"Autoencoder(latent_dim={k}), LogisticRegression": make_pipeline(autoencoder, last),
    }
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    scores = {name: cross_val_score(p, X, y, cv=folds) for name, p in pipelines.items()}
    return [[name, f"{score.mean():.3f} ± {score.std():.3f}"] for name, score in scores.items()]


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text.

    >>> print(as_text(("a", "b"), [["x", "1.0"]]))
    a    b
    x  1.0
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for name, *cells in (header, *rows):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def _prepare_folder(folder: Path, overwrite: bool) -> None:
    """Make the folder, and check before any work that every file may be written."""
    if folder.is_file() or not folder.parent.is_dir():
        raise FileError(
            f"The folder {str(folder)!r} cannot be made: it is a file, or there is no folder "
            f"{str(folder.parent)!r}; choose another name (-o FOLDER)."
        )
    folder.mkdir(exist_ok=True)
    for stem in (*MODELS, "index"):
        check_page(folder / f"{stem}.html", overwrite)
        check_output(folder / f"{stem}.safetensors", (".safetensors",), overwrite=overwrite)


def _fit(stem: str, data: Digits, max_epochs: int) -> Content:
    from narrows.estimators.registry import model_class

    name, architecture = MODELS[stem]
    est = model_class(name)(
        latent_dim=LATENT_DIM, random_state=SEED, max_epochs=max_epochs, architecture=architecture
    )
    return prepare(est.fit(data.X), data.X_test, data.y_test, None, SEED)


def _python(stem: str) -> list[str]:
    """The lines that fit this model and write its page."""
    values = {"latent_dim": LATENT_DIM, "seed": SEED, "held_out": HELD_OUT, "stem": stem}
    name, architecture = MODELS[stem]
    lines = template("demo.py.jinja").render(name=name, architecture=architecture, **values)
    return lines.splitlines()


# ------------------------------------------------------------------ the demo's own page


def _caveat(data: Digits) -> str:
    return (
        f"Measured on {len(data.X_test)} images that were held out (seed {SEED}); fitted on the "
        f"other {len(data.X):,}. PCA was fitted on the same rows, at the same width."
    )


def _index(own: list[Section], contents: dict[str, Content], pages: dict[str, Page]) -> Page:
    """All models side by side, then each of ``SECTIONS``."""
    pngs = draw(own)
    borrowed = []
    for stem, ids in SECTIONS:
        for section in pages[stem].sections:
            if section.id in ids:
                borrowed.append(replace(section, kicker=label(stem)))
                pngs |= {
                    picture.name: pages[stem].pngs[picture.name] for picture in section.pictures
                }
    ratios = {stem: content.numbers.ratio or 0.0 for stem, content in contents.items()}
    span = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}\N{NO-BREAK SPACE}×"
    return replace(
        pages["conv"],
        kicker="narrows demo · scikit-learn's digits, 8 × 8 pixels",
        title="Four autoencoders and PCA",
        headline=f"With {LATENT_DIM} numbers for 64 pixels, four autoencoders have {span} PCA's "
        "error on held-out digits.",
        tiles=[(f"{ratio:.2f} ×", label(stem)) for stem, ratio in ratios.items()],
        sections=[*own, *borrowed, commands_section(["narrows demo"])],
        pngs=pngs,
    )


def _models_section(
    contents: dict[str, Content], errors: list[list[str]], links: list[tuple[str, str]]
) -> Section:
    ranked = ranking(contents["dense"].numbers.model.errors, N_SHOWN)
    captions = {
        "Typical": "Digits with typical errors of the dense autoencoder.",
        "Worst": "Digits with the largest errors of the dense autoencoder.",
    }
    pictures = [_side_by_side(contents, kind, ranked[kind], captions[kind]) for kind in captions]
    note = "Error: mean squared error per element in scaled units, on held-out images."
    caption = "Held-out error at the same width"
    return Section(
        "models",
        "The same digits by every model",
        f"All have {LATENT_DIM} numbers for 64 pixels.",
        pictures,
        [Table(caption, ("", *COLUMNS[1:]), errors, note, wide=True)],
        links=links,
    )


def _side_by_side(
    contents: dict[str, Content], kind: str, rows: list[int], caption: str
) -> Picture:
    samples = contents["dense"].samples(rows)
    shown = {"original": samples.original}
    shown |= {stem: content.samples(rows).restored for stem, content in contents.items()}
    if samples.pca is not None:
        shown["PCA"] = samples.pca
    alt = f"Held-out digits, and their reconstructions by {', '.join(list(shown)[1:])}."
    figure = contents["dense"].plotter.rows(shown)
    return Picture(f"models-{kind.lower()}", figure, alt, caption)


def _classes_section(accuracies: list[list[str]]) -> Section:
    lead = (
        "The autoencoder is given no labels: it is one step of a scikit-learn pipeline, fitted "
        f"again in each of {FOLDS} folds."
    )
    table = Table("Cross-validated accuracy", ("", "Accuracy"), accuracies, wide=True)
    return Section("classes", "Classifying the codes", lead, tables=[table])
