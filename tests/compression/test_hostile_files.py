"""Files from strangers, through everything that reads them: a typed error, or the very data.

Nothing else may come of damage (`fuzzing.mutations`), and of what has all its checksums right but
lies (`fuzzing.hostile`, and models that lie) either an error or some data: no other exception, no
warning, no crash, no second of thinking, and little memory.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.datasets import load_digits, load_iris

import narrows
from helpers import mutated_files as fuzzing
from helpers.containers import example, write
from helpers.quick_codecs import few_patches  # noqa: F401
from narrows import Codec
from narrows.compression.decompress_files import load_model
from narrows.compression.format import chunk_methods as methods
from narrows.compression.format import pack as packing
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.entropy_coder import Tables, frequencies_of
from narrows.compression.format.frames import MODEL
from narrows.compression.format.integer_networks import Payload
from narrows.exceptions import Corrupt, FileError
from narrows.io.safetensors_file import read_file, write_file

DIGITS = load_digits().images.astype(np.uint8)
RNG = np.random.default_rng(0)
FIELD = RNG.normal(size=(3, 40, 40)).cumsum(-1).cumsum(-2).astype(np.float32)
SIGNALS = RNG.normal(size=(60, 2, 9)).cumsum(-1).astype(">f4")
PHOTOS = [RNG.integers(0, 4, (h, 5, 3)).repeat(2, 0).astype(np.uint8) * 60 for h in (9, 4)]
FLOATS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, -1.0)
SECONDS, MEBIBYTES = 1.0, 300  # of one file; the memory of all of them together


class Good(NamedTuple):
    """A good file, the model it is read with, and what is in it."""

    data: bytes
    model: Any
    expected: Any

    def read(self, data: bytes) -> Any:
        return narrows.decompress(data, self.model)


def codec(X: Any, **how: Any) -> Codec:
    base = {"max_epochs": 1, "random_state": 0, "levels": 2, "latent_dim": 3}
    return Codec(**{**base, "hidden_layer_sizes": (4,), **how}).fit(X)


@pytest.fixture(scope="module")
def codecs() -> dict[str, Codec]:
    small: dict[str, Any] = {"prior": "factorised", "context": False}  # models of some kilobytes
    return {
        "digits": codec(DIGITS[:400], **small),
        "linear": codec(DIGITS[:400], **{**small, "hidden_layer_sizes": ()}),
        "fsq": codec(DIGITS[:400], **{**small, "quantizer": "fsq", "levels": 1}),
        "blocks": codec(FIELD, block=(4, 4), max_epochs=0, **small),
        "photographs": codec(PHOTOS, block=(4, 4), max_epochs=0, **small),
        "context": codec(DIGITS[:100], prior="factorised"),
        "conditional": codec(DIGITS[:100], context=False),
        "conditional blocks": codec(FIELD[:2, :20, :20], block=(4, 4), max_epochs=0),
        "table": codec(load_iris().data),
        "signals": codec(SIGNALS, axes="CL"),
    }


ITEMS: dict[str, Any] = {
    "blocks": FIELD[:1, :13, :14],
    "conditional blocks": FIELD[:1, :6, :14],
    "photographs": [PHOTOS[1][:7], PHOTOS[1]],
    "table": load_iris().data[::10],
    "signals": SIGNALS[:4],
}
MODES: list[dict[str, Any]] = [{}, {"max_error": 1.5}, {"mode": "lossless"}]


def made(codecs: dict[str, Codec]) -> Iterator[Good]:
    """Files of every mode, method and kind of model, with the model in them where it is small."""
    for name, one in codecs.items():
        X = ITEMS.get(name, DIGITS[:4])
        for how in MODES:
            for method in (methods.RESIDUAL, methods.CONTEXT) if how else (methods.AUTOENCODER,):
                if method == methods.CONTEXT and (how != MODES[2] or name != "context"):
                    continue
                embed = len(one.payload_.data) < 8000
                data = by(method, one, X, embed_model=embed, **how)
                model = None if embed else one.decoder_
                yield Good(data, model, narrows.decompress(data, one))
    alone = codecs["digits"]
    for X in (FIELD[:1, :9, :9], DIGITS[:3], DIGITS[:3] > 7, SIGNALS[:2], np.zeros((0, 3))):
        for how in MODES[1:]:
            data = alone.compress(X, autoencoder=False, **how)
            yield Good(data, None, narrows.decompress(data))
    for kind in ("array", "images"):
        data = write(*example(kind, 1 if kind == "array" else 3))
        yield Good(data, None, narrows.decompress(data))


def by(method: int, one: Codec, X: Any, **how: Any) -> bytes:
    """A file whose chunks are coded by this method, where it can."""

    def encode(chunk: Any, settings: Any) -> Any:
        tried = list(methods._tried(chunk, settings))
        return min(tried, key=lambda coded: (coded.method != method, len(coded.payload)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "encode_chunk", encode)
        return one.compress(X, **how)


# ------------------------------------------------------------------ models that lie


def strange_models(data: bytes, rng: random.Random, n: int) -> Iterator[bytes]:
    """``n`` versions of a file with a model in it, the model another one; all checksums right."""
    text, frames, _ = fuzzing.split(data)
    at = next(i for i, frame in enumerate(frames) if frame.kind == MODEL)
    good, header = zlib.decompress(frames[at].payload), json.loads(text)
    for _ in range(n):
        payload = strange_payload(good, rng)
        header["model"] = narrows.compression.format.container.model_id(payload)
        frames[at] = replace(frames[at], payload=zlib.compress(payload, 1))
        yield fuzzing.seal(
            json.dumps(header, sort_keys=True, separators=(",", ":")).encode(), frames
        )


def strange_payload(good: bytes, rng: random.Random) -> bytes:
    """A model's payload with bytes, words of its head or numbers of its arrays changed."""
    how = rng.random()
    if how < 0.2:
        return rng.choice(fuzzing.BLIND)(good, rng)
    length = int.from_bytes(good[:4], "little")
    head, rest = good[4 : 4 + length], good[4 + length :]
    if how < 0.6:
        head = fuzzing._edited_json(head, rng)
    else:
        rest = strange_numbers(Payload.from_bytes(good), rng)
    return len(head).to_bytes(4, "little") + head + rest


