"""The examples run, draw their picture, and are short enough to be read."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY: dict[str, dict[str, Any]] = {
    "denoise_digits": {"max_epochs": 1},
    "clean_signals": {"max_epochs": 1, "rows": 60},
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_an_example_draws_its_picture(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = EXAMPLES / f"{name}.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) < 70
    runpy.run_path(str(source))["main"](str(tmp_path / "out.png"), **TINY[name])
    assert "DenoisingAutoencoder" in capsys.readouterr().out
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1000
        assert np.asarray(picture.convert("L")).std() > 20
