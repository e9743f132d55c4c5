"""A source that counts what is read of it, and the threads that read ahead."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray


class Counted:
    """A source in memory that counts what is read of it."""

    def __init__(self, rows: NDArray[Any], chunks: tuple[int, ...] | None = None) -> None:
        self.rows, self.chunks, self.asked = rows, chunks, list[tuple[int, int]]()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        self.asked.append((start, stop))
        return self.rows[start:stop]


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("narrows-read")]
