"""What listens to the loop from outside: validation, the best model, history, stopping, progress.

The loop yields a record a step; a ``Watch`` sees each and says when to stop and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from narrows.engine.distributed import summed
from narrows.engine.training import Record


class Watch:
    """Follow one run: validate after every epoch, keep the best weights, know when to stop.

    ``evaluate`` gives the selection score, in nats a row; lower is better. ``patience`` is the
    number of epochs without a better score after which to stop; None never stops. Without
    ``keep_best`` the last weights count as the best.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        evaluate: Callable[[], float],
        patience: int | None,
        verbose: bool,
        keep_best: bool = True,
    ) -> None:
        self.modules = list(modules)
        self.evaluate, self.patience, self.keep_best = evaluate, patience, keep_best
        self.history: list[dict[str, float]] = []
        self.scores: list[float] = []
        self.best_epoch = 0
        self.stop_reason = ""
        self._best: list[dict[str, Tensor]] = []
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._last: Record | None = None
        self._started = time.monotonic()
        self._bar = _progress_bar(verbose)

    @property
    def best_score(self) -> float:
        """The lowest selection score so far."""
        return self.scores[self.best_epoch]

    def start(self) -> None:
        """The untrained model (PCA, where it starts there) is the first candidate."""
        self._candidate()

    def see(self, record: Record) -> bool:
        """Take one record; True means stop now."""
        self._steps, self._last = self._steps + 1, record
        for name, value in (("loss", record.losses["model"]), *record.terms.items()):
            total = self._sums.get(name)
            value = value.detach()
            self._sums[name] = value if total is None else total + value
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
            self._best = [_copy(module.state_dict()) for module in self.modules]

    def _close_epoch(self, record: Record) -> None:
        self._candidate()
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        self._sums, self._steps = {}, 0
        self.history.append(
            {
                "epoch": len(self.scores) - 1,
                "step": record.step,
                "seconds": time.monotonic() - self._started,
                "learning_rate": record.learning_rate,
                **means,
                "validation": self.scores[-1],
            }
        )
        self._bar.update(round(100 * record.progress) - self._bar.n)
        self._bar.set_postfix_str(
            f"epoch {len(self.history)}, loss {means['loss']:.4g}, "
            f"validation {self.scores[-1]:.4g} (best {self.best_score:.4g})"
        )
        self._judge(means["loss"])

    def _judge(self, loss: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(self.scores[-1])):
            self.stop_reason = f"the loss was no longer a number in epoch {len(self.history)}"
        elif self.patience and len(self.scores) - 1 - self.best_epoch >= self.patience:
            self.stop_reason = f"no better validation loss in {self.patience} epochs"

    def finish(self, reason: str) -> None:
        """Close the books (a part of an epoch counts as one) and go back to the best weights."""
        if self._steps and self._last is not None:
            self._close_epoch(self._last)
        self.stop_reason = self.stop_reason or reason
        for module, best in zip(self.modules, self._best, strict=True):
            module.load_state_dict(best)
        self._bar.close()


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


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
