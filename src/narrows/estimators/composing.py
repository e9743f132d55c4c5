"""Parts by name: what ``Autoencoder(latent=..., prior=..., regularizers=...)`` may be made of."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from narrows.core import ParameterError
from narrows.estimators.building import Parts
from narrows.parts.objective import Term


class Made(NamedTuple):
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
    "point": Made("latents", "Point"),
    "gaussian": Made("latents", "DiagonalGaussian"),
    "full_gaussian": Made("latents", "FullGaussian"),
    "top_k": Made("latents", "TopK", (4,)),
    "sphere": Made("spheres", "VonMisesFisher"),
    "ball": Made("hyperbolic", "WrappedNormal"),
    "planar": Made("flows", "FlowPosterior", ("planar",)),
    "radial": Made("flows", "FlowPosterior", ("radial",)),
    "iaf": Made("flows", "FlowPosterior", ("iaf",)),
    "hamiltonian": Made("hamiltonian", "Hamiltonian"),
    "vq": Made("codebooks", "VectorQuantizer"),
    "fsq": Made("finite", "FiniteScalar"),
    "gumbel": Made("finite", "GumbelSoftmax"),
}
PRIORS = {
    "none": None,
    "normal": Made("priors", "StandardNormal"),
    "vamp": Made("vamp", "VampPrior", (100,)),
    "sphere": Made("spheres", "UniformSphere"),
    "ball": Made("hyperbolic", "WrappedStandardNormal"),
    "categorical": Made("finite", "UniformCategorical"),
}
REGULARIZERS = {
    "kl": Made("regularizers", "KL"),
    "total_correlation": Made("regularizers", "TotalCorrelation"),
    "mmd": Made("divergences", "MMD"),
    "code_critic": Made("critics", "CodeCritic"),
    "factor_critic": Made("critics", "FactorCritic"),
    "l1": Made("penalties", "L1Sparsity"),
    "kl_sparsity": Made("penalties", "KLSparsity"),
    "code_norm": Made("penalties", "CodeNorm"),
    "contractive": Made("penalties", "Contractive"),
    "gradient_penalty": Made("penalties", "GradientPenalty"),
    "decoder_weight_decay": Made("penalties", "DecoderWeightDecay"),
    "commitment": Made("regularizers", "Commitment"),
}
BOUNDS = {
    "mean": Made("bounds", "Mean"),
    "iwae": Made("bounds", "ImportanceWeighted"),
    "miwae": Made("bounds", "MIWAE"),
    "piwae": Made("bounds", "PIWAE"),
    "ciwae": Made("bounds", "CIWAE"),
    "doubly_reparameterised": Made("bounds", "DoublyReparameterised"),
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
