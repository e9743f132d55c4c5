"""Quantisers with learned codebooks: each row becomes a few whole numbers.

A code of ``latent_dim`` numbers is cut into equal pieces, and each piece is one of a finite set.
``Quantizer`` is the contract; ``scalar_quantizer`` holds those without a codebook.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Node, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.latents.base import Latent, straight_through

DEAD_AFTER = 32  # times the codebook's size: a vector that none of so many codes chose is dead
MAX_KMEANS_POINTS = 2**14  # codes that the first codebook is fitted to
BEAM_WIDTH = 32  # candidates kept when a sum is split into vectors of several codebooks
MAX_DISTANCES = 2**24  # distances held at once in a search: 64 MiB of float32
# cdist by differences: its products of matrices would be rounded to bfloat16 under autocast
EXACT = "donot_use_mm_for_euclid_dist"


class Quantizer(Latent):
    """A latent with a finite set of codes, and what a prior over their indices needs.

    Attributes
    ----------
    n_values : int
        How many values each index can take.
    """

    space = "codes"
    n_values: int = 0

    def positions(self, latent_dim: int) -> int:
        """How many indices a code of ``latent_dim`` numbers has."""
        return latent_dim

    def chosen(self, h: Tensor) -> Tensor:
        """The indices for f's output: (B, latent_dim) → (B, positions)."""
        return self.indices(self.mode(h))

    def indices(self, z: Tensor) -> Tensor:
        """The indices of codes: (B, latent_dim) → (B, positions), from 0 to n_values − 1."""
        raise NotImplementedError

    def vectors(self, indices: Tensor) -> Tensor:
        """The codes of indices: (B, positions) → (B, latent_dim)."""
        raise NotImplementedError


def piece_size(name: str, value: int | str, latent_dim: int, default: int) -> int:
    """``value``, which must divide ``latent_dim``; "auto": the largest divisor up to ``default``.

    ``name`` is the parameter, for the message of the ParameterError.
    """
    if isinstance(value, str):
        return max(n for n in range(1, default + 1) if latent_dim % n == 0)
    if latent_dim % value:
        raise ParameterError(
            f"{name}={value} does not divide latent_dim={latent_dim}; choose "
            f'latent_dim={value * math.ceil(latent_dim / value)}, or {name}="auto".'
        )
    return int(value)


def sums_and_counts(points: Tensor, nearest: Tensor, n: int) -> Tensor:
    """Of n vectors, the sum and the number of points nearest to each: (n, width + 1)."""
    counted = F.pad(points, (0, 1), value=1.0)
    if points.device.type == "cpu":
        return counted.new_zeros(n, counted.shape[1]).index_add_(0, nearest, counted)
    # a matrix product, because scattered sums have no fixed order on a GPU
    one_hot = (nearest[:, None] == torch.arange(n, device=nearest.device)).float()
    return one_hot.T @ counted


def k_means(points: Tensor, n: int, rng: Generator, steps: int = 10) -> Tensor:
    """n centres of (m, width) points: k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's steps.

    With fewer different points than centres, some centres are equal.
    """
    squares, chosen = points.new_full((len(points),), 1e30), []
    for _ in range(n):
        # 1e-30 keeps a probability to draw from once every point is a centre
        pick = torch.multinomial(squares.clamp_min(1e-30), 1, generator=rng)
        chosen.append(points[pick])
        squares = torch.minimum(squares, (points - chosen[-1]).square().sum(1))
    centres = torch.cat(chosen)
    for _ in range(steps):
        nearest = torch.cdist(points, centres, compute_mode=EXACT).argmin(1)
        sums, counts = sums_and_counts(points, nearest, n).tensor_split([-1], 1)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1.0), centres)
    return centres


