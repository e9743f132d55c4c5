"""How a trace folds into one loss for each player.

Nearly every model has one player, "model". A regulariser with a critic brings a second: it has
``critic`` (an nn.Module, whose parameters that player owns) and ``own_loss(model, trace)``. A bound
or a term that is for the encoder alone makes f and q a player of their own, "encoder".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import Parameter

from narrows._types import Clock, Trace, Weight, weight_at
from narrows.exceptions import ParameterError
from narrows.parts.bounds import Bound, Mean


@dataclass(frozen=True)
class Term:
    """One named regulariser with its weight, a number or a function of progress.

    ``of`` says in whose loss it stands: "all" (everybody's but a critic's), or where f and q have a
    loss of their own "encoder", or "decoder" (everybody else's).
    """

    name: str
    regularizer: nn.Module
    weight: Weight = 1.0
    of: Literal["all", "encoder", "decoder"] = "all"


class WeightedObjective(nn.Module):
    """bound(trace) + Σ λ R for the player "model", and each critic's own loss for its player."""

    def __init__(self, terms: Sequence[Term] = (), bound: Bound | None = None) -> None:
        super().__init__()
        names = [term.name for term in terms]
        if len(set(names)) < len(names) or {"distance", "model", "encoder"} & set(names):
            raise ParameterError(
                f"The terms of an objective need different names, other than 'distance', 'model' "
                f"and 'encoder'; got {names}."
            )
        self.terms, self.bound = tuple(terms), bound or Mean()
        self.regularizers = nn.ModuleDict({term.name: term.regularizer for term in terms})
        apart = any(term.of != "all" for term in terms)
        self.encoder_apart = apart or self.bound.has_encoder

    def _critics(self) -> dict[str, Any]:
        return {t.name: t.regularizer for t in self.terms if hasattr(t.regularizer, "own_loss")}

    def __call__(self, model: Any, trace: Trace) -> dict[str, Tensor]:
        total = trace.terms["distance"] = self.bound(trace)
        losses = {}
        if self.encoder_apart:
            losses["encoder"] = self.bound.encoder(trace) if self.bound.has_encoder else total
        for term in self.terms:
            value = trace.terms[term.name] = term.regularizer(model, trace)
            weighted = weight_at(term.weight, trace.clock) * value
            total = total if term.of == "encoder" else total + weighted
            if self.encoder_apart and term.of != "decoder":
                losses["encoder"] = losses["encoder"] + weighted
        losses["model"] = total
        for name, critic in self._critics().items():
            losses[name] = critic.own_loss(model, trace)
        return losses

    def players(self, model: nn.Module) -> dict[str, list[Parameter]]:
        """The parameters of each player, no parameter twice."""
        owned = {name: list(c.critic.parameters()) for name, c in self._critics().items()}
        if self.encoder_apart:
            parts: list[Any] = [getattr(model, "f"), getattr(model, "q")]  # noqa: B009
            owned = {"encoder": [p for part in parts for p in part.parameters()], **owned}
        taken = {id(p) for parameters in owned.values() for p in parameters}
        every = [*model.parameters(), *self.parameters()]
        main = {id(p): p for p in every if p.requires_grad and id(p) not in taken}
        return {"model": list(main.values()), **owned}

    def score(self, trace: Trace) -> Tensor:
        """What "best on validation" means: the loss without its critics, at the weights' end."""
        end = Clock(progress=1.0)
        total = self.bound.score(trace)
        for term in self.terms:
            if not hasattr(term.regularizer, "own_loss"):
                total = total + weight_at(term.weight, end) * trace.terms[term.name]
        return total

    @property
    def settled(self) -> float:
        """The progress from which neither a weight nor the bound changes any more."""
        weights: list[Any] = [term.weight for term in self.terms]
        for name in ("capacity", "free"):
            weights += [getattr(term.regularizer, name, None) for term in self.terms]
        moving = [w for w in weights if callable(w)]
        steps = [i / 100 for i in range(100) if any(w(i / 100) != w(1.0) for w in moving)]
        return max([getattr(self.bound, "begin", 0.0), *steps])

    @property
    def settles(self) -> bool:
        """Whether the score tells which model is best; else the last one is."""
        return all(getattr(term.regularizer, "settles", True) for term in self.terms)

    def in_words(self, score: float) -> str:
        """A score as a progress bar shows it."""
        return f"{score:.4g}"
