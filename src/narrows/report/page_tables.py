"""The page's tables: the model beside PCA, time and sizes, what it is made of, how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report import words
from narrows.report.page import Section, Table

if TYPE_CHECKING:
    from narrows.report.content import Content
    from narrows.report.measures import Method

LISTED = 4  # longer lists are cut


def comparison(content: Content) -> Section:
    """The table against PCA."""
    n = content.numbers
    header = ["", "Error", "× PCA's", "R²", *(["Linear probe"] if n.probes else [])]
    ratio = "–" if n.ratio is None else words.figure(n.ratio)
    rows = [[*_errors(n.model, ratio), _probe(content, "codes")]]
    if n.pca is not None:
        rows.append([*_errors(n.pca, "1"), _probe(content, "pca")])
    if n.probes:
        raw = f"Raw data, {words.count(n.sizes.n_elements, 'number')}"
        rows.append([raw, "", "", "", _probe(content, "raw")])
        rows.append(["Always the commonest class", "", "", "", f"{n.commonest:.3f}"])
    k = words.count(n.sizes.latent_dim, "number")
    title = f"The model and PCA, both at {k} {words.each(content.look.noun)}"
    cut = [row[: len(header)] for row in rows]
    return Section("comparison", "Beside the simple method", "",
                   tables=[Table(title, header, cut, _explain(content), wide=True)])  # fmt: skip


def _errors(method: Method, ratio: str) -> list[str]:
    return [method.name, words.figure(method.mse), ratio, f"{method.r2:.4f}"]


def _probe(content: Content, name: str) -> str:
    probe = content.numbers.probes.get(name)
    return "–" if probe is None else f"{probe.accuracy:.3f} ± {probe.sd:.3f}"


def _explain(content: Content) -> str:
    n = content.numbers
    note = (
        "Error: mean squared error per element in scaled units. R²: pooled over all elements, in "
        "the data's own units."
    )
    if n.probes:
        used = next(iter(n.probes.values())).n_rows
        note += (
            " Linear probe: accuracy of logistic regression on standardised inputs, mean ± "
            f"standard deviation over the folds of a cross-validation, {words.count(used, 'row')}."
        )
    return f"{note} {n.probe_note}".strip()


def cost(content: Content) -> Section:
    """Time and sizes."""
    n, s = content.numbers, content.numbers.sizes
    methods = [m for m in (n.model, n.pca) if m is not None]
    fit = [words.duration(n.fit_seconds), ""][: len(methods)]
    rows = [
        ["Fitting", *fit],
        ["Encoding one row", *(words.duration(m.encode_seconds) for m in methods)],
        ["Decoding one row", *(words.duration(m.decode_seconds) for m in methods)],
        ["Parameters", *(f"{m.n_parameters:,}" for m in methods)],
    ]
    time = Table(
        "Time, measured on this machine in batches", ["", *(m.name for m in methods)], rows
    )
    sizes = Table("Sizes", ["", "Numbers", "Bytes"], [
        ["One row", f"{s.n_elements:,}", words.size(s.row_bytes)],
        ["Its code", f"{s.latent_dim:,}", words.size(s.code_bytes)],
        ["The model's file", "", words.size(s.model_bytes)],
    ], "Codes are 32-bit floats, neither rounded nor entropy coded.")  # fmt: skip
    return Section("cost", "Time and sizes", "", tables=[time, sizes])


def model(content: Content) -> Section:
    """The parts, the parameters, the training."""
    info = content.est.info()
    blocks = {
        "Parts of the equation": info["parts"],
        "Parameters given; all others are at their defaults": info["parameters"],
        "Chosen and learned": _chosen(info),
        "Training": info["training"],
        "Versions": info["versions"],
    }
    tables = []
    for caption, block in blocks.items():
        rows = [[str(name).replace("_", " "), _plain(value)] for name, value in block.items()]
        wide = block is info["parts"]
        tables += [Table(caption, (), rows, code=True, wide=wide)] if rows else []
    return Section("model", "The model's parts", "", tables=tables)


def _chosen(info: dict[str, Any]) -> dict[str, Any]:
    """What is neither a block of its own nor empty, in readable form."""
    readable = {
        "input_shape": " × ".join(map(str, info["input_shape"])),
        "dtype": str(np.dtype(info["dtype"])),
        "bounds": _range(*info["bounds"]) if info["bounds"] else None,
    }
    return {
        name: value
        for name, value in (info | readable).items()
        if not isinstance(value, dict) and value is not None and name != "model"
    }


def _range(low: list[float], high: list[float]) -> str:
    span = max(high) - min(low)
    near = [[0.0 if abs(v) < 1e-6 * span else v for v in side] for side in (low, high)]
    return f"{_plain(near[0])} to {_plain(near[1])}"


def how(commands: list[str]) -> Section:
    """The commands that made it."""
    return Section("commands", "How it was made", "", program=commands)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = [_plain(item) for item in value[:LISTED]]
        more = [f"… ({len(value)} in all)"] if len(value) > LISTED else []
        return ", ".join([*shown, *more])
    return str(value)
