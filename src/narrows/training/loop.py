"""THE loop. It knows a model that makes a trace, an objective that makes losses, and a clock.

``train`` is a generator that yields one record a step. Progress, validation, early stopping and
checkpoints consume the records outside (see ``monitor``); nothing else reaches into a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from narrows._types import Clock, Objective, Trace
from narrows.training.batches import Rows, n_batches
from narrows.training.patches import Patches
from narrows.training.process_group import Group
from narrows.training.streamed_batches import Stream
from narrows.training.train_state import (
    Budget,
    StepRecord,
    TrainConfig,
    TrainState,
    make_optimizers,
)


@runtime_checkable
class UpdatedAfterStep(Protocol):
    """A part of a model that updates itself after every step: codebook averages."""

    def after_step(self, trace: Trace) -> None:
        """Called with the trace of the step, after the optimizers have moved the weights."""


def step_players(
    losses: Mapping[str, Tensor],
    players: Mapping[str, list[Parameter]],
    optimizers: Mapping[str, Optimizer],
    after_backward: Callable[[], None] = lambda: None,
) -> None:
    """One step of every player in ``losses``; no player gets another's gradient.

    ``after_backward`` is called after all backward passes, before any optimizer step.
    """
    last = list(losses)[-1]
    for name in losses:
        for parameter in players[name]:
            parameter.grad = None  # as optimizer.zero_grad(), at a tenth of its time
    for name, loss in losses.items():
        # inputs=: a plain backward() would add this loss's gradient to the other players' too
        loss.backward(inputs=players[name], retain_graph=name != last)
    after_backward()
    for name in losses:
        optimizers[name].step()


def train(
    model: nn.Module,
    objective: Objective,
    rows: Rows | Stream | Patches,
    config: TrainConfig,
    budget: Budget,
    state: TrainState,
    group: Group,
) -> Iterator[StepRecord]:
    """Train until the budget is used; yield one record a step.

    Parameters
    ----------
    model : module
        ``model(x, clock, rng)`` returns a Trace.
    objective : Objective
        ``objective(model, trace)`` returns a loss for each player, the first named "model".
    rows : Rows, Stream or anything with ``shuffled`` and a length
    state : TrainState
        Changed in place; a later call with the same state continues the run, in the middle of an
        epoch too.
    group : Group
        Of processes, each of which computes its share of every batch.
    """
    updated = [part for part in model.modules() if isinstance(part, UpdatedAfterStep)]
    players = objective.players(model)
    state.optimizers = state.optimizers or make_optimizers(players, config)
    if state.last_epoch is None:
        state.begin(budget.max_epochs)
    decay = config.weight_decay
    steps_per_epoch = n_batches(len(rows), config.batch_size)

    @torch.enable_grad()  # the caller may be in no_grad
    def take_step(x: Tensor, clock: Clock) -> tuple[Trace, dict[str, Tensor]]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            trace = model(x, clock, state.rng)
        losses = objective(model, trace)
        average = partial(group.average, players, losses, trace.terms, len(x))
        step_players(losses, players, state.optimizers, after_backward=average)
        for part in updated:
            part.after_step(trace)
        return trace, losses

    while not state.finished:
        order, skip = state.draw_order(), state.batch
        for x in rows.shuffled(config.batch_size, order, skip=skip, share=group.share):
            # progress in the middle of the step: 0 at the first or 1 at the last would waste it
            done = state.step - state.first_step
            progress = budget.progress((done + 0.5) / steps_per_epoch, group)
            steps = state.step if config.constant else done - state.trial.step
            rate = config.rate(steps, progress, state.trial.progress)
            rate *= state.rate_factor(steps_per_epoch)
            for optimizer in state.optimizers.values():
                for entry in optimizer.param_groups:
                    times = entry["lr_multiplier"]
                    # AdamW shrinks by lr × decay: a larger rate is not to shrink a matrix more
                    entry["lr"], entry["weight_decay"] = rate * times, decay / max(1.0, times)
            trace, losses = take_step(x, Clock(state.step, progress, len(rows)))
            state.step, state.batch = state.step + 1, state.batch + 1
            end_of_epoch = state.batch == steps_per_epoch
            if end_of_epoch:
                state.epoch, state.batch = state.epoch + 1, 0
            epochs = (done + 1) / steps_per_epoch
            yield StepRecord(state.step, epochs, progress, rate, trace.terms, losses, end_of_epoch)
            if budget.max_time is not None and budget.progress(epochs, group) >= 1.0:
                return
