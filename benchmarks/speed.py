"""The speed of narrows, of a hand-written PyTorch loop and of other libraries.

    python benchmarks/speed.py --section steps                 # rows per second, every contender
    python benchmarks/speed.py --section quality --data fashion-mnist digits
    python benchmarks/speed.py --section equal --jobs 2 --threads 1   # error after equal seconds
    python benchmarks/speed.py --section inference             # and eager torch, ONNX Runtime
    python benchmarks/speed.py --section limit                 # share of the machine's limit
    python benchmarks/speed.py --section growth [--ten-million]

Every section appends JSON lines to ``results/SECTION.jsonl`` and writes ``results/SECTION.md`` from
them. ``equal`` leaves out what its file already holds, so that it can be interrupted and continued.
With ``--device cuda`` the contenders that can use a GPU run on it. ``--quick`` only tests that all
runs; its figures mean nothing and go to a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path
from typing import Any

from contenders import ENTRIES, NETWORKS
from records import HERE, Book
from suite import SETS, SUITE

SECTIONS = ("steps", "quality", "equal", "inference", "limit", "growth")
THREE_SEEDS = ("steps", "quality", "equal")
EPOCHS = {"steps": 3, "quality": 10, "limit": 3}
QUICK: dict[str, Any] = {
    "seeds": [0],
    "rows": 512,
    "epochs": 2,
    "seconds": [1.0],
    "sets": ["chirp", "digits", "onehot"],
    "budgets": [0.5, 1, 2],
    "batch_sizes": [100, 1],
    "repeats": 2,
    "fit_rows": 300,
    "size": 256,
    "sizes": [1000],
    "widths": [64],
    "width_rows": 500,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--section", nargs="+", choices=SECTIONS, default=["steps"])
    add("--quick", action="store_true", help="a test that all runs, on few rows")
    add("--table", action="store_true", help="only write the tables again, without measuring")
    add("--out", type=Path, default=None, help="folder for results")
    add("--names", nargs="+", choices=list(ENTRIES), default=None, help="steps, equal")
    add(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=None,
        help="default: dense conv; equal: dense",
    )
    add("--seeds", nargs="+", type=int, default=None, help="default: 0; three for most sections")
    add("--data", nargs="+", default=["fashion-mnist", "digits"], help="quality; steps: the first")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="steps, quality, equal")
    add("--rows", type=int, default=None, help="largest number of training rows")
    add("--epochs", type=int, default=None, help="default: 3; quality: 10, of the plain loop")
    add("--budgets", nargs="+", type=float, default=[0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20])
    add("--seconds", nargs="+", type=float, default=[5.0, 20.0, 60.0], help="equal")
    add("--sets", nargs="+", choices=list(SETS), default=list(SUITE), help="equal")
    add("--folder", type=Path, default=Path(), help="equal: of ADBench's files")
    add("--jobs", type=int, default=1, help="equal: processes at a time, each with its own cores")
    add(
        "--threads",
        type=int,
        default=None,
        help="equal: cores of each process; default: all / jobs",
    )
    add("--batch-sizes", nargs="+", type=int, default=[10_000, 1], help="inference")
    add("--repeats", type=int, default=15, help="inference, limit")
    add("--fit-rows", type=int, default=6000, help="inference")
    add("--size", type=int, default=4096, help="limit: side of the square product")
    add("--sizes", nargs="+", type=int, default=[10**i for i in range(3, 7)], help="growth")
    add("--widths", nargs="+", type=int, default=[64, 256, 1024, 2048, 4096], help="growth")
    add("--width-rows", type=int, default=10_000, help="growth")
    add("--ten-million", action="store_true", help="growth: also ten million rows")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    elif options.ten_million:
        options.sizes.append(10**7)
    return options


def main() -> None:
    options = arguments()
    quick = Path(tempfile.gettempdir()) / "narrows-benchmarks-quick"
    folder = options.out or (quick if options.quick else HERE / "results")
    for name in options.section:
        section = importlib.import_module(f"sections.{name}")
        wishes = argparse.Namespace(**vars(options))
        wishes.epochs = options.epochs or EPOCHS.get(name, 1)
        wishes.seeds = options.seeds or ([0, 1, 2] if name in THREE_SEEDS else [0])
        book = Book(name, folder)
        if not options.table:
            section.measure(wishes, book)
        book.write_each(section.write)
        print(f"wrote {book.page}", flush=True)


if __name__ == "__main__":
    main()
