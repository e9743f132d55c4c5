"""Fingerprints of behaviour: whether two revisions of narrows give the same bits.

    python benchmarks/freeze.py record OUT.json [--only PATTERN ...]
    python benchmarks/freeze.py compare A.json B.json      # lists differences; exit status 1 if any

Every model is fitted for two epochs on a few rows, saved, loaded and asked all it can answer; files
of older versions are read, and the command's help is printed. Bits depend on the machine: record
both on one. For a revision elsewhere set PYTHONPATH=elsewhere/src. ``compare`` looks at the cases
that both were asked for. Weights have one fingerprint, their names and the file's header others.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", COLUMNS="100")

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_image

import narrows

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
RNG = np.random.default_rng(0)
PHOTO = load_sample_image("flower.jpg")[100:228, 150:278]
NOISY = PHOTO + RNG.normal(0, 25, PHOTO.shape)
IMAGES, Y = load_digits().images[:200], load_digits().target[:200]
TABLE = np.sin(RNG.uniform(-2, 2, (200, 1)) * np.arange(1, 7) / 2) + RNG.normal(0, 0.1, (200, 6))
DATA: dict[str, Any] = {
    "images": IMAGES,
    "table": TABLE,
    "binary": (IMAGES > 8).astype(np.float32),
    "counts": IMAGES.astype(np.uint8),
    "signals": RNG.normal(size=(150, 2, 33)).cumsum(-1),
    "odd": RNG.integers(0, 9, (120, 9, 7)).astype(np.uint8),
    "colours": RNG.integers(0, 4, (120, 8, 9, 3)).astype(np.uint8) * 60,
    "large": IMAGES[:64].repeat(2, 1).repeat(2, 2).astype(np.float32),
    "gaps": np.where(RNG.random(TABLE.shape) < 0.1, np.nan, TABLE),
    "image gaps": np.where(RNG.random(IMAGES.shape) < 0.1, np.nan, IMAGES),
    "mixed": np.column_stack([TABLE, Y, Y % 2, IMAGES.sum((1, 2))]),
    "field": RNG.normal(size=(2, 40, 44)).cumsum(-1).cumsum(-2).astype(np.float32),
    "photos": [PHOTO[:64, :64], PHOTO[64:, :64], PHOTO[64:, 64:]],
    "grey": [x.mean(-1).astype(np.uint8) for x in (PHOTO[:64, :64], PHOTO[64:], PHOTO[:64, 64:])],
    "noisy": [NOISY.mean(-1)],
    "noisy colours": [NOISY[:64], NOISY[64:]],
}
SEEDED = {"max_epochs": 2, "random_state": 0}
SMALL = {"latent_dim": 4, "hidden_layer_sizes": (16, 12), **SEEDED}
USUAL = {"Codec": SEEDED, "Denoiser": {"channels": (4, 8), "patch_size": 32, **SEEDED}}
CONV = {"architecture": "conv", "channels": (4, 8), "hidden_layer_sizes": "auto"}
PRIOR = {"latent": "gaussian", "prior": "normal", "regularizers": "kl"}
FAST = {"levels": 2, "hidden_layer_sizes": (6,), "max_epochs": 1}
OPEN = {"hidden_layer_sizes": "auto", "latent_dim": "auto"}
# model / case: data, parameters in addition to the small ones
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Autoencoder/auto": ("images", OPEN),
    "Autoencoder/table": ("table", OPEN),
    "Autoencoder/signals": ("signals", {"axes": "CL", **CONV}),
    "Autoencoder/colours": ("colours", {"axes": "HWC", **CONV}),
    "Autoencoder/conv auto": ("large", {"architecture": "conv", **OPEN}),
    "Autoencoder/conv bfloat16": ("large", {"precision": "bfloat16", **CONV}),
    "Autoencoder/folded": ("table", {"input_shape": (2, 3)}),
    "Autoencoder/gaps": ("gaps", {"missing": "mask"}),
    "Autoencoder/image gaps": ("image gaps", {"missing": "mask", **CONV}),
    "Autoencoder/no linear path": ("table", {"linear_path": False}),
    "Autoencoder/tied": ("table", {"linear_path": False, "tied": True}),
    "Autoencoder/steps": ("images", {"batch_size": 7, "validation_fraction": 0.0}),
    "DenoisingAutoencoder/gaps": ("gaps", {"missing": "mask", "noise": "masking"}),
    "DenoisingAutoencoder/dropout": ("signals", {"noise": "dropout", "axes": "CL"}),
    "DenoisingAutoencoder/range": ("images", {"noise": "blur", "noise_level": (0.5, 1.5)}),
    "VampVAE/shifts": ("images", {"shifts": True}),
    "Codec/images": ("counts", {}),
    "Codec/table": ("table", {"prior": "factorised", "hidden_layer_sizes": (16,)}),
    "Codec/signals": ("signals", {"axes": "CL", "levels": 3}),
    "Codec/colours": ("colours", {"axes": "HWC", "context": True, "latent_dim": 6}),
    "Codec/fsq": ("counts", {"quantizer": "fsq", "n_values": 5, "context": False}),
    "Codec/field": ("field", {"block": (4, 4), **FAST}),
    "Codec/photos": ("photos", {"latent_dim": 4, **FAST}),
    "Denoiser/grey": ("grey", {"noise_level": (0, 30), "blocks": 2}),
    "Denoiser/colours": ("photos", {"distance": "huber"}),
    "Denoiser/noisy": ("noisy", {"noisy_targets": True, "sides": 1}),
    "Denoiser/noisy colours": ("noisy colours", {"noisy_targets": True, "pairs": "recorrupted"}),
    "Denoiser/photon": ("photos", {"noise": "photon"}),
}
VERBS = "demo encode decode reconstruct sample denoise compress decompress inspect info report"
SHARED: dict[str, dict[str, Any]] = {"-": {}, "conv": CONV, "vae": PRIOR}
# model, parameter, data, other parameters, and the values to try
VALUES = """
Autoencoder down odd conv pool
Autoencoder up odd conv nearest bilinear shuffle
Autoencoder activation table - silu relu tanh identity
Autoencoder scaling images - column shared none
Autoencoder distance images - mse mae huber gaussian laplace ms_ssim
Autoencoder distance mixed - mixed
Autoencoder distance counts - logistic categorical poisson negative_binomial
Autoencoder sampler images - normal mixture maf iaf two_stage
Autoencoder latent images - top_k vq fsq
Autoencoder latent images vae full_gaussian iaf hamiltonian
Autoencoder prior images vae vamp
Autoencoder regularizers table - l1=0.1 kl_sparsity code_norm contractive=0.1 gradient_penalty
Autoencoder regularizers table vae total_correlation,kl=2 factor_critic,kl mmd decoder_weight_decay
DenoisingAutoencoder noise images - poisson masking salt_and_pepper swap blur
SparseAutoencoder sparsity images - kl topk
RegularizedAE penalty images - gradient
BetaTCVAE estimator images - mws
WassersteinAE kernel images - rbf
IWAE gradient images - doubly
VQVAE update images - gradient
FlowVAE flow images - planar radial
"""
for line in VALUES.strip().splitlines():
    kind, name, data, shared, *values = line.split()
    for value in values:
        VARIANTS[f"{kind}/{name}={value}"] = data, {**SHARED[shared], name: value}
KINDS = [name for name in sorted(narrows.__all__) if hasattr(getattr(narrows, name), "fit")]
MODELS = [name for name in KINDS if name not in ("Codec", "Denoiser")]
for name in MODELS:
    VARIANTS[f"{name}/small"] = "images", {}
    VARIANTS[f"{name}/binary"] = "binary", {}
    VARIANTS[f"{name}/conv"] = "large", CONV


def mapped(X: Any) -> Any:
    """X in a file that is read by slices."""
    name = tempfile.mkstemp(".npy", dir=".")[1]
    np.save(name, X)
    return np.load(name, mmap_mode="r")


# calls on every model that has the method, with the data it was fitted on
QUESTIONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "codes": ("transform", lambda m, X: m.transform(X)),
    "mapped": ("interpolate", lambda m, X: m.transform(mapped(X), out="Z.npy", overwrite=True)),
    "alone": ("transform", lambda m, X: m.transform(X[3:4])),
    "decoded": ("inverse_transform", lambda m, X: m.inverse_transform(m.transform(X)[::-1])),
    "reconstruction": ("reconstruct", lambda m, X: m.reconstruct(X)),
    "score": ("score", lambda m, X: m.score(X)),
    "row scores": ("score_samples", lambda m, X: m.score_samples(X)),
    "walks": ("interpolate", lambda m, X: m.interpolate(X[:3], X[3:6], steps=4)),
    "PCA": ("pca_", lambda m, X: m.pca_ and m.pca_.reconstruct(X)),
    "samples": ("sample", lambda m, X: m.sample(7, random_state=0)),
    "cool samples": ("sample", lambda m, X: m.sample(7, random_state=1, temperature=0.5)),
    "likelihood": ("log_likelihood", lambda m, X: m.log_likelihood(X[:9], random_state=0)),
    "whole numbers": ("codes", lambda m, X: m.codes(X)),
    "filled": ("impute", lambda m, X: m.impute(X)),
    "corrupted": ("corrupt", lambda m, X: m.corrupt(X, random_state=0)),
    "denoised": ("denoise", lambda m, X: m.denoise(X)),
    "told codes": ("classes_", lambda m, X: m.transform(X[:9], Y[:9])),
    "told samples": ("classes_", lambda m, X: m.sample(3, y=3, random_state=0)),
    "lossy files": ("compress", lambda m, X: [m.compress(X), m.compress(X, quality=-1)]),
    "noise": ("estimate_noise", lambda m, X: m.estimate_noise(X)),
    "one at 20": ("estimate_noise", lambda m, X: m.denoise(X[0], noise_level=20)),
}
FILES: dict[str, dict[str, Any]] = {  # ways to compress
    "bounded": {"max_error": "0.02rel", "embed_model": True},
    "lossless": {"mode": "lossless"},
    "plain": {"mode": "lossless", "autoencoder": False},
    "plain bounded": {"max_error": 0.5, "autoencoder": False},
}


def mark(value: Any) -> str:
    """The SHA-256 of arrays, bytes or plain data, with their kinds and shapes."""
    if isinstance(value, list) and any(isinstance(x, np.ndarray) for x in value):
        value = [mark(x) for x in value]
    if isinstance(value, np.ndarray | np.generic):
        value = f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    elif not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(value).hexdigest()


def timeless(value: Any) -> Any:
    """Plain data without values that differ from run to run."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k != "versions"}
    return [timeless(v) for v in value] if isinstance(value, list | tuple) else value


