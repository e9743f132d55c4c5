"""Figures of a report: the shared style, the map of codes, the training curves, the errors.

Figures are made from `matplotlib.figure.Figure` directly, so the global state of pyplot is not
touched. They are drawn narrow (4.4 inches), because a page is also read on a phone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpecBase
    from numpy.typing import NDArray

    from narrows.report.measures import Histogram, Labels

# Okabe and Ito's blue and vermilion: distinguishable with every common colour deficiency.
MODEL, PCA = "#0072B2", "#D55E00"
INK, MUTED, FAINT, PAPER = "#1c2430", "#667080", "#dfe3e8", "#ffffff"
GREY_CLASS = "#c3c9d1"  # all classes that have no colour of their own

# Petroff, "Accessible color sequences for data visualization" (2021), arXiv:2107.02270: ten.
CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MAX_COLOURS = 10  # classes distinguished by colour alone
MAX_MARKED = 20  # classes distinguished by colour and marker; with more, the rest is grey

DIVERGING, SEQUENTIAL = "PuOr_r", "viridis"
CODE_RANGE = (-2.5, 2.5)  # standard deviations shown by the colours of a code
CODE_COLUMNS = 16  # cells in a row of a drawn code
DPI = 180  # sharp at twice the width at which a page shows a figure
MIN_LABEL_GAP = 0.06  # between two names on a map, as a share of its extent
DASHED = (0, (4, 3))

# ------------------------------------------------------------------ style


def new_figure(width: float = 4.4, height: float = 3.3) -> Figure:
    """An empty white figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def new_axes(height: float = 3.3) -> tuple[Figure, Axes]:
    """A figure of the usual width with one pair of axes."""
    figure = new_figure(4.4, height)
    return figure, figure.subplots()


def full_axes(figure: Figure, title: str = "", color: str = INK) -> Axes:
    """Axes over the whole figure, without ticks, below ``title`` if there is one."""
    height = figure.get_figheight()
    top = 0.3 if title else 0.0  # inches for the title
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0 - top / height))
    ax.set_axis_off()
    if title:
        figure.text(0.0, 1.0 - 0.2 / height, safe_text(title, 60), color=color, fontsize=9.5)
    return ax


class Drawing(NamedTuple):
    """Something that ``draw`` draws into axes; ``width`` by ``height`` inches suit it."""

    width: float
    height: float
    draw: Callable[[Axes], None]
    full: bool = False  # in a figure of its own it covers all of it

    def figure(self) -> Figure:
        """It alone, in a new figure."""
        figure = new_figure(self.width, self.height)
        self.draw(full_axes(figure) if self.full else figure.subplots())
        return figure


def split_axes(ax: Axes, ratios: Sequence[float], *, across: bool = False) -> list[Axes]:
    """Axes in the place of ``ax``, which is hidden: below one another, or side by side."""
    ax.set_axis_off()
    n, spec, figure = len(ratios), ax.get_subplotspec(), ax.figure
    shape, widths, heights = ((1, n), ratios, None) if across else ((n, 1), None, ratios)
    grid: GridSpecBase
    if spec is None:  # axes at a place of their own
        box = ax.get_position()
        place = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid = figure.add_gridspec(*shape, width_ratios=widths, height_ratios=heights, **place)
    else:
        grid = spec.subgridspec(*shape, width_ratios=widths, height_ratios=heights)
    return [figure.add_subplot(grid[i]) for i in range(n)]


