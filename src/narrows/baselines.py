"""What stands beside every result: the simple method, fitted on the same rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from narrows.engine.data import Rows

# Elements PCA looks at together, 1 GiB in float32; of more rows it sees a random share.
LARGEST_SAMPLE = 2**28
MOST_COMPONENTS = 512


@dataclass(frozen=True)
class PCA:
    """Principal components of scaled rows: z = C (x − m), x' = Cᵀ z + m.

    ``mean`` (d,), ``components`` (k, d) with orthonormal rows, ``variances`` (k,) of the
    components, ``noise`` the mean variance of the directions left out.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: float

    def transform(self, x: Tensor) -> Tensor:
        """Codes of scaled rows of any shape, (n, k)."""
        return (x.flatten(1) - self.mean) @ self.components.T

    def inverse_transform(self, z: Tensor) -> Tensor:
        """Scaled rows, flat, (n, d)."""
        return z @ self.components + self.mean

    def cut(self, k: int) -> PCA:
        """The leading k components."""
        left_out = self.variances[k:].sum().item() + self.noise * self._rest
        noise = left_out / max(1, len(self.mean) - k)
        return PCA(self.mean, self.components[:k], self.variances[:k], noise)

    @property
    def _rest(self) -> int:
        return len(self.mean) - len(self.variances)

    def held(self, share: float) -> int:
        """How many components hold ``share`` of the variance (all there are, if too few do)."""
        total = self.variances.sum().item() + self.noise * self._rest
        if total <= 0:
            return 1
        return min(
            len(self.variances),
            int((self.variances.cumsum(0) / total < share - 1e-6).sum().item()) + 1,
        )


def fit_pca(rows: Rows, k: int, seed: int) -> PCA:
    """PCA of scaled rows by scikit-learn, on the rows' own device's memory only as float32."""
    from sklearn.decomposition import PCA as SklearnPCA

    features = rows.data[0].numel()
    most = max(2, LARGEST_SAMPLE // max(1, features))
    index: Tensor | slice = slice(None)
    if len(rows) > most:
        rng = torch.Generator().manual_seed(seed)
        index = torch.randperm(len(rows), generator=rng)[:most].sort().values
    x = rows.scaled(index).flatten(1).cpu().numpy()
    k = min(k, features, len(x))
    with warnings.catch_warnings():
        # constant data has no variance to explain, and that is no error here
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="sklearn")
        fitted = SklearnPCA(k, random_state=seed % 2**32).fit(x)
    return PCA(
        torch.from_numpy(fitted.mean_).float(),
        torch.from_numpy(fitted.components_).float(),
        torch.from_numpy(fitted.explained_variance_).float().clamp(min=0),
        max(0.0, float(fitted.noise_variance_)),
    )
