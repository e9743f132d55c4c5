"""Models that match all codes together to the prior, by maximum mean discrepancy (MMD)."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.exceptions import ParameterError
from narrows.models.variational import vae_parts
from narrows.parts.latents.gaussian import Point
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.kl_and_mmd import KERNELS, KL, MMD


@dataclass(kw_only=True, eq=False, repr=False)
class WassersteinAE(Estimator):
    """min over f, g of E_x D(x, g(f(x))) + λ MMD²(q(z), p(z)), p(z) = N(0, I).

    Every row has one code, without noise; all codes together should be distributed as the prior,
    from which new x are decoded.

    Source: Tolstikhin et al., "Wasserstein auto-encoders", arXiv:1711.01558.

    Parameters
    ----------
    weight : float
        λ, in nats for each unit of MMD².
    kernel : str
        "imq" (inverse multiquadratic) or "rbf" (Gaussian), summed over seven scales.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import WassersteinAE
    >>> X = load_digits().images[:200]
    >>> wae = WassersteinAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> wae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = True

    weight: float = nonnegative(30.0, "Weight of the MMD.")
    kernel: str = parameter("imq", "Kernel of the MMD.", choices=tuple(KERNELS))

    def _parts(self) -> Parts:
        terms = (Term("mmd", MMD(self.kernel), float(self.weight)),)
        return Parts(q=Point(), p=StandardNormal(), terms=terms)


@dataclass(kw_only=True, eq=False, repr=False)
class InfoVAE(Estimator):
    """min E_x E_q [−log p(x | z)] + (1 − α) KL(q(z | x) ‖ N(0, I)) + (α + λ − 1) MMD²(q(z), p(z)).

    The larger α, the more information a code may hold about its row; λ makes all codes together
    follow the prior. α = 0 and λ = 1 is a variational autoencoder.

    Source: Zhao, Song & Ermon, "InfoVAE: information maximizing variational autoencoders",
    arXiv:1706.02262.

    Parameters
    ----------
    alpha : float
        α, at most 1; the weight of the KL divergence is 1 − α.
    divergence_weight : float
        λ, at least 1 − α; the weight of the MMD is α + λ − 1.
    kernel : str
        "imq" (inverse multiquadratic) or "rbf" (Gaussian), summed over seven scales.

    Raises
    ------
    ParameterError
        The weight of the MMD would be below 0, which would drive the codes away from the prior.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import InfoVAE
    >>> X = load_digits().images[:200]
    >>> vae = InfoVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    kernel: str = parameter("imq", "Kernel of the MMD.", choices=tuple(KERNELS))
    alpha: float = parameter(0.5, "1 minus the weight of the KL divergence.", kind=float, high=1)
    divergence_weight: float = nonnegative(100.0, "λ: the weight of the MMD is alpha + λ - 1.")

    def _parts(self) -> Parts:
        alpha, weight = float(self.alpha), float(self.alpha) + float(self.divergence_weight) - 1.0
        if weight < 0.0:
            raise ParameterError(
                f"alpha={alpha:g} and divergence_weight={self.divergence_weight:g} give the MMD "
                f"the weight {weight:g}, which would drive the codes away from the prior; choose "
                f"divergence_weight of at least {1.0 - alpha:g}."
            )
        return vae_parts(Term("kl", KL(), 1.0 - alpha), Term("mmd", MMD(self.kernel), weight))
