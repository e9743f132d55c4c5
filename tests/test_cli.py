"""The command: every verb end to end, every bad input one sentence, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from narrows import Autoencoder, load
from narrows.cli import commands, main
from narrows.cli.options import literal, typed
from narrows.engine.reading import read
from narrows.estimators.parameters import Parameters

TINY = ("--latent-dim", "2", "--max-epochs", "1", "--architecture", "dense", "--seed", "0")


@dataclass
class Result:
    """What one command did."""

    status: int
    out: str
    err: str


def run(*words: str | Path) -> Result:
    """``narrows`` with these words, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert isinstance(end.value.code, int)
    return Result(end.value.code, out.getvalue(), err.getvalue())


def done(*words: str | Path) -> str:
    """What a command that must succeed printed."""
    result = run(*words)
    assert (result.status, result.err) == (0, "")
    return result.out


def refused(*words: str | Path) -> str:
    """The one sentence of a command that must fail."""
    result = run(*words)
    assert result.status != 0
    assert result.out == ""
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("narrows: ")
    assert "unforeseen" not in lines[0]
    assert lines[0].endswith((".", "?")), lines[0]
    return lines[0]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def digits(folder: Path) -> Path:
    done("fit", "digits", "-o", folder / "digits.safetensors", *TINY)
    return folder / "digits.safetensors"


@pytest.fixture(scope="module")
def vae(folder: Path) -> Path:
    done("fit", "digits", "--model", "vae", "-o", folder / "vae.safetensors", *TINY, "-q")
    return folder / "vae.safetensors"


@pytest.fixture(scope="module")
def table(folder: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1, 10, 100, 1000])
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "table.csv").write_text("mass,length,charge,age\n" + text + "\n")
    return folder / "table.csv"


# ------------------------------------------------------------------ every verb


def test_fit_says_what_was_chosen_and_what_to_do_next(tmp_path: Path) -> None:
    out = tmp_path / "my model.safetensors"
    said = done("fit", "digits", "--model", "auto-encoder", "-o", out, *TINY)
    assert "Autoencoder of digits: 1,797 rows, each 8 × 8 to 2 numbers and back" in said
    assert "validation error" in said
    assert "PCA's at the same width" in said
    following = shlex.split(said.splitlines()[-1].removeprefix("next: "))
    page = str(tmp_path / "my model.html")
    assert following == ["narrows", "report", str(out), "digits", "-o", page]


def test_fit_is_the_estimator_with_the_same_parameters(digits: Path, tmp_path: Path) -> None:
    X = read("digits").X
    estimator = Autoencoder(latent_dim=2, max_epochs=1, architecture="dense", random_state=0)
    expected = estimator.fit(X).transform(X)
    assert np.array_equal(load(digits).transform(X), expected)
    done("encode", digits, "digits", "-o", tmp_path / "z.npy")
    assert np.array_equal(np.load(tmp_path / "z.npy"), expected)


def test_the_errors_fit_prints_are_those_of_the_validation_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(15, 6))  # too few to split: all validate
    np.save(tmp_path / "rows.npy", rows)
    words = ("--latent-dim", "2", "--max-epochs", "3", "--seed", "0")
    said = done("fit", tmp_path / "rows.npy", "-o", tmp_path / "m.safetensors", *words)
    model = load(tmp_path / "m.safetensors")
    for estimator, name in ((model, "validation error"), (model.pca_, "same width is")):
        printed = float(said.split(name)[1].replace(",", " ").split()[0])
        assert printed == pytest.approx(-estimator.score_samples(rows).mean(), rel=1e-3)


def test_quiet_is_silent(tmp_path: Path) -> None:
    assert done("fit", "digits", "-o", tmp_path / "m.safetensors", *TINY, "--quiet") == ""


@pytest.mark.parametrize("kind", [".npy", ".csv"])
def test_decode_undoes_encode(digits: Path, kind: str, tmp_path: Path) -> None:
    done("encode", digits, "digits", "-o", tmp_path / f"z{kind}")
    done("decode", digits, tmp_path / f"z{kind}", "-o", tmp_path / "x.npy")
    done("reconstruct", digits, "digits", "-o", tmp_path / "y.npy")
    decoded, rebuilt = np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy")
    assert decoded.shape == (1797, 8, 8)
    assert np.array_equal(decoded, rebuilt)


