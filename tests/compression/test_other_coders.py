"""What ordinary coders make of the data: sizes that are real, qualities that hold."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from narrows.compression.other_coders import (
    Packed,
    missing,
    pack_bounded,
    pack_lossless,
    pack_lossy,
)
from narrows.compression.other_images import Form, fidelity, forms_of, images_of, mosaics

Array = NDArray[Any]


def named(rows: list[Packed], start: str) -> Packed:
    exact = [row for row in rows if row.name == start]
    return next(iter(exact + [row for row in rows if row.name.startswith(start)]))


def smooth(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Sums of random steps: what neighbours tell much about."""
    x = np.random.default_rng(seed).normal(size=shape)
    for axis in range(len(shape)):
        x = np.cumsum(x, axis)
    return x


def picture(height: int, width: int, *channels: int) -> Array:
    x = smooth((height, width, *channels))
    return (255 * (x - x.min()) / max(x.max() - x.min(), 1)).astype(np.uint8)


def test_a_constant_image_is_small() -> None:
    rows = pack_lossless([np.full((64, 64), 7, np.uint8)])
    assert all(row.nbytes < 200 for row in rows)
    assert all(row.max_error == 0 and row.psnr is None for row in rows)
    assert rows == sorted(rows, key=lambda row: row.nbytes)


@pytest.mark.parametrize("name", ["zlib", "bz2", "xz"])
def test_random_bytes_grow_a_little(name: str) -> None:
    x = np.frombuffer(np.random.default_rng(0).bytes(50_000), np.uint8)
    assert 50_000 < named(pack_lossless(x), name).nbytes < 51_000


def test_zstandard_stands_beside_where_it_is_installed() -> None:
    names = {row.name for row in pack_lossless(np.arange(100))}
    assert ("Zstandard" in names) == ("zstandard" not in missing())


def test_bytes_by_place_help_numbers_of_several_bytes() -> None:
    rows = pack_lossless((100 * smooth((10_000,))).astype(np.int32))
    assert named(rows, "xz, bytes by place").nbytes < named(rows, "xz").nbytes


def test_byte_order_and_layout_do_not_matter() -> None:
    x = smooth((40, 30)).astype("<f4")
    for other in (x.astype(">f4"), np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
        sizes = [[(r.name, r.nbytes) for r in pack_lossless(y)] for y in (x, other)]
        assert sizes[0] == sizes[1]


def test_of_much_a_sample_is_taken_and_named() -> None:
    x = np.frombuffer(np.random.default_rng(0).bytes(80_000), np.uint8)
    rows = pack_lossless(x, most_bytes=8_000)
    assert named(rows, "xz (from a sample)").nbytes == pytest.approx(80_000, rel=0.05)
    assert named(rows, "zlib").nbytes > 80_000


def test_of_many_images_a_sample_is_taken_and_named() -> None:
    images = [picture(16, 16)] * 30
    every = named(pack_lossless(images), "PNG, a file each").nbytes
    some = named(pack_lossless(images, most_images=7), "PNG, a file each (from a sample)").nbytes
    assert some == every


def test_a_mosaic_saves_the_headers() -> None:
    rows = pack_lossless(np.stack([picture(12, 12)] * 50))
    assert named(rows, "PNG, mosaic").nbytes < named(rows, "PNG, a file each").nbytes


@pytest.mark.parametrize("shape", [(28, 28), (20, 9, 3), (1, 128)])
@pytest.mark.parametrize("n", [2, 5, 37, 400])
def test_a_mosaic_gives_its_images_back(n: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (n, *shape), dtype=np.uint8))
    sheets = mosaics(images)
    assert all(max(sheet.shape[:2]) <= 2048 for sheet in sheets)
    back = Form("mosaic", sheets, images).back(sheets)
    assert len(back) == n
    assert all((x == y).all() for x, y in zip(images, back, strict=True))


def test_many_images_take_several_sheets() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (700, 100, 60), dtype=np.uint8))
    sheets = mosaics(images)
    assert len(sheets) == 2
    back = Form("mosaic", sheets, images).back(sheets)
    assert all((x == y).all() for x, y in zip(images, back, strict=True))


