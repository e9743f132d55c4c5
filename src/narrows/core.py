"""The nouns every layer shares: trace, node, clock, the parts' protocols and the error tree.

    NarrowsError
    ├── InputError      the data given cannot be used (also a ValueError)
    │   └── InputTypeError  ... because it holds things that are no numbers (also a TypeError)
    ├── ParameterError  a parameter, or two parts together, make no sense (also a ValueError)
    ├── FileError       a file is missing, damaged, hostile or not ours (also a ValueError)
    │   ├── NotOurFile          ... no compressed file of narrows
    │   ├── UnsupportedVersion  ... of a format that is newer than this narrows
    │   ├── WrongModel          ... compressed with another model than the one given
    │   ├── Truncated           ... it ends too early
    │   ├── Corrupt             ... it holds what no encoder wrote
    │   └── TooLarge            ... it asks for more than is allowed
    └── WorkerError     of several processes that work together, one ended too early

Every message says what was given, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Parameter


class NarrowsError(Exception):
    """Any error narrows raises on purpose."""

    # whether another process of the same run tells the user already; None before they met
    told: bool | None = None
    exit_code = 1  # of the command that ends with it


class InputError(NarrowsError, ValueError):
    """The data given cannot be used."""


class InputTypeError(InputError, TypeError):
    """The data given holds things that are no numbers at all."""


class ParameterError(NarrowsError, ValueError):
    """A parameter is out of range, or two parts together have no meaning."""


class FileError(NarrowsError, ValueError):
    """A file is missing, damaged, hostile, or not a narrows file."""


class NotOurFile(FileError):
    """The file is no compressed file of narrows."""

    exit_code = 3


class UnsupportedVersion(FileError):
    """The compressed file is of a format that this narrows does not know."""

    exit_code = 4


class WrongModel(FileError):
    """The compressed file needs another model than the one given, or one where none was given."""

    exit_code = 5


class Truncated(FileError):
    """The compressed file ends too early."""

    exit_code = 6


class Corrupt(FileError):
    """The compressed file is damaged: it holds what no encoder wrote."""

    exit_code = 7


class TooLarge(FileError):
    """The compressed file asks for more memory or more parts than is allowed."""

    exit_code = 8


class WorkerError(NarrowsError):
    """Of several processes that work together, one ended too early or could not be reached."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where training stands: the step, the progress in [0, 1] and the number of training rows.

    Evaluation always happens at ``progress=1``, so that a score never depends on when it was
    taken, whatever schedules the weights follow.
    """

    step: int = 0
    progress: float = 1.0
    n_rows: int = 1


# A weight is a number, or a function of the clock's progress.
Weight = float | Callable[[float], float]


def weight_at(weight: Weight, clock: Clock) -> float:
    """The value of ``weight`` now."""
    return weight(clock.progress) if callable(weight) else weight


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a part may need to know to make its parameters: the shapes of x and z."""

    shape: tuple[int, ...]  # (d,), (C, L) or (C, H, W)
    latent_dim: int


@dataclass(slots=True)
class Node:
    """One latent variable of one pass.

    ``z`` is (K, B, ...); ``log_q`` and ``log_p`` are (K, B) or None where they have no meaning (a
    point has no density); ``kl`` is (B,), the closed form where one exists; ``loss`` is (B,), what
    a latent asks for itself (a codebook's commitment); ``extras`` is what it hands to regularisers.
    """

    z: Tensor
    log_q: Tensor | None = None
    log_p: Tensor | None = None
    kl: Tensor | None = None
    loss: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """All that one pass produced.

    ``x`` is (B, ...), in scaled units; ``corrupted`` is c(x); ``mask`` is 1 where x counts (None:
    everywhere); ``nodes`` the latent variables; ``output`` g's answer, (K, B, ...); ``distance``
    D(x, g(z)) in nats, summed over the event, (K, B); ``rng`` what regularisers draw from;
    ``terms`` each named term of the objective.
    """

    x: Tensor
    corrupted: Tensor
    mask: Tensor | None
    nodes: list[Node]
    output: Tensor
    distance: Tensor
    clock: Clock
    rng: Generator | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def z(self) -> Tensor:
        """The code of a model with one node, (K, B, ...)."""
        return self.nodes[0].z


class Corruption(Protocol):
    """c: what is done to x before f sees it."""

    def __call__(self, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor | None]:
        """Return c(x) and the mask of what counts in D (None: everything)."""


class Latent(Protocol):
    """q: from f's answer to a node, and to the noise-free code."""

    def n_numbers(self, latent_dim: int) -> int:
        """Numbers f must give for a code of ``latent_dim`` numbers."""

    def __call__(self, h: Tensor, K: int, rng: Generator | None) -> Node:
        """Draw K codes for each row of ``h``, (B, n_numbers(latent_dim))."""

    def mode(self, h: Tensor) -> Tensor:
        """The noise-free code, (B, latent_dim)."""


class Likelihood(Protocol):
    """D: the distance between x and g(z), and what g's answer means."""

    def distance(self, x: Tensor, output: Tensor, mask: Tensor | None) -> Tensor:
        """Nats, summed over the event: x (B, ...) and output (K, B, ...) give (K, B)."""

    def mean(self, output: Tensor) -> Tensor:
        """The reconstruction that ``output`` stands for, in scaled units."""


class Objective(Protocol):
    """(model, trace) → one scalar loss for each player."""

    def __call__(self, model: Any, trace: Trace) -> dict[str, Tensor]:
        """The losses; also fills ``trace.terms``."""

    def players(self, model: Any) -> Mapping[str, list[Parameter]]:
        """Which parameters each player owns, no parameter twice."""
