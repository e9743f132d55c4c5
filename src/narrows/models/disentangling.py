"""Disentangling VAEs: other weights of the KL divergence, or of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import fraction, nonnegative, parameter
from narrows.models.variational import vae_parts
from narrows.parts.objective import Term
from narrows.parts.regularizers.base import Ramp
from narrows.parts.regularizers.kl_and_mmd import KL, DimensionwiseKL, TotalCorrelation


@dataclass(kw_only=True, eq=False, repr=False)
class BetaVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ N(0, I)), β above 1.

    With a higher cost fewer numbers of the code are used: the others stay at the prior, and those
    that are used tend to hold one factor of variation each.

    Source: Higgins et al., "beta-VAE: learning basic visual concepts with a constrained variational
    framework", ICLR 2017; why it disentangles: Burgess et al., arXiv:1804.03599.

    Parameters
    ----------
    beta : float
        The weight β; 1 is a VAE.
    free : float
        Nats of each number of the code that cost nothing (Kingma et al., arXiv:1606.04934).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import BetaVAE
    >>> X = load_digits().images[:200]
    >>> BetaVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    beta: float = nonnegative(4.0, "Weight of the KL divergence; 1: a VAE.")
    free: float = nonnegative(0.0, "Nats of each number of the code that cost nothing.")

    def _parts(self) -> Parts:
        return vae_parts(Term("kl", KL(free=float(self.free)), float(self.beta)))


@dataclass(kw_only=True, eq=False, repr=False)
class AnnealedVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + γ |KL(q(z | x) ‖ N(0, I)) − C(t)|.

    C, the information in nats that the code is driven to hold on average, grows linearly from 0 to
    ``capacity`` over the first part of the training, then stays.

    Source: Burgess et al., "Understanding disentangling in beta-VAE", arXiv:1804.03599.

    Parameters
    ----------
    capacity : float
        C at the end, in nats a row.
    gamma : float
        The weight γ.
    anneal : float
        The share of the training over which C grows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import AnnealedVAE
    >>> X = load_digits().images[:200]
    >>> vae = AnnealedVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    capacity: float = nonnegative(25.0, "C at the end of its growth, in nats a row.")
    gamma: float = nonnegative(10.0, "Weight of the difference between the KL divergence and C.")
    anneal: float = fraction(0.5, "Share of the training over which C grows.")

    def _parts(self) -> Parts:
        capacity = Ramp(float(self.capacity), float(self.anneal))
        return vae_parts(Term("kl", KL(capacity=capacity), float(self.gamma)))


@dataclass(kw_only=True, eq=False, repr=False)
class BetaTCVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + α MI + β TC + γ Σ_j KL(q(z_j) ‖ N(0, 1)).

    KL(q(z | x) ‖ N(0, I)) is the sum of these three: MI, the mutual information of z and x; TC, the
    total correlation KL(q(z) ‖ Π_j q(z_j)), 0 if the numbers of a code are independent over all
    rows; and the divergence of each number from the prior. TC and the last are estimated from the
    rows of a batch.

    Source: Chen et al., "Isolating sources of disentanglement in variational autoencoders",
    arXiv:1802.04942.

    Parameters
    ----------
    beta, alpha, gamma : float
        The weights; all 1 is a VAE.
    estimator : str
        Estimator of q(z): "mss" (minibatch stratified sampling) or "mws" (minibatch weighted
        sampling).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import BetaTCVAE
    >>> X = load_digits().images[:200]
    >>> BetaTCVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    beta: float = nonnegative(6.0, "Weight of the total correlation.")
    alpha: float = nonnegative(1.0, "Weight of the mutual information.")
    gamma: float = nonnegative(1.0, "Weight of the KL divergence of single numbers of the code.")
    estimator: str = parameter(
        "mss",
        "Estimator of the density of all codes; mss: stratified, mws: weighted sampling.",
        choices=("mss", "mws"),
    )

    def _parts(self) -> Parts:
        alpha = float(self.alpha)
        # the closed form of KL holds all three once; only other weights need estimates
        terms = [
            Term("kl", KL(), alpha),
            Term("tc", TotalCorrelation(self.estimator), float(self.beta) - alpha),
        ]
        if self.gamma != self.alpha:
            more = float(self.gamma) - alpha
            terms.append(Term("each", DimensionwiseKL(self.estimator), more))
        return vae_parts(*terms)
