"""Interrupted runs continue to the same bits; what prevents it is one sentence."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import narrows
from helpers.small_data import chirps, curve
from narrows.io import write as writing
from narrows.training.monitor import Monitor
from narrows.training.train_state import StepRecord

X = curve(300)
IMAGES = np.random.default_rng(0).integers(0, 9, size=(120, 9, 7)).astype(np.uint8)
SHORT: dict[str, Any] = {"latent_dim": 2, "max_epochs": 6, "batch_size": 32, "random_state": 3}


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing catches it."""


def own() -> dict[str, Any]:
    torch.manual_seed(0)
    f = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 2))
    return {"f": f, "g": torch.nn.Linear(2, 6)}


NETWORKS = own()
RUNS: dict[str, tuple[Callable[..., Any], Any]] = {
    "plain": (narrows.Autoencoder, X),
    "conv": (lambda **kw: narrows.Autoencoder(architecture="conv", **kw), IMAGES),
    "conv of stages": (
        lambda **kw: narrows.Autoencoder(architecture="conv", channels=(4, 8), **kw),
        IMAGES,
    ),
    "variational": (narrows.VariationalAutoencoder, X),
    "denoising": (narrows.DenoisingAutoencoder, X),
    "second start": (narrows.Autoencoder, chirps(600, 40)),
    "own with dropout": (lambda **kw: narrows.Autoencoder(**NETWORKS, **kw), X),
}


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, fit: Callable[[], Any]) -> None:
    """Run ``fit`` and kill it when the loop has taken so many steps."""
    update, seen = Monitor.update, []

    def update_or_die(self: Monitor, record: StepRecord) -> bool:
        seen.append(record)
        if len(seen) > step:
            raise Killed
        return update(self, record)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Monitor, "update", update_or_die)
        fit()


def last_weights(path: Path) -> dict[str, torch.Tensor]:
    """Where training ended, which is not where the best model was."""
    from narrows.io.safetensors_file import read_file

    return {n: t for n, t in read_file(path)[0].items() if n.startswith("training.optimizer")}


def same(a: Any, b: Any) -> None:
    """The same weights, bit for bit, and the same history but for the seconds."""
    for one, other in zip(a.model_.parameters(), b.model_.parameters(), strict=True):
        assert torch.equal(one, other)
    assert a.validation_curve_ == b.validation_curve_
    for one, other in zip(a.history_, b.history_, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (a.best_epoch_, a.stop_reason_) == (b.best_epoch_, b.stop_reason_)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("every", [1, "0.000001s"])
def test_a_killed_run_continues_to_the_same_bits(
    name: str, every: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = RUNS[name]
    unbroken, path = tmp_path / "whole.checkpoint", tmp_path / "run.checkpoint"
    whole = model(**SHORT, checkpoint=unbroken).fit(data)
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": every, "resume": True}
    for step in (7, 5, 11):  # in the middle of epochs, and of what was left of them
        killed_at(step, monkeypatch, lambda: model(**kept).fit(data))
    same(model(**kept).fit(data), whole)
    ends = last_weights(path), last_weights(unbroken)
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_run_without_a_seed_continues_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1, "resume": True}
    unseeded = {**SHORT, **kept, "random_state": None}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**unseeded).fit(X))
    ae = narrows.Autoencoder(**unseeded).fit(X)
    seed = ae.state_.seed
    same(narrows.Autoencoder(**{**SHORT, "random_state": seed}).fit(X), ae)


def test_finished_epochs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {**SHORT, "checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1, "resume": True}
    steps: list[int] = []
    update = Monitor.update

    def noting(self: Monitor, record: StepRecord) -> bool:
        steps.append(record.step)
        return update(self, record)

    killed_at(9 * 3 + 4, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))  # 9 a pass
    monkeypatch.setattr(Monitor, "update", noting)
    narrows.Autoencoder(**kept).fit(X)
    assert steps == list(range(28, 9 * 6 + 1))
    steps.clear()
    narrows.Autoencoder(**kept).fit(X)  # complete: at once
    assert steps == []


