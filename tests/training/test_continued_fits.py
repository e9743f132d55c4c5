"""Fit, warm start and partial_fit take the very steps of AdamW and of the schedule, by hand."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import narrows
from helpers.counted_source import Counted
from helpers.small_data import curve
from narrows import Autoencoder
from narrows.io.safetensors_file import read_file, write_file

X = curve(60)  # so many that the first call of partial_fit decides
BATCH, RATE = 10, 0.003


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"f": nn.Linear(6, 2), "g": nn.Linear(2, 6)}


class ByHand:
    """A linear autoencoder trained by torch alone: x scaled to mean 0 and deviation 1, ½ Σ error².

    Matrices with six or two inputs get three times the rate (√(512 / n), at most 3), but no more
    weight decay for it.
    """

    def __init__(self, nets: dict[str, nn.Module], first: np.ndarray) -> None:
        self.nets = [copy.deepcopy(nets[name]) for name in "fg"]
        self.mean, self.deviation = first.mean(0), first.std(0)
        ps = [p for net in self.nets for p in net.parameters()]
        groups = [{"params": [p], "times": 3.0 if p.ndim > 1 else 1.0} for p in ps]
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
        self.order = torch.Generator().manual_seed(0)
        self.losses: list[float] = []

    def passes(self, rows: np.ndarray, rates: Iterator[float], decay: float, n: int = 1) -> None:
        f, g = self.nets
        x = torch.from_numpy((rows - self.mean) / self.deviation).float()
        for _ in range(n):
            losses = []
            for index in torch.randperm(len(x), generator=self.order).split(BATCH):
                rate = next(rates)
                for group in self.optimizer.param_groups:
                    shrunk = decay / group["times"]
                    group |= {"lr": rate * group["times"], "weight_decay": shrunk}
                self.optimizer.zero_grad()
                loss = 0.5 * (x[index] - g(f(x[index]))).square().sum(1).mean()
                loss.backward()
                self.optimizer.step()
                losses.append(float(loss.detach()))
            self.losses.append(float(np.mean(losses)))

    def same(self, fitted: Any) -> None:
        assert fitted.best_epoch_ == len(fitted.validation_curve_) - 1  # the last weights were kept
        mine = [p for net in self.nets for p in net.parameters()]
        pairs = zip(mine, fitted.model_.parameters(), strict=True)
        for wanted, found in pairs:
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def scheduled(epochs: int) -> Iterator[float]:
    """Warmed up over 200 steps or a tenth of the run; kept; falls to zero from the hold on."""
    steps, hold = epochs * len(X) // BATCH, 0.5 * min(1.0, 10 / epochs)
    for step in range(steps):
        progress = (step + 0.5) / steps
        warm = min(1.0, max((step + 1) / 200, progress / 0.1))
        yield RATE * min(warm, (1 - progress) / (1 - hold))


def constant() -> Iterator[float]:
    """Warmed up over 20 steps, once; then kept."""
    for step in range(10**6):
        yield RATE * min(1.0, (step + 1) / 20)


def linear(**more: Any) -> Autoencoder:
    usual = {"batch_size": BATCH, "learning_rate": RATE, "validation_fraction": 0.0,
             "precision": "float32", "random_state": 0, "early_stopping": False}  # fmt: skip
    return Autoencoder(**networks(), **{**usual, **more})


@pytest.mark.parametrize("epochs", [3, 14])
def test_a_fit_takes_the_steps_of_adamw_and_a_warm_start_goes_on_with_its_moments(
    epochs: int,
) -> None:
    """Another weight decay counts from the second fit on; its schedule starts anew."""
    ae, hand = linear(max_epochs=epochs, weight_decay=0.3, warm_start=True), ByHand(networks(), X)
    for decay, n in ((0.3, epochs), (3.0, 4)):
        ae.set_params(weight_decay=decay, max_epochs=n).fit(X)
        hand.passes(X, scheduled(n), decay, n)
        hand.same(ae)
        assert ae.loss_curve_ == pytest.approx(hand.losses[-n:], rel=1e-4)


def test_partial_fit_goes_on_with_moments_warm_up_and_order() -> None:
    """The scaling stays that of the first rows, whatever comes later."""
    ae, hand, rates = linear(weight_decay=0.3), ByHand(networks(), X), constant()
    for rows in (X, 2 * X[:30] + 1, X, X[::-1]):
        ae.partial_fit(rows)
        hand.passes(rows, rates, 0.3)
        hand.same(ae)
    np.testing.assert_allclose(ae.scaling_.shift, X.mean(0))
    assert ae.loss_curve_ == pytest.approx(hand.losses, rel=1e-4)
    assert [entry["step"] for entry in ae.history_] == [6, 9, 15, 21]


def test_partial_fit_keeps_the_last_weights_though_others_were_better() -> None:
    """Each call has rows of its own: errors of two calls do not compare."""
    ae = linear(learning_rate=0.5).partial_fit(X)
    for _ in range(3):
        ae.partial_fit(100 * X[:, ::-1])
    errors = ae.validation_curve_
    assert errors[-1] > min(errors)
    assert ae.best_epoch_ == len(errors) - 1
    assert -0.5 * 6 * ae.score_samples(100 * X[:, ::-1]).mean() == pytest.approx(
        errors[-1], rel=1e-3
    )


def test_a_warm_start_begins_at_the_weights_that_were_kept() -> None:
    """Those of the best epoch, not the last; its first score is that of the fit before."""
    noise = np.random.default_rng(0).normal(size=(60, 6))
    ae = linear(max_epochs=12, warm_start=True, learning_rate=0.3, validation_fraction=0.5)
    ae.fit(noise)
    assert 0 < ae.best_epoch_ < 12
    before = [p.detach().clone() for p in ae.model_.parameters()]
    best = ae.best_loss_
    ae.set_params(max_epochs=0).fit(noise)
    assert all(torch.equal(*each) for each in zip(before, ae.model_.parameters(), strict=True))
    assert ae.best_loss_ == pytest.approx(best, rel=1e-6)


def test_the_first_rows_of_partial_fit_are_kept_wherever_the_model_goes(tmp_path: Path) -> None:
    """They are a copy, in the state: in its file, after fit_sampler, for rows on a disk too."""
    rows = curve(40)
    how = {"latent_dim": 2, "random_state": 0, "sampler": "mixture"}
    expected = Autoencoder(**how).partial_fit(rows[:20]).partial_fit(rows[20:])
    buffer = rows[:20].copy()
    reused = Autoencoder(**how).partial_fit(buffer)
    buffer[:] = 0
    first = Autoencoder(**how).partial_fit(rows[:20])
    saved = narrows.load(first.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(saved.state_.first_rows, rows[:20])
    sampled = Autoencoder(**how).partial_fit(rows[:20]).fit_sampler(rows)
    for model in (reused, saved, sampled, pickle.loads(pickle.dumps(first))):
        model.partial_fit(rows[20:])
        np.testing.assert_array_equal(model.scaling_.shift, expected.scaling_.shift)
    lazy = first.set_params(in_memory=False).partial_fit(Counted(rows[20:]))
    np.testing.assert_allclose(lazy.scaling_.shift, expected.scaling_.shift)
    assert lazy.partial_fit(rows).state_.first_rows is None


@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 5), torch.zeros(0, 6), torch.full((3, 6), torch.nan)]
)
def test_first_rows_in_a_file_that_no_fit_had_are_refused(rows: Any, tmp_path: Path) -> None:
    path = Autoencoder(latent_dim=2).partial_fit(X[:20]).save(tmp_path / "m.safetensors")
    tensors, header = read_file(path)
    write_file(path, {**tensors, "first_rows": rows}, header, overwrite=True)
    with pytest.raises(narrows.FileError, match="its first rows are not like those"):
        narrows.load(path)


@pytest.mark.parametrize("dtype", ["u2", "f2", "?", ">f8", "i4"])
def test_first_rows_of_any_dtype_and_with_gaps_come_back(dtype: str, tmp_path: Path) -> None:
    rows = np.rint(10 + 3 * X).astype(dtype)
    if rows.dtype.kind == "f":
        rows[3, 2] = np.nan
    model = Autoencoder(latent_dim=2, missing="mask", random_state=0).partial_fit(rows[:20])
    again = narrows.load(model.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.state_.first_rows, rows[:20])
    for each in (model, again):
        each.partial_fit(rows[20:])
    np.testing.assert_array_equal(again.transform(rows), model.transform(rows))
    kept = Autoencoder(latent_dim=2, max_epochs=1, random_state=0, warm_start=True)
    assert kept.partial_fit(X[:20]).fit(X).state_.first_rows is None
