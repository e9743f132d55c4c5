"""The verb that learns: fit."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
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
from narrows.training import given_rank

if TYPE_CHECKING:
    from narrows.io.read import Data

__all__ = ["fit"]


@click.command(cls=ModelCommand)
@click.argument("data")
@click.option(
    "--model",
    metavar="NAME",
    default="autoencoder",
    show_default=True,
    help="What to fit, as `narrows models` lists them; case and hyphens are ignored. With --help, "
    "shows that model's own parameters too.",
)
@output_option("The model file to write, a name that ends in .safetensors.")
@resize_option
@click.option(
    "--labels",
    metavar="FILE",
    help="A class for each row (text, .npy or IDX), for models that are told classes; those that "
    "come with DATA are used otherwise.",
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
    resize: Any,
    labels: str | None,
    overwrite: bool,
    log: str | None,
    track: tuple[str, ...],
    quiet: bool,
    **_: Any,
) -> None:
    """Learn a model from DATA and write it to a file.

    DATA is digits, mnist, fashion-mnist, a folder of images or of .parquet files, a .zarr, or a
    .npy, .npz, .csv, .parquet or IDX file (CSV and IDX also gzipped); mnist means its training
    images, mnist:test the others. What is "auto" is chosen from it.

    A run of more than half a minute is kept in OUT.checkpoint: whatever ends it, the same command
    with --resume goes on to the same result.
    """
    from narrows.estimators.checkpoint_writer import refuse_other
    from narrows.estimators.registry import model_class
    from narrows.io.safetensors_file import read_file
    from narrows.io.write import check_output

    model = model_class(ctx.meta["narrows.model"])
    estimator = model(**{"verbose": not quiet, **given_parameters(ctx, model)})
    # of several processes the first alone writes; to another the file would be in the way
    may = overwrite or estimator.resume or given_rank() > 0
    path = check_output(out, [".safetensors"], overwrite=may)
    run = check_output(
        estimator.checkpoint or path.with_suffix(".checkpoint"), [".checkpoint"], overwrite=True
    )
    goes_on = estimator.resume and run.exists()
    log_on = overwrite or goes_on  # a log of another run is not to be emptied
    listeners = listeners_for(log, track, path, overwrite=log_on)
    estimator.set_params(checkpoint=run, listeners=listeners)
    estimator.check_parameters()  # before anything is read
    if estimator.resume and path.exists() and not (goes_on or overwrite):
        refuse_other(estimator, path, read_file(path)[1], free={"axes"})
        if not quiet and given_rank() == 0:
            click.echo(f"{path} is complete already; to fit anew, give --overwrite.")
        return
    from narrows.training.process_group import all_or_none, joined  # torch: only now

    with joined():
        with all_or_none():
            source = _read(estimator, data, resize)
        if overwrite and not estimator.resume:
            run.unlink(missing_ok=True)  # not before DATA is known to be there
        _learn(estimator, source, labels)
        estimator.set_params(verbose=False)  # who loads the file decides for themselves
        with all_or_none():
            estimator.save(path, overwrite=may)
    if estimator.stop_reason_ != "interrupted":
        run.unlink(missing_ok=True)
    if not quiet and given_rank() == 0:
        tell, following = _telling(estimator)
        click.echo(tell(estimator, source.name, path))
        click.echo(f"next: {following(data, path, resize)}")


def _telling(estimator: Any) -> tuple[Callable[..., str], Callable[..., str]]:
    """What sums a model up, and what says how to use it."""
    others = {
        "Codec": (codec_summary, _compress_command),
        "Denoiser": (whole_summary, _denoise_command),
    }
    return others.get(type(estimator).__name__, (summary, next_command))


def _is_whole(estimator: Any) -> bool:
    """Whether it takes images of any sizes, rather than rows."""
    from narrows.estimators.registry import WHOLE

    return type(estimator).__name__ in WHOLE


def _read(estimator: Any, data: str, resize: Any) -> Data:
    """DATA as rows; for a model of whole images the files themselves, as they are."""
    from narrows.io.image_folders import SUFFIXES, find_images
    from narrows.io.read import Data, read

    place = Path(data)
    if not _is_whole(estimator):
        return read(data, resize=resize, lazy="auto")
    if resize is not None:
        kind = type(estimator).__name__.lower()
        raise click.UsageError(f"--resize is not for a {kind}: it takes images of any size.")
    rows_too = hasattr(estimator, "compress")  # a codec takes tables and arrays as well
    folder = place.is_dir() and (not rows_too or bool(find_images(place)))
    if folder or place.suffix.lower() in SUFFIXES:
        return Data(X=place, name=data)
    return read(data, lazy="auto" if rows_too else False)


def _classes(estimator: Any, source: Data, labels: str | None) -> tuple[Any, ...]:
    """What fit is given beside the rows: classes, where the model is told them."""
    from narrows.io.read import read_labels

    if not hasattr(estimator, "told_classes"):
        if labels is not None:
            kind = type(estimator).__name__
            raise click.UsageError(
                f"--labels is for a model that is told classes, as conditional-vae; {kind} is not."
            )
        return ()
    return (source.y if labels is None else read_labels(labels),)


def _learn(estimator: Any, source: Data, labels: str | None) -> None:
    import numpy as np

    given = _classes(estimator, source, labels)

    if _is_whole(estimator):
        estimator.fit(source.X)
        return
    if source.axes is not None and estimator.axes is None:
        estimator.set_params(axes=source.axes)
    estimator.fit(source.X, *given)
    if source.feature_names is not None:  # the file keeps them: later tables must have the same
        estimator.feature_names_in_ = np.array(source.feature_names, dtype=object)


def whole_summary(estimator: Any, name: str, path: Path) -> str:
    """What was learned from how many images, how well it restores others, and where it is."""
    card = estimator.info()
    training = card["training"]
    n, psnr = training["images"], training["psnr"]
    many = f"{n:,} image" + ("s" if n > 1 else "")
    kind = "colour" if card["channels"] == 3 else "grey"
    held = "no clean images: there is no PSNR"
    if psnr is not None:
        apart = n > 1 and estimator.validation_fraction > 0
        where = "on images held out" if apart else "on the images learned from"
        held = f"PSNR {training['psnr_noisy']:.2f} dB noisy, {psnr:.2f} dB restored, {where}"
    return "\n".join(
        [
            f"{card['model']} of {name}: {many}, {kind}",
            f"chosen: networks of {card['n_parameters']:,} parameters, distance {card['distance']}",
            held,
            took_line(training),
            wrote_line(path),
        ]
    )


def _denoise_command(data: str, path: Path, resize: Any) -> str:
    return shlex.join(["narrows", "denoise", "DATA", "-m", str(path), "-o", "OUT"])


def codec_summary(estimator: Any, name: str, path: Path) -> str:
    """What is coded how, the bits it takes beside PCA's, how long it took and where it is."""
    card = estimator.info()
    whole = estimator.choices_.event is not None
    sides = card["cell"] if whole or card["cell"][0] > 1 else card["cell"][1:]
    n, cell = card["training"]["rows"], " × ".join(map(str, sides))
    what = f"{n:,} rows, each" if whole else f"{n:,} image{'s' * (n != 1)}, each block"
    return "\n".join(
        [
            f"{card['model']} of {name}: {what} {cell} to {card['latent_dim']} whole numbers",
            f"chosen: networks of {card['n_parameters']:,} parameters; what decoding needs of them "
            f"is {card['payload_bytes']:,} bytes, fewer once deflated",
            *codec_lines(estimator),
            took_line(card["training"]),
            wrote_line(path),
        ]
    )


