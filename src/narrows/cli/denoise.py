"""The verb that takes the noise from images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from narrows import denoising
from narrows.cli.options import literal, output_option, overwrite_option

__all__ = ["denoise"]

ALONE = "50s"  # how long to learn from one image
ENDLESS = 100_000  # epochs: time is what ends it
LARGEST = 200_000_000  # pixels


@click.command
@click.argument("data")
@output_option(
    "Where to write: a name that ends in .png, .tif, .jpg or .webp; of a folder, another folder."
)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A fitted denoiser; without one, each image is learnt from by itself.",
)
@click.option(
    "--noise-level",
    type=click.FloatRange(min=0, max=1000),
    help="The noise's standard deviation, white being 255, instead of the one found.",
)
@click.option(
    "--max-time",
    metavar="TIME",
    help=f"How long to learn from an image, without --model.  [default: {ALONE}]",
)
@click.option(
    "--noise",
    type=click.Choice(["white", "photon"]),
    help="Without --model: photon is noise that grows with brightness.  [default: white]",
)
@click.option("--compare", "page", metavar="PAGE.html", help="Write a page of before and after.")
@click.option(
    "--clean", metavar="DATA", help="The same without noise, to measure by: an image or a folder."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=LARGEST,
    show_default=True,
    help="The most pixels an image may claim.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="What is drawn while learning from an image follows from it.",
)
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Say only what failed.")
def denoise(
    data: str,
    out: str,
    model: str | None,
    noise_level: float | None,
    max_time: str | None,
    noise: str | None,
    page: str | None,
    clean: str | None,
    max_pixels: int,
    seed: int | None,
    overwrite: bool,
    quiet: bool,
) -> int:
    """Take the noise from DATA, an image or a folder of images.

    Without --model it learns from each image alone. Depth, transparency, EXIF and colour profile
    stay as they are. When an image cannot be denoised the others go on, and the status is 1.

    With a denoising autoencoder as MODEL, DATA is what that takes: a table, signals, small images.
    """
    from narrows.cli.apply import loaded
    from narrows.exceptions import FileError
    from narrows.io.photographs import plan
    from narrows.io.write import check_output

    estimator = None if model is None else loaded(model, "denoise")
    if hasattr(estimator, "reconstruct"):
        _clean_rows(estimator, data, out, overwrite)
        return 0
    plan(data, out, overwrite=overwrite)  # at the door: nothing is loaded for what cannot be
    if page is not None:
        check_output(page, [".html"], overwrite=overwrite)
    if page is not None or clean is not None:
        denoising.check_filters_installed()
    if clean is not None and not Path(clean).exists():
        raise FileError(
            f"--clean {clean!r} is not there: give the image without noise, or a folder."
        )
    outcome = denoising.denoise_files(
        data,
        out,
        _restore(estimator, noise_level, max_time, seed, noise, quiet),
        clean=clean,
        overwrite=overwrite,
        max_pixels=max_pixels,
        echo=lambda item: _tell(item, quiet),
    )
    n_given = len(outcome.done) + len(outcome.failed)
    if outcome.failed and n_given > 1:
        _warn(f"{len(outcome.failed)} of {n_given} images could not be denoised.")
    if outcome.done and (page is not None or clean is not None):
        _compare(outcome.done, page, max_pixels, overwrite, quiet)
    return 1 if outcome.failed else 0


def _restore(
    estimator: Any,
    noise_level: float | None,
    max_time: str | None,
    seed: int | None,
    noise: str | None,
    quiet: bool,
) -> denoising.DenoisePixels:
    """By the model, or from each image alone."""
    if estimator is not None:
        if not (max_time is None and seed is None and noise is None):
            raise click.UsageError(
                "--max-time, --noise and --seed are for learning: not with --model."
            )
        return denoising.by_fitted_model(estimator, noise_level)

    def make() -> denoising.Denoiser:
        return denoising.Denoiser(
            noisy_targets=True,
            noise=noise or "white",
            noise_level="auto" if noise_level is None else noise_level,
            max_epochs=ENDLESS,
            max_time=literal(max_time or ALONE),
            random_state=seed,
            verbose=not quiet,
        )

    make().check_parameters()  # before anything is read
    return denoising.by_fit_to_each(make, noise_level)


def _clean_rows(estimator: Any, data: str, out: str, overwrite: bool) -> None:
    """Rows by a denoising autoencoder, read and written as ``narrows reconstruct`` does."""
    from narrows.cli.apply import answer_rows

    context = click.get_current_context()
    known = {"data", "out", "model", "overwrite", "quiet"}
    given = [n for n in context.params if n not in known and _is_given(context, n)]
    if given:
        options = ", ".join("--" + {"page": "compare"}.get(n, n).replace("_", "-") for n in given)
        raise click.UsageError(f"{options}: for photographs only; MODEL takes rows.")
    answer_rows(estimator, estimator.denoise, data, out, overwrite)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _tell(item: denoising.DenoisedFile | denoising.FailedFile, quiet: bool) -> None:
    if isinstance(item, denoising.FailedFile):
        _warn(str(item))
    else:
        _say(str(item), quiet)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        click.echo(line)


def _warn(line: str) -> None:
    click.echo(f"narrows: {' '.join(line.split())}", err=True)


def _compare(
    done: Sequence[denoising.DenoisedFile],
    page: str | None,
    max_pixels: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """The classical filters beside each image that was read and written, and a page of all."""
    from narrows.io.photographs import read_photograph

    def pixels(path: Path) -> Any:
        return read_photograph(path, max_pixels=max_pixels).pixels

    entries = []
    for item in done:
        noisy = pixels(item.source)
        entry = denoising.DenoisedImage(
            item.source.name,
            noisy=noisy,
            denoised=pixels(item.target),
            noise=item.noise,
            seconds=item.seconds,
            clean=None if item.clean is None else pixels(item.clean),
            baselines=denoising.run_filters(noisy, item.noise),
        )
        _say(_beside(entry), quiet)
        if page is not None:
            entries.append(entry)
    if page is not None:
        denoising.write_comparison(entries, page, overwrite=overwrite)
        _say(f"wrote {page}", quiet)


def _beside(entry: denoising.DenoisedImage) -> str:
    """What the filters made of the same image: by how many decibels, where that can be known."""
    clean = entry.clean
    shown = [
        f"{name} {seconds:.1f} s"
        if clean is None
        else f"{name} {denoising.psnr(clean, image):.2f} dB"
        for name, (image, seconds) in entry.baselines.items()
    ]
    return f"  beside it: {', '.join(shown)}"
