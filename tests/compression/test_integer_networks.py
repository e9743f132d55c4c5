"""The decoder in whole numbers: equal to float arithmetic, and the same whoever multiplies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.compression.entropy_models import MIN_SCALE, ConditionalPrior, groups_of
from narrows.compression.format.entropy_coder import Decoder, Encoder, Tables, frequencies_of
from narrows.compression.format.integer_networks import (
    EXACT,
    MAX_INPUT,
    IntegerLayer,
    IntegerNetwork,
    Payload,
    quantize_network,
)
from narrows.compression.format.latent_codes import (
    WIDTH,
    ConditionalPriorCoder,
    GroupWeights,
    placeholder_tables,
    quantize_prior,
)
from narrows.compression.quantize_weights import group_weights
from narrows.exceptions import Corrupt, FileError


def made_up(
    seed: int, reach: int
) -> tuple[Payload, list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """A frozen network of random weights, its float weights and its steps."""
    rng = np.random.default_rng(seed)
    k, hidden, out, side = 5, 11, 12, 2 * reach + 1
    path = rng.normal(size=(out, k, 1, 1)), rng.normal(size=out)
    net = [
        (rng.normal(size=(hidden, k, side, side)), rng.normal(size=hidden)),
        (rng.normal(size=(out, hidden, 1, 1)), rng.normal(size=out)),
    ]
    steps = rng.uniform(0.1, 1, (2, k))
    sample = rng.integers(-9, 10, (20, k, 4, 4)) * steps[0][:, None, None]
    arrays, structure = quantize_network(path, net, steps, sample)
    return Payload(arrays, structure), [path, *net], steps


@pytest.mark.parametrize("reach", [0, 1])
def test_whole_numbers_answer_as_floats_do(reach: int) -> None:
    payload, (path, first, last), steps = made_up(3, reach)
    codes = np.random.default_rng(4).integers(-9, 10, (7, 5, 6, 3))
    a = torch.from_numpy(codes * steps[1][:, None, None])
    layers = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in (path, first, last)]
    conv = torch.nn.functional.conv2d
    h = torch.relu(conv(a, *layers[1], padding=reach))
    expected = conv(a, *layers[0]) + conv(h, *layers[2])
    found = IntegerNetwork(payload)(codes, 1) * 2.0 ** -payload.structure["fraction"]
    assert np.abs(found - expected.numpy()).max() < 3e-3 * float(expected.abs().max())


def test_bands_of_a_large_grid_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    payload, _, _ = made_up(5, 1)
    codes = np.random.default_rng(6).integers(-9, 10, (2, 5, 23, 4))
    whole = IntegerNetwork(payload)(codes, 0)
    monkeypatch.setattr("narrows.compression.format.integer_networks.BLOCK_NUMBERS", 100)
    assert (IntegerNetwork(payload)(codes, 0) == whole).all()


def test_answers_do_not_depend_on_who_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    payload, _, _ = made_up(7, 1)
    codes = np.random.default_rng(8).integers(-2000, 2000, (3, 5, 9, 9))
    whole = IntegerNetwork(payload)(codes, 0)
    rng = np.random.default_rng(9)

    def shuffled(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The same product, its terms summed one by one in another order."""
        total = np.zeros((len(a), w.shape[1]))
        for i in rng.permutation(len(w)):
            total += a[:, i, None] * w[i]
        return total

    monkeypatch.setattr("narrows.compression.format.integer_networks.product", shuffled)
    assert (IntegerNetwork(payload)(codes, 0) == whole).all()


def test_a_layer_that_could_be_inexact_is_refused() -> None:
    weight = np.full((1, 1 << 15, 1, 1), 32767, np.int16)
    for signs in (1, -1, np.where(np.arange(1 << 15) % 2, 1, -1)[:, None, None]):
        with pytest.raises(Corrupt, match="exact"):  # terms of either sign, whose sum may be small
            IntegerLayer((weight * signs).astype(np.int16), np.zeros(1, np.int64), 3, MAX_INPUT)
    with pytest.raises(Corrupt, match="exact"):
        IntegerLayer(weight[:, :1], np.array([EXACT]), 3, 1)


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), columns=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_codes_come_back_by_a_conditional_prior(seed: int, rows: int, columns: int) -> None:
    for reach, (h, w) in ((1, (rows, columns)), (0, (1, 1))):
        prior = prior_of(seed, reach)
        rng = np.random.default_rng(seed)
        codes = np.rint(rng.standard_t(2, (3, 6, h, w)) * rng.uniform(0.1, 50))
        codes = np.clip(codes, -32767, 32767).astype(np.int64)
        encoder = Encoder()
        prior.encode(codes, 1, encoder)
        decoder = Decoder(encoder.finish())
        assert (prior.decode(decoder, codes.shape, 1) == codes).all()
        decoder.finish()


@pytest.mark.parametrize("reach", [0, 1])
def test_symbols_are_counted_as_they_are_coded(reach: int) -> None:
    """What no table has, or is too far from the mean, counts as an escape."""
    prior, rng = prior_of(5, reach), np.random.default_rng(0)
    tables = prior.tables.frequencies[:, : WIDTH + 1]
    coded, counts = np.zeros(tables.shape, np.int64), np.zeros(tables.shape, np.int64)

    class Counting(Encoder):
        def put_symbols(self, symbols: np.ndarray, tables: Tables, rows: np.ndarray) -> None:
            np.add.at(coded, (rows.ravel(), symbols.ravel()), 1)
            super().put_symbols(symbols, tables, rows)

    side = 6 if reach else 1
    codes = np.rint(rng.standard_t(1, (40, 6, side, side)) * 100).clip(-32767, 32767)
    prior.encode(codes.astype(np.int64), 1, Counting())
    prior.count(codes.astype(np.int64), 1, counts)
    assert counts.sum() == codes.size
    none = (tables == 0) & (np.arange(WIDTH + 1) < WIDTH)
    counts[:, WIDTH] += np.where(none, counts, 0).sum(1)
    np.testing.assert_array_equal(np.where(none, 0, counts), coded)
    assert 0 < coded[:, WIDTH].sum() < codes.size


