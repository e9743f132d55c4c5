"""Ctrl-C and SIGTERM, and worker processes for ``n_devices=``.

Workers are new interpreters that read what to do from a file. So a script needs no
``if __name__ == "__main__"``, and a notebook, a test or ``python -`` can start them too. Arrays lie
in a second file, which workers map into memory instead of copying it.

The workers are watched here and not by torch.distributed.elastic, which was tried: it replaces the
user's signal handlers for good, starts workers in sessions of their own, where Ctrl-C does not
reach them, and ends all of them at once when one fails, before the others can say why.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from narrows.exceptions import NarrowsError, WorkerError
from narrows.io.write import atomic_write
from narrows.training.process_group import form_group

# Once one worker has failed, the others get this long to end by themselves: one of them may be
# about to write an error that explains the first.
GRACE_SECONDS = 10.0
KILLED_GRACE_SECONDS = 2.0  # after a signal: nothing that the others write explains it better
ARRAY_ALIGNMENT = 64  # bytes: as numpy aligns its own arrays

# SIGINT is ignored until torch is imported, where an interrupt would only print a traceback.
WORKER_CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = {path!r}; from narrows.training.launcher import run_worker; "
    "run_worker({folder!r}, {rank}, {size}, {parent})"
)
Worker = subprocess.Popen[bytes]


@dataclass
class Interrupt:
    """The reason to stop: "", "interrupted" (Ctrl-C) or "terminated" (SIGTERM)."""

    reason: str = ""


@contextmanager
def catch_interrupts(interrupt: Interrupt, *, on_terminate: bool) -> Iterator[None]:
    """Within the block, a first Ctrl-C only sets ``interrupt.reason``; a second one raises.

    With ``on_terminate`` SIGTERM sets it too; otherwise it ends the process as usual. Handlers that
    the user has set stay. Outside the main thread, which alone gets signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupt.reason:
            raise KeyboardInterrupt
        interrupt.reason = "interrupted"

    def handle_terminate(number: int, frame: FrameType | None) -> None:
        interrupt.reason = "terminated"

    replaced = []
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        replaced.append((signal.SIGINT, signal.signal(signal.SIGINT, handle_interrupt)))
    if on_terminate and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        replaced.append((signal.SIGTERM, signal.signal(signal.SIGTERM, handle_terminate)))
    try:
        yield
    finally:
        for number, handler in replaced:
            signal.signal(number, handler)


# ------------------------------------------------------------------ workers for n_devices