def test_a_checkpoint_loads_as_the_best_model_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": 1}
    killed_at(30, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    so_far = narrows.load(path)
    whole = narrows.Autoencoder(**SHORT).fit(X)
    assert so_far.validation_curve_ == whole.validation_curve_[: len(so_far.validation_curve_)]
    assert so_far.checkpoint is None
    assert not so_far.resume
    training, held = loop_split(so_far)
    scored = 0.5 * (held - so_far.reconstruct(held)) ** 2 / so_far.scaling_.scale.numpy() ** 2
    assert so_far.best_loss_ == pytest.approx(scored.sum(1).mean(), rel=1e-4)
    assert len(training) == 270


def loop_split(estimator: Any) -> tuple[Any, Any]:
    from narrows.estimators.fit_setup import split_indices

    training, held = split_indices(len(X), estimator.validation_fraction, 3)
    return X[training], X[held]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate='auto', not 0.001"),
        ({"max_epochs": 7}, r"max_epochs=6, not 7"),
        ({"random_state": 4}, r"random_state=3, not 4"),
    ],
)
def test_other_parameters_are_refused_and_the_checkpoint_stays(
    change: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": 1, "resume": True}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    before = path.read_bytes()
    with pytest.raises(narrows.ParameterError, match=sentence):
        narrows.Autoencoder(**{**kept, **change}).fit(X)
    with pytest.raises(narrows.ParameterError, match="made by Autoencoder, not by Variational"):
        narrows.VariationalAutoencoder(**kept).fit(X)
    with pytest.raises(narrows.InputError, match="other data"):
        narrows.Autoencoder(**kept).fit(X + 1)
    with pytest.raises(narrows.FileError, match="holds a run already"):
        narrows.Autoencoder(**{**kept, "resume": False}).fit(X)
    assert path.read_bytes() == before


@pytest.mark.parametrize("widths", [(8,), [8], np.array([8]), np.int64(8), 8])
def test_widths_are_the_same_however_they_are_written(
    widths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {**SHORT, "checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1}
    kept |= {"resume": True, "max_epochs": 2}
    fit = narrows.Autoencoder(**kept, hidden_layer_sizes=8).fit
    killed_at(12, monkeypatch, lambda: fit(X))
    assert narrows.Autoencoder(**kept, hidden_layer_sizes=widths).fit(X).n_iter_ == 2
    with pytest.raises(narrows.ParameterError, match=r"hidden_layer_sizes=\[?8\]?, not 9"):
        narrows.Autoencoder(**kept, hidden_layer_sizes=9).fit(X)


def test_another_x_val_and_another_way_of_reading_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        **SHORT,
        "checkpoint": tmp_path / "c.checkpoint",
        "checkpoint_every": 1,
        "resume": True,
    }
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X, X_val=X[:40]))
    with pytest.raises(narrows.InputError, match="than the X_val given"):
        narrows.Autoencoder(**kept).fit(X)
    with pytest.raises(narrows.InputError, match="go on with in_memory=True"):
        narrows.Autoencoder(**kept, in_memory=False).fit(mapped, X_val=X[:40])
    whole = narrows.Autoencoder(**SHORT).fit(X, X_val=X[:40])
    same(narrows.Autoencoder(**kept).fit(mapped, X_val=X[:40]), whole)


def test_partial_fit_keeps_no_run(tmp_path: Path) -> None:
    ae = narrows.Autoencoder(**SHORT, checkpoint=tmp_path / "c.checkpoint")
    ae.partial_fit(X).partial_fit(X)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": 1, "resume": True}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    whole = path.read_bytes()
    for broken in (whole[:1000], whole[:-5], whole[:-5] + b"hello", b""):
        path.write_bytes(broken)
        with pytest.raises(narrows.FileError):
            narrows.Autoencoder(**kept).fit(X)
        assert path.read_bytes() == broken
    narrows.Autoencoder(**SHORT).fit(X).save(tmp_path / "m.safetensors").replace(path)
    with pytest.raises(narrows.FileError, match="a model, not a checkpoint"):
        narrows.Autoencoder(**kept).fit(X)
    with pytest.raises(narrows.ParameterError, match="say where it is"):
        narrows.Autoencoder(**SHORT, resume=True).fit(X)


def test_a_full_disk_costs_a_warning_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.checkpoint"
    kept = {**SHORT, "checkpoint": path, "checkpoint_every": 1, "resume": True}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device. Training goes on") as caught:
        ae = narrows.Autoencoder(**kept).fit(X)
    assert len(caught) == 1
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path]
    same(ae, narrows.Autoencoder(**SHORT).fit(X))


