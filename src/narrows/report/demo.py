"""The demo: four models on real data in about a minute, as `narrows demo` runs it.

The data are scikit-learn's digits (1,797 images of 8 × 8, from the UCI repository), a fifth of them
held out. Every parameter except width, architecture and seed has its default; nothing was chosen by
looking at the held-out rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import FileError
from narrows.report.measures import Method, ranking
from narrows.report.model_report import commands_section, page_of, prepare
from narrows.report.page import Page, Picture, Section, Table, check_page, draw, publish

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.report.content import Content

SEED = 0
LATENT_DIM = 8  # of 64 pixels
HELD_OUT = 0.2
FOLDS = 5

# file stem: class and parameters besides latent_dim and random_state
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("Autoencoder", {"architecture": "dense"}),
    "conv": ("Autoencoder", {"architecture": "conv"}),
    "denoising": ("DenoisingAutoencoder", {"architecture": "dense"}),
    "variational": ("VariationalAutoencoder", {"architecture": "dense"}),
}

# The demo's own page shows each section for the model where there is most to see.
SECTION_OF = {
    "samples": "conv",
    "denoising": "denoising",
    "map": "variational",
    "grid": "variational",
    "interpolations": "variational",
    "generated": "variational",
    "training": "conv",
    "errors": "conv",
    "comparison": "conv",
    "cost": "conv",
    "model": "conv",
}


@dataclass(frozen=True, slots=True)
class Digits:
    """Real images with labels, split into training and test rows."""

    X: NDArray[np.float64]  # (n, 8, 8)
    y: NDArray[np.int64]
    X_test: NDArray[np.float64]
    y_test: NDArray[np.int64]


def run_demo(
    folder: str | Path = "narrows-demo",
    *,
    echo: Callable[[str], None] = print,
    overwrite: bool = False,
    max_epochs: int = 100,
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

    Returns
    -------
    Path
        The page that links all others.

    Raises
    ------
    FileError
        Files exist already and ``overwrite`` is false, or the folder cannot be made.
    """
    started = time.monotonic()
    folder = Path(folder)
    _prepare_folder(folder, overwrite)
    with _one_thread():
        index = _run(folder, echo, overwrite, max_epochs)
    echo(f"\nPages, pictures and model files are in {folder}; start with {index}.")
    echo(f"The demo took {time.monotonic() - started:.0f} s.")
    return index


def _run(folder: Path, echo: Callable[[str], None], overwrite: bool, max_epochs: int) -> Path:
    data = load_split()
    n, held = len(data.X), len(data.X_test)
    echo(f"scikit-learn's digits, 8 × 8: {n:,} images to fit on, {held} held out (seed {SEED}).\n")
    contents, pages = {}, {}
    for stem in MODELS:
        contents[stem] = _fit(stem, data, max_epochs)
        n_iter, seconds = contents[stem].est.n_iter_, contents[stem].est.fit_seconds_
        echo(f"fitted {label(stem)}: {n_iter} epochs in {seconds:.1f} s")
        contents[stem].est.save(folder / f"{stem}.safetensors", overwrite=overwrite)
        pages[stem] = page_of(contents[stem], _python(stem), label(stem), _caveat(data))
        publish(folder / f"{stem}.html", pages[stem])
    table = compare(contents)
    echo(f"\nOn the held-out images, from {LATENT_DIM} numbers each:\n")
    echo(as_text(COLUMNS, table))
    classified = classify(data, max_epochs)
    echo(f"\nLabels predicted by logistic regression, the same {FOLDS} folds (mean ± s.d.):\n")
    echo(as_text(("pipeline", "accuracy"), classified))
    return publish(folder / "index.html", _index(data, contents, pages, table, classified))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: such small networks gain nothing from more, and lose on a busy machine.

    It also gives the same bits on any number of cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


COLUMNS = ("model", "error", "× PCA's", "R²", "seconds")


def load_split() -> Digits:
    """The digits, a stratified fifth held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    X, X_test, y, y_test = train_test_split(
        digits.images, digits.target, test_size=HELD_OUT, stratify=digits.target, random_state=SEED
    )
    return Digits(X, y, X_test, y_test)


def label(stem: str) -> str:
    """The name of a model in tables, such as "Autoencoder, conv"."""
    name, parameters = MODELS[stem]
    return f"{name}, {parameters['architecture']}"


def compare(contents: dict[str, Content]) -> list[list[str]]:
    """One row for each model and for PCA: error, its ratio to PCA's, R², seconds to fit."""
    rows = []
    for stem, content in contents.items():
        n = content.numbers
        ratio = "–" if n.ratio is None else f"{n.ratio:.3f}"
        rows.append([label(stem), *_scores(n.model, ratio), f"{n.fit_seconds:.1f}"])
    pca = next(iter(contents.values())).numbers.pca
    return rows if pca is None else [*rows, ["PCA", *_scores(pca, "1"), ""]]


def _scores(method: Method, ratio: str) -> list[str]:
    return [f"{method.mse:.4f}", ratio, f"{method.r2:.4f}"]