def strange_numbers(payload: Payload, rng: random.Random) -> bytes:
    arrays = {name: a.copy() for name, a in sorted(payload.arrays.items())}
    for _ in range(rng.choice([1, 1, 2])):
        array = arrays[rng.choice([name for name in arrays if arrays[name].size])]
        flat = array.reshape(-1)
        some = slice(None) if rng.random() < 0.3 else rng.randrange(flat.size)
        if array.dtype.kind == "f":
            flat[some] = rng.choice(FLOATS)
        else:
            ends = np.iinfo(array.dtype)
            flat[some] = rng.choice([ends.min, ends.max, 0, 1, rng.randrange(ends.max)])
    return b"".join(a.tobytes() for a in arrays.values())


def lying(codecs: dict[str, Codec], name: str, **arrays: Any) -> Payload:
    """The model of a codec with some arrays other ones."""
    good = codecs[name].payload_
    return Payload({**good.arrays, **arrays}, good.structure)


@pytest.mark.parametrize(
    ("unit", "value"), [("scale", np.nan), ("scale", np.inf), ("shift", -np.inf), ("low", np.nan)]
)
def test_units_are_numbers(codecs: dict[str, Codec], unit: str, value: float) -> None:
    with pytest.raises(Corrupt, match="are not all"):
        ExactDecoder(lying(codecs, "digits", **{unit: np.full((1, 1, 1), value)}))


def test_huge_units_end_at_the_bounds(codecs: dict[str, Codec]) -> None:
    model = ExactDecoder(lying(codecs, "digits", scale=np.full((1, 1, 1), 1e308)))
    grid = model.grid((2, 8, 8), False)
    assert grid is not None
    answer = model.predict(np.full(model.code_shape(grid), 9), 0, grid)
    assert (answer >= model.low.min()).all() and (answer <= model.high.max()).all()


def test_sides_of_kernels_are_bounded(codecs: dict[str, Codec]) -> None:
    """Else a small file asks for years of products."""
    payload = codecs["blocks"].payload_
    for name in ("net.0.weight", "path.weight"):
        out, into = payload.arrays[name].shape[:2]
        large = np.zeros((out, into, 17, 17), np.int8)
        with pytest.raises(Corrupt):
            ExactDecoder(lying(codecs, "blocks", **{name: large}))


def test_chunks_of_very_many_codes_have_no_place(codecs: dict[str, Codec]) -> None:
    """A small file may say that it holds codes of many gigabytes."""
    for name, shape in (("digits", (1 << 24, 8, 8)), ("blocks", (1 << 16, 1 << 12))):
        assert codecs[name].decoder_.grid(shape, False) is None


