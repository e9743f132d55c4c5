"""Denoising files: what is written where, and what is refused before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from narrows.denoising.denoise_folder import (
    DenoisedFile,
    FailedFile,
    by_fit_to_each,
    by_fitted_model,
    denoise_files,
)
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.photographs import Photograph, read_photograph, write_photograph

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def invert(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Changes every pixel, whatever the dtype."""
    white = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    return (white - pixels).astype(pixels.dtype), 25.0


def never(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    raise AssertionError("nothing may be computed")


def save(path: Path, pixels: np.ndarray = GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_keeps_its_names_and_depths(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    save(scans / "a.jpg")
    save(scans / "deep" / "er" / "b.gif")
    given = Photograph(GREY.astype(np.uint16) * 200, GREY.astype(np.uint16), dpi=(300, 300))
    write_photograph(given, scans / "c.png")
    echoed: list[DenoisedFile | FailedFile] = []
    outcome = denoise_files(scans, out, invert, echo=echoed.append)
    assert tree(out) == ["a.jpg", "c.png", "deep/er/b.png"]
    assert echoed == outcome.done
    assert outcome.failed == []
    found = read_photograph(out / "c.png")
    np.testing.assert_array_equal(found.pixels, 65_535 - given.pixels)
    np.testing.assert_array_equal(found.alpha, given.alpha)
    assert found.dpi == pytest.approx((300, 300), rel=1e-3)


def test_one_image_goes_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    given = save(tmp_path / "a.bmp")
    denoise_files(given, tmp_path / "b.tif", invert)
    denoise_files(given, f"{tmp_path}/out/", invert)
    for path in (tmp_path / "b.tif", tmp_path / "out" / "a.png"):
        np.testing.assert_array_equal(read_photograph(path).pixels, 255 - GREY)


def test_failed_files_are_named_and_the_others_denoised(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        save(scans / name)
    cut = (scans / "b.png").read_bytes()[:50]
    (scans / "b.png").write_bytes(cut)
    save(scans / "c.png", np.zeros((40, 40), np.uint8))
    save(scans / "d.png", np.stack([GREY] * 3, -1))
    save(scans / "e.png", GREY[:1])

    def only_grey(pixels: np.ndarray) -> tuple[np.ndarray, float]:
        if pixels.ndim == 3:
            raise InputError("The model was fitted on grey images, this one is in colour.")
        if len(pixels) == 1:
            raise MemoryError
        return invert(pixels)

    outcome = denoise_files(scans, tmp_path / "out", only_grey, max_pixels=1000)
    assert [item.source.name for item in outcome.done] == ["a.png"]
    assert [item.source.name for item in outcome.failed] == ["b.png", "c.png", "d.png", "e.png"]
    for item, words in zip(outcome.failed, ("read", "1,000 p", "colour", "memory"), strict=True):
        assert words in str(item)
        assert str(item).count(str(item.source)) == 1
    assert tree(tmp_path / "out") == ["a.png"]


def test_a_wrong_parameter_is_raised(tmp_path: Path) -> None:
    def refuse(pixels: np.ndarray) -> tuple[np.ndarray, float]:
        raise ParameterError("max_time is -1.")

    with pytest.raises(ParameterError, match="max_time"):
        denoise_files(save(tmp_path / "a.png"), tmp_path / "b.png", refuse)


def test_an_image_that_the_format_cannot_hold_is_not_denoised(tmp_path: Path) -> None:
    given = save(tmp_path / "a.png", GREY.astype(np.uint16))
    outcome = denoise_files(given, tmp_path / "b.jpg", never)
    assert "cannot hold 16 bits" in str(outcome.failed[0])
    assert tree(tmp_path) == ["a.png"]


def refused(words: str, *arguments: Any, error: type[Exception] = FileError, **more: Any) -> None:
    with pytest.raises(error, match=words):
        denoise_files(*arguments, never, **more)


def test_the_input_is_never_written_to(tmp_path: Path) -> None:
    given = save(tmp_path / "in" / "a.png")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    (tmp_path / "alias.png").symlink_to(given)
    os.link(given, tmp_path / "hard.png")
    for out in (given, tmp_path / "in/../in/a.png", tmp_path / "alias.png", f"{given.parent}/"):
        refused("one of the images given", given, out, overwrite=True)
    for out in ("in", "in/sub", "in/../in", "linked", "linked/sub"):
        refused("where the images are", given.parent, tmp_path / out, overwrite=True)
    refused("where the images are", tmp_path / "linked", tmp_path / "in", overwrite=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(given)
    refused("one of the images given", given.parent, out, overwrite=True)
    denoise_files(given, tmp_path / "hard.png", invert, overwrite=True)
    np.testing.assert_array_equal(read_photograph(given).pixels, GREY)


def test_existing_files_are_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    save(tmp_path / "out" / "b.png", 255 - GREY)
    refused(r"b\.png' exists already.*--overwrite", tmp_path / "in", tmp_path / "out")
    refused("exists already", tmp_path / "in" / "a.png", tmp_path / "out" / "b.png")
    denoise_files(tmp_path / "in", tmp_path / "out", invert, overwrite=True)
    assert tree(tmp_path / "out") == ["a.png", "b.png"]


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    given = save(tmp_path / "in" / "a.png")
    refused("give a name that ends in .png", given, tmp_path / "b.gif")
    refused("there is no folder", given, tmp_path / "nowhere" / "b.png")
    refused("there is no folder", given.parent, tmp_path / "nowhere" / "out")
    refused("names a file: give a folder", given.parent, tmp_path / "b.png")
    refused("is a file: give a folder", given.parent, save(tmp_path / "c.png"))
    refused("does not exist", tmp_path / "missing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    refused("is empty", tmp_path / "empty", tmp_path / "out", error=InputError)
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    refused("is a folder", given.parent, tmp_path / "out", overwrite=True)


def test_two_images_that_would_be_one_file(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "a.gif")
    words = r"a\.gif' and '.*a\.png' would both be written to"
    refused(words, tmp_path / "in", tmp_path / "out", error=InputError)
    assert not (tmp_path / "out").exists()


def test_measured_by_clean_images(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", np.full((4, 4), 100, np.uint8))
    save(tmp_path / "in" / "b.png", np.full((4, 4), 0, np.uint8))
    save(tmp_path / "clean" / "a.tif", np.full((4, 4), 155, np.uint8))
    refused(
        "no image .*b' to compare with", tmp_path / "in", tmp_path / "out", clean=tmp_path / "clean"
    )
    save(tmp_path / "clean" / "b.png", np.full((4, 5), 0, np.uint8))
    outcome = denoise_files(tmp_path / "in", tmp_path / "out", invert, clean=tmp_path / "clean")
    before, after = outcome.done[0].psnr or (0, 0)
    assert before == pytest.approx(20 * np.log10(255 / 55))
    assert after == np.inf
    assert "shape (4, 5)" in outcome.failed[0].why


class FakeDenoiser:
    """Remembers what it was fitted on; returns images unchanged, or plus the level."""

    stop_reason_, best_epoch_ = "the budget was used", 3

    def fit(self, images: list[np.ndarray]) -> FakeDenoiser:
        self.seen = images
        return self

    def estimate_noise(self, pixels: np.ndarray) -> float:
        return 7.0

    def denoise(self, pixels: np.ndarray, noise_level: float | None = None) -> np.ndarray:
        assert any(seen is pixels for seen in self.seen)
        return pixels + np.uint8(noise_level or 0)


def test_each_image_has_its_own_fit() -> None:
    made: list[FakeDenoiser] = []
    denoise = by_fit_to_each(lambda: [fake := FakeDenoiser(), made.append(fake)][0])
    for image in (GREY, GREY.T):
        pixels, noise = denoise(image)
        np.testing.assert_array_equal(pixels, image)
        assert noise == 7
    assert [len(fake.seen) for fake in made] == [1, 1]
    pixels, noise = by_fitted_model(FakeDenoiser().fit([GREY]), noise_level=3.0)(GREY)
    assert noise == 3
    np.testing.assert_array_equal(pixels, GREY + 3)


def test_a_fit_that_learned_nothing_is_an_error() -> None:
    fake = FakeDenoiser()
    fake.best_epoch_ = 0
    with pytest.raises(InputError, match="--max-time"):
        by_fit_to_each(lambda: fake)(GREY)
    fake.stop_reason_ = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        by_fit_to_each(lambda: fake)(GREY)


def test_an_image_without_noise_is_not_fitted() -> None:
    pixels, noise = by_fit_to_each(FakeDenoiser, noise_level=0.0)(GREY)
    assert pixels is GREY and noise == 0
