"""Budgets, early stopping, learning rates, warm start and precision."""

import math
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import narrows
from helpers.small_data import curve
from narrows._types import Clock
from narrows.estimators.fit_and_resume import epochs_of
from narrows.training.batches import Rows
from narrows.training.loop import train
from narrows.training.monitor import Monitor
from narrows.training.process_group import Group
from narrows.training.train_state import Budget, StepRecord, TrainConfig, TrainState

X = curve(400)
KWARGS: dict[str, Any] = {"latent_dim": 1, "random_state": 0}


def test_history_has_every_epoch_and_every_term() -> None:
    vae = narrows.VariationalAutoencoder(**KWARGS, max_epochs=4).fit(X)
    assert vae.n_iter_ == len(vae.loss_curve_) == len(vae.history_) == 4
    assert len(vae.validation_curve_) == 5
    for entry in vae.history_:
        assert entry["loss"] == pytest.approx(entry["distance"] + entry["kl"], rel=1e-5)
    assert vae.best_loss_ == min(vae.validation_curve_)


def test_the_best_model_on_validation_is_the_one_kept() -> None:
    ae = narrows.Autoencoder(**KWARGS, max_epochs=12, learning_rate=0.05).fit(X[:60])
    short = narrows.Autoencoder(**KWARGS, max_epochs=0).fit(X[:60])
    assert min(ae.validation_curve_) == ae.validation_curve_[ae.best_epoch_]
    assert ae.best_loss_ <= short.best_loss_


def test_early_stopping_stops() -> None:
    noise = np.random.default_rng(0).normal(size=(80, 10))
    kwargs = {**KWARGS, "max_epochs": 200, "n_iter_no_change": 3, "linear_path": False}
    ae = narrows.Autoencoder(**kwargs).fit(noise)
    assert ae.n_iter_ < 200
    assert ae.n_iter_ - ae.best_epoch_ <= 6  # 3 epochs, and 3 of a cooldown that may find no better
    assert "no better validation loss in 3 epochs" in ae.stop_reason_
    free = narrows.Autoencoder(**{**kwargs, "max_epochs": 12}, early_stopping=False).fit(noise)
    assert free.n_iter_ == 12


def test_weight_decay_is_less_where_rows_are_many_for_the_parameters() -> None:
    found = []
    for n in (1000, 50_000, 100_000):
        rows = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
        options = {**KWARGS, "hidden_layer_sizes": (64, 32), "validation_fraction": 0.0}
        ae = narrows.Autoencoder(**options, max_epochs=1).fit(rows)
        [entry, *_] = ae.state_.train_state.optimizers["model"].param_groups
        parameters = sum(p.numel() for p in ae.model_.parameters())
        decay = entry["weight_decay"] * max(1.0, entry["lr_multiplier"])
        assert decay == pytest.approx(min(0.3, 10 * parameters / rows.size))
        found.append(decay)
    assert found[0] == 0.3 > found[1] > found[2]


def test_many_rows_are_passed_over_fewer_times() -> None:
    rows = [1000, 128 * 400, 10**6, 10**9]
    assert [epochs_of("auto", n, 128) for n in rows] == [100, 100, 5, 1]
    assert epochs_of(7, 10**9, 128) == 7


def test_a_time_budget_is_kept_and_the_schedule_follows_it() -> None:
    started = time.monotonic()
    ae = narrows.Autoencoder(**KWARGS, max_epochs=10**6, max_time="1s", early_stopping=False).fit(X)
    assert 0.9 < time.monotonic() - started < 60  # it would take hours without the budget
    assert ae.history_[-1]["learning_rate"] < 0.1 * max(h["learning_rate"] for h in ae.history_)


@pytest.mark.parametrize("hold", [0.0, 0.05, 0.5])
def test_the_rate_warms_up_is_kept_and_falls_to_zero(hold: float) -> None:
    recipe = TrainConfig(learning_rate=1.0, weight_decay=0.0, batch_size=1, hold_fraction=hold)
    rates = [recipe.rate(step, step / 10_000) for step in range(10_001)]
    assert rates[0] == pytest.approx(1 / 200)
    assert rates[199 : 200 + round(10_000 * max(0.0, hold - 0.02))] == pytest.approx(
        [1.0] * len(rates[199 : 200 + round(10_000 * max(0.0, hold - 0.02))]), abs=0.02
    )
    assert rates[7500] == pytest.approx(0.25 / (1 - hold))
    assert rates[-1] == pytest.approx(0.0, abs=1e-6)
    assert recipe.rate(3, 0.1) == pytest.approx(min(1.0, 0.9 / (1 - hold)))  # a short budget


