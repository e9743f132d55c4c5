"""Lightning's Trainer without logger, checkpoints and progress bar."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contenders.common import BATCH, RATE, Monitor, Task
from contenders.plain import TorchContender, build, tensor
from sets import Split


class Module(pl.LightningModule):
    """The autoencoder of Lightning's tutorial."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Any, index: int) -> Tensor:
        (x,) = batch
        return nn.functional.mse_loss(self.net(x), x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=RATE)


class Timer(pl.Callback):
    def __init__(self, watch: Monitor) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.watch.over():
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.should_stop:
            self.watch.mark()


class Lightning(TorchContender):
    """``Trainer.fit``."""

    def __init__(self, task: Task, train: Split) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")
        self.task, self.net = task, build(task)
        self.loader = DataLoader(TensorDataset(tensor(train)), batch_size=BATCH, shuffle=True)

    def train(self, watch: Monitor) -> None:
        trainer = pl.Trainer(
            max_epochs=self.task.most_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Timer(watch)],
        )
        trainer.fit(Module(self.net), self.loader)
