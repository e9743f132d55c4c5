"""What notebooks show of an estimator, and the few rows that a fit keeps for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from narrows.estimators.registry import notebook_html
from narrows.training.batches import Rows
from narrows.training.streamed_batches import Stream

MAX_SHOWN = 6  # rows kept


class NotebookMixin(BaseEstimator):
    """Fitted: original, code and reconstruction; not fitted: the parameters, as scikit-learn."""

    def _repr_html_inner(self) -> str:
        plain: str = super()._repr_html_inner()
        if "state_" not in vars(self):
            return plain
        try:
            return notebook_html(self, plain)
        except Exception:  # whatever is wrong, showing a model must not fail
            return plain

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_inner()
        return bundle


def rows_to_show(rows: Rows | Stream, shape: tuple[int, ...]) -> NDArray[Any]:
    """A copy of at most six evenly spaced rows, not scaled, each in the networks' ``shape``."""
    index = np.linspace(0, len(rows) - 1, min(len(rows), MAX_SHOWN)).astype(np.int64)
    if isinstance(rows, Stream):
        some = np.concatenate([rows.source[i : i + 1] for i in index])
    else:
        some = rows.data[torch.from_numpy(index).to(rows.data.device)].cpu().numpy()
    # a class-conditional model has a number of the class behind each row
    return some.reshape(len(some), -1)[:, : math.prod(shape)].reshape(-1, *shape)
