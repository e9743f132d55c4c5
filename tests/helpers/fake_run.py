"""A run to listen to, without the training."""

from __future__ import annotations

from typing import Any

from narrows.training.listeners import Listeners

ABOUT = {"model": "Autoencoder", "parameters": {"latent_dim": 2}, "seed": 0, "epoch": 0}
SUMMARY = {"stop_reason": "enough", "best_epoch": 2, "best_score": 0.5, "seconds": 1.0}


def entry(epoch: int, loss: float = 0.5) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "seconds": 0.1, "loss": loss, "validation": loss}


def follow(listener: Any, epochs: range = range(1, 3), after: int = 0) -> bool:
    """One run; whether any epoch asked to stop."""
    listeners = Listeners(listener)
    with listeners.following({**ABOUT, "epoch": after}) as summary:
        asked = [listeners.on_epoch(entry(epoch, 1 / epoch)) for epoch in epochs]
        summary.update(SUMMARY)
    return any(asked)
