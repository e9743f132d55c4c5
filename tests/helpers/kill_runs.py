"""Kill a run again and again, and see that nothing is lost.

    PYTHONPATH=tests python tests/helpers/kill_runs.py 200 20

One process imports everything, and forks a child that fits with a checkpoint after every epoch; the
child is killed with SIGKILL at a random moment after its first checkpoint, and the next child goes
on from there, until the run is complete; then another run begins. Prints one JSON line: how many
kills, how many while a checkpoint was being written (it had begun to take shape beside its place),
how many runs were completed, and how many checkpoints were lost or runs ended in other bits.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import narrows
from helpers.small_data import curve

EPOCHS = 15
SETTINGS: dict[str, Any] = {"latent_dim": 2, "max_epochs": EPOCHS, "batch_size": 16}


def fit(kind: str, seed: int, folder: Path, *, kept: bool) -> Any:
    """One fit, streamed or in memory, with or without a checkpoint."""
    settings = {**SETTINGS, "random_state": seed, "early_stopping": False}
    if kept:
        settings |= {"checkpoint": folder / "run.checkpoint", "checkpoint_every": 1, "resume": True}
    settings["in_memory"] = kind != "streamed"
    rows = np.load(folder / "X.npy", mmap_mode="r")
    if kind == "pictures":  # a checkpoint after every step, in the middle of epochs
        settings |= {"input_shape": (12, 12), "architecture": "conv", "channels": (4, 8)}
        settings |= {"checkpoint_every": "0.000001s"} if kept else {}
    model = narrows.VariationalAutoencoder if seed % 2 else narrows.Autoencoder
    return model(**settings).fit(rows)


def child(kind: str, seed: int, folder: Path) -> int:
    """A process of its own that fits; the file ``done`` says that it came to its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fit(kind, seed, folder, kept=True).save(folder / "done.safetensors", overwrite=True)
            status = 0
        finally:
            os._exit(status)
    return pid


def being_written(folder: Path, pid: int) -> bool:
    """Whether a checkpoint of this process has begun to take shape."""
    return any(folder.glob(f".run.checkpoint.*.{pid}.*.partial"))


def ended(pid: int) -> bool:
    """Whether the child has come to its end; it must not be an error."""
    found, status = os.waitpid(pid, os.WNOHANG)
    if found and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("a run could not go on")
    return bool(found)


def kill_one(kind: str, seed: int, folder: Path, rng: random.Random, *, writing: bool) -> str:
    """Let a child live for a while and kill it: "ended", "killed" or "killed writing"."""
    pid, checkpoint = child(kind, seed, folder), folder / "run.checkpoint"
    while not checkpoint.exists():
        if ended(pid):
            return "ended"
        time.sleep(0.001)
    started, life = time.monotonic(), rng.uniform(0, 0.8)
    while time.monotonic() - started < life or (writing and not being_written(folder, pid)):
        if ended(pid):
            return "ended"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "killed writing" if being_written(folder, pid) else "killed"


def same(one: Any, other: Any) -> bool:
    """The same weights and scores, bit for bit."""
    weights = zip(one.model_.state_dict().values(), other.model_.state_dict().values(), strict=True)
    return one.validation_curve_ == other.validation_curve_ and all(
        torch.equal(a, b) for a, b in weights
    )


def main(kills: int, while_writing: int) -> None:
    """Kill until both counts are reached."""
    torch.set_num_threads(1)
    # tqdm's own lock is shared with children: one that is killed while it holds it stops all others
    tqdm.set_lock(threading.RLock())
    rng, seed = random.Random(0), 0
    found = {"killed": 0, "killed writing": 0, "completed": 0, "lost": 0, "differing": 0}
    while found["killed"] + found["killed writing"] < kills or (
        found["killed writing"] < while_writing
    ):
        kind = ("in memory", "streamed", "pictures")[seed // 2 % 3]
        folder = Path(tempfile.mkdtemp())
        np.save(folder / "X.npy", curve(120, 144) if kind == "pictures" else curve(400))
        whole, epochs = fit(kind, seed, folder, kept=False), 0
        while not (folder / "done.safetensors").exists():
            end = kill_one(kind, seed, folder, rng, writing=rng.random() < 0.3)
            if end != "ended":
                found[end] += 1
            reached = narrows.load(folder / "run.checkpoint").n_iter_  # raises where it is damaged
            found["lost"] += reached < epochs
            epochs = reached
        found["completed"] += 1
        found["differing"] += not same(narrows.load(folder / "done.safetensors"), whole)
        shutil.rmtree(folder)
        seed += 1
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
