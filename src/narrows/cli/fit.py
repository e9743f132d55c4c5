"""The verb ``fit``: fit a model on data and write it to a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.options import (
    ModelCommand,
    given_parameters,
    listeners_for,
    output_option,
    overwrite_option,
    resize_option,
    tracking_options,
)
from narrows.exceptions import FileError
from narrows.io.write import check_output
from narrows.training import given_rank

if TYPE_CHECKING:
    from narrows.estimators.base import Learner
    from narrows.io.read import Data

__all__ = ["fit", "fit_rows", "rows_to_fit"]


@click.command(cls=ModelCommand)
@click.argument("data")
@click.option(
    "--model",
    metavar="NAME",
    default="autoencoder",
    show_default=True,
    help="The model to fit, as `narrows models` lists them; case and hyphens are ignored. With "
    "--help, shows that model's own parameters too.",
)
@output_option("The model file to write, a name that ends in .safetensors.")
@resize_option
@click.option(
    "--labels",
    metavar="FILE",
    help="A class for each row (text, .npy or IDX), for models of classes such as conditional-vae. "
    "Default: the labels that come with DATA.",
)
@overwrite_option
@tracking_options
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@click.pass_context
def fit(
    ctx: click.Context,
    /,
    data: str,
    out: str,
    resize: str | None,
    labels: str | None,
    overwrite: bool,
    log: str | None,
    track: tuple[str, ...],
    quiet: bool,
    **_: Any,
) -> None:
    """Fit a model on DATA and write it to a file.

    DATA is digits, mnist, fashion-mnist, a folder of images or of .parquet files, a .zarr, or a
    .npy, .npz, .csv, .parquet or IDX file (CSV and IDX also gzipped); mnist is its training images,
    mnist:test its test images. Parameters that are "auto" are chosen from DATA.

    A run of more than half a minute writes OUT.checkpoint: if the run is interrupted, the same
    command with --resume continues it to the same result; once OUT is complete, it says so and
    ends.
    """
    from narrows.estimators.registry import model_class

    model = model_class(ctx.meta["narrows.model"])
    estimator = model(**{"verbose": not quiet, **given_parameters(ctx, model)})
    # of several processes only the first writes; the others may find its file
    may = overwrite or estimator.resume or given_rank() > 0
    path = check_output(out, [".safetensors"], overwrite=may)
    run = check_output(
        estimator.checkpoint or path.with_suffix(".checkpoint"), [".checkpoint"], overwrite=True
    )
    goes_on = estimator.resume and run.exists()
    # a log of another run is not overwritten
    log_on = overwrite or (estimator.resume and (run.exists() or path.exists()))
    listeners = listeners_for(log, track, path, overwrite=log_on)
    estimator.set_params(checkpoint=run, listeners=listeners)
    estimator.check_parameters()  # before anything is read
    earlier = estimator.resume and path.exists() and not goes_on
    from narrows.estimators.base import difference  # torch: only now
    from narrows.training.process_group import join_group

    with join_group() as group:
        with group.all_or_none():
            source = rows_to_fit(estimator, data, resize)
            classes = _classes(estimator, source, labels)
            other = difference(estimator, path, source.X, classes) if earlier else None
        if other == "":
            if not quiet and given_rank() == 0:
                click.echo(
                    f"{path} is complete already; to fit again, give --overwrite without --resume."
                )
            return
        if other and not overwrite:
            raise FileError(f"{other}; give --overwrite to fit again, or choose another name.")
        if overwrite and not estimator.resume:
            run.unlink(missing_ok=True)  # only now that DATA could be read
        estimator = fit_rows(estimator, source, classes)
        estimator.verbose = "auto"  # printing is no property of the model
        with group.all_or_none():
            estimator.save(path, overwrite=may)
    if estimator.stop_reason_ != "interrupted":
        run.unlink(missing_ok=True)
    if not quiet and given_rank() == 0:
        click.echo("\n".join(_summary(estimator, source.name, path)))
        click.echo(f"next: {_next_command(type(estimator).__name__, data, path, resize)}")


def rows_to_fit(estimator: Learner[Any], data: str, resize: str | None) -> Data:
    """DATA as rows, whose axes the estimator gets; a path for models of images of any size."""
    from narrows.estimators.base import Estimator
    from narrows.io.image_files import SUFFIXES, find_images
    from narrows.io.read import Data, read

    place, model = Path(data), type(estimator).__name__
    if isinstance(estimator, Estimator):
        source = read(data, resize=resize, lazy="auto")
        estimator.axes = estimator.axes or source.axes
        return source
    if resize is not None:
        raise click.UsageError(
            f"--resize is not for a {model.lower()}: it takes images of any size."
        )
    takes_rows = model == "Codec"  # tables and arrays as well as images
    folder = place.is_dir() and (not takes_rows or bool(find_images(place)))
    if folder or place.suffix.lower() in SUFFIXES:
        return Data(X=place, name=data)
    return read(data, lazy="auto" if takes_rows else False)


def _classes(estimator: Learner[Any], source: Data, labels: str | None) -> object:
    """The classes of the rows, if the model takes them."""
    from narrows.estimators.class_conditional import ClassConditional
    from narrows.io.read import read_labels

    if isinstance(estimator, ClassConditional):
        return source.y if labels is None else read_labels(labels)
    if labels is not None:
        raise click.UsageError(
            f"--labels is for models of classes, such as conditional-vae; "
            f"{type(estimator).__name__} is not one."
        )
    return None


def fit_rows(estimator: Learner[Any], source: Data, classes: object) -> Learner[Any]:
    """The estimator fitted on the rows; its file keeps the names of their columns."""
    from narrows.io.sources import NamedRows

    # numbers of a table are one image to the Denoiser
    names = None if type(estimator).__name__ == "Denoiser" else source.feature_names
    return estimator.fit(source.X if names is None else NamedRows(source.X, names), classes)


# ------------------------------------------------------------------ what is printed at the end


def _summary(estimator: Learner[Any], name: str, path: Path) -> list[str]:
    """Lines on what was learned from the data called ``name``, how well, and how long it took."""
    from narrows import compression, denoising
    from narrows.report.formatting import count

    card = estimator.info()
    training = card["training"]
    epoch = training["best_epoch"]
    best = f"the best was {epoch}" if epoch else "the start was kept"
    if card["model"] == "Codec":
        assert isinstance(estimator, compression.Codec)
        lines = compression.fit_summary(estimator, name)
    elif card["model"] == "Denoiser":
        assert isinstance(estimator, denoising.Denoiser)
        lines = denoising.fit_summary(estimator, name)
    else:
        lines = _row_lines(card, name)
    return [
        *lines,
        f"took {training['seconds']:.1f} s: {count(training['epochs'], 'epoch')}, {best} "
        f"({training['stop_reason']})",
        f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB",
    ]


def _row_lines(card: dict[str, Any], name: str) -> list[str]:
    from narrows.report.formatting import count

    shape = " × ".join(map(str, card["input_shape"]))
    kept = card["parameters"].get("test_size")
    return [
        f"{card['model']} of {name}: {count(card['training']['rows'], 'row')}, each {shape} to "
        f"{count(card['latent_dim'], 'number')} and back",
        f"chosen: {card['architecture']} networks of {card['n_parameters']:,} parameters, "
        f"distance {card['distance']}, scaling {card['scaling']}",
        *(
            [f"kept back: {kept:.0%} of the rows, on which `narrows report` measures"]
            if kept
            else []
        ),
        *error_lines(card),
    ]


def error_lines(card: dict[str, Any]) -> list[str]:
    """The validation rows' error and PCA's at the same width, from a model's ``info``.

    >>> run = {"epochs": 3, "stop_reason": "the budget was used", "validation_error": 0.5}
    >>> card = {"starts_at": "PCA", "training": run | {"validation_error_pca": 0.5}}
    >>> error_lines(card)[1].partition(": ")[2]
    'train longer (--max-time, --max-epochs; in Python max_time, max_epochs)'
    """
    from narrows.estimators.summary import SAME, advice_on_pca
    from narrows.report.formatting import count

    training = card["training"]
    error, pca = training["validation_error"], training["validation_error_pca"]
    shown = f"validation error {error:.4g} (mean squared error per number, scaled units)"
    if pca is None:
        return [f"{shown}; PCA of this width is too large to fit"]
    shown = f"{shown}; PCA's at the same width is {pca:.4g}"
    if pca <= 0:
        return [shown]
    ratio = error / pca
    if ratio < 1 - SAME:
        return [f"{shown}: {ratio:.2f} × PCA's"]
    yet, advice = advice_on_pca(card)
    after = f" after {count(training['epochs'], 'epoch')}" if yet else ""
    what = f"no better than PCA{' yet' * yet} ({ratio:.2f} × its error){after}: {advice}"
    return [shown, what]


def _next_command(model: str, data: str, path: Path, resize: str | None) -> str:
    """The command that shows what was learned, or uses it."""
    if model == "Codec":
        out = re.sub(r"[^\w.-]+", "-", Path(data).stem or "data") + ".narrow"
        return shlex.join(["narrows", "compress", str(path), data, "-o", out])
    if model == "Denoiser":
        return shlex.join(["narrows", "denoise", "DATA", "-m", str(path), "-o", "OUT"])
    words = ["narrows", "report", str(path), data, "-o", str(path.with_suffix(".html"))]
    if resize is not None:
        words += ["--resize", resize]
    return shlex.join(words)
