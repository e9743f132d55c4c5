"""AdamW for each player, and how fast each of its parameters learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

if TYPE_CHECKING:
    from narrows.training.loop import TrainConfig

Pace = Callable[[Parameter], float]  # how fast a parameter learns, times the rate


class LeanAdamW(torch.optim.AdamW):
    """torch's fused AdamW to the bit, without what stands around it on a CPU.

    Gathering tensors and what profilers ask for take a part of the time of a small step.
    (Loshchilov & Hutter 2017, arXiv:1711.05101.)
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; torch's own on other devices, and where it still has to make its sums."""
        moving = [[p for p in g["params"] if p.grad is not None] for g in self.param_groups]
        known = all(p.is_cpu and p in self.state for group in moving for p in group)
        if closure is not None or not known:
            return super().step(closure)
        for group, parameters in zip(self.param_groups, moving, strict=True):
            if not parameters:
                continue
            sums = [self.state[p] for p in parameters]
            steps = [one["step"] for one in sums]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(  # what torch.optim.AdamW calls in the end
                parameters,
                [p.grad for p in parameters],
                [one["exp_avg"] for one in sums],
                [one["exp_avg_sq"] for one in sums],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def make_optimizers(
    players: Mapping[str, list[Parameter]], recipe: TrainConfig, pace: Pace = lambda parameter: 1.0
) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for each player, with a group for each pace."""
    return {
        name: LeanAdamW(
            _groups(parameters, pace),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        for name, parameters in players.items()
    }


def _groups(parameters: list[Parameter], pace: Pace) -> list[dict[str, Any]]:
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(pace(parameter), []).append(parameter)
    return [{"params": members, "pace": times} for times, members in groups.items()]
