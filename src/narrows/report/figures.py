"""The pictures that look the same for every kind of data: the map, the curves, the errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from narrows.report.labels import Labels
    from narrows.report.measures import Histogram

COLOURED = 10  # classes told apart by colour alone
MARKED = 20  # classes told apart by colour and mark; beyond, the rest is grey


def code_map(
    points: NDArray[np.float64],
    labels: Labels | None,
    names: list[str],
    title: str,
    frame: NDArray[np.float64] | None = None,
) -> Figure:
    """Points (n, 2) coloured by their labels; ``frame`` ((x0, x1), (y0, y1)) marks a region.

    Codes of one number (n, 1) are shown as a histogram.
    """
    figure = canvas.new_figure(4.4, 4.3 if points.shape[1] == 2 else 3.0)
    ax = figure.subplots()
    if points.shape[1] == 1:
        _one_number(ax, points[:, 0], labels)
        canvas.tidy(ax, x=names[0], y="rows", title=title)
    else:
        _cloud(ax, points, labels)
        if frame is not None:
            x, y = frame
            ax.plot(
                x[[0, 1, 1, 0, 0]], y[[0, 0, 1, 1, 0]], color=canvas.INK, lw=0.8, ls=(0, (4, 3))
            )
        canvas.tidy(ax, x=names[0], y=names[1], title=title)
    if labels is not None and labels.names and len(ax.get_legend_handles_labels()[0]) > 1:
        _class_legend(figure, ax)
    return figure


def _class_legend(figure: Figure, ax: Axes) -> None:
    from matplotlib.collections import PathCollection

    handles, names = ax.get_legend_handles_labels()
    drawn = figure.legend(
        handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=8,
        labelcolor=canvas.INK, handletextpad=0.2, columnspacing=1.0,
    )  # fmt: skip
    for handle in drawn.legend_handles:
        if isinstance(handle, PathCollection):  # points too small to tell their colour
            handle.set_sizes([28])
            handle.set_alpha(1.0)


def groups(labels: Labels) -> list[tuple[str, NDArray[np.intp], str, str]]:
    """(name, rows, colour, mark) of each class; of many only the largest, the rest in grey."""
    counts = np.bincount(labels.index, minlength=len(labels.names))
    present = np.flatnonzero(counts)
    shown = present
    if len(present) > MARKED:
        shown = np.sort(present[np.argsort(-counts[present], kind="stable")][:COLOURED])
    found = []
    for place, kind in enumerate(shown):
        color = canvas.CLASSES[place % COLOURED]
        mark = "o" if place < COLOURED else "^"
        found.append((labels.names[kind], np.flatnonzero(labels.index == kind), color, mark))
    rest = np.flatnonzero(~np.isin(labels.index, shown))
    if len(rest):
        others = (f"{len(present) - len(shown)} others", rest, "#c3c9d1", "o")
        found.insert(0, others)
    return found


def _cloud(ax: Axes, points: NDArray[np.float64], labels: Labels | None) -> None:
    size = float(np.clip(4000 / max(len(points), 1), 4, 30))
    if labels is None:
        ax.scatter(points[:, 0], points[:, 1], size, color=canvas.MODEL, alpha=0.5, linewidths=0)
    elif not labels.names:
        dots = ax.scatter(
            points[:, 0],
            points[:, 1],
            size,
            labels.values,
            cmap=canvas.SEQUENTIAL,
            alpha=0.8,
            linewidths=0,
        )
        bar = ax.figure.colorbar(dots, ax=ax, shrink=0.7, pad=0.02)
        bar.set_label("label", color=canvas.MUTED, fontsize=8.5)
        bar.ax.tick_params(colors=canvas.MUTED, labelsize=8)
        bar.outline.set_visible(False)
    else:
        for name, rows, color, mark in groups(labels):
            x, y = points[rows].T
            ax.scatter(x, y, size, color=color, marker=mark, alpha=0.75,
                       linewidths=0, label=canvas.safe(name, 18))  # fmt: skip
        _name_in_place(ax, points, labels)


def _name_in_place(ax: Axes, points: NDArray[np.float64], labels: Labels) -> None:
    """Each class's name where its points are: nobody has to match colours with a legend."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=canvas.PAPER)]
    for name, rows, _, _ in groups(labels):
        if name in labels.names and len(name) <= 12 and len(rows) > 2:
            x, y = np.median(points[rows], axis=0)
            ax.text(x, y, canvas.safe(name), color=canvas.INK, fontsize=9, weight="bold",
                    ha="center", va="center", path_effects=halo)  # fmt: skip


def _one_number(ax: Axes, values: NDArray[np.float64], labels: Labels | None) -> None:
    edges = np.histogram_bin_edges(values, bins=30).tolist()
    if labels is None or not labels.names:
        ax.hist(values, edges, color=canvas.MODEL)
        return
    found = groups(labels)
    ax.hist(
        [values[rows] for _, rows, _, _ in found],
        edges,
        stacked=True,
        color=[color for _, _, color, _ in found],
        label=[canvas.safe(name, 18) for name, _, _, _ in found],
    )


