"""``encoder_`` and ``decoder_`` in one's own PyTorch: units, shapes and dtypes are the user's."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import narrows
from helpers.small_data import curve
from narrows import Autoencoder, VariationalAutoencoder

RNG = np.random.default_rng(0)
COLOUR = (255 * RNG.random((40, 6, 5, 3))).astype(np.uint8)
GAPS = curve(60)
GAPS[::7, 2] = np.nan
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "table far from 0": (curve(60) * [1, 1e3, 1e-3, 1, 1, 50] + [1e6, 0, 0, -40, 0, 3], {}),
    "float32": (curve(60).astype(np.float32) * 7, {}),
    "large integers": ((curve(60) * 100).astype(np.int64) + 10**9, {}),
    "unsigned": ((curve(60) * 100 + 500).astype(np.uint16), {}),
    "yes and no": (curve(60) > 0, {}),
    "missing values": (GAPS, {"missing": "mask"}),
    "images": (load_digits().images[:60], {}),
    "channels last": (COLOUR, {"axes": "HWC"}),
    "signals": (RNG.normal(size=(40, 3, 16)) * 9 + 5, {"axes": "CL", "architecture": "conv"}),
    "folded table": (load_digits().data[:60], {"input_shape": (8, 8), "architecture": "conv"}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("model", [Autoencoder, VariationalAutoencoder])
def test_they_take_and_give_what_the_methods_do(model: Any, name: str) -> None:
    X, given = CASES[name]
    est = model(latent_dim=2, max_epochs=1, random_state=0, **given).fit(X)
    Z = est.transform(X)
    codes = est.encoder_(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(codes, Z, atol=1e-5, rtol=1e-5)
    rows, back = est.decoder_(codes).detach().numpy(), est.inverse_transform(Z)
    assert rows.shape == back.shape
    if back.dtype == bool:
        np.testing.assert_array_equal(rows >= 0.5, back)
    elif back.dtype.kind in "iu":
        rows = np.rint(rows).astype(np.int64) - back
        assert np.abs(rows).max() <= 1  # where it lies just between two whole numbers
    else:
        np.testing.assert_allclose(rows, back, rtol=1e-5, atol=1e-5 * np.ptp(back))


def test_they_are_parts_of_a_larger_network(tmp_path: Path) -> None:
    X = curve(60) * 100
    est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    x, Z = torch.from_numpy(X), est.transform(X)
    bare = est.model_.f
    net = torch.nn.Sequential(copy.deepcopy(est.encoder_), torch.nn.Linear(2, 1))
    net(x).square().mean().backward()
    learned = list(net[0].parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)
    assert sum(p.numel() for p in learned) == sum(p.numel() for p in bare.parameters())
    with torch.no_grad():
        learned[0].add_(1.0)
    np.testing.assert_array_equal(est.transform(X), Z)  # the copy changed, not the model
    for again in (
        pickle.loads(pickle.dumps(est.encoder_)),
        narrows.load(est.save(tmp_path / "m.safetensors")).encoder_,
        pickle.loads(pickle.dumps(est)).encoder_,
    ):
        np.testing.assert_allclose(again(x).detach(), Z, atol=1e-5)
