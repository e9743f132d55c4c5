"""The loss of a model: bound + Σ λ R for each player, and which parts can be combined.

Nearly every model has one player, "model". A regulariser with a critic adds another. A bound or a
term that is for the encoder alone makes f and q a player of their own, "encoder".
"""

from __future__ import annotations

import re
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

PROPER_NAMES = {"Gaussian", "Riemannian", "Hamiltonian", "Mises", "Fisher", "Gumbel", "ReLU"}


@dataclass(frozen=True)
class Term:
    """One named regulariser with its weight, a number or a function of progress.

    ``of`` is the loss that it is part of: "all" (of every player but critics), or, where f and q
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

    @property
    def compares_rows(self) -> bool:
        """Whether a term compares the rows of a batch with each other."""
        return any(term.regularizer.compares_rows for term in self.terms)

    def in_words(self, score: float) -> str:
        """A score as a progress bar shows it."""
        return f"{score:.4g}"


def validate_parts(q: Latent, p: Prior | None, terms: Sequence[Term], bound: Bound) -> None:
    """Raise ParameterError, naming both parts, if parts cannot be combined."""
    gaussian = type(q) is DiagonalGaussian
    latent, prior = f"the latent {part_name(q)}", f"the prior {part_name(p)}"
    fold = f"the bound {part_name(bound)}"
    _refuse(q.needs_joint and p is None, latent, "a prior", "the model", 'prior="normal"')
    if p is not None and q.space != p.space:
        choose = f"a prior over {SPACES[q.space]}"
        _refuse(True, prior, f"codes in {SPACES[p.space]}", latent, choose)
    posterior = "a diagonal Gaussian as posterior", latent, 'latent="gaussian"'
    _refuse(p is not None and "gaussian" in p.needs and not gaussian, prior, *posterior)
    # a relaxed draw from a finite set has no density, though an exact one has
    without = "a model without a prior" if q.density and q.space != "codes" else latent
    weightless = p is None or without == latent
    densities = "the densities of draws and of a prior", without, 'bound="mean"'
    _refuse(bound.importance and weightless, fold, *densities)
    _refuse("gaussian" in bound.needs and not gaussian, fold, *posterior)
    for R in (term.regularizer for term in terms):
        name, leave = f"the regulariser {part_name(R)}", f"or leave {part_name(R)} out"
        mean = "a plain mean over draws", fold, f'bound="mean", {leave}'
        _refuse(bound.importance and not R.any_bound, name, *mean)
        for need, missing, words in (
            ("density", not q.density, "the density log q(z | x)"),
            ("gaussian", not gaussian, "a diagonal Gaussian as posterior"),
            ("smooth", q.space == "codes", "codes with a gradient"),
        ):
            _refuse(need in R.needs and missing, name, words, latent, f"another latent, {leave}")
        no_prior = "prior" in R.needs and p is None
        _refuse(no_prior, name, "a prior", f"the model of {latent}", f"a prior, {leave}")


def _refuse(wrong: object, part: str, needs: str, lacking: str, choose: str) -> None:
    if wrong:
        raise ParameterError(
            f"{part[0].upper()}{part[1:]} needs {needs}, which {lacking} does not have; "
            f"choose {choose}."
        )


def part_name(part: object) -> str:
    """The name of a part in a message.

    >>> part_name(DiagonalGaussian())
    'diagonal Gaussian'
    """
    words = re.findall(
        r"ReLU|[A-Z]+\d*(?![a-z])|[A-Z][a-z]*", type(part).__name__.removesuffix("Prior")
    )
    return " ".join(w if w in PROPER_NAMES or w.isupper() else w.lower() for w in words)
