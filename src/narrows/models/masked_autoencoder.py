"""A masked autoencoder, trained to fill in hidden patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.gaussian import Point
from narrows.parts.masked_patches import MaskedModel, PatchMask, masked_networks


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