def file_marks(path: Path) -> dict[str, str]:
    """Of a safetensors file: fingerprint of the tensors without names and order; the header."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    listed = json.loads(data[8:start])
    header = json.loads(listed.pop("__metadata__")["narrows"])
    found = []
    for tensor in listed.values():
        begin, end = (start + at for at in tensor["data_offsets"])
        found.append(mark([tensor["dtype"], tensor["shape"], mark(data[begin:end])]))
    parts = {"weights": sorted(found), "tensor names": sorted(listed), "header": timeless(header)}
    return {name: mark(part) for name, part in parts.items()}


def tried(ask: Callable[[], Any]) -> str:
    """The fingerprint of a result, or the error."""
    try:
        return mark(ask())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def answers(model: Any, X: Any) -> dict[str, str]:
    """The results of a fitted model."""
    return {
        name: tried(partial(ask, model, X))
        for name, (method, ask) in QUESTIONS.items()
        if hasattr(model, method)
    }


def fitted(model: Any, X: Any) -> Iterator[tuple[str, Any]]:
    """All fingerprints of a fitted model, before and after saving and loading."""
    said = answers(model, X)
    yield from said.items()
    path = model.save("model.safetensors", overwrite=True)
    yield from file_marks(path).items()
    own = {k: v for k, v in model.get_params().items() if k in ("f", "g")}
    again = answers(narrows.load(path, **own), X)
    yield "loaded", "the same" if again == said else mark(again)
    yield "info", mark(timeless(model.info()))
    yield "course", mark(timeless([model.history_, model.validation_curve_, model.stop_reason_]))
    for name, how in FILES.items() if hasattr(model, "compress") else ():
        data = model.compress(X, **how)
        yield f"file, {name}", mark(data)
        yield f"decoded, {name}", mark(narrows.decompress(data, model))


def plainly(model: Any, X: Any) -> Any:
    """Trained by ``fit``."""
    return model.fit(X, Y[: len(X)]) if type(model).__name__ == "ConditionalVAE" else model.fit(X)


def trained(model: Any, way: Callable[[Any, Any], Any], X: Any) -> Iterator[tuple[str, Any]]:
    """The fingerprints of a model trained on X by the given function."""
    yield from fitted(way(model, X), X[:40] if hasattr(model, "compress") else X)


def resumed(model: Any, X: Any) -> Any:
    """A run that continues from a copy of its checkpoint after one epoch."""

    def keep(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:  # the file is that of the epoch before
            Path("b.checkpoint").write_bytes(Path("a.checkpoint").read_bytes())

    model.set_params(max_epochs=3, checkpoint="a.checkpoint", checkpoint_every=1, listeners=keep)
    return model.fit(X).set_params(checkpoint="b.checkpoint", resume=True, listeners=None).fit(X)


def in_parts(model: Any, X: Any) -> Any:
    """Trained by ``partial_fit``; then a sampler is fitted."""
    for part in np.array_split(X, 3):
        model.partial_fit(part)
    return model.set_params(sampler="mixture").fit_sampler(X)


def own(model: Any, X: Any) -> Any:
    """The user's own networks, one with random draws."""
    torch.manual_seed(0)
    width = 4 if model.latent == "point" else 8
    f = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Dropout(0.3))
    return model.set_params(f=f, g=torch.nn.Linear(4, 6)).fit(X)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "resumed": resumed,
    "mapped": lambda m, X: m.set_params(in_memory=False).fit(mapped(X)),
    "in parts": in_parts,
    "own networks": own,
    "gone on with": lambda m, X: m.fit(X).set_params(warm_start=True).fit(X),
    "held out": lambda m, X: m.fit(X[:150], X_val=X[150:]),
    "stopped": lambda m, X: m.set_params(listeners=lambda entry: True).fit(X),
    "a torch set": lambda m, X: m.fit(torch.utils.data.TensorDataset(torch.from_numpy(X))),
    "bfloat16": lambda m, X: m.set_params(precision="bfloat16").fit(X),
}


