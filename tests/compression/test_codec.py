"""Compressing and decompressing with a Codec: any data, three modes, the same bits everywhere."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_digits, load_iris

import narrows
from helpers.quick_codecs import few_patches  # noqa: F401
from narrows import Codec
from narrows.exceptions import FileError, InputError, ParameterError, WrongModel

DIGITS = load_digits().images.astype(np.uint8)
RNG = np.random.default_rng(0)
FIELD = RNG.normal(size=(3, 70, 80)).cumsum(-1).cumsum(-2).astype(np.float32)
PHOTOS = [
    RNG.integers(0, 4, (9, 11, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8) * 60,
    RNG.integers(0, 4, (10, 8)).repeat(7, 0).repeat(9, 1).astype(np.uint8) * 50,
]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(max_epochs=3, random_state=0).fit(DIGITS)


@pytest.fixture(scope="module")
def blocks() -> Codec:
    """A codec of small blocks of fields."""
    return tiny(FIELD, block=(4, 4))


def tiny(X: Any, **kwargs: Any) -> Codec:
    base = {"max_epochs": 1, "random_state": 0, "levels": 3, "hidden_layer_sizes": (8,)}
    return Codec(**{**base, **kwargs}).fit(X)


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal to the last bit, with shapes and dtypes."""
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "table": (load_iris().data, {}),
    "one column": (RNG.normal(size=(50, 1)), {}),
    "constant": (np.ones((30, 4)), {}),
    "integers": (RNG.integers(-(10**12), 10**12, (50, 5)), {}),
    "truths": (RNG.integers(0, 2, (60, 6, 6)).astype(bool), {}),
    "signals": (RNG.normal(size=(40, 2, 33)).cumsum(-1), {"axes": "CL"}),
    "colours": (RNG.integers(0, 255, (40, 9, 7, 3)).astype(np.uint8), {"axes": "HWC"}),
    "big-endian": (RNG.normal(size=(40, 9, 7)).astype(">f4"), {}),
    "fields": (FIELD, {}),
    "photographs": (PHOTOS, {}),
    "sixteen bits": ([RNG.integers(0, 65535, (70, 66)).astype(np.uint16)], {}),
    "fsq": (DIGITS, {"quantizer": "fsq", "levels": 1}),
    "a table for each number": (DIGITS, {"prior": "factorised"}),
    "linear": (DIGITS, {"hidden_layer_sizes": ()}),
}


