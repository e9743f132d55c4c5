"""Other coders on the same data: their sizes are real, and the qualities hold."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from narrows.compression.other_coders import (
    CoderResult,
    ImageFiles,
    available,
    bounded_results,
    image_files,
    images_of,
    lossless_results,
    lossy_results,
    mosaics,
)

Array = NDArray[Any]


def named(results: list[CoderResult], start: str) -> CoderResult:
    exact = [result for result in results if result.name == start]
    return next(iter(exact + [result for result in results if result.name.startswith(start)]))


def smooth(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Sums of random steps, whose neighbours are alike."""
    x = np.random.default_rng(seed).normal(size=shape)
    for axis in range(len(shape)):
        x = np.cumsum(x, axis)
    return x


def picture(height: int, width: int, *channels: int) -> Array:
    x = smooth((height, width, *channels))
    return (255 * (x - x.min()) / max(x.max() - x.min(), 1)).astype(np.uint8)


def test_a_constant_image_is_small() -> None:
    results = lossless_results([np.full((64, 64), 7, np.uint8)])
    assert all(result.nbytes < 200 for result in results)
    assert all(result.max_error == 0 and result.psnr is None for result in results)
    assert results == sorted(results, key=lambda result: result.nbytes)


@pytest.mark.parametrize("name", ["zlib", "bz2", "xz"])
def test_random_bytes_grow_a_little(name: str) -> None:
    x = np.frombuffer(np.random.default_rng(0).bytes(50_000), np.uint8)
    assert 50_000 < named(lossless_results(x), name).nbytes < 51_000


def test_zstandard_is_compared_if_it_is_installed() -> None:
    names = {result.name for result in lossless_results(np.arange(100))}
    assert ("Zstandard" in names) == (find_spec("zstandard") is not None)


def test_coders_of_bytes_decode_what_they_encode() -> None:
    content = smooth((500,)).tobytes()
    for coder in available("bytes"):
        assert coder.decode(coder.encode(content, 0.0), content) == content


def test_numbers_of_several_bytes_are_coded_in_the_better_order() -> None:
    """Sorting the bytes by their place in the number makes smooth numbers smaller."""
    x = (100 * smooth((10_000,))).astype(np.int32)
    by_place = np.ascontiguousarray(x.view(np.uint8).reshape(-1, 4).T)
    results = lossless_results(x)
    for name in ("xz", "zlib"):
        sizes = (named(lossless_results(y), name).nbytes for y in (x.view(np.uint8), by_place))
        plain, sorted_bytes = sizes
        assert named(results, name).nbytes == sorted_bytes < plain


def test_byte_order_and_layout_do_not_matter() -> None:
    x = smooth((40, 30)).astype("<f4")
    for other in (x.astype(">f4"), np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
        sizes = [[(r.name, r.nbytes) for r in lossless_results(y)] for y in (x, other)]
        assert sizes[0] == sizes[1]


def test_a_sample_of_many_images_is_scaled_up_and_named() -> None:
    images = [picture(16, 16)] * 30
    every = named(lossless_results(images), "PNG, a file each").nbytes
    some = lossless_results(images, max_images=7)
    assert named(some, "PNG, a file each (from a sample)").nbytes == every


def test_a_mosaic_saves_the_headers() -> None:
    results = lossless_results(np.stack([picture(12, 12)] * 50))
    assert named(results, "PNG, mosaic").nbytes < named(results, "PNG, a file each").nbytes


@pytest.mark.parametrize("shape", [(28, 28), (20, 9, 3), (1, 128)])
@pytest.mark.parametrize("n", [2, 5, 37, 400])
def test_a_mosaic_holds_its_images(n: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (n, *shape), dtype=np.uint8))
    form = image_files(images)[1]
    assert form.name == "mosaic"
    assert all(max(sheet.shape[:2]) <= 2048 for sheet in form.files)
    assert form.fidelity(form.files) == (100, 0)


def test_many_images_take_several_sheets() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (700, 100, 60), dtype=np.uint8))
    sheets = mosaics(images)
    assert len(sheets) == 2
    assert ImageFiles("mosaic", sheets, images).fidelity(sheets) == (100, 0)


