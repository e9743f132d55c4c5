"""Fitting in the processes that ``n_devices`` asks for: what goes to them and what comes back."""

from __future__ import annotations

import copy
import time
from dataclasses import fields
from typing import Any

import torch

from narrows.estimators.model_file import to_own_device
from narrows.estimators.setup import seed_of
from narrows.exceptions import ParameterError
from narrows.training import launched
from narrows.training.launcher import run_workers
from narrows.training.process_group import all_gather, refuse_devices, world


def wants_workers(estimator: Any) -> bool:
    """Whether this process is to start others, rather than to train in itself."""
    return estimator.n_devices > 1 and world().size == 1 and not launched()


def alone(estimator: Any) -> None:
    """Refuse to start workers for one pass over the data: that takes longer than the pass."""
    if wants_workers(estimator):
        raise ParameterError(
            f"partial_fit trains in the process that calls it, but n_devices is "
            f"{estimator.n_devices}; set it to 1, or start the script with torchrun."
        )


def fit_in_workers(estimator: Any, X: Any, X_val: Any) -> None:
    """``estimator.fit`` in as many processes as it asks for; it then holds what they learned.

    Optimisers stay behind, as in a saved file: a later fit with ``warm_start`` starts new ones.
    """
    started = time.monotonic()
    n = int(estimator.n_devices)
    _check_device(estimator.device, n)
    sent = copy.copy(estimator)
    if hasattr(estimator.random_state, "randint"):
        # drawn here: a RandomState must move on in the hands of its owner, and once
        sent.random_state = seed_of(estimator.random_state)
    learned = run_workers(n, _fit, sent, X, X_val)
    given = {item.name for item in fields(estimator)}
    vars(estimator).pop("versions_", None)
    vars(estimator).update({k: v for k, v in learned.items() if k not in given})
    to_own_device(estimator)
    estimator.fit_seconds_ = time.monotonic() - started


def same_checkpoint(found: Any) -> None:
    """Refuse a checkpoint that only some processes see: the others would start afresh."""
    if len({path is None for path in all_gather(found)}) > 1:
        raise ParameterError(
            "Only some processes of this run see the checkpoint to go on from; put it where all of "
            "them do."
        )


def _fit(estimator: Any, X: Any, X_val: Any) -> dict[str, Any]:
    """In a worker: all of them learn the same, and the first one's is taken."""
    estimator.fit(X, X_val=X_val)
    state: dict[str, Any] = estimator.__getstate__()
    return state


def _check_device(asked: str, n: int) -> None:
    if asked.startswith("cuda:"):
        raise ParameterError(
            f"device={asked!r} is one device, but n_devices is {n}; give device='cuda' and choose "
            "which with CUDA_VISIBLE_DEVICES."
        )
    wanted = asked == "cuda" or (asked == "auto" and torch.cuda.is_available())
    if wanted and torch.cuda.device_count() < n:
        refuse_devices(n)