def histogram(histogram: Histogram, means: dict[str, float]) -> Figure:
    """How many rows have which error, the model's and PCA's over each other, their means marked."""
    figure = canvas.new_figure(4.4, 3.3)
    ax = figure.subplots()
    colors = (canvas.MODEL, canvas.PCA)
    for (name, counts), color in zip(histogram.counts.items(), colors, strict=False):
        ax.stairs(counts, histogram.edges, fill=True, color=color, alpha=0.25)
        ax.stairs(counts, histogram.edges, color=color, lw=1.4, label=name)
        mean = means[name]
        ax.axvline(mean, color=color, lw=1.2, ymax=0.76, ls=(0, (4, 3)), label=f"mean {mean:.3g}")
    if histogram.logarithmic:
        _logarithmic(ax, "x")
    ax.margins(y=0.3)  # room for the legend
    canvas.tidy(ax, x="mean squared error per element", y="rows")
    canvas.legend(ax, ncols=2, loc="upper left")
    return figure


def against(errors: NDArray[np.float64], pca: NDArray[np.float64], log: bool) -> Figure:
    """Each row's error by the model over its error by PCA; below the line the model is better."""
    figure = canvas.new_figure(4.4, 3.3)
    ax = figure.subplots()
    size = float(np.clip(4000 / len(errors), 4, 30))
    ax.scatter(pca, errors, size, color=canvas.MODEL, alpha=0.5, linewidths=0)
    low, high = min(pca.min(), errors.min()), max(pca.max(), errors.max())
    ax.plot([low, high], [low, high], color=canvas.PCA, lw=1.2)
    if log:
        _logarithmic(ax, "x")
        _logarithmic(ax, "y")
    ax.text(0.97, 0.04, "model better", transform=ax.transAxes, ha="right", fontsize=8.5,
            color=canvas.MODEL)  # fmt: skip
    ax.text(0.03, 0.93, "PCA better", transform=ax.transAxes, fontsize=8.5, color=canvas.PCA)
    canvas.tidy(ax, x="PCA's error", y="the model's error")
    return figure


def _logarithmic(ax: Axes, axis: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set(**{f"{axis}scale": "log"})
    chosen = ax.xaxis if axis == "x" else ax.yaxis
    chosen.set_major_locator(LogLocator(subs=(1, 2, 5)))
    chosen.set_major_formatter("{x:g}")
    chosen.set_minor_formatter(NullFormatter())


def training(
    history: list[dict[str, Any]], validation: list[float], best: int
) -> dict[str, Figure]:
    """The training loss with its named terms, and the validation score, over the epochs."""
    epochs = np.array([record["epoch"] for record in history])
    figure = canvas.new_figure(4.4, 3.0)
    ax = figure.subplots()
    known = {"epoch", "step", "seconds", "validation", "learning_rate"}
    names = [name for name in history[0] if name not in known] if history else []
    curves = {name: _curve(history, name) for name in names}
    drawn = [name for name in curves if name == "loss" or not _same(curves[name], curves["loss"])]
    for name, color in zip(drawn, (canvas.MODEL, *canvas.CLASSES[1:]), strict=False):
        ax.plot(epochs, curves[name], color=color, lw=1.5, label=canvas.safe(name), **_mark(epochs))
    _whole_epochs(ax)
    canvas.tidy(ax, x="epoch", y="nats per sample", title="Training loss")
    if len(drawn) > 1:
        canvas.legend(ax)
    drawn_figures = {"loss": figure}
    if validation:
        drawn_figures["validation"] = _validation(np.asarray(validation, dtype=np.float64), best)
    return drawn_figures


def _validation(scores: NDArray[np.float64], best: int) -> Figure:
    figure = canvas.new_figure(4.4, 3.0)
    ax = figure.subplots()
    epochs = np.arange(len(scores))
    ax.plot(epochs, scores, color=canvas.MODEL, lw=1.5, **_mark(epochs))
    ax.axhline(scores[0], color=canvas.MUTED, lw=1.0, ls=(0, (4, 3)))
    ax.annotate("before training", (epochs[-1], scores[0]), xytext=(0, 3), ha="right",
                textcoords="offset points", color=canvas.MUTED, fontsize=8)  # fmt: skip
    if 0 <= best < len(scores):
        ax.plot(best, scores[best], "o", color=canvas.INK, ms=5)
        ax.annotate(f"kept: epoch {best}", (best, scores[best]), xytext=(0, 8), ha="center",
                    textcoords="offset points", color=canvas.INK, fontsize=8)  # fmt: skip
    ax.margins(x=0.08, y=0.15)
    positive = scores[np.isfinite(scores)]
    if len(positive) and positive.min() > 0 and positive.max() > 5 * positive.min():
        ax.set_yscale("log")
    _whole_epochs(ax)
    canvas.tidy(ax, x="epoch", y="validation score", title="Validation (lower is better)")
    return figure


def _whole_epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _curve(history: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    # what was no number is None in a saved model, and a gap in the curve
    return np.array([record.get(name) for record in history], dtype=np.float64)


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.allclose(a, b, rtol=1e-4, equal_nan=True))


def _mark(epochs: NDArray[Any]) -> dict[str, Any]:
    """A line of one point is invisible without a mark."""
    return {"marker": "o"} if len(epochs) < 2 else {}
