"""Small data the tests share."""

import numpy as np
from numpy.typing import NDArray

from narrows.estimators.registry import MODELS

IMAGES_ONLY = {"MSSSIMVAE"}  # a table has no structure that it could compare
TABLES = [name for name in MODELS if name not in IMAGES_ONLY]
TOLD = {name for name in MODELS if "Conditional" in name}  # their name says that y counts


def curve(n: int = 300, d: int = 6, seed: int = 0) -> NDArray[np.float64]:
    """Noisy points on a bent line in d dimensions: one number explains them, but not linearly."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-2, 2, size=(n, 1))
    waves = np.sin(t * np.arange(1, d + 1) / 2 + np.arange(d))
    return waves + 0.05 * rng.normal(size=(n, d))


def plane(n: int = 1000, d: int = 6, k: int = 2, noise: float = 0.3) -> NDArray[np.float64]:
    """Gaussian rows near a k-dimensional plane: the model of probabilistic PCA itself."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(k, d)) * np.array([[2.0], [1.0]][:k])
    return rng.normal(size=(n, k)) @ mixing + noise * rng.normal(size=(n, d)) + 1.0


def chirps(n: int = 1500, d: int = 120, seed: int = 0) -> NDArray[np.float64]:
    """Waves of random phase whose frequency rises: PCA of them is a saddle of the loss."""
    rng = np.random.default_rng(seed)
    first, rise, phase = (rng.uniform(0, high, (n, 1)) for high in (3, 10, 2 * np.pi))
    t = np.linspace(0, 1, d)
    return np.sin(2 * np.pi * ((first + 1) * t + rise * t**2 / 2) + phase)
