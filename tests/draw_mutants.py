"""Draws defects at random and finds the tests that see them: ``tests/mutants/drawn.jsonl``.

    python tests/draw_mutants.py [--seed N] [--each N] [--reach FILE] [--retry TEST ...]
                                 [--equivalent NAME REASON]

Places are drawn room by room: an operator of ``OPERATORS`` first, then one of its places. Entries
whose text still stands in the source are kept and others are drawn anew, until each room has
``--each`` of them. Of a defect that changes nothing a user could notice, say why with
``--equivalent``: it stays in the list, and another is drawn. One that survives stays too; write the
test that sees it, and judge it again with ``--retry FILE_OF_THE_TEST``.

A mutant meets the tests that reach its function, its own room's and the fastest first, until one
fails. Which test reaches what takes as long as all tests; ``--reach`` keeps it in a file.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from types import CodeType, FrameType
from typing import Any

import pytest

from mutants import (
    DRAWN,
    FAILED,
    HANGS,
    HUNG,
    PROCESSES,
    ROOT,
    Mutant,
    Stale,
    Tree,
    copied_trees,
    functions,
    lent,
    planted,
    read_drawn,
)

SOURCE = "src/narrows/"
ROOMS = ("parts", "training", "estimators", "io", "denoising", "compression")
# The drawing of pages: a defect moves a line or a word in a picture.
NOT_DRAWN = {"denoising_page.py", "compression_summary.py", "__init__.py"}
QUIET = {"__repr__", "extra_repr", "__str__"}  # functions that make words only
SLOW = 20.0  # seconds: slower tests are of no use in a run of many mutants
FIRST_SECONDS, ALL_SECONDS = 8.0, 40.0  # of tests that a mutant meets first, and in all

# ---------------------------------------------------------------------- operators

OPERATORS = {
    "sign": "+ becomes -, - becomes +, -x becomes x",
    "factor": "* becomes /, / becomes *, a float is doubled",
    "axis": "another axis of a reduction, a concatenation, a sort",
    "off by one": "a whole number, or the end of a slice, is one more or less",
    "index": "the first for the last, the last for the first",
    "comparison": "< becomes <= or >=, == becomes !=, is becomes is not, ...",
    "logic": "and becomes or, not is dropped, a condition is reversed",
    "argument order": "the first two arguments change places",
    "reduction": "sum for mean, the least for the greatest, or the reverse",
    "clip": "a clamp or clip is dropped, min for max",
    "rounding": "rounding is dropped, floor for ceil",
    "power": "a square, root, absolute value, exp or log is dropped",
    "mask": "where's values change places, ~ or nan_to_num is dropped",
    "accumulation": "+= becomes -=, *= becomes /=, &= becomes |=",
    "detach": "a detach is dropped",
    "copy": "a copy is dropped",
    "precision": "a conversion to float64 is dropped",
    "mode": "train for eval, eval for train",
    "statement removed": "a call for its effect is dropped",
}

Edit = tuple[str, int, int, str]  # operator, start and stop in the bytes of the file, replacement
SWAPPED = {
    ast.Add: ("sign", "+", "-"),
    ast.Sub: ("sign", "-", "+"),
    ast.Mult: ("factor", "*", "/"),
    ast.Div: ("factor", "/", "*"),
}
BOUNDARY = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
NEGATED = {
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
# methods that are taken out of a chain: x.clamp(0, 1) becomes x
DROPPED = {
    "detach": "detach", "clone": "copy", "copy": "copy", "clamp": "clip", "clamp_": "clip",
    "clamp_min": "clip", "clamp_max": "clip", "clip": "clip", "round": "rounding",
    "round_": "rounding", "square": "power", "sqrt": "power", "abs": "power", "exp": "power",
    "log": "power", "nan_to_num": "mask", "masked_fill": "mask", "double": "precision",
}  # fmt: skip
FUNCTIONS_DROPPED = {"rint": "rounding", "clip": "clip", "clamp": "clip", "abs": "power",
                     "sqrt": "power", "square": "power"}  # fmt: skip
RENAMED = {
    "eval": ("mode", "train"), "train": ("mode", "eval"), "sum": ("reduction", "mean"),
    "mean": ("reduction", "sum"), "amax": ("reduction", "amin"), "amin": ("reduction", "amax"),
    "argmax": ("reduction", "argmin"), "argmin": ("reduction", "argmax"),
    "maximum": ("clip", "minimum"), "minimum": ("clip", "maximum"), "max": ("clip", "min"),
    "min": ("clip", "max"), "floor": ("rounding", "ceil"), "ceil": ("rounding", "floor"),
}  # fmt: skip
WITH_AXIS = {"sum", "mean", "amax", "amin", "argmin", "argmax", "cumsum", "softmax", "logsumexp",
             "unsqueeze", "std", "var", "sort", "argsort", "gather", "all", "any", "log_softmax",
             "flip", "squeeze", "diff", "roll", "tensor_split", "flatten"}  # fmt: skip
AXIS_SECOND = {"cat", "stack", "concatenate", "softmax", "flip", "diff"}
SYMMETRIC = {"isinstance", "hasattr", "getattr", "zip", "print", "max", "min", "maximum", "minimum",
             "issubclass", "setattr", "cast", "field", "where", "allclose", "super"}  # fmt: skip
AUGMENTED = {ast.Add: ("+=", "-="), ast.Sub: ("-=", "+="), ast.Mult: ("*=", "/="),
             ast.Div: ("/=", "*="), ast.BitAnd: ("&=", "|="), ast.BitOr: ("|=", "&=")}  # fmt: skip


class Places:
    """All edits of one file, each with the function it lies in."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.bytes = self.text.encode()
        self.starts = [0]
        for line in self.bytes.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.tree = ast.parse(self.text)

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node stands in the bytes."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (self.starts[node.lineno - 1] + node.col_offset,
                self.starts[node.end_lineno - 1] + node.end_col_offset)  # fmt: skip

    def of(self, node: ast.expr) -> str:
        """The text of an expression."""
        start, stop = self.span(node)
        return self.bytes[start:stop].decode()

    def all(self) -> Iterator[tuple[str, Edit]]:
        """(function, edit), in the order of the file."""
        for name, function in functions(self.tree):
            if function.name in QUIET or (len(function.body) == 1 and _empty(function.body[0])):
                continue
            for statement in function.body:
                for node in _below(statement):
                    for edit in self._edits(node):
                        yield name, edit

    def _token(self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str) -> Edit:
        """An operator between two expressions, replaced."""
        start, stop = self.span(left)[1], self.span(right)[0]
        at = self.bytes.index(old.split()[0].encode(), start, stop)
        end = self.bytes.index(old.split()[-1].encode(), at, stop) + len(old.split()[-1])
        return operator, at, end, new

    def _edits(self, node: ast.AST) -> Iterator[Edit]:
        if isinstance(node, ast.BinOp):
            plain = not any(isinstance(side, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)
                            or (isinstance(side, ast.Constant) and isinstance(side.value, str))
                            for side in (node.left, node.right))  # fmt: skip
            if type(node.op) in SWAPPED and plain:
                operator, old, new = SWAPPED[type(node.op)]
                yield self._token(operator, node.left, node.right, old, new)
            for side in (node.left, node.right):
                if isinstance(node.op, ast.Add | ast.Sub | ast.FloorDiv | ast.Mod):
                    yield from self._off_by_one(side)
        elif isinstance(node, ast.UnaryOp):
            start, stop = self.span(node)
            inner = self.of(node.operand)
            if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
                yield "sign", start, stop, f"({inner})"
            elif isinstance(node.op, ast.Invert):
                yield "mask", start, stop, f"({inner})"
            elif isinstance(node.op, ast.Not):
                yield "logic", start, stop, f"bool({inner})"
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            kind, right = type(node.ops[0]), node.comparators[0]
            if kind in BOUNDARY:
                yield self._token("comparison", node.left, right, *BOUNDARY[kind])
            yield self._token("comparison", node.left, right, *NEGATED[kind])
            yield from self._off_by_one(right)
        elif isinstance(node, ast.BoolOp):
            both = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield self._token("logic", node.values[0], node.values[1], *both)
        elif isinstance(node, ast.IfExp):
            start, stop = self.span(node)
            parts = self.of(node.orelse), self.of(node.test), self.of(node.body)
            yield "logic", start, stop, "{} if {} else {}".format(*parts)
        elif isinstance(node, ast.If | ast.While):
            start, stop = self.span(node.test)
            if isinstance(node, ast.If) and not isinstance(node.test, ast.Compare):
                yield "logic", start, stop, f"not ({self.of(node.test)})"
        elif isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value:
            yield "factor", *self.span(node), f"(2 * {self.of(node)})"
        elif isinstance(node, ast.Subscript):
            yield from self._indices(node)
        elif isinstance(node, ast.AugAssign) and type(node.op) in AUGMENTED:
            yield self._token("accumulation", node.target, node.value, *AUGMENTED[type(node.op)])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if "__init__" not in self.of(node.value) and "warn" not in self.of(node.value.func):
                yield "statement removed", *self.span(node), "pass"
        elif isinstance(node, ast.Attribute) and node.attr == "training":
            yield "mode", *self.span(node), f"(not {self.of(node)})"
        elif isinstance(node, ast.Call):
            yield from self._calls(node)

    def _off_by_one(self, node: ast.expr | None) -> Iterator[Edit]:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield "off by one", *self.span(node), str(node.value + 1)

    def _indices(self, node: ast.Subscript) -> Iterator[Edit]:
        if isinstance(node.ctx, ast.Del):
            return
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts:
            if isinstance(part, ast.Slice):
                for bound in (part.lower, part.upper, part.step):
                    yield from self._off_by_one(bound)
                if isinstance(part.upper, ast.Name | ast.BinOp | ast.Attribute):
                    yield "off by one", *self.span(part.upper), f"({self.of(part.upper)}) - 1"
            elif self.of(part) in ("0", "-1"):
                yield "index", *self.span(part), {"0": "-1", "-1": "0"}[self.of(part)]

    def _calls(self, node: ast.Call) -> Iterator[Edit]:
        start, stop = self.span(node)
        f, args = node.func, node.args
        name = f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")
        on = self.of(f.value) if isinstance(f, ast.Attribute) else ""
        module = on in ("np", "torch", "F", "math") or not on
        if name in DROPPED and not module and (name not in ("copy", "abs") or not args):
            yield DROPPED[name], start, stop, on
        elif name in FUNCTIONS_DROPPED and module and args:
            yield FUNCTIONS_DROPPED[name], start, stop, f"({self.of(args[0])})"
        elif name == "round" and not on and len(args) == 1:
            yield "rounding", start, start + len("round"), "int"
        elif name in RENAMED and (on or len(args) > 1 or name in ("max", "min")):
            operator, new = RENAMED[name]
            end = self.span(f)[1]
            yield operator, end - len(name), end, new
        if name == "where" and len(args) == 3:
            (a, b), (c, d) = self.span(args[1]), self.span(args[2])
            between = self.bytes[b:c].decode()
            yield "mask", a, d, f"{self.of(args[2])}{between}{self.of(args[1])}"
        elif len(args) > 1 and name not in SYMMETRIC and _exchangeable(args[0], args[1]):
            (a, b), (c, d) = self.span(args[0]), self.span(args[1])
            between = self.bytes[b:c].decode()
            yield "argument order", a, d, f"{self.of(args[1])}{between}{self.of(args[0])}"
        if name == "range":
            for arg in args:
                yield from self._off_by_one(arg)
        place = 1 if module and name in AXIS_SECOND else 0
        axes = args[place : place + 1] if name in WITH_AXIS | AXIS_SECOND else []
        axes += [word.value for word in node.keywords if word.arg in ("dim", "axis")]
        for axis in axes:
            if re.fullmatch(r"-?\d", self.of(axis)):
                value = int(self.of(axis))
                yield (
                    "axis",
                    *self.span(axis),
                    str(-1 if value == 0 else value - 1 if value > 0 else 0),
                )


def _exchangeable(a: ast.expr, b: ast.expr) -> bool:
    values = (ast.Name, ast.Attribute, ast.Subscript)
    return isinstance(a, values) and isinstance(b, values) and ast.dump(a) != ast.dump(b)


def _empty(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Raise | ast.Pass | ast.Expr)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it that compute: no words, annotations or inner functions."""
    words = (ast.JoinedStr, ast.Raise, ast.Assert, ast.FunctionDef, ast.AsyncFunctionDef,
             ast.ClassDef, ast.Import, ast.ImportFrom)  # fmt: skip
    if isinstance(node, words):
        return
    if isinstance(node, ast.Call) and "warn" in ast.dump(node.func):
        return
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in ("annotation", "returns"):
                yield from _below(child)


def entry_of(file: str, places: Places, function: str, edit: Edit) -> dict[str, Any]:
    """What the list says of a place: the lines the edit touches, without their indentation."""
    operator, start, stop, new = edit
    first = places.bytes.rindex(b"\n", 0, start) + 1
    last = places.bytes.find(b"\n", stop)
    last = len(places.bytes) if last < 0 else last
    old = places.bytes[first:last].decode()
    changed = places.bytes[first:start].decode() + new + places.bytes[stop:last].decode()
    old, changed = old.lstrip(), changed.lstrip()
    entry = {"operator": operator, "file": file, "function": function, "old": old, "new": changed}
    at = len(places.bytes[:last].decode()) - len(old)
    for occurrence in range(1, 100):
        found = Mutant("0", operator, file, old, changed, (), function, occurrence)
        if found.place(ROOT)[1] == at:
            return {**entry, "occurrence": occurrence}
        if found.place(ROOT)[1] > at:
            break
    raise Stale(f"{file}: {old!r} overlaps itself")


def candidates(room: str, seed: int) -> Iterator[dict[str, Any]]:
    """Entries of a room: an operator at random, no one twice before all, and one of its places."""
    rng = random.Random(f"{seed} {room}")
    by_operator: dict[str, list[tuple[str, str, Edit]]] = {}
    read: dict[str, Places] = {}
    for path in sorted((ROOT / SOURCE / room).rglob("*.py")):
        if path.name not in NOT_DRAWN:
            file = str(path.relative_to(ROOT))
            read[file] = Places(path)
            for function, edit in read[file].all():
                by_operator.setdefault(edit[0], []).append((file, function, edit))
    while by_operator:
        operators = sorted(by_operator)
        rng.shuffle(operators)
        for operator in operators:
            places = by_operator[operator]
            file, function, edit = places.pop(rng.randrange(len(places)))
            if not places:
                del by_operator[operator]
            _, start, stop, new = edit
            whole = read[file].bytes
            try:
                ast.parse(whole[:start] + new.encode() + whole[stop:])
                yield entry_of(file, read[file], function, edit)
            except (Stale, SyntaxError):
                continue


# ---------------------------------------------------------------------- which test reaches what

# As a plugin of pytest (-p draw_mutants): writes the functions that each passing test reaches.
_RECORD = os.environ.get("NARROWS_REACH", "")
_reached: set[CodeType] = set()


def _on_call(frame: FrameType, event: str, arg: object) -> None:
    _reached.add(frame.f_code)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Follow one test; only when this module is a plugin."""
    started = time.perf_counter()
    _reached.clear()
    threading.settrace(_on_call)
    sys.settrace(_on_call)
    outcome = yield
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    if outcome.excinfo is None:  # type: ignore[attr-defined]
        codes = [code for code in _reached.copy() if f"/{SOURCE}" in code.co_filename]
        places = [(code.co_filename.split(SOURCE)[1], code.co_qualname) for code in codes]
        reach = sorted({f"{SOURCE}{file}:{name.replace('.<locals>', '')}" for file, name in places})
        line = json.dumps({"test": item.nodeid, "seconds": round(seconds, 3), "reach": reach})
        with Path(f"{_RECORD}.{os.getpid()}").open("a") as out:
            out.write(line + "\n")


