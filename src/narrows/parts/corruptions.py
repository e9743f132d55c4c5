"""c: what is done to x before f sees it. Every draw comes from the generator given."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


def _uniform(x: Tensor, rng: Generator) -> Tensor:
    return torch.rand(x.shape, generator=rng, device=x.device, dtype=x.dtype)


class Corruption(nn.Module):
    """c(x) with one strength, ``level``; what it means stands in each class."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def extra_repr(self) -> str:
        return f"level={self.level}"

    def corrupt(self, x: Tensor, rng: Generator) -> Tensor:
        """The corrupted x."""
        raise NotImplementedError

    def forward(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor | None]:
        return self.corrupt(x, rng), None  # a denoiser answers for every element: no mask


class GaussianNoise(Corruption):
    """x + ε, ε ~ N(0, level²) in scaled units (level 1 is noise as strong as the data)."""

    def corrupt(self, x: Tensor, rng: Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
        return x + self.level * noise


class MaskingNoise(Corruption):
    """A share ``level`` of the elements set to 0, the mean of scaled data (Vincent et al. 2010)."""

    def corrupt(self, x: Tensor, rng: Generator) -> Tensor:
        return x * (_uniform(x, rng) >= self.level)


class SaltAndPepper(Corruption):
    """A share ``level`` of the elements set to the batch's smallest or largest value."""

    def corrupt(self, x: Tensor, rng: Generator) -> Tensor:
        u = _uniform(x, rng)
        low, high = torch.aminmax(x)
        x = torch.where(u < self.level / 2, low, x)
        return torch.where(u > 1 - self.level / 2, high, x)


class SwapNoise(Corruption):
    """A share ``level`` of the elements taken from a row of the batch at random; for tables."""

    def corrupt(self, x: Tensor, rng: Generator) -> Tensor:
        rows = torch.randint(len(x), x.shape, generator=rng, device=x.device)
        other = x.gather(0, rows)
        return torch.where(_uniform(x, rng) < self.level, other, x)


CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": GaussianNoise,
    "masking": MaskingNoise,
    "salt_and_pepper": SaltAndPepper,
    "swap": SwapNoise,
}
