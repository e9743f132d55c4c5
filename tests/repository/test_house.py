"""The house's own rules: who imports whom, how long things are, and what an import may cost."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(importlib.import_module("narrows").__path__[0])

# Who stands on which floor; an import must point to a lower floor or stay in its own room.
FLOORS = [
    {"exceptions", "_types", "version"},
    {"io"},
    {"training", "parts"},
    {"estimators"},
    {"models"},
    {"report"},
    {"denoising", "compression"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
PUBLIC = FLOOR["models"]  # `from narrows import Autoencoder` stands on this floor

HEAVY = {"torch", "sklearn", "scipy", "matplotlib", "pandas", "polars", "pyarrow", "pooch", "zarr"}
HEAVY |= {"skimage", "pywt", "tifffile"}
MODULES = sorted(SOURCE.rglob("*.py"))
WRITTEN = MODULES + [
    path
    for folder in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The second word of a module's name; the package itself is the public face."""
    return [*name.split("."), ""][1]


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every name imported anywhere below ``tree``, as an absolute dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = ".".join([*base, node.module or ""]).strip(".") if node.level else node.module
            yield from (f"{start}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def pointing_up(source: str, name: str, package: str) -> list[str]:
    """The imports in ``source`` that the floors do not allow."""
    here = room(name)
    wrong = []
    for target in imports(ast.parse(source), package):
        if target.split(".")[0] != "narrows":
            continue
        there = room(target)
        if there == here:
            continue
        height = FLOOR.get(there, PUBLIC)
        if height >= FLOOR[here]:
            wrong.append(f"{name} imports {target}")
    return wrong


def test_every_room_has_a_floor() -> None:
    rooms = {room(module_name(path)) for path in MODULES} - {""}
    assert rooms <= set(FLOOR)


def test_imports_point_down_only() -> None:
    wrong = []
    for path in MODULES:
        name = module_name(path)
        if name != "narrows":  # the public face names what the rooms above the engine offer
            wrong += pointing_up(path.read_text(encoding="utf-8"), name, package_of(path))
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from narrows.parts import networks", "narrows.training.loop"),
        ("def f():\n    import narrows.compression", "narrows.report.probe"),
        ("from ..parts.latents import Point", "narrows.training.loop"),
        ("from narrows import Autoencoder", "narrows.parts.networks.architectures"),
        ("import narrows.exceptions\nimport narrows.training.batches", "narrows._types"),
    ],
)
def test_the_import_check_sees_what_it_must(line: str, name: str) -> None:
    assert pointing_up(line, name, name.rpartition(".")[0])


MAX_FILE_LINES = 700  # a file is one whole idea, read from top to bottom
MAX_BODY_LINES = 60  # a function fits on a screen


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in WRITTEN}
    too_long = {str(path): n for path, n in lengths.items() if n > MAX_FILE_LINES}
    assert too_long == {}


def long_bodies(tree: ast.Module) -> Iterator[str]:
    """Functions whose bodies, without their docstrings, are too long."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skip = 1 if ast.get_docstring(node, clean=False) is not None else 0
            body = node.body[skip:]
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > MAX_BODY_LINES:
                yield f"{node.name} has {lines} lines"


def test_no_function_is_too_long() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in WRITTEN}
    too_long = [f"{path}: {words}" for path, tree in trees.items() for words in long_bodies(tree)]
    assert too_long == []


def at_import(tree: ast.Module) -> Iterator[str]:
    """What importing the module imports: not what functions do, nor what only types need."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []), "")
        for field in ("body", "orelse", "finalbody"):
            todo += getattr(node, field, [])


def light(path: Path) -> bool:
    """Whether the command imports this module before it knows what to do."""
    name = module_name(path)
    return name.startswith(("narrows.cli", "narrows.io.read")) or name in {
        "narrows",
        "narrows.__main__",
        "narrows._types",
        "narrows.exceptions",
        "narrows.io",
        "narrows.training",
        "narrows.estimators",
        "narrows.estimators.registry",
        "narrows.estimators.parameters",
        "narrows.report",
    }


@pytest.mark.parametrize("path", [path for path in MODULES if light(path)], ids=module_name)
def test_what_the_command_imports_is_light(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in at_import(tree)} & HEAVY == set()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_public_name_exists(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []


QUESTIONS = {
    "import": "import narrows",
    "dir": "import narrows; dir(narrows); narrows.__version__",
    "help": "import narrows.cli; narrows.cli.main(['--help'])",
    "fit help": "import narrows.cli; narrows.cli.main(['fit', '--help'])",
    "models": "import narrows.cli; narrows.cli.main(['models'])",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_nothing_heavy_is_imported_before_it_is_needed(question: str) -> None:
    code = (
        f"import sys\ntry:\n    {question}\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1].strip() == "heavy:"


def test_help_and_import_answer_in_half_a_second_of_work() -> None:
    """Processor time, the least of three: a busy machine must not fail the test."""
    for arguments in (["-m", "narrows", "--help"], ["-c", "import narrows"]):
        assert min(processor_seconds(arguments) for _ in range(3)) < 0.5


def processor_seconds(arguments: list[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


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
