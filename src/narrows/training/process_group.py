"""Several processes, on one machine or on many, that train one model together.

Every process holds the whole model and computes its share of each batch. Everything they exchange
goes through a `Group`, whose methods are named after those of ``torch.distributed``. They are
collective: every process of the group must call them, in the same order. In a group of one process
they exchange nothing.

Gradients are averaged in one exchange after all players' backward passes, not by
``DistributedDataParallel``: DDP needs every parameter in every backward pass, so it does not
support players that sit a step out, frozen or unused layers, or shares of unequal size.

The same as in one process, up to rounding: the order of the rows, the batches, every loss and
every step. Different: the noise that a model draws inside a step. Each process draws its own,
seeded by ``Group.rank_seed``.
"""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import Parameter

from narrows.exceptions import NarrowsError, ParameterError, WorkerError
from narrows.io.sources import Source
from narrows.training import launched

# Minutes and not seconds: the slowest process may still be reading its data while the others wait.
# Not hours: a machine can fail. A process that ends is noticed at once.
EXCHANGE_TIMEOUT = timedelta(minutes=5)
REPORT_TIMEOUT = timedelta(seconds=3)  # the wait for rank 0's report of an error
COMPARED_NUMBERS = 4096  # numbers by which processes compare their data

T = TypeVar("T")
_group_numbers = itertools.count()  # a later group at the same store must not read old entries


