"""Test error after equal seconds, everything counted, relative to PCA's.

Every run is a fresh process that has imported the library's top level and read the rows. The
seconds begin before the library gets them: converting and scaling rows, later imports, compilers,
PCA and checks on validation rows all count. A tenth of the rows is held out, the same for every
contender, and only these choose the weights that are measured on the test rows (narrows is given
them as ``X_val``; for the others the script checks them after epochs, in at most a twentieth of the
time). Layers are the same: two, of 64 to 512 units and of half as many
(narrows' own default has three where the code is narrow or the input small).

The error is the mean square over all elements of the test rows, divided by PCA's with as many
numbers in the code: 1 is PCA. `good` is a careful hand-written loop (rows in memory, fused AdamW at
0.002, warm-up and linear decay, GELU, bfloat16) with batches of 128, `good-512` the same with
batches of 512 at 0.004; "best good" is the better of the two on that set, by its median. `plain` is
a loop with a DataLoader and Adam at 0.001. In brackets are the lowest and the highest of the seeds.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

from contenders import ENTRIES
from records import Book, Row, footnote, groups, median, peer, seeds, show, spread, table
from suite import SETS, located

GOOD = ("good", "good-512")
NAMES = ("narrows", *GOOD, "keras-jax", "sklearn", "pyod", "pythae", "plain")
KEYS = ("set", "network", "latent", "rows", "seconds_given", "threads", "device")
HELD = 0.1


def measure(options: Any, book: Book) -> None:
    """What is not measured yet, ``--jobs`` processes at a time, each with its own cores."""
    available = sorted(os.sched_getaffinity(0))
    threads = options.threads or len(available) // options.jobs
    if options.jobs * threads > len(available):
        raise SystemExit(f"--jobs {options.jobs} --threads {threads}: {len(available)} cores only")
    free: SimpleQueue[list[int]] = SimpleQueue()
    for job in range(options.jobs):
        free.put(available[job * threads : (job + 1) * threads])
    done = {_key(row) for row in _measured(book)}
    todo = [task for task in _tasks(options, threads) if _key(task) not in done]
    print(f"{len(todo)} runs to do, {len(done)} done before", flush=True)
    pool = ThreadPoolExecutor(options.jobs)
    try:
        for future in as_completed([pool.submit(_run, task, options, free) for task in todo]):
            book.add(future.result())
    finally:
        pool.shutdown(
            cancel_futures=True
        )  # Ctrl-C ends the runs that have begun, and no others begin


def _tasks(options: Any, threads: int) -> Iterator[Row]:
    """A round is a seed, in which all contenders meet a set and a time one after another."""
    names = [n for n in options.names or NAMES if options.device == "cpu" or ENTRIES[n].on_gpu]
    for seed in options.seeds:
        for name in options.sets:
            for network in options.networks or ["dense"]:
                if network == "conv" and SETS[name].kind != "images":
                    continue
                common = {"set": name, "network": network, "latent": SETS[name].latent}
                common |= {"rows": options.rows, "seed": seed, "threads": threads}
                if options.device != "cpu":
                    common["device"] = options.device
                yield {**common, "name": "pca", "seconds_given": None}
                for seconds in options.seconds:
                    for contender in names:
                        if network in ENTRIES[contender].networks and contender != "pca":
                            yield {**common, "name": contender, "seconds_given": seconds}


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in (*KEYS, "name", "seed"))


def _measured(book: Book) -> list[Row]:
    return [row for row in book.rows(*KEYS, "name", "seed") if "set" in row]


def _run(task: Row, options: Any, free: SimpleQueue[list[int]]) -> Row:
    member, cores = SETS[task["set"]], free.get()
    wishes = {"network": task["network"], "latent": task["latent"], "seed": task["seed"]}
    wishes |= {"rows": task["rows"], "scale": member.scale, "held": HELD, "whole": True}
    limit = {"seconds": task["seconds_given"]} if task["name"] != "pca" else {"epochs": 1}
    device = None if task["name"] == "pca" else task.get("device")
    try:
        wishes["data"] = located(member.data, options.folder)
        return {**peer(task["name"], cores, **wishes, **limit, device=device), **task}
    except FileNotFoundError as error:
        return {**task, "failed": str(error)}
    finally:
        free.put(cores)


def write(book: Book) -> None:
    """A summary, then for each number of seconds a table with a line a set."""
    rows = _measured(book)
    pca = {_round(row): row for row in rows if row["name"] == "pca"}
    runs = [row for row in rows if row["name"] != "pca" and _round(row) in pca]
    runs = [{**row, "relative": row["mse"] / pca[_round(row)]["mse"]} for row in runs]
    names = [n for n in ENTRIES if any(row["name"] == n for row in runs)]
    summary, pages = [], []
    conditions = groups(runs, "device", "threads", "seconds_given").items()
    for (device, threads, seconds), mine in sorted(
        conditions, key=lambda x: (str(x[0][0]), *x[0][1:])
    ):
        where = (
            f"{seconds:g} s, {threads} thread{'s' * (threads > 1)}{f', {device}' * bool(device)}"
        )
        sets = groups(mine, "set", "network", "rows")
        ratios = {key: _to_best_good(setting) for key, setting in sets.items()}
        lines = [_line(setting, ratios[key], names, pca) for key, setting in sets.items()]
        lines.append(_means(sets, ratios, names))
        summary.append([where, *_summary(ratios)])
        head = ["set, network", "kind", "seeds", *names, "narrows ÷ best good"]
        pages.append(f"## {where}\n\n" + table([*head, "PCA's error", "PCA's ms"], lines))
    text = "\n\n".join(" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:])
    head = "seconds, threads|sets|seeds|narrows ÷ best good, geometric mean|highest|sets at most 1"
    book.write(
        f"# Test error after equal seconds\n\n{text}\n\n{table(head.split('|'), summary)}\n"
        + "\n".join(pages)
        + footnote(rows)
    )


def _line(
    setting: list[Row], ratios: dict[int, float], names: list[str], pca: dict[Any, Row]
) -> list[str]:
    first, by_name = setting[0], groups(setting, "name")
    base = [pca[_round(row)] for row in setting]
    rows = "" if first["rows"] is None else f" ({first['rows']} rows)"
    return [
        f"{first['set']}{rows}, {first['network']} {first['latent']}",
        SETS[first["set"]].kind,
        seeds(max(map(len, by_name.values()))),
        *(spread([row["relative"] for row in by_name.get((name,), [])]) for name in names),
        spread(list(ratios.values())),
        show(median(base, "mse"), ".3g"),
        show(1e3 * (median(base, "seconds") or 0), ".0f"),
    ]


def _round(row: Row) -> tuple[Any, ...]:
    """What runs that are compared have in common, but for the seconds."""
    return tuple(row.get(k) for k in ("set", "network", "latent", "rows", "seed"))


def _to_best_good(setting: list[Row]) -> dict[int, float]:
    """By seed: narrows' error divided by that of the better good loop."""
    by_name = {name: rows for (name,), rows in groups(setting, "name").items()}
    loops = [by_name[name] for name in GOOD if name in by_name]
    if not loops or "narrows" not in by_name:
        return {}
    best = min(loops, key=lambda rows: median(rows, "relative") or 0.0)
    base = {row["seed"]: row["mse"] for row in best}
    return {r["seed"]: r["mse"] / base[r["seed"]] for r in by_name["narrows"] if r["seed"] in base}


