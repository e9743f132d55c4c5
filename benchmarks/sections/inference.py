"""Codes and reconstructions: narrows end to end, and its modules in eager torch and ONNX Runtime.

Ratios are to eager torch in chunks of as many rows as narrows takes at a time, so that caches serve
both alike. ``eager`` and ``onnxruntime`` get scaled float32 rows and return scaled ones;
``narrows`` gets the user's rows (bytes, or float32), checks and scales them, and returns the user's
units. Rounds are interleaved: each method once in a random order, then each again.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from records import Book, footnote, groups, show, table

CHUNKS = "eager, equal chunks"
KEYS = ("network", "direction", "n", "method")
Call = Callable[[], object]


def measure(options: Any, book: Book) -> None:
    """Fit both networks briefly: their quality does not change the times."""
    warnings.filterwarnings("ignore")
    import torch

    from sets import load

    data = load("fashion-mnist", rows=options.fit_rows, held=0.0)
    pool = load("fashion-mnist", rows=max(options.batch_sizes), held=0.0).train
    for network in options.networks or ("dense", "conv"):
        models = [_fit(network, rows) for rows in (data.train.given, data.train.ready)]
        for n in options.batch_sizes:
            calls = _calls(models, pool.given[:n], pool.ready[:n])
            for direction, methods in calls.items():
                times = _interleaved(methods, options.repeats if n > 1 else 10 * options.repeats)
                threads = torch.get_num_threads()
                for method, seconds in times.items():
                    base = times[CHUNKS]
                    ratios = [b / s for s, b in zip(seconds, base, strict=True)]
                    book.add(
                        {
                            "network": network,
                            "direction": direction,
                            "n": n,
                            "method": method,
                            "seconds": statistics.median(seconds),
                            "ratio": statistics.median(ratios),
                            "repeats": len(seconds),
                            "threads": threads,
                            "versions": _versions(),
                        }
                    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("narrows", "torch", "onnxruntime")}


def _fit(network: str, rows: Any) -> Any:
    from narrows import Autoencoder

    model = Autoencoder(architecture=network, latent_dim=32, max_epochs=1, random_state=0)
    return model.fit(rows)


def _calls(models: list[Any], given: Any, ready: Any) -> dict[str, dict[str, Call]]:
    """What is timed, by direction and method."""
    import torch

    from narrows.training.batches import inference_batch

    of_bytes, of_floats = models
    model = of_floats.model_.eval()
    codes = of_floats.transform(ready)
    scaled = of_floats.scaling_.apply(torch.from_numpy(ready[:, None]))
    scaled = scaled.reshape(len(ready), *of_floats.layout_.shape)
    z = torch.from_numpy(codes)
    size = inference_batch(of_floats.layout_.shape)
    byte_codes = of_bytes.transform(given)
    out: dict[str, dict[str, Call]] = {
        "transform": {
            CHUNKS: lambda: _in_chunks(model.encode, scaled, size),
            "eager, all rows at once": lambda: _quiet(model.encode, scaled),
            "narrows, float32 in": lambda: of_floats.transform(ready),
            "narrows, bytes in": lambda: of_bytes.transform(given),
        },
        "inverse_transform": {
            CHUNKS: lambda: _in_chunks(model.decode, z, size),
            "eager, all rows at once": lambda: _quiet(model.decode, z),
            "narrows, float32 out": lambda: of_floats.inverse_transform(codes),
            "narrows, bytes out": lambda: of_bytes.inverse_transform(byte_codes),
        },
    }
    for direction, name, x in (("transform", "encode", scaled), ("inverse_transform", "decode", z)):
        try:
            out[direction]["onnxruntime"] = _onnx(model, name, x)
        except Exception as error:  # the export is not narrows' own: the table shows a dash
            print(f"no onnxruntime for {direction}: {str(error).splitlines()[0]}", flush=True)
    return out


def _quiet(call: Callable[[Any], Any], x: Any) -> Any:
    import torch

    with torch.no_grad():
        return call(x)


def _in_chunks(call: Callable[[Any], Any], x: Any, size: int) -> Any:
    import torch

    if len(x) <= size:
        return _quiet(call, x)
    return torch.cat([_quiet(call, part) for part in x.split(size)])


def _onnx(model: Any, name: str, x: Any) -> Call:
    """Export one direction, check that it answers the same, and time it alone."""
    import onnxruntime
    import torch

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, rows: Any) -> Any:
            return getattr(self.model, name)(rows)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "half.onnx")
        export(Half().eval(), x, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    expected = _quiet(getattr(model, name), x).numpy()
    difference = float(np.abs(session.run(None, feed)[0] - expected).max())
    if difference > 1e-2:
        raise ValueError(f"it answers otherwise, by {difference:.2g}")
    return lambda: session.run(None, feed)


def export(module: Any, x: Any, path: str) -> None:
    """By torch's new exporter, or where that fails by the old one; shapes are those of ``x``."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports every pass
        try:
            torch.onnx.export(module, (x,), path, dynamo=True, external_data=False)
        except Exception:
            torch.onnx.export(module, (x,), path, dynamo=False)


def _interleaved(methods: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in methods}
    for call in methods.values():
        call()
        call()
    order, rng = list(methods.items()), random.Random(0)
    for _ in range(repeats):
        rng.shuffle(order)  # what follows ONNX Runtime is slowed by 0.1 ms
        for name, call in order:
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def write(book: Book) -> None:
    """One line a network, direction and number of rows."""
    rows = book.rows(*KEYS)
    lines = []
    for (network, direction, n, method), mine in groups(rows, *KEYS).items():
        row = mine[-1]
        lines.append(
            [
                *(network, direction, f"{n:,}", method),
                show(1e3 * row["seconds"], ".3f"),
                show(n / row["seconds"], ",.0f"),
                show(row["ratio"], ".2f"),
            ]
        )
    head = "network|direction|rows|method|ms|rows/s|speed to eager"
    text = " ".join((__doc__ or "").partition("\n\n")[2].split())
    book.write(f"# Inference\n\n{text}\n\n" + table(head.split("|"), lines) + footnote(rows))