def test_large_or_different_images_make_no_mosaic() -> None:
    for images in (
        [np.zeros((200, 20), np.uint8)] * 3,
        [np.zeros((8, 8), np.uint8), np.zeros((8, 9), np.uint8)],
    ):
        assert [form.name for form in image_files(images)] == ["a file each"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 40), (64, 40, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_any_size_and_depth_have_a_png(shape: tuple[int, ...], dtype: type) -> None:
    image = picture(*shape).astype(dtype) * (dtype(257) if dtype is np.uint16 else dtype(1))
    names = [result.name for result in lossless_results([image])]
    # Pillow does not write 16 bits of colour
    deep_colour = dtype is np.uint16 and len(shape) == 3
    assert ("PNG, one file" in names) != deep_colour


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("target", [26.0, 34.0])
def test_the_psnr_is_reached_and_not_by_far(channels: tuple[int, ...], target: float) -> None:
    results = lossy_results([picture(96, 80, *channels)], target)
    names = {result.name.partition(",")[0] for result in results}
    assert {"JPEG"} <= names
    for result in results:
        assert result.psnr is not None
        if "highest" not in result.name:
            assert result.psnr >= target
        if "its" not in result.name and "JPEG" in result.name:
            assert result.psnr < target + 3


def test_a_target_out_of_reach_is_named() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    high, low = (named(lossy_results([image], target), "JPEG,") for target in (95.0, 2.0))
    assert high.name == "JPEG, one file (its highest)"
    assert low.name == "JPEG, one file (its lowest)"
    assert high.psnr is not None
    assert low.psnr is not None
    assert high.psnr < 95
    assert low.psnr > 2
    assert low.nbytes < high.nbytes


def test_psnr_is_of_the_mean_squared_error_of_all_images() -> None:
    clean = [np.zeros((4, 4), np.uint8), np.zeros((8, 4), np.uint8)]
    decoded = [np.full((4, 4), 51, np.uint8), np.full((8, 4), 0, np.uint8)]
    psnr, worst = ImageFiles("a file each", clean, clean).fidelity(decoded)
    assert worst == 51
    assert psnr == pytest.approx(10 * math.log10(25 * 3))


def test_colour_is_tried_at_half_and_at_full_resolution() -> None:
    """Fine colours need full resolution to reach a high PSNR; smooth ones are smaller with half."""
    fine = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert (named(lossy_results([fine], 30.0), "JPEG,").psnr or 0) >= 30
    half, full = (coder for coder in available("lossy") if coder.name == "JPEG")
    coloured = np.stack([picture(96, 80), picture(96, 80)[::-1], picture(96, 80)[:, ::-1]], 2)
    assert len(half.encode(coloured, 50)) < len(full.encode(coloured, 50))


def test_images_of_16_bits_have_no_8_bit_coder() -> None:
    names = {r.name for r in lossy_results([picture(20, 20).astype(np.uint16) * 257], 30.0)}
    assert {name.partition(",")[0] for name in names} <= {"JPEG XL"}


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
        assert named(bounded_results(x, error), name).max_error <= error * (1 + 1e-6)


def test_integers_are_exact_below_a_bound_of_one() -> None:
    x = smooth((40, 50)).astype(np.int32)
    assert all(result.max_error == 0 for result in bounded_results(x, 0.5))


def test_a_looser_bound_is_smaller() -> None:
    x = smooth((50, 60)).astype(np.float32)
    tight, loose = (named(bounded_results(x, e), "rounded").nbytes for e in (1e-3, 1e-1))
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
def test_odd_data_have_fewer_results_and_never_an_error(x: Any) -> None:
    results = lossless_results(x) + lossy_results(x, 30.0)
    for error in (1e-3, 0.0, -1.0, math.nan, math.inf):
        results += bounded_results(x, error)
    assert all(result.nbytes > 0 for result in results)


def test_what_counts_as_images() -> None:
    for shape in [(5, 6), (5, 6, 3), (2, 5, 6), (2, 5, 6, 3), (2, 3, 5, 6), (2, 5, 6, 1)]:
        assert images_of(np.zeros(shape, np.uint8))
    assert [x.shape for x in images_of(np.zeros((2, 1, 5, 6), np.uint8)) or []] == [(5, 6)] * 2
    for x in (np.zeros((5, 6)), np.zeros(5, np.uint8), np.zeros((2, 5, 6), np.int16)):
        assert images_of(x) is None
        assert image_files(x) == []
        assert lossy_results(x, 30.0) == []


def test_the_rest_works_without_the_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zstandard", "imagecodecs", "pysz"):
        monkeypatch.setitem(sys.modules, name, None)
    image = picture(16, 16)
    deep = np.dstack([image] * 3).astype(np.uint16) * 257
    results = lossless_results([image]) + lossless_results([deep])
    lossless = {result.name.partition(",")[0] for result in results}
    assert {"zlib", "bz2", "xz", "PNG"} <= lossless <= {"zlib", "bz2", "xz", "PNG", "WebP"}
    lossy = {result.name.partition(",")[0] for result in lossy_results([image], 30.0)}
    assert lossy <= {"JPEG", "WebP", "AVIF"}
    assert [result.name for result in bounded_results(image, 2.0)] == ["rounded, xz"]


def test_the_same_data_give_the_same_sizes() -> None:
    images = [picture(24, 24)] * 5
    for results in (lossless_results, lambda x: lossy_results(x, 32.0)):
        first, second = ([(r.name, r.nbytes, r.psnr) for r in results(images)] for _ in range(2))
        assert first == second


def test_no_coder_crashes_on_a_single_slice() -> None:
    x = np.cumsum(np.random.default_rng(0).normal(size=(1, 30, 40)), axis=-1)
    assert all(result.max_error <= 0.5 for result in bounded_results(x, 0.5))
