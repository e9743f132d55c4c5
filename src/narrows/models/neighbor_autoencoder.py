"""Autoencoders whose codes are maps of the data: what is near in x is near in the code."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.parameters import nonnegative, parameter
from narrows.parts.latents.gaussian import Point
from narrows.parts.objective import Term
from narrows.parts.regularizers.neighbors import DistanceCorrelation, NeighborContrast


@dataclass(kw_only=True, eq=False, repr=False)
class NeighborAutoencoder(Estimator):
    """min over f, g of E_x D(x, g(z)) + λ KL(p ‖ q) − γ corr(‖x − x'‖, ‖z − z'‖), z = f(x).

    p is uniform over the ``n_neighbors`` rows of the batch nearest to x (in scaled units), and q
    proportional to 1 / (1 + ‖z − z'‖²) over all its other rows: the loss InfoNC-t-SNE. With
    ``latent_dim=2`` the codes are a map to look at. Unlike t-SNE and UMAP, it has a place for new
    rows, one by one and whatever else is in the batch, and every point of it decodes.

    The weights that a fit ends with, and early stopping, are judged by the sum of all terms on the
    validation rows, the same blocks of rows at every epoch, as the neighbours are the purpose:
    the reconstruction alone would prefer weights with fewer of them.

    From λ = 3 to 30 trustworthiness hardly differs on MNIST and on digits; 100 keeps large shapes
    better, neighbours less. With batches of 512 digits keep fewer neighbours, MNIST as many.
    Surfaces whose shape matters, such as a Swiss roll, want a small λ: at 0.1 nine paths in ten
    are within 2 % of their true length (benchmarks/results/neighbors.md, geodesics.md).

    Source: Damrich et al., "From t-SNE to UMAP with contrastive learning", arXiv:2206.01816; Böhm,
    Berens & Kobak, "Unsupervised visualization of image datasets using contrastive learning",
    arXiv:2210.09879.

    Parameters
    ----------
    n_neighbors : int
        Neighbours of a row among the rows of its batch.
    neighbor_weight : float
        λ: the larger, the more neighbours are kept, at the cost of the reconstruction.
    distance_weight : float
        γ: large distances are kept as well.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import NeighborAutoencoder
    >>> X = load_digits().images[:200]
    >>> NeighborAutoencoder(latent_dim=2, max_epochs=3, random_state=0).fit(X).transform(X).shape
    (200, 2)
    """

    n_neighbors: int = parameter(3, "Neighbours of a row in its batch.", kind=int, low=1)
    neighbor_weight: float = nonnegative(10.0, "Weight of the loss of neighbours.")
    distance_weight: float = nonnegative(0.0, "Weight of the correlation of distances.")

    def _parts(self) -> Parts:
        neighbors = NeighborContrast(int(self.n_neighbors))
        terms = [Term("neighbors", neighbors, float(self.neighbor_weight))]
        if self.distance_weight:
            terms.append(Term("distances", DistanceCorrelation(), float(self.distance_weight)))
        return Parts(q=Point(), terms=tuple(terms))
