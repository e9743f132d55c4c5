"""What X may come in: containers that carry gaps beside their values, or that are no arrays."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import Bunch

from helpers.small_data import curve
from narrows import AdversarialAE, Autoencoder, Codec, ConditionalVAE, InputError, ParameterError
from narrows.estimators.validation import validate_X

N = 60
X = curve(N)
GONE = np.random.default_rng(0).random(X.shape) < 0.2
GONE[:, 0] = False
HOLES = np.where(GONE, np.nan, X)
MASKED = np.ma.array(np.where(GONE, -999.0, X), mask=GONE)
BIG = 2**53 + 1
SMALL: dict[str, Any] = {"latent_dim": 1, "max_epochs": 1, "random_state": 0}


def admitted(data: Any, missing: str = "mask") -> np.ndarray:
    """The rows as a fit takes them."""
    return np.asarray(validate_X(Autoencoder(missing=missing), data, None)[0])


# ------------------------------------------------------------------------------ gaps


class Stored:
    """Rows on a disk that come back masked, as netCDF4 gives them."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Any:
        return self.rows[part]


@pytest.mark.parametrize(
    "data",
    [
        MASKED,
        list(MASKED),
        Stored(MASKED),
        np.ma.masked_values(np.where(GONE, 1e20, X), 1e20),
        pd.DataFrame(HOLES).astype(pd.SparseDtype(float)),
        pd.DataFrame(HOLES).astype("Float64"),
        pd.DataFrame(HOLES).astype(object).where(~GONE, None),
        pd.DataFrame(HOLES).astype(object).where(~GONE, pd.NA),
        pl.DataFrame(HOLES).fill_nan(None),
        pa.Table.from_pandas(pd.DataFrame(HOLES)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_is_missing_arrives_as_nan_and_the_model_decides(data: Any) -> None:
    np.testing.assert_array_equal(admitted(data), HOLES)
    row, column = np.argwhere(GONE)[0]
    with pytest.raises(InputError, match=rf"NaN in row {row}, column {column}"):
        admitted(data, "refuse")


def test_masked_integers_booleans_images_and_words() -> None:
    for values in (np.arange(8).reshape(4, 2), np.eye(4, 2) > 0):
        found = admitted(np.ma.array(values, mask=np.eye(4, 2)))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, np.where(np.eye(4, 2), np.nan, values))
    images = np.ma.array(np.ones((4, 3, 3), np.float32), mask=np.zeros((4, 3, 3), bool))
    assert admitted(images).dtype == np.float32
    images[1, 2, 0] = np.ma.masked
    assert np.argwhere(np.isnan(admitted(images))).tolist() == [[1, 0, 2, 0]]
    words = np.ma.array([["1.5", "x"], ["2", "3"]], mask=[[0, 1], [0, 0]])
    np.testing.assert_array_equal(admitted(words), [[1.5, np.nan], [2, 3]])
    with pytest.raises(InputError, match="hold missing values, which its dtype int64 does not"):
        whole = np.ma.array(np.arange(8).reshape(4, 2), mask=np.eye(4, 2))
        Autoencoder(**SMALL, missing="mask", in_memory=False).fit(Stored(whole))


def test_a_mask_counts_in_every_method() -> None:
    masked = Autoencoder(**SMALL, missing="mask").fit(MASKED, X_val=MASKED[:9])
    plain = Autoencoder(**SMALL, missing="mask").fit(HOLES, X_val=HOLES[:9])
    np.testing.assert_array_equal(masked.scaling_.shift, plain.scaling_.shift)
    np.testing.assert_array_equal(masked.transform(MASKED), plain.transform(HOLES))
    assert masked.score(MASKED) == plain.score(HOLES)
    codes = np.ma.array([[0.0], [1.0]], mask=[[0], [1]])
    with pytest.raises(InputError, match="NaN or infinity in row 1"):
        masked.inverse_transform(codes)
    codec = Codec(max_epochs=1, random_state=0)
    with pytest.raises(InputError, match="NaN in row"):
        codec.fit(MASKED)
    for container in (pl.DataFrame(X).lazy(), {"rows": X}, (row for row in X)):
        with pytest.raises(InputError, match="not an array of rows: give"):
            codec.fit(X).compress(container)
    back = codec.decompress(codec.compress(MASKED, mode="lossless"))
    np.testing.assert_array_equal(back, HOLES)


GAP = np.ma.array([1, -999], mask=[0, 1])
PAIR = np.empty(2, object)
PAIR[:] = [GAP, GAP]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([GAP, GAP], [[1, np.nan]] * 2),
        ([[GAP, GAP], [GAP, GAP]], [[[1, np.nan]] * 2] * 2),
        (PAIR, [[1, np.nan]] * 2),
        *[
            (pa.table({"a": pa.array(values).dictionary_encode(), "b": [3, 3, 3]}),
             [[5, 3], [1, 3], [np.nan, 3]])
            for values in ([5, 1, None], [5.0, 1.0, None], ["5", "1", None])
        ],
        (pa.record_batch({"a": pa.array([True, None]).dictionary_encode()}), [[1], [np.nan]]),
        (pl.DataFrame({"a": pl.Series([5, None], dtype=pl.Int128)}), [[5], [np.nan]]),
        (np.ma.array([[2**60 + 1, 1], [2, 3]], mask=[[1, 0], [0, 0]]), [[np.nan, 1], [2, 3]]),
        (pd.DataFrame({"a": pd.array([2**53, None], "Int64")}), [[2**53], [np.nan]]),
        ([[2**53, 1.5], [1e300, 2]], [[2**53, 1.5], [1e300, 2]]),
        (torch.ones(2, 2).to(torch.float8_e4m3fn), np.ones((2, 2))),
    ],
)  # fmt: skip
def test_a_gap_is_nan_however_deep_or_coded(data: Any, expected: Any) -> None:
    np.testing.assert_array_equal(admitted(data).squeeze(), np.squeeze(expected))