def codec_lines(estimator: Any) -> list[str]:
    """The bits and the error of the level that is usual, beside PCA with the same coder."""
    from narrows.compression.compare_coders import pca_bits

    levels, level = estimator.levels_, estimator.decoder_.level
    found = levels[level]
    bits, mse = found["bits_per_number"], found["mse"]
    said = (
        f"validation rows, level {level} of 0 to {len(levels) - 1}: {bits:.4g} bits a number, "
        f"{_error_of(estimator.choices_, mse)}"
    )
    pca = pca_bits(levels, mse)
    if pca is None or bits <= 0:
        return [said]
    more = f"{abs(pca / bits - 1):.1%} {'more' if pca > bits else 'fewer'}"
    return [said, f"PCA with the same coder takes {pca:.4g} bits at that error, {more}"]


def _error_of(choices: Any, mse: float) -> str:
    """PSNR where the data have bounds, else the error in scaled units."""
    if choices.low is None or len(choices.scale) > 1 or mse <= 0:
        return f"squared error {mse:.4g} (scaled units)"
    peak = (max(choices.high) - min(choices.low)) / choices.scale[0]
    return f"PSNR {10 * math.log10(peak**2 / mse):.2f} dB"


def _compress_command(data: str, path: Path, resize: Any) -> str:
    out = re.sub(r"[^\w.-]+", "-", Path(data).stem or "data") + ".narrow"
    return shlex.join(["narrows", "compress", str(path), data, "-o", out])


def took_line(training: dict[str, Any]) -> str:
    """How long it took and how it ended."""
    return (
        f"took {training['seconds']:.1f} s, {training['epochs']} epochs, the best was "
        f"{training['best_epoch']} ({training['stop_reason']})"
    )


def wrote_line(path: Path) -> str:
    """Where it is."""
    return f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB"


def summary(estimator: Any, name: str, path: Path) -> str:
    """What was chosen, how it did beside PCA, how long it took and where it is."""
    card = estimator.info()
    training = card["training"]
    return "\n".join(
        [
            f"{card['model']} of {name}: {training['rows']:,} rows, each "
            f"{' × '.join(map(str, card['input_shape']))} to {card['latent_dim']} numbers and back",
            f"chosen: {card['architecture']} networks of {card['n_parameters']:,} parameters, "
            f"distance {card['distance']}, scaling {card['scaling']}",
            error_line(card),
            took_line(training),
            wrote_line(path),
        ]
    )


def error_line(card: dict[str, Any]) -> str:
    """The validation rows' error beside PCA's at the same width."""
    error, pca = (card["training"][name] for name in ("validation_error", "validation_error_pca"))
    shown = f"validation error {error:.4g} (mean square per number, scaled units)"
    if pca is None:
        return f"{shown}; PCA at this width would be too large to stand beside it"
    times = f", {error / pca:.2f} × that" if pca > 0 else ""
    return f"{shown}; PCA's at the same width is {pca:.4g}{times}"


def next_command(data: str, path: Path, resize: int | tuple[int, int] | None) -> str:
    """The command that shows what was learned."""
    words = ["narrows", "report", str(path), data, "-o", str(path.with_suffix(".html"))]
    if resize is not None:
        words += [
            "--resize",
            str(resize) if isinstance(resize, int) else "x".join(map(str, resize)),
        ]
    return shlex.join(words)
