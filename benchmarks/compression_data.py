"""The data of `compression.py`: digits, and photographs, fields and tables of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows import photographs
from narrows.io.read import read

Array = NDArray[Any]
Images = list[Array]
MISSING = 1e15  # larger numbers in a netCDF file mark missing values
TRAIN_SHARE = 0.75  # the first times of a field; the others are compressed
COLOUR = ("astronaut", "chelsea", "coffee")  # scikit-image's, stored without loss
OTHERS = ("hubble_deep_field", "immunohistochemistry", "retina", "rocket")


@dataclass(frozen=True)
class Pair:
    """Training data, and data to compress."""

    name: str
    train: Any
    test: Any


def small_images(name: str, folder: Path | None, quick: bool) -> Pair:
    """MNIST or Fashion-MNIST: the training images and the 10,000 test images."""
    if folder is None:
        train, test = read(name).X, read(f"{name}:test").X
    else:
        train, test = (_idx(folder, start) for start in ("train", "t10k"))
    return Pair(name, train[:2000], test[:300]) if quick else Pair(name, train, test)


def _idx(folder: Path, start: str) -> Array:
    found = sorted(folder.glob(f"{start}-images*"))
    if not found:
        raise SystemExit(f"{folder} has no {start}-images-idx3-ubyte.gz")
    X: Array = read(found[0]).X
    return X


def grey_photographs(train: Path, test: Path, quick: bool) -> Pair:
    """Two folders of photographs."""
    learned, others = (_folder(path, 12 if quick else None) for path in (train, test))
    if quick:
        others = [image[:96, :120] for image in others[:3]]
    return Pair(test.name, learned, others)


def _folder(folder: Path, most: int | None) -> Images:
    paths = photographs.find_photographs(folder)[:most]
    return [photographs.read_photograph(path).pixels for path in paths]


def colour_photographs(quick: bool) -> Pair:
    """Three of scikit-image's; trained on its others and on scikit-learn's two."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    learned = [getattr(data, name)() for name in OTHERS] + load_sample_images().images
    learned = [np.ascontiguousarray(image[..., :3]) for image in learned]
    others = [getattr(data, name)() for name in COLOUR]
    if quick:
        learned = [image[:200, :200] for image in learned]
        others = [image[100:196, 100:220] for image in others]
    return Pair("scikit-image, colour", learned, others)


def fields(paths: Sequence[Path], quick: bool) -> Iterator[Pair]:
    """Every variable of at least three axes, the first being time, of .nc (netCDF-4) or .npy files,
    and every matrix of at least 4,096 numbers of .mat files.

    Missing values are replaced by the mean of the others, for every method: most take no NaN.
    """
    for path in paths:
        for name, x in _variables(path):
            x = _filled(x)[: 24 if quick else None]
            cut = round(TRAIN_SHARE * len(x))
            yield Pair(f"{path.stem}, {name}", x[:cut], np.ascontiguousarray(x[cut:]))


LARGE = 4096


def _variables(path: Path) -> Iterator[tuple[str, Array]]:
    if path.suffix == ".npy":
        yield "array", np.load(path)
        return
    if path.suffix == ".mat":
        from scipy.io import loadmat

        for name, x in sorted(loadmat(path).items()):
            if getattr(x, "ndim", 0) == 2 and x.size >= LARGE and x.dtype.kind == "f":
                yield name, x
        return
    import h5py

    with h5py.File(path) as file:
        for name, variable in sorted(file.items()):
            if variable.ndim >= 3 and variable.dtype.kind == "f":
                yield name, variable[:]


def _filled(x: Array) -> Array:
    known = np.isfinite(x) & (np.abs(x) < MISSING)
    return np.where(known, x, x[known].mean(dtype=np.float64)).astype(x.dtype)


def tables(paths: Sequence[Path], quick: bool) -> Iterator[Pair]:
    """The rows ``X`` of .npz files, half of them to train on, in a seeded order."""
    for path in paths:
        with np.load(path) as file:
            X = file["X"]
        order = np.random.default_rng(0).permutation(len(X))[: 400 if quick else None]
        half = len(order) // 2
        yield Pair(path.stem, X[np.sort(order[:half])], X[np.sort(order[half:])])


def waves(quick: bool) -> Array:
    """float32 (n, 256, 256) of smooth random fields that drift: 32 MiB, for speeds."""
    rng = np.random.default_rng(0)
    n = 4 if quick else 128
    spectrum = np.fft.rfft2(rng.normal(size=(n, 256, 256)))
    row, column = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None]
    smooth = spectrum / (1e-3 + row**2 + column**2)
    phases = np.cumsum(rng.normal(0, 0.05, (n, 1, 1)), axis=0)
    drift = np.fft.irfft2(smooth[:1] * np.exp(1j * phases) + 0.05 * smooth, s=(256, 256))
    waves: Array = (drift / drift.std()).astype(np.float32)
    return waves