def test_a_table_keeps_its_columns(table: Path, tmp_path: Path) -> None:
    done("fit", table, "-o", tmp_path / "m.safetensors", *TINY)
    done("reconstruct", tmp_path / "m.safetensors", table, "-o", tmp_path / "rows.csv")
    done("encode", tmp_path / "m.safetensors", table, "-o", tmp_path / "codes.csv")
    assert (tmp_path / "rows.csv").read_text().startswith("mass,length,charge,age\n")
    assert (tmp_path / "codes.csv").read_text().startswith("autoencoder0,autoencoder1\n")
    rebuilt = read(tmp_path / "rows.csv").X
    assert np.allclose(rebuilt, load(tmp_path / "m.safetensors").reconstruct(read(table).X))


def test_pictures_use_the_range_of_the_data(digits: Path, tmp_path: Path) -> None:
    done("reconstruct", digits, "digits", "-o", tmp_path / "pictures")
    first = picture(tmp_path / "pictures" / "0000.png").astype(float)
    pixels = load(digits).reconstruct(read("digits").X[:1])[0]
    assert np.allclose(first, pixels / 16 * 255, atol=0.51)


def test_colour_pictures_in_and_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        size = (9, 12 + i % 2, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / f"in/{i}.png")
    model, resize = tmp_path / "m.safetensors", ("--resize", "8x10")
    assert "--resize" in refused("fit", tmp_path / "in", "-o", model, *TINY)
    said = done("fit", tmp_path / "in", "-o", model, *TINY, *resize)
    assert said.strip().endswith("--resize 8x10")
    done("reconstruct", model, tmp_path / "in", "-o", f"{tmp_path}/out/", *resize)
    shapes = {picture(file).shape for file in (tmp_path / "out").iterdir()}
    assert shapes == {(8, 10, 3)}


def test_rows_of_a_table_that_hold_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", read("digits").X[:50].reshape(50, 64))
    model = tmp_path / "m.safetensors"
    done("fit", tmp_path / "flat.npy", "--input-shape", "8,8", "-o", model, *TINY)
    done("reconstruct", model, tmp_path / "flat.npy", "-o", tmp_path / "sheet.png")
    done("reconstruct", model, tmp_path / "flat.npy", "-o", tmp_path / "rows.npy")
    assert picture(tmp_path / "sheet.png").ndim == 2
    assert np.load(tmp_path / "rows.npy").shape == (50, 64)


