"""What a notebook shows of a fitted estimator: its error beside PCA's, and a few rows restored."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from narrows.estimators.base import with_feature_names
from narrows.estimators.fit_setup import ERRORS
from narrows.report.content import restored_samples
from narrows.report.figures import png_bytes
from narrows.report.formatting import count, duration, significant
from narrows.report.measures import ROUNDING
from narrows.report.page import template
from narrows.report.sample_figures import choose_plotter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from narrows.estimators.base import Estimator

MAX_OTHERS = 2  # table rows or signals drawn, which take more room than images
NO_ROWS = (
    "No rows are shown: fit keeps a few in memory, but files and pickles hold none. "
    "narrows.plot.ReconstructionDisplay.from_estimator(model, X) draws rows of X."
)


def fitted_html(est: Estimator, parameters: str) -> str:
    """One block of HTML that needs no other file; ``parameters`` is HTML, for its last part."""
    info, state = est.info(), est.state_
    shown: dict[str, Any] = {"png": "", "caption": NO_ROWS}
    if state.shown_rows is not None:
        shown = _picture(est, state.layout.from_model(state.shown_rows, state.shown_rows.dtype.str))
    return template("notebook.html.jinja").render(
        name=type(est).__name__,
        shape=" × ".join(map(str, est.input_shape_)),
        width=est.latent_dim_,
        n_rows=_counts(est)[0],
        seconds=duration(est.fit_seconds_),
        errors=_errors(est),
        parts=info["parts"],
        parameters=parameters,
        **shown,
    )


def _errors(est: Estimator) -> str:
    """The error on the rows that the fit measured at its end, and PCA's."""
    error, pca = (est.validation_errors_[name] for name in ERRORS)
    if error is None:
        return ""
    rows = "held out for validation" if _counts(est)[1] else "fitted on"
    n = count(est.rows_["validation"], "row")
    words = f"Mean squared error per element, scaled units, on {n} {rows}: {significant(error)}"
    if pca is None:
        return f"{words}; PCA of this width is too large to fit."
    times = f", {significant(error / pca)} × PCA's" if pca > ROUNDING else ""
    return f"{words}; PCA's of the same width: {significant(pca)}{times}."


def _counts(est: Estimator) -> tuple[int, int]:
    """Rows trained on, and rows held out (0: validated on rows that were trained on)."""
    given, held = est.rows_["given"], est.rows_["validation"]
    marks = est.state_.data or []
    if len(marks) > 1 and marks[1] is not None:  # X_val
        return given, held
    return (given, 0) if held == given or not est.validation_fraction else (given - held, held)


def _picture(est: Estimator, X: NDArray[Any]) -> dict[str, Any]:
    names = getattr(est, "feature_names_in_", None)
    bare = est if names is None else with_feature_names(est, None)
    plotter = choose_plotter(bare, X, None if names is None else [str(name) for name in names])
    n = len(X) if plotter.noun == "image" else min(len(X), MAX_OTHERS)
    Z: NDArray[np.float64] = bare._codes(X).astype(float)
    drawing = plotter.gallery(restored_samples(bare, X[:n], plotter, Z))
    beside = "" if est.pca_ is None else ", and PCA's reconstruction"
    kind = "validation rows" if _counts(est)[1] else "rows it was fitted on"
    rows = f"{n} of {est.rows_['validation']:,} {kind}"
    columns = ", columns between the lowest and the highest value" if plotter.noun == "row" else ""
    return {
        "png": base64.b64encode(png_bytes(drawing.figure())).decode("ascii"),
        "inches": drawing.width,
        "alt": f"{rows}: original, code, reconstruction{beside}.",
        "caption": (
            f"{rows}: original, code, reconstruction{beside}; above each its error. Codes are in "
            f"standard deviations{columns}, among {count(len(X), 'row')} kept in memory; files do "
            "not hold them."
        ),
    }