def classify(data: Digits, max_epochs: int) -> list[list[str]]:
    """Cross-validated accuracy of logistic regression on raw pixels, PCA's codes and codes.

    Every transformer is fitted again in each fold, on that fold's training rows only.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    from narrows import Autoencoder

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
    rows = []
    for name, pipeline in pipelines.items():
        scores = cross_val_score(pipeline, X, y, cv=folds)
        rows.append([name, f"{scores.mean():.3f} ± {scores.std():.3f}"])
    return rows


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text.

    >>> print(as_text(("a", "b"), [["x", "1.0"]]))
    a    b
    x  1.0
    """
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in cells
    )


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
        model = folder / f"{stem}.safetensors"
        if model.exists() and not overwrite:
            raise FileError(
                f"{str(model)!r} exists already; choose another folder (-o FOLDER), or overwrite "
                "it (overwrite=True, --overwrite)."
            )


def _fit(stem: str, data: Digits, max_epochs: int) -> Content:
    import narrows

    name, parameters = MODELS[stem]
    est = getattr(narrows, name)(
        latent_dim=LATENT_DIM, random_state=SEED, max_epochs=max_epochs, **parameters
    )
    return prepare(est.fit(data.X), data.X_test, data.y_test, None, SEED)


def _caveat(data: Digits) -> str:
    return (
        f"Measured on {len(data.X_test)} images that were held out (seed {SEED}); fitted on the "
        f"other {len(data.X):,}. PCA was fitted on the same rows, at the same width."
    )


def _index(
    data: Digits,
    contents: dict[str, Content],
    pages: dict[str, Page],
    table: list[list[str]],
    classified: list[list[str]],
) -> Page:
    """The demo's own page: all models side by side, then the sections of ``SECTION_OF``."""
    own = [_models_section(contents, table), _classes_section(classified)]
    borrowed = [
        replace(section, kicker=label(stem))
        for wanted, stem in SECTION_OF.items()
        for section in pages[stem].sections
        if section.id == wanted
    ]
    pngs = draw(own)
    for section, stem in zip(borrowed, SECTION_OF.values(), strict=True):
        pngs |= {picture.name: pages[stem].pngs[picture.name] for picture in section.pictures}
    ratios = {stem: content.numbers.ratio or 0.0 for stem, content in contents.items()}
    span = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}\N{NO-BREAK SPACE}×"
    return replace(
        pages["conv"],
        kicker="narrows demo · scikit-learn's digits, 8 × 8 pixels",
        title="Four autoencoders and PCA",
        headline=f"With {LATENT_DIM} numbers for 64 pixels, four autoencoders have {span} PCA's "
        "error on held-out digits.",
        caveat=_caveat(data),
        tiles=[(f"{ratio:.2f} ×", label(stem)) for stem, ratio in ratios.items()],
        sections=[*own, *borrowed, commands_section(["narrows demo"])],
        pngs=pngs,
    )


def _models_section(contents: dict[str, Content], table: list[list[str]]) -> Section:
    first = contents["dense"]
    ranked = ranking(first.numbers.model.errors, 6)
    return Section(
        "models",
        "The same digits by every model",
        f"All have {LATENT_DIM} numbers for 64 pixels.",
        [
            _side_by_side(
                contents, "typical", ranked["Typical"], "Typical errors of the dense autoencoder."
            ),
            _side_by_side(
                contents, "worst", ranked["Worst"], "Largest errors of the dense autoencoder."
            ),
        ],
        [
            Table(
                "Held-out error at the same width",
                ("", *COLUMNS[1:]),
                table,
                "Error: mean squared error per element in scaled units, on held-out images.",
                wide=True,
            )
        ],
        links=[(f"{stem}.html", f"The page of {label(stem)}") for stem in contents],
    )


def _side_by_side(
    contents: dict[str, Content], name: str, rows: list[int], caption: str
) -> Picture:
    first = contents["dense"]
    samples = first.samples(rows)
    shown = {"original": samples.original}
    shown |= {stem: content.samples(rows).restored for stem, content in contents.items()}
    if samples.pca is not None:
        shown["PCA"] = samples.pca
    alt = f"Held-out digits, and their reconstructions by {', '.join(list(shown)[1:])}."
    return Picture(f"models-{name}", first.plotter.rows(shown), alt, caption)


def _classes_section(classified: list[list[str]]) -> Section:
    return Section(
        "classes",
        "Classifying the codes",
        "The autoencoder is given no labels: it is one step of a scikit-learn pipeline, fitted "
        f"again in each of {FOLDS} folds.",
        tables=[Table("Cross-validated accuracy", ("", "Accuracy"), classified, wide=True)],
    )


def _python(stem: str) -> list[str]:
    name, parameters = MODELS[stem]
    given = "".join(f", {key}={value!r}" for key, value in parameters.items())
    return [
        "from sklearn.datasets import load_digits",
        "from sklearn.model_selection import train_test_split",
        f"from narrows import {name}",
        "from narrows.report import write_report",
        "",
        "X, y = load_digits().images, load_digits().target",
        "X, X_test, y, y_test = train_test_split(",
        f"    X, y, test_size={HELD_OUT}, stratify=y, random_state={SEED}",
        ")",
        f"est = {name}(latent_dim={LATENT_DIM}, random_state={SEED}{given}).fit(X)",
        f'write_report(est, X_test, "{stem}.html", y=y_test)',
    ]
