"""scikit-learn: MLPRegressor from the rows to the rows, whose output has no sigmoid; and PCA."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPRegressor

from contenders.common import BATCH, RATE, Contender, Monitor, Task
from sets import Split

BLOCK = 50 * BATCH  # rows between two checks of the time


def first_use() -> None:
    """A first PCA, which starts the threads of the matrix products."""
    PCA(2).fit(np.random.default_rng(0).normal(size=(300, 20)))


class Regressor(Contender):
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

    def weights(self) -> Any:
        return [w.copy() for w in self.model.coefs_ + self.model.intercepts_]

    def restore(self, weights: Any) -> None:
        for mine, kept in zip(self.model.coefs_ + self.model.intercepts_, weights, strict=True):
            mine[...] = kept


class Components(Contender):
    """PCA: no training. Where rows lie in [0, 1], its reconstructions are clipped to that."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.rows = task, _flat(train)
        self.model = PCA(task.latent, random_state=task.seed)

    def train(self, watch: Monitor) -> None:
        self.model.fit(self.rows)

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        out = self.model.inverse_transform(self.model.transform(_flat(rows)))
        out = np.asarray(out, np.float32).reshape(rows.ready.shape)
        return out.clip(0, 1) if self.task.bounded else out


def _flat(rows: Split) -> NDArray[np.float32]:
    return rows.ready.reshape(len(rows.ready), -1)
