"""Shared by all benchmarks: child processes, JSON lines with facts about the machine, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Row = dict[str, Any]


def machine() -> Row:
    """The machine: figures depend on it as well as on the code."""
    cpu = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x.partition(":") for x in info.read_text().splitlines()]
        cpu = next((value.strip() for key, _, value in lines if key.strip() == "model name"), cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
    }


@dataclass
class Book:
    """The rows of one section: each is appended immediately, as one JSON line.

    ``run`` is the time at which this run began: each cell of a table shows the last run only.
    ``cpu`` selects the rows of one machine; None: of all.
    """

    section: str
    folder: Path
    cpu: str | None = None
    run: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @property
    def path(self) -> Path:
        return self.folder / f"{self.section}.jsonl"

    def add(self, row: Row) -> Row:
        """Append and show one row."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"run": self.run, **row, **machine()})
        with self.path.open("a") as stream:
            stream.write(line + "\n")
        print(line, flush=True)
        return row

    def rows(self, *keys: str) -> list[Row]:
        """All rows without a failure; of those with equal ``keys`` the last run's."""
        if not self.path.exists():
            return []
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        rows = [row for row in rows if "failed" not in row and self.cpu in (None, row["cpu"])]
        last: dict[tuple[Any, ...], str] = {}
        for row in rows:
            key = _key(row, keys)
            last[key] = max(last.get(key, ""), row["run"])
        return [row for row in rows if row["run"] == last[_key(row, keys)]]

    def write(self, text: str) -> None:
        """Write the table, next to the JSON lines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.page.write_text(text)

    @property
    def page(self) -> Path:
        """The path of the table."""
        return self.folder / f"{self.section}.md"

    def write_each(self, write: Callable[[Book], None]) -> None:
        """One table per machine, the last used first: ratios on one say little about another."""
        used = {row["cpu"]: row["run"] for row in self.rows("cpu")}
        pages = []
        for cpu in sorted(used, key=used.__getitem__, reverse=True):
            write(replace(self, cpu=cpu))
            pages.append(self.page.read_text())
        tables = [page[page.index("\n| ") :] for page in pages[1:]]
        self.write("".join([*pages[:1], *tables]))


def _key(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(json.dumps(row.get(k)) for k in keys)


def child(
    script: str,
    *arguments: object,
    timeout: float | None = None,
    cores: Sequence[int] | None = None,
) -> Row:
    """Run a script of this folder; its last line as JSON, or ``failed`` and the reason.

    ``cores``: the only ones that it may use, with as many threads.
    """
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    if cores is not None:
        threads = dict.fromkeys(THREADS, str(len(cores)))
        pin = partial(os.sched_setaffinity, 0, cores)
        run = partial(run, env={**os.environ, **threads}, preexec_fn=pin)
    try:
        done = run(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {timeout} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        errors = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"failed": errors[-1][:300]}
    result: Row = json.loads(lines[-1])
    return result


def peer(name: str, cores: Sequence[int] | None = None, **options: Any) -> Row:
    """One run of ``peers.py``, on all cores or on those given."""
    arguments: list[object] = [name, "--json"]
    for key, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        arguments += [f"--{key}", *([] if value is True else values)]
    row = child("peers.py", *arguments, cores=cores)
    out = {"name": name, **options, **row}
    if "data" in out:  # a published row must not hold a private path
        out["data"] = Path(out["data"]).name
    return out


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of ``keys``, in the order of their first occurrence."""
    out: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row.get(k) for k in keys), []).append(row)
    return out


def median(rows: Iterable[Row], key: str) -> float | None:
    """The median of the values that exist."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.median(values) if values else None


def ratio(rows: Sequence[Row], key: str, to: Sequence[Row]) -> float | None:
    """Median over rounds of the ratio within each round; a round is one seed of one run."""
    base = {(row["run"], row["seed"]): row.get(key) for row in to}
    pairs = [(row.get(key), base.get((row["run"], row["seed"]))) for row in rows]
    values = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(values) if values else None


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    parts = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    parts += ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(parts) + "\n"


def show(value: float | None, form: str = ".3g") -> str:
    """A number, or a dash."""
    return "–" if value is None else format(value, form)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """The median and, of several values, the lowest and the highest."""
    if not values:
        return "–"
    middle = format(statistics.median(values), form)
    ends = f" ({min(values):{form}}–{max(values):{form}})"
    return middle + (ends if len(values) > 1 else "")


def seeds(count: int) -> str:
    """A number of seeds, one alone being named as such."""
    return "1 (single seed)" if count == 1 else str(count)


def footnote(rows: Sequence[Row]) -> str:
    """Machines and versions."""
    if not rows:
        return ""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, version in row.get("versions", {}).items():
            found.setdefault(name, set()).add(version)
    versions = ", ".join(f"{n} {'/'.join(sorted(v))}" for n, v in sorted(found.items()))
    machines = sorted({f"{r['cpu']}, {r['cores']} cores" for r in rows})
    return f"\n{'; '.join(machines)}. {versions}\n"


Section = Callable[[Any, Book], None]
