"""An estimator takes what is read by slices as it takes an array, and writes what need not fit."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.counted_source import Counted, readers
from helpers.small_data import curve
from narrows import Autoencoder, FileError, InputError, VariationalAutoencoder, load
from narrows.estimators import validation
from narrows.estimators.validation import validate_X
from narrows.training import streamed_batches as streams
from narrows.training.streamed_batches import Stream

X = curve(400)
KWARGS: dict[str, Any] = {"latent_dim": 1, "random_state": 0, "max_epochs": 30}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight blocks of a few rows in a buffer, so that small data has many of both."""
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(streams, "BUFFER_BYTES", 2**13)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def mapped(rows: NDArray[Any], folder: Path, name: str = "rows.npy") -> Any:
    np.save(folder / name, rows)
    return np.load(folder / name, mmap_mode="r")


def fit(data: Any, cls: type = Autoencoder, X_val: Any = None, **kwargs: Any) -> Any:
    return cls(**{**KWARGS, "in_memory": False, **kwargs}).fit(data, X_val=X_val)


def refuse_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may turn the whole of a source into an array."""
    monkeypatch.setattr(Counted, "__array__", None, raising=False)


@pytest.mark.parametrize("scaling", ["auto", "shared"])
def test_a_fit_on_a_map_ends_where_one_in_memory_does(folder: Path, scaling: str) -> None:
    here, there = (
        fit(mapped(X, folder), in_memory=choice, scaling=scaling) for choice in (True, False)
    )
    assert np.array_equal(here.transform(X), fit(X, scaling=scaling).transform(X))
    assert isinstance(
        validate_X(there, mapped(X, folder), there.state_.spec)[0], validation.CheckedRows
    )
    assert there.score(X) == pytest.approx(here.score(X), abs=0.1)  # another order of rows
    assert there.rows_ == here.rows_ == {"given": 400, "validation": 40}
    assert there.score(X) > there.pca_.score(X) + 0.05
    again = fit(mapped(X, folder), scaling=scaling)
    assert np.array_equal(again.transform(X), there.transform(X))


SHAPES = {
    "table": (None, (6,), "float64"),
    "bytes": ("HWC", (6, 5, 3), "uint8"),
    "grey": ("HW", (6, 5), "uint16"),
    "channels": ("CHW", (2, 6, 5), "float32"),
    "signals": ("CL", (2, 9), "float16"),
    "swapped": (None, (6,), ">f4"),
    "yes and no": (None, (6,), "bool"),
}


@pytest.mark.parametrize(("axes", "shape", "dtype"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_and_dtype(
    folder: Path, axes: Any, shape: tuple[int, ...], dtype: str, order: Any
) -> None:
    rows = (curve(90, math.prod(shape)) * 50 + 100).reshape(-1, *shape)
    rows = rows > 100 if dtype == "bool" else rows.astype(dtype)
    data = mapped(np.asarray(rows, order=order), folder)
    there = fit(data, axes=axes, max_epochs=2, latent_dim=2)
    back = there.reconstruct(data)
    assert back.shape == rows.shape
    assert back.dtype == rows.dtype.newbyteorder("=")
    memory = there.set_params(in_memory=True)
    np.testing.assert_array_equal(memory.reconstruct(data), back)
    for question in ("transform", "score", "score_samples"):
        expected = getattr(memory, question)(rows)
        there.set_params(in_memory=False)
        np.testing.assert_array_equal(getattr(there, question)(data), expected)


@pytest.mark.parametrize("n", [2, 5, 19, 25])
def test_few_rows(folder: Path, n: int) -> None:
    there = fit(mapped(X[:n], folder), max_epochs=2, batch_size=100)
    assert there.rows_ == {"given": n, "validation": n if n < 20 else 2}


def test_what_stands_in_no_file_is_read_by_slices_only(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_arrays(monkeypatch)
    source = Counted(X, chunks=(10, 6))
    there = fit(source, max_epochs=2)
    assert max(stop - start for start, stop in source.asked) <= 20
    # whole chunks, but for the single rows by which data is recognized later
    assert all(start % 10 == 0 or stop == start + 1 for start, stop in source.asked)
    np.testing.assert_array_equal(there.transform(source), there.transform(X))


def test_validation_rows_may_be_lazy_too(folder: Path) -> None:
    held = mapped(X[300:], folder)
    there = fit(X[:300], X_val=held, max_epochs=5)
    memory = fit(X[:300], X_val=X[300:], max_epochs=5)
    assert there.rows_["validation"] == 100
    assert there.best_loss_ == pytest.approx(memory.best_loss_, rel=1e-4)
    assert fit(held, X_val=held, max_epochs=1).rows_["validation"] == 100


def test_going_on_and_one_pass_at_a_time(folder: Path) -> None:
    data = mapped(X, folder)
    there = fit(data, warm_start=True, max_epochs=3)
    first = there.best_loss_
    assert there.fit(data).best_loss_ <= first
    assert there.fit(X).best_loss_ <= first * 1.2  # in_memory may change
    once = Autoencoder(**KWARGS, in_memory=False)
    for _ in range(10):
        once.partial_fit(data)
    assert once.n_iter_ == 10
    assert once.validation_curve_[-1] < once.validation_curve_[0]


def test_auto_loads_what_is_small_beside_free_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = mapped(X, folder)
    ae = Autoencoder(**KWARGS)
    assert isinstance(validate_X(ae, data, None)[0], np.ndarray)
    monkeypatch.setattr(validation, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(validation, "CGROUP_LIMIT", folder / "memory.max")
    assert validation._free_memory() > 2**20  # where that file is not there
    validation.MEMINFO.write_text(f"MemFree: 1 kB\nMemAvailable: {4 * X.nbytes // 1024} kB\n")
    assert isinstance(validate_X(ae, data, None)[0], validation.CheckedRows)
    validation.MEMINFO.write_text(f"MemFree: 1 kB\nMemAvailable: {4 * X.nbytes // 1024 + 1} kB\n")
    assert isinstance(validate_X(ae, data, None)[0], np.ndarray)
    validation.CGROUP_LIMIT.write_text("max\n")
    assert isinstance(validate_X(ae, data, None)[0], np.ndarray)
    validation.CGROUP_LIMIT.write_text(f"{4 * X.nbytes}\n")
    assert isinstance(validate_X(ae, data, None)[0], validation.CheckedRows)
    assert isinstance(validate_X(ae, X, None)[0], np.ndarray)  # it is in memory already


def put(value: float, row: int, *where: int, shape: tuple[int, ...] = (400, 6)) -> NDArray[Any]:
    rows = np.resize(X, shape).copy()
    rows[(row, *where)] = value
    return rows


BAD = {
    "NaN": (put(np.nan, 77, 3), r"contains NaN in row 77, column 3; drop"),
    "infinity": (put(-np.inf, 399, 0), r"contains infinity in row 399, column 0"),
    "image": (put(np.nan, 7, 1, 2, shape=(60, 4, 6)), r"NaN in row 7, index \(1, 2\)"),
    "flat": (np.zeros(5), r"Expected 2D array, got 1D"),
    "one": (np.zeros((1, 5)), r"1 sample"),
    "one image": (np.zeros((1, 5, 5)), r"1 sample"),
    "no columns": (Counted(np.zeros((5, 0))), r"0 feature"),
    "no rows": (Counted(np.zeros((0, 5))), r"0 sample"),
    "empty": (Counted(np.zeros((5, 3, 0))), r"is empty"),
    "words": (np.array([["a", "b"], ["c", "d"]]), r"X holds words"),
    "complex": (np.ones((4, 3), complex), r"[Cc]omplex"),
    "deep": (np.zeros((5, 2, 2, 2, 2)), r"5 dimensions"),
    "colours": (np.zeros((9, 8, 8, 3)), r'axes="HWC"'),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_input_gets_the_same_sentence(
    folder: Path, data: Any, words: str, in_memory: bool
) -> None:
    data = mapped(data, folder) if isinstance(data, np.ndarray) else data
    with pytest.raises(InputError, match=words):
        fit(data, in_memory=in_memory)
    assert readers() == []


def test_later_inputs_are_checked_and_compared(folder: Path) -> None:
    there = fit(X, max_epochs=1)
    with pytest.raises(InputError, match="X has 5 features, but Autoencoder is expecting 6"):
        there.transform(mapped(X[:, :5], folder))
    with pytest.raises(InputError, match="NaN in row 77, column 3"):
        there.transform(mapped(put(np.nan, 77, 3), folder), out=folder / "codes.npy")
    with pytest.raises(InputError, match="Row 30 of X is too far"):
        there.transform(mapped(put(1e200, 30, 3), folder), out=folder / "codes.npy")
    assert [p.name for p in folder.iterdir()] == ["rows.npy"]  # nothing half written


def test_a_source_that_gives_less_than_it_promised() -> None:
    class Short(Counted):
        def __getitem__(self, rows: slice) -> NDArray[Any]:
            return super().__getitem__(rows)[: None if rows.start == 0 else 1]

    with pytest.raises(InputError, match=r"have shape \(1, 6\), but X promised \("):
        fit(Short(X))


@pytest.mark.parametrize("in_memory", [True, False])
def test_out_holds_the_same_bits(folder: Path, in_memory: bool) -> None:
    data = mapped(X, folder)
    ae = fit(data, max_epochs=2, in_memory=in_memory)
    for question in ("transform", "reconstruct"):
        expected, out = getattr(ae, question)(data), folder / f"{question}.npy"
        found = getattr(ae, question)(data, out=out)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(np.load(out), expected)
        np.save(folder / "plain.npy", expected)
        assert out.read_bytes() == (folder / "plain.npy").read_bytes()
    codes = np.load(folder / "transform.npy", mmap_mode="r")
    found = ae.inverse_transform(codes, out=str(folder / "back.npy"))
    np.testing.assert_array_equal(found, ae.inverse_transform(np.array(codes)))
    found = ae.pca_.transform(data, out=folder / "pca.npy")
    np.testing.assert_array_equal(found, ae.pca_.transform(X))


def test_out_is_checked_before_any_work(folder: Path) -> None:
    ae = fit(X, max_epochs=1)
    with pytest.raises(FileError, match=r"ends in \.npy"):
        ae.transform("never looked at", out=folder / "codes.csv")
    (folder / "codes.npy").touch()
    with pytest.raises(FileError, match="exists already"):
        ae.transform("never looked at", out=folder / "codes.npy")
    ae.transform(X, out=folder / "codes.npy", overwrite=True)
    assert len(np.load(folder / "codes.npy")) == 400


def test_lazy_codes_are_checked_as_they_are_read(folder: Path) -> None:
    ae = fit(X, max_epochs=1)
    with pytest.raises(InputError, match="NaN or infinity in row 333, column 0"):
        ae.inverse_transform(mapped(put(np.nan, 333, 0, shape=(400, 1)), folder))
    with pytest.raises(InputError, match=r"\(n, 1\)"):
        ae.inverse_transform(mapped(X, folder))


def test_other_questions(folder: Path) -> None:
    data = mapped((X > 0.5).astype(np.uint8), folder)
    vae = fit(data, VariationalAutoencoder, max_epochs=1, latent_dim=2)
    assert vae.distance_ == "bernoulli"
    memory = vae.log_likelihood(np.array(data), n_samples=3, random_state=0)
    np.testing.assert_array_equal(vae.log_likelihood(data, n_samples=3, random_state=0), memory)
    vae.save(folder / "vae.safetensors")
    loaded = load(folder / "vae.safetensors")
    assert loaded.in_memory is False
    np.testing.assert_array_equal(loaded.transform(data), vae.transform(data))


def test_interrupting_a_stream_leaves_no_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled, seen = Stream.shuffled, []

    def interrupted(self: Stream, *args: Any, **kwargs: Any) -> Any:
        for batch in shuffled(self, *args, **kwargs):
            seen.append(batch)
            if len(seen) == 25:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Stream, "shuffled", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        fit(mapped(X, folder), batch_size=36)
    assert readers() == []


MEMORY = """
import re, sys, threading, time
from pathlib import Path
import numpy as np
from narrows import Autoencoder
from narrows.training import streamed_batches as streams

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

data = np.load(sys.argv[1], mmap_mode="r")
ae = Autoencoder(latent_dim=2, hidden_layer_sizes=(8,), random_state=0, in_memory=False)
ae.set_params(max_time=0.5, max_epochs=1, batch_size=1024)
ae.fit(np.random.default_rng(0).normal(size=(100, data.shape[1])))  # whatever imports cost
streams.MAX_VALIDATION_BYTES, streams.MAX_SAMPLE_ELEMENTS = 2**24, 2**21
streams.BUFFER_BYTES = 2**25
before, most, done = anonymous(), 0, threading.Event()

def watch():
    global most
    while not done.wait(0.01):
        most = max(most, anonymous())

thread = threading.Thread(target=watch)
thread.start()
ae.fit(data)
ae.transform(data[: 2**14], out=sys.argv[2])
done.set()
thread.join()
print((most - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_data(folder: Path) -> None:
    path = folder / "sparse.npy"
    shape = (1_500_000, 128)
    np.lib.format.open_memmap(path, "w+", dtype=np.float64, shape=shape)[0] = 1.0
    assert path.stat().st_size > 1.5e9
    command = [sys.executable, "-c", MEMORY, str(path), str(folder / "codes.npy")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 300  # MiB
