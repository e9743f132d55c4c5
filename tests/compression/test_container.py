"""The container of a .narrow file: what is written comes back, through pipes too."""

from __future__ import annotations

import io
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import mutated_files as fuzzing
from helpers.containers import Content, Pipe, decode, example, read, write
from narrows.compression.format.container import Reader, Writer, model_id
from narrows.compression.format.frames import Chunk
from narrows.compression.format.header import DTYPES, Header, Item
from narrows.exceptions import (
    Corrupt,
    FileError,
    NotOurFile,
    ParameterError,
    TooLarge,
    Truncated,
    UnsupportedVersion,
)

TYPED = (NotOurFile, UnsupportedVersion, Truncated, Corrupt, TooLarge)


class Counting(io.BytesIO):
    """Remembers how many bytes were read."""

    n_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.n_read += len(data)
        return data


@st.composite
def files(draw: st.DrawFn) -> tuple[Header, Content, int]:
    """Headers and items of any kind, and into how many chunks to cut."""
    n_items = draw(st.integers(0, 4))
    mode = draw(st.sampled_from(["lossy", "bounded", "lossless"]))
    header = Header(
        kind=draw(st.sampled_from(["array", "images"])),
        mode=mode,
        error=draw(st.none() | st.floats(0, 1e300)) if mode == "bounded" else None,
        level=draw(st.none() | st.integers(0, 2**62)),
        items=draw(st.sampled_from([None, n_items])),
    )
    letters = st.characters(exclude_characters="/\\:.", exclude_categories=("C",))
    names = st.lists(st.text(letters, min_size=1), min_size=n_items, max_size=n_items, unique=True)
    codec = st.dictionaries(st.text(letters), st.integers(-(2**62), 2**62) | st.booleans())
    content: Content = []
    for name in draw(names):
        shape = draw(st.lists(st.integers(0, 5), max_size=5).map(tuple))
        dtype, axes = draw(st.sampled_from(sorted(DTYPES))), draw(st.integers(0, len(shape)))
        item = Item(shape=shape, dtype=dtype, row_axes=axes, name=name, codec=draw(codec))
        content.append((item, random.Random(draw(st.integers(0, 9))).randbytes(item.nbytes)))
    return header, content, draw(st.integers(1, 9))


@given(files())
@settings(deadline=None)
def test_what_is_written_comes_back(file: tuple[Header, Content, int]) -> None:
    header, content, cuts = file
    data = write(header, content, cuts)
    assert read(io.BytesIO(data)) == (header, None, content)
    assert read(Pipe(data)) == (header, None, content)
    assert [item.number for item, _ in read(Pipe(data))[2]] == list(range(len(content)))
    stream = io.BytesIO(b"before" + data)
    stream.seek(6)  # a file may start where the stream stands
    reader = Reader(stream)
    for k in reversed(range(len(content))):
        item, chunks = reader.item(k)
        assert (item, b"".join(map(decode, chunks))) == content[k]


def test_a_file_goes_through_a_pipe_while_it_is_written() -> None:
    header, content = example(n_items=30)
    content.append((Item(shape=(300_000,), dtype="|u1", row_axes=1, name="big"), bytes(300_000)))
    reading, writing = os.pipe()
    found = []

    def receive() -> None:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            found.append(read(stream))

    thread = threading.Thread(target=receive)
    thread.start()
    with os.fdopen(writing, "wb", buffering=0) as stream:
        writer = Writer(stream, header)
        for item, data in content:
            writer.item(item)
            writer.chunk(0, data, data)
        writer.close()
    thread.join(10)
    assert found == [(header, None, content)]


def test_arrays_are_checked_as_little_endian_bytes_in_c_order() -> None:
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    stream = io.BytesIO()
    writer = Writer(stream, Header(kind="array", mode="lossless"))
    writer.item(Item(shape=array.shape, dtype=array.dtype.str, row_axes=2))
    writer.chunk(0, array.astype("<f4").tobytes(), array)
    writer.close()
    [item, chunk] = Reader(io.BytesIO(stream.getvalue()))
    assert isinstance(chunk, Chunk)
    assert isinstance(item, Item)
    assert (item.dtype, item.little) == (">f4", np.dtype("<f4"))
    assert (chunk.shape, chunk.rows, chunk.decoded_size) == ((4, 3), 4, 48)
    chunk.check(np.frombuffer(decode(chunk), item.little).reshape(chunk.shape))
    chunk.check(array)
    for wrong in (array[:, :, ::-1], array[:1], array.astype(np.float64)):
        with pytest.raises(Corrupt, match="item 0, chunk 0 does not decode to the data"):
            chunk.check(wrong)


