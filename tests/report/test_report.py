"""The page: every section is there, nothing from outside, and its figures are true."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine

import narrows
from helpers.html_pages import ALWAYS, Page, check_alone, check_readable
from narrows import Autoencoder, DenoisingAutoencoder, FileError, InputError, VariationalAutoencoder
from narrows.report import content, figures
from narrows.report.formatting import short_number
from narrows.report.measures import error_bins, parse_labels, ranking
from narrows.report.model_report import headline, prepare, write_report
from narrows.report.page import pictures_folder
from narrows.report.sample_figures import (
    STYLES,
    ImagePlotter,
    TablePlotter,
    _table_plotter,
    choose_plotter,
)

DIGITS = load_digits()
WINE = load_wine()
RNG = np.random.default_rng(0)
NOISE = RNG.random((40, 1, 1, 3)) * RNG.random((40, 6, 9, 1))

SMALL: dict[str, Any] = {"max_epochs": 1, "random_state": 0}


def fit(model: Any, X: Any, **given: Any) -> Any:
    return model(**(SMALL | {"latent_dim": 2} | given)).fit(X)


SLOW = {"wide table", "table to one number", "table with words", "one column", "folded table"}
# what is reported on: (model, its parameters, X, y, feature names)
CASES: dict[str, tuple[Any, dict[str, Any], Any, Any, Any]] = {
    "table with words": (
        VariationalAutoencoder, {}, WINE.data,
        np.array(["<script>", "a$b$", "中文"])[WINE.target], WINE.feature_names,
    ),
    "table to one number": (Autoencoder, {"latent_dim": 1}, WINE.data, WINE.target, None),
    "wide table": (DenoisingAutoencoder, {"latent_dim": 40}, DIGITS.data[:60], None, None),
    "folded table": (Autoencoder, {"input_shape": (8, 8)}, DIGITS.data[:60], None, None),
    "one column": (Autoencoder, {"latent_dim": 1}, WINE.data[:, :1], None, ["alcohol"]),
    "signals": (
        DenoisingAutoencoder, {"axes": "CL", "latent_dim": 3},
        np.cumsum(RNG.normal(size=(40, 6, 17)), axis=2), RNG.normal(size=40), None,
    ),
    "one channel": (VariationalAutoencoder, {"axes": "CL"}, RNG.random((30, 1, 12)), None, None),
    "images": (
        VariationalAutoencoder, {"latent_dim": 5}, DIGITS.images[:150], DIGITS.target[:150], None,
    ),
    "colour, channels last": (
        Autoencoder, {"axes": "HWC"}, (255 * NOISE).astype(np.uint8), np.arange(40) % 25, None,
    ),
    "colour, channels first": (
        DenoisingAutoencoder, {"axes": "CHW"}, np.moveaxis(NOISE, -1, 1).astype(np.float32),
        np.arange(40) % 13, None,
    ),
    "five channels": (Autoencoder, {"axes": "CHW"}, RNG.random((20, 5, 4, 4)), None, None),
    "zeros and ones": (VariationalAutoencoder, {}, DIGITS.images[:60] > 7, None, None),
    "two rows": (Autoencoder, {"latent_dim": 3}, WINE.data[:2], ["a", "b"], WINE.feature_names),
    "constant": (Autoencoder, {}, np.ones((20, 5, 5)), None, None),
}  # fmt: skip


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in few pixels: the tests look at what is drawn, not at how sharply."""
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture(scope="module")
def est() -> Autoencoder:
    return fit(Autoencoder, DIGITS.images[:150], latent_dim=5, max_epochs=5)


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in CASES]
)
@pytest.mark.filterwarnings("ignore:latent_dim")  # a code as wide as the data is told apart there
def test_any_data_gives_a_whole_page(name: str, tmp_path: Path) -> None:
    model, given, X, y, names = CASES[name]
    fitted = fit(model, X, **given)
    path = write_report(fitted, X, tmp_path / "page.html", y=y, feature_names=names)
    page = Page(path)
    wanted = [*ALWAYS]
    wanted[1:1] = ["denoising"] if model is DenoisingAutoencoder else []
    at = wanted.index("training")
    wanted[at:at] = ["generated"] if model is VariationalAutoencoder else []
    assert page.sections == wanted
    check_alone(page, tmp_path)
    check_readable(page)


