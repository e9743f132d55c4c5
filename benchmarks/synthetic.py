"""Data made from a seed: bytes of any size, and sets on which training meets known difficulties.

``sinus``, ``chirp``, ``pulse`` and ``signals`` are signals whose phases are random: PCA of them is
a saddle, from which gradients hardly lead away. ``swiss`` is a curved surface in 50 dimensions,
``onehot`` eight dependent categories, ``moved-digits`` images whose content moves, ``table``
200,000 rows of a non-linear map of six numbers, ``textures`` patches for a denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rng = np.random.Generator
FACTORS = 20


def factor_bytes(n: int, d: int) -> NDArray[np.uint8]:
    """Bytes from a few smooth factors and some noise, a thousand rows at a time."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(FACTORS, d)).astype(np.float32)
    X = np.empty((n, d), np.uint8)
    for start in range(0, n, 1000):
        part = X[start : start + 1000]
        codes = rng.normal(size=(len(part), FACTORS)).astype(np.float32)
        noise = rng.normal(size=part.shape).astype(np.float32)
        part[:] = np.clip(128 + 12 * (np.tanh(codes) @ loadings) + 5 * noise, 0, 255)
    return X


def sinusoids(n: int, d: int, rng: Rng) -> Array:
    """Three sinusoids, each with a random amplitude, frequency and phase: nine numbers."""
    t = np.linspace(0, 1, d)
    amplitude, frequency, phase = (
        rng.uniform(low, high, (3, n, 1)) for low, high in ((0.5, 1.5), (1, 8), (0, 1))
    )
    return sum(
        a * np.sin(2 * np.pi * (f * t + p))
        for a, f, p in zip(amplitude, frequency, phase, strict=True)
    )


def chirp(n: int, d: int, rng: Rng) -> Array:
    """A sinusoid whose frequency grows: amplitude, phase, frequency and growth."""
    t = np.linspace(0, 1, d)
    amplitude, phase, frequency, growth = (
        rng.uniform(low, high, (n, 1)) for low, high in ((0.5, 1.5), (0, 1), (2, 10), (0, 10))
    )
    return amplitude * np.sin(2 * np.pi * (phase + frequency * t + growth * t**2 / 2))


def pulse(n: int, d: int, rng: Rng) -> Array:
    """Two Gaussian pulses, each with a random place and height."""
    t = np.linspace(0, 1, d)
    place, height = rng.uniform(0.1, 0.9, (2, n, 1)), rng.uniform(0.5, 1.5, (2, n, 1))
    return (height * np.exp(-0.5 * ((t - place) / 0.05) ** 2)).sum(0)


def swiss(n: int, d: int, rng: Rng) -> Array:
    """A swiss roll, turned into d dimensions."""
    angle = 1.5 * np.pi * (1 + 2 * rng.uniform(size=n))
    roll = np.stack([angle * np.cos(angle), 21 * rng.uniform(size=n), angle * np.sin(angle)], 1)
    return roll @ np.linalg.qr(rng.normal(size=(d, d)))[0][:3]


def onehot(n: int, d: int, rng: Rng) -> Array:
    """Categories of ten values, d / 10 of them, that depend on three numbers."""
    scores = rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)) + 0.3 * rng.gumbel(size=(n, d))
    best = scores.reshape(n, -1, 10).argmax(2)
    return np.eye(10)[best].reshape(n, d)


def table(n: int, d: int, rng: Rng) -> Array:
    """A non-linear map of six numbers."""
    hidden = np.tanh(rng.normal(size=(n, 6)) @ rng.normal(size=(6, 64)) / 6**0.5 * 3)
    return hidden @ rng.normal(size=(64, d)) / 8


def moved_digits(n: int, side: int, rng: Rng) -> Array:
    """scikit-learn's digits, each at a random place of a larger image."""
    from sklearn.datasets import load_digits

    digits = load_digits().images
    X = np.zeros((n, side, side), np.uint8)
    places = rng.integers(0, side - 7, (n, 2))
    for image, i, (a, b) in zip(X, rng.integers(0, len(digits), n), places, strict=True):
        image[a : a + 8, b : b + 8] = 255 / 16 * digits[i]
    return X


def textures(n: int, side: int, rng: Rng) -> Array:
    """Stripes of random direction and width with a straight edge through each image."""
    y, x = np.mgrid[:side, :side] / side
    turn, wave, phase, cut = rng.uniform(size=(4, n, 1, 1))
    along = np.cos(2 * np.pi * turn) * x + np.sin(2 * np.pi * turn) * y
    stripes = np.sin(2 * np.pi * ((1 + 7 * wave) * along + phase))
    return (128 + 80 * stripes * (along > cut - 0.5)).astype(np.uint8)


# name → (function, rows, width or side, noise)
MADE: dict[str, tuple[Callable[[int, int, Rng], Array], int, int, float]] = {
    "sinus": (sinusoids, 3272, 200, 0.05),
    "chirp": (chirp, 3272, 200, 0.05),
    "pulse": (pulse, 3272, 200, 0.02),
    "signals": (sinusoids, 5000, 1000, 0.05),
    "swiss": (swiss, 5000, 50, 0.1),
    "onehot": (onehot, 6000, 80, 0.0),
    "table": (table, 200_000, 50, 0.05),
    "moved-digits": (moved_digits, 6000, 18, 0.0),
    "textures": (textures, 4096, 64, 0.0),
}


def make(name: str) -> tuple[Array, Array]:
    """Training rows, float32 or bytes, and a quarter as many test rows."""
    function, n, width, noise = MADE[name]
    rng = np.random.default_rng(0)
    X = function(n + n // 4, width, rng)
    if noise:
        X = X + noise * rng.normal(size=X.shape)
    X = X if X.dtype == np.uint8 else X.astype(np.float32)
    return X[:n], X[n:]
