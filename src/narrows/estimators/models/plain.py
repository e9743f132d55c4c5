"""Models with a point for a code: the autoencoder, and the one that removes noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from narrows.core import ParameterError
from narrows.estimators.base import Estimator
from narrows.estimators.building import Parts
from narrows.estimators.door import Array
from narrows.estimators.parameters import parameter
from narrows.estimators.preparing import seed_of
from narrows.parts.corruptions import CORRUPTIONS
from narrows.parts.latents import Point


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Estimator):
    """min over f, g of E_x D(x, g(f(x))): x through a narrow code and back.

    Starts at PCA and keeps the best model on validation, so that with a squared distance it is
    never worse there than PCA of the same rows (in scaled units).

    Source: Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks",
    Science 313 (2006).

    Parameters
    ----------
    The shared parameters, see ``narrows.estimators.parameters.Parameters``; all have defaults.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import Autoencoder
    >>> X = load_digits().images[:200]  # (200, 8, 8), pixels 0 to 16: no scaling needed
    >>> ae = Autoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> ae.transform(X).shape
    (200, 4)
    >>> ae.reconstruct(X).shape
    (200, 8, 8)
    """

    def _parts(self) -> Parts:
        return Parts(q=Point())


@dataclass(kw_only=True, eq=False, repr=False)
class DenoisingAutoencoder(Estimator):
    """min over f, g of E_x E_c D(x, g(f(c(x)))): sees corrupted x, restores clean x.

    ``reconstruct`` of noisy rows is their denoised version; ``corrupt`` makes noisy rows as
    training did.

    Source: Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010).

    Parameters
    ----------
    noise : str
        What c does: "gaussian", "masking", "salt_and_pepper" or "swap".
    noise_level : float
        How much of it: for gaussian the standard deviation in scaled units (1 is as strong as the
        data), else the share of elements hit.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import DenoisingAutoencoder
    >>> X = load_digits().images[:200]
    >>> dae = DenoisingAutoencoder(latent_dim=8, max_epochs=3, random_state=0).fit(X)
    >>> noisy = dae.corrupt(X, random_state=0)
    >>> dae.reconstruct(noisy).shape
    (200, 8, 8)
    """

    noise: str = parameter("gaussian", "What c does to x.", choices=tuple(CORRUPTIONS))
    noise_level: float = parameter(
        0.5,
        "How much of it: gaussian, the standard deviation in scaled units; else a share in [0, 1].",
        kind=float,
        low=0,
    )

    def _parts(self) -> Parts:
        if self.noise != "gaussian" and self.noise_level > 1:
            raise ParameterError(
                f"noise={self.noise!r} hits a share of the elements, so noise_level must be at "
                f"most 1. Got {self.noise_level!r} instead."
            )
        return Parts(q=Point(), c=CORRUPTIONS[self.noise](self.noise_level))

    @torch.no_grad()
    def corrupt(self, X: Any, random_state: Any = None) -> Array:
        """c(X) as training makes it, in the user's units.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        random_state : None, int or RandomState

        Returns
        -------
        array like X; float32 where X holds integers, whose rounding would change the noise
        """
        rows = self._admit(X)
        rng = torch.Generator(self._device).manual_seed(seed_of(random_state))
        assert self.model_.c is not None
        dtype = None if np.dtype(self.layout_.dtype).kind == "f" else "float32"
        parts = [self._outward(self.model_.c(x, rng)[0], dtype) for x in self._scaled(rows)]
        return np.concatenate(parts)