def test_the_pictures_beside_the_page_are_the_pictures_in_it(
    est: Autoencoder, tmp_path: Path
) -> None:
    path = write_report(est, DIGITS.images[:60], tmp_path / "page.html", y=DIGITS.target[:60])
    inside = [base64.b64decode(image["src"].split(",")[1]) for image in Page(path).images]
    beside = [file.read_bytes() for file in (tmp_path / "page_files").iterdir()]
    assert sorted(inside) == sorted(beside)
    assert {file.name for file in tmp_path.iterdir()} == {"page.html", "page_files"}
    assert (tmp_path / "page_files" / "samples-worst.png").read_bytes()[:4] == b"\x89PNG"


# ---------------------------------------------------------------- the figures are true


def test_the_table_says_what_the_model_says(est: Autoencoder, tmp_path: Path) -> None:
    X = DIGITS.images[200:300]
    page = Page(write_report(est, X, tmp_path / "page.html", y=DIGITS.target[200:300]))
    assert est.pca_ is not None
    error, pca = -est.score_samples(X).mean(), -est.pca_.score_samples(X).mean()
    table = {row[0]: row[1:] for row in page.tables[0]}
    assert float(table["Autoencoder"][0]) == pytest.approx(error, rel=0.01)
    assert float(table["Autoencoder"][1]) == pytest.approx(error / pca, rel=0.01)
    assert float(table["Autoencoder"][2]) == pytest.approx(est.score(X), abs=1e-4)
    assert float(table["PCA"][0]) == pytest.approx(pca, rel=0.01)
    assert float(table["PCA"][2]) == pytest.approx(est.pca_.score(X), abs=1e-4)
    assert float(table["Raw data, 64 numbers"][3].split(" ± ")[0]) > 0.7
    counts = np.bincount(DIGITS.target[200:300])
    assert float(table["Most frequent class"][3]) == pytest.approx(counts.max() / 100)
    said = " ".join(page.words)
    assert f"{100 * (1 - error / pca):.0f} % less error than PCA from 5 numbers an image" in said
    assert "principal component analysis" in said  # what "× PCA's" means, for a newcomer


def test_denoising_is_measured_against_the_clean_rows() -> None:
    X = DIGITS.images[:100]
    dae = fit(DenoisingAutoencoder, DIGITS.images[100:200], latent_dim=5)
    found = prepare(dae, X, None, None, 4).numbers.denoising
    assert found is not None
    order = np.sort(np.random.default_rng(4).permutation(100))
    noisy = dae.corrupt(X[order], random_state=4)
    assert found.noisy == pytest.approx(np.mean((noisy - X) ** 2) / X.var())
    assert found.denoised == pytest.approx(np.mean((dae.reconstruct(noisy) - X) ** 2) / X.var())
    assert found.denoised != found.pca


def test_what_is_drawn_is_what_the_models_say() -> None:
    X = DIGITS.images[:80]
    dae = fit(DenoisingAutoencoder, DIGITS.images[100:200], latent_dim=5)
    found = prepare(dae, X, DIGITS.target[:80], None, 0)
    shown = found.denoised(6)
    assert shown["denoised"] == pytest.approx(dae.reconstruct(shown["noisy"]), abs=1e-4)
    assert shown["PCA"] == pytest.approx(dae.pca_.reconstruct(shown["noisy"]), abs=1e-4)
    assert np.abs(shown["noisy"] - shown["clean"]).mean() > 1
    assert all((clean == X).all(axis=(1, 2)).any() for clean in shown["clean"])
    samples = found.samples([7, 3])
    assert np.array_equal(samples.original, X[[7, 3]])
    assert np.array_equal(samples.restored, dae.reconstruct(X[[7, 3]]))
    assert samples.pca is not None
    assert np.array_equal(samples.pca, dae.pca_.reconstruct(X[[7, 3]]))
    every = found.samples(range(80)).codes
    assert every.mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-5)
    assert every.std(axis=0) == pytest.approx(np.ones(5), abs=1e-4)
    _, starts, ends = found.walks()
    kinds = [[DIGITS.target[(x == X).all(axis=(1, 2)).argmax()] for x in e] for e in (starts, ends)]
    assert all(a != b for a, b in zip(*kinds, strict=True))