def run_workers(n: int, task: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``task(*arguments)`` in ``n`` new processes that form one group; return rank 0's result.

    Rank 0's warnings are given here again. An error of ``task`` is raised here as it is.

    Raises
    ------
    WorkerError
        A worker ended before its work was done.
    """
    with TemporaryDirectory(prefix="narrows-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _dump(folder / "task", (task, arguments))
        workers = [_start(folder, rank, n) for rank in range(n)]
        interrupt = Interrupt()
        try:
            with catch_interrupts(interrupt, on_terminate=True):
                codes = _wait(workers, interrupt, folder / "stop")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        if interrupt.reason == "terminated":
            raise SystemExit(128 + signal.SIGTERM)
        return _outcome(folder, codes)


def _start(folder: Path, rank: int, n: int) -> Worker:
    threads = str(max(1, torch.get_num_threads() // n))
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, "LOCAL_RANK": str(rank), **dict.fromkeys(variables, threads)}
    if sys.platform == "linux":  # on this machine only: no port is open to the network
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    code = WORKER_CODE.format(
        path=sys.path, folder=str(folder), rank=rank, size=n, parent=os.getpid()
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, env=environment)


def _wait(workers: Sequence[Worker], interrupt: Interrupt, stop: Path) -> list[int | None]:
    """Wait until all have ended, or a while after one has failed (``GRACE_SECONDS``).

    Returns exit codes; None for a worker that still runs.
    """
    deadline, passed_on = math.inf, ""
    while True:
        codes = [worker.poll() for worker in workers]  # of all: any may die while others start
        if None not in codes or time.monotonic() >= deadline:
            return codes
        if any(codes):
            killed = not interrupt.reason and any(code is not None and code < 0 for code in codes)
            grace = KILLED_GRACE_SECONDS if killed else GRACE_SECONDS
            deadline = min(deadline, time.monotonic() + grace)
        if interrupt.reason != passed_on:
            passed_on = interrupt.reason
            if passed_on == "terminated":  # workers end, with a checkpoint if they keep one
                for worker in workers:
                    worker.terminate()
            # The terminal sends Ctrl-C to workers too; those that still start check for this file.
            stop.touch()
        time.sleep(0.05)


def _outcome(folder: Path, codes: Sequence[int | None]) -> Any:
    """Rank 0's result; otherwise raise the error that explains most."""
    answers = [_load(_answer_file(folder, rank)) for rank in range(len(codes))]
    errors = [answer.error for answer in answers if answer and answer.error is not None]
    for error in errors:
        if not isinstance(error, WorkerError):  # those only say that another process ended
            raise error
    for rank, code in enumerate(codes):
        if answers[rank] is None and code is not None:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise WorkerError(
                f"Worker process {rank} of {len(codes)} {how} before its work was done; if "
                "memory ran out, give a smaller n_devices."
            )
    if errors:
        raise errors[0]
    for warning in answers[0].warnings:
        warnings.warn(warning, stacklevel=4)
    return answers[0].result


def _answer_file(folder: Path, rank: int) -> Path:
    return folder / f"answer{rank}"


# ------------------------------------------------------------------ in a worker


@dataclass
class _Answer:
    """What a worker writes at its end."""

    result: Any = None  # rank 0's
    error: BaseException | None = None
    warnings: list[Warning] = field(default_factory=list)


def run_worker(folder: str, rank: int, size: int, parent: int) -> None:
    """All that a worker does; ends the process."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    place, answer = Path(folder), _Answer()
    try:
        with warnings.catch_warnings(record=True) as caught:
            task, arguments = _load(place / "task")
            store = dist.FileStore(str(place / "store"), size)  # type: ignore[attr-defined]
            with form_group(store, rank, size):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if (place / "stop").exists():
                    raise KeyboardInterrupt
                result = task(*arguments)
        answer.result = result if rank == 0 else None
        answer.warnings = [w.message for w in caught if isinstance(w.message, Warning)]
    except BaseException as error:
        answer.error = _picklable(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the answer must not be lost now
    _dump(_answer_file(place, rank), answer)
    sys.exit(0 if answer.error is None else 1)


def _end_with(parent: int) -> None:
    """End this worker when its parent has been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _picklable(error: BaseException) -> BaseException:
    """The error, or one with the same message if it cannot be pickled."""
    if not isinstance(error, NarrowsError):
        error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} in a worker process: {error}")
    return error


# ------------------------------------------------------------------ objects in files


def _dump(path: Path, content: object) -> None:
    """Write any object to ``path`` and its arrays to a second file.

    Of a memory map only its place is written: the path of its file and where in it.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, item: Any) -> Any:
            if isinstance(item, np.memmap) and (place := _place_of_map(item)) is not None:
                return np.memmap, place
            return super().reducer_override(item)

    buffers: list[pickle.PickleBuffer] = []
    written = io.BytesIO()
    Pickler(written, protocol=5, buffer_callback=buffers.append).dump(content)
    spans = []
    with path.with_suffix(".arrays").open("wb") as file:
        for buffer in buffers:
            file.write(bytes(-file.tell() % ARRAY_ALIGNMENT))
            start = file.tell()
            file.write(buffer.raw())
            spans.append(slice(start, file.tell()))
    with atomic_write(path) as partial:  # a worker that is killed leaves no half of an answer
        partial.write_bytes(pickle.dumps((written.getvalue(), spans)))


def _load(path: Path) -> Any:
    """The object at ``path``, None if there is none; its arrays are mapped, not read."""
    if not path.is_file():
        return None
    data, spans = pickle.loads(path.read_bytes())
    with path.with_suffix(".arrays").open("rb") as file:
        # copy on write: a task may change its arrays without changing the file
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if file.seek(0, 2) else b""
    return pickle.loads(data, buffers=[memoryview(whole)[span] for span in spans])


def _place_of_map(mapped: np.memmap[Any, Any]) -> tuple[Any, ...] | None:
    """The arguments of np.memmap that map the same rows; None for more than rows of a file."""
    whole = getattr(mapped, "_mmap", None)
    contiguous = mapped.flags.c_contiguous
    if whole is None or mapped.filename is None or mapped.mode == "c" or not contiguous:
        return None
    # a slice keeps the offset of the map it was cut from, which begins at a whole page
    page = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
    start = np.frombuffer(whole, np.uint8).__array_interface__["data"][0]
    offset = page + mapped.__array_interface__["data"][0] - start
    return str(mapped.filename), mapped.dtype, "r", offset, mapped.shape
