"""Models with a Gaussian code and a normal prior over it, from which they generate."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoencoder(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ N(0, I)): minus the ELBO.

    The code is Gaussian, q = N(μ(x), diag σ²(x)); new x are decoded draws from the prior. On real
    numbers p(x | z) is a Gaussian with one learned scale, on zeros and ones a Bernoulli.

    Source: Kingma & Welling, "Auto-encoding variational Bayes", arXiv:1312.6114; the learned scale:
    Rybkin et al., arXiv:2006.13202; β: Higgins et al., ICLR 2017.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence; 1 is the evidence bound.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VariationalAutoencoder
    >>> X = load_digits().images[:200]
    >>> vae = VariationalAutoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    beta: float = parameter(1.0, "Weight of the KL divergence.", kind=float, low=0)

    _generates = _likely = True

    def _parts(self) -> Parts:
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=StandardNormal(),
            terms=(Term("kl", KL(), float(self.beta)),),
        )
