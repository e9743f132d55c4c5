"""What the tests of sources share: every slice compared, and sentences read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narrows.io.read import Data, read
from narrows.io.sources import Source, nbytes


def same(source: Any, whole: np.ndarray) -> None:
    """``source`` is ``whole``, in shape, dtype and any slice of it."""
    assert isinstance(source, Source)
    assert source.shape == whole.shape
    assert source.dtype == whole.dtype
    assert len(source) == len(whole)
    assert nbytes(source) == whole.nbytes
    rng = np.random.default_rng(0)
    n = len(whole)
    slices = [slice(*sorted(rng.integers(0, n + 1, 2))) for _ in range(20)]
    slices += [slice(None), slice(0, 0), slice(n, n + 9), slice(n - 1, n + 9), slice(-2, None)]
    slices += [slice(3, 1), slice(None, -1, 1)]
    for rows in slices:
        part = source[rows]
        assert type(part) is np.ndarray
        assert part.dtype == whole.dtype
        np.testing.assert_array_equal(part, whole[rows])
    np.testing.assert_array_equal(np.asarray(source), whole)


def twins(path: Path, **options: Any) -> tuple[Data, Data]:
    """A path read lazily and at once; all but X is the same."""
    lazy, eager = read(path, lazy=True, **options), read(path, **options)
    assert type(eager.X) is np.ndarray
    assert not isinstance(lazy.X, np.ndarray)
    same(lazy.X, eager.X)
    np.testing.assert_array_equal(lazy.y, eager.y)
    for name in ("axes", "feature_names", "name", "y_names"):
        assert getattr(lazy, name) == getattr(eager, name)
    return lazy, eager


def sentence(caught: pytest.ExceptionInfo[Exception], *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == []
