"""Bad input is one sentence, nothing is half-written, and every ending has its status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command import TINY, done, process, refused, run
from narrows import load
from narrows.io.read import read


def test_usage_errors_end_with_2(tmp_path: Path) -> None:
    for words in (
        ["frobnicate"],
        ["fit", "digits"],
        ["fit", "-o", "m.safetensors"],
        ["fit", "digits", "-o", "m.safetensors", "--no-such-option"],
        ["sample", "m.safetensors", "-n", "0", "-o", "x.npy"],
        ["sample", "m.safetensors", "-n", "many", "-o", "x.npy"],
    ):
        assert "--help" in refused(*words)
        assert run(*words).status == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "perceptron"], "No model is called"),
        (["--latent-dim", "0"], "latent_dim"),
        (["--latent-dim", "-3"], "latent_dim"),
        (["--latent-dim", "two"], "latent_dim"),
        (["--hidden-layer-sizes", "64,zero"], "hidden_layer_sizes"),
        (["--distance", "cosine"], "distance"),
        (["--max-time", "soon"], "max_time"),
        (["--seed", "-1"], "random_state"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--resize", "0"], "resize"),
        (["--resize", "8"], "resize"),
        (["--axes", "CHW"], "axes"),
        (["--device", "abacus"], "device"),
    ],
)
def test_parameters_that_make_no_sense(words: list[str], reason: str, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    assert reason in refused("fit", "digits", "-o", out, "--max-epochs", "1", *words)
    assert list(tmp_path.iterdir()) == []


BAD_DATA: dict[str, Any] = {
    "nan.npy": np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]),
    "infinity.npy": np.array([[1.0, np.inf], [2.0, 3.0], [4.0, 5.0]]),
    "empty.npy": np.zeros((0, 4)),
    "no_columns.npy": np.zeros((4, 0)),
    "one_sample.npy": np.zeros((1, 4)),
    "one_number.npy": np.zeros(7),
    "complex.npy": np.ones((5, 4), dtype=complex),
    "words.npy": np.array([["a", "b"], ["c", "d"]]),
    "five_dimensions.npy": np.zeros((2, 2, 2, 2, 2)),
    "words.csv": "a,b\n1,2\nthree,4\n5,6\n",
    "ragged.csv": "1,2\n3\n4,5\n",
    "empty.csv": "",
    "not_numpy.npy": "these are words",
    "damaged.npz": "PK\x03\x04 and no more",
    "secret.pkl": "words",
    "picture.png": "no picture either",
}


@pytest.mark.parametrize("name", [*BAD_DATA, "missing.npy", "no_folder/rows.npy", "digitz"])
def test_data_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    content = BAD_DATA.get(name)
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    before = sorted(tmp_path.iterdir())
    refused("fit", tmp_path / name, "-o", tmp_path / "m.safetensors", "--max-epochs", "1")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "words.safetensors").write_text("words")
    for model in ("words.safetensors", "missing.safetensors", "."):
        for words in (["info"], ["encode", "digits", "-o", "z.npy"], ["sample", "-o", "x.npy"]):
            verb, *rest = [word if "." not in word else str(tmp_path / word) for word in words]
            refused(verb, tmp_path / model, *rest)
    assert [file.name for file in tmp_path.iterdir()] == ["words.safetensors"]


def test_data_of_another_shape(digits: Path, table: Path, tmp_path: Path) -> None:
    assert "expecting 64" in refused("encode", digits, table, "-o", tmp_path / "z.npy")
    np.save(tmp_path / "codes.npy", np.zeros((4, 5)))
    assert "(n, 2)" in refused("decode", digits, tmp_path / "codes.npy", "-o", tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_what_a_model_cannot_do(digits: Path, table: Path, tmp_path: Path) -> None:
    assert "nothing to sample from" in refused("sample", digits, "-o", tmp_path / "x.npy")
    done("fit", table, "-o", tmp_path / "m.safetensors", *TINY)
    model = tmp_path / "m.safetensors"
    assert "not pictures" in refused("reconstruct", model, table, "-o", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("verb", ["fit", "encode", "decode", "reconstruct", "sample", "report"])
def test_no_verb_overwrites_unless_told(verb: str, digits: Path, vae: Path, tmp_path: Path) -> None:
    model = vae if verb == "sample" else digits
    data = tmp_path / "data.npy"
    np.save(data, np.zeros((5, 2)) if verb == "decode" else read("digits").X[:40])
    kind = {"fit": ".safetensors", "report": ".html"}.get(verb, ".npy")
    out = tmp_path / f"out{kind}"
    out.write_text("precious")
    sources = {"fit": [data, *TINY], "sample": [model]}.get(verb, [model, data])
    assert "--overwrite" in refused(verb, *sources, "-o", out)
    assert out.read_text() == "precious"
    done(verb, *sources, "-o", out, "--overwrite")
    assert out.read_bytes() != b"precious"


@pytest.mark.parametrize("verb", ["fit", "encode", "decode", "reconstruct", "sample", "report"])
@pytest.mark.parametrize(
    ("out", "reason"), [("missing/out{kind}", "there is no folder"), ("out.doc", "ends in")]
)
def test_outputs_are_checked_before_anything_is_read(
    verb: str, out: str, reason: str, tmp_path: Path
) -> None:
    kind = {"fit": ".safetensors", "report": ".html"}.get(verb, ".npy")
    sources = ["nothing-there"] if verb in ("fit", "sample") else ["nothing-there", "nor-here"]
    assert reason in refused(verb, *sources, "-o", tmp_path / out.format(kind=kind))


@pytest.mark.slow
def test_debug_shows_the_trace(tmp_path: Path) -> None:
    quiet = process("info", "missing.safetensors", cwd=tmp_path)
    assert quiet.returncode == 1
    assert quiet.stderr.count("\n") == 1
    loud = process("info", "missing.safetensors", "--debug", cwd=tmp_path)
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def test_what_nobody_foresaw_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("two\nlines")

    monkeypatch.setattr("narrows.load", fail, raising=False)
    result = run("info", "m.safetensors")
    assert result.status == 1
    expected = "narrows: unexpected LookupError: two lines (add --debug to see where).\n"
    assert result.err == expected


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (KeyboardInterrupt(), 130, "narrows: interrupted.\n"),
        (MemoryError(), 1, "narrows: not enough memory"),
        (OSError(28, "No space left on device", "x"), 1, "narrows: No space left on device: x.\n"),
    ],
)
def test_what_the_machine_says(
    error: BaseException, status: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("narrows.load", fail, raising=False)
    result = run("info", "m.safetensors")
    assert result.status == status
    assert result.err.strip("\n").startswith(sentence.strip("\n"))


def test_warnings_are_one_line(tmp_path: Path) -> None:
    words = ("--latent-dim", "64", "--max-epochs", "0", "--architecture", "dense")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("fit", "digits", "-o", tmp_path / "m.safetensors", *words)
    assert result.status == 0
    assert result.err.startswith("narrows: warning: latent_dim=64")
    assert result.err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise elsewhere")
def test_a_reader_that_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "narrows", "models"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["narrows.cli", "narrows.cli.fit", "click", "narrows.io.write"])
def test_ctrl_c_while_the_command_is_imported_is_one_line(module: str) -> None:
    program = f"""
import sys
class Interrupts:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from narrows.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "narrows: interrupted.\n")


@pytest.mark.skipif(os.name != "posix", reason="a shell closes streams otherwise elsewhere")
def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    command = f"exec '{sys.executable}' -m narrows models <&- >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise elsewhere")
def test_an_interrupted_fit_keeps_the_best_model(tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    words = ["fit", "digits", "-o", str(out), "--max-epochs", "100000", "--no-early-stopping"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPT, *words], stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        first = child.stderr.readline()
        child.send_signal(signal.SIGINT)
        err = first + child.stderr.read()
    assert child.returncode == 0
    assert "the best model so far is kept" in err
    assert load(out).n_iter_ < 100000


# Says when the first epoch is over, so that the signal comes while the loop runs.
INTERRUPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run behind a shell
from narrows.cli import main
from narrows.training.monitor import Monitor

close, said = Monitor._close_epoch, []

def close_and_say(monitor, record):
    close(monitor, record)
    if not said:
        said.append(print("first epoch", file=sys.stderr, flush=True))

Monitor._close_epoch = close_and_say
main(sys.argv[1:])
"""
