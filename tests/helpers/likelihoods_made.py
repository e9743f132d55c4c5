"""A likelihood as a fit makes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from narrows.estimators.fit_setup import find_range
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.training.batches import as_tensor, fit_scaling
from narrows.training.statistics import statistics

Array = NDArray[Any]


def made(name: str, rows: Array, kind: str = "column") -> tuple[Likelihood, Callable[..., Tensor]]:
    """D as a fit makes it for these rows, and what scales rows for it."""
    found = statistics([as_tensor(rows)])
    D = LIKELIHOODS[name]()
    scaling = fit_scaling(found, kind if D.scaled else "none")
    seen = find_range([found])
    D.build(rows.shape[1:], D.infer_support(seen))
    D.set_data_units(scaling.shift, scaling.scale, seen)
    return D, lambda x: scaling.apply(as_tensor(np.asarray(x)))