def test_each_parameter_has_its_own_learning_rate() -> None:
    from narrows.parts.networks.linear_path import lr_multipliers

    ae = narrows.Autoencoder(latent_dim=4, max_epochs=1, random_state=0)
    ae.fit(np.random.default_rng(0).normal(size=(200, 128)))
    times = lr_multipliers(ae.model_)
    f = ae.model_.f
    path = next(m for m in f.path.modules() if isinstance(m, torch.nn.Linear))
    linear = [m for m in f.net.modules() if isinstance(m, torch.nn.Linear)]
    assert times[path.weight] == times[path.bias] == 64 / 128
    assert [times[m.weight] for m in linear] == pytest.approx(
        [min(3.0, math.sqrt(512 / m.in_features)) for m in linear]
    )
    assert {times.get(m.bias, 1.0) for m in linear} == {1.0}
    groups = ae.state_.train_state.optimizers["model"].param_groups
    rate = ae.history_[-1]["learning_rate"]
    assert [g["lr"] for g in groups] == pytest.approx([rate * g["lr_multiplier"] for g in groups])
    assert {g["lr_multiplier"] for g in groups} == {
        times.get(p, 1.0) for p in ae.model_.parameters()
    }
    # what shrinks a parameter in a step: no more where the rate is larger
    wanted = [rate * ae._usual.weight_decay * min(1.0, g["lr_multiplier"]) for g in groups]
    assert [g["lr"] * g["weight_decay"] for g in groups] == pytest.approx(wanted)


def test_warm_start_continues_and_cold_start_does_not() -> None:
    ae = narrows.Autoencoder(**KWARGS, max_epochs=5, warm_start=True).fit(X)
    first = ae.best_loss_
    ae.fit(X)
    assert ae.validation_curve_[0] == pytest.approx(first, rel=1e-6)
    ae.warm_start = False
    assert ae.fit(X).best_loss_ == pytest.approx(first, rel=1e-6)


def test_partial_fit_is_one_pass_a_call() -> None:
    ae = narrows.Autoencoder(**KWARGS)
    errors = []
    for _ in range(15):
        ae.partial_fit(X)
        errors.append(-ae.score_samples(X).mean())
    assert ae.n_iter_ == 15
    assert errors[-1] < 0.6 * errors[0]
    with pytest.raises(narrows.InputError, match="expecting 6"):
        ae.partial_fit(X[:, :4])


def test_rows_of_x_val_are_what_is_validated_on() -> None:
    ae = narrows.Autoencoder(**KWARGS, max_epochs=3).fit(X, X_val=X[:50])
    assert ae.rows_ == {"given": 400, "validation": 50}
    scores = -ae.score_samples(X[:50]).mean() * 6 / 2  # ½ Σ over six columns
    assert ae.best_loss_ == pytest.approx(scores, rel=1e-4)


def test_ctrl_c_keeps_the_best_model_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    update, seen = Monitor.update, []

    def interrupted(self: Monitor, record: StepRecord) -> bool:
        seen.append(record)
        if len(seen) == 25:
            raise KeyboardInterrupt
        return update(self, record)

    monkeypatch.setattr(Monitor, "update", interrupted)
    with pytest.warns(UserWarning, match="interrupted; the best model so far is kept"):
        ae = narrows.Autoencoder(**KWARGS, batch_size=36).fit(X)
    assert ae.stop_reason_ == "interrupted"
    assert ae.best_loss_ < ae.validation_curve_[0]
    assert np.isfinite(ae.transform(X)).all()


def test_a_run_that_diverges_keeps_the_best_weights_before_it() -> None:
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate"):
        ae = narrows.Autoencoder(**KWARGS, learning_rate=1e30, max_epochs=5).fit(X)
    assert np.isfinite(ae.best_loss_)
    assert ae.score_samples(X).mean() >= ae.pca_.score_samples(X).mean() - 0.05


def test_progress_is_silent_unless_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        narrows.Autoencoder(**KWARGS, max_epochs=2, verbose=verbose).fit(X)
        out = capsys.readouterr()
        assert out.out == ""
        assert out.err == ""