def _by_seed(values: list[dict[int, float]]) -> list[float]:
    """The geometric mean over the sets for each seed that all sets have."""
    common = set.intersection(*map(set, values)) if values else set()
    return [statistics.geometric_mean([v[seed] for v in values]) for seed in sorted(common)]


def _means(
    sets: dict[Any, list[Row]], ratios: dict[Any, dict[int, float]], names: list[str]
) -> list[str]:
    """The last line: geometric means over the sets that a contender has been measured on."""
    cells = []
    for name in names:
        found = [
            {r["seed"]: r["relative"] for r in rows if r["name"] == name} for rows in sets.values()
        ]
        found = [by_seed for by_seed in found if by_seed]
        cells.append(spread(_by_seed(found)) + f" of {len(found)} sets" * (len(found) < len(sets)))
    last = spread(_by_seed([v for v in ratios.values() if v]))
    return ["geometric mean", "", "", *cells, last, "", ""]


def _summary(ratios: dict[Any, dict[int, float]]) -> list[str]:
    found = [v for v in ratios.values() if v]
    middles = [statistics.median(v.values()) for v in found]
    count = min(map(len, found), default=0)
    won = sum(m <= 1 for m in middles)
    highest = show(max(middles, default=None), ".3f")
    return [
        str(len(found)),
        seeds(count),
        spread(_by_seed(found)),
        highest,
        f"{won} of {len(found)}",
    ]
