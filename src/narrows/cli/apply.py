"""The verbs that use a fitted model: encode, decode, reconstruct, impute, interpolate, sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.options import output_option, overwrite_option, resize_option
from narrows.io.write import ARRAYS, check_output, write_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.estimators.base import Estimator
    from narrows.io.read import Data, Lazy

    Method = Callable[..., NDArray[Any]]  # of a fitted estimator

ARRAY = "Where to write: a name that ends in .npy, .npz or .csv."
ROWS = (
    f"{ARRAY[:-1]}; for images also .png (one sheet) or a folder of PNGs (a name with no suffix)."
)


@click.command
@click.argument("model")
@click.argument("data")
@output_option(ARRAY)
@resize_option
@overwrite_option
def encode(model: str, data: str, out: str, resize: str | None, overwrite: bool) -> None:
    """Write the codes of DATA's rows."""
    check_output(out, ARRAYS, overwrite=overwrite)
    estimator = loaded(model, "transform")
    rows = rows_for(estimator, data, resize, lazy="auto").X
    if _is_npy(out):
        codes = estimator.transform(rows, out=out, overwrite=overwrite)
    else:
        codes = estimator.transform(rows)
        names = [str(name) for name in estimator.get_feature_names_out()]
        write_rows(codes, out, names=names, overwrite=overwrite)
    _report(codes, out, "code")


@click.command
@click.argument("model")
@click.argument("codes")
@output_option(ROWS)
@overwrite_option
def decode(model: str, codes: str, out: str, overwrite: bool) -> None:
    """Decode CODES to rows.

    CODES is a .npy, .npz or .csv file with one code in each row, as `encode` writes it.
    """
    from narrows.io.read import read

    check_output(out, overwrite=overwrite)
    estimator = loaded(model, "inverse_transform")
    _write(estimator, estimator.inverse_transform, read(codes).X, out, overwrite)


@click.command
@click.argument("model")
@click.argument("data")
@output_option(ROWS)
@resize_option
@overwrite_option
def reconstruct(model: str, data: str, out: str, resize: str | None, overwrite: bool) -> None:
    """Encode and decode DATA's rows."""
    check_output(out, overwrite=overwrite)
    estimator = loaded(model, "reconstruct")
    write_answers(estimator, estimator.reconstruct, data, out, overwrite, resize)


@click.command
@click.argument("model")
@click.argument("data")
@output_option(ROWS)
@resize_option
@overwrite_option
def impute(model: str, data: str, out: str, resize: str | None, overwrite: bool) -> None:
    """Fill in DATA's missing values; all others stay as they are.

    MODEL was fitted with --missing mask. The best for this is `narrows fit DATA --model
    denoising-autoencoder --noise masking --missing mask`.
    """
    from narrows.exceptions import ParameterError

    check_output(out, overwrite=overwrite)
    estimator = loaded(model, "reconstruct")
    if estimator.missing != "mask":
        raise ParameterError(
            f"{model!r} was fitted without missing values; to fill some in, fit a model with "
            "`narrows fit DATA --missing mask`."
        )
    write_answers(estimator, estimator.impute, data, out, overwrite, resize)


@click.command
@click.argument("model")
@click.argument("data")
@click.option(
    "--rows",
    "pairs",
    metavar="A,B",
    multiple=True,
    default=["0,1"],
    show_default=True,
    help="From row A of DATA to row B, counted from 0; may be given several times.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=9,
    show_default=True,
    help="Rows written for each pair, the two ends included.",
)
@output_option(ROWS)
@resize_option
@overwrite_option
def interpolate(
    model: str,
    data: str,
    pairs: tuple[str, ...],
    steps: int,
    out: str,
    resize: str | None,
    overwrite: bool,
) -> None:
    """Write rows on the way from one row of DATA to another.

    The way is between their codes, evenly spaced and decoded. A .png has a line for each pair.
    """
    from narrows.report.manifold import interpolate as walk

    check_output(out, overwrite=overwrite)
    between = [_pair(words) for words in pairs]
    estimator = loaded(model, "interpolate")
    walks = walk(estimator, rows_for(estimator, data, resize).X, between, steps)
    _write_rows(estimator, walks.reshape(-1, *walks.shape[2:]), out, overwrite, columns=steps)


def _pair(words: str) -> tuple[int, int]:
    ends = words.split(",")
    if len(ends) != 2 or not all(end.strip().isdecimal() for end in ends):
        raise click.UsageError(
            f"--rows {words!r} must be two row numbers, counted from 0, such as 0,5."
        )
    return int(ends[0]), int(ends[1])


def write_answers(
    estimator: Estimator,
    method: Method,
    data: str,
    out: str,
    overwrite: bool,
    resize: str | None = None,
) -> None:
    """Write the result of the estimator's ``method`` for DATA's rows."""
    rows = rows_for(estimator, data, resize, lazy="auto")
    _write(estimator, method, rows.X, out, overwrite)


