"""Autoencoders that restore what a corruption took: noise, or hidden patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter, seed_of
from narrows.estimators.reconstruction import framed
from narrows.parts.corruptions import CORRUPTIONS, Noise
from narrows.parts.latents.gaussian import Point
from narrows.parts.masked_patches import MaskedModel, PatchMask, masked_networks

DEFAULT_LEVELS = ", ".join(f"{name} {c.default_level:g}" for name, c in CORRUPTIONS.items())


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
    noise_level: float | tuple[float, float] | str = parameter(
        "auto",
        "How much noise. gaussian: the standard deviation in scaled units (1 is as strong as the "
        "data); poisson: that at the largest value, as a share of it; blur: the kernel's, in "
        "pixels or samples; otherwise the share of the elements changed. With a range each row "
        f"draws its own level. auto: {DEFAULT_LEVELS}.",
        kind="range",
        low=0,
        auto=True,
    )

    def _parts(self) -> Parts:
        return Parts(q=Point(), c=partial(CORRUPTIONS[self.noise], self.noise_level))

    def denoise(
        self, X: object, *, out: str | Path | None = None, overwrite: bool = False
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

    @framed
    @torch.no_grad()
    def corrupt(
        self,
        X: object,
        random_state: object = None,
        *,
        noise_level: float | tuple[float, float] | None = None,
    ) -> NDArray[Any]:
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
        rows = self._validate(X)
        rng = torch.Generator(self._device).manual_seed(seed_of(random_state))
        c = self.state_.model.c
        assert isinstance(c, Noise)
        if noise_level is not None:
            replace(self, noise_level=noise_level).check_parameters()
            c = c.at(noise_level)
        dtype = None if np.dtype(self.state_.layout.dtype).kind == "f" else "float32"
        parts = [self._from_model(c(x, rng)[0], dtype) for x in self._scaled(rows)]
        return np.concatenate(parts)


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedAutoencoder(Estimator):
    """min over f, g of E_x E_c D(x, g(f(c(x)))) over what c hides: most patches of each row.

    In training f, a transformer, gets the visible patches only; afterwards it gets all of them.
    Unlike in the paper g gets the code only, so that ``inverse_transform`` has a meaning.

    Source: He et al., "Masked autoencoders are scalable vision learners", arXiv:2111.06377.

    Parameters
    ----------
    hidden_share : float
        Share of a row's patches that are hidden.
    patch : int or "auto"
        The side of a patch: pixels of an image, samples of a signal, columns of a table.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import MaskedAutoencoder
    >>> X = load_digits().images[:200]
    >>> MaskedAutoencoder(latent_dim=8, max_epochs=3, random_state=0).fit(X).transform(X).shape
    (200, 8)
    """

    hidden_share: float = parameter(
        0.5, "Share of the patches that are hidden.", kind=float, low=0.01, high=0.99
    )
    patch: int | str = parameter(
        "auto",
        "Side of a patch: pixels, samples or columns. auto: about 64 patches.",
        kind=int,
        low=1,
        auto=True,
    )

    def _parts(self) -> Parts:
        return Parts(
            q=Point(),
            c=partial(PatchMask, float(self.hidden_share), self.patch),
            model=MaskedModel,
            networks=masked_networks(self.patch),
        )
