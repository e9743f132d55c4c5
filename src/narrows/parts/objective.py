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
    latent, prior, weights = (
        f"the latent {_name(q)}",
        f"the prior {_name(p)}",
        f"bound {_name(bound)}",
    )
    # a relaxed draw from a finite set has no density, though an exact one has
    no_weights = (
        latent if not q.density or q.space == "codes" else "" if p else "a model without a prior"
    )
    space = "" if p is None or q.space == p.space else SPACES[p.space]
    _refuse(q.needs_joint and p is None, latent, "a prior", "the model", 'prior="normal"')
    _refuse(space, prior, f"codes in {space}", latent, f"a prior over {SPACES[q.space]}")
    wants_gaussian = "a diagonal Gaussian as posterior", latent, 'latent="gaussian"'
    _refuse(p is not None and "gaussian" in p.needs and not gaussian, prior, *wants_gaussian)
    needed = "the densities of draws and of a prior"
    _refuse(bound.importance and no_weights, f"the {weights}", needed, no_weights, 'bound="mean"')
    _refuse("gaussian" in bound.needs and not gaussian, f"the {weights}", *wants_gaussian)
    for R in (term.regularizer for term in terms):
        name, other = f"the regulariser {_name(R)}", f'bound="mean", or leave {_name(R)} out'
        single = "a plain mean over draws"
        _refuse(bound.importance and not R.any_bound, name, single, f"the {weights}", other)
        for need, missing, words in (
            ("density", not q.density, "the density log q(z | x)"),
            ("gaussian", not gaussian, "a diagonal Gaussian as posterior"),
            ("smooth", q.space == "codes", "codes with a gradient"),
        ):
            other = f"another latent, or leave {_name(R)} out"
            _refuse(need in R.needs and missing, name, words, latent, other)
        other = f"a prior, or leave {_name(R)} out"
        _refuse("prior" in R.needs and p is None, name, "a prior", f"the model of {latent}", other)


def _refuse(wrong: object, who: str, needs: str, lacking: str, choose: str) -> None:
    if wrong:
        raise ParameterError(
            f"{who[0].upper()}{who[1:]} needs {needs}, which {lacking} does not have; "
            f"choose {choose}."
        )


def _name(part: object) -> str:
    return type(part).__name__
