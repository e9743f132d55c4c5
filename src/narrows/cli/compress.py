"""The verbs ``compress``, ``decompress`` and ``inspect``, for .narrow files.

An error of a .narrow file has an exit status of its own, see ``STATUSES``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import click

from narrows import compression
from narrows.cli.options import output_option, overwrite_option
from narrows.exceptions import (
    Corrupt,
    NarrowsError,
    ParameterError,
    TooLarge,
    Truncated,
    WrongModel,
)
from narrows.io.write import check_output

STATUSES = (
    "Exit status: 0 success; 1 another error, such as with OUT; 3 FILE is not a .narrow file; 4 "
    "it has a newer format; 5 it needs another model; 6 it ends too early; 7 it is damaged; 8 it "
    "asks for more than --max-bytes, or than any file may."
)
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MAX_LISTED = 20  # items that inspect lists
ADVICE = {
    WrongModel: " (give it with -m MODEL)",
    TooLarge: " (--max-bytes)",
    Truncated: " (--salvage keeps what is good)",
    Corrupt: " (--salvage keeps what is good)",
}


@click.command
@click.argument("model")
@click.argument("data")
@output_option("The file to write, a name that ends in .narrow; - is standard output.")
@click.option(
    "--quality",
    type=int,
    metavar="STEPS",
    help="Steps of about 3 dB from the model's own quality: 1 is better and larger, -1 worse and "
    "smaller.",
)
@click.option(
    "--max-error",
    metavar="ERROR",
    help="Largest error of any element: 0.01 in DATA's units, or 1e-3rel of its range.",
)
@click.option("--lossless", is_flag=True, help="Restore every bit.")
@click.option("--embed-model", is_flag=True, help="Write the decoder of MODEL into the file.")
@click.option(
    "--no-autoencoder", is_flag=True, help="Compress without the autoencoder (not if lossy)."
)
@click.option("--no-compare", is_flag=True, help="Leave out the sizes by ordinary coders.")
@click.option(
    "--compare-all", is_flag=True, help="Compare on all of DATA instead of a sample: slow."
)
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def compress(
    model: str,
    data: str,
    out: str,
    quality: int | None,
    max_error: str | None,
    lossless: bool,
    embed_model: bool,
    no_autoencoder: bool,
    no_compare: bool,
    compare_all: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Compress DATA by MODEL, a codec, to one file.

    DATA is anything that `narrows fit` takes, an image, or a .npy of any shape and type of numbers.
    It is lossy unless --max-error or --lossless is given; these take any numbers, also NaN.

    Prints sizes and quality, and the sizes by ordinary coders.
    """
    from narrows.cli.apply import loaded
    from narrows.io.read import read_any

    _check_options(quality, max_error, lossless, no_autoencoder)
    if out != "-":
        check_output(out, (".narrow",), overwrite=overwrite)
    codec, source = loaded(model, "compress"), read_any(data)
    how = {
        "mode": "lossless" if lossless else None,
        "quality": quality,
        "max_error": max_error,
        "embed_model": embed_model,
        "autoencoder": not no_autoencoder,
    }
    compare = "none" if no_compare or quiet else "all" if compare_all else "sample"
    with _progress("compress", quiet) as watch, _naming(out):
        target: Any = sys.stdout.buffer if out == "-" else out
        facts = compression.compress_file(
            codec, source.X, target, how=how, overwrite=overwrite, compare=compare, watch=watch
        )
    if not quiet:
        click.echo("\n".join(compression.report_lines(facts)), err=out == "-")


def _check_options(
    quality: int | None, max_error: str | None, lossless: bool, no_autoencoder: bool
) -> None:
    if lossless and max_error is not None:
        raise click.UsageError("--lossless and --max-error exclude each other: give one of them.")
    exact = lossless or max_error is not None
    if quality is not None and exact:
        raise click.UsageError(
            "--quality is for lossy compression: not with --lossless or --max-error."
        )
    if no_autoencoder and not exact:
        raise click.UsageError("--no-autoencoder needs --max-error or --lossless.")


def _read_bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A number of bytes from ``500M`` or ``2GiB``; K, M, G and T are powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", value.strip().lower())
    if found is None:
        raise click.BadParameter(
            f"{value!r} is no size: give a number of bytes, such as 500M or 4G."
        )
    return int(float(found[1]) * UNITS[found[2]])


