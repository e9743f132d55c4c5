"""Where PCA is a saddle of the loss a run leaves it; where PCA is best, it is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import narrows
from helpers.small_data import chirps, curve
from narrows.exceptions import FileError
from narrows.io.safetensors_file import read_file, write_file
from narrows.training import second_start, train_state
from narrows.training.process_group import Group
from narrows.training.second_start import SecondStart
from narrows.training.train_state import Budget, StepRecord, TrainConfig
from training.test_checkpoints import killed_at, same

SLOW = pytest.mark.slow
RUN: dict[str, Any] = {"latent_dim": 4, "max_epochs": 20, "random_state": 0}


def sinusoids(n: int = 2000, d: int = 200, seed: int = 0) -> NDArray[np.float64]:
    """Sums of two waves of random frequency and phase."""
    rng = np.random.default_rng(seed)
    f, phase = rng.uniform(1, 6, (n, 2, 1)), rng.uniform(0, 2 * np.pi, (n, 2, 1))
    return np.sin(2 * np.pi * f * np.linspace(0, 1, d) + phase).sum(1)


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where runs stood, each time that changed."""
    seen: list[str] = []
    update = SecondStart.update

    def noting(self: SecondStart, record: StepRecord) -> None:
        update(self, record)
        seen.extend({self.state.trial.phase} - set(seen[-1:]))

    monkeypatch.setattr(SecondStart, "update", noting)
    return seen


def gained(X: NDArray[np.float64], **changes: Any) -> float:
    """The validation error of the best model, as a share of PCA's."""
    ae = narrows.Autoencoder(**{**RUN, **changes}).fit(X)
    return min(ae.validation_curve_) / ae.validation_curve_[0]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=SLOW) for s in range(1, 5))])
@pytest.mark.parametrize(("X", "k"), [(chirps(1500, 120), 4), (sinusoids(2000, 200), 6)])
def test_a_run_leaves_pca_where_it_is_a_saddle(X: NDArray[np.float64], k: int, seed: int) -> None:
    assert gained(X, latent_dim=k, random_state=seed) < 0.6


@pytest.mark.slow
def test_without_a_second_start_the_same_run_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_start, "LEAST_GAIN", -1.0)
    assert gained(sinusoids(2000, 200), latent_dim=6) > 0.8


def test_it_is_tried_on_a_plateau_only(phases: list[str]) -> None:
    gained(chirps(1000, 60))
    assert phases == ["first", "second", "over"]
    phases.clear()
    gained(curve(1000), latent_dim=1)  # PCA is soon far worse
    assert phases == ["first", "over"]


def test_where_pca_is_best_the_first_start_goes_on_and_no_time_is_lost(phases: list[str]) -> None:
    noise = np.random.default_rng(0).normal(size=(800, 30))
    ae = narrows.Autoencoder(latent_dim=4, random_state=0).fit(noise)
    assert phases == ["first", "second", "over"]
    assert ae.best_loss_ <= ae.validation_curve_[0]
    assert ae.n_iter_ <= 25  # 20 of patience, and the trial in it
    # the second start was undone: what follows is no worse than where it was tried
    assert ae.validation_curve_[-1] < 1.5 * ae.validation_curve_[0]


def test_patience_waits_for_the_trial(phases: list[str]) -> None:
    ae = narrows.Autoencoder(**{**RUN, "max_epochs": 200}, n_iter_no_change=6).fit(chirps(600, 60))
    assert phases == ["first", "second", "over"]
    assert ae.n_iter_ > 20


def test_a_run_killed_in_its_trial_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phases: list[str]
) -> None:
    kept = {"checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": "0.000001s"}
    X = chirps(600, 40)
    whole = narrows.Autoencoder(**RUN).fit(X)
    assert phases == ["first", "second", "over"]
    phases.clear()
    killed_at(25, monkeypatch, lambda: narrows.Autoencoder(**RUN, **kept).fit(X))
    assert phases[-1] == "second"
    same(narrows.Autoencoder(**RUN, **kept, resume=True).fit(X), whole)


def test_the_kept_weights_in_a_checkpoint_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, path = chirps(600, 40), tmp_path / "c.checkpoint"
    kept = {**RUN, "checkpoint": path, "checkpoint_every": "0.000001s"}
    killed_at(25, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    tensors, header = read_file(path)
    name = next(name for name in tensors if name.startswith("training.first.last.model"))
    for changed in (name, name.replace("first", "third")):
        wrong = {**tensors, changed: tensors[name][:1].clone()}
        write_file(path, wrong, header, overwrite=True)
        with pytest.raises(FileError, match=r"first|third"):
            narrows.Autoencoder(**kept, resume=True).fit(X)


def test_the_schedule_begins_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine of ten seconds went by before it; what is left has a whole warm-up."""
    now = [100.0]
    monkeypatch.setattr(train_state.time, "monotonic", lambda: now[0])
    budget = Budget(10**6, max_time=10.0, started=91.0).from_now()
    config = TrainConfig(learning_rate=1.0, weight_decay=0.0, batch_size=1)
    assert config.rate(0, budget.progress(0.0, Group())) == pytest.approx(1 / 200)
    now[0] += 0.5
    assert budget.progress(0.0, Group()) == pytest.approx(0.5)
    now[0] += 1.0
    assert budget.progress(0.0, Group()) == 1.0


def test_a_new_start_warms_up_anew() -> None:
    config = TrainConfig(learning_rate=1.0, weight_decay=0.0, batch_size=1)
    assert config.rate(0, 0.3, begun=0.3) == pytest.approx(1 / 200)
    assert config.rate(19, 0.35, begun=0.3) == pytest.approx(0.5)
    assert config.rate(19, 0.4, begun=0.3) == pytest.approx(1.0)
