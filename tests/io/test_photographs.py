"""Photographs: every kind is read in full, and written again without loss."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
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
    photo_tags,
    photograph,
    random,
)
from narrows.exceptions import FileError
from narrows.io import photographs
from narrows.io.photographs import (
    FORMAT_DTYPES,
    WRITABLE,
    Images,
    Photograph,
    read_photograph,
    white_and_doubt,
    write_photograph,
)


def same(one: Photograph, other: Photograph) -> None:
    assert one.pixels.dtype == other.pixels.dtype
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        assert one.alpha.dtype == one.pixels.dtype
        np.testing.assert_array_equal(one.alpha, other.alpha)


# ------------------------------------------------------------------------------ there and back


@given(
    st.sampled_from(KINDS),
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.sampled_from([(1, 1), (3, 5000), (5000, 3), (300, 700)]),
    ),
)
@settings(max_examples=150)
def test_write_then_read_gives_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[str, str, bool, bool],
    size: tuple[int, int],
) -> None:
    dtype, suffix, colour, alpha = kind
    path = tmp_path_factory.mktemp("there") / f"and back{suffix}"
    given = photograph(size, dtype, colour, alpha)
    if given.alpha is not None:
        given.alpha[0, 0] = 0  # where all is opaque, webp keeps no alpha
    assert write_photograph(given, path) == path
    same(read_photograph(path), given)


@pytest.mark.parametrize(("suffix", "dtype"), [(s, d) for s in WRITABLE for d in FORMAT_DTYPES[s]])
def test_metadata_are_kept(tmp_path: Path, suffix: str, dtype: str) -> None:
    plain = photograph((5, 7), dtype, colour=True, alpha=False)
    given = Photograph(plain.pixels, None, exif_block(), SRGB, (300.0, 150.0))
    found = read_photograph(write_photograph(given, tmp_path / f"a{suffix}"))
    assert photo_tags(found.exif) == photo_tags(given.exif)
    assert found.icc == SRGB
    if suffix != ".webp":  # which has no place for it
        assert found.dpi == pytest.approx((300, 150), rel=1e-3)
    again = read_photograph(write_photograph(found, tmp_path / f"b{suffix}"))
    assert (again.exif, again.icc, again.dpi) == (found.exif, found.icc, found.dpi)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_not_turned_and_the_orientation_is_kept(
    tmp_path: Path, orientation: int, dtype: str
) -> None:
    plain = photograph((4, 6), dtype, colour=True, alpha=False)
    given = Photograph(plain.pixels, None, exif_block(orientation))
    for suffix in LOSSLESS:
        if dtype in FORMAT_DTYPES[suffix]:
            path = write_photograph(given, tmp_path / f"a{suffix}")
            found = read_photograph(path)
            same(found, given)
            assert photo_tags(found.exif)[0][0x0112] == orientation
    if dtype == "uint8":
        whole = write_photograph(given, tmp_path / "a.jpg")
        assert read_photograph(whole).pixels.shape == (4, 6, 3)


def test_jpeg_is_close_and_keeps_the_resolution_of_colour(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, ::2, 0] = 255  # stripes of a pixel, in colour alone
    path = write_photograph(Photograph(pixels), tmp_path / "a.jpg")
    assert np.abs(read_photograph(path).pixels.astype(int) - pixels).max() < 20


def test_other_readers_agree(tmp_path: Path) -> None:
    png, tifffile = pytest.importorskip("png"), pytest.importorskip("tifffile")
    for alpha in (False, True):
        for colour in (False, True):
            given = photograph((9, 11), "uint16", colour, alpha)
            path = write_photograph(given, tmp_path / "a.png", overwrite=True)
            with path.open("rb") as file:
                rows = np.array([list(row) for row in png.Reader(file=file).read()[2]])
            np.testing.assert_array_equal(rows.reshape(given.planes.shape), given.planes)
            path = write_photograph(given, tmp_path / "a.tif", overwrite=True)
            np.testing.assert_array_equal(tifffile.imread(path), np.squeeze(given.planes))


# ------------------------------------------------------------------------------ kinds of pixels


def saved(path: Path, image: Image.Image, **options: Any) -> Photograph:
    image.save(path, **options)
    return read_photograph(path)


UNIT = np.linspace(0, 1, 40 * 40).reshape(40, 40)
NOISE = np.random.default_rng(0).normal(size=UNIT.shape)


def with_one(value: float, pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[3, 4] = value
    return pixels


def with_few(value: float, pixels: np.ndarray, share: float = 0.002) -> np.ndarray:
    pixels = pixels.copy()
    pixels.flat[:: round(1 / share)] = value
    return pixels


@pytest.mark.parametrize(
    ("pixels", "white", "doubted"),
    [
        (UNIT, 1, False),
        (with_one(2.05, UNIT + 50 / 255 * NOISE), 1, False),
        (UNIT + 75 / 255 * NOISE, 1, False),
        (with_one(-2.2, UNIT), 1, False),
        (with_one(255.0, UNIT), 1, True),
        (with_one(70_000.0, UNIT), 1, True),
        (UNIT / 40, 1, True),
        (255 * UNIT, 255, False),
        (255 * UNIT + 50 * NOISE, 255, False),
        (with_one(65_535.0, 255 * UNIT), 255, True),
        (10 * UNIT, 255, True),
        ((255 * UNIT).round().astype(np.int64), 255, False),
        (with_one(60_000, (255 * UNIT).round()).astype(np.int32), 255, True),
        ((3 * UNIT).round().astype(np.int16), 255, True),
        ((4095 * UNIT).astype(np.uint16), 65_535, True),
        ((1023 * UNIT).astype(np.uint16), 65_535, True),
        ((60_000 * UNIT).astype(np.uint16), 65_535, False),
        ((40 * UNIT).astype(np.uint8), 255, False),
        (40_000 * UNIT, 65_535, False),
        (UNIT > 0.5, 255, False),
        (np.zeros((9, 9)), 1, False),
        (with_few(50.0, UNIT + 25 / 255 * NOISE), 1, True),
        (with_few(200.0, UNIT, 0.03), 1, True),
        (with_few(3.5, UNIT, 0.02), 1, True),
        (with_few(65_535, (4095 * UNIT).astype(np.uint16)), 65_535, True),
        ((16_383 * UNIT).astype(np.uint16), 65_535, True),
        ((255 * UNIT).astype(np.uint16), 65_535, True),
        (4095 * UNIT + 400 * NOISE, 65_535, True),
        (16_383 * UNIT + 1600 * NOISE, 65_535, True),
        (1023 * UNIT + 100 * NOISE, 65_535, True),
        (100 * UNIT, 255, True),
        (100 * UNIT + 10 * NOISE, 255, True),
        (4095 / 65_535 * UNIT, 1, True),
        (0.5 * UNIT, 1, False),
        (160 * UNIT + 5 * NOISE, 255, False),
        ((30_000 * UNIT).astype(np.uint16), 65_535, False),
        (with_one(65_535, (30_000 * UNIT).astype(np.uint16)), 65_535, False),
        (UNIT.astype(np.float16), 1, False),
        ((255 * UNIT).astype(np.float16), 255, False),
    ],
)
def test_white_is_not_decided_by_one_value_and_a_guess_is_said(
    pixels: np.ndarray, white: float, doubted: bool
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert Images(pixels).whites == [white]
        assert Images(pixels, white=4095).whites == [4095]
    words = [str(warning.message) for warning in said]
    assert len(words) == doubted
    assert all("X: white is taken as" in word and "give white=" in word for word in words)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_white_is_found_in_a_part_of_the_memory_of_an_image(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "MAX_QUANTILE_VALUES", 1000)
    pixels = np.ones((500, 500, 3), dtype)
    photographs.white_and_doubt(pixels)
    tracemalloc.start()
    photographs.white_and_doubt(pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes / 4


def test_white_of_eight_bits_costs_nothing() -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10**6, 10**6), (0, 0))
    assert white_and_doubt(huge) == (255.0, "")


def test_black_and_white(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.pbm", "a.bmp", "a.gif"):
        found = saved(tmp_path / name, Image.fromarray(GREY > 100))
        np.testing.assert_array_equal(found.pixels, (GREY > 100) * np.uint8(255))
        assert found.alpha is None


def test_palettes_become_colours(tmp_path: Path) -> None:
    image = Image.fromarray(GREY // 4, "L").convert("L")
    colours = random((64, 3), "uint8")
    image.putpalette(colours.ravel().tolist())
    alphas = random((64,), "uint8", 3)
    found = saved(tmp_path / "a.png", image, transparency=alphas.tobytes())
    np.testing.assert_array_equal(found.pixels, colours[GREY // 4])
    np.testing.assert_array_equal(found.alpha, alphas[GREY // 4])
    image.putpalette(np.repeat(colours[:, 0], 3).tolist())
    found = saved(tmp_path / "b.png", image, transparency=alphas.tobytes())
    np.testing.assert_array_equal(found.pixels, colours[GREY // 4, 0])
    np.testing.assert_array_equal(found.alpha, alphas[GREY // 4])
    assert saved(tmp_path / "c.png", image, icc_profile=SRGB).pixels.ndim == 3


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    key = tuple(int(v) for v in COLOUR[2, 3])
    found = saved(tmp_path / "a.png", Image.fromarray(COLOUR), transparency=key)
    np.testing.assert_array_equal(found.alpha, (key != COLOUR).any(axis=2) * np.uint8(255))
    np.testing.assert_array_equal(found.pixels, COLOUR)
    deep = random((6, 8), "uint16")
    found = saved(tmp_path / "b.png", Image.fromarray(deep), transparency=int(deep[1, 1]))
    np.testing.assert_array_equal(found.alpha, (deep != deep[1, 1]) * np.uint16(65_535))


def test_sixteen_bits_in_either_order_of_bytes(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for shape in ((6, 8), (6, 8, 3), (6, 8, 4)):
        deep = random(shape, "uint16")
        for order in "<>":
            for big in (False, True):
                if big and order == ">":
                    continue  # not written by any known program
                photometric = "rgb" if len(shape) == 3 else "minisblack"
                more = {"extrasamples": ["unassalpha"]} if shape[2:] == (4,) else {}
                options = {"byteorder": order, "bigtiff": big, "photometric": photometric, **more}
                tifffile.imwrite(tmp_path / "a.tif", deep, **options)
                found = read_photograph(tmp_path / "a.tif")
                np.testing.assert_array_equal(np.squeeze(found.planes), deep)


def test_tiffs_that_only_tifffile_reads(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    floats = random((6, 8, 3), "float32")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, floats, photometric="rgb", resolution=(72, 72), resolutionunit=2)
    assert read_photograph(path).dpi == (72, 72)
    np.testing.assert_array_equal(read_photograph(path).pixels, floats)
    tifffile.imwrite(path, np.moveaxis(floats, 2, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_photograph(path).pixels, floats)
    tifffile.imwrite(path, floats[..., 0].astype(np.float16), photometric="minisblack")
    np.testing.assert_array_equal(read_photograph(path).pixels, floats[..., 0].astype(np.float16))
    tifffile.imwrite(path, random((6, 8, 4), "uint16"), photometric="separated")
    with pytest.raises(FileError, match="SEPARATED; save it as RGB"):
        read_photograph(path)


def test_colours_times_alpha_are_divided(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    colours = random((6, 8, 3), "uint16")
    alpha = np.full((6, 8, 1), 40_000, np.uint16)
    stored = np.rint(colours * (alpha / 65_535)).astype(np.uint16)
    planes = np.dstack([stored, alpha])
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", extrasamples=["assocalpha"])
    found = read_photograph(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.alpha, alpha[..., 0])
    assert np.abs(found.pixels.astype(int) - colours).max() <= 1


def lzw(data: bytes) -> bytes:
    """Bytes in the LZW of TIFF, which tifffile does not decode on its own, without compression.

    All codes stay 9 bits wide because the table is cleared (256) before it grows; 257 ends.
    """
    codes = []
    for i in range(0, len(data), 200):
        codes += [256, *data[i : i + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def write_lzw(path: Path, deep: np.ndarray, order: str, **more: Any) -> None:
    tifffile.imwrite(path, deep, photometric="rgb", byteorder=order, metadata=None, **more)
    packed = lzw(deep.astype(f"{order}u2").tobytes())
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        start = path.stat().st_size
        tags["Compression"].overwrite(5)
        tags["StripOffsets"].overwrite(start)
        tags["StripByteCounts"].overwrite(len(packed))
    content = path.read_bytes()
    path.write_bytes(content[:start].ljust(start, b"\0") + packed)


@pytest.mark.parametrize("n_planes", [3, 4])
@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_colours_compressed_by_lzw(tmp_path: Path, order: str, n_planes: int) -> None:
    deep = random((6, 8, n_planes), "uint16")
    more = {"extrasamples": ["unassalpha"]} if n_planes == 4 else {}
    write_lzw(tmp_path / "a.tif", deep, order, **more)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").planes, deep)


def test_premultiplied_colours_that_cannot_be_divided_again_are_refused(tmp_path: Path) -> None:
    """Pillow decodes this LZW, and would answer with other colours than the alpha's."""
    planes = np.dstack([random((6, 8, 3), "uint16") // 2, np.full((6, 8), 40_000, np.uint16)])
    write_lzw(tmp_path / "a.tif", planes, "<", extrasamples=["assocalpha"])
    with pytest.raises(FileError, match=r"a\.tif"):
        read_photograph(tmp_path / "a.tif")


def filtered_png(deep: np.ndarray, path: Path) -> None:
    """A PNG whose rows use the five filters in turn, as other writers do."""
    rows = deep.astype(">u2").view(np.uint8).reshape(len(deep), -1).astype(int)
    bpp = 2 * deep.shape[2]
    body = b""
    for y, row in enumerate(rows):
        up = rows[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(bpp, int), r[:-bpp]]) for r in (row, up))
        p = left + up - corner
        a, b, c = abs(p - left), abs(p - up), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
        guess = (0 * row, left, up, (left + up) // 2, paeth)[y % 5]
        body += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
    kind = (0, 4, 2, 6)[deep.shape[2] - 1]
    head = struct.pack(">LLBBBBB", deep.shape[1], len(deep), 16, kind, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(body)), (b"IEND", b"")):
            putchunk(file, name, data)


