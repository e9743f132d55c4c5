"""Options that several verbs share, and the options made from a model's parameters."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.estimators.parameters import MODULE, OBJECT, Parameters, in_order, names_in_scope
from narrows.estimators.registry import find_model, model_class
from narrows.io.write import check_output
from narrows.training.listeners import TRACKERS, JsonLines

if TYPE_CHECKING:
    from narrows.training.listeners import Listener

# no Python objects; and what has no meaning where a command ends after one fit
NOT_OFFERED = {*names_in_scope(Parameters, MODULE, OBJECT), "warm_start", "verbose"}
RENAMED = {"random_state": "--seed"}
DEFAULT_MODEL = "Autoencoder"
METAVARS = {int: "INT", float: "NUMBER", tuple: "INT,INT,…", "time": "TIME", "seed": "INT",
            "range": "NUMBER|LOW,HIGH"}  # fmt: skip


def literal(text: str) -> Any:
    """The Python value of ``text``; text that is no Python value is returned as it is.

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
    """Parse a parameter's text; the parameter's own rule checks the value later."""

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
    return METAVARS.get(rule.get("kind"), "TEXT" if isinstance(item.default, str) else "VALUE")


def _shown(value: object) -> str:
    """A default or a choice as it is typed on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(str(v) for v in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def option_words(name: str, value: object) -> list[str]:
    """The words that set the parameter ``name`` to this value on the command line.

    >>> option_words("hidden_layer_sizes", [512, 256])
    ['--hidden-layer-sizes', '512,256']
    >>> option_words("early_stopping", False), option_words("f", None)
    (['--no-early-stopping'], [])
    """
    if name in NOT_OFFERED:
        return []
    option = RENAMED.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool) and name not in ("linear_path", "in_memory"):
        return [option if value else option.replace("--", "--no-")]
    return [option, _shown(value)]


def _option(item: Field[Any]) -> click.Option:
    name = item.name.replace("_", "-")
    is_switch = item.metadata.get("kind") is bool
    default = ("" if item.default else "no-") + name if is_switch else _shown(item.default)
    help_text = f"{item.metadata.get('help', '')}  [default: {default}]"
    if is_switch:
        return click.Option([f"--{name}/--no-{name}", item.name], default=None, help=help_text)
    words = [RENAMED.get(item.name, f"--{name}"), item.name]
    return click.Option(words, callback=_reader(item), metavar=_metavar(item), help=help_text)


def _offered(model: type) -> list[Field[Any]]:
    return [item for item in in_order(model) if item.name not in NOT_OFFERED]


def _model_named(args: Sequence[str]) -> str:
    """The model named on a command line that is not parsed yet."""
    named = DEFAULT_MODEL
    for i, word in enumerate(args):
        if word.startswith("--model="):
            named = word.removeprefix("--model=")
        elif word == "--model" and i + 1 < len(args):
            named = args[i + 1]
    return find_model(named)


class ModelCommand(click.Command):
    """A verb whose options include the parameters of the model that ``--model`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the model before parsing: the options depend on it."""
        ctx.meta["narrows.model"] = _model_named(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The verb's own options, then the parameters."""
        own = super().get_params(ctx)
        return [*own, *(_option(item) for item in self._fields(ctx))]

    def _fields(self, ctx: click.Context) -> list[Field[Any]]:
        """The parameters; only a model other than the default needs the import of its class."""
        name = ctx.meta.get("narrows.model", DEFAULT_MODEL)
        return _offered(Parameters if name == DEFAULT_MODEL else model_class(name))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Three lists: the verb's options, this model's own parameters, every model's."""
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
    """The model's parameters given on the command line; the others keep their defaults."""
    names = [item.name for item in _offered(model)]
    return {name: ctx.params[name] for name in names if is_given(ctx, name)}


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether the parameter ``name`` was given on the command line."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def output_option(help_text: str) -> Callable[[Any], Any]:
    """The required option ``-o/--output``."""
    return click.option("-o", "--output", "out", metavar="OUT", required=True, help=help_text)


def overwrite_option(function: Any) -> Any:
    """The option ``--overwrite``; no verb replaces anything without it."""
    return click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")(function)


def resize_option(function: Any) -> Any:
    """The option ``--resize``, for folders of images of different sizes."""
    return click.option(
        "--resize",
        metavar="SIZE",
        help="Scale and crop the images of a folder to one size: 32, or 28x32 (height x width).",
    )(function)


def tracking_options(function: Any) -> Any:
    """The options ``--log`` and ``--track``: where every epoch is logged."""
    log = click.option(
        "--log", metavar="FILE.jsonl", help="Write one line of JSON for each epoch to this file."
    )
    track = click.option(
        "--track",
        type=click.Choice(list(TRACKERS)),
        multiple=True,
        help="Log every epoch to TensorBoard, MLflow or W&B; may be given several times. "
        "tensorboard writes to the folder runs/NAME, NAME being OUT without its suffix; mlflow and "
        "wandb read their own environment variables.",
    )
    return log(track(function))


def listeners_for(
    log: str | None, track: Sequence[str], out: Path, *, overwrite: bool
) -> list[Listener] | None:
    """The listeners of ``--log`` and ``--track``; raises before any data is read."""
    listeners: list[Listener] = []
    if log is not None:
        # appending cuts off what the file holds of epochs that this fit trains (again)
        path = check_output(log, [".jsonl"], overwrite=overwrite)
        listeners.append(JsonLines(path, append=overwrite))
    return [*listeners, *(TRACKERS[kind](out.stem) for kind in track)] or None