def test_samples_follow_the_seed(vae: Path, tmp_path: Path) -> None:
    for name, seed in (("a.npy", "1"), ("b.npy", "1"), ("c.npy", "2")):
        done("sample", vae, "-n", "5", "--seed", seed, "-o", tmp_path / name)
    a, b, c = (np.load(tmp_path / name) for name in ("a.npy", "b.npy", "c.npy"))
    assert a.shape == (5, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    done("sample", vae, "-o", tmp_path / "sheet.png")
    assert picture(tmp_path / "sheet.png").shape == (8 * 66 - 2, 8 * 66 - 2)


def test_info_for_people_and_for_machines(digits: Path, vae: Path) -> None:
    card = json.loads(done("info", vae, "--json"))
    assert card["model"] == "VariationalAutoencoder"
    assert card == json.loads(json.dumps(load(vae).info()))
    shown = done("info", digits)
    assert "latent dim    2\n" in shown
    assert "rows             1,797\n" in shown
    assert "verbose" not in shown


def test_models_lists_every_model() -> None:
    from narrows.estimators.catalogue import MODELS

    said = done("models")
    assert all(name in said and entry.sentence in said for name, entry in MODELS.items())


def test_a_report_on_labelled_data(digits: Path, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "labels.txt", read("digits").y, fmt="%d")
    words = ("--labels", tmp_path / "labels.txt", "-o", tmp_path / "page.html")
    done("report", digits, "digits", *words)
    page = (tmp_path / "page.html").read_text()
    assert shlex.join(["narrows", "report", str(digits), "digits", *map(str, words)]) in page
    fit = "narrows fit DATA --model Autoencoder --latent-dim 2 --architecture dense"
    assert fit in page
    assert list((tmp_path / "page_files").glob("*.png"))


# ------------------------------------------------------------------ options


def test_every_parameter_is_an_option() -> None:
    shown = done("fit", "--help")
    for item in fields(Parameters):
        option = "--seed" if item.name == "random_state" else "--" + item.name.replace("_", "-")
        offered = item.name not in {"f", "g", "verbose", "warm_start"}
        assert (f"{option} " in shown) == offered, option


def test_a_models_own_parameters_are_options_of_fit(tmp_path: Path) -> None:
    shown = done("fit", "--model", "vae", "--help")
    assert "Parameters of VariationalAutoencoder" in shown
    assert "--beta NUMBER" in shown
    assert "--beta" not in done("fit", "--help")
    out = tmp_path / "m.safetensors"
    done("fit", "digits", "--model=VARIATIONAL-autoencoder", "--beta", "0.5", "-o", out, *TINY)
    assert load(out).beta == 0.5
    assert "--beta" in refused("fit", "digits", "--beta", "0.5", "-o", tmp_path / "n.safetensors")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512,256", (512, 256)),
        ("(512,)", (512,)),
        ("1e-3", 0.001),
        ("16", 16),
        ("3m", "3m"),
        ("auto", "auto"),
        ("None", None),
        ("FALSE", False),
        ("08", "08"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_text_is_read_as_a_value(text: str, value: Any) -> None:
    found = literal(text)
    assert found == value
    assert type(found) is type(value)


def test_parameters_reach_the_estimator_as_typed(tmp_path: Path) -> None:
    given = {
        "latent_dim": 2,
        "hidden_layer_sizes": (7,),
        "tied": True,
        "early_stopping": False,
        "linear_path": False,
        "max_time": "1m",
        "max_epochs": 1,
        "learning_rate": 1e-3,
        "architecture": "dense",
        "random_state": 3,
    }
    words = [word for name, value in given.items() for word in typed(name, value)]
    done("fit", "digits", "-o", tmp_path / "m.safetensors", *words)
    kept = load(tmp_path / "m.safetensors").get_params()
    kept["hidden_layer_sizes"] = tuple(kept["hidden_layer_sizes"])
    assert {name: kept[name] for name in given} == given


def test_every_verb_explains_itself() -> None:
    listed = done("--help")
    for name, verb in commands.commands.items():
        assert f"  {name} " in listed
        assert (verb.help or "").split("\n")[0].endswith(".")
        assert "..." not in verb.get_short_help_str(60), name
        assert done(name, "--help").startswith(f"Usage: narrows {name}")


# ------------------------------------------------------------------ bad input


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
        (["--resize", "0"], "--resize"),
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
    assert "2" in refused("decode", digits, tmp_path / "codes.npy", "-o", tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_what_a_model_cannot_do(digits: Path, table: Path, tmp_path: Path) -> None:
    assert "no prior" in refused("sample", digits, "-o", tmp_path / "x.npy")
    done("fit", table, "-o", tmp_path / "m.safetensors", *TINY)
    model = tmp_path / "m.safetensors"
    assert "no pictures" in refused("reconstruct", model, table, "-o", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


# ------------------------------------------------------------------ outputs


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


# ------------------------------------------------------------------ endings


def process(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "narrows", *words]
    return subprocess.run(command, capture_output=True, text=True, **more)


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
    expected = "narrows: unforeseen LookupError: two lines (add --debug to see where).\n"
    assert result.err == expected


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (KeyboardInterrupt(), 130, "narrows: stopped.\n"),
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
import sys
from narrows.cli import main
from narrows.engine.watching import Watch

close, said = Watch._close_epoch, []

def close_and_say(watch, record):
    close(watch, record)
    if not said:
        said.append(print("first epoch", file=sys.stderr, flush=True))

Watch._close_epoch = close_and_say
main(sys.argv[1:])
"""
