"""The verb denoise, with a stand-in for the denoiser."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import narrows
from helpers.command import done, picture, refused, run

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


class StandIn:
    """Inverts what it is given, and remembers how it was made and used."""

    made: list[StandIn]
    stop_reason_, best_epoch_ = "the budget was used", 1

    def __init__(self, **parameters: Any) -> None:
        self.parameters, self.fitted = parameters, False
        StandIn.made.append(self)

    def check_parameters(self) -> None:
        pass

    def fit(self, images: list[np.ndarray]) -> StandIn:
        self.fitted = True
        return self

    def estimate_noise(self, pixels: np.ndarray) -> float:
        return 12.3

    def denoise(self, pixels: np.ndarray, noise_level: float | None = None) -> np.ndarray:
        self.level = noise_level
        return ~pixels


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("narrows.denoising.denoiser")
    module.Denoiser = StandIn
    monkeypatch.setitem(sys.modules, module.__name__, module)
    StandIn.made = []


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for i, shade in enumerate((0, 3)):
        Image.fromarray(GREY + np.uint8(shade)).save(folder / f"{i}.png")
    return folder


def test_one_image_teaches_its_own_denoiser(scans: Path, tmp_path: Path) -> None:
    said = done("denoise", scans / "0.png", "-o", tmp_path / "a.tif", "--seed", "3")
    assert said.count("\n") == 1
    for words in ("0.png: 8 × 6", "noise 12.3 of 255", " s ", "a.tif"):
        assert words in said
    np.testing.assert_array_equal(picture(tmp_path / "a.tif"), 255 - GREY)
    *_, made = StandIn.made
    given = {name: made.parameters[name] for name in ("noisy_targets", "max_time", "random_state")}
    assert given == {"noisy_targets": True, "max_time": "50s", "random_state": 3}
    assert made.fitted
    assert made.level is None


def test_a_folder_by_a_model(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrows, "load", lambda path: StandIn())
    words = ("-o", tmp_path / "no", "-m", "m.safetensors", "--max-time", "3")
    assert "--max-time" in refused("denoise", scans, *words)
    words = ("denoise", scans, "-o", tmp_path / "out", "-m", "d.safetensors")
    said = done(*words, "--noise-level", "20", "--clean", scans)
    assert said.count("noise 20.0 of 255") == said.count("PSNR inf → ") == 2
    assert not any(made.fitted for made in StandIn.made)
    assert done(*words, "--overwrite", "-q") == ""


def test_the_status_tells_of_files_that_failed(scans: Path, tmp_path: Path) -> None:
    (scans / "1.png").write_bytes((scans / "1.png").read_bytes()[:50])
    result = run("denoise", scans, "-o", tmp_path / "out", "-q")
    first, last = result.err.splitlines()
    assert result.status == 1
    assert result.out == ""
    assert first.startswith("narrows: The image")
    assert "1.png" in first
    assert last == "narrows: 1 of 2 images could not be denoised."
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.png"]
    assert "1.png" in refused("denoise", scans / "1.png", "-o", tmp_path / "one.png")


def test_what_makes_no_sense_is_refused_at_the_door(
    scans: Path, tmp_path: Path, digits: Path
) -> None:
    one, out = scans / "0.png", tmp_path / "b.png"
    assert "one of the images given" in refused("denoise", one, "-o", one)
    assert "remove noise" in refused("denoise", one, "-o", out, "-m", digits)
    assert "--noise-level" in refused("denoise", one, "-o", out, "--noise-level", "-1")
    assert ".html" in refused("denoise", one, "-o", out, "--compare", "page.txt")
    assert "10 pixels" in refused("denoise", one, "-o", out, "--max-pixels", "10")
    assert not any(made.fitted for made in StandIn.made)
    assert not out.exists()


def test_the_page_gets_what_was_read_and_written(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    page_module = "narrows.denoising.denoising_page."
    filters = {"Gaussian": lambda image, noise: (image, noise)}
    monkeypatch.setattr(
        page_module + "run_filters", lambda *seen: {name: f(*seen) for name, f in filters.items()}
    )
    monkeypatch.setattr(
        page_module + "write_comparison", lambda entries, path, **more: given.extend(entries)
    )
    page = tmp_path / "page.html"
    said = done("denoise", scans, "-o", tmp_path / "out", "--compare", page, "--clean", scans)
    assert f"wrote {page}" in said
    assert said.count("filters: Gaussian inf dB") == 2
    assert [entry.name for entry in given] == ["0.png", "1.png"]
    np.testing.assert_array_equal(given[0].noisy, GREY)
    np.testing.assert_array_equal(given[0].clean, GREY)
    np.testing.assert_array_equal(given[0].denoised, 255 - GREY)
    assert given[0].baselines["Gaussian"][1] == 12.3
