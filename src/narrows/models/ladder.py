"""Several layers of latents, coarse above fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.bounds import ImportanceWeighted, Mean
from narrows.parts.ladder import Ladder, ladder_networks
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors.base import Prior, StandardNormal
from narrows.parts.priors.vamp import VampPrior
from narrows.parts.regularizers.base import KL, Ramp


@dataclass(kw_only=True, eq=False, repr=False)
class LadderVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + Σ_l KL(q(z_l | x, z_{>l}) ‖ p(z_l | z_{>l})).

    The code has levels z_1, ..., z_L: the highest is drawn first, every other given those above
    it, in the prior as in the posterior. ``latent_dim`` counts the numbers of all levels together;
    a code is all of them, the finest level first.

    Source: Sønderby et al., "Ladder variational autoencoders", arXiv:1602.02282; the prior of the
    highest level: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_levels : int
        L; at most as many as ``latent_dim``.
    free : float
        Nats of every number of the code that cost nothing at first, ever fewer in the first half of
        the training ("free bits"): without them the lower levels are never used.
    n_inputs : int
        The prior of the highest level is a mixture of posteriors at so many learned inputs; 0: a
        normal one.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: none.
    begin : float
        The share of the training after which that bound takes the place of the evidence bound.

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

    n_levels: int = parameter(2, "Layers of the code.", kind=int, low=1, high=16)
    free: float = parameter(
        0.2,
        "Nats of every number of the code that cost nothing at first, none from the middle of the "
        "training on; without, lower levels are never used.",
        kind=float,
        low=0,
    )
    n_inputs: int = parameter(
        0,
        "Learned inputs whose posteriors are the prior of the highest level; 0: a normal prior.",
        kind=int,
        low=0,
        high=10_000,
    )
    n_importance: int = parameter(
        1, "Draws of the importance-weighted bound; 1: the evidence bound.", kind=int, low=1
    )
    begin: float = parameter(
        0.5,
        "Share of the training after which the importance-weighted bound takes over.",
        kind=float,
        low=0,
        high=1,
    )

    def _parts(self) -> Parts:
        n = int(self.n_inputs)
        prior: Prior = VampPrior(n) if n else StandardNormal()
        many = self.n_importance > 1
        kl = KL(free=Ramp(0.0, 0.5, float(self.free)))
        shared: dict[str, Any] = {
            "bound": ImportanceWeighted(self.n_importance, self.begin) if many else Mean(),
            "terms": () if many else (Term("kl", kl),),
        }
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=prior,
            model=Ladder,
            networks=ladder_networks(self.n_levels),
            **shared,
        )
