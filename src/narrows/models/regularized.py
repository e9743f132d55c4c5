"""Autoencoders whose codes are sparse or smooth: penalties, top-k, and a sparse dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.parts.latents.dictionary import DeadLatentLoss, TopKReLU, dictionary_networks
from narrows.parts.latents.gaussian import Point, TopK
from narrows.parts.objective import Term
from narrows.parts.regularizers.base import Regularizer
from narrows.parts.regularizers.penalties import (
    CodeNorm,
    Contractive,
    DecoderWeightDecay,
    GradientPenalty,
    KLSparsity,
    L1Sparsity,
)


@dataclass(kw_only=True, eq=False, repr=False)
class SparseAutoencoder(Estimator):
    """min over f, g of E_x D(x, g(z)) + λ R(z), z = f(x), of which few numbers are far from 0.

    R is Σ_j |z_j| ("l1"), or Σ_j KL(ρ ‖ ρ̂_j) with ρ̂_j the mean activity 2 sigmoid(|z_j|) − 1 of z_j
    over a batch ("kl"); or there is none, and only the largest numbers of f(x) are kept ("topk").

    Source: Ng, "Sparse autoencoder", CS294A lecture notes (2011); "topk": Makhzani & Frey,
    "k-sparse autoencoders", arXiv:1312.5663.

    Parameters
    ----------
    sparsity : str
        "l1", "kl" or "topk".
    sparsity_weight : float
        λ of "l1" and "kl".
    target : float
        ρ of "kl".
    n_active : int
        How many numbers of a code "topk" keeps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import SparseAutoencoder
    >>> X = load_digits().images[:200]
    >>> sae = SparseAutoencoder(sparsity="topk", latent_dim=8, max_epochs=3, random_state=0)
    >>> bool(((sae.fit_transform(X) != 0).sum(1) <= 4).all())
    True
    """

    sparsity: str = parameter("l1", "How the code is made sparse.", choices=("l1", "kl", "topk"))
    sparsity_weight: float = nonnegative(0.1, "Weight of the penalty, for l1 and kl.")
    target: float = parameter(
        0.05, "For kl: the mean activity of a number.", kind=float, low=1e-4, high=0.9999
    )
    n_active: int = parameter(4, "For topk: how many numbers of a code are kept.", kind=int, low=1)

    def _parts(self) -> Parts:
        if self.sparsity == "topk":
            return Parts(q=TopK(int(self.n_active)))
        R: Regularizer = L1Sparsity() if self.sparsity == "l1" else KLSparsity(float(self.target))
        return Parts(q=Point(), terms=(Term("sparsity", R, float(self.sparsity_weight)),))


@dataclass(kw_only=True, eq=False, repr=False)
class ContractiveAutoencoder(Estimator):
    """min over f, g of E_x D(x, g(f(x))) + λ ‖∂f(x)/∂x‖²: the code changes little when x does.

    The squared Jacobian is exact for codes of up to 8 numbers; for larger codes each step uses an
    unbiased random estimate.

    Source: Rifai et al., "Contractive auto-encoders: explicit invariance during feature
    extraction", ICML 2011.

    Parameters
    ----------
    contraction : float
        λ.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import ContractiveAutoencoder
    >>> X = load_digits().images[:200]
    >>> ContractiveAutoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X).transform(X).shape
    (200, 4)
    """

    contraction: float = nonnegative(0.1, "Weight of the encoder's squared Jacobian.")

    def _parts(self) -> Parts:
        return Parts(
            q=Point(), terms=(Term("contraction", Contractive(), float(self.contraction)),)
        )


@dataclass(kw_only=True, eq=False, repr=False)
class RegularizedAE(Estimator):
    """min over f, g of E_x D(x, g(z)) + β ½ ‖z‖² + λ R(g), z = f(x): codes near 0, g smooth.

    R is ½ Σ w² over the weights of g ("l2") or ‖∂g(z)/∂z‖² ("gradient"). There is no noise and no
    prior: new x are decoded draws of a mixture that is fitted to the codes after training.

    Source: Ghosh et al., "From variational to deterministic autoencoders", arXiv:1903.12436.

    Parameters
    ----------
    penalty : str
        R: "l2" or "gradient".
    code_weight : float
        β.
    decoder_weight : float
        λ.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import RegularizedAE
    >>> X = load_digits().images[:200]
    >>> RegularizedAE(latent_dim=4, max_epochs=3, random_state=0).fit(X).transform(X).shape
    (200, 4)
    """

    _usual_sampler: ClassVar[str] = "mixture"

    penalty: str = parameter(
        "l2", "The decoder's penalty: its weights, or its gradient.", choices=("l2", "gradient")
    )
    code_weight: float = nonnegative(0.01, "Weight of the squared code.")
    decoder_weight: float = nonnegative(0.001, "Weight of the decoder's penalty.")

    def _parts(self) -> Parts:
        R: Regularizer = DecoderWeightDecay() if self.penalty == "l2" else GradientPenalty()
        terms = (
            Term("code", CodeNorm(), float(self.code_weight)),
            Term(self.penalty, R, float(self.decoder_weight)),
        )
        return Parts(q=Point(), terms=terms)


@dataclass(kw_only=True, eq=False, repr=False)
class SparseDictionary(Estimator):
    """min over f, g of E_x ½‖x − g(z)‖² + λ R_dead, z = the n largest of relu(f(x)), g linear.

    Each number of the code stands for one direction of x, of length 1 in scaled units
    (``model_.g.directions()``); a row uses ``n_active`` of them. The code is larger than the
    input: ``latent_dim="auto"`` is four times its size. It is compared with PCA of ``n_active``
    numbers.

    Source: Gao et al., "Scaling and evaluating sparse autoencoders", arXiv:2406.04093.

    Parameters
    ----------
    n_active : int
        Numbers of the code that a row uses.
    revival : float
        λ, the weight of the loss with which unused numbers of the code learn the residual.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import SparseDictionary
    >>> X = load_digits().images[:200]
    >>> model = SparseDictionary(latent_dim=128, n_active=6, max_epochs=3, random_state=0).fit(X)
    >>> bool(((model.transform(X) != 0).sum(1) <= 6).all())
    True
    """

    n_active: int = parameter(8, "Numbers of the code that a row uses.", kind=int, low=1)
    revival: float = nonnegative(
        1 / 32, "Weight of the loss that revives unused numbers of the code."
    )

    def _parts(self) -> Parts:
        return Parts(
            q=TopKReLU(int(self.n_active)),
            terms=(Term("revival", DeadLatentLoss(int(self.n_active)), float(self.revival)),),
            networks=dictionary_networks,
        )
