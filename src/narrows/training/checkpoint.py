"""All that a run needs to continue with the same bits, as tensors and plain JSON.

In memory, a run goes back to it after a loss that is not a number; in a checkpoint file, it lets a
run continue after it was killed. Both use the same two functions. The names of tensors and numbers
are part of the file format: old checkpoints must load, whatever the attributes are called now.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from narrows.exceptions import FileError
from narrows.training.monitor import Monitor
from narrows.training.train_state import TrainState

Saved = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and plain JSON

COUNTERS = ("step", "epoch", "batch", "first_step", "last_epoch")  # of TrainState


def state_dict(state: TrainState, monitor: Monitor) -> Saved:
    """Everything that the next step depends on, copied: later steps do not change it."""
    tensors = {"rng": state.rng.get_state(), "order": state.order.get_state()}
    if state.epoch_order is not None:
        tensors["order_then"] = state.epoch_order
    if state.global_draws:
        tensors["global"] = torch.get_rng_state()
    for player, optimizer in state.optimizers.items():
        for i, slots in optimizer.state_dict()["state"].items():
            tensors |= _add_prefix(f"optimizer.{player}.{i}", slots)
    for name, module in monitor.modules.items():
        tensors |= _add_prefix(f"last.{name}", module.state_dict())
        tensors |= _add_prefix(f"best.{name}", monitor.best.get(name, {}))
    tensors |= _add_prefix("sum", monitor.sums)
    numbers = {
        **{name: getattr(state, name) for name in COUNTERS},
        "slower": state.lr_backoff,
        "history": list(monitor.history),
        "scores": list(monitor.scores),
        "best_epoch": monitor.best_epoch,
        "steps": monitor.steps,
        "stop_reason": monitor.stop_reason,
        "seconds": monitor.seconds,
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, numbers


def load_state_dict(saved: Saved, state: TrainState, monitor: Monitor) -> None:
    """Put a run back to where ``state_dict`` was taken; its optimizers must have been made."""
    tensors = {name: tensor.clone() for name, tensor in saved[0].items()}
    numbers = saved[1]
    state.rng.set_state(tensors["rng"])
    state.order.set_state(tensors["order"])
    state.epoch_order = tensors.get("order_then")
    if state.global_draws:
        torch.set_rng_state(tensors["global"])
    for player, optimizer in state.optimizers.items():
        _load_optimizer(optimizer, _strip_prefix(f"optimizer.{player}", tensors))
    for name, module in monitor.modules.items():
        module.load_state_dict(_strip_prefix(f"last.{name}", tensors))
        monitor.best[name] = _strip_prefix(f"best.{name}", tensors)
    monitor.sums = _strip_prefix("sum", tensors)
    for name in COUNTERS:
        setattr(state, name, numbers[name])
    state.lr_backoff = numbers["slower"]
    # JSON has no NaN: it is null in a file
    monitor.scores = [math.nan if score is None else score for score in numbers["scores"]]
    monitor.history = [
        {name: math.nan if value is None else value for name, value in entry.items()}
        for entry in numbers["history"]
    ]
    monitor.best_epoch, monitor.steps = numbers["best_epoch"], numbers["steps"]
    monitor.stop_reason = numbers["stop_reason"]


def _load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        i, slot = name.split(".", 1)
        slots.setdefault(int(i), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    # in the parameter's own memory order: the fused step pairs numbers by their place in memory
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)


def load_from_file(saved: Saved, state: TrainState, monitor: Monitor, path: Path | None) -> None:
    """``load_state_dict`` of what was read from a file. Raises FileError if it does not fit."""
    try:
        load_state_dict(saved, state, monitor)
        monitor.started -= float(saved[1]["seconds"])  # the time before the interruption counts
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileError(
            f"{path} holds no run that this model can continue ({error}); "
            "remove the file to start again."
        ) from error


def _add_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
