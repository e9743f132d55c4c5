"""A hand-written loop: a DataLoader, Adam at 1e-3, ReLU, and .item() each step.

Its networks and losses are those of the other loops and libraries, too. Where rows lie in [0, 1]
the output ends in a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contenders.common import RATE, Contender, Monitor, Task
from sets import Split

NOISE = 25 / 255  # of the denoiser's test images, white being 1
Activation = Callable[[], nn.Module]


def encoder(task: Task, activation: Activation = nn.ReLU) -> nn.Sequential:
    """Dense: falling widths. Conv: 3 by 3 with stride 2, then one linear layer."""
    numbers = 2 * task.latent if task.network == "vae" else task.latent
    if task.network != "conv":
        widths = [task.features, *task.widths, numbers]
        return nn.Sequential(nn.Flatten(), *_linear(widths, activation))
    layers: list[nn.Module] = []
    for a, b in pairwise((1, *task.channels)):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(_flat(task), numbers))


def decoder(task: Task, activation: Activation = nn.ReLU, sigmoid: bool = True) -> nn.Sequential:
    """The encoder's mirror."""
    end = [nn.Sigmoid()] if sigmoid and task.bounded else []
    if task.network != "conv":
        widths = [task.latent, *task.widths[::-1], task.features]
        unflatten = nn.Unflatten(1, (1, *task.shape))
        return nn.Sequential(*_linear(widths, activation), *end, unflatten)
    layers: list[nn.Module] = [nn.Linear(task.latent, _flat(task)), activation()]
    layers.append(nn.Unflatten(1, (task.channels[-1], *task.sizes[-1])))
    for i, (a, b) in enumerate(pairwise((*task.channels[::-1], 1))):
        layers += [activation()] if i else []
        up = nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=task.extra[i])
        layers.append(up)
    return nn.Sequential(*layers, *end)


def build(task: Task, activation: Activation = nn.ReLU, sigmoid: bool = True) -> nn.Sequential:
    """Encoder and decoder, seeded globally, with torch's own initial weights.

    A denoiser is narrows' U-Net, with its own weights.
    """
    torch.manual_seed(task.seed)
    if task.network == "denoiser":
        from narrows.denoising.denoiser_model import unet

        return nn.Sequential(*unet(1, (16, 32, 64, 96), 1, torch.Generator().manual_seed(0)))
    return nn.Sequential(encoder(task, activation), decoder(task, activation, sigmoid))


def loss(task: Task, model: nn.Sequential, x: Tensor) -> Tensor:
    """Mean squared error; minus the ELBO of a VAE; mean absolute error of a denoiser."""
    if task.network == "denoiser":
        level = torch.rand((len(x), 1, 1, 1), device=x.device) * (55 / 255)
        y = x + level * torch.randn_like(x)
        return nn.functional.l1_loss(y - model[1](model[0](y, level)), x)
    if task.network == "vae":
        mean, log_variance = model[0](x).float().chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (0.5 * (model[1](z) - x).square().flatten(1).sum(1) + kl).mean()
    return nn.functional.mse_loss(model(x), x)


def noisy(x: Tensor) -> Tensor:
    """Test images with noise, the same for every contender."""
    rng = torch.Generator().manual_seed(0)
    return x + NOISE * torch.randn(x.shape, generator=rng)


@torch.no_grad()
def answer(model: nn.Sequential, task: Task, rows: Tensor) -> NDArray[np.float32]:
    """The model's reconstructions, a thousand rows at a time; a denoiser gets noisy rows."""
    model.eval()
    parts = []
    for x in (noisy(rows) if task.network == "denoiser" else rows).split(1000):
        x = x.to(task.device)
        if task.network == "denoiser":
            out = x - model[1](model[0](x, x.new_full((len(x), 1, 1, 1), NOISE)))
        else:
            out = model[1](model[0](x)[:, : task.latent])
        parts.append(out[:, 0].cpu())
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _linear(widths: list[int], activation: Activation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [activation()] if i else []
        layers.append(nn.Linear(a, b))
    return layers


def _flat(task: Task) -> int:
    return task.channels[-1] * int(np.prod(task.sizes[-1]))


def tensor(rows: Split) -> Tensor:
    """Ready rows with a channel: (n, 1, *shape)."""
    return torch.from_numpy(rows.ready)[:, None]


class TorchContender(Contender):
    """What is common to those that train a torch module: ``task`` and ``net``, and their best."""

    task: Task
    net: nn.Sequential

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        return answer(self.net, self.task, tensor(rows))

    def weights(self) -> Any:
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def restore(self, weights: Any) -> None:
        self.net.load_state_dict(weights)


class Plain(TorchContender):
    """PyTorch without a library."""

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.net = task, build(task).to(task.device)
        rows = TensorDataset(tensor(train))
        pinned = task.device != "cpu"
        self.loader = DataLoader(rows, batch_size=task.batch, shuffle=True, pin_memory=pinned)

    def train(self, watch: Monitor) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=RATE)
        for _ in range(self.task.most_epochs):
            running = 0.0
            for (x,) in self.loader:
                optimizer.zero_grad()
                cost = loss(self.task, self.net, x.to(self.task.device, non_blocking=True))
                cost.backward()
                optimizer.step()
                running += cost.item()
                if watch.over():
                    return
            watch.mark()
