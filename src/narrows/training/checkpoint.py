"""All that a run needs to continue with the same bits, as tensors and plain JSON.

In memory, a run goes back to it after a loss that is not a number; in a checkpoint file, it lets a
run continue after it was killed. Both use the same two functions. The names of tensors and numbers
are part of the file format: old checkpoints must load, whatever the attributes are called now.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from narrows.exceptions import FileError, in_one_line
from narrows.training.monitor import Monitor
from narrows.training.train_state import TrainState, Trial

Saved = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and plain JSON

COUNTERS = ("step", "epoch", "batch", "first_step", "last_epoch")  # of TrainState

# Rules of what a header holds (see `find_fault` in estimators/parameters.py): how a fit went, ...
COUNT = {"kind": int, "low": 0, "high": 2**53}
TEXT = {"kind": str, "most": 2000}
SECONDS = {"kind": float, "low": 0}
SCORE = {"kind": float, "none": True}  # JSON has no NaN: it is null
MAX_EPOCHS = 2**20  # of which a file keeps the history
EPOCHS = {"each": {"each": SCORE, "named": True, "most": 64}, "most": MAX_EPOCHS}
SCORES = {"each": SCORE, "most": MAX_EPOCHS + 1}
# ... and the state of a run in a checkpoint
PHASES = ("first", "second", "over")  # of a Trial
MARK = {
    "fields": {
        "n": COUNT,
        "dtype": TEXT,
        "sha256": TEXT,
        "streamed": {"kind": bool},
        "whole": {**TEXT, "none": True},
    },
    "optional": {"whole"},  # older files do not have it
    "none": True,
}
Marks = list[dict[str, Any] | None]
MARKS = {"each": MARK, "most": 3}  # of X, X_val and, where there are some, the classes
RUN = {
    "fields": {
        "numbers": {
            "fields": {
                **dict.fromkeys((*COUNTERS, "best_epoch", "steps"), COUNT),
                "slower": {"kind": float, "low": 1e-9, "high": 1},
                "history": EPOCHS,
                "scores": SCORES,
                "stop_reason": TEXT,
                "seconds": SECONDS,
                "cooldown": {"each": COUNT, "most": 2},
                "trial": {
                    "fields": {
                        "phase": {"kind": str, "choices": PHASES},
                        **dict.fromkeys(("step", "epoch"), COUNT),
                        "progress": {"kind": float, "low": 0, "high": 1},
                        "score": {"kind": float},
                    }
                },
            },
            "optional": {"trial", "cooldown"},  # older files do not have it
        },
        "seed": {"kind": int, "low": 0, "high": 2**63 - 1},
        "mark": MARKS,
        "threads": {**COUNT, "low": 1},
    }
}
SLOTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter
_KNOWN = re.compile(
    r"rng|order|order_then|global|sum\.[^.]+|(first\.last|last|best)\.(model|objective)\..+|"
    rf"(first\.)?optimizer\.\w+\.\d+\.({'|'.join(SLOTS)})"
)


def refuse_unknown(tensors: dict[str, Tensor], run: dict[str, Tensor]) -> None:
    """Raise ValueError for a tensor of a run that none has, or that is not like the model's."""
    for name, tensor in run.items():
        if not _KNOWN.fullmatch(name):
            raise ValueError(f"no run has a tensor called {name[:50]!r}")
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ValueError(f"{name} holds NaN")
        if name.startswith("sum.") and (tensor.numel() != 1 or not tensor.is_floating_point()):
            raise ValueError(f"{name} is no number")
        if name.endswith(("exp_avg_sq", ".step")) and bool((tensor < 0).any()):
            raise ValueError(f"{name} is below 0")
        place = name.removeprefix("first.")
        if place.startswith(("last.", "best.")):
            own = tensors[place.split(".", 1)[1]]
            if (own.shape, own.dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(f"{name} has another shape or dtype than the model's tensor")


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
    trial = dict(vars(state.trial))
    tensors |= _add_prefix("first", trial.pop("kept"))
    numbers = {
        **{name: vars(state)[name] for name in COUNTERS},
        "slower": state.lr_backoff,
        "cooldown": list(state.cooldown or ()),
        "history": list(monitor.history),
        "scores": list(monitor.scores),
        "best_epoch": monitor.best_epoch,
        "steps": monitor.steps,
        "stop_reason": monitor.stop_reason,
        "seconds": monitor.seconds,
        "trial": trial,
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, numbers


def load_state_dict(saved: Saved, state: TrainState, monitor: Monitor) -> None:
    """Put a run back to where ``state_dict`` was taken; its optimizers must have been made."""
    tensors = {name: tensor.clone() for name, tensor in saved[0].items()}
    numbers = saved[1]
    load_weights(tensors, state, monitor)
    state.rng.set_state(tensors["rng"])
    state.order.set_state(tensors["order"])
    state.epoch_order = tensors.get("order_then")
    if state.epoch_order is not None:
        torch.Generator().set_state(state.epoch_order)  # raises now if it is damaged
    if state.global_draws:
        torch.set_rng_state(tensors["global"])
    for name, module in monitor.modules.items():
        monitor.best[name] = _strip_prefix(f"best.{name}", tensors)
        if monitor.best[name].keys() != module.state_dict().keys():
            raise ValueError(f"its best {name} is not whole")
    monitor.sums = _strip_prefix("sum", tensors)
    for name in COUNTERS:
        setattr(state, name, numbers[name])
    state.lr_backoff = numbers["slower"]
    epochs = numbers.get("cooldown", [])
    state.cooldown = (epochs[0], epochs[1]) if epochs else None
    # JSON has no NaN: it is null in a file
    monitor.scores = [math.nan if score is None else score for score in numbers["scores"]]
    monitor.history = [
        {name: math.nan if value is None else value for name, value in entry.items()}
        for entry in numbers["history"]
    ]
    monitor.best_epoch, monitor.steps = numbers["best_epoch"], numbers["steps"]
    monitor.stop_reason = numbers["stop_reason"]
    state.trial = Trial(**numbers.get("trial", {}), kept=_strip_prefix("first", tensors))


def weights(state: TrainState, monitor: Monitor) -> dict[str, Tensor]:
    """The weights now, and the state of their optimizers, copied."""
    kept = state_dict(state, monitor)[0].items()
    return {name: tensor for name, tensor in kept if name.startswith(("last.", "optimizer."))}


def load_weights(tensors: dict[str, Tensor], state: TrainState, monitor: Monitor) -> None:
    """Put back what ``weights`` returned."""
    for player, optimizer in state.optimizers.items():
        _load_optimizer(optimizer, _strip_prefix(f"optimizer.{player}", tensors))
    for name, module in monitor.modules.items():
        module.load_state_dict(_strip_prefix(f"last.{name}", tensors))


def _load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        i, slot = name.split(".", 1)
        slots.setdefault(int(i), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    # in the parameter's own memory order: the fused step pairs numbers by their place in memory
    for parameter, values in optimizer.state.items():
        if values.keys() != set(SLOTS):
            raise ValueError("the state of its optimizer is not that of AdamW")
        for name, value in values.items():
            if name == "step" and value.numel() == 1:
                continue
            if value.shape != parameter.shape:
                raise ValueError(f"{name} of a parameter has the shape {tuple(value.shape)}")
            values[name] = torch.empty_like(parameter).copy_(value)


def load_from_file(
    saved: Saved,
    state: TrainState,
    monitor: Monitor,
    path: Path | None,
    n_batches: int,
    max_epochs: int,
) -> None:
    """``load_state_dict`` of what was read from a file, of a run of ``max_epochs`` epochs.

    ``n_batches`` are those of an epoch. Raises FileError if what was read does not fit.
    """
    tensors, numbers = saved
    try:
        epochs, batch = numbers["epoch"] - numbers["last_epoch"] + max_epochs, numbers["batch"]
        steps, closed = numbers["step"] - numbers["first_step"], len(numbers["history"])
        counted = 0 <= epochs <= max_epochs and numbers["steps"] <= batch < n_batches
        if not (counted and steps == epochs * n_batches + batch and closed - epochs in (0, 1)):
            raise ValueError("its counters contradict each other")
        if not len(numbers["scores"]) == closed + 1 > numbers["best_epoch"]:
            raise ValueError("its history and its scores differ in length")
        if bool(numbers["steps"]) != ("sum.loss" in tensors) or (
            batch and "order_then" not in tensors
        ):
            raise ValueError("it lacks the state of its last epoch")
        cooldown = numbers.get("cooldown")
        if cooldown and not (
            len(cooldown) == 2
            and cooldown[0] <= numbers["epoch"]
            and cooldown[0] < cooldown[1] <= numbers["last_epoch"]
        ):
            raise ValueError("its cooldown is not within the run")
        load_state_dict(saved, state, monitor)
        present = state_dict(state, monitor)[0]
        if present.keys() != tensors.keys():
            raise ValueError(
                f"its tensors are not those of a run: {present.keys() ^ tensors.keys()}"
            )
        monitor.started -= numbers["seconds"]  # the time before the interruption counts
    except Exception as error:  # whatever a forged file makes torch raise
        raise FileError(
            f"{path} holds no run that this model can continue ({in_one_line(error)}); "
            "remove the file to start again."
        ) from error


def _add_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
