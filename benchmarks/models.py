"""Every named model on the same images for the same time: error, codes, samples, code lines.

    python benchmarks/models.py --data mnist --seconds 20

Each model trains on the same 10,000 rows for the same seconds, in a process of its own, with its
defaults and codes of 16 numbers. They are compared with PCA, and with a normal distribution or a
mixture fitted to PCA's codes.

``error``     mean squared error per pixel of test images, in [0, 1] units.
``probe``     accuracy of a logistic regression on codes of 5,000 training images, on test images.
``distance``  Fréchet distance between 5,000 samples and 5,000 test images, in the last hidden layer
              (64 numbers, ReLU) of a classifier fixed for all: scikit-learn's MLPClassifier with
              layers of 128 and 64, ten epochs, seed 0, on the training images. It is not an FID and
              cannot be compared with published ones. The distance between training and test
              images is the lower limit.
``lines``     code lines of the class, without docstring and comments; parts are shared.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from records import HERE, Book

LATENT, ROWS = 16, 10_000
BESIDE = ("PCA, normal", "PCA, mixture", "real images")


def code_lines(source: str) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    kept: set[int] = set()
    tree = ast.parse(inspect.cleandoc(source) if source.startswith(" ") else source)
    docs = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs |= set(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    for number, line in enumerate(source.splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#") and number not in docs:
            kept.add(number)
    return len(kept)


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """‖m_a − m_b‖² + tr(A + B − 2 (A B)^½), of two clouds of features."""
    from scipy.linalg import sqrtm

    A, B = np.cov(a.T), np.cov(b.T)
    root = np.real(sqrtm(A @ B))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(A + B - 2 * root))


class Judge:
    """The classifier in whose last hidden layer samples are compared."""

    def __init__(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        from sklearn.neural_network import MLPClassifier

        warnings.simplefilter("ignore")
        self.net = MLPClassifier((128, 64), max_iter=10, random_state=0).fit(flat(X), y)

    def features(self, X: NDArray[Any]) -> NDArray[np.float64]:
        h = flat(X)
        for weight, bias in zip(self.net.coefs_[:-1], self.net.intercepts_[:-1], strict=True):
            h = np.maximum(h @ weight + bias, 0)
        return h


def flat(X: NDArray[Any]) -> NDArray[np.float64]:
    """Images in [0, 1] as rows."""
    return np.asarray(X, dtype=np.float64).reshape(len(X), -1) / 255


def probe(Z: NDArray[Any], y: NDArray[Any], Z_test: NDArray[Any], y_test: NDArray[Any]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    net = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return float(net.fit(Z[:5000], y[:5000]).score(Z_test, y_test))


def measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One model, or one of the simple methods."""
    import narrows
    from narrows.io.read import read

    train, held = read(options.data), read(f"{options.data}:test")
    X, y, T, t = train.X, train.y, held.X, held.y
    assert y is not None and t is not None
    rows = np.random.default_rng(0).permutation(len(T))[:5000]
    T, t = T[rows], t[rows]
    judge = Judge(X, y)
    some = np.random.default_rng(1).permutation(len(X))[:ROWS]
    X, y = X[some], y[some]
    real = judge.features(T)
    if name == "real images":
        return {"distance": frechet(judge.features(X[-5000:]), real)}
    if name.startswith("PCA"):
        return beside(name, X, y, T, t, judge, real)
    kind = getattr(narrows, name)
    model = kind(latent_dim=LATENT, max_time=options.seconds, max_epochs=100_000, random_state=0)
    model = model.fit(X, y) if name == "ConditionalVAE" else model.fit(X)
    found: dict[str, Any] = {
        "error": float(np.square(flat(T) - flat(model.reconstruct(T))).mean()),
        "probe": probe(model.transform(X[:5000]), y, model.transform(T), t),
        "epochs": model.n_iter_,
        "seconds": model.fit_seconds_,
        "lines": code_lines(inspect.getsource(kind)),
    }
    if hasattr(model, "sample"):
        drawn = model.sample(5000, random_state=0)
        found["distance"] = frechet(judge.features(drawn), real)
    return found


def beside(
    name: str,
    X: NDArray[Any],
    y: NDArray[Any],
    T: NDArray[Any],
    t: NDArray[Any],
    judge: Judge,
    real: NDArray[np.float64],
) -> dict[str, Any]:
    """PCA with as many numbers, and samples of a density fitted to its codes."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    pca = PCA(LATENT, random_state=0).fit(flat(X))
    Z = pca.transform(flat(X))
    parts = 1 if "normal" in name else 10
    drawn = GaussianMixture(parts, random_state=0).fit(Z).sample(5000)[0]
    pictures = pca.inverse_transform(drawn).clip(0, 1) * 255
    back = pca.inverse_transform(pca.transform(flat(T))).clip(0, 1)
    return {
        "error": float(np.square(flat(T) - back).mean()),
        "probe": probe(Z[:5000], y, pca.transform(flat(T)), t),
        "distance": frechet(judge.features(pictures), real),
    }


def table(folder: Path, options: argparse.Namespace) -> None:
    """results/models.md."""
    rows = Book("models", folder).rows("name")
    lines = [
        "# Every model on the same images",
        "",
        f"{ROWS:,} images of {options.data}, {options.seconds:.0f} s of training each on one core, "
        f"codes of {LATENT} numbers, defaults, one seed. What the columns are stands in "
        "`benchmarks/models.py`; lower is better but for the probe. Models of other aims are not "
        "meant to win every column.",
        "",
        "| model | error | probe | Fréchet distance | epochs | code lines |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["name"],
            f"{row['error']:.4f}" if "error" in row else "–",
            f"{row['probe']:.3f}" if "probe" in row else "–",
            f"{row['distance']:.1f}" if "distance" in row else "–",
            str(row.get("epochs", "–")),
            str(row.get("lines", "–")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    (folder / "models.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    from narrows.estimators.registry import MODELS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mnist", help="a name that has a :test, as mnist")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training")
    parser.add_argument("--names", nargs="+", help="some of the models only")
    parser.add_argument("--out", default=str(HERE / "results"), help="folder of the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options, options.one)))
        return
    folder = Path(options.out)
    book = Book("models", folder)
    for name in options.names or [*BESIDE, *MODELS]:
        words = [sys.executable, __file__, "--one", name, "--data", options.data]
        words += ["--seconds", str(options.seconds)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{name}: {done.stderr[-300:]}", file=sys.stderr)
            continue
        book.add({"name": name, **json.loads(done.stdout.splitlines()[-1])})
    table(folder, options)


if __name__ == "__main__":
    main()
