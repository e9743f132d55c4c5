"""Misuse of the Codec: each mistake raises an error that says what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits

import narrows
from helpers.containers import Pipe
from narrows import Autoencoder, Codec
from narrows.compression.format.pack import Unpacker
from narrows.exceptions import InputError, ParameterError
from narrows.io.write import atomic_write

X = load_digits().images[:200].astype(np.uint8)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(max_epochs=0, random_state=0, latent_dim=2, levels=1, context=False).fit(X)


@pytest.mark.parametrize("source", [None, 3, np.zeros(5), io.StringIO("text")])
def test_a_source_that_is_no_file_is_refused(source: Any) -> None:
    with pytest.raises(InputError, match="open binary file"):
        narrows.decompress(source)


def test_a_file_opened_as_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.narrow"
    path.write_text("words")
    with path.open() as stream, pytest.raises(InputError, match="open binary file"):
        narrows.decompress(stream)


@pytest.mark.parametrize("model", [5, Codec(), Autoencoder()])
def test_a_model_of_another_type_is_refused(codec: Codec, model: Any) -> None:
    with pytest.raises(InputError, match="model must be"):
        narrows.decompress(codec.compress(X), model)


@pytest.mark.parametrize("stream", ["x.narrow", None, io.StringIO()])
def test_a_stream_that_cannot_be_written_is_refused(codec: Codec, stream: Any) -> None:
    with pytest.raises(InputError, match="open binary file"):
        codec.compress_to(stream, X)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[1, 2], [3]], "X is ragged"),
        (sparse.eye(4).tocsr(), "sparse"),
        (torch.zeros(5, 8, 8, dtype=torch.bfloat16), "bfloat16"),
    ],
)
def test_data_that_are_no_array_are_refused(codec: Codec, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        codec.compress(given, mode="lossless")


def test_a_single_sample_raises_an_error_with_the_expected_shape(codec: Codec) -> None:
    with pytest.raises(InputError, match=r"expects \(n, 8, 8\)"):
        codec.compress(X[0])


@pytest.mark.slow
def test_the_error_names_the_shapes_that_blocks_take() -> None:
    photos = list(np.random.default_rng(0).integers(0, 255, (2, 9, 9, 3)).astype(np.uint8))
    blocks = Codec(max_epochs=0, block=(4, 4), latent_dim=2, levels=1, random_state=0).fit(photos)
    with pytest.raises(InputError, match="expects images of 3 channels: "):
        blocks.compress(X)


@pytest.mark.parametrize("X", [np.zeros((0, 3)), np.full((4, 5), np.nan), np.full(3, -np.inf)])
def test_a_relative_error_of_constant_data_is_zero(codec: Codec, X: np.ndarray) -> None:
    back = narrows.decompress(codec.compress(X, max_error="1e-3rel"), codec)
    assert back.shape == X.shape and back.tobytes() == X.tobytes()


def test_a_range_that_overflows_is_refused(codec: Codec) -> None:
    with pytest.raises(InputError, match="give max_error in X's units"):
        codec.compress(np.array([-1e308, 1e308]), max_error="1e-3rel")


def test_one_item_needs_a_file_that_can_seek(codec: Codec) -> None:
    with pytest.raises(ParameterError, match="save it to a file first"):
        Unpacker(Pipe(codec.compress(X)), codec.decoder_).one(0)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    out = tmp_path / "no" / "x.npy"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(out) as place:
        place.write_bytes(b"")
    assert caught.value.filename == str(out)