def record(tree: Tree, tests: list[str]) -> list[dict[str, Any]]:
    """What all tests in these files and folders reach."""
    out = tree.path.parent / "reach"
    tree.environment["NARROWS_REACH"] = str(out)
    options = ["-p", "draw_mutants", "--maxfail=1000", "-m", "not slow"]
    tree.run_in_parallel(tests, *options)
    found = []
    for part in sorted(out.parent.glob(f"{out.name}.*")):
        found += [json.loads(line) for line in part.read_text().splitlines()]
        part.unlink()
    return found


def tests_for(entry: dict[str, Any], reach: list[dict[str, Any]]) -> list[list[str]]:
    """The tests that reach a function, in two portions: the first and fastest, then the others."""
    room = entry["file"].split("/")[2]
    place = f"{entry['file']}:{entry['function']}"
    # what a test reaches in another process is not recorded: the file's own tests are added
    own = f"tests/{room}/test_{Path(entry['file']).stem}.py::"
    reaching = [
        test for test in reach
        if (place in test["reach"] or test["test"].startswith(own)) and test["seconds"] < SLOW
    ]  # fmt: skip
    reaching.sort(key=lambda test: (f"tests/{room}/" not in test["test"], test["seconds"]))
    portions: list[list[str]] = [[], []]
    spent = 0.0
    for test in reaching:
        spent += test["seconds"] + 0.01
        if spent < ALL_SECONDS:
            portions[spent > FIRST_SECONDS].append(test["test"])
    return portions


