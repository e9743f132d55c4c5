"""The command ``narrows VERB``: each verb parses, calls the public API and prints.

The verbs' modules import nothing heavy before a verb runs, so that ``--help`` is fast. An error
ends the command with one line on stderr and an exit status:

- 1 for an error of narrows or of the system, 2 for a wrong command line;
- for a .narrow file: 3 it is not one, 4 it has a newer format, 5 it needs another model, 6 it ends
  too early, 7 it is damaged, 8 it asks for more than is allowed;
- 130 when interrupted (Ctrl-C).
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from narrows.cli import apply, compress, denoise, fit, map_verbs, show
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
    *(show.demo, fit.fit, apply.encode, apply.decode, apply.reconstruct),
    *(apply.impute, apply.interpolate, apply.sample),
    *(denoise.denoise, compress.compress, compress.decompress, compress.inspect),
    *(show.info, show.report, map_verbs.map_, map_verbs.explore, show.models),
):
    commands.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; ``arguments`` default to those of the process."""
    # Waiting threads should sleep soon: if other programs need the cores, threads that spin make
    # every step many times slower. GNU's OpenMP reads this when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # what is closed is None, and the next file that is opened would get its number
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that its encoding lacks is "?"
            stream.reconfigure(errors="replace")
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
        status, sentence = _ending(error)
        if sentence and not _reported_elsewhere(error):
            who = f"narrows: process {given_rank()}" if given_rank() > 0 else "narrows"
            click.echo(f"{who}: {' '.join(sentence.split())}", err=True)
        return status


def _check_torchrun(words: list[str]) -> None:
    """Only ``fit`` runs in several processes; every other verb would run once in each."""
    if launched() and words[:1] != ["fit"]:
        raise click.UsageError("torchrun is for `narrows fit` only; run this without torchrun.")


def _reported_elsewhere(error: BaseException) -> bool:
    """Whether another process of the same run reports this error."""
    if isinstance(error, NarrowsError) and error.reported is not None:
        return error.reported
    # errors before the processes are connected, of usage and by Ctrl-C are the same in all
    same_in_all = (NarrowsError, click.ClickException, click.Abort, KeyboardInterrupt)
    return given_rank() > 0 and isinstance(error, same_in_all)


def _ending(error: BaseException) -> tuple[int, str]:
    """The exit status and the line on stderr for an error; the empty line is not printed."""
    match error:
        case NarrowsError():
            return error.exit_code, str(error)
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "narrows"
            return 2, f"{error.format_message()} See `{path} --help`."
        case click.ClickException():
            return 1, error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return 130, "interrupted."
        case BrokenPipeError():
            # the reader is gone: flushing what is still buffered at exit would print a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1, ""
        case MemoryError():
            return 1, "not enough memory; give fewer or smaller rows."
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            return 1, f"{error.strerror or error}{where}."
        case Exception():
            message = str(error) or "no message"
            kind = type(error).__name__
            return 1, f"unexpected {kind}: {message} (add --debug to see where)."
    raise error


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"narrows: warning: {' '.join(str(message).split())}", err=True)
