"""The contract of a regulariser R: (model, trace) → nats, averaged over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from narrows._types import Trace, Weight
from narrows.parts import Composition, Part


class Regularizer(Part):
    """R. A subclass gives ``forward``.

    Attributes
    ----------
    needs : frozenset of str
        What it reads: "density" (q has log q), "prior" (there is a p), "gaussian" (μ and log σ² of
        a ``DiagonalGaussian``), "smooth" (codes with a gradient).
    any_bound : bool
        Whether it has a meaning with an importance-weighted bound, because it does not depend on
        which draws of a code weigh most.
    settles : bool
        Whether validation without this term still shows which model is best. False where the term
        is the purpose of the model.
    compares_rows : bool
        Whether it compares the rows of a batch with each other. Batches of validation rows are then
        as large as those of training, so that the score and the loss are of the same kind.
    has_critic : bool
        Whether ``critic`` and ``own_loss`` exist: the critic is then a player of its own.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    any_bound: ClassVar[bool] = False
    settles: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = False
    has_critic: ClassVar[bool] = False
    critic: nn.Sequential  # only where has_critic

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        """The term in the loss of the model.

        Parameters
        ----------
        model : Composition
        trace : Trace
            All that the pass through the model produced.

        Returns
        -------
        Tensor of shape (), nats
        """
        raise NotImplementedError

    def own_loss(self, model: Composition, trace: Trace) -> Tensor:
        """The loss of the critic, (); only where ``has_critic``."""
        raise NotImplementedError

    def schedules(self) -> tuple[Weight | None, ...]:
        """Its numbers, other than its weight, that may depend on progress."""
        return ()


@dataclass(frozen=True)
class Ramp:
    """A weight, or nats, that changes linearly from ``start`` to ``end``, then stays.

    Parameters
    ----------
    end : float
    share : float
        Share of the training over which it changes.
    start : float
    """

    end: float
    share: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        done = min(1.0, progress / self.share) if self.share else 1.0
        return self.start + (self.end - self.start) * done
