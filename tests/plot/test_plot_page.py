"""The page about plots keeps its word: its code runs."""

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "plot.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    plt.close("all")
    with Image.open("digits.png") as picture:
        assert picture.size == (1300, 900)
    assert len(names["compared"].rows) == 180
    assert len(names["traversal"].traversal.numbers) == 4
    assert names["walk"].decoded.shape == (3, 5, 8, 8)
    assert names["sevens"].shape == (5, 8, 8)
    assert (names["effects"] > 0).all()
