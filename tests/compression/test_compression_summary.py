"""The summary of a compression: sizes, quality and the comparison with other coders are true."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from helpers.containers import Pipe, example, write
from helpers.mutated_files import mutations
from narrows import Codec
from narrows.compression.compression_summary import (
    Comparison,
    Competitor,
    CompressionReport,
    compare_coders,
    compress_file,
    pca_bits,
    report_lines,
    sample_images,
    sample_rows,
)
from narrows.compression.decompress_files import UniqueNames
from narrows.compression.format.header import Header, Item
from narrows.compression.format.pack import Given, Summary
from narrows.compression.inspection import describe_file, description_lines
from narrows.compression.other_coders import lossless_results
from narrows.exceptions import FileError


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    images: np.ndarray = load_digits().images
    return (images[:900] * 15).astype(np.uint8)


@pytest.fixture(scope="module")
def codec(X: np.ndarray) -> Codec:
    return Codec(hidden_layer_sizes=(16,), prior="factorised", max_epochs=2, random_state=0).fit(X)


@pytest.fixture(scope="module")
def table() -> tuple[Codec, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(800, 3)) @ rng.normal(size=(3, 6))) * 10.0 ** np.arange(6)
    codec = Codec(hidden_layer_sizes=(16,), prior="factorised", max_epochs=1, random_state=0)
    return codec.fit(rows), rows


# ------------------------------------------------------------------ its own numbers

WISHES: list[dict[str, Any]] = [
    {"quality": 1},
    {"embed_model": True},
    {"max_error": 3},
    {"mode": "lossless"},
    {"mode": "lossless", "autoencoder": False},
]


@pytest.mark.parametrize("how", WISHES, ids=str)
def test_the_numbers_add_up(
    how: dict[str, Any], codec: Codec, X: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "x.narrow"
    report = compress_file(codec, X, out, how=how, compare="none")
    summary, data = report.summary, out.read_bytes()
    assert summary.coded == len(data)
    assert summary.original == X.nbytes
    assert summary.elements == X.size
    assert sum(summary.methods.values()) == summary.chunks
    around = summary.coded - summary.payload - summary.embedded
    assert 200 < around < 500
    assert 0 <= summary.codes <= summary.payload
    # 13 bytes are the head of the model's frame
    assert summary.embedded == (report.model + 13 if how.get("embed_model") else 0)
    assert report.without_model + summary.embedded == len(data)
    back = codec.decompress(data)
    error = np.abs(back.astype(float) - X)
    assert summary.largest_error == error.max()
    np.testing.assert_allclose(summary.mse, np.square(error).mean(), rtol=1e-12)
    if report.needs_model:
        assert f"codes of the autoencoder {summary.codes:,}, " in "\n".join(report_lines(report))
    found = describe_file(io.BytesIO(data))
    assert found["bytes"]["payload"] == summary.payload
    assert found["bytes"]["model"] == summary.embedded


def test_the_lines_show_the_sizes() -> None:
    summary = Summary(coded=250, payload=200, original=1000, elements=1000, chunks=1)
    summary.methods["deflate"] += 1
    summary.mode, summary.dtypes = "lossless", Counter(["uint8"])
    report = CompressionReport("a", summary, 2.0, 50, 7, (10, 100))
    said = "\n".join(report_lines(report))
    for words in ("250 bytes, 4 × smaller", "payload 200, header and frames 50", "2 bits a number"):
        assert words in said
    assert "0.0005 MB/s" in said


# ------------------------------------------------------------------ the comparison


@pytest.fixture(scope="module")
def lossy_comparison(codec: Codec, X: np.ndarray) -> tuple[Summary, Comparison]:
    summary = codec.compress_to(io.BytesIO(), X)
    return summary, compare_coders(codec, X, summary, {})


def test_ordinary_coders_reach_the_quality(lossy_comparison: tuple[Summary, Comparison]) -> None:
    summary, found = lossy_comparison
    wanted = 10 * np.log10(255**2 / summary.mse)
    assert found.quality == f"{wanted:.2f} dB"
    measured = {o.name: float(o.quality[:-3]) for o in found.others if o.quality.endswith(" dB")}
    assert {"WebP, mosaic", "JPEG, mosaic"} <= set(measured)
    for other in found.others:
        if other.name in measured:
            assert other.equal == (measured[other.name] >= round(wanted, 2) - 0.005)
    assert [o.nbytes for o in found.others] == sorted(o.nbytes for o in found.others)


def test_only_coders_that_keep_the_bound_count(codec: Codec, X: np.ndarray) -> None:
    floats = np.cumsum(X[:200].astype(np.float32), axis=1)
    summary = codec.compress_to(io.BytesIO(), floats, max_error=0.5)
    found = compare_coders(codec, floats, summary, {"max_error": 0.5})
    names = {other.name for other in found.others if other.equal}
    assert "rounded, xz" in names
    assert {name.split(",")[0] for name in names} >= {"xz", "zlib"}


def test_an_error_of_zero_is_compared_with_lossless_coders(codec: Codec, X: np.ndarray) -> None:
    summary = codec.compress_to(io.BytesIO(), X[:200], max_error=0)
    found = compare_coders(codec, X[:200], summary, {"max_error": 0})
    assert {other.quality for other in found.others} == {"bit for bit"}


def test_tables_are_compared_in_scaled_units(table: tuple[Codec, np.ndarray]) -> None:
    codec, rows = table
    summary = codec.compress_to(io.BytesIO(), rows)
    found = compare_coders(codec, rows, summary, {})
    rounded = next(other for other in found.others if other.name == "rounded, xz")
    # were a column of 10⁵ to set the step, all others would be zeros
    assert rounded.nbytes > 0.3 * summary.coded


def test_pca_is_scaled_from_the_validation_rows(
    codec: Codec, lossy_comparison: tuple[Summary, Comparison]
) -> None:
    summary, found = lossy_comparison
    (pca,) = (other for other in found.others if not other.ordinary)
    assert summary.level is not None
    level = codec.levels_[summary.level]
    bits = pca_bits(codec.levels_, level["mse"])
    assert bits is not None
    ratio = pca.nbytes / (summary.coded - summary.embedded)
    assert ratio == pytest.approx(bits / level["bits_per_number"], rel=0.02)
    old = [{k: v for k, v in level.items() if "pca" not in k} for level in codec.levels_]
    assert pca_bits(old, level["mse"]) is None


def test_pca_bits_between_its_levels() -> None:
    levels = [{"pca_mse": 4.0**-k, "pca_bits_per_number": 1.5**k} for k in range(4)]
    for level in levels:
        assert pca_bits(levels, level["pca_mse"]) == pytest.approx(level["pca_bits_per_number"])
    assert pca_bits(levels, 0.125) == pytest.approx(1.5**1.5)
    assert pca_bits(levels, 4.0) == pytest.approx(1 / 1.5)
    assert pca_bits(levels, 1e9) is None
    assert pca_bits(levels[:1], 0.5) is None


@pytest.mark.parametrize("nothing", [np.zeros((0, 8, 8), np.uint8), np.zeros((3, 0), "f4")])
def test_empty_data_have_no_comparison(nothing: np.ndarray, codec: Codec) -> None:
    report = compress_file(codec, nothing, io.BytesIO(), how={"mode": "lossless"})
    assert report.comparison == Comparison()
    assert "bytes" in report_lines(report)[1]


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize("shape", [(100_000,), (5000, 70), (40, 90, 80), (3, 300, 400), (1, 9**5)])
def test_a_sample_is_a_part_of_the_rows(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    some, words = sample_rows(x, 1 << 16)
    assert some.nbytes <= 1 << 16
    assert some.nbytes > 1 << 14
    assert words.endswith("rows")
    assert some.ndim == x.ndim
    assert len(np.unique(some)) == some.size
    assert (np.diff(some, axis=-1) == 1).mean() > 0.9
    assert sample_rows(x, x.nbytes)[1] == ""


def test_a_sample_of_images() -> None:
    items = [Given(np.full((10, 10 + k), k, np.uint8)) for k in range(20)]
    some, words = sample_images(items, 800)
    assert sum(image.nbytes for image in some) <= 800
    assert words == f"{len(some)} of 20 images"
    assert len({int(image[0, 0]) for image in some}) == len(some) > 3
    (part,), words = sample_images([Given(np.zeros((500, 300, 3), np.uint8))], 9000)
    assert 8000 < part.nbytes <= 9000
    assert words == "a part of one of 1 image"


def test_sizes_scaled_from_a_sample_are_near_those_of_all_data(
    codec: Codec, X: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"mode": "lossless", "autoencoder": False}
    summary = codec.compress_to(io.BytesIO(), X, **how)
    every = {other.name: other.nbytes for other in compare_coders(codec, X, summary, how).others}
    monkeypatch.setattr("narrows.compression.compression_summary.MAX_BYTES", X.nbytes // 3)
    some = compare_coders(codec, X, summary, how)
    assert some.sample == "296 of 900 rows"
    for other in some.others:
        if other.name in ("zlib", "bz2", "PNG, mosaic"):
            assert other.nbytes == pytest.approx(every[other.name], rel=0.15)
    assert every["zlib"] == next(r.nbytes for r in lossless_results(X) if r.name == "zlib")


# ------------------------------------------------------------------ the last line


def report_of(
    alone: int, model: int, others: list[Competitor], method: str = "autoencoder"
) -> CompressionReport:
    summary = Summary(coded=alone, payload=alone - 10, original=10_000, elements=10_000)
    summary.methods[method] += 1
    return CompressionReport("a", summary, 1.0, model, 7, (100, 100), comparison=Comparison(others))


def test_the_last_line_names_the_smaller_coder() -> None:
    smaller = report_of(1000, 50, [Competitor("xz", 900), Competitor("PNG", 2000)])
    assert report_lines(smaller)[-1] == "xz is smaller: 10 % less than this file."
    assert "it pays   never, against xz" in "\n".join(report_lines(smaller))
    pca = report_of(1000, 50, [Competitor("PCA", 900, ordinary=False), Competitor("xz", 2000)])
    assert report_lines(pca)[-1].startswith("PCA is smaller")
    larger = report_of(1000, 50, [Competitor("xz", 2000)])
    assert report_lines(larger)[-1] == "This file is 50 % smaller than xz, the best of the others."
    counted = report_of(1000, 5000, [Competitor("xz", 2000)])
    assert report_lines(counted)[-1].endswith("with the model counted, xz is smaller.")
    worse = report_of(1000, 50, [Competitor("xz", 900, equal=False)])
    assert report_lines(worse)[-1] == "None of the others reaches this quality."
    plain = report_of(1000, 5000, [Competitor("xz", 2000)], "deflate")
    assert report_lines(plain)[-1].endswith("the best of the others.")


@pytest.mark.parametrize(("model", "other"), [(5000, 1700), (1, 1001), (999, 2000), (10_000, 1003)])
def test_after_how_many_files_a_model_pays_for_itself(model: int, other: int) -> None:
    count = report_of(1000, model, []).files_to_pay(Competitor("xz", other))
    assert count is not None
    assert model + 1000 * count <= other * count
    assert count == 1 or model + 1000 * (count - 1) > other * (count - 1)
    assert report_of(1000, model, []).files_to_pay(Competitor("xz", 1000)) is None


# ------------------------------------------------------------------ descriptions of files


@pytest.mark.parametrize("kind", ["images", "array"])
def test_heads_give_the_same_description_as_the_whole_file(kind: str) -> None:
    header, content = example(kind, n_items=4 if kind == "images" else 1)
    data = write(header, content)
    near, far = describe_file(io.BytesIO(data)), describe_file(Pipe(data))
    assert (near.pop("checked"), far.pop("checked")) == (
        "heads only",
        "all but what chunks decode to",
    )
    assert near == far
    assert near["bytes"]["file"] == len(data)
    assert near["bytes"]["decoded"] == sum(item.nbytes for item, _ in content)
    listed = description_lines({**near, "checked": "heads only"}, 2)
    assert any("and 2 more" in line for line in listed) == (kind == "images")


def streams(data: bytes) -> Iterator[Any]:
    yield io.BytesIO(data)
    yield Pipe(data)


def test_descriptions_of_damaged_files_raise_file_errors_only() -> None:
    header, content = example()
    data, refused = write(header, content), 0
    for bad in mutations(data, random.Random(0), 400):
        for stream in streams(bad):
            try:
                found = describe_file(stream)
                description_lines(found, 20)
            except FileError:
                refused += 1
    assert refused > 400


def test_strange_names_are_shown_harmlessly() -> None:
    item = Item(shape=(2,), dtype="|u1", row_axes=1, name="a\x9b31mb.png")
    data = write(Header(kind="images", mode="lossless"), [(item, b"ab")])
    assert not any(
        "\x9b" in line for line in description_lines(describe_file(io.BytesIO(data)), 20)
    )


def test_names_in_a_folder_are_unique() -> None:
    names = UniqueNames()
    given = ["a.jpg", "a.png", "A.gif", "a.png", "d.png/b.jpg", "d.jpg", "x.png", "x.png/y.gif"]
    found = [names.add(name, ".png") for name in given]
    assert len({name.casefold() for name in found}) == len(given)
    assert found[0] == "a.png"
    files = {Path(name.casefold()) for name in found}
    assert not any(folder in files for name in files for folder in name.parents)
