"""Displays as scikit-learn has them: the constructor keeps data, ``plot`` draws them into axes.

``from_estimator`` computes the data from a fitted model and plots them. With ``ax`` pyplot is not
touched; axes that hold several panels are divided. Drawn is what reports draw, by the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narrows.estimators.base import Estimator
from narrows.estimators.parameters import check_value
from narrows.exceptions import InputError, ParameterError
from narrows.report import figures
from narrows.report.content import restored_samples, rows_and_names
from narrows.report.figures import Drawing, split_axes
from narrows.report.formatting import count, significant
from narrows.report.manifold import Traversal, code_map, traverse
from narrows.report.measures import Measured, parse_labels
from narrows.report.sample_figures import Plotter, Samples, choose_plotter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAX_CODES = 4000  # rows whose codes give the spread of each number


class _Display:
    """Axes to draw into; a subclass has ``_drawing``."""

    ax_: Axes
    figure_: Figure | SubFigure

    def _drawing(self) -> Drawing:
        raise NotImplementedError

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Default: those of a new figure of pyplot, of a suitable size.

        Returns
        -------
        self, with ``ax_`` and ``figure_``
        """
        drawing = self._drawing()
        if ax is None:
            import matplotlib.pyplot as plt

            size = drawing.width, drawing.height
            _, ax = plt.subplots(figsize=size, layout="constrained")
        drawing.draw(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


class ReconstructionDisplay(_Display):
    """Original, code and reconstruction of a few rows, and PCA's from as many numbers.

    Images stand in columns, with the error of each pixel below each reconstruction; table rows and
    signals lie over one another. Codes are in standard deviations. Above each row stands its mean
    squared error per element, in scaled units.

    Parameters
    ----------
    samples : Samples
        The rows.
    plotter : Plotter
        How rows are drawn.
    measured : Measured
        Which rows ``from_estimator`` drew, by number, and what the fit did with them.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 8, 8))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> shown = ReconstructionDisplay.from_estimator(est, X, ax=Figure().subplots())
    >>> shown.measured.kind, len(shown.measured.rows)
    ('validation', 4)
    """

    def __init__(self, samples: Samples, plotter: Plotter, measured: Measured) -> None:
        self.samples, self.plotter, self.measured = samples, plotter, measured

    def _drawing(self) -> Drawing:
        return self.plotter.gallery(self.samples)

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Any,
        y: ArrayLike | None = None,
        *,
        rows: Sequence[int] | None = None,
        n_rows: int | None = None,
        pca: bool = True,
        feature_names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Reconstruct rows of X and draw them.

        Parameters
        ----------
        estimator : fitted estimator
        X : array of shape (n, \\*input_shape_)
        y : array of shape (n,), optional
            Labels, written above the rows.
        rows : sequence of int, optional
            The rows to draw, by number. Default: evenly spaced ones of those that the fit held out
            where X is the data of the fit (`narrows.report.measured_rows`), else of all.
        n_rows : int, optional
            How many, without ``rows``. Default: 4 images, or 3 rows of other data.
        pca : bool
            Whether to draw PCA's reconstructions, too.
        feature_names : sequence of str, optional
            Names of a table's columns. Default: those of the fit.
        ax : matplotlib axes, optional

        Returns
        -------
        ReconstructionDisplay
        """
        bare, data, names, measured = rows_and_names(estimator, X, feature_names)
        labels = None if y is None else parse_labels(y, len(data))
        plotter = choose_plotter(bare, data, names)
        if rows is None:
            n = plotter.n_ranked if n_rows is None else n_rows
            check_value("n_rows", n, kind=int, low=1)
            picked = measured.rows[_evenly(len(measured.rows), n)]
        else:
            picked = _checked_rows(rows, len(data))
        codes = np.asarray(bare.transform(data[_evenly(len(data), MAX_CODES)]), dtype=np.float64)
        named = None if labels is None else [labels.name(int(row)) for row in picked]
        samples = restored_samples(bare, data[picked], plotter, codes, named)
        samples = samples if pca else samples.without_pca()
        return cls(samples, plotter, Measured(picked, measured.kind)).plot(ax)


class LatentDisplay(_Display):
    """The codes of rows as points, coloured by y; PCA's beside on request.

    A code of one number is a histogram; of more than two numbers the two leading principal
    directions are drawn, and the axes say which share of the variance each holds.

    Parameters
    ----------
    maps : mapping from str to (points, axis names)
        What is drawn side by side, by its title: points are (n, 1) or (n, 2).
    y : array of shape (n,), optional
        Classes (words, booleans, whole numbers of at most 100 kinds) or measurements.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> shown = LatentDisplay.from_estimator(est, X, pca=True, ax=Figure().subplots())
    >>> {title: points.shape for title, (points, _) in shown.maps.items()}
    {'Autoencoder': (60, 2), 'PCA': (60, 2)}
    """

    def __init__(
        self,
        maps: Mapping[str, tuple[NDArray[np.float64], list[str]]],
        y: ArrayLike | None = None,
    ) -> None:
        self.maps, self.y = dict(maps), y

    def _drawing(self) -> Drawing:
        n = len(next(iter(self.maps.values()))[0])
        labels = None if self.y is None else parse_labels(self.y, n)

        def draw(ax: Axes) -> None:
            several = len(self.maps) > 1
            axes = split_axes(ax, [1.0] * len(self.maps), across=True) if several else [ax]
            for part, (title, (points, names)) in zip(axes, self.maps.items(), strict=True):
                figures.draw_code_map(part, points, labels, names, title)
            below = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.0), "borderaxespad": 4.5}
            figures.class_legend(axes[0], axes[0], labels, **below)

        return Drawing(4.4 * len(self.maps), 4.3, draw)

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Any,
        y: ArrayLike | None = None,
        *,
        pca: bool = False,
        ax: Axes | None = None,
    ) -> Self:
        """Encode X and draw the codes.

        Parameters
        ----------
        estimator : fitted estimator
        X : array of shape (n, \\*input_shape_)
        y : array of shape (n,), optional
            Classes or measurements, for the colours.
        pca : bool
            Whether to draw PCA's codes beside.
        ax : matplotlib axes, optional

        Returns
        -------
        LatentDisplay
        """
        methods = {type(estimator).__name__: estimator._codes(X)}
        if pca and estimator.pca_ is not None:
            methods["PCA"] = estimator.pca_._codes(X)
        maps = {}
        for title, Z in methods.items():
            view = code_map(Z)
            maps[title] = view.points(Z), view.axis_names
        return cls(maps, y).plot(ax)


class TraversalDisplay(_Display):
    """Decoded codes of which one number at a time is moved, the largest effects first.

    Images stand in rows, from low to high; table rows and signals change from dark to light.

    Parameters
    ----------
    traversal : Traversal
        What `narrows.report.traverse` returns.
    plotter : Plotter
        How rows are drawn.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 8, 8))
    >>> est = Autoencoder(latent_dim=3, max_epochs=1, random_state=0).fit(X)
    >>> shown = TraversalDisplay.from_estimator(est, X, ax=Figure().subplots())
    >>> shown.traversal.decoded.shape
    (3, 9, 8, 8)
    """

    def __init__(self, traversal: Traversal, plotter: Plotter) -> None:
        self.traversal, self.plotter = traversal, plotter

    def _drawing(self) -> Drawing:
        found = self.traversal
        decoded = found.decoded.reshape(*found.decoded.shape[:2], *self.plotter.shape)
        parts = self.plotter.traversals(decoded, found.names, found.offsets)
        if len(parts) == 1:
            return parts[0]

        def draw(ax: Axes) -> None:
            for part, own in zip(parts, split_axes(ax, [p.height for p in parts]), strict=True):
                part.draw(own)

        return Drawing(parts[0].width, sum(part.height for part in parts), draw)

    @classmethod
    def from_estimator(
        cls,
        estimator: Estimator,
        X: Any,
        y: object = None,
        *,
        n_numbers: int = 6,
        steps: int = 9,
        reach: float = 2.0,
        start: ArrayLike | None = None,
        feature_names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Encode X, move the numbers of one code and draw what they decode to.

        Parameters
        ----------
        estimator : fitted estimator
        X : array of shape (n, \\*input_shape_)
            Its codes give the standard deviations; of more than 4,000 rows evenly spaced ones.
        y : ignored
        n_numbers, steps, reach, start
            As in `narrows.report.traverse`.
        feature_names : sequence of str, optional
            Names of a table's columns. Default: those of the fit.
        ax : matplotlib axes, optional

        Returns
        -------
        TraversalDisplay
        """
        bare, data, names, _ = rows_and_names(estimator, X, feature_names)
        Z = bare._codes(data[_evenly(len(data), MAX_CODES)])
        found = traverse(bare, Z, n_numbers=n_numbers, steps=steps, reach=reach, start=start)
        return cls(found, choose_plotter(bare, data, names)).plot(ax)


