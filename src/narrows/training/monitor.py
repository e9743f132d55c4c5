"""What listens to the loop from outside: validation, the best model, history, stopping, progress.

The loop yields a record a step; a ``Monitor`` sees each and says when to stop and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from narrows.training.loop import StepRecord
from narrows.training.process_group import summed


class Monitor:
    """Follow one run: validate after every epoch, keep the best weights, know when to stop.

    ``evaluate`` gives the selection score, in nats a row; lower is better. ``patience`` is the
    number of epochs without a better score after which to stop; None never stops. Without
    ``keep_best`` the last weights count as the best. ``tell`` gets each epoch's entry of the
    history; True stops the run. ``say`` is how a score is shown. Patience begins after the epoch
    ``settled``: before it the weights of the loss still move to those of the score.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        evaluate: Callable[[], float],
        patience: int | None,
        verbose: bool,
        keep_best: bool = True,
        tell: Callable[[dict[str, float]], bool] = lambda entry: False,
        say: Callable[[float], str] = "{:.4g}".format,
        settled: int = 0,
    ) -> None:
        self.modules = modules
        self.evaluate, self.patience, self.keep_best = evaluate, patience, keep_best
        self.tell, self.say, self.settled = tell, say, settled
        self.history: list[dict[str, float]] = []
        self.scores: list[float] = []
        self.best: dict[str, dict[str, Tensor]] = {}
        self.best_epoch = 0
        self.stop_reason = ""
        self.sums: dict[str, Tensor] = {}  # of the epoch under way
        self.steps = 0
        self.started = time.monotonic()
        self._last: StepRecord | None = None
        self._bar = _progress_bar(verbose)

    @property
    def best_score(self) -> float:
        """The lowest selection score so far."""
        return self.scores[self.best_epoch]

    @property
    def seconds(self) -> float:
        """Since the run began, the time before a break counted in and the break not."""
        return time.monotonic() - self.started

    @property
    def broke(self) -> bool:
        """Whether the epoch just closed ended in a loss or a score that is no number."""
        return bool(self.history) and not (
            math.isfinite(self.history[-1]["loss"]) and math.isfinite(self.scores[-1])
        )

    def start(self) -> None:
        """The untrained model (PCA, where it starts there) is the first candidate."""
        self._candidate()

    def see(self, record: StepRecord) -> bool:
        """Take one record; True means stop now."""
        self.steps, self._last = self.steps + 1, record
        for name, value in (("loss", record.losses["model"]), *record.terms.items()):
            total = self.sums.get(name)
            value = value.detach()
            self.sums[name] = value if total is None else total + value
        if not record.end_of_epoch:
            return False
        self._close_epoch(record)
        return bool(self.stop_reason)

    def _candidate(self) -> None:
        score = self.evaluate()
        self.scores.append(score)
        better = len(self.scores) == 1 or score < self.best_score or math.isnan(self.best_score)
        if better or (not self.keep_best and math.isfinite(score)):
            self.best_epoch = len(self.scores) - 1
            self.best = {name: _copy(module) for name, module in self.modules.items()}

    def _close_epoch(self, record: StepRecord) -> None:
        self._candidate()
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
        self._bar.update(round(100 * record.progress) - self._bar.n)
        self._bar.set_postfix_str(
            f"epoch {len(self.history)}, loss {means['loss']:.4g}, "
            f"validation {self.say(self.scores[-1])} (best {self.say(self.best_score)})"
        )
        self._judge()
        if self.tell(entry):
            self.stop_reason = self.stop_reason or "a listener asked to stop"

    def _judge(self) -> None:
        if self.broke:
            self.stop_reason = f"the loss was no longer a number in epoch {len(self.history)}"
        elif self.patience and self._waited() >= self.patience:
            self.stop_reason = f"no better validation loss in {self.patience} epochs"

    def _waited(self) -> int:
        return len(self.scores) - 1 - max(self.best_epoch, self.settled)

    def summary(self) -> dict[str, Any]:
        """What listeners hear at the end."""
        return {
            "stop_reason": self.stop_reason,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "seconds": self.seconds,
        }

    def finish(self, reason: str) -> None:
        """Close the books (a part of an epoch counts as one) and go back to the best weights."""
        if self.steps and self._last is not None:
            self._close_epoch(self._last)
        self.stop_reason = self.stop_reason or reason
        for name, module in self.modules.items():
            module.load_state_dict(self.best[name])
        self._bar.close()


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _progress_bar(verbose: bool) -> Any:
    from tqdm import tqdm

    # disable=None: a bar on a terminal, silence in a file or a pipe
    return tqdm(
        total=100,
        disable=None if verbose else True,
        desc="fit",
        unit="%",
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} {postfix}",
        leave=False,
    )


@torch.no_grad()
def average_score(
    score: Callable[[Tensor], Tensor], batches: Iterable[Tensor], n_rows: int
) -> float:
    """The mean of ``score`` over all rows, each row counting once, whichever process has it."""
    return summed(sum(float(score(batch)) * len(batch) for batch in batches)) / n_rows
