"""PCA of the training rows: the simple method to compare with, and the start of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from narrows.parts.model import Model
from narrows.parts.networks.linear_path import WithPath
from narrows.training.batches import Rows
from narrows.training.streamed_batches import Stream

MAX_COMPONENTS = 512  # of the PCA by which latent_dim="auto" is chosen

MIN_NOISE_VARIANCE = 1e-4  # of scaled data, at the start


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
        """Codes of scaled rows of any shape, (n, k); what is NaN is taken to be the mean."""
        apart = x.flatten(1) - self.mean
        return torch.where(apart.isnan(), 0.0, apart) @ self.components.T

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

    @property
    def unexplained(self) -> float:
        """The share of the variance that the components leave."""
        left = self.noise * self._rest
        total = float(self.variances.sum()) + left
        return left / total if total > 0 else 0.0

    def held(self, share: float) -> int:
        """How many components hold ``share`` of the variance (all there are, if too few do)."""
        total = self.variances.sum().item() + self.noise * self._rest
        if total <= 0:
            return 1
        return min(
            len(self.variances),
            int((self.variances.cumsum(0) / total < share - 1e-6).sum().item()) + 1,
        )


def filled(rows: Tensor) -> Tensor:
    """The rows with missing values (NaN) replaced by the mean of their column."""
    missing = rows.isnan()
    return torch.where(missing, rows.nanmean(0).nan_to_num(), rows) if missing.any() else rows


def fit_pca(rows: Rows | Stream, k: int, seed: int) -> PCA:
    """PCA of scaled rows, a sample of very many, by scikit-learn on the CPU in float32."""
    from sklearn.decomposition import PCA as SklearnPCA

    sample = filled(rows.sample(seed).flatten(1))
    n, features = sample.shape
    k = min(k, features, n)
    # constant data have no variance to explain, and of one row it is 0 / 0
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = SklearnPCA(k, random_state=seed % 2**32, copy=False).fit(sample.numpy())
    explained, share = (
        float(found.sum(dtype=np.float64))
        for found in (fitted.explained_variance_, fitted.explained_variance_ratio_)
    )
    # not scikit-learn's noise_variance_, whose mean leaves out directions that few rows cannot span
    total = explained / share if share > 0 else 0.0
    return PCA(
        torch.from_numpy(fitted.mean_).float(),
        torch.from_numpy(fitted.components_).float(),
        torch.from_numpy(fitted.explained_variance_).float().nan_to_num(0).clamp(min=0),
        max(0.0, total - explained) / max(1, features - k),
    )


def _path(net: nn.Module) -> nn.Linear:
    for module in net.modules():
        if isinstance(module, WithPath):
            return next(m for m in module.path.modules() if isinstance(m, nn.Linear))
    raise LookupError("the network has no linear path")


@torch.no_grad()
def start_at_pca(model: Model, pca: PCA, error: float) -> None:
    """Make the model PCA, or with a Gaussian code probabilistic PCA (Tipping & Bishop 1999).

    Point code: z = C (x − m) / s with one scale s, so that codes have unit variance on average.
    Gaussian code, with component variances λ and noise σ²: x' = Cᵀ (λ − σ²)^½ z + m, and the exact
    posterior has mean (λ − σ²)^½ / λ · C (x − m) and variance σ² / λ. ``error`` is PCA's mean
    squared error per element on the validation rows: where few rows have many columns PCA leaves
    nothing on the training rows, and σ must be what it leaves on others.
    """
    k, found = _path(model.g).in_features, len(pca.components)
    features = len(pca.mean)
    noise = max(pca.noise, error * features / max(1, features - found), MIN_NOISE_VARIANCE)
    variances = pca.variances.clamp(min=noise)
    if model.q.start == "gaussian":
        down = (variances - noise).sqrt() / variances
        up = (variances - noise).sqrt()
    else:
        scale = variances.mean().sqrt()
        down, up = (1 / scale).expand(found), scale.expand(found)
    into, out = _path(model.f), _path(model.g)
    into.weight[:found] = pca.components * down[:, None]
    into.bias[:found] = -into.weight[:found] @ pca.mean
    if model.q.start == "gaussian":
        into.bias[k : k + found] = (noise / variances).log()
    out.weight[:, :found] = pca.components.T * up
    out.bias.copy_(pca.mean)
    model.D.init_scale(math.sqrt(noise))
