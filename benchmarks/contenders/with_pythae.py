"""Pythae's AE and BaseTrainer, with the same networks; its files go to a temporary folder."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import AE, AEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn

from contenders.common import BATCH, RATE, Monitor, Task, TimeIsUp
from contenders.plain import TorchContender, build, tensor
from sets import Split


class Encoder(BaseEncoder):
    def __init__(self, net: nn.Module) -> None:
        BaseEncoder.__init__(self)
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return ModelOutput(embedding=self.net(x))


class Decoder(BaseDecoder):
    def __init__(self, net: nn.Module) -> None:
        BaseDecoder.__init__(self)
        self.net = net

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=self.net(z))


class Timer(TrainingCallback):
    """Marks epochs, and stops when the seconds are used up: the trainer has no time limit."""

    def __init__(self, watch: Monitor) -> None:
        self.watch = watch

    def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
        if self.watch.over():
            raise TimeIsUp

    def on_epoch_end(self, training_config: Any, **kwargs: Any) -> None:
        self.watch.mark()


class Pythae(TorchContender):
    """``BaseTrainer.train``, which ends by writing the best model."""

    def __init__(self, task: Task, train: Split) -> None:
        logging.disable(logging.WARNING)
        self.task, rows = task, tensor(train)
        self.rows = BaseDataset(rows, torch.zeros(len(rows)))
        self.net = build(task)
        config = AEConfig(input_dim=(1, *task.shape), latent_dim=task.latent)
        self.model = AE(config, encoder=Encoder(self.net[0]), decoder=Decoder(self.net[1]))

    def train(self, watch: Monitor) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=self.task.most_epochs,
                per_device_train_batch_size=BATCH,
                learning_rate=RATE,
                seed=self.task.seed,
                no_cuda=True,
            )
            trainer = BaseTrainer(
                self.model, self.rows, training_config=config, callbacks=[Timer(watch)]
            )
            watch.start()  # the trainer's constructor runs one batch as a check
            with contextlib.suppress(TimeIsUp):
                trainer.train()
            watch.stop()
