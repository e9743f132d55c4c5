"""Which training recipe reaches a low reconstruction error soonest: candidates against the default.

    python benchmarks/recipes.py --candidates learning_rate=2e-3 decay=linear \
        --data digits,latent=8,epochs=40 fashion-mnist,rows=20000,latent=32,epochs=2 --seeds 0 1
    python benchmarks/recipes.py --time --candidates optimizer=muon --data fashion-mnist,latent=32
    python benchmarks/recipes.py --table

A candidate is a list of changes from the default (see ``recipe_variants.py``). Data is a name that
``narrows`` knows or a file (.npz with X or x, .ts, or any file that ``narrows`` reads), followed by
``rows``, ``latent``, ``network``, ``epochs`` and ``axes``. A fifth of the rows are test rows. As in
``fit``, a tenth of the others is held out, and the best epoch is chosen on it. Steps are compared,
not seconds; ``--time`` measures the cost of a step relative to the default's, in interleaved runs.
Rows are appended to ``results/recipes.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import narrows
from narrows._types import Clock
from narrows.estimators.fit_setup import Training
from narrows.io.read import read
from narrows.training.batches import Rows, as_tensor, inference_batch
from narrows.training.process_group import Group
from recipe_variants import Average, Variant, change_model, fade, optimizers

RESULTS = Path(__file__).parent / "results" / "recipes.jsonl"
SPLIT_SEED = 0  # the test rows are the same for every seed
MOST_TEST_ROWS = 10_000
TEST_SHARE = 0.2
EPOCHS = 2
USUAL_BATCH = 128
ROUNDING = 1e-12  # no ratio is smaller
Array = NDArray[Any]


def parse_data(text: str) -> dict[str, Any]:
    """``name,rows=20000,latent=32,network=conv,epochs=2,axes=HWC`` as a dictionary."""
    name, *rest = text.split(",")
    spec: dict[str, Any] = {"name": name, "rows": 0, "latent": "auto", "network": "auto"}
    spec |= {"epochs": EPOCHS, "axes": ""}
    for part in rest:
        key, value = part.split("=")
        spec[key] = int(value) if value.isdigit() else value
    return spec


def _parse_ts(path: Path) -> Array:
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().lower() == "@data")
    rows = [line.split(":")[:-1] for line in lines[start + 1 :] if line.strip()]
    return np.asarray([[[float(v) for v in c.split(",")] for c in row] for row in rows])


def load(spec: dict[str, Any]) -> tuple[Array, Array]:
    """Training (with validation) and test rows."""
    path = Path(spec["name"])
    if path.suffix == ".npz":
        with np.load(path) as content:
            rows = content["X" if "X" in content else "x"]
    elif path.suffix == ".ts":
        both = sorted(path.parent.glob("*.ts"))
        rows = np.concatenate([_parse_ts(p) for p in both])
        rows = rows[:, 0] if rows.shape[1] == 1 else rows
    else:
        rows = np.asarray(read(spec["name"]).X)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    held = min(MOST_TEST_ROWS, round(len(rows) * TEST_SHARE))
    train = order[held:][: spec["rows"] or None]
    return rows[train], rows[order[:held]]


def start(spec: dict[str, Any], rows: Array, test: Array, variant: Variant, seed: int) -> Any:
    """The candidate's model at step 0, its rows, and the test rows."""
    hidden = variant.hidden
    estimator = narrows.Autoencoder(
        latent_dim=spec["latent"],
        architecture=spec["network"],
        axes=spec["axes"] or None,
        hidden_layer_sizes=hidden if hidden == "auto" else tuple(map(int, hidden.split(":"))),
        linear_path="auto" if variant.path != "none" else False,
        random_state=seed,
        device="cpu",
    )
    training = estimator._setup(estimator._validate_fit(rows, None, None, None), Group())
    held = estimator._validate_fit(test, None, None, training.start).rows
    change_model(training.start.model, variant, seed)
    return training, Rows(as_tensor(held), training.start.scaling), training.start.config


