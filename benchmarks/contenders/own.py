"""narrows, with its defaults and with the network of the others.

It gets the rows as they are and scales them itself. Its whole ``fit`` is timed: checks, scaling,
PCA, training, validation. The seconds of epochs are those of its ``history_``, validation included.
It chooses its best epoch itself, on the rows held out if there are any, else on a tenth of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contenders.common import Contender, Monitor, Task
from contenders.plain import NOISE, noisy, tensor
from narrows import Autoencoder, Denoiser, VariationalAutoencoder
from narrows.estimators.fit_setup import multiplies_bfloat16
from sets import Split

FEW = 256  # rows to validate on after each epoch, if all rows are for training


def first_use() -> None:
    """A first fit, which imports the rest of narrows: this counts as import time."""
    rows = np.random.default_rng(0).normal(size=(32, 4))
    Autoencoder(latent_dim=1, max_epochs=1, random_state=0).fit(rows)


class Default(Contender):
    """The default recipe."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.rows = task, train.given
        kind, options = {
            "dense": (Autoencoder, {"architecture": "dense", "distance": "mse"}),
            "conv": (Autoencoder, {"architecture": "conv", "distance": "mse"}),
            "vae": (VariationalAutoencoder, {"architecture": "dense"}),
            "denoiser": (Denoiser, {}),
        }[task.network]
        if task.network != "denoiser":
            options["latent_dim"] = task.latent
        self.model = kind(
            max_epochs=task.most_epochs,
            max_time=task.seconds,
            random_state=task.seed,
            device=task.device,
            **options,
            **self.options(),
        )

    def options(self) -> dict[str, Any]:
        """Parameters in addition to the task's."""
        dense = self.task.network in ("dense", "vae")
        return {"hidden_layer_sizes": self.task.widths} if dense else {}  # those of all contenders

    def validation(self, watch: Monitor) -> Any:
        """Rows to validate on; None leaves it to narrows."""
        return None if watch.held is None else watch.held.given

    def train(self, watch: Monitor) -> None:
        validation = self.validation(watch)
        self.model.fit(self.rows, X_val=validation)
        history = self.model.history_
        watch.marks = _whole(history, limited=self.task.seconds is not None)
        if validation is None:
            watch.rows = self.model.rows_["given"] - self.model.rows_["validation"]
        if self.task.network == "denoiser":  # an epoch has at least 1,024 patches
            watch.rows = history[-1]["step"] * self.task.batch // len(history)
        watch.facts = {
            "fit_seconds": self.model.fit_seconds_,
            "loop_seconds": history[-1]["seconds"] if history else 0.0,
            "best_epoch": self.model.best_epoch_,
            "steps": history[-1]["step"] if history else 0,
            "parameters": self.model.n_parameters_,
        }

    @torch.no_grad()
    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        """Not rounded to bytes, as with all other contenders."""
        model, given, parts = self.model, rows.given, []
        if self.task.network == "denoiser":
            restore = model.state_.model.restore
            images = noisy(tensor(rows)).split(1000)
            parts = [restore(x.to(self.task.device), NOISE)[:, 0].cpu() for x in images]
            found: NDArray[np.float32] = torch.cat(parts).numpy()
            return found
        device = next(model.model_.parameters()).device
        for start in range(0, len(given), 1000):
            codes = torch.from_numpy(model.transform(given[start : start + 1000]))
            scaled = model.model_.decode(codes.to(device))
            parts.append(model.scaling_.undo(scaled).cpu().numpy())
        out = np.concatenate(parts).reshape(given.shape)
        return ((out - rows.low) / rows.spread).astype(np.float32)


class SameNetwork(Default):
    """The others' layers and non-linearity, no linear path, all rows to train on."""

    def options(self) -> dict[str, Any]:
        if self.task.network == "denoiser":
            return {"early_stopping": False}  # its network is that of the loops in any case
        dense = self.task.network != "conv"
        layers = {"hidden_layer_sizes": self.task.widths} if dense else {}
        layers = layers or {"channels": self.task.channels}
        same = {"activation": "relu", "linear_path": False, "batch_size": self.task.batch}
        # the precision that the default recipe chooses, by PCA, for these data
        narrow = multiplies_bfloat16(torch.device(self.task.device))
        precision = "bfloat16" if narrow else "float32"
        return {**layers, **same, "early_stopping": False, "precision": precision}

    def validation(self, watch: Monitor) -> Any:
        return self.rows[:FEW]


def _whole(history: list[dict[str, float]], limited: bool) -> list[float]:
    """When each whole epoch ended: a time limit may interrupt the last one."""
    if limited and len(history) == 1:
        return []
    return [e["seconds"] for i, e in enumerate(history, 1) if e["step"] == i * history[0]["step"]]
