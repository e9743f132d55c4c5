"""A VAE whose posterior is a Gaussian bent by a flow."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.flows import KINDS, FlowPosterior
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class FlowVAE(Estimator):
    """min over f, g, F of E_x E_q [−log p(x | z) + β (log q_0(z_0 | x) − log|det J_F| − log p(z))].

    z = F(z_0), z_0 ~ N(μ(x), diag σ²(x)): the posterior may be curved and correlated, which a
    Gaussian of independent numbers is not. The flow F is a row of invertible maps, planar, radial
    or inverse autoregressive.

    Source: Rezende & Mohamed, "Variational inference with normalizing flows", arXiv:1505.05770;
    Kingma et al., "Improving variational inference with inverse autoregressive flow",
    arXiv:1606.04934.

    Parameters
    ----------
    flow : str
        "planar", "radial" or "iaf".
    n_flows : int
        How many maps, one after another.
    beta : float
        The weight β of the KL divergence, which is estimated from the draws.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import FlowVAE
    >>> X = load_digits().images[:200]
    >>> vae = FlowVAE(latent_dim=4, flow="planar", max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    flow: str = parameter("iaf", "The kind of map.", choices=KINDS)
    n_flows: int = parameter(4, "How many maps, one after another.", kind=int, low=1, high=256)
    beta: float = parameter(1.0, "Weight of the KL divergence.", kind=float, low=0)

    def _parts(self) -> Parts:
        return Parts(
            q=FlowPosterior(self.flow, int(self.n_flows)),
            distance="gaussian",
            p=StandardNormal(),
            terms=(Term("kl", KL(), float(self.beta)),),
        )
