"""narrows: autoencoders with the interface of scikit-learn and the engine of PyTorch.

    min over f, g   E_x  E_{z ~ q(z | f(c(x)))}  [ D(x, g(z)) ]  +  Σ λ R

f and g are the encoder and the decoder, c a corruption of the input, q the latent, D a distance or
likelihood, p the prior of a generative model, R the regularisers. A named model only picks parts.

>>> import narrows
>>> narrows.Autoencoder(latent_dim=2)
Autoencoder(latent_dim=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrows.exceptions import (
    FileError,
    InputError,
    NarrowsError,
    ParameterError,
    WorkerError,
    did_you_mean,
)
from narrows.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from narrows import maps, plot
    from narrows.compression import Codec
    from narrows.denoising import Denoiser
    from narrows.io import photographs
    from narrows.models.adversarial import VAEGAN, AdversarialAE, FactorVAE
    from narrows.models.autoencoder import Autoencoder
    from narrows.models.curved import PoincareVAE, SphericalVAE
    from narrows.models.denoising_autoencoder import DenoisingAutoencoder, MaskedAutoencoder
    from narrows.models.disentangling import AnnealedVAE, BetaTCVAE, BetaVAE
    from narrows.models.hamiltonian import HamiltonianVAE, RiemannianHamiltonianVAE
    from narrows.models.importance_weighted import CIWAE, IWAE, MIWAE, PIWAE
    from narrows.models.neighbor_autoencoder import NeighborAutoencoder
    from narrows.models.quantized import FSQVAE, VQVAE, GumbelVAE, ResidualVQVAE
    from narrows.models.regularized import (
        ContractiveAutoencoder,
        RegularizedAE,
        SparseAutoencoder,
        SparseDictionary,
    )
    from narrows.models.variational import (
        MSSSIMVAE,
        ConditionalVAE,
        FlowVAE,
        VampVAE,
        VariationalAutoencoder,
    )
    from narrows.models.wasserstein import InfoVAE, WassersteinAE
    from narrows.training.listeners import JsonLines, Listener, MLflow, TensorBoard, WandB

__all__ = [
    "CIWAE",
    "FSQVAE",
    "IWAE",
    "MIWAE",
    "MSSSIMVAE",
    "PIWAE",
    "VAEGAN",
    "VQVAE",
    "AdversarialAE",
    "AnnealedVAE",
    "Autoencoder",
    "BetaTCVAE",
    "BetaVAE",
    "Codec",
    "ConditionalVAE",
    "ContractiveAutoencoder",
    "Denoiser",
    "DenoisingAutoencoder",
    "FactorVAE",
    "FileError",
    "FlowVAE",
    "GumbelVAE",
    "HamiltonianVAE",
    "InfoVAE",
    "InputError",
    "JsonLines",
    "LadderVAE",
    "Listener",
    "MLflow",
    "MaskedAutoencoder",
    "NarrowsError",
    "NeighborAutoencoder",
    "ParameterError",
    "PoincareVAE",
    "RegularizedAE",
    "ResidualVQVAE",
    "RiemannianHamiltonianVAE",
    "SparseAutoencoder",
    "SparseDictionary",
    "SphericalVAE",
    "TensorBoard",
    "VampVAE",
    "VariationalAutoencoder",
    "WandB",
    "WassersteinAE",
    "WorkerError",
    "__version__",
    "decompress",
    "load",
    "maps",
    "photographs",
    "plot",
]

# what is imported when first used, beside models, and from where
OTHERS = {
    "maps": "narrows.maps",
    "photographs": "narrows.io.photographs",
    "plot": "narrows.plot",
} | dict.fromkeys(
    ("JsonLines", "Listener", "MLflow", "TensorBoard", "WandB"), "narrows.training.listeners"
)


def load(path: str | Path, *, f: object = None, g: object = None) -> Any:
    """Read a fitted model from the file that ``save`` wrote, as the class named in it.

    Parameters
    ----------
    path : str or Path
    f, g : nn.Module, optional
        Your own networks, where the model was fitted with some; the file holds their weights only.

    Raises
    ------
    FileError
        The file is missing, damaged, of a newer format, or no model of narrows.
    """
    from pathlib import Path

    from narrows.estimators.model_file import load as read

    return read(Path(path), f=f, g=g)


def decompress(source: object, model: object = None, *, max_bytes: int = 1 << 31) -> Any:
    """What a .narrow file holds: an array, or for images a list of arrays.

    Parameters
    ----------
    source : bytes, str, Path or an open binary file
    model : str, Path, Codec or None
        The model it was made with, unless the file embeds it or needs none.
    max_bytes : int
        Refuse what would take more, decoded.

    Raises
    ------
    NotOurFile, UnsupportedVersion, WrongModel, Truncated, Corrupt, TooLarge
        The file cannot be decoded; all are children of ``FileError``.
    """
    from importlib import import_module

    compression: Any = import_module("narrows.compression")  # NumPy, and not before it is needed
    return compression.decompress(source, model, max_bytes=max_bytes)


def __getattr__(name: str) -> Any:
    # torch and scikit-learn take seconds to import: models are imported when first used
    from importlib import import_module

    from narrows.estimators.registry import KNOWN, model_class

    if name in OTHERS:
        module = import_module(OTHERS[name])
        found: Any = vars(module).get(name, module)  # maps, photographs, plot: the module itself
    elif name in KNOWN:
        found = model_class(name)
    else:
        close = did_you_mean(name, __all__)
        raise AttributeError(f"module 'narrows' has no attribute {name!r}.{close}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
