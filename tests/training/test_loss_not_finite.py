"""After a loss that is no number: back once, with smaller steps; then the end, in words."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

import narrows
from helpers.small_data import curve
from narrows.estimators import fit_and_resume as checkpointing
from narrows.training.monitor import Monitor
from narrows.training.train_state import StepRecord

X = curve(300)
SHORT: dict[str, Any] = {"latent_dim": 2, "max_epochs": 6, "batch_size": 32, "random_state": 3}


def breaking(at: list[int], *, before: bool = False) -> Callable[..., bool]:
    """``Monitor.update`` with a loss of NaN at the steps ``at`` of the whole run."""
    update, seen = Monitor.update, [0]

    def see_nan(self: Monitor, record: StepRecord) -> bool:
        seen[0] += 1
        if seen[0] in at:
            for module in self.modules.values():
                for parameter in module.parameters():
                    parameter.data.fill_(math.nan)
            if before:  # the step that broke the weights had a loss that was none itself
                record.losses["model"].data.fill_(math.nan)
        return update(self, record)

    return see_nan


def test_after_one_nan_loss_training_goes_back_and_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = narrows.Autoencoder(**SHORT).fit(X)
    monkeypatch.setattr(Monitor, "update", breaking([9 * 2 + 3]))
    with pytest.warns(ConvergenceWarning, match="no longer a number in epoch 3: .* went back"):
        ae = narrows.Autoencoder(**SHORT).fit(X)
    assert ae.n_iter_ == 6
    assert ae.validation_curve_[:3] == whole.validation_curve_[:3]
    assert ae.validation_curve_[3] != whole.validation_curve_[3]
    rates = [entry["learning_rate"] for entry in ae.history_]
    usual = [entry["learning_rate"] for entry in whole.history_]
    assert rates == pytest.approx([*usual[:2], *(0.1 * rate for rate in usual[2:])])
    assert np.isfinite(ae.validation_curve_).all()


def test_after_a_second_nan_loss_training_stops_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Monitor, "update", breaking([9 * 2 + 3, 9 * 4 + 1]))
    with pytest.warns(ConvergenceWarning, match=r"0.1 times the step .* \(epoch \d\) is kept"):
        ae = narrows.Autoencoder(**SHORT).fit(X)
    assert "no longer a number in epoch" in ae.stop_reason_
    assert np.isfinite(ae.transform(X)).all()


def test_weights_that_are_nan_are_not_in_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": "0.000001s", "resume": True}
    written: list[bool] = []
    write = checkpointing.write_file

    def noting(path: Path, tensors: dict[str, Tensor], *more: Any, **kwargs: Any) -> None:
        last = [t for name, t in tensors.items() if name.startswith("training.last.")]
        written.append(all(bool(t.isfinite().all()) for t in last))
        write(path, tensors, *more, **kwargs)

    monkeypatch.setattr(checkpointing, "write_file", noting)
    monkeypatch.setattr(Monitor, "update", breaking([9 * 2 + 3], before=True))
    with pytest.warns(ConvergenceWarning, match="went back"):
        narrows.Autoencoder(**kept).fit(X)
    assert len(written) > 40
    assert all(written)


def test_listeners_do_not_get_an_epoch_that_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[dict[str, float]] = []
    monkeypatch.setattr(Monitor, "update", breaking([9 * 2 + 3]))
    with pytest.warns(ConvergenceWarning, match="went back"):
        ae = narrows.Autoencoder(**SHORT, listeners=heard.append).fit(X)
    assert [entry["epoch"] for entry in heard] == [1, 2, 3, 4, 5, 6]
    assert heard == ae.history_
