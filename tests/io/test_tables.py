"""Tables as people's programs write them: read truly, or refused with advice that works."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from narrows import Autoencoder
from narrows.exceptions import InputError
from narrows.io.read import read

nan = np.nan


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in which the commands of advice write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "t.csv") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def refusal(source: str) -> str:
    """The one sentence with which a file is refused; it names the file."""
    with pytest.raises(InputError) as caught:
        read(source)
    assert "\n" not in str(caught.value) and source in str(caught.value)
    return str(caught.value)


def follow(source: str) -> str:
    """Do what the refusal of a file says in a command of pandas or numpy; the file it writes."""
    said = re.search(r"(pandas|numpy)\..*\)", refusal(source))
    assert said
    exec(said[0], {"pandas": pd, "numpy": np})  # as a reader would paste it
    found = [
        name for name in ("numbers.csv", "numbers.parquet", "numbers.npy") if Path(name).exists()
    ]
    assert len(found) == 1
    return found[0]


# ------------------------------------------------------------------------------ what is read

AB = [[1, 2], [3, 4], [5, 9]]


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("a,b\n1,\n,4\n", "ab", [[1, nan], [nan, 4]]),
        ("1,2\n3,NA\nnull,N/A\n-,?\n<NA>,.\n", None, [[1, 2], [3, nan], *[[nan, nan]] * 3]),
        ('a\n1\n""\n3\n', "a", [[1], [nan], [3]]),  # pandas: one column with a gap
        ("a b\n1 NaN\nNA 4\n", "ab", [[1, nan], [nan, 4]]),
        ("a,b\nTrue,yes\nFalse,no\n,NO\n", "ab", [[1, 1], [0, 0], [nan, 0]]),
        ("TRUE,1\nFALSE,2\n", None, [[1, 1], [0, 2]]),
        ("a,b\n1,1.5\nTrue,2\n", "ab", [[1, 1.5], [1, 2]]),  # pandas: a column of 1 and True
        ("a|b\n1|2\n3|4\n5|9\n", "ab", AB),
        ("sep=;\na;b\n1;2\n3;4\n5;9\n", "ab", AB),
        ('"sep=\t"\r\na\tb\r\n1\t2\r\n3\t4\r\n5\t9\r\n', "ab", AB),
        ("# made by x\n# on y, z\na,b\n1,2\n3,4\n5,9\n", "ab", AB),
        ("# made by x\n\n1,2\n3,4\n5,9\n", None, AB),
        ("# a,b\n1,2\n3,4\n5,9\n", "ab", AB),  # numpy.savetxt(header=)
        ("# a b\n1 2\n3 4\n5 9\n", "ab", AB),
        ("#chrom\tstart\n1\t2\n3\t4\n5\t9\n", ["chrom", "start"], AB),
        ("a,b,\n1,2,\n3,4,\n5,9,\n", "ab", AB),  # a comma at the end of each line
        (",a,b\n0,1,2\n1,3,4\n2,5,9\n", "ab", AB),
        (",a,b\n0,1,2\n", "ab", [[1, 2]]),
        (",2019,2021\n0,1,2\n1,3,4\n2,5,9\n", ["2019", "2021"], AB),
        ("total,2019\n1,2\n3,4\n5,9\n", ["total", "2019"], AB),
        ("9007199254740992,2\n1e300,9007199254740993.5\n", None,
         [[2**53, 2], [1e300, 9007199254740993.5]]),
    ],
)  # fmt: skip
def test_what_is_stored_is_read(
    text: str, names: list[str] | None, rows: list[list[float]]
) -> None:
    data = read(written(text))
    np.testing.assert_array_equal(data.X, rows)
    assert data.feature_names == (names and list(names))


@pytest.mark.parametrize(
    "text",
    [
        '"","a","b"\n"1",1,2\n"2",3,4\n"3",5,9\n',  # R: write.csv
        ",a,b\n5,1,2\n3,3,4\n9,5,9\n",  # pandas: a part of a frame, or a shuffled one
        "Unnamed: 0,a,b\n1,1,2\n2,3,4\n3,5,9\n",  # read without index_col and written again
        ",Unnamed: 0,a,b\n7,1,1,2\n8,2,3,4\n9,3,5,9\n",
        '"","a","b"\n"Mazda RX4",1,2\n"Datsun 710",3,4\n"Fiat 128",5,9\n',
        ",a,b\n2020-01-01,1,2\n2020-01-02,3,4\n2020-01-03,5,9\n",
        '"a" "b"\n"1" 1 2\n"2" 3 4\n"3" 5 9\n',  # R: write.table
        '"a" "b"\n"Mazda RX4" 1 2\n"Datsun 710" 3 4\n"Fiat 128" 5 9\n',
        "a,b\n1,1,2\n2,3,4\n3,5,9\n",
        ",,a,b\nu,0,1,2\nu,1,3,4\nv,0,5,9\n",  # pandas: two levels
    ],
)
def test_an_index_without_a_name_is_left_out_and_said(text: str) -> None:
    with pytest.warns(UserWarning, match=r"no names? in 't.csv': left out as an index"):
        data = read(written(text))
    assert data.feature_names == ["a", "b"]
    np.testing.assert_array_equal(data.X, AB)


@pytest.mark.parametrize("first", [(0.5, 0.7, 0.9), (1, 2, 1)])
def test_a_column_that_is_no_index_is_kept_and_said(first: tuple[float, ...]) -> None:
    rows = "".join(f"{i},{a},{b}\n" for i, (a, b) in zip(first, AB, strict=True))
    with pytest.warns(UserWarning, match="no name in 't.csv': read as data"):
        data = read(written(",a,b\n" + rows))
    assert data.feature_names == ["column 1", "a", "b"]
    assert data.X[:, 0].tolist() == list(first)


@pytest.mark.parametrize(
    "text", ["2019,2020,2021\n1.5,2.5,3.5\n", "2018,2019\n5,7\n", "1,2,3\n0.1,0.2,0.3\n",
             "10,20,30\n0.1,0.2,0.3\n"]
)  # fmt: skip
def test_a_header_of_numbers_is_asked_about_and_the_advice_works(text: str) -> None:
    with pytest.warns(UserWarning, match="if it is the header, put a letter before each name"):
        assert len(read(written(text)).X) == 2
    header, row = text.splitlines()
    lettered = ",".join("y" + name for name in header.split(","))
    data = read(written(f"{lettered}\n{row}\n"))
    assert data.feature_names == lettered.split(",")


@pytest.mark.parametrize("text", ["1,2,3\n4,5,6\n", "2019,2020\n2021,2022\n", "0.5,1.5\n2,3\n"])
def test_rows_of_numbers_are_no_header(text: str) -> None:
    assert len(read(written(text)).X) == 2  # and no warning, which would be an error here


def test_both_readers_give_the_same_numbers() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)) * 10.0 ** np.arange(-150, 150, 6)[:, None]
    frame = pd.DataFrame(X, columns=list("abc"))
    frame.to_csv("fast.csv", index=False)
    frame.assign(d=[True, None] * 25).to_csv("slow.csv", index=False)
    np.testing.assert_array_equal(read("fast.csv").X, X)
    np.testing.assert_array_equal(read("slow.csv").X[:, :3], X)


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("cell", "advice"),
    [
        ('"1,234"', "a thousands separator, or a decimal comma: write 1234 or 1.234."),
        ('"1,5"', "a decimal comma: write 1.5"),
        ('"0,123"', "a decimal comma: write 0.123"),
        ('"1,234,567"', "a thousands separator: write 1234567"),
        ('"1,234.5"', "a thousands separator: write 1234.5"),
        ('"-1.234,5"', "a thousands separator and a decimal comma: write -1234.5"),
        ("1.234.567", "thousands separators: write 1234567"),
        ("1 234", "thousands separators: write 1234"),
        ("1\u202f234", "thousands separators: write 1234"),
        ("1'234.5", "thousands separators: write 1234.5"),
        ("1_000", "thousands separators: write 1000"),
        ("$1.5", "a currency or percent sign: write 1.5"),
        ('"€ 1,234.50"', "a currency or percent sign: write 1234.50"),
        ("1.5%", "a currency or percent sign: write 1.5"),
        ("1D5", "the exponent of Fortran: write 1E5"),
        ("0x1F", "a hexadecimal number: write 31"),
        ("'1'", "quotation marks: write 1"),
        ("\u22125", "a minus sign other than '-': write -5"),
        ("(5)", "a negative number in brackets: write -5"),
        ("9007199254740993", "above 2**53"),
        ("9007199254740993.0", "above 2**53"),
        ('"1,23,456"', "thousands separators: write 123456"),
        ("12345678901234567891", "leave the column out if it is an identifier"),
    ],
)
def test_numbers_in_other_spellings_are_named_and_the_right_one_told(
    cell: str, advice: str
) -> None:
    source = written(f"a,b\n1,{cell}\n2,{cell}\n3,{cell}\n")
    said = refusal(source)
    assert 'line 2, column 2 "b"' in said and advice in said and "get_dummies" not in said
    told = re.findall(r"(?:write|or|give) (-?[\d.Ee+]+?)(?=[.,]?(?: |$|,))", said)
    for number in told:  # each of them is read
        text = Path(source).read_text(encoding="utf-8").replace(cell, number)
        assert read(written(text, "again.csv")).X[0, 1] == float(number)
    assert told


def test_other_cells_tell_a_decimal_comma_from_a_separator() -> None:
    assert "found '1,234', a decimal comma" in refusal(written("a;b\n1,234;2\n1,5;3\n"))
    assert "found '1,234', a thousands" in refusal(written("a;b\n1,234;2\n1,234,567;3\n"))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a;b\n1,5;2\n3,25;4\n", [[1.5, 2], [3.25, 4]]),
        ("a;b\n1.234,5;2\n3;4\n", [[1234.5, 2], [3, 4]]),
        ('a,b\n"1,234.5",2\n"4,567,000",5\n', [[1234.5, 2], [4567000, 5]]),
        ("1,5;2\n3,25;4\n", [[1.5, 2], [3.25, 4]]),
        ("# x\na;b\n1,5;2\n;4\n", [[1.5, 2], [nan, 4]]),
        ('[{"a": 1, "b": 2.5}, {"a": 3, "b": null}]', [[1, 2.5], [3, nan]]),
        ('{\n"a": [1, 3],\n"b": [2.5, 4]}', [[1, 2.5], [3, 4]]),
        ('{"data": [[1, 2], [3, 4]]}', [[1, 2], [3, 4]]),
        ('{"n": 2, "rows": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}', [[1, 2], [3, 4]]),
        ('{"columns": ["a", "b"], "index": [0, 1], "data": [[1, 2], [3, 4]]}', [[1, 2], [3, 4]]),
        ('{"a": 1, "b": 2.5}\n{"a": 3, "b": 4}\n', [[1, 2.5], [3, 4]]),
        ("a,b\n1,red\n2,blue\n3,red\n", [[1, 0, 1], [2, 1, 0], [3, 0, 1]]),
        ("a,b\n1,u1\n2,u2\n3,u3\n4,u4\n5,u5\n6,u6\n", [[1], [2], [3], [4], [5], [6]]),
        ("1,x,u\n2,y,v\n", [[1, 1, 0, 1, 0], [2, 0, 1, 0, 1]]),
        ("1;x;?\n2;y;2.5\n", [[1, nan, 1, 0], [2, 2.5, 0, 1]]),
        ("a|b|when\n1|x|2020-01-01\n2|x|2020-01-01\n", [[1, 1], [2, 1]]),
        (",a,b\n7,1,x\n9,2,y\n", [[1, 1, 0], [2, 0, 1]]),
        ('"a","b"\n"r1",1,x\n"r2",2,y\n', [[1, 1, 0], [2, 0, 1]]),
        ("# by x\na b\n1 x\n2 y\n", [[1, 1, 0], [2, 0, 1]]),
        ('"a" "k"\n"1" 1 "x"\n"2" 2 "y"\n', [[1, 1, 0], [2, 0, 1]]),
        ("name\nNew York 1\nRome\n", None),
        ("a\n1,5\n2,5\n3,5\n", [[1.5], [2.5], [3.5]]),
        ("a\n7\n2,25\n-3,75\n", [[7], [2.25], [-3.75]]),
        ("a;b\n1,5;2.5\n3,5;4\n", [[1.5, 2.5], [3.5, 4]]),
        ("a;b\n1.234,5;2.345,5\n4;3\n", [[1234.5, 2345.5], [4, 3]]),
        ("a , when \n1 , 2020-01-01\n2 , 2020-01-02\n", [[1], [2]]),
        ('a, "when"\n1, "2020-01-01"\n2, "2020-01-02"\n', [[1], [2]]),
        (",a\n2020-01-01,1\n2020-01-01,2\n", [[1], [2]]),
        (",a,b\n2020-01-01,1,x\n2020-01-01,2,y\n", [[1, 1, 0], [2, 0, 1]]),
        ("a,b\n1,red\n2,nan\n3,blue\n4,red\n", [[1, 0, 1], [2, 0, 0], [3, 1, 0], [4, 0, 1]]),
    ],
)
@pytest.mark.filterwarnings("ignore:The first column has no name")
def test_following_the_advice_gives_the_numbers(
    text: str, numbers: list[list[float]] | None
) -> None:
    source = written(text)
    if numbers is None:
        assert "words" in refusal(source)
        return
    np.testing.assert_array_equal(read(follow(source)).X, numbers)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("d;v\n01.02.2020;1.100,5\n02.02.2020;1.101,5\n", "misreads '01.02.2020' in column \"d\""),
        ("a;b\n1.234,5;2.5\n4.567,8;3.5\n", "misreads '2.5' in column"),
        ("a;b\n1,234,567;1,5\n4,567,890;2,5\n", "misreads '1,5' in column"),
        ("a;b\n1,5;2\n3.5;4\n", "misreads '3.5' in the same column"),
        ("a,b\n1,5,2,5\n3,5,4,5\n", "if this is a decimal comma, write 1.5, 2.5; otherwise"),
        ('a,b\n"1,2\n3,4\n5,6\n', "line 2: a quotation mark opens a cell"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: a quotation mark opens a cell"),
        ('"1;2\n3;4\n', "line 1: a quotation mark opens a cell"),
        ('1,2\n3,"4\n"\n5,x\n', "line 4, column 2: found 'x'"),
        ("a,b\n1,1.2K\n2,3M\n", "a number with a unit: write the numbers alone"),
        ('a,b\n1,5"\n2,6"\n', "a number with a unit"),
        ("a,b\n1,1/2\n2,1 3/4\n", "a fraction: write"),
        ("a,b\n1,1 days 00:00:00\n2,-1 days 01:00:00\n", "a length of time"),
        ("a,b\n1,1.5 million\n2,PT5M\n", "only words"),
    ],
)
def test_what_only_its_writer_can_mend_gets_no_command_that_spoils_it(
    text: str, words: str
) -> None:
    said = refusal(written(text))
    assert words in said and ("pandas." not in said or "only words" in said)


def test_a_row_in_quotation_marks_begins_where_it_begins() -> None:
    np.testing.assert_array_equal(read(written('"1\n",5\n2,3\n')).X, [[1, 5], [2, 3]])


@pytest.mark.parametrize(
    "text", [",5.5,7.25\n1,2,3\n3,4,5\n", ",5\n1,2\n3,4\n", ",400,500\n0.0,1,2\n"]
)
def test_a_first_row_that_begins_with_a_gap_is_kept_and_asked_about(text: str) -> None:
    with pytest.warns(UserWarning, match="if it is the header, put a letter before each name"):
        assert np.isnan(read(written(text)).X[0, 0])
    np.testing.assert_array_equal(read(written(",5,7\n0,1,2\n1,3,4\n")).X, [[1, 2], [3, 4]])


@pytest.mark.parametrize("gap", ["nan", "NaN", "-nan", "NA", ""])
def test_a_gap_is_no_number_among_booleans(gap: str) -> None:
    for other in ("3,False", "0,1\n3,0"):
        X = read(written(f"a,b\n1,True\n2,{gap}\n{other}\n")).X
        assert np.isnan(X[1, 1]) and X[0, 1] == 1 and X[-1, 1] == 0


def test_what_is_no_table_is_called_what_it_is() -> None:
    for text, words in {
        "<!DOCTYPE html>\n<html>": "a web page",
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3": "git lfs pull",
        "@relation x\n@data\n1,2\n": "ARFF",
        "1 1:0.5 3:2\n0 2:1\n": "load_svmlight_file",
        "a,b\n1,2\n# the end\n": "begins with '#': remove comments",
        "a,b\n5,1\n1e400,3\n": "above 1.8e308, the largest float64",
        "a,b\n5,1\n5.5,3\nno,2\n": "found 'no' in a column of numbers",
        "a,b\n5,1\n5.5,nan\nno,2\n": "found 'no' in a column of numbers",
    }.items():
        assert words in refusal(written(text))


# ------------------------------------------------------------------------------ parquet


def test_columns_of_parquet_that_hold_no_numbers_get_a_command_that_works() -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n = 12
    base = pd.DataFrame({"a": np.arange(n) / 2})
    embedded = base.assign(e=[[float(i), 1.0] for i in range(n)])
    for frame, shape in (
        (base.assign(kind=["u", "v"] * 6), (n, 3)),
        (base.assign(kind=pd.Categorical(["u", "v"] * 6)), (n, 3)),
        (base.assign(name=[f"n{i}" for i in range(n)]), (n, 1)),
        (base.assign(when=pd.date_range("2020", periods=n, tz="UTC")), (n, 1)),
        (base.assign(when=pd.date_range("2020", periods=n), kind=["u", "v"] * 6), (n, 3)),
        (base.assign(text=["1.5", "2"] * 6), (n, 2)),
        (base.assign(text=["1.5", "NA", ""] * 4), (n, 2)),
        (base.assign(text=[b"1.5", b"2"] * 6), (n, 2)),
        (base.assign(text=[b"u", b"v"] * 6), (n, 3)),
        (embedded, (n, 2)),
    ):
        for old in Path().glob("numbers.*"):
            old.unlink()
        frame.to_parquet("t.parquet")
        assert read(follow("t.parquet")).X.shape == shape
    base.assign(text=["1,5", "2"] * 6).to_parquet("t.parquet")
    assert "'1,5', a decimal comma: save it as the number 1.5" in refusal("t.parquet")
    view = pa.table({"a": pa.array(["1", "2"], pa.string_view())})
    pq.write_table(view, "t.parquet")
    assert ".astype({'a': float})" in refusal("t.parquet")
    big = pa.array([Decimal("12345678901234567890"), None], pa.decimal128(38, 0))
    pq.write_table(pa.table({"a": big}), "t.parquet")
    assert "12345678901234567890 is above 2**53" in refusal("t.parquet")


# ------------------------------------------------------------------------------ whole tables


def penguins(rng: np.random.Generator, n: int = 60) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "species": rng.choice(["Adelie", "Gentoo", "Chinstrap"], n),
            "island": rng.choice(["Dream", "Biscoe"], n),
            "bill_length_mm": rng.normal(44, 5, n).round(1),
            "flipper_length_mm": rng.integers(170, 230, n).astype(float),
            "sex": rng.choice(["male", "female"], n),
            "year": rng.integers(2007, 2010, n),
        }
    )
    frame.loc[3, ["bill_length_mm", "flipper_length_mm", "sex"]] = None
    return frame


def titanic(rng: np.random.Generator, n: int = 80) -> pd.DataFrame:
    age = rng.integers(1, 80, n).astype(float)
    return pd.DataFrame(
        {
            "PassengerId": np.arange(1, n + 1),
            "Survived": rng.integers(0, 2, n),
            "Name": [f"Braund, Mr. Owen {i} (Harris)" for i in range(n)],
            "Sex": rng.choice(["male", "female"], n),
            "Age": np.where(rng.random(n) < 0.2, np.nan, age),
            "Ticket": [str(113803 + i) if i % 3 else f"A/5 2117{i}" for i in range(n)],
            "Fare": rng.gamma(2, 15, n).round(4),
            "Cabin": [f"C{i}" if i % 4 == 0 else None for i in range(n)],
            "Embarked": rng.choice(["S", "C", "Q", None], n),
            "alone": rng.random(n) < 0.5,
        }
    )


def adult(rng: np.random.Generator, n: int = 80) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, n),
            "workclass": rng.choice([" Private", " State-gov", " ?"], n),
            "fnlwgt": rng.integers(10_000, 900_000, n),
            "education": rng.choice([" Bachelors", " HS-grad", " 11th"], n),
            "capital-gain": rng.choice(["0", "2174", "?"], n, p=[0.8, 0.15, 0.05]),
            "income": rng.choice([" <=50K", " >50K"], n),
        }
    )


@pytest.mark.parametrize("make", [penguins, titanic, adult])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.filterwarnings("ignore:The first column has no name")
def test_tables_as_pandas_writes_them_are_fitted_after_the_advice(
    make: Callable[[np.random.Generator], pd.DataFrame], index: bool
) -> None:
    frame = make(np.random.default_rng(0)).sample(frac=1, random_state=0)
    frame.to_csv("t.csv", index=index)
    data = read(follow("t.csv"))
    numbers = frame.select_dtypes(["number", "bool"])
    assert data.feature_names is not None
    assert data.feature_names[: len(numbers.columns)] == list(numbers.columns) or make is adult
    for name in numbers:  # what were numbers are the same ones
        column = data.X[:, data.feature_names.index(name)]
        np.testing.assert_array_equal(column, numbers[name].astype(float))
    if make is adult:
        gain = data.X[:, data.feature_names.index("capital-gain")]
        np.testing.assert_array_equal(gain, pd.to_numeric(frame["capital-gain"], errors="coerce"))
    small = {"latent_dim": 2, "max_epochs": 1, "random_state": 0, "hidden_layer_sizes": (8,)}
    with pytest.raises(InputError, match=r'NaN in row .* missing="mask" \(--missing mask\)'):
        Autoencoder(**small).fit(data.X)
    assert np.isfinite(Autoencoder(**small, missing="mask").fit(data.X).score(data.X))


def test_fifty_thousand_columns_are_read() -> None:
    X = np.arange(150_000.0).reshape(3, 50_000)
    X[1, 7] = np.nan
    header = ",".join(f"g{i}" for i in range(50_000))
    body = "\n".join(",".join("" if v != v else str(v) for v in row) for row in X.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(written(f"{header}\n{body}\n"))
    np.testing.assert_array_equal(data.X, X)
