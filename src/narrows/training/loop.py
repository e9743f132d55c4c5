"""THE loop. It knows a model that makes a trace, an objective that makes losses, and a clock.

``train`` is a generator: progress, validation, early stopping and checkpoints consume its records
from outside (see ``watching``), and nothing else reaches into a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from narrows._types import Clock, Objective
from narrows.training.batches import Rows, n_batches
from narrows.training.optimizer import make_optimizers
from narrows.training.process_group import agree, average, world
from narrows.training.streamed_batches import Stream


@dataclass(frozen=True)
class TrainConfig:
    """How steps are taken: AdamW (Loshchilov & Hutter 2017), its rate warmed up, then kept for
    the share ``hold`` of the run, and then lowered to zero along a line.
    """

    learning_rate: float
    weight_decay: float
    batch_size: int
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 200
    hold: float = 0.5
    constant: bool = False  # partial_fit: no end is known, so there is no schedule
    precision: str = "float32"  # or "bfloat16": products only; weights and sums stay float32

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of one step."""
        warm = (step + 1) / self.warmup_steps
        if self.constant:
            return self.learning_rate * min(1.0, warm)
        # whichever comes first: a short budget must not spend itself on warming up
        warm = min(1.0, max(warm, progress / 0.1))
        return self.learning_rate * min(warm, (1.0 - progress) / (1.0 - self.hold))


@dataclass
class Budget:
    """How long to train; progress is the larger of the shares of epochs and of time used."""

    max_epochs: int
    max_time: float | None = None
    started: float = field(default_factory=time.monotonic)

    def progress(self, epochs: float) -> float:
        """In [0, 1]."""
        share = epochs / self.max_epochs if self.max_epochs else 1.0
        if self.max_time is not None:
            elapsed, _ = agree(time.monotonic() - self.started)
            share = max(share, elapsed / self.max_time)
        return min(1.0, share)


@dataclass
class TrainState:
    """What a later call needs to go on where this one stopped, in the middle of an epoch too."""

    rng: Generator  # every draw inside a step, on the model's device
    order: Generator  # the order of the rows, on the CPU
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches done of the epoch under way
    order_then: Tensor | None = None  # the state of ``order`` when that epoch began
    first_step: int = 0  # of the run under way
    last_epoch: int | None = None  # of the run under way; None before it
    slower: float = 1.0  # times every step size: after a loss that was no number
    global_draws: bool = False  # the user's own layers draw from torch's global generator

    def begin(self, max_epochs: int) -> None:
        """A new run of so many epochs, from whatever was learned before."""
        self.batch, self.slower = 0, 1.0
        self.first_step, self.last_epoch = self.step, self.epoch + max_epochs

    @property
    def finished(self) -> bool:
        """Whether the run under way has used its epochs."""
        return self.last_epoch is not None and self.epoch >= self.last_epoch

    def draw_order(self) -> Generator:
        """The generator to draw an epoch's order from: again the same where it was broken off."""
        if self.batch and self.order_then is not None:
            self.order.set_state(self.order_then)
        else:
            self.order_then = self.order.get_state()
        return self.order


@dataclass(frozen=True)
class StepRecord:
    """One step, as the loop reports it. Its tensors are on the device: reading one waits for it."""

    step: int
    epochs: float  # passes over the data so far, in parts
    progress: float
    learning_rate: float
    terms: Mapping[str, Tensor]
    losses: Mapping[str, Tensor]
    end_of_epoch: bool


def step_players(
    losses: Mapping[str, Tensor],
    players: Mapping[str, list[Parameter]],
    optimizers: Mapping[str, torch.optim.Optimizer],
    between: Callable[[], None] = lambda: None,
) -> None:
    """One step of every player in ``losses``, none of whom sees another's gradient.

    ``between`` is called when all gradients are there and nobody has moved yet.
    """
    last = list(losses)[-1]
    for name in losses:
        optimizers[name].zero_grad(set_to_none=True)
    for name, loss in losses.items():
        # inputs=: a plain backward() would add this loss's gradient to the other players' too
        loss.backward(inputs=players[name], retain_graph=name != last)
    between()
    for name in losses:
        optimizers[name].step()


def train(
    model: Any,
    objective: Objective,
    rows: Rows | Stream,
    recipe: TrainConfig,
    budget: Budget,
    state: TrainState,
) -> Iterator[StepRecord]:
    """Train until the budget is used; yield one record a step."""
    followers = [part for part in model.modules() if hasattr(part, "after_step")]
    players = objective.players(model)
    state.optimizers = state.optimizers or make_optimizers(players, recipe)
    if state.last_epoch is None:
        state.begin(budget.max_epochs)
    steps_per_epoch = n_batches(len(rows), recipe.batch_size)
    share = (world().rank, world().size)
    while not state.finished:
        order, skip = state.draw_order(), state.batch
        for x in rows.shuffled(recipe.batch_size, order, skip=skip, share=share):
            # a step stands for its middle: the first is not at nothing, the last not at zero rate
            done = state.step - state.first_step
            progress = budget.progress((done + 0.5) / steps_per_epoch)
            rate = recipe.rate(state.step if recipe.constant else done, progress) * state.slower
            clock = Clock(state.step, progress, len(rows))
            for optimizer in state.optimizers.values():
                for group in optimizer.param_groups:
                    group.update(lr=rate * group["pace"], weight_decay=recipe.weight_decay)
            trace, losses = _step(model, objective, x, clock, players, state, recipe, followers)
            state.step, state.batch = state.step + 1, state.batch + 1
            end = state.batch == steps_per_epoch
            if end:
                state.epoch, state.batch = state.epoch + 1, 0
            epochs = (done + 1) / steps_per_epoch
            yield StepRecord(state.step, epochs, progress, rate, trace.terms, losses, end)
            if budget.max_time is not None and budget.progress(epochs) >= 1.0:
                return


@torch.enable_grad()  # whatever mode the caller is in
def _step(
    model: Any,
    objective: Objective,
    x: Tensor,
    clock: Clock,
    players: Mapping[str, list[Parameter]],
    state: TrainState,
    recipe: TrainConfig,
    followers: list[Any],
) -> tuple[Any, dict[str, Tensor]]:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        trace = model(x, clock, state.rng)
    losses = objective(model, trace)
    together = partial(average, players, losses, trace.terms, len(x))
    step_players(losses, players, state.optimizers, between=together)
    for part in followers:
        part.after_step(trace)
    return trace, losses
