"""Which rows are trained on and which are held out, in memory or in a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from narrows.estimators.layout import Array
from narrows.estimators.lazy_rows import CheckedRows
from narrows.training.batches import Rows, Scaling, as_tensor
from narrows.training.statistics import Statistics, statistics
from narrows.training.streamed_batches import Stream, hold_out, scan_statistics

FEWEST_TO_SPLIT = 20  # with fewer rows, holding some out costs more than it tells
NOTHING_HELD = np.empty(0, dtype=np.int64)
CPU = torch.device("cpu")

Given = Array | CheckedRows


def split(n: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation rows."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(n * fraction))
    return order[held:].sort().values, order[:held].sort().values


@dataclass(frozen=True)
class Divided:
    """Training and validation rows, not scaled yet, and what is known of both, on the device."""

    training: Rows | Stream
    validation: Rows | Stream
    statistics: list[Statistics]

    def scaled(self, scaling: Scaling) -> tuple[Rows | Stream, Rows | Stream]:
        """Both with their scaling."""
        return replace(self.training, scaling=scaling), replace(self.validation, scaling=scaling)


def divide(
    rows: Given, X_val: Given | None, fraction: float, seed: int, device: torch.device
) -> Divided:
    """Hold out a ``fraction`` of checked rows, or none of few; ``X_val`` stands in their place."""
    apart = X_val is None and fraction > 0 and len(rows) >= FEWEST_TO_SPLIT
    if isinstance(rows, CheckedRows) and (X_val is None or X_val is rows):
        training, kept, found = hold_out(rows, fraction if apart else 0, seed)
        validation = replace(kept, data=kept.data.to(device))
        return Divided(training, validation, [found.to(device), _measured(validation)])
    if apart and isinstance(rows, np.ndarray):
        first, second = (
            _whole(rows[index.numpy()], device) for index in split(len(rows), fraction, seed)
        )
        return Divided(first, second, [_measured(first), _measured(second)])
    whole = _whole(rows, device)
    if X_val is None or X_val is rows:
        return Divided(whole, whole, [_measured(whole)])
    held = _whole(X_val, device)
    return Divided(whole, held, [_measured(whole), _measured(held)])


def _whole(rows: Given, device: torch.device) -> Rows | Stream:
    """All rows, not scaled yet."""
    if isinstance(rows, CheckedRows):
        return Stream(rows, Scaling.none().to(device), NOTHING_HELD)
    return Rows(as_tensor(rows).to(device), Scaling.none().to(device))


def measured(rows: Given) -> Statistics:
    """What one pass over checked rows tells."""
    return _measured(_whole(rows, CPU))


def _measured(rows: Rows | Stream) -> Statistics:
    if isinstance(rows, Stream):
        return scan_statistics(rows.source, rows.held, apart=True)[1].to(rows.scaling.shift.device)
    return statistics([rows.data])
