"""The verbs ``demo``, ``info``, ``report`` and ``models``, which show something."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.apply import labels_of, loaded, rows_for
from narrows.cli.map_verbs import write_demo_map
from narrows.cli.options import option_words, output_option, overwrite_option, resize_option
from narrows.io.write import PAGES, check_output

if TYPE_CHECKING:
    pass


@click.command
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(model: str, as_json: bool) -> None:
    """Show a model's parts, parameters and training."""
    from narrows import load

    card = load(model).info()
    if as_json:
        click.echo(json.dumps(card, indent=2))
    else:
        if "input_shape" in card:
            card["input_shape"] = " × ".join(map(str, card["input_shape"]))
        click.echo("\n".join(lines(card)))


def lines(card: dict[str, Any], indent: str = "") -> list[str]:
    """A model's ``info`` as aligned text: one name and value in each line, groups indented.

    >>> lines({"model": "A", "training": {"rows": 5, "best_epoch": 3}})
    ['model     A', 'training', '  rows        5', '  best epoch  3']
    """
    width = max(map(len, card), default=0)
    shown = []
    for name, value in card.items():
        label = indent + name.replace("_", " ")
        if isinstance(value, dict):
            shown += [label, *lines(value, indent + "  ")] if value else []
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            shown += [label, *_listed(value, indent + "  ")]
        else:
            shown.append(f"{label:<{width + len(indent)}}  {_text(value)}")
    return shown


def _listed(cards: list[dict[str, Any]], indent: str) -> list[str]:
    """Equal groups, one in each line, numbered from 0."""
    rows = [
        ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in card.items())
        for card in cards
    ]
    return [f"{indent}{i:>2}  {row}" for i, row in enumerate(rows)]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@click.command
@click.argument("model")
@click.argument("data")
@output_option(
    "The page to write, a name that ends in .html. Its pictures are also written to a folder."
)
@click.option("--labels", metavar="FILE", help="A class for each row: text, .npy or IDX.")
@resize_option
@overwrite_option
@click.pass_obj
def report(
    words: Sequence[str],
    model: str,
    data: str,
    out: str,
    labels: str | None,
    resize: str | None,
    overwrite: bool,
) -> None:
    """Write a page of MODEL's results on DATA.

    If MODEL was fitted on DATA, the page measures on the rows that were held out: those kept back
    by `fit --test-size`, or else those for validation. PCA's result is next to every result.
    Labels that come with DATA are used unless --labels gives others.
    """
    from narrows.io.read import read_labels
    from narrows.report import measured_rows, write_report

    check_output(out, PAGES, overwrite=overwrite)
    estimator = loaded(model, "reconstruct")
    source = rows_for(estimator, data, resize)
    path = write_report(
        estimator,
        source.X,
        out,
        y=labels_of(source) if labels is None else read_labels(labels),
        commands=[fit_command(estimator.info(), model), shlex.join(["narrows", *words])],
        feature_names=source.feature_names,
        overwrite=overwrite,
    )
    measured = measured_rows(estimator, source.X).in_words(len(source.X))
    click.echo(f"wrote {path}, measured on {measured}")


def fit_command(card: dict[str, Any], path: str) -> str:
    """The command that fits a model with the parameters of ``card``; DATA stands for its data.

    >>> card = {"model": "Autoencoder", "parameters": {"latent_dim": 2, "tied": True}}
    >>> fit_command(card, "m.safetensors")
    'narrows fit DATA --model Autoencoder --latent-dim 2 --tied -o m.safetensors'
    """
    words = ["narrows", "fit", "DATA", "--model", card["model"]]
    for name, value in card["parameters"].items():
        words += option_words(name, value)
    return shlex.join([*words, "-o", path])


@click.command
def models() -> None:
    """List the models that `fit` can fit."""
    from narrows.estimators.registry import KNOWN, SHORT_NAMES

    short = {name: key for key, name in SHORT_NAMES.items()}
    for name, entry in KNOWN.items():
        known = f"{name} ({short[name]})" if name in short else name
        click.echo(f"{known}\n    {entry.sentence}")


@click.command
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="FOLDER",
    default="narrows-demo",
    show_default=True,
    help="Where pages, pictures and models are written.",
)
@click.option(
    "--max-epochs",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Largest number of passes over the training rows, for each fit.",
)
@overwrite_option
def demo(folder: str, max_epochs: int, overwrite: bool) -> None:
    """Fit four models on data that comes with narrows.

    Prints their errors and PCA's, and writes a page for each model, one for all, and a map of the
    data that decodes wherever you drag. Needs no network; takes a minute or two.
    """
    from narrows.report.demo import run_demo

    map_of = ("map.html", "A map of the digits: it decodes wherever you drag")
    run_demo(
        folder, echo=click.echo, overwrite=overwrite, max_epochs=max_epochs, more_pages=[map_of]
    )
    write_demo_map(folder, max_epochs, overwrite)
