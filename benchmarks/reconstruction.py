"""Reconstruction error at equal wall time: narrows, PCA, scikit-learn and a plain loop.

    python benchmarks/reconstruction.py --data digits --latent 2 8 16 32 --seconds 10
    python benchmarks/reconstruction.py --data fashion-mnist --latent 32 2 --seconds 180

Every method gets the same training rows, layer widths and seconds (PCA has no limit), and is
measured on the same test rows: mean squared error per pixel, pixels in [0, 1]; PCA's are clipped
to that, as a network's outputs are. narrows chooses its epoch on a tenth of the training rows,
which it holds out itself; test rows are used only at the end. Rows are appended to
``results/reconstruction.jsonl``, from which ``results/reconstruction.md`` is written.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import narrows
from narrows.io.read import read
from narrows.parts.networks.architectures import conv_channels, default_widths

Images = NDArray[np.float32]
Result = tuple[Images, dict[str, Any]]
ROUNDING = 1e-10  # errors below this may be float32 rounding
RESULTS = Path(__file__).parent / "results"


def load(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Training and test images in their own dtype."""
    if name == "digits":
        rows = read("digits").X
        train, test = train_test_split(rows, test_size=0.25, random_state=0)
        return train, test
    return read(name).X, read(f"{name}:test").X


def pca(train: Images, test: Images, k: int, seconds: float, seed: int) -> Result:
    flat = train.reshape(len(train), -1)
    fitted = PCA(k, random_state=seed).fit(flat)
    out = fitted.inverse_transform(fitted.transform(test.reshape(len(test), -1)))
    return out.reshape(test.shape).clip(0, 1), {}  # as the networks' outputs are


def with_narrows(architecture: str) -> Callable[..., Result]:
    def run(train: NDArray[Any], test: NDArray[Any], k: int, seconds: float, seed: int) -> Result:
        ae = narrows.Autoencoder(
            latent_dim=k,
            architecture=architecture,
            max_time=seconds,
            max_epochs=100_000,
            random_state=seed,
        ).fit(train)
        with torch.no_grad():  # unrounded
            out = ae.decoder_(torch.from_numpy(ae.transform(test))).double().numpy()
        return out, {"epochs": ae.n_iter_, "best_epoch": ae.best_epoch_, "stop": ae.stop_reason_}

    return run


def mlp(train: Images, test: Images, k: int, seconds: float, seed: int) -> Result:
    flat = train.reshape(len(train), -1)
    widths = default_widths(flat.shape[1], k)
    model = MLPRegressor(hidden_layer_sizes=(*widths, k, *widths[::-1]), random_state=seed)
    epochs = 0
    for _ in _until(seconds):
        model.partial_fit(flat, flat)
        epochs += 1
    out = model.predict(test.reshape(len(test), -1)).reshape(test.shape)
    return out.astype(np.float32), {"epochs": epochs}


def _plain_dense(shape: tuple[int, ...], k: int) -> nn.Module:
    d = int(np.prod(shape))
    widths = (d, *default_widths(d, k), k)
    layers: list[nn.Module] = [nn.Flatten()]
    for ends in (widths, widths[::-1]):
        for into, out in pairwise(ends):
            layers += [nn.Linear(into, out), nn.ReLU()]
        layers.pop()  # neither the code nor the output has a ReLU
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Unflatten(1, (1, *shape)))


