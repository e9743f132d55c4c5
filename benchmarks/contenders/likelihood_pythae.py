"""Pythae's models on binarised MNIST: its own trainer and losses, the dense networks of narrows.

Its ``get_nll`` takes one image at a time and another number of samples than it is asked for; the
same formula is computed here in batches.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import tempfile
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pythae.data.datasets import BaseDataset
from pythae.models import IWAE, VAE, VAMP, IWAEConfig, VAEConfig, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn

from contenders.common import Monitor, TimeIsUp
from contenders.with_pythae import Timer

HIDDEN, LATENT, BATCH, RATE = 500, 40, 256, 2e-3

# name → (class, configuration, more of it, Pythae's published figure, the paper's)
MODELS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "Pythae VAE": (VAE, VAEConfig, {}, "89.78 by Pythae, 89.9 (1505.05770)"),
    "Pythae IWAE": (IWAE, IWAEConfig, {"number_samples": 5}, "86.82 by Pythae, 50 draws"),
    "Pythae VAMP": (VAMP, VAMPConfig, {"number_components": 500}, "85.79 by Pythae"),
}


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        BaseEncoder.__init__(self)
        self.net = nn.Sequential(nn.Linear(784, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, LATENT) for _ in range(2))

    def forward(self, x: Tensor) -> Any:
        h = nn.functional.gelu(self.net(x.reshape(len(x), -1)))
        return ModelOutput(embedding=self.heads[0](h), log_covariance=self.heads[1](h))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        BaseDecoder.__init__(self)
        self.net = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(),
            nn.Linear(HIDDEN, 784), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=self.net(z).reshape(len(z), 1, 28, 28))


def train_and_estimate(
    options: argparse.Namespace,
    X: NDArray[np.uint8],
    valid: NDArray[np.uint8],
    test: NDArray[np.uint8],
) -> dict[str, Any]:
    """Train for the seconds given, then the importance-weighted estimate on the test rows."""
    logging.disable(logging.WARNING)
    torch.manual_seed(options.seed)
    kind, config, more, published = MODELS[options.one]
    wanted = config(
        input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce", **more
    )  # fmt: skip
    model = kind(wanted, encoder=Encoder(), decoder=Decoder())
    rows = torch.from_numpy(X).float().view(-1, 1, 28, 28)
    watch = Monitor(options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            model,
            BaseDataset(rows, torch.zeros(len(rows))),
            training_config=BaseTrainerConfig(
                output_dir=folder, num_epochs=100_000, per_device_train_batch_size=BATCH,
                learning_rate=RATE, seed=options.seed, no_cuda=True,
            ),
            callbacks=[Timer(watch)],
        )  # fmt: skip
        watch.start()
        with contextlib.suppress(TimeIsUp):
            trainer.train()
        watch.stop()
    started = time.perf_counter()
    model.eval()
    nats = -log_likelihood(model, torch.from_numpy(test).float(), options.samples)
    return {
        "seconds": watch.seconds,
        "epochs": len(watch.marks),
        "parameters": sum(p.numel() for p in model.parameters()),
        "published": published,
        "nats": float(nats.mean()),
        "error": float(nats.std() / len(nats) ** 0.5),
        "rows": len(test),
        "n_samples": options.samples,
        "estimate_seconds": time.perf_counter() - started,
    }


def log_likelihood(model: Any, x: Tensor, n_samples: int) -> NDArray[np.float64]:
    """log 1/K Σ p(x | z) p(z) / q(z | x) of each row, ``get_nll``'s formula for a Gaussian q."""
    found = []
    for row in x.split(1):
        encoded = model.encoder(row.view(1, 1, 28, 28))
        mu, log_var = encoded.embedding, encoded.log_covariance
        with torch.no_grad():
            eps = torch.randn(n_samples, LATENT)
            z = mu + torch.exp(0.5 * log_var) * eps
            log_q = -0.5 * (log_var + eps.square()).sum(1)
            own = getattr(model, "_log_p_z", lambda z: -0.5 * z.square().sum(1))
            log_p = own(z)
            p = model.decoder(z).reconstruction.reshape(n_samples, -1)
            log_x = -nn.functional.binary_cross_entropy(
                p, row.expand(n_samples, -1), reduction="none"
            ).sum(1)
            found.append((log_x + log_p - log_q).logsumexp(0).item() - math.log(n_samples))
    return np.array(found)
