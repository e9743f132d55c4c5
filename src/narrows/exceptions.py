"""The errors that narrows raises on purpose.

    NarrowsError
    ├── InputError      the data given cannot be used (also a ValueError)
    │   └── InputTypeError  ... because it holds things that are no numbers (also a TypeError)
    ├── ParameterError  a parameter, or two parts together, make no sense (also a ValueError)
    │   └── UnknownParameterError  ... because none has this name (also a TypeError)
    ├── FileError       a file is missing, damaged, hostile or not ours (also a ValueError)
    │   ├── NotOurFile          ... no compressed file of narrows
    │   ├── UnsupportedVersion  ... of a format that is newer than this narrows
    │   ├── WrongModel          ... compressed with another model than the one given
    │   ├── Truncated           ... it ends too early
    │   ├── Corrupt             ... it holds what no encoder wrote
    │   └── TooLarge            ... it asks for more than is allowed
    └── WorkerError     of several processes that work together, one ended too early

Every message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: object, known: Iterable[object]) -> str:
    """A sentence that names the nearest of the ``known`` words, or nothing if none is near.

    Case is ignored, and so are hyphens and underscores.

    >>> did_you_mean("Auto-encodr", ["Autoencoder", "VQVAE"]), did_you_mean("x", ["gelu"])
    (" Did you mean 'Autoencoder'?", '')
    """
    plain = {str(word).lower().replace("-", "").replace("_", ""): str(word) for word in known}
    wanted = str(given).lower().replace("-", "").replace("_", "")
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.7)
    return f" Did you mean {plain[close[0]]!r}?" if close else ""


def in_one_line(error: Exception) -> str:
    """What another library's error says, for the middle of a sentence."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error)[:1000].split())[:300].rstrip(".")


class NarrowsError(Exception):
    """Any error narrows raises on purpose."""

    # True if rank 0 of this run has reported the error already; None outside a group of processes
    reported: bool | None = None
    exit_code = 1  # of the command that ends with it


class InputError(NarrowsError, ValueError):
    """The data given cannot be used."""


class InputTypeError(InputError, TypeError):
    """The data given holds things that are no numbers at all."""


class ParameterError(NarrowsError, ValueError):
    """A parameter is out of range, or two parts together have no meaning."""


class UnknownParameterError(ParameterError, TypeError):
    """No parameter has this name."""


class FileError(NarrowsError, ValueError):
    """A file is missing, damaged, hostile, or not a narrows file."""


class NotOurFile(FileError):
    """The file is no compressed file of narrows."""

    exit_code = 3


class UnsupportedVersion(FileError):
    """The compressed file is of a format that this narrows does not know."""

    exit_code = 4


class WrongModel(FileError):
    """The compressed file needs another model than the one given, or one where none was given."""

    exit_code = 5


class Truncated(FileError):
    """The compressed file ends too early."""

    exit_code = 6


class Corrupt(FileError):
    """The compressed file is damaged: it holds what no encoder wrote."""

    exit_code = 7


class TooLarge(FileError):
    """The compressed file asks for more memory or more parts than is allowed."""

    exit_code = 8


class WorkerError(NarrowsError):
    """Of several processes that work together, one ended too early or could not be reached."""
