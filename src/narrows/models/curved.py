"""VAEs whose codes lie in a curved space: a sphere, or the Poincaré ball."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.models.variational import vae_parts
from narrows.parts.latents.hyperbolic import WrappedNormal, WrappedStandardNormal
from narrows.parts.latents.sphere import UniformSphere, VonMisesFisher
from narrows.parts.objective import Term
from narrows.parts.regularizers.kl_and_mmd import KL


@dataclass(kw_only=True, eq=False, repr=False)
class SphericalVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ uniform), z on the unit sphere.

    q is a von Mises-Fisher distribution, ∝ exp(κ(x) ⟨μ(x), z⟩). A sphere has no centre to which the
    prior would draw the codes. ``latent_dim`` is at least 2: a code of k numbers has k − 1 degrees
    of freedom.

    Source: Davidson et al., "Hyperspherical variational auto-encoders", arXiv:1804.00891.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence; 1 is the evidence lower bound.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import SphericalVAE
    >>> X = load_digits().images[:200]
    >>> vae = SphericalVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> bool(abs((vae.transform(X) ** 2).sum(1) - 1).max() < 1e-5)
    True
    """

    _generates = _likely = True

    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        term = Term("kl", KL(), float(self.beta))
        return vae_parts(term, q=VonMisesFisher(), p=UniformSphere())


@dataclass(kw_only=True, eq=False, repr=False)
class PoincareVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z) + β (log q(z | x) − log p(z))], z in a Poincaré ball.

    q and p are normals wrapped around the ball of curvature −c, where volume grows exponentially
    with the distance from the centre, as the number of leaves of a tree does with its depth. In
    place of the paper's gyroplane layer, g gets log_0(z), the tangent vector of z at the centre.

    Source: Mathieu et al., "Continuous hierarchical representations with Poincaré variational
    auto-encoders", arXiv:1901.06033; Nagano et al., arXiv:1902.02992.

    Parameters
    ----------
    curvature : float or "auto"
        c, above 0; auto: 1, and 5 / latent_dim where that is less.
    beta : float
        The weight β of the KL divergence, which is estimated from the draws.

    Raises
    ------
    ParameterError
        The code has too many numbers for the curvature: float32 could not resolve its draws.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import PoincareVAE
    >>> X = load_digits().images[:200]
    >>> vae = PoincareVAE(latent_dim=2, max_epochs=3, random_state=0).fit(X)
    >>> bool((vae.transform(X) ** 2).sum(1).max() < 1), vae.sample(5, random_state=0).shape
    (True, (5, 8, 8))
    """

    _generates = _likely = True

    curvature: float | str = parameter(
        "auto",
        "c, of a ball of curvature -c. auto: 1, and 5 / latent_dim where that is less.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )
    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        q = WrappedNormal(None if isinstance(self.curvature, str) else float(self.curvature))
        return vae_parts(Term("kl", KL(), float(self.beta)), q=q, p=WrappedStandardNormal())
