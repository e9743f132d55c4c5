"""The decoder of examples/, written from the specification alone, makes the same of every file."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from sklearn.datasets import load_digits, load_iris

import narrows
from helpers.quick_codecs import few_patches  # noqa: F401
from narrows import Codec
from narrows.compression.format.integer_arrays import Residuals, decode_integers, head_of
from narrows.compression.format.predictors import Plan

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.append(str(EXAMPLES))
decoder = importlib.import_module("numpy_decoder")
DIGITS = load_digits().images.astype(np.uint8)[:400]
RNG = np.random.default_rng(0)
FIELD = RNG.normal(size=(3, 30, 40)).cumsum(-1).cumsum(-2).astype(np.float32)
PHOTOS = [
    RNG.integers(0, 4, (5, 6, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8) * 60,
    RNG.integers(0, 4, (4, 9)).repeat(7, 0).repeat(9, 1).astype(np.uint8) * 50,
]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "images": (DIGITS, {}),
    "images, a table a channel": (DIGITS, {"prior": "factorised", "context": False}),
    "fsq": (DIGITS, {"quantizer": "fsq", "levels": 1}),
    "linear": (DIGITS, {"hidden_layer_sizes": (), "context": False}),
    "tables": (load_iris().data, {}),
    "signals": (RNG.normal(size=(40, 2, 33)).cumsum(-1).astype(">f4"), {"axes": "CL"}),
    "colours": (RNG.integers(0, 255, (40, 5, 6, 3)).astype(np.uint8), {"axes": "HWC"}),
    "truths": (RNG.integers(0, 2, (60, 6, 6)).astype(bool), {}),
    "whole numbers": (RNG.integers(-(10**12), 10**12, (50, 5)), {}),
    "fields": (FIELD, {"block": (4, 4)}),
    "fields, a table a channel": (FIELD, {"block": (4, 4), "prior": "factorised"}),
    "photographs": (PHOTOS, {}),
}
# Runs the example where nothing but the standard library and NumPy can be imported.
ALONE = """
import runpy, sys
class Door:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in {*sys.stdlib_module_names, "numpy", "numpy_decoder", "__main__"}:
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Door())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def codec() -> Callable[[str], Codec]:
    made: dict[str, Codec] = {}
    base = {
        "max_epochs": 1,
        "max_time": 1.0,
        "random_state": 0,
        "levels": 3,
        "hidden_layer_sizes": (6,),
    }

    def make(kind: str) -> Codec:
        if kind not in made:
            X, kwargs = KINDS[kind]
            # tables of codes seldom seen are as good here
            with patch("narrows.compression.quantize_weights.COUNTED_NUMBERS", 1 << 14):
                made[kind] = Codec(**{**base, **kwargs}).fit(X)
        return made[kind]

    return make


def check(data: bytes, model: bytes | None = None, codec: Any = None) -> None:
    """Both decoders make the same arrays, to the last bit."""
    kind, items = decoder.decode(data, model)
    expected = narrows.decompress(data, codec)
    expected = expected if kind == "images" else [expected]
    assert len(items) == len(expected)
    for (_, found), right in zip(items, expected, strict=True):
        assert found.shape == right.shape and found.dtype == right.dtype
        assert found.tobytes() == right.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_all_modes_with_every_kind_of_model(kind: str, codec: Any) -> None:
    X, coder = KINDS[kind][0], codec(kind)
    few = X[:40]
    for level in range(coder.decoder_.n_levels):
        quality = level - coder.decoder_.level
        check(coder.compress(few, quality=quality, embed_model=True))
    check(coder.compress(few, mode="lossless", embed_model=True))
    check(coder.compress(few, max_error="0.02rel", embed_model=True))


def test_the_model_may_stand_beside(codec: Any, tmp_path: Path) -> None:
    path = codec("images").save(tmp_path / "c.safetensors")
    for how in ({}, {"mode": "lossless"}, {"max_error": 2}):
        check(codec("images").compress(DIGITS[:60], **how), path.read_bytes(), path)
    data, other = (
        codec("images").compress(DIGITS[:60]),
        codec("tables").save(tmp_path / "o.safetensors"),
    )
    with pytest.raises(decoder.Refused, match="another model"):
        decoder.decode(data, other.read_bytes())
    with pytest.raises(decoder.Refused, match="needs the model"):
        decoder.decode(data)


def plain(X: Any, coder: Codec) -> None:
    check(coder.compress(X, mode="lossless", autoencoder=False))
    check(coder.compress(X, max_error=2 if X.dtype.kind in "iu" else 0.01, autoencoder=False))