@pytest.mark.parametrize(
    "data",
    [
        np.ma.array([[BIG, 1], [2, 3]], mask=[[0, 1], [0, 0]]),
        np.ma.array([[BIG, 1], [2, 3]], mask=[[0, 1], [0, 0]], dtype="u8"),
        pa.table({"a": [BIG, None, 3]}),
        pa.table({"a": pa.array([BIG, None]).dictionary_encode()}),
        pa.table({"a": [Decimal(BIG), None]}),
        pd.DataFrame({"a": pd.array([BIG, None], dtype="Int64")}),
        pd.DataFrame({"a": pd.Categorical([BIG, None]), "b": [1.5, 2]}),
        pd.DataFrame({"a": np.array([np.int64(BIG), None], dtype=object)}),
        pd.DataFrame({"a": [str(BIG), "3"]}),
        pl.DataFrame({"a": [BIG, None]}),
        pl.DataFrame({"a": [BIG, None], "b": [1.5, 2]}),
        pl.DataFrame({"a": pl.Series([BIG, None], dtype=pl.Int128)}),
        [[BIG, 1.5], [2, 3]],
        [[[BIG], [1.5]], [[2], [np.int64(3)]]],
    ],
)
def test_an_integer_that_would_become_another_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match=rf"{BIG} is above 2\*\*53"):
        admitted(data)


def test_classes_with_a_gap_are_refused() -> None:
    for y in (np.ma.array([-999, 0, 1, 0], mask=[1, 0, 0, 0]), [np.ma.masked, 0, 1, 0],
              np.ma.array(["a", "b"] * 2, mask=[1, 0, 0, 0]),
              pa.array([5, 7, None, 5]).dictionary_encode()):  # fmt: skip
        with pytest.raises(InputError, match=r"y holds (missing values|NaN)"):
            ConditionalVAE(**SMALL).fit(X[:4], y)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_fitted_model_cannot_choose_what_nan_means(in_memory: bool) -> None:
    model = Autoencoder(**SMALL, in_memory=in_memory).fit(X)
    with pytest.raises(InputError, match='or fit again and let missing="mask"'):
        model.transform(Stored(HOLES))


# ------------------------------------------------------------------------------ containers


class File:
    """Stands for h5py.File and xarray.Dataset: entries by name, and no array."""

    def __init__(self, **entries: Any) -> None:
        self.entries = entries

    def keys(self) -> Any:
        return self.entries.keys()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]


class Later:
    """Stands for the frames of dask and Spark, whose values are computed later."""

    columns = ("a", "b")

    def __init__(self, method: str) -> None:
        setattr(self, method, lambda: pd.DataFrame(X))