def test_the_model_travels_with_the_file() -> None:
    model = random.Random(0).randbytes(1000) + bytes(100_000)
    header, content = example(model=model_id(model))
    data = write(header, content, model=model)
    assert read(Pipe(data)) == (header, model, content)
    reader = Reader(io.BytesIO(data))
    assert reader.model == model
    assert decode(next(reader.item(0)[1])) == content[0][1][:12]
    assert [part for part in reader if isinstance(part, Item)] == [item for item, _ in content]


def test_one_item_is_read_alone() -> None:
    rng = np.random.default_rng(0)
    item = Item(shape=(1000,), dtype="|u1", row_axes=1)
    content = [(item, rng.bytes(1000)) for _ in range(50)]
    data = write(Header(kind="array", mode="lossless", items=50), content)
    stream = Counting(data)
    reader = Reader(stream)
    assert stream.n_read < 150
    found, chunks = reader.item(31)
    assert found.number == 31
    assert stream.n_read < 700  # the index, and this item's description
    assert b"".join(map(decode, chunks)) == content[31][1]
    assert stream.n_read < 2000
    with pytest.raises(ParameterError, match="no item 50: the file has 50"):
        reader.item(50)
    with pytest.raises(ParameterError, match="does not seek"):
        Reader(Pipe(data)).item(0)
    assert len([part for part in reader if isinstance(part, Chunk)]) == 150


@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_what_does_not_shrink_hardly_grows(size: int) -> None:
    item = Item(shape=(size,), dtype="|u1", row_axes=1)
    data = random.Random(0).randbytes(size)
    file = write(Header(kind="array", mode="lossless"), [(item, data)], cuts=1)
    assert len(file) <= size * 1.001 + 256


def outcome(stream: Any, **more: Any) -> object:
    """What reading ends in: the content, or the class of the error; and that in time."""
    start = time.perf_counter()
    try:
        result: object = read(stream, **more)
    except FileError as error:
        assert isinstance(error, TYPED)
        result = type(error)
    assert time.perf_counter() - start < 1
    return result


def good_files() -> Iterator[bytes]:
    model = bytes(300)
    yield write(*example())
    yield write(*example(model=model_id(model), items=4), model=model, cuts=1)
    yield write(Header(kind="array", mode="bounded", error=0.5), example()[1][:1])
    yield write(Header(kind="array", mode="lossy"), [])


def check_damaged(n: int, seed: int) -> None:
    for data in good_files():
        original = read(io.BytesIO(data))
        for mutated in fuzzing.mutations(data, random.Random(seed), n):
            for stream in (io.BytesIO(mutated), Pipe(mutated)):
                found = outcome(stream)
                assert isinstance(found, type) or (mutated == data and found == original)
            outcome(io.BytesIO(mutated), salvage=True)
            outcome(Pipe(mutated), salvage=True)
            read_alone(mutated)


def read_alone(data: bytes) -> None:
    """Items by the index, without the hash of the file: it may be what was edited, but no crash."""
    try:
        reader = Reader(io.BytesIO(data))
        for k in range(len(reader.index)):
            for chunk in reader.item(k)[1]:
                decode(chunk)
    except TYPED:
        return


def check_hostile(n: int, seed: int) -> None:
    for data in good_files():
        for mutated in fuzzing.hostile(data, random.Random(seed), n):
            for salvage in (False, True):
                outcome(io.BytesIO(mutated), salvage=salvage)
                outcome(Pipe(mutated), salvage=salvage)
            read_alone(mutated)


def test_damaged_files_end_in_a_typed_error() -> None:
    check_damaged(250, 0)


def test_hostile_files_end_in_a_typed_error_or_in_what_they_say() -> None:
    check_hostile(150, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_damaged_and_hostile_files(seed: int) -> None:
    check_damaged(2000, seed)
    check_hostile(500, seed)
