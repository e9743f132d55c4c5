"""Model files and checkpoints that someone edited, with the checksum made right again.

`run` loads, uses and resumes many of them in one process, and tells what happened.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import narrows
from narrows.exceptions import NarrowsError
from narrows.io.safetensors_file import _digest

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = (0, -1, 1, 2, 3, 255, 2**16, 2**20, 2**31, 2**63, 10**30, 10**400, 0.5, -2.5, 1e-320)
FLOATS = (1e308, -1e308, 1e20, float("nan"), float("inf"), float("-inf"))
WORDS = ("", "x", "auto", "none", "V1000000000", "<f8", ">i2", "c16", "O", "hpu", "é" * 3000)
OTHERS = (None, True, False, [], {}, [None], [[]], {"a": 1}, [1] * 20_000, ["x"] * 9, [1e9, -1])
VALUES = (*NUMBERS, *FLOATS, *WORDS, *OTHERS)
FILLS = (float("nan"), float("inf"), -1.0, 0.0, 1e38, -1e38, 1e-38)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)

Parts = tuple[dict[str, Any], dict[str, torch.Tensor]]


def opened(path: Path) -> Parts:
    """The header and the tensors of a file."""
    with safe_open(path, "pt") as stream:
        header = json.loads(stream.metadata()["narrows"])
        return header, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def sealed(path: Path, parts: Parts) -> Path:
    """Write a file with its checksum, as narrows does but without any check."""
    header, tensors = parts
    text = json.dumps(header, sort_keys=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"narrows": text, "sha256": _digest(text, tensors)})
    return path


def edited(parts: Parts, rng: random.Random) -> Parts:
    """A copy with one to three edits of its header or its tensors."""
    header, tensors = json.loads(json.dumps(parts[0])), dict(parts[1])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.6:
            _edit_header(header, rng)
        else:
            _edit_tensor(tensors, rng)
    return header, tensors


def _edit_header(header: dict[str, Any], rng: random.Random) -> None:
    place: Any = header
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
            place = place[key]
            continue
        how = rng.random()
        if how < 0.1:
            del place[key]
        elif how < 0.2 and isinstance(place[key], int | float):
            place[key] = place[key] * rng.choice((-1, 2, 10, 1000)) + rng.choice((0, 1, -1))
        elif how < 0.25 and isinstance(place, dict):
            place[rng.choice(("surprise", "format", "f", "shape"))] = copy.deepcopy(
                rng.choice(VALUES)
            )
        elif how < 0.3 and isinstance(place, list):
            place.extend(place * (1 if len(place) > 1000 else rng.choice((1, 2, 50))))
        else:
            place[key] = copy.deepcopy(rng.choice(VALUES))
        return


def _edit_tensor(tensors: dict[str, torch.Tensor], rng: random.Random) -> None:
    name = rng.choice(list(tensors)) if tensors else "model.f"
    given = tensors.get(name, torch.zeros(3))
    how = rng.randrange(8)
    if how == 0:
        tensors.pop(name, None)
    elif how == 1:
        tensors[rng.choice((f"{name}x", "evil", "training.evil", "sampler.maf.mean"))] = (
            given.clone()
        )
    elif how == 2:
        tensors[name] = given.to(rng.choice(DTYPES))
    elif how == 3:
        tensors[name] = given.reshape(-1)[: rng.randrange(given.numel() + 1)].clone()
    elif how == 4:
        times = 1 if given.numel() > 2000 else rng.choice((1, 2, 50))  # the file stays small
        tensors[name] = given[None].expand(times, *given.shape).clone()
    elif how == 5 and given.numel():
        flat = given.clone().reshape(-1)
        value = rng.choice(FILLS) if flat.is_floating_point() else rng.choice((0, 1, 255))
        flat[rng.randrange(len(flat))] = value
        tensors[name] = flat.reshape(given.shape)
    elif how == 6:
        value = rng.choice(FILLS) if given.is_floating_point() else rng.choice((0, 1, 255))
        tensors[name] = torch.full_like(given, value)
    else:
        scale = rng.choice((-50, 1e-30, 1e30, 1.5)) if given.is_floating_point() else 1
        tensors[name] = given * scale


def used(model: Any, X: Any, folder: Path) -> bool:
    """Ask the model everything it answers; whether all answers are finite numbers."""
    name = type(model).__name__
    if name == "Denoiser":
        answers = [model.denoise(np.full((9, 9), 90, np.uint8), 10)]
    elif name == "Codec":
        data = model.compress(X[:4])
        answers = [model.decompress(data)]
    else:
        answers = [model.transform(X), model.reconstruct(X), model.score_samples(X), model.score(X)]
        answers.append(model.inverse_transform(np.zeros((2, model.latent_dim_))))
        if hasattr(model, "sample") and (model.sampler_ or model._sampler_name() == "prior"):
            answers.append(model.sample(3, random_state=0))
    model.save(folder / "again.safetensors", overwrite=True)
    return all(np.isfinite(np.asarray(a, np.float64)).all() for a in answers)


def try_one(path: Path, X: Any, folder: Path, resumed: Any = None) -> str:
    """What becomes of one file: "refused", "fine", "warned", or what is wrong with it.

    ``resumed`` is an estimator that goes on from it, if it is a checkpoint.
    """
    stage = "load"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = narrows.load(path)
            stage = "use"
            finite = used(model, X, folder)
            if resumed is not None:
                stage = "resume"
                resumed.set_params(checkpoint=path, checkpoint_every="1h", resume=True).fit(X)
    except NarrowsError as error:
        text = str(error)
        if stage == "load" and not isinstance(error, narrows.FileError):
            return f"{stage}: {type(error).__name__}: {text}"
        return "refused" if "\n" not in text else f"several lines: {text!r}"
    except Exception as error:
        return f"{stage}: {type(error).__name__}: {error}"
    if not finite and not caught:
        return "not finite"
    return "warned" if caught else "fine"


def run(n: int, seed: int, files: list[Path], X: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Edit, load and use; the counts of what happened, each fault once, and how dear it was.

    ``X`` has the data of each file's model by the file's stem.
    """
    rng, counts, faults = random.Random(seed), Counter[str](), {}
    originals, models, slowest = [opened(path) for path in files], [], (0.0, "")
    for path, parts in zip(files, originals, strict=True):  # what a sound file costs at first
        models.append(narrows.load(path) if "training" in parts[0] else None)
        found = try_one(sealed(folder / path.name, parts), X[path.stem], folder, models[-1])
        assert found in ("fine", "warned"), (path, found)
    before = peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jumps = {}
    for i in range(n):
        k = rng.randrange(len(files))
        path = sealed(folder / f"edited{files[k].suffix}", edited(originals[k], rng))
        started = time.process_time()  # a busy machine must not count
        found = try_one(path, X[files[k].stem], folder, models[k])
        slowest = max(slowest, (time.process_time() - started, f"{i} {files[k].name} {found}"))
        counts[found if found in ("refused", "fine", "warned") else "FAULT"] += 1
        if found not in ("refused", "fine", "warned"):
            faults.setdefault(f"{files[k].stem}: {found[:160]}", i)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if now > peak + 4096:
            jumps[f"{i} {files[k].name} {found}"], peak = (now - peak) / 1024, now
    return {
        "counts": dict(counts),
        "faults": faults,
        "slowest": slowest,
        "MiB more": (peak - before) / 1024,
        "jumps": jumps,
    }
