"""A VAE with a learned prior, the VampPrior."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.models.variational import (
    elbo_or_weighted_parts,
    importance_begin,
    optional_importance,
)
from narrows.parts.model import Model, ShiftedModel
from narrows.parts.priors.vamp import VampPrior
from narrows.parts.regularizers.kl_and_mmd import KL


@dataclass(kw_only=True, eq=False, repr=False)
class VampVAE(Estimator):
    """min over f, g, u of E_x E_q [−log p(x | z) + log q(z | x) − log 1/N Σ_n q(z | u_n)].

    The prior is the mean of the posteriors at N inputs u_n, which are learned with f and g, so that
    codes need not follow one Gaussian. The inputs start at training rows.

    Source: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_inputs : int
        N.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: the evidence
        lower bound.
    begin : float
        Share of the training after which the importance-weighted bound is used.
    shifts : bool
        For images: in training most are shifted by a pixel, and f and g are given the direction
        (Jun et al., ICML 2020), which reduces overfitting. Helps likelihoods of few images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VampVAE
    >>> X = load_digits().images[:200]
    >>> vae = VampVAE(latent_dim=4, n_inputs=20, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_inputs: int = parameter(100, "Learned inputs of the prior.", kind=int, low=1, high=10_000)
    n_importance: int = optional_importance()
    begin: float = importance_begin()
    shifts: bool = parameter(
        False, "Shift images by a pixel in training, and give f and g the direction.", kind=bool
    )

    def _parts(self) -> Parts:
        return elbo_or_weighted_parts(
            KL(),
            self.n_importance,
            self.begin,
            p=VampPrior(int(self.n_inputs)),
            model=ShiftedModel if self.shifts else Model,
        )
