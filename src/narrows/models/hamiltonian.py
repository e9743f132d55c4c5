"""VAEs whose draws of the code are moved by Hamiltonian dynamics."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.hamiltonian import LONGEST, Hamiltonian, RiemannianHamiltonian
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class HamiltonianVAE(Estimator):
    """min over f, g of −E_x E [log p(x, z_n) + log N(ρ_n; 0, I) − log q(z_0 | x) − log N(γ; 0, I)].

    A draw z_0 of a Gaussian and a momentum γ / √β_0 are moved by n leapfrog steps of Hamiltonian
    dynamics, which know log p(x, z); the momentum is cooled on the way. This bounds −log p(x) from
    above, closer than the Gaussian alone.

    Source: Caterini, Doucet & Sejdinovic, "Hamiltonian variational auto-encoder", arXiv:1805.11328.

    Parameters
    ----------
    n_leapfrog : int
        n; each step takes one more pass through the decoder.
    step_size : float
        The length of a step at the start, in standard deviations of z_0; below 0.5.
    beta_zero : float
        β_0 at the start, above 0 and at most 1, where nothing is cooled.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import HamiltonianVAE
    >>> X = load_digits().images[:200]
    >>> vae = HamiltonianVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_leapfrog: int = parameter(3, "Leapfrog steps.", kind=int, low=1, high=1000)
    step_size: float = parameter(
        0.2,
        "Length of a step at the start, in standard deviations.",
        kind=float,
        low=0,
        high=LONGEST,
        open=True,
    )
    beta_zero: float = parameter(
        0.7, "Inverse temperature at the start; 1: nothing is cooled.", kind=float, low=1e-3, high=1
    )

    def _parts(self) -> Parts:
        return _moved(
            Hamiltonian(int(self.n_leapfrog), float(self.step_size), float(self.beta_zero))
        )


@dataclass(kw_only=True, eq=False, repr=False)
class RiemannianHamiltonianVAE(HamiltonianVAE):
    """The Hamiltonian VAE with N(ρ; 0, G(z)) for N(ρ; 0, I), and dynamics that follow G.

    G⁻¹(z) = Σ_i L_i L_iᵀ exp(−|z − c_i|² / T²) + λ I is large near anchors c_i, which begin at
    codes of training rows, and small where there are none. It is learned with f and g. Its codes
    have at most 64 numbers; new x are decoded draws from N(0, I).

    Source: Chadebec, Thibeau-Sutre, Burgos & Allassonnière, "Data augmentation in high dimensional
    low sample size setting using a geometry-based variational autoencoder", arXiv:2105.00026.

    Parameters
    ----------
    n_leapfrog, step_size, beta_zero
        As in `HamiltonianVAE`.
    n_anchors : int
        How many anchors the metric has.
    floor : float
        λ, above 0.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import RiemannianHamiltonianVAE
    >>> X = load_digits().images[:200]
    >>> vae = RiemannianHamiltonianVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    n_anchors: int = parameter(32, "Anchors of the metric.", kind=int, low=1, high=10_000)
    floor: float = parameter(
        0.01, "The inverse metric far from all anchors.", kind=float, low=1e-4, high=1
    )

    def _parts(self) -> Parts:
        steps = int(self.n_leapfrog), float(self.step_size), float(self.beta_zero)
        return _moved(RiemannianHamiltonian(*steps, int(self.n_anchors), float(self.floor)))


def _moved(q: Hamiltonian) -> Parts:
    return Parts(q=q, distance="gaussian", p=StandardNormal(), terms=(Term("kl", KL()),))