@torch.no_grad()
def error(model: Any, rows: Rows) -> float:
    """Mean squared error per element, in scaled units."""
    total = 0.0
    for x in rows.in_order(inference_batch(rows.shape)):
        total += float((model.decode(model.encode(x)) - x).double().square().sum())
    return total / (len(rows) * math.prod(rows.shape))


class Loop:
    """The candidate's steps."""

    def __init__(self, training: Training[Any], variant: Variant, epochs: int, seed: int) -> None:
        self.training, self.variant, self.epochs = training, variant, epochs
        self.model = training.start.model
        self.optimizers = optimizers(self.model, variant)
        self.average = Average(self.model, variant.average) if variant.average else None
        self.order = torch.Generator().manual_seed(seed)
        self.step_count = 0

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, float]]:
        """Every row once, with the progress at the middle of each batch."""
        rows, n, at = self.training.rows, len(self.training.rows), 0
        permutation = torch.randperm(n, generator=self.order)
        while at < n:
            asked = self.variant.batch(n, (epoch + at / n) / self.epochs)
            size = math.ceil((n - at) / math.ceil((n - at) / asked))
            middle = (epoch + (at + size / 2) / n) / self.epochs
            yield rows.scaled(permutation[at : at + size]), middle
            at += size

    def step(self, x: Tensor, progress: float) -> None:
        """One step, as the library takes it."""
        v, model = self.variant, self.model
        rate = v.learning_rate * v.rate(self.step_count, progress)
        rate *= (len(x) / USUAL_BATCH) ** v.batch_power
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["times"]
            optimizer.zero_grad(set_to_none=True)
        if v.path == "fading":
            fade(model, progress)
        clock = Clock(self.step_count, progress, len(self.training.rows))
        trace = model(x, clock, self.training.state.rng)
        loss = self.training.start.objective(model, trace)["model"]
        loss.backward()
        if v.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), v.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.see()
        self.step_count += 1

    def errors(self, test: Rows) -> tuple[float, float]:
        """On validation and on test rows."""
        if self.average is not None:
            self.average.swap()
        found = error(self.model, self.training.validation), error(self.model, test)
        if self.average is not None:
            self.average.swap()
        return found


