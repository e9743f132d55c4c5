"""What the loop is given and what it changes: configuration, budget, state and records."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from narrows.training.process_group import Group


@dataclass(frozen=True)
class TrainConfig:
    """How steps are taken: AdamW (Loshchilov & Hutter 2017) and its learning rate schedule.

    The rate rises over ``warmup_steps``, stays until ``hold_fraction`` of the run is done, and
    then falls linearly to zero.
    """

    learning_rate: float
    weight_decay: float
    batch_size: int
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 200
    hold_fraction: float = 0.5
    constant: bool = False  # partial_fit: the end is not known, so the rate never falls
    precision: str = "float32"  # or "bfloat16": products only; weights and sums stay float32

    def rate(self, step: int, progress: float, begun: float = 0.0) -> float:
        """The learning rate of one step; ``progress`` is in [0, 1].

        ``step`` counts from the start of the networks, which was at progress ``begun``.
        """
        warmup = (step + 1) / self.warmup_steps
        if self.constant:
            return self.learning_rate * min(1.0, warmup)
        # done after a tenth of the run at the latest: a short run must not only warm up
        warmup = min(1.0, max(warmup, (progress - begun) / 0.1))
        return self.learning_rate * min(warmup, (1.0 - progress) / (1.0 - self.hold_fraction))


@dataclass
class Budget:
    """How long to train: a number of epochs and, if given, a number of seconds."""

    max_epochs: int
    max_time: float | None = None
    started: float = field(default_factory=time.monotonic)

    def progress(self, epochs: float, group: Group) -> float:
        """The larger of the shares of epochs and of time used, in [0, 1]; the same in all ranks."""
        share = epochs / self.max_epochs if self.max_epochs else 1.0
        if self.max_time is not None:
            used, _ = group.all_reduce_stop((time.monotonic() - self.started) / self.max_time)
            share = max(share, used)
        return min(1.0, share)

    def from_now(self) -> Budget:
        """What is left of the time: the schedule of the learning rate begins with the loop."""
        now = time.monotonic()
        used = now - self.started
        left = None if self.max_time is None else max(1e-9, self.max_time - used)
        return Budget(self.max_epochs, left, now)


@dataclass
class Trial:
    """Where a run stands with the second start of its networks (see ``second_start``)."""

    phase: str = "over"  # "first": not judged yet; "second": under trial; "over"
    step: int = 0  # steps of the run, progress and epochs when the current start began
    progress: float = 0.0
    epoch: int = 0
    score: float = 0.0  # of the first start, put aside
    kept: dict[str, Tensor] = field(default_factory=dict)  # its weights and optimizers


@dataclass
class TrainState:
    """All that the loop changes besides the weights: a later call continues from it exactly."""

    rng: Generator  # every draw inside a step, on the model's device
    order: Generator  # the order of the rows, on the CPU
    optimizers: dict[str, Optimizer] = field(default_factory=dict)  # by player
    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches done in the current epoch
    epoch_order: Tensor | None = None  # the state of ``order`` when the current epoch began
    first_step: int = 0  # of the current run
    last_epoch: int | None = None  # of the current run; None before the first
    cooldown: tuple[int, int] | None = None  # the epochs in which the rate falls to zero early
    lr_backoff: float = 1.0  # factor of every learning rate; below 1 after a loss became NaN
    trial: Trial = field(default_factory=Trial)
    global_draws: bool = False  # the user's own layers draw from torch's global generator

    def begin(self, max_epochs: int) -> None:
        """Start a new run of ``max_epochs`` epochs from what was learned before."""
        self.batch, self.lr_backoff, self.trial, self.cooldown = 0, 1.0, Trial(), None
        self.first_step, self.last_epoch = self.step, self.epoch + max_epochs

    @property
    def finished(self) -> bool:
        """Whether the current run has used its epochs."""
        last = self.last_epoch if self.cooldown is None else self.cooldown[1]
        return last is not None and self.epoch >= last

    def rate_factor(self, steps_per_epoch: int) -> float:
        """What the next step's learning rate is multiplied by: 1, but for a cooldown or NaN."""
        if self.cooldown is None:
            return self.lr_backoff
        first, last = self.cooldown
        done = self.epoch + (self.batch + 0.5) / steps_per_epoch
        return self.lr_backoff * (last - done) / (last - first)

    def draw_order(self) -> Generator:
        """The generator for the current epoch's order: the same again if it was interrupted."""
        if self.batch and self.epoch_order is not None:
            self.order.set_state(self.epoch_order)
        else:
            self.epoch_order = self.order.get_state()
        return self.order


@dataclass(frozen=True)
class StepRecord:
    """What one step did. Its tensors are on the device: reading one waits for it."""

    step: int
    epochs: float  # passes over the data so far, with fractions
    progress: float
    learning_rate: float
    terms: Mapping[str, Tensor]
    losses: Mapping[str, Tensor]
    end_of_epoch: bool


class AdamW(torch.optim.AdamW):
    """torch's AdamW without the wrappers of its methods, which only torch.compile needs.

    At the first call they import torch._dynamo and sympy, which takes most of a second.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def make_optimizers(
    players: Mapping[str, list[Parameter]],
    config: TrainConfig,
    lr_multipliers: Mapping[Parameter, float] | None = None,
) -> dict[str, Optimizer]:
    """One AdamW a player, with a parameter group for each of ``lr_multipliers`` (default: 1)."""
    multipliers = lr_multipliers or {}
    made: dict[str, Optimizer] = {}
    for name, parameters in players.items():
        groups: dict[float, list[Parameter]] = {}
        for parameter in parameters:
            groups.setdefault(multipliers.get(parameter, 1.0), []).append(parameter)
        made[name] = AdamW(
            [{"params": members, "lr_multiplier": factor} for factor, members in groups.items()],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,  # one kernel for all parameters; the same bits on any number of them
        )
    return made
