"""Listeners at a real fit, by Python and by the command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import narrows
from helpers.command import TINY, done, refused
from helpers.small_data import curve

X = curve(200)
KWARGS: dict[str, Any] = {"latent_dim": 1, "random_state": 0, "max_epochs": 4}


class Noting(narrows.Listener):
    """Keeps all calls."""

    def __init__(self) -> None:
        self.about: list[dict[str, Any]] = []
        self.entries: list[dict[str, float]] = []
        self.summaries: list[dict[str, Any]] = []

    def on_start(self, about: dict[str, Any]) -> None:
        self.about.append(about)

    def on_epoch(self, entry: dict[str, float]) -> None:
        self.entries.append(entry)

    def on_end(self, summary: dict[str, Any]) -> None:
        self.summaries.append(summary)


def test_a_listener_gets_what_the_model_keeps() -> None:
    noting = Noting()
    vae = narrows.VariationalAutoencoder(**KWARGS, listeners=noting).fit(X)
    assert noting.entries == vae.history_
    (about,), (summary,) = noting.about, noting.summaries
    json.dumps(about, allow_nan=False)
    assert about["model"] == "VariationalAutoencoder"
    assert about["parameters"] == {"latent_dim": 1, "max_epochs": 4, "random_state": 0}
    assert about["choices"] == json.loads(json.dumps(asdict(vae.choices_)))
    assert (about["rows"], about["seed"], about["epoch"]) == (
        {"training": 180, "validation": 20},
        0,
        0,
    )
    assert summary["stop_reason"] == vae.stop_reason_
    assert summary["best_epoch"] == vae.best_epoch_
    assert summary["best_score"] == vae.best_loss_
    assert 0 < summary["seconds"] <= vae.fit_seconds_


def test_listening_changes_no_bit_and_failing_loses_nothing() -> None:
    def fails(entry: dict[str, float]) -> None:
        raise OSError("no room")

    plain = narrows.Autoencoder(**KWARGS).fit(X)
    with pytest.warns(RuntimeWarning, match=r"fails failed \(OSError: no room\)"):
        heard = narrows.Autoencoder(**KWARGS, listeners=[fails]).fit(X)
    np.testing.assert_array_equal(plain.transform(X), heard.transform(X))


def test_a_listener_stops_a_fit() -> None:
    ae = narrows.Autoencoder(**KWARGS, listeners=lambda entry: entry["epoch"] == 2).fit(X)
    assert ae.n_iter_ == 2
    assert ae.stop_reason_ == "a listener asked to stop"


def test_a_log_continues_through_partial_fit(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ae = narrows.Autoencoder(**KWARGS, listeners=narrows.JsonLines(path))
    for _ in range(3):
        ae.partial_fit(X)
    epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
    assert epochs == [1, 2, 3] == [entry["epoch"] for entry in ae.history_]


def test_a_log_that_exists_leaves_the_estimator_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch()
    ae = narrows.Autoencoder(**KWARGS, listeners=narrows.JsonLines(path))
    with pytest.raises(narrows.FileError, match="exists already"):
        ae.fit(X)
    assert not hasattr(ae, "model_")


def test_ctrl_c_in_a_listener_keeps_the_best_model() -> None:
    noting = Noting()

    def interrupt(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        ae = narrows.Autoencoder(**KWARGS, listeners=[noting, interrupt]).fit(X)
    assert ae.stop_reason_ == noting.summaries[0]["stop_reason"] == "interrupted"
    assert len(noting.entries) == len(ae.history_) == 2


def test_the_command_writes_a_log(tmp_path: Path) -> None:
    out, log = tmp_path / "m.safetensors", tmp_path / "log.jsonl"
    words = ("fit", "digits", "-o", out, "--log", log, "-q", *TINY)
    assert done(*words) == ""
    first = [json.loads(line) for line in log.read_text().splitlines()]
    assert first[0]["loss"] == narrows.load(out).history_[0]["loss"]
    assert "--overwrite" in refused(*words)
    assert done(*words, "--overwrite") == ""
    assert len(log.read_text().splitlines()) == len(first) == 1