def measure(spec: dict[str, Any], candidate: str, seed: int, rows: Array, test: Array) -> None:
    """Train once and append the row."""
    variant = Variant.parse(candidate)
    began = time.monotonic()
    training, held, choices = start(spec, rows, test, variant, seed)
    loop = Loop(training, variant, spec["epochs"], seed)
    curve = [loop.errors(held)]
    trained = 0.0
    for epoch in range(spec["epochs"]):
        mark = time.monotonic()
        for x, progress in loop.batches(epoch):
            loop.step(x, progress)
        trained += time.monotonic() - mark
        if (epoch + 1) % max(1, spec["epochs"] // 20) == 0:
            curve.append(loop.errors(held))
    best = min(curve, key=lambda pair: pair[0] if math.isfinite(pair[0]) else math.inf)
    row = {
        "data": label(spec),
        "network": choices.architecture,
        "latent_dim": choices.latent_dim,
        "n_rows": len(training.rows),
        "epochs": spec["epochs"],
        "seed": seed,
        "candidate": candidate,
        "validation": best[0],
        "test": best[1],
        "test_at_end": curve[-1][1],
        "pca_start_test": curve[0][1],
        "steps": loop.step_count,
        "ms_per_step": round(1000 * trained / max(1, loop.step_count), 3),
        "seconds": round(time.monotonic() - began, 1),
        "torch": torch.__version__,
        "narrows": narrows.__version__,
    }
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def label(spec: dict[str, Any]) -> str:
    """A short name of one data set with its settings."""
    parts = [Path(spec["name"]).stem.removesuffix("_TRAIN"), f"k={spec['latent']}"]
    parts += [spec["network"]] if spec["network"] != "auto" else []
    parts += [f"n={spec['rows']}"] if spec["rows"] else []
    return " ".join([*parts, f"{spec['epochs']}ep"])


def rows_so_far() -> list[dict[str, Any]]:
    """All rows written."""
    if not RESULTS.exists():
        return []
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [row for row in found if "test" in row]


def _cell(logs: list[float]) -> str:
    return f"{math.exp(sum(logs) / len(logs)):.3f} ({len(logs)})" if logs else ""


def table(candidates: list[str], labels: list[str]) -> str:
    """Ratio to the default on the same data and seed: geometric means over seeds and data."""
    errors: dict[tuple[str, str, int], float] = {
        (r["candidate"], r["data"], r["seed"]): r["test"] for r in rows_so_far()
    }
    data = sorted({d for _, d, _ in errors if not labels or d in labels})
    lines = ["| candidate | " + " | ".join(data) + " | all |", "|---" * (len(data) + 2) + "|"]
    scored = []
    for candidate in candidates or sorted({c for c, _, _ in errors}):
        logs: dict[str, list[float]] = {}
        for (c, d, s), value in errors.items():
            base = errors.get(("default", d, s))
            if c == candidate and d in data and base:
                ratio = value / base if math.isfinite(value) else math.inf
                logs.setdefault(d, []).append(math.log(max(ratio, ROUNDING)))
        means = {d: sum(v) / len(v) for d, v in logs.items()}
        if means:
            overall = math.exp(sum(means.values()) / len(means))
            cells = [
                f"{math.exp(means[d]):.3f} ({len(logs[d])})" if d in means else "" for d in data
            ]
            scored.append((overall, f"| {candidate} | {' | '.join(cells)} | **{overall:.3f}** |"))
    return "\n".join(lines + [line for _, line in sorted(scored)])


def measure_cost(spec: dict[str, Any], candidates: list[str], rounds: int, steps: int) -> None:
    """The cost of a row in training, as a ratio to the default's: medians, interleaved."""
    rows, test = load(spec)
    loops = {}
    for candidate in dict.fromkeys(["default", *candidates]):
        variant = Variant.parse(candidate)
        training, _, _ = start(spec, rows, test, variant, 0)
        loops[candidate] = Loop(training, variant, 1000, 0)
    spent: dict[str, list[float]] = {name: [] for name in loops}
    feeds = {name: loop.batches(0) for name, loop in loops.items()}
    for _ in range(rounds):
        for name, loop in loops.items():
            seen, mark = 0, time.monotonic()
            for _ in range(steps):
                item = next(feeds[name], None)
                if item is None:
                    feeds[name] = loop.batches(0)
                    item = next(feeds[name])
                loop.step(*item)
                seen += len(item[0])
            spent[name].append((time.monotonic() - mark) / seen)
    base = float(np.median(spent["default"][1:]))
    for name, times in spent.items():
        cost = float(np.median(times[1:]))
        row = {"cost_of": name, "data": label(spec), "ratio": round(cost / base, 3)}
        row["us_per_row"] = round(1e6 * cost, 2)
        print(json.dumps(row), flush=True)
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", nargs="*", default=[])
    parser.add_argument("--data", nargs="*", default=["digits,latent=8,epochs=20"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--time", action="store_true", help="measure the cost of a step instead")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(exist_ok=True)
    if options.table:
        print(table(options.candidates, []))
        return
    specs = [parse_data(text) for text in options.data]
    done = {(r["candidate"], r["data"], r["seed"]) for r in rows_so_far()}
    for spec in specs:
        if options.time:
            measure_cost(spec, options.candidates, options.rounds, options.steps)
            continue
        rows, test = load(spec)
        for seed in options.seeds:
            for candidate in dict.fromkeys(["default", *options.candidates]):
                if (candidate, label(spec), seed) not in done:
                    measure(spec, candidate, seed, rows, test)
    if not options.time:
        print(table(options.candidates, [label(spec) for spec in specs]))


if __name__ == "__main__":
    main()
