"""A hand-written loop: a DataLoader, Adam at 1e-3, ReLU, a sigmoid, and .item() each step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contenders.common import BATCH, RATE, Monitor, Task
from sets import Split


def encoder(task: Task) -> nn.Sequential:
    """Dense: falling widths. Conv: 3 by 3 with stride 2, then one linear layer."""
    if task.network == "dense":
        widths = [task.features, *task.widths, task.latent]
        return nn.Sequential(nn.Flatten(), *_linear(widths))
    layers: list[nn.Module] = []
    for a, b in pairwise((1, *task.channels)):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(_flat(task), task.latent))


def decoder(task: Task) -> nn.Sequential:
    """The encoder's mirror, with a sigmoid at its end."""
    if task.network == "dense":
        widths = [task.latent, *task.widths[::-1], task.features]
        unflatten = nn.Unflatten(1, (1, *task.shape))
        return nn.Sequential(*_linear(widths), nn.Sigmoid(), unflatten)
    layers: list[nn.Module] = [nn.Linear(task.latent, _flat(task)), nn.ReLU()]
    layers.append(nn.Unflatten(1, (task.channels[-1], *task.sizes[-1])))
    for i, (a, b) in enumerate(pairwise((*task.channels[::-1], 1))):
        layers += [nn.ReLU()] if i else []
        up = nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=task.extra[i])
        layers.append(up)
    return nn.Sequential(*layers, nn.Sigmoid())


def build(task: Task) -> nn.Sequential:
    """Encoder and decoder, seeded globally, with torch's own initial weights."""
    torch.manual_seed(task.seed)
    return nn.Sequential(encoder(task), decoder(task))


def _linear(widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Linear(a, b))
    return layers


def _flat(task: Task) -> int:
    return task.channels[-1] * int(np.prod(task.sizes[-1]))


def tensor(rows: Split) -> Tensor:
    """Ready rows with a channel: (n, 1, *shape)."""
    return torch.from_numpy(rows.ready)[:, None]


def answer(model: nn.Module, rows: Split) -> NDArray[np.float32]:
    """The model's reconstructions, a thousand rows at a time."""
    model.eval()
    with torch.no_grad():
        parts = [model(x)[:, 0] for x in tensor(rows).split(1000)]
    out: NDArray[np.float32] = torch.cat(parts).numpy()
    return out


class Plain:
    """PyTorch without a library."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.model = task, build(task)
        self.loader = DataLoader(TensorDataset(tensor(train)), batch_size=BATCH, shuffle=True)

    def train(self, watch: Monitor) -> None:
        optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)
        for _ in range(self.task.most_epochs):
            running = 0.0
            for (x,) in self.loader:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(self.model(x), x)
                loss.backward()
                optimizer.step()
                running += loss.item()
                if watch.over():
                    return
            watch.mark()

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        return answer(self.model, rows)
