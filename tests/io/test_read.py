"""The reader: files give what was saved in them, and errors are one sentence with the name."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from narrows.exceptions import FileError, InputError, NarrowsError, ParameterError
from narrows.io.read import read, read_labels

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def idx_bytes(X: np.ndarray, code: int) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in X.shape)
    return bytes([0, 0, code, X.ndim]) + sizes + X.astype(X.dtype.newbyteorder(">")).tobytes()


def refusal(source: str | Path, kind: type[NarrowsError] = InputError) -> str:
    """The sentence with which ``source`` is refused; it is one line and names the file."""
    with pytest.raises(kind) as caught:
        read(source)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert Path(source).name in sentence
    return sentence


# ---------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["u1", "f2", "i4", "f8", "?"])
def test_npy_keeps_values_and_dtype(tmp_path: Path, dtype: str) -> None:
    X = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    data = read(tmp_path / "x.npy")
    assert data.X.dtype == X.dtype
    np.testing.assert_array_equal(data.X, X)
    assert data.y is None
    assert data.name == "x.npy"


def test_npy_is_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    assert isinstance(read(tmp_path / "x.npy").X, np.memmap)


def test_npz_gives_X_and_y_whatever_else_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=np.arange(3)[:, None], weights=np.ones(9))
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, np.eye(3))
    np.testing.assert_array_equal(data.y, [0, 1, 2])


def test_npz_gives_its_only_array(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", pictures=np.eye(3), y=np.arange(3))
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, np.eye(3))
    np.testing.assert_array_equal(data.y, [0, 1, 2])


def test_npz_with_several_arrays_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=np.eye(2), right=np.eye(2))
    assert "left, right" in refusal(tmp_path / "a.npz")


def test_a_sparse_npz_is_refused_by_name(tmp_path: Path) -> None:
    import scipy.sparse

    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.csr_matrix(np.eye(3)))
    assert "sparse" in refusal(tmp_path / "s.npz")


@pytest.mark.parametrize("name", ["o.npy", "o.npz"])
def test_arrays_of_objects_are_never_unpickled(tmp_path: Path, name: str) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [[1, 2], [3]]
    with (tmp_path / name).open("wb") as file:
        np.save(file, ragged, allow_pickle=True) if name.endswith("y") else np.savez(file, X=ragged)
    assert "Python objects" in refusal(tmp_path / name, FileError)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_numpy_files_cut_anywhere_are_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        (np.save if name.endswith("y") else np.savez)(file, np.arange(6.0).reshape(2, 3))
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:length])
        refusal(tmp_path / name, InputError if length == 0 else FileError)


@pytest.mark.parametrize(
    ("X", "word"),
    [
        (np.zeros(3), r"(3,)"),
        (np.array([["a"]]), "<U1"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros(2, "i4,f4"), "numbers"),
    ],
)
def test_arrays_that_are_not_rows_of_numbers(tmp_path: Path, X: np.ndarray, word: str) -> None:
    np.save(tmp_path / "x.npy", X)
    assert word in refusal(tmp_path / "x.npy")


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(3), y=np.arange(4))
    assert "3 rows" in refusal(tmp_path / "a.npz")


# ---------------------------------------------------------------------------------- tables

ROWS = [[1.5, 2, -3e30], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1.5,2,-3e30\n4,5,6\n", None),
        ("a,b,c\n1.5,2,-3e30\n4,5,6\n", ["a", "b", "c"]),
        ("a;b;c\n1.5;2;-3e30\n4;5;6", ["a", "b", "c"]),
        ("a\tb\tc\r\n1.5\t2\t-3e30\r\n4\t5\t6\r\n", ["a", "b", "c"]),
        ("a b  c\n1.5 2 -3e30\n4   5 6\n", ["a", "b", "c"]),
        ('"a, in m",b,c\n"1.5", 2 ,-3e30\n\n4,5,6\n\n', ["a, in m", "b", "c"]),
        ("\ufeffa,b,c\n1.5,2,-3e30\n4,5,6\n", ["a", "b", "c"]),
        ("id,2019,2020\n1.5,2,-3e30\n4,5,6\n", ["id", "2019", "2020"]),
        ("0,1,2\n1.5,2,-3e30\n4,5,6\n", ["0", "1", "2"]),
        (",0,1,2\n0,1.5,2,-3e30\n1,4,5,6\n", ["0", "1", "2"]),
        ('a, "b, in m",c\n1.5,2,-3e30\n4,5,6\n', ["a", "b, in m", "c"]),
        ("a,,c\n1.5,2,-3e30\n4,5,6\n", ["a", "column 2", "c"]),
    ],
)
def test_csv_headers_and_delimiters(write: Write, text: str, names: list[str] | None) -> None:
    data = read(write("t.csv", text))
    np.testing.assert_array_equal(data.X, ROWS)
    assert data.X.dtype == np.float64
    assert data.feature_names == names


def test_csv_gz(write: Write) -> None:
    data = read(write("t.csv.gz", gzip.compress(b"a,b\n1,2\n")))
    np.testing.assert_array_equal(data.X, [[1, 2]])


def test_csv_leaves_nan_and_infinity_to_the_estimator(write: Write) -> None:
    np.testing.assert_array_equal(
        read(write("t.csv", "1,nan\ninf,2")).X, [[1, np.nan], [np.inf, 2]]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3,four\n", ["line 3", 'column 2 "b"', "'four'", "correct it"]),
        ("a,b\n1,red\n3,blue\n", ["line 2", "'red'", 'column "b" holds only words', "get_dummies"]),
        ("1,x,u\n2,y,v\n", ["line 1", "column 2", "columns 2, 3 hold only words"]),
        ("1,2\n3\n", ["line 2", "expected 2 cells", "found 1"]),
        ("1,2\n3,4,5\n", ["line 2", "expected 2 cells", "found 3"]),
        ("a,b\n1,2,3\n1,2,3\n", ["line 2", "expected 2 cells", "found 3"]),
        ("a;b\n1,5;2\n3;4\n", ["line 2", "'1,5'", "decimal comma"]),
        ("a,b\n", ["no rows"]),
        ("\n\n", ["empty"]),
        ("1,2\n1_000,2\n", ["line 2", "'1_000'"]),
    ],
)
def test_csv_errors_name_line_and_column(write: Write, text: str, words: list[str]) -> None:
    sentence = refusal(write("t.csv", text))
    assert [word for word in words if word not in sentence] == []


def test_csv_error_far_down_a_long_file(write: Write) -> None:
    lines = ["1,2,3"] * 60_000
    lines[50_000] = "1,2,x"
    assert "line 50001, column 3" in refusal(write("t.csv", "\n".join(lines)))


@pytest.mark.parametrize("content", ["1,2\n3,4\n".encode("utf-16"), b"\xff\xfe\x00", b"\xe9,1\n"])
def test_csv_that_is_not_text(write: Write, content: bytes) -> None:
    assert "UTF-8" in refusal(write("t.csv", content), FileError)


# ------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
@pytest.mark.parametrize("gz", [False, True])
def test_idx_of_every_type(write: Write, code: int, dtype: str, gz: bool) -> None:
    X = (np.arange(12).reshape(2, 3, 2) * 9 - 5).astype(dtype)
    content = idx_bytes(X, code)
    # a gzip is recognised by its first bytes, not by the name
    data = read(write("some-idx3", gzip.compress(content) if gz else content))
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == np.dtype(dtype)


def test_idx_images_find_their_labels(write: Write) -> None:
    X, y = np.arange(12, dtype="u1").reshape(3, 2, 2), np.array([2, 0, 1], "u1")
    write("t10k-labels-idx1-ubyte", idx_bytes(y, 8))
    data = read(write("t10k-images-idx3-ubyte.gz", gzip.compress(idx_bytes(X, 8))))
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, y)


def test_idx_cut_or_grown_anywhere_is_refused(write: Write) -> None:
    whole = idx_bytes(np.arange(12, dtype="u1").reshape(3, 2, 2), 8)
    for length in range(1, len(whole)):
        refusal(write("x-idx3-ubyte", whole[:length]), FileError)
    assert "announces 28 bytes" in refusal(write("x-idx3-ubyte", whole + b"0"), FileError)
    packed = gzip.compress(whole)
    for length in range(3, len(packed)):
        refusal(write("x-idx3-ubyte.gz", packed[:length]), FileError)


def test_idx_with_an_absurd_header_takes_no_memory(write: Write) -> None:
    content = bytes([0, 0, 14, 3]) + b"\xff" * 12 + b"abc"
    assert "incomplete" in refusal(write("x.idx", content), FileError)


def test_a_file_named_like_idx_that_is_not(write: Write) -> None:
    assert "not an IDX file" in refusal(write("train-images-idx3-ubyte", "1,2,3"), FileError)


# ------------------------------------------------------------------------------- everything


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("x.xlsx", ".parquet"),
        ("x", "IDX"),
        ("photo.JPG", "folder"),
        ("m.pkl", "run code"),
        ("m.pt", "run code"),
        ("x.npy", "numpy.save"),
    ],
)
def test_unknown_kinds_say_what_can_be_read(write: Write, name: str, word: str) -> None:
    assert word in refusal(write(name, "some words"), FileError)


def test_an_empty_file(write: Write) -> None:
    assert "empty" in refusal(write("x.csv", b""))


def test_missing_files_and_similar_names(write: Write, tmp_path: Path) -> None:
    write("measured.csv", "1,2")
    assert "measured.csv" in refusal(tmp_path / "mesured.csv", FileError)
    assert "'fashion-mnist'" in refusal("fashion-mnst", FileError)
    assert "nowhere" in refusal(tmp_path / "nowhere" / "x.csv", FileError)
    assert ".parquet" in refusal(tmp_path / "qqqqq", FileError)
    for name in ("", "q" * 5000, "~nobody-is-called-this/x.csv"):
        refusal(name, FileError)


def test_lazy_changes_nothing_for_data_in_memory(write: Write) -> None:
    assert type(read(write("t.csv", "1,2\n3,4\n"), lazy=True).X) is np.ndarray
    assert type(read("digits", lazy=True).X) is np.ndarray


def test_resize_is_for_folders_of_images(write: Write, tmp_path: Path) -> None:
    pa, zarr = pytest.importorskip("pyarrow"), pytest.importorskip("zarr")
    from pyarrow.parquet import write_table

    write_table(pa.table({"a": [1.0]}), tmp_path / "t.parquet")
    zarr.create_array(tmp_path / "x.zarr", shape=(3, 3), dtype="f8")
    others = [tmp_path, *(tmp_path / name for name in ("t.parquet", "x.zarr"))]
    for source in ("digits", write("x.csv", "1,2"), *others):
        with pytest.raises(ParameterError, match="folders of images"):
            read(source, resize=8)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")  # in a folder of both, images are read
    assert read(tmp_path, resize=4).X.shape == (1, 4, 4)


def test_importing_the_reader_imports_nothing_heavy() -> None:
    code = (
        "import sys; from narrows.io import read; "
        "heavy = {'torch', 'sklearn', 'pandas', 'pyarrow', 'pooch', 'PIL', 'zarr'}; "
        "heavy &= set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


# ---------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label\n1\n2\n", [1, 2]),
        ("kind\n1\n2\n", [1, 2]),
        ("3\n1\n", [3, 1]),
        ("1.5\n2\n", [1.5, 2.0]),
        ("cat\ndog\ncat\n", ["cat", "dog", "cat"]),
        ("class\ncat\ndog\n", ["cat", "dog"]),
        ("big cat\nsmall dog\n", ["big cat", "small dog"]),
    ],
)
def test_labels_from_text(write: Write, text: str, expected: list[object]) -> None:
    y = read_labels(write("y.csv", text))
    assert y.tolist() == expected
    assert y.dtype.kind == np.asarray(expected).dtype.kind


def test_labels_from_arrays(tmp_path: Path, write: Write) -> None:
    y = np.array([2, 0, 1], dtype=np.uint8)
    np.save(tmp_path / "a.npy", y[:, None])
    np.savez(tmp_path / "b.npz", X=np.eye(3), y=y)
    np.savez(tmp_path / "c.npz", labels=y)
    write("labels-idx1-ubyte.gz", gzip.compress(idx_bytes(y, 8)))
    for name in ("a.npy", "b.npz", "c.npz", "labels-idx1-ubyte.gz"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), y)


@pytest.mark.parametrize(
    ("text", "word"),
    [("a,b\n1,2\n", "line 1"), ("label\n", "no labels"), ('1\n""\n2\n', "empty cell")],
)
def test_files_that_are_not_labels(write: Write, text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_labels(write("y.csv", text))


def test_labels_of_two_columns_or_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        read_labels(tmp_path / "a.npy")
    with pytest.raises(FileError, match="does not exist"):
        read_labels(tmp_path / "b.npy")


def test_a_class_called_y_is_not_a_header(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("y\nn\ny\nn\n")
    assert list(read_labels(tmp_path / "labels.txt")) == ["y", "n", "y", "n"]
    (tmp_path / "labels.txt").write_text("y\n1\n2\n")
    assert list(read_labels(tmp_path / "labels.txt")) == [1, 2]
