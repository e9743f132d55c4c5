"""Data known by name: digits, mnist, fashion-mnist, each with its labels.

``mnist`` and ``fashion-mnist`` are the 60,000 training images; ``mnist:test`` and
``fashion-mnist:test`` the 10,000 test images. Their files are looked for on this machine first,
then downloaded. Either way the unpacked content must have the checksum written here: the same
content is gzipped differently by those who hand it on.

- MNIST: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
  document recognition", Proceedings of the IEEE 86, 1998.
- Fashion-MNIST: H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, 2017.
- digits: scikit-learn's ``load_digits``, 1,797 images of 8 by 8.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, ParameterError
from narrows.io.idx import GZIP_DAMAGE, content_of, parse_idx

SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FILES = SPLITS["train"] + SPLITS["test"]
LARGEST = 48 << 20  # bytes: no genuine file is larger, so no packed one can fill the memory


@dataclass(frozen=True, slots=True)
class Archive:
    """A data set of four IDX files: where it may be had, and the SHA-256 of each, unpacked."""

    base_url: str
    elsewhere: tuple[str, ...]
    y_names: tuple[str, ...]
    checksums: tuple[str, ...]  # in the order of FILES


ARCHIVES = {
    "mnist": Archive(
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        elsewhere=("MNIST/raw", "data/MNIST/raw", "~/data/MNIST/raw"),
        y_names=tuple("0123456789"),
        checksums=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": Archive(
        base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        elsewhere=(
            "FashionMNIST/raw",
            "data/FashionMNIST/raw",
            "~/data/FashionMNIST/raw",
            "~/.keras/datasets/fashion-mnist",
        ),
        y_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        checksums=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}
NAMES = ("digits", *ARCHIVES)
SYSTEM = (Path("/usr/share/datasets"), Path("/usr/local/share/datasets"))

Labelled = tuple[NDArray[Any], NDArray[Any], list[str]]


def is_name(text: str) -> bool:
    """Whether ``text`` is a known name, with or without a split; case and _ for - are ignored.

    >>> is_name("Fashion_MNIST:test"), is_name("mnist.npz")
    (True, False)
    """
    return _normal(text).partition(":")[0] in NAMES


def _normal(text: str) -> str:
    return text.strip().lower().replace("_", "-")


def read_named(text: str, *, base_url: str | None = None) -> Labelled:
    """Images (n, H, W), labels (n,) and what the labels stand for.

    ``text`` is a name, or a name and a split such as ``"mnist:test"``; ``base_url`` is another
    place to download from. Raises ParameterError for a split that does not exist and FileError
    where the files are not here and cannot be had.

    >>> X, y, y_names = read_named("digits")
    >>> X.shape, y.shape, len(y_names)
    ((1797, 8, 8), (1797,), 10)
    """
    name, _, split = _normal(text).partition(":")
    if name == "digits" and split:
        raise ParameterError(f"{text!r}: digits has no splits; give 'digits'.")
    if name == "digits":
        return _digits()
    if split not in ("", *SPLITS):
        raise ParameterError(f"{text!r}: the splits of {name} are '{name}:train', '{name}:test'.")
    archive = ARCHIVES[name]
    images, labels = (
        parse_idx(_content(name, file, base_url or archive.base_url), f"{name}/{file}")
        for file in SPLITS[split or "train"]
    )
    return images, labels.astype(np.int64), list(archive.y_names)


def _digits() -> Labelled:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target, [str(name) for name in digits.target_names]


def cache_folder() -> Path:
    """Where downloads are kept: NARROWS_DATA, or the user's cache."""
    import pooch

    return Path(os.environ.get("NARROWS_DATA") or pooch.os_cache("narrows")).expanduser()


def _places(name: str) -> Iterator[Path]:
    cache = cache_folder()
    yield from (cache / name, cache, *(folder / name for folder in SYSTEM))
    yield from (Path(folder).expanduser() for folder in ARCHIVES[name].elsewhere)


def _content(name: str, file: str, base_url: str) -> bytes:
    """The bytes of one file of an archive, from this machine or else from ``base_url``."""
    checksum = ARCHIVES[name].checksums[FILES.index(file)]
    # The same files go by train-images-idx3-ubyte and, elsewhere, train-images.idx3-ubyte.
    spellings = [s + gz for s in (file, file.replace("-idx", ".idx")) for gz in ("", ".gz")]
    other: list[Path] = []
    for path in (folder / spelling for folder in _places(name) for spelling in spellings):
        content = _readable(path)
        if content is not None and hashlib.sha256(content).hexdigest() == checksum:
            return content
        other += [path] if content is not None else []
    return _download(name, file, base_url, other)


def _readable(path: Path) -> bytes | None:
    """What a file holds; None where there is none, b"" where it cannot be read."""
    try:
        return content_of(path, LARGEST) if path.is_file() else None
    except (OSError, FileError):
        return b""


def _download(name: str, file: str, base_url: str, other: list[Path]) -> bytes:
    """Fetch a file; pooch checks it before it is given its name in the cache."""
    import pooch

    folder, url = cache_folder() / name, f"{base_url.rstrip('/')}/{file}.gz"
    checksum = "sha256:" + ARCHIVES[name].checksums[FILES.index(file)]
    try:
        path = pooch.retrieve(url, checksum, file, folder, downloader=_unpacking(url))
    except (OSError, *GZIP_DAMAGE) as error:
        reason = f"could not be downloaded ({_reason(error)})"
        raise FileError(_not_here(name, url, reason, other)) from None
    except ValueError:
        reason = "what was downloaded is not the original (its checksum differs)"
        raise FileError(_not_here(name, url, reason, other)) from None
    return Path(path).read_bytes()


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__name__
    response.close()  # pooch leaves the connection of a refused request open
    return f"HTTP status {response.status_code}"


def _unpacking(url: str) -> Callable[[str, str, object], None]:
    """A downloader that writes the unpacked bytes, so that the checksum is of the content."""
    import pooch

    fetch = pooch.HTTPDownloader(
        progressbar=bool(sys.stderr and sys.stderr.isatty()), chunk_size=1 << 16
    )

    def download(_url: str, output: str, _pooch: object) -> None:
        packed = io.BytesIO()
        fetch(url, packed, None)
        packed.seek(0)
        with gzip.open(packed) as file:
            Path(output).write_bytes(file.read(LARGEST))

    return download


def _not_here(name: str, url: str, reason: str, other: list[Path]) -> str:
    files = ", ".join(f"{file}.gz" for file in FILES)
    noted = f" ('{other[0]}' is there and is not the original)" if other else ""
    return (
        f"{name} is not on this machine{noted} and {url} {reason}: put {files} into "
        f"'{cache_folder() / name}', or into a folder that the environment variable NARROWS_DATA "
        "names."
    )
