"""What all pictures share: the palette, a clean figure, safe text, and the way to PNG.

Figures are made from `matplotlib.figure.Figure` directly, so that no global state of pyplot is
touched. They are drawn narrow, because a page is also read on a phone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito's colours for the two methods: told apart with every common kind of colour vision.
MODEL, PCA = "#0072B2", "#D55E00"
INK, MUTED, FAINT, PAPER = "#1c2430", "#667080", "#dfe3e8", "#ffffff"

# Petroff, "Accessible color sequences for data visualization" (2021), arXiv:2107.02270: ten.
CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip

DIVERGING, SEQUENTIAL = "PuOr_r", "viridis"
CODE_RANGE = (-2.5, 2.5)
DPI = 180


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure: ``name`` becomes its file's stem, ``alt`` says it in words."""

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    wide: bool = False


def new_figure(width: float = 4.4, height: float = 3.3) -> Figure:
    """An empty white figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def tidy(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Only the two axes that carry numbers, in quiet ink."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(which="both", colors=MUTED, labelsize=8, length=3)
    ax.set_xlabel(safe(x, 80), color=MUTED, fontsize=8.5)
    ax.set_ylabel(safe(y, 80), color=MUTED, fontsize=8.5)
    if title:
        ax.set_title(safe(title, 60), color=INK, fontsize=9.5, loc="left")


def whole(figure: Figure, title: str = "", color: str = INK) -> Axes:
    """One frame over the whole figure, without numbers, below a title where there is one."""
    height = figure.get_figheight()
    top = 0.3 if title else 0.0
    figure.set_layout_engine("none")
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0 - top / height))
    ax.set_axis_off()
    if title:
        figure.text(0.0, 1.0 - 0.2 / height, safe(title, 60), color=color, fontsize=9.5)
    return ax


def framed(ax: Axes) -> None:
    """No numbers, but a faint frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(FAINT)


def row_name(ax: Axes, text: str, color: str = INK) -> None:
    """A name to the left of a row of pictures."""
    ax.set_ylabel(
        safe(text), rotation=0, ha="right", va="center", color=color, fontsize=8.5, labelpad=6
    )


def legend(ax: Axes, **more: Any) -> None:
    """A legend without a box."""
    ax.legend(frameon=False, fontsize=8, labelcolor=INK, **more)


def code_cells(code: NDArray[Any]) -> NDArray[np.float64]:
    """A code (k,) as rows of at most 16 cells; the cells left over are NaN, which is not drawn."""
    rows = -(-len(code) // 16)
    columns = -(-len(code) // rows)
    cells = np.full(rows * columns, np.nan)
    cells[: len(code)] = code
    return cells.reshape(rows, columns)


def draw_code(ax: Axes, code: NDArray[Any]) -> None:
    """A code as coloured cells, in standard deviations of each number."""
    low, high = CODE_RANGE
    ax.imshow(code_cells(code), cmap=DIVERGING, vmin=low, vmax=high, aspect="auto")
    framed(ax)


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def safe(text: str, longest: int = 40) -> str:
    """Text from outside that can be drawn: no formula marks, no missing glyphs, not endless."""
    known = _glyphs()
    drawn = "".join(c if ord(c) in known else "\N{WHITE SQUARE}" for c in str(text))
    drawn = drawn if len(drawn) <= longest else drawn[: longest - 1] + "…"
    return drawn.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap()) | {ord("\n")}
