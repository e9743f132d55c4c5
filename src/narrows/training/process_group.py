"""Several processes, on one machine or on many, that train one model together.

Every process holds the whole model and takes its share of each batch; what they must agree on goes
through the few exchanges here, each of which does nothing where a process is alone. All of them are
collective: every process of the group must come to them, in the same order.

Gradients are averaged in one exchange after all players' backward passes, rather than by
``DistributedDataParallel``: that wants every parameter in every backward pass, and so has no
answer for players that sit a step out, for frozen or unused layers, or for shares of unequal size.

What is the same as in one process, up to rounding: the order of the rows, the batches, every loss
and every step. What cannot be: the noise that a model draws inside a step, of which each process
draws its own, seeded by ``rank_seed``.
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
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import Parameter

from narrows.exceptions import NarrowsError, ParameterError, WorkerError
from narrows.training.torchrun import launched

# How long a process waits for the others: the slowest may still be reading its data, but one whose
# machine has gone must not be waited for all night. One that merely died is noticed at once.
TIMEOUT = timedelta(minutes=5)
HEARING = timedelta(seconds=3)  # how long to listen for what the first process says of an error

_groups = itertools.count()  # two groups that meet at one place must not read each other's notes


@dataclass(frozen=True)
class World:
    """The group of processes that this one is in: its own number, and how many there are."""

    rank: int = 0
    size: int = 1


def world() -> World:
    """The group this process is in now; a group of one where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


# ------------------------------------------------------------------ forming a group


@contextmanager
def joined() -> Iterator[None]:
    """Be in the group that torchrun asks for; nothing where there is none, or one already."""
    if not launched() or not dist.is_available() or dist.is_initialized():
        yield
        return
    with _exchange():
        store, rank, size = _meeting()
    own = dist.PrefixStore(f"narrows{next(_groups)}", store)  # type: ignore[attr-defined]
    try:
        with group(own, rank, size):
            yield
    except NarrowsError as error:
        error.told = _told(own, rank, str(error))
        raise


def _told(store: Any, rank: int, sentence: str) -> bool:
    """Whether the first process says this sentence too, so that nobody need hear it again."""
    try:
        if rank == 0:
            store.set("said", sentence)
            return False
        store.wait(["said"], HEARING)
        return sentence in store.get("said").decode()
    except (RuntimeError, ValueError):  # it said nothing in time, or has gone
        return False


@functools.cache
def _meeting() -> Any:
    # kept: one process can serve its port once only, and a later group meets there again
    return next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]


@contextmanager
def group(store: Any, rank: int, size: int) -> Iterator[None]:
    """Form the group that meets at ``store``, and leave it at the end."""
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"  # by where a tensor is
    with _exchange():
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            "Another process of this run ended or could not be reached, so that this one cannot "
            "go on; look at what the others said, and start the run again."
        ) from error


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", world().rank))


def local_device(device: torch.device) -> torch.device:
    """``cuda`` as this process's own one of the devices; any other as it is."""
    if world().size == 1 or device.type != "cuda":
        return device
    if local_rank() >= torch.cuda.device_count():
        refuse_devices(local_rank() + 1)
    own = torch.device("cuda", local_rank())
    torch.cuda.set_device(own)
    return own


def refuse_devices(n: int) -> NoReturn:
    """Say that there are fewer CUDA devices than processes."""
    raise ParameterError(
        f"{n} processes on this machine need {n} CUDA devices, but there are "
        f"{torch.cuda.device_count()}; ask for fewer with n_devices, or give device='cpu'."
    )


def rank_seed(seed: int) -> int:
    """The seed of what this process draws inside a step; the first process keeps ``seed``."""
    rank = world().rank
    if rank == 0:
        return seed
    return int(np.random.SeedSequence((seed, rank)).generate_state(1, np.uint64)[0])


@contextmanager
def rank_zero_only() -> Iterator[None]:
    """Of several processes only the first warns: all would warn of the same."""
    if world().rank == 0:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ------------------------------------------------------------------ exchanges


def _device() -> torch.device:
    # a group that the user made may speak by nccl alone, which carries nothing from the CPU
    alone = "gloo" not in str(dist.get_backend_config())
    return torch.device("cuda", torch.cuda.current_device()) if alone else torch.device("cpu")


def agree(elapsed: float, stop: bool = False) -> tuple[float, bool]:
    """The first process's time, and whether any process wants to stop: the same everywhere."""
    here = world()
    if here.size == 1:
        return elapsed, stop
    told = torch.tensor(
        [elapsed if here.rank == 0 else 0.0, float(stop)], dtype=torch.float64, device=_device()
    )
    with _exchange():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return float(told[0]), bool(told[1])


def all_reduce_reason(reason: str) -> str:
    """Why some process wants to stop, "" where none does: the same everywhere."""
    return max(all_gather(reason)) if agree(0.0, bool(reason))[1] else ""


