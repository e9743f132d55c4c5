"""Models and data that the command's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .command import TINY, done


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def digits(folder: Path) -> Path:
    done("fit", "digits", "-o", folder / "digits.safetensors", *TINY)
    return folder / "digits.safetensors"


@pytest.fixture(scope="session")
def vae(folder: Path) -> Path:
    done("fit", "digits", "--model", "vae", "-o", folder / "vae.safetensors", *TINY, "-q")
    return folder / "vae.safetensors"


@pytest.fixture(scope="session")
def table(folder: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1, 10, 100, 1000])
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "table.csv").write_text("mass,length,charge,age\n" + text + "\n")
    return folder / "table.csv"
