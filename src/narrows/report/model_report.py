"""From a fitted model and rows to a page on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.exceptions import FileError, InputError
from narrows.io.write import atomic_write, check_output
from narrows.report import words
from narrows.report.canvas import png
from narrows.report.content import Content, gather
from narrows.report.labels import read_labels
from narrows.report.page import Page, Section, render
from narrows.report.sections import sections
from narrows.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def write_report(
    est: Any,
    X: Any,
    path: str | Path,
    *,
    y: ArrayLike | None = None,
    commands: Sequence[str] | str | None = None,
    feature_names: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
    random_state: int = 0,
) -> Path:
    """Write one HTML page about a fitted model, with PCA's result beside every result.

    The page needs nothing outside itself; its pictures also lie beside it, as PNGs in
    ``<stem>_files``. Pages are best made on rows that the model was not fitted on.

    Parameters: ``est`` a fitted estimator; ``X`` (n, ...) rows as it takes them; ``path`` the
    page's file; ``y`` (n,) labels, which colour the map and are probed; ``commands`` what made
    the model, to be printed (default: the Python lines); ``feature_names`` the columns' names;
    ``title`` the page's (default: the model's name); ``overwrite`` replaces a page that is there;
    ``random_state`` seeds what is drawn at random. Returns the page's path.

    Raises `FileError` when something is there already or the folder is not, `InputError` when
    labels or names do not fit the rows.

    >>> import numpy as np, tempfile
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(est, X, folder + "/report.html")
    ...     page.name, "PCA" in page.read_text()
    ('report.html', True)
    """
    path = Path(path)
    check_place(path, overwrite)
    content = prepare(est, X, y, feature_names, random_state)
    lines = [commands] if isinstance(commands, str) else list(commands or _python(est, path))
    return publish(path, page_of(content, lines, title))


def prepare(
    est: Any, X: Any, y: ArrayLike | None, names: Sequence[str] | None, seed: int
) -> Content:
    """Check what was given at the door, and measure."""
    bare = _without_names(est)
    # whatever is wrong with X, the estimator has the words for it
    (est if hasattr(X, "columns") else bare).transform(X)
    names = names if names is not None else _column_names(est, X)
    rows = np.asarray(X)
    if names is not None and len(names) != rows[0].size:
        raise InputError(
            f"There are {len(names)} feature names for {rows[0].size} features; give one for each."
        )
    labels = None if y is None else read_labels(y, len(rows))
    columns = None if names is None else [str(name) for name in names]
    return gather(bare, rows, labels, columns, seed)


def _without_names(est: Any) -> Any:
    """The same model, for arrays: scikit-learn warns when columns had names and no longer do."""
    if not hasattr(est, "feature_names_in_"):
        return est
    bare = object.__new__(type(est))
    vars(bare).update(vars(est))
    del bare.feature_names_in_
    return bare


def page_of(
    content: Content, commands: list[str], title: str | None = None, caveat: str | None = None
) -> Page:
    """The whole page, drawn."""
    training = content.est.info()["training"]
    shown = sections(content, commands)
    n, model = content.numbers, content.numbers.model.name
    return Page(
        kicker=f"narrows report · {words.count(n.n_rows, content.look.noun)} of "
        + " × ".join(map(str, content.est.input_shape_)),
        title=title or model,
        headline=words.headline(n, content.look.noun),
        caveat=caveat or words.caveat(n.n_rows, training["rows"]),
        tiles=_tiles(content),
        sections=shown,
        foot=f"Made with narrows {__version__}; random choices seeded with {content.seed}.",
        pngs=draw(shown),
    )


def draw(sections: Sequence[Section]) -> dict[str, bytes]:
    """Every picture as PNG, by its name."""
    return {
        picture.name: png(picture.figure) for section in sections for picture in section.pictures
    }


def check_place(path: Path, overwrite: bool) -> None:
    """The page and the folder of its pictures may be written."""
    check_output(path, (".html", ".htm"), overwrite=overwrite)
    folder = files_of(path)
    held = list(folder.iterdir()) if folder.is_dir() else []
    if (held or folder.is_file()) and not overwrite:
        raise FileError(f"{str(folder)!r} is there already; choose another name, or overwrite.")
    if folder.is_file() or not all(item.is_file() and OURS.fullmatch(item.name) for item in held):
        raise FileError(
            f"{str(folder)!r} holds other things than pictures, and writing the report anew would "
            "remove them; choose another name."
        )


# the pictures a report writes: nothing else in its folder may ever be removed
OURS = re.compile(
    r"(samples|denoising|map|grid|interpolations|generated|loss|validation|errors|models)"
    r"(-[\w-]+)?\.png"
)


def files_of(path: Path) -> Path:
    """The folder of a page's pictures."""
    return path.with_name(f"{path.stem}_files")


def publish(path: Path, page: Page) -> Path:
    """Write the pictures, then the page; each appears whole or not at all."""
    text = render(page)
    with atomic_write(path) as file, atomic_write(files_of(path)) as folder:
        folder.mkdir()
        for name, data in page.pngs.items():
            (folder / f"{name}.png").write_bytes(data)
        file.write_text(text, encoding="utf-8")
    return path


def _tiles(content: Content) -> list[tuple[str, str]]:
    n, s = content.numbers, content.numbers.sizes
    ratio = [] if n.ratio is None else [(f"{words.figure(n.ratio)} ×", "PCA's error at this width")]
    probe = n.probes.get("codes")
    probed = [] if probe is None else [
        (words.percent(probe.accuracy), "of labels read by a linear probe")]  # fmt: skip
    return [
        *ratio,
        (f"{n.model.r2:.3f}", "R², the variance restored"),
        (
            f"{s.n_elements:,} → {s.latent_dim:,}",
            f"numbers, {s.n_elements / s.latent_dim:.3g} to 1",
        ),
        *probed,
        (words.duration(n.fit_seconds), "to fit"),
    ]


def _column_names(est: Any, X: Any) -> list[str] | None:
    if hasattr(X, "columns"):
        return [str(name) for name in X.columns]
    names: NDArray[Any] | None = getattr(est, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _python(est: Any, path: Path) -> list[str]:
    name = type(est).__name__
    given = ", ".join(f"{k}={v!r}" for k, v in est.info()["parameters"].items())
    return [
        f"from narrows import {name}",
        "from narrows.report import write_report",
        "",
        f"est = {name}({given}).fit(X_train)",
        f'write_report(est, X, "{path.name}")',
    ]
