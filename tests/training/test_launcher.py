"""Worker processes: what is sent to them, and how they end."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import narrows
from helpers.started_processes import training
from narrows.exceptions import WorkerError
from narrows.training import launcher
from narrows.training.launcher import Interrupt, catch_interrupts

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


def test_sigterm_is_passed_on_to_workers_which_write_a_checkpoint(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(64, 5)))
    with training([sys.executable, "-c", KEPT, "1000000"], tmp_path) as long:
        os.kill(long.pid, signal.SIGTERM)
        _, err = long.communicate(timeout=300)
    assert long.returncode == 143, err
    so_far = narrows.load(tmp_path / "c.checkpoint")
    assert so_far.n_iter_ >= 1
    assert so_far.random_state is None  # a run without a seed can be continued too


def test_of_a_memory_map_workers_get_its_place_in_the_file(tmp_path: Path) -> None:
    whole = np.arange(40_000.0).reshape(10_000, 4)
    np.save(tmp_path / "X.npy", whole)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for rows in (mapped, mapped[3000:3100], mapped[7:]):
        launcher._dump(tmp_path / "task", (rows, whole[:2]))
        found, copied = launcher._load(tmp_path / "task")
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_array_equal(copied, whole[:2])
        assert (tmp_path / "task").stat().st_size < 5000
    # not contiguous rows of the file: sent as numbers
    launcher._dump(tmp_path / "task", mapped[::2])
    np.testing.assert_array_equal(launcher._load(tmp_path / "task"), whole[::2])


class KillsRankOne:
    """Read from the task by every worker while it starts: rank 1 dies, rank 0 takes very long."""

    def __reduce__(self) -> Any:
        return _while_starting, ()


def _while_starting() -> None:
    if os.environ["LOCAL_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)


@pytest.mark.slow
def test_a_worker_that_dies_while_rank_zero_starts_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 1e9)  # for errors only: a signal ends it soon
    started = time.monotonic()
    with pytest.raises(WorkerError, match="Worker process 1 of 2 was ended by signal 9"):
        launcher.run_workers(2, print, KillsRankOne())
    assert time.monotonic() - started < 100  # far below the 300 s that rank 0 takes


@pytest.mark.parametrize("on_terminate", [True, False])
def test_a_first_signal_asks_to_stop_and_the_handlers_come_back(
    on_terminate: bool,
) -> None:
    """A second Ctrl-C raises; handlers of the user's own stay."""
    numbers, usual = (signal.SIGINT, signal.SIGTERM), [signal.default_int_handler, signal.SIG_DFL]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in zip(numbers, usual, strict=True):
            signal.signal(number, handler)
        stop = Interrupt()
        with catch_interrupts(stop, on_terminate=on_terminate):
            interrupt, terminate = map(signal.getsignal, numbers)
            interrupt(signal.SIGINT, None)
            assert stop.reason == "interrupted"
            with pytest.raises(KeyboardInterrupt):
                interrupt(signal.SIGINT, None)
            assert (terminate is signal.SIG_DFL) != on_terminate
            if on_terminate:
                terminate(signal.SIGTERM, None)
                assert stop.reason == "terminated"
        assert list(map(signal.getsignal, numbers)) == usual
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        with catch_interrupts(stop, on_terminate=on_terminate):
            assert list(map(signal.getsignal, numbers)) == [signal.SIG_IGN] * 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
