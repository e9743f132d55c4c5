"""VAEs trained on importance-weighted bounds, of several draws of the code: IWAE and others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import fraction, parameter
from narrows.models.variational import vae_parts
from narrows.parts import bounds


def _draws(help: str = "K, draws of the code for each row; 1: the evidence lower bound.") -> Any:
    return parameter(5, help, kind=int, low=1, high=10_000)


@dataclass(kw_only=True, eq=False, repr=False)
class IWAE(Estimator):
    """max over f, g of E_x log 1/K Σ_k w_k, w_k = p(x | z_k) p(z_k) / q(z_k | x), z_k ~ q(z | x).

    The bound is tighter than a VAE's, more so for larger K, and the true posterior need not be
    Gaussian.

    Source: Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", arXiv:1509.00519; the
    doubly reparameterised gradient: Tucker et al., arXiv:1810.04152.

    Parameters
    ----------
    n_importance : int
        K, draws for each row; a step costs about so many times that of a VAE.
    begin : float
        Share of the training before which there is one draw only, so that steps are fast.
    gradient : str
        "doubly": the encoder gets the doubly reparameterised gradient, which is less noisy and
        takes a sixth more time. "plain": the gradient of the bound.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import IWAE
    >>> X = load_digits().images[:200]
    >>> IWAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_importance: int = _draws()
    begin: float = fraction(0.0, "Share of the training before which there is one draw only.")
    gradient: str = parameter(
        "doubly",
        "The encoder's; doubly: doubly reparameterised, less noisy; plain: that of the bound.",
        choices=("plain", "doubly"),
    )

    def _parts(self) -> Parts:
        doubly = self.gradient == "doubly"
        bound = bounds.DoublyReparameterised if doubly else bounds.ImportanceWeighted
        return vae_parts(bound=bound(int(self.n_importance), float(self.begin)))


@dataclass(kw_only=True, eq=False, repr=False)
class MIWAE(Estimator):
    """max over f, g of E_x 1/M Σ_m log 1/K Σ_k w_mk: the mean of M bounds of K draws each.

    w = p(x | z) p(z) / q(z | x). A smaller K gives f a gradient with less relative noise, and a
    larger M averages more of it; K = 1 is a VAE.

    Source: Rainforth et al., "Tighter variational bounds are not necessarily better",
    arXiv:1802.04537.

    Parameters
    ----------
    n_bounds : int
        M, the bounds.
    n_importance : int
        K, draws for each bound; M·K for each row.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import MIWAE
    >>> X = load_digits().images[:200]
    >>> MIWAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_bounds: int = parameter(5, "M, how many bounds are averaged.", kind=int, low=1, high=10_000)
    n_importance: int = _draws("K, draws of the code for each bound; 1: the evidence lower bound.")

    def _parts(self) -> Parts:
        return vae_parts(bound=bounds.MIWAE(int(self.n_bounds), int(self.n_importance)))


@dataclass(kw_only=True, eq=False, repr=False)
class PIWAE(Estimator):
    """max over f of E_x 1/M Σ_m log 1/K Σ_k w_mk, max over g of E_x log 1/(M K) Σ_mk w_mk.

    w = p(x | z) p(z) / q(z | x). f learns from M bounds of K draws, whose gradient has less
    relative noise, and g from the one bound of all draws, which is tighter.

    Source: Rainforth et al., "Tighter variational bounds are not necessarily better",
    arXiv:1802.04537.

    Parameters
    ----------
    n_bounds : int
        M, the encoder's bounds.
    n_importance : int
        K, draws for each bound; M·K for each row.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import PIWAE
    >>> X = load_digits().images[:200]
    >>> PIWAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_bounds: int = parameter(5, "M, how many bounds f learns from.", kind=int, low=1, high=10_000)
    n_importance: int = _draws("K, draws of the code for each bound of the encoder.")

    def _parts(self) -> Parts:
        return vae_parts(bound=bounds.PIWAE(int(self.n_bounds), int(self.n_importance)))


@dataclass(kw_only=True, eq=False, repr=False)
class CIWAE(Estimator):
    """max over f, g of E_x [β 1/K Σ_k log w_k + (1 − β) log 1/K Σ_k w_k]: between VAE and IWAE.

    w = p(x | z) p(z) / q(z | x), the same K draws in both.

    Source: Rainforth et al., "Tighter variational bounds are not necessarily better",
    arXiv:1802.04537.

    Parameters
    ----------
    n_importance : int
        K, draws for each row.
    beta : float
        β in [0, 1]: 1 is a VAE's bound, 0 the importance-weighted one.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import CIWAE
    >>> X = load_digits().images[:200]
    >>> CIWAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_importance: int = _draws()
    beta: float = fraction(0.05, "Weight of the evidence lower bound, against 1 - beta.")

    def _parts(self) -> Parts:
        return vae_parts(bound=bounds.CIWAE(int(self.n_importance), float(self.beta)))
