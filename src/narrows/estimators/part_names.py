"""Parts by name: what ``Autoencoder(latent=..., prior=..., regularizers=...)`` may be made of."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from narrows.estimators.build_model import Parts
from narrows.exceptions import ParameterError
from narrows.parts.objective import Term


class LazyPart(NamedTuple):
    """A part: the class, where it lives in ``parts``, and what it is made with, if not its usual.

    Named and not imported: who asks for one part need not wait for all.
    """

    module: str
    name: str
    given: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        part = getattr(importlib.import_module(f"narrows.parts.{self.module}"), self.name)
        return part(*self.given)


LATENTS = {
    "point": LazyPart("latents.gaussian", "Point"),
    "gaussian": LazyPart("latents.gaussian", "DiagonalGaussian"),
    "full_gaussian": LazyPart("latents.gaussian", "FullGaussian"),
    "top_k": LazyPart("latents.gaussian", "TopK", (4,)),
    "sphere": LazyPart("latents.sphere", "VonMisesFisher"),
    "ball": LazyPart("latents.hyperbolic", "WrappedNormal"),
    "planar": LazyPart("latents.flows", "FlowPosterior", ("planar",)),
    "radial": LazyPart("latents.flows", "FlowPosterior", ("radial",)),
    "iaf": LazyPart("latents.flows", "FlowPosterior", ("iaf",)),
    "hamiltonian": LazyPart("latents.hamiltonian", "Hamiltonian"),
    "vq": LazyPart("latents.vector_quantizer", "VectorQuantizer"),
    "fsq": LazyPart("latents.scalar_quantizer", "FiniteScalar"),
    "gumbel": LazyPart("latents.scalar_quantizer", "GumbelSoftmax"),
}
PRIORS = {
    "none": None,
    "normal": LazyPart("priors.base", "StandardNormal"),
    "vamp": LazyPart("priors.vamp", "VampPrior", (100,)),
    "sphere": LazyPart("latents.sphere", "UniformSphere"),
    "ball": LazyPart("latents.hyperbolic", "WrappedStandardNormal"),
    "categorical": LazyPart("latents.scalar_quantizer", "UniformCategorical"),
}
REGULARIZERS = {
    "kl": LazyPart("regularizers.kl_and_mmd", "KL"),
    "total_correlation": LazyPart("regularizers.kl_and_mmd", "TotalCorrelation"),
    "mmd": LazyPart("regularizers.kl_and_mmd", "MMD"),
    "code_critic": LazyPart("regularizers.critics", "CodeCritic"),
    "factor_critic": LazyPart("regularizers.critics", "FactorCritic"),
    "l1": LazyPart("regularizers.penalties", "L1Sparsity"),
    "kl_sparsity": LazyPart("regularizers.penalties", "KLSparsity"),
    "code_norm": LazyPart("regularizers.penalties", "CodeNorm"),
    "contractive": LazyPart("regularizers.penalties", "Contractive"),
    "gradient_penalty": LazyPart("regularizers.penalties", "GradientPenalty"),
    "decoder_weight_decay": LazyPart("regularizers.penalties", "DecoderWeightDecay"),
    "commitment": LazyPart("regularizers.penalties", "Commitment"),
}
BOUNDS = {
    "mean": LazyPart("bounds", "Mean"),
    "iwae": LazyPart("bounds", "ImportanceWeighted"),
    "miwae": LazyPart("bounds", "MIWAE"),
    "piwae": LazyPart("bounds", "PIWAE"),
    "ciwae": LazyPart("bounds", "CIWAE"),
    "doubly_reparameterised": LazyPart("bounds", "DoublyReparameterised"),
}


def has_density(latent: str) -> bool:
    """Whether a latent of this name has one."""
    density: bool = LATENTS[latent]().density
    return density


def read_weights(asked: Any) -> dict[str, float]:
    """Names with their weights, from a mapping or from ``"kl=4, l1=0.1"``; a name alone weighs 1.

    >>> read_weights("kl=4, l1"), read_weights(None)
    ({'kl': 4.0, 'l1': 1.0}, {})

    Raises ``ParameterError`` for names that there are not, and weights that are none.
    """
    if asked is None:
        return {}
    if isinstance(asked, str):
        pairs = [word.partition("=") for word in asked.split(",") if word.strip()]
        asked = {name.strip(): value.strip() or 1.0 for name, _, value in pairs}
    if not isinstance(asked, Mapping):
        raise ParameterError(
            'regularizers must be names with their weights, as {"kl": 4.0} or "kl=4, l1=0.1". '
            f"Got {asked!r}."
        )
    found = {}
    for name, value in asked.items():
        if name not in REGULARIZERS:
            raise ParameterError(
                f"No regulariser is called {name!r}; choose among {', '.join(REGULARIZERS)}."
            )
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            found[name] = math.nan
        if not 0 <= found[name] < math.inf:
            raise ParameterError(
                f"The weight of {name!r} must be a number of at least 0. Got {value!r}."
            )
    return found


def composed(latent: str, prior: str, weights: Mapping[str, float], bound: str) -> Parts:
    """The parts of these names; ``ParameterError`` where they make no sense together."""
    make_prior = PRIORS[prior]
    return Parts(
        q=LATENTS[latent](),
        distance="mse" if make_prior is None else "gaussian",
        p=None if make_prior is None else make_prior(),
        terms=tuple(Term(name, REGULARIZERS[name](), w) for name, w in weights.items()),
        bound=BOUNDS[bound](),
    )
