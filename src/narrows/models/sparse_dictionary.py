"""Wide codes of which few numbers are active."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import parameter
from narrows.parts.latents.dictionary import ActiveFew, Revival, dictionary_networks
from narrows.parts.objective import Term


@dataclass(kw_only=True, eq=False, repr=False)
class SparseDictionary(Estimator):
    """min over f, g of E_x ½‖x − g(z)‖² + λ R_dead, z = the n largest of relu(f(x)), g linear.

    Each number of the code stands for one direction of x, of length 1
    (``decoder_.directions()``); a row uses ``n_active`` of them. The code is wider than the input:
    ``latent_dim="auto"`` is four times as wide. PCA beside it has ``n_active`` numbers.

    Source: Gao et al., "Scaling and evaluating sparse autoencoders", arXiv:2406.04093.

    Parameters
    ----------
    n_active : int
        Numbers of the code that a row uses.
    revival : float
        λ, the weight of what dead numbers of the code are asked to say of what is left.

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
    revival: float = parameter(
        1 / 32, "Weight of the loss that revives dead numbers of the code.", kind=float, low=0
    )

    def _parts(self) -> Parts:
        return Parts(
            q=ActiveFew(int(self.n_active)),
            terms=(Term("revival", Revival(int(self.n_active)), float(self.revival)),),
            networks=dictionary_networks,
        )
