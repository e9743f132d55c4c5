"""The page about maps keeps its word: its code runs."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "maps.md"


def test_the_code_of_the_page_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert (tmp_path / "map.html").stat().st_size > 100_000
    straight = names["maps"].path_length(names["model"], [names["a"], names["b"]])
    assert names["path"].length < straight
    assert names["images"].shape == (33, 64)
    assert (names["stretch"] > 0).all()
    assert 2 < names["dimension"].mle < names["dimension"].two_nn < 12
    assert "trust" in capsys.readouterr().out
