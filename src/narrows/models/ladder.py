"""A VAE with several levels of latents, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.models.variational import (
    elbo_or_weighted_parts,
    importance_begin,
    optional_importance,
)
from narrows.parts.ladder import LadderModel, ladder_networks
from narrows.parts.priors.base import StandardNormal
from narrows.parts.priors.vamp import VampPrior
from narrows.parts.regularizers.base import Ramp
from narrows.parts.regularizers.kl_and_mmd import KL


@dataclass(kw_only=True, eq=False, repr=False)
class LadderVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + Σ_l KL(q(z_l | x, z_{>l}) ‖ p(z_l | z_{>l})).

    The code has levels z_1, ..., z_L: the highest is drawn first, every other given those above
    it, in the prior and in the posterior. ``latent_dim`` counts the numbers of all levels together;
    a code is all of them, the finest level first.

    Source: Sønderby et al., "Ladder variational autoencoders", arXiv:1602.02282; the prior of the
    highest level: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_levels : int
        L; at most as many as ``latent_dim``.
    free : float
        Nats of every number of the code that cost nothing at first ("free bits"), falling to 0 in
        the first half of the training: without them the lower levels are not used.
    n_inputs : int
        The prior of the highest level is a mixture of the posteriors at so many learned inputs; 0:
        a standard normal.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: the evidence
        lower bound.
    begin : float
        Share of the training after which the importance-weighted bound is used.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import LadderVAE
    >>> X = load_digits().images[:200]
    >>> ladder = LadderVAE(latent_dim=6, max_epochs=3, random_state=0).fit(X)
    >>> ladder.transform(X).shape, ladder.sample(5, random_state=0).shape
    ((200, 6), (5, 8, 8))
    """

    _generates = _likely = True

    n_levels: int = parameter(2, "Levels of the code.", kind=int, low=1, high=16)
    free: float = nonnegative(
        0.2,
        "Nats of every number of the code that cost nothing at first, and less up to the middle of "
        "the training; without them lower levels are not used.",
    )
    n_inputs: int = parameter(
        0,
        "Learned inputs whose posteriors are the prior of the highest level; 0: a normal prior.",
        kind=int,
        low=0,
        high=10_000,
    )
    n_importance: int = optional_importance()
    begin: float = importance_begin()

    def _parts(self) -> Parts:
        n = int(self.n_inputs)
        return elbo_or_weighted_parts(
            KL(free=Ramp(0.0, 0.5, float(self.free))),
            self.n_importance,
            self.begin,
            p=VampPrior(n) if n else StandardNormal(),
            model=LadderModel,
            networks=ladder_networks(self.n_levels),
        )
