"""The loss of a model: bound + Σ λ R for each player, and which parts can be combined.

Nearly every model has one player, "model". A regulariser with a critic adds another. A bound or a
term that is for the encoder alone makes f and q a player of their own, "encoder".
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
from narrows.parts.latents.base import SPACES, Latent
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.priors.base import Prior
from narrows.parts.regularizers.base import Regularizer


@dataclass(frozen=True)
class Term:
    """One named regulariser with its weight, a number or a function of progress.

    ``of`` says whose loss it is part of: "all" (of every player but critics), or, where f and q
    have a loss of their own, "encoder" or "decoder" (everything else).
    """

    name: str
    regularizer: Regularizer
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
        self.encoder_apart = self.bound.has_encoder or any(term.of != "all" for term in terms)

    def _critics(self) -> dict[str, Regularizer]:
        return {t.name: t.regularizer for t in self.terms if t.regularizer.has_critic}

    def __call__(self, model: Any, trace: Trace) -> dict[str, Tensor]:
        """The loss of every player; also sets ``trace.terms``."""
        total: Tensor = self.bound(trace)
        trace.terms["distance"] = total
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
        for name, regularizer in self._critics().items():
            losses[name] = regularizer.own_loss(model, trace)
        return losses

    def players(self, model: Any) -> dict[str, list[Parameter]]:
        """The parameters of each player, none of them twice."""
        owned = {name: list(R.critic.parameters()) for name, R in self._critics().items()}
        if self.encoder_apart:
            owned = {"encoder": [*model.f.parameters(), *model.q.parameters()], **owned}
        taken = {id(p) for parameters in owned.values() for p in parameters}
        every = [*model.parameters(), *self.parameters()]
        main = {id(p): p for p in every if p.requires_grad and id(p) not in taken}
        return {"model": list(main.values()), **owned}

    def score(self, trace: Trace) -> Tensor:
        """What "best on validation" compares: the loss without critics, with final weights."""
        end = Clock(progress=1.0)
        total = self.bound.score(trace)
        for term in self.terms:
            if not term.regularizer.has_critic:
                total = total + weight_at(term.weight, end) * trace.terms[term.name]
        return total

    @property
    def settled(self) -> float:
        """The progress from which neither a weight nor the bound changes any more."""
        weights = [w for t in self.terms for w in (t.weight, *t.regularizer.schedules())]
        moving = [w for w in weights if callable(w)]
        steps = [i / 100 for i in range(100) if any(w(i / 100) != w(1.0) for w in moving)]
        return max([self.bound.begin, *steps])

    @property
    def settles(self) -> bool:
        """Whether the score shows which model is best; if not, the last model is kept."""
        return all(term.regularizer.settles for term in self.terms)

    def in_words(self, score: float) -> str:
        """A score as a progress bar shows it."""
        return f"{score:.4g}"


def validate_parts(q: Latent, p: Prior | None, terms: Sequence[Term], bound: Bound) -> None:
    """Raise ParameterError, naming both parts, if parts have no meaning together."""
    gaussian = type(q) is DiagonalGaussian
    finite = not q.density or q.space == "codes"  # relaxed draws have no density
    for wrong, message in (
        (
            q.needs_joint and p is None,
            f"The latent {_name(q)} follows log p(x, z), which needs a prior; choose "
            'prior="normal", or another latent.',
        ),
        (
            p is not None and q.space != p.space,
            f"The latent {_name(q)} has its codes in {SPACES[q.space]}, but the prior {_name(p)} "
            f"is over {SPACES[p.space] if p else ''}; choose a prior over {SPACES[q.space]}.",
        ),
        (
            p is not None and "gaussian" in p.needs and not gaussian,
            f"The prior {_name(p)} is a mixture of diagonal Gaussians, but the latent is "
            f'{_name(q)}; choose latent="gaussian", or another prior.',
        ),
        (
            bound.importance and (finite or p is None),
            f"The bound {_name(bound)} weights draws by their densities, but "
            f"{_name(q) if finite else 'a model without a prior'} has none; choose a latent with a "
            'density and a prior, or bound="mean".',
        ),
        (
            "gaussian" in bound.needs and not gaussian,
            f"The bound {_name(bound)} needs the density of a diagonal Gaussian, but the latent is "
            f'{_name(q)}; choose latent="gaussian", or another bound.',
        ),
    ):
        if wrong:
            raise ParameterError(message)
    for term in terms:
        _validate_term(q, p, term.regularizer, bound)


def _validate_term(q: Latent, p: Prior | None, R: Regularizer, bound: Bound) -> None:
    if bound.importance and not R.any_bound:
        raise ParameterError(
            f"The bound {_name(bound)} is the logarithm of a mean over draws, with which the "
            f'regulariser {_name(R)} has no meaning; choose bound="mean", or leave {_name(R)} out.'
        )
    for need, missing, words in (
        ("density", not q.density, "the density log q(z | x)"),
        ("gaussian", type(q) is not DiagonalGaussian, "μ and σ of a diagonal Gaussian"),
        ("smooth", q.space == "codes", "codes with a gradient"),
    ):
        if need in R.needs and missing:
            raise ParameterError(
                f"The regulariser {_name(R)} needs {words}, which the latent {_name(q)} does not "
                f"have; choose another latent, or leave {_name(R)} out."
            )
    if "prior" in R.needs and p is None:
        raise ParameterError(
            f"The regulariser {_name(R)} needs a prior over the codes of {_name(q)}; choose one, "
            f"or leave {_name(R)} out."
        )


def _name(part: object) -> str:
    return type(part).__name__