def test_what_is_drawn_as_new_is_new() -> None:
    vae = fit(VariationalAutoencoder, DIGITS.images[:80])
    shown = prepare(vae, DIGITS.images[:80], None, None, 3).generated(9)
    assert np.array_equal(shown["model"], vae.sample(9, random_state=3))
    assert len(shown["data"]) == len(shown["PCA"]) == 9
    assert not np.allclose(shown["PCA"], shown["model"], atol=0.1)


def test_colours_are_shown_as_they_are() -> None:
    colour = np.zeros((2, 4, 5, 3), np.uint8)
    colour[0, 1, 2] = (255, 51, 0)
    moved = np.moveaxis(colour, -1, 1)
    last = choose_plotter(fit(Autoencoder, colour, axes="HWC"), colour, None)
    first = choose_plotter(fit(Autoencoder, moved), moved, None)
    assert isinstance(last, ImagePlotter) and isinstance(first, ImagePlotter)
    assert last.pixels(colour)[0, 1, 2] == pytest.approx((1, 0.2, 0))
    assert np.array_equal(first.pixels(moved), last.pixels(colour))


def judged(est: Any, model: float, pca: float | None) -> str:
    """The headline where the test decides the two methods' errors."""
    n = prepare(est, DIGITS.images[:30], None, None, 0).numbers
    assert n.pca is not None
    spread = np.linspace(1, 2, 30)
    beside = None if pca is None else replace(n.pca, errors=pca * spread)
    return headline(replace(n, model=replace(n.model, errors=model * spread), pca=beside), "image")


def test_the_headline_is_honest(est: Autoencoder) -> None:
    width = "5 numbers an image"
    better = (
        f"50 % less error than PCA from {width}, and closer to the original on 100 % of the images."
    )
    assert judged(est, 0.5, 1.0) == better
    assert judged(est, 1.02, 1.0) == f"No better than PCA: 1.02 times its error from {width}."
    worse = f"PCA restores better here: the model makes 1.80 times its error from {width}."
    assert judged(est, 1.8, 1.0) == worse
    assert "PCA of this width is too large" in judged(est, 1.0, None)
    assert "nothing to gain" in judged(est, 3e-14, 1e-14)  # both err by rounding only


def test_best_typical_and_worst_are_what_they_say() -> None:
    errors = RNG.permutation(100).astype(float)
    shown = ranking(errors, 4)
    assert errors[shown["Best"]].tolist() == [0, 1, 2, 3]
    assert errors[shown["Worst"]].tolist() == [99, 98, 97, 96]
    assert errors[shown["Typical"]].mean() == pytest.approx(np.median(errors), abs=1)
    assert len({row for rows in ranking(errors[:7], 4).values() for row in rows}) == 6


@pytest.mark.parametrize("spread", [0.0, 0.1, 5.0])
def test_the_histogram_counts_every_row(spread: float) -> None:
    errors = {"a": np.exp(spread * RNG.normal(size=300)), "b": np.ones(70)}
    found = error_bins(errors)
    assert found.counts["a"].sum() == 300
    assert found.counts["b"].sum() == 70
    assert found.logarithmic == (spread == 5.0)


