"""Quantisers: from real numbers to whole ones, and how gradients pass them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows.parts.latents.base import straight_through

SOFT = 2 / 3  # of a run: until then the decoder sees noise, from then on whole numbers
N_LOGISTICS = 3
LEAST_LIKELY = 1e-9  # of a whole number, so that a logarithm always exists


class UniformNoise(nn.Module):
    """y ↦ y + u, u ~ U(−½, ½), which stands for rounding while there must be a gradient.

    Returns two: what the rate is taken of, always noisy, and what the decoder sees, noisy at first
    and rounded with a straight-through gradient in the last third of a run ("soft then hard",
    Guo et al., ICML 2021, arXiv:2104.05168). Without training both are rounded.

    Source: Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017.
    """

    def forward(self, y: Tensor, progress: float, rng: Generator) -> tuple[Tensor, Tensor]:
        whole = y.round()
        if not self.training:
            return whole, whole
        noisy = y + torch.rand(y.shape, generator=rng, device=y.device, dtype=y.dtype) - 0.5
        return noisy, noisy if progress < SOFT else straight_through(y, whole)

    def __repr__(self) -> str:
        return "uniform noise, then rounding"


class FSQ(nn.Module):
    """y ↦ round(h tanh(y / h)) with h = (n − 1) / 2: n whole values a number, no codebook to learn.

    Source: Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", ICLR 2024,
    arXiv:2309.15505. Dividing by h inside keeps the slope at 0 one, so that a code that starts
    within the range starts unchanged.

    Parameters
    ----------
    n_values : int
        Odd, at least 3, so that 0 is among them.
    """

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self.n_values = n_values

    def forward(self, y: Tensor, progress: float, rng: Generator) -> tuple[Tensor, Tensor]:
        reach = (self.n_values - 1) / 2
        bounded = reach * torch.tanh(y / reach)
        whole = straight_through(bounded, bounded.round())
        return whole, whole

    def __repr__(self) -> str:
        return f"FSQ of {self.n_values} values"


class LogisticMixture(nn.Module):
    """The prior of whole numbers, a mixture of three logistics for each table and channel.

        P(k) = Σᵢ πᵢ [ σ((k + ½ − μᵢ) / sᵢ) − σ((k − ½ − μᵢ) / sᵢ) ]

    Source: the factorised prior of Ballé et al., "Variational image compression with a scale
    hyperprior", ICLR 2018, with the mixture of Salimans et al., "PixelCNN++", ICLR 2017.

    Parameters
    ----------
    n_tables, n_channels : int
        One table for each quality, one channel for each number of the code.
    """

    def __init__(self, n_tables: int, n_channels: int) -> None:
        super().__init__()
        shape = (n_tables, n_channels, N_LOGISTICS)
        self.location = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.logit = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def start(self, deviations: Tensor) -> None:
        """Begin with channels of these standard deviations, (n_tables, n_channels)."""
        scale = (deviations.clamp_min(0.05) * math.sqrt(3) / math.pi).log()
        spread = torch.tensor([-0.7, 0.0, 0.7])
        self.log_scale.copy_(scale[..., None] + spread)

    def __repr__(self) -> str:
        n_tables, n_channels, _ = self.logit.shape
        return f"a mixture of {N_LOGISTICS} logistics for each of {n_tables} × {n_channels} numbers"

    def nats(self, k: Tensor, whole: Tensor, table: Tensor) -> Tensor:
        """−log P(k), (B,): k is (B, channels, ...), ``table`` (B,); ``whole`` is of no use here."""
        return self.each(k, table).flatten(1).sum(1)

    def each(self, k: Tensor, table: Tensor) -> Tensor:
        """−log P(k), elementwise."""
        k = k.unsqueeze(-1)
        extra = [1] * (k.ndim - 3)

        def mine(p: Tensor) -> Tensor:
            return p[table].view(len(table), p.shape[1], *extra, N_LOGISTICS)

        scale = mine(self.log_scale).exp()
        away = (k - mine(self.location)).abs()  # the tail is where differences keep their digits
        inside = torch.sigmoid((0.5 - away) / scale) - torch.sigmoid((-0.5 - away) / scale)
        weights = F.softmax(mine(self.logit), dim=-1)
        return -(weights * inside).sum(-1).clamp_min(LEAST_LIKELY).log()

    @torch.no_grad()
    def probabilities(self, reach: int) -> Tensor:
        """P(k) for k from −reach to reach, (n_tables, n_channels, 2·reach + 1)."""
        k = torch.arange(-reach, reach + 1, device=self.logit.device, dtype=torch.float32)
        n_tables, n_channels, _ = self.logit.shape
        k = k.expand(n_tables, n_channels, -1)
        nats = self.each(k, torch.arange(n_tables, device=k.device))
        return (-nats).exp()
