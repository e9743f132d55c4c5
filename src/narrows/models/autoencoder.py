"""The autoencoder, with a point for a code or with other parts that are chosen by name."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.exceptions import ParameterError, did_you_mean
from narrows.parts.objective import Term


class LazyPart(NamedTuple):
    """A part: its module in ``parts``, its class, and the arguments other than the defaults.

    The class is imported when it is called, so that using one part does not import all of them.
    """

    module: str
    name: str
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        part = getattr(importlib.import_module(f"narrows.parts.{self.module}"), self.name)
        return part(*self.arguments)


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
    "neighbors": LazyPart("regularizers.neighbors", "NeighborContrast"),
    "distances": LazyPart("regularizers.neighbors", "DistanceCorrelation"),
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
    """Whether the latent of this name has a density q(z | x)."""
    density: bool = LATENTS[latent]().density
    return density


def read_weights(given: object) -> dict[str, float]:
    """Names with their weights, from a mapping or from ``"kl=4, l1=0.1"``; a name alone weighs 1.

    >>> read_weights("kl=4, l1"), read_weights(None)
    ({'kl': 4.0, 'l1': 1.0}, {})

    Raises ``ParameterError`` for unknown names, and for weights that are no numbers of at least 0.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        pairs = [word.partition("=") for word in given.split(",") if word.strip()]
        given = {name.strip(): value.strip() or 1.0 for name, _, value in pairs}
    if not isinstance(given, Mapping):
        raise ParameterError(
            'regularizers must be names with their weights, as {"kl": 4.0} or "kl=4, l1=0.1". '
            f"Got {given!r}."
        )
    found = {}
    for name, value in given.items():
        if name not in REGULARIZERS:
            raise ParameterError(
                f"No regulariser is called {name!r}.{did_you_mean(name, REGULARIZERS)} Choose "
                f"among {', '.join(REGULARIZERS)}."
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
    """The parts of these names; ``ParameterError`` if they cannot be combined."""
    make_prior = PRIORS[prior]
    return Parts(
        q=LATENTS[latent](),
        distance="mse" if make_prior is None else "gaussian",
        p=None if make_prior is None else make_prior(),
        terms=tuple(Term(name, REGULARIZERS[name](), w) for name, w in weights.items()),
        bound=BOUNDS[bound](),
    )


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Estimator):
    """min over f, g of E_x D(x, g(f(x))): x through a narrow code and back.

    Starts at PCA and keeps the best model on validation, so that with a squared distance it is
    never worse there than PCA of the same rows (in scaled units; both are kept within the bounds of
    bounded data).

    Source: Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks",
    Science 313 (2006).

    Other parts can be chosen by name; parts that have no meaning together raise an error before
    training. ``Autoencoder(latent="gaussian", prior="normal", regularizers="kl")`` is a VAE.

    Parameters
    ----------
    latent : str
        q: point, gaussian, full_gaussian, top_k, sphere, ball, planar, radial, iaf, hamiltonian,
        vq, fsq or gumbel.
    prior : str
        p: none, normal, vamp, sphere, ball or categorical; it must be over the latent's space.
    regularizers : mapping or str, optional
        R with their weights λ: ``{"kl": 4.0}`` or ``"kl=4, l1=0.1"``; see
        ``narrows.models.autoencoder.REGULARIZERS``.
    bound : str
        How draws are combined into the loss: mean, iwae, miwae, piwae, ciwae or
        doubly_reparameterised.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import Autoencoder
    >>> X = load_digits().images[:200]  # (200, 8, 8), pixels 0 to 16: no scaling needed
    >>> ae = Autoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> ae.transform(X).shape
    (200, 4)
    >>> ae.reconstruct(X).shape
    (200, 8, 8)
    """

    latent: str = parameter("point", "The latent q.", choices=tuple(LATENTS))
    prior: str = parameter("none", "The prior p of the codes.", choices=tuple(PRIORS))
    regularizers: object = parameter(
        None, f"Names and weights, as kl=4,l1=0.1: {', '.join(REGULARIZERS)}."
    )
    bound: str = parameter("mean", "How draws are combined into the loss.", choices=tuple(BOUNDS))

    @property
    def _generates(self) -> bool:
        return self.prior != "none"

    @property
    def _likely(self) -> bool:
        return self.prior != "none" and has_density(self.latent)

    def _parts(self) -> Parts:
        weights = read_weights(self.regularizers)
        return composed(self.latent, self.prior, weights, self.bound)
