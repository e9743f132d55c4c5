"""The verbs that show: demo, info, report, models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from narrows.cli.apply import loaded, rows_for
from narrows.cli.options import output_option, overwrite_option, resize_option, typed

if TYPE_CHECKING:
    from narrows.io.read import Data

__all__ = ["demo", "info", "models", "report"]


@click.command
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
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
    """A card as aligned text, one name and its value a line, groups indented.

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
    """Cards that are alike, one a line and numbered from 0."""
    rows = [
        ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in card.items())
        for card in cards
    ]
    return [f"{indent}{i:>2}  {row}" for i, row in enumerate(rows)]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@click.command
@click.argument("model")
@click.argument("data")
@output_option("The page to write, a name that ends in .html; its pictures go beside it.")
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
    resize: Any,
    overwrite: bool,
) -> None:
    """Write a page on what MODEL does with DATA.

    It shows PCA's result beside every result.
    Labels that come with DATA are used unless --labels gives others.
    """
    from narrows.io.read import read_labels
    from narrows.io.write import check_output
    from narrows.report.model_report import write_report

    check_output(out, [".html"], overwrite=overwrite)
    estimator = loaded(model, "reconstruct")
    source = rows_for(estimator, data, resize)
    path = write_report(
        estimator,
        source.X,
        out,
        y=_labels(source) if labels is None else read_labels(labels),
        commands=[fit_command(estimator.info(), model), shlex.join(["narrows", *words])],
        feature_names=source.feature_names,
        overwrite=overwrite,
    )
    click.echo(f"wrote {path}")


def _labels(source: Data) -> Any:
    """The labels that came with the data, by their names where they have some."""
    import numpy as np

    if source.y is None or source.y_names is None:
        return source.y
    return np.array(source.y_names)[source.y]


def fit_command(card: dict[str, Any], path: str) -> str:
    """The command that fits a model like the one of ``card``; its data are not in the file.

    >>> card = {"model": "Autoencoder", "parameters": {"latent_dim": 2, "tied": True}}
    >>> fit_command(card, "m.safetensors")
    'narrows fit DATA --model Autoencoder --latent-dim 2 --tied -o m.safetensors'
    """
    words = ["narrows", "fit", "DATA", "--model", card["model"]]
    for name, value in card["parameters"].items():
        words += typed(name, value)
    return shlex.join([*words, "-o", path])


@click.command
def models() -> None:
    """List the models that fit knows."""
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
    help="Where the pages, pictures and models go.",
)
@click.option(
    "--max-epochs",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Most passes over the training rows, for each fit.",
)
@overwrite_option
def demo(folder: str, max_epochs: int, overwrite: bool) -> None:
    """Fit four models on real data that comes along.

    Prints how they did beside PCA, and leaves a page about all and one about each. Needs no
    network; takes a minute or two.
    """
    from narrows.report.demo import run_demo

    run_demo(folder, echo=click.echo, overwrite=overwrite, max_epochs=max_epochs)