@click.command(epilog=STATUSES)
@click.argument("file")
@click.option(
    "-m", "--model", metavar="MODEL", help="The codec that wrote FILE, unless FILE contains it."
)
@output_option(
    "Where to write. An array: .npy, .npz or .csv, or as pictures .png or a folder. Images: a "
    "folder (a name with no suffix); a single one .png. - writes a .npy to standard output."
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    default="2G",
    show_default=True,
    callback=_read_bytes,
    help="Refuse a file that decodes to more, such as 500M or 4G.",
)
@click.option(
    "--salvage",
    is_flag=True,
    help="Write the undamaged parts of a damaged file; the exit status is 7.",
)
@click.option(
    "--item", type=click.IntRange(min=0), metavar="N", help="Only this item, counted from 0."
)
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Print lost parts only.")
def decompress(
    file: str,
    model: str | None,
    out: str,
    max_bytes: int,
    salvage: bool,
    item: int | None,
    overwrite: bool,
    quiet: bool,
) -> int:
    """Decompress FILE, a .narrow file.

    FILE may be -, standard input. OUT is written only if all of FILE is valid. Images are written
    as .png under their own names (floats as .tif, what neither can hold as .npy).
    """
    if salvage and item is not None:
        raise click.UsageError("--salvage and --item exclude each other: give one of them.")
    decoder = None if model is None else compression.load_model(model)
    with _opened(file) as stream, _naming(out), _about(file):
        unpacker = compression.Unpacker(stream, decoder, max_bytes=max_bytes, salvage=salvage)
        done = _unpack(unpacker, out, item, overwrite)
    for lost in done.lost:
        click.echo(f"narrows: lost: {_lost(lost)}", err=True)
    if not quiet:
        click.echo(_said(done, out), err=out == "-")
    return Corrupt.exit_code if done.lost else 0


def _unpack(
    unpacker: compression.Unpacker, out: str, item: int | None, overwrite: bool
) -> compression.Decompressed:
    if item is not None:
        if out == "-":
            raise click.UsageError("--item needs a file to write to, not -.")
        return compression.decompress_item(unpacker, item, out, overwrite=overwrite)
    if out != "-":
        return compression.decompress_to(unpacker, out, overwrite=overwrite)
    stream = sys.stdout.buffer
    done = compression.decompress_to_stream(unpacker, stream)
    stream.flush()
    return done


def _said(done: compression.Decompressed, out: str) -> str:
    item, where = done.first, "standard output" if out == "-" else str(done.path)
    if done.names or item is None:
        return f"{where}: {done.items:,} image{'s' * (done.items != 1)}"
    return f"{where}: {compression.describe_item(item)}"


def _lost(lost: compression.Lost) -> str:
    if lost.item is None:
        return str(lost.why)
    if lost.rows is None:
        return f"item {lost.item}: {lost.why}"
    last = lost.first + lost.rows - 1
    return f"item {lost.item}, rows {lost.first} to {last}, which are zeros now: {lost.why}"


@click.command
@click.argument("file")
@click.option("--verify", is_flag=True, help="Decode everything, and check every checksum.")
@click.option("-m", "--model", metavar="MODEL", help="For --verify: the codec that wrote FILE.")
@click.option(
    "--all", "every", is_flag=True, help=f"List all items, not only the first {MAX_LISTED}."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(file: str, verify: bool, model: str | None, every: bool, as_json: bool) -> None:
    """Show the contents of FILE, a .narrow file.

    Nothing is decoded, and only the headers of its parts are read; --verify also checks the rest.
    FILE may be -, standard input.
    """
    with _opened(file) as stream, _about(file):
        found = compression.describe_file(stream, verify=verify, model=model)
    if as_json:
        click.echo(json.dumps({"file": file, **found}, indent=2, ensure_ascii=False))
    else:
        items = compression.description_lines(found, None if every else MAX_LISTED)
        click.echo("\n".join([f"{file}: {found['what']}", *items]))


def _opened(file: str) -> AbstractContextManager[Any]:
    """The bytes of a file, or of standard input."""
    return nullcontext(sys.stdin.buffer) if file == "-" else compression.opened(file)


@contextmanager
def _about(file: str) -> Iterator[None]:
    """Add the file's name, and advice, to an error of a .narrow file."""
    try:
        yield
    except NarrowsError as error:
        # errors of .narrow files have a status of their own; an item that does not exist has not
        if error.exit_code != 1 or isinstance(error, ParameterError):
            advice = next((text for kind, text in ADVICE.items() if isinstance(error, kind)), "")
            name = "standard input" if file == "-" else f"'{file}'"
            error.args = (f"{name}: {str(error).removesuffix('.')}{advice}.",)
        raise


@contextmanager
def _naming(out: str) -> Iterator[None]:
    """Add the name of OUT to an error of the system while writing, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, BrokenPipeError):
            error.filename = "standard output" if out == "-" else out
        raise


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, on a terminal only."""
    from tqdm import tqdm

    # disable=None: no bar unless standard error is a terminal
    with tqdm(desc=what, unit="B", unit_scale=True, leave=False, disable=quiet or None) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield watch
