"""Edited model files and checkpoints: one sentence, in little time and memory, or a sound model."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import narrows
from helpers.sealed_edits import opened, run, sealed, try_one
from helpers.small_data import curve
from narrows.exceptions import FileError, InputError

X = curve(300)
GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "v2-run.checkpoint"  # of curve(300), killed in its first epoch
Edit = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


def edited(name: str, edit: Edit, folder: Path) -> Path:
    header, tensors = opened(GOLDEN / name)
    edit(header, tensors)
    return sealed(folder / f"edited{Path(name).suffix}", (header, tensors))


def filled(name: str, value: float) -> Edit:
    return lambda h, t: t.update({name: torch.full_like(t[name], value)})


AE, MIXTURE, IMAGES = (
    f"v2-{name}.safetensors" for name in ("Autoencoder", "RegularizedAE", "conv")
)
EDITS: list[tuple[str, Edit, str]] = [
    (AE, lambda h, t: h.update(format=True), "header cannot be read"),
    (AE, lambda h, t: h["fitted"]["layout"].update(dtype="V1000000000"), "layout.dtype must be"),
    (AE, lambda h, t: h["fitted"]["layout"].update(dtype="O"), "layout.dtype must be"),
    (AE, lambda h, t: h["parameters"].update(max_epochs=10**400), "'max_epochs' parameter"),
    (AE, lambda h, t: h["parameters"].update(hidden_layer_sizes=[1] * 20_000), "at most 256"),
    (AE, lambda h, t: h["fitted"]["choices"].update(hidden=[1] * 20_000), "at most 256"),
    (AE, lambda h, t: h["fitted"].update(feature_names_in_="abcdef"), "must be a list"),
    (AE, lambda h, t: h["fitted"].update(feature_names_in_=["a"] * 5), "5 names for 6 columns"),
    (AE, lambda h, t: h["fitted"].update(history_=[{}] * 1_500_000), "header cannot be read"),
    (AE, lambda h, t: h["fitted"].update(best_epoch_=7), "differ in length"),
    (AE, lambda h, t: h["fitted"].update(fit_seconds_=-1), "fit_seconds_ must be"),
    (AE, lambda h, t: h["fitted"].update(pca_noise=float("inf")), "header cannot be read"),
    (AE, lambda h, t: h["fitted"].update(stop_reason_="x" * 10**6), "stop_reason_ must be a text"),
    (AE, lambda h, t: h["versions"].update({str(i): "" for i in range(99)}), "at most 20 items"),
    (AE, lambda h, t: t.update(evil=torch.zeros(2)), "unexpected or missing tensors: evil"),
    (AE, lambda h, t: t.update({"training.rng": torch.zeros(2)}), "unexpected or missing tensors"),
    (
        AE,
        lambda h, t: t.update({f"t{i}": torch.zeros(0) for i in range(10**5)}),
        "no model has more",
    ),
    (AE, filled("scaling.scale", 0.0), "not above 0"),
    (AE, filled("scaling.scale", float("inf")), "not finite"),
    (AE, filled("scaling.shift", float("nan")), "not finite"),
    (AE, filled("pca.components", float("nan")), "not finite"),
    (AE, filled("probe.output", float("nan")), "not finite"),
    (AE, lambda h, t: t.update({"probe.output": t["probe.output"].bool()}), "output differs"),
    (AE, lambda h, t: t.update({"pca.mean": t["pca.mean"].double()[:3]}), "PCA has tensors"),
    (AE, lambda h, t: t.update({"probe.x": t["probe.x"].repeat(50, 1)}), "probe has another shape"),
    (AE, lambda h, t: t.update({n: v.double() for n, v in t.items()}), "not torch.float32"),
    (AE, lambda h, t: t["model.f.net.1.weight"].mul_(1e38), "not finite|differs|overflows"),
    (MIXTURE, lambda h, t: t["sampler.mixture.weights"].neg_(), "no probabilities"),
    (MIXTURE, lambda h, t: t["sampler.mixture.roots"].fill_(float("nan")), "not finite"),
    (IMAGES, lambda h, t: h["fitted"]["choices"].update(channels=[2**20] * 9), "does not hold"),
    (IMAGES, lambda h, t: h["fitted"]["layout"].update(user_shape=[2**31, 2**31]), "contradict"),
]


@pytest.fixture(scope="module")
def imported() -> None:
    """What loading imports is no memory of a file."""
    for name in (AE, MIXTURE, IMAGES):
        narrows.load(GOLDEN / name)


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(("name", "edit", "words"), EDITS)
def test_a_forged_file_costs_little_and_is_refused(
    name: str, edit: Edit, words: str, tmp_path: Path
) -> None:
    path = edited(name, edit, tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=words) as caught:
            narrows.load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(path), "")) < 600


def test_a_hundred_thousand_empty_tensors_are_not_even_looked_at(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps(
        {"__metadata__": {"narrows": "{}"}} | dict.fromkeys(map(str, range(10**5)), empty)
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    with pytest.raises(FileError, match="holds 100000 tensors"):
        narrows.load(path)


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "mps:-1", "x" * 300])
def test_a_device_that_no_model_can_have_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="'device' parameter of Autoencoder must be"):
        narrows.load(edited(AE, lambda h, t: h["parameters"].update(device=device), tmp_path))


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_model_of_a_device_that_is_not_here_loads_on_the_cpu(device: str, tmp_path: Path) -> None:
    model = narrows.load(edited(AE, lambda h, t: h["parameters"].update(device=device), tmp_path))
    assert np.isfinite(model.transform(X)).all()


def test_answers_that_are_no_numbers_are_never_silent(tmp_path: Path) -> None:
    """A scale that a file may have, but that no answer in float64 can be scaled back by."""
    path = edited(AE, filled("scaling.scale", 1.5e308), tmp_path)
    try:
        model = narrows.load(path)
    except (FileError, InputError):
        return
    with pytest.raises(InputError, match="overflows"):
        model.inverse_transform(np.full((1, 2), 1e3))


# ------------------------------------------------------------------ checkpoints


def numbers(**changes: Any) -> Edit:
    return lambda h, t: h["training"]["numbers"].update(changes)


RUN_EDITS: list[tuple[Edit, str]] = [
    *(
        (numbers(**{name: value}), f"numbers.{name} must be")
        for name in ("step", "epoch", "batch", "first_step", "last_epoch", "best_epoch", "steps")
        for value in (None, -1, 1e308, "x", [], True)
    ),
    *((numbers(slower=value), "slower must be") for value in (None, -1, 0, 7)),
    *((numbers(seconds=value), "seconds must be") for value in (None, -1, "x")),
    (numbers(history=None), "history must be a list"),
    (numbers(history=[[]]), "history.0 must be an object"),
    (numbers(scores={}), "scores must be a list"),
    (numbers(stop_reason=[]), "stop_reason must be a text"),
    (numbers(surprise=1), "unknown fields: surprise"),
    (lambda h, t: h["training"]["numbers"].pop("step"), "missing: step"),
    (lambda h, t: h["training"].update(seed=-1), "seed must be"),
    (lambda h, t: h["training"].update(threads=0), "threads must be"),
    (lambda h, t: h["training"].update(mark=[]), "other data than the X given"),
    (lambda h, t: h["training"].update(mark=[{}, None]), "missing: dtype, n, sha256, streamed"),
    (lambda h, t: h.update(training=[]), "training must be an object"),
    (numbers(batch=10**6), "counters contradict"),
    (numbers(last_epoch=10**9), "counters contradict"),
    (numbers(step=10**12), "counters contradict"),
    (numbers(scores=[]), "differ in length"),
    (numbers(steps=0), "lacks the state"),
    (lambda h, t: t.update({"training.evil": torch.zeros(1)}), "no run has a tensor called 'evil'"),
    (lambda h, t: t.pop("training.rng"), "'rng' is missing"),
    (lambda h, t: t.pop("training.order_then"), "lacks the state"),
    (lambda h, t: t["training.order_then"].fill_(255), "no run"),
    (lambda h, t: t.update({"training.rng": torch.zeros(3)}), "no run"),
    (lambda h, t: t.pop("training.optimizer.model.0.exp_avg"), "AdamW"),
    (filled("training.optimizer.model.0.exp_avg_sq", -1.0), "below 0"),
    (filled("training.optimizer.model.0.step", float("nan")), "NaN"),
    (filled("training.last.model.f.net.1.bias", float("nan")), "NaN"),
    (
        lambda h, t: t.update({"training.optimizer.model.0.exp_avg": torch.zeros(1, 1, 7)}),
        "has the shape",
    ),
    (lambda h, t: t.pop("training.best.model.f.net.1.bias"), "best model is not whole"),
    (lambda h, t: t.update({"training.best.model.f.net.1.bias": torch.zeros(1)}), "another shape"),
]


@pytest.mark.parametrize(("edit", "words"), RUN_EDITS)
def test_a_forged_run_is_never_continued(edit: Edit, words: str, tmp_path: Path) -> None:
    path = edited(CHECKPOINT.name, edit, tmp_path)
    before = path.read_bytes()
    with pytest.raises((FileError, InputError), match=words) as caught:
        narrows.load(CHECKPOINT).set_params(checkpoint=path, resume=True).fit(X)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_checkpoint_of_an_older_narrows_goes_on(tmp_path: Path) -> None:
    """It has no hash of all rows: 16 of them are compared, as when it was written."""
    path = sealed(tmp_path / "run.checkpoint", opened(CHECKPOINT))
    again = narrows.load(CHECKPOINT).set_params(checkpoint=path, resume=True, max_time="1h")
    again.set_params(max_time=None)
    with pytest.raises(InputError, match="than the X given"):
        again.fit(X[::-1].copy())
    assert again.fit(X).n_iter_ == 4


# ------------------------------------------------------------------ at random


FILES = [GOLDEN / name for name in (AE, MIXTURE, "v2-VariationalAutoencoder.safetensors")]
FILES += [CHECKPOINT]


def test_a_hundred_edits_at_random(tmp_path: Path) -> None:
    found = run(100, 0, FILES, {path.stem: X for path in FILES}, tmp_path)
    assert found["faults"] == {}
    assert found["counts"]["refused"] > 50
    assert found["counts"].get("fine", 0) > 0


SCRIPT = """
import json, sys
import torch
from pathlib import Path
torch.set_num_threads(1)
from helpers.sealed_edits import GOLDEN, run
from helpers.small_data import curve
import numpy as np

