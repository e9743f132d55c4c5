"""Arrays and pictures written to files: read back the same, or refused, never half written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from narrows.exceptions import FileError, InputError
from narrows.io.write import (
    atomic_write,
    check_output,
    contact_sheet,
    pictures,
    temporary_path,
    write_rows,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8"])
@pytest.mark.parametrize("kind", [".npy", ".npz", ".csv"])
def test_arrays_read_back_as_they_were(dtype: str, kind: str, tmp_path: Path) -> None:
    rows = (RNG.normal(size=(5, 3)) * 50).astype(dtype)
    out = write_rows(rows, tmp_path / f"rows{kind}", names=["a", "b, c", "d"])
    if kind == ".csv":
        assert out.read_text().splitlines()[0] == 'a,"b, c",d'
        back = np.loadtxt(out, delimiter=",", skiprows=1).astype(dtype)
    else:
        loaded = np.load(out)
        back = loaded["X"] if kind == ".npz" else loaded
        assert back.dtype == rows.dtype
    assert np.array_equal(back, rows)


def test_csv_flattens_images_and_counts_columns(tmp_path: Path) -> None:
    rows = np.arange(8).reshape(2, 2, 2)
    out = write_rows(rows, tmp_path / "rows.csv", names=["too", "few"])
    assert out.read_text() == "x0,x1,x2,x3\n0,1,2,3\n4,5,6,7\n"


def test_a_folder_holds_each_picture_exactly(tmp_path: Path) -> None:
    rows = RNG.integers(0, 256, size=(3, 5, 7, 3), dtype=np.uint8)
    out = write_rows(rows, f"{tmp_path}/pictures/", axes="HWC")
    files = sorted(out.iterdir())
    assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png"]
    assert all(
        np.array_equal(np.asarray(Image.open(f)), x) for f, x in zip(files, rows, strict=True)
    )


def test_overwriting_a_folder_leaves_no_old_picture(tmp_path: Path) -> None:
    rows = np.zeros((3, 4, 4), dtype=np.uint8)
    out = tmp_path / "pictures"
    write_rows(rows, out)
    with pytest.raises(FileError, match="exists already"):
        write_rows(rows[:1], out)
    write_rows(rows[:1], out, overwrite=True)
    assert [file.name for file in out.iterdir()] == ["0000.png"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match="other things"):
        write_rows(np.zeros((1, 4, 4)), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_contact_sheet_is_in_reading_order(tmp_path: Path) -> None:
    shades = np.array([10, 20, 30, 40, 50], dtype=np.uint8)
    rows = np.broadcast_to(shades[:, None, None], (5, 64, 64))
    sheet = np.asarray(Image.open(write_rows(rows, tmp_path / "sheet.png")))
    assert sheet.shape == (2 * 64 + 2, 3 * 64 + 4)
    assert [sheet[32, 32], sheet[32, 98], sheet[32, 164], sheet[98, 32], sheet[98, 98]] == [*shades]
    assert contact_sheet(rows[:1]).shape == (64, 64)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.array([False, True]), [0, 255]),
        (np.array([0, 65535], dtype=np.uint16), [0, 255]),
        (np.array([0.0, 0.2, 1.0]), [0, 51, 255]),
        (np.array([-1.0, 0.0, 4.0]), [0, 51, 255]),
        (np.array([3.0, 3.0]), [0, 0]),
    ],
)
def test_shades_follow_the_range(rows: np.ndarray, expected: list[int]) -> None:
    assert pictures(rows.reshape(1, 1, -1)).ravel().tolist() == expected


def test_bounds_are_black_and_white() -> None:
    rows = np.array([[[-5.0, 0.0, 8.0, 16.0, 20.0]]])
    assert pictures(rows, bounds=(0, 16)).ravel().tolist() == [0, 0, 128, 255, 255]


def test_channels_move_last() -> None:
    rows = RNG.integers(0, 256, size=(2, 3, 4, 5), dtype=np.uint8)
    assert np.array_equal(pictures(rows), rows.transpose(0, 2, 3, 1))
    assert np.array_equal(pictures(rows[:, :1]), rows[:, 0])


@pytest.mark.parametrize(
    ("rows", "axes"),
    [(np.zeros((2, 5)), None), (np.zeros((2, 2, 9)), "CL"), (np.zeros((2, 2, 4, 4)), None)],
)
def test_rows_that_are_not_pictures(rows: np.ndarray, axes: str | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"write them to \.npy"):
        write_rows(rows, tmp_path / "out.png", axes=axes)
    assert list(tmp_path.iterdir()) == []


def test_check_output_refuses(tmp_path: Path) -> None:
    (tmp_path / "there.npy").touch()
    for out, reason in {
        "codes.xlsx": "ends in",
        "missing/codes.npy": "no folder",
        "there.npy": "exists already",
        "there.npy/codes.npy": "no folder",
    }.items():
        with pytest.raises(FileError, match=reason):
            check_output(tmp_path / out)
    with pytest.raises(FileError, match="ends in"):
        check_output(tmp_path, [".npy"], overwrite=True)
    assert check_output(tmp_path / "there.npy", overwrite=True) == tmp_path / "there.npy"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "rows.npy"
    out.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(out) as place:
        place.write_text("half")
        raise ZeroDivisionError
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["rows.npy", "rows.csv", "é" * 120 + ".npz", "n" * 251 + ".npy"])
def test_threads_that_write_one_path_leave_a_whole_file(name: str, tmp_path: Path) -> None:
    """Every writer has a temporary name of its own, which fits wherever the path's name does."""
    out = tmp_path / name

    def write(number: int) -> None:
        write_rows(np.full((50, 3), number), out, overwrite=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    found = np.loadtxt(out, delimiter=",", skiprows=1) if name.endswith("csv") else np.load(out)
    found = found["X"] if name.endswith("npz") else found
    assert found.shape == (50, 3)
    assert len(np.unique(found)) == 1
    assert list(tmp_path.iterdir()) == [out]


def test_temporary_names_are_short_and_never_the_same(tmp_path: Path) -> None:
    names = [temporary_path(tmp_path / name).name for name in ("a", "a", "n" * 255, "é" * 127)]
    with ThreadPoolExecutor(1) as pool:
        names.append(pool.submit(temporary_path, tmp_path / "a").result().name)
    assert len(set(names)) == 5
    assert max(len(name.encode()) for name in names) <= 130


@pytest.mark.parametrize("name", ["n" * 252 + ".npy", "a\0b.npy", "d" * 300 + "/"])
def test_a_name_that_no_file_can_have_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="choose another name"):
        write_rows(np.zeros((2, 2)), f"{tmp_path}/{name}")


def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "pictures", Path.replace
    write_rows(np.zeros((2, 4, 4), np.uint8), out)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_rows(np.zeros((1, 4, 4), np.uint8), out, overwrite=True)
    monkeypatch.setattr(Path, "replace", replace)
    assert sorted(p.name for p in out.iterdir()) == ["0000.png", "0001.png"]
    assert list(tmp_path.iterdir()) == [out]
