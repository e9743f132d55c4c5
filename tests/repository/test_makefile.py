"""``make`` on a machine where something is missing: one sentence that says what."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BROKEN_PYTHONS = {
    "was not found": None,
    "is too old": 'echo "Python 3.8.1"; [ "$1" = --version ]',
    "has no module venv": 'case "$2" in *venv*) exit 1;; esac',
    "cannot put pip": 'case "$2" in *ensurepip*) exit 1;; esac',
}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("sentence", BROKEN_PYTHONS)
def test_make_says_in_one_sentence_what_is_missing(sentence: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    body = BROKEN_PYTHONS[sentence]
    if body is not None:
        python.write_text(f"#!/bin/sh\n{body}\n")
        python.chmod(0o755)
    out = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    said = [line for line in out.stderr.splitlines() if line.startswith("narrows: ")]
    assert out.returncode != 0
    assert len(said) == 1
    assert sentence in said[0]
    assert not (tmp_path / ".venv").exists()
