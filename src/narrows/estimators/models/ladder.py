"""Several layers of latents, coarse above fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrows.estimators.base import Estimator
from narrows.estimators.building import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.bounds import ImportanceWeighted, Mean
from narrows.parts.ladder import Ladder, ladder_networks
from narrows.parts.latents import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors import Prior, StandardNormal
from narrows.parts.regularizers import KL
from narrows.parts.vamp import VampPrior


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
    prior : str
        Of the highest level: "normal", or "vamp", a mixture of posteriors at learned inputs.
    n_inputs : int
        With "vamp", how many of them.
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
    prior: str = parameter(
        "normal",
        "Of the highest level; vamp: a mixture of posteriors at learned inputs.",
        choices=("normal", "vamp"),
    )
    n_inputs: int = parameter(
        100, "Learned inputs of the vamp prior.", kind=int, low=1, high=10_000
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
        prior: Prior = StandardNormal() if self.prior == "normal" else VampPrior(self.n_inputs)
        many = self.n_importance > 1
        shared: dict[str, Any] = {
            "bound": ImportanceWeighted(self.n_importance, self.begin) if many else Mean(),
            "terms": () if many else (Term("kl", KL()),),
        }
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=prior,
            model=Ladder,
            networks=ladder_networks(self.n_levels),
            **shared,
        )
