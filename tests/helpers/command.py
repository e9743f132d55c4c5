"""How the tests call the command: in this process, or as one of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from narrows.cli import main

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
    assert "unexpected" not in lines[0]
    assert lines[0].endswith((".", "?")), lines[0]
    return lines[0]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def colour_folder(beside: Path) -> Path:
    """A folder of small colour pictures."""
    folder = beside / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (6, 7, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def process(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "narrows", *words]
    return subprocess.run(command, capture_output=True, text=True, **more)


def noise() -> np.ndarray:
    """What a file of several chunks holds."""
    return np.random.default_rng(0).integers(0, 256, (40, 1 << 16), np.uint8)