WALK = RNG.normal(size=(9, 20, 21)).cumsum(-1).cumsum(1)
PLAIN: dict[str, np.ndarray] = {
    "nothing": np.zeros((0, 4), ">f4"),
    "nothing of complex": np.zeros((3, 0, 2), np.complex64),
    "one number": np.array(3.25),
    "one complex number": np.array(1 - 2j, ">c8"),
    "NaN": np.where(RNG.random(WALK.shape) < 0.02, np.nan, WALK),
    "infinities, big-endian": np.where(RNG.random(WALK.shape) < 0.02, np.inf, WALK).astype(">f4"),
    "halves": WALK.astype(np.float16),
    "complex": (WALK + 1j * WALK[::-1]).astype(np.complex64),
    "decimals": np.round(WALK, 2),
    "decimals and a few others": np.where(RNG.random(WALK.shape) < 0.01, WALK, np.round(WALK, 1)),
    "few values": RNG.choice(RNG.integers(-(2**62), 2**62, 9), (40, 50)),
    "palette of many": RNG.choice(RNG.normal(size=300), 5000),
    "largest": RNG.integers(0, 2**64, (30, 40), dtype=np.uint64),
    "steps": np.cumsum(RNG.integers(-(2**40), 2**40, 3000)).astype(">i8"),
    "smooth volume": (WALK * 100).astype(np.int32),
    "seldom": (RNG.random((90, 80)) < 0.002).astype(np.uint16) * 7,
    "truths": RNG.random((50, 60)) < 0.1,
    "noise": RNG.integers(0, 256, 5000).astype(np.uint8),
    "again and again": np.resize(RNG.normal(size=9000), 27_000).view(complex),
    "seven axes": RNG.integers(0, 9, (2, 1, 3, 2, 4, 2, 3)).astype(np.int8),
}


@pytest.mark.parametrize("name", PLAIN)
def test_any_array_without_a_model(name: str) -> None:
    plain(PLAIN[name], TABLES)


def test_these_arrays_are_coded_in_all_plain_ways() -> None:
    found = set()
    for X in PLAIN.values():
        data = TABLES.compress(X, mode="lossless", autoencoder=False)
        _, _, items = decoder.container.read(data)
        found |= {chunk.method for item in items for chunk in item.chunks}
    assert found == {0, 1, 2}


DTYPES = st.one_of(
    arrays.boolean_dtypes(), arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(),
    arrays.floating_dtypes(sizes=(16, 32, 64)), arrays.complex_number_dtypes(sizes=(64, 128)),
)  # fmt: skip


@settings(max_examples=15, deadline=None, derandomize=True)
@given(X=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=6)))
def test_any_bits_without_a_model(X: np.ndarray) -> None:
    plain(X, TABLES)


TABLES = Codec(max_epochs=1, random_state=0, levels=1, hidden_layer_sizes=())
TABLES.fit(load_iris().data)


def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE, EXAMPLES / "numpy_decoder", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_the_command_needs_neither_narrows_nor_torch(codec: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "x.narrow", tmp_path / "x.npy"
    model = codec("images").save(tmp_path / "c.safetensors")
    file.write_bytes(codec("images").compress(DIGITS[:20]))
    ended = run(file, model, out)
    assert ended.returncode == 0, ended.stderr
    assert np.array_equal(np.load(out), narrows.decompress(file, model))
    assert run(file, out).stderr == "error: The file needs the model it was made with.\n"


def test_the_command_writes_images_that_others_open(codec: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.narrow"
    file.write_bytes(codec("photographs").compress(PHOTOS, mode="lossless", embed_model=True))
    ended = run(file, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    for path, photo in zip(sorted((tmp_path / "out").iterdir()), PHOTOS, strict=True):
        assert path.suffix == (".ppm" if photo.ndim == 3 else ".pgm")
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), photo)


def test_what_is_damaged_is_refused_in_one_sentence(codec: Any) -> None:
    data = codec("tables").compress(load_iris().data[:20], embed_model=True)
    for at in range(0, len(data) - 44, 97):
        broken = bytearray(data)
        broken[at] ^= 4
        with pytest.raises(decoder.Refused, match=r"\.$"):
            decoder.decode(bytes(broken))
        if at >= 64:  # and where its checksum is made to agree
            broken[-44:-12] = hashlib.sha256(broken[:-44]).digest()
            with pytest.raises(decoder.Refused, match=r"\.$"):
                decoder.decode(bytes(broken))
    for end in range(0, len(data), 97):
        with pytest.raises(decoder.Refused, match=r"\.$"):
            decoder.decode(data[:end])


PLANS = st.builds(
    Plan,
    order=st.permutations([0, 1, 2]).flatmap(
        lambda axes: st.integers(0, 3).map(lambda n: axes[:n])
    ),
    kinds=st.tuples(*[st.integers(0, 2)] * 4),
    context=st.integers(0, 2),
    shift=st.integers(0, 63),
    alpha=st.integers(0, 255),
    beta=st.integers(16, 255),
    block=st.integers(0, 9),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    plan=PLANS,
    step=st.sampled_from([1, 7, 10**9 + 1]),
    size=st.sampled_from([1, 50, 2**30, 2**63 - 1]),
    shape=st.tuples(*[st.sampled_from([2, 3, 8, 9, 17])] * 3),
)
def test_plans_that_no_encoder_would_choose(
    plan: Plan, step: int, size: int, shape: tuple[int, ...]
) -> None:
    q = np.random.default_rng(size).integers(-size, size, shape, endpoint=True)
    coded = bytes([2, 0]) + head_of(plan) + Residuals(q, plan, step).payload()
    found = decoder.integers.integers(coded, shape, step)
    assert np.array_equal(found, decode_integers(coded, shape, step=step))
