"""Displays keep scikit-learn's conventions, and what they draw is what the models say."""

from __future__ import annotations

import re
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, load_wine

import narrows
from narrows import Autoencoder, ConditionalVAE, InputError, ParameterError
from narrows.plot import CompareDisplay, LatentDisplay, ReconstructionDisplay, TraversalDisplay
from narrows.report import code_effects, measured_rows

DIGITS = load_digits()
WINE = load_wine(as_frame=True)
RNG = np.random.default_rng(0)
SIGNALS = np.cumsum(RNG.normal(size=(40, 2, 17)), axis=2)
SMALL: dict[str, Any] = {"max_epochs": 1, "random_state": 0}
X, Y = DIGITS.images[:200], DIGITS.target[:200]


@pytest.fixture(scope="module")
def images() -> Autoencoder:
    return Autoencoder(latent_dim=5, **SMALL).fit(X)


@pytest.fixture(scope="module")
def table() -> Autoencoder:
    return Autoencoder(latent_dim=3, **SMALL).fit(WINE.data)


@pytest.fixture(scope="module")
def signals() -> Autoencoder:
    return Autoencoder(latent_dim=2, axes="CL", **SMALL).fit(SIGNALS)


def axes(**given: Any) -> Any:
    return Figure(figsize=(5, 5), dpi=40, **given).subplots()


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("display", [ReconstructionDisplay, LatentDisplay, TraversalDisplay])
@pytest.mark.parametrize("kind", ["images", "table", "signals"])
def test_it_draws_into_the_axes_given(
    display: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    data = {"images": X, "table": WINE.data, "signals": SIGNALS}[kind]
    figure = Figure(figsize=(8, 4), dpi=40, layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = display.from_estimator(request.getfixturevalue(kind), data, ax=left)
    assert shown.ax_ is left
    assert shown.figure_ is figure
    figure.canvas.draw()  # no warning of the layout
    assert not right.has_data()
    inside = [ax for ax in figure.axes if ax is not right]
    assert any(ax.has_data() for ax in inside)
    assert all(ax.get_position().x1 < right.get_position().x0 + 0.05 for ax in inside)
    again = shown.plot(ax=right)
    assert again is shown
    assert again.ax_ is right


def test_axes_at_a_place_of_their_own_are_divided(table: Autoencoder) -> None:
    figure = Figure(dpi=40)
    ax = figure.add_axes((0.1, 0.2, 0.5, 0.6))
    ReconstructionDisplay.from_estimator(table, WINE.data, ax=ax)
    boxes = [part.get_position() for part in figure.axes if part is not ax]
    assert len(boxes) == 6
    assert min(box.y0 for box in boxes) == pytest.approx(0.2)
    assert max(box.y1 for box in boxes) == pytest.approx(0.8)


def test_pyplot_is_needed_only_without_axes(
    images: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(vars(images))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
        for display in (ReconstructionDisplay, LatentDisplay, TraversalDisplay):
            display.from_estimator(images, X, ax=axes())
        CompareDisplay.from_estimators({"a": images}, X, ax=axes())
        with pytest.raises(ImportError):
            LatentDisplay.from_estimator(images, X)
    assert vars(images) == before
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    shown = LatentDisplay.from_estimator(images, X)
    assert shown.figure_ is pyplot.gcf()
    assert shown.ax_ is pyplot.gca()
    pyplot.close("all")


# ---------------------------------------------------------------- reconstructions


def test_held_out_rows_are_shown_where_there_are_some(images: Autoencoder) -> None:
    shown = ReconstructionDisplay.from_estimator(images, X, Y, n_rows=5, ax=axes())
    held = measured_rows(images, X)
    rows = shown.measured.rows
    assert shown.measured.kind == "validation"
    assert len(set(rows)) == 5
    assert set(rows) <= set(held.rows)
    errors = -images.score_samples(X[rows])
    titles = [f"{Y[row]} · {error:.2g}" for row, error in zip(rows, errors, strict=True)]
    assert all(title in texts(shown.figure_) for title in titles)
    np.testing.assert_array_equal(shown.samples.original, X[rows])
    np.testing.assert_allclose(shown.samples.restored, images.reconstruct(X[rows]), atol=1e-5)
    np.testing.assert_allclose(shown.samples.pca, images.pca_.reconstruct(X[rows]), atol=1e-5)  # type: ignore[union-attr]


def test_the_rows_asked_for_are_shown_and_pca_on_request(images: Autoencoder) -> None:
    shown = ReconstructionDisplay.from_estimator(images, X, rows=[7, 3], pca=False, ax=axes())
    np.testing.assert_array_equal(shown.samples.original, X[[7, 3]])
    assert "PCA" not in texts(shown.figure_)
    with pytest.raises(ParameterError, match="row 200; the 200 rows are numbered from 0 to 199"):
        ReconstructionDisplay.from_estimator(images, X, rows=[200])


def test_columns_have_their_names(table: Autoencoder) -> None:
    shown = ReconstructionDisplay.from_estimator(table, WINE.data, ax=axes())
    assert "alcohol" in texts(shown.figure_)
    named = [f"column {i}" for i in range(13)]
    shown = TraversalDisplay.from_estimator(table, WINE.data, feature_names=named, ax=axes())
    assert "column 3" in texts(shown.figure_)


# ---------------------------------------------------------------- codes


def dots(ax: Any) -> Any:
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.findobj(PathCollection)])


def test_two_numbers_are_drawn_as_they_are(signals: Autoencoder) -> None:
    shown = LatentDisplay.from_estimator(signals, SIGNALS, ax=axes())
    np.testing.assert_allclose(dots(shown.ax_), signals.transform(SIGNALS), atol=1e-6)
    assert shown.ax_.get_xlabel() == "code 1"


def test_more_numbers_are_projected_and_the_axes_say_so(images: Autoencoder) -> None:
    shown = LatentDisplay.from_estimator(images, X, Y, pca=True, ax=axes())
    variances = np.linalg.eigvalsh(np.cov(images.transform(X).T, bias=True))[::-1]
    points, names = shown.maps["Autoencoder"]
    share = 100 * variances[0] / variances.sum()
    assert names[0] == f"direction 1 ({share:.0f} % of variance)"
    assert points.var(axis=0) == pytest.approx(variances[:2], rel=1e-4)
    assert names[0] in texts(shown.figure_)
    assert [ax.get_title("left") for ax in shown.figure_.axes[1:]] == ["Autoencoder", "PCA"]
    legend = shown.figure_.axes[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [str(i) for i in range(10)]


def test_measurements_get_a_scale(signals: Autoencoder) -> None:
    shown = LatentDisplay.from_estimator(signals, SIGNALS, RNG.normal(size=40), ax=axes())
    assert "label" in texts(shown.figure_)
    with pytest.raises(InputError, match="shape"):
        LatentDisplay.from_estimator(signals, SIGNALS, [1, 2], ax=axes())


def test_one_number_is_a_histogram() -> None:
    est = Autoencoder(latent_dim=1, **SMALL).fit(X)
    shown = LatentDisplay.from_estimator(est, X, ax=axes())
    assert sum(patch.get_height() for patch in shown.ax_.patches) == 200


# ---------------------------------------------------------------- traversals


def test_traversals_are_ranked_and_named(images: Autoencoder) -> None:
    shown = TraversalDisplay.from_estimator(images, X, n_numbers=3, ax=axes())
    effects = code_effects(images, images.transform(X))
    order = np.argsort(-effects)[:3]
    assert shown.traversal.numbers.tolist() == order.tolist()
    words = texts(shown.figure_)
    places = [words.index(f"code {number + 1}\n") for number in order]
    assert places == sorted(places)
    assert "+2 sd" in words
    assert "start" in words


# ---------------------------------------------------------------- comparisons


def test_bars_are_the_errors_of_the_rows_that_all_fits_held_out(images: Autoencoder) -> None:
    other = Autoencoder(latent_dim=2, max_epochs=1, random_state=1).fit(X)
    models = {"five": images, "two": other}
    shown = CompareDisplay.from_estimators(models, X, ax=axes())
    rows = np.intersect1d(measured_rows(images, X).rows, measured_rows(other, X).rows)
    assert 0 < len(rows) < 20  # the two seeds hold out different rows
    np.testing.assert_array_equal(shown.rows, rows)
    widths = [bar.get_width() for bar in shown.ax_.patches]
    assert images.pca_ is not None
    errors = [-each.score_samples(X[rows]).mean() for each in (images, images.pca_)]
    assert widths[:2] == pytest.approx(errors)
    words = texts(shown.figure_)
    assert f"{len(rows)} rows held out for validation" in words
    assert "two\n2 numbers" in words
    ratio = float(re.findall(r"\((.*) × PCA's\)", words)[0])
    assert ratio == pytest.approx(errors[0] / errors[1], rel=0.01)


def test_errors_of_models_that_scale_otherwise_are_in_one_unit(images: Autoencoder) -> None:
    whole = Autoencoder(latent_dim=5, scaling="none", **SMALL).fit(X)
    shown = CompareDisplay.from_estimators({"a": images, "b": whole}, X, ax=axes())
    difference = whole.reconstruct(X[shown.rows]) - X[shown.rows]
    scale = float(images.scaling_.scale)
    assert scale > 1.5
    expected = np.square(difference / scale).mean(axis=(1, 2))
    np.testing.assert_allclose(shown.compared["b"].errors, expected, rtol=1e-4)


def test_what_rows_mean_is_said(images: Autoencoder) -> None:
    new = DIGITS.images[300:340]

    def words(models: dict[str, Any], rows: Any) -> str:
        return CompareDisplay.from_estimators(models, rows, ax=axes()).rows_in_words

    tested = Autoencoder(latent_dim=2, test_size=0.2, **SMALL).fit(X)
    every = Autoencoder(latent_dim=2, validation_fraction=0.0, **SMALL).fit(X)
    elsewhere = Autoencoder(latent_dim=2, **SMALL).fit(DIGITS.images[200:400])
    assert words({"a": images}, new) == "40 rows given"
    assert words({"a": tested}, X) == "40 rows that no fit has seen (test_size)"
    assert words({"a": every}, X) == "200 rows that the models were fitted on"
    assert words({"a": every, "b": images}, X) == "20 rows that some of the models were fitted on"
    both = words({"a": elsewhere, "b": images}, X)
    assert both == "20 rows held out by some models; of the others it is not known"


def test_models_that_cannot_be_compared_are_refused(
    images: Autoencoder, table: Autoencoder
) -> None:
    a = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X[:30])
    seeds = (Autoencoder(latent_dim=2, max_epochs=1, random_state=s).fit(X[:30]) for s in (1, 2, 3))
    apart = next(
        b
        for b in seeds
        if not set(measured_rows(a, X[:30]).rows) & set(measured_rows(b, X[:30]).rows)
    )
    with pytest.raises(InputError, match="No row was held out by all"):
        CompareDisplay.from_estimators({"a": a, "b": apart}, X[:30])
    with pytest.raises(InputError):
        CompareDisplay.from_estimators({"a": images, "b": table}, X)
    with pytest.raises(ParameterError, match="holds no model"):
        CompareDisplay.from_estimators({}, X)


# ---------------------------------------------------------------- any model


def test_frames_and_containers(table: Autoencoder) -> None:
    pandas = Autoencoder(latent_dim=3, **SMALL).set_output(transform="pandas").fit(WINE.data)
    for display in (ReconstructionDisplay, LatentDisplay, TraversalDisplay):
        display.from_estimator(pandas, WINE.data, WINE.target, ax=axes())
    shown = CompareDisplay.from_estimators({"a": table, "b": pandas}, WINE.data, ax=axes())
    same = [one.errors for one in shown.compared.values()]
    np.testing.assert_array_equal(*same)
    assert isinstance(pandas.transform(WINE.data), pd.DataFrame)


def test_a_class_conditional_model_is_drawn_as_without_classes() -> None:
    est = ConditionalVAE(latent_dim=2, **SMALL).fit(X, Y)
    shown = LatentDisplay.from_estimator(est, X, Y, ax=axes())
    np.testing.assert_allclose(shown.maps["ConditionalVAE"][0], est.transform(X), atol=1e-6)
    ReconstructionDisplay.from_estimator(est, X, Y, ax=axes())
    TraversalDisplay.from_estimator(est, X, ax=axes())
    one = CompareDisplay.from_estimators({"a": est}, X, ax=axes())
    expected = -est.score_samples(X[one.rows])
    np.testing.assert_allclose(one.compared["a"].errors, expected, rtol=1e-5)


def test_the_room_is_public() -> None:
    assert narrows.plot.LatentDisplay is LatentDisplay
    assert "plot" in dir(narrows)
