"""Static binarised MNIST: log p(x) of test images by every model, its paper, and Pythae.

    python benchmarks/likelihood.py --data FOLDER --section families --seconds 60
    python benchmarks/likelihood.py --data FOLDER --section long --minutes 30
    python benchmarks/likelihood.py --section table

FOLDER holds the three files of the usual split (50,000, 10,000 and 10,000 rows of 784 zeros and
ones: ``binarized_mnist_{train,valid,test}``, as .amat, .npy or Matlab's). The figures are minus the
log-likelihood in nats, estimated by importance sampling with the model's own posterior; on average
the estimate is too high, never too low. In ``families`` every model trains for the same time, in a
process of its own, on the training split only, and is measured on the same random test rows (those
of the file are sorted by class); in ``long`` one model trains on training and validation rows
together. Test rows choose nothing. Pythae's models have dense networks of the same widths and its
own trainer; its estimator's formula is computed here in batches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from records import HERE, Book, machine

HIDDEN = (500, 500)
LATENT = 40
SPLITS = ("train", "valid", "test")
PUBLISHED = (
    'Published figures are for static binarisation unless "dynamic" is said. Read in the code of '
    "1705.07120 and in Pythae's scripts: the 50,000 training rows alone, no augmentation, the "
    "validation rows held out, all 10,000 test rows (Pythae: 5,000 samples, its VAE 200). Which "
    "training rows and augmentations, and how many test rows and samples, the other papers used is "
    "not stated here. Ours at equal time use the training rows alone and no augmentation."
)

# name → (class, parameters, the figure in the paper and its arXiv number)
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "VAE": ("VariationalAutoencoder", {}, "89.9 (1505.05770)"),
    "IWAE, 5 draws": ("IWAE", {"n_importance": 5}, "87.1, 50 draws (1509.00519)"),
    "MIWAE": ("MIWAE", {}, "84.97, dynamic (1802.04537)"),
    "PIWAE": ("PIWAE", {}, "84.46, dynamic (1802.04537)"),
    "CIWAE": ("CIWAE", {}, "84.57, dynamic (1802.04537)"),
    "VAMP": ("VampVAE", {"n_inputs": 500}, "85.57 (1705.07120)"),
    "IAF flow": ("FlowVAE", {"flow": "iaf"}, "79.88, large conv, dynamic (1606.04934)"),
    "planar flow": ("FlowVAE", {"flow": "planar"}, "85.1, 80 flows (1505.05770)"),
    "Hamiltonian": ("HamiltonianVAE", {}, "86.40 (1410.6460)"),
    "sphere": ("SphericalVAE", {}, "93.16, dynamic (1804.00891)"),
    "Poincaré": ("PoincareVAE", {}, "101.47 (1901.06033)"),
    "Gumbel": ("GumbelVAE", {"latent_dim": 200, "n_categories": 10}, "–"),
    "ladder, two levels": ("LadderVAE", {"latent_dim": 60},
                           "83.19 (1705.07120, two levels)"),
}  # fmt: skip


def read_split(folder: Path, name: str) -> NDArray[np.uint8]:
    """One split as zeros and ones, (n, 784)."""
    path = next(folder.glob(f"*{name}*"), None)
    if path is None:
        raise SystemExit(f"{folder} holds no file for the split {name!r}.")
    if path.suffix == ".npy":
        return np.load(path).astype(np.uint8)
    head = path.read_bytes()[:6]
    if head == b"MATLAB":
        from scipy.io import loadmat

        found = loadmat(path)
        X = next(v for k, v in found.items() if not k.startswith("__"))
    else:
        X = np.loadtxt(path)
    return (np.asarray(X) > 0.5).astype(np.uint8)


def estimate(model: Any, X: NDArray[np.uint8], n_samples: int, seed: int = 0) -> dict[str, float]:
    """Minus the mean log-likelihood, its standard error over rows, and the seconds it took."""
    started = time.perf_counter()
    nats = -model.log_likelihood(X, n_samples=n_samples, random_state=seed)
    return {
        "nats": float(nats.mean()),
        "error": float(nats.std() / len(nats) ** 0.5),
        "rows": len(X),
        "n_samples": n_samples,
        "estimate_seconds": time.perf_counter() - started,
    }


def one(options: argparse.Namespace) -> None:
    """Train and measure one contender; a line of JSON."""
    import narrows

    folder = Path(options.data)
    X, test = read_split(folder, "train"), read_split(folder, "test")
    rows = np.random.default_rng(0).permutation(len(test))[: options.rows]
    if options.one.startswith("Pythae "):
        from contenders.likelihood_pythae import train_and_estimate

        found = train_and_estimate(options, X, read_split(folder, "valid"), test[rows])
    else:
        kind, parameters, _ = FAMILIES[options.one]
        wanted = {"latent_dim": LATENT, "hidden_layer_sizes": HIDDEN, **parameters}
        model = getattr(narrows, kind)(
            **wanted,
            max_time=options.seconds,
            max_epochs=100_000,
            batch_size=256,
            learning_rate=2e-3,
            random_state=options.seed,
        )
        model.fit(X, X_val=read_split(folder, "valid")[:2000])
        found = {
            "seconds": model.fit_seconds_,
            "epochs": model.n_iter_,
            "parameters": model.n_parameters_,
            "precision": model.choices_.precision,
            **estimate(model, test[rows], options.samples),
        }
    print(json.dumps(found))


def families(options: argparse.Namespace, book: Book) -> None:
    """All models, and Pythae's, one after another, each in a process of its own."""
    names = options.names or [*FAMILIES, *(f"Pythae {n}" for n in ("VAE", "IWAE", "VAMP"))]
    for name in names:
        words = [sys.executable, __file__, "--data", options.data, "--one", name]
        for key in ("seconds", "rows", "samples", "seed"):
            words += [f"--{key}", str(getattr(options, key))]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{name}: {done.stderr[-500:]}", file=sys.stderr)
            continue
        book.add({"name": name, "seed": options.seed, **json.loads(done.stdout.splitlines()[-1])})


