"""compress, decompress and inspect as one types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.command import done, noise, picture, process, refused, run
from narrows import Codec
from narrows.io.photographs import read_photograph

# ------------------------------------------------------------------ there and back


def test_a_lossy_file_and_what_is_said_of_it(
    codec: Path, place: Path, X: np.ndarray, tmp_path: Path
) -> None:
    out, back = tmp_path / "x.narrow", tmp_path / "x.npy"
    said = done("compress", codec, place / "X.npy", "-o", out, "--quality", "1")
    size = out.stat().st_size
    assert f"file      {size:,} bytes" in said
    assert "600 × 8 × 8, uint8; lossy, level 4 of 0 to 6" in said
    for name in ("original", "rate", "quality", "model", "speed", "this file", "PCA, same coder"):
        assert name in said
    assert said.splitlines()[-1].endswith(".")
    assert done("decompress", out, "-m", codec, "-o", back) == f"{back}: 600 × 8 × 8, uint8\n"
    found = np.load(back)
    psnr = 10 * np.log10(255**2 / np.square(found.astype(float) - X).mean())
    assert f"PSNR {psnr:.2f} dB" in said
    np.testing.assert_array_equal(found, Codec.load(codec).reconstruct(X, quality=1))


def test_the_model_may_be_in_the_file(codec: Path, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.narrow"
    said = done("compress", codec, place / "X.npy", "-o", out, "--embed-model", "--no-compare")
    assert "in the file" in said
    assert "compared with" not in said
    done("decompress", out, "-o", tmp_path / "x.npy")
    assert "in the file" in done("inspect", out)
    assert "all of it is right" in done("inspect", out, "--verify")


ARRAYS = {
    "zero-dimensional": np.array(3.5),
    "empty": np.zeros((3, 0, 2), np.int16),
    "strange floats": np.array([[1.0, np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e300]]),
    "big-endian": np.arange(600, dtype=">u2").reshape(30, 20),
    "complex": (np.arange(12) * (1 + 2j)).astype(np.complex64).reshape(3, 4),
    "booleans": np.arange(50).reshape(5, 10) % 3 == 0,
    "Fortran order": np.asfortranarray(np.arange(60.0).reshape(3, 4, 5)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("wish", [("--lossless",), ("--max-error", "0.01")])
def test_any_array_comes_back(
    name: str, wish: tuple[str, ...], codec: Path, tmp_path: Path
) -> None:
    x = ARRAYS[name]
    np.save(tmp_path / "x.npy", x)
    out, back = tmp_path / "x.narrow", tmp_path / "y.npy"
    said = done("compress", codec, tmp_path / "x.npy", "-o", out, *wish)
    assert "unexpected" not in said
    done("decompress", out, "-m", codec, "-o", back)
    y = np.load(back)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    if wish == ("--lossless",):
        assert np.ascontiguousarray(y).tobytes() == np.ascontiguousarray(x).tobytes()
    np.testing.assert_allclose(y.astype(complex), x.astype(complex), rtol=0, atol=0.01)
    done("inspect", out)


def test_tables_and_other_places_to_write_to(codec: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.narrow"
    done("compress", codec, table, "-o", out, "--lossless", "--no-compare")
    done("decompress", out, "-o", tmp_path / "t.csv")
    x = np.loadtxt(table, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "t.csv", delimiter=",", skiprows=1), x)
    done("decompress", out, "-o", tmp_path / "t.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "t.npz")["X"], x)
    assert "not pictures" in refused("decompress", out, "-o", tmp_path / "t.png")


def test_an_array_of_pictures_as_pictures(
    lossy: Path, codec: Path, X: np.ndarray, tmp_path: Path
) -> None:
    done("decompress", lossy, "-m", codec, "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == len(X)
    done("decompress", lossy, "-m", codec, "-o", tmp_path / "sheet.png")


# ------------------------------------------------------------------ images


def test_a_folder_of_images_keeps_its_names(
    photo_codec: Path, photos: Path, tmp_path: Path
) -> None:
    out, back = tmp_path / "p.narrow", tmp_path / "back"
    said = done("compress", photo_codec, photos, "-o", out, "--lossless")
    assert "7 images" in said and "bits a pixel" in said
    done("decompress", out, "-m", photo_codec, "-o", back)
    names = sorted(path.relative_to(back).as_posix() for path in back.rglob("*.*"))
    # a.bmp comes before a.png
    expected = ["a.png", "a.png.png", "b.png", "clear.png", "deep/c.png", "floats.tif"]
    assert names == [*expected, "sixteen.png"]
    given = {"a.png": "a.bmp", "a.png.png": "a.png"}
    for name in names:
        was, now = read_photograph(photos / given.get(name, name)), read_photograph(back / name)
        np.testing.assert_array_equal(now.planes, was.planes)
        assert now.planes.dtype == was.planes.dtype
    listed = done("inspect", out)
    assert "deep/c.png: 17 × 9, uint8" in listed


def test_lossy_images_and_one_of_them(photo_codec: Path, photos: Path, tmp_path: Path) -> None:
    out, one = tmp_path / "p.narrow", tmp_path / "one.png"
    done("compress", photo_codec, photos / "b.png", "-o", out)
    done("decompress", out, "-m", photo_codec, "-o", one)
    assert picture(one).shape == (40, 56, 3)
    for name in ("a.png", "b.png"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / name).write_bytes((photos / name).read_bytes())
    done("compress", photo_codec, tmp_path / "two", "-o", out, "--overwrite", "--no-compare")
    words = ("decompress", out, "-m", photo_codec, "-o")
    assert "several images" in refused(*words, tmp_path / "no.png")
    found = process(*map(str, words), "-")
    assert "several images" in found.stderr and found.returncode == 1 and found.stdout == ""
    done(*words, tmp_path / "b.png", "--item", "1")
    assert picture(tmp_path / "b.png").shape == (40, 56, 3)
    assert "there is no item 2" in refused(*words, tmp_path / "c.png", "--item", "2")


def test_a_photograph_comes_back_upright(photo_codec: Path, tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(20), 3 * np.arange(31)).astype(np.uint8)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        source, out, back = (tmp_path / f"{orientation}{s}" for s in (".png", ".narrow", "b.png"))
        Image.fromarray(smooth).save(source, exif=exif)
        done("compress", photo_codec, source, "-o", out, "--lossless", "-q")
        done("decompress", out, "-m", photo_codec, "-o", back, "-q")
        with Image.open(source) as image:
            np.testing.assert_array_equal(picture(back), ImageOps.exif_transpose(image))


def test_what_is_in_a_folder_stays(packed: Path, photo_codec: Path, tmp_path: Path) -> None:
    out, back = packed, tmp_path / "back"
    back.mkdir()
    (back / "mine.txt").write_text("mine")
    (back / "b.png").write_text("old")
    assert "--overwrite" in refused("decompress", out, "-o", back)
    assert (back / "b.png").read_text() == "old"
    done("decompress", out, "-m", photo_codec, "-o", back, "--overwrite")
    assert (back / "mine.txt").read_text() == "mine"
    assert picture(back / "b.png").shape == (40, 56, 3)


# ------------------------------------------------------------------ pipes


def test_through_pipes(codec: Path, place: Path, X: np.ndarray, tmp_path: Path) -> None:
    narrows = f"{sys.executable} -m narrows"
    there = f"{narrows} compress {codec} {place / 'X.npy'} -o - --lossless --no-compare"
    back = f"{narrows} decompress - -m {codec} -o -"
    command = f"{there} | tee x.narrow | {back} > y.npy"
    made = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout == ""
    assert "standard output: 600 × 8 × 8" in made.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), X)
    command = f"cat x.narrow | {narrows} inspect -"
    seen = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert "600 × 8 × 8, uint8, lossless" in seen.stdout
    assert "--verify also" in seen.stdout


LIGHT = """
import sys
from narrows.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", *sorted({{"torch", "sklearn", "scipy", "matplotlib"}} & set(sys.modules)))
"""


def test_neither_inspect_nor_plain_chunks_need_torch(pieces: Path, tmp_path: Path) -> None:
    for words in (["inspect", str(pieces)], ["decompress", str(pieces), "-o", "x.npy", "-q"]):
        code = LIGHT.format(words=words)
        made = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert made.stdout.splitlines()[-1].strip() == "heavy:", made.stderr


# ------------------------------------------------------------------ inspect


def test_inspect_for_machines(lossy: Path, pieces: Path, codec: Path) -> None:
    found = json.loads(done("inspect", lossy, "--json"))
    assert found["mode"] == "lossy"
    assert found["items"][0]["shape"] == [600, 8, 8]
    assert found["chunks"]["autoencoder"]["count"] == 1
    assert found["bytes"]["file"] == lossy.stat().st_size
    assert found["model"] == Codec.load(codec).info()["id"]
    found = json.loads(done("inspect", pieces, "--json", "--verify"))
    assert found["chunks"]["raw"]["count"] == 10
    assert found["checked"] == "everything"
    assert found["bytes"]["decoded"] == noise().nbytes


def test_inspect_verify_needs_the_model(lossy: Path, codec: Path, photo_codec: Path) -> None:
    assert "not in the file" in done("inspect", lossy)
    assert "all of it is right" in done("inspect", lossy, "--verify", "-m", codec)
    for words in ((), ("-m", photo_codec)):
        result = run("inspect", lossy, "--verify", *words)
        assert result.status == 5
        assert "-m MODEL" in result.err
