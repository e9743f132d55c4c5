"""Plants defects, one at a time, and shows that the tests meant for each then fail.

    python tests/mutants.py [NAME ...]

Each ``tests/mutants/NN.toml`` names a defect made by hand: those up to 15 shipped in other
libraries. ``tests/mutants/drawn.jsonl`` holds those that ``draw_mutants.py`` drew at random. A
defect is a place (file, function, text, which occurrence of it), what stands there instead, and
the tests that see it. The sources are copied; nothing here is changed.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "mutants"
DRAWN = FOLDER / "drawn.jsonl"
COPIED = ("src", "tests", "docs", "examples", "benchmarks", "README.md", "pyproject.toml")
PROCESSES = 2
HANGS = 300  # seconds: a test that takes as long has not answered
MEMORY = 12 * 2**30  # bytes of address space: a defect in a size must not fill the machine
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "-m", "")
# A process that has imported all but narrows and forks for each run, which saves seconds of each.
FORKS = """
import json, os, resource, signal, sys, time, traceback
import pytest, scipy.stats, sklearn.datasets, sklearn.decomposition, torch
for line in sys.stdin:
    out, limit, memory, arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        for stream in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        status = 70  # no status of pytest's: 1 must mean a test that failed
        try:
            status = pytest.main(arguments)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    status, end = None, time.monotonic() + limit
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else time.sleep(0.02)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print("hung" if status is None else status, flush=True)
"""
FAILED, HUNG = 1, -1000  # pytest's status if a test failed; ours if none came


class Stale(Exception):
    """The source no longer has the place of a defect."""


@dataclass(frozen=True)
class Mutant:
    """One defect; ``function`` is "Class.method", or "" for the whole file."""

    name: str
    defect: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    function: str = ""
    occurrence: int = 0  # from 1; 0: the text must stand there exactly once

    @classmethod
    def of(cls, name: str, entry: dict[str, Any]) -> Mutant:
        """From an entry of a file; a drawn one has an operator, and no words of its own."""
        tests = tuple(entry["tests"]) if "tests" in entry else (entry["test"],)
        place = {
            k: entry[k] for k in ("file", "old", "new", "function", "occurrence") if k in entry
        }
        return cls(name, entry.get("defect") or entry["operator"], tests=tests, **place)

    def place(self, tree: Path) -> tuple[str, int]:
        """The text of the file, and where ``old`` begins in it."""
        path = tree / self.file
        if not path.exists():
            raise Stale(f"{self.name}: there is no {self.file} any more; {self._advice()}.")
        text = path.read_text(encoding="utf-8")
        start, stop = function_span(text, self.function)
        count = text.count(self.old, start, stop)
        if start == stop or count < max(1, self.occurrence) or (not self.occurrence and count > 1):
            where = f"{self.file}, {self.function}" if self.function else self.file
            wanted = f"{self.occurrence} times or more" if self.occurrence else "once"
            raise Stale(
                f"{self.name}: {where} should hold {self.old!r} {wanted}, and holds it {count} "
                f"times; {self._advice()}."
            )
        at = text.index(self.old, start)
        for _ in range(1, self.occurrence):
            at = text.index(self.old, at + len(self.old))
        return text, at

    def line(self, tree: Path) -> int:
        """The line of the place, from 1."""
        text, at = self.place(tree)
        return text.count("\n", 0, at) + 1

    def _advice(self) -> str:
        if self.name.isdigit():
            return f"write tests/mutants/{self.name}.toml for the source as it is, or remove it"
        return "run python tests/draw_mutants.py, which draws another in its place"


def function_span(text: str, name: str) -> tuple[int, int]:
    """Start and stop of the function "Class.method" in ``text``; equal if there is none."""
    if not name:
        return 0, len(text)
    for found, node in functions(ast.parse(text)):
        if found == name:
            lines = [line + "\n" for line in text.split("\n")]  # as ast counts them
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            start = len("".join(lines[: first - 1]))
            return start, start + len("".join(lines[first - 1 : node.end_lineno]))
    return 0, 0


def functions(
    tree: ast.AST, within: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions below ``tree`` with their names, "Class.method" or "outer.inner"."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
        name = getattr(node, "name", None)
        yield from functions(node, f"{within}{name}." if isinstance(name, str) else within)


def read_mutants(names: Iterable[str] = ()) -> list[Mutant]:
    """All mutants that have tests, or those named."""
    found = [
        Mutant.of(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(FOLDER.glob("*.toml"))
    ]
    for entry in read_drawn():
        if entry["result"] == "seen":
            found.append(Mutant.of(entry["name"], entry))
    wanted = set(names)
    return [mutant for mutant in found if not wanted or mutant.name in wanted]


def read_drawn() -> list[dict[str, Any]]:
    """The entries of the drawn list."""
    if not DRAWN.exists():
        return []
    return [json.loads(line) for line in DRAWN.read_text(encoding="utf-8").splitlines()]


class Tree:
    """A copy of what the tests need, and a process that runs them on it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.out = folder / "tree", folder / "out"
        self.path.mkdir()
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, self.path / part)
        paths = os.pathsep.join([str(self.path / "src"), str(self.path / "tests")])
        # no bytecode: a mutant of the same length within the same second would find the old one
        own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment = {**os.environ, **own}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS], cwd=self.path, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, tests: Iterable[str], *options: str, limit: float = HANGS) -> tuple[int, str]:
        """pytest's status of these tests on the tree's own sources, and what it printed."""
        self.out.unlink(missing_ok=True)
        arguments = [*OPTIONS, *options, *tests]
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([str(self.out), limit, MEMORY, arguments]), file=self._process.stdin,
              flush=True)  # fmt: skip
        status = self._process.stdout.readline().strip()
        said = self.out.read_text(errors="replace") if self.out.exists() else ""
        return (HUNG, f"no end in {limit:g} s") if status == "hung" else (int(status), said)

    def run_in_parallel(self, tests: Iterable[str], *options: str) -> tuple[int, str]:
        """The same in two new processes."""
        command = [sys.executable, "-m", "pytest", *OPTIONS, "-n", str(PROCESSES), *options, *tests]
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def copied_trees() -> Iterator[Queue[Tree]]:
    """As many trees as processes."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trees: Queue[Tree] = Queue()
        for i in range(PROCESSES):
            (Path(folder) / str(i)).mkdir()
            trees.put(tree := Tree(Path(folder) / str(i)))
            stack.callback(tree.close)
        yield trees


@contextmanager
def lent(trees: Queue[Tree]) -> Iterator[Tree]:
    """One of the trees; it goes back at the end."""
    tree = trees.get()
    try:
        yield tree
    finally:
        trees.put(tree)


@contextmanager
def planted(tree: Path, mutant: Mutant) -> Iterator[None]:
    """The defect in the tree; taken out at the end."""
    text, at = mutant.place(tree)
    path = tree / mutant.file
    defective = text[:at] + mutant.new + text[at + len(mutant.old) :]
    path.write_text(defective, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def judge(tree: Tree, mutant: Mutant) -> str | None:
    """What is wrong with a mutant's tests, which pass without it; None if they see it."""
    with planted(tree.path, mutant):
        status, said = tree.run(mutant.tests)
    if status == 0:
        return "passes with the defect planted"
    return None if status == FAILED else f"could not be run (status {status}):\n{said[-2000:]}"


