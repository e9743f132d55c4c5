"""Quantisers as latents: codes from a finite set, so that each row becomes a few whole numbers.

A code of ``latent_dim`` numbers is cut into equal pieces, and each piece is one of a finite set.
All of these say what helps a prior over whole numbers: ``n_values`` (how many there are to choose
from), ``positions(latent_dim)`` (how many are chosen), ``indices(z)`` and ``vectors(indices)``.
Here are those with a book that is learned; ``finite`` has the others.
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
from narrows.parts.latents.base import Latent, straight_through

DEAD = 32  # codes seen for each vector of a book without which one counts as dead
POINTS = 2**14  # that a book's start is found from
BEAM = 32  # beginnings that are kept while a sum is taken apart into vectors of several books
EXACT = "donot_use_mm_for_euclid_dist"  # differences, not products that autocast would cut short


class Quantizer(Latent):
    """What every finite set of codes answers."""

    space = "codes"
    n_values: int = 0

    def positions(self, latent_dim: int) -> int:
        """How many whole numbers stand for a code of ``latent_dim`` numbers."""
        return latent_dim

    def chosen(self, h: Tensor) -> Tensor:
        """The whole numbers of f's answers: (B, latent_dim) → (B, positions)."""
        return self.indices(self.mode(h))

    def indices(self, z: Tensor) -> Tensor:
        """The whole numbers of codes: (B, latent_dim) → (B, positions), from 0 to n_values − 1."""
        raise NotImplementedError

    def vectors(self, indices: Tensor) -> Tensor:
        """The codes of whole numbers: (B, positions) → (B, latent_dim)."""
        raise NotImplementedError


def piece(name: str, asked: int | str, latent_dim: int, usual: int) -> int:
    """``asked``, which must divide ``latent_dim``; "auto": its largest divisor up to ``usual``."""
    if isinstance(asked, str):
        return max(n for n in range(1, usual + 1) if latent_dim % n == 0)
    if latent_dim % asked:
        raise ParameterError(
            f"A code of latent_dim={latent_dim} numbers cannot be cut into pieces of "
            f"{name}={asked}; choose latent_dim={asked * math.ceil(latent_dim / asked)}, or "
            f'{name}="auto".'
        )
    return int(asked)


def encoded(model: Any, x: Tensor) -> Tensor:
    """f's answer to x as it is given."""
    x, given = model._apart(x)
    answer: Tensor = model._encoded(model._observed(x)[0], given)
    return answer.float()


def tally(points: Tensor, found: Tensor, n: int) -> Tensor:
    """Sums of the points that fell to each of n vectors, and how many did: (n, width + 1)."""
    # a product, not scattered sums, whose order is left to chance on a GPU
    fell = (found[:, None] == torch.arange(n, device=found.device)).float()
    return fell.T @ F.pad(points, (0, 1), value=1.0)


def k_means(points: Tensor, n: int, rng: Generator, steps: int = 10) -> Tensor:
    """n centres of (m, width) points: k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's steps.

    Where there are fewer different points than centres, some centres are equal.
    """
    apart, chosen = points.new_full((len(points),), 1e30), []
    for _ in range(n):
        pick = torch.multinomial(apart.clamp_min(1e-30), 1, generator=rng)
        chosen.append(points[pick])
        apart = torch.minimum(apart, (points - chosen[-1]).square().sum(1))
    centres = torch.cat(chosen)
    for _ in range(steps):
        nearest = torch.cdist(points, centres, compute_mode=EXACT).argmin(1)
        sums, counts = tally(points, nearest, n).tensor_split([-1], 1)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1.0), centres)
    return centres