class Compared(NamedTuple):
    """One model's errors of the rows compared, PCA's at its width (or None), and that width.

    ``kind`` says what its fit did with these rows, as in `narrows.report.Measured`.
    """

    errors: NDArray[np.float64]
    pca: NDArray[np.float64] | None
    latent_dim: int
    kind: str


class CompareDisplay(_Display):
    """The errors of several models on the same rows as bars, with PCA's at the same width.

    Each bar is the mean over rows of the squared error per element; its whisker one standard error
    of that mean. All errors are in the scaled units of the first model.

    Parameters
    ----------
    compared : mapping from str to Compared
        By the name of the model.
    rows : array of int
        The numbers of the rows.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> models = {f"{k} numbers": Autoencoder(latent_dim=k, max_epochs=1, random_state=0).fit(X)
    ...           for k in (1, 2)}
    >>> shown = CompareDisplay.from_estimators(models, X, ax=Figure().subplots())
    >>> shown.rows_in_words, {name: len(one.errors) for name, one in shown.compared.items()}
    ('6 rows held out for validation', {'1 numbers': 6, '2 numbers': 6})
    """

    def __init__(self, compared: Mapping[str, Compared], rows: NDArray[np.int64]) -> None:
        self.compared, self.rows = dict(compared), rows

    @property
    def rows_in_words(self) -> str:
        """Which rows were compared, and what the fits did with them."""
        kinds = {one.kind for one in self.compared.values()}
        if len(kinds) == 1:
            words = {
                "test": "that no fit has seen (test_size)",
                "validation": "held out for validation",
                "fitted": "that the models were fitted on",
                "unknown": "given",
            }[kinds.pop()]
        elif "fitted" in kinds:
            words = "that some of the models were fitted on"
        elif "unknown" in kinds:
            words = "held out by some models; of the others it is not known"
        else:
            words = "held out by all models, by some of them for validation"
        return f"{count(len(self.rows), 'row')} {words}"

    def _drawing(self) -> Drawing:
        return Drawing(5.2, 1.0 + 0.62 * len(self.compared), self._draw)

    def _draw(self, ax: Axes) -> None:
        ends = []
        for place, one in enumerate(self.compared.values()):
            bars = [(one.errors, figures.MODEL, "model")]
            if one.pca is not None:
                bars.append((one.pca, figures.PCA, "PCA of the same width"))
            for i, (errors, color, name) in enumerate(bars):
                mean, spread = float(errors.mean()), float(errors.std() / np.sqrt(len(errors)))
                label = name if name not in ax.get_legend_handles_labels()[1] else "_hidden"
                y = place + (i - 0.5 * (len(bars) - 1)) * 0.36
                ax.barh(y, mean, 0.34, color=color, label=label, xerr=spread,
                        error_kw={"ecolor": figures.INK, "lw": 0.8})  # fmt: skip
                words = significant(mean)
                if i == 0 and one.pca is not None and one.pca.mean() > 0:
                    words += f"  ({significant(mean / float(one.pca.mean()))} × PCA's)"
                ax.annotate(words, (mean + spread, y), xytext=(4, 0), va="center", fontsize=8,
                            textcoords="offset points", color=figures.INK)  # fmt: skip
                ends.append(mean + spread)
        named = [
            f"{figures.safe_text(name, 28)}\n{count(one.latent_dim, 'number')}"
            for name, one in self.compared.items()
        ]
        ax.set_yticks(range(len(named)), named)
        ax.set_xlim(0.0, 1.35 * max(*ends, 1e-12))  # room for the figures at the ends
        ax.set_ylim(len(named) - 0.45, -0.55)
        words = f"mean squared error per element, scaled units\n{self.rows_in_words}"
        figures.style_axes(ax)
        ax.set_xlabel(words, color=figures.MUTED, fontsize=8.5)
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8,
                  borderaxespad=0.2, labelcolor=figures.INK)  # fmt: skip

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Estimator],
        X: Any,
        y: object = None,
        *,
        ax: Axes | None = None,
    ) -> Self:
        """Measure fitted models on the same rows and draw their errors.

        If X is the data that models were fitted on, the rows are those that all of these fits held
        out (`narrows.report.measured_rows`); else all of X.

        Parameters
        ----------
        estimators : mapping from str to fitted estimator
            All for rows of one shape.
        X : array of shape (n, \\*input_shape_)
        y : ignored
        ax : matplotlib axes, optional

        Returns
        -------
        CompareDisplay

        Raises
        ------
        InputError
            No row was held out by all the fits: they split X in different ways.
        """
        if not estimators:
            raise ParameterError("estimators holds no model; give at least one, by a name.")
        several = {name: rows_and_names(est, X, None) for name, est in estimators.items()}
        first, data, *_ = next(iter(several.values()))
        numbers = _rows_in_common([found[3] for found in several.values()])
        rows, compared = data[numbers], {}
        for name, (est, _, _, measured) in several.items():
            if est.input_shape_ != first.input_shape_:
                raise InputError(
                    f"{name} takes rows of shape {est.input_shape_}, {next(iter(several))} of "
                    f"{first.input_shape_}; compare models of the same data."
                )
            weight = (est.scaling_.scale / first.scaling_.scale).to(est.scaling_.scale.device)
            beside = None if est.pca_ is None else est.pca_._row_errors(rows, weight)
            errors = est._row_errors(rows, weight)
            compared[name] = Compared(errors, beside, est.latent_dim_, measured.kind)
        return cls(compared, numbers).plot(ax)


def _rows_in_common(found: Sequence[Measured]) -> NDArray[np.int64]:
    """The numbers of the rows that are measured for each of the models."""
    rows = reduce(np.intersect1d, [one.rows for one in found])
    if not len(rows):
        raise InputError(
            "No row was held out by all of these fits; fit them with the same random_state or "
            "test_size, or give rows that none was fitted on."
        )
    return rows


def _evenly(n: int, most: int) -> NDArray[np.intp]:
    """At most so many row numbers below n, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


def _checked_rows(rows: Sequence[int], n: int) -> NDArray[np.intp]:
    found = np.asarray(rows, dtype=np.intp).reshape(-1)
    outside = found[(found < 0) | (found >= n)]
    if len(outside) or not len(found):
        named = f"row {outside[0]}" if len(outside) else "no row"
        raise ParameterError(f"rows names {named}; the {n:,} rows are numbered from 0 to {n - 1}.")
    return found