RECORDS = [{"a": a, "b": b} for a, b in X[:, :2].tolist()]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(
    "make",
    [
        lambda: pl.DataFrame(X).lazy(),
        lambda: torch.from_numpy(X).to_sparse(),
        lambda: torch.from_numpy(X).to_sparse_csr(),
        lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X))),
        lambda: {"first": list(X[:, 0]), "second": X[:, 1]},
        lambda: {"ids": np.arange(N), "rows": X},
        lambda: Bunch(data=X, target=np.arange(N)),
        lambda: File(time=np.arange(N), rows=X),
        lambda: Later("compute"),
        lambda: Later("toPandas"),
        lambda: (row for row in X),
        lambda: iter(X.tolist()),
        lambda: np.array([tuple(row) for row in X.tolist()], dtype=[(c, "f8") for c in "abcdef"]),
        lambda: pd.DataFrame(X, columns=list("abcdef")).to_records(),
        lambda: RECORDS,
        lambda: pa.table({"a": X[:, 0], "b": X[:, 1]}).to_reader(),
        lambda: BASE.groupby("a"),
        lambda: np.ma.array(
            [tuple(r) for r in X[:, :2].tolist()],
            dtype=[("a", float), ("b", float)],
            mask=[(0, 1)] * N,
        ),
    ],
)
def test_a_container_that_is_no_array_gets_the_remedy_that_it_has(make: Any) -> None:
    with pytest.raises(
        InputError, match=r"not (an array of rows|rows of numbers): give "
    ) as caught:
        admitted(make())
    advice = str(caught.value).partition(": give ")[2].removesuffix(".")
    found = admitted(eval(advice, {"X": make(), "pandas": pd}))  # as a reader would type it
    assert len(found) == N


