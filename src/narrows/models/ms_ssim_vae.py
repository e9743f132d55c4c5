"""Models that are judged by how alike two pictures look."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class MSSSIMVAE(Estimator):
    """min over f, g of E_x E_q [n (1 − MS-SSIM(x, g(z)))] + β KL(q(z | x) ‖ N(0, I)); n elements.

    A variational autoencoder for images whose distance compares local means, contrasts and patterns
    at several scales, as many as the image has room for. It is no density: there is no
    ``log_likelihood``.

    Source: Snell et al., "Learning to generate images with perceptual similarity metrics",
    arXiv:1511.06409; the measure: Wang, Simoncelli & Bovik, "Multiscale structural similarity for
    image quality assessment", Asilomar 2003.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence.

    Raises
    ------
    InputError
        X holds no images, or smaller ones than 6 × 6.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import MSSSIMVAE
    >>> X = load_digits().images[:200]
    >>> vae = MSSSIMVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = True

    beta: float = parameter(1.0, "Weight of the KL divergence.", kind=float, low=0)

    def _parts(self) -> Parts:
        return Parts(
            q=DiagonalGaussian(),
            distance="ms_ssim",
            p=StandardNormal(),
            terms=(Term("kl", KL(), float(self.beta)),),
        )
