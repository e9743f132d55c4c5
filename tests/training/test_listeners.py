"""Listeners of a run: order of calls, stopping, failures, logs."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import narrows
from helpers.command import done, refused
from helpers.fake_run import ABOUT, SUMMARY, entry, follow
from helpers.small_data import curve
from narrows.estimators.summary import given_parameters
from narrows.exceptions import FileError, ParameterError
from narrows.training.listeners import JsonLines, Listener, Listeners, as_listener


class Recorder(Listener):
    """Records all calls; raises an error in the method named ``fails``."""

    def __init__(self, name: str, calls: list[Any], fails: str = "", error: Any = OSError) -> None:
        self.name, self.calls, self.fails, self.error = name, calls, fails, error

    def _note(self, what: str, message: Any) -> None:
        self.calls.append((self.name, what, message))
        if what == self.fails:
            raise self.error("no room\nleft")

    def on_start(self, about: dict[str, Any]) -> None:
        self._note("start", about)

    def on_epoch(self, entry: dict[str, float]) -> None:
        self._note("epoch", entry)

    def on_end(self, summary: dict[str, Any]) -> None:
        self._note("end", summary)


def short(calls: list[Any]) -> str:
    return " ".join(name + what[0] for name, what, _ in calls)


def test_each_gets_every_call_in_the_order_given() -> None:
    calls: list[Any] = []
    assert not follow([Recorder("a", calls), Recorder("b", calls)])
    assert short(calls) == "as bs ae be ae be ae be"  # start, two epochs, end
    assert calls[0][2] == ABOUT
    assert calls[-1][2] == SUMMARY


def test_a_run_needs_no_listener() -> None:
    assert not follow(None)
    assert not follow([])


def test_a_listener_gets_copies() -> None:
    class Spoiling(Listener):
        def on_start(self, about: dict[str, Any]) -> None:
            about["parameters"].clear()

        def on_epoch(self, entry: dict[str, float]) -> None:
            entry.clear()

    calls: list[Any] = []
    follow([Spoiling(), Recorder("a", calls)])
    assert calls[0][2] == ABOUT
    assert calls[1][2] == entry(1, 1.0)


@pytest.mark.parametrize(
    ("answer", "stops"),
    [(True, True), (np.bool_(True), True), (False, False), (None, False), (7, False), (1, False)],
)
def test_only_true_stops_the_run_and_all_listeners_get_the_epoch(answer: Any, stops: bool) -> None:
    seen: list[Any] = []
    assert follow([lambda entry: answer, seen.append]) is stops
    assert [one["epoch"] for one in seen] == [1, 2]


def test_one_that_fails_is_named_once_gets_no_more_epochs_and_is_ended() -> None:
    calls: list[Any] = []
    with pytest.warns(RuntimeWarning) as caught:
        follow([Recorder("a", calls, "epoch"), Recorder("b", calls)])
    assert [str(one.message) for one in caught] == [
        "The listener Recorder failed (OSError: no room) and gets no more epochs of this run; "
        "training continues without it."
    ]
    assert short(calls) == "as bs ae be be ae be"


def test_one_that_fails_at_the_end_does_not_keep_others_from_ending() -> None:
    for error in (OSError, KeyboardInterrupt):
        calls: list[Any] = []
        with pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else pytest.warns():
            follow([Recorder("a", calls, "end", error), Recorder("b", calls)], range(0))
        assert short(calls) == "as bs ae be"


def test_one_that_cannot_start_ends_the_run_and_those_before_it() -> None:
    calls: list[Any] = []
    with pytest.raises(ParameterError, match=r"Recorder could not start \(OSError: no room\)"):
        follow([Recorder("a", calls), Recorder("b", calls, "start"), Recorder("c", calls)])
    assert short(calls) == "as bs ae"
    with pytest.raises(FileError, match="no room"):
        follow(Recorder("a", calls, "start", FileError))
    with pytest.raises(KeyboardInterrupt):
        follow(Recorder("a", calls, "start", KeyboardInterrupt))


def test_after_an_error_listeners_get_its_message() -> None:
    calls: list[Any] = []
    listeners = Listeners(Recorder("a", calls))
    with pytest.raises(ValueError, match="late"), listeners.following(ABOUT) as summary:
        summary.update(SUMMARY)
        raise ValueError("late")
    assert calls[-1][2] == {"stop_reason": "ValueError: late"}


def test_ctrl_c_in_a_listener_is_raised() -> None:
    calls: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        follow(Recorder("a", calls, "epoch", KeyboardInterrupt))
    assert short(calls) == "as ae ae"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "must be a Listener or a callable .* got 3"),
        (["log.jsonl"], "must be a Listener or a callable .* got 'log.jsonl'"),
        (JsonLines, r"give JsonLines\(...\) instead"),
    ],
)
def test_what_is_no_listener_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        narrows.Autoencoder(listeners=given).fit(curve(40))


def test_a_listener_is_not_wrapped() -> None:
    listener = Listener()
    assert as_listener(listener) is listener


# ------------------------------------------------------------------ JSON lines


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_has_a_line_an_epoch_at_once_and_null_for_nan(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.on_start(ABOUT)
    assert path.read_text() == ""
    for epoch, loss in ((1, 0.25), (2, math.nan), (3, math.inf)):
        log.on_epoch(entry(epoch, loss))
        assert len(lines(path)) == epoch
    assert [one["loss"] for one in lines(path)] == [0.25, None, None]
    assert lines(path)[0] == entry(1, 0.25)


def test_a_fresh_run_over_a_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(str(path))
    follow(log)
    for again in (log, JsonLines(path)):
        with pytest.raises(FileError, match="append=True"):
            follow(again)
    assert len(lines(path)) == 2


def test_a_continued_log_loses_the_epochs_that_are_done_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    follow(JsonLines(path), range(1, 6))
    with path.open("a") as file:
        file.write('{"epoch": 6, "lo')  # the machine was switched off
    kept = path.read_bytes().splitlines(keepends=True)[:3]
    follow(JsonLines(path, append=True), range(4, 8), after=3)
    assert [one["epoch"] for one in lines(path)] == [1, 2, 3, 4, 5, 6, 7]
    assert path.read_bytes().startswith(b"".join(kept))
    follow(JsonLines(path, append=True), range(1, 2))  # the run starts again at its first epoch
    assert [one["epoch"] for one in lines(path)] == [1]


@pytest.mark.parametrize("end", ["", "{", '{"epo', '{"epoch": 3', '{"epoch": 3}'])
def test_an_incomplete_last_line_is_cut_off(end: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    follow(JsonLines(path))
    whole = path.read_bytes()
    path.write_bytes(whole + end.encode())
    JsonLines(path, append=True).on_start({"epoch": 9})
    assert path.read_bytes() == whole


def test_the_same_object_continues_its_own_file(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    follow(log, range(1, 2))
    follow(log, range(2, 3), after=1)
    assert [one["epoch"] for one in lines(tmp_path / "log.jsonl")] == [1, 2]


@pytest.mark.parametrize("text", ["precious", "[1]\n", '{"a": 1}\n', "1\n", "\n"])
def test_a_file_that_is_not_a_log_is_not_changed(text: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(FileError, match="not a log of narrows"):
        follow(JsonLines(path, append=True))
    assert path.read_text() == text


def test_a_log_with_another_suffix_or_in_no_folder_is_refused(tmp_path: Path) -> None:
    for name, words in (("log.txt", r"ends in .jsonl"), ("no/log.jsonl", "there is no folder")):
        with pytest.raises(FileError, match=words):
            follow(JsonLines(tmp_path / name))


def test_a_log_that_can_no_longer_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.jsonl", []

    def lose(entry: Any) -> None:
        path.unlink()
        path.mkdir()

    with pytest.warns(RuntimeWarning, match="JsonLines failed"):
        listeners = Listeners([lose, JsonLines(path), seen.append])
        listeners.on_start(ABOUT)
        assert not listeners.on_epoch(entry(1))
    assert len(seen) == 1


# ------------------------------------------------------------------ estimators


def test_clones_share_listeners_but_files_and_pickles_have_none(tmp_path: Path) -> None:
    given = [Recorder("a", []), JsonLines(tmp_path / "log.jsonl")]
    ae = narrows.Autoencoder(latent_dim=1, max_epochs=1, random_state=0, listeners=given)
    assert ae.get_params()["listeners"] is given
    again = clone(ae).listeners
    assert all(one is other for one, other in zip(again, given, strict=True))
    assert type(pickle.loads(pickle.dumps(ae)).listeners[1]) is JsonLines  # not fitted yet
    fitted = clone(ae).set_params(listeners=None).fit(curve(60))
    fitted.set_params(listeners=lambda entry: None)
    assert pickle.loads(pickle.dumps(fitted)).listeners is None
    assert fitted.listeners is not None
    assert narrows.load(fitted.save(tmp_path / "m.safetensors")).listeners is None
    assert "listeners" not in fitted.info()["parameters"]
    assert "listeners" not in given_parameters(ae)


def test_listeners_may_change_between_fits_that_continue() -> None:
    kwargs = {"latent_dim": 1, "max_epochs": 1, "random_state": 0, "warm_start": True}
    ae = narrows.Autoencoder(**kwargs).fit(curve(60))
    ae.set_params(listeners=[]).fit(curve(60))


# ------------------------------------------------------------------ the command


def test_the_command_refuses_a_log_before_any_work(tmp_path: Path) -> None:
    out, log = tmp_path / "m.safetensors", tmp_path / "log.jsonl"
    assert ".jsonl" in refused("fit", "digits", "-o", out, "--log", tmp_path / "log.txt")
    log.write_text("precious")
    assert "exists already" in refused("fit", "digits", "-o", out, "--log", log)
    assert "'tensorboard', 'mlflow', 'wandb'" in refused(
        "fit", "digits", "-o", out, "--track", "paper"
    )
    assert "--track [tensorboard|mlflow|wandb]" in done("fit", "--help")
    assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]
