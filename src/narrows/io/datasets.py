"""Data sets known by name (digits, mnist, fashion-mnist), and IDX, the file format of MNIST.

``mnist`` and ``fashion-mnist`` are the 60,000 training images; ``mnist:test`` and
``fashion-mnist:test`` the 10,000 test images. Their files are searched for on this machine first,
then downloaded. Either way the unpacked content must have the checksum written here: the same
content is gzipped differently by those who distribute it.

- MNIST: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
  document recognition", Proceedings of the IEEE 86, 1998.
- Fashion-MNIST: H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, 2017.
- digits: scikit-learn's ``load_digits``, 1,797 images of 8 by 8.

IDX is a magic number, the sizes, then the numbers, big-endian. The first two bytes are zero, the
third names the type, the fourth counts the dimensions; each size is four bytes (Y. LeCun,
C. Cortes and C. Burges, "The MNIST database", 1998).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.exceptions import FileError, ParameterError

SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FILES = SPLITS["train"] + SPLITS["test"]
MAX_FILE_BYTES = 48 << 20  # unpacked; MNIST's largest file has 45 << 20: no gzip fills the memory


@dataclass(frozen=True, slots=True)
class Archive:
    """A data set of four IDX files: where to download it, and the SHA-256 of each, unpacked."""

    base_url: str
    folders: tuple[str, ...]  # where other libraries leave the files
    y_names: tuple[str, ...]
    checksums: tuple[str, ...]  # in the order of FILES


ARCHIVES = {
    "mnist": Archive(
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folders=("MNIST/raw", "data/MNIST/raw", "~/data/MNIST/raw"),
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
        folders=(
            *("FashionMNIST/raw", "data/FashionMNIST/raw", "~/data/FashionMNIST/raw"),
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
SYSTEM_FOLDERS = (Path("/usr/share/datasets"), Path("/usr/local/share/datasets"))

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)

Labelled = tuple[NDArray[Any], NDArray[Any], list[str]]


# ------------------------------------------------------------------------------ by name


def is_name(text: str) -> bool:
    """Whether ``text`` is a known name, with or without a split; case and _ for - are ignored.

    >>> is_name("Fashion_MNIST:test"), is_name("mnist.npz")
    (True, False)
    """
    return _normalized(text).partition(":")[0] in NAMES


def _normalized(text: str) -> str:
    return text.strip().lower().replace("_", "-")


def read_named(text: str) -> Labelled:
    """Images (n, H, W), labels (n,) and the names of the classes.

    ``text`` is a name, or a name and a split such as ``"mnist:test"``. Raises ParameterError for a
    split that does not exist and FileError if the files are neither here nor can be downloaded.

    >>> X, y, y_names = read_named("digits")
    >>> X.shape, y.shape, len(y_names)
    ((1797, 8, 8), (1797,), 10)
    """
    name, _, split = _normalized(text).partition(":")
    if name == "digits":
        if split:
            raise ParameterError(f"{text!r}: digits has no splits; give 'digits'.")
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target, [str(name) for name in digits.target_names]
    if split not in ("", *SPLITS):
        raise ParameterError(f"{text!r}: the splits of {name} are '{name}:train', '{name}:test'.")
    images, labels = (
        parse_idx(_content(name, file), f"{name}/{file}") for file in SPLITS[split or "train"]
    )
    return images, labels.astype(np.int64), list(ARCHIVES[name].y_names)


def cache_folder() -> Path:
    """The folder for downloads: NARROWS_DATA, or the user's cache."""
    import pooch

    return Path(os.environ.get("NARROWS_DATA") or pooch.os_cache("narrows")).expanduser()


def _folders(name: str) -> Iterator[Path]:
    cache = cache_folder()
    yield from (cache / name, cache, *(folder / name for folder in SYSTEM_FOLDERS))
    yield from (Path(folder).expanduser() for folder in ARCHIVES[name].folders)


def _content(name: str, file: str) -> bytes:
    """The unpacked bytes of one file of an archive, from this machine or downloaded."""
    checksum = ARCHIVES[name].checksums[FILES.index(file)]
    # Some call the files train-images-idx3-ubyte, others train-images.idx3-ubyte.
    spellings = [s + gz for s in (file, file.replace("-idx", ".idx")) for gz in ("", ".gz")]
    different: list[Path] = []
    for path in (folder / spelling for folder in _folders(name) for spelling in spellings):
        if not path.is_file():
            continue
        try:
            content = read_gzipped(path, MAX_FILE_BYTES)
        except (OSError, FileError):
            content = b""
        if hashlib.sha256(content).hexdigest() == checksum:
            return content
        different.append(path)
    return _download(name, file, checksum, different)


