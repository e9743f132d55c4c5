"""What a user lets listen to a run: its start, every epoch and its end.

A listener only hears copies, so that it can change neither the model nor the history. What happens
where one fails: at the start the run ends before any training, in one sentence (a log that cannot
be written should not be found out hours later); afterwards a warning names it, it hears no more
epochs, and training goes on. Everything that was started is also ended. Ctrl-C passes through.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narrows.exceptions import FileError, NarrowsError, ParameterError
from narrows.io.write import check_output

__all__ = ["JsonLines", "Listener", "Listeners", "as_listener"]


class Listener:
    """Three methods that do nothing; override those you need.

    An estimator's clones share its listeners. A saved or pickled model holds none.

    Examples
    --------
    >>> class Enough(Listener):
    ...     def on_epoch(self, entry):
    ...         return entry["validation"] < 0.1
    >>> Enough().on_epoch({"epoch": 1, "validation": 0.05})
    True
    """

    def on_start(self, about: dict[str, Any]) -> None:
        """The model is built and not yet trained.

        ``about`` is plain JSON: ``model``, ``parameters`` (those not at their default),
        ``choices``, ``rows``, ``seed``, ``versions``, and ``epoch``, the number of epochs already
        in ``history_`` that this run goes on from.
        """

    def on_epoch(self, entry: dict[str, float]) -> bool | None:
        """One more entry of ``history_``; True asks the run to stop."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """The run is over: ``stop_reason``, ``best_epoch``, ``best_score``, ``seconds``.

        Where it broke off by an error there is only ``stop_reason``.
        """

    def __sklearn_clone__(self) -> Listener:
        # a listener is no part of the model; and it may hold what cannot be copied, as a socket
        return self


class _Calling(Listener):
    """A plain callable, called with every entry."""

    def __init__(self, function: Callable[[dict[str, float]], Any]) -> None:
        self.function = function

    def on_epoch(self, entry: dict[str, float]) -> bool | None:
        answer: bool | None = self.function(entry)
        return answer


def as_listener(given: Any) -> Listener:
    """A Listener as it is, a callable as one whose ``on_epoch`` it is.

    >>> as_listener(3)
    Traceback (most recent call last):
    narrows.exceptions.ParameterError: ... must be a Listener or a callable that takes the entry
    of an epoch; got 3.
    """
    if isinstance(given, Listener):
        return given
    if isinstance(given, type) and issubclass(given, Listener):
        raise ParameterError(
            f"A listener must be an object, not a class; give {given.__name__}(...) instead of "
            f"{given.__name__}."
        )
    if not callable(given):
        raise ParameterError(
            "A listener must be a Listener or a callable that takes the entry of an epoch; got "
            f"{given!r}."
        )
    return _Calling(given)


class Listeners(Listener):
    """All listeners of a run, told in the order given; None, one of them or a list of them."""

    def __init__(self, given: Any = None) -> None:
        items = given if isinstance(given, list | tuple) else [] if given is None else [given]
        self._all = [as_listener(item) for item in items]
        self._started: list[Listener] = []
        self._failed: set[int] = set()  # by identity: a user's listener may compare as it likes

    @contextmanager
    def following(self, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Start now, and end with what the caller wrote into the summary it gets.

        Where the run breaks off, the listeners hear the error's name and words.
        """
        self.on_start(about)
        summary: dict[str, Any] = {}
        try:
            yield summary
        except BaseException as error:
            summary = {"stop_reason": _words(error)}
            raise
        finally:
            self.on_end(summary)

    def on_start(self, about: dict[str, Any]) -> None:
        """Tell each; the first that fails ends those before it, and the run."""
        self._started, self._failed = [], set()
        for listener in self._all:
            try:
                listener.on_start(copy.deepcopy(about))
            except BaseException as error:
                self.on_end({"stop_reason": f"{_name(listener)} could not start"})
                if isinstance(error, NarrowsError) or not isinstance(error, Exception):
                    raise
                raise ParameterError(
                    f"The listener {_name(listener)} could not start ({_words(error)}); mend it, "
                    "or leave it out."
                ) from error
            self._started.append(listener)

    def on_epoch(self, entry: dict[str, float]) -> bool:
        """Tell each; whether any asked to stop."""
        told = [listener for listener in self._started if id(listener) not in self._failed]
        # all must hear of the epoch, whoever asks first
        answers = [self._tell(one, one.on_epoch, dict(entry)) for one in told]
        return any(map(_is_true, answers))

    def on_end(self, summary: dict[str, Any]) -> None:
        """Tell each that was started, also one that failed: it may have something to close."""
        started, self._started = self._started, []
        with ExitStack() as ending:  # calls all of them, whatever one of them raises
            for one in reversed(started):
                ending.callback(self._tell, one, one.on_end, dict(summary))

    def _tell(self, listener: Listener, method: Callable[[Any], Any], message: Any) -> Any:
        try:
            return method(message)
        except Exception as error:
            if id(listener) not in self._failed:
                self._failed.add(id(listener))
                warnings.warn(
                    f"The listener {_name(listener)} failed ({_words(error)}) and hears no more of "
                    "this run; training is not touched by it.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None


def _name(listener: Listener) -> str:
    if isinstance(listener, _Calling):
        function = listener.function
        return str(getattr(function, "__qualname__", type(function).__name__))
    return type(listener).__name__


def _words(error: BaseException) -> str:
    """The error's kind and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]).rstrip(".")


def _is_true(answer: Any) -> bool:
    """True itself, Python's or numpy's: ``file.write`` answers a number and means nothing by it."""
    import numpy as np

    return isinstance(answer, bool | np.bool_) and bool(answer)


ENTRY = b'{"epoch": '  # how each line begins


@dataclass(eq=False)
class JsonLines(Listener):
    """A log file with a JSON object for each epoch, written as soon as it ends; NaN is null.

    The file holds what ``history_`` will hold. A run that starts anew refuses a file that is there
    already; with ``append`` it goes on with it, as after an interruption, and lines of epochs that
    this run does again are cut off (all of them, where it starts at the first epoch).

    Parameters
    ----------
    path : str or Path, a name that ends in .jsonl
    append : bool

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> log = JsonLines(folder.name + "/log.jsonl")
    >>> log.on_start({"epoch": 0})
    >>> log.on_epoch({"epoch": 1, "loss": float("nan")})
    >>> Path(log.path).read_text()
    '{"epoch": 1, "loss": null}\\n'
    >>> folder.cleanup()
    """

    path: str | Path
    append: bool = False

    _begun = False  # by this very object: the next partial_fit goes on with its own file

    def on_start(self, about: dict[str, Any]) -> None:
        """Refuse or cut a file that is there; see that it can be written."""
        kept = int(about.get("epoch", 0))
        path = check_output(self.path, [".jsonl"], overwrite=True)
        if path.exists() and not (self.append or (self._begun and kept)):
            raise FileError(
                f"{str(path)!r} exists already; choose another name, or go on with it by "
                "JsonLines(path, append=True)."
            )
        path.open("ab").close()
        _cut(path, kept)
        self._begun = True

    def on_epoch(self, entry: dict[str, float]) -> None:
        """One more line."""
        from narrows.io.safetensors_file import without_nan

        line = json.dumps(without_nan({"epoch": entry["epoch"], **entry}))
        # opened anew each time: nothing is left open, and who reads the file sees every epoch
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _cut(path: Path, kept: int) -> None:
    """Leave the lines of epochs up to ``kept``; a last line that was broken off goes too."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") and (line.startswith(ENTRY) or ENTRY.startswith(line)):
                break
            if _epoch(path, line) > kept:
                break
            end += len(line)
    os.truncate(path, end)


def _epoch(path: Path, line: bytes) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        raise FileError(
            f"{str(path)!r} is no log of narrows: a line of it is no JSON object with an epoch; "
            "choose another name."
        ) from None
