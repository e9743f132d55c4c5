"""The decoder in the page computes what inverse_transform computes, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers.browser import chromium

from narrows import Autoencoder, ConditionalVAE, VariationalAutoencoder
from narrows.exceptions import ParameterError
from narrows.maps.page_decoder import page_decoder
from narrows.report.page import asset

RNG = np.random.default_rng(0)
TABLE = (RNG.normal(size=(60, 7)) * [1, 5, 0.1, 1e3, 1, 1, 1] + 1.7e9).astype(np.float64)
BYTES = RNG.integers(0, 256, (60, 9, 10), np.uint8)
COLORS = RNG.integers(0, 256, (60, 8, 6, 3), np.uint8)
SIGNALS = RNG.normal(size=(60, 2, 21)).astype(np.float32)
BITS = (RNG.random((60, 12)) < 0.4).astype(np.float32)

CONV = {"architecture": "conv", "channels": (4, 6)}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (TABLE, {}),
    "whole numbers": (RNG.integers(-5, 900, (60, 5)), {}),
    "tied": (TABLE[:, :5], {"tied": True, "linear_path": False, "activation": "silu"}),
    "no path": (TABLE, {"linear_path": False, "activation": "relu", "hidden_layer_sizes": (9,)}),
    "tanh": (BYTES, {"activation": "tanh"}),
    "conv": (BYTES, CONV),
    "conv nearest": (BYTES, {**CONV, "up": "nearest"}),
    "conv bilinear": (BYTES, {**CONV, "up": "bilinear"}),
    "conv shuffle": (BYTES, {**CONV, "up": "shuffle"}),
    "colours": (COLORS, {**CONV, "axes": "HWC"}),
    "signals": (SIGNALS, {**CONV, "axes": "CL"}),
    "signals shuffle": (SIGNALS, {**CONV, "axes": "CL", "up": "shuffle"}),
    "signals linear": (SIGNALS, {**CONV, "axes": "CL", "up": "bilinear"}),
    "bits": (BITS, {"distance": "bernoulli"}),
}


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with chromium() as browser:
        page = browser.new_page()
        page.set_content(f"<script>{asset('decoder.js', 'narrows.maps')}</script>")
        yield page


@pytest.mark.parametrize("case", CASES)
def test_the_page_decodes_as_inverse_transform_does(page: Any, case: str) -> None:
    X, more = CASES[case]
    model = Autoencoder(latent_dim=3, max_epochs=0, random_state=0, **more).fit(X)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # at the start last layers are zero, and no other layer would count
        for weight in model.state_.model.g.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=rng)
    Z = (RNG.normal(size=(40, 3)) * 2).astype(np.float32)
    decoder = page_decoder(model)
    found = page.evaluate(
        "([layers, weights, codes]) => {"
        " const decode = makeDecoder(layers, Float32Array.from(weights));"
        " return codes.map((code) => Array.from(decode(code))); }",
        [decoder.layers, decoder.weights.tolist(), Z.tolist()],
    )
    rows = np.array(found).reshape(len(Z), *decoder.shape)
    expected = model.state_.spec.layout.to_model(np.asarray(model.inverse_transform(Z)))
    if expected.dtype.kind in "iu":
        assert np.abs(rows - expected.astype(float)).max() <= 1
        assert (rows != expected).mean() < 0.01  # only where rounding ties
    else:
        scale = np.asarray(model.state_.scaling.scale)
        assert np.std(expected / scale) > 0.3
        assert np.abs((rows - expected) / scale).max() < 1e-4


def test_a_decoder_that_the_page_cannot_compute_is_refused_with_advice() -> None:
    y = np.arange(60) % 3
    model = ConditionalVAE(latent_dim=2, max_epochs=1, random_state=0).fit(TABLE, y)
    with pytest.raises(ParameterError, match="narrows explore"):
        page_decoder(model)


def test_a_variational_model_decodes_in_the_page() -> None:
    model = VariationalAutoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(TABLE)
    assert page_decoder(model).layers
