"""Products of matrices of whole numbers, exact, and so the same on every machine.

Where all entries and all partial sums of a product are whole numbers below 2²⁴ (in float32) or 2⁵³
(in float64), nothing is ever rounded: neither the order of summation, nor threads, nor the library
can change a bit. Who calls must know that bound to hold; `exact_kind` says what it asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LIMITS: dict[np.dtype[Any], int] = {np.dtype(np.float32): 1 << 24, np.dtype(np.float64): 1 << 53}


def exact_kind(bound: int) -> np.dtype[Any] | None:
    """The smallest kind of float that holds every whole number up to ``bound``; None: neither.

    >>> exact_kind(1 << 20), exact_kind(1 << 24), exact_kind(1 << 53)
    (dtype('float32'), dtype('float64'), None)
    """
    fitting = [kind for kind, limit in LIMITS.items() if bound < limit]
    return fitting[0] if fitting else None


def product(a: Array, w: Array) -> Array:
    """a · w, (n, k) times (k, m), both float32 or both float64, within the bound above.

    In float64 torch does it where it is installed: on some machines three times as fast as NumPy.
    In float32 it never does, because there a user may have allowed torch to round.
    """
    if a.dtype == np.float64:
        try:
            import torch
        except ImportError:
            pass
        else:
            # torch warns of memory that cannot be written to, which a file's arrays often are
            left, right = (torch.from_numpy(np.require(m, None, ["C", "W"])) for m in (a, w))
            return np.asarray(torch.mm(left, right).numpy())
    return np.asarray(a @ w)
