"""skorch's NeuralNetRegressor from the rows to the rows."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback

from contenders.common import BATCH, RATE, Monitor, Task
from contenders.plain import TorchContender, build, tensor
from sets import Split


class Timer(Callback):
    """skorch ends its loop at a KeyboardInterrupt and keeps the model."""

    def __init__(self, watch: Monitor) -> None:
        self.watch = watch

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if self.watch.over():
            raise KeyboardInterrupt

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.watch.mark()


class Skorch(TorchContender):
    """``fit`` without a validation split."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.net, self.rows = task, build(task), tensor(train)

    def train(self, watch: Monitor) -> None:
        model = NeuralNetRegressor(
            self.net,
            criterion=torch.nn.MSELoss,
            optimizer=torch.optim.Adam,
            lr=RATE,
            max_epochs=self.task.most_epochs,
            batch_size=BATCH,
            train_split=None,
            iterator_train__shuffle=True,
            callbacks=[("timer", Timer(watch))],
            verbose=0,
        )
        model.fit(self.rows, self.rows)
        self.net = model.module_