@pytest.mark.parametrize("n_planes", [1, 2, 3, 4])
def test_every_filter_of_deep_pngs(tmp_path: Path, n_planes: int) -> None:
    deep = random((11, 7, n_planes), "uint16")
    filtered_png(deep, tmp_path / "a.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.png").planes, deep)


def test_interlaced_deep_pngs(tmp_path: Path) -> None:
    png = pytest.importorskip("png")
    deep = random((13, 17, 3), "uint16")
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(17, 13, greyscale=False, bitdepth=16, interlace=True)
        writer.write(file, deep.reshape(13, -1).tolist())
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.png").pixels, deep)


def test_whole_numbers_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    fits = np.array([[0, 65_535]], np.int32)
    np.testing.assert_array_equal(saved(tmp_path / "a.tif", Image.fromarray(fits)).pixels, fits)
    for value in (-1, 65_536):
        with pytest.raises(FileError, match="0 to 65,535"):
            saved(tmp_path / "a.tif", Image.fromarray(fits * 0 + np.int32(value)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_are_kept_and_no_numbers_refused(tmp_path: Path, bad: float) -> None:
    floats = random((5, 4), "float32")
    assert floats.min() < 0
    np.testing.assert_array_equal(saved(tmp_path / "a.tif", Image.fromarray(floats)).pixels, floats)
    floats[2, 1] = bad
    with pytest.raises(FileError, match=r"a\.tif.*NaN or infinity"):
        saved(tmp_path / "a.tif", Image.fromarray(floats))


def test_cmyk_becomes_rgb_with_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).convert("CMYK")
    with pytest.warns(UserWarning, match=r"a\.tif' is CMYK.*profile is left out"):
        found = saved(tmp_path / "a.tif", image, icc_profile=SRGB)
    assert found.icc == b""
    np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGB")))
    with pytest.warns(UserWarning, match="LAB"):
        lab = saved(tmp_path / "b.tif", Image.merge("LAB", Image.fromarray(COLOUR).split()))
    assert lab.pixels.shape == COLOUR.shape


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((4, 5, 3), v, np.uint8)) for v in (0, 255)]
    with pytest.warns(UserWarning, match="only the first"):
        found = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    assert found.pixels.max() == 0


def test_of_two_pictures_in_a_jpeg_the_first(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="MPO", save_all=True, append_images=frames[1:])
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    with pytest.warns(UserWarning, match="only the first"):
        assert read_photograph(tmp_path / "a.jpg").pixels.max() == 0


def test_floats_of_half_the_width_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 7)).astype(np.float16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = read_photograph(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(found, values.astype(np.float32))