def summed(value: float) -> float:
    """The sum of every process's number, the same bits everywhere."""
    if world().size == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=_device())
    with _exchange():
        dist.all_reduce(told)
    return float(told)


def all_gather(value: Any) -> list[Any]:
    """Every process's object, in their order, on all of them."""
    here = world()
    if here.size == 1:
        return [value]
    found: list[Any] = [None] * here.size
    with _exchange():
        dist.all_gather_object(found, value)
    return found


def broadcast(value: Any) -> Any:
    """The first process's object, on all of them."""
    return all_gather(value if world().rank == 0 else None)[0]


@contextmanager
def all_or_none() -> Iterator[None]:
    """Leave the block together: where it failed in one process, it fails in all.

    Nothing in the block may be an exchange.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    told = all_gather(error if error is None else str(error)) if world().size > 1 else []
    if error is None:
        failed = [(rank, said) for rank, said in enumerate(told) if said is not None]
        if failed:
            error = WorkerError(f"Process {failed[0][0]} cannot go on: {failed[0][1]}")
    if error is not None:
        raise error


# ------------------------------------------------------------------ training together


@torch.no_grad()
def align(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's numbers, in place."""
    if world().size == 1:
        return
    with _exchange():
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def align_buffers(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's running statistics: a user's own layers may keep some."""
    align(buffer for module in modules for buffer in module.buffers())


@torch.no_grad()
def average(
    players: Mapping[str, list[Parameter]],
    losses: dict[str, Tensor],
    terms: dict[str, Tensor],
    n_rows: int,
) -> None:
    """Make the gradients of the players in ``losses``, and the numbers, those of the whole batch.

    A loss is a mean over a share of the batch, and shares may differ by a row: each process counts
    as much as it has rows. Everything goes in one exchange.
    """
    if world().size == 1:
        return
    moved = [p for name in losses for p in players[name]]
    # a parameter without a gradient was not used here; elsewhere it may have been
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in moved]
    numbers = [v.detach().to(moved[0].device) for v in (*losses.values(), *terms.values())]
    flat = torch.cat([t.reshape(-1) for t in (*gradients, *numbers)])
    marks = flat.new_tensor([float(n_rows), *(float(p.grad is not None) for p in moved)])
    flat = torch.cat([flat * n_rows, marks])
    with _exchange():
        dist.all_reduce(flat)
    sizes = [*(p.numel() for p in moved), len(numbers), 1, len(moved)]
    *means, values, count, used = flat.split(sizes)
    for p, gradient, mean, n in zip(moved, gradients, means, used.tolist(), strict=True):
        # what no process has used must not decay either
        p.grad = gradient.copy_((mean / count).view_as(p)) if n else None
    averages = iter((values / count).unbind())
    for found in (losses, terms):
        found.update({name: next(averages) for name in found})


def check_shares(n_rows: int, n_batches: int, batch_size: int) -> None:
    """Refuse batches that would leave a process without a row."""
    size = world().size
    if n_rows // n_batches < size:
        raise ParameterError(
            f"Batches of {min(batch_size, n_rows)} rows, from {n_rows} rows to train on, cannot be "
            f"shared among {size} processes; give a larger batch_size, or fewer processes."
        )


def same_everywhere(*arrays: Any) -> None:
    """Refuse rows that differ between the processes: each must be given all of them."""
    if world().size == 1:
        return
    looks = all_gather([None if a is None else (a.shape, str(a.dtype), _look(a)) for a in arrays])
    if any(look != looks[0] for look in looks):
        raise ParameterError(
            "The processes of this run were given different data; give every one of them the same "
            "rows, in the same order."
        )


def _look(rows: Any) -> bytes:
    """A few numbers spread over the rows: enough to tell one file from another."""
    if not isinstance(rows, np.ndarray):
        rows = np.concatenate([rows[0:1], rows[len(rows) - 1 : len(rows)]])
    seen: bytes = rows.reshape(-1)[:: max(1, rows.size // 4096)].tobytes()
    return seen


# ------------------------------------------------------------------ asking together


def shared_out(
    rows: NDArray[Any], work: Callable[[NDArray[Any], int], NDArray[Any]], step: int
) -> NDArray[Any]:
    """``work(rows, 0)``, each process doing a part; all get the whole answer, in order.

    ``work`` gets a part and the number of its first row. Parts are whole batches of ``step`` rows,
    so that every row is in the batch that it is in without a group: the answers are the same bits.
    """
    here = world()
    if -(-len(rows) // step) < here.size or here.size == 1:
        return work(rows, 0)
    starts = np.array_split(np.arange(0, len(rows), step), here.size)[here.rank]
    first, end = int(starts[0]), int(starts[-1]) + step
    with all_or_none():
        part = work(rows[first:end], first)
    return np.concatenate(all_gather(part))
