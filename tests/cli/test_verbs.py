"""Every verb of the command, end to end, and what its options are."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.command import TINY, done, picture, refused
from narrows import Autoencoder, load
from narrows.cli import commands
from narrows.cli.fit import error_lines
from narrows.cli.options import literal, option_words
from narrows.estimators.parameters import Parameters
from narrows.io import read as reading
from narrows.io.read import read


def test_fit_says_what_was_chosen_and_what_to_do_next(tmp_path: Path) -> None:
    out = tmp_path / "my model.safetensors"
    said = done("fit", "digits", "--model", "auto-encoder", "-o", out, *TINY)
    assert "Autoencoder of digits: 1,797 rows, each 8 × 8 to 2 numbers and back" in said
    assert "validation error" in said
    assert ": 1 epoch, the " in said
    assert "PCA's at the same width" in said
    following = shlex.split(said.splitlines()[-1].removeprefix("next: "))
    page = str(tmp_path / "my model.html")
    assert following == ["narrows", "report", str(out), "digits", "-o", page]


def test_large_data_is_read_lazily_and_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, row in enumerate(read("digits").X[:60]):
        Image.fromarray((row * 15).astype(np.uint8)).save(folder / f"{i}.png")
    given: list[Any] = []
    fit = Autoencoder.fit
    monkeypatch.setattr(
        Autoencoder, "fit", lambda self, X, y=None: (given.append(X), fit(self, X))[1]
    )
    outputs = []
    for large in (2**30, 0):
        monkeypatch.setattr(reading, "LAZY_FROM_BYTES", large)
        out = tmp_path / str(large)
        out.mkdir()
        done("fit", folder, "-o", out / "m.safetensors", *TINY)
        for verb in ("encode", "reconstruct"):
            done(verb, out / "m.safetensors", folder, "-o", out / f"{verb}.npy")
        outputs.append([np.load(out / f"{verb}.npy") for verb in ("encode", "reconstruct")])
    assert [isinstance(X, np.ndarray) for X in given] == [True, False]
    for eager, lazy in zip(*outputs, strict=True):
        np.testing.assert_array_equal(eager, lazy)


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
        printed = re.search(name + r" ([\d.e-]+)", said)
        assert printed is not None
        assert float(printed[1]) == pytest.approx(-estimator.score_samples(rows).mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("error", "starts_at", "stop_reason", "words"),
    [
        (0.25, "PCA", "the budget was used", "width is 0.5: 0.50 × PCA's"),
        (0.5, "PCA", "the budget was used", "no better than PCA yet (1.00 × its error) after 7"),
        (0.5, "PCA", "no better validation loss in 20 epochs", "than PCA (1.00 × its error)"),
        (0.9, "probabilistic PCA", "the budget was used", "no better than PCA (1.80 × its error)"),
    ],
)
def test_training_longer_is_advised_only_where_it_helps(
    error: float, starts_at: str, stop_reason: str, words: str
) -> None:
    training = {"validation_error": error, "validation_error_pca": 0.5, "epochs": 7}
    card = {"starts_at": starts_at, "training": training | {"stop_reason": stop_reason}}
    said = error_lines(card)[-1]
    assert words in said
    assert ("--max-time" in said) == ("yet" in said)


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
    with pytest.warns(UserWarning, match="valid feature names"):  # scikit-learn's, for an array
        expected = load(tmp_path / "m.safetensors").reconstruct(read(table).X)
    assert np.allclose(rebuilt, expected)


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


def test_rows_that_stay_on_the_disk(tmp_path: Path) -> None:
    rows, model = read("digits").X, tmp_path / "m.safetensors"
    np.save(tmp_path / "rows.npy", rows)
    done("fit", tmp_path / "rows.npy", "-o", model, *TINY, "--in-memory", "false")
    assert load(model).in_memory is False
    done("encode", model, tmp_path / "rows.npy", "-o", tmp_path / "z.npy")
    said = done("encode", model, tmp_path / "rows.npy", "-o", tmp_path / "z.npy", "--overwrite")
    assert said == f"{tmp_path / 'z.npy'}: 1,797 codes of 2, float32\n"
    assert np.array_equal(np.load(tmp_path / "z.npy"), load(model).transform(rows))


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
    assert re.search(r"\brows +1,797\n", shown)
    assert "verbose" not in shown


def test_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    for name, header in (("a", "x,y,z"), ("b", "z,y,x"), ("c", "")):
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",", header=header, comments="")
    model = tmp_path / "m.safetensors"
    done("fit", tmp_path / "a.csv", "-o", model, "--latent-dim", "1", "--max-epochs", "1")
    for verb in ("encode", "reconstruct"):
        said = refused(verb, model, tmp_path / "b.csv", "-o", tmp_path / "out.csv")
        assert "columns" in said
        assert "fitted on x, y, z" in said
        done(verb, model, tmp_path / "a.csv", "-o", tmp_path / f"{verb}.csv")
        done(verb, model, tmp_path / "c.csv", "-o", tmp_path / f"{verb}-c.csv")
    done("decode", model, tmp_path / "encode.csv", "-o", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text().startswith("x,y,z\n")


def test_models_lists_every_model() -> None:
    from narrows.estimators.registry import MODELS

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


def test_map_fits_a_model_and_writes_a_page(tmp_path: Path) -> None:
    page, model = tmp_path / "map.html", tmp_path / "m.safetensors"
    rows = np.random.default_rng(0).normal(size=(60, 4))
    (tmp_path / "rows.csv").write_text("a,b,c,d\n" + "\n".join(",".join(map(str, r)) for r in rows))
    words = ["map", tmp_path / "rows.csv", "-o", page]
    said = done(*words, "--save-model", model, "--max-time", "1s")
    assert "warning" not in said and f"wrote {page}" in said and model.exists()
    assert '"names":["a","b","c","d"]' in page.read_text(encoding="utf-8")
    assert "--overwrite" in refused(*words, "-m", model)
    assert "--save-model" in refused(*words, "-m", model, "--save-model", model, "--overwrite")
    done(*words, "-m", model, "--overwrite", "-q")


def test_explore_prints_its_address_and_ends_by_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done("fit", "digits", "-o", tmp_path / "m.safetensors", "--max-epochs", "0", "-q")

    def interrupted(explorer: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("narrows.maps.explorer.Explorer.serve", interrupted)
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    said = done("explore", tmp_path / "m.safetensors", "digits")
    assert "http://127.0.0.1:" in said and "No browser could be opened" in said


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("narrows.report.demo.run_demo", lambda folder, **more: given.update(more))
    done("demo", "-o", tmp_path, "--max-epochs", "3", "--overwrite")
    assert (given["overwrite"], given["max_epochs"]) == (True, 3)
    given["echo"]("said")
    (name, _), *_ = given["more_pages"]
    assert "NeighborAutoencoder" in (tmp_path / name).read_text(encoding="utf-8")


def test_demo_refuses_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("precious")
    assert "--overwrite" in refused("demo", "-o", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_every_parameter_is_an_option() -> None:
    shown = done("fit", "--help")
    for item in fields(Parameters):
        option = "--seed" if item.name == "random_state" else "--" + item.name.replace("_", "-")
        offered = item.name not in {"f", "g", "listeners", "verbose", "warm_start"}
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
    words = [word for name, value in given.items() for word in option_words(name, value)]
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


def test_classes_that_folders_name_are_named_in_the_report(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(12):
            shades = rng.integers(0, 255, size=(6, 6)).astype(np.uint8)
            Image.fromarray(shades).save(tmp_path / "pets" / name / f"{i}.png")
    done("fit", tmp_path / "pets", "-o", tmp_path / "m.safetensors", *TINY)
    done("report", tmp_path / "m.safetensors", tmp_path / "pets", "-o", tmp_path / "r.html")
    assert "cat" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_folder_is_never_written_over_a_file(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    said = refused("reconstruct", digits, "digits", "-o", tmp_path / "out", "--overwrite")
    assert "is a file, not a folder" in said
    assert (tmp_path / "out").read_text() == "mine"
