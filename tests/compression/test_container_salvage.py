"""What a damaged .narrow file still gives, and what a writer does not write."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest

from helpers import mutated_files as fuzzing
from helpers.containers import Pipe, decode, example, write
from helpers.mutated_files import split
from narrows.compression.format.container import Lost, Reader, Writer, model_id
from narrows.compression.format.frames import ITEM, Chunk
from narrows.compression.format.header import Header, Item
from narrows.exceptions import FileError, ParameterError, TooLarge

HEADER, CONTENT = example()
FILE = write(HEADER, CONTENT)
FRAMES = split(FILE)[1]  # four items of three chunks, of 3, 3 and 1 of their 7 rows
Rows = dict[int, set[int]]


def salvage(stream: io.IOBase) -> tuple[Rows, Rows, list[Lost], Reader]:
    """The rows that came, each checked against the originals, and those that are said lost."""
    came: Rows = {}
    lost: Rows = {}
    told = []
    reader = Reader(stream, salvage=True)
    for part in reader:
        if isinstance(part, Item):
            came[part.number] = set()
            assert part == CONTENT[part.number][0]
        elif isinstance(part, Chunk):
            item, first = part.item, part.first * part.item.row_bytes
            expected = CONTENT[item.number][1][first : first + part.decoded_size]
            assert decode(part) == expected
            came[item.number] |= set(range(part.first, part.first + part.rows))
        else:
            told.append(part)
            if part.item is not None:
                all_rows = CONTENT[part.item][0].rows
                rows = range(all_rows)[part.first :][: part.rows]
                lost.setdefault(part.item, set()).update(rows)
    assert told == reader.lost
    return came, lost, told, reader


def damaged(place: int) -> bytes:
    return FILE[:place] + bytes([FILE[place] ^ 1]) + FILE[place + 1 :]


def complete(came: Rows, lost: Rows) -> None:
    """Every row came or is said to be lost, none both."""
    for number, (item, _) in enumerate(CONTENT):
        some, others = came.get(number, set()), lost.get(number, set())
        assert some | others == set(range(item.rows))
        assert not some & others


def test_a_good_file_loses_nothing() -> None:
    for stream in (io.BytesIO(FILE), Pipe(FILE)):
        came, lost, told, _ = salvage(stream)
        complete(came, lost)
        assert told == []


@pytest.mark.parametrize("make", [io.BytesIO, Pipe])
def test_a_damaged_payload_costs_its_rows(make: Callable[[bytes], io.IOBase]) -> None:
    chunk = FRAMES[2]
    came, lost, told, _ = salvage(make(damaged(chunk.position + 30)))
    complete(came, lost)
    assert lost == {0: {3, 4, 5}}
    assert told[0].why == f"the payload of the CHUNK frame at byte {chunk.position} is damaged"


@pytest.mark.parametrize("k", range(len(FRAMES) - 1))
@pytest.mark.parametrize("inside", [0, 1, 5, -1])
def test_a_damaged_head_costs_its_frame_where_the_file_seeks(k: int, inside: int) -> None:
    frame = FRAMES[k]
    place = frame.position + inside if inside >= 0 else FRAMES[k + 1].position - 1
    came, lost, _, _ = salvage(io.BytesIO(damaged(place)))
    complete(came, lost)
    number = sum(f.kind == ITEM for f in FRAMES[: k + 1]) - 1
    everything = set(range(CONTENT[number][0].rows))
    assert set(lost) == {number}
    assert lost[number] == (
        everything if frame.kind == ITEM else set(range(frame.first, frame.first + frame.rows))
    )


def test_a_damaged_head_ends_what_a_pipe_gives() -> None:
    chunk = FRAMES[6]
    came, lost, told, _ = salvage(Pipe(damaged(chunk.position)))
    assert came == {0: set(range(7)), 1: {0, 1, 2}}
    assert lost == {1: {3, 4, 5, 6}}
    assert told[0].why == f"the head of the ITEM frame at byte {chunk.position} is damaged"


@pytest.mark.parametrize("header", [HEADER, Header(kind="images", mode="lossless", items=4)])
def test_of_a_truncated_file_comes_what_there_is(header: Header) -> None:
    data = write(header, CONTENT)
    for stop in range(len(data) - len(FILE) + FRAMES[0].position, len(data)):
        for stream in (io.BytesIO(data[:stop]), Pipe(data[:stop])):
            came, lost, told, _ = salvage(stream)
            assert told
            for number, rows in came.items():
                assert rows | lost.get(number, set()) == set(range(CONTENT[number][0].rows))
    if header.items is not None:
        assert any(
            "items; its header says 4" in part.why for part in salvage(io.BytesIO(data[:400]))[2]
        )


def test_a_damaged_end_is_said_and_costs_nothing() -> None:
    for data in (damaged(len(FILE) - 1), damaged(len(FILE) - 20), FILE + b"x", FILE[:-50]):
        came, lost, told, _ = salvage(io.BytesIO(data))
        complete(came, lost)
        assert lost == {}
        assert [part.item for part in told] == [None]


def test_rows_that_were_taken_out_are_missed() -> None:
    text, frames, _ = split(FILE)
    less = [frame for k, frame in enumerate(frames[:-1]) if k != 2]
    came, lost, told, _ = salvage(io.BytesIO(fuzzing.seal(text, less)))
    complete(came, lost)
    assert lost == {0: {3, 4, 5}}
    assert told[0].why == "chunks are missing"


def test_a_damaged_model_costs_no_rows() -> None:
    model = random.Random(0).randbytes(500)
    data = bytearray(
        write(Header(kind="images", mode="lossless", model=model_id(model)), CONTENT, model=model)
    )
    start = split(bytes(data))[1][0].position
    for place in (start, start + 100):
        data[place] ^= 1
        came, lost, told, reader = salvage(io.BytesIO(bytes(data)))
        data[place] ^= 1
        complete(came, lost)
        assert reader.model is None
        assert [(part.item, part.rows) for part in told] == [(None, None)]


def test_damage_anywhere_gives_true_rows_or_an_error() -> None:
    rng = random.Random(0)
    blind = (rng.choice(fuzzing.BLIND[:2])(FILE, rng) for _ in range(400))
    for data in blind:
        for make in (io.BytesIO, Pipe):
            try:
                _, _, told, _ = salvage(make(data))
                assert told or data == FILE
            except FileError:  # the header; or a length that is none
                assert data[: FRAMES[0].position] != FILE[: FRAMES[0].position]


def test_a_writer_refuses_what_a_reader_would() -> None:
    def start(**more: object) -> Writer:
        return Writer(io.BytesIO(), Header(**{"kind": "array", "mode": "lossy", **more}))

    with pytest.raises(ParameterError, match="the header has kind 'film'"):
        start(kind="film")
    with pytest.raises(ParameterError, match="an error in mode 'lossy'"):
        start(error=0.5)
    with pytest.raises(ParameterError, match="not the one that the header names"):
        Writer(io.BytesIO(), Header(kind="array", mode="lossy"), b"x")
    big = bytes(2**26 + 1)
    with pytest.raises(TooLarge, match="the model has 67108865 bytes"):
        Writer(io.BytesIO(), Header(kind="array", mode="lossy", model=model_id(big)), big)
    for wrong, words in [
        (Item(shape=(2,), dtype="<U3", row_axes=1), "dtype '<U3'"),
        (Item(shape=(2,), dtype="|u1", row_axes=2), "row_axes 2"),
        (Item(shape=(2,), dtype="|u1", row_axes=1, name="../x"), "name '../x'"),
        (Item(shape=(2,), dtype="|u1", row_axes=1, name="\udc80"), "cannot be written"),
        (Item(shape=(2,), dtype="|u1", row_axes=1, codec={"a": 0.5}), "0.5 is not an integer"),
        (Item(shape=(2,), dtype="|u1", row_axes=1, codec={"a": object()}), "cannot be written"),
    ]:
        with pytest.raises(ParameterError, match=words):
            start().item(wrong)
    with pytest.raises(TooLarge, match="takes 70"):
        start().item(Item(shape=(2,), dtype="|u1", row_axes=1, codec={"a": "x" * 70_000}))


def test_a_writer_refuses_chunks_that_do_not_fit() -> None:
    def start() -> Writer:
        writer = Writer(io.BytesIO(), Header(kind="array", mode="lossy", items=1))
        writer.item(Item(shape=(4, 3), dtype="<i2", row_axes=1))
        return writer

    for size, words in [
        (5, "not whole rows of 6 bytes"),
        (30, "5 rows from 0"),
        (0, "0 rows"),
    ]:
        with pytest.raises(ParameterError, match=words):
            start().chunk(0, b"", bytes(size))
    with pytest.raises(ParameterError, match="method 6"):
        start().chunk(6, b"", bytes(6))
    with pytest.raises(ParameterError, match="not whole rows"):
        Writer(io.BytesIO(), Header(kind="array", mode="lossy")).chunk(0, b"", b"")
    with pytest.raises(TooLarge, match="a chunk has"):
        start().chunk(0, bytes(2**26 + 1025), bytes(6))
    with pytest.raises(ParameterError, match="ends after 0 of its 4 rows"):
        start().close()
    with pytest.raises(ParameterError, match="ends after 0 of its 4 rows"):
        start().item(Item(shape=(), dtype="|u1", row_axes=0))
    with pytest.raises(ParameterError, match="0 items; its header says 1"):
        Writer(io.BytesIO(), Header(kind="array", mode="lossy", items=1)).close()
    writer = start()
    writer.chunk(0, b"x", np.zeros((4, 3), ">i2"))
    writer.close()


def test_a_reader_reads_once() -> None:
    reader = Reader(io.BytesIO(FILE))
    assert len(list(reader)) == len(FRAMES) - 1
    with pytest.raises(ValueError, match="once"):
        list(reader)
