"""The verbs ``map`` and ``explore``: a page of the manifold that decodes wherever one points."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.apply import labels_of, loaded, rows_for
from narrows.cli.fit import fit_rows, rows_to_fit
from narrows.cli.options import is_given, literal, output_option, overwrite_option, resize_option
from narrows.io.write import PAGES, check_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.estimators.base import Estimator
    from narrows.io.read import Data

TEST_SIZE = 0.1  # kept back, so that the map is measured on rows that it has not seen


@click.command(name="map")
@click.argument("data")
@output_option("The page to write, a name that ends in .html.")
@click.option("-m", "--model", metavar="MODEL", help="A fitted model. Default: fit one to DATA.")
@click.option("--labels", metavar="FILE", help="A class for each row: text, .npy or IDX.")
@click.option(
    "--save-model",
    metavar="FILE",
    help="Also write the model that is fitted, a name that ends in .safetensors.",
)
@click.option(
    "--max-time",
    metavar="TIME",
    default="5m",
    show_default=True,
    help="Longest time of a fit: 90, 45s, 5m, 1.5h.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of a fit.")
@resize_option
@overwrite_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@click.pass_context
def map_(
    ctx: click.Context,
    /,
    data: str,
    out: str,
    model: str | None,
    labels: str | None,
    save_model: str | None,
    max_time: str,
    seed: int,
    resize: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make a map of DATA, a page that decodes where you drag.

    Without MODEL a neighbor-autoencoder with codes of two numbers is fitted to 90 % of DATA's rows;
    the map's quality is measured on the others, beside PCA's and t-SNE's. The page holds points,
    originals and the decoder: it needs no server and no network, and can be sent by mail. Labels
    that come with DATA are used unless --labels gives others.
    """
    from narrows.io.read import read_labels

    path = check_output(out, PAGES, overwrite=overwrite)
    given = None if labels is None else read_labels(labels)  # before a fit of minutes
    if model is None:
        estimator, source = _fitted(
            data, resize, max_time, seed, save_model, overwrite, quiet, given
        )
    else:
        for name in ("save_model", "max_time", "seed"):
            if is_given(ctx, name):
                raise click.UsageError(
                    f"--{name.replace('_', '-')} is for a model that is fitted; here -m gives one."
                )
        estimator = loaded(model, "reconstruct")
        source = rows_for(estimator, data, resize)
    y = labels_of(source) if given is None else given
    title = f"{Path(data).name} by {type(estimator).__name__}"
    _write(estimator, source, path, y, title, overwrite)
    if not quiet:
        click.echo(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _write(
    estimator: Estimator, source: Data, path: Path, y: Any, title: str, overwrite: bool
) -> None:
    from narrows.maps import write_map

    names = source.feature_names
    write_map(estimator, source.X, path, y=y, feature_names=names, title=title, overwrite=overwrite)


def _fitted(
    data: str,
    resize: str | None,
    max_time: str,
    seed: int,
    save_model: str | None,
    overwrite: bool,
    quiet: bool,
    labels: NDArray[Any] | None,
) -> tuple[Estimator, Data]:
    """A model of DATA whose codes are a map, and DATA."""
    from narrows import NeighborAutoencoder
    from narrows.report.measures import parse_labels

    if save_model is not None:
        check_output(save_model, [".safetensors"], overwrite=overwrite)
    estimator: Any = NeighborAutoencoder(
        latent_dim=2,
        max_time=literal(max_time),
        test_size=TEST_SIZE,
        random_state=seed,
        verbose=False if quiet else "auto",
    )
    source = rows_to_fit(estimator, data, resize)
    if labels is not None:
        parse_labels(labels, len(source.X))  # raises unless there is one for each row
    fit_rows(estimator, source, None)
    if save_model is not None:
        estimator.save(save_model, overwrite=overwrite)
        if not quiet:
            click.echo(f"wrote {save_model}")
    return estimator, source


@click.command
@click.argument("model")
@click.argument("data")
@click.option("--labels", metavar="FILE", help="A class for each row: text, .npy or IDX.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Where the page is served on this computer; 0: a port that is free.",
)
@click.option("--no-browser", is_flag=True, help="Only print the page's address.")
@resize_option
def explore(
    model: str, data: str, labels: str | None, port: int, no_browser: bool, resize: str | None
) -> None:
    """Explore MODEL on DATA in the browser, live, until Ctrl-C.

    The page is that of `narrows map`, and more: drop an image or a row on it to see where it lies,
    add noise to a row and see it restored, draw samples. It also decodes what a page cannot by
    itself. The server listens on this computer only.
    """
    import webbrowser

    from narrows.io.read import read_labels
    from narrows.maps import Explorer

    estimator = loaded(model, "reconstruct")
    source = rows_for(estimator, data, resize)
    explorer = Explorer(
        estimator,
        source.X,
        y=labels_of(source) if labels is None else read_labels(labels),
        feature_names=source.feature_names,
        title=f"{Path(data).name} by {type(estimator).__name__}",
        port=port,
    )
    with explorer.server, suppress(KeyboardInterrupt):
        click.echo(f"{explorer.address}\nCtrl-C ends it.")
        if not no_browser and not webbrowser.open(explorer.address):
            click.echo("No browser could be opened; open the address above in one.")
        explorer.serve()


def write_demo_map(folder: str, max_epochs: int, overwrite: bool) -> None:
    """The map of scikit-learn's digits for the page of `narrows demo`."""
    from narrows import NeighborAutoencoder
    from narrows.io.read import read

    data, path = read("digits"), Path(folder) / "map.html"
    model = NeighborAutoencoder(
        latent_dim=2, max_epochs=max_epochs, test_size=TEST_SIZE, random_state=0, verbose=False
    )
    _write(model.fit(data.X), data, path, labels_of(data), "digits", overwrite)
    click.echo(f"{path} is a map of all digits: drag on it.")
