"""The scripts that plant defects: places are found again, or refused with advice that works."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import mutants
from draw_mutants import OPERATORS, Places, candidates
from mutants import Mutant, Stale, functions, planted

SOURCE = textwrap.dedent('''\
    """No defect is planted in words − λ."""


    class A:
        def f(self, x, y):
            a = x - y
            if x < 0:
                a = x - y
            return a

        def g(self, x, y):
            def f(x):
                return x - y  # the same text in another function

            return f(x)
    ''')


def tree(folder: Path) -> Path:
    (folder / "src").mkdir()
    (folder / "src" / "a.py").write_text(SOURCE, encoding="utf-8")
    return folder


def mutant(**place: object) -> Mutant:
    usual = {"file": "src/a.py", "old": "x - y", "new": "x + y", "function": "A.f", "occurrence": 1}
    return Mutant.of("parts-07", {"operator": "sign", "tests": [], **usual, **place})


@pytest.mark.parametrize(
    ("place", "line"),
    [({}, 6), ({"occurrence": 2}, 8), ({"function": "A.g.f"}, 13),
     ({"function": "", "old": "x < 0", "occurrence": 0}, 7)],
)  # fmt: skip
def test_a_defect_is_planted_at_its_place_and_taken_out_again(
    place: dict[str, object], line: int, tmp_path: Path
) -> None:
    made, file = mutant(**place), tree(tmp_path) / "src" / "a.py"
    assert made.line(tmp_path) == line
    with planted(tmp_path, made):
        changed = zip(SOURCE.splitlines(), file.read_text("utf-8").splitlines(), strict=True)
        assert [i for i, (a, b) in enumerate(changed, 1) if a != b] == [line]
        assert "x + y" in file.read_text("utf-8")
    assert file.read_text("utf-8") == SOURCE
    moved = SOURCE.replace("class A:", "B = 1  # lines move\n\n\nclass A:")
    file.write_text(moved, encoding="utf-8")
    assert made.line(tmp_path) == line + 3


@pytest.mark.parametrize(
    ("place", "words"),
    [({"occurrence": 3}, "src/a.py, A.f should hold 'x - y' 3 times or more, and holds it 2 times"),
     ({"old": "x * y"}, "and holds it 0 times"),
     ({"function": "A.h"}, "src/a.py, A.h should hold"),
     ({"function": "", "occurrence": 0}, "once, and holds it 3 times"),
     ({"file": "src/b.py"}, "there is no src/b.py any more")],
)  # fmt: skip
def test_a_place_that_is_gone_is_refused_in_one_sentence(
    place: dict[str, object], words: str, tmp_path: Path
) -> None:
    tree(tmp_path)
    with pytest.raises(Stale) as caught:
        mutant(**place).place(tmp_path)
    sentence = str(caught.value)
    assert words in sentence and sentence.startswith("parts-07: ") and "\n" not in sentence
    assert sentence.endswith("run python tests/draw_mutants.py, which draws another in its place.")


def test_a_stale_list_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = [mutant(file="src/none.py"), mutant(file="src/narrows/version.py", function="f")]
    monkeypatch.setattr(mutants, "read_mutants", lambda names: stale)
    monkeypatch.setattr(mutants, "copied_trees", lambda: pytest.fail("something is about to run"))
    assert mutants.main([]) == 2
    assert capsys.readouterr().err.count("draws another in its place.\n") == 2


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("x - y", {"sign: x + y"}),
        ("x.detach() * 0.5", {"detach: x * 0.5", "factor: x.detach() / 0.5",
                              "factor: x.detach() * (2 * 0.5)"}),
        ("x.sum(-1)", {"axis: x.sum(0)", "reduction: x.mean(-1)"}),
        ("np.clip(x, 0, y)", {"clip: (x)"}),
        ("x.clamp_min(y)", {"clip: x"}),
        ("np.rint(x)", {"rounding: (x)"}),
        ("torch.where(~x, y, z)", {"mask: torch.where(~x, z, y)", "mask: torch.where((x), y, z)"}),
        ("x if y < 3 else z", {"logic: z if y < 3 else x", "comparison: x if y <= 3 else z",
                               "comparison: x if y >= 3 else z", "off by one: x if y < 4 else z"}),
        ("h(x, y)", {"argument order: h(y, x)"}),
        ("max(x, y)", {"clip: min(x, y)"}),
        ("x[: n]", {"off by one: x[: (n) - 1]"}),
        ("x[0]", {"index: x[-1]"}),
        ("x.eval()", {"mode: x.train()"}),
        ("x and not y", {"logic: x or not y", "logic: x and bool(y)"}),
        ('f"{x - y}" + "−"', set()),
        ("isinstance(x, y)", set()),
    ],
)  # fmt: skip
def test_each_operator_makes_its_defects_and_no_others(
    line: str, wanted: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.py"
    file.write_text(f"# −\ndef f(x, y, z, n):\n    λ = '−'; return {line}\n", encoding="utf-8")
    found = set()
    places = Places(file)
    for name, (operator, start, stop, new) in places.all():
        assert name == "f" and operator in OPERATORS
        defective = (places.bytes[:start] + new.encode() + places.bytes[stop:]).decode()
        ast.parse(defective)
        found.add(f"{operator}: {defective.split('return ')[1].strip()}")
    assert found == wanted


def test_the_same_seed_draws_the_same_places_and_another_others() -> None:
    drawn = [[next(candidates("training", seed)) for _ in range(1)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_makefile_and_contributing_say_how_many_there_are() -> None:
    entries = mutants.read_drawn()
    counted = [entry for entry in entries if entry["result"] != "equivalent"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    survived = [entry["name"] for entry in entries if entry["result"] == "survived"]
    assert len(counted) == 60 and len(survived) <= 3
    assert all(entry["reason"] for entry in entries if entry["result"] == "equivalent")
    total = len(mutants.read_mutants())
    for name in ("Makefile", "CONTRIBUTING.md"):
        said = re.findall(r"(\d+) planted|plant (\d+)", (mutants.ROOT / name).read_text("utf-8"))
        assert [int("".join(number)) for number in said] == [total], name


def test_functions_are_named_by_where_they_stand() -> None:
    assert [name for name, _ in functions(ast.parse(SOURCE))] == ["A.f", "A.g", "A.g.f"]
