"""Write the golden .narrow files; run once when their format changes, then commit.

Every method with every kind of model, these as small as they can be: a few kB that must decode to
the same bits for ever. What an encoder would not choose for so little data is chosen for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from sklearn.datasets import load_digits

from narrows import Codec, decompress
from narrows.compression import codec_setup as coding
from narrows.compression.format import chunk_methods as methods
from narrows.compression.format import latent_codes
from narrows.compression.format.entropy_coder import Encoder
from narrows.compression.format.lossless import encode_deflate, encode_exact, to_real

FOLDER = Path(__file__).parent / "golden" / "compressed"
RNG = np.random.default_rng(0)
DIGITS = load_digits().images.astype(np.uint8)[:300]
COLOURS = RNG.integers(0, 4, (60, 4, 5, 3)).astype(np.uint8) * 60
FIELD = RNG.normal(size=(2, 18, 22)).cumsum(-1).cumsum(-2).astype(np.float32)
TABLE = RNG.normal(size=(80, 5)) @ RNG.normal(size=(5, 5))
WALK = RNG.normal(size=(12, 25)).cumsum(-1)
WALK[3, 4], WALK[5, 6:9] = np.nan, (np.inf, -np.inf, -0.0)
UP, ASIDE = np.meshgrid(np.linspace(0, 3, 40), np.linspace(0, 4, 50), indexing="ij")
HILLS = np.sin(UP * ASIDE) * 9 + np.cos(2 * ASIDE) * 3
LOSSLESS = {"mode": "lossless"}
PHOTOS = [
    RNG.integers(0, 4, (3, 2, 3)).repeat(9, 0).repeat(8, 1).astype(np.uint8) * 60,
    RNG.integers(0, 4, (2, 4)).repeat(7, 0).repeat(6, 1).astype(np.uint8) * 50,
]
Way = Callable[[Any, methods.CodingSettings], methods.CodedChunk]
# kind: what a codec is fitted on, with which parameters, and what of it goes into a file
MODELS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "digits": (DIGITS, {}, DIGITS[:12]),
    "fsq": (DIGITS, {"quantizer": "fsq", "levels": 1, "context": False}, DIGITS[:12]),
    "colours": (COLOURS, {"axes": "HWC", "prior": "factorised", "context": True}, COLOURS[:9]),
    "table": (TABLE, {"prior": "factorised"}, TABLE[:30].astype(">f8")),
    "signals": (FIELD.reshape(-1, 2, 11), {"axes": "CL"}, FIELD.reshape(-1, 2, 11)[:20]),
    "fields": (FIELD, {"block": (4, 4)}, FIELD),
    "linear": (FIELD, {"block": (4, 4), "hidden_layer_sizes": (), "prior": "factorised"}, FIELD),
    "photos": (PHOTOS, {}, PHOTOS),
}
PLAIN: dict[str, tuple[Any, dict[str, Any]]] = {
    "exact": (WALK, LOSSLESS),
    "complex": (np.stack([WALK, WALK[::-1]], -1).view(complex).astype(">c8"), LOSSLESS),
    "decimals": (np.where(RNG.random(HILLS.shape) < 0.01, HILLS, HILLS.round(1)), LOSSLESS),
    "palette": (RNG.choice(RNG.integers(-(2**62), 2**62, 9), (40, 9)), LOSSLESS),
    "truths": (RNG.random((3, 10, 20)) < 0.1, LOSSLESS),
    "nothing": (np.zeros((0, 3), np.int16), LOSSLESS),
    "one": (np.array(-1.5, ">f4"), LOSSLESS),
    "halves": (np.nan_to_num(WALK, posinf=0, neginf=0).astype(np.float16), LOSSLESS),
    "grid": (WALK, {"max_error": 0.01}),
    "grid of complex": (np.stack([WALK, WALK[::-1]], -1).view(complex), {"max_error": 0.3}),
    "volume": (FIELD[:, :12, :12], {"max_error": "1e-3rel"}),
    "levels": ((HILLS * 300).astype(">i4"), {"max_error": 3}),
    "smooth": (HILLS, {"max_error": 0.001}),
    "seldom": ((RNG.random((60, 90)) < 0.003).astype(np.uint16), LOSSLESS),
    "coarse": (RNG.integers(0, 2**64, (9, 9), dtype=np.uint64), {"max_error": 2**60}),
}  # fmt: skip


@contextmanager
def small() -> Iterator[None]:
    """Networks and tables of a model far smaller than the usual ones."""
    options = coding.context_options
    with ExitStack() as stack:
        for where, name, value in (
            (coding, "PRIOR_WIDTH", 6),
            (
                coding,
                "context_options",
                lambda *a, **k: replace(options(*a, **k), widths=(6, 7, 8)),
            ),
            (latent_codes, "N_SCALES", 5),
            (latent_codes, "THRESHOLDS", np.geomspace(0.04, 60, 4)),
        ):
            stack.enter_context(patch.object(where, name, value))
        yield


def raw(chunk: Any, settings: methods.CodingSettings) -> methods.CodedChunk:
    return methods.CodedChunk(methods.RAW, chunk.tobytes(), chunk)


def deflate(chunk: Any, settings: methods.CodingSettings) -> methods.CodedChunk:
    payload = encode_deflate(chunk.tobytes(), to_real(chunk).itemsize)
    return methods.CodedChunk(methods.DEFLATE, payload, chunk)


def exact(chunk: Any, settings: methods.CodingSettings) -> methods.CodedChunk:
    return methods.CodedChunk(methods.INTEGERS, encode_exact(to_real(chunk)), chunk)


def coder_of(settings: methods.CodingSettings) -> methods.ModelCoder:
    assert settings.model is not None and settings.analysis is not None
    return methods.ModelCoder(settings.model, settings.analysis, settings)


def residual(chunk: Any, settings: methods.CodingSettings) -> methods.CodedChunk:
    coder = coder_of(settings)
    grid = coder.model.grid(chunk.shape, settings.images)
    assert grid is not None
    coded = coder.residual(chunk, grid, 1 << 30)
    assert coded is not None
    return coded


def expected(level: int) -> Way:
    """The context network, with the answer of a level beside."""

    def way(chunk: Any, settings: methods.CodingSettings) -> methods.CodedChunk:
        coder = coder_of(settings)
        model, grid = coder.model, coder.model.grid(chunk.shape, False)
        assert model.context is not None and grid is not None
        data, side = b"", None
        if level != methods.NO_CODES:
            codes, encoder = coder.codes(coder.latents(chunk, grid), level)
            data, side = encoder.finish(), model.approximation(codes, level)
        encoder = Encoder()
        model.context.encode(model.planes(chunk, grid), side, encoder)
        payload = methods.HEAD.pack(level, len(data)) + data + encoder.finish()
        return methods.CodedChunk(methods.CONTEXT, payload, chunk)

    return way


def digest(found: Any) -> str:
    """Of the arrays' shapes, dtypes and bytes."""
    total = hashlib.sha256()
    for x in found if isinstance(found, list) else [found]:
        total.update(f"{x.dtype.str}{x.shape}".encode() + x.tobytes())
    return total.hexdigest()


def write(name: str, codec: Codec, X: Any, way: Way | None = None, **how: Any) -> dict[str, Any]:
    with patch("narrows.compression.format.pack.encode_chunk", way or methods.encode_chunk):
        data = codec.compress(X, **how)
    (FOLDER / f"{name.replace(' ', '-')}.narrow").write_bytes(data)
    return {"sha256": digest(decompress(data, codec))}


def ways(kind: str, codec: Codec) -> dict[str, tuple[Way | None, dict[str, Any]]]:
    """What is written with a model of a kind; of large models for what they add."""
    found: dict[str, tuple[Way | None, dict[str, Any]]] = {
        "lossy": (None, {}),
        "rough": (None, {"quality": -codec.decoder_.level}),
        "bounded": (residual, {"max_error": "0.02rel"}),
        "lossless": (residual, LOSSLESS),
        "context": (expected(methods.NO_CODES), LOSSLESS),
        "context beside": (expected(1), LOSSLESS),
    }
    chosen = {
        "digits": ("rough", "lossless", "context", "context beside"),
        "fsq": ("lossy",),
        "colours": ("lossless", "context beside"),
        "fields": ("lossy", "bounded"),
        "signals": ("bounded",),
        "photos": ("lossy", "bounded"),
    }
    names = chosen.get(kind, ("lossy", "rough", "bounded", "lossless"))
    return {name: found[name] for name in names}


def with_models() -> Iterator[tuple[str, dict[str, Any]]]:
    """All but one kind of model stand in each of their files."""
    tiny = {"max_epochs": 1, "random_state": 0, "levels": 2, "hidden_layer_sizes": (6,)}
    for kind, (X, kwargs, few) in MODELS.items():
        with small():
            codec = Codec(**{**tiny, "latent_dim": 4, **kwargs}).fit(X)
        beside = {"model": f"{kind}.safetensors"} if kind == "table" else {}
        if beside:
            codec.save(FOLDER / beside["model"], overwrite=True)
        for name, (way, how) in ways(kind, codec).items():
            full = f"{kind} {name}"
            yield full, write(full, codec, few, way, embed_model=not beside, **how) | beside


def without_models() -> Iterator[tuple[str, dict[str, Any]]]:
    codec = Codec(max_epochs=1, random_state=0, levels=1, hidden_layer_sizes=()).fit(TABLE)
    for name, (X, how) in PLAIN.items():
        way = exact if how.get("mode") and X.size > 1 else None
        yield name, write(name, codec, X, way, autoencoder=False, **how)
    for name, way in (("raw", raw), ("deflate", deflate), ("deflate of complex", deflate)):
        X = PLAIN["complex"][0] if name.endswith("complex") else WALK.astype(">f4")
        yield name, write(name, codec, X, way, autoencoder=False, **LOSSLESS)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    manifest = dict(sorted([*with_models(), *without_models()]))
    manifest = {name.replace(" ", "-"): entry for name, entry in manifest.items()}
    text = json.dumps(manifest, indent=1) + "\n"
    (FOLDER / "manifest.json").write_text(text, encoding="utf-8")
