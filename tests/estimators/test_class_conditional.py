"""A model that is told the class of each row: what it draws follows y, and y may be left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import narrows
from narrows import ConditionalVAE, InputError, ParameterError
from narrows.estimators.class_conditional import _labelled
from narrows.training.batches import Rows, Scaling, as_tensor

DIGITS = load_digits()
X, Y = DIGITS.images, DIGITS.target
SMALL = {"latent_dim": 6, "hidden_layer_sizes": (64,), "random_state": 0}


@pytest.fixture(scope="module")
def model() -> ConditionalVAE:
    return ConditionalVAE(max_epochs=25, **SMALL).fit(X[:1000], Y[:1000])


def test_samples_follow_the_class_asked_for(model: ConditionalVAE) -> None:
    judge = LogisticRegression(max_iter=2000).fit(X.reshape(-1, 64) / 16, Y)
    asked = np.repeat(np.arange(10), 30)
    drawn = model.sample(300, y=asked, random_state=0)
    found = judge.predict(drawn.reshape(-1, 64) / 16)
    assert (found == asked).mean() > 0.9
    same = model.sample(4, y=3, random_state=0)
    np.testing.assert_array_equal(same, model.sample(4, y=[3] * 4, random_state=0))


def test_rows_may_come_with_their_classes_or_without(model: ConditionalVAE) -> None:
    told, untold = model.transform(X[:50], Y[:50]), model.transform(X[:50])
    assert told.shape == untold.shape == (50, 6)
    assert np.abs(told - untold).max() > 1e-3
    back = model.inverse_transform(told, Y[:50])
    np.testing.assert_allclose(model.reconstruct(X[:50], Y[:50]), back, atol=1e-4)
    with_y = model.log_likelihood(X[1000:1100], Y[1000:1100], n_samples=20, random_state=0)
    assert with_y.mean() > model.log_likelihood(X[1000:1100], n_samples=20, random_state=0).mean()


def test_the_order_of_classes_makes_no_difference(model: ConditionalVAE) -> None:
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(
        model.transform(X[order], Y[order]), model.transform(X[:40], Y[:40])[order], atol=1e-5
    )


def test_a_file_keeps_the_classes(model: ConditionalVAE, tmp_path: Path) -> None:
    again = narrows.load(model.save(tmp_path / "c.safetensors"))
    np.testing.assert_array_equal(again.classes_, np.arange(10))
    np.testing.assert_array_equal(again.sample(3, y=5, random_state=1),
                                  model.sample(3, y=5, random_state=1))  # fmt: skip


def test_words_are_classes_and_tables_are_rows() -> None:
    names = np.array(["no", "yes"])[(Y[:200] > 4).astype(int)]
    model = ConditionalVAE(max_epochs=2, **SMALL).fit(X[:200].reshape(-1, 64), names)
    assert list(model.classes_) == ["no", "yes"]
    assert model.sample(3, y="yes", random_state=0).shape == (3, 64)
    conv = ConditionalVAE(max_epochs=1, architecture="conv", latent_dim=3, random_state=0)
    assert conv.fit(X[:100].astype("uint8"), names[:100]).sample(2, y="no").dtype == np.uint8


def test_the_training_rows_are_those_of_a_plain_model() -> None:
    """One class, told to nobody: the scaling and the held-out rows are the plain model's."""
    one = ConditionalVAE(max_epochs=1, **SMALL).fit(X[:100])
    plain = narrows.VariationalAutoencoder(max_epochs=1, **SMALL).fit(X[:100])
    assert one.rows_ == plain.rows_
    np.testing.assert_array_equal(one.scaling_.scale, plain.scaling_.scale)
    assert one.validation_errors_["validation_error_pca"] == pytest.approx(
        plain.validation_errors_["validation_error_pca"]
    )


def test_what_has_no_meaning_is_refused(model: ConditionalVAE) -> None:
    with pytest.raises(InputError, match="a class that the model was not fitted with"):
        model.sample(2, y=11)
    with pytest.raises(InputError, match=r"y has shape \(3,\)"):
        model.transform(X[:4], Y[:3])
    with pytest.raises(InputError, match="a class for each row"):
        ConditionalVAE(**SMALL).fit(X[:10], Y[:9])
    with pytest.raises(ParameterError, match="X_val has no classes"):
        ConditionalVAE(**SMALL).fit(X[:30], Y[:30], X_val=X[:5])
    assert not hasattr(model, "partial_fit")
    for n in (1, 2, 4):
        with pytest.raises(InputError, match=f"n is {n}, but y names 3 classes: leave n out"):
            model.sample(n, y=[0, 1, 1])


def test_classes_decide_how_many_are_drawn(model: ConditionalVAE) -> None:
    for y in ([0, 1, 1], np.array([2, 2, 2]), pd.Series([0, 4, 9]), (5, 6, 7)):
        drawn = model.sample(y=y, random_state=0)
        np.testing.assert_array_equal(drawn, model.sample(3, y=y, random_state=0))
    for y in (None, 4, [4], np.int64(4)):
        assert model.sample(y=y).shape == (1, 8, 8)


@pytest.mark.parametrize("distance", ["categorical", "mixed"])
def test_rows_of_classes_may_be_told_one_too(distance: str) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (40, 8)).astype(float)
    model = ConditionalVAE(max_epochs=1, distance=distance, **SMALL).fit(rows, Y[:40])
    assert set(np.unique(model.reconstruct(rows, Y[:40]))) <= {0.0, 1.0, 2.0}
    assert np.isfinite(model.log_likelihood(rows, n_samples=3)).all()