def test_labels_are_classes_or_measurements() -> None:
    assert parse_labels([3.0, 1.0, 3.0], 3).names == ["1", "3"]
    assert parse_labels([True, False], 2).names == ["False", "True"]
    assert parse_labels(np.arange(500), 500).names == []
    assert parse_labels([0.5, 1.0], 2).values.tolist() == [0.5, 1.0]


# ---------------------------------------------------------------- how it is written


def test_words_from_outside_stay_words(est: Autoencoder, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & \"quoted\""
    path = write_report(
        est, DIGITS.images[:30], tmp_path / "page.html", commands=[evil], title=evil
    )
    page = Page(path)
    assert "script" not in page.tags
    assert "".join(page.words).count(evil) == 3  # the title twice, the command once


def test_without_commands_the_python_lines_are_given(est: Autoencoder, tmp_path: Path) -> None:
    text = Page(write_report(est, DIGITS.images[:30], tmp_path / "page.html")).text
    assert "Autoencoder(latent_dim=5, max_epochs=5, random_state=0).fit(X_train)" in text


def test_a_page_is_not_overwritten_unless_asked(est: Autoencoder, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        write_report(est, DIGITS.images[:30], path)
    assert path.read_text() == "mine"
    write_report(est, DIGITS.images[:30], path, overwrite=True)
    assert Page(path).sections == ALWAYS


@pytest.mark.parametrize("name", ["notes.txt", "old.png"])
def test_a_folder_of_other_things_is_left_alone(
    est: Autoencoder, tmp_path: Path, name: str
) -> None:
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / name).write_text("mine")
    with pytest.raises(FileError, match="page_files"):
        write_report(est, DIGITS.images[:30], tmp_path / "page.html", overwrite=name != "old.png")
    assert (tmp_path / "page_files" / name).read_text() == "mine"
    assert not (tmp_path / "page.html").exists()


def test_nothing_is_left_when_writing_fails(
    est: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises((OSError, FileError), match="no space"):
        write_report(est, DIGITS.images[:30], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"y": np.zeros(29)}, r"shape \(29,\), the data 30 rows"),
        ({"feature_names": ["a", "b"]}, "2 feature names for 64 features"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(
    est: Autoencoder, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        write_report(est, DIGITS.images[:30], tmp_path / "page.html", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_page_needs_its_folder(est: Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no folder"):
        write_report(est, DIGITS.images[:30], tmp_path / "nowhere" / "page.html")


def test_one_class_is_coloured_but_not_probed(est: Autoencoder, tmp_path: Path) -> None:
    page = Page(write_report(est, DIGITS.images[:30], tmp_path / "page.html", y=["one"] * 30))
    assert "All 30 labels are 'one'" in "".join(page.words)
    assert [len(row) for row in page.tables[0]] == [4, 4, 4]


def test_many_rows_are_thinned_on_the_map_and_the_page_says_so(
    est: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "MAX_MAP_ROWS", 40)
    page = Page(write_report(est, DIGITS.images[:1500], tmp_path / "page.html"))
    assert "Drawn: 40 random rows of 1,500." in page.text


@pytest.mark.slow
def test_frames_and_their_names(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(WINE.data, columns=WINE.feature_names)
    fitted = fit(Autoencoder, frame).set_output(transform="pandas")
    first = write_report(fitted, frame, tmp_path / "a.html", y=pd.Series(WINE.target))
    second = write_report(fitted, frame[:50].to_numpy(), tmp_path / "b.html")
    assert Page(first).sections == Page(second).sections == ALWAYS
    assert list(fitted.feature_names_in_) == WINE.feature_names


@pytest.mark.slow
def test_a_model_from_a_file_is_reported_alike(est: Autoencoder, tmp_path: Path) -> None:
    est.save(tmp_path / "m.safetensors")
    again = narrows.load(tmp_path / "m.safetensors")
    pages = [
        write_report(model, DIGITS.images[:40], tmp_path / f"{name}.html")
        for name, model in (("first", est), ("again", again))
    ]
    pictures = [sorted(pictures_folder(page).iterdir()) for page in pages]
    for first, second in zip(*pictures, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    assert Page(pages[0]).tables[0] == Page(pages[1]).tables[0]


def test_global_states_stay_as_they_were(est: Autoencoder, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    settings = dict(plt.rcParams)
    numpy_before, torch_before = str(np.random.get_state()), torch.get_rng_state()
    write_report(est, DIGITS.images[:40], tmp_path / "page.html", y=DIGITS.target[:40])
    assert str(np.random.get_state()) == numpy_before
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == settings


def test_the_page_names_its_parts_and_parameters(est: Autoencoder, tmp_path: Path) -> None:
    page = Page(write_report(est, DIGITS.images[:40], tmp_path / "page.html"))
    cells = {row[0]: row[1] for table in page.tables for row in table if len(row) == 2}
    info = est.info()
    assert re.sub(r"\s+", " ", cells["f"]) == re.sub(r"\s+", " ", info["parts"]["f"])
    assert cells["latent dim"] == "5"
    assert cells["stop reason"] == est.stop_reason_
    assert cells["torch"] == torch.__version__


def test_a_model_whose_loss_was_no_number_has_a_page(tmp_path: Path) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(ConvergenceWarning):
        est = Autoencoder(latent_dim=2, learning_rate=1e30, random_state=0).fit(DIGITS.images[:60])
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    assert write_report(again, DIGITS.images[:30], tmp_path / "page.html").is_file()


@pytest.mark.parametrize("top", [1, 16])
def test_bytes_of_a_narrow_range_are_drawn_from_black_to_white(top: int) -> None:
    images = DIGITS.images[:300] if top == 16 else DIGITS.images[:300] > 7
    X = images.astype(np.uint8)
    est = VariationalAutoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    plotter = choose_plotter(est, X, None)
    assert isinstance(plotter, ImagePlotter)
    assert plotter.pixels(X).max() == pytest.approx(1.0)


def test_pictures_that_are_not_the_reports_own_are_never_removed(
    est: Autoencoder, tmp_path: Path
) -> None:
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "holiday.png").write_bytes(b"mine")
    with pytest.raises(FileError, match="other things than pictures that narrows wrote"):
        write_report(est, DIGITS.images[:30], tmp_path / "page.html", overwrite=True)
    assert (tmp_path / "page_files" / "holiday.png").read_bytes() == b"mine"


# ---------------------------------------------------------------- tables in their own units


def texts(figure: Any) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize("d", [2, 13, 40])
def test_a_table_is_drawn_in_its_own_units_with_bars(d: int) -> None:
    """Each cell of a grid: a bar for each column, its name, its value as the model gives it."""
    X = np.random.default_rng(0).normal(size=(60, d)) * 10.0 ** (np.arange(d) % 5) + 7
    names = [f"column {i}" for i in range(d)]
    est = fit(Autoencoder, X, latent_dim=1, scaling="column")
    found = prepare(est, X, None, names, 0)
    plotter = found.plotter
    assert isinstance(plotter, TablePlotter)
    shown = plotter._columns(16)
    assert len(shown) == min(d, 16)
    events = found.fold(X[:9]).reshape(3, 3, d)
    figure = plotter.mosaic(events, "title", figures.MODEL)
    assert len(figure.axes) == 9
    ax = figure.axes[4]
    assert not ax.lines
    assert [t.get_text() for t in ax.texts] == [short_number(v) for v in X[4, shown]]
    widths = [bar.get_width() for bar in ax.patches[len(shown) :]]
    places = (X[4] - X.min(0)) / np.where(np.ptp(X, axis=0) > 0, np.ptp(X, axis=0), 1)
    np.testing.assert_allclose(widths, places[shown], atol=1e-6)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == [names[c] for c in shown]
    gallery = texts(plotter.gallery(found.samples([0])).figure())
    row, back = found.X[0], found.est.reconstruct(found.X[:1])[0]
    expected = f"{short_number(row[shown[0]])} → {short_number(back[shown[0]])}"
    assert expected in gallery
    walk = found.walks()[0][0]
    ends = [short_number(walk[step, shown[-1]]) for step in (0, -1)]
    assert " → ".join(ends) in texts(plotter.walks(*found.walks())[0])
    assert ("16 are drawn" in plotter.grid_note) == (d > 16)


def test_the_columns_drawn_of_a_wide_table_are_those_that_vary_together() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 60))
    X[:, 40:56] = 3 * rng.normal(size=(300, 1)) + 0.1 * rng.normal(size=(300, 16))
    est = fit(Autoencoder, X)
    plotter = choose_plotter(est, X, None)
    assert isinstance(plotter, TablePlotter)
    assert plotter._columns(16).tolist() == list(range(40, 56))


@pytest.mark.parametrize("axes", [None, "HW", "CL"])
def test_missing_values_are_no_part_of_a_drawing(axes: str | None) -> None:
    shape = {None: (12,), "HW": (3, 4), "CL": (3, 4)}[axes]
    X = np.random.default_rng(0).normal(size=(60, *shape))
    est = fit(Autoencoder, X, axes=axes, distance="mse", missing="mask")
    whole = choose_plotter(est, X, None)
    X[7].flat[3] = np.nan
    holed = choose_plotter(est, X, None)
    for one, other in zip(vars(holed).values(), vars(whole).values(), strict=True):
        if np.asarray(one).dtype.kind == "f":  # not names, nor the order of columns
            np.testing.assert_allclose(one, other, atol=0.2)


def test_a_missing_value_does_not_hide_a_column() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 40))
    X[:, :16] += 3 * rng.normal(size=(60, 1))
    X[5, 2], X[:, 30] = np.nan, np.nan
    plotter = _table_plotter(X, None)
    assert plotter._columns(16).tolist() == list(range(16))
    assert np.isfinite([plotter.low, plotter.span]).all()


def test_coinciding_lines_are_both_seen() -> None:
    same = np.linspace(1, 2, 50)
    both = figures.error_histogram(error_bins({"model": same, "PCA": same}), {"model": 1, "PCA": 1})
    widths = [line.get_linewidth() for line in both.axes[0].lines]
    assert widths[0] > widths[1] + 1
    history = [{"epoch": i, "loss": 1.0 + i, "distance": 1.001 * (1 + i)} for i in range(5)]
    first, second = figures.training_loss(history).axes[0].lines
    assert first.get_linewidth() > second.get_linewidth() + 1
    assert STYLES["original"].width > STYLES["PCA"].width + 1 > STYLES["restored"].width + 1.5
    assert STYLES["original"].size > STYLES["PCA"].size > 2 * STYLES["restored"].size


def test_class_names_on_a_map_do_not_crowd() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(500) % 10
    points = rng.normal(size=(500, 2)) + 0.02 * y[:, None]  # ten classes, nearly one place
    figure = figures.code_map(points, parse_labels(y, 500), ["a", "b"], "title")
    at = np.array([t.get_position() for t in figure.axes[0].texts]) / np.ptp(points, axis=0)
    assert len(at) == 10
    apart = np.abs(at[:, None] - at).max(-1)[~np.eye(10, dtype=bool)]
    assert apart.min() > figures.MIN_LABEL_GAP
    alone = figures.code_map(points[y == 3], parse_labels(y[y == 3], 50), ["a", "b"], "title")
    place = alone.axes[0].texts[0].get_position()
    np.testing.assert_allclose(place, np.median(points[y == 3], axis=0))


def test_a_result_no_better_than_pca_says_what_to_do(tmp_path: Path) -> None:
    short = fit(Autoencoder, DIGITS.images[:150], max_epochs=0)
    page = Page(write_report(short, DIGITS.images[150:200], tmp_path / "page.html"))
    said = " ".join(page.words)
    assert "No better than PCA" in said and "What to do: train longer (--max-time" in said
    assert "in Python max_time" in said
