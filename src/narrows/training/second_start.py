"""A second start of the networks, where a run that starts at PCA leads nowhere.

PCA is a stationary point of the squared error for f: its residual is orthogonal to the columns of
B, row by row, so that f gets no gradient before g has moved. g's own gradient there can be far
below the noise of a batch (signals with a random phase): such a run stays at PCA until its
learning rate falls. So a run is judged early: if it is hardly better than PCA, its weights are put
aside, the networks start again from random weights, and the better of the two goes on. PCA stays
the first candidate for the best model.
"""

from __future__ import annotations

from collections.abc import Callable

from narrows.training.checkpoint import load_weights, weights
from narrows.training.monitor import Monitor
from narrows.training.train_state import StepRecord, TrainState, Trial

JUDGED, FIRST_STEPS = 0.05, 20  # share of the run, and steps, after which its start is judged ...
LEAST_GAIN = 0.02  # ... by the share of PCA's error that it must have gained
TRIED, SECOND_STEPS = 0.10, 120  # that the second start has to become better than the first
LONGEST = 0.3  # share of the run that these steps may take at most


class SecondStart:
    """Judge the first start of a run and give it a second one; see the module.

    Parameters
    ----------
    state : TrainState
        ``state.trial`` says where the run stands; "over" at the beginning: no second start.
    monitor : Monitor
    draw : callable
        Draws the networks anew.
    patience : int or None
        Of early stopping, which waits for the end of the trial: half of it, in epochs, is enough
        to judge the first start, and all of it for the second.
    """

    def __init__(
        self,
        state: TrainState,
        monitor: Monitor,
        draw: Callable[[], None],
        patience: int | None,
    ) -> None:
        self.state, self.monitor, self.draw, self.patience = state, monitor, draw, patience

    def update(self, record: StepRecord) -> None:
        """Take one record, after the monitor; the networks may be others afterwards."""
        trial, patience = self.state.trial, self.patience or 0
        if trial.phase == "over":
            return
        share = record.progress - trial.progress
        steps = self.state.step - self.state.first_step - trial.step
        epochs = self.state.epoch - trial.epoch if record.end_of_epoch and patience else 0
        if trial.phase == "first":
            if share >= LONGEST:  # a run of so few steps has none for a second start
                self.state.trial = Trial("over")
            elif steps >= FIRST_STEPS and (share >= JUDGED or epochs >= max(1, patience // 2)):
                self._judge(record)
        else:
            enough = steps >= SECOND_STEPS or share >= LONGEST
            over = (share >= TRIED and enough) or epochs >= max(1, patience)
            if over or record.end_of_epoch:
                self._compare(record, over)

    def _score(self, record: StepRecord) -> float:
        return self.monitor.scores[-1] if record.end_of_epoch else self.monitor.evaluate()

    def _judge(self, record: StepRecord) -> None:
        """Begin the second start if the first has gained too little."""
        state, score = self.state, self._score(record)
        if score <= (1.0 - LEAST_GAIN) * self.monitor.scores[0]:
            state.trial = Trial("over")
            return
        done = state.step - state.first_step
        kept = weights(state, self.monitor)
        state.trial = Trial("second", done, record.progress, state.epoch, score, kept)
        for optimizer in state.optimizers.values():
            optimizer.state.clear()
        self.draw()

    def _compare(self, record: StepRecord, over: bool) -> None:
        """Go on with the second start once it is better, or with the first at the trial's end."""
        state, trial = self.state, self.state.trial
        if self._score(record) < trial.score:
            state.trial = Trial("over", trial.step, trial.progress, trial.epoch)
        elif over:
            load_weights(trial.kept, state, self.monitor)
            state.trial = Trial("over")