images = np.random.default_rng(0).integers(0, 9, size=(80, 9, 6)).astype(np.uint8)
files = sorted([*GOLDEN.glob("*.safetensors"), *GOLDEN.glob("*.checkpoint")])
X = {f.stem: images if f.stem[3:] in ("conv", "MSSSIMVAE") else curve(300) for f in files}
print(json.dumps(run(int(sys.argv[1]), 0, files, X, Path(sys.argv[2]))))
"""


@pytest.mark.slow
def test_ten_thousand_edits_at_random(tmp_path: Path) -> None:
    import json

    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", SCRIPT, "10000", str(tmp_path)]
    done = subprocess.run(command, cwd=tests, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["faults"] == {}
    assert found["MiB more"] <= 64, found["jumps"]
    assert found["slowest"][0] <= 5, found["slowest"]


def test_eight_threads_that_save_to_one_path_leave_a_whole_model(tmp_path: Path) -> None:
    model, path = narrows.load(GOLDEN / AE), tmp_path / "m.safetensors"
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda _: model.save(path, overwrite=True), range(8)))
            np.testing.assert_array_equal(narrows.load(path).transform(X), model.transform(X))
    assert list(tmp_path.iterdir()) == [path]


def test_try_one_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of the edits is itself judged: errors of other kinds and NaN are told apart."""
    path = sealed(tmp_path / "m.safetensors", opened(GOLDEN / AE))
    assert try_one(path, X, tmp_path) == "fine"
    monkeypatch.setattr(narrows.Autoencoder, "score", lambda self, X: float("nan"))
    assert try_one(path, X, tmp_path) == "not finite"
    monkeypatch.setattr(narrows.Autoencoder, "score", lambda self, X: {}[X[0, 0]])
    assert try_one(path, X, tmp_path).startswith("use: KeyError")
