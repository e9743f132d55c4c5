"""The loop of a good engineer: narrow numbers, rows in memory, a fused optimizer, a schedule.

Rows are standardised once and stay on the device; an epoch is one permutation, a batch one
``index_select``. GELU; fused AdamW with betas .9 and .95; the rate is warmed up over the first
twentieth of the training and falls linearly to zero at its end. Nothing is synchronised in a step.
Networks run under bfloat16 autocast where the hardware multiplies it, dense ones on a CPU only if
they are wide enough to gain; convolutions (1.6 times as fast so) have their channels last.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contenders.common import Monitor, Task
from contenders.plain import TorchContender, answer, build, loss, tensor
from sets import Split

RATE, BETAS = 2e-3, (0.9, 0.95)
WARM_UP = 0.05  # of the training
# The first layer's units, and these times the rows of a batch, from which on autocast gained on a
# CPU with AMX: 256 units 0.82 (128 rows) and 1.18 times as fast (512), 512 units 1.08 and 1.85.
WIDE, LARGE = 256, 2**16
UNCHECKED = 50  # steps between two waits for a GPU, whose queue would hide how late it is


class Good(TorchContender):
    """Batches of 128."""

    factor = 1  # of the usual batch; the rate grows with its square root

    def __init__(self, task: Task, train: Split) -> None:
        self.task, self.device = task, torch.device(task.device)
        self.net = build(task, nn.GELU, sigmoid=False).to(self.device)
        dense = task.network in ("dense", "vae")
        first, gains = task.widths[0], True
        if dense and self.device.type == "cpu":
            gains = first >= WIDE and first * self.factor * task.batch >= LARGE
        self.narrow = gains and _multiplies_bfloat16(self.device)
        if not dense:
            self.net = self.net.to(memory_format=torch.channels_last)
        rows = tensor(train)
        denoises = task.network == "denoiser"  # noise has a level on the scale of the pixels
        self.shift, self.scale = (0.0, 1.0) if denoises else (rows.mean(), rows.std())
        self.rows = ((rows - self.shift) / self.scale).to(self.device)

    def _batches(self, watch: Monitor) -> Iterator[tuple[float, Tensor]]:
        """The share of the training that is over, and a batch, until the training has ended."""
        n, size = len(self.rows), self.factor * self.task.batch
        begun, step, steps = watch.elapsed, 0, self.task.most_epochs * -(-n // size)
        rng = torch.Generator(self.device).manual_seed(self.task.seed)
        for _ in range(self.task.most_epochs):
            order = torch.randperm(n, generator=rng, device=self.device)
            for index in order.split(size):
                if self.device.type == "cuda" and step % UNCHECKED == 0:
                    torch.cuda.synchronize()
                if watch.over():
                    return
                timed = self.task.seconds is not None
                spent = (watch.elapsed - begun) / (watch.limit - begun) if timed else step / steps
                yield spent, self.rows.index_select(0, index)
                step += 1
            watch.mark()

    def train(self, watch: Monitor) -> None:
        rate = RATE * self.factor**0.5
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=rate, betas=BETAS, fused=True)
        for spent, x in self._batches(watch):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (spent + 1e-3) / WARM_UP) * max(0.0, 1 - spent)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.narrow):
                cost = loss(self.task, self.net, x)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        out = answer(self.net, self.task, (tensor(rows) - self.shift) / self.scale)
        out = out * float(self.scale) + float(self.shift)
        return out.clip(0, 1) if self.task.bounded else out


class Good512(Good):
    """Batches four times as large, at twice the rate."""

    factor = 4


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # private, and the only way torch tells
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
