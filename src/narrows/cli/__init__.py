"""The command ``narrows VERB``: each verb parses, calls the public API and prints.

The verbs' modules import nothing heavy before a verb runs, so that ``--help`` is fast. An error
ends the command with one line on stderr and an exit status:

- 1 for an error of narrows or of the system, 2 for a wrong command line;
- for a .narrow file: 3 it is not one, 4 it has a newer format, 5 it needs another model, 6 it ends
  too early, 7 it is damaged, 8 it asks for more than is allowed;
- 130 when interrupted (Ctrl-C).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from narrows.cli import apply, compress, denoise, fit, show
from narrows.exceptions import NarrowsError
from narrows.training import given_rank, launched
from narrows.version import __version__

__all__ = ["commands", "main"]


class Verbs(click.Group):
    """The verbs, listed in the order in which they are usually needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added; click sorts them by name."""
        return list(self.commands)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`narrows VERB --help` shows a verb's options.",
)
@click.version_option(__version__, prog_name="narrows")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def commands(debug: bool) -> None:
    """Autoencoders for tables, signals and images.

    DATA is digits, mnist, fashion-mnist, a folder of images or of .parquet files, a .zarr, or a
    .npy, .npz, .csv, .parquet or IDX file.
    """


for verb in (
    *(show.demo, fit.fit, apply.encode, apply.decode, apply.reconstruct, apply.sample),
    *(denoise.denoise, compress.compress, compress.decompress, compress.inspect),
    *(show.info, show.report, show.models),
):
    commands.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; ``arguments`` default to those of the process."""
    # Waiting threads should sleep soon: if other programs need the cores, threads that spin make
    # every step many times slower. GNU's OpenMP reads this when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words  # at any place: people add it at the end
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if given_rank() > 0:  # rank 0 reports for all processes
            warnings.simplefilter("ignore")
        sys.exit(_run([word for word in words if word != "--debug"], debug))


def _run(words: list[str], debug: bool) -> int:
    """Run the command; return the exit status, after one line on stderr if it is not 0."""
    try:
        _check_torchrun(words)
        status = commands.main(words, prog_name="narrows", standalone_mode=False, obj=words)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BaseException as error:
        if debug and isinstance(error, Exception) and not isinstance(error, click.ClickException):
            raise
        for kind, (status, sentence) in ENDINGS.items():
            if isinstance(error, kind):
                status = getattr(error, "exit_code", status) if kind is NarrowsError else status
                return _end(status, "" if _reported_elsewhere(error) else sentence(error))
        raise


def _check_torchrun(words: list[str]) -> None:
    """Only ``fit`` runs in several processes; every other verb would run once in each."""
    if launched() and words[:1] != ["fit"]:
        raise click.UsageError("torchrun is for `narrows fit` only; run this without torchrun.")


def _reported_elsewhere(error: BaseException) -> bool:
    """Whether another process of the same run reports this error."""
    reported = getattr(error, "reported", False)
    # errors before the processes are connected, of usage and by Ctrl-C are the same in all
    same_in_all = reported is None or isinstance(
        error, click.ClickException | click.Abort | KeyboardInterrupt
    )
    return bool(reported) or (given_rank() > 0 and same_in_all)


def _end(status: int, sentence: str) -> int:
    if sentence:
        who = f"narrows: process {given_rank()}" if given_rank() > 0 else "narrows"
        click.echo(f"{who}: {' '.join(sentence.split())}", err=True)
    return status


def _usage(error: Any) -> str:
    path = error.ctx.command_path if error.ctx else "narrows"
    return f"{error.format_message()} See `{path} --help`."


def _system(error: Any) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}."


def _broken_pipe(error: Any) -> str:
    # the reader is gone: flushing what is still buffered at exit would print a traceback
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ""


def _unexpected(error: Any) -> str:
    message = str(error) or "no message"
    return f"unexpected {type(error).__name__}: {message} (add --debug to see where)."


# Status and sentence of each kind of error; the first kind that fits is taken.
ENDINGS: dict[type[BaseException], tuple[int, Callable[[Any], str]]] = {
    NarrowsError: (1, str),
    click.UsageError: (2, _usage),
    click.ClickException: (1, lambda error: error.format_message()),
    click.Abort: (130, lambda error: "interrupted."),
    KeyboardInterrupt: (130, lambda error: "interrupted."),
    BrokenPipeError: (1, _broken_pipe),
    MemoryError: (1, lambda error: "not enough memory; give fewer or smaller rows."),
    OSError: (1, _system),
    Exception: (1, _unexpected),
}


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"narrows: warning: {' '.join(str(message).split())}", err=True)
