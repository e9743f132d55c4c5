"""The verb ``denoise``, which removes the noise of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows import denoising
from narrows.cli.options import is_given, literal, output_option, overwrite_option
from narrows.io.write import PAGES, check_output

if TYPE_CHECKING:
    from narrows.models.denoising_autoencoder import DenoisingAutoencoder

MAX_TIME = "50s"  # for the fit to one image
MAX_EPOCHS = 100_000  # so many that the time ends the fit
MAX_PIXELS = 200_000_000  # of one image; a file that claims more is refused


@click.command
@click.argument("data")
@output_option(
    "Where to write: a name that ends in .png, .tif, .jpg or .webp; for a folder, a folder."
)
@click.option(
    "-m", "--model", metavar="MODEL", help="A fitted denoiser. Default: fit one to each image."
)
@click.option(
    "--noise-level",
    type=click.FloatRange(min=0, max=1000),
    help="The standard deviation of the noise, white being 255. Default: estimated.",
)
@click.option(
    "--white",
    type=click.FloatRange(min=0, min_open=True),
    help="The value of white, such as 4095 for 12 bits in 16.  [default: by dtype and values]",
)
@click.option(
    "--max-time",
    metavar="TIME",
    help=f"How long to fit to an image, without --model.  [default: {MAX_TIME}]",
)
@click.option(
    "--noise",
    type=click.Choice(["white", "photon"]),
    help="Without --model: the kind of noise; photon grows with brightness.  [default: white]",
)
@click.option("--compare", "page", metavar="PAGE.html", help="Write a page of before and after.")
@click.option(
    "--clean", metavar="DATA", help="The same without noise, to measure PSNR: an image or a folder."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse larger images.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of a fit to an image.")
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def denoise(
    data: str,
    out: str,
    model: str | None,
    noise_level: float | None,
    white: float | None,
    max_time: str | None,
    noise: str | None,
    page: str | None,
    clean: str | None,
    max_pixels: int,
    seed: int | None,
    overwrite: bool,
    quiet: bool,
) -> int:
    """Remove the noise of DATA, an image or a folder of images.

    Without --model, a denoiser is fitted to each image. Depth, transparency, EXIF and colour
    profile stay as they are. If an image cannot be denoised, the others still are, and the exit
    status is 1.

    If MODEL is a denoising autoencoder, DATA is what it was fitted on: a table, signals or images.
    """
    from narrows.cli.apply import loaded
    from narrows.exceptions import FileError
    from narrows.io.image_files import SUFFIXES
    from narrows.io.photographs import plan

    estimator = None if model is None else loaded(model, "denoise")
    if estimator is not None and not isinstance(estimator, denoising.Denoiser):
        _denoise_rows(estimator, data, out, overwrite)
        return 0
    if Path(data).is_file() and Path(data).suffix.lower() not in SUFFIXES:
        lacks = "MODEL is for images" if estimator else "there is no model"
        raise click.UsageError(
            f"'{data}' is no image, and {lacks}: rows are denoised by -m MODEL, which "
            "`narrows fit DATA --model denoising-autoencoder -o MODEL` learns from rows without "
            "noise."
        )
    plan(data, out, overwrite=overwrite)  # refuses OUT before anything is loaded
    if page is not None:
        check_output(page, PAGES, overwrite=overwrite)
    if page is not None or clean is not None:
        denoising.check_filters_installed()
    if clean is not None and not Path(clean).exists():
        raise FileError(
            f"--clean {clean!r} does not exist; give the image without noise, or a folder."
        )

    def echo(item: denoising.DenoisedFile | denoising.FailedFile) -> None:
        if isinstance(item, denoising.FailedFile):
            _warn(str(item))
        elif not quiet:
            click.echo(str(item))

    if estimator is None:
        method = _fit_to_each(noise_level, white, max_time, seed, noise, quiet)
    elif max_time is None and seed is None and noise is None:
        if white is not None:
            estimator.set_params(white=white)
        method = denoising.by_fitted_model(estimator, noise_level)
    else:
        raise click.UsageError(
            "--max-time, --noise and --seed are for learning from the image: not with --model."
        )
    outcome = denoising.denoise_files(
        data, out, method, clean=clean, overwrite=overwrite, max_pixels=max_pixels, echo=echo
    )
    n_given = len(outcome.done) + len(outcome.failed)
    if outcome.failed and n_given > 1:
        _warn(f"{len(outcome.failed)} of {n_given} images could not be denoised.")
    if outcome.done and (page is not None or clean is not None):
        say = (lambda line: None) if quiet else click.echo
        denoising.compare_files(
            outcome.done, page, overwrite=overwrite, max_pixels=max_pixels, echo=say
        )
    return 1 if outcome.failed else 0


def _fit_to_each(
    noise_level: float | None,
    white: float | None,
    max_time: str | None,
    seed: int | None,
    noise: str | None,
    quiet: bool,
) -> denoising.DenoisePixels:
    """Denoise each image by a denoiser fitted to it."""

    def new_denoiser() -> denoising.Denoiser:
        return denoising.Denoiser(
            noisy_targets=True,
            noise=noise or "white",
            noise_level="auto" if noise_level is None else noise_level,
            white="auto" if white is None else white,
            max_epochs=MAX_EPOCHS,
            max_time=literal(max_time or MAX_TIME),
            random_state=seed,
            verbose=not quiet,
        )

    new_denoiser().check_parameters()  # before anything is read
    return denoising.by_fit_to_each(new_denoiser, noise_level)


def _denoise_rows(estimator: DenoisingAutoencoder, data: str, out: str, overwrite: bool) -> None:
    """Rows by a denoising autoencoder, read and written as ``narrows reconstruct`` does."""
    from narrows.cli.apply import write_answers

    context = click.get_current_context()
    known = {"data", "out", "model", "overwrite", "quiet"}
    given = [name for name in context.params if name not in known and is_given(context, name)]
    if given:
        options = ", ".join("--" + {"page": "compare"}.get(n, n).replace("_", "-") for n in given)
        raise click.UsageError(f"{options}: for photographs only; this MODEL takes rows.")
    check_output(out, overwrite=overwrite)
    write_answers(estimator, estimator.denoise, data, out, overwrite)


def _warn(line: str) -> None:
    click.echo(f"narrows: {' '.join(line.split())}", err=True)