def golden(path: Path) -> Iterator[tuple[str, Any]]:
    """Results of a model file of an older version on seeded rows."""
    model = narrows.load(path)
    X = np.random.default_rng(1).integers(0, 9, (30, *model.input_shape_)).astype(np.float32)
    yield from fitted(model, X)


def held(path: Path) -> Iterator[tuple[str, Any]]:
    """The content of an older compressed file; some need the model in the same folder."""
    model = path.parent / "table.safetensors" if path.name.startswith("table") else None
    yield "decoded", mark(narrows.decompress(path, model))


def command(*words: str) -> str:
    """The output of the command ``narrows``."""
    out = io.StringIO()
    sys.argv = ["narrows", *words]
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_module("narrows", run_name="__main__")
    return mark(out.getvalue() or f"nothing, by {words}")


def faces() -> Iterator[tuple[str, Any]]:
    """Public names, parameters and help texts; nothing is fitted."""
    yield "names", mark(sorted(narrows.__all__))
    for name in KINDS:
        yield f"{name}()", mark(getattr(narrows, name)().get_params())
        yield f"help of {name}", command("fit", "--model", name, "--help")
    yield "models", command("models")
    for verb in VERBS.split():
        yield f"help of {verb}", command(verb, "--help")


def cases() -> dict[str, Callable[[], Iterator[tuple[str, Any]]]]:
    """Everything that is recorded, by name."""
    found: dict[str, Any] = {"faces": faces}
    for name, (data, given) in sorted(VARIANTS.items()):
        kind = name.split("/")[0]
        model = getattr(narrows, kind)(**{**USUAL.get(kind, SMALL), **given})
        found[name] = partial(trained, model, plainly, DATA[data])
    for (name, way), given in product(WAYS.items(), ({}, PRIOR)):
        model = narrows.Autoencoder(**{**SMALL, **given})
        found[f"Autoencoder/{name}, {model.latent}"] = partial(trained, model, way, TABLE)
    found |= {f"golden/{path.name}": partial(golden, path) for path in GOLDEN.glob("*.safetensors")}
    return found | {
        f"golden/{path.name}": partial(held, path) for path in GOLDEN.glob("*/*.narrow")
    }


