"""Edge cases of the Codec: unusual numbers, very wide images, files made by others."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import narrows
from helpers.quick_codecs import few_patches  # noqa: F401
from narrows import Codec
from narrows.compression.format.chunk_methods import HEAD, RESIDUAL, CodingSettings
from narrows.compression.format.container import Writer, model_id
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.entropy_coder import Decoder, Encoder
from narrows.compression.format.header import Header, Item
from narrows.compression.format.integer_arrays import decode_integers, encode_integers
from narrows.compression.format.integer_networks import Payload
from narrows.compression.format.pack import CHUNK_ELEMENTS, _item_of, _parts, pack
from narrows.exceptions import Corrupt, InputError
from narrows.io.safetensors_file import read_file

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (24, 40)).astype(np.uint8) for _ in range(4)]
TABLE = RNG.normal(size=(200, 6))


@pytest.fixture(scope="module")
def of_images() -> Codec:
    return Codec(max_epochs=1, levels=2, random_state=0).fit(IMAGES)


@pytest.fixture(scope="module")
def of_rows() -> Codec:
    return Codec(max_epochs=1, levels=2, random_state=0).fit(TABLE)


# ------------------------------------------------------------------ what goes in


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (IMAGES[0].astype(np.uint16) * 257, "uint16 from"),
        (IMAGES[0] > 99, "bool"),
        (IMAGES[0] / 255, "float64"),
        (IMAGES[0] * 1j, "complex128"),
    ],
)
def test_images_of_another_dtype_are_refused_if_lossy(
    of_images: Codec, other: Any, words: str
) -> None:
    """A model fitted on 0 to 255 would clip 16 bits at its white, and lose an imaginary part."""
    with pytest.raises(InputError, match=f"000001.png holds {words}.*fitted on uint8"):
        of_images.compress([IMAGES[0], other])
    back = of_images.decompress(of_images.compress([IMAGES[0], other], mode="lossless"))
    assert back[1].dtype == other.dtype
    assert np.array_equal(back[1], other)


def test_a_wider_dtype_with_values_in_range_is_accepted(of_images: Codec) -> None:
    wide = [image.astype(np.int64) for image in IMAGES]
    for a, b in zip(of_images.reconstruct(wide), of_images.reconstruct(IMAGES), strict=True):
        assert np.array_equal(a, b)


def test_arrays_outside_of_the_dtype_fitted_are_refused() -> None:
    X = RNG.integers(0, 256, (40, 4, 4)).astype(np.uint8)
    codec = Codec(max_epochs=1, levels=1, context=False, random_state=0).fit(X)
    assert codec.reconstruct(X.astype(np.int32)).dtype == np.int32
    with pytest.raises(InputError, match=r"X holds int32 from 0 to 2.*fitted on uint8"):
        codec.compress(X.astype(np.int32) * 10)


def test_a_later_image_of_a_list_may_be_a_list(of_images: Codec) -> None:
    data = of_images.compress([IMAGES[0], IMAGES[1].tolist()], mode="lossless")
    assert np.array_equal(of_images.decompress(data)[1], IMAGES[1])


def test_each_image_is_decoded_once() -> None:
    """An item of a folder is a file, which is read each time its pixels are used."""

    class Counted:
        name, asked = "a.png", 0

        @property
        def data(self) -> Any:
            self.asked += 1
            return IMAGES[0]

    item: Any = Counted()
    pack(io.BytesIO(), [item], CodingSettings("lossless", True))
    assert item.asked == 1


@pytest.mark.parametrize(
    "width", [CHUNK_ELEMENTS // 100, CHUNK_ELEMENTS // 3, CHUNK_ELEMENTS // 50]
)
def test_strips_of_wide_images_stay_within_a_chunk(width: int) -> None:
    image = np.broadcast_to(np.float64(0), (150, width))
    parts = [part.shape for part in _parts(image, _item_of(image, None), True)]
    assert sum(rows for rows, _ in parts) == 150
    assert all(rows * width <= CHUNK_ELEMENTS for rows, _ in parts)
    assert len({rows for rows, _ in parts[:-1]}) == 1
    assert parts[0][0].bit_count() == 1  # no block of a power of two is cut


@pytest.mark.parametrize("factor", [0.0, 1e-320, 1e307])
def test_numbers_far_from_the_training_data_keep_their_bound(of_rows: Codec, factor: float) -> None:
    X = TABLE * factor
    assert np.array_equal(of_rows.decompress(of_rows.compress(X, mode="lossless")), X)
    error = 1e300 if factor > 1 else 1e-322
    assert np.abs(of_rows.decompress(of_rows.compress(X, max_error=error)) - X).max() <= error


def test_the_context_network_sees_each_channel_in_its_own_units() -> None:
    """Its inputs are the pixels themselves, in every channel."""
    grey = RNG.integers(0, 80, (60, 1, 5, 5))
    X = np.concatenate([grey, grey + 90, grey // 2 + 10], axis=1).astype(np.uint8)
    codec = Codec(max_epochs=1, levels=1, random_state=0).fit(X)
    bits: Any = codec.objective_.regularizers["pixels"]
    seen: list[Any] = []

    def network(x: Any, side: Any, rng: Any) -> Any:
        seen.append(x)
        return x.new_zeros(len(x))

    bits.network.forward = network
    choices = codec.choices_
    scaled = (X - choices.broadcastable("shift")) / choices.broadcastable("scale")
    x = torch.from_numpy(scaled.astype(np.float32))
    trace: Any = type("T", (), {"x": x, "output": [x], "clock": type("C", (), {"step": 0})})
    bits(codec.model_, trace)
    assert np.array_equal(seen[0].numpy(), X)


# ------------------------------------------------------------------ what is kept


def test_a_pickle_holds_no_training_state(of_rows: Codec) -> None:
    assert of_rows.decoder_.id
    again = pickle.loads(pickle.dumps(of_rows))
    assert "_decoder" not in vars(again)
    state = again.state_
    assert state.pca is state.validation_sample is state.train_state is None


def test_a_checkpoint_holds_the_decoder_of_its_own_weights(tmp_path: Path) -> None:
    """Not that of an earlier training."""
    codec = Codec(max_epochs=1, levels=1, random_state=0, warm_start=True).fit(TABLE)
    first, found = codec.payload_.id, []
    run = tmp_path / "run.checkpoint"

    def listen(entry: Any) -> None:
        if run.exists():
            payload = read_file(run)[0]["payload"].numpy()
            found.append(Payload.from_bytes(payload.tobytes()).id)

    codec.set_params(max_epochs=3, checkpoint=run, checkpoint_every=1, listeners=[listen])
    codec.fit(TABLE)
    assert found
    assert first not in found


# ------------------------------------------------------------------ files made by others


def written(items: list[Item], payloads: list[tuple[int, bytes, Any]], **header: Any) -> bytes:
    stream = io.BytesIO()
    model = header.pop("embedded", None)
    writer = Writer(stream, Header(kind="array", **header), model)
    for item, payload in zip(items, payloads, strict=True):
        writer.item(item)
        writer.chunk(*payload)
    writer.close()
    return stream.getvalue()


TWO = Item(shape=(2,), dtype="|u1", row_axes=1)


def test_files_of_no_array_and_of_several() -> None:
    with pytest.raises(Corrupt, match="is empty"):
        narrows.decompress(written([], [], mode="lossless"))
    several = written([TWO, TWO], [(0, b"ab", b"ab"), (0, b"cd", b"cd")], mode="lossless")
    assert [array.tobytes() for array in narrows.decompress(several)] == [b"ab", b"cd"]


def test_a_residual_of_complex_numbers_is_refused(of_rows: Codec) -> None:
    model, encoder = of_rows.decoder_, Encoder()
    model.tables.encode(np.zeros((3, model.latent_dim, 1, 1), np.int64), 0, encoder)
    codes = encoder.finish()
    rest = b"\0" + encode_integers(np.zeros((3, 6, 2), np.int64))
    payload = HEAD.pack(0, len(codes)) + codes + rest
    item = Item(shape=(3, 6), dtype="<c16", row_axes=1)
    chunk = (RESIDUAL, payload, np.zeros((3, 6), complex))
    data = written([item], [chunk], mode="lossless", model=model.id)
    with pytest.raises(Corrupt, match="cannot hold"):
        narrows.decompress(data, model)


@pytest.mark.parametrize("word", [b'"x":NaN,', b'"x":1e999,', b'"x":1e2,', b'"y":1,"x":2,'])
def test_the_head_of_a_model_has_one_form(of_rows: Codec, word: bytes) -> None:
    data = of_rows.payload_.data
    end = 4 + int.from_bytes(data[:4], "little")
    head = data[4:end].replace(b'"structure":{', b'"structure":{' + word)
    lying = len(head).to_bytes(4, "little") + head + data[end:]
    file = written(
        [TWO], [(0, b"ab", b"ab")], mode="lossless", model=model_id(lying), embedded=lying
    )
    with pytest.raises(Corrupt, match="model's head is no"):
        narrows.decompress(file)


def test_a_prior_of_lone_cells_has_no_grid(of_rows: Codec) -> None:
    payload = of_rows.payload_
    model = ExactDecoder(replace(payload, structure={**payload.structure, "event": None}))
    with pytest.raises(Corrupt, match="alone"):
        model.tables.decode(Decoder(Encoder().finish()), (1, model.latent_dim, 2, 3), 0)


def test_a_palette_is_of_no_differences() -> None:
    x = RNG.choice(np.array([3, 1 << 40, -(1 << 50)]), 500)
    payload = encode_integers(x)
    assert payload[0] == 3  # a palette
    with pytest.raises(Corrupt, match="unknown way"):
        decode_integers(bytes([payload[0] | 16]) + payload[1:], x.shape)
