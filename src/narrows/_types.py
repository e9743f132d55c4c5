"""The types that all rooms share: Trace, Node, Clock, Sizes, Weight and the Objective protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Parameter


@dataclass(frozen=True, slots=True)
class Clock:
    """The step, the progress of training in [0, 1] and the number of training rows.

    Evaluation always uses ``progress=1``, so that a score does not depend on the schedules of the
    weights.
    """

    step: int = 0
    progress: float = 1.0
    n_rows: int = 1


# A weight is a number, or a function of the clock's progress.
Weight = float | Callable[[float], float]


def weight_at(weight: Weight, clock: Clock) -> float:
    """The value of ``weight`` now."""
    return weight(clock.progress) if callable(weight) else weight


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a part may need to know to make its parameters: the shapes of x and z, and classes."""

    shape: tuple[int, ...]  # (d,), (C, L) or (C, H, W)
    latent_dim: int
    n_classes: int = 0  # of the labels that a class-conditional model is given


@dataclass(slots=True)
class Node:
    """One latent variable of one pass.

    ``z`` is (K, B, ...); ``log_q`` and ``log_p`` are (K, B) or None where they have no meaning (a
    point has no density); ``kl`` is (B,), the closed form where one exists; ``loss`` is (B,), the
    latent's own loss (a codebook's commitment); ``extras`` holds what regularisers read.
    """

    z: Tensor
    log_q: Tensor | None = None
    log_p: Tensor | None = None
    kl: Tensor | None = None
    loss: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """All that one pass produced.

    ``x`` is (B, ...), in scaled units; ``corrupted`` is c(x); ``mask`` is 1 where x counts (None:
    everywhere); ``nodes`` the latent variables; ``output`` g's output, (K, B, ...); ``distance``
    D(x, g(z)) in nats, summed over the event, (K, B); ``rng`` what regularisers draw from;
    ``terms`` each named term of the objective.
    """

    x: Tensor
    corrupted: Tensor
    mask: Tensor | None
    nodes: list[Node]
    output: Tensor
    distance: Tensor
    clock: Clock
    rng: Generator
    terms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def z(self) -> Tensor:
        """The code of a model with one node, (K, B, ...)."""
        return self.nodes[0].z


class Objective(Protocol):
    """(model, trace) → one scalar loss for each player."""

    def __call__(self, model: Any, trace: Trace) -> dict[str, Tensor]:
        """The losses; also fills ``trace.terms``."""

    def players(self, model: Any) -> Mapping[str, list[Parameter]]:
        """Which parameters each player owns, no parameter twice."""
