"""Keras 3, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from contenders.common import BATCH, RATE, Contender, Monitor, Task
from sets import Split


def build(task: Task) -> Any:
    """The same layers; images have their channel last, as in Keras."""
    keras.utils.set_random_seed(task.seed)
    end = "sigmoid" if task.bounded else None
    if task.network == "dense":
        stack = [layers.Input((task.features,))]
        stack += [layers.Dense(w, activation="relu") for w in task.widths]
        stack.append(layers.Dense(task.latent))
        stack += [layers.Dense(w, activation="relu") for w in task.widths[::-1]]
        stack.append(layers.Dense(task.features, activation=end))
        return keras.Sequential(stack)
    small = (*task.sizes[-1], task.channels[-1])
    stack = [layers.Input((*task.shape, 1))]
    for channels in task.channels:
        down = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu")
        stack.append(down)
    stack += [layers.Flatten(), layers.Dense(task.latent)]
    stack += [layers.Dense(int(np.prod(small)), activation="relu"), layers.Reshape(small)]
    for i, (_, channels) in enumerate(pairwise((*task.channels[::-1], 1))):
        last = i == len(task.channels) - 1
        up = layers.Conv2DTranspose(
            channels,
            3,
            strides=2,
            padding="same",
            output_padding=task.extra[i],
            activation=end if last else "relu",
        )
        stack.append(up)
    return keras.Sequential(stack)


class Timer(keras.callbacks.Callback):
    """Ends training when the seconds are used up."""

    def __init__(self, watch: Monitor) -> None:
        super().__init__()
        self.watch = watch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self.model.stop_training:
            self.watch.mark()


class Deadline(Timer):
    """Checks the time after each batch; used only with a time limit, because it costs time."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = self.watch.over()


class Keras(Contender):
    """``compile`` and ``fit``."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.model = task, build(task)
        self.rows = self._own(train)
        self.model.compile(optimizer=keras.optimizers.Adam(RATE), loss="mse")

    def _own(self, rows: Split) -> NDArray[np.float32]:
        if self.task.network == "dense":
            return rows.ready.reshape(len(rows.ready), -1)
        return rows.ready[..., None]

    def train(self, watch: Monitor) -> None:
        timer = (Timer if self.task.seconds is None else Deadline)(watch)
        self.model.fit(
            self.rows,
            self.rows,
            batch_size=BATCH,
            epochs=self.task.most_epochs,
            verbose=0,
            callbacks=[timer],
        )

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        out = self.model.predict(self._own(rows), batch_size=1000, verbose=0)
        return np.asarray(out, np.float32).reshape(rows.ready.shape)

    def weights(self) -> Any:
        return self.model.get_weights()

    def restore(self, weights: Any) -> None:
        self.model.set_weights(weights)
