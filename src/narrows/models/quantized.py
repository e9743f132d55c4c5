"""Models with a finite set of codes (VQ-VAE, FSQ, Gumbel): each row becomes a few whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.models.variational import vae_parts
from narrows.parts.latents.scalar_quantizer import FiniteScalar, GumbelSoftmax, UniformCategorical
from narrows.parts.latents.vector_quantizer import Quantizer, ResidualQuantizer, VectorQuantizer
from narrows.parts.objective import Term
from narrows.parts.regularizers.kl_and_mmd import KL
from narrows.parts.regularizers.penalties import Commitment

MAX_VALUES = 2**13  # vectors in a codebook, categories of a choice


class Quantized(Estimator):
    """An estimator with ``codes``. Not a dataclass, because it declares no parameters."""

    _usual_sampler: ClassVar[str] = "autoregressive"

    @torch.no_grad()
    def codes(self, X: object) -> NDArray[np.int64]:
        """X as whole numbers: the indices of the vectors, categories or values of ``transform``.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)

        Returns
        -------
        array of shape (n, positions), int64
            From 0 to the number of vectors (categories, values) − 1.
        """
        model = self.model_
        assert isinstance(model.q, Quantizer)
        q = model.q
        return self._answers(X, lambda x: q.chosen(model.encoder_output(x)).cpu().numpy())


@dataclass(kw_only=True, eq=False, repr=False)
class VQVAE(Quantized):
    """min over f, g of E_x D(x, g(e)) + β ‖f(x) − sg(e)‖², e the codebook vectors nearest f(x).

    The code is cut into pieces, and each becomes one of ``n_embeddings`` learned vectors;
    ``codes(X)`` gives their indices. Starts at PCA with codes that are quantised by k-means.

    Source: van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning",
    arXiv:1711.00937.

    Parameters
    ----------
    n_embeddings : int
        Vectors in the codebook.
    code_dim : int or "auto"
        Numbers in a piece; must divide ``latent_dim``.
    commitment : float
        β, which keeps f(x) near the codebook.
    update : str
        How the codebook learns: "average" (each vector follows the mean of the pieces nearest to
        it) or "gradient".

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VQVAE
    >>> X = load_digits().images[:200]
    >>> vq = VQVAE(latent_dim=8, n_embeddings=32, max_epochs=3, random_state=0).fit(X)
    >>> vq.transform(X).shape, vq.codes(X).shape
    ((200, 8), (200, 2))
    """

    n_embeddings: int = parameter(256, "Vectors in a codebook.", kind=int, low=2, high=MAX_VALUES)
    code_dim: int | str = parameter(
        "auto",
        "Numbers in a piece of the code, each piece one vector of the codebook; must divide "
        "latent_dim. auto: its largest divisor up to 4, with several codebooks up to 8.",
        kind=int,
        low=1,
        auto=True,
    )
    commitment: float = nonnegative(0.25, "Weight that keeps f(x) near the codebook.")
    update: str = parameter(
        "average",
        "How a codebook learns: by moving averages of the nearest pieces, or by gradient.",
        choices=("average", "gradient"),
    )

    def _quantizer(self, kind: type[VectorQuantizer], **more: Any) -> Parts:
        own = (int(self.n_embeddings), self.code_dim, float(self.commitment), self.update)
        return Parts(q=kind(*own, **more), terms=(Term("commitment", Commitment()),))

    def _parts(self) -> Parts:
        return self._quantizer(VectorQuantizer)


@dataclass(kw_only=True, eq=False, repr=False)
class ResidualVQVAE(VQVAE):
    """min over f, g of E_x D(x, g(Σ_l e_l)) + β Σ_l ‖f(x) − sg(e_1 + ... + e_l)‖².

    Several codebooks: e_l is the vector of the l-th that is nearest to the residual that the
    levels before leave of f(x). Several small codebooks hold as much as one very large one.

    Source: Lee et al., "Autoregressive image generation using residual quantization",
    arXiv:2203.01941.

    Parameters
    ----------
    n_embeddings : int
        Vectors in each codebook.
    n_levels : int
        Number of codebooks.
    code_dim, commitment, update
        Those of ``VQVAE``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import ResidualVQVAE
    >>> X = load_digits().images[:200]
    >>> vq = ResidualVQVAE(latent_dim=8, n_embeddings=16, max_epochs=3, random_state=0).fit(X)
    >>> vq.codes(X).shape
    (200, 4)
    """

    n_embeddings: int = parameter(64, "Vectors in each codebook.", kind=int, low=2, high=MAX_VALUES)
    n_levels: int = parameter(4, "Codebooks, each for the residual.", kind=int, low=1, high=64)

    def _parts(self) -> Parts:
        return self._quantizer(ResidualQuantizer, n_levels=self.n_levels)


@dataclass(kw_only=True, eq=False, repr=False)
class GumbelVAE(Quantized):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ uniform), z one of C categories.

    A code of ``latent_dim`` numbers holds latent_dim / C such choices, one-hot. In training draws
    are relaxed, less and less; afterwards they are exact, and so is ``log_likelihood``.

    Source: Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax",
    arXiv:1611.01144.

    Parameters
    ----------
    n_categories : int or "auto"
        C; must divide ``latent_dim``.
    temperature : float
        Temperature of the relaxed draws at the end of training; at the start it is 1.
    beta : float
        The weight β of the KL divergence.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import GumbelVAE
    >>> X = load_digits().images[:200]
    >>> vae = GumbelVAE(latent_dim=32, n_categories=8, max_epochs=3, random_state=0).fit(X)
    >>> vae.codes(X).shape, vae.sample(5, random_state=0).shape
    ((200, 4), (5, 8, 8))
    """

    _generates = _likely = True
    _usual_sampler: ClassVar[str] = "prior"

    n_categories: int | str = parameter(
        "auto",
        "Categories of each choice; must divide latent_dim. auto: its divisor nearest to 8.",
        kind=int,
        low=1,
        high=MAX_VALUES,
        auto=True,
    )
    temperature: float = parameter(
        0.5,
        "Temperature of relaxed draws when training ends; it starts at 1.",
        kind=float,
        low=0.01,
    )
    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        q = GumbelSoftmax(self.n_categories, float(self.temperature))
        return vae_parts(Term("kl", KL(), float(self.beta)), q=q, p=UniformCategorical())


@dataclass(kw_only=True, eq=False, repr=False)
class FSQVAE(Quantized):
    """min over f, g of E_x D(x, g(round(r tanh(f(x) / r)))), r = (n_values − 1) / 2.

    Each number of the code is rounded to one of ``n_values``, so there is no codebook to learn.

    Source: Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", arXiv:2309.15505.

    Parameters
    ----------
    n_values : int
        Values of each number of the code.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import FSQVAE
    >>> X = load_digits().images[:200]
    >>> fsq = FSQVAE(latent_dim=4, n_values=5, max_epochs=3, random_state=0).fit(X)
    >>> sorted(set(fsq.transform(X).ravel().tolist()))
    [-2.0, -1.0, 0.0, 1.0, 2.0]
    """

    n_values: int = parameter(8, "Values of each number.", kind=int, low=2, high=MAX_VALUES)

    def _parts(self) -> Parts:
        return Parts(q=FiniteScalar(int(self.n_values)))