def prior_of(seed: int, reach: int, channels: int = 6) -> ConditionalPriorCoder:
    """A frozen prior of random weights, with tables that know no number but 0 to 200 apart."""
    rng = np.random.default_rng(seed)
    side, passes, hidden, levels = 2 * reach + 1, 4 if reach else 1, 8, 2
    groups = [
        GroupWeights(
            rng.normal(size=(hidden, b, side, side)),
            rng.normal(size=(levels, passes, hidden)),
            rng.normal(size=(hidden, hidden, 1, 1)),
            rng.normal(size=hidden),
            rng.normal(size=(2 * (b - a), hidden, 1, 1)),
            rng.normal(size=(levels, 2 * (b - a))),
        )
        for a, b in groups_of(channels)
    ]
    sample = rng.integers(-20, 20, (10, channels, side, side))
    arrays, shifts = quantize_prior(groups, [b for _, b in groups_of(channels)], sample)
    flat = placeholder_tables()
    flat[:, 100:150] = 1000
    flat = frequencies_of(flat.astype(np.int64)).astype("<u2")
    payload = Payload(arrays | {"prior.frequencies": flat}, {"prior": shifts})
    return ConditionalPriorCoder(Payload.from_bytes(payload.data), levels, channels)


@pytest.mark.parametrize("reach", [0, 1])
@torch.no_grad()
def test_a_frozen_prior_means_what_the_trained_one_does(reach: int) -> None:
    prior = ConditionalPrior(2, 6, 8, reach)
    rng = torch.Generator().manual_seed(2)
    prior.init_weights(rng)
    for p in prior.parameters():
        p += 0.3 * torch.randn(p.shape, generator=rng)
    prior.double()
    codes = torch.randint(-9, 10, (5, 6, *((6, 5) if reach else (1, 1))), generator=rng).double()
    groups = [group_weights(net) for _, _, net in prior.group_networks()]
    arrays, shifts = quantize_prior(groups, [b for _, b in prior.groups], codes.numpy())
    arrays["prior.frequencies"] = placeholder_tables()
    frozen = ConditionalPriorCoder(Payload(arrays, {"prior": shifts}), 2, 6)
    level = torch.full((5,), 1)
    for at, (i, j) in enumerate(frozen.passes):
        mask, _ = prior._known_cells(codes, at)
        for (a, b), net, step in zip(prior.groups, prior.nets, frozen.groups, strict=True):
            known = torch.cat([codes[:, :a], codes[:, a:b] * mask], 1)
            mean, scale = (x[:, :, i::2, j::2] for x in net(known, level, at))
            pad = torch.nn.functional.pad(known, (reach,) * 4).movedim(1, -1)
            m, r = (x / 256 for x in step(pad.numpy(), 1, at))
            wrong = np.abs(m - mean.movedim(1, -1).numpy())
            assert wrong.max() < 0.02 + 2e-3 * float(mean.abs().max())
            found = np.maximum(r, 0) + MIN_SCALE
            wrong = np.abs(found - scale.movedim(1, -1).numpy())
            assert wrong.max() < 0.02 + 2e-3 * float(scale.max())


def test_a_payload_is_what_its_bytes_say() -> None:
    payload, _, _ = made_up(11, 1)
    again = Payload.from_bytes(payload.data)
    assert again.data == payload.data and again.id == payload.id
    assert again.structure == payload.structure
    for name, array in payload.arrays.items():
        assert (again.arrays[name] == array).all() and again.arrays[name].dtype == array.dtype


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_payloads_are_refused_or_whole(data: st.DataObject) -> None:
    """Whatever the bytes: a typed error, or a network that answers within exact numbers."""
    payload, _, _ = made_up(12, 0)
    raw = bytearray(payload.data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 700)))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        network = IntegerNetwork(Payload.from_bytes(bytes(raw)))
    except FileError:
        return
    codes = np.full((1, network.latent_dim, 1, 1), 32767)
    assert np.abs(network(codes, 0)).max() < EXACT


def test_tables_that_are_none_are_refused() -> None:
    for wrong in ([[65535]], [[65536, 1]], [[-1, 65537]], [[]], [[0.5, 65535.5]]):
        with pytest.raises(Corrupt):
            Tables(np.array(wrong))


def test_frequencies_keep_what_was_counted_and_nothing_else() -> None:
    counts = np.random.default_rng(0).integers(0, 3, (50, 300)) ** 9
    counts[:, 0] = 1
    found = frequencies_of(counts)
    assert (found.sum(axis=1) == 65536).all()
    assert ((found > 0) == (counts > 0)).all()


@pytest.mark.slow
def test_a_chunk_that_would_take_hours_has_no_place() -> None:
    """Weights times cells are limited, so that a small file cannot ask for any time."""
    from sklearn.datasets import load_digits

    from narrows import Codec

    codec = Codec(max_epochs=0, hidden_layer_sizes=(4096, 4096), context=False, levels=1)
    model = codec.fit(load_digits().images[:60].astype(np.uint8)).decoder_
    assert model.work > 4096**2
    most = (1 << 40) // model.work
    assert model.grid((most, 8, 8), False) is not None
    assert model.grid((most + 1, 8, 8), False) is None
