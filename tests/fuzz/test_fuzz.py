"""Readers of people's files: any input is read, or refused in one sentence."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_mutations_of_the_corpus_are_refused_or_read(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SCRATCH", tmp_path)
    rng, inputs = random.Random(0), list(fuzz.seeds(reader))
    inputs += [fuzz.mutated(rng.choice(inputs), rng) for _ in range(60)]
    for data in inputs:
        fuzz.refused_or_read(reader, data)


@pytest.mark.slow
@pytest.mark.parametrize("reader", fuzz.READERS)
def test_five_minutes_of_fuzzing_find_nothing(reader: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the extra fuzz is not installed")
    command = [sys.executable, str(Path(fuzz.__file__)), reader, "300"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    kept = [path.read_bytes() for path in tmp_path.glob("crash-*")]
    assert done.returncode == 0, (kept, done.stderr[-3000:])
