"""Listeners that hand a run to an experiment tracker: TensorBoard, MLflow, Weights & Biases.

Each needs its own package (extra ``track``), imported when the listener is made. A later part of
the same history (``partial_fit``) goes on with the same run.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from narrows.exceptions import ParameterError
from narrows.training.listeners import Listener

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "WandB", "tracker"]

LONGEST = 500  # characters of a parameter that every MLflow server takes


class Tracker(Listener):
    """What the trackers share: their package, and a run that no copy or pickle takes along."""

    package: ClassVar[str]
    module: ClassVar[str]
    _run: Any = None
    _id: str | None = None

    def _import(self) -> Any:
        try:
            importlib.import_module(self.module.split(".")[0])
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ParameterError(
                f"{type(self).__name__} needs {self.package}, which is not installed; run "
                "pip install 'narrows[track]'."
            ) from error

    def _goes_on(self, about: dict[str, Any]) -> bool:
        return self._id is not None and about.get("epoch", 0) > 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_run", "_id")}


def broke_off(summary: dict[str, Any]) -> bool:
    """Whether the run ended by an error."""
    return "best_epoch" not in summary


def scalars(entry: dict[str, float]) -> dict[str, float]:
    """What is drawn over the epochs."""
    return {name: float(value) for name, value in entry.items() if name != "epoch"}


def flat(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts as pairs of dotted names and values.

    >>> dict(flat({"rows": {"training": 90}, "seed": 0}))
    {'rows.training': 90, 'seed': 0}
    """
    for name, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@dataclass(eq=False)
class TensorBoard(Tracker):
    """Curves for ``tensorboard --logdir FOLDER``; give each run a folder of its own."""

    folder: str | Path

    package = "tensorboard"
    module = "torch.utils.tensorboard"

    def __post_init__(self) -> None:
        self._import()

    def on_start(self, about: dict[str, Any]) -> None:
        """Write what the run is about; on going on, epochs done again hide those before."""
        after = about.get("epoch", 0)
        writer = self._import().SummaryWriter(
            str(self.folder), purge_step=after + 1 if after else None
        )
        writer.add_text("about", "    " + json.dumps(about, indent=2).replace("\n", "\n    "))
        self._run = writer

    def on_epoch(self, entry: dict[str, float]) -> None:
        """One point a curve."""
        for name, value in scalars(entry).items():
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
    or to a folder (a ``file:`` address; newer ones ask for ``MLFLOW_ALLOW_FILE_STORE=true``); for
    a database, MLflow's default of late, install the whole of mlflow.
    """

    experiment: str | None = None
    tracking_uri: str | None = None

    package = "mlflow-skinny"
    module = "mlflow"

    def __post_init__(self) -> None:
        self._import()

    def on_start(self, about: dict[str, Any]) -> None:
        """Make the run, with what it is about as its parameters."""
        self._run = client = self._import().MlflowClient(tracking_uri=self.tracking_uri)
        if self._goes_on(about):
            client.update_run(self._id, status="RUNNING")
            return
        name = self.experiment or "Default"
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        self._id = client.create_run(experiment).info.run_id
        for key, value in flat(about):
            client.log_param(self._id, key, str(value)[:LONGEST])

    def on_epoch(self, entry: dict[str, float]) -> None:
        """All numbers of the epoch in one request."""
        metric = self._import().entities.Metric
        now, epoch = time.time_ns() // 1_000_000, int(entry["epoch"])
        metrics = [metric(name, value, now, epoch) for name, value in scalars(entry).items()]
        self._run.log_batch(self._id, metrics=metrics)

    def on_end(self, summary: dict[str, Any]) -> None:
        """Tags say how it ended."""
        for key, value in summary.items():
            self._run.set_tag(self._id, key, value)
        self._run.set_terminated(self._id, "FAILED" if broke_off(summary) else "FINISHED")


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
        again = {"id": self._id, "resume": "allow"} if self._goes_on(about) else {}
        given = {"project": self.project, **self.settings, **again}
        self._run = self._import().init(config=about, **given)
        self._id = self._run.id

    def on_epoch(self, entry: dict[str, float]) -> None:
        """One point a curve."""
        self._run.log(scalars(entry), step=int(entry["epoch"]))

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write how it ended, and close the run."""
        self._run.summary.update(summary)
        self._run.finish(exit_code=int(broke_off(summary)))


TRACKERS = ("tensorboard", "mlflow", "wandb")


def tracker(kind: str, name: str) -> Listener:
    """The tracker the command's ``--track`` names, for a run called ``name``."""
    if kind == "tensorboard":
        return TensorBoard(Path("runs") / name)
    if kind == "mlflow":
        return MLflow()
    if kind == "wandb":
        return WandB("narrows", name=name)
    raise ParameterError(f"There is no tracker {kind!r}; there are {', '.join(TRACKERS)}.")
