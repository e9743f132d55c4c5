"""Early stopping and best weights, against the definition, for scripted scores."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from narrows.training import monitor as monitor_file
from narrows.training.monitor import Monitor, average_score
from narrows.training.process_group import Group
from narrows.training.train_state import StepRecord

STEPS = 3  # in an epoch
SCORES = st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0, math.nan]), min_size=1, max_size=12)


def follow(
    scores: list[float], patience: int | None, starts: int = 0, keep_best: bool = True
) -> tuple[Monitor, nn.Linear, int]:
    """A run whose weight is the number of steps done, until the monitor stops it."""
    module, given = nn.Linear(1, 1), iter(scores)
    monitor = Monitor({"model": module}, lambda: next(given), patience, False, keep_best,
                      patience_starts=starts)  # fmt: skip
    nn.init.constant_(module.weight, 0.0)
    monitor.start()
    step = 0
    for epoch in range(1, len(scores)):
        for i in range(STEPS):
            step += 1
            nn.init.constant_(module.weight, float(step))
            loss = torch.tensor(float(step))
            record = StepRecord(step, epoch, 0.5, 0.1, {"kl": 2 * loss}, {"model": loss},
                                i == STEPS - 1)  # fmt: skip
            if monitor.update(record):
                return monitor, module, epoch
    return monitor, module, len(scores) - 1


def best_of(scores: list[float]) -> int:
    """The first of the lowest; what is not a number is worse than any number."""
    ranks = [math.inf if math.isnan(s) else s for s in scores]
    first = next((i for i, s in enumerate(scores) if not math.isnan(s)), len(scores) - 1)
    return ranks.index(min(ranks)) if min(ranks) < math.inf else first


@given(SCORES, st.sampled_from([None, 1, 2, 3]), st.integers(0, 5))
def test_a_run_ends_when_patience_is_used_up_with_the_best_weights(
    scores: list[float], patience: int | None, starts: int
) -> None:
    monitor, module, ended = follow(scores, patience, starts)
    wanted = len(scores) - 1
    for epoch in range(1, len(scores)):
        waited = epoch - max(best_of(scores[: epoch + 1]), starts)
        if math.isnan(scores[epoch]) or (patience and waited >= patience):
            wanted = epoch
            break
    assert ended == wanted
    seen = scores[: ended + 1]
    if not any(map(math.isnan, seen[:1])):
        assert monitor.best_epoch == best_of(seen)
    monitor.finish("the budget was used")
    assert module.weight.item() == STEPS * monitor.best_epoch
    assert [entry["epoch"] for entry in monitor.history] == list(range(1, ended + 1))
    for epoch, entry in enumerate(monitor.history, start=1):
        mean = np.mean([STEPS * (epoch - 1) + i + 1 for i in range(STEPS)])
        assert (entry["loss"], entry["kl"]) == (mean, 2 * mean)


class Bar:
    """Stands for tqdm's."""

    n, words = 0, ""

    def update(self, more: int) -> None:
        self.n += more

    def set_postfix_str(self, words: str, refresh: bool) -> None:
        assert not refresh  # it would show the bar before its delay is over
        self.words = words


def test_the_bar_shows_the_share_done_and_the_last_and_best_score() -> None:
    scores = iter([3.0, 1.0, 2.0, 4.0])
    monitor = Monitor({}, lambda: next(scores), None, False)
    bar = monitor._bar = Bar()
    monitor.start()
    for progress, percent in ((0.256, 25), (0.5, 50), (1.0, 100)):
        loss = {"model": torch.tensor(0.5)}
        monitor.update(StepRecord(1, 1.0, progress, 0.1, {}, loss, True))
        assert bar.n == percent
    assert bar.words == "epoch 3, loss 0.5, validation 4 (best 1)"


@pytest.mark.parametrize(
    ("verbose", "delay", "shown"),
    [("auto", 0.0, True), ("auto", 1e9, False), (True, 1e9, True), (False, 0.0, False)],
)
def test_a_run_that_takes_long_shows_its_progress_and_the_time_left_on_a_terminal(
    verbose: bool | str, delay: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(monitor_file, "SHOWN_AFTER", delay)
    bar = monitor_file._progress_bar(verbose)
    bar.mininterval = 0.0
    bar.update(20)
    bar.update(20)
    words = screen.getvalue()
    bar.close()
    assert ("fit  40%" in words, " left" in words) == (shown, shown)


def test_the_reason_says_what_ended_the_run() -> None:
    assert follow([1.0, 2.0, 2.0], 2)[0].stop_reason == "no better validation loss in 2 epochs"
    assert "no longer a number in epoch 1" in follow([1.0, math.nan], None)[0].stop_reason
    for patience in (None, 5):
        assert follow([1.0, 2.0, 3.0], patience)[0].stop_reason == ""


def test_without_keep_best_the_last_finite_weights_are_kept() -> None:
    monitor, module, _ = follow([1.0, 3.0, 2.0, math.nan], None, keep_best=False)
    monitor.finish("")
    assert monitor.best_epoch == 2
    assert module.weight.item() == 2 * STEPS


def test_a_part_of_an_epoch_counts_as_one() -> None:
    monitor, module, _ = follow([3.0, 2.0], None)
    monitor.evaluate = lambda: 1.0
    nn.init.constant_(module.weight, 9.0)
    loss = torch.tensor(7.0)
    assert not monitor.update(StepRecord(4, 1.3, 0.5, 0.1, {}, {"model": loss}, False))
    monitor.finish("interrupted")
    assert (monitor.best_epoch, monitor.stop_reason, len(monitor.history)) == (2, "interrupted", 2)
    assert monitor.history[-1]["loss"] == 7.0  # of the one step of this epoch
    assert module.weight.item() == 9.0


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_a_score_counts_every_row_once_however_batches_are_cut(size: int) -> None:
    x = torch.arange(10.0)
    found = average_score(lambda batch: batch.mean(), x.split(size), 10, Group())
    assert found == pytest.approx(4.5)
