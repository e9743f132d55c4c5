"""scikit-learn's MLPRegressor from the rows to the rows; its output has no sigmoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPRegressor

from contenders.common import BATCH, RATE, Monitor, Task
from sets import Split

BLOCK = 50 * BATCH  # rows between two checks of the time


class Regressor:
    """One ``partial_fit`` per epoch, which is one pass of its own loop.

    Its code has ReLU after it like every other hidden layer: it has one activation for all.
    """

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.rows = task, _flat(train)
        self.model = MLPRegressor(
            hidden_layer_sizes=(*task.widths, task.latent, *task.widths[::-1]),
            batch_size=min(BATCH, len(self.rows)),
            learning_rate_init=RATE,
            alpha=0.0,
            random_state=task.seed,
        )

    def train(self, watch: Monitor) -> None:
        rng = np.random.default_rng(self.task.seed)
        for _ in range(self.task.most_epochs):
            if self.task.seconds is None:
                self.model.partial_fit(self.rows, self.rows)
            elif not self._in_blocks(rng.permutation(len(self.rows)), watch):
                return
            watch.mark()

    def _in_blocks(self, order: NDArray[np.int64], watch: Monitor) -> bool:
        for start in range(0, len(order), BLOCK):
            block = self.rows[order[start : start + BLOCK]]
            if len(block) >= self.model.batch_size:  # it warns of fewer
                self.model.partial_fit(block, block)
            if watch.over():
                return False
        return True

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        out = self.model.predict(_flat(rows))
        return np.asarray(out, np.float32).reshape(rows.ready.shape)


def _flat(rows: Split) -> NDArray[np.float32]:
    return rows.ready.reshape(len(rows.ready), -1)
