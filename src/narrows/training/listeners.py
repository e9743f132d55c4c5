"""Listeners: objects of the user that get the start, every epoch and the end of a run.

They get copies, so that they can change neither the model nor the history. A listener that fails
at the start ends the run before any training, with one sentence: better than to find out hours
later that the log could not be written. One that fails later is named in a warning and gets no
more epochs, and training continues. Every listener that was started is also ended. Ctrl-C in a
listener is raised.

`JsonLines` writes a log file. `TensorBoard`, `MLflow` and `WandB` log to an experiment tracker;
each needs its own package (extra ``track``), imported when the listener is made.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from narrows.exceptions import FileError, NarrowsError, ParameterError
from narrows.io.write import check_output

MAX_PARAMETER_LENGTH = 500  # characters of a parameter's value that every MLflow server accepts


class Listener:
    """Three methods that do nothing; override those you need.

    An estimator's clones share its listeners. A saved or pickled model has none.

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
        in ``history_`` that this run continues from.
        """

    def on_epoch(self, entry: dict[str, float]) -> bool | None:
        """One more entry of ``history_``; True asks the run to stop."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """The run is over: ``stop_reason``, ``best_epoch``, ``best_score``, ``seconds``.

        If an error ended it, there is only ``stop_reason``.
        """

    def __sklearn_clone__(self) -> Listener:
        # not copied: it is no part of the model, and may hold what cannot be copied, as a socket
        return self


class _CallableListener(Listener):
    """Calls a function with every entry."""

    def __init__(self, function: Callable[[dict[str, float]], Any]) -> None:
        self.function = function

    def on_epoch(self, entry: dict[str, float]) -> bool | None:
        answer: bool | None = self.function(entry)
        return answer


def as_listener(given: object) -> Listener:
    """A Listener as it is; a callable as a listener that calls it with every entry.

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
    return _CallableListener(given)


