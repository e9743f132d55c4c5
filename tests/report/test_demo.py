"""The demo leaves what it promises: a table, pages, pictures, models; and the models beat PCA."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import narrows
from helpers.html_pages import ALWAYS, Page, check_alone, check_readable
from narrows import FileError
from narrows.report import demo, figures
from narrows.report.demo import run_demo


class Run(NamedTuple):
    folder: Path
    index: Path
    said: list[str]

    @property
    def table(self) -> dict[str, list[str]]:
        """The printed comparison, by model."""
        block = next(text for text in self.said if "× PCA's" in text)
        cells = [line.rsplit(maxsplit=4) for line in block.splitlines()[1:5]]
        return {row[0].strip(): row[1:] for row in cells}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A demo in small: fewer epochs, fewer pixels, all else as a user gets it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 40)
        patch.setattr(demo, "FOLDS", 2)
        index = run_demo(folder, echo=said.append, max_epochs=15)
    return Run(folder, index, said)


def test_both_autoencoders_are_far_below_pca(run: Run) -> None:
    assert list(run.table) == [demo.label(stem) for stem in demo.MODELS]
    for name in ("Autoencoder, dense", "Autoencoder, conv"):
        assert float(run.table[name][1]) <= 0.8


def test_the_printed_ratio_is_the_saved_models(run: Run) -> None:
    data = demo.load_split()
    for stem in demo.MODELS:
        est: Any = narrows.load(run.folder / f"{stem}.safetensors")
        error = -est.score_samples(data.X_test).mean()
        ratio = error / -est.pca_.score_samples(data.X_test).mean()
        shown = run.table[demo.label(stem)]
        assert float(shown[0]) == pytest.approx(error, abs=1e-4)
        assert float(shown[1]) == pytest.approx(ratio, abs=1e-3)


def test_no_held_out_image_is_trained_on() -> None:
    data = demo.load_split()
    assert len(data.X) + len(data.X_test) == 1797
    trained = {image.tobytes() for image in data.X}
    assert not any(image.tobytes() in trained for image in data.X_test)
    assert np.bincount(data.y_test).min() > 30


def test_the_pipeline_stands_beside_raw_and_pca(run: Run) -> None:
    block = next(text for text in run.said if "pipeline" in text)
    rows = [line.rsplit(maxsplit=3) for line in block.splitlines()[1:]]
    assert [row[0].strip() for row in rows] == [
        "LogisticRegression on 64 raw pixels",
        "PCA(8), LogisticRegression",
        "Autoencoder(latent_dim=8), LogisticRegression",
    ]
    assert all(0.7 < float(row[1]) < 1 for row in rows)


def test_the_page_has_every_section_and_stands_alone(run: Run) -> None:
    page = Page(run.index)
    assert run.index == run.folder / "index.html"
    assert set(page.sections) == {*ALWAYS, "models", "classes", "denoising", "generated"}
    assert len(page.sections) == len(set(page.sections))
    check_alone(page, run.folder)
    check_readable(page)
    assert len(list((run.folder / "index_files").glob("*.png"))) == len(page.images)
    for row in run.table.values():
        assert row[1] in "".join(page.words)


@pytest.mark.parametrize("stem", demo.MODELS)
def test_every_model_has_its_own_page(run: Run, stem: str) -> None:
    page = Page(run.folder / f"{stem}.html")
    assert f"{stem}.html" in Page(run.index).addresses
    assert set(page.sections) >= set(ALWAYS)
    assert ("denoising" in page.sections) == (stem == "denoising")
    assert ("generated" in page.sections) == (stem == "variational")
    check_alone(page, run.folder)


def test_a_second_demo_does_not_overwrite_the_first(run: Run) -> None:
    before = run.index.stat().st_mtime_ns
    with pytest.raises(FileError, match="exists already"):
        run_demo(run.folder, echo=lambda _: None)
    assert run.index.stat().st_mtime_ns == before


def test_a_demo_needs_a_place(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be made"):
        run_demo(tmp_path / "no" / "where", echo=lambda _: None)


@pytest.mark.slow
def test_the_whole_demo_takes_less_than_three_minutes(tmp_path: Path) -> None:
    started = time.monotonic()
    said: list[str] = []
    first = run_demo(tmp_path / "out", echo=said.append)
    assert time.monotonic() - started < 180
    full = Run(tmp_path / "out", first, said)
    assert float(full.table["Autoencoder, dense"][1]) <= 0.6
    assert float(full.table["Autoencoder, conv"][1]) <= 0.6
    run_demo(tmp_path / "out", echo=said.append, overwrite=True, max_epochs=1)
    assert Page(first).sections
