"""Labels as a report uses them: classes to colour and probe, or measurements to shade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report.probe import check_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MOST_CLASSES = 100


@dataclass(frozen=True, slots=True)
class Labels:
    """One label per row: ``names[index]`` for classes; ``values`` for measurements (no names)."""

    names: list[str]
    index: NDArray[np.int64]
    values: NDArray[np.float64]

    def __getitem__(self, rows: Any) -> Labels:
        return Labels(self.names, self.index[rows], self.values[rows])

    def name(self, row: int) -> str:
        """What to print beside a row."""
        return self.names[self.index[row]] if self.names else f"{self.values[row]:.3g}"


def read_labels(y: ArrayLike, n_rows: int) -> Labels:
    """Sort labels into classes or measurements.

    Words, booleans and whole numbers of at most 100 kinds are classes; other numbers are
    measurements. Raises `InputError` for a wrong length or a missing label.

    >>> read_labels(["cat", "dog", "cat"], 3).names
    ['cat', 'dog']
    >>> read_labels([0.5, 1.25], 2).names
    []
    """
    labels = check_labels(y, n_rows)
    kinds, index = np.unique(labels, return_inverse=True)
    numeric = labels.dtype.kind in "iuf"
    values = labels.astype(np.float64) if numeric else np.zeros(n_rows)
    whole = numeric and bool((np.isfinite(values) & (values == np.round(values))).all())
    if numeric and (not whole or len(kinds) > MOST_CLASSES):
        return Labels([], np.zeros(n_rows, dtype=np.int64), values)
    names = [str(int(kind)) if whole else str(kind) for kind in kinds]
    return Labels(names, index.astype(np.int64), values)