@pytest.mark.filterwarnings("ignore:The PyTorch API of")
def test_other_containers_get_one_sentence() -> None:
    for data in ({}, {1, 2}, object(), range(9), pd.Series(X[:, 0]), b"bytes", File(), [None] * 9,
                 torch.zeros(3, 2, device="meta"), np.array([None, X], dtype=object),
                 [np.zeros(2), np.zeros(3)] * 5):  # fmt: skip
        with pytest.raises(InputError) as caught:
            admitted(data)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    for data, words in (
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "X.to_padded_tensor"),
        (torch.masked.masked_tensor(torch.ones(2, 2), torch.ones(2, 2) > 0), "X.to_tensor"),
        (pa.array([[1, 2], [3, 4]]), "give X.to_pylist()"),
        (pl.DataFrame({"w": [{"x": 1}] * 2}), "'w' of X holds a dict"),
        (pl.DataFrame({"w": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2))}), "numpy.stack of"),
        (pd.DataFrame([[1, 2]] * 2, columns=["a", "a"]), "give each column its own name"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            admitted(data)
    with pytest.raises(InputError, match=r"numpy.reshape\(X, \(-1, 1\)\) is one feature"):
        admitted(X[:, 0])
    assert admitted(np.reshape(pd.Series(X[:, 0]), (-1, 1))).shape == (N, 1)


# ------------------------------------------------------------------------------ columns

WHEN = pd.date_range("2020", periods=N)
BASE = pd.DataFrame(X[:, :2], columns=["a", "b"])


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (WHEN, "dates or times"),
        (WHEN.tz_localize("UTC"), "dates or times"),
        (WHEN.to_period("D"), "dates or times"),
        (WHEN - WHEN[0], "dates or times"),
        (pd.Categorical(["u", "v"] * (N // 2)), r"words \('u'\).*OneHotEncoder"),
        (["1", "x"] * (N // 2), r"words \('x'\)"),
        ([[1, 2]] * N, "a list in each row"),
        ([1j] * N, "complex numbers"),
        ([{"x": 1}] * N, "dict.*a column of each"),
        (["1,5", "2"] * (N // 2), "'1,5', a decimal comma: write 1.5"),
        (["NA", "2"] * (N // 2), "'NA', which is no number; put NaN"),
        (["", "2"] * (N // 2), "'', which is no number; put NaN"),
        (["1_000", "2"] * (N // 2), "'1_000', thousands separators: write 1000"),
        ([10**400, 2] * (N // 2), "holds int"),
        ([2**53 + 1] * N, r"above 2\*\*53"),
        (pd.Series([2**53 + 1, 0.5] * (N // 2), dtype=object), r"above 2\*\*53"),
    ],
)
def test_the_column_at_fault_is_named(column: Any, words: str) -> None:
    values = pd.Series(column, dtype=object) if isinstance(column, list) else column
    for frame in (BASE.assign(w=values), BASE.assign(w=column)):
        with pytest.raises(InputError, match=f"olumn 'w' of X.*{words}"):
            admitted(frame)
        admitted(frame.drop(columns="w"))


def test_columns_of_other_libraries_are_named_too() -> None:
    for column in (["u"] * N, [datetime.date(2020, 1, 1)] * N, [[1.0]] * N):
        for frame in (pl.DataFrame(X).with_columns(pl.Series("w", column)),
                      pa.table({"a": X[:, 0], "w": column})):  # fmt: skip
            with pytest.raises(InputError, match="Column 'w' of X holds"):
                admitted(frame)
    encoder = OneHotEncoder(sparse_output=False)
    assert admitted(encoder.fit_transform(pd.DataFrame({"w": ["u", "v"] * 5}))).shape == (10, 2)


def test_what_is_a_number_in_one_container_is_one_in_all() -> None:
    text = np.array([["1", "2.5"], ["3", "-4e2"]])
    for data in (text, text.astype(object), text.tolist(), pd.DataFrame(text), pl.DataFrame(text)):
        np.testing.assert_array_equal(admitted(data), text.astype(float))
    decimals = pd.DataFrame({"a": [Decimal("1.5"), None], "b": [True, False]})
    np.testing.assert_array_equal(admitted(decimals), [[1.5, 1], [np.nan, 0]])
    categories = pd.DataFrame({"a": pd.Categorical([3, 1]), "b": [1.5, 2]})
    np.testing.assert_array_equal(admitted(categories), [[3, 1.5], [1, 2]])
    assert admitted(pd.DataFrame({"a": [2**60 + 1, 2], "b": [3, 4]}))[0, 0] == 2**60 + 1
    with pytest.raises(InputError, match=r"Column 1 of X holds words \('x'\)"):
        admitted(np.array([[1, 2], [3, "x"]], dtype=object))


def test_a_column_without_any_value_is_named() -> None:
    frame = pd.DataFrame(HOLES, columns=list("abcdef")).assign(c=np.nan)
    with pytest.raises(InputError, match=r"Column \('c'\) of X is NaN in every training row"):
        Autoencoder(**SMALL, missing="mask").fit(frame)


# ------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("widths", [7, np.int64(7), [7], np.array([7]), (7,), np.array(7)])
def test_one_width_an_array_or_a_list_is_a_tuple(widths: Any, tmp_path: Any) -> None:
    ae = Autoencoder(**SMALL, hidden_layer_sizes=widths).fit(X)
    assert ae.choices_.hidden == (7,)
    assert ae.hidden_layer_sizes is widths
    again = Autoencoder.load(ae.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.transform(X), ae.transform(X))
    assert again.set_params(warm_start=True).fit(X).partial_fit(X).choices_.hidden == (7,)


def test_every_parameter_of_widths_takes_one_int() -> None:
    images = X[:, :4].reshape(N, 2, 2)
    conv = Autoencoder(**SMALL, architecture="conv", channels=4).fit(images)
    assert conv.choices_.channels == (4,)
    critic = AdversarialAE(**SMALL, critic_layer_sizes=np.array([8, 4])).fit(X)
    assert np.isfinite(critic.transform(X)).all()
    assert Autoencoder(**SMALL, input_shape=6).fit(X).input_shape_ == (6,)
    assert Codec(max_epochs=1, random_state=0, hidden_layer_sizes=8).fit(X).choices_.hidden == (8,)
    with pytest.raises(ParameterError, match="block needs two sides"):
        Codec(block=8).fit(images)


@pytest.mark.parametrize("widths", [7.5, True, [7, 0], np.array([1.5]), np.array([[7]]), "seven"])
def test_what_is_no_width_is_refused(widths: Any) -> None:
    with pytest.raises(ParameterError, match="an int or a tuple of ints"):
        Autoencoder(**SMALL, hidden_layer_sizes=widths).fit(X)


@pytest.mark.parametrize("value", [0.0, 1.0, True])
def test_a_constant_of_ones_is_restored_exactly(value: Any) -> None:
    data = np.full((N, 4), value)
    ae = Autoencoder(**SMALL).fit(data)
    assert ae.distance_ == "mse" and ae.score(data) == 1.0
    np.testing.assert_array_equal(np.rint(ae.reconstruct(data)), data)


@pytest.mark.parametrize("first", [X[:2], (X[:2] > 0) * 1.0, np.zeros((3, 6)), (X > 0) * 1.0])
def test_the_first_rows_of_partial_fit_do_not_decide_for_ever(first: np.ndarray) -> None:
    data = np.tile(X, (4, 1))
    ae = Autoencoder(latent_dim=2, random_state=0).partial_fit(first)
    ae.partial_fit(data)
    whole = Autoencoder(latent_dim=2, random_state=0).partial_fit(data)
    assert ae.distance_ == "mse" and len(ae.history_) == 2
    assert ae.score(X) > whole.score(X) - 0.1


def test_small_calls_of_partial_fit_learn_from_all_rows_so_far() -> None:
    ae = Autoencoder(latent_dim=2, random_state=0)
    for start in range(0, N, 10):
        ae.partial_fit(X[start : start + 10])
    np.testing.assert_allclose(ae.scaling_.shift, X[:50].mean(0), atol=1e-6)
    assert [entry["epoch"] for entry in ae.history_] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match="5 features"):
        Autoencoder(random_state=0).partial_fit(X[:3]).partial_fit(X[:, :5])
    fitted = Autoencoder(**SMALL).partial_fit(X[:3]).fit(X[:30])
    scale = fitted.scaling_
    assert fitted.partial_fit(X).scaling_ == scale  # what fit decided stays
