"""Validation, early stopping, best weights, history and progress bar.

The loop yields a record a step. A ``Monitor`` gets each of them and says when to stop and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from narrows.training.process_group import Group
from narrows.training.train_state import StepRecord


class Monitor:
    """Follow one run: validate after every epoch, keep the best weights, decide when to stop.

    Parameters
    ----------
    modules : dict of modules
        The modules to keep weights of: "model" and "objective".
    evaluate : callable
        Returns the selection score, in nats a row; lower is better.
    patience : int or None
        Epochs without a better score after which to stop; None never stops.
    verbose : bool or "auto"
        Show a progress bar if standard error is a terminal; "auto": of a run that takes long.
    keep_best : bool
        If False, the last weights with a finite score count as the best.
    on_epoch : callable
        Called with every entry of the history; True stops the run.
    format_score : callable
        How a score is shown in the progress bar.
    patience_starts : int
        The epoch from which patience counts. Before it the weights of the loss's terms still
        change towards those of the score.
    out_of_patience : callable
        Called when patience has run out; whether the run stops now.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        evaluate: Callable[[], float],
        patience: int | None,
        verbose: bool | str,
        keep_best: bool = True,
        on_epoch: Callable[[dict[str, float]], bool] = lambda entry: False,
        format_score: Callable[[float], str] = "{:.4g}".format,
        patience_starts: int = 0,
        out_of_patience: Callable[[], bool] = lambda: True,
    ) -> None:
        self.modules = modules
        self.evaluate, self.patience, self.keep_best = evaluate, patience, keep_best
        self.on_epoch, self.format_score = on_epoch, format_score
        self.patience_starts, self.out_of_patience = patience_starts, out_of_patience
        self.history: list[dict[str, float]] = []
        self.scores: list[float] = []  # of the untrained model and after each epoch
        self.best: dict[str, dict[str, Tensor]] = {}
        self.best_epoch = 0
        self.stop_reason = ""
        self.sums: dict[str, Tensor] = {}  # of the loss and its terms in the current epoch
        self.steps = 0  # in the current epoch
        self.started = time.monotonic()
        self._last: StepRecord | None = None
        self._bar = _progress_bar(verbose)

    @property
    def best_score(self) -> float:
        """The lowest selection score so far."""
        return self.scores[self.best_epoch]

    @property
    def epochs_left(self) -> float:
        """About how many epochs the budget lasts on."""
        done = self._last.progress if self._last is not None else 0.0
        return (len(self.scores) - 1) * (1.0 - done) / max(done, 1e-9)

    @property
    def waited(self) -> int:
        """Epochs without a better score."""
        return len(self.scores) - 1 - max(self.best_epoch, self.patience_starts)

    @property
    def seconds(self) -> float:
        """Training time so far: with what came before an interruption, without the break."""
        return time.monotonic() - self.started

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss or score is not a finite number."""
        return bool(self.history) and not (
            math.isfinite(self.history[-1]["loss"]) and math.isfinite(self.scores[-1])
        )

    def start(self) -> None:
        """Score the untrained model (PCA, if training starts there): the first candidate."""
        self._score()

    def update(self, record: StepRecord) -> bool:
        """Take one record; True means stop now."""
        self.steps, self._last = self.steps + 1, record
        for name, value in (("loss", record.losses["model"]), *record.terms.items()):
            total = self.sums.get(name)
            value = value.detach()
            self.sums[name] = value if total is None else total + value
        percent = int(100 * record.progress)
        if percent > self._bar.n:
            self._bar.update(percent - self._bar.n)
        if record.end_of_epoch:
            self._close_epoch(record)
        return record.end_of_epoch and bool(self.stop_reason)

    def _score(self) -> None:
        score = self.evaluate()
        self.scores.append(score)
        better = len(self.scores) == 1 or score < self.best_score or math.isnan(self.best_score)
        if better or (not self.keep_best and math.isfinite(score)):
            self.best_epoch = len(self.scores) - 1
            self.best = {
                name: {n: tensor.detach().clone() for n, tensor in module.state_dict().items()}
                for name, module in self.modules.items()
            }

    def _close_epoch(self, record: StepRecord) -> None:
        self._score()
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        entry = {
            "epoch": len(self.scores) - 1,
            "step": record.step,
            "seconds": self.seconds,
            "learning_rate": record.learning_rate,
            **means,
            "validation": self.scores[-1],
        }
        self.history.append(entry)
        last, best = self.format_score(self.scores[-1]), self.format_score(self.best_score)
        self._bar.set_postfix_str(
            f"epoch {len(self.history)}, loss {means['loss']:.4g}, validation {last} (best {best})",
            refresh=False,  # else it shows before its delay is over
        )
        if self.diverged:
            self.stop_reason = f"the loss was no longer a number in epoch {len(self.history)}"
        elif self.patience and self.waited >= self.patience and self.out_of_patience():
            self.stop_reason = no_better(self.waited)
        if self.on_epoch(entry):
            self.stop_reason = self.stop_reason or "a listener asked to stop"

    def summary(self) -> dict[str, Any]:
        """How the run ended, as ``Listener.on_end`` gets it."""
        return {
            "stop_reason": self.stop_reason,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "seconds": self.seconds,
        }

    def finish(self, reason: str) -> None:
        """End the run: a part of an epoch counts as one, and the modules get the best weights."""
        if self.steps and self._last is not None:
            self._close_epoch(self._last)
        self.stop_reason = self.stop_reason or reason
        for name, module in self.modules.items():
            module.load_state_dict(self.best[name])
        self._bar.close()


def no_better(epochs: int) -> str:
    """Why early stopping ended a run."""
    return f"no better validation loss in {epochs} epoch{'s' * (epochs != 1)}"


SHOWN_AFTER = 3.0  # seconds, from which verbose="auto" shows progress


def _progress_bar(verbose: bool | str) -> Any:
    from tqdm import tqdm

    # disable=None: shown on a terminal, not in a file or a pipe
    return tqdm(
        total=100,
        disable=None if verbose else True,
        desc="fit",
        unit="%",
        delay=SHOWN_AFTER if verbose == "auto" else 0.0,
        smoothing=0.0,  # the time left follows the whole run, not its last epoch
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}",
        leave=False,
    )


@torch.no_grad()
def average_score(
    score: Callable[[Tensor], Tensor], batches: Iterable[Tensor], n_rows: int, group: Group
) -> float:
    """The mean over ``n_rows`` rows of ``score``, which returns the mean of a batch.

    ``batches`` are this process's share of the rows; every row counts once.
    """
    total = sum(float(score(batch)) * len(batch) for batch in batches)
    return group.all_reduce_sum(total) / n_rows
