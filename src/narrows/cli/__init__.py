"""The command ``narrows VERB``: each verb parses, calls the public API and prints.

Nothing heavy is imported here or by the verbs' modules before a verb runs, so that ``--help``
answers at once. Bad input ends in one line on stderr and a status that is not 0:

- 1 for what narrows refuses or cannot do, 2 for a command that makes no sense;
- for what is wrong with a .narrow file: 3 it is none, 4 it is of a newer format, 5 it needs another
  model, 6 it ends too early, 7 it is damaged, 8 it asks for more than is allowed;
- 130 when stopped by hand.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from narrows.cli import (
    apply as using,
)
from narrows.cli import (
    compress as compressing,
)
from narrows.cli import (
    denoise as denoising,
)
from narrows.cli import (
    fit as training,
)
from narrows.cli import (
    show as showing,
)
from narrows.exceptions import NarrowsError
from narrows.training import given_rank, launched
from narrows.version import __version__

__all__ = ["commands", "main"]


class Verbs(click.Group):
    """The verbs in the order one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`narrows VERB --help` shows a verb's options.",
)
@click.version_option(__version__, prog_name="narrows")
@click.option("--debug", is_flag=True, help="Show the whole trace of an error.")
def commands(debug: bool) -> None:
    """Autoencoders for tables, signals and images.

    DATA is digits, mnist, fashion-mnist, a folder of images or of .parquet files, a .zarr, or a
    .npy, .npz, .csv, .parquet or IDX file.
    """


for verb in (
    showing.demo,
    training.fit,
    using.encode,
    using.decode,
    using.reconstruct,
    using.sample,
    denoising.denoise,
    compressing.compress,
    compressing.decompress,
    compressing.inspect,
    showing.info,
    showing.report,
    showing.models,
):
    commands.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; ``arguments`` are those of the process unless given."""
    # Threads that wait must soon sleep: when other work wants the cores, threads that spin make
    # every step many times slower. GNU's OpenMP reads this when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words  # wherever it stands: people add it at the end
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if given_rank() > 0:  # what all have to say the first says
            warnings.simplefilter("ignore")
        sys.exit(_run([word for word in words if word != "--debug"], debug))


def _run(words: list[str], debug: bool) -> int:
    """The exit status, after the one line that says why it is not 0."""
    try:
        _refuse_to_repeat(words)
        status = commands.main(words, prog_name="narrows", standalone_mode=False, obj=words)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BaseException as error:
        if debug and isinstance(error, Exception) and not isinstance(error, click.ClickException):
            raise
        for kind, (status, sentence) in ENDINGS.items():
            if isinstance(error, kind):
                status = getattr(error, "exit_code", status) if kind is NarrowsError else status
                return _end(status, "" if _is_told(error) else sentence(error))
        raise


def _refuse_to_repeat(words: list[str]) -> None:
    """Several processes may learn together; anything else they would all do over again."""
    if launched() and words[:1] != ["fit"]:
        raise click.UsageError("torchrun is for `narrows fit` alone; run this without it.")


def _is_told(error: BaseException) -> bool:
    """Whether another process of the same run says it."""
    reported = getattr(error, "reported", False)
    # what is found before they meet is found by all; so are words, and a stop by hand
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
    # what is still buffered must not be flushed at exit: the reader is gone, and wants no trace
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ""


def _unforeseen(error: Any) -> str:
    said = str(error) or "no message"
    return f"unforeseen {type(error).__name__}: {said} (add --debug to see where)."


# The first that fits: what a user did, what the machine said, what nobody foresaw.
ENDINGS: dict[type[BaseException], tuple[int, Callable[[Any], str]]] = {
    NarrowsError: (1, str),
    click.UsageError: (2, _usage),
    click.ClickException: (1, lambda error: error.format_message()),
    click.Abort: (130, lambda error: "stopped."),
    KeyboardInterrupt: (130, lambda error: "stopped."),
    BrokenPipeError: (1, _broken_pipe),
    MemoryError: (1, lambda error: "not enough memory; give fewer rows, or smaller ones."),
    OSError: (1, _system),
    Exception: (1, _unforeseen),
}


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    click.echo(f"narrows: warning: {' '.join(str(message).split())}", err=True)