def test_a_part_with_after_step_gets_every_trace() -> None:
    from test_players import CHOICES

    from narrows.estimators.build import Parts, build_model
    from narrows.parts.latents.gaussian import Point
    from narrows.parts.objective import WeightedObjective

    class Counting(Point):
        seen = 0

        def after_step(self, trace: Any) -> None:
            self.seen += len(trace.x)

    data = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    rows = Rows(data, narrows_scaling(data))
    q = Counting()
    model = build_model(Parts(q=q), CHOICES, None, torch.Generator().manual_seed(0))
    state = TrainState(torch.Generator(), torch.Generator())
    recipe = TrainConfig(learning_rate=1e-3, weight_decay=0.0, batch_size=16)
    list(train(model, WeightedObjective(), rows, recipe, Budget(2), state, Group()))
    assert q.seen == 80


def narrows_scaling(data: torch.Tensor) -> Any:
    from narrows.training.batches import fit_scaling
    from narrows.training.statistics import statistics

    return fit_scaling(statistics([data]), "column")


def test_fit_learns_inside_the_callers_no_grad() -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = narrows.Autoencoder(**KWARGS, max_epochs=3).fit(X)
    assert ae.best_loss_ < ae.validation_curve_[0]


def test_partial_fit_warms_up_once_however_small_its_calls() -> None:
    ae = narrows.Autoencoder(**KWARGS, batch_size=64)
    for start in range(0, 64 * 6, 64):
        ae.partial_fit(X[start : start + 64])
    rates = [entry["learning_rate"] for entry in ae.history_]
    usual = 4e-3 * math.sqrt(64 / 128)
    assert rates == pytest.approx([usual * (i + 1) / 20 for i in range(6)])
    assert [entry["epoch"] for entry in ae.history_] == [1, 2, 3, 4, 5, 6]


def test_partial_fit_that_diverges_keeps_the_weights_before_it() -> None:
    ae = narrows.Autoencoder(**KWARGS, learning_rate=1e30, batch_size=16)
    with pytest.warns(ConvergenceWarning):
        ae.partial_fit(X)
    assert np.isfinite(ae.transform(X)).all()
    assert "no longer a number" in ae.stop_reason_


def test_the_range_of_a_first_chunk_does_not_bound_later_ones() -> None:
    pixels = np.random.default_rng(0).integers(0, 17, size=(200, 6)).astype(float)
    ae = narrows.Autoencoder(**KWARGS).partial_fit(pixels)
    assert ae.info()["bounds"] is None
    whole = narrows.Autoencoder(**KWARGS, max_epochs=1, warm_start=True).fit(pixels)
    assert whole.fit(pixels * 2).info()["bounds"] == [[0.0], [32.0]]


def test_an_error_in_a_warm_start_leaves_the_weights_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ae = narrows.Autoencoder(**KWARGS, max_epochs=2, warm_start=True).fit(X)
    before, finish = ae.transform(X), Monitor.finish

    def broken(self: Monitor, reason: str) -> None:
        finish(self, reason)
        raise RuntimeError("late")

    monkeypatch.setattr(Monitor, "finish", broken)
    with pytest.raises(RuntimeError, match="late"):
        ae.fit(X)
    np.testing.assert_array_equal(ae.transform(X), before)


def test_a_warm_start_with_other_parameters_is_refused() -> None:
    vae = narrows.VariationalAutoencoder(**KWARGS, max_epochs=1, warm_start=True).fit(X)
    vae.set_params(beta=7.0, latent_dim=2)
    with pytest.raises(narrows.ParameterError, match=r"with other .*beta"):
        vae.fit(X)
    vae.set_params(beta=1.0, latent_dim=1, max_epochs=2, weight_decay=0.5).fit(X)
    assert vae.state_.train_state.optimizers["model"].param_groups[0]["weight_decay"] == 0.5 / 3


def test_own_layers_are_in_training_mode_in_steps_and_in_eval_mode_in_validation() -> None:
    def build() -> dict[str, torch.nn.Module]:
        torch.manual_seed(0)
        f = torch.nn.Sequential(
            torch.nn.Linear(6, 16),
            torch.nn.BatchNorm1d(16),
            torch.nn.Dropout(),
            torch.nn.Linear(16, 2),
        )
        return {"f": f, "g": torch.nn.Linear(2, 6)}

    networks = build()
    state = torch.get_rng_state()
    ae = narrows.Autoencoder(**networks, max_epochs=3, random_state=0, batch_size=111).fit(X[:334])
    assert torch.equal(state, torch.get_rng_state())
    norm = ae.model_.f[1]
    assert int(norm.num_batches_tracked) > 0
    again = narrows.Autoencoder(**networks, max_epochs=3, random_state=0, batch_size=111)
    np.testing.assert_array_equal(again.fit(X[:334]).transform(X), ae.transform(X))
    assert ae.best_loss_ == pytest.approx(ae.validation_errors_["validation_error"] * 3, rel=1e-4)


