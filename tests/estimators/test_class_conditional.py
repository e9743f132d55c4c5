"""A model that is told the class of each row: what it draws follows y, and y may be left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import narrows
from narrows import ConditionalVAE, InputError, ParameterError

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