@pytest.mark.parametrize("odd", [["a", 1], [b"a", b"b"], [None, "a"], np.array([0, 1], "M8[D]")])
def test_classes_are_numbers_or_words(model: ConditionalVAE, odd: Any) -> None:
    odd = np.array(odd, dtype=object) if isinstance(odd, list) else odd
    with pytest.raises(InputError, match="numbers or words"):
        ConditionalVAE(**SMALL).fit(X[:40], np.tile(odd, 20))
    with pytest.raises(InputError, match="numbers or words"):
        model.transform(X[:2], odd)


NAMES = np.array(["no", "yes"])[(Y > 4).astype(int)]
TABLE = X.reshape(-1, 64)[:60, 10:20]
FRAME = pd.DataFrame(TABLE, columns=list("abcdefghij"), index=np.arange(60) + 100)


@pytest.fixture(scope="module")
def of_tables() -> ConditionalVAE:
    return ConditionalVAE(max_epochs=3, missing="mask", **SMALL).fit(FRAME, pd.Series(NAMES[:60]))


QUESTIONS = {
    "transform": {},
    "reconstruct": {},
    "log_likelihood": {"n_samples": 3, "random_state": 0},
    "score": {},
    "score_samples": {},
    "impute": {},
}
LABELS = {
    "list": NAMES[:60].tolist(),
    "tuple": tuple(NAMES[:60]),
    "series": pd.Series(NAMES[:60], index=FRAME.index),
    "category": pd.Series(NAMES[:60], dtype="category"),
    "string": pd.Series(NAMES[:60], dtype="string"),
    "polars": pl.Series(NAMES[:60]),
    "objects": NAMES[:60].astype(object),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_takes_what_fit_takes(of_tables: ConditionalVAE, question: str) -> None:
    ask, more = getattr(of_tables, question), QUESTIONS[question]
    expected = np.asarray(ask(FRAME, NAMES[:60], **more))
    for labels in LABELS.values():
        np.testing.assert_array_equal(ask(FRAME, labels, **more), expected)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(ask(TABLE.tolist(), NAMES[:60], **more), expected)
    untold = np.asarray(ask(FRAME, **more))
    assert untold.shape == expected.shape
    if question != "impute":  # where nothing is missing, nothing changes
        assert (untold != expected).any()
    with pytest.raises(TypeError, match="nonsense"):
        ask(FRAME, NAMES[:60], nonsense=1)
    with pytest.raises(InputError, match="was not fitted with"):
        ask(FRAME, ["maybe"] * 60)
    with pytest.raises(InputError, match=r"y has shape \(59,\)"):
        ask(FRAME, NAMES[:59])


def test_classes_go_with_their_rows_through_many_batches(of_tables: ConditionalVAE) -> None:
    order = np.random.default_rng(0).integers(0, 60, 90_000)
    many = of_tables.transform(FRAME.iloc[order], NAMES[order])
    few = of_tables.transform(FRAME, NAMES[:60])
    np.testing.assert_allclose(many, few[order], atol=1e-5)
    back = of_tables.inverse_transform(many, NAMES[order])
    np.testing.assert_allclose(back, of_tables.reconstruct(FRAME, NAMES[:60])[order], atol=1e-4)


def test_answers_with_classes_are_written_to_a_file(
    of_tables: ConditionalVAE, tmp_path: Path
) -> None:
    y = LABELS["list"]
    Z = of_tables.transform(FRAME, y)
    asked: dict[str, tuple[Any, Any]] = {
        "transform": (FRAME, Z),
        "reconstruct": (FRAME, of_tables.reconstruct(FRAME, y)),
        "inverse_transform": (Z, of_tables.inverse_transform(Z, y)),
    }
    for name, (given, expected) in asked.items():
        path = tmp_path / f"{name}.npy"
        found = getattr(of_tables, name)(given, y, out=path)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.load(path), expected)
        with pytest.raises(narrows.FileError, match="exists"):
            getattr(of_tables, name)(given, y, out=path)
        getattr(of_tables, name)(given, y, out=path, overwrite=True)


def test_set_output_and_samples_take_series_too(of_tables: ConditionalVAE) -> None:
    of_tables.set_output(transform="pandas")
    codes = of_tables.transform(FRAME, LABELS["series"])
    of_tables.set_output(transform="default")
    assert list(codes.index) == list(FRAME.index)
    np.testing.assert_array_equal(codes, of_tables.transform(FRAME, NAMES[:60]))
    drawn = of_tables.sample(3, y=pd.Series(["no", "yes", "no"]), random_state=0)
    np.testing.assert_array_equal(drawn, of_tables.sample(3, y=["no", "yes", "no"], random_state=0))
    assert not np.array_equal(drawn, of_tables.sample(3, random_state=0))


def test_missing_values_are_filled_in_by_class(of_tables: ConditionalVAE) -> None:
    gaps = FRAME.mask(np.random.default_rng(0).random(FRAME.shape) < 0.3)
    told, untold = of_tables.impute(gaps, NAMES[:60]), of_tables.impute(gaps)
    assert np.isfinite(told).all()
    assert (told[gaps.isna()] != untold[gaps.isna()]).any()
    np.testing.assert_array_equal(told[gaps.notna()], TABLE[gaps.notna()])


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "u2", "f2", "f8", "i8"])
@pytest.mark.parametrize("n_classes", [3, 127, 300])
def test_the_numbers_of_classes_survive_the_dtype_of_the_rows(dtype: str, n_classes: int) -> None:
    rows = Rows(as_tensor(np.ones((400, 5), dtype)), Scaling.none())
    numbers = torch.arange(400) % n_classes
    assert torch.equal(_labelled(rows, numbers).scaled(slice(None))[:, -1].long(), numbers)
