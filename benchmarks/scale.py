"""More rows than memory: speed and memory of training from a file, compared with rows in memory.

    python benchmarks/scale.py --gb 12 --seconds 120
    python benchmarks/scale.py --gb 0.05 --seconds 3 --part 5000     # a test that it runs

Writes a float32 .npy file of noisy Fashion-MNIST-like rows, block by block. Then, each in a process
of its own: training from the file (``in_memory=False``), on a part of the same rows in memory, and
on that part with two worker processes (``n_devices=2``). While each runs, its anonymous memory is
read from /proc: cached pages of the file are not counted, because the system can free them at any
time. Linux only. Lines go to ``results/scale.jsonl``, the table to ``results/scale.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from records import HERE, Book, Row, footnote, groups, median, show, table

SIDE, FLOAT, FEW = 28, 4, 2000
EVERY = 0.05  # seconds between two readings of the memory
WISHES: dict[str, dict[str, Any]] = {  # an array in memory stays there by default
    "memory": {},
    "file": {"in_memory": False},
    "two": {"n_devices": 2},
}


def write_rows(path: Path, gigabytes: float, seed: int, block: int = 20_000) -> int:
    """Random training images, each with its own noise; a file of the right size is kept."""
    n = max(FEW + 1000, int(gigabytes * 1e9 / (SIDE * SIDE * FLOAT)))
    if path.exists() and np.load(path, mmap_mode="r").shape == (n, SIDE, SIDE):
        return n
    from narrows.io.read import read

    pictures = read("fashion-mnist").X
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, SIDE, SIDE))
    for start in range(0, n, block):
        size = min(block, n - start)
        part = pictures[rng.integers(0, len(pictures), size)].astype(np.float32) / 255
        part += 0.05 * rng.standard_normal(part.shape, dtype=np.float32)
        rows[start : start + size] = part
    rows.flush()
    return n


def fit(options: argparse.Namespace) -> Row:
    """In the child: one fit, and rows a second of its loop."""
    from importlib.metadata import version

    from contenders.own import first_use
    from narrows import Autoencoder

    first_use()  # imports everything: the seconds are for training
    rows = np.load(options.file, mmap_mode="r")
    if options.child != "file":
        rows = np.array(rows[: options.part + FEW])  # a copy in memory
    held, train = np.array(rows[:FEW]), rows[FEW:]
    wishes = WISHES[options.child]
    started = time.monotonic()
    model = Autoencoder(
        architecture="dense",
        latent_dim=32,
        batch_size=options.batch,
        **wishes,
        early_stopping=False,
        max_epochs=1_000_000,
        max_time=options.seconds,
        random_state=options.seed,
    ).fit(train, X_val=held)
    last = model.history_[-1]
    return {
        "rows": len(train),
        "fit_seconds": time.monotonic() - started,
        "loop_seconds": last["seconds"],
        "rows_per_s": last["step"] * options.batch / last["seconds"],
        "passes": last["step"] * options.batch / len(train),
        "validation_error": model.validation_errors_["validation_error"],
        "versions": {name: version(name) for name in ("narrows", "torch")},
    }


def _family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # it has ended
        return
    for child in text.split():
        yield from _family(int(child))


def anonymous(pid: int) -> int:
    """Anonymous bytes of a process and its children; shared memory is counted once."""
    private, shared = 0, 0
    for member in _family(pid):
        try:
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
        except OSError:
            continue
        found = {x.partition(":")[0]: x.split()[1] for x in lines if x.startswith("Rss")}
        private += int(found.get("RssAnon", 0))
        shared = max(shared, int(found.get("RssShmem", 0)))
    return 1024 * (private + shared)


def watched(kind: str, options: argparse.Namespace) -> Row:
    """In the parent: run one child and measure its memory."""
    command = [sys.executable, str(HERE / "scale.py"), "--child", kind]
    for key in ("file", "seconds", "part", "seed", "batch"):
        command += [f"--{key}", str(getattr(options, key))]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(EVERY)
        out.seek(0)
        errors.seek(0)
        lines, trouble = out.read().splitlines(), errors.read().strip().splitlines()
    if process.returncode or not lines:
        return {"failed": (trouble or ["no answer"])[-1][:300]}
    return {**json.loads(lines[-1]), "peak_anonymous_mib": peak / 2**20}


def missing(kind: str) -> str | None:
    """A parameter that is needed and that this version of narrows does not have, or None."""
    from dataclasses import fields

    from narrows import Autoencoder

    known = {item.name for item in fields(Autoencoder)}
    return next((name for name in WISHES[kind] if name not in known), None)


def write(book: Book) -> None:
    """Medians over the seeds."""
    rows = book.rows("kind", "gb", "seconds", "part", "batch")
    words = {"file": "from the file", "memory": "in memory", "two": "in memory, two processes"}
    lines = []
    for (gb, seconds, _, batch), setting in groups(rows, "gb", "seconds", "part", "batch").items():
        base = median([r for r in setting if r["kind"] == "memory"], "rows_per_s")
        for (kind,), mine in groups(setting, "kind").items():
            speed = median(mine, "rows_per_s")
            lines.append(
                [
                    *(words[kind], f"{gb:g}", f"{mine[0]['rows']:,}", str(batch), f"{seconds:g}"),
                    show(speed, ",.0f"),
                    show(speed / base if speed and base else None, ".2f"),
                    show(median(mine, "passes"), ".2f"),
                    show(median(mine, "fit_seconds"), ".1f"),
                    show(median(mine, "peak_anonymous_mib"), ",.0f"),
                ]
            )
    head = "rows|file, GB|how many|batch|seconds given|rows/s in training|to memory|passes"
    head += "|fit s|peak anonymous MiB"
    count = len({row["seed"] for row in rows})
    of_seeds = "A single seed." if count == 1 else f"Medians over up to {count} seeds."
    text = f"# More rows than memory\n\n{of_seeds}\n\n"
    book.write(text + table(head.split("|"), lines) + footnote(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gb", type=float, default=12.0, help="size of the file")
    default = Path(tempfile.gettempdir()) / "narrows-benchmarks" / "rows.npy"
    add("--file", type=Path, default=default, help="where it is written; it stays there")
    add("--seconds", type=float, default=120.0, help="max_time of each fit")
    add("--part", type=int, default=200_000, help="rows of the fits in memory")
    add("--batch", type=int, default=128)
    add("--seed", type=int, default=0)
    add("--kinds", nargs="+", choices=["file", "memory", "two"], default=["memory", "file", "two"])
    add("--out", type=Path, default=HERE / "results")
    add("--child", choices=["file", "memory", "two"], help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.child:
        sys.stdout.write(json.dumps(fit(options)) + "\n")
        return
    if not Path("/proc/self").is_dir():
        sys.exit("scale.py reads memory from /proc, which only Linux has.")
    started = time.monotonic()
    n = write_rows(options.file, options.gb, options.seed)
    print(f"{options.file}: {n:,} rows, {time.monotonic() - started:.0f} s", flush=True)
    book = Book("scale", options.out)
    for kind in options.kinds:
        lacks = missing(kind)
        row = {"failed": f"narrows has no {lacks}"} if lacks else watched(kind, options)
        facts = {k: getattr(options, k) for k in ("gb", "seconds", "part", "batch", "seed")}
        book.add({"kind": kind, **facts, **row})
    write(book)


if __name__ == "__main__":
    main()
