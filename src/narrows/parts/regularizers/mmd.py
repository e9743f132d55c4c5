"""R between whole batches of codes and draws of the prior: the maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from narrows._types import Trace
from narrows.parts.regularizers.base import Regularizer

# of r = ‖z − z'‖² / C, by name
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "imq": lambda r: 1.0 / (1.0 + r),
    "rbf": lambda r: torch.exp(-r),
}
# C is so many times 2k, the mean of ‖z − z'‖² under N(0, I): what differs at any scale is seen
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
N_DRAWN = 256  # draws of the prior for each batch, however many rows it has


def mmd(z: Tensor, drawn: Tensor, kernel: str) -> Tensor:
    """MMD² of the samples z (n, k) and drawn (m, k), a number of at least 0."""

    def alike(a: Tensor, b: Tensor) -> Tensor:
        r = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T
        r = r.clamp_min(0.0) / (2.0 * a.shape[1])
        return torch.stack([KERNELS[kernel](r / scale).mean() for scale in SCALES]).sum()

    z, drawn = z.float(), drawn.float()
    with torch.autocast(z.device.type, enabled=False):
        return alike(z, z) + alike(drawn, drawn) - 2.0 * alike(z, drawn)


class MMD(Regularizer):
    """MMD²(q(z), p(z)) = E k(z, z') + E k(p, p') − 2 E k(z, p), of the batch's codes all together.

    k is the sum over scales s of C / (C + ‖z − z'‖²) ("imq") or of exp(−‖z − z'‖² / C) ("rbf"),
    with C = 2ks. Times a weight it is in nats.

    The estimate is the V-statistic, the means over *all* pairs: the squared distance of two
    means, so it is never negative, is 0 for equal samples, is a number for a batch of one row, and
    does not change when a batch is repeated. The unbiased one has none of these. The price is a
    pull on n codes that makes their variance about 2/n too small.

    Source: Gretton et al., "A kernel two-sample test", JMLR 13 (2012); the kernel and its scales:
    Tolstikhin et al., "Wasserstein auto-encoders", arXiv:1711.01558.

    Parameters
    ----------
    kernel : str
        "imq" or "rbf".
    """

    needs = frozenset({"prior", "smooth"})

    def __init__(self, kernel: str = "imq") -> None:
        super().__init__()
        self.kernel = kernel

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}"

    def forward(self, model: Any, trace: Trace) -> Tensor:
        drawn = model.p.sample(N_DRAWN, trace.rng, 1.0, model)
        return mmd(trace.z.flatten(0, 1), drawn, self.kernel)