def test_large_or_unlike_images_make_no_mosaic() -> None:
    assert mosaics([np.zeros((200, 20), np.uint8)] * 3) == []
    assert mosaics([np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)]) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 40), (64, 40, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_any_size_and_depth_have_a_png(shape: tuple[int, ...], dtype: type) -> None:
    image = picture(*shape).astype(dtype) * (dtype(257) if dtype is np.uint16 else dtype(1))
    names = [row.name for row in pack_lossless([image])]
    deep_colour = dtype is np.uint16 and len(shape) == 3
    assert "PNG, one file" in names or (deep_colour and "imagecodecs" in missing())


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("target", [26.0, 34.0])
def test_the_psnr_is_reached_and_less_quality_would_not_do(
    channels: tuple[int, ...], target: float
) -> None:
    rows = pack_lossy([picture(96, 80, *channels)], target)
    names = {row.name.partition(",")[0] for row in rows}
    assert {"JPEG"} <= names
    for row in rows:
        assert row.psnr is not None
        if "highest" not in row.name:
            assert row.psnr >= target
        if "its" not in row.name and "JPEG" in row.name:
            assert row.psnr < target + 3


def test_a_target_out_of_reach_is_said() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    high, low = named(pack_lossy([image], 95.0), "JPEG,"), named(pack_lossy([image], 2.0), "JPEG,")
    assert high.name == "JPEG, one file (its highest)"
    assert low.name == "JPEG, one file (its lowest)"
    assert high.psnr is not None
    assert low.psnr is not None
    assert high.psnr < 95
    assert low.psnr > 2
    assert low.nbytes < high.nbytes


def test_psnr_is_pooled_or_the_mean_of_the_images_own() -> None:
    clean = [np.zeros((4, 4), np.uint8), np.zeros((8, 4), np.uint8)]
    found = [np.full((4, 4), 51, np.uint8), np.full((8, 4), 0, np.uint8)]
    pooled, worst = fidelity(clean, found, pooled=True)
    assert worst == 51
    assert pooled == pytest.approx(10 * math.log10(25 * 3))
    assert fidelity(clean, found, pooled=False)[0] == pytest.approx((20 * math.log10(5) + 100) / 2)


def test_the_search_is_right_for_more_images_than_it_probes() -> None:
    images = [picture(8, 8)] * 250 + [np.full((8, 8), 9, np.uint8)] * 60
    row = named(pack_lossy(images, 35.0), "JPEG, a file each")
    assert row.psnr is not None
    assert 35 <= row.psnr < 38


BOUNDED = {"rounded, xz": None, "SZ3": "pysz", "ZFP": "imagecodecs", "SPERR": "imagecodecs"}


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("shape", [(7, 9), (30, 41), (6, 20, 30)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "u1"])
def test_every_bounded_coder_keeps_its_bound(name: str, shape: tuple[int, ...], dtype: str) -> None:
    needed = BOUNDED[name]
    if needed is not None:
        pytest.importorskip(needed)
    x = smooth(shape)
    x = (100 * x / np.abs(x).max() + 120).astype(dtype)
    for error in (0.01, 1.0, 2.5):
        row = named(pack_bounded(x, error), name)
        assert row.max_error is not None
        assert row.max_error <= error * (1 + 1e-6)


def test_integers_come_back_as_they_were_below_a_bound_of_one() -> None:
    x = smooth((40, 50)).astype(np.int32)
    assert all(row.max_error == 0 for row in pack_bounded(x, 0.5))


def test_a_looser_bound_is_smaller() -> None:
    x = smooth((50, 60)).astype(np.float32)
    tight, loose = (named(pack_bounded(x, e), "rounded").nbytes for e in (1e-3, 1e-1))
    assert loose < tight < x.nbytes


NONSENSE: list[Any] = [
    np.zeros(0),
    np.zeros((0, 8, 8), np.uint8),
    np.array(3.0),
    np.float64(3.0),
    np.array([np.nan, np.inf]),
    np.array(["a", "b"]),
    np.array([None, 3], object),
    np.zeros((2, 2), bool),
    np.zeros(3, np.complex64),
    np.zeros((2, 1, 2, 1, 2, 3), np.float16),
    np.array([2**63 - 1, -(2**63)]),
    np.array([1e308, -1e308]),
    np.array([5e-324]),
    [],
    [np.zeros((0, 3), np.uint8)],
    [np.zeros((1, 1, 3), np.uint8)],
]


@pytest.mark.parametrize("x", NONSENSE, ids=lambda x: str(getattr(x, "dtype", "list")))
def test_odd_data_have_fewer_rows_and_never_an_error(x: Any) -> None:
    rows = pack_lossless(x) + pack_lossy(x, 30.0)
    for error in (1e-3, 0.0, -1.0, math.nan, math.inf):
        rows += pack_bounded(x, error)
    assert all(row.nbytes > 0 for row in rows)


def test_what_counts_as_images() -> None:
    for shape in [(5, 6), (5, 6, 3), (2, 5, 6), (2, 5, 6, 3), (2, 3, 5, 6), (2, 5, 6, 1)]:
        assert images_of(np.zeros(shape, np.uint8))
    assert [x.shape for x in images_of(np.zeros((2, 1, 5, 6), np.uint8)) or []] == [(5, 6)] * 2
    for x in (np.zeros((5, 6)), np.zeros(5, np.uint8), np.zeros((2, 5, 6), np.int16)):
        assert images_of(x) is None
        assert forms_of(x) == []
        assert pack_lossy(x, 30.0) == []


def test_without_the_optional_packages_the_rest_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zstandard", "imagecodecs", "pysz"):
        monkeypatch.setitem(sys.modules, name, None)
    image = picture(16, 16)
    deep = np.dstack([image] * 3).astype(np.uint16) * 257
    lossless = {
        row.name.partition(",")[0] for row in pack_lossless([image]) + pack_lossless([deep])
    }
    assert {"zlib", "bz2", "xz", "PNG"} <= lossless <= {"zlib", "bz2", "xz", "PNG", "WebP"}
    assert {row.name.partition(",")[0] for row in pack_lossy([image], 30.0)} <= {
        "JPEG",
        "WebP",
        "AVIF",
    }
    assert [row.name for row in pack_bounded(image, 2.0)] == ["rounded, xz"]


def test_the_same_data_give_the_same_sizes() -> None:
    images = [picture(24, 24)] * 5
    for pack in (pack_lossless, lambda x: pack_lossy(x, 32.0)):
        first, second = ([(r.name, r.nbytes, r.psnr) for r in pack(images)] for _ in range(2))
        assert first == second