def test_very_many_tables_take_little_room() -> None:
    """2 bytes of a model for each of many tables ask for no lookup of 64 KiB."""
    rng = np.random.default_rng(0)
    rows = np.zeros((5000, 4), np.int64)
    rows[:, :3] = frequencies_of(rng.random((5000, 3)) ** 9 * (rng.random((5000, 3)) > 0.3) + 1e-9)
    rows[:2500] = np.roll(rows[:2500], 1, axis=1)
    many, index = Tables(rows), rng.integers(0, 5000, 20000)
    slots = rng.integers(0, 1 << 16, 20000)
    tracemalloc.start()
    found = many.find((index << 16) + slots)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert (
        found[:500]
        == [Tables(rows[i : i + 1]).find(k) for i, k in zip(index[:500], slots[:500], strict=True)]
    ).all()


# ------------------------------------------------------------------ the judge


class Judge:
    """How each file ended; what must not be is an `AssertionError` that tells how to see it."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.slowest = (0.0, "")
        self.n, self._memory = 0, memory()

    def see(self, read: Callable[[], Any], what: str, expected: Any = None) -> None:
        """Read a file; what comes must be ``expected``, if anything is."""
        self.n += 1
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, 20 * SECONDS)  # a hang ends the test
        try:
            found = read()
        except FileError as error:
            end, words = type(error).__name__, str(error)
            assert words and "\n" not in words and len(words) < 400, (what, words)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        else:
            end = "data"
            assert expected is None or same(found, expected), what
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - start
        self.ends[end] += 1
        self.slowest = max(self.slowest, (seconds, what))
        assert seconds < SECONDS, f"{what}: {seconds:.1f} s"
        assert memory() - self._memory < MEBIBYTES, f"{what}: {memory() - self._memory:.0f} MiB"


def memory() -> float:
    """The most this process ever took, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def all_of(codecs: dict[str, Codec], n: int, seed: int, judge: Judge) -> None:
    """About ``n`` files, half of them damaged, half of them liars."""
    goods = list(made(codecs))
    kinds: list[tuple[Good, str]] = []
    for good in goods:
        kinds += [(good, "mutations"), (good, "hostile")]
        if fuzzing.split(good.data)[1][0].kind == MODEL:
            kinds += [(good, "strange_models")]
    makers: dict[str, Any] = {
        "mutations": fuzzing.mutations,
        "hostile": fuzzing.hostile,
        "strange_models": strange_models,
    }
    for i, (good, kind) in enumerate(kinds):
        rng = random.Random(1000 * seed + i)
        for j, data in enumerate(makers[kind](good.data, rng, -(-n // len(kinds)))):
            expected = good.expected if kind == "mutations" else None
            judge.see(
                lambda good=good, data=data: good.read(data),
                f"{kind} {j} of file {i}, seed {seed}",
                expected,
            )


def model_files(codecs: dict[str, Codec], folder: Path, n: int, judge: Judge) -> None:
    """Codecs' own files, damaged, or their payloads strange, as a decoder and as a whole codec."""
    rng = random.Random(7)
    good, bad = folder / "good.safetensors", folder / "bad.safetensors"
    for name, one in codecs.items():
        one.save(good, overwrite=True)
        data = good.read_bytes()
        tensors, header = read_file(good)
        for j in range(-(-n // len(codecs))):
            if j % 2:
                bad.write_bytes(rng.choice(fuzzing.BLIND)(data, rng))
            else:
                payload = strange_payload(load_file(good)["payload"].tobytes(), rng)
                array = np.frombuffer(payload, np.uint8).copy()
                now = {**tensors, "payload": torch.from_numpy(array)}
                write_file(bad, now, header, overwrite=True)
            read = (load_model, narrows.load)[j // 2 % 2]
            judge.see(lambda read=read: read(bad), f"model file {j} of {name}")


@pytest.mark.slow
def test_small_files_of_strangers(codecs: dict[str, Codec], tmp_path: Path) -> None:
    judge = Judge()
    all_of(codecs, 1400, 0, judge)
    model_files(codecs, tmp_path, 100, judge)
    assert judge.n >= 1500 and len(judge.ends) >= 6


@pytest.mark.slow
def test_a_hundred_thousand_files_of_strangers(codecs: dict[str, Codec], tmp_path: Path) -> None:
    judge = Judge()
    for seed in range(1, 11):
        all_of(codecs, 9700, seed, judge)
    model_files(codecs, tmp_path, 3000, judge)
    assert judge.n >= 100_000 and len(judge.ends) >= 6
    print(judge.n, judge.ends, judge.slowest)
