"""The verb that takes the noise from images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.options import literal, output_option, overwrite_option

if TYPE_CHECKING:
    from narrows.tasks.denoising import Done, Failed, Outcome, Restore

__all__ = ["denoise"]

ALONE = "60s"  # how long it learns from one image


@click.command
@click.argument("data")
@output_option(
    "Where to write: a name that ends in .png, .tif, .jpg or .webp; of a folder, another folder."
)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A fitted denoiser; without one each image teaches its own.",
)
@click.option(
    "--noise-level",
    type=click.FloatRange(min=0),
    help="The noise's standard deviation, white being 255, instead of the one found.",
)
@click.option(
    "--max-time",
    metavar="TIME",
    help=f"How long to learn from an image, without --model.  [default: {ALONE}]",
)
@click.option("--compare", "page", metavar="PAGE.html", help="Write a page of before and after.")
@click.option(
    "--clean", metavar="DATA", help="The same without noise, to measure by: an image or a folder."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    help="The most pixels an image may claim.  [default: 200000000]",
)
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same pixels.")
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="Say only what failed.")
@click.pass_context
def denoise(
    ctx: click.Context, data: str, out: str, page: str | None, quiet: bool, **given: Any
) -> int:
    """Take the noise from DATA, an image or a folder of images.

    Without --model it learns from each image alone. Depth, transparency, EXIF and colour profile
    stay as they are. The others go on when one fails, and the status is 1 then.
    """
    from narrows.photographs import MAX_PIXELS

    return MAX_PIXELS
