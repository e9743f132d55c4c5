"""`narrows fit --resume`: starts afresh, goes on, or has nothing left to do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.command import colour_folder, run
from narrows import load

SHORT = ("digits", "--max-epochs", "3", "--seed", "0", "--latent-dim", "4")


def fit(out: Path, *more: str) -> object:
    return run("fit", *SHORT, "-o", out, *more)


def weights(path: Path) -> list[torch.Tensor]:
    return list(load(path).model_.parameters())


def test_resume_starts_afresh_and_is_done_when_done(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    first = fit(out, "--resume")
    assert first.status == 0
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    before = out.read_bytes()
    again = fit(out, "--resume")
    assert again.status == 0
    assert "complete already" in again.out
    assert out.read_bytes() == before
    other = fit(out, "--resume", "--learning-rate", "0.1")
    assert other.status == 1
    assert "learning_rate='auto', not 0.1" in other.err
    assert out.read_bytes() == before


def test_a_finished_result_is_never_trained_again(tmp_path: Path) -> None:
    """A job array that is started again says that OUT is complete, whatever else it is given."""
    rows, out = np.random.default_rng(0).normal(size=(90, 5)), tmp_path / "m.safetensors"
    data, log = tmp_path / "X.npy", tmp_path / "m.jsonl"
    np.save(data, rows)
    words = ("fit", data, "-o", out, "--resume", "--latent-dim", "2", "--log", log)
    words = (*words, "--max-epochs", "2", "--seed", "0")
    assert run(*words).status == 0
    before = out.read_bytes(), log.read_bytes()
    for more in ((), ("--overwrite",)):
        again = run(*words, *more)
        assert (again.status, again.err) == (0, "")
        assert "complete already; to fit again, give --overwrite without --resume" in again.out
        assert (out.read_bytes(), log.read_bytes()) == before
    without = [word for word in words if word != "--resume"]
    assert "complete already" not in run(*without, "--overwrite").out  # the advice works
    rows[50, 2] += 1
    np.save(data, rows)
    other = run(*words)
    assert other.status == 1
    assert "a fit on other data" in other.err
    assert run(*words, "--overwrite").status == 0
    assert out.read_bytes() != before[0]


DIES = """
import os, signal, sys
from narrows.cli import main
from narrows.training.monitor import Monitor

update, seen = Monitor.update, []

def update_and_die(monitor, record):
    seen.append(record)
    if len(seen) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(monitor, record)

Monitor.update = update_and_die
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed this way there")
def test_a_killed_command_goes_on_to_the_same_model(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "m.safetensors"
    fit(whole)
    words = ["fit", *SHORT, "-o", str(out), "--checkpoint-every", "1"]
    alike = {**os.environ, "OMP_NUM_THREADS": "1"}  # as this process has: the same bits
    dead = subprocess.run([sys.executable, "-c", DIES, *words], capture_output=True, env=alike)
    assert dead.returncode == -signal.SIGKILL
    assert not out.exists()
    run_file = tmp_path / "m.checkpoint"
    assert load(run_file).n_iter_ == 1
    refused = fit(out, "--checkpoint-every", "1")
    assert refused.status == 1
    assert "holds a run already" in refused.err
    assert "--resume" in refused.err
    assert fit(out, "--resume").status == 0
    assert all(map(torch.equal, weights(out), weights(whole)))
    assert not run_file.exists()


def test_overwrite_starts_afresh_over_an_old_run(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    (tmp_path / "m.checkpoint").write_bytes(b"whatever was left")
    assert fit(out).status == 1
    assert fit(out, "--overwrite").status == 0
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_only_a_checkpoint_is_ever_removed(tmp_path: Path) -> None:
    out, other = tmp_path / "m.safetensors", tmp_path / "precious.npy"
    other.write_bytes(b"data")
    refused = fit(out, "--overwrite", "--checkpoint", str(other))
    assert refused.status == 1
    assert ".checkpoint" in refused.err
    assert other.read_bytes() == b"data"
    old = tmp_path / "m.checkpoint"
    old.write_bytes(b"hours of work")
    gone = run("fit", "nowhere.npy", "-o", out, "--overwrite")
    assert gone.status == 1
    assert old.read_bytes() == b"hours of work"


def test_the_log_of_another_run_is_not_emptied(tmp_path: Path) -> None:
    log = tmp_path / "old.jsonl"
    log.write_text('{"epoch": 1, "loss": 2.0}\n')
    assert fit(tmp_path / "m.safetensors", "--resume", "--log", str(log)).status == 1
    assert log.read_text() == '{"epoch": 1, "loss": 2.0}\n'


def test_a_complete_model_of_colour_pictures_is_complete(tmp_path: Path) -> None:
    data, out = colour_folder(tmp_path), tmp_path / "m.safetensors"
    words = ("fit", data, "-o", out, "--max-epochs", "1", "--latent-dim", "2", "--resume")
    assert run(*words).status == 0
    again = run(*words)
    assert again.status == 0, again.err
    assert "complete already" in again.out


@pytest.mark.filterwarnings("default")
def test_data_are_warned_of_once_and_of_a_complete_model_not_at_all(tmp_path: Path) -> None:
    rows, out = np.random.default_rng(0).normal(size=(40, 5)), tmp_path / "m.safetensors"
    rows[7] = np.nan
    np.save(tmp_path / "X.npy", rows)
    words = ("fit", tmp_path / "X.npy", "-o", out, "--resume", "--missing", "mask", "--seed", "0")
    words = (*words, "--max-epochs", "1", "--latent-dim", "2")
    first, said = run(*words), "have no observed value"
    again = run(*words)
    assert (again.status, again.err) == (0, "") and "complete already" in again.out
    np.save(tmp_path / "X.npy", rows + 1)
    assert "is the result of a fit on other data; give --overwrite" in run(*words).err
    second = run(*words, "--overwrite")
    assert (first.status, second.status) == (0, 0)
    assert (first.err.count(said), second.err.count(said)) == (1, 1)
    assert "made by Autoencoder, not by" in run(*words, "--model", "beta-vae").err
