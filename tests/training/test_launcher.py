"""Worker processes: what goes to them, and that they end with what they have."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

import narrows
from helpers.started_processes import training

KEPT = """
import numpy as np, pathlib, sys
from narrows import Autoencoder

def ready(entry):
    pathlib.Path("ready").touch()

X = np.load("X.npy", mmap_mode="r")
end = dict(max_epochs=int(sys.argv[1]), early_stopping=False, listeners=ready, n_devices=2)
kept = dict(checkpoint="c.checkpoint", checkpoint_every=1, resume=True)
est = Autoencoder(latent_dim=2, **end, **kept).fit(X)
"""


def test_sigterm_goes_to_the_workers_which_keep_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(64, 5)))
    with training([sys.executable, "-c", KEPT, "1000000"], tmp_path) as long:
        os.kill(long.pid, signal.SIGTERM)
        _, err = long.communicate(timeout=60)
    assert long.returncode == 143, err
    so_far = narrows.load(tmp_path / "c.checkpoint")
    assert so_far.n_iter_ >= 1
    assert so_far.random_state is None  # a run without a seed can be gone on with, too


def test_a_memory_map_goes_to_workers_as_its_place(tmp_path: Path) -> None:
    from narrows.training.launcher import _pack, _unpack

    whole = np.arange(40_000.0).reshape(10_000, 4)
    np.save(tmp_path / "X.npy", whole)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for rows in (mapped, mapped[3000:3100], mapped[7:]):
        _pack(tmp_path / "task", (rows, whole[:2]))
        found, copied = _unpack(tmp_path / "task")
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_array_equal(copied, whole[:2])
        assert (tmp_path / "task").stat().st_size < 5000
    _pack(tmp_path / "task", mapped[::2])  # more than rows of a file: goes as numbers
    np.testing.assert_array_equal(_unpack(tmp_path / "task"), whole[::2])