class VectorQuantizer(Quantizer):
    """z = e_j, the vector of a learned book that is nearest to h, for each piece of the code.

        loss = β ‖h − sg(e_j)‖² + ‖sg(h) − e_j‖²      (the last: update="gradient" only)

    g's gradient goes straight through to h. The book starts at k-means of training rows, so that
    a model that starts at PCA starts at quantised PCA; vectors that nobody uses for a while are
    moved to codes of the batch.

    Source: van den Oord, Vinyals & Kavukcuoglu, "Neural discrete representation learning",
    arXiv:1711.00937; moving averages: its appendix A.1.

    Parameters
    ----------
    n_embeddings : int
        Vectors in the book, shared by all pieces.
    code_dim : int or "auto"
        Numbers in a piece; must divide latent_dim.
    commitment : float
        β.
    update : str
        "average": each vector follows the mean of the h that fell to it. "gradient": it is a
        parameter like any other.
    decay : float
        Of that average: the share of the past that stays in each step; 0 is Lloyd's step.

    Raises
    ------
    ParameterError
        ``code_dim`` does not divide latent_dim.
    """

    n_levels = 1
    dropout = 0.0
    usual: ClassVar[int] = 4  # numbers in a piece
    book: Tensor  # (n_levels, n_embeddings, width)
    used: Tensor  # (n_levels, n_embeddings): codes that fell to each, averaged over steps
    idle: Tensor  # (n_levels, n_embeddings): codes seen since each was used

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

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.width = piece("code_dim", self.code_dim, sizes.latent_dim, self.usual)
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
    def init_from_data(self, x: Tensor, model: Any, rng: Generator) -> None:
        """Begin with the centres of these rows' codes, each book with what those before leave."""
        h = torch.cat([encoded(model, part) for part in x.split(256)])
        left = h.reshape(-1, self.width)[:POINTS]
        for level in range(self.n_levels):
            self.book[level].copy_(k_means(left, self.n_values, rng))
            nearest = torch.cdist(left, self.book[level], compute_mode=EXACT).argmin(1)
            left = left - self.book[level][nearest]

    def positions(self, latent_dim: int) -> int:
        pieces = latent_dim // piece("code_dim", self.code_dim, latent_dim, self.usual)
        return pieces * self.n_levels

    def _chosen(self, found: Tensor) -> Tensor:
        """The vectors of each book: (m, n_levels) → (m, n_levels, width)."""
        return self.book[torch.arange(self.n_levels, device=found.device), found]

    @torch.no_grad()
    def _search(self, points: Tensor, beam: int = 1) -> Tensor:
        """Which vectors add up to nearly each point, each book for what is left: (m, n_levels)."""
        left = points[:, None]
        found = torch.zeros((len(points), 1, 0), dtype=torch.long, device=points.device)
        for book in self.book:
            apart = torch.cdist(left.flatten(0, 1), book, compute_mode=EXACT)
            apart = apart.view(len(points), -1)
            best = apart.topk(min(beam, apart.shape[1]), largest=False).indices
            begun, j = best[..., None] // self.n_values, best[..., None] % self.n_values
            left = left.take_along_dim(begun, 1) - book[j[..., 0]]
            found = torch.cat([found.take_along_dim(begun, 1), j], -1)
        return found[:, 0]

    def _found(self, codes: Tensor, beam: int = 1) -> Tensor:
        """The search for every piece of codes, some at a time."""
        parts = codes.float().reshape(-1, self.width).split(1 + 2**24 // (beam * self.n_values))
        return torch.cat([self._search(part, beam) for part in parts])

    def chosen(self, h: Tensor) -> Tensor:
        return self._found(h).view(len(h), -1)

    def indices(self, z: Tensor) -> Tensor:
        """Of several books by a search, which misses the right ones of about one in a thousand."""
        return self._found(z, 1 if self.n_levels == 1 else BEAM).view(len(z), -1)

    def vectors(self, indices: Tensor) -> Tensor:
        return self._chosen(indices.reshape(-1, self.n_levels)).sum(1).reshape(len(indices), -1)

    def mode(self, h: Tensor) -> Tensor:
        """The nearest vectors (of several books: the sums of each one's nearest)."""
        return self._chosen(self._found(h)).sum(1).view(h.shape)

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        points = h.float().reshape(-1, self.width)
        found = self._found(h)
        chosen = self._chosen(found)
        sums = chosen.cumsum(1)
        left = (points[:, None] - sums + chosen).detach()  # what each book was asked for
        loss = self.commitment * (points[:, None] - sums.detach()).square()
        if self.update == "gradient" and self.training:  # what moves the book judges no model
            loss = loss + (left - chosen).square()
        kept = self._kept(len(h), len(points), rng)
        z = straight_through(points, sums[:, -1] if kept is None else (chosen * kept).sum(1))
        extras = {"indices": found.view(len(h), -1), "left": left}
        # summed over a row, and left to the objective to average: no weight grows with the batch
        rows = loss.reshape(len(h), -1).sum(1)
        return Node(z=z.view(h.shape).expand(K, *h.shape), loss=rows, extras=extras)

    def _kept(self, n_rows: int, n_points: int, rng: Generator | None) -> Tensor | None:
        """Which books g sees, (n_points, n_levels, 1); None: all of them."""
        if not (self.training and self.dropout):
            return None
        device = self.book.device
        hit, depth = torch.rand((2, n_rows, 1), generator=rng, device=device)
        depth = torch.where(hit < self.dropout, (depth * self.n_levels).floor(), self.n_levels)
        kept = torch.arange(self.n_levels, device=device) <= depth
        return kept.float().repeat_interleave(n_points // n_rows, 0)[..., None]

    @torch.no_grad()
    def after_step(self, trace: Trace) -> None:
        """Let the book follow its codes, and move the vectors that nobody uses to some of them."""
        left, n = trace.nodes[0].extras["left"], self.n_values
        found = trace.nodes[0].extras["indices"].view(-1, self.n_levels)
        totals = torch.stack([tally(left[:, i], found[:, i], n) for i in range(self.n_levels)])
        picks = torch.randint(len(left), (n,), generator=trace.rng, device=left.device)
        every = torch.cat([totals, left[picks].transpose(0, 1)], -1)
        if dist.is_available() and dist.is_initialized():  # the books of a group stay the same
            every[..., self.width + 1 :] *= dist.get_rank() == 0
            dist.all_reduce(every)
        sums, counts, fresh = every.tensor_split([self.width, self.width + 1], -1)
        if self.update == "average":
            past = self.decay * self.used[..., None]
            used = past + (1 - self.decay) * counts
            moved = (past * self.book + (1 - self.decay) * sums) / used
            self.book.copy_(torch.where(used > 1e-6, moved, self.book))  # unused ones stay
            self.used.copy_(used[..., 0])
        hits = counts[..., 0]
        self.idle.copy_(torch.where(hits > 0, 0.0, self.idle + hits.sum(1, keepdim=True)))
        dead = self.idle >= DEAD * n
        self.book.copy_(torch.where(dead[..., None], fresh, self.book))
        self.used.masked_fill_(dead, 1.0)
        self.idle.masked_fill_(dead, 0.0)


class ResidualQuantizer(VectorQuantizer):
    """z = Σ_l e_l: several books, each for what those before leave of h; see `VectorQuantizer`.

        loss = Σ_l β ‖h − sg(e_1 + ... + e_l)‖²

    Source: Lee et al., "Autoregressive image generation using residual quantization",
    arXiv:2203.01941.

    Parameters
    ----------
    n_levels : int
        Books.
    dropout : float
        The share of the training rows of which g sees only the first few books, as many as chance
        wants (Zeghidour et al., arXiv:2107.03312), so that the first say most.
    book, more
        The parameters of ``VectorQuantizer``.
    """

    usual = 8

    def __init__(self, *book: Any, n_levels: int = 4, dropout: float = 0.0, **more: Any) -> None:
        super().__init__(*book, **more)
        self.n_levels, self.dropout = n_levels, dropout
