"""The command on tables as pandas writes them, in other locales, and the names of its outputs."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.command import TINY, done, refused, run
from narrows import Autoencoder, FileError, JsonLines, load
from narrows.cli import main
from narrows.io import write
from narrows.io.write import check_output

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(n: int = 60) -> pd.DataFrame:
    return pd.DataFrame(RNG.normal(size=(n, 3)).round(3), columns=["a", "b", "größe"])


def test_gaps_are_named_and_the_advice_is_followed() -> None:
    frame = table()
    frame.loc[7, "größe"] = np.nan
    frame.to_csv("m.csv", index=False)
    frame.astype({"a": "float32"}).to_parquet("m.parquet")
    for source in ("m.csv", "m.parquet"):
        said = refused("fit", source, "-o", "m.safetensors", *TINY)
        assert "NaN in row 7, column 2 ('größe')" in said and "(--missing mask)" in said
        done("fit", source, "-o", "m.safetensors", "--missing", "mask", *TINY)
        assert list(load("m.safetensors").feature_names_in_) == list(frame)
        done("encode", "m.safetensors", source, "-o", "z.npy", "--overwrite")
        assert np.isfinite(np.load("z.npy")).all()
        Path("m.safetensors").unlink()
    for words in (
        ("report", "m.csv", "m.csv", "-o", "y.html"),
        ("encode", "m.csv", "m.csv", "-o", "y.npy"),
    ):
        assert "'m.csv' is not a model file" in refused(*words)
    frame.assign(a=np.nan).to_csv("gone.csv", index=False)
    words = ("fit", "gone.csv", "-o", "n.safetensors", "--missing", "mask", *TINY)
    assert "Column ('a') of X is NaN in every training row" in refused(*words)
    said = refused("fit", "m.csv", "--model", "codec", "-o", "c.safetensors")
    assert "column 2 ('größe')" in said and "--missing" not in said  # a codec has none


def test_a_table_with_words_is_fitted_after_the_advice() -> None:
    """What pandas.get_dummies gives is True and False, which a CSV keeps as words."""
    table().assign(kind=["u", "v", "w"] * 20).to_csv("words.csv", index=False)
    said = refused("fit", "words.csv", "-o", "m.safetensors", *TINY)
    command = re.search(r"pandas\..*\)", said)
    assert command and "get_dummies" in command[0]
    exec(command[0], {"pandas": pd})
    assert "True" in Path("numbers.csv").read_text(encoding="utf-8")
    done("fit", "numbers.csv", "-o", "m.safetensors", *TINY)


@pytest.mark.filterwarnings("default")
def test_both_parts_of_a_split_frame_have_the_same_columns() -> None:
    frame = table().sample(frac=1, random_state=0)
    frame[:40].to_csv("train.csv")
    frame[40:].to_csv("test.csv")
    result = run("fit", "train.csv", "-o", "m.safetensors", *TINY)
    said = "narrows: warning: The first column has no name in 'train.csv': left out as an index"
    assert result.status == 0 and result.err.startswith(said)
    result = run("encode", "m.safetensors", "test.csv", "-o", "z.npy")
    assert result.status == 0 and "'test.csv'" in result.err
    assert np.load("z.npy").shape == (20, 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_gets_every_line(
    encoding: str, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table().assign(kind=["ü →"] * 60).to_csv("words.csv", index=False)
    for words in (("info", str(digits)), ("fit", "words.csv", "-o", "m.safetensors")):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == (words[0] == "fit")
        out, err = (stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)
        assert err == "" if words[0] == "info" else "line 2, column 4" in err
        assert "latent" in out if words[0] == "info" else out == ""


# ------------------------------------------------------------------------------ names of outputs


@pytest.mark.parametrize(
    "name",
    ["m", "m.pt", "m.pkl", "m.safetensor", "m.npz", "m.checkpoint", "m.safetensors.gz", "m/"],
)
def test_a_model_has_one_kind_of_name_in_python_and_at_the_command(name: str) -> None:
    ae = Autoencoder(latent_dim=1, max_epochs=0, random_state=0).fit(table())
    with pytest.raises(FileError, match=r"give a name that ends in \.safetensors\.") as caught:
        ae.save(name)
    assert str(caught.value) in refused("fit", "digits", "-o", name)
    assert list(Path().iterdir()) == []
    assert load(ae.save("M.SAFETENSORS")).latent_dim == 1


def test_other_outputs_have_the_same_names_in_python_and_at_the_command() -> None:
    ae = Autoencoder(latent_dim=1, max_epochs=1, random_state=0).fit(table())
    ae.save("m.safetensors")
    table().to_csv("t.csv", index=False)
    calls: list[tuple[Any, tuple[str, ...]]] = [
        (lambda name: ae.set_params(listeners=JsonLines(name)).fit(table()),
         ("fit", "t.csv", "-o", "n.safetensors", "--log")),
        (lambda name: check_output(name, write.PAGES), ("report", "m.safetensors", "t.csv", "-o")),
        (lambda name: ae.set_params(listeners=None, checkpoint=name).fit(table()),
         ("fit", "t.csv", "-o", "n.safetensors", "--checkpoint")),
    ]  # fmt: skip
    for call, words in calls:
        with pytest.raises(FileError) as caught:
            call("out.txt")
        assert str(caught.value) in refused(*words, "out.txt")
    assert check_output("page.htm", write.PAGES)


@pytest.mark.parametrize(
    "name", ["nul.npy", "CON.csv", "com1.png", "aux", "Lpt9.tar.npz", "prn .npy"]
)
def test_names_that_windows_keeps_are_refused_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_output(name).name == name  # elsewhere they are names like others
    monkeypatch.setattr(write, "IS_WINDOWS", True)
    with pytest.raises(FileError, match="Windows keeps that name"):
        check_output(name)
    for other in ("null.npy", "console.csv", "com10.png", "my nul.npy"):
        assert check_output(other).name == other


def test_a_path_of_windows_is_a_name_like_others() -> None:
    assert r"C:\data\x.csv" in refused("fit", r"C:\data\x.csv", "-o", "m.safetensors")
    table().to_csv(r"C:\t.csv", index=False)
    done("fit", r"C:\t.csv", "-o", r"out\m.safetensors", *TINY)
    done("encode", r"out\m.safetensors", r"C:\t.csv", "-o", r"out\z.npy")
    assert np.load(r"out\z.npy").shape == (60, 2)
