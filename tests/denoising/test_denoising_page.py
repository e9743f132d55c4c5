"""The page of denoised images: one file, every method, correct figures."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.html_pages import Page, check_alone, check_readable
from narrows import FileError, InputError
from narrows.denoising.denoising_page import (
    DETAIL_SIDE,
    MAX_PICTURE_SIDE,
    DenoisedImage,
    find_details,
    shades,
    write_comparison,
)
from narrows.denoising.image_quality import psnr, ssim

RNG = np.random.default_rng(0)


def entry(
    name: str = "a.png",
    shape: tuple[int, ...] = (150, 200),
    dtype: Any = np.uint8,
    known: bool = True,
    ours: float = 5.0,
) -> DenoisedImage:
    """A slope with noise, and methods that leave more or less of it."""
    slope = 60 + 120 * np.linspace(0, 1, shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    noise = RNG.normal(size=shape)

    def image(sigma: float) -> Any:
        values = (slope + sigma * noise).clip(0, 255) / 255
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        return (values * top).astype(dtype)

    others = {"filter": (image(9.0), 0.25), "weak filter": (image(15.0), 0.5)}
    return DenoisedImage(
        name, image(20.0), image(ours), 19.5, 12.3, image(0.0) if known else None, others
    )


def written(tmp_path: Path, *entries: DenoisedImage, **given: Any) -> Page:
    return Page(write_comparison(entries, tmp_path / "page.html", **given))


def decoded(image: dict[str, str]) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))


@pytest.mark.parametrize("known", [True, False], ids=["clean known", "clean unknown"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 1, 3), (3, 2000), (2000, 3, 3), (150, 200, 3), (128, 129)], ids=str
)
def test_any_image_gives_a_page_that_stands_alone(
    shape: tuple[int, ...], dtype: Any, known: bool, tmp_path: Path
) -> None:
    page = written(tmp_path, entry("a", shape, dtype, known), entry("b", shape, dtype, known))
    assert page.sections == ["overview", "image-1", "image-2"][0 if known else 1 :]
    check_alone(page, tmp_path, scripts=1)
    check_readable(page)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert ("no PSNR" in " ".join(page.words)) == (not known)


def test_the_table_is_sorted_by_psnr_and_says_what_the_images_say(tmp_path: Path) -> None:
    given = entry(ours=12.0)
    page = written(tmp_path, given)
    assert given.clean is not None
    rows = page.tables[0][1:]
    assert [row[0] for row in rows] == ["filter", "narrows", "weak filter", "noisy"]
    for row in rows:
        image = given.images[row[0]]
        assert float(row[1]) == pytest.approx(psnr(given.clean, image), abs=0.006)
        assert float(row[2]) == pytest.approx(ssim(given.clean, image), abs=1e-4)
    assert [row[3] for row in rows] == ["250.0 ms", "12.3 s", "500.0 ms", "–"]
    assert "Filter is better" in " ".join(page.words)


def test_the_headline_says_by_how_much_narrows_wins(tmp_path: Path) -> None:
    given = entry()
    assert given.clean is not None
    apart = psnr(given.clean, given.denoised) - psnr(given.clean, given.baselines["filter"][0])
    said = " ".join(written(tmp_path, given).words).replace("\N{NO-BREAK SPACE}", " ")
    assert f"{apart:.2f} dB above the best filter (filter)" in said


def test_means_are_over_the_images_whose_clean_one_is_known(tmp_path: Path) -> None:
    entries = [entry("a"), entry("b", ours=8.0), entry("c", known=False)]
    page = written(tmp_path, *entries)
    mean = np.mean([psnr(e.clean, e.denoised) for e in entries[:2] if e.clean is not None])
    means = {row[0]: row[1:] for row in page.tables[0]}
    assert float(means["narrows"][0]) == pytest.approx(mean, abs=0.006)
    assert page.tables[3] == [["", "Time"], ["narrows", "12.3 s"], ["filter", "250.0 ms"],
                              ["weak filter", "500.0 ms"]]  # fmt: skip
    assert "2 of 3" in page.text


def test_without_a_script_noisy_and_denoised_stand_side_by_side(tmp_path: Path) -> None:
    page = written(tmp_path, entry())
    plain = page.text.split("<script>")[0]
    pair = plain[plain.index('<div class="sides') :].split("<details>")[0]
    assert re.findall("<figcaption>(.*?)</figcaption>", pair) == ["noisy", "narrows"]
    assert '<div class="controls" hidden>' in plain
    assert plain.count("<option") == 2 * len(entry().images)
    assert 'type="range"' in pair
    assert "aria-label=" in pair


def test_a_detail_is_the_image_pixel_for_pixel(tmp_path: Path) -> None:
    given = entry(shape=(300, 400, 3), dtype=np.uint16)
    assert given.clean is not None
    page = written(tmp_path, given)
    details = [image for image in page.images if "image/png" in image["src"][:15]]
    places = find_details(given.clean)
    assert len(details) == len(places) * len(given.images)
    cuts = [
        shades(image)[top : top + DETAIL_SIDE, left : left + DETAIL_SIDE]
        for top, left in places
        for image in given.images.values()
    ]
    for image, cut in zip(details, cuts, strict=True):
        assert (decoded(image) == cut).all()
        assert int(image["width"]) == 2 * DETAIL_SIDE


def test_details_are_where_the_detail_is_and_do_not_overlap() -> None:
    image = np.full((400, 600), 0.5, np.float32)
    image[200:260, 450:520] += 0.2 * RNG.random((60, 70), np.float32)
    places = find_details(image)
    top, left = places[0]
    assert top <= 200 <= 260 <= top + DETAIL_SIDE
    assert left <= 450 <= 520 <= left + DETAIL_SIDE
    assert len(places) == 3
    for i, (y, x) in enumerate(places):
        assert all(abs(y - v) >= DETAIL_SIDE or abs(x - u) >= DETAIL_SIDE for v, u in places[:i])


def test_large_images_are_shown_smaller_and_the_page_says_so(tmp_path: Path) -> None:
    page = written(tmp_path, entry(shape=(100, 2400), known=False))
    whole = [image for image in page.images if "image/jpeg" in image["src"][:16]]
    assert {decoded(image).shape for image in whole} == {(50, MAX_PICTURE_SIDE)}
    assert f"Shown at {MAX_PICTURE_SIDE:,} pixels" in page.text
    assert "Shown at" not in written(tmp_path, entry(), overwrite=True).text


def test_white_is_255_in_every_depth() -> None:
    steps = np.arange(256).reshape(16, 16)
    for image in (steps.astype(np.uint8), (steps * 257).astype(np.uint16), steps / np.float32(255)):
        assert (shades(image) == steps).all()
    assert (shades(np.array([[-1.0, 2.0]])) == [[0, 255]]).all()


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert('\"&')</script>\udcff.png"
    page = written(tmp_path, entry(name, known=False), title="<b>")
    check_alone(page, tmp_path, scripts=1)
    assert "b" not in page.tags
    assert page.words.count("<script>alert('\"&')</script>?.png") == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"denoised": np.zeros((4, 5), np.uint8)}, r"narrows image of 'a' has shape \(4, 5\)"),
        ({"clean": np.zeros((4, 4), np.uint16)}, "clean image of 'a' .* uint16"),
        ({"baselines": {"x": (np.zeros((9, 9), np.uint8), 1.0)}}, r"x image of 'a' has shape"),
        ({"baselines": {"noisy": (np.zeros((4, 4), np.uint8), 1.0)}}, "called 'noisy'"),
        ({"noisy": np.zeros((4, 4, 4), np.uint8)}, r"shape \(4, 4, 4\); give one image, \(height"),
        ({"noisy": np.zeros((4, 4), np.int64)}, "int64 has no known value of white"),
        ({"noisy": np.full((4, 4), np.nan)}, "NaN"),
    ],
)
def test_images_that_do_not_belong_together_are_refused(given: dict[str, Any], words: str) -> None:
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match=words):
        DenoisedImage(**({"name": "a", "noisy": image, "denoised": image, "noise": 1.0,
                          "seconds": 1.0} | given))  # fmt: skip


def test_an_existing_page_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        write_comparison([entry()], path)
    with pytest.raises(InputError, match="no image to compare"):
        write_comparison([], path, overwrite=True)
    assert path.read_text() == "mine"
    write_comparison([entry()], path, overwrite=True)
    assert Page(path).sections == ["image-1"]
    with pytest.raises(FileError, match=r"ends in \.html"):
        write_comparison([entry()], tmp_path / "page.txt")
