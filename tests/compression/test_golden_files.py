"""Files of every method and kind of model decode to the same bits, whatever computes them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import narrows
from narrows.compression.format import context_model, integer_networks
from narrows.compression.format.chunk_methods import NAMES

FOLDER = Path(__file__).parents[1] / "golden" / "compressed"
FILES = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
sys.path.append(str(Path(__file__).parents[2] / "examples"))
decoder = importlib.import_module("numpy_decoder")
golden = importlib.import_module("make_golden_compressed")


def digest(name: str) -> str:
    model = FILES[name].get("model")
    found = narrows.decompress(FOLDER / f"{name}.narrow", model and FOLDER / model)
    return golden.digest(found)


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def numpy_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(ImportError):
            importlib.import_module("torch")
        yield


@contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


WAYS: dict[str, Callable[[], Any]] = {
    "one thread": lambda: threads(1),
    "two threads": lambda: threads(2),
    "oneDNN": lambda: onednn(True),
    "no oneDNN": lambda: onednn(False),
    "NumPy alone": numpy_alone,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits_whatever_multiplies(way: str) -> None:
    with WAYS[way]():
        assert {name: digest(name) for name in FILES} == sha256()


def sha256() -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in FILES.items()}


def test_the_same_bits_by_the_decoder_written_from_the_specification() -> None:
    for name, entry in FILES.items():
        model = (FOLDER / entry["model"]).read_bytes() if "model" in entry else None
        _, items = decoder.decode((FOLDER / f"{name}.narrow").read_bytes(), model)
        found = [array for _, array in items]
        assert golden.digest(found) == entry["sha256"], name


def test_the_same_bits_where_sums_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product is summed from the last to the first, one after another."""

    def product(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        total = np.zeros((len(a), w.shape[1]), a.dtype)
        for k in reversed(range(a.shape[1])):
            total += a[:, k, None] * w[k]
        return total

    for module in (context_model, integer_networks):
        monkeypatch.setattr(module, "product", product)
    assert {name: digest(name) for name in FILES} == sha256()


def test_there_is_a_file_of_every_method() -> None:
    found = set()
    for name in FILES:
        _, _, items = decoder.container.read((FOLDER / f"{name}.narrow").read_bytes())
        found |= {chunk.method for item in items for chunk in item.chunks}
    assert found == set(NAMES)


def test_they_are_small_and_all_listed() -> None:
    paths = list(FOLDER.iterdir())
    models = {entry["model"] for entry in FILES.values() if "model" in entry}
    listed = {f"{name}.narrow" for name in FILES} | models | {"manifest.json"}
    assert {path.name for path in paths} == listed
    assert sum(path.stat().st_size for path in paths) < 150_000