def judge_entry(tree: Tree, entry: dict[str, Any], portions: list[list[str]]) -> dict[str, Any]:
    """The entry with its result: "seen" and by which test, "survived", or why it does not count."""
    mutant = Mutant.of(entry.get("name", "new"), {**entry, "tests": []})
    result, seen_by = "survived", []
    with planted(tree.path, mutant):
        for portion in portions:
            limit = HANGS + 10 * ALL_SECONDS if portion is portions[1] else HANGS
            status, said = tree.run(portion, "-rf", "--tb=no", limit=limit) if portion else (0, "")
            if status == FAILED:
                failed = re.findall(r"^FAILED (\S+?(?:\[.*?\])?)(?: - |$)", said, re.MULTILINE)
                result, seen_by = ("seen", failed[:1]) if failed else ("broken", [])
                break
            if status != 0:
                result = "hangs" if status == HUNG else "broken"
                break
    return {**entry, "result": result, "tests": seen_by, "of": sum(map(len, portions))}


# ---------------------------------------------------------------------- the list

WRITING = threading.Lock()


def still_there(entry: dict[str, Any]) -> bool:
    """Whether the source still has the place of an entry."""
    try:
        Mutant.of(entry["name"], {**entry, "tests": []}).place(ROOT)
    except Stale:
        return False
    return True