def _plain_conv(shape: tuple[int, ...], k: int) -> nn.Module:
    channels = conv_channels(shape)
    sides = [shape]
    layers: list[nn.Module] = []
    for a, b in zip((1, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
        sides.append(tuple((s + 1) // 2 for s in sides[-1]))
    flat = channels[-1] * int(np.prod(sides[-1]))
    layers += [nn.Flatten(), nn.Linear(flat, k), nn.Linear(k, flat), nn.ReLU()]
    layers.append(nn.Unflatten(1, (channels[-1], *sides[-1])))
    for i, (a, b) in enumerate(zip(channels[::-1], (*channels[-2::-1], 1), strict=True)):
        extra = tuple(t - (2 * s - 1) for s, t in zip(sides[-1 - i], sides[-2 - i], strict=True))
        layers.append(nn.ReLU() if i else nn.Identity())
        layers.append(nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=extra))
    return nn.Sequential(*layers, nn.Sigmoid())


def plain(build: Callable[..., nn.Module]) -> Callable[..., Result]:
    """The loop everybody writes: DataLoader, Adam at 1e-3, batches of 128, ReLU, a sigmoid."""

    def run(train: Images, test: Images, k: int, seconds: float, seed: int) -> Result:
        torch.manual_seed(seed)
        model = build(train.shape[1:], k)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        data = TensorDataset(torch.from_numpy(train)[:, None])
        loader = DataLoader(data, batch_size=128, shuffle=True)
        steps, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for (x,) in loader:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), x)
                loss.backward()
                optimizer.step()
                steps += 1
                if time.monotonic() >= end:
                    break
        with torch.no_grad():
            parts = torch.from_numpy(test)[:, None].split(1000)
            out = torch.cat([model(x)[:, 0] for x in parts])
        return out.numpy(), {"epochs": round(steps / len(loader), 2)}

    return run


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


METHODS: dict[str, Callable[..., Result]] = {
    "PCA": pca,
    "narrows dense": with_narrows("dense"),
    "plain loop dense": plain(_plain_dense),
    "MLPRegressor": mlp,
    "narrows conv": with_narrows("conv"),
    "plain loop conv": plain(_plain_conv),
}


def measure(name: str, k: int, seconds: float, seed: int, methods: list[str]) -> None:
    """Every method once on one data set at one width."""
    train, test = load(name)
    top = 16.0 if name == "digits" else 255.0
    ready = (train / top).astype(np.float32), (test / top).astype(np.float32)
    for method in methods:
        started = time.monotonic()
        own = method.startswith("narrows")  # takes the pixels as they are
        rows, held = (train, test) if own else ready
        out, facts = METHODS[method](rows, held, k, seconds, seed)
        error = float(np.mean((out.astype(np.float64) / (top if own else 1.0) - ready[1]) ** 2))
        row = {
            "data": name,
            "latent_dim": k,
            "method": method,
            "mse": error,
            "budget_s": seconds,
            "wall_s": round(time.monotonic() - started, 1),
            "seed": seed,
            **facts,
            "torch": torch.__version__,
            "narrows": narrows.__version__,
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(row), flush=True)
        with (RESULTS / "reconstruction.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def table() -> str:
    """The committed rows as Markdown: the error, and its ratio to PCA's of the same run."""
    lines = (RESULTS / "reconstruction.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    keys = sorted({(r["data"], r["budget_s"], r["latent_dim"]) for r in rows})
    count = len({r["seed"] for r in rows})
    of_seeds = "A single seed." if count == 1 else f"Means over up to {count} seeds."
    out = [
        "# Reconstruction error at equal wall time",
        "",
        "Mean squared error per pixel on the test images, pixels in [0, 1]; in brackets the ratio "
        "to PCA's, whose pixels are clipped to [0, 1]. Written by `benchmarks/reconstruction.py`; "
        "every row of the runs, with seeds, epochs and versions, is in `reconstruction.jsonl`. "
        + of_seeds,
        "",
        "| data | seconds | latent | " + " | ".join(METHODS) + " |",
        "|---" * (3 + len(METHODS)) + "|",
    ]
    for data, seconds, k in keys:
        cells = []
        mine = [
            r for r in rows if (r["data"], r["budget_s"], r["latent_dim"]) == (data, seconds, k)
        ]
        means = {
            m: float(np.mean([r["mse"] for r in mine if r["method"] == m]))
            for m in METHODS
            if any(r["method"] == m for r in mine)
        }
        best = min(means.values())
        for method in METHODS:
            if method not in means:
                cells.append("–")
                continue
            exact = means["PCA"] < ROUNDING  # a ratio to rounding errors says nothing
            ratio = "" if exact else f" ({means[method] / means['PCA']:.2f})"
            text = f"{means[method]:.5f}{ratio}"
            cells.append(f"**{text}**" if means[method] <= max(best, ROUNDING) else text)
        out.append(f"| {data} | {seconds:g} | {k} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", default=["digits"])
    parser.add_argument("--latent", nargs="+", type=int, default=[2, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each fit")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in options.data:
        for k in options.latent:
            for seed in options.seeds:
                measure(name, k, options.seconds, seed, options.methods)
    (RESULTS / "reconstruction.md").write_text(table())


if __name__ == "__main__":
    main()
