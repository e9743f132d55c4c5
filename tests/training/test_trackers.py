"""Experiment trackers: the message if a package is missing, and what is really written."""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from helpers.command import refused
from helpers.fake_run import ABOUT, follow
from narrows.exceptions import ParameterError
from narrows.training.listeners import Listeners, MLflow, TensorBoard, WandB


def test_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = refused("fit", "digits", "-o", tmp_path / "m.safetensors", "--track", "wandb")
    assert "pip install 'narrows[track]'" in said


@pytest.mark.parametrize(
    ("make", "module", "package"),
    [
        (lambda: TensorBoard("runs"), "tensorboard", "tensorboard"),
        (MLflow, "mlflow", "mlflow-skinny"),
        (WandB, "wandb", "wandb"),
    ],
)
def test_a_missing_package_is_one_sentence(
    make: Any, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ParameterError) as caught:
        make()
    assert str(caught.value).endswith(
        f"needs {package}, which is not installed; run pip install 'narrows[track]'."
    )


def present(module: str) -> None:
    """Skip if the package is not installed; its own warnings at import are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(module)


THEIRS = pytest.mark.filterwarnings("default")  # other people's packages warn of their own code


@THEIRS
def test_tensorboard_reads_the_curves_back(tmp_path: Path) -> None:
    present("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    follow(board, range(1, 5))
    follow(board, range(3, 6), after=2)
    pickle.loads(pickle.dumps(board))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = events.Scalars("validation")
    assert [point.step for point in points] == [1, 2, 3, 4, 5]
    assert [point.value for point in points] == pytest.approx([1 / n for n in range(1, 6)])
    assert "epoch" not in events.Tags()["scalars"]
    shown = b"".join(events.Tensors("about/text_summary")[0].tensor_proto.string_val)
    assert b'"latent_dim": 2' in shown


@THEIRS
def test_mlflow_keeps_parameters_curves_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions prefer a database
    present("mlflow")
    import mlflow

    uri = (tmp_path / "runs").as_uri()
    follow(flow := MLflow("narrow", uri), range(1, 3))
    follow(flow, range(3, 4), after=2)
    pickle.loads(pickle.dumps(flow))
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("narrow").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.data.params["parameters.latent_dim"] == "2"
    assert run.data.tags["stop_reason"] == "enough"
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert mlflow.active_run() is None
    with pytest.raises(ValueError, match="late"), Listeners(MLflow("broken", uri)).following(ABOUT):
        raise ValueError("late")
    (run,) = client.search_runs([client.get_experiment_by_name("broken").experiment_id])
    assert run.info.status == "FAILED"


@THEIRS
def test_a_missing_server_is_one_sentence() -> None:
    present("mlflow")
    with pytest.raises(ParameterError, match="MLflow could not start"):
        follow(MLflow(tracking_uri="nowhere://at-all"))


@THEIRS
def test_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = WandB("narrow", mode="offline", dir=str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a listener that failed
        follow(run)
    pickle.loads(pickle.dumps(run))
    (written,) = tmp_path.rglob("run-*.wandb")
    held = written.read_bytes()
    assert b"validation" in held
    assert b"stop_reason" in held