def _download(name: str, file: str, checksum: str, different: list[Path]) -> bytes:
    """Fetch a file; pooch checks it before it gets its name in the cache."""
    import pooch

    folder, url = cache_folder() / name, f"{ARCHIVES[name].base_url.rstrip('/')}/{file}.gz"
    try:
        path = pooch.retrieve(url, f"sha256:{checksum}", file, folder, downloader=_unpack_download)
        return Path(path).read_bytes()
    except (OSError, *GZIP_DAMAGE) as error:
        response = getattr(error, "response", None)
        reason = type(error).__name__
        if response is not None:
            response.close()  # pooch leaves the connection of a refused request open
            reason = f"HTTP status {response.status_code}"
        problem = f"{url} could not be downloaded ({reason})"
    except ValueError:
        problem = f"what {url} gives is not the original (its checksum differs)"
    noted = f" ('{different[0]}' exists, but is not the original)" if different else ""
    raise FileError(
        f"{name} is not on this machine{noted} and {problem}: put "
        f"{', '.join(f'{each}.gz' for each in FILES)} into '{folder}', or into a folder that the "
        "environment variable NARROWS_DATA names."
    ) from None


def _unpack_download(url: str, output: str, _pooch: object) -> None:
    """Write the unpacked bytes, so that the checksum is of the content: a downloader of pooch's."""
    import pooch

    progressbar = bool(sys.stderr and sys.stderr.isatty())
    packed = io.BytesIO()
    pooch.HTTPDownloader(progressbar=progressbar, chunk_size=1 << 16)(url, packed, None)
    packed.seek(0)
    with gzip.open(packed) as file:
        Path(output).write_bytes(file.read(MAX_FILE_BYTES))


# ------------------------------------------------------------------------------ gzip and IDX


def read_gzipped(path: Path, limit: int = -1) -> bytes:
    """The bytes of a file, unpacked if it is a gzip; at most ``limit`` of them if given.

    Raises FileError if the gzip is damaged or incomplete.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(limit)
    except GZIP_DAMAGE:
        raise damaged_gzip(path) from None


def damaged_gzip(path: Path) -> FileError:
    """The error for a gzip that cannot be unpacked."""
    return FileError(
        f"'{path}' is a damaged or incomplete gzip file: copy it or download it again."
    )


def is_idx(start: bytes) -> bool:
    """Whether a file that starts with these bytes is IDX, by its first four.

    >>> is_idx(bytes([0, 0, 8, 3])), is_idx(b"a,b,")
    (True, False)
    """
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in IDX_TYPES and 1 <= start[3] <= 8


def parse_idx(content: bytes, name: str) -> NDArray[Any]:
    """The array that the bytes of an IDX file hold, in the machine's byte order.

    Raises FileError if ``content`` is not IDX or has too few or too many bytes; ``name`` is what
    the message calls it.

    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]), "three")
    array([[7, 8, 9]], dtype=uint8)
    """
    if not is_idx(content[:4]):
        raise FileError(
            f"'{name}' is not an IDX file: it starts with {content[:4]!r}, where two zero bytes, "
            "a type and a number of dimensions were expected."
        )
    n_dims, dtype = content[3], np.dtype(IDX_TYPES[content[2]])
    start = 4 + 4 * n_dims
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + math.prod(sizes) * dtype.itemsize
    if len(content) != expected:
        fault = "incomplete" if len(content) < expected else "damaged"
        raise FileError(
            f"'{name}' is {fault}: its header announces {expected:,} bytes and it holds "
            f"{len(content):,}; copy it or download it again."
        )
    X = np.frombuffer(content, dtype, offset=start).reshape(sizes)
    return X.astype(dtype.newbyteorder("="))


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, gzipped or not."""
    return parse_idx(read_gzipped(path), str(path))


def read_idx_labels(path: Path) -> NDArray[Any] | None:
    """The labels in the folder of a file of images, if both have MNIST's usual names; else None."""
    labels = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = labels.removesuffix(".gz")
    if labels == path.name:
        return None
    for name in (labels, stem, stem + ".gz"):
        if path.with_name(name).is_file():
            return read_idx(path.with_name(name))
    return None
