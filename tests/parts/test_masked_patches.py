"""Masked autoencoding: f sees visible patches alone, D counts hidden ones alone."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from narrows import Autoencoder, MaskedAutoencoder, ParameterError
from narrows._types import Clock
from narrows.parts.masked_patches import (
    HEADS,
    WIDTH,
    PatchGrid,
    PatchMask,
    TransformerBlock,
    VisibleEncoder,
    attention,
    patch_side,
)

DIGITS = load_digits().images
SMALL = {"latent_dim": 6, "hidden_layer_sizes": (32,), "random_state": 0}


@pytest.mark.parametrize("shape", [(7,), (2, 9), (1, 8, 8), (3, 5, 7), (1, 1, 9)])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_patches_and_their_mask_cover_the_same_elements(shape: tuple[int, ...], side: int) -> None:
    patches = PatchGrid(shape, side)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    cut = patches.to_patches(x)
    assert cut.shape == (4, patches.n, patches.numbers)
    torch.testing.assert_close(cut.square().sum((1, 2)), x.square().flatten(1).sum(1))
    # a patch that is marked covers exactly the elements that were cut into it
    for i in range(patches.n):
        each = torch.zeros(4, patches.n)
        each[:, i] = 1.0
        only = patches.to_patches(x * patches.to_elements(each))
        torch.testing.assert_close(only[:, i], cut[:, i])
        assert float(only.abs().sum()) == pytest.approx(float(cut[:, i].abs().sum()), rel=1e-4)


def test_as_many_patches_are_hidden_in_every_row_at_random() -> None:
    c = PatchMask(0.75, 2, (1, 8, 8))
    x = torch.ones(200, 1, 8, 8)
    seen, mask = c(x, torch.Generator().manual_seed(0))
    assert mask.flatten(1).sum(1).tolist() == [48.0] * 200
    torch.testing.assert_close(seen.nan_to_num(), 1 - mask)
    share = mask.mean(0)
    assert share.min() > 0.6 and share.max() < 0.9


def test_what_is_hidden_cannot_change_the_code() -> None:
    model = MaskedAutoencoder(max_epochs=1, **SMALL).fit(DIGITS[:60]).model_
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    _, mask = model.c(x, torch.Generator().manual_seed(1))
    other = torch.where(mask > 0, torch.full_like(x, 9.0), x)
    with torch.no_grad():
        one = model(x, Clock(), torch.Generator().manual_seed(1))
        two = model(other, Clock(), torch.Generator().manual_seed(1))
        torch.testing.assert_close(one.z, two.z)
        shown = torch.where(mask > 0, x, x + 1.0)  # and what is not hidden does
        three = model(shown, Clock(), torch.Generator().manual_seed(1))
        assert ((three.z - one.z).abs().amax(-1) > 1e-3).all()
        residual = (one.output[0] - x) * mask
    torch.testing.assert_close(one.distance[0], 0.5 * residual.square().flatten(1).sum(1))


def encoder() -> VisibleEncoder:
    torch.manual_seed(0)
    f = VisibleEncoder(PatchGrid((1, 4, 6), 2), 3)
    torch.nn.init.normal_(f.place)
    return f


def test_a_patch_keeps_its_place_whichever_others_are_visible() -> None:
    """Tokens are a set: their order is of no effect, their places in the image are."""
    f, x = encoder(), torch.randn(2, 1, 4, 6)
    visible = torch.tensor([[0, 2, 5], [1, 3, 4]])
    with torch.no_grad():
        h = f(x, visible)
        torch.testing.assert_close(f(x, visible[:, [2, 0, 1]]), h)
        torch.testing.assert_close(f(x, torch.arange(6).expand(2, -1)), f(x))
        turned = x.roll(2, -1)  # the same patches at other places
        assert (f(turned) - f(x)).abs().max() > 1e-3


def test_a_block_is_torchs_own_encoder_layer_without_dropout() -> None:
    torch.manual_seed(0)
    mine, t = TransformerBlock(WIDTH), torch.randn(2, 5, WIDTH)
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
    )
    heads, answer = layer.self_attn, layer.self_attn.out_proj
    pairs = [
        (heads.in_proj_weight, mine.told.weight), (heads.in_proj_bias, mine.told.bias),
        (answer.weight, mine.answer.weight), (answer.bias, mine.answer.bias),
        (layer.linear1.weight, mine.wide.weight), (layer.linear1.bias, mine.wide.bias),
        (layer.linear2.weight, mine.narrow.weight), (layer.linear2.bias, mine.narrow.bias),
    ]  # fmt: skip
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.copy_(ours)
        torch.testing.assert_close(mine(t), layer(t), rtol=1e-4, atol=1e-5)


def test_it_fills_in_better_than_the_mean() -> None:
    model = MaskedAutoencoder(patch=2, max_epochs=25, **SMALL).fit(DIGITS[:600])
    x = model.scaling_.apply(torch.from_numpy(DIGITS[1200:])[:, None])
    with torch.no_grad():
        trace = model.model_(x, Clock(), torch.Generator().manual_seed(0))
        mean = model.scaling_.apply(torch.from_numpy(DIGITS[:600])[:, None]).mean(0)
    _, mask = model.model_.c(x, torch.Generator().manual_seed(0))
    plain = 0.5 * ((x - mean) * mask).square().flatten(1).sum(1).mean()
    assert float(trace.distance.mean()) < 0.8 * float(plain)


def test_tables_and_signals_have_patches_too() -> None:
    X = np.random.default_rng(0).normal(size=(60, 10))
    assert MaskedAutoencoder(max_epochs=2, latent_dim=3).fit(X).transform(X).shape == (60, 3)
    S = np.random.default_rng(0).normal(size=(40, 2, 33))
    model = MaskedAutoencoder(max_epochs=1, latent_dim=3, axes="CL", patch=4).fit(S)
    assert model.reconstruct(S).shape == S.shape


def test_patches_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ParameterError, match="larger than a sample"):
        MaskedAutoencoder(patch=9).fit(DIGITS[:30])
    with pytest.raises(ParameterError, match="nothing can be hidden"):
        MaskedAutoencoder(patch=8).fit(DIGITS[:30])
    with pytest.raises(ParameterError, match="networks of a kind of its own"):
        f, g = torch.nn.Linear(64, 2), torch.nn.Linear(2, 64)
        MaskedAutoencoder(f=f, g=g).fit(DIGITS[:30].reshape(30, 64))
    with pytest.raises(ParameterError, match=r"classes.*choose another distance"):
        MaskedAutoencoder(distance="categorical").fit(DIGITS[:30].reshape(30, 64))
    assert patch_side("auto", (1, 28, 28)) == 4
    assert not hasattr(Autoencoder(), "hidden_share")


def test_a_hidden_patch_with_missing_elements_stays_hidden(monkeypatch: Any) -> None:
    X = np.random.default_rng(0).normal(size=(60, 8))
    X[np.random.default_rng(1).random(X.shape) < 0.4] = np.nan
    model = MaskedAutoencoder(missing="mask", latent_dim=2, max_epochs=1, random_state=0).fit(X)
    c, f = model.model_.c, model.model_.f
    shown: list[torch.Tensor] = []
    whole = type(f).forward

    def spy(self: Any, x: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        shown.append(visible)
        return whole(self, x, visible)

    monkeypatch.setattr(type(f), "forward", spy)
    x = torch.from_numpy(X).float()
    with torch.no_grad():
        model.model_(x, Clock(), torch.Generator().manual_seed(0))
    _, hidden = c(model.model_.fill_missing(x)[0], torch.Generator().manual_seed(0))
    assert float(hidden.gather(1, shown[0]).sum()) == 0.0


def test_attention_is_that_of_the_formula_where_products_are_in_bfloat16() -> None:
    rng = torch.Generator().manual_seed(0)
    given = torch.randn(3, 2, 4, 25, 16, generator=rng).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(*given)
    queries, keys, values = given.double()
    wanted = torch.softmax(queries @ keys.mT / 4.0, -1) @ values
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    slope = torch.randn(wanted.shape, generator=rng, dtype=torch.float64)
    exact, ours = (torch.autograd.grad((out * slope).sum(), given)[0] for out in (wanted, found))
    torch.testing.assert_close(ours, exact)
