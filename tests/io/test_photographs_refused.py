"""Photographs that are damaged, too large, or not possible in a format: refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import putchunk

from helpers.photographs_made import (
    COLOUR,
    GREY,
    KINDS,
    LOSSLESS,
    SRGB,
    exif_block,
    photograph,
    random,
)
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.photographs import (
    Photograph,
    check_can_hold,
    find_photographs,
    read_photograph,
    write_photograph,
)


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".jpg", ".gif", ".bmp", ".ppm"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(random((64, 64, 3), "uint8")).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileError, match=r"cut\."):
        read_photograph(path)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", "uint16"), (".tif", "uint16"), (".tif", "float32")]
)
def test_truncated_deep_files_are_named(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = write_photograph(photograph((64, 64), dtype, True, True), tmp_path / f"cut{suffix}")
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FileError, match=r"cut\."):
            read_photograph(path)


@given(st.sampled_from(KINDS), st.data())
@settings(max_examples=150)
def test_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str, bool, bool], data: Any
) -> None:
    dtype, suffix, colour, alpha = kind
    path = tmp_path_factory.mktemp("damage") / f"a{suffix}"
    plain = photograph((6, 5), dtype, colour, alpha)
    write_photograph(Photograph(plain.pixels, plain.alpha, exif_block(), SRGB, (72, 72)), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read_photograph(path, max_pixels=100_000)
    except FileError as error:
        assert str(path) in str(error)
    else:
        assert found.pixels.dtype.name in ("uint8", "uint16", "float32")


def test_files_that_are_not_images_are_refused(tmp_path: Path) -> None:
    for content, words in (
        (b"", "empty"),
        (b"hello there", "text file"),
        (b"\0\xff\1", "kind"),
    ):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(FileError, match=words):
            read_photograph(tmp_path / "a.jpg")
    with pytest.raises(FileError, match="does not exist"):
        read_photograph(tmp_path / "b.jpg")
    with pytest.raises(InputError, match="no images"):
        (tmp_path / "a.jpg").rename(tmp_path / "a.txt")
        find_photographs(tmp_path)


def bomb(path: Path) -> Path:
    """A PNG that claims 30,000 × 30,000 pixels and holds next to nothing."""
    head = struct.pack(">LLBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
            putchunk(file, name, data)
    return path


def test_max_pixels_and_pillows_own_limit(tmp_path: Path) -> None:
    usual = Image.MAX_IMAGE_PIXELS
    with pytest.raises(FileError, match=r"bomb\.png.*200,000,000 pixels.*--max-pixels"):
        read_photograph(bomb(tmp_path / "bomb.png"))
    with pytest.raises(FileError, match="truncated"):  # decoded, when that many are allowed
        read_photograph(tmp_path / "bomb.png", max_pixels=900_000_000)
    for suffix in (".png", ".tif", ".webp"):
        path = write_photograph(Photograph(COLOUR), tmp_path / f"a{suffix}")
        assert read_photograph(path, max_pixels=48).pixels.shape == COLOUR.shape
        with pytest.raises(FileError, match="47 pixels"):
            read_photograph(path, max_pixels=47)
    path = write_photograph(photograph((6, 8), "float32", True, False), tmp_path / "b.tif")
    with pytest.raises(FileError, match="47 pixels"):
        read_photograph(path, max_pixels=47)
    with pytest.raises(ParameterError, match="max_pixels is 0"):
        read_photograph(path, max_pixels=0)
    assert usual == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (("uint16", True, False), "a.jpg", "hold 16 bits: give a name in .png, .tif or .tiff"),
        (("uint8", True, True), "a.jpeg", "hold transparency: give a name in .png, .tif, .tiff or"),
        (("float32", False, False), "a.png", "hold floating-point numbers: give a name in .tif"),
        (("uint8", False, False), "a.gif", "be written: give a name in .png"),
    ],
)
def test_the_message_names_what_a_format_cannot_hold(
    tmp_path: Path, kind: tuple[str, bool, bool], name: str, words: str
) -> None:
    given = photograph((2, 2), *kind)
    with pytest.raises(FileError, match=words):
        check_can_hold(given, name)
    with pytest.raises(FileError, match=words):
        write_photograph(given, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_message_names_sides_that_are_too_long() -> None:
    with pytest.raises(
        FileError, match=r"hold 20,000 × 3 pixels: give a name in .png, .tif, .tiff"
    ):
        check_can_hold(Photograph(np.zeros((3, 20_000), np.uint8)), "a.webp")


def test_no_file_is_overwritten_or_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_photograph(Photograph(GREY), tmp_path / "a.png")
    with pytest.raises(FileError, match="exists already"):
        write_photograph(Photograph(GREY[::-1]), path)

    def fail(self: Any, file: Any, **_: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        write_photograph(Photograph(GREY[::-1]), path, overwrite=True)
    np.testing.assert_array_equal(read_photograph(path).pixels, GREY)
    assert list(tmp_path.iterdir()) == [path]


def test_new_pixels_must_have_the_old_shape_and_dtype() -> None:
    with pytest.raises(InputError, match="uint16 of shape"):
        Photograph(GREY).with_pixels(GREY.astype(np.uint16))


@pytest.mark.parametrize(
    "exif",
    [
        b"garbage",
        b"Exif\0\0garbage that is no directory",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"MM\0*",
    ],
)
def test_damaged_exif_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    given = Photograph(GREY, exif=exif)
    np.testing.assert_array_equal(given.upright[..., 0], GREY)


def test_damaged_exif_does_not_cost_the_photograph(tmp_path: Path) -> None:
    given = Photograph(GREY, exif=b"Exif\0\0garbage that is no directory")
    found = read_photograph(write_photograph(given, tmp_path / "a.tif"))
    np.testing.assert_array_equal(found.pixels, GREY)
