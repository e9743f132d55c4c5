"""Runs that survive being killed.

A checkpoint is a model file, the best model so far, with the state of the run beside it: it can be
loaded like any other, and ``fit`` goes on from it to the same bits as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Set
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from narrows.estimators import model_file as files
from narrows.estimators.parameters import parse_time
from narrows.estimators.setup import Training
from narrows.estimators.summary import plain
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.safetensors_file import read_file, write_file
from narrows.io.write import check_output
from narrows.training.checkpoint import Saved, state_dict
from narrows.training.monitor import Monitor
from narrows.training.process_group import world
from narrows.training.state import StepRecord

# what may differ between a run and the one that goes on with it
FREE_ON_RESUME = {
    "verbose",
    "resume",
    "checkpoint",
    "checkpoint_every",
    "warm_start",
    "listeners",
    "n_devices",
    "in_memory",  # what it came to is compared with the data
}
MARKED = 16  # places by which data is known again: each may cost the reading of a whole chunk


def mark(*given: Any) -> list[Any]:
    """What X and X_val are known again by: their size, and a hash over rows from first to last.

    Also whether they were streamed: that decides which rows are held out, and their order.
    """
    return [None if rows is None else _mark(rows) for rows in given]


def _mark(rows: Any) -> dict[str, Any]:
    sha = hashlib.sha256()
    for i in np.unique(np.linspace(0, len(rows) - 1, MARKED).astype(int)):
        sha.update(np.ascontiguousarray(rows[i : i + 1]).tobytes())
    return {
        "n": len(rows),
        "dtype": str(rows.dtype),
        "sha256": sha.hexdigest(),
        "streamed": not isinstance(rows, np.ndarray),
    }


class CheckpointWriter:
    """Writes checkpoints while a run goes on; does nothing where none were asked for."""

    def __init__(
        self, estimator: Any, training: Training, watch: Monitor, given: tuple[Any, ...]
    ) -> None:
        asked = estimator.checkpoint if given else None  # partial_fit: there is no run to keep
        # of several processes, which all stand at the same step, the first writes
        self.path = None if asked is None or world().rank > 0 else Path(asked)
        every = estimator.checkpoint_every
        self.epochs = None if isinstance(every, str) else int(every)
        self.pause = parse_time(every)
        self.estimator, self.training, self.watch = estimator, training, watch
        self.mark = mark(*given) if self.path else []
        self.kept: Path | None = None  # where the run is, once it has been written
        self._written = time.monotonic()
        self._failed = False

    def consider(self, record: StepRecord) -> None:
        """Write, if it is time."""
        if self.path is None:
            return
        if self.epochs is not None:
            due = record.end_of_epoch and self.training.state.epoch % self.epochs == 0
        else:
            due = time.monotonic() - self._written >= (self.pause or 0.0)
        if due:
            self.write()

    def write(self) -> None:
        """Write now; a failure costs a warning, the old checkpoint stays, and training goes on."""
        # what is no number is found out at the end of the epoch, and must not be gone on from
        sound = all(bool(total.isfinite()) for total in self.watch.sums.values())
        if self.path is None or not sound:
            return
        saved = state_dict(self.training.state, self.watch)
        tensors, header = self._best_so_far(saved)
        tensors |= {f"training.{name}": tensor for name, tensor in saved[0].items()}
        header["training"] = {
            "numbers": saved[1],
            "seed": self.training.seed,
            "mark": self.mark,
            "threads": torch.get_num_threads(),
        }
        try:
            write_file(self.path, tensors, header, overwrite=True)
            self.kept = self.path
        except FileError as error:
            if not self._failed:
                warnings.warn(f"{error} Training goes on without it.", stacklevel=2)
            self._failed = True
        self._written = time.monotonic()

    def _best_so_far(self, saved: Saved) -> files.Contents:
        """The model file of the best weights, while the last ones wait in ``saved``."""
        estimator, watch = self.estimator, self.watch
        estimator._record(watch.history, watch.scores, watch.best_epoch, watch.stop_reason)
        estimator.fit_seconds_ = watch.seconds
        for name, module in watch.modules.items():
            module.load_state_dict(watch.best[name])
            module.eval()
        try:
            tensors, header = files.contents(estimator)
            # copies: the module's own tensors are about to hold the last weights again
            return {name: tensor.clone() for name, tensor in tensors.items()}, header
        finally:
            for name, module in watch.modules.items():
                start = f"last.{name}."
                last = {n[len(start) :]: t for n, t in saved[0].items() if n.startswith(start)}
                module.load_state_dict(last)
                module.train()


def find_run(estimator: Any) -> Path | None:
    """The checkpoint to go on from, if there is one and the estimator is to resume."""
    if estimator.checkpoint is None:
        if estimator.resume:
            raise ParameterError(
                "resume=True goes on from a checkpoint; say where it is with checkpoint=..."
            )
        return None
    path = check_output(estimator.checkpoint, [".checkpoint"], overwrite=True)
    if not path.exists():
        return None
    if not estimator.resume:
        raise FileError(
            f"{path} holds a run already; go on with it (resume=True, --resume), or remove it to "
            "start afresh."
        )
    return path


def read_run(estimator: Any, path: Path, *given: Any) -> tuple[Any, Saved, int]:
    """The estimator as it was, the state of its run and its seed, from a checkpoint.

    Raises ``FileError`` for a damaged one, ``ParameterError`` where the parameters differ and
    ``InputError`` where the data do; the file stays as it is.
    """
    tensors, header = read_file(path)
    run = header.pop("training", None)
    if not isinstance(run, dict):
        raise FileError(f"{path} is a model, not a checkpoint; give another name, or remove it.")
    refuse_other(estimator, path, header)
    own = (getattr(estimator, name, None) for name in ("f", "g"))
    found = files.restored(path, tensors, header, *own)
    try:
        layouts = [getattr(each, "layout_", None) for each in (found, estimator)]
        _refuse_other_data(path, layouts[0] == layouts[1], run["mark"], mark(*given))
        if header["versions"]["torch"] != torch.__version__:
            warnings.warn(
                f"The run was broken off with torch {header['versions']['torch']} and goes on with "
                f"{torch.__version__}: its numbers may differ in their last bits.",
                stacklevel=5,
            )
        if run["threads"] != torch.get_num_threads():
            warnings.warn(
                f"The run was broken off with {run['threads']} threads and goes on with "
                f"{torch.get_num_threads()}: its numbers may differ in their last bits.",
                stacklevel=5,
            )
        start = "training."
        state = {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}
        return found, (state, dict(run["numbers"])), int(run["seed"])
    except (KeyError, TypeError) as error:
        raise FileError(f"{path} holds no run: {error} is missing or damaged.") from error


def _refuse_other_data(path: Path, alike: bool, before: list[Any], now: list[Any]) -> None:
    for name, then, given in zip(("X", "X_val"), before, now, strict=True):
        same = {**(then or {}), "streamed": 0} == {**(given or {}), "streamed": 0}
        if not (alike and same):
            raise InputError(
                f"{path} is a run on other data than the {name} given; give the same {name}, or "
                "remove the file to start afresh."
            )
        if then != given:
            raise InputError(
                f"{path} is a run on an {name} that was "
                f"{'streamed' if then['streamed'] else 'loaded'}, which decides the order of rows; "
                f"go on with in_memory={not then['streamed']}."
            )


def refuse_other(
    estimator: Any, path: Path, header: dict[str, Any], free: Set[str] = frozenset()
) -> None:
    """Refuse to go on with a file of another model or of other parameters.

    Those in ``free`` count only where they are given.
    """
    if header.get("class") != type(estimator).__name__:
        raise ParameterError(
            f"{path} was made by {header.get('class')}, not by {type(estimator).__name__}; give "
            "another name, or remove it to start afresh."
        )
    before = header.get("parameters", {})
    now = {item.name: plain(getattr(estimator, item.name)) for item in fields(estimator)}
    names = [n for n in now if n in before and n not in FREE_ON_RESUME]
    names = [n for n in names if n not in free or now[n] is not None]
    if now["random_state"] is None or not isinstance(now["random_state"], int):
        names.remove("random_state")  # the run's own seed is in the file
    changed = [n for n in names if now[n] != before[n]]
    if changed:
        said = ", ".join(f"{n}={before[n]!r}, not {now[n]!r}" for n in changed)
        raise ParameterError(
            f"{path} was made with {said}; give the same parameters to go on with it, or remove "
            "it to start afresh."
        )
