"""Folders of images: every kind of pixel, every size, lazily, and files that are not images."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.slice_checks import same, sentence, twins
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io import image_folders as images
from narrows.io import read as reading
from narrows.io.image_folders import parse_size
from narrows.io.photographs import Photograph, read_photograph, write_photograph
from narrows.io.read import read

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
DEEP = GREY.astype(np.uint16) * 250 + 7


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# ----------------------------------------------------------------------------------- pixels


def test_grey_images(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY)
    save(tmp_path / "b.bmp", GREY[::-1])
    data = read(tmp_path)
    np.testing.assert_array_equal(data.X, [GREY, GREY[::-1]])
    assert data.X.dtype == np.uint8
    assert data.axes is None
    assert data.y is None
    assert data.name == tmp_path.name


def test_colour_images(tmp_path: Path) -> None:
    save(tmp_path / "a.png", COLOUR)
    data = read(tmp_path)
    np.testing.assert_array_equal(data.X, COLOUR[None])
    assert data.axes == "HWC"


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY)
    save(tmp_path / "b.png", COLOUR)
    np.testing.assert_array_equal(read(tmp_path).X, [np.stack([GREY] * 3, -1), COLOUR])


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.zeros_like(GREY)
    alpha[:, 4:] = 255
    save(tmp_path / "a.png", np.dstack([COLOUR, alpha]))
    X = read(tmp_path).X[0]
    np.testing.assert_array_equal(X[:, 4:], COLOUR[:, 4:])
    assert (X[:, :4] == 255).all()


def test_grey_with_alpha_stays_grey(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.dstack([GREY, np.full_like(GREY, 255)]))
    np.testing.assert_array_equal(read(tmp_path).X, GREY[None])


@pytest.mark.parametrize(("pixels", "shape"), [(GREY, (1, 6, 8)), (COLOUR, (1, 6, 8, 3))])
def test_palettes_become_their_colours(
    tmp_path: Path, pixels: np.ndarray, shape: tuple[int, ...]
) -> None:
    image = Image.fromarray(pixels).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "P"
    X = read(tmp_path).X
    assert X.shape == shape
    np.testing.assert_array_equal(X[0], pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", DEEP)
    X = read(tmp_path).X
    assert X.dtype == np.uint16
    np.testing.assert_array_equal(X, DEEP[None])


def test_eight_bits_with_sixteen(tmp_path: Path) -> None:
    save(tmp_path / "a.png", DEEP)
    save(tmp_path / "b.png", np.full_like(GREY, 255))
    X = read(tmp_path).X
    np.testing.assert_array_equal(X[0], DEEP)
    assert (X[1] == 65_535).all()


def test_floating_point_images(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", DEEP.astype(np.float32) / 3)
    np.testing.assert_array_equal(read(tmp_path).X, DEEP[None].astype(np.float32) / 3)
    save(tmp_path / "b.tif", GREY)
    with pytest.raises(InputError, match="floating-point"):
        read(tmp_path)


def test_black_and_white_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path).X[0], (GREY > 100) * np.uint8(255))
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "b.tif")
    assert read(tmp_path).X.shape == (2, 6, 8, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_the_cameras_orientation_is_applied(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    options = {"lossless": True} if name.endswith("webp") else {}
    save(tmp_path / name, COLOUR, exif=exif, **options)
    save(tmp_path / "b.png", np.rot90(COLOUR, -1))
    X = read(tmp_path).X
    assert X.shape == (2, 8, 6, 3)
    np.testing.assert_array_equal(X[0], X[1])


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"'.*a.gif' holds several pictures: only the first"):
        np.testing.assert_array_equal(read(tmp_path).X, GREY[None])


# ------------------------------------------------------------------------------------ TIFFs

MINUS = np.array([[-5, -1, 0], [1, 2, 127]])
FLOATS = np.random.default_rng(0).random((5, 6))
BLACK = {"photometric": "minisblack"}
WHITE = {"photometric": "miniswhite"}


@pytest.mark.parametrize(
    ("stored", "options", "words"),
    [
        (MINUS.astype(np.int8), {}, "-5 to 127"),
        (MINUS.astype(np.int16), {}, "0 to 65,535"),
        (MINUS.astype(np.int32) * 10**6, {}, "0 to 65,535"),
        (DEEP, WHITE, "from white to black"),
        (FLOATS.astype(np.float32), WHITE, "from white to black"),
        (MINUS.astype(np.int8), WHITE, "from white to black"),
        (FLOATS, {}, "float32"),
        (np.dstack([FLOATS] * 3), {"photometric": "rgb"}, "float32"),
        (FLOATS.astype(np.complex64), {}, "float32"),
        (np.dstack([GREY, GREY + 1]), {**BLACK, "planarconfig": "contig"}, "2 values a pixel"),
        (np.stack([DEEP, DEEP]), {**BLACK, "planarconfig": "separate"}, "2 values a pixel"),
        (np.stack([GREY] * 5), {**BLACK, "planarconfig": "separate"}, "5 values a pixel"),
        (np.dstack([FLOATS.astype("f4")] * 7), {**BLACK, "planarconfig": "contig"}, "7 values"),
        (
            np.dstack([GREY] * 4),
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
            "4 values",
        ),
        (np.dstack([GREY] * 5), {"photometric": "rgb"}, "5 values a pixel"),
        (GREY, {"photometric": "cfa"}, "save it as grey or RGB"),
    ],
)
def test_tiffs_that_would_be_changed_are_refused_by_both_readers(
    tmp_path: Path, stored: np.ndarray, options: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, **options)
    for reader, given in ((read, tmp_path), (read_photograph, path)):
        with pytest.raises(FileError) as caught:
            reader(given)
        sentence(caught, "a.tif", words)


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (np.abs(MINUS).astype(np.int8), {}),
        (np.abs(MINUS).astype(np.int16), {}),
        (np.abs(MINUS).astype(np.int64), {}),
        (FLOATS.astype(np.float16), {}),
        (np.dstack([FLOATS.astype(np.float32)] * 3), {"photometric": "rgb"}),
        (np.stack([DEEP, DEEP + 1, DEEP]), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.dstack([DEEP, DEEP + 1, DEEP]), {"photometric": "rgb"}),
        (GREY, WHITE),
    ],
)
def test_tiffs_are_read_as_tifffile_reads_them(
    tmp_path: Path, stored: np.ndarray, options: dict[str, Any]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    truth = stored if options.get("planarconfig") != "separate" else np.moveaxis(stored, 0, -1)
    truth = 255 - truth if options == WHITE else truth
    for found in (read(tmp_path).X[0], read_photograph(tmp_path / "a.tif").pixels):
        assert found.dtype in (np.uint8, np.uint16, np.float32)
        np.testing.assert_array_equal(found, truth.astype(found.dtype))
        np.testing.assert_array_equal(found.astype(float), truth.astype(float))


@pytest.mark.parametrize("stored", [GREY, DEEP, np.dstack([DEEP] * 3), FLOATS.astype("f2")])
def test_of_several_pages_the_first_is_read_and_said(tmp_path: Path, stored: np.ndarray) -> None:
    for name in ("a.tif", "b.tif"):
        with tifffile.TiffWriter(tmp_path / name) as file:
            for page in (stored, stored * 0, stored):
                file.write(page, photometric="rgb" if stored.ndim == 3 else "minisblack")
    with pytest.warns(UserWarning, match=r"a.tif' \(and 1 more\) holds several pictures"):
        X = read(tmp_path).X
    np.testing.assert_array_equal(X, [stored, stored])
    with pytest.warns(UserWarning, match="only the first is read"):
        read_photograph(tmp_path / "b.tif")


def test_colours_of_sixteen_bits_are_kept_with_transparency_and_resize(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65_536, (6, 8, 4)).astype(np.uint16)
    write_photograph(Photograph(deep[..., :3]), tmp_path / "a.png")
    write_photograph(Photograph(deep[..., :3], alpha=deep[..., 3]), tmp_path / "b.png")
    X = read(tmp_path).X
    assert X.dtype == np.uint16
    np.testing.assert_array_equal(X[0], deep[..., :3])
    alpha = deep[..., 3:] / 65_535
    np.testing.assert_allclose(X[1], deep[..., :3] * alpha + 65_535 * (1 - alpha), atol=0.51)
    assert read(tmp_path, resize=4).X.shape == (2, 4, 4, 3)
    save(tmp_path / "c.png", GREY)  # grey of 8 bits beside it
    np.testing.assert_array_equal(read(tmp_path).X[2, ..., 1], GREY.astype(np.uint16) * 257)


# ------------------------------------------------------------------------------------ sizes


def test_differing_sizes_propose_resize(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", GREY)
    save(tmp_path / "4.png", GREY[:5, :4])
    with pytest.raises(InputError, match="3 of 6x8, 1 of 5x4") as caught:
        read(tmp_path)
    assert "--resize 4 (square) or --resize 5x4" in str(caught.value)
    assert "resize=(5, 4)" in str(caught.value)
    assert read(tmp_path, resize=(5, 4)).X.shape == (4, 5, 4)
    assert read(tmp_path, resize=4).X.shape == (4, 4, 4)
    assert read(tmp_path, resize="9x3").X.shape == (4, 9, 3)


def test_resize_covers_and_crops_evenly(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200  # the middle square of a picture three times as wide as high
    save(tmp_path / "a.png", wide)
    np.testing.assert_array_equal(read(tmp_path, resize=10).X, wide[None, :, 10:20])


def test_resize_keeps_sixteen_bits(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((8, 8), 40_000, np.uint16))
    X = read(tmp_path, resize=3).X
    assert X.dtype == np.uint16
    assert (X == 40_000).all()


def test_resize_does_not_wrap_around_at_sharp_edges(tmp_path: Path) -> None:
    edge = np.zeros((8, 8), np.uint16)
    edge[:, 4:] = 65_535  # the filter overshoots on both sides of it
    save(tmp_path / "a.png", edge)
    X = read(tmp_path, resize=24).X[0].astype(int)
    assert (X[:, :9] < 10_000).all()
    assert (X[:, -9:] > 55_000).all()


@pytest.mark.parametrize("resize", [0, -3, "4x", "a", (1, 2, 3), (), True, 1.5, "4x0"])
def test_resize_that_is_not_a_size(resize: object) -> None:
    with pytest.raises(ParameterError, match="resize="):
        parse_size(resize)  # type: ignore[arg-type]


# ------------------------------------------------------------------------- names and labels


def test_natural_order(tmp_path: Path) -> None:
    for i in (10, 9, 1, 100):
        save(tmp_path / f"img{i}.png", np.full((2, 2), i, np.uint8))
    assert read(tmp_path).X[:, 0, 0].tolist() == [1, 9, 10, 100]


def test_subfolders_are_labels(tmp_path: Path) -> None:
    save(tmp_path / "class10" / "a.png", GREY)
    save(tmp_path / "class2" / "b.png", GREY)
    save(tmp_path / "class2" / "deeper" / "Thumbs.db.png", GREY)
    (tmp_path / "class2" / "deeper").rename(tmp_path / "class3")
    data = read(tmp_path)
    assert data.y_names == ["class2", "class3", "class10"]
    assert data.y is not None
    assert data.y.tolist() == [0, 1, 2]


def test_no_labels_if_images_lie_outside_the_subfolders(tmp_path: Path) -> None:
    save(tmp_path / "one" / "a.png", GREY)
    assert read(tmp_path).y is None
    save(tmp_path / "two" / "a.png", GREY)
    assert read(tmp_path).y is not None
    save(tmp_path / "a.png", GREY)
    assert read(tmp_path).y is None
    assert read(tmp_path).X.shape == (3, 6, 8)


def test_hidden_files_and_other_files_are_skipped(tmp_path: Path) -> None:
    save(tmp_path / "A.PNG", GREY)
    for name in ("._A.png", ".hidden/x.png", "__MACOSX/x.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    assert read(tmp_path).X.shape == (1, 6, 8)


# ---------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"Not an image, just words.", "text file"),
        (b"", "empty"),
        (b"\x00\x01\xff\xfe", "no known"),
    ],
)
@pytest.mark.parametrize("resize", [None, 4])
def test_files_that_are_not_images_are_named(
    tmp_path: Path, content: bytes, word: str, resize: int | None
) -> None:
    save(tmp_path / "a.png", GREY)
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(FileError, match=word) as caught:
        read(tmp_path, resize=resize)
    assert "b.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp"])
def test_images_cut_anywhere_never_crash(tmp_path: Path, name: str) -> None:
    whole = save(tmp_path / name, COLOUR).read_bytes()
    for length in range(1, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:length])
        try:
            read(tmp_path)  # some formats can lose their last bytes and not a pixel
        except FileError as error:
            assert name in str(error)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=name):
        read(tmp_path)


@pytest.mark.filterwarnings("default")  # as for a user, to whom Pillow's warning is no error
@pytest.mark.parametrize("limit", [40, 20])  # 48 pixels: Pillow warns at 40, refuses at 20
def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(FileError, match="pixels") as caught:
        read(tmp_path)
    assert "a.png" in str(caught.value)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path)
    (tmp_path / "x.npy").write_text("")
    with pytest.raises(InputError, match=r"no images .*x\.npy"):
        read(tmp_path)


# ------------------------------------------------------------------------------ read lazily


def image_folder(folder: Path) -> None:
    for i in range(12):
        save(folder / f"{i}.png", GREY + i)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path, COLOUR, exif=exif)


def test_lazy_images_of_one_kind(tmp_path: Path) -> None:
    image_folder(tmp_path)
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[9:11], [GREY + 9, GREY + 10])


def test_lazy_labels_in_colour_and_grey(tmp_path: Path) -> None:
    save(tmp_path / "b" / "1.png", COLOUR)
    save(tmp_path / "a" / "1.png", GREY)
    Image.fromarray(GREY).convert("P").save(tmp_path / "a" / "2.gif")
    lazy, _ = twins(tmp_path)
    assert lazy.y_names == ["a", "b"]
    assert lazy.axes == "HWC"
    np.testing.assert_array_equal(lazy.X[0:1], np.stack([GREY] * 3, -1)[None])


def test_lazy_eight_bits_with_sixteen(tmp_path: Path) -> None:
    save(tmp_path / "1.png", GREY)
    save(tmp_path / "2.png", DEEP)
    lazy, _ = twins(tmp_path)
    assert lazy.X.dtype == np.uint16
    np.testing.assert_array_equal(lazy.X[0:1], GREY[None].astype(np.uint16) * 257)


def test_lazy_floating_point_images(tmp_path: Path) -> None:
    save(tmp_path / "1.tif", DEEP.astype(np.float32) / 3)
    assert twins(tmp_path)[0].X.dtype == np.float32
    save(tmp_path / "2.tif", GREY)
    with pytest.raises(InputError, match="floating-point"):
        read(tmp_path, lazy=True)


def test_lazy_orientation(tmp_path: Path) -> None:
    turned(tmp_path / "1.png")
    save(tmp_path / "2.png", np.rot90(COLOUR, -1))
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[0:1], lazy.X[1:2])


def test_lazy_sizes_and_resize(tmp_path: Path) -> None:
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


def test_an_orientation_that_follows_the_pixels(tmp_path: Path) -> None:
    late_orientation(tmp_path / "1.png")
    late_orientation(tmp_path / "2.png")
    lazy, _ = twins(tmp_path)
    np.testing.assert_array_equal(lazy.X[1:2], np.rot90(COLOUR, -1)[None])
    save(tmp_path / "3.png", COLOUR)
    with pytest.raises(InputError) as caught:
        read(tmp_path, lazy=True).X[2:]
    sentence(caught, "3.png", "6x8", "8x6", "--resize 6")


def test_a_thread_does_not_change_the_filters_of_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path)
    X = read(tmp_path, lazy=True).X
    filters: list[Any] = []
    real = images.read_pixels
    monkeypatch.setattr(
        images,
        "read_pixels",
        lambda *given: [filters.append(list(warnings.filters)), real(*given)][1],
    )
    with ThreadPoolExecutor(1) as thread:
        np.testing.assert_array_equal(thread.submit(lambda: X[3:4]).result(), [GREY + 3])
    assert filters == [list(warnings.filters)]


def test_an_image_that_changed_or_was_removed(tmp_path: Path) -> None:
    image_folder(tmp_path)
    X = read(tmp_path, lazy=True).X
    save(tmp_path / "3.png", COLOUR)
    (tmp_path / "4.png").unlink()
    for i, word in ((3, "changed"), (4, "cannot be read")):
        with pytest.raises(FileError) as caught:
            X[i : i + 1]
        sentence(caught, f"{i}.png", word)


def test_lazy_auto_loads_what_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path)
    assert type(read(tmp_path, lazy="auto").X) is np.ndarray
    monkeypatch.setattr(reading, "LAZY_FROM_BYTES", 12 * 48)
    assert type(read(tmp_path, lazy="auto").X) is np.ndarray
    monkeypatch.setattr(reading, "LAZY_FROM_BYTES", 12 * 48 - 1)
    same(read(tmp_path, lazy="auto").X, read(tmp_path).X)
