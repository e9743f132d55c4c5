"""The walk over files to denoise: what is written where, and what is refused before it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from narrows.denoising.denoise_files import (
    Done,
    Failed,
    Restored,
    denoise_files,
    restore_alone,
    restore_with,
)
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.photographs import Photograph, read_photograph, write_photograph

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def invert(pixels: np.ndarray) -> Restored:
    """Leaves its trace in every pixel, whatever the dtype."""
    white = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    return Restored((white - pixels).astype(pixels.dtype), noise=25.0, seconds=0.5)


def never(pixels: np.ndarray) -> Restored:
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
    heard: list[Done | Failed] = []
    outcome = denoise_files(scans, out, invert, echo=heard.append)
    assert tree(out) == ["a.jpg", "c.png", "deep/er/b.png"]
    assert heard == outcome.done
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


def test_what_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        save(scans / name)
    cut = (scans / "b.png").read_bytes()[:50]
    (scans / "b.png").write_bytes(cut)
    save(scans / "c.png", np.zeros((40, 40), np.uint8))
    save(scans / "d.png", np.stack([GREY] * 3, -1))
    save(scans / "e.png", GREY[:1])

    def only_grey(pixels: np.ndarray) -> Restored:
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


def test_a_parameter_that_makes_no_sense_is_no_files_fault(tmp_path: Path) -> None:
    def refuse(pixels: np.ndarray) -> Restored:
        raise ParameterError("max_time is -1.")

    with pytest.raises(ParameterError, match="max_time"):
        denoise_files(save(tmp_path / "a.png"), tmp_path / "b.png", refuse)


def test_what_was_stored_so_that_it_cannot_be_held_is_not_computed(tmp_path: Path) -> None:
    given = save(tmp_path / "a.png", GREY.astype(np.uint16))
    outcome = denoise_files(given, tmp_path / "b.jpg", never)
    assert "cannot hold 16 bits" in str(outcome.failed[0])
    assert tree(tmp_path) == ["a.png"]


def refused(words: str, *arguments: Any, error: type[Exception] = FileError, **more: Any) -> None:
    with pytest.raises(error, match=words):
        denoise_files(*arguments, never, **more)


def test_what_is_given_is_never_written_to(tmp_path: Path) -> None:
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


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
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
    refused("does not exist", given.parent, tmp_path / "nowhere" / "out")
    refused("names a file: give a folder", given.parent, tmp_path / "b.png")
    refused("is a file: give a folder", given.parent, save(tmp_path / "c.png"))
    refused("does not exist", tmp_path / "missing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    refused("is empty", tmp_path / "empty", tmp_path / "out", error=InputError)
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    refused("is a folder", given.parent, tmp_path / "out", overwrite=True)


def test_two_that_would_be_one_file(tmp_path: Path) -> None:
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


class Learner:
    """A denoiser that remembers what it was fitted on."""

    stop_reason_, best_epoch_ = "the budget was used", 3

    def fit(self, images: list[np.ndarray]) -> Learner:
        self.seen = images
        return self

    def estimate_noise(self, pixels: np.ndarray) -> float:
        return 7.0

    def denoise(self, pixels: np.ndarray, noise_level: float | None = None) -> np.ndarray:
        assert any(seen is pixels for seen in self.seen)
        return pixels + np.uint8(noise_level or 0)


def test_each_image_is_learnt_from_alone() -> None:
    made: list[Learner] = []
    restore = restore_alone(lambda: [learner := Learner(), made.append(learner)][0])
    for image in (GREY, GREY.T):
        restored = restore(image)
        np.testing.assert_array_equal(restored.pixels, image)
        assert restored.noise == 7
    assert [len(learner.seen) for learner in made] == [1, 1]
    told = restore_with(Learner().fit([GREY]), noise_level=3.0)(GREY)
    assert told.noise == 3
    np.testing.assert_array_equal(told.pixels, GREY + 3)


def test_an_image_of_which_nothing_was_learnt_is_not_passed_off_as_clean() -> None:
    learner = Learner()
    learner.best_epoch_ = 0
    with pytest.raises(InputError, match="--max-time"):
        restore_alone(lambda: learner)(GREY)
    learner.stop_reason_ = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        restore_alone(lambda: learner)(GREY)


def test_an_image_without_noise_is_not_learnt_from() -> None:
    restored = restore_alone(Learner, noise_level=0.0)(GREY)
    assert restored.pixels is GREY and restored.noise == 0
