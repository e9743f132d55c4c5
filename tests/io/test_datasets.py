"""Data sets known by name: found on this machine, or downloaded, and always checked."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from narrows.exceptions import FileError, ParameterError
from narrows.io import datasets as named
from narrows.io.read import read

IMAGES = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
LABELS = np.array([2, 0, 1], dtype=np.uint8)
IMAGES_IDX = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2]) + IMAGES.tobytes()
LABELS_IDX = bytes([0, 0, 8, 1, 0, 0, 0, 3]) + LABELS.tobytes()
TRAIN = dict(zip(named.SPLITS["train"], (IMAGES_IDX, LABELS_IDX), strict=True))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is found: own home, own folder, own cache, three tiny images."""
    checksums = tuple(hashlib.sha256(x).hexdigest() for x in (IMAGES_IDX, LABELS_IDX)) * 2
    tiny = replace(named.ARCHIVES["mnist"], checksums=checksums)
    monkeypatch.setitem(named.ARCHIVES, "mnist", tiny)
    monkeypatch.setattr(named, "SYSTEM_FOLDERS", (tmp_path / "system",))
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a local server hands out, in the place of MNIST's own."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setitem(named.ARCHIVES, "mnist", replace(named.ARCHIVES["mnist"], base_url=url))
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def put(folder: Path, change: Callable[[bytes], bytes] = gzip.compress, end: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in TRAIN.items():
        (folder / (file + end)).write_bytes(change(content))


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def refused() -> str:
    with pytest.raises(FileError) as caught:
        read("mnist")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data, digits = read("digits"), load_digits()
    np.testing.assert_array_equal(data.X, digits.images)
    np.testing.assert_array_equal(data.y, digits.target)


@pytest.mark.usefixtures("served")
def test_a_download_is_kept(cache: Path, served: Path) -> None:
    put(served)
    first = read("mnist")
    np.testing.assert_array_equal(first.X, IMAGES)
    np.testing.assert_array_equal(first.y, LABELS)
    assert first.y_names is not None
    assert first.y_names[2] == "2"
    assert files_in(cache) == sorted(TRAIN)
    for file in served.iterdir():
        file.unlink()
    np.testing.assert_array_equal(read("mnist:train").X, IMAGES)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda content: gzip.compress(content[:-1] + b"!"), "checksum"),
        (lambda content: gzip.compress(content)[:-9], "EOFError"),
        (lambda content: content, "BadGzipFile"),
        (lambda content: b"<html>Please log in</html>", "BadGzipFile"),
    ],
)
def test_a_wrong_download_is_refused_and_leaves_nothing(
    cache: Path, served: Path, change: Callable[[bytes], bytes], word: str
) -> None:
    put(served, change)
    assert word in refused()
    assert files_in(cache) == []


def test_a_file_not_on_the_server(cache: Path, served: Path) -> None:
    assert "HTTP status 404" in refused()
    assert files_in(cache) == []


def test_offline_says_where_to_put_which_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = replace(named.ARCHIVES["mnist"], base_url="http://127.0.0.1:9/")  # "discard": closed
    monkeypatch.setitem(named.ARCHIVES, "mnist", nowhere)
    sentence = refused()
    assert "ConnectionError" in sentence
    assert str(cache / "mnist") in sentence
    assert "NARROWS_DATA" in sentence
    for file in named.FILES:
        assert file + ".gz" in sentence
    assert files_in(cache) == []
    put(cache / "mnist")  # ... and doing what it says is enough
    np.testing.assert_array_equal(read("mnist").X, IMAGES)


@pytest.mark.parametrize(
    "place", ["cache", "cache/mnist", "system/mnist", "MNIST/raw", "data/MNIST/raw"]
)
def test_found_in_the_usual_places(cache: Path, place: str) -> None:
    put(cache.parent / place)
    np.testing.assert_array_equal(read("mnist").X, IMAGES)


@pytest.mark.parametrize(
    ("change", "end"),
    [(bytes, ""), (lambda content: gzip.compress(content, 1), ".gz")],
)
def test_plain_or_gzipped_at_any_level(
    cache: Path, change: Callable[[bytes], bytes], end: str
) -> None:
    put(cache / "mnist", change, end)
    np.testing.assert_array_equal(read("mnist").X, IMAGES)


def test_a_different_file_of_that_name_is_skipped_and_named(cache: Path, served: Path) -> None:
    put(cache / "mnist", lambda content: gzip.compress(content + b"!"))
    assert "is not the original" in refused()
    put(served)
    np.testing.assert_array_equal(read("mnist").X, IMAGES)


def test_splits(cache: Path) -> None:
    put(cache / "mnist")
    for file, other in zip(*named.SPLITS.values(), strict=True):
        (cache / "mnist" / f"{file}.gz").rename(cache / "mnist" / f"{other}.gz")
    np.testing.assert_array_equal(read("MNIST:test").X, IMAGES)
    with pytest.raises(ParameterError, match="mnist:test"):
        read("mnist:validation")
    with pytest.raises(ParameterError, match="no splits"):
        read("digits:test")


@pytest.mark.parametrize("name", list(named.ARCHIVES))
def test_the_real_files_if_this_machine_has_them(name: str) -> None:
    images = named.SPLITS["test"][0]
    checksum = dict(zip(named.FILES, named.ARCHIVES[name].checksums, strict=True))[images]
    paths = [folder / f"{images}.gz" for folder in named._folders(name)]
    if not any(path.is_file() for path in paths):
        pytest.skip(f"{name} is not on this machine")
    data = read(f"{name}:test")
    assert data.X.shape == (10_000, 28, 28)
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in data.X.shape)
    assert hashlib.sha256(header + data.X.tobytes()).hexdigest() == checksum
    assert data.y is not None
    assert np.bincount(data.y).min() > 800
