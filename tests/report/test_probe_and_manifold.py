"""What people do with a fitted model: probes that cannot cheat, maps that lead back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from narrows import Autoencoder, InputError, ParameterError
from narrows.report.manifold import (
    attribute_directions,
    code_effects,
    code_map,
    decoded_grid,
    interpolate,
    traverse,
)
from narrows.report.probe import linear_probe, probe_features, stratified_rows

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    bunch = load_digits()
    return bunch.images[:300], bunch.target[:300]


@pytest.fixture(scope="module")
def est(digits: tuple[Any, Any]) -> Autoencoder:
    return Autoencoder(latent_dim=4, max_epochs=2, random_state=0).fit(digits[0])


class Identity:
    """A decoder that gives the code back: the tests see where the grid stands."""

    def transform(self, X: Any) -> Any:
        return np.asarray(X)

    def inverse_transform(self, Z: Any) -> Any:
        return np.asarray(Z)


# ---------------------------------------------------------------- linear probe


def test_a_probe_is_the_pipeline_a_user_would_write(digits: Any, est: Autoencoder) -> None:
    X, y = digits
    features = {"codes": est.transform(X), "raw": X.reshape(len(X), -1)}
    features["pca"] = est.pca_.transform(X)  # type: ignore[union-attr]
    probes = linear_probe(est, X, y, random_state=3)
    assert set(probes) == set(features)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-3, max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    for name, F in features.items():
        scores = cross_val_score(classifier, F.astype(np.float64), y, cv=folds)
        assert probes[name].accuracy == scores.mean()
        assert probes[name].sd == scores.std()
        assert (probes[name].n_rows, probes[name].n_features) == F.shape


def test_labels_that_say_nothing_are_not_read() -> None:
    F, y = rng.normal(size=(200, 30)), np.arange(200) % 2
    assert probe_features(F, y).accuracy < 0.65  # fitted and scored on the same rows: 0.75


def test_a_probe_standardises() -> None:
    y = np.arange(100) % 2
    F = np.c_[1e-4 * (y + 0.1 * rng.normal(size=100)), 1e4 * rng.normal(size=100)]
    assert probe_features(F, np.where(y, "yes", "no")).accuracy == 1.0


def test_a_large_set_is_thinned_but_no_class_is_lost(digits: Any, est: Autoencoder) -> None:
    classes = np.r_[np.zeros(900, int), np.ones(6, int)]
    rows = stratified_rows(classes, 100, 5, 0)
    assert 100 <= len(rows) <= 110
    assert (classes[rows] == 1).sum() == 5
    assert len(set(rows)) == len(rows)
    assert linear_probe(est, *digits, max_rows=100)["raw"].n_rows < 110


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.arange(299) % 2, r"shape \(299,\), the data 300 rows"),
        (np.zeros((300, 2)), r"shape \(300, 2\)"),
        (np.full(300, "cat"), "All 300 labels are 'cat'"),
        (np.r_[np.zeros(298), 1, 1].astype(int), "Class '1' has 2 rows; 5 folds"),
        ([None, *range(299)], "label of row 0 is missing"),
        (np.r_[np.arange(299) % 2, np.nan], "label of row 299 is missing"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    digits: Any, est: Autoencoder, y: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        linear_probe(est, digits[0], y)


def test_one_fold_is_refused(digits: Any, est: Autoencoder) -> None:
    with pytest.raises(ParameterError, match="n_folds is 1"):
        linear_probe(est, *digits, n_folds=1)


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("k", [1, 2])
def test_a_narrow_code_is_its_own_map(k: int) -> None:
    Z = rng.normal(size=(30, k)) + 5
    view = code_map(Z)
    assert view.exact
    assert np.array_equal(view.points(Z), Z)
    assert np.array_equal(view.codes(Z), Z)


def test_a_wide_code_is_seen_from_its_principal_directions() -> None:
    Z = rng.normal(size=(200, 6)) @ np.diag([3, 2, 1, 0.5, 0.2, 0.1]) + 7
    view, peer = code_map(Z), PCA(2).fit(Z)
    assert not view.exact
    assert np.abs(np.sum(view.directions * peer.components_, axis=1)) == pytest.approx([1, 1])
    assert view.shares == pytest.approx(peer.explained_variance_ratio_)
    inside = view.codes(rng.normal(size=(5, 2)))
    assert view.codes(view.points(inside)) == pytest.approx(inside)


@pytest.mark.parametrize("n", [1, 2])
def test_a_map_of_hardly_any_rows_has_two_directions(n: int) -> None:
    view = code_map(rng.normal(size=(n, 5)))
    assert view.directions.shape == (2, 5)
    assert view.directions @ view.directions.T == pytest.approx(np.eye(2))


@pytest.mark.parametrize("Z", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan, 1.0]])])
def test_codes_that_are_no_matrix_are_refused(Z: Any) -> None:
    with pytest.raises(InputError, match="finite matrix"):
        code_map(Z)


def test_the_grid_stands_at_the_quantiles_of_the_codes() -> None:
    Z = np.c_[rng.exponential(size=500), rng.normal(size=500)]
    grid = decoded_grid(Identity(), Z, size=5, cut=0.1)
    quantiles = np.quantile(Z, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0)
    assert grid.x == pytest.approx(quantiles[:, 0])
    assert grid.y == pytest.approx(quantiles[::-1, 1])  # the top row is up on the map
    columns, rows = np.meshgrid(grid.x, grid.y)
    assert grid.decoded[..., 0] == pytest.approx(columns, abs=1e-6)
    assert grid.decoded[..., 1] == pytest.approx(rows, abs=1e-6)


def test_a_code_of_one_number_gives_a_strip() -> None:
    grid = decoded_grid(Identity(), rng.normal(size=(50, 1)), size=7)
    assert grid.decoded.shape == (1, 7, 1)
    assert np.all(np.diff(grid.decoded[0, :, 0]) > 0)


@pytest.mark.parametrize("wrong", [{"size": 1}, {"cut": 0.5}, {"cut": -0.1}])
def test_a_grid_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="size"):
        decoded_grid(Identity(), np.zeros((4, 2)), **wrong)


# ---------------------------------------------------------------- walks


def test_a_walk_is_straight_in_the_code_and_ends_at_reconstructions(
    digits: Any, est: Autoencoder
) -> None:
    X, _ = digits
    walk = interpolate(est, X, [(3, 8), (8, 20)], steps=3)
    assert walk.shape == (2, 3, 8, 8)
    restored = est.reconstruct(X[[3, 8, 20]])
    assert walk[0, 0] == pytest.approx(restored[0], abs=1e-4)
    assert walk[0, -1] == pytest.approx(restored[1], abs=1e-4)
    assert walk[1, -1] == pytest.approx(restored[2], abs=1e-4)
    middle = est.inverse_transform(est.transform(X[[3, 8]]).mean(axis=0, keepdims=True))
    assert walk[0, 1] == pytest.approx(middle[0], abs=1e-4)


@pytest.mark.parametrize(
    ("pairs", "steps", "words"),
    [
        ([(0, 1)], 1, "at least 2. Got 1"),
        ([(0, 300)], 3, "are numbered from 0 to 299"),
        ([], 3, "are numbered from 0"),
    ],
)
def test_walks_to_nowhere_are_refused(
    digits: Any, est: Autoencoder, pairs: Any, steps: int, words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        interpolate(est, digits[0], pairs, steps)


# ---------------------------------------------------------------- numbers of the code


@pytest.fixture(scope="module")
def linear() -> Any:
    """A model whose decoder is W z + b in scaled units, of columns in different units."""
    X = rng.normal(size=(200, 6)) * [1, 10, 100, 1, 1, 1e-3] + 5
    f, g = torch.nn.Linear(6, 3), torch.nn.Linear(3, 6)
    model = Autoencoder(f=f, g=g, max_epochs=1, random_state=0).fit(X)
    return model, X


def test_effects_of_a_linear_decoder_have_a_closed_form(linear: Any) -> None:
    model, X = linear
    Z = model.transform(X).astype(np.float64)
    b = model.inverse_transform(np.zeros((1, 3)))
    W = (model.inverse_transform(np.eye(3)) - b) / model.scaling_.scale.numpy()  # rows: w_j
    expected = Z.var(axis=0) * np.square(W).sum(axis=1) / 6
    assert code_effects(model, Z) == pytest.approx(expected, rel=1e-4)
    assert code_effects(model, Z, max_rows=3) == pytest.approx(expected, rel=1e-4)


def test_effects_of_pca_are_its_variances(linear: Any) -> None:
    model, X = linear
    Z = model.pca_.transform(X)
    assert code_effects(model.pca_, Z) == pytest.approx(Z.var(axis=0) / 6, rel=1e-4)


def test_what_the_decoder_ignores_or_what_never_moves_has_no_effect(linear: Any) -> None:
    model, X = linear
    Z = model.transform(X)
    still = np.c_[Z[:, :2], np.full(len(Z), 0.3)]
    assert code_effects(model, still)[2] == 0
    assert (code_effects(model, still)[:2] > 0).all()
    assert code_effects(model, Z[:1]).tolist() == [0, 0, 0]


def test_effects_are_means_over_rows_and_both_sides(est: Autoencoder, digits: Any) -> None:
    Z = est.transform(digits[0])[:40].astype(np.float64)
    scale, steps = float(est.scaling_.scale), Z.std(axis=0)
    moved = [est.inverse_transform(Z + sign * steps * (np.arange(4) == 2)) for sign in (1, -1)]
    changes = [(rows - est.inverse_transform(Z)) / scale for rows in moved]
    assert code_effects(est, Z)[2] == pytest.approx(np.mean(np.square(changes)), rel=1e-4)


def test_traversals_start_at_a_row_and_move_one_number(est: Autoencoder, digits: Any) -> None:
    Z = est.transform(digits[0]).astype(np.float64)
    found = traverse(est, Z, n_numbers=3, steps=5, reach=1.5)
    effects = code_effects(est, Z)
    assert found.numbers.tolist() == np.argsort(-effects)[:3].tolist()
    assert np.all(np.diff(found.effects) <= 0)
    assert found.effects == pytest.approx(effects[found.numbers])
    distances = np.square((Z - Z.mean(0)) / Z.std(0)).sum(1)
    assert found.start == pytest.approx(Z[distances.argmin()])
    assert found.decoded.shape == (3, 5, 8, 8)
    assert found.decoded[:, 2] == pytest.approx(found.decoded[[0, 0, 0], 2], abs=1e-5)
    code = found.start.copy()
    code[found.numbers[1]] += 0.75 * Z.std(axis=0)[found.numbers[1]]
    assert found.decoded[1, 3] == pytest.approx(est.inverse_transform([code])[0], abs=1e-4)
    given = traverse(est, Z, steps=3, start=np.zeros(4))
    assert given.decoded[0, 1] == pytest.approx(est.inverse_transform(np.zeros((1, 4)))[0])
    assert given.names[0] == f"code {given.numbers[0] + 1}, effect {given.effects[0]:#.3g}"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_numbers": 0}, "n_numbers"),
        ({"steps": 1}, "steps"),
        ({"reach": 0}, "reach"),
        ({"start": [0.0]}, r"start has shape \(1,\); give one code, \(4,\)"),
    ],
)
def test_a_traversal_that_cannot_be_is_refused(
    est: Autoencoder, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        traverse(est, rng.normal(size=(5, 4)), **wrong)
    with pytest.raises(InputError, match="expected"):
        traverse(est, rng.normal(size=(5, 3)))


def test_directions_of_shifted_gaussians_are_their_shifts() -> None:
    shifts = np.array([[0.0, 0, 0], [3, 0, -1], [0, 2, 0]])
    y = np.repeat([0, 1, 2], 4000)
    Z = shifts[y] + rng.normal(size=(len(y), 3))
    found = attribute_directions(Z, y)
    assert list(found) == ["0", "1", "2"]
    for i, name in enumerate(found):
        others = np.delete(shifts, i, axis=0).mean(axis=0)
        assert found[name] == pytest.approx(shifts[i] - others, abs=0.08)  # 4 standard errors
    two = attribute_directions(Z, np.where(y == 1, "with", "without"))
    assert two["with"] == pytest.approx(-two["without"])


@pytest.mark.parametrize("y", [np.zeros(6), np.linspace(0, 1, 6), np.arange(5)])
def test_directions_need_classes(y: Any) -> None:
    with pytest.raises(InputError):
        attribute_directions(rng.normal(size=(6, 2)), y)
