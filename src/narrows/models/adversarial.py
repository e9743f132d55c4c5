"""Adversarial models, with a critic that is trained together with f and g."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.fit_and_resume import Usual
from narrows.estimators.parameters import MAX_LAYER_WIDTH, as_ints, nonnegative, parameter
from narrows.models.variational import vae_parts
from narrows.parts.latents.gaussian import Point
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.critics import (
    CodeCritic,
    FactorCritic,
    FeatureBound,
    ImageCritic,
    ModelWithPriorDraws,
)
from narrows.parts.regularizers.kl_and_mmd import KL


@dataclass(kw_only=True, eq=False, repr=False)
class AdversarialAE(Estimator):
    """min over f, g of E_x [D(x, g(f(x))) − λ log C(f(x))]; C separates codes from draws of
    N(0, I).

    Every row has one code, without noise; the critic C makes all codes together follow the prior,
    from which new x are decoded. Training uses its whole budget and keeps the last model: while C
    changes, no validation score shows which model is best.

    Source: Makhzani et al., "Adversarial autoencoders", arXiv:1511.05644.

    Parameters
    ----------
    weight : float
        λ, the weight of the critic's term.
    critic_layer_sizes : tuple of int
        Widths of the critic's layers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import AdversarialAE
    >>> X = load_digits().images[:200]
    >>> aae = AdversarialAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> aae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = True

    weight: float = nonnegative(1.0, "Weight of the critic's term.")
    critic_layer_sizes: tuple[int, ...] = parameter(
        (128, 128), "Widths of the critic's layers.", kind=tuple, low=1, high=MAX_LAYER_WIDTH
    )

    def _parts(self) -> Parts:
        critic = CodeCritic(as_ints(self.critic_layer_sizes))
        terms = (Term("critic", critic, float(self.weight)),)
        return Parts(q=Point(), p=StandardNormal(), terms=terms)


@dataclass(kw_only=True, eq=False, repr=False)
class FactorVAE(Estimator):
    """min E_x E_q [−log p(x | z)] + KL(q(z | x) ‖ N(0, I)) + γ KL(q(z) ‖ Π_j q(z_j)).

    The last term, total correlation, makes the numbers of the code independent of each other; a
    critic estimates it.

    Source: Kim & Mnih, "Disentangling by factorising", arXiv:1802.05983.

    Parameters
    ----------
    gamma : float
        γ, the weight of the total correlation.
    critic_layer_sizes : tuple of int
        Widths of the critic's layers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import FactorVAE
    >>> X = load_digits().images[:200]
    >>> vae = FactorVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.transform(X).shape
    (200, 4)
    """

    _generates = _likely = True

    gamma: float = nonnegative(10.0, "Weight of the total correlation.")
    critic_layer_sizes: tuple[int, ...] = parameter(
        (128, 128, 128), "Widths of the critic's layers.", kind=tuple, low=1, high=MAX_LAYER_WIDTH
    )

    def _parts(self) -> Parts:
        critic = FactorCritic(as_ints(self.critic_layer_sizes))
        return vae_parts(Term("kl", KL()), Term("tc", critic, float(self.gamma)))


@dataclass(kw_only=True, eq=False, repr=False)
class VAEGAN(Estimator):
    """f: min E ½‖φ(x) − φ(g(z))‖² + β KL; g: min γ E ½‖φ(x) − φ(g(z))‖² − E log C(g(z)).

    A critic C learns to separate rows from g's outputs, for codes and for draws of N(0, I). x and
    its reconstruction are compared by φ, the features of C's last hidden layer, which gives sharper
    but less exact reconstructions. Training uses its whole budget and keeps the last model: while C
    changes, no validation score shows which model is best (reported is D(x, g(z)) + β KL).

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric",
    arXiv:1512.09300.

    Parameters
    ----------
    beta : float
        β, the weight of the KL divergence.
    gamma : float
        γ, the weight of the features against the critic's term, for g.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VAEGAN
    >>> X = load_digits().images[:200]
    >>> gan = VAEGAN(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> gan.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = True
    _usual: ClassVar = Usual(weight_decay=0.01)  # more makes its critic, and so φ, weak

    beta: float = nonnegative(1.0, "Weight of the KL divergence.")
    gamma: float = nonnegative(1.0, "Weight of the features, for g.")

    def _parts(self) -> Parts:
        critic = ImageCritic()
        return vae_parts(
            Term("kl", KL(), float(self.beta), of="encoder"),
            Term("critic", critic, of="decoder"),
            distance="mse",
            bound=FeatureBound(critic, float(self.gamma)),
            model=ModelWithPriorDraws,
        )
