"""One contender, one training, one process: time, memory and reconstruction error.

    python benchmarks/peers.py plain --network dense --epochs 2 --seed 0 --latent 32 --json

All build the same network: dense 784-512-256-k-256-512-784 with ReLU, or conv 1-32-64 (3 by 3,
stride 2), linear to k and back, transposed conv 64-32-1; batches of 128, Adam at 1e-3, each library
with its own initial weights. ``narrows`` is the exception: its own defaults.

``seconds`` is the time of training on ready data; for narrows, of its whole ``fit``.
``loop_seconds`` is the same for the others; for narrows, the time of its loop. ``samples_per_s``
uses ``loop_seconds``, ``samples_per_s_later`` the median epoch after the first, when compilers and
caches are warm. Errors are mean squares of ready rows.

With ``--whole`` everything after the imports of the library's top level counts, its own later
imports, compilers and the conversion of the rows included, and the best weights are chosen on the
rows held out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

import contenders
from contenders.common import Contender, Monitor, Task, squared_error

HIDDEN = ("json", "device")  # options that a row does not repeat; a device is named below


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(contenders.ENTRIES))
    parser.add_argument("--network", choices=contenders.NETWORKS, default="dense")
    parser.add_argument("--latent", type=int, default=32)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--epochs", type=int, default=None, help="default: 2, without --seconds")
    limit.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="fashion-mnist", help="a name, a file, synthetic:ROWS")
    parser.add_argument("--rows", type=int, default=None, help="largest number of training rows")
    parser.add_argument("--held", type=float, default=0.0, help="share of them to hold out")
    parser.add_argument("--scale", choices=("range", "column", "shared"), default="range")
    parser.add_argument("--whole", action="store_true", help="count everything, choose the best")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--hidden", type=int, nargs="+", default=None, help="dense widths")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a sentence")
    options = parser.parse_args(argv)
    if options.network not in contenders.ENTRIES[options.name].networks:
        parser.error(f"{options.name} has no {options.network} network")
    if options.device != "cpu" and not contenders.ENTRIES[options.name].on_gpu:
        parser.error(f"{options.name} is compared on the CPU only")
    if options.seconds is None and options.epochs is None:
        options.epochs = 2
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Import, read, train, measure."""
    started = time.perf_counter()
    kind: type[Contender] = contenders.find(options.name, used=not options.whole)
    import_seconds = time.perf_counter() - started
    from sets import load  # after the library, whose import is timed

    wanted = {"rows": options.rows, "held": options.held, "seed": options.seed}
    rows = load(options.data, **wanted, scale=options.scale)
    task = Task(
        network=options.network,
        shape=rows.shape,
        latent=options.latent,
        seed=options.seed,
        epochs=options.epochs,
        seconds=options.seconds,
        hidden=None if options.hidden is None else tuple(options.hidden),
        bounded=rows.bounded,
        device=options.device,
    )
    watch = Monitor(task.seconds, rows.held if options.whole else None, options.whole)
    watch.start()
    contender = watch.contender = kind(task, rows.train)
    if not options.whole:
        watch.start()
    contender.train(watch)
    watch.finish()
    held = squared_error(contender, rows.held) if len(rows.held.given) else None
    return {
        **{k: v for k, v in vars(options).items() if k not in HIDDEN},
        **_speed(watch, task, len(rows.train.given)),
        **_on_gpu(options.device),
        "mse": squared_error(contender, rows.test),
        "mse_held": held,
        "import_seconds": import_seconds,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": {d: version(d) for d in contenders.ENTRIES[options.name].distributions},
    }


def _speed(watch: Monitor, task: Task, n_rows: int) -> dict[str, Any]:
    loop = watch.facts.get("loop_seconds", watch.seconds)
    n_rows = n_rows if watch.rows is None else watch.rows
    later = watch.epoch_seconds[1:]
    whole = task.seconds is None  # else the last epoch is a part of one, and not counted
    return {
        "trained_rows": n_rows,
        "epochs_done": len(watch.marks),
        "seconds": watch.facts.get("fit_seconds", watch.seconds),
        "loop_seconds": loop,
        "samples_per_s": n_rows * len(watch.marks) / loop if whole else None,
        "samples_per_s_later": n_rows / statistics.median(later) if whole and later else None,
        "epoch_seconds": [round(s, 4) for s in watch.epoch_seconds[:100]],
        **watch.facts,
    }


def _on_gpu(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {}
    import torch

    used = torch.cuda.max_memory_allocated() / 2**20
    return {"device_name": torch.cuda.get_device_name(), "peak_gpu_mib": used}


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    result = run(options)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    speed = result["samples_per_s"]
    print(
        f"{options.name} {options.network}: {result['seconds']:.2f} s"
        + (f", {speed:,.0f} rows/s" if speed else "")
        + f", test error {result['mse']:.5f}, peak {result['peak_rss_mib']:.0f} MiB"
    )


if __name__ == "__main__":
    main()