@dataclass(frozen=True)
class Group:
    """The group of processes that this one is in: its rank, and how many processes there are."""

    rank: int = 0
    size: int = 1

    @property
    def share(self) -> tuple[int, int]:
        """Rank and size, as rows take them to give this process its share of a batch."""
        return self.rank, self.size

    # -------------------------------------------------------------- exchange of Python objects

    def all_gather(self, value: T) -> list[T]:
        """The objects of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _worker_errors():
            dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """Rank 0's object."""
        if self.size == 1:
            return value
        found = [value]
        with _worker_errors():
            dist.broadcast_object_list(found, 0)
        return found[0]

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Raise in every process if the block raises in one. It must not use the group itself."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        reports = self.all_gather(None if error is None else str(error))
        if error is None:
            failed = [(rank, report) for rank, report in enumerate(reports) if report is not None]
            if failed:
                error = WorkerError(f"Process {failed[0][0]} cannot go on: {failed[0][1]}")
        if error is not None:
            raise error

    # -------------------------------------------------------------- exchange of numbers

    def all_reduce_sum(self, value: float) -> float:
        """The sum of all processes' numbers; the same bits in each."""
        return float(self._all_reduce([value], dist.ReduceOp.SUM)[0])

    def all_reduce_stop(self, elapsed: float, stop: bool = False) -> tuple[float, bool]:
        """Rank 0's elapsed time, and whether any process wants to stop."""
        mine = [elapsed if self.rank == 0 else 0.0, float(stop)]
        time, stopped = self._all_reduce(mine, dist.ReduceOp.MAX)
        return time, bool(stopped)

    def all_reduce_reason(self, reason: str) -> str:
        """The reason of some process that wants to stop; "" if none does."""
        return max(self.all_gather(reason)) if self.all_reduce_stop(0.0, bool(reason))[1] else ""

    def _all_reduce(self, values: list[float], op: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return values
        # a group made by the user may have nccl alone, which carries no CPU tensors
        cpu = "gloo" in str(dist.get_backend_config())
        device = "cpu" if cpu else f"cuda:{torch.cuda.current_device()}"
        exchanged = torch.tensor(values, dtype=torch.float64, device=device)
        with _worker_errors():
            dist.all_reduce(exchanged, op)
        found: list[float] = exchanged.tolist()
        return found

    # -------------------------------------------------------------- exchange of tensors

    @torch.no_grad()
    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with rank 0's, in place."""
        if self.size == 1:
            return
        with _worker_errors():
            for tensor in tensors:
                dist.broadcast(tensor.data, 0)

    def broadcast_buffers(self, modules: Iterable[nn.Module]) -> None:
        """Give all modules rank 0's buffers: a user's BatchNorm keeps running statistics there."""
        self.broadcast_(buffer for module in modules for buffer in module.buffers())

    @torch.no_grad()
    def average(
        self,
        players: Mapping[str, list[Parameter]],
        losses: dict[str, Tensor],
        terms: dict[str, Tensor],
        n_rows: int,
    ) -> None:
        """Average over the whole batch: the gradients of the players in ``losses``, and numbers.

        A loss is a mean over this process's ``n_rows`` rows, and shares may differ by a row, so
        each process is weighted by its rows. ``losses`` and ``terms`` are updated in place.
        """
        if self.size == 1:
            return
        parameters = [p for name in losses for p in players[name]]
        # a parameter without a gradient was not used here, but may have been in another process
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        numbers = [v.detach().to(parameters[0].device) for v in (*losses.values(), *terms.values())]
        flat = torch.cat([t.reshape(-1) for t in (*gradients, *numbers)])
        used_here = [float(p.grad is not None) for p in parameters]
        flat = torch.cat([flat * n_rows, flat.new_tensor([float(n_rows), *used_here])])
        with _worker_errors():
            dist.all_reduce(flat)
        sizes = [*(p.numel() for p in parameters), len(numbers), 1, len(parameters)]
        *sums, values, count, used = flat.split(sizes)
        for p, gradient, total, n in zip(parameters, gradients, sums, used.tolist(), strict=True):
            # no gradient at all where no process used it, so that it does not decay either
            p.grad = gradient.copy_((total / count).view_as(p)) if n else None
        averages = iter((values / count).unbind())
        for found in (losses, terms):
            found.update({name: next(averages) for name in found})

    # -------------------------------------------------------------- this process in the group

    def rank_seed(self, seed: int) -> int:
        """The seed for what this process draws inside a step; rank 0 keeps ``seed``."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence((seed, self.rank)).generate_state(1, np.uint64)[0])

    def local_device(self, device: torch.device) -> torch.device:
        """``cuda`` becomes this process's own CUDA device; any other device stays."""
        if self.size == 1 or device.type != "cuda":
            return device
        number = int(os.environ.get("LOCAL_RANK", self.rank))
        if number >= torch.cuda.device_count():
            refuse_devices(number + 1)
        own = torch.device("cuda", number)
        torch.cuda.set_device(own)
        return own

    @contextmanager
    def rank_zero_only(self) -> Iterator[None]:
        """Suppress the block's warnings in all processes but rank 0, which would repeat them."""
        if self.rank == 0:
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    # -------------------------------------------------------------- checks and shared work

    def check_batches(self, n_rows: int, n_batches: int, batch_size: int) -> None:
        """Raise ParameterError if batches have fewer rows than there are processes."""
        if n_rows // n_batches < self.size:
            raise ParameterError(
                f"Batches of {min(batch_size, n_rows)} rows, from {n_rows} rows to train on, "
                f"cannot be shared among {self.size} processes; give a larger batch_size, or "
                "fewer processes."
            )

    def check_same_data(self, *given: Source | NDArray[Any] | None) -> None:
        """Raise ParameterError unless every process was given the same rows."""
        if self.size == 1:
            return
        marks = self.all_gather([None if X is None else _mark(X) for X in given])
        if any(mark != marks[0] for mark in marks):
            raise ParameterError(
                "The processes of this run were given different data; give every one of them the "
                "same rows, in the same order."
            )

    def map_rows(
        self, rows: NDArray[Any], work: Callable[[NDArray[Any], int], NDArray[Any]], step: int
    ) -> NDArray[Any]:
        """``work(rows, 0)``, computed in parts, one a process; every process gets the whole.

        ``work`` gets a part and the number of its first row. Parts are whole batches of ``step``
        rows, so that every row is in the same batch as without a group: the same bits.
        """
        if self.size == 1 or -(-len(rows) // step) < self.size:
            return work(rows, 0)
        starts = np.array_split(np.arange(0, len(rows), step), self.size)[self.rank]
        first, end = int(starts[0]), int(starts[-1]) + step
        with self.all_or_none():
            part = work(rows[first:end], first)
        return np.concatenate(self.all_gather(part))


def _mark(rows: Source | NDArray[Any]) -> tuple[Any, ...]:
    """Shape, dtype and a few numbers spread over the rows: enough to distinguish two files."""
    if isinstance(rows, np.ndarray):
        some = rows
    else:
        some = np.concatenate([rows[0:1], rows[len(rows) - 1 : len(rows)]])
    numbers = some.reshape(-1)[:: max(1, some.size // COMPARED_NUMBERS)]
    return rows.shape, str(rows.dtype), numbers.tobytes()


def refuse_devices(n: int) -> NoReturn:
    """Raise ParameterError: there are fewer CUDA devices than processes."""
    raise ParameterError(
        f"{n} processes on this machine need {n} CUDA devices, but there are "
        f"{torch.cuda.device_count()}; give a smaller n_devices, or device='cpu'."
    )


# ------------------------------------------------------------------ forming a group


def current_group() -> Group:
    """The group that this process is in now; a group of one if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return Group()
    return Group(dist.get_rank(), dist.get_world_size())


@contextmanager
def join_group() -> Iterator[Group]:
    """Join the group that torchrun's environment describes, and leave it at the end of the block.

    Gives the current group if there is one, and a group of one without torchrun. An error that
    ends the block is marked as ``reported`` if rank 0 raises it too.
    """
    if not launched() or not dist.is_available() or dist.is_initialized():
        yield current_group()
        return
    with _worker_errors():
        store, rank, size = _rendezvous()
    own = dist.PrefixStore(f"narrows{next(_group_numbers)}", store)  # type: ignore[attr-defined]
    try:
        with form_group(own, rank, size) as group:
            yield group
    except NarrowsError as error:
        error.reported = _reported(own, rank, str(error))
        raise


@contextmanager
def form_group(store: Any, rank: int, size: int) -> Iterator[Group]:
    """Form a group whose processes find each other at a ``store`` of torch.distributed."""
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"  # by the device of a tensor
    with _worker_errors():
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=EXCHANGE_TIMEOUT
        )
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()


@functools.cache
def _rendezvous() -> Any:
    # cached: a process can serve its port only once, and a later group meets there again
    return next(dist.rendezvous("env://", timeout=EXCHANGE_TIMEOUT))  # type: ignore[attr-defined]


def _reported(store: Any, rank: int, message: str) -> bool:
    """Whether rank 0 reports the same error, so that this process need not."""
    try:
        if rank == 0:
            store.set("error", message)
            return False
        store.wait(["error"], REPORT_TIMEOUT)
        return message in store.get("error").decode()
    except (RuntimeError, ValueError):  # no error in rank 0 within the time, or it has ended
        return False


@contextmanager
def _worker_errors() -> Iterator[None]:
    """Turn torch.distributed's errors into WorkerError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            "Another process of this run ended or could not be reached, so this one stops too; "
            "see the messages of the other processes, and start the run again."
        ) from error
