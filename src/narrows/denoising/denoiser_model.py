"""The composition for whole images: what f and g make of a corrupted image is taken off it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from narrows._types import Clock, Node, Trace
from narrows.denoising.unet import Pyramid, Rebuild, multiple
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.model import in_words
from narrows.parts.objective import WeightedObjective


class Restorer(nn.Module):
    """y ↦ y − g(f(y, s)), for images of any size with noise of level s.

    The code is f's coarsest map. As nothing has a bias, a·y with level a·s gives a times the
    answer, for every a ≥ 0.

    Parameters
    ----------
    f, g : Pyramid and Rebuild
    D : Distance
        Between the answer and the target.
    c : Module
        One of ``targets``: from an image an input, a target and the level of the input's noise.
    """

    def __init__(self, f: Pyramid, g: Rebuild, D: Likelihood, c: nn.Module) -> None:
        super().__init__()
        self.f, self.g, self.D, self.c = f, g, D, c

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int = 1) -> Trace:
        given, target, level = self.c.pair(x, rng)  # type: ignore[operator]
        maps = self.f(given, level)
        output = (given - self.g(maps)).float()[None]
        with torch.autocast(x.device.type, enabled=False):
            distance = self.D.distance(target, output)
        return Trace(target, given, None, [Node(maps[-1][None])], output, distance, clock)

    def restore(self, y: Tensor, level: float) -> Tensor:
        """The image (B, C, H, W) without its noise; sides must be multiples of ``cell``."""
        restored: Tensor = y - self.g(self.f(y, y.new_full((len(y), 1, 1, 1), level)))
        return restored

    @property
    def cell(self) -> int:
        """What both sides of an image must be multiples of."""
        return multiple(self.f.widths)

    def describe(self) -> dict[str, str]:
        """One line for each letter of the equation."""
        letters: dict[str, Any] = {"f": self.f, "g": self.g, "c": self.c, "D": self.D}
        words = {name: in_words(part) for name, part in letters.items() if part is not None}
        for name in ("f", "g"):
            words[name] += f"  ({sum(p.numel() for p in letters[name].parameters()):,} parameters)"
        return words


class RestoringObjective(WeightedObjective):
    """E D(x, y − g(f(y))), and as its score minus the mean PSNR, in decibels: lower is better.

        PSNR = −10 log₁₀ mean (x − x')², white being 1

    Against targets that are noisy themselves it only ranks models.
    """

    def score(self, trace: Trace) -> Tensor:
        error = (trace.x - trace.output[0]).square().flatten(1).mean(1)
        return error.clamp_min(1e-12).log10().mean() * 10

    def in_words(self, score: float) -> str:
        """The PSNR that a score stands for."""
        return f"{-score:.2f} dB"