@pytest.mark.parametrize(
    "model",
    [narrows.Autoencoder, pytest.param(narrows.VariationalAutoencoder, marks=pytest.mark.slow)],
)
def test_bfloat16_is_for_products_only(model: Any) -> None:
    wide = curve(600, 12)
    kwargs = {**KWARGS, "max_epochs": 6, "batch_size": 16}
    half, full = (model(**kwargs, precision=p).fit(wide) for p in ("bfloat16", "float32"))
    assert half.choices_.precision == "bfloat16"
    assert {p.dtype for p in half.model_.parameters()} == {torch.float32}
    for a, b in zip(half.loss_curve_, full.loss_curve_, strict=True):
        assert a == pytest.approx(b, rel=0.1, abs=0.05)
    assert half.loss_curve_[0] != full.loss_curve_[0]
    # with steps of nothing the sum of an epoch is the loss itself, however many are summed
    still = {**kwargs, "batch_size": 1, "learning_rate": 1e-12, "max_epochs": 1}
    half, full = (model(**still, precision=p).fit(wide) for p in ("bfloat16", "float32"))
    assert half.loss_curve_[0] == pytest.approx(full.loss_curve_[0], rel=0.02, abs=0.02)


@pytest.mark.parametrize("model", [narrows.Autoencoder, narrows.VariationalAutoencoder])
def test_distances_and_terms_are_summed_in_float32(model: Any) -> None:
    fitted = model(**KWARGS, max_epochs=1, precision="bfloat16").fit(X)
    x = fitted.scaling_.apply(torch.from_numpy(X))
    with torch.autocast("cpu", torch.bfloat16):
        trace = fitted.model_(x, Clock(), torch.Generator().manual_seed(0))
    fitted.objective_(fitted.model_, trace)
    assert torch.equal(trace.distance, fitted.model_.D.distance(x, trace.output))
    assert {term.dtype for term in trace.terms.values()} == {torch.float32}


def test_precision_is_chosen_by_hardware_and_by_what_pca_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from narrows.estimators import fit_setup as choices

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(choices, "multiplies_bfloat16", lambda device: True)
    assert choices.choose_precision("auto", cpu, 0.1, True) == "bfloat16"
    assert choices.choose_precision("auto", cpu, 0.1, False) == "float32"
    assert choices.choose_precision("auto", gpu, 0.1, False) == "bfloat16"
    assert choices.choose_precision("auto", cpu, 0.0005, True) == "float32"
    assert choices.choose_precision("auto", cpu, None, True) == "float32"
    assert choices.choose_precision("float32", cpu, 0.1, True) == "float32"
    monkeypatch.setattr(choices, "multiplies_bfloat16", lambda device: False)
    assert choices.choose_precision("auto", cpu, 0.1, True) == "float32"
    assert choices.choose_precision("bfloat16", cpu, 0.1, False) == "bfloat16"


@pytest.mark.parametrize(
    ("shape", "kwargs", "large"),
    [
        ((16,), {}, False),  # layers of 64 and 32
        ((16,), {"hidden_layer_sizes": (512, 32)}, True),
        ((200,), {}, True),  # 512 and 256
        ((200,), {"hidden_layer_sizes": 64}, False),
        ((8, 8), {"architecture": "conv"}, False),
        ((16, 16), {"architecture": "conv"}, True),
    ],
)
def test_small_networks_compute_in_float32_on_a_cpu(
    shape: tuple[int, ...],
    kwargs: dict[str, Any],
    large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from narrows.estimators import fit_setup as choices

    monkeypatch.setattr(choices, "multiplies_bfloat16", lambda device: True)
    rows = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    fitted = narrows.Autoencoder(
        latent_dim=2, max_epochs=1, distance="mse", random_state=0, device="cpu", **kwargs
    ).fit(rows)
    assert fitted.choices_.precision == ("bfloat16" if large else "float32")
