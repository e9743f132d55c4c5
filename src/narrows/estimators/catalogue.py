"""Every model by name: where it lives, and what it is in one sentence. Imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from narrows.core import ParameterError


class Entry(NamedTuple):
    """Where a model's class lives, and one sentence about it."""

    module: str
    sentence: str


MODELS: dict[str, Entry] = {
    "Autoencoder": Entry(
        "narrows.estimators.models.plain",
        "The autoencoder: x through a narrow code and back. Starts at PCA; with a squared distance "
        "fit never ends below it on the validation rows.",
    ),
    "DenoisingAutoencoder": Entry(
        "narrows.estimators.models.plain",
        "Sees corrupted x, restores clean x; its denoise removes noise.",
    ),
    "VariationalAutoencoder": Entry(
        "narrows.estimators.models.variational",
        "A Gaussian code with a normal prior: samples new x, and has a likelihood.",
    ),
}

# Those that take images of any sizes: no fixed shape, so none of scikit-learn's generic checks.
WHOLE: dict[str, Entry] = {
    "Denoiser": Entry(
        "narrows.estimators.denoiser",
        "Removes noise from photographs of any size; learns from clean ones, from noisy ones only "
        "(noisy_targets=True), or from the one to be cleaned.",
    ),
    "Codec": Entry(
        "narrows.estimators.codec",
        "Compresses arrays, tables and images of any size to files that decode to the same bits "
        "everywhere: lossy, within an error, or lossless.",
    ),
}
KNOWN = {**MODELS, **WHOLE}

SHORT_NAMES = {"ae": "Autoencoder", "dae": "DenoisingAutoencoder", "vae": "VariationalAutoencoder"}


def find_model(name: str) -> str:
    """The class name meant by ``name``; case, hyphens and underscores are ignored.

    >>> find_model("variational-autoencoder")
    'VariationalAutoencoder'
    """
    wanted = name.lower().replace("-", "").replace("_", "")
    known = {model.lower(): model for model in KNOWN} | SHORT_NAMES
    if wanted not in known:
        raise ParameterError(f"No model is called {name!r}; choose one of {', '.join(KNOWN)}.")
    return known[wanted]


def model_class(name: str) -> Any:
    """The class called ``name`` (an exact class name of ``KNOWN``), imported now."""
    return getattr(importlib.import_module(KNOWN[name].module), name)
