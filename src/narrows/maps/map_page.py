"""The page of a map: one HTML file with points, originals and the decoder, which needs no server.

`write_map` collects what the page shows (`collect_points`), packs it, and fills the template
``templates/map.html.jinja``. The page's program is in ``templates``: decoder.js computes g,
points.js draws the map, panel.js draws rows, live.js asks the server of `narrows explore`, and
map.js is what happens on hover and drag.
"""

from __future__ import annotations

import base64
import colorsys
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narrows.estimators.base import Estimator, with_feature_names
from narrows.estimators.class_conditional import ClassConditional
from narrows.exceptions import ParameterError
from narrows.io.sources import has_any
from narrows.io.write import PAGES, atomic_write, check_output
from narrows.maps.geometry import GAP_COST, GRID, STEPS, check_estimator, metric_grid
from narrows.maps.map_points import MapPoints, collect_points, column_names, taken_rows
from narrows.maps.map_quality import sampled_rows
from narrows.maps.map_scores import MIN_ROWS, MapScore, compare_maps
from narrows.maps.page_decoder import page_decoder
from narrows.report.figures import CLASSES
from narrows.report.formatting import count, percent, significant
from narrows.report.manifold import attribute_directions, code_effects
from narrows.report.measures import measured_rows
from narrows.report.page import asset, template

if TYPE_CHECKING:
    from narrows.estimators.validation import Given
    from narrows.report.measures import Labels, Measured

PACKAGE = "narrows.maps"
PROGRAM = ("decoder.js", "points.js", "panel.js", "live.js", "map.js")
QUALITY_ROWS = 2000  # on which maps are compared: t-SNE takes some seconds for them
MAX_QUALITY_NUMBERS = 2**26  # of these rows: 256 MiB
MAX_EFFECT_NUMBERS = 2**23  # of the rows by which effects are measured
POOR = 0.8  # trustworthiness below which near points are not said to be alike
MAX_SLIDERS = 8  # numbers of the code that can be moved
MAX_DIRECTIONS = 50  # classes to move towards
MAX_COLORED_COLUMNS = 200  # of a table, offered as colours
# viridis without its palest end, which is hard to see on white
RAMP = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39")


def write_map(
    model: Estimator,
    X: Any,
    path: str | Path,
    *,
    y: ArrayLike | None = None,
    feature_names: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
    random_state: int = 0,
) -> Path:
    """Write the map of rows X, their codes, as one HTML page that decodes wherever one points.

    The page holds points, originals and the decoder: it needs no server, no network and no other
    file. If X is the data that the model was fitted on, the quality of the map is measured on the
    rows that were held out, beside PCA's and t-SNE's maps of the same rows. Codes of more than two
    numbers are projected, and the page says how much that hides.

    Parameters
    ----------
    model : fitted estimator
        Such as ``NeighborAutoencoder(latent_dim=2)``.
    X : array of shape (n, \\*input_shape_)
        Of very many rows a random sample is shown, and the page says so.
    path : str or Path
        The page's file, .html.
    y : array of shape (n,), optional
        Labels: classes or measurements.
    feature_names : list of str, optional
        Names of a table's columns.
    title : str, optional
        Default: the model's class name.
    overwrite : bool
        Replace a page that exists.
    random_state : int
        Seed of what is drawn at random.

    Returns
    -------
    Path
        The page's path.

    Raises
    ------
    FileError
        The page exists, or there is no folder to write to.
    InputError
        X has no row with a value, or labels do not fit the rows.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from narrows import NeighborAutoencoder
    >>> from narrows.maps import write_map
    >>> X, y = load_digits(return_X_y=True)
    >>> model = NeighborAutoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X[:300])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_map(model, X[300:400], folder + "/map.html", y=y[300:400]).name
    'map.html'
    """
    path = Path(path)
    check_output(path, PAGES, overwrite=overwrite)
    text = map_html(
        model, X, y=y, feature_names=feature_names, title=title, random_state=random_state
    )
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")
    return path