class Listeners(Listener):
    """All listeners of a run, called in the order given; None, one of them or a list of them."""

    def __init__(self, given: object = None) -> None:
        items = given if isinstance(given, list | tuple) else [] if given is None else [given]
        self._all = [as_listener(item) for item in items]
        self._started: list[Listener] = []
        self._failed: set[int] = set()  # by id(): a user's listener may define its own equality

    @contextmanager
    def following(self, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Call ``on_start`` now and ``on_end`` with what the block writes into the given dict.

        If the block raises, ``on_end`` gets the error's name and message as ``stop_reason``.
        """
        self.on_start(about)
        summary: dict[str, Any] = {}
        try:
            yield summary
        except BaseException as error:
            summary = {"stop_reason": _in_words(error)}
            raise
        finally:
            self.on_end(summary)

    def on_start(self, about: dict[str, Any]) -> None:
        """Start each; the first that fails ends those before it, and the run."""
        self._started, self._failed = [], set()
        for listener in self._all:
            try:
                listener.on_start(copy.deepcopy(about))
            except BaseException as error:
                self.on_end({"stop_reason": f"{_name(listener)} could not start"})
                if isinstance(error, NarrowsError) or not isinstance(error, Exception):
                    raise
                raise ParameterError(
                    f"The listener {_name(listener)} could not start ({_in_words(error)}); fix "
                    "it, or leave it out."
                ) from error
            self._started.append(listener)

    def on_epoch(self, entry: dict[str, float]) -> bool:
        """Call each that has not failed; whether any asks to stop."""
        active = [listener for listener in self._started if id(listener) not in self._failed]
        # a list: all must get the epoch, whichever of them asks to stop
        answers = [self._call(one, one.on_epoch, dict(entry)) for one in active]
        return any(map(_is_true, answers))

    def on_end(self, summary: dict[str, Any]) -> None:
        """End each that was started, also one that failed: it may have a file to close."""
        started, self._started = self._started, []
        with ExitStack() as ending:  # calls all of them, whatever one of them raises
            for one in reversed(started):
                ending.callback(self._call, one, one.on_end, dict(summary))

    def _call(self, listener: Listener, method: Callable[[Any], Any], message: Any) -> Any:
        try:
            return method(message)
        except Exception as error:
            if id(listener) not in self._failed:
                self._failed.add(id(listener))
                warnings.warn(
                    f"The listener {_name(listener)} failed ({_in_words(error)}) and gets no more "
                    "epochs of this run; training continues without it.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None


def _name(listener: Listener) -> str:
    if isinstance(listener, _CallableListener):
        function = listener.function
        return str(getattr(function, "__qualname__", type(function).__name__))
    return type(listener).__name__


def _in_words(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]).rstrip(".")


def _is_true(answer: object) -> bool:
    """True itself, Python's or numpy's: ``file.write`` returns a number that means no stop."""
    import numpy as np

    return isinstance(answer, bool | np.bool_) and bool(answer)


# ------------------------------------------------------------------ a log file

LINE_START = b'{"epoch": '


@dataclass(eq=False)
class JsonLines(Listener):
    """A log file with a JSON object for each epoch, written as soon as it ends; NaN is null.

    The file holds what ``history_`` will hold. A new run refuses a file that exists. With
    ``append`` it continues the file, as after an interruption: lines of epochs that this run does
    again are cut off (all of them, if it starts at the first epoch).

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

    _begun = False  # by this object: the next partial_fit continues its own file

    def on_start(self, about: dict[str, Any]) -> None:
        """Refuse or cut a file that exists; check that it can be written."""
        epochs = int(about.get("epoch", 0))
        path = check_output(self.path, [".jsonl"], overwrite=True)
        if path.exists() and not (self.append or (self._begun and epochs)):
            raise FileError(
                f"{str(path)!r} exists already; choose another name, or continue it with "
                "JsonLines(path, append=True)."
            )
        path.open("ab").close()
        _cut(path, epochs)
        self._begun = True

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Write one more line."""
        from narrows.io.safetensors_file import without_nan

        line = json.dumps(without_nan({"epoch": entry["epoch"], **entry}))
        # opened again each time: nothing stays open, and every epoch is in the file at once
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _cut(path: Path, epochs: int) -> None:
    """Keep the lines of the first epochs; an incomplete last line goes too."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            incomplete = line.startswith(LINE_START) or LINE_START.startswith(line)
            if incomplete and not line.endswith(b"\n"):
                break
            try:
                epoch = float(json.loads(line)["epoch"])
            except (ValueError, KeyError, TypeError):
                raise FileError(
                    f"{str(path)!r} is not a log of narrows: one of its lines is not a JSON object "
                    "with an epoch; choose another name."
                ) from None
            if epoch > epochs:
                break
            end += len(line)
    os.truncate(path, end)


# ------------------------------------------------------------------ experiment trackers


class Tracker(Listener):
    """What the trackers share. ``partial_fit`` continues a run; a copy or a pickle does not."""

    package: ClassVar[str]
    module: ClassVar[str]
    _run: Any = None
    _id: str | None = None

    def __post_init__(self) -> None:
        self._import()

    def _import(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ParameterError(
                f"{type(self).__name__} needs {self.package}, which is not installed; run "
                "pip install 'narrows[track]'."
            ) from error

    def _continues(self, about: dict[str, Any]) -> bool:
        return self._id is not None and about.get("epoch", 0) > 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_run", "_id")}


def _scalars(entry: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in entry.items() if name != "epoch"}


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted names.

    >>> _flatten({"rows": {"training": 90}, "seed": 0})
    {'rows.training': 90, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in data.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _ended_by_error(summary: dict[str, Any]) -> bool:
    return "best_epoch" not in summary


@dataclass(eq=False)
class TensorBoard(Tracker):
    """Curves for ``tensorboard --logdir FOLDER``; give each run a folder of its own."""

    folder: str | Path

    package = "tensorboard"
    module = "torch.utils.tensorboard"

    def on_start(self, about: dict[str, Any]) -> None:
        """Write what the run is about; in a continued run, epochs done again replace the old."""
        epochs = about.get("epoch", 0)
        purge_step = epochs + 1 if epochs else None
        self._run = self._import().SummaryWriter(str(self.folder), purge_step=purge_step)
        self._run.add_text("about", textwrap.indent(json.dumps(about, indent=2), "    "))

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Add one point to every curve."""
        for name, value in _scalars(entry).items():
            self._run.add_scalar(name, value, int(entry["epoch"]))
        self._run.flush()

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write how it ended, and close the file."""
        self._run.add_text("end", json.dumps(summary))
        self._run.close()


@dataclass(eq=False)
class MLflow(Tracker):
    """A run in an MLflow experiment (None: ``Default``), at ``tracking_uri`` (None: MLflow's own).

    A run that is active in MLflow's global state is left alone. mlflow-skinny writes to a server,
    or to a folder (a ``file:`` address; newer versions need ``MLFLOW_ALLOW_FILE_STORE=true``). For
    a database, the default of newer versions, install the whole of mlflow.
    """

    experiment: str | None = None
    tracking_uri: str | None = None

    package = "mlflow-skinny"
    module = "mlflow"

    def on_start(self, about: dict[str, Any]) -> None:
        """Make the run, with what it is about as its parameters."""
        self._run = client = self._import().MlflowClient(tracking_uri=self.tracking_uri)
        if self._continues(about):
            client.update_run(self._id, status="RUNNING")
            return
        name = self.experiment or "Default"
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        self._id = client.create_run(experiment).info.run_id
        for key, value in _flatten(about).items():
            client.log_param(self._id, key, str(value)[:MAX_PARAMETER_LENGTH])

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Log all numbers of the epoch in one request."""
        metric = self._import().entities.Metric
        now, epoch = time.time_ns() // 1_000_000, int(entry["epoch"])  # milliseconds
        metrics = [metric(name, value, now, epoch) for name, value in _scalars(entry).items()]
        self._run.log_batch(self._id, metrics=metrics)

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write how it ended as tags."""
        for key, value in summary.items():
            self._run.set_tag(self._id, key, value)
        self._run.set_terminated(self._id, "FAILED" if _ended_by_error(summary) else "FINISHED")


class WandB(Tracker):
    """A run in a Weights & Biases project.

    ``settings`` go to ``wandb.init``, as ``mode="offline"``.
    """

    package = module = "wandb"

    def __init__(self, project: str | None = None, **settings: Any) -> None:
        self.project, self.settings = project, settings
        self._import()

    def on_start(self, about: dict[str, Any]) -> None:
        """Make the run, with what it is about as its config."""
        again = {"id": self._id, "resume": "allow"} if self._continues(about) else {}
        given = {"project": self.project, **self.settings, **again}
        self._run = self._import().init(config=about, **given)
        self._id = self._run.id

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Add one point to every curve."""
        self._run.log(_scalars(entry), step=int(entry["epoch"]))

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write how it ended, and close the run."""
        self._run.summary.update(summary)
        self._run.finish(exit_code=int(_ended_by_error(summary)))


# the trackers of the command's option --track, made from the name of the run
TRACKERS: dict[str, Callable[[str], Tracker]] = {
    "tensorboard": lambda name: TensorBoard(Path("runs") / name),
    "mlflow": lambda name: MLflow(),
    "wandb": lambda name: WandB("narrows", name=name),
}
