"""The points of a map and what a page shows of them: codes, errors, labels, originals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narrows.estimators.base import Estimator, with_feature_names
from narrows.estimators.fit_setup import unobserved
from narrows.estimators.validation import Given, in_steps
from narrows.exceptions import InputError
from narrows.io.sources import has_any
from narrows.maps.map_quality import sampled_rows
from narrows.maps.thumbnails import MAX_SIDE, ON_SHEET, Thumbnails, make_thumbnails, shrunk
from narrows.report.manifold import CodeMap, code_map
from narrows.report.measures import Labels, parse_labels
from narrows.report.sample_figures import (
    MAX_NAMED,
    ImagePlotter,
    Plotter,
    TablePlotter,
    choose_plotter,
)
from narrows.training.batches import inference_batch

MAX_POINTS = 1_000_000
MAX_NUMBERS = 6_000_000  # of codes and of a table's originals in a page: 24 MB
MAX_PIXELS = 2**28  # of all thumbnails, in memory
RANGE_ROWS = 200

Painter = dict[str, Any]  # how the page draws a row; JSON


@dataclass(frozen=True)
class MapPoints:
    """The rows on a map: all of ``n_given``, or those of ``numbers``."""

    n_given: int
    numbers: NDArray[np.intp] | None  # None: all rows, in order
    codes: NDArray[np.float32]  # (n, k)
    errors: NDArray[np.float32]  # (n,) mean squared error per number, scaled units
    view: CodeMap
    labels: Labels | None  # of the points
    all_labels: Labels | None  # of all rows given
    painter: Painter
    originals: NDArray[Any] | None  # (n, d) of tables and signals: float32, or float64 if need be
    thumbnails: Thumbnails | None  # of images
    seed: int
    noun: str
    note: str  # what is special about the drawing of a row

    @property
    def sheets(self) -> list[bytes]:
        """The thumbnails' files."""
        return [] if self.thumbnails is None else self.thumbnails.sheets

    @property
    def thumbnail_note(self) -> str:
        """What is not exact about the originals shown."""
        found = self.thumbnails
        if found is None:
            return ""
        exact = found.lossless and [found.height, found.width] == self.painter["shape"][1:]
        if exact and found.n == len(self.codes):
            return ""
        note = "The originals are shown smaller, or compressed with a loss, to keep the page small."
        if found.n < len(self.codes):
            note += f" Only the first {found.n:,} points have one."
        return note

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each number of the codes."""
        return np.asarray(self.codes.mean(0, dtype=np.float64))

    @cached_property
    def deviation(self) -> NDArray[np.float64]:
        """Their standard deviations."""
        return np.asarray(self.codes.std(0, dtype=np.float64))

    @cached_property
    def jitter(self) -> NDArray[np.float64]:
        """Heights for codes of one number, a tenth of their range."""
        reach = 0.1 * float(np.ptp(self.codes)) or 1.0
        return np.random.default_rng(self.seed).uniform(-reach, reach, len(self.codes))


def collect_points(
    model: Estimator,
    rows: Given,
    y: ArrayLike | None,
    names: list[str] | None,
    seed: int,
) -> MapPoints:
    """Codes, errors and originals of checked rows, or of a sample of very many.

    Raises `InputError` for labels that do not fit, and without any row with a value.
    """
    labels = None if y is None else parse_labels(y, len(rows))
    full = np.delete(np.arange(len(rows)), unobserved(rows))
    if not len(full):
        raise InputError("X has no row with a value; a map needs at least one.")
    kept = full[sampled_rows(len(full), _most_points(model), seed)]
    # scikit-learn warns when a model fitted on named columns is given arrays
    bare = with_feature_names(model, None)
    some = kept[:: -(-len(kept) // RANGE_ROWS)]  # by which an image's black and white are chosen
    plotter = choose_plotter(bare, np.concatenate(list(taken_rows(model, rows, some))), names)
    codes, errors, originals = [], [], []
    for part in taken_rows(model, rows, kept):
        codes.append(bare._codes(part))
        errors.append(-bare.score_samples(part))
        originals.append(_shown(plotter, part))
    Z, found = np.concatenate(codes), np.concatenate(originals)
    thumbnails = make_thumbnails(found) if isinstance(plotter, ImagePlotter) else None
    return MapPoints(
        n_given=len(rows),
        numbers=None if len(kept) == len(rows) else kept,
        codes=Z,
        errors=np.concatenate(errors).astype(np.float32),
        view=code_map(Z),
        labels=None if labels is None else labels[kept],
        all_labels=labels,
        painter=_painter(plotter, model, found, thumbnails),
        originals=None if thumbnails is not None else found,
        thumbnails=thumbnails,
        seed=seed,
        noun=plotter.noun,
        note=plotter.note if isinstance(plotter, ImagePlotter) else "",
    )


def _most_points(model: Estimator) -> int:
    """The number of points whose codes and originals fit a page and memory."""
    layout = model.state_.spec.layout
    if layout.axes not in ("HW", "CHW", "HWC"):
        each = model._code_width() + 2 * layout.n_features  # float64
        return min(MAX_POINTS, max(1, MAX_NUMBERS // each))
    pixels = 3 * min(MAX_SIDE**2, math.prod(layout.shape[-2:]))
    return min(MAX_POINTS, MAX_NUMBERS // model._code_width(), MAX_PIXELS // pixels)


def column_names(model: Estimator, X: Any, given: Sequence[str] | None) -> list[str] | None:
    """The names of a table's columns: those given, of a frame, or of the fit.

    Raises `InputError` unless there is one for each column.
    """
    names = X.columns if given is None and has_any(X, "columns") else given
    names = model.state_.spec.feature_names if names is None else names
    n = model.state_.spec.layout.n_features
    if names is not None and len(names) != n:
        raise InputError(
            f"There are {len(names)} feature names for {n} features; give one for each."
        )
    return None if names is None else [str(name) for name in names]


def taken_rows(model: Estimator, rows: Given, kept: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
    """The rows of these numbers as the user gives them, block by block."""
    layout = model.state_.spec.layout
    for start, part in in_steps(rows, inference_batch(layout.shape)):
        inside = slice(*np.searchsorted(kept, (start, start + len(part))))
        if inside.start < inside.stop:
            yield layout.from_model(part[kept[inside] - start], rows.dtype.str)


def _shown(plotter: Plotter, rows: NDArray[Any]) -> NDArray[Any]:
    """What a page shows of rows: images as bytes, at most 64 pixels high and wide, else numbers."""
    if not isinstance(plotter, ImagePlotter):
        flat = np.asarray(rows, np.float64).reshape(len(rows), -1)
        narrow = flat.astype(np.float32)
        return narrow if np.array_equal(narrow, flat, equal_nan=True) else flat
    pixels = np.floor(plotter.pixels(np.nan_to_num(rows)) * 255 + 0.5).astype(np.uint8)
    return shrunk(pixels, MAX_SIDE)


def _painter(
    plotter: Plotter, model: Estimator, shown: NDArray[Any], found: Thumbnails | None
) -> Painter:
    """How the page draws a row, for `makePainter` in templates/panel.js."""
    shape = list(model.state_.spec.layout.shape)
    ends: Painter
    if isinstance(plotter, ImagePlotter):
        assert found is not None
        sheet = {"width": found.width, "height": found.height, "columns": found.columns,
                 "n": found.n, "on_sheet": ON_SHEET}  # fmt: skip
        ends = {"low": float(plotter.low), "high": float(plotter.high)}
        return {"kind": "image", "shape": shape, **ends, "thumbnails": sheet}
    known = np.ma.masked_invalid(shown)
    low, high = known.min(axis=0).filled(0.0), known.max(axis=0).filled(0.0)
    if isinstance(plotter, TablePlotter):
        columns = np.sort(plotter.ranked[:MAX_NAMED]).tolist()
        named = {"names": plotter.names, "columns": columns, "d": len(low)}
        ends = {"low": low.tolist(), "high": high.tolist()}
        return {"kind": "table", "shape": shape, **named, **ends}
    ends = {"low": [float(low.min())], "high": [float(high.max())]}
    return {"kind": "signal", "shape": shape, **ends}