class VectorQuantizer(Quantizer):
    """z = e_j, the vector of a learned codebook that is nearest to h, for each piece of the code.

        loss = β ‖h − sg(e_j)‖² + ‖sg(h) − e_j‖²      (the second term: update="gradient" only)

    sg stops the gradient; g's gradient passes straight through to h. The codebook starts at
    k-means of training rows, so that a model that starts at PCA starts at quantised PCA; vectors
    that were not used for a while are replaced by codes of the batch.

    Source: van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning",
    arXiv:1711.00937; moving averages: its appendix A.1.

    Parameters
    ----------
    n_embeddings : int
        Vectors in the codebook, which all pieces share.
    code_dim : int or "auto"
        Numbers in a piece; must divide latent_dim. auto: the largest divisor up to 4.
    commitment : float
        β.
    update : str
        "average": each vector follows the mean of the h nearest to it. "gradient": it is a
        parameter like any other.
    decay : float
        Weight of the past in that average; 0 is Lloyd's step.

    Raises
    ------
    ParameterError
        ``code_dim`` does not divide latent_dim.
    """

    starts_from_data = True
    n_levels = 1
    default_code_dim: ClassVar[int] = 4
    book: Tensor  # (n_levels, n_embeddings, width)
    used: Tensor  # (n_levels, n_embeddings): a moving average of the codes nearest to each vector
    idle: Tensor  # (n_levels, n_embeddings): codes seen since each vector was last used

    def __init__(
        self,
        n_embeddings: int = 256,
        code_dim: int | str = "auto",
        commitment: float = 0.25,
        update: str = "average",
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.n_values, self.code_dim, self.commitment = n_embeddings, code_dim, commitment
        self.update, self.decay = update, decay

    def extra_repr(self) -> str:
        return f"{self.n_levels} × {self.n_values} vectors"

    def _piece_size(self, latent_dim: int) -> int:
        return piece_size("code_dim", self.code_dim, latent_dim, self.default_code_dim)

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.width = self._piece_size(sizes.latent_dim)
        shape = (self.n_levels, self.n_values)
        book = torch.empty((*shape, self.width), dtype=torch.float32)
        if rng is not None:
            book.normal_(generator=rng)
        if self.update == "gradient":
            self.book = nn.Parameter(book)
        else:
            self.register_buffer("book", book)
        self.register_buffer("used", torch.ones(shape, dtype=torch.float32))
        self.register_buffer("idle", torch.zeros(shape, dtype=torch.float32))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Start at the k-means centres of these rows' codes; each level at those of the residual
        that the levels before leave.
        """
        h = torch.cat([model.encoder_output(part) for part in x.split(256)])
        residual = h.reshape(-1, self.width)[:MAX_KMEANS_POINTS]
        for level in range(self.n_levels):
            self.book[level].copy_(k_means(residual, self.n_values, rng))
            nearest = torch.cdist(residual, self.book[level], compute_mode=EXACT).argmin(1)
            residual = residual - self.book[level][nearest]

    def positions(self, latent_dim: int) -> int:
        return latent_dim // self._piece_size(latent_dim) * self.n_levels

    def _lookup(self, indices: Tensor) -> Tensor:
        """The vectors of every level: (m, n_levels) → (m, n_levels, width)."""
        return self.book[torch.arange(self.n_levels, device=indices.device), indices]

    @torch.no_grad()
    def _search(self, points: Tensor, beam: int = 1) -> Tensor:
        """The indices (m, n_levels) of vectors that add up to nearly each point, level by level.

        ``beam`` candidates are kept from level to level; 1 is the greedy search of the paper.
        """
        residual = points[:, None]
        found = torch.zeros((len(points), 1, 0), dtype=torch.long, device=points.device)
        for book in self.book:
            distances = torch.cdist(residual.flatten(0, 1), book, compute_mode=EXACT)
            distances = distances.view(len(points), -1)
            if beam == 1:  # twice as fast as topk
                best = distances.min(1, keepdim=True).indices
            else:
                best = distances.topk(min(beam, distances.shape[1]), largest=False).indices
            candidate, j = best[..., None] // self.n_values, best[..., None] % self.n_values
            residual = residual.take_along_dim(candidate, 1) - book[j[..., 0]]
            found = torch.cat([found.take_along_dim(candidate, 1), j], -1)
        return found[:, 0]

    def _nearest(self, codes: Tensor, beam: int = 1) -> Tensor:
        """The search for every piece of codes, in parts that limit its memory."""
        size = 1 + MAX_DISTANCES // (beam * self.n_values)
        parts = codes.float().reshape(-1, self.width).split(size)
        return torch.cat([self._search(part, beam) for part in parts])

    def chosen(self, h: Tensor) -> Tensor:
        return self._nearest(h).view(len(h), -1)

    def indices(self, z: Tensor) -> Tensor:
        """With several levels by a beam search, which is wrong for about one code in a thousand."""
        return self._nearest(z, 1 if self.n_levels == 1 else BEAM_WIDTH).view(len(z), -1)

    def vectors(self, indices: Tensor) -> Tensor:
        return self._lookup(indices.reshape(-1, self.n_levels)).sum(1).reshape(len(indices), -1)

    def mode(self, h: Tensor) -> Tensor:
        """The nearest vectors; with several levels their sums."""
        return self._lookup(self._nearest(h)).sum(1).view(h.shape)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        points = h.float().reshape(-1, self.width)
        found = self._nearest(h)
        chosen = self._lookup(found)
        sums = chosen.cumsum(1)
        residual = (points[:, None] - sums + chosen).detach()  # what each level approximates
        loss = self.commitment * (points[:, None] - sums.detach()).square()
        if self.update == "gradient" and self.training:  # not part of a model's score
            loss = loss + (residual - chosen).square()
        z = straight_through(points, sums[:, -1])
        extras = {"indices": found.view(len(h), -1), "residual": residual}
        # summed over a row; the objective averages over rows, so no weight grows with the batch
        rows = loss.reshape(len(h), -1).sum(1)
        return Node(z=z.view(h.shape).expand(K, *h.shape), loss=rows, extras=extras)

    @torch.no_grad()
    def after_step(self, trace: Trace) -> None:
        """Move the codebook towards its codes, and replace dead vectors by codes of the batch."""
        residual, n = trace.nodes[0].extras["residual"], self.n_values
        found = trace.nodes[0].extras["indices"].view(-1, self.n_levels)
        levels = range(self.n_levels)
        totals = torch.stack([sums_and_counts(residual[:, i], found[:, i], n) for i in levels])
        picks = torch.randint(len(residual), (n,), generator=trace.rng, device=residual.device)
        every = torch.cat([totals, residual[picks].transpose(0, 1)], -1)
        if dist.is_available() and dist.is_initialized():  # all processes keep equal codebooks
            every[..., self.width + 1 :] *= dist.get_rank() == 0  # rank 0 chooses replacements
            dist.all_reduce(every)
        sums, counts, fresh = every.tensor_split([self.width, self.width + 1], -1)
        if self.update == "average":
            past = self.decay * self.used[..., None]
            used = past + (1 - self.decay) * counts
            moved = (past * self.book + (1 - self.decay) * sums) / used
            self.book.copy_(torch.where(used > 1e-6, moved, self.book))  # never divide by about 0
            self.used.copy_(used[..., 0])
        hits = counts[..., 0]
        self.idle.copy_(torch.where(hits > 0, 0.0, self.idle + hits.sum(1, keepdim=True)))
        dead = self.idle >= DEAD_AFTER * n
        self.book.copy_(torch.where(dead[..., None], fresh, self.book))
        self.used.masked_fill_(dead, 1.0)
        self.idle.masked_fill_(dead, 0.0)


class ResidualQuantizer(VectorQuantizer):
    """z = Σ_l e_l: several codebooks, each for the residual that the levels before leave of h.

        loss = Σ_l β ‖h − sg(e_1 + ... + e_l)‖²

    Source: Lee et al., "Autoregressive image generation using residual quantization",
    arXiv:2203.01941.

    Parameters
    ----------
    n_levels : int
        Number of codebooks.
    book, more
        The parameters of ``VectorQuantizer``; code_dim="auto" goes up to 8.
    """

    default_code_dim = 8

    def __init__(self, *book: Any, n_levels: int = 4, **more: Any) -> None:
        super().__init__(*book, **more)
        self.n_levels = n_levels