def long(options: argparse.Namespace, book: Book) -> None:
    """The best of the family for the time given, on all rows but the test's."""
    import narrows

    folder = Path(options.data)
    train, valid, test = (read_split(folder, name) for name in SPLITS)
    X = train if options.train_only else np.concatenate([train, valid])
    log = narrows.JsonLines(options.log) if options.log else None
    model = narrows.VampVAE(
        **LONG, max_time=60 * options.minutes, random_state=options.seed, listeners=log
    )
    model.fit(X, X_val=valid[:2000])
    about = {
        "name": "VampVAE",
        "parameters": {key: list(v) if isinstance(v, tuple) else v for key, v in LONG.items()},
        "trained_on": "training" if options.train_only else "training + validation",
        "seconds": model.fit_seconds_,
        "epochs": model.n_iter_,
        "n_parameters": model.n_parameters_,
        "seed": options.seed,
    }
    if options.save:
        model.save(options.save, overwrite=True)
    book.add({**about, "of": "all test rows", **estimate(model, test, options.all_samples)})
    rows = np.random.default_rng(0).permutation(len(test))[: options.rows]
    found = estimate(model, test[rows], 5000)
    book.add({**about, "of": f"{options.rows:,} random test rows", **found})


LONG: dict[str, Any] = {
    "input_shape": (28, 28),
    "latent_dim": 40,
    "hidden_layer_sizes": (512, 512),
    "n_inputs": 200,
    "n_importance": 5,
    "begin": 0.7,
    "shifts": True,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "max_epochs": 100_000,
    "early_stopping": False,
}


def table(folder: Path) -> None:
    """results/likelihood.md, from the last rows of both sections."""
    lines = ["# Static binarised MNIST: minus the log-likelihood in nats, lower is better", ""]
    short = Book("likelihood-families", folder).rows("name")
    if short:
        lines += _family_lines(short)
    final = Book("likelihood-long", folder).rows("name", "of")
    if final:
        lines += _long_lines(final)
    (folder / "likelihood.md").write_text("\n".join(lines) + "\n")


def _family_lines(rows: list[dict[str, Any]]) -> list[str]:
    first = rows[0]
    lines = [
        f"Equal time: {first['seconds']:.0f} s each on one core, training split alone, "
        f"{first['rows']:,} random test rows, {first['n_samples']} importance samples, seed "
        f"{first['seed']} (a single seed). The standard error is that of the mean over the test "
        f"rows. All models have the same rows, so it is mostly luck that they share: it counts "
        "against a published figure, and less between two lines of this table. Papers train for "
        "hours.",
        "",
        PUBLISHED,
        "",
        "| model | nats | standard error | test rows | epochs | parameters | its paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["nats"]):
        paper = FAMILIES[row["name"]][2] if row["name"] in FAMILIES else row.get("published", "–")
        lines.append(
            f"| {row['name']} | {row['nats']:.2f} | {row['error']:.2f} | {row['rows']:,} | "
            f"{row['epochs']} | {row['parameters']:,} | {paper} |"
        )
    return [*lines, ""]


def _long_lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "One model, as long as said, on the processor said, a single seed. Unlike the published "
        "figures above it is trained on shifted images too (`shifts=True`), and where said on the "
        "validation rows:",
        "",
        "| model | trained on | seconds | epochs | measured on | samples | nats | standard error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['trained_on']} | {row['seconds']:.0f} | {row['epochs']} | "
            f"{row['of']} | {row['n_samples']:,} | {row['nats']:.2f} | {row['error']:.2f} |"
        )
    said = rows[-1]
    given = ", ".join(f"{key}={value}" for key, value in said["parameters"].items())
    return [
        *lines,
        "",
        f"Parameters: {given}. Processor: {said['cpu']}, {said['cores']} cores.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of the three files")
    parser.add_argument("--section", choices=["families", "long", "table"], default="families")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, in families")
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, in long")
    parser.add_argument("--names", nargs="+", help="some of the families only")
    parser.add_argument("--rows", type=int, default=1000, help="random test rows")
    parser.add_argument("--samples", type=int, default=500, help="importance samples, families")
    parser.add_argument("--all-samples", type=int, default=1000, help="over all test rows, long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-only", action="store_true", help="long: leave validation rows out")
    parser.add_argument("--log", help="long: a line of JSON for every epoch, to this file")
    parser.add_argument("--save", help="long: keep the model in this file")
    parser.add_argument("--out", default=str(HERE / "results"), help="folder of the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options)
        return
    folder = Path(options.out)
    if options.section != "table":
        section = families if options.section == "families" else long
        section(options, Book(f"likelihood-{options.section}", folder))
    table(folder)


if __name__ == "__main__":
    print(json.dumps(machine()), file=sys.stderr)
    main()