def map_html(
    model: Estimator,
    X: Any,
    *,
    y: ArrayLike | None = None,
    feature_names: Sequence[str] | None = None,
    title: str | None = None,
    live: dict[str, Any] | None = None,
    random_state: int = 0,
) -> str:
    """The page that `write_map` writes; with ``live`` it also asks a server, see live.js.

    A live page is compared with PCA alone: it should open at once.
    """
    check_estimator(model)
    fitted = model
    if not has_any(X, "columns"):  # scikit-learn warns when a model of a frame is given arrays
        model = with_feature_names(model, None)
    rows = model._validate(X)
    names = column_names(fitted, X, feature_names)
    points = collect_points(model, rows, y, names, random_state)
    measured = measured_rows(model, X)
    scores = _scores(model, rows, measured, points, random_state, layouts=live is None)
    arrays = _Arrays()
    spec: dict[str, Any] = {"live": live, **_spec(model, points, arrays), "arrays": arrays.places}
    decodes = bool(spec["decoder"] or live)
    spec |= _walks(model, points) if decodes else {"effects": [], "directions": {}}
    script = "".join(asset(name, PACKAGE) for name in PROGRAM)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    style = asset("page.css") + asset("map.css", PACKAGE)
    return template("map.html.jinja", PACKAGE).render(
        title=title or type(model).__name__,
        headline=_headline(points, scores),
        notes=_notes(model, points, spec),
        scores=scores,
        spec=spec,
        spec_json=_json(spec),
        arrays=arrays.encoded(),
        sheets=[_base64(sheet) for sheet in points.sheets],
        style=style,
        script=script,
        style_hash=_hash(f"\n{style}"),
        script_hash=_hash(f"\n{script}"),
        decodes=decodes,
        noun=points.noun,
        significant=significant,
    )


class Scores(NamedTuple):
    """The compared maps, and a sentence on the rows measured."""

    maps: list[MapScore]
    note: str


