"""Every model by name: where it lives, and what it is in one sentence. Imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from narrows.exceptions import ParameterError


class Entry(NamedTuple):
    """Where a model's class lives, and one sentence about it."""

    module: str
    sentence: str


MODULES = "narrows.models."
MODELS: dict[str, Entry] = {
    "Autoencoder": Entry(
        MODULES + "autoencoder",
        "The autoencoder: x through a narrow code and back. Starts at PCA; with a squared "
        "distance fit never ends below it on the validation rows.",
    ),
    "DenoisingAutoencoder": Entry(
        MODULES + "denoising_autoencoder",
        "Sees corrupted x, restores clean x; its denoise removes noise.",
    ),
    "SparseAutoencoder": Entry(
        MODULES + "regularized",
        "Few numbers of the code are far from 0: an L1 or KL penalty, or only the largest kept.",
    ),
    "ContractiveAutoencoder": Entry(
        MODULES + "regularized",
        "The code hardly moves when x does: a penalty on the encoder's Jacobian.",
    ),
    "RegularizedAE": Entry(
        MODULES + "regularized",
        "A plain code and a smooth decoder, and a mixture fitted to the codes: samples new x.",
    ),
    "MaskedAutoencoder": Entry(
        MODULES + "masked_autoencoder",
        "Sees a few patches of x, restores the others; its codes are for classifiers.",
    ),
    "SparseDictionary": Entry(
        MODULES + "regularized",
        "A wide code of which a few numbers are active, each for one direction of x.",
    ),
    "VariationalAutoencoder": Entry(
        MODULES + "variational",
        "A Gaussian code with a normal prior: samples new x, and has a likelihood.",
    ),
    "BetaVAE": Entry(
        MODULES + "disentangling",
        "A VAE whose KL divergence weighs more, so that numbers of the code part.",
    ),
    "AnnealedVAE": Entry(
        MODULES + "disentangling",
        "A VAE that may use more and more nats of code while it learns.",
    ),
    "BetaTCVAE": Entry(
        MODULES + "disentangling",
        "A VAE whose code's numbers are made independent: total correlation, estimated.",
    ),
    "FactorVAE": Entry(
        MODULES + "adversarial",
        "The same, total correlation told by a critic.",
    ),
    "InfoVAE": Entry(
        MODULES + "wasserstein",
        "A VAE whose codes, all together, are held to the prior by their MMD.",
    ),
    "WassersteinAE": Entry(
        MODULES + "wasserstein",
        "A point code, held to the prior by the MMD: sharp, and samples new x.",
    ),
    "AdversarialAE": Entry(
        MODULES + "adversarial",
        "A point code, held to the prior by a critic that tells the two apart.",
    ),
    "VAEGAN": Entry(
        MODULES + "adversarial",
        "A VAE that compares images by the features of a critic who tells real from made.",
    ),
    "IWAE": Entry(
        MODULES + "importance_weighted",
        "The importance-weighted bound: tighter than a VAE's, with a better decoder.",
    ),
    "MIWAE": Entry(
        MODULES + "importance_weighted",
        "The mean of several importance-weighted bounds: a better encoder.",
    ),
    "PIWAE": Entry(
        MODULES + "importance_weighted",
        "MIWAE for the encoder and IWAE for the decoder.",
    ),
    "CIWAE": Entry(
        MODULES + "importance_weighted",
        "Between the VAE's bound and the importance-weighted one.",
    ),
    "VampVAE": Entry(
        MODULES + "vamp",
        "A VAE whose prior is the mean of its own posteriors at learned inputs.",
    ),
    "SphericalVAE": Entry(
        MODULES + "curved",
        "Codes on a sphere: von Mises-Fisher around a direction, uniform prior.",
    ),
    "PoincareVAE": Entry(
        MODULES + "curved",
        "Codes in the Poincaré ball, where there is room for trees.",
    ),
    "FlowVAE": Entry(
        MODULES + "variational",
        "A posterior bent by a flow: planar, radial or inverse autoregressive.",
    ),
    "HamiltonianVAE": Entry(
        MODULES + "hamiltonian",
        "Draws of the code are moved by Hamiltonian dynamics towards the posterior.",
    ),
    "RiemannianHamiltonianVAE": Entry(
        MODULES + "hamiltonian",
        "The same, on a space of codes with a learned metric; for few rows.",
    ),
    "MSSSIMVAE": Entry(
        MODULES + "variational",
        "A VAE for images that compares them by structure (MS-SSIM).",
    ),
    "VQVAE": Entry(
        MODULES + "quantized",
        "Codes from a learned book: each row becomes a few whole numbers.",
    ),
    "ResidualVQVAE": Entry(
        MODULES + "quantized",
        "Several books, each for what those before left over.",
    ),
    "GumbelVAE": Entry(
        MODULES + "quantized",
        "Categorical codes, learned through the Gumbel-softmax.",
    ),
    "FSQVAE": Entry(
        MODULES + "quantized",
        "Each number of the code rounded to a few values: a book that need not be learned.",
    ),
    "LadderVAE": Entry(
        MODULES + "ladder",
        "Several layers of codes, coarse above fine, each drawn given those above it.",
    ),
    "ConditionalVAE": Entry(
        MODULES + "variational",
        "A VAE that is told each row's class: fit(X, y), sample(n, y=...).",
    ),
}

# Those that take images of any sizes: no fixed shape, so none of scikit-learn's generic checks.
WHOLE: dict[str, Entry] = {
    "Denoiser": Entry(
        "narrows.denoising",
        "Removes noise from photographs of any size; learns from clean ones, from noisy ones only "
        "(noisy_targets=True), or from the one to be cleaned.",
    ),
    "Codec": Entry(
        "narrows.compression.codec",
        "Compresses arrays, tables and images of any size to files that decode to the same bits "
        "everywhere: lossy, within an error, or lossless.",
    ),
}
KNOWN = {**MODELS, **WHOLE}

SHORT_NAMES = {
    "ae": "Autoencoder",
    "dae": "DenoisingAutoencoder",
    "sae": "SparseAutoencoder",
    "cae": "ContractiveAutoencoder",
    "rae": "RegularizedAE",
    "mae": "MaskedAutoencoder",
    "vae": "VariationalAutoencoder",
    "wae": "WassersteinAE",
    "aae": "AdversarialAE",
    "svae": "SphericalVAE",
    "hvae": "HamiltonianVAE",
    "rhvae": "RiemannianHamiltonianVAE",
    "cvae": "ConditionalVAE",
}


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
