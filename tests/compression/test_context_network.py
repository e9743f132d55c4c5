"""The lossless context network: exact on every machine, as good as its training, safe to read."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from helpers.context_decoder import Reader
from narrows.compression.context_network import ContextNetwork, context_options
from narrows.compression.format.context_model import ContextLayer, ContextModel, exact_kind
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.integer_networks import product
from narrows.compression.quantize_weights import quantize_context
from narrows.exceptions import Corrupt, InputError

Images = NDArray[np.uint8]


def digits() -> Images:
    return load_digits().images[:, None].astype(np.uint8)


def photographs(n: int = 40, shape: tuple[int, int, int] = (3, 9, 7), seed: int = 0) -> Images:
    """Smooth images with similar planes: their differences are smaller than their values."""
    rng = np.random.default_rng(seed)
    C, H, W = shape
    steps = rng.normal(size=(n, 1, H, W)).cumsum(2).cumsum(3) * 6
    colour = rng.integers(40, 200, size=(n, C, 1, 1))
    return np.clip(colour + steps + rng.normal(size=(n, *shape)) * 3, 0, 255).astype(np.uint8)


def trained(
    images: Images, steps: int, side: Images | None = None, width: int = 32, rate: float = 6e-3
) -> ContextNetwork:
    rng = torch.Generator().manual_seed(0)
    options = context_options(images, side is not None)
    net = ContextNetwork(replace(options, widths=(width, width, width)), rng)
    x = torch.from_numpy(images)
    beside = None if side is None else torch.from_numpy(side)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        rows = torch.randint(len(x), (64,), generator=rng)
        loss = net(x[rows], None if beside is None else beside[rows], rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def coded(model: ContextModel, images: Images, side: Images | None = None) -> bytes:
    encoder = Encoder()
    model.encode(images, side, encoder)
    return encoder.finish()


def decoded(model: ContextModel, data: bytes, n: int, side: Images | None = None) -> Images:
    decoder = Decoder(data)
    images = model.decode(decoder, n, side)
    decoder.finish()
    return images


@torch.no_grad()
def expected_bits(net: ContextNetwork, images: Images, side: Images | None = None) -> float:
    """Bits of all pixels of the images by the network, in parts of 32 images."""
    nats = 0.0
    for i in range(0, len(images), 32):
        x, known = (None if m is None else torch.from_numpy(m[i : i + 32]) for m in (images, side))
        assert x is not None
        nats += float(net.nats(net.pixels(x, known, None)).double().sum())
    return nats / np.log(2)


@pytest.fixture(scope="module")
def digits_net() -> ContextNetwork:
    return trained(digits()[:1500], 150)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 9), (1, 7, 1), (2, 3, 4), (3, 9, 7), (5, 4, 4), (1, 23, 31)]
)
@pytest.mark.parametrize("kind", ["noise", "smooth", "few"])
def test_what_is_decoded_is_what_was_coded(shape: tuple[int, int, int], kind: str) -> None:
    rng = np.random.default_rng(1)
    n = 3 if shape[1] == 23 else 17
    images = {
        "noise": rng.integers(0, 256, (n, *shape)).astype(np.uint8),
        "smooth": photographs(n, shape),
        "few": (rng.random((n, *shape)) < 0.1).astype(np.uint8) * 255,
    }[kind]
    side = images // 32 * 32
    model = ContextModel(*quantize_context(trained(images, 3, side, width=8)))
    for beside in (None, side):
        data = coded(model, images, beside)
        assert np.array_equal(decoded(model, data, n, beside), images)
    assert decoded(model, coded(model, images[:0]), 0).shape == (0, *shape)


@pytest.mark.parametrize("kind", ["values", "differences"])
@pytest.mark.parametrize("shown", [True, False])
def test_an_independent_decoder_reads_the_same(kind: str, shown: bool) -> None:
    images = digits()[:200] if kind == "values" else photographs(200, (3, 5, 4))
    net = trained(images, 30, images // 16 * 16, width=12)
    assert net.options.residual == (kind == "differences")
    model, some = ContextModel(*quantize_context(net)), images[:5]
    side = some // 16 * 16 if shown else None
    data = coded(model, some, side)
    reader = Reader(*quantize_context(net))
    assert reader.read(data, 5, None if side is None else side.tolist()) == some.tolist()


def test_many_images_are_coded_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narrows.compression.format.context_model.IMAGES_AT_ONCE", 7)
    images = digits()[:20]
    model = ContextModel(*quantize_context(trained(images, 3, images)))
    data = coded(model, images, images)
    assert np.array_equal(decoded(model, data, 20, images), images)


def test_quantising_loses_almost_nothing(digits_net: ContextNetwork) -> None:
    test = digits()[1500:]
    wanted = expected_bits(digits_net, test)
    assert ContextModel(*quantize_context(digits_net)).bits(test) == pytest.approx(
        wanted, rel=0.003
    )


@pytest.mark.slow
@pytest.mark.parametrize("shown", [True, False])
def test_quantising_differences_and_sides_loses_almost_nothing(shown: bool) -> None:
    images = photographs(300)
    net = trained(images, 40, images // 16 * 16)
    assert net.options.residual
    side = images // 16 * 16 if shown else None
    model = ContextModel(*quantize_context(net))
    assert model.bits(images, side) == pytest.approx(expected_bits(net, images, side), rel=0.003)


def test_the_file_is_as_large_as_the_model_says(digits_net: ContextNetwork) -> None:
    test = digits()[1200:]
    model = ContextModel(*quantize_context(digits_net))
    estimate = model.bits(test) / 8
    assert estimate <= len(coded(model, test)) <= estimate * 1.005 + 64
    assert estimate * 8 / test.size < 2.3  # of 4.09 if all 17 values were equally likely


def test_equally_likely_values_cost_all_their_bits() -> None:
    images = np.random.default_rng(0).integers(0, 2, (500, 1, 6, 6)).astype(np.uint8) * 200
    net = trained(images, 150)
    fresh = np.random.default_rng(1).integers(0, 2, (500, 1, 6, 6)).astype(np.uint8) * 200
    assert 0.999 <= ContextModel(*quantize_context(net)).bits(fresh) / fresh.size < 1.02


def test_a_markov_chain_costs_its_entropy() -> None:
    """Each pixel is its left neighbour's value plus 1 or 2 (mod 5), with odds 3 to 1."""
    rng = np.random.default_rng(0)

    def chain(n: int) -> Images:
        steps = np.where(rng.random((n, 1, 4, 12)) < 0.75, 1, 2)
        steps[..., 0] = 0
        return (steps.cumsum(3) % 5 * 50).astype(np.uint8)

    net, test = trained(chain(2000), 200), chain(500)
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) * 11 / 12
    assert (
        entropy * 0.98
        < ContextModel(*quantize_context(net)).bits(test) / test.size
        < entropy * 1.03
    )


