"""Data that is read by slices, because it may be larger than memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from narrows.estimators.layout import Array, Layout
from narrows.exceptions import InputError
from narrows.io.sources import Source, nbytes
from narrows.training.streamed_batches import read_blocks

CHUNK = 2**22  # elements checked together, so that checking needs little memory
MEMORY = Path("/proc/meminfo")  # what Linux has in all, and what it grants a container
LIMIT = Path("/sys/fs/cgroup/memory.max")


def is_table(X: Any) -> bool:
    """Whether X is a frame, or a sparse matrix."""
    return hasattr(X, "columns") or hasattr(X, "toarray")


def fits_memory(X: Source, asked: Any) -> bool:
    """Whether X is to be loaded; "auto" loads what takes less than a quarter of free memory."""
    if asked != "auto":
        return bool(asked)
    return nbytes(X) * 4 < _free_memory()


def _free_memory() -> int:
    """Bytes that can be had now: those that only keep copies of files count as free."""
    free = _number(MEMORY, "MemAvailable:")
    free = _unused_pages() if free is None else free * 1024
    limit = _number(LIMIT, r"\A")
    return free if limit is None else min(free, limit)


def _number(path: Path, before: str) -> int | None:
    """The number that a file of the system tells after some words, if there is one."""
    try:
        found = re.search(before + r"\s*(\d+)", path.read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) if found else None


def _unused_pages() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**33  # a system that does not tell


class CheckedRows:
    """The rows of a source in the networks' shape; each slice is read, checked and arranged.

    Without a ``layout`` the rows are as the user has them.
    """

    def __init__(
        self,
        source: Source,
        layout: Layout | None = None,
        names: Any = None,
        missing: bool | None = None,
    ) -> None:
        self.source, self.layout, self.names, self.missing = source, layout, names, missing
        given = np.dtype(source.dtype)
        wide = given.kind == "f" and given.itemsize > 8
        self.dtype = np.dtype(np.float64) if wide else given.newbyteorder("=")
        self.chunks = getattr(source, "chunks", None)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *event)."""
        if self.layout is not None:
            return (len(self), *self.layout.shape)
        return tuple(self.source.shape)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def __getitem__(self, rows: slice) -> Array:
        """These rows; InputError where one holds what is no number."""
        start, stop, _ = rows.indices(len(self))
        found = np.asarray(self.source[start:stop])
        expected = (max(0, stop - start), *self.source.shape[1:])
        if found.shape != expected:
            raise InputError(
                f"Rows {start} to {stop} of X have shape {found.shape}, but X promised {expected}; "
                "its length and shape must be those of what its slices give."
            )
        found = found.astype(self.dtype, copy=False)
        refuse_not_finite(found, self.names, first=start, missing=self.missing)
        return found if self.layout is None else self.layout.to_model(found)


def in_steps(rows: Source, step: int) -> Iterator[tuple[int, Array]]:
    """Every ``step`` rows, and where they begin; of a lazy source many steps are read at once."""
    blocks = [(0, rows)] if isinstance(rows, np.ndarray) else read_blocks(rows, step)
    for first, block in blocks:
        for start in range(0, len(block), step):
            yield first + start, block[start : start + step]


def refuse_not_finite(
    array: Array, names: Any, first: int = 0, *, missing: bool | None = None
) -> None:
    """Name the first place of ``array`` that holds no number; its rows count from ``first``.

    Where NaN may stand for what is ``missing``, only a row of nothing else is refused.
    """
    if array.dtype.kind != "f":
        return
    step = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        finite = np.isfinite(part)
        if finite.all():
            continue
        if missing:
            _refuse_empty(part, first + start)
            finite |= np.isnan(part)
            if finite.all():
                continue
        place = np.argwhere(~finite)[0]
        value = "NaN" if np.isnan(part[tuple(place)]) else "infinity"
        told = value == "NaN" and missing is not None
        row, where = first + start + int(place[0]), ", ".join(str(i) for i in place[1:])
        column = f"column {where}" + (f" ({names[place[1]]!r})" if names is not None else "")
        spot = column if array.ndim == 2 else f"index ({where})"
        raise InputError(
            f"Input X contains {value} in row {row}, {spot}; drop such rows, fill them in "
            "(sklearn.impute.SimpleImputer) first"
            + (', or let missing="mask" leave NaN out.' if told else ".")
        )


def _refuse_empty(part: Array, first: int) -> None:
    empty = np.isnan(part).reshape(len(part), -1).all(axis=1)
    if empty.any():
        raise InputError(
            f"Row {first + int(empty.argmax())} of X holds NaN only, from which nothing can be "
            "told; drop such rows."
        )
