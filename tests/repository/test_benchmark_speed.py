"""What ``benchmarks/speed.py`` computes from its runs, against what can be worked out by hand."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[SimpleNamespace]:
    """The modules; they leave no trace, as other tests import some of them in another way."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        names = ("records", "sets", "suite", "sections.equal", "sections.quality")
        names = (*names, "contenders.common")
        yield SimpleNamespace(
            **{name.split(".")[-1]: importlib.import_module(name) for name in names}
        )
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def run(
    name: str, mse: float, *, data: str = "chirp", seed: int = 0, **more: Any
) -> dict[str, Any]:
    common = {"network": "dense", "latent": 4, "rows": None, "threads": 1, "seconds": 1.0}
    given = None if name == "pca" else 5.0
    return {**common, "name": name, "set": data, "seed": seed, "mse": mse,
            "seconds_given": given, "run": "now", "cpu": "a", "cores": 2, **more}  # fmt: skip


def test_the_better_of_the_good_loops_is_the_rival(benchmarks: SimpleNamespace) -> None:
    rows = [run("narrows", 3.0), run("good", 6.0), run("good-512", 4.0)]
    rows += [run(r["name"], 2 * r["mse"], seed=1) for r in rows]
    rows = [{**r, "relative": r["mse"] / 10} for r in rows]
    assert benchmarks.equal._to_best_good(rows) == {0: 0.75, 1: 0.75}
    assert benchmarks.equal._to_best_good(rows[:1]) == {}


def test_means_are_over_the_sets_for_each_seed(benchmarks: SimpleNamespace) -> None:
    assert benchmarks.equal._by_seed([{0: 2.0, 1: 1.0}, {0: 8.0, 1: 1.0}]) == pytest.approx([4, 1])
    assert benchmarks.equal._by_seed([{0: 2.0, 1: 1.0}, {0: 8.0}]) == pytest.approx([4])


def test_the_table_divides_by_pca_and_names_a_single_seed(
    benchmarks: SimpleNamespace, tmp_path: Path
) -> None:
    rows = [run("pca", 2.0), run("narrows", 1.0), run("good", 1.5), run("plain", 3.0)]
    (tmp_path / "equal.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    book = benchmarks.records.Book("equal", tmp_path)
    book.write_each(benchmarks.equal.write)
    text = book.page.read_text()
    assert "| 5 s, 1 thread | 1 | 1 (single seed) | 0.667 | 0.667 | 1 of 1 |" in text
    line = (
        "| chirp, dense 4 | signals | 1 (single seed) | 1.500 | 0.750 | 0.500 | 0.667 | 2 | 1000 |"
    )
    assert line in text
    assert "| geometric mean |  |  | 1.500 | 0.750 | 0.500 | 0.667 |  |  |" in text


def test_what_is_measured_is_not_run_again(benchmarks: SimpleNamespace, tmp_path: Path) -> None:
    options = Namespace(
        names=["narrows"], device="cpu", seeds=[0], sets=["chirp", "onehot"], networks=None,
        rows=None, seconds=[5.0],
    )  # fmt: skip
    tasks = list(benchmarks.equal._tasks(options, 1))
    assert [(t["set"], t["name"]) for t in tasks] == [
        (data, name) for data in ("chirp", "onehot") for name in ("pca", "narrows")
    ]
    failed = {**run("narrows", 0.0, data="onehot", latent=3), "failed": "no"}
    rows = [run("narrows", 1.0), failed]
    (tmp_path / "equal.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = map(
        benchmarks.equal._key,
        benchmarks.equal._measured(benchmarks.records.Book("equal", tmp_path)),
    )
    assert set(done) == {benchmarks.equal._key(tasks[1])}


def test_the_suite_has_twelve_sets_of_every_kind(benchmarks: SimpleNamespace) -> None:
    kinds = [member.kind for member in benchmarks.suite.SUITE.values()]
    assert len(kinds) == 12
    least = {"short table": 2, "tall table": 2, "signals": 3, "images": 2, "one-hot": 1}
    assert all(kinds.count(kind) >= count for kind, count in least.items())


def test_the_weights_with_the_lowest_error_on_rows_held_out_are_kept(
    benchmarks: SimpleNamespace,
) -> None:
    class Constant(benchmarks.common.Contender):  # type: ignore[misc,name-defined]
        value = 3.0

        def __init__(self) -> None:
            pass

        def reconstruct(self, rows: Any) -> Any:
            return np.full((2, 1), self.value)

        def weights(self) -> float:
            return self.value

        def restore(self, weights: float) -> None:
            self.value = weights

    watch = benchmarks.common.Monitor(None, SimpleNamespace(ready=np.ones((2, 1))))
    contender = watch.contender = Constant()
    for contender.value in (3.0, 1.5, 2.0):
        watch.check()
    watch.finish()
    assert (watch.lowest, contender.value) == (0.25, 1.5)


def test_columns_and_common_units(benchmarks: SimpleNamespace) -> None:
    load = benchmarks.sets.load
    X = load("onehot", scale="shared").train.ready
    assert (X.mean(), X.std()) == pytest.approx((0, 1), abs=1e-3)
    assert X.std(0).max() > 1.1
    found = load("onehot", scale="column")
    assert found.train.ready.std(0) == pytest.approx(1, abs=1e-3)
    assert not found.bounded
    assert load("digits").bounded


def test_a_table_says_where_pca_alone_is_better(benchmarks: SimpleNamespace) -> None:
    rows = [
        {**run("plain", 2.0), "mse_held": 2.0},
        {**run("narrows", 0.5), "mse_held": 0.5, "seconds": 0.25, "budget": 1.0},
    ]
    pca = {**run("pca", 1.0), "mse_held": 1.0, "ms": 3.0}
    found = benchmarks.quality._first(rows, pca)
    assert (found["speedup"], found["pca_is_below"]) == (4.0, True)
    assert benchmarks.quality._of_pca([found]) == ["1", "3", "PCA alone is below the plain loop"]
    assert benchmarks.quality._of_pca([benchmarks.quality._first(rows)]) == ["–", "–", "–"]
