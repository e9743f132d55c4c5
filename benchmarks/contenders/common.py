"""What every contender gets: the task, and the monitor that times it. Imports no library."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sets import Split

BATCH, RATE = 128, 1e-3
FOREVER = 1_000_000  # epochs, if seconds are the limit


@dataclass(frozen=True)
class Task:
    """One network on one set, for ``epochs`` passes or for ``seconds``."""

    network: str  # "dense" | "conv"
    shape: tuple[int, ...]  # of a row: (d,) or (H, W)
    latent: int
    seed: int
    epochs: int | None = None
    seconds: float | None = None
    hidden: tuple[int, ...] | None = None

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden widths of the dense encoder: 512 and 256 for 784 pixels, fewer for less."""
        if self.hidden is not None:
            return self.hidden
        first = min(512, max(64, 2 ** math.ceil(math.log2(2 * self.features))))
        return first, first // 2

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the conv encoder: 32 and 64 for 28 by 28 pixels."""
        return tuple(min(256, 32 * 2**i) for i in range(len(self.sizes) - 1))

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """The image's size, and its size after each stage, until no side is longer than 7."""
        sizes = [self.shape]
        while max(sizes[-1]) > 7 or len(sizes) == 1:
            sizes.append(tuple((s + 1) // 2 for s in sizes[-1]))
        return sizes

    @property
    def extra(self) -> list[tuple[int, ...]]:
        """``output_padding`` of each transposed convolution, from the code on."""
        pairs = list(zip(self.sizes[1:], self.sizes[:-1], strict=True))[::-1]
        return [
            tuple(big - (2 * s - 1) for s, big in zip(small, large, strict=True))
            for small, large in pairs
        ]

    @property
    def most_epochs(self) -> int:
        """``epochs``, or more than any number of seconds allows."""
        return FOREVER if self.epochs is None else self.epochs


class Monitor:
    """Times training and the end of each epoch, and tells whether the seconds are used up."""

    def __init__(self, seconds: float | None) -> None:
        self.limit = math.inf if seconds is None else seconds
        self.marks: list[float] = []
        self.facts: dict[str, Any] = {}
        self.started = self.seconds = 0.0
        self.rows: int | None = None  # trained on in an epoch, where not all were

    def start(self) -> None:
        self.started = time.perf_counter()

    def over(self) -> bool:
        return time.perf_counter() - self.started >= self.limit

    def mark(self) -> None:
        """An epoch has ended."""
        self.marks.append(time.perf_counter() - self.started)

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self.started

    @property
    def epoch_seconds(self) -> list[float]:
        """Of each whole epoch."""
        return [b - a for a, b in pairwise([0.0, *self.marks])]


class Contender(Protocol):
    """What ``peers.py`` asks of every library."""

    def __init__(self, task: Task, train: Split) -> None: ...

    def train(self, watch: Monitor) -> None: ...

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        """Of ready rows, in their units and shape."""
        ...


class TimeIsUp(Exception):
    """Leaves a library's loop that offers no other way out."""