def _scores(
    model: Estimator,
    rows: Given,
    measured: Measured,
    points: MapPoints,
    seed: int,
    *,
    layouts: bool,
) -> Scores:
    """The map's quality on rows held out, and which rows these are, in words."""
    most = max(1, min(QUALITY_ROWS, MAX_QUALITY_NUMBERS // model.state_.spec.layout.n_features))
    chosen = measured.rows[sampled_rows(len(measured.rows), most, seed)]
    X = np.concatenate(list(taken_rows(model, rows, chosen)))
    whole = np.isfinite(np.asarray(X, np.float64).reshape(len(X), -1)).all(1)
    X, kept = X[whole], chosen[whole]
    if len(kept) < MIN_ROWS:
        return Scores(
            [],
            f"Quality is measured from {MIN_ROWS} rows without missing values on; here are "
            f"{len(kept)}.",
        )
    labels = points.all_labels
    y = labels.index[kept] if labels is not None and labels.names else None
    bare = with_feature_names(model, None)  # X is an array, also where a frame was given
    found = compare_maps(bare, X, y, view=points.view, layouts=layouts, random_state=seed)
    what = measured.in_words(points.n_given)
    how = [", drawn at random"] if len(chosen) < len(measured.rows) else []
    how += [", without missing values"] if len(kept) < len(chosen) else []
    some = f"{count(len(kept), 'row')}{''.join(how)}, of " if how else ""
    return Scores(found, f"Measured on {some}{what}.")


def _spec(model: Estimator, points: MapPoints, arrays: _Arrays) -> dict[str, Any]:
    """What the page's program needs to know; arrays are added to ``arrays``."""
    view, labels = points.view, points.labels
    place = view.points(points.codes)
    y = place[:, 1] if place.shape[1] == 2 else points.jitter
    arrays.add("x", place[:, 0].astype(np.float32))
    arrays.add("y", y.astype(np.float32))
    arrays.add("codes", points.codes)
    arrays.add("errors", points.errors)
    if points.numbers is not None:
        arrays.add("rows", points.numbers.astype(np.uint32))
    if points.originals is not None:
        arrays.add("originals", points.originals)
    spec = {
        "n": len(points.codes),
        "k": points.codes.shape[1],
        "view": {
            "origin": view.origin.tolist(),
            "directions": view.directions.tolist(),
            "exact": view.exact,
        },
        "code": {"mean": points.mean.tolist(), "deviation": points.deviation.tolist()},
        "painter": points.painter,
        "label_title": "class" if labels is not None and labels.names else "label",
        "label_names": None,
        "ramp": RAMP,
        "class_colors": class_colors(len(labels.names) if labels is not None else 0),
        "decoder": None,
        "decoder_note": "",
        "grid": None,
    }
    _add_labels(spec, labels, arrays)
    spec["color_by"] = _colors(spec, points)
    try:
        decoder = page_decoder(model)
        spec["decoder"] = decoder.layers
        arrays.add("weights", decoder.weights)
    except ParameterError as error:
        spec["decoder_note"] = str(error)
        return spec
    _add_grid(spec, model, points, arrays)
    return spec


def _walks(model: Estimator, points: MapPoints) -> dict[str, Any]:
    """The numbers of the code with the largest effects, and the directions of the classes."""
    k, d = points.codes.shape[1], model.state_.spec.layout.n_features
    most = int(np.clip(min(10_000 // k, MAX_EFFECT_NUMBERS // d), 1, 500))
    effects = code_effects(model, points.codes, max_rows=most)
    largest = np.argsort(-effects, kind="stable")[:MAX_SLIDERS]
    directions: dict[str, list[float]] = {}
    if points.labels is not None and 1 < len(points.labels.names) <= MAX_DIRECTIONS:
        names = np.array(points.labels.names)[points.labels.index]
        if len(np.unique(names)) > 1:
            found = attribute_directions(points.codes, names)
            directions = {name: way.tolist() for name, way in found.items()}
    return {
        "effects": [[int(j), float(effects[j])] for j in largest],
        "directions": directions,
    }


def _add_labels(spec: dict[str, Any], labels: Labels | None, arrays: _Arrays) -> None:
    if labels is None:
        return
    if not labels.names:
        arrays.add("labels", labels.values)
        return
    spec["label_names"] = labels.names
    arrays.add("labels", labels.index.astype(np.uint16 if len(labels.names) < 2**16 else np.uint32))


def _add_grid(spec: dict[str, Any], model: Estimator, points: MapPoints, arrays: _Arrays) -> None:
    """The decoder's metric, for shortest paths and magnification, where codes are two numbers."""
    try:
        grid = metric_grid(model, points.codes)
    except ParameterError:
        return
    arrays.add("edges", grid.lengths)
    arrays.add("stretch", grid.stretch)
    arrays.add("gaps", grid.gaps)
    ends = {"low": grid.low.tolist(), "high": grid.high.tolist()}
    spec["grid"] = {"size": GRID, "steps": STEPS, "gap_cost": GAP_COST, **ends}


def _colors(spec: dict[str, Any], points: MapPoints) -> list[dict[str, Any]]:
    """What points can be coloured by."""
    found: list[dict[str, Any]] = []
    if points.labels is not None:
        names = {"names": points.labels.names} if points.labels.names else {}
        found.append({"id": "label", "name": spec["label_title"], **names})
    found.append({"id": "error", "name": "reconstruction error"})
    found += [{"id": f"code:{j}", "name": f"code z{j + 1}"} for j in range(min(64, spec["k"]))]
    if points.painter["kind"] == "table":
        names = points.painter["names"][:MAX_COLORED_COLUMNS]
        found += [{"id": f"column:{j}", "name": name} for j, name in enumerate(names)]
    return found


def class_colors(n: int) -> list[str]:
    """A colour for each class, at most 255: ten that all eyes distinguish, then more hues.

    >>> class_colors(11)[0], class_colors(11)[10]
    ('#3f90da', '#7a2e2e')
    """
    made = []
    for i in range(min(n, 255) - len(CLASSES)):  # a golden angle apart, in three lightnesses
        light = (0.33, 0.5, 0.68)[i % 3]
        red, green, blue = colorsys.hls_to_rgb(i * 0.618034 % 1, light, 0.45)
        made.append(f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return [*CLASSES[:n], *made]


# ------------------------------------------------------------------ words


def _headline(points: MapPoints, scores: Scores) -> str:
    rows = count(len(points.codes), points.noun)
    k = points.codes.shape[1]
    first = f"{rows}, each placed by its code of {count(k, 'number')}."
    if not scores.maps:
        return first
    model, *others = scores.maps
    pca = next((score for score in others if score.name == "PCA"), None)
    kept = f"trustworthiness {model.trustworthiness:.2f}"
    if model.trustworthiness < POOR:
        return f"{first} Near points are often not alike: {kept}, where 1 is best and ½ is chance."
    if pca is None:
        return f"{first} Near points are alike: {kept}."
    theirs = f"{pca.trustworthiness:.2f}"
    if round(model.trustworthiness, 2) < round(pca.trustworthiness, 2):
        return f"{first} PCA's map keeps neighbours better: {kept} here, {theirs} there."
    return f"{first} Near points are alike: {kept}, where PCA's map has {theirs}."


def _notes(model: Estimator, points: MapPoints, spec: dict[str, Any]) -> list[str]:
    """What the reader must know about the map."""
    found = []
    if len(points.codes) < points.n_given:
        found.append(
            f"Of {points.n_given:,} rows {len(points.codes):,} are shown, drawn at random: with "
            "all the page would be too large."
        )
    if not spec["view"]["exact"]:
        found.append(
            f"A code has {spec['k']} numbers. The map shows them projected on the two directions "
            f"in which they vary most, {percent(float(sum(points.view.shares)))} of their "
            "variance; a place that you drag to is decoded from the plane of these directions."
        )
    if spec["k"] == 1:
        found.append("A code is one number, the horizontal place; heights mean nothing.")
    if spec["decoder_note"] and not spec["live"]:
        found.append(f"Dragging does not decode here. {spec['decoder_note']}")
    if isinstance(model, ClassConditional):
        found.append("Codes, errors and decoded rows are those of a row whose class is unknown.")
    found += filter(None, (points.thumbnail_note, points.note))
    if points.painter["kind"] == "table" and len(points.painter["columns"]) < points.painter["d"]:
        found.append(
            f"Of {points.painter['d']:,} columns those {len(points.painter['columns'])} are drawn "
            "that vary most with others."
        )
    return found


# ------------------------------------------------------------------ packing


KINDS = {"<f4": "f4", "<f8": "f8", "|u1": "u1", "<u2": "u2", "<u4": "u4"}  # as map.js names them


class _Arrays:
    """Arrays one after the other, and where each begins."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.places: dict[str, tuple[str, int, int]] = {}
        self.length = 0

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Keep an array of a dtype among KINDS."""
        values = np.ascontiguousarray(values)
        self.places[name] = (KINDS[values.dtype.str], self.length, values.size)
        data = values.tobytes()
        data += b"\0" * (-len(data) % 8)  # every array begins at a multiple of 8
        self.parts.append(data)
        self.length += len(data)

    def encoded(self) -> str:
        """All of them as base64 of gzip, the same bytes for the same arrays."""
        return _base64(gzip.compress(b"".join(self.parts), compresslevel=6, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(spec: dict[str, Any]) -> str:
    """JSON that may stand in a script element, whatever its texts hold."""
    text = json.dumps(spec, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _hash(text: str) -> str:
    """The source expression of a Content-Security-Policy for an inline script or style."""
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"