def one(case: Callable[[], Iterator[tuple[str, Any]]]) -> dict[str, str]:
    """The fingerprints of a case, run in its own folder, with its warnings."""
    folder = tempfile.TemporaryDirectory()
    with folder as here, contextlib.chdir(here), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = {}
        try:
            found.update(case())
        except Exception as error:
            found["failed"] = f"{type(error).__name__}: {error}"
        return {**found, "warnings": mark(sorted(str(w.message) for w in heard))}


def matches(name: str, patterns: list[str]) -> bool:
    """Whether the case of a fingerprint is selected."""
    return any(fnmatch(name.split(":")[0], pattern) for pattern in patterns)


def record(out: Path, only: list[str]) -> int:
    """Write the fingerprints of all cases whose names match; returns 1 if a case failed."""
    torch.set_num_threads(1)
    marks: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, case in cases().items():
        if matches(name, only):
            start = time.process_time()
            marks |= {f"{name}: {what}": found for what, found in one(case).items()}
            seconds[name] = round(time.process_time() - start, 2)
    made = {"narrows": narrows.__file__, "only": only, "seconds": seconds, "marks": marks}
    out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    failed = [f"{name}: {why}\n" for name, why in marks.items() if name.endswith(": failed")]
    print(*failed, f"{len(marks)} fingerprints of {len(seconds)} cases", sep="")
    return int(bool(failed))


def compare(paths: list[Path]) -> int:
    """Print what differs; 1 if anything does."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    names = sorted({name for record in records for name in record["marks"]})
    names = [name for name in names if all(matches(name, record["only"]) for record in records)]
    a, b = (record["marks"] for record in records)
    different = [name for name in names if a.get(name) != b.get(name)]
    for name in different:
        print(f"{name}\n  {a.get(name, 'absent')}\n  {b.get(name, 'absent')}")
    print(f"{len(different)} of {len(names)} fingerprints differ")
    return int(bool(different))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording, comparing = verbs.add_parser("record"), verbs.add_parser("compare")
    recording.add_argument("out", type=Path)
    recording.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    comparing.add_argument("paths", type=Path, nargs=2, metavar="RECORD")
    asked = vars(parser.parse_args())
    sys.exit({"record": record, "compare": compare}[asked.pop("verb")](**asked))
