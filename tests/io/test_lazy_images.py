"""Folders of images read lazily: each is slice by slice what it is when read at once."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.slice_checks import same, sentence, twins
from narrows.exceptions import FileError, InputError
from narrows.io import image_folders as images
from narrows.io import read as reading
from narrows.io.read import read

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
DEEP = GREY.astype(np.uint16) * 250 + 7


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def image_folder(folder: Path) -> None:
    for i in range(12):
        save(folder / f"{i}.png", GREY + i)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path, COLOUR, exif=exif)


def test_images_of_one_kind(tmp_path: Path) -> None:
    image_folder(tmp_path)
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[9:11], [GREY + 9, GREY + 10])


def test_images_with_labels_in_colour_and_grey(tmp_path: Path) -> None:
    save(tmp_path / "b" / "1.png", COLOUR)
    save(tmp_path / "a" / "1.png", GREY)
    Image.fromarray(GREY).convert("P").save(tmp_path / "a" / "2.gif")
    lazy, _ = twins(tmp_path)
    assert lazy.y_names == ["a", "b"]
    assert lazy.axes == "HWC"
    np.testing.assert_array_equal(lazy.X[0:1], np.stack([GREY] * 3, -1)[None])


def test_sixteen_bits_beside_eight(tmp_path: Path) -> None:
    save(tmp_path / "1.png", GREY)
    save(tmp_path / "2.png", DEEP)
    lazy, _ = twins(tmp_path)
    assert lazy.X.dtype == np.uint16
    np.testing.assert_array_equal(lazy.X[0:1], GREY[None].astype(np.uint16) * 257)


def test_floating_point_images(tmp_path: Path) -> None:
    save(tmp_path / "1.tif", DEEP.astype(np.float32) / 3)
    assert twins(tmp_path)[0].X.dtype == np.float32
    save(tmp_path / "2.tif", GREY)
    with pytest.raises(InputError, match="floating-point"):
        read(tmp_path, lazy=True)


def test_the_cameras_orientation(tmp_path: Path) -> None:
    turned(tmp_path / "1.png")
    save(tmp_path / "2.png", np.rot90(COLOUR, -1))
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[0:1], lazy.X[1:2])


def test_sizes_and_resize(tmp_path: Path) -> None:
    image_folder(tmp_path)
    save(tmp_path / "99.png", GREY[:5, :4])
    for lazy in (True, False):
        with pytest.raises(InputError) as caught:
            read(tmp_path, lazy=lazy)
        sentence(caught, "12 of 6x8, 1 of 5x4", "--resize 5x4")
    assert twins(tmp_path, resize=(3, 5))[0].X.shape == (13, 3, 5)


def late_orientation(path: Path) -> None:
    """A PNG that tells only behind its pixels how the camera was held."""
    turned(path)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[stop:end] + content[start:stop] + content[end:]
    path.write_bytes(moved)


def test_an_orientation_that_comes_late(tmp_path: Path) -> None:
    late_orientation(tmp_path / "1.png")
    late_orientation(tmp_path / "2.png")
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[1:2], np.rot90(COLOUR, -1)[None])
    save(tmp_path / "3.png", COLOUR)
    with pytest.raises(InputError) as caught:
        read(tmp_path, lazy=True).X[2:]
    sentence(caught, "3.png", "6x8", "8x6", "--resize 6")


def test_a_thread_leaves_the_filters_of_warnings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path)
    X = read(tmp_path, lazy=True).X
    filters: list[Any] = []
    real = images.pixels
    monkeypatch.setattr(
        images, "pixels", lambda *given: [filters.append(list(warnings.filters)), real(*given)][1]
    )
    with ThreadPoolExecutor(1) as thread:
        np.testing.assert_array_equal(thread.submit(lambda: X[3:4]).result(), [GREY + 3])
    assert filters == [list(warnings.filters)]


def test_an_image_that_changed_or_went_away(tmp_path: Path) -> None:
    image_folder(tmp_path)
    X = read(tmp_path, lazy=True).X
    save(tmp_path / "3.png", COLOUR)
    (tmp_path / "4.png").unlink()
    for i, word in ((3, "changed"), (4, "cannot be read")):
        with pytest.raises(FileError) as caught:
            X[i : i + 1]
        sentence(caught, f"{i}.png", word)


def test_auto_leaves_only_what_is_large_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path)
    assert type(read(tmp_path, lazy="auto").X) is np.ndarray
    monkeypatch.setattr(reading, "LAZY_FROM_BYTES", 12 * 48)
    assert type(read(tmp_path, lazy="auto").X) is np.ndarray
    monkeypatch.setattr(reading, "LAZY_FROM_BYTES", 12 * 48 - 1)
    same(read(tmp_path, lazy="auto").X, read(tmp_path).X)
