"""The parts of SparseDictionary: an overcomplete code of which each row uses a few numbers.

z = top_n relu(W (x − b) + a),   g(z) = Σ_j z_j d_j + b,   ‖d_j‖ = 1
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from narrows._types import Node, Sizes, Trace
from narrows.parts import Composition
from narrows.parts.latents.gaussian import TopK
from narrows.parts.networks.architectures import NetworkOptions, create, validate_plain_ends
from narrows.parts.regularizers.base import Regularizer

DEAD_AFTER_ROWS = 2000  # a number of the code that none of so many rows used counts as dead


class UsedDirections(torch.autograd.Function):
    """Σ_j z_j w_j / ‖w_j‖ over the directions ``used`` (U,), for z (B, U) and all weights w.

    A batch uses few directions of a wide dictionary. ``sparse``: the gradient of w is a sparse
    tensor, which is added to another term's in place.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, used: Tensor, sparse: bool) -> Tensor:
        w = weight.index_select(0, used)
        lengths = torch.linalg.vector_norm(w, dim=1).clamp_min(1e-12)
        # z_j / ‖w_j‖: dividing w, which has more elements, would take longer than the product
        scaled = z / lengths
        ctx.save_for_backward(w, lengths, scaled, used)
        ctx.shape, ctx.sparse = weight.shape, sparse
        output: Tensor = scaled @ w
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        w, lengths, scaled, used = ctx.saved_tensors
        along = slope @ w.T
        # a change along w_j changes its length alone
        stretch = (scaled * along).sum(0) / lengths.square()
        of_w = torch.addcmul(scaled.T @ slope, stretch[:, None], w, value=-1)
        if ctx.sparse:
            whole = torch.sparse_coo_tensor(
                used[None], of_w, ctx.shape, check_invariants=False, is_coalesced=True
            )
        else:
            whole = of_w.new_zeros(ctx.shape).index_copy_(0, used, of_w)
        return along / lengths, whole, None, None


class DictionaryDecoder(nn.Module):
    """g: z ↦ Σ_j z_j d_j + b, with d_j = w_j / ‖w_j‖ of length 1 for any weights w."""

    def __init__(self, latent_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(latent_dim, math.prod(shape)))
        self.bias = nn.Parameter(torch.empty(math.prod(shape)))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]} directions"

    def directions(self) -> Tensor:
        """d, (latent_dim, features), each row of unit length."""
        return F.normalize(self.weight, dim=1)

    def forward(self, z: Tensor) -> Tensor:
        if z.requires_grad and not self.training:  # then numbers that are 0 get a gradient, too
            return (z @ self.directions() + self.bias).view(-1, *self.shape)
        used = (z.abs().sum(0) != 0).nonzero()[:, 0]
        return (self._combine(z.index_select(1, used), used) + self.bias).view(-1, *self.shape)

    def combine_few(self, values: Tensor, indices: Tensor) -> Tensor:
        """Σ_i values_i d_indices_i, from two tensors (B, n): (B, features).

        The gradient of the weights is sparse.
        """
        is_used = torch.zeros(len(self.weight), dtype=torch.bool, device=values.device)
        is_used[indices.flatten()] = True
        used, position = is_used.nonzero()[:, 0], is_used.cumsum(0) - 1
        z = values.new_zeros(len(values), len(used)).scatter(1, position[indices], values)
        return self._combine(z, used, sparse=True)

    def _combine(self, z: Tensor, used: Tensor, sparse: bool = False) -> Tensor:
        # so few numbers take longer to be cast to bfloat16 than to be multiplied
        with torch.autocast(z.device.type, enabled=False):
            x: Tensor = UsedDirections.apply(z.float(), self.weight, used, sparse)  # type: ignore[no-untyped-call]
        return x