SLOW = {"fsq", "a table for each number"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS]
)
def test_every_mode_keeps_its_promise(kind: str, tmp_path: Path) -> None:
    X, kwargs = KINDS[kind]
    codec = tiny(X, **kwargs)
    lossy = codec.decompress(codec.compress(X))
    for x, y in zip(X, lossy, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
    assert same(codec.decompress(codec.compress(X, mode="lossless")), X)
    largest = 0.01 * (np.ptp(X) if isinstance(X, np.ndarray) and X.dtype != bool else 255)
    bounded = codec.decompress(codec.compress(X, max_error=largest))
    for x, y in zip(X, bounded, strict=True):
        assert np.abs(x.astype(np.float64) - y.astype(np.float64)).max() <= largest
    again = narrows.load(codec.save(tmp_path / "c.safetensors"))
    assert again.info()["id"] == codec.info()["id"]
    assert codec.compress(X) == again.compress(X)


def test_training_beats_pca(codec: Codec) -> None:
    """Three epochs: fewer bits than PCA with the same coder at the same error."""
    for level in codec.levels_[:4]:
        own, pca = ([level[k + n] for n in ("bits_per_number", "mse")] for k in ("", "pca_"))
        # at high rates a bit a number is a factor of four in the squared error
        moved = pca[0] - 0.5 * np.log2(own[1] / pca[1]) * 54 / 64
        assert own[0] < moved


def test_levels_go_up_in_rate_and_down_in_error(codec: Codec) -> None:
    sizes = [len(codec.compress(DIGITS, quality=q)) for q in range(-3, 4)]
    errors = [
        np.square(codec.reconstruct(DIGITS, q) - DIGITS.astype(float)).mean() for q in (-3, 0, 3)
    ]
    assert sizes == sorted(sizes) and errors == sorted(errors)[::-1]


def test_a_rate_is_met(codec: Codec) -> None:
    asked = Codec(rate=1.0, max_epochs=3, random_state=0).fit(DIGITS)
    size = 8 * len(asked.compress(DIGITS)) / DIGITS.size
    assert size == pytest.approx(1.0, rel=0.3)


def test_a_file_is_as_large_as_the_model_says(codec: Codec) -> None:
    """Within 0.5 % and 64 bytes, beside the header and the frames."""
    from narrows.compression.quantize_weights import code_bits

    model, latents = codec.decoder_, codec._encoder()
    y = latents.latents(model.planes(DIGITS, model.grid(DIGITS.shape, False)))
    for level in range(model.n_levels):
        estimate = code_bits(latents.quantize(y, level), model.tables, level) / 8
        stream = io.BytesIO()
        summary = codec.compress_to(stream, DIGITS, quality=level - model.level)
        assert summary.coded == len(stream.getvalue())
        assert estimate <= summary.codes <= 1.005 * estimate + 64


def test_the_same_seed_makes_the_same_files(codec: Codec) -> None:
    again = Codec(max_epochs=3, random_state=0).fit(DIGITS)
    assert again.info()["id"] == codec.info()["id"]
    assert again.compress(DIGITS) == codec.compress(DIGITS)
    assert Codec(max_epochs=3, random_state=1).fit(DIGITS).info()["id"] != codec.info()["id"]


def test_decoding_needs_the_model_given_or_embedded(codec: Codec, tmp_path: Path) -> None:
    X = DIGITS[:50]
    lone, whole = codec.compress(X), codec.compress(X, embed_model=True)
    expected = codec.decompress(lone)
    assert same(narrows.decompress(whole), expected)
    path = codec.save(tmp_path / "c.safetensors")
    (tmp_path / "x.narrow").write_bytes(lone)
    assert same(narrows.decompress(tmp_path / "x.narrow", path), expected)
    assert same(narrows.decompress(io.BytesIO(lone), codec), expected)
    with pytest.raises(WrongModel, match=codec.info()["id"][:12]):
        narrows.decompress(lone)
    other = tiny(DIGITS)
    with pytest.raises(WrongModel, match=other.info()["id"][:12]):
        other.decompress(lone)
    assert same(other.decompress(other.compress(X, mode="lossless", autoencoder=False)), X)


def test_reconstruct_is_the_integer_decoder(codec: Codec) -> None:
    assert same(
        codec.reconstruct(DIGITS[:9], 1), codec.decompress(codec.compress(DIGITS[:9], quality=1))
    )


def test_threads_change_no_bit(blocks: Codec) -> None:
    X = FIELD[:2]
    threads = torch.get_num_threads()
    try:
        answers = []
        for n in (1, 2):
            torch.set_num_threads(n)
            answers.append(blocks.decompress(blocks.compress(X)))
    finally:
        torch.set_num_threads(threads)
    assert same(*answers)


@pytest.mark.slow
def test_more_data_than_a_chunk_holds(blocks: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, or parts of rows: the result has the same shape, and errors stay within their bound."""
    for at_once in (3500, 1500):
        monkeypatch.setattr("narrows.compression.format.pack.CHUNK_ELEMENTS", at_once)
        X = FIELD[:2, :40]
        for how in ({"mode": "lossless"}, {"max_error": 0.5}, {}):
            back = blocks.decompress(blocks.compress(X, **how))
            assert back.shape == X.shape
            if how.get("mode"):
                assert same(back, X)
            elif how:
                assert np.abs(back - X).max() <= 0.5


@pytest.mark.slow
def test_images_cut_into_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = tiny(PHOTOS, block=(4, 4))
    monkeypatch.setattr("narrows.compression.format.pack.CHUNK_ELEMENTS", 8000)
    large = np.tile(PHOTOS[1], (4, 1))
    for how in ({}, {"mode": "lossless"}):
        back = codec.decompress(codec.compress([large, PHOTOS[0]], **how))
        assert [x.shape for x in back] == [large.shape, PHOTOS[0].shape]
    assert same(back, [large, PHOTOS[0]])


ANY = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="="),
    arrays.unsigned_integer_dtypes(endianness=">"),
    arrays.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    arrays.complex_number_dtypes(endianness="<", sizes=(64, 128)),
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6)


@given(X=arrays.arrays(ANY, SHAPES))
@settings(max_examples=80, deadline=None)
def test_every_shape_and_dtype_is_lossless(codec: Codec, X: Any) -> None:
    back = codec.decompress(codec.compress(X, mode="lossless"))
    assert back.dtype == X.dtype and same(back, np.ascontiguousarray(X).reshape(X.shape))


@given(X=arrays.arrays(ANY, SHAPES), error=st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_no_error_is_above_max_error(codec: Codec, X: Any, error: float) -> None:
    back = codec.decompress(codec.compress(X, max_error=error))
    assert back.dtype == X.dtype and back.shape == X.shape
    wide = np.complex256 if X.dtype.kind == "c" else np.longdouble
    with np.errstate(all="ignore"):
        away = np.abs(back.astype(wide) - X.astype(wide))
    assert (away[np.isfinite(X)] <= error).all()
    given, came = (np.ascontiguousarray(x).reshape(-1).view(X.real.dtype) for x in (X, back))
    assert came[~np.isfinite(given)].tobytes() == given[~np.isfinite(given)].tobytes()


def test_memory_layout_does_not_matter(codec: Codec) -> None:
    X = np.asfortranarray(DIGITS)[::-2]
    assert same(codec.decompress(codec.compress(X, mode="lossless")), np.ascontiguousarray(X))
    assert same(codec.reconstruct(X), codec.reconstruct(np.ascontiguousarray(X)))


@pytest.mark.parametrize(
    ("X", "how", "words"),
    [
        (DIGITS[:, :7], {}, "reshape X"),
        (DIGITS / 16, {}, "fitted on uint8"),
        (np.array(["a"]), {"mode": "lossless"}, "cannot store"),
        (np.array([1], dtype=object), {"mode": "lossless"}, "cannot store"),
        ([DIGITS[0], DIGITS], {"mode": "lossless"}, "Item 1"),
    ],
)
def test_unsuitable_data_are_refused(codec: Codec, X: Any, how: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        codec.compress(X, **how)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"mode": "best"}, "one of lossy"),
        ({"max_error": -1}, "from 0"),
        ({"max_error": "much"}, "1e-3rel"),
        ({"max_error": float("nan")}, "from 0"),
        ({"mode": "bounded"}, "go together"),
        ({"mode": "lossless", "max_error": 1}, "go together"),
        ({"quality": 9}, "from -3 to 3"),
        ({"quality": 1.5}, "from -3 to 3"),
        ({"mode": "lossless", "quality": 1}, "for mode='lossy'"),
        ({"autoencoder": False}, "need the autoencoder"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(codec: Codec, how: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        codec.compress(DIGITS, **how)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"block": (8,)}, "two sides"),
        ({"quantizer": "fsq", "n_values": 4}, "odd"),
        ({"rate": 0}, "rate"),
        ({"levels": 0}, "levels"),
    ],
)
def test_parameters_are_checked(kwargs: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Codec(**kwargs).fit(DIGITS)


@pytest.mark.slow
def test_training_continues_after_load_and_pickle(tmp_path: Path) -> None:
    codec = tiny(DIGITS, warm_start=True)
    before = codec.info()["id"]
    assert codec.fit(DIGITS).info()["id"] != before
    again = narrows.load(codec.save(tmp_path / "c.safetensors")).fit(DIGITS)
    assert again.n_iter_ == 1 and len(again.levels_) == 3
    copied = pickle.loads(pickle.dumps(codec))
    assert copied.compress(DIGITS) == codec.compress(DIGITS)


def test_a_checkpoint_can_be_loaded_and_used(tmp_path: Path) -> None:
    """A checkpoint from the middle of a run decodes what it encodes."""
    path = tmp_path / "run.checkpoint"
    whole = tiny(DIGITS, max_epochs=2)
    stopped = tiny(
        DIGITS,
        max_epochs=2,
        checkpoint=path,
        checkpoint_every=1,
        listeners=lambda e: e["epoch"] == 1,
    )
    assert stopped.n_iter_ == 1
    early = narrows.load(path)
    assert early.decompress(early.compress(DIGITS)).shape == DIGITS.shape
    with pytest.raises(FileError):
        narrows.load(tmp_path / "none.checkpoint")
    assert whole.info()["id"] != early.info()["id"]


@pytest.mark.parametrize("mode", ["lossy", "bounded", "lossless"])
@pytest.mark.parametrize("kind", ["digits", "colours", "fields"])
def test_every_method_that_was_tried_decodes(
    kind: str, mode: str, codec: Codec, blocks: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the smallest, which is stored."""
    from narrows.compression.format.chunk_methods import (
        CONTEXT,
        CodingSettings,
        _tried,
        decode_chunk,
    )

    X = {"digits": DIGITS[:60], "fields": FIELD[:, :30, :40]}.get(kind, KINDS["colours"][0])
    own = {"digits": codec, "fields": blocks}.get(kind) or tiny(X, axes="HWC")
    half = own._encoder()
    error = 2.0 if mode == "bounded" else None
    settings = CodingSettings(mode, False, error, own.decoder_, None, half)
    monkeypatch.setattr("narrows.compression.format.chunk_methods.MAX_ESTIMATE", 1e9)
    tried = _tried(X, settings)
    for coded in tried:
        back = decode_chunk(coded.method, coded.payload, X.shape, X.dtype, settings)
        assert same(np.ascontiguousarray(back), coded.decoded), coded.method
        assert coded.code_bytes <= len(coded.payload)
    if mode == "lossless" and X.dtype == np.uint8:
        assert CONTEXT in {coded.method for coded in tried}


@pytest.mark.parametrize("level", [255, 0, 2])
def test_the_context_network_codes_with_and_without_codes(
    level: int, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way is chosen, the pixels are decoded exactly; finer levels are tried in turn."""
    seen: list[int] = []

    def bits(self: Any, images: Any, side: Any = None) -> float:
        seen.append(255 if side is None else len(seen) - 1)
        return 1e9 * abs(seen[-1] - level)  # falls up to this level, and rises after it

    monkeypatch.setattr("narrows.compression.format.context_model.ContextModel.bits", bits)
    data = codec.compress(DIGITS[:200], mode="lossless")
    assert same(codec.decompress(data), DIGITS[:200])
    last = codec.decoder_.n_levels - 1 if level == 255 else max(1, level + 1)
    assert seen == [255, *range(last + 1)]


@pytest.mark.parametrize("n", [0, 1, 1000, 300_000])
def test_noise_hardly_grows(n: int, codec: Codec) -> None:
    """Random bytes: 0.1 % and 256 bytes at most."""
    X = np.random.default_rng(n).integers(0, 256, n).astype(np.uint8)
    data = codec.compress(X, mode="lossless")
    assert len(data) <= 1.001 * n + 256
    assert same(codec.decompress(data), X)


def test_files_of_images_are_as_large_as_the_model_says() -> None:
    """Also where most codes cost almost nothing: at the coarsest level of blocks."""
    from narrows.compression.quantize_weights import code_bits

    codec = tiny(PHOTOS)
    image = np.tile(PHOTOS[0], (6, 6, 1))
    model, half = codec.decoder_, codec._encoder()
    grid = model.grid(image.shape, True)
    assert grid is not None
    y = half.latents(model.planes(image, grid))
    for level in range(model.n_levels):
        estimate = code_bits(half.quantize(y, level), model.tables, level) / 8
        summary = codec.compress_to(io.BytesIO(), [image], quality=level - model.level)
        assert estimate <= summary.codes <= 1.005 * estimate + 64
