"""The structure of the code: which room may import which, doors, circles, names and lengths."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(importlib.import_module("narrows").__path__[0])

# The rooms of each floor. An import stays in its own room or goes to a lower floor.
FLOORS = [
    {"exceptions", "_types", "version"},
    {"io"},
    {"training", "parts"},
    {"estimators"},
    {"models"},
    {"report"},
    {"denoising", "compression", "maps", "plot"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
PUBLIC = FLOOR["models"]  # the floor of `from narrows import Autoencoder`
# Applications have a door for the package itself and cli; the registry names classes as text.
APPLICATIONS = {"denoising", "compression", "maps", "plot"}
MAX_DOOR_NAMES = 3  # imported through one door by all other rooms together
# A slot and its named model may carry one paper's name.
SHARED_FILES = {"__init__.py", "base.py", "hamiltonian.py"}
SHARED_CLASSES = {"CIWAE", "MIWAE", "PIWAE"}
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
    """The second word of a module's name; "" for the package itself."""
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
        if name != "narrows":  # the package itself names what all rooms offer
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


def all_imports() -> Iterator[tuple[str, str, str]]:
    """(importing module, imported module, name) of every import inside narrows."""
    names = {module_name(path) for path in MODULES}
    for path in MODULES:
        here, tree = module_name(path), ast.parse(path.read_text(encoding="utf-8"))
        for target in imports(tree, package_of(path)):
            module = target if target in names else target.rpartition(".")[0]
            if module in names and module not in (here, "narrows"):
                yield here, module, target.rpartition(".")[2]


@pytest.mark.parametrize("application", sorted(APPLICATIONS))
def test_applications_are_used_through_their_doors(application: str) -> None:
    door = f"narrows.{application}"
    public = set(importlib.import_module(door).__all__)
    through = [
        (here, module, name)
        for here, module, name in all_imports()
        if room(module) == application and room(here) != application
    ]
    around = [
        use
        for use in through
        if use[1] != door
        or use[2] not in {application, *public}
        or not (use[0] == "narrows" or room(use[0]) == "cli")
    ]
    assert around == []
    assert len(through) <= MAX_DOOR_NAMES, through


def test_the_format_of_compressed_files_needs_numpy_and_the_standard_library_alone() -> None:
    # torch makes some products faster, safetensors reads a model file: both where they are needed
    own = {"numpy", "narrows", "torch", "safetensors"}
    for path in sorted((SOURCE / "compression" / "format").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {name.split(".")[0] for name in imports(tree, package_of(path))}
        assert used <= own | set(sys.stdlib_module_names), path.name
        rooms = {room(name) for name in imports(tree, "") if name.startswith("narrows.")}
        assert rooms <= {"compression", "exceptions"}, path.name


def test_no_files_import_each_other_in_a_circle() -> None:
    reached: dict[str, set[str]] = {}
    for here, module, _ in all_imports():
        reached.setdefault(here, set()).add(module)
    grew = True
    while grew:
        grew = False
        for targets in reached.values():
            more = set().union(*(reached.get(target, set()) for target in targets)) - targets
            targets |= more
            grew = grew or bool(more)
    assert [name for name, targets in reached.items() if name in targets] == []


def test_no_file_name_and_no_class_name_stands_twice() -> None:
    files = [path.name for path in MODULES]
    assert {name for name in files if files.count(name) > 1} <= SHARED_FILES
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in MODULES]
    classes = [n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert {name for name in classes if classes.count(name) > 1} <= SHARED_CLASSES


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_public_name_exists(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []
