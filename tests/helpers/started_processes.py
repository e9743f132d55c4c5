"""Processes that tests start, and that say by a file ``ready`` when they train."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def training(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, which trains by now, in a process group of its own; none of it outlives this."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            while process.poll() is None and not (folder / "ready").exists():
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
