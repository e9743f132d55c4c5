"""R that compares the rows of a batch: neighbours stay neighbours in the code, distances distances.

Both terms compare every row with the others of its block, ``BLOCK_ROWS`` rows in the order of the
batch (the last block has the rest). An encoder trained with them still computes the code of a row
from that row alone. With several processes each compares the rows of its own share of a batch, in
training and in validation: scores of runs with other numbers of processes cannot be compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from narrows._types import Trace
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.regularizers.base import Regularizer

BLOCK_ROWS = 512  # time and memory grow with the square


def squared_distances(a: Tensor) -> Tensor:
    """‖a_i − a_j‖² of the rows of a (..., B, d), (..., B, B), by products in full precision."""
    a = a - a.mean(-2, keepdim=True)  # far from 0 the difference of squares would lose digits
    squares = a.square().sum(-1)
    return (squares[..., None] + squares[..., None, :] - 2.0 * a @ a.mT).clamp_min(0.0)


class ComparesRows(Regularizer):
    """A term of the squared distances between rows, averaged over the rows of all blocks."""

    needs, compares_rows = frozenset({"smooth"}), True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        # no autocast: a difference of squares in bfloat16 would be noise
        with torch.autocast(trace.x.device.type, enabled=False):
            x = trace.x.detach().flatten(1)
            x, z = (a if a.dtype == torch.float64 else a.float() for a in (x, trace.z.flatten(2)))
            parts = zip(x.split(BLOCK_ROWS), z.split(BLOCK_ROWS, 1), strict=True)
            nats = [
                len(a) * self.of_distances(squared_distances(a), squared_distances(b))
                for a, b in parts
            ]
            return torch.stack(nats).sum() / len(x)

    def of_distances(self, x: Tensor, z: Tensor) -> Tensor:
        """The term, (), of squared distances of rows (B, B) and of their codes (K, B, B)."""
        raise NotImplementedError


class NeighborContrast(ComparesRows):
    """Σ_j p_ij log(p_ij / q_ij), averaged over rows i: the nearest rows have the nearest codes.

    p_ij is 1/k for the k rows of the batch nearest to x_i, otherwise 0, and
    q_ij = (1 + ‖z_i − z_j‖²)⁻¹ / Σ_{m≠i} (1 + ‖z_i − z_m‖²)⁻¹. Up to the constant −log k that is
    the InfoNCE loss −log q_ij of the pairs (i, j), with all other rows of the batch as negatives
    and the Student-t kernel of t-SNE: InfoNC-t-SNE. At least 0, and 0 for fewer than 3 rows.

    Source: Damrich, Böhm, Hamprecht & Kobak, "From t-SNE to UMAP with contrastive learning", ICLR
    2023, arXiv:2206.01816; in batches: Böhm, Berens & Kobak, "Unsupervised visualization of image
    datasets using contrastive learning", ICLR 2023, arXiv:2210.09879 (there the neighbours are
    augmented copies of an image).

    Parameters
    ----------
    n_neighbors : int
        k, at least 1; in a smaller batch all other rows.
    """

    def __init__(self, n_neighbors: int = 3) -> None:
        super().__init__()
        if n_neighbors < 1:
            raise ParameterError(f"n_neighbors must be at least 1. Got {n_neighbors}.")
        self.n_neighbors = n_neighbors

    def extra_repr(self) -> str:
        return f"n_neighbors={self.n_neighbors}"

    def of_distances(self, x: Tensor, z: Tensor) -> Tensor:
        k = min(self.n_neighbors, len(x) - 1)
        if k < 1:
            return 0.0 * z.sum()
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        nearest = x.masked_fill(itself, torch.inf).topk(k, largest=False).indices
        distance = z.log1p()  # −log of the kernel
        near = distance.gather(-1, nearest.expand(len(z), -1, -1)).mean()
        every = (-distance).masked_fill(itself, -torch.inf).logsumexp(-1).mean()
        return near + every - torch.log(x.new_tensor(k))


class DistanceCorrelation(ComparesRows):
    """−corr(‖x_i − x_j‖, ‖z_i − z_j‖) over the pairs of a batch: far rows have far codes.

    Between −1, for codes that are x up to scale, rotation and shift, and 1; 0 for fewer than 3
    rows, or where either distance is the same for all pairs. Its weight turns it into nats.
    """

    def of_distances(self, x: Tensor, z: Tensor) -> Tensor:
        if len(x) < 3:
            return 0.0 * z.sum()
        pairs = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        found = []
        for squares in (x[None], z):
            d = squares[:, pairs]
            # the root has no gradient at 0: equal rows count as very near
            d = d.clamp_min(1e-8 * d.detach().mean() + 1e-30).sqrt()
            found.append(d - d.mean(-1, keepdim=True))
        a, b = found
        return -F.cosine_similarity(a, b, dim=-1).mean()
