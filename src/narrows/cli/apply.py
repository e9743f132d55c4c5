"""The verbs that use a fitted model: encode, decode, reconstruct, sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.options import output_option, overwrite_option, resize_option

if TYPE_CHECKING:
    from narrows.io.read import Data, Lazy

__all__ = ["answer_rows", "decode", "encode", "loaded", "reconstruct", "sample"]

ARRAY = "Where to write: a name that ends in .npy, .npz or .csv."
ROWS = f"{ARRAY[:-1]}; of images also .png (one sheet) or a folder of PNGs (a name with no suffix)."


@click.command
@click.argument("model")
@click.argument("data")
@output_option(ARRAY)
@resize_option
@overwrite_option
def encode(model: str, data: str, out: str, resize: Any, overwrite: bool) -> None:
    """Write the codes of DATA's rows."""
    from narrows.io.write import ARRAYS, check_output, write_rows

    check_output(out, ARRAYS, overwrite=overwrite)
    estimator = loaded(model, "transform")
    rows = rows_for(estimator, data, resize, lazy="auto").X
    if _streams(out):
        _say(estimator.transform(rows, out=out, overwrite=overwrite), Path(out), "codes")
        return
    codes = estimator.transform(rows)
    names = [str(name) for name in estimator.get_feature_names_out()]
    _say(codes, write_rows(codes, out, names=names, overwrite=overwrite), "codes")


@click.command
@click.argument("model")
@click.argument("codes")
@output_option(ROWS)
@overwrite_option
def decode(model: str, codes: str, out: str, overwrite: bool) -> None:
    """Write what MODEL makes of CODES.

    CODES is a .npy, .npz or .csv with a row of numbers for each code, as `encode` writes it.
    """
    from narrows.io.read import read

    _check(out, overwrite)
    estimator = loaded(model, "inverse_transform")
    _write(estimator, estimator.inverse_transform, read(codes).X, out, overwrite)


@click.command
@click.argument("model")
@click.argument("data")
@output_option(ROWS)
@resize_option
@overwrite_option
def reconstruct(model: str, data: str, out: str, resize: Any, overwrite: bool) -> None:
    """Write DATA's rows, encoded and decoded again."""
    _check(out, overwrite)
    estimator = loaded(model, "reconstruct")
    answer_rows(estimator, estimator.reconstruct, data, out, overwrite, resize)


def answer_rows(
    estimator: Any,
    answer: Callable[..., Any],
    data: str,
    out: str,
    overwrite: bool,
    resize: Any = None,
) -> None:
    """Write what the model answers to DATA's rows."""
    _check(out, overwrite)
    rows = rows_for(estimator, data, resize, lazy="auto")
    _write(estimator, answer, rows.X, out, overwrite)


@click.command
@click.argument("model")
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="Rows."
)
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same rows.")
@click.option(
    "--temperature", default=1.0, show_default=True, help="Below 1 draws nearer to the typical."
)
@click.option("--label", metavar="CLASS", help="Of this class (models that are told classes).")
@output_option(ROWS)
@overwrite_option
def sample(
    model: str,
    count: int,
    seed: int | None,
    temperature: float,
    label: str | None,
    out: str,
    overwrite: bool,
) -> None:
    """Write new rows, drawn from MODEL.

    For models with a prior, and any that was fitted with a --sampler.
    """
    _check(out, overwrite)
    estimator = loaded(model, "sample")
    more = {} if label is None else {"y": _class_of(estimator, label)}
    rows = estimator.sample(count, random_state=seed, temperature=temperature, **more)
    _write_rows(estimator, rows, out, overwrite)


def _class_of(estimator: Any, label: str) -> Any:
    """The class that was typed, as the model knows it."""
    if not hasattr(estimator, "told_classes"):
        kind = type(estimator).__name__
        raise click.UsageError(f"--label is for a model that is told classes; {kind} is not.")
    known = {str(value): value for value in estimator.classes_.tolist()}
    return known.get(label, label)


# what a verb needs of a model, in words, and a model that has it
NEEDED = {
    "transform": ("no codes of one length", "autoencoder"),
    "inverse_transform": ("no codes of one length", "autoencoder"),
    "reconstruct": ("no codes of one length", "autoencoder"),
    "sample": ("nothing to sample from (it was fitted without --sampler)", "vae"),
    "denoise": ("no way to tell noise from the rest", "denoiser"),
    "compress": ("no way to write small files", "codec"),
}


VERBS = {"Denoiser": "denoise", "Codec": "compress"}  # what else uses a model


def loaded(model: str, method: str) -> Any:
    """The model of a file, which must have the method that the verb calls."""
    from narrows import load
    from narrows.exceptions import ParameterError

    estimator = load(model)
    if not hasattr(estimator, method) or _is_codec(estimator) != (method == "compress"):
        lacks, name = NEEDED[method]
        kind = type(estimator).__name__
        what = f"{kind} (for `narrows {VERBS[kind]}`)" if kind in VERBS else kind
        raise ParameterError(
            f"{model!r} is of {what}, which has {lacks}; fit one that has, with "
            f"`narrows fit DATA --model {name}`."
        )
    return estimator


def _is_codec(estimator: Any) -> bool:
    return hasattr(estimator, "compress")


def rows_for(estimator: Any, data: str, resize: Any, lazy: Lazy = False) -> Data:
    """DATA for a model that is there: a table's columns must be those it was fitted on."""
    from narrows.exceptions import InputError
    from narrows.io.read import read

    rows = read(data, resize=resize, lazy=lazy)
    # the rows are an array, whose names are compared here; main keeps this to the process
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and rows.feature_names is not None and list(names) != rows.feature_names:
        raise InputError(
            f"The columns of {data!r} are {_few(rows.feature_names)}, but the model was fitted on "
            f"{_few(names)}; give it these, in this order."
        )
    return rows


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def _check(out: str, overwrite: bool) -> None:
    """At the door: nothing is loaded for an output that cannot be written."""
    from narrows.io.write import check_output

    check_output(out, overwrite=overwrite)


def _streams(out: str) -> bool:
    """Whether OUT is written block by block, so that it need not fit in memory."""
    return Path(out).suffix.lower() == ".npy"


def _write(
    estimator: Any, answer: Callable[..., Any], given: Any, out: str, overwrite: bool
) -> None:
    """What the model answers to what is given, rows in the user's units."""
    if _streams(out):
        _say(answer(given, out=out, overwrite=overwrite), Path(out), "rows")
    else:
        _write_rows(estimator, answer(given), out, overwrite)


def _write_rows(estimator: Any, rows: Any, out: str, overwrite: bool) -> None:
    """Rows in the user's units, as pictures where OUT asks for them."""
    from narrows.io.write import ARRAYS, write_rows

    if Path(out).suffix.lower() not in ARRAYS:  # a table's row may hold a picture
        rows = rows.reshape(len(rows), *estimator.input_shape_)
    bounds = estimator.info()["bounds"]  # each channel's lowest and highest value, if it has them
    path = write_rows(
        rows,
        out,
        names=getattr(estimator, "feature_names_in_", None),
        axes=estimator.layout_.axes,
        bounds=bounds and (min(bounds[0]), max(bounds[1])),
        overwrite=overwrite,
    )
    _say(rows, path, "rows")


def _say(rows: Any, path: Path, what: str) -> None:
    shape = " × ".join(str(side) for side in rows.shape[1:])
    click.echo(f"{path}: {len(rows):,} {what} of {shape}, {rows.dtype}")