def test_another_number_of_threads_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {**SHORT, "checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1, "resume": True}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match="with 1 threads and goes on with 7"):
        narrows.Autoencoder(**kept).fit(X)


def test_fit_restores_the_signal_handlers() -> None:
    mine = signal.getsignal(signal.SIGINT)
    narrows.Autoencoder(**SHORT).fit(X)
    assert signal.getsignal(signal.SIGINT) is mine


CHILD = """
import signal, sys, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run behind a shell
import numpy as np
import narrows
from narrows.training.monitor import Monitor

update, seen = Monitor.update, []

def update_and_report(monitor, record):
    seen.append(record)
    if len(seen) == 13:
        print("now", flush=True)
        sys.stdin.readline()  # until the signal has come
    return update(monitor, record)

Monitor.update = update_and_report
X = np.load(sys.argv[1])
ae = narrows.Autoencoder(latent_dim=2, max_epochs=6, batch_size=32, random_state=3,
    checkpoint=sys.argv[2], checkpoint_every="1h", resume=True)
ae.fit(X)
print("fitted", ae.stop_reason_)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 0, "was interrupted")],
)
def test_signals_end_the_run_with_a_checkpoint(
    sent: signal.Signals, status: int, said: str, tmp_path: Path
) -> None:
    data, path = tmp_path / "X.npy", tmp_path / "c.checkpoint"
    np.save(data, X)
    command = [sys.executable, "-c", CHILD, str(data), str(path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "now\n"
        child.send_signal(sent)
        out, err = child.communicate("\n", timeout=300)
    assert child.returncode == status
    assert said in err
    assert "go on with resume=True" in err
    assert out == ("fitted interrupted\n" if status == 0 else "")
    resumed = narrows.Autoencoder(**SHORT, checkpoint=path, checkpoint_every="1h", resume=True).fit(
        X
    )
    same(resumed, narrows.Autoencoder(**SHORT).fit(X))


def test_partial_files_of_killed_writers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "getpid", lambda: 999_999_999)
        writing.temporary_path(tmp_path / "c.checkpoint").write_bytes(b"half")
    narrows.Autoencoder(**SHORT, checkpoint=tmp_path / "c.checkpoint", checkpoint_every=3).fit(X)
    assert [p.name for p in tmp_path.iterdir()] == ["c.checkpoint"]


def test_the_weights_in_training_are_left_alone_by_a_checkpoint(tmp_path: Path) -> None:
    kept = {"checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1}
    same(narrows.Autoencoder(**SHORT, **kept).fit(X), narrows.Autoencoder(**SHORT).fit(X))


def changed(X: np.ndarray, rows: Any, to: Any) -> np.ndarray:
    other = X.copy()
    other[rows] = to
    return other


@pytest.mark.parametrize(
    "other",
    [
        changed(X, 150, X[150] + 1e-9),
        changed(X, slice(1, 19), X[1:19][::-1]),
        changed(X, (77, 3), 0.0),
        X[:, ::-1].copy(),
        X.astype(np.float32),
    ],
)
def test_any_other_value_in_memory_is_other_data(
    other: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {**SHORT, "checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1}
    killed_at(20, monkeypatch, lambda: narrows.Autoencoder(**kept).fit(X))
    with pytest.raises(narrows.InputError, match="other data"):
        narrows.Autoencoder(**kept, resume=True).fit(other)
    with pytest.raises(narrows.InputError, match="than the X_val"):
        narrows.Autoencoder(**kept, resume=True).fit(X, X_val=X[:9])
    assert narrows.Autoencoder(**kept, resume=True).fit(X).n_iter_ == 6


def test_other_classes_and_another_image_are_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {**SHORT, "checkpoint": tmp_path / "c.checkpoint", "checkpoint_every": 1}
    y = np.arange(300) % 3
    killed_at(20, monkeypatch, lambda: narrows.ConditionalVAE(**kept).fit(X, y))
    with pytest.raises(narrows.InputError, match="than the y given"):
        narrows.ConditionalVAE(**kept, resume=True).fit(X, changed(y, 100, 2))
    assert narrows.ConditionalVAE(**kept, resume=True).fit(X, y).n_iter_ == 6
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (24, 24)).astype(np.uint8) for _ in range(40)]
    kept = {"patch_size": 16, "channels": (2,), "max_epochs": 3, "random_state": 0}
    kept |= {"checkpoint": tmp_path / "d.checkpoint", "checkpoint_every": "0.000001s"}
    killed_at(1, monkeypatch, lambda: narrows.Denoiser(**kept).fit(images))
    with pytest.raises(narrows.InputError, match="than the X given"):
        others = [*images[:20], changed(images[20], (3, 3), 7), *images[21:]]
        narrows.Denoiser(**kept, resume=True).fit(others)
    with pytest.warns(ConvergenceWarning, match="Nothing was learned"):
        assert narrows.Denoiser(**kept, resume=True).fit(images).n_iter_ == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed this way there")
def test_two_hundred_kills_lose_nothing() -> None:
    script = Path(__file__).parents[1] / "helpers" / "kill_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), "200", "20"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found = json.loads(done.stdout)
    assert found["killed"] + found["killed writing"] >= 200
    assert found["killed writing"] >= 20
    assert found["completed"] >= 2
    assert (found["lost"], found["differing"]) == (0, 0)