def test_an_exact_approximation_leaves_almost_no_bits() -> None:
    images = np.random.default_rng(0).integers(0, 2, (500, 1, 6, 6)).astype(np.uint8) * 255
    model = ContextModel(*quantize_context(trained(images, 150, images)))
    assert model.bits(images, images) < 0.2 * images.size
    assert 0.99 * images.size < model.bits(images) < 1.05 * images.size


def test_a_random_part_of_the_pixels_is_an_unbiased_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("narrows.compression.context_network.PIXELS_PER_STEP", 100)
    images = torch.from_numpy(digits()[:20])
    net = ContextNetwork(context_options(digits()), torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    wanted = expected_bits(net, digits()[:20]) * np.log(2) / 20
    with torch.no_grad():
        draws = torch.stack([net(images, None, rng).mean() for _ in range(400)])
    assert abs(draws.mean() - wanted) < 4 * draws.std() / 20


def test_training_draws_from_its_own_generator_only() -> None:
    state = torch.get_rng_state()
    first, second = (quantize_context(trained(digits()[:100], 3))[0] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


CODE = """
import sys
import numpy as np
from narrows.compression.format.context_model import ContextModel
from narrows.compression.format.entropy_coder import Encoder
setting, path = sys.argv[1:]
if setting.startswith("numpy"):
    sys.modules["torch"] = None
else:
    import torch
    torch.set_num_threads(int(setting[0]))
    torch.backends.mkldnn.enabled = "one" in setting
    torch.set_float32_matmul_precision("medium")
with np.load(path) as stored:
    arrays = {name: stored[name] for name in stored.files}
images, big = arrays.pop("images"), arrays.pop("big")
structure = {"shape": [1, 8, 8], "residual": False, "side": False, "ceiling": 1023}
if setting.endswith("64"):  # weights so large that only float64 is exact
    arrays["w2"] = big
encoder = Encoder()
ContextModel(arrays, structure).encode(images, None, encoder)
sys.stdout.buffer.write(encoder.finish())
"""


@pytest.mark.slow
@pytest.mark.parametrize("wide", ["", "64"])
def test_threads_and_libraries_change_no_byte(
    digits_net: ContextNetwork, tmp_path: Any, wide: str
) -> None:
    arrays, _ = quantize_context(digits_net)
    big = np.random.default_rng(0).integers(-(2**31), 2**31, arrays["w2"].shape).astype(np.int32)
    path = tmp_path / "model.npz"
    np.savez(path, images=digits()[:200], big=big, **arrays)

    def run(setting: str) -> bytes:
        threads = {"OMP_NUM_THREADS": setting[0], "OPENBLAS_NUM_THREADS": setting[0]}
        env = os.environ | (threads if setting[0].isdigit() else {})
        command = [sys.executable, "-c", CODE, setting + wide, str(path)]
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout

    found = [run(setting) for setting in ("1 one", "2 none", "numpy")]
    assert len(set(found)) == 1
    assert len(found[0]) > 1000


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_products_are_those_of_whole_numbers(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    most = 12 if kind == np.float32 else 40
    a = rng.integers(-(2**5), 2**5, (500, 77))
    w = rng.integers(-(2**most), 2**most, (77, 33))
    exact = a @ w
    assert exact_kind(int((np.abs(a) @ np.abs(w)).max())) == kind
    frozen = a.astype(kind)
    frozen.flags.writeable = False  # as arrays from a file are
    with_torch = product(frozen, w.astype(kind))
    transposed = product(np.asfortranarray(frozen), np.asfortranarray(w.astype(kind)))
    monkeypatch.setitem(sys.modules, "torch", None)
    without = product(frozen, w.astype(kind))
    for found in (with_torch, transposed, without):
        assert found.dtype == kind
        assert np.array_equal(found, exact)


def test_images_and_approximations_must_fit(digits_net: ContextNetwork) -> None:
    model = ContextModel(*quantize_context(digits_net))
    with pytest.raises(InputError, match="was given uint8 of shape"):
        model.bits(np.zeros((3, 1, 9, 8), np.uint8))
    with pytest.raises(InputError, match="int64"):
        model.bits(np.zeros((3, 1, 8, 8), np.int64))
    with pytest.raises(InputError, match="no inputs for an approximation"):
        model.bits(digits()[:3], digits()[:3])


def test_damaged_bytes_are_refused_or_give_images(digits_net: ContextNetwork) -> None:
    model = ContextModel(*quantize_context(digits_net))
    data = bytearray(coded(model, digits()[:50]))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(15):
        damaged = bytearray(data)
        damaged[rng.integers(6, len(data))] ^= 1 << rng.integers(8)
        try:
            decoded(model, bytes(damaged), 50)
        except Corrupt:
            refused += 1
    assert refused == 15


STRANGE: list[tuple[str, Any]] = [
    ("shape", [1, 8]),
    ("shape", [1, 8, 9]),
    ("shape", [1, 8.0, 8]),
    ("shape", [1, -8, -8]),
    ("shape", [1 << 40, 1 << 40, 1]),
    ("shape", 7),
    ("shape", "188"),
    ("residual", 1),
    ("residual", True),
    ("side", True),
    ("side", None),
    ("ceiling", 0),
    ("ceiling", 1 << 16),
    ("ceiling", "many"),
]


@pytest.mark.parametrize(("name", "value"), STRANGE)
def test_a_strange_structure_is_refused(
    digits_net: ContextNetwork, name: str, value: object
) -> None:
    arrays, structure = quantize_context(digits_net)
    with pytest.raises(Corrupt):
        ContextModel(arrays, structure | {name: value})
    del structure[name]
    with pytest.raises(Corrupt):
        ContextModel(arrays, structure)


def test_strange_arrays_are_refused(digits_net: ContextNetwork) -> None:
    arrays, structure = quantize_context(digits_net)
    huge = np.full_like(arrays["w2"], 2**31 - 1, dtype=np.int32)
    strange: list[tuple[str, Any]] = [
        ("own", np.array([[0, 1]])),
        ("own", np.array([[0, 0]])),
        ("own", np.array([[-17, 0]])),
        ("own", arrays["own"].ravel()),
        ("other", np.array([[0, 100]])),
        ("near", arrays["near"] - 61),
        ("groups", arrays["groups"][::-1]),
        ("groups", arrays["groups"] * 2),
        ("groups", arrays["groups"][:-1]),
        ("sg", arrays["sg"] + 31),
        ("w1", arrays["w1"] + 1j),
        ("exponentials", arrays["exponentials"] - 1),
        ("exponentials", arrays["exponentials"][:0]),
        ("exponentials", arrays["exponentials"].astype(np.int64) << 20),
    ]
    for name, array in arrays.items():
        strange += [(name, array.astype(np.float32)), (name, array[..., None])]
        strange += [(name, array[:0])] if name != "near3" else []
        strange += [(name, np.array(5, np.int16)), (name, "text"), (name, None)]
    for name, value in strange:
        with pytest.raises(Corrupt):
            ContextModel(arrays | {name: value}, structure)
    for name in arrays:
        with pytest.raises(Corrupt):
            ContextModel({k: v for k, v in arrays.items() if k != name}, structure)
    assert ContextModel(arrays | {"w2": huge}, structure)._network.second.kind == np.float64


@pytest.mark.parametrize("near", [(3, 4), (2, 600), (700, 2)], ids=str)
@pytest.mark.parametrize("scale", [1, 2**16, 2**30])
def test_a_layer_is_whole_numbers_in_the_smallest_floats_that_hold_its_largest_sum(
    near: tuple[int, int], scale: int
) -> None:
    """One row of "at" is added, and one of each of near's first axis: the worst case counts."""
    draw = np.random.default_rng(0)
    arrays = {
        "w1": draw.integers(-9, 10, (5, 3)), "s1": np.array([0, 3, 7]),
        "at": draw.integers(-scale, scale, (6, 3)),
        "near": draw.integers(-scale, scale, (*near, 3)),
    }  # fmt: skip
    layer = ContextLayer(arrays, "1", 5, 255, {"at": (6,), "near": near})
    w, half = arrays["w1"], (1 << arrays["s1"]) >> 1
    worst = np.abs(w).sum(0) * 255 + half + np.abs(arrays["at"]).max(0)
    worst = worst + np.abs(arrays["near"]).max(1).sum(0)  # of any values at each of its places
    assert layer.kind == exact_kind(int(worst.max()))
    x, values = draw.integers(-255, 256, (8, 5)), draw.integers(0, near[1], (near[0], 8))
    sums = x @ w + half + arrays["at"][2]
    sums = sums + sum(arrays["near"][i][values[i]] for i in range(near[0]))
    found = layer(x, layer.tables["at"][2], layer.tables["near"], values)
    np.testing.assert_array_equal(found.astype(np.int64), sums >> arrays["s1"])
