"""Every library that is compared, behind one interface.

A contender is a class made from a ``Task`` and training rows: making it builds the network and
brings the rows into the library's own kind of array (timed only where all is), ``train`` trains
(timed), and ``reconstruct`` answers ready rows. Each is imported only in its own process (see
``peers.py``).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

from contenders.common import Contender


class Entry(NamedTuple):
    """A contender's module, the distributions whose versions are recorded, and its networks."""

    module: str
    cls: str
    distributions: tuple[str, ...]
    networks: tuple[str, ...] = ("dense", "conv")
    environment: tuple[tuple[str, str], ...] = ()
    on_gpu: bool = False


NETWORKS = ("dense", "conv", "vae", "denoiser")
OWN, LOOP = ("narrows", "torch"), ("torch",)
ENTRIES = {
    "plain": Entry("plain", "Plain", LOOP, NETWORKS, on_gpu=True),
    "good": Entry("good", "Good", LOOP, NETWORKS, on_gpu=True),
    "good-512": Entry("good", "Good512", LOOP, NETWORKS, on_gpu=True),
    "narrows": Entry("own", "Default", OWN, NETWORKS, on_gpu=True),
    "narrows-same": Entry("own", "SameNetwork", OWN, NETWORKS, on_gpu=True),
    "pca": Entry("with_sklearn", "Components", ("scikit-learn",)),
    "keras-torch": Entry(
        "with_keras", "Keras", ("keras", "torch"), environment=(("KERAS_BACKEND", "torch"),)
    ),
    "keras-jax": Entry(
        "with_keras", "Keras", ("keras", "jax"), environment=(("KERAS_BACKEND", "jax"),)
    ),
    "sklearn": Entry("with_sklearn", "Regressor", ("scikit-learn",), networks=("dense",)),
    "pyod": Entry("with_pyod", "Detector", ("pyod", "torch"), networks=("dense",)),
    "pythae": Entry(
        "with_pythae", "Pythae", ("pythae", "torch"), environment=(("TQDM_DISABLE", "1"),)
    ),
    "lightning": Entry("with_lightning", "Lightning", ("lightning", "torch")),
    "skorch": Entry("with_skorch", "Skorch", ("skorch", "torch")),
}


def find(name: str, used: bool = True) -> type[Contender]:
    """Import one contender, and with it its library.

    ``used``: and all that it imports only when it is first used.
    """
    entry = ENTRIES[name]
    os.environ.update(entry.environment)
    module = importlib.import_module(f"contenders.{entry.module}")
    if used:
        if "torch" in sys.modules:
            _first_step()
        getattr(module, "first_use", lambda: None)()
    contender: type[Contender] = getattr(module, entry.cls)
    return contender


def _first_step() -> None:
    """Make an optimizer: torch imports more at the first one, for about a second."""
    import torch

    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
