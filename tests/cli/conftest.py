"""Models and data that the command's tests share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from helpers.command import TINY, done, noise
from narrows import Codec
from narrows.compression.format.container import Writer
from narrows.compression.format.header import Header, Item
from narrows.io.photographs import Photograph, read_photograph, write_photograph


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def digits(folder: Path) -> Path:
    done("fit", "digits", "-o", folder / "digits.safetensors", *TINY)
    return folder / "digits.safetensors"


@pytest.fixture(scope="session")
def vae(folder: Path) -> Path:
    done("fit", "digits", "--model", "vae", "-o", folder / "vae.safetensors", *TINY, "-q")
    return folder / "vae.safetensors"


@pytest.fixture(scope="session")
def table(folder: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1, 10, 100, 1000])
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "table.csv").write_text("mass,length,charge,age\n" + text + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where codecs and what they made lie."""
    return tmp_path_factory.mktemp("codecs")


@pytest.fixture(scope="session")
def X() -> np.ndarray:
    images: np.ndarray = load_digits().images
    return images.astype(np.uint8)[:600]


@pytest.fixture(scope="session")
def codec(place: Path, X: np.ndarray) -> Path:
    """A codec of digits."""
    np.save(place / "X.npy", X)
    words = ("--hidden-layer-sizes", "16", "--max-epochs", "2", "--prior", "factorised")
    out = place / "digits.safetensors"
    said = done("fit", place / "X.npy", "--model", "codec", "-o", out, *words, "--seed", "0")
    assert "600 rows, each 8 × 8 to" in said
    assert re.search(
        r"bits a number, PSNR [\d.]+ dB\nPCA with the same coder takes [\d.]+ bits", said
    )
    assert f"narrows compress {out} {place / 'X.npy'} -o X.narrow" in said
    return out


@pytest.fixture(scope="session")
def photos(place: Path) -> Path:
    """Images of many kinds, two of which go by one name but for their suffixes."""
    photos = place / "photos"
    (photos / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8)
    for name, pixels in (("a.png", smooth), ("a.bmp", smooth + 9), ("deep/c.png", smooth[:17, :9])):
        Image.fromarray(pixels).save(photos / name)
    colour = np.stack([smooth, smooth // 2, 255 - smooth], -1)
    Image.fromarray(colour).save(photos / "b.png")
    alpha = rng.integers(0, 255, smooth.shape).astype(np.uint8)
    write_photograph(Photograph(colour, alpha), photos / "clear.png")
    write_photograph(Photograph(smooth.astype(np.uint16) * 300), photos / "sixteen.png")
    write_photograph(Photograph(smooth.astype(np.float32) / 300), photos / "floats.tif")
    return photos


@pytest.fixture(scope="session")
def photo_codec(place: Path, photos: Path) -> Path:
    made = Codec(
        max_epochs=1,
        latent_dim=8,
        hidden_layer_sizes=(16,),
        prior="factorised",
        random_state=0,
    )
    made.fit([read_photograph(photos / name).pixels for name in ("a.png", "b.png")])
    return made.save(place / "photos.safetensors")


@pytest.fixture(scope="session")
def lossy(place: Path, codec: Path) -> Path:
    done("compress", codec, place / "X.npy", "-o", place / "lossy.narrow", "--no-compare")
    return place / "lossy.narrow"


@pytest.fixture(scope="session")
def packed(place: Path, photo_codec: Path, photos: Path) -> Path:
    """All photographs, losslessly."""
    done("compress", photo_codec, photos, "-o", place / "photos.narrow", "--lossless", "-q")
    return place / "photos.narrow"


@pytest.fixture(scope="session")
def pieces(place: Path) -> Path:
    """A lossless file of ten chunks, raw."""
    x = noise()
    with (place / "pieces.narrow").open("wb") as file:
        writer = Writer(file, Header(kind="array", mode="lossless"))
        writer.item(Item(shape=x.shape, dtype="|u1", row_axes=1))
        for rows in np.split(x, 10):
            writer.chunk(0, rows.tobytes(), rows)
        writer.close()
    return place / "pieces.narrow"