def style_axes(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Only the left and the bottom axis, in grey, with labels ``x`` and ``y``."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(which="both", colors=MUTED, labelsize=8, length=3)
    ax.set_xlabel(safe_text(x, 80), color=MUTED, fontsize=8.5)
    ax.set_ylabel(safe_text(y, 80), color=MUTED, fontsize=8.5)
    if title:
        style_title(ax, title)


def style_title(ax: Axes, title: str) -> None:
    """A title at the left end."""
    ax.set_title(safe_text(title, 60), color=INK, fontsize=9.5, loc="left")


def code_cells(code: NDArray[Any]) -> NDArray[np.float64]:
    """A code (k,) as rows of at most 16 cells; unused cells are NaN, which is not drawn."""
    rows = -(-len(code) // CODE_COLUMNS)
    columns = -(-len(code) // rows)
    cells = np.full(rows * columns, np.nan)
    cells[: len(code)] = code
    return cells.reshape(rows, columns)


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def safe_text(text: str, max_length: int = 40) -> str:
    """Any text made drawable: no math markup, no missing glyphs, at most ``max_length`` long."""
    known = _glyphs()
    drawn = "".join(c if ord(c) in known else "\N{WHITE SQUARE}" for c in str(text))
    drawn = drawn if len(drawn) <= max_length else drawn[: max_length - 1] + "…"
    return drawn.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap()) | {ord("\n")}


# ------------------------------------------------------------------ the map of codes


def code_map(
    points: NDArray[np.float64],
    labels: Labels | None,
    names: list[str],
    title: str,
    frame: NDArray[np.float64] | None = None,
) -> Figure:
    """Points (n, 2) coloured by their labels; ``frame`` ((x0, x1), (y0, y1)) marks a region.

    Codes of one number, (n, 1), are shown as a histogram. ``names`` are those of the axes.
    """
    figure, ax = new_axes(3.0 if points.shape[1] == 1 else 4.3)
    draw_code_map(ax, points, labels, names, title, frame)
    class_legend(figure, ax, labels, loc="outside lower center")
    return figure


def draw_code_map(
    ax: Axes,
    points: NDArray[np.float64],
    labels: Labels | None,
    names: list[str],
    title: str,
    frame: NDArray[np.float64] | None = None,
) -> None:
    """The map of `code_map` in given axes, without its legend."""
    one_number = points.shape[1] == 1
    if one_number:
        _histogram_by_class(ax, points[:, 0], labels)
    else:
        _scatter_by_class(ax, points, labels)
    if frame is not None:
        x, y = frame[0, [0, 1, 1, 0, 0]], frame[1, [0, 0, 1, 1, 0]]
        ax.plot(x, y, color=INK, lw=0.8, ls=DASHED)
    style_axes(ax, x=names[0], y="rows" if one_number else names[1], title=title)


def class_legend(owner: Figure | Axes, ax: Axes, labels: Labels | None, **place: Any) -> None:
    """The names of the classes drawn in ``ax``, as a legend of ``owner``."""
    from matplotlib.collections import PathCollection

    handles, classes = ax.get_legend_handles_labels()
    if labels is None or not labels.names or len(handles) < 2:
        return
    legend = owner.legend(
        handles, classes, ncols=5, frameon=False, fontsize=8, labelcolor=INK, handletextpad=0.2,
        columnspacing=1.0, **place,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # dots, too small to see their colour
            handle.set_sizes([28])
            handle.set_alpha(1.0)


def _class_styles(labels: Labels) -> list[tuple[str, NDArray[np.intp], str, str]]:
    """(name, rows, colour, marker) of each class; of many only the largest, the rest grey."""
    counts = np.bincount(labels.index, minlength=len(labels.names))
    present = np.flatnonzero(counts)
    shown = present
    if len(present) > MAX_MARKED:
        shown = np.sort(present[np.argsort(-counts[present], kind="stable")][:MAX_COLOURS])
    styles = []
    rest = np.flatnonzero(~np.isin(labels.index, shown))
    if len(rest):  # first, so that it lies below the others
        styles.append((f"{len(present) - len(shown)} others", rest, GREY_CLASS, "o"))
    for place, kind in enumerate(shown):
        rows = np.flatnonzero(labels.index == kind)
        marker = "o" if place < MAX_COLOURS else "^"
        styles.append((labels.names[kind], rows, CLASSES[place % MAX_COLOURS], marker))
    return styles


def _dot_size(n: int) -> float:
    """The area of a scatter's dots: smaller for more points."""
    return float(np.clip(4000 / max(n, 1), 4, 30))


def _scatter_by_class(ax: Axes, points: NDArray[np.float64], labels: Labels | None) -> None:
    x, y = points.T
    size = _dot_size(len(points))
    if labels is None:
        ax.scatter(x, y, size, color=MODEL, alpha=0.5, linewidths=0)
        return
    if not labels.names:
        dots = ax.scatter(x, y, size, labels.values, cmap=SEQUENTIAL, alpha=0.8, linewidths=0)
        bar = ax.figure.colorbar(dots, ax=ax, shrink=0.7, pad=0.02)
        bar.set_label("label", color=MUTED, fontsize=8.5)
        bar.ax.tick_params(colors=MUTED, labelsize=8)
        bar.outline.set_visible(False)
        return
    from matplotlib.patheffects import withStroke

    styles = _class_styles(labels)
    for name, rows, color, marker in styles:
        ax.scatter(x[rows], y[rows], size, color=color, marker=marker, alpha=0.75, linewidths=0,
                   label=safe_text(name, 18))  # fmt: skip
    halo = [withStroke(linewidth=2.5, foreground=PAPER)]
    written: list[NDArray[np.float64]] = []
    extent = np.array([np.ptp(x) or 1.0, np.ptp(y) or 1.0])
    for name, rows, _, _ in styles:  # short names are also written in the middle of their class
        if name not in labels.names or len(name) > 12 or len(rows) <= 2:
            continue
        room = MIN_LABEL_GAP * np.array([0.5 + 0.5 * len(name), 1.0])
        place = _free_place(points[rows] / extent, written, room)
        if place is not None:
            written.append(place)
            at = place * extent
            ax.text(at[0], at[1], safe_text(name), color=INK, fontsize=9, weight="bold",
                    ha="center", va="center", path_effects=halo)  # fmt: skip


def _free_place(
    points: NDArray[np.float64], taken: list[NDArray[np.float64]], room: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The median of a class's points, or its point nearest to there that is clear of those taken.

    None if no point has ``room``, the least distance along both axes.
    """
    middle = np.median(points, axis=0)
    order = np.argsort(np.square(points - middle).sum(axis=1), kind="stable")
    places = np.vstack([middle, points[order]])
    apart = np.abs(places[:, None] - np.reshape(taken, (-1, 2))) > room
    clear = np.all(np.any(apart, axis=2), axis=1)
    return next(iter(places[clear]), None)


def _histogram_by_class(ax: Axes, values: NDArray[np.float64], labels: Labels | None) -> None:
    edges = np.histogram_bin_edges(values, bins=30).tolist()
    if labels is None or not labels.names:
        ax.hist(values, edges, color=MODEL)
        return
    names, rows, colors, _ = zip(*_class_styles(labels), strict=True)
    some = [values[r] for r in rows]
    shown = [safe_text(name, 18) for name in names]
    ax.hist(some, edges, stacked=True, color=list(colors), label=shown)


# ------------------------------------------------------------------ errors


def error_histogram(histogram: Histogram, means: dict[str, float]) -> Figure:
    """How many rows have which error, the model's and PCA's over each other, with their means."""
    figure, ax = new_axes()
    # the second is thinner, so that lines that coincide are both seen
    styles = zip(histogram.counts.items(), (MODEL, PCA), (3.0, 1.2), strict=False)
    for (name, counts), color, width in styles:
        mean = means[name]
        ax.stairs(counts, histogram.edges, fill=True, color=color, alpha=0.25)
        ax.stairs(counts, histogram.edges, color=color, lw=width, label=name)
        ax.axvline(mean, color=color, lw=width, ymax=0.76, ls=DASHED, label=f"mean {mean:.3g}")
    if histogram.logarithmic:
        _logarithmic(ax, "x")
    ax.margins(y=0.3)  # room for the legend
    style_axes(ax, x="mean squared error per element", y="rows")
    ax.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2, loc="upper left")
    return figure


def error_scatter(errors: NDArray[np.float64], pca: NDArray[np.float64], log: bool) -> Figure:
    """Each row's error by the model over its error by PCA; below the line the model is better."""
    figure, ax = new_axes()
    ax.scatter(pca, errors, _dot_size(len(errors)), color=MODEL, alpha=0.5, linewidths=0)
    low, high = min(pca.min(), errors.min()), max(pca.max(), errors.max())
    ax.plot([low, high], [low, high], color=PCA, lw=1.2)
    if log:
        _logarithmic(ax, "x")
        _logarithmic(ax, "y")
    ax.text(0.97, 0.04, "model better", transform=ax.transAxes, ha="right", fontsize=8.5,
            color=MODEL)  # fmt: skip
    ax.text(0.03, 0.93, "PCA better", transform=ax.transAxes, fontsize=8.5, color=PCA)
    style_axes(ax, x="PCA's error", y="the model's error")
    return figure


def _logarithmic(ax: Axes, name: str) -> None:
    """Make the axis ``name`` logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set(**{f"{name}scale": "log"})
    axis = ax.xaxis if name == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------ training


def training_loss(history: list[dict[str, float]]) -> Figure:
    """The training loss and its named terms over the epochs of ``history``."""
    figure, ax = new_axes(3.0)
    epochs = np.array([record["epoch"] for record in history])
    no_term = {"epoch", "step", "seconds", "validation", "learning_rate"}
    names = [name for name in (history[0] if history else {}) if name not in no_term]
    # a value that was no number is None in a saved model: a gap in the curve
    values = {name: [record.get(name) for record in history] for name in names}
    curves = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
    for name in names:  # a model with one term has the loss twice
        same = np.allclose(curves[name], curves["loss"], rtol=1e-4, equal_nan=True)
        if same and name != "loss":
            del curves[name]
    # each is thinner than the one before: lines that coincide are all seen
    widths = np.linspace(1.2 * len(curves), 1.2, len(curves)).clip(max=4.0)
    styles = zip(curves.items(), (MODEL, *CLASSES[1:]), widths, strict=False)
    for (name, curve), color, width in styles:
        ax.plot(epochs, curve, color=color, lw=width, label=safe_text(name), marker=_marker(epochs))
    _integer_ticks(ax)
    style_axes(ax, x="epoch", y="nats per sample", title="Training loss")
    if len(curves) > 1:
        ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def validation_curve(scores: NDArray[np.float64], best: int) -> Figure:
    """The validation score after each epoch, from epoch 0; ``best`` is the epoch kept."""
    figure, ax = new_axes(3.0)
    epochs = np.arange(len(scores))
    note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
    ax.plot(epochs, scores, color=MODEL, lw=1.5, marker=_marker(epochs))
    ax.axhline(scores[0], color=MUTED, lw=1.0, ls=DASHED)
    ax.annotate("before training", (epochs[-1], scores[0]), xytext=(0, 3), ha="right", color=MUTED,
                **note)  # fmt: skip
    if 0 <= best < len(scores):
        ax.plot(best, scores[best], "o", color=INK, ms=5)
        ax.annotate(f"kept: epoch {best}", (best, scores[best]), xytext=(0, -7), ha="center",
                    va="top", color=INK, **note)  # fmt: skip
    ax.margins(x=0.1, y=0.22)
    finite = scores[np.isfinite(scores)]
    if len(finite) and finite.min() > 0 and finite.max() > 5 * finite.min():
        ax.set_yscale("log")
    _integer_ticks(ax)
    style_axes(ax, x="epoch", y="validation score", title="Validation (lower is better)")
    return figure


def _integer_ticks(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _marker(epochs: NDArray[Any]) -> str | None:
    """A line of one point is invisible without a marker."""
    return "o" if len(epochs) < 2 else None
