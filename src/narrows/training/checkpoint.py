"""All that a run needs to go on with the same bits, as tensors and plain JSON.

In memory it is what a run goes back to after a loss that was no number; in a file it is what makes
a run survive being killed. Both are written and read by the same two functions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from narrows.exceptions import FileError
from narrows.training.loop import TrainState
from narrows.training.monitor import Monitor

Saved = tuple[dict[str, Tensor], dict[str, Any]]
COUNTERS = ("step", "epoch", "batch", "first_step", "last_epoch", "slower")


def pack(state: TrainState, watch: Monitor) -> Saved:
    """Everything that the next step depends on, copied: later steps do not change it."""
    tensors = {"rng": state.rng.get_state(), "order": state.order.get_state()}
    if state.order_then is not None:
        tensors["order_then"] = state.order_then
    if state.global_draws:
        tensors["global"] = torch.get_rng_state()
    for player, optimizer in state.optimizers.items():
        for i, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{player}.{i}.{slot}": value for slot, value in slots.items()}
    for module in watch.modules:
        tensors |= _named(f"last.{module}", watch.modules[module].state_dict())
        tensors |= _named(f"best.{module}", watch.best.get(module, {}))
    tensors |= _named("sum", watch.sums)
    numbers = {
        **{name: getattr(state, name) for name in COUNTERS},
        **{name: list(getattr(watch, name)) for name in ("history", "scores")},
        "best_epoch": watch.best_epoch,
        "steps": watch.steps,
        "stop_reason": watch.stop_reason,
        "seconds": watch.seconds,
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, numbers


def unpack(saved: Saved, state: TrainState, watch: Monitor) -> None:
    """Put a run back to where ``pack`` found it; its optimisers must have been made."""
    tensors = {name: tensor.clone() for name, tensor in saved[0].items()}
    numbers = saved[1]
    state.rng.set_state(tensors["rng"])
    state.order.set_state(tensors["order"])
    state.order_then = tensors.get("order_then")
    if state.global_draws:
        torch.set_rng_state(tensors["global"])
    for player, optimizer in state.optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(f"optimizer.{player}", tensors).items():
            i, slot = name.split(".", 1)
            slots.setdefault(int(i), {})[slot] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
        _lay_out(optimizer)
    for module in watch.modules:
        watch.modules[module].load_state_dict(_under(f"last.{module}", tensors))
        watch.best[module] = _under(f"best.{module}", tensors)
    watch.sums = _under("sum", tensors)
    for name in COUNTERS:
        setattr(state, name, numbers[name])
    # JSON has no word for what is no number
    watch.scores = [math.nan if score is None else score for score in numbers["scores"]]
    watch.history = [
        {name: math.nan if value is None else value for name, value in entry.items()}
        for entry in numbers["history"]
    ]
    watch.best_epoch, watch.steps = numbers["best_epoch"], numbers["steps"]
    watch.stop_reason = numbers["stop_reason"]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give each slot its parameter's order in memory: fused steps pair numbers by place."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter).copy_(value)


def restored(saved: Saved, state: TrainState, watch: Monitor, path: Any) -> None:
    """``unpack`` what came from a file, whose content may be of any kind."""
    try:
        unpack(saved, state, watch)
        watch.started -= float(saved[1]["seconds"])  # the run began so long before
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileError(
            f"{path} holds no run that can go on here ({error}); remove it to start afresh."
        ) from error


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
