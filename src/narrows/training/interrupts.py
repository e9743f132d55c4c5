"""Ctrl-C and SIGTERM as a wish to stop, granted between two steps, when nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Why to stop: "", "interrupted" (Ctrl-C) or "terminated" (SIGTERM)."""

    reason: str = ""


@contextmanager
def stop_signals(stop: Stop, *, on_terminate: bool) -> Iterator[None]:
    """While it lasts, a first Ctrl-C only gives ``stop`` its reason; a second interrupts.

    With ``on_terminate`` SIGTERM does the same; without, it ends the process as ever. Only the main
    thread hears signals, and a handler that the user has set stays in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.reason:
            raise KeyboardInterrupt
        stop.reason = "interrupted"

    def terminate(number: int, frame: FrameType | None) -> None:
        stop.reason = "terminated"

    usual = {signal.SIGINT: (signal.default_int_handler, interrupt)}
    if on_terminate:
        usual[signal.SIGTERM] = (signal.SIG_DFL, terminate)  # type: ignore[assignment]
    before = {s: signal.getsignal(s) for s, (old, _) in usual.items() if signal.getsignal(s) is old}
    for number in before:
        signal.signal(number, usual[number][1])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
