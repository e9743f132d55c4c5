"""What every contender gets: the task, and the monitor that times it. Imports no library."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sets import Split

BATCH, RATE = 128, 1e-3
DENOISER_BATCH = 16  # images of 64 by 64 pixels, and narrows' default
FOREVER = 1_000_000  # epochs, if seconds are the limit
CHECK_SHARE = 0.05  # of the time, at most, for checks on the rows held out


@dataclass(frozen=True)
class Task:
    """One network on one set, for ``epochs`` passes or for ``seconds``."""

    network: str  # "dense" | "conv" | "vae" (dense) | "denoiser"
    shape: tuple[int, ...]  # of a row: (d,) or (H, W)
    latent: int
    seed: int
    epochs: int | None = None
    seconds: float | None = None
    hidden: tuple[int, ...] | None = None
    bounded: bool = True  # rows lie in [0, 1]
    device: str = "cpu"

    @property
    def batch(self) -> int:
        """Rows in a step."""
        return DENOISER_BATCH if self.network == "denoiser" else BATCH

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden widths of the dense encoder, for every contender: 512 and 256 for 784 pixels."""
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


class Contender:
    """What ``peers.py`` asks of every library."""

    def __init__(self, task: Task, train: Split) -> None:
        raise NotImplementedError

    def train(self, watch: Monitor) -> None:
        raise NotImplementedError

    def reconstruct(self, rows: Split) -> NDArray[np.float32]:
        """Of ready rows, in their units and shape."""
        raise NotImplementedError

    def weights(self) -> Any:
        """A copy of all that training changes; None where the library keeps its best itself."""
        return None

    def restore(self, weights: Any) -> None:
        """Return to weights of before."""


class Monitor:
    """Times training and the end of each epoch, and tells whether the seconds are used up.

    With ``held``, rows held out of training, it keeps the weights whose error on them was lowest:
    it checks them after an epoch if the last check is long enough ago, and when training has ended.
    With ``whole``, all is counted from the first ``start`` on, the library's preparations too.
    """

    def __init__(
        self, seconds: float | None, held: Split | None = None, whole: bool = False
    ) -> None:
        self.limit = math.inf if seconds is None else seconds
        self.held, self.whole = held, whole
        self.marks: list[float] = []
        self.facts: dict[str, Any] = {}
        self.started = self.seconds = 0.0
        self.rows: int | None = None  # trained on in an epoch, where not all were
        self.contender: Contender | None = None
        self.lowest, self.best, self.next_check = math.inf, None, 0.0

    def start(self) -> None:
        if not (self.whole and self.started):
            self.started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def over(self) -> bool:
        return self.elapsed >= self.limit

    def mark(self) -> None:
        """An epoch has ended."""
        self.marks.append(self.elapsed)
        if time.perf_counter() >= self.next_check:
            self.check()

    def check(self) -> None:
        """Keep the weights if no others had a lower error on the rows held out."""
        if self.held is None or self.contender is None:
            return
        began = time.perf_counter()
        error = squared_error(self.contender, self.held)
        if error < self.lowest:
            self.lowest, self.best = error, self.contender.weights()
        ended = time.perf_counter()
        self.next_check = ended + (ended - began) * (1 / CHECK_SHARE - 1)

    def stop(self) -> None:
        self.seconds = self.elapsed

    def finish(self) -> None:
        """Training has ended: check the last weights, and go back to the best."""
        self.seconds = self.seconds or self.elapsed
        self.check()
        if self.contender is not None and self.best is not None:
            self.contender.restore(self.best)

    @property
    def epoch_seconds(self) -> list[float]:
        """Of each whole epoch."""
        return [b - a for a, b in pairwise([0.0, *self.marks])]


def squared_error(contender: Contender, rows: Split) -> float:
    """The mean over all elements of ready rows."""
    import numpy as np

    out = contender.reconstruct(rows)
    return float(np.mean((out.astype(np.float64) - rows.ready) ** 2))


class TimeIsUp(Exception):
    """Leaves a library's loop that offers no other way out."""
