"""The autoencoder and the denoising autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from narrows.estimators.base import Estimator
from narrows.estimators.build_model import Parts
from narrows.estimators.parameters import parameter
from narrows.estimators.part_names import (
    BOUNDS,
    LATENTS,
    PRIORS,
    REGULARIZERS,
    composed,
    has_density,
    read_weights,
)
from narrows.estimators.setup import seed_of
from narrows.parts.corruptions import CORRUPTIONS, Noise
from narrows.parts.latents.gaussian import Point

USUAL = ", ".join(f"{name} {c.usual:g}" for name, c in CORRUPTIONS.items())


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Estimator):
    """min over f, g of E_x D(x, g(f(x))): x through a narrow code and back.

    Starts at PCA and keeps the best model on validation, so that with a squared distance it is
    never worse there than PCA of the same rows (in scaled units).

    Source: Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks",
    Science 313 (2006).

    Other parts can be chosen by name; parts that have no meaning together raise an error before
    training. ``Autoencoder(latent="gaussian", prior="normal", regularizers="kl")`` is a VAE.

    Parameters
    ----------
    latent : str
        q: point, gaussian, full_gaussian, top_k, sphere, ball, planar, radial, iaf, hamiltonian,
        vq, fsq or gumbel.
    prior : str
        p: none, normal, vamp, sphere, ball or categorical; it must be over the latent's space.
    regularizers : mapping or str, optional
        R with their weights λ: ``{"kl": 4.0}`` or ``"kl=4, l1=0.1"``; see
        ``narrows.estimators.part_names.REGULARIZERS``.
    bound : str
        How draws are combined into the loss: mean, iwae, miwae, piwae, ciwae or
        doubly_reparameterised.

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

    latent: str = parameter("point", "The latent q.", choices=tuple(LATENTS))
    prior: str = parameter("none", "The prior p of the codes.", choices=tuple(PRIORS))
    regularizers: Any = parameter(
        None, f"Names and weights, as kl=4,l1=0.1: {', '.join(REGULARIZERS)}."
    )
    bound: str = parameter("mean", "How draws are combined into the loss.", choices=tuple(BOUNDS))

    @property
    def _generates(self) -> bool:
        return self.prior != "none"

    @property
    def _likely(self) -> bool:
        return self.prior != "none" and has_density(self.latent)

    def _parts(self) -> Parts:
        weights = read_weights(self.regularizers)
        return composed(self.latent, self.prior, weights, self.bound)


@dataclass(kw_only=True, eq=False, repr=False)
class DenoisingAutoencoder(Estimator):
    """min over f, g of E_x E_c D(x, g(f(c(x)))): corrupted x to clean x.

    ``denoise`` removes such noise from new rows; ``corrupt`` adds noise as in training.

    Source: Vincent et al., "Stacked denoising autoencoders", JMLR 11 (2010).

    Parameters
    ----------
    noise : str
        What c does: "gaussian", "poisson" (counts, never below 0), "masking", "salt_and_pepper",
        "swap", "blur" (signals and images) or "dropout" (spans of signals); see
        ``narrows.parts.corruptions``.
    noise_level : float, (low, high) or "auto"
        How much of it. gaussian: the standard deviation in scaled units (1 is as strong as the
        data); poisson: the standard deviation at the largest value, as a share of it; blur: the
        standard deviation of the kernel in pixels or samples; otherwise the share of the elements
        that are changed. With a range each row draws its own level, so that one model learns all.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import DenoisingAutoencoder
    >>> X = load_digits().images[:200]
    >>> dae = DenoisingAutoencoder(latent_dim=8, max_epochs=3, random_state=0).fit(X)
    >>> noisy = dae.corrupt(X, random_state=0)
    >>> dae.denoise(noisy).shape
    (200, 8, 8)
    """

    noise: str = parameter("gaussian", "The noise c.", choices=tuple(CORRUPTIONS))
    noise_level: Any = parameter(
        "auto",
        "How much noise. gaussian: the standard deviation in scaled units (1 is as strong as the "
        "data); poisson: that at the largest value, as a share of it; blur: the kernel's, in "
        "pixels or samples; otherwise the share of the elements changed. With a range each row "
        f"draws its own level. auto: {USUAL}.",
        kind="range",
        low=0,
        auto=True,
    )

    def _parts(self) -> Parts:
        return Parts(q=Point(), c=CORRUPTIONS[self.noise](self.noise_level, self.layout_.shape))

    def denoise(
        self, X: Any, *, out: str | Path | None = None, overwrite: bool = False
    ) -> NDArray[Any]:
        """X without its noise: g(f(x)), the reconstruction of noisy rows.

        With a squared distance it estimates the mean of all clean rows that could have given the
        noisy one. Noise of a kind that the model was not trained on may stay or be smoothed.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
            Noisy rows, in the user's units.
        out, overwrite
            As in ``transform``: write the rows to a .npy file, block by block.

        Returns
        -------
        array like X, in the shape and dtype the model was fitted on
        """
        return self.reconstruct(X, out=out, overwrite=overwrite)

    @torch.no_grad()
    def corrupt(self, X: Any, random_state: Any = None, *, noise_level: Any = None) -> NDArray[Any]:
        """c(X), noise as in training, in the user's units.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        random_state : None, int or RandomState
        noise_level : float or (low, high), optional
            Another level than that of the fitted model.

        Returns
        -------
        array like X; float32 if X holds integers, because rounding would change the noise
        """
        rows = self._admit(X)
        rng = torch.Generator(self._device).manual_seed(seed_of(random_state))
        c = self.model_.c
        assert isinstance(c, Noise)
        if noise_level is not None:
            replace(self, noise_level=noise_level).check_parameters()
            c = c.at(noise_level)
        dtype = None if np.dtype(self.layout_.dtype).kind == "f" else "float32"
        parts = [self._from_model(c(x, rng)[0], dtype) for x in self._scaled(rows)]
        return np.concatenate(parts)
