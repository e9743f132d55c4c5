"""narrows, with its defaults and with the network of the others.

It gets the rows as they are (bytes stay bytes: scaling is part of its work), and its whole ``fit``
is timed: checks, scaling, PCA, training, validation. The seconds of epochs are those of its
``history_``, validation included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contenders.common import BATCH, Monitor, Task
from narrows import Autoencoder
from narrows.estimators.fit_setup import multiplies_bfloat16
from sets import Split

FEW = 256  # rows to validate on after each epoch, if all rows are for training


def first_use() -> None:
    """A first fit, which imports the rest of narrows: this counts as import time."""
    rows = np.random.default_rng(0).normal(size=(32, 4))
    Autoencoder(latent_dim=1, max_epochs=1, random_state=0).fit(rows)


class Default:
    """The default recipe, which holds out a tenth of the rows itself."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.rows = task, _rows(train)
        self.model = Autoencoder(
            latent_dim=task.latent,
            architecture=task.network,
            max_epochs=task.most_epochs,
            max_time=task.seconds,
            random_state=task.seed,
            **self.options(),
        )

    def options(self) -> dict[str, Any]:
        """Parameters in addition to the task's."""
        if self.task.network == "dense" and self.task.hidden is not None:
            return {"hidden_layer_sizes": self.task.hidden}
        return {}

    def validation(self) -> Any:
        """Rows to validate on; None leaves it to narrows."""
        return None

    def train(self, watch: Monitor) -> None:
        self.model.fit(self.rows, X_val=self.validation())
        history = self.model.history_
        watch.marks = _whole(history, limited=self.task.seconds is not None)
        if self.validation() is None:
            watch.rows = self.model.rows_["given"] - self.model.rows_["validation"]
        watch.facts = {
            "fit_seconds": self.model.fit_seconds_,
            "loop_seconds": history[-1]["seconds"] if history else 0.0,
            "best_epoch": self.model.best_epoch_,
            "steps": history[-1]["step"] if history else 0,
            "parameters": self.model.n_parameters_,
        }

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        """Not rounded to bytes, as with all other contenders."""
        model, given, parts = self.model, _rows(rows), []
        device = next(model.model_.parameters()).device
        with torch.no_grad():
            for start in range(0, len(given), 1000):
                codes = torch.from_numpy(model.transform(given[start : start + 1000]))
                scaled = model.model_.decode(codes.to(device))
                parts.append(model.scaling_.undo(scaled).cpu().numpy())
        out = np.concatenate(parts).reshape(rows.given.shape)
        top = 255.0 if given.dtype == np.uint8 else 1.0
        return (out / top).astype(np.float32)


class SameNetwork(Default):
    """The others' layers and non-linearity, no linear path, all rows to train on."""

    def options(self) -> dict[str, Any]:
        dense = self.task.network == "dense"
        layers = {"hidden_layer_sizes": self.task.widths} if dense else {}
        layers = layers or {"channels": self.task.channels}
        same = {"activation": "relu", "linear_path": False, "batch_size": BATCH}
        # the precision that the default recipe chooses, by PCA, for these data
        narrow = multiplies_bfloat16(torch.device("cpu"))
        precision = "bfloat16" if narrow else "float32"
        return {**layers, **same, "early_stopping": False, "precision": precision}

    def validation(self) -> Any:
        return self.rows[:FEW]


def _whole(history: list[dict[str, float]], limited: bool) -> list[float]:
    """When each whole epoch ended: a time limit may interrupt the last one."""
    if limited and len(history) == 1:
        return []
    return [e["seconds"] for i, e in enumerate(history, 1) if e["step"] == i * history[0]["step"]]


def _rows(rows: Split) -> NDArray[Any]:
    return rows.given if rows.given.dtype == np.uint8 else rows.ready