class DictionaryEncoder(nn.Module):
    """f: x ↦ W (x − b) + a, with the b of g."""

    def __init__(self, latent_dim: int, g: DictionaryDecoder) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(g.weight))
        self.bias = nn.Parameter(torch.empty(latent_dim))
        self._g = (g,)  # in a tuple, so that g's parameters are not registered a second time

    def forward(self, x: Tensor) -> Tensor:
        b = self._g[0].bias
        # minus W (b − b): b's gradient is that of W (x − b), from one product with a vector
        with torch.autocast(x.device.type, enabled=False):
            a = self.bias - self.weight.detach() @ (b - b.detach())
        return F.linear(x.flatten(1) - b.detach(), self.weight, a)


def dictionary_networks(
    name: str, options: NetworkOptions, rng: Generator | None
) -> tuple[nn.Module, nn.Module]:
    """f and g, as ``build_networks``; W starts as the transpose of g's directions."""
    validate_plain_ends(options)
    g = create(lambda: DictionaryDecoder(options.latent_dim, options.shape), rng)
    f = create(lambda: DictionaryEncoder(options.latent_dim, g), rng)
    if rng is not None:
        with torch.no_grad():
            f.weight.copy_(g.directions())
    return f, g


class TopKReLU(TopK):
    """z_j = relu(h_j) where it is among a row's n largest, else 0.

    ``idle`` counts for every number of the code the rows since it was last used.
    """

    overcomplete = starts_from_data = True
    idle: Tensor  # (latent_dim,)

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.register_buffer("idle", torch.zeros(sizes.latent_dim, dtype=torch.float32))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, model: Composition, rng: Generator) -> None:
        """Scale f by least squares, so that g(z) is as large as x: directions overlap, and their
        sum would be too large.
        """
        output = model.g(self.mode(model.f(x))).flatten(1)
        square = float(output.square().sum())
        factor = float((output * x.flatten(1)).sum()) / square if square > 0 else 1.0
        model.f.weight.mul_(max(factor, 0.1))  # never near 0, where nothing would be active

    def pca_dim(self, latent_dim: int) -> int:
        return min(self.n_active, latent_dim)

    def mode(self, h: Tensor) -> Tensor:
        """The code with its largest numbers only, none of them below 0."""
        top = h.topk(min(self.n_active, h.shape[-1]), dim=-1)
        return torch.zeros_like(h).scatter(-1, top.indices, top.values.relu())

    def forward(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        node = super().forward(h, K, rng)
        node.extras["h"] = h
        return node

    @torch.no_grad()
    def after_step(self, trace: Trace) -> None:
        """Count the rows since each number of the code was last used."""
        used = trace.z[0].amax(0) != 0
        self.idle.copy_(torch.where(used, 0.0, self.idle + len(trace.x)))


class DeadLatentLoss(Regularizer):
    """½ ‖e − ê‖² with e = x − g(z), held constant, and ê = Σ_j h_j d_j over dead numbers j.

    A number of the code is dead that none of ``DEAD_AFTER_ROWS`` rows used; of those, each row
    takes the ``n_active`` largest. So they learn what the others leave unexplained. Elements that
    are missing in x count nothing. Unlike in the paper h is used without relu: behind a relu a
    number below 0 has no gradient.

    Source: Gao et al., "Scaling and evaluating sparse autoencoders", arXiv:2406.04093, section 2.4
    ("AuxK").
    """

    any_bound = True

    def __init__(self, n_active: int) -> None:
        super().__init__()
        self.n_active = n_active

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        dead = model.q.idle >= DEAD_AFTER_ROWS
        h = trace.nodes[0].extras["h"]
        residual = (trace.x - trace.output[0]).detach().flatten(1)
        few = torch.where(dead, h, -torch.inf).topk(min(self.n_active, h.shape[1]), dim=1)
        values = few.values.nan_to_num(neginf=0.0)
        left = residual - model.g.combine_few(values, few.indices)
        if trace.mask is not None:
            left = left * trace.mask.flatten(1)
        mean = 0.5 * left.square().sum(1).mean()
        return torch.where(dead.any(), mean, 0.0)  # nothing to revive: no loss