@click.command
@click.argument("model")
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="How many rows."
)
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same rows.")
@click.option(
    "--temperature", default=1.0, show_default=True, help="Below 1: rows closer to typical ones."
)
@click.option("--label", metavar="CLASS", help="Only this class, for models of classes.")
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
    """Draw new rows from MODEL.

    MODEL has a prior, or was fitted with --sampler.
    """
    check_output(out, overwrite=overwrite)
    estimator = loaded(model, "sample")
    more = {} if label is None else {"y": _class_of(estimator, label)}
    rows = estimator.sample(count, random_state=seed, temperature=temperature, **more)
    _write_rows(estimator, rows, out, overwrite)


def _class_of(estimator: Estimator, label: str) -> Any:
    """The class of this name, in the type of the classes that the model was fitted with."""
    from narrows.estimators.class_conditional import ClassConditional

    if not isinstance(estimator, ClassConditional):
        kind = type(estimator).__name__
        raise click.UsageError(f"--label is for models of classes; {kind} is not one.")
    known = {str(value): value for value in estimator.classes_.tolist()}
    return known.get(label, label)


# what a model without the method lacks, and a model that has it
NO_CODES = ("no codes of one length", "autoencoder")
NEEDED = {
    "transform": NO_CODES,
    "inverse_transform": NO_CODES,
    "reconstruct": NO_CODES,
    "interpolate": NO_CODES,
    "sample": ("nothing to sample from (it was fitted without --sampler)", "vae"),
    "denoise": ("no method to remove noise", "denoiser"),
    "compress": ("no method to compress", "codec"),
}
VERBS = {"Denoiser": "denoise", "Codec": "compress"}  # the verb of each model of whole images


def loaded(model: str, method: str) -> Any:
    """The model in the file ``model``, which must have the method that the verb calls."""
    from narrows import load
    from narrows.exceptions import ParameterError

    estimator = load(model)
    kind = type(estimator).__name__
    # a codec has methods of other models' names, which take other data
    if not hasattr(estimator, method) or (kind == "Codec") != (method == "compress"):
        lacks, name = NEEDED[method]
        what = f"{kind} (for `narrows {VERBS[kind]}`)" if kind in VERBS else kind
        raise ParameterError(
            f"{model!r} is a model of the kind {what}, which has {lacks}; fit another with "
            f"`narrows fit DATA --model {name}`."
        )
    return estimator


def rows_for(estimator: Estimator, data: str, resize: str | None, lazy: Lazy = False) -> Data:
    """Read DATA for a fitted model: a table's columns must be those it was fitted on."""
    from narrows.exceptions import InputError
    from narrows.io.read import read

    rows = read(data, resize=resize, lazy=lazy)
    # scikit-learn warns that an array has no names; they are compared here
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and rows.feature_names is not None and list(names) != rows.feature_names:
        raise InputError(
            f"The columns of {data!r} are {_few(rows.feature_names)}, but the model was fitted on "
            f"{_few(names)}; give these columns in this order."
        )
    return rows


def labels_of(source: Data) -> NDArray[Any] | None:
    """The labels that came with the data, as names if there are names."""
    if source.y is None or source.y_names is None:
        return source.y
    import numpy as np

    return np.take(source.y_names, source.y)


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def _is_npy(out: str) -> bool:
    """Whether OUT is written block by block, so that it may be larger than memory."""
    return Path(out).suffix.lower() == ".npy"


def _write(estimator: Estimator, method: Method, given: Any, out: str, overwrite: bool) -> None:
    """Write the rows, in the user's units, that the estimator's ``method`` returns."""
    if _is_npy(out):
        _report(method(given, out=out, overwrite=overwrite), out, "row")
    else:
        _write_rows(estimator, method(given), out, overwrite)


def _write_rows(
    estimator: Estimator,
    rows: NDArray[Any],
    out: str,
    overwrite: bool,
    columns: int | None = None,
) -> None:
    """Write rows to a file of numbers, or as pictures, depending on OUT's suffix."""
    if Path(out).suffix.lower() not in ARRAYS:  # a table's row may be an image
        rows = rows.reshape(len(rows), *estimator.input_shape_)
    bounds = estimator.info()["bounds"]  # lowest and highest value of each channel
    path = write_rows(
        rows,
        out,
        names=getattr(estimator, "feature_names_in_", None),
        axes=estimator.layout_.axes,
        bounds=bounds and (min(bounds[0]), max(bounds[1])),
        columns=columns,
        overwrite=overwrite,
    )
    _report(rows, path, "row")


def _report(rows: NDArray[Any], path: str | Path, what: str) -> None:
    from narrows.report.formatting import count

    shape = " × ".join(map(str, rows.shape[1:]))
    click.echo(f"{Path(path)}: {count(len(rows), what)} of {shape}, {rows.dtype}")
