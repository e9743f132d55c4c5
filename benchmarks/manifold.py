"""The page of a map in a browser: size, time to interactive, frames and decoding, and a peer's.

    python benchmarks/manifold.py                    # tables of 10,000 and 100,000 rows
    python benchmarks/manifold.py --mnist FOLDER     # and 70,000 images, IDX files in FOLDER

Needs playwright and a Chromium; the peer is plotly's scattergl page of the same points, if plotly
is installed. A headless browser without a GPU draws with the CPU: WebGL is emulated (SwiftShader),
so that its frames say nothing about a machine with a GPU. narrows draws its points with the CPU on
any machine. Rows go to ``results/manifold.jsonl``, the table to ``results/manifold.md``.

Columns: ``build``: seconds to write the page from a fitted model; ``MB``; ``ready``: milliseconds
from the start of loading to the first picture (narrows: the decoder works, too); ``frame``: median
milliseconds to draw all points again after a move; ``drag``: median milliseconds from a pointer
event to the decoded picture, and the 95th percentile in brackets. Both wait for a frame: 16.7 ms
is the least that a screen of 60 frames a second allows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

from narrows import NeighborAutoencoder
from narrows.maps import write_map

OUT = Path(__file__).parent / "results" / "manifold.jsonl"
MOVES = 60
Rows = NDArray[Any]
NARROWS_FRAMES = """async (n) => {
  const times = [];
  for (let i = 0; i < n; i++) {
    page.map.view.x += (i % 2 ? 1 : -1) * 3 / page.map.view.scale;
    const start = performance.now();
    page.map.draw();
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
  }
  return times;
}"""
NARROWS_DRAGS = """async (n) => {
  const times = [], box = page.overlay.getBoundingClientRect();
  const event = (kind, i) => new PointerEvent(kind, { pointerId: 1, bubbles: true,
    clientX: box.left + 200 + 3 * i, clientY: box.top + 200 + 2 * i });
  page.overlay.setPointerCapture = () => {};
  page.overlay.dispatchEvent(event("pointerdown", 0));
  for (let i = 1; i <= n; i++) {
    const start = performance.now();
    page.overlay.dispatchEvent(event("pointermove", i));
    await new Promise(requestAnimationFrame); // the page decodes in the next frame
    document.getElementById("restored").getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  page.overlay.dispatchEvent(event("pointerup", n));
  return times;
}"""
PLOTLY_FRAMES = """async (n) => {
  const times = [], plot = document.querySelector(".js-plotly-plot");
  const [low, high] = plot.layout.xaxis.range;
  for (let i = 0; i < n; i++) {
    const shift = ((i % 2 ? 1 : -1) * (high - low)) / 200;
    const start = performance.now();
    await Plotly.relayout(plot, { "xaxis.range": [low + shift, high + shift] });
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
  }
  return times;
}"""


def table(n: int) -> tuple[Rows, Rows]:
    """n rows of ten columns on a curved sheet, and five classes."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 2))
    X = np.tanh(hidden @ rng.normal(size=(2, 10))) + 0.1 * rng.normal(size=(n, 10))
    return X.astype(np.float32), np.digitize(hidden[:, 0], [-1, -0.3, 0.3, 1])


def mnist(folder: Path) -> tuple[Rows, Rows]:
    """All 70,000 images and their labels."""

    def read(name: str, skip: int) -> Rows:
        path = folder / f"{name}-ubyte.gz"
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=skip)

    images = [read(f"{part}-images-idx3", 16).reshape(-1, 28, 28) for part in ("train", "t10k")]
    labels = [read(f"{part}-labels-idx1", 8) for part in ("train", "t10k")]
    return np.concatenate(images), np.concatenate(labels)


def measure_page(browser: Any, path: Path, ready: str, scripts: dict[str, str]) -> dict[str, Any]:
    """Load the page three times; then run each script, which returns times."""
    found: dict[str, Any] = {"MB": path.stat().st_size / 1e6}
    loads = []
    for _ in range(3):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector(ready, timeout=120_000)
        loads.append(1000 * (time.perf_counter() - start))
    found["ready"] = statistics.median(loads)
    for name, script in scripts.items():
        times = page.evaluate(script, MOVES)
        found[name] = [statistics.median(times), sorted(times)[int(0.95 * len(times))]]
    return found


def plotly_page(path: Path, Z: Rows, y: Rows) -> None:
    """The same points by plotly, with its library in the file."""
    import plotly.graph_objects as go

    marker = {"color": y, "size": 3}
    figure = go.Figure(go.Scattergl(x=Z[:, 0], y=Z[:, 1], mode="markers", marker=marker))
    figure.write_html(path, include_plotlyjs=True)


def run(name: str, make: Callable[[], tuple[Rows, Rows]], browser: Any) -> list[dict[str, Any]]:
    """One set: narrows' page and plotly's."""
    X, y = make()
    model = NeighborAutoencoder(latent_dim=2, max_epochs=2, random_state=0, verbose=False).fit(X)
    shared = {"set": name, "n": len(X), "date": time.strftime("%F"), "cpu": platform.processor()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.html"
        start = time.perf_counter()
        write_map(model, X, path, y=y)
        build = time.perf_counter() - start
        scripts = {"frame": NARROWS_FRAMES, "drag": NARROWS_DRAGS}
        measured = measure_page(browser, path, "body[data-ready=yes]", scripts)
        rows.append({"page": "narrows", **shared, "build": build, **measured})
        if find_spec("plotly"):
            path = Path(folder) / "plotly.html"
            start = time.perf_counter()
            plotly_page(path, np.asarray(model.transform(X)), y)
            build = time.perf_counter() - start
            measured = measure_page(
                browser, path, ".plot-container canvas", {"frame": PLOTLY_FRAMES}
            )
            rows.append({"page": "plotly scattergl", **shared, "build": build, **measured})
    return rows


def write_table(rows: list[dict[str, Any]]) -> None:
    """The newest row of each page and set, as Markdown."""
    newest = {(row["set"], row["page"]): row for row in rows}
    lines = [
        "# The page of a map in a browser",
        "",
        "Written by `benchmarks/manifold.py`, whose docstring describes the columns: headless "
        "Chromium, two cores, no GPU. narrows' page also holds originals and the decoder.",
        "",
        "| set | page | build s | MB | ready ms | frame ms | drag ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, page), row in newest.items():
        drag = "–" if "drag" not in row else f"{row['drag'][0]:.1f} ({row['drag'][1]:.1f})"
        lines.append(
            f"| {name} | {page} | {row['build']:.1f} | {row['MB']:.1f} | {row['ready']:.0f} | "
            f"{row['frame'][0]:.0f} | {drag} |"
        )
    OUT.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    sets: dict[str, Callable[[], tuple[Rows, Rows]]] = {
        "table, 10,000 × 10": lambda: table(10_000),
        "table, 100,000 × 10": lambda: table(100_000),
    }
    if options.mnist:
        sets["MNIST, 70,000 × 28 × 28"] = lambda: mnist(options.mnist)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, make in sets.items():
            for row in run(name, make, browser):
                print(json.dumps(row), flush=True)
                with OUT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        browser.close()
    write_table([json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
