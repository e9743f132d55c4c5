"""A run that early stopping ends goes back to its best weights and lets the rate fall to zero."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import narrows
from helpers.small_data import curve
from narrows.estimators import fit_and_resume
from narrows.exceptions import FileError
from narrows.io.safetensors_file import read_file, write_file
from narrows.training.cooldown import Cooldown, Patience
from narrows.training.monitor import Monitor
from narrows.training.train_state import StepRecord, TrainState
from training.test_checkpoints import killed_at, same

X = curve(300)
# 9 steps an epoch at a rate so high that the validation loss soon jumps about
RUN: dict[str, Any] = {
    "latent_dim": 2,
    "hidden_layer_sizes": (64, 32),
    "batch_size": 32,
    "learning_rate": 0.05,
    "max_epochs": 60,
    "n_iter_no_change": 4,
    "random_state": 0,
}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, float]]:
    """The epochs in which cooldowns began, the best score so far, and that of the weights then."""
    seen: list[tuple[int, float, float]] = []

    ends = Cooldown.ends

    def noting(self: Cooldown) -> bool:
        before, ended = self.state.cooldown, ends(self)
        if self.state.cooldown != before:
            seen.append((self.state.epoch, self.monitor.best_score, self.monitor.evaluate()))
        return ended

    monkeypatch.setattr(Cooldown, "ends", noting)
    return seen


def test_it_begins_at_the_best_weights_and_its_rate_falls_to_zero(
    begun: list[tuple[int, float, float]],
) -> None:
    ae = narrows.Autoencoder(**RUN).fit(X)
    [(epoch, best, now)] = begun
    assert now == best == min(ae.validation_curve_[: epoch + 1])
    assert ae.n_iter_ == epoch + RUN["n_iter_no_change"] < ae.max_epochs
    free = narrows.Autoencoder(**RUN, early_stopping=False).fit(X)
    rates, usual = ([entry["learning_rate"] for entry in run.history_] for run in (ae, free))
    assert rates[:epoch] == usual[:epoch]
    fallen = np.divide(rates[epoch:], usual[epoch : epoch + 4])
    # at the last step, the ninth, of each of the 4 epochs
    np.testing.assert_allclose(fallen, [1 - (9 * i - 0.5) / 36 for i in (1, 2, 3, 4)])
    assert ae.best_loss_ < best  # what it is for
    assert ae.stop_reason_ == "no better validation loss in 4 epochs"


def test_it_takes_no_more_epochs_than_are_left(begun: list[tuple[int, float, float]]) -> None:
    whole = narrows.Autoencoder(**RUN).fit(X)
    ends = begun[0][0] + 2
    ae = narrows.Autoencoder(**{**RUN, "max_epochs": ends}).fit(X)
    assert ae.n_iter_ == ends < whole.n_iter_
    assert ae.history_[-1]["learning_rate"] < 0.1 * ae.history_[-3]["learning_rate"]


def test_there_is_none_where_hardly_anything_was_gained(
    begun: list[tuple[int, float, float]],
) -> None:
    noise = np.random.default_rng(0).normal(size=(800, 30))
    ae = narrows.Autoencoder(latent_dim=4, random_state=0).fit(noise)
    assert begun == []
    assert ae.n_iter_ <= 25


def test_a_run_killed_in_its_cooldown_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[tuple[int, float, float]]
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**RUN, "checkpoint": path, "checkpoint_every": "0.000001s"}
    whole = narrows.Autoencoder(**RUN).fit(X)
    killed_at(9 * begun[0][0] + 14, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    tensors, header = read_file(path)
    for wrong in ([5], [9, 3], [1, 2, 3], [1, RUN["max_epochs"] + 1], [50, 55]):
        header["training"]["numbers"]["cooldown"] = wrong
        write_file(path, tensors, header, overwrite=True)
        with pytest.raises(FileError, match="cooldown"):
            narrows.Autoencoder(**kept, resume=True).fit(X)
    header["training"]["numbers"]["cooldown"] = [begun[0][0], begun[0][0] + 4]
    write_file(path, tensors, header, overwrite=True)
    same(narrows.Autoencoder(**kept, resume=True).fit(X), whole)


def test_a_run_that_has_gained_waits_for_steps_rather_than_epochs(
    monkeypatch: pytest.MonkeyPatch, begun: list[tuple[int, float, float]]
) -> None:
    """20 epochs of 9 steps are too few to judge by."""
    monkeypatch.setattr(fit_and_resume, "PATIENT_STEPS", 200)
    ae = narrows.Autoencoder(**{**RUN, "max_epochs": 200, "n_iter_no_change": "auto"}).fit(X)
    [(epoch, *_)] = begun
    best = int(np.argmin(ae.validation_curve_[: epoch + 1]))
    assert epoch - best == np.ceil(200 / 9)
    monkeypatch.undo()
    assert fit_and_resume.patience_of("auto", 99) == Patience(20, 8, 21)
    assert fit_and_resume.patience_of("auto", 500) == Patience(20, 8, 20)
    assert fit_and_resume.patience_of(4, 9) == Patience(4, 4, 4)


@pytest.mark.parametrize(
    ("first", "best", "loss", "progress", "last_epoch", "wanted"),
    [
        (10.0, 5.0, 4.1, 0.1, 99, None),  # the training loss has gained 1.18 times as much
        (10.0, 5.0, 3.9, 0.1, 99, (3, 5)),  # 1.22 times: by heart
        (-90.0, -95.0, -96.1, 0.1, 99, (3, 5)),  # nats may be negative
        (10.0, 9.9, 0.0, 0.1, 99, None),  # hardly a gain on the start
        (10.0, 5.0, 4.1, 0.61, 99, (3, 5)),  # three epochs took .61: the time left is for two
        (10.0, 5.0, 3.9, 0.1, 4, (3, 4)),  # no more epochs than the run has
    ],
)
def test_whether_a_run_that_waited_two_epochs_begins_its_cooldown(
    first: float,
    best: float,
    loss: float,
    progress: float,
    last_epoch: int,
    wanted: tuple[int, int] | None,
) -> None:
    monitor = Monitor({}, lambda: 0.0, 2, False)
    monitor.scores, monitor.best_epoch = [first, best, best + 1, best + 1], 1
    monitor.history = [{"loss": loss}] * 3
    monitor._last = StepRecord(3, 3.0, progress, 0.1, {}, {}, True)
    state = TrainState(torch.Generator(), torch.Generator(), epoch=3, last_epoch=last_epoch)
    cooldown = Cooldown(state, monitor, Patience(idle=3, overfit=2, usual=9))
    assert not cooldown.ends()
    assert state.cooldown == wanted