def main(names: list[str]) -> int:
    """Judge every mutant, or those named; the status is 0 if all are seen."""
    mutants, stale = read_mutants(names), []
    for mutant in mutants:
        try:
            mutant.place(ROOT)
        except Stale as error:
            stale.append(str(error))
    if stale:
        print("\n".join(stale), file=sys.stderr)
        return 2

    def judged(mutant: Mutant) -> str | None:
        with lent(trees) as tree:
            return judge(tree, mutant)

    with copied_trees() as trees, ThreadPoolExecutor(PROCESSES) as pool:
        with lent(trees) as tree:
            every = sorted({test for mutant in mutants for test in mutant.tests})
            status, said = tree.run_in_parallel(every)
        if status != 0:
            print(f"Tests fail without a defect; mend them first:\n{said[-4000:]}")
            return 2
        unseen = 0
        for mutant, wrong in zip(mutants, pool.map(judged, mutants), strict=True):
            unseen += wrong is not None
            words = f"{mutant.defect} ({mutant.file}:{mutant.line(ROOT)})"
            print(f"{mutant.name} {'seen' if wrong is None else 'NOT SEEN'}: {words}", flush=True)
            if wrong is not None:
                print(wrong)
    print(f"{len(mutants) - unseen} of {len(mutants)} defects are seen by their tests")
    for entry in read_drawn():
        if entry["result"] == "survived" and not names:
            print(f"{entry['name']} has no test: {entry['operator']} ({entry['file']})")
    return min(unseen, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
