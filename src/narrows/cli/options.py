"""Options that several verbs share, and those made from a model's parameters."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from narrows.estimators.parameters import MODULE, OBJECT, Parameters, in_order, names_in_scope
from narrows.estimators.registry import find_model, model_class
from narrows.training.listeners import TRACKERS, JsonLines

__all__ = [
    "ModelCommand",
    "given_parameters",
    "listeners_for",
    "literal",
    "output_option",
    "overwrite_option",
    "resize_option",
    "tracking_options",
    "typed",
]

# no Python objects; and what has no meaning where a command ends after one fit
NOT_OFFERED = {*names_in_scope(Parameters, MODULE, OBJECT), "warm_start", "verbose"}
RENAMED = {"random_state": "--seed"}
FIRST_MODEL = "Autoencoder"


def literal(text: str) -> Any:
    """The Python value that ``text`` stands for; text that stands for none is itself.

    >>> [literal(t) for t in ("512,256", "0.1", "3m", "auto", "none", "true")]
    [(512, 256), 0.1, '3m', 'auto', None, True]
    """
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _reader(item: Field[Any]) -> Callable[..., Any]:
    """Reads a parameter's text; whether it may be that is for the parameter's own rule to say."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        found = literal(value) if isinstance(value, str) else value
        if item.metadata.get("kind") is tuple and isinstance(found, int):
            return (found,)  # one layer
        return found

    return read


def _metavar(item: Field[Any]) -> str:
    rule = item.metadata
    if "choices" in rule:
        return "|".join(_shown(choice) for choice in rule["choices"])
    kind = rule.get("kind")
    nouns = {int: "INT", float: "NUMBER", tuple: "INT,INT,…", "time": "TIME", "seed": "INT"}
    nouns["range"] = "NUMBER|LOW,HIGH"
    return nouns.get(kind, "TEXT" if isinstance(item.default, str) else "VALUE")


def _shown(value: Any) -> str:
    """A default or a choice as one would type it."""
    if isinstance(value, tuple | list):
        return ",".join(str(v) for v in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def typed(name: str, value: Any) -> list[str]:
    """The words that give the parameter ``name`` this value on the command line.

    >>> typed("hidden_layer_sizes", [512, 256]), typed("early_stopping", False), typed("f", None)
    (['--hidden-layer-sizes', '512,256'], ['--no-early-stopping'], [])
    """
    if name in NOT_OFFERED:
        return []
    option = RENAMED.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool) and name not in ("linear_path", "in_memory"):
        return [option if value else option.replace("--", "--no-")]
    return [option, _shown(value)]


def _option(item: Field[Any]) -> click.Option:
    name = item.name.replace("_", "-")
    help_text = item.metadata.get("help", "")
    if item.metadata.get("kind") is bool:
        default = name if item.default else f"no-{name}"
        return click.Option(
            [f"--{name}/--no-{name}", item.name],
            default=None,
            help=f"{help_text}  [default: {default}]",
        )
    return click.Option(
        [RENAMED.get(item.name, f"--{name}"), item.name],
        callback=_reader(item),
        metavar=_metavar(item),
        help=f"{help_text}  [default: {_shown(item.default)}]",
    )


def _offered(model: type) -> list[Field[Any]]:
    return [item for item in in_order(model) if item.name not in NOT_OFFERED]


def _model_named(args: Sequence[str]) -> str:
    """The model that the words of a command line ask for, before they are parsed."""
    named = FIRST_MODEL
    for i, word in enumerate(args):
        if word.startswith("--model="):
            named = word.removeprefix("--model=")
        elif word == "--model" and i + 1 < len(args):
            named = args[i + 1]
    return find_model(named)


class ModelCommand(click.Command):
    """A verb whose options are the parameters of the model that ``--model`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the model first: which options there are depends on it."""
        ctx.meta["narrows.model"] = _model_named(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The verb's own options, then the parameters."""
        own = super().get_params(ctx)
        return [*own, *(_option(item) for item in self._fields(ctx))]

    def _fields(self, ctx: click.Context) -> list[Field[Any]]:
        """Only a model other than the first costs the import of its class."""
        name = ctx.meta.get("narrows.model", FIRST_MODEL)
        return _offered(Parameters if name == FIRST_MODEL else model_class(name))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Three lists: the verb's options, every model's parameters, and this model's own."""
        helps = {item.name: item.metadata.get("help") for item in fields(Parameters)}
        mine = {item.name: item.metadata.get("help") for item in self._fields(ctx)}
        shared = {name for name, said in mine.items() if helps.get(name) == said}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            title = "Options"
            if param.name in mine:
                own = f"Parameters of {ctx.meta['narrows.model']}"
                title = "Parameters of every model" if param.name in shared else own
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                sections.setdefault(title, []).append(record)
        for title, records in sorted(sections.items(), key=lambda pair: " of every" in pair[0]):
            with formatter.section(title):
                formatter.write_dl(records)


def given_parameters(ctx: click.Context, model: type) -> dict[str, Any]:
    """The model's parameters that stand on the command line; the others keep their defaults."""
    names = {item.name for item in _offered(model)}
    typed = click.core.ParameterSource.COMMANDLINE
    return {
        name: value
        for name, value in ctx.params.items()
        if name in names and ctx.get_parameter_source(name) is typed
    }


def read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """(height, width) from ``32`` or ``28x32``."""
    from narrows.io.image_folders import parse_size

    return parse_size(value)


def output_option(help_text: str) -> Callable[[Any], Any]:
    """``-o/--output``, required."""
    return click.option("-o", "--output", "out", metavar="OUT", required=True, help=help_text)


def overwrite_option(function: Any) -> Any:
    """``--overwrite``; no verb replaces anything without it."""
    return click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")(function)


def resize_option(function: Any) -> Any:
    """``--resize``, for pictures of differing sizes."""
    return click.option(
        "--resize",
        callback=read_size,
        metavar="SIZE",
        help="Bring a folder's pictures to one size first, as 32 or 28x32 pixels.",
    )(function)


def tracking_options(function: Any) -> Any:
    """``--log`` and ``--track``: who hears of every epoch."""
    log = click.option(
        "--log", metavar="FILE.jsonl", help="Write a line of JSON for every epoch to this file."
    )
    track = click.option(
        "--track",
        type=click.Choice(list(TRACKERS)),
        multiple=True,
        help="Hand every epoch to a tracker; may be given again for another. tensorboard writes "
        "to runs/ and the name of OUT; the others go where their own environment variables say.",
    )
    return log(track(function))


def listeners_for(
    log: str | None, track: Sequence[str], out: Path, *, overwrite: bool
) -> list[Any] | None:
    """The listeners these options ask for; what cannot be is refused before anything is read."""
    from narrows.io.write import check_output

    made: list[Any] = []
    if log is not None:
        # a fit that starts anew cuts off all that a file of another run holds
        path = check_output(log, [".jsonl"], overwrite=overwrite)
        made.append(JsonLines(path, append=overwrite))
    return [*made, *(TRACKERS[kind](out.stem) for kind in track)] or None
