"""PyOD's AutoEncoder: its own loop, without its standardising, batch norm and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyod.models.auto_encoder import AutoEncoder

from contenders.common import BATCH, RATE, Contender, Monitor, Task, TimeIsUp
from sets import Split


class Timed(AutoEncoder):
    """Times ``train``; ``fit`` would also score the training rows afterwards."""

    watch: Monitor

    def train(self, train_loader: Any) -> None:
        self.watch.start()
        super().train(train_loader)
        self.watch.stop()
        raise TimeIsUp

    def epoch_update(self) -> None:
        self.watch.mark()

    def training_forward(self, batch_data: Any) -> Any:
        if self.watch.over():
            self.watch.stop()
            raise TimeIsUp
        return super().training_forward(batch_data)


class Detector(Contender):
    """The same widths; its code and all hidden layers have ReLU, its output has no sigmoid."""

    def __init__(self, task: Task, train: Split) -> None:
        self.rows = train.ready.reshape(len(train.ready), -1)
        self.model = Timed(
            preprocessing=False,
            lr=RATE,
            epoch_num=task.most_epochs,
            batch_size=BATCH,
            random_state=task.seed,
            verbose=0,
            optimizer_params={"weight_decay": 0.0},
            hidden_neuron_list=[*task.widths, task.latent],
            batch_norm=False,
            dropout_rate=0.0,
        )

    def train(self, watch: Monitor) -> None:
        self.model.watch = watch
        try:
            self.model.fit(self.rows)
        except TimeIsUp:
            return

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        flat = torch.from_numpy(rows.ready.reshape(len(rows.ready), -1))
        network = self.model.model.eval()
        with torch.no_grad():
            out = torch.cat([network(x) for x in flat.split(1000)])
        shaped: NDArray[np.float32] = out.numpy().reshape(rows.ready.shape)
        return shaped

    def weights(self) -> Any:
        return {name: value.clone() for name, value in self.model.model.state_dict().items()}

    def restore(self, weights: Any) -> None:
        self.model.model.load_state_dict(weights)
