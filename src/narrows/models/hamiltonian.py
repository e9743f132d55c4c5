"""VAEs with draws of the code that are moved by Hamiltonian dynamics."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.models.variational import vae_parts
from narrows.parts.latents.hamiltonian import MAX_STEP, Hamiltonian, RiemannianHamiltonian
from narrows.parts.objective import Term
from narrows.parts.regularizers.kl_and_mmd import KL


@dataclass(kw_only=True, eq=False, repr=False)
class HamiltonianVAE(Estimator):
    """min over f, g of −E_x E [log p(x, z_n) + log N(ρ_n; 0, I) − log q(z_0 | x) − log N(γ; 0, I)].

    A Gaussian draw z_0 and a momentum γ / √β_0 are moved by n leapfrog steps of Hamiltonian
    dynamics, which use the gradient of log p(x, z); the momentum is cooled on the way. This is an
    upper bound of −log p(x), closer than that of the Gaussian alone.

    Source: Caterini, Doucet & Sejdinovic, "Hamiltonian variational auto-encoder", arXiv:1805.11328.

    Parameters
    ----------
    n_leapfrog : int
        n; each step takes one more pass through the decoder.
    step_size : float
        The length of a step at the start, in standard deviations of z_0; below 0.5.
    beta_zero : float
        β_0 at the start, above 0 and at most 1, which is no cooling.

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
        high=MAX_STEP,
        open=True,
    )
    beta_zero: float = parameter(
        0.7, "Inverse temperature at the start; 1: no cooling.", kind=float, low=1e-3, high=1
    )

    def _parts(self) -> Parts:
        q = Hamiltonian(int(self.n_leapfrog), float(self.step_size), float(self.beta_zero))
        return vae_parts(Term("kl", KL()), q=q)


@dataclass(kw_only=True, eq=False, repr=False)
class RiemannianHamiltonianVAE(HamiltonianVAE):
    """The Hamiltonian VAE with N(ρ; 0, G(z)) for N(ρ; 0, I), and dynamics that follow G.

    G⁻¹(z) = Σ_i L_i L_iᵀ exp(−|z − c_i|² / T²) + λ I is large near the anchors c_i, which
    start at codes of training rows, and small elsewhere. It is learned with f and g. Codes have at
    most 64 numbers; new x are decoded draws from N(0, I).

    Source: Chadebec, Thibeau-Sutre, Burgos & Allassonnière, "Data augmentation in high dimensional
    low sample size setting using a geometry-based variational autoencoder", arXiv:2105.00026.

    Parameters
    ----------
    n_leapfrog, step_size, beta_zero
        As in `HamiltonianVAE`.
    n_anchors : int
        Number of anchors of the metric.
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
        q = RiemannianHamiltonian(*steps, int(self.n_anchors), float(self.floor))
        return vae_parts(Term("kl", KL()), q=q)
