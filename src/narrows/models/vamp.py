"""A VAE whose prior is learned with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.bounds import ImportanceWeighted, Mean
from narrows.parts.class_conditional_model import Shifted
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors.vamp import VampPrior
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class VampVAE(Estimator):
    """min over f, g, u of E_x E_q [−log p(x | z) + log q(z | x) − log 1/N Σ_n q(z | u_n)].

    The prior is the mean of the posteriors at N inputs u_n, which are learned with f and g: codes
    need not be pressed into one Gaussian. The inputs begin at training rows.

    Source: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_inputs : int
        N.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: none.
    begin : float
        The share of the training after which that bound takes the place of the evidence bound.
    shifts : bool
        Of images: most are moved by a pixel in training, and f and g are told which way (Jun et
        al., ICML 2020), so that less is learned by heart. Good for likelihoods of few images.

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

    shifts: bool = parameter(
        False, "Move images by a pixel in training, and tell f and g which way.", kind=bool
    )

    def _parts(self) -> Parts:
        folded: dict[str, Any] = {"bound": Mean(), "terms": (Term("kl", KL()),)}
        if self.n_importance > 1:
            bound = ImportanceWeighted(int(self.n_importance), float(self.begin))
            folded = {"bound": bound, "terms": ()}
        if self.shifts:
            folded["model"] = Shifted
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=VampPrior(int(self.n_inputs)),
            **folded,
        )
