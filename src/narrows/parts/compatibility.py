"""Which parts have no meaning together; said before anything is trained, naming both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrows.exceptions import ParameterError
from narrows.parts.bounds import Bound
from narrows.parts.latents.base import DiagonalGaussian, Latent, at_home
from narrows.parts.objective import Term
from narrows.parts.priors.base import Prior


def refuse_meaningless(q: Latent, p: Prior | None, terms: Sequence[Term], bound: Bound) -> None:
    """Refuse parts that make no sense together.

    Raises
    ------
    ParameterError
        One sentence with the names of both parts, and what to choose instead.
    """
    if q.needs_joint and p is None:
        raise ParameterError(
            f"The latent {_name(q)} follows log p(x, z), which a model without a prior does not "
            "have; choose a normal prior, or another latent."
        )
    if p is not None and q.space != p.space:
        raise ParameterError(
            f"The latent {_name(q)} has its codes among {at_home(q.space)}, but the prior "
            f"{_name(p)} is one over {at_home(p.space)}; choose a prior over {at_home(q.space)}."
        )
    if p is not None and "gaussian" in p.needs and not _is_gaussian(q):
        raise ParameterError(
            f"The prior {_name(p)} is a mixture of diagonal Gaussians, but the latent is "
            f"{_name(q)}; choose DiagonalGaussian, or another prior."
        )
    if bound.importance:
        _refuse_bound(q, p, terms, bound)
    for name in bound.needs:
        if name == "gaussian" and not _is_gaussian(q):
            raise ParameterError(
                f"The bound {_name(bound)} needs the densities of a diagonal Gaussian, but the "
                f"latent is {_name(q)}; choose DiagonalGaussian, or another bound."
            )
    for term in terms:
        _refuse_term(q, p, term.regularizer)


def _refuse_bound(q: Latent, p: Prior | None, terms: Sequence[Term], bound: Bound) -> None:
    unknown = not q.density or q.space == "codes"  # of relaxed draws there is none
    if unknown or p is None:
        lacking = _name(q) if unknown else "a model without a prior"
        raise ParameterError(
            f"The bound {_name(bound)} weighs draws by their densities, but {lacking} has none; "
            "choose a latent with a density and a prior, or the bound Mean."
        )
    for term in terms:
        if not getattr(term.regularizer, "beside", True):
            raise ParameterError(
                f"The bound {_name(bound)} takes the logarithm of a mean over draws, inside which "
                f"the regulariser {_name(term.regularizer)} has no meaning; choose the bound Mean, "
                f"or leave {_name(term.regularizer)} out."
            )


def _refuse_term(q: Latent, p: Prior | None, R: Any) -> None:
    needs: frozenset[str] = getattr(R, "needs", frozenset())
    reasons = {
        "density": (not q.density, "the density log q(z | x)"),
        "gaussian": (not _is_gaussian(q), "the mean and variance of a diagonal Gaussian"),
        "smooth": (q.space == "codes", "codes that change with the input by small steps"),
    }
    for need, (missing, words) in reasons.items():
        if need in needs and missing:
            raise ParameterError(
                f"The regulariser {_name(R)} needs {words}, which the latent {_name(q)} does not "
                f"have; choose another latent, or leave {_name(R)} out."
            )
    if "prior" in needs and p is None:
        raise ParameterError(
            f"The regulariser {_name(R)} needs a prior over the codes of {_name(q)}, but there is "
            f"none; give one, or leave {_name(R)} out."
        )


def _is_gaussian(q: Latent) -> bool:
    return type(q) is DiagonalGaussian


def _name(part: Any) -> str:
    return type(part).__name__
