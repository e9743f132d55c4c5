"""Worker processes, started from Python: for ``n_devices`` without torchrun.

Workers are plain new interpreters that are told what to do by a file, so that a script needs no
``if __name__ == "__main__"`` and a notebook, a test or ``python -`` can start them too. Arrays lie
beside that file and are mapped, not copied to each worker through a pipe.
"""

from __future__ import annotations

import io
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from narrows.exceptions import NarrowsError, WorkerError

GRACE = 15.0  # seconds that the others get to end by themselves once one has failed
ALIGNED = 64  # bytes: where an array may start

# What torchrun, or a launcher like it, sets in the environment of each process that it starts.
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether torchrun, or a launcher like it, started this process as one of several."""
    return all(v in os.environ for v in TORCHRUN_VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def given_rank() -> int:
    """The rank that torchrun gave this process; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched() else 0


# An interrupt while torch is being imported would only print a trace; it is heard of later.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = {path!r}; from narrows.training.launcher import work; "
    "from narrows.training.process_group import form_group; "
    "work(form_group, {folder!r}, {rank}, {size}, {parent})"
)


def run_workers(n: int, task: Callable[..., Any], *arguments: Any) -> Any:
    """``task(*arguments)`` in ``n`` new processes that form one group; the first one's answer.

    What the first one warns of is warned of here. An error of ``task`` is raised here as itself.

    Raises
    ------
    WorkerError
        A worker ended before its work was done.
    """
    with TemporaryDirectory(prefix="narrows-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _pack(folder / "task", (task, arguments))
        workers = [_start(folder, rank, n) for rank in range(n)]
        try:
            with _passing_on(workers) as terminated:
                _wait(workers, folder / "stop")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        if terminated:
            raise SystemExit(128 + signal.SIGTERM)
        return _outcome(folder, workers)


@contextmanager
def _passing_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """A SIGTERM goes to the workers, which end with a checkpoint where they keep one."""
    heard: list[int] = []
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield heard
        return

    def terminate(number: int, frame: Any) -> None:
        heard.append(number)
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _start(folder: Path, rank: int, n: int) -> subprocess.Popen[bytes]:
    import torch

    threads = str(max(1, torch.get_num_threads() // n))
    several = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, "LOCAL_RANK": str(rank), **dict.fromkeys(several, threads)}
    if sys.platform == "linux":  # nothing of this needs to be heard outside this machine
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    words = START.format(path=sys.path, folder=str(folder), rank=rank, size=n, parent=os.getpid())
    return subprocess.Popen(
        [sys.executable, "-c", words], stdin=subprocess.DEVNULL, env=environment
    )


def _wait(workers: Sequence[subprocess.Popen[bytes]], stop: Path) -> None:
    """Until all have ended, or one has failed and the others have had their time."""
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        if deadline == float("inf") and any(worker.returncode for worker in workers):
            deadline = time.monotonic() + GRACE
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            # workers at work heard it too, and end by themselves with what they have; asked
            # again, nobody waits for them
            if stop.exists():
                raise
            stop.touch()


def _outcome(folder: Path, workers: Sequence[subprocess.Popen[bytes]]) -> Any:
    """The first worker's answer, or the error that says most."""
    found = [_unpack(_answer(folder, rank)) for rank in range(len(workers))]
    errors = [answer["error"] for answer in found if answer and answer["error"] is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, WorkerError)):
        if not isinstance(error, WorkerError):
            raise error
    for rank, answer in enumerate(found):
        if answer is None:
            code = workers[rank].returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise WorkerError(
                f"Worker process {rank} of {len(workers)} {how} before its work was done; where "
                "memory ran out, ask for fewer with n_devices."
            )
    if errors:
        raise errors[0]
    assert found[0] is not None
    for warning in found[0]["warnings"]:
        warnings.warn(warning, stacklevel=4)
    return found[0]["result"]


def _answer(folder: Path, rank: int) -> Path:
    return folder / f"answer{rank}"


# ------------------------------------------------------------------ in a worker


def work(form_group: Any, folder: str, rank: int, size: int, parent: int) -> None:
    """What a worker does from its start to its end."""
    import torch
    import torch.distributed as dist

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    place = Path(folder)
    answer: dict[str, Any] = {"result": None, "error": None, "warnings": []}
    try:
        with _caught() as caught:
            task, arguments = _unpack(place / "task")
            store = dist.FileStore(str(place / "meeting"), size)  # type: ignore[attr-defined]
            with form_group(store, rank, size):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if (place / "stop").exists():
                    raise KeyboardInterrupt
                result = task(*arguments)
        answer.update(result=result if rank == 0 else None, warnings=caught)
    except BaseException as error:
        answer["error"] = _portable(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the answer is not to be lost now
    _pack(_answer(place, rank), answer)
    sys.exit(0 if answer["error"] is None else 1)


def _end_with(parent: int) -> None:
    """A worker whose parent was killed has nobody to work for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _caught() -> Iterator[list[Warning]]:
    """The warnings of the block, which are for the parent to give."""
    kept: list[Warning] = []
    with warnings.catch_warnings(record=True) as caught:
        yield kept
        kept += [w.message for w in caught if isinstance(w.message, Warning)]


def _portable(error: BaseException) -> BaseException:
    """The error as another process can read it."""
    if not isinstance(error, NarrowsError):
        error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} in a worker process: {error}")
    return error


# ------------------------------------------------------------------ objects in files


def _pack(path: Path, content: Any) -> None:
    """Write any object to ``path``, its arrays to a file beside it; a memory map as its place."""
    import cloudpickle
    import numpy as np

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, item: Any) -> Any:
            if isinstance(item, np.memmap) and (place := _place(item)) is not None:
                return np.memmap, place
            return super().reducer_override(item)

    buffers: list[pickle.PickleBuffer] = []
    written = io.BytesIO()
    Pickler(written, protocol=5, buffer_callback=buffers.append).dump(content)
    data, places = written.getvalue(), []
    with path.with_suffix(".arrays").open("wb") as stream:
        for buffer in buffers:
            raw = buffer.raw()
            stream.write(bytes(-stream.tell() % ALIGNED))
            places.append((stream.tell(), raw.nbytes))
            stream.write(raw)
    beside = path.with_suffix(".part")
    beside.write_bytes(pickle.dumps((data, places)))
    beside.replace(path)  # a worker that was killed leaves no half answer


def _place(mapped: Any) -> tuple[Any, ...] | None:
    """What maps the same rows of the same file again; None where it is more than rows of a file."""
    import numpy as np

    whole = getattr(mapped, "_mmap", None)
    file = getattr(mapped, "filename", None)
    if whole is None or file is None or mapped.mode == "c" or not mapped.flags.c_contiguous:
        return None
    # a slice keeps the offset of the map it was cut from, whose pages begin at a round place
    pages = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
    begin = np.frombuffer(whole, np.uint8).__array_interface__["data"][0]
    offset = pages + mapped.__array_interface__["data"][0] - begin
    return str(file), mapped.dtype, "r", offset, mapped.shape


def _unpack(path: Path) -> Any:
    """The object at ``path``, None where there is none; its arrays are mapped, not read."""
    if not path.is_file():
        return None
    data, places = pickle.loads(path.read_bytes())
    with path.with_suffix(".arrays").open("rb") as stream:
        # a copy on write: what a task changes is its own
        size = os.fstat(stream.fileno()).st_size
        whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) if size else b""
    view = memoryview(whole)
    return pickle.loads(data, buffers=[view[at : at + length] for at, length in places])
