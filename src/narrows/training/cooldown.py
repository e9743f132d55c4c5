"""The end of a run that early stopping ends: from the best weights, the rate falls to zero.

Patience runs out while the learning rate is still high, and weights at a high rate jump about the
minimum they are near. So the run goes back to its best weights and lets the rate fall to zero over
as many epochs as it waited (the "cooldown" of Hägele et al. 2024, arXiv:2405.18392), for which it
keeps time. A run that has gained hardly anything on its start, PCA, ends at once: the data are
linear, or noise. One that learns its training rows by heart waits for fewer epochs: from there on
a high rate only leads away.
"""

from __future__ import annotations

from dataclasses import dataclass

from narrows.training.monitor import Monitor, no_better
from narrows.training.second_start import LEAST_GAIN
from narrows.training.train_state import TrainState

BY_HEART = 1.2  # times what was gained on validation rows, gained on training rows


@dataclass(frozen=True)
class Patience:
    """Epochs without a better score that a run waits."""

    idle: int  # that has gained hardly anything on its start
    overfit: int  # that learns its training rows by heart
    usual: int

    @property
    def least(self) -> int:
        """The epochs from which a run may end."""
        return min(self.idle, self.overfit, self.usual)


class Cooldown:
    """Decide what a run does that has waited for a better score; see the module.

    Parameters
    ----------
    state : TrainState
    monitor : Monitor
    patience : Patience
    """

    def __init__(self, state: TrainState, monitor: Monitor, patience: Patience) -> None:
        self.state, self.monitor, self.patience = state, monitor, patience

    def ends(self) -> bool:
        """Whether the run ends now; otherwise it waits on, or the cooldown begins."""
        state, monitor = self.state, self.monitor
        # these end by themselves
        if state.trial.phase != "over" or state.cooldown is not None:
            return False
        first = monitor.scores[0]
        gain = first - monitor.best_score
        if gain < LEAST_GAIN * abs(first):
            return monitor.waited >= self.patience.idle
        by_heart = first - monitor.history[-1]["loss"] > BY_HEART * gain
        wait = self.patience.overfit if by_heart else self.patience.usual
        if monitor.waited < min(wait, monitor.epochs_left):
            return False
        assert state.last_epoch is not None
        for name, module in monitor.modules.items():
            module.load_state_dict(monitor.best[name])
        state.cooldown = state.epoch, min(state.last_epoch, state.epoch + monitor.waited)
        return state.epoch == state.last_epoch

    @property
    def reason(self) -> str:
        """Why the run ended, if it was by a cooldown; or empty."""
        epochs, state = self.state.cooldown, self.state
        ended = epochs is not None and state.finished and epochs[1] != state.last_epoch
        return no_better(epochs[1] - epochs[0]) if epochs and ended else ""