def write(entries: list[dict[str, Any]]) -> None:
    """The list, a line an entry, in the order of names."""
    entries.sort(key=lambda entry: entry["name"])
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    DRAWN.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(
    room: str, each: int, seed: int, every: list[dict[str, Any]], reach: list[dict[str, Any]],
    trees: Queue[Tree],
) -> None:  # fmt: skip
    """Add entries of a room to ``every`` until it has as many that count; write each at once."""
    kept = list(every)
    key = ("file", "function", "old", "new", "occurrence")
    known = {tuple(entry[name] for name in key) for entry in kept}
    used = {entry["name"] for entry in kept}
    names = (f"{room}-{i:02d}" for i in range(1, 1000))
    own = [entry for entry in kept if entry["name"].startswith(f"{room}-")]
    missing = each - sum(entry["result"] in ("seen", "survived") for entry in own)
    for entry in candidates(room, seed):
        if missing <= 0:
            break
        if tuple(entry[name] for name in key) in known:
            continue
        with lent(trees) as tree:
            judged = judge_entry(tree, entry, tests_for(entry, reach))
        if judged["result"] in ("seen", "survived"):
            judged = {"name": next(name for name in names if name not in used), **judged}
            missing -= 1
            with WRITING:
                every.append(judged)
                write(every)
        print(room, judged["result"], entry["operator"], entry["file"], "|", entry["old"], "|",
              entry["new"], "|", *judged["tests"], flush=True)  # fmt: skip


def main() -> None:
    """Draw, judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--each", type=int, default=10, help="defects a room")
    parser.add_argument("--reach", type=Path, help="file that keeps which test reaches what")
    parser.add_argument("--retry", nargs="+", help="test files for what survived")
    parser.add_argument("--equivalent", nargs=2, metavar=("NAME", "REASON"))
    given = parser.parse_args()
    kept = [entry for entry in read_drawn() if still_there(entry)]
    if given.equivalent:
        name, reason = given.equivalent
        for entry in kept:
            if entry["name"] == name:
                entry.update(result="equivalent", reason=reason, tests=[])
        write(kept)
        return
    with copied_trees() as trees, ThreadPoolExecutor(PROCESSES) as pool:
        if given.reach and given.reach.exists() and not given.retry:
            reach = json.loads(given.reach.read_text())
        else:
            with lent(trees) as tree:
                folders = [f"tests/{room}" for room in (*ROOMS, "models")]
                reach = record(tree, given.retry or folders)
        if given.retry:
            for entry in kept:
                if entry["result"] == "survived":
                    with lent(trees) as tree:
                        entry.update(judge_entry(tree, entry, tests_for(entry, reach)))
                    print(entry["name"], entry["result"], *entry["tests"], flush=True)
            write(kept)
            return
        if given.reach:
            given.reach.write_text(json.dumps(reach))
        rooms = [pool.submit(draw, r, given.each, given.seed, kept, reach, trees) for r in ROOMS]
        for future in rooms:
            future.result()


if __name__ == "__main__":
    main()
