"""The report of a fitted model: its sections, its page, and `write_report`, which writes the page.

Every section is made from the `Content` of the report: its arrays are in ``content``, its pictures
in ``figures`` and ``sample_figures``, its sentences in ``templates/model_report.txt.jinja``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from narrows.estimators.summary import SAME, advice_on_pca
from narrows.models.denoising_autoencoder import DenoisingAutoencoder
from narrows.report import figures
from narrows.report.content import Content, rows_and_names
from narrows.report.formatting import article, byte_size, count, duration, percent, significant
from narrows.report.manifold import code_map, decoded_grid
from narrows.report.measures import Method, Numbers, measure, parse_labels
from narrows.report.page import Page, Picture, Section, Table, check_page, draw, publish, template
from narrows.report.sample_figures import choose_plotter
from narrows.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from narrows.estimators.base import Estimator

MAX_LISTED = 4  # items of a list shown in a table
N_GENERATED = 36  # new samples drawn


def write_report(
    est: Estimator,
    X: object,
    path: str | Path,
    *,
    y: ArrayLike | None = None,
    commands: Sequence[str] | str | None = None,
    feature_names: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
    random_state: int = 0,
) -> Path:
    """Write one HTML page about a fitted model, with PCA's result next to every result.

    The page needs no other file; its pictures are also written as PNGs to the folder
    ``<stem>_files``. If X is the data that the model was fitted on, the page measures on the rows
    that were held out (`measured_rows`), and says so.

    Parameters
    ----------
    est : fitted estimator
    X : array of shape (n, \\*input_shape_)
    path : str or Path
        The page's file, .html.
    y : array of shape (n,), optional
        Labels: they colour the map of codes, and a linear probe predicts them from the codes.
    commands : str or list of str, optional
        The commands that made the model, shown on the page. Default: the Python lines.
    feature_names : list of str, optional
        Names of a table's columns.
    title : str, optional
        Default: the model's class name.
    overwrite : bool
        Replace a page that exists.
    random_state : int
        Seed of everything drawn at random.

    Returns
    -------
    Path
        The page's path.

    Raises
    ------
    FileError
        The page or its folder of pictures exists, or there is no folder to write to.
    InputError
        Labels or names do not fit the rows.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from narrows import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> est = Autoencoder(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(est, X, folder + "/report.html")
    ...     page.name, "PCA" in page.read_text()
    ('report.html', True)
    """
    path = Path(path)
    check_page(path, overwrite)
    content = prepare(est, X, y, feature_names, random_state)
    lines = [commands] if isinstance(commands, str) else list(commands or _python(est, path))
    return publish(path, page_of(content, lines, title))


def prepare(
    est: Estimator, X: Any, y: ArrayLike | None, names: Sequence[str] | None, seed: int
) -> Content:
    """Check rows, labels and names of columns, and measure the model."""
    bare, rows, columns, measured = rows_and_names(est, X, names)
    labels = None if y is None else parse_labels(y, len(rows))
    plotter, at = choose_plotter(bare, rows, columns), measured.rows
    numbers = measure(bare, rows[at], rows, labels, n_show=plotter.n_ranked, seed=seed)
    shown = None if labels is None else labels[at]
    return Content(bare, rows[at], shown, rows, labels, measured, plotter, numbers, seed)


def _python(est: Estimator, path: Path) -> list[str]:
    name = type(est).__name__
    given = ", ".join(f"{k}={v!r}" for k, v in est.info()["parameters"].items())
    return [
        f"from narrows import {name}",
        "from narrows.report import write_report",
        "",
        f"est = {name}({given}).fit(X_train)",
        f'write_report(est, X, "{path.name}")',
    ]


# ------------------------------------------------------------------ the page


def page_of(
    content: Content, commands: list[str], title: str | None = None, caveat: str | None = None
) -> Page:
    """The whole page with its pictures drawn."""
    sections = _sections(content, commands)
    n, est = content.numbers, content.est
    shape = " × ".join(map(str, est.input_shape_))
    measured = count(n.n_rows, content.plotter.noun)
    if n.n_rows < len(content.every):
        measured = f"{n.n_rows:,} of {count(len(content.every), content.plotter.noun)}, each"
    return Page(
        kicker=f"narrows report · {measured} of {shape}",
        title=title or n.model.name,
        headline=headline(n, content.plotter.noun),
        caveat=caveat or _text("caveat", content),
        tiles=_tiles(content),
        sections=sections,
        explanation="" if n.pca is None else _text("explanation", content),
        foot=f"Made with narrows {__version__}; random choices seeded with {content.seed}.",
        pngs=draw(sections),
    )


def _sections(content: Content, commands: list[str]) -> list[Section]:
    """Every section that this model and these rows have, in the order of the page."""
    makers: list[Callable[[Content], Section]] = [_samples]
    if isinstance(content.est, DenoisingAutoencoder):
        makers.append(_denoising)
    makers += [_code_map, _grid, _traversals, _interpolations]
    if hasattr(content.est, "sample"):  # models with a prior, or with a fitted sampler
        makers.append(_generated)
    makers += [_training, _errors, _comparison, _cost, _parts]
    return [*(make(content) for make in makers), commands_section(commands)]


def commands_section(commands: list[str]) -> Section:
    """The commands that made the page."""
    return Section("commands", "Commands", "", program=commands)


def headline(numbers: Numbers, noun: str) -> str:
    """The result in one sentence; ``noun`` is what a row is called."""
    width = f"{count(numbers.latent_dim, 'number')} {article(noun)}"
    ratio = numbers.ratio
    if numbers.pca is None:
        return f"R² is {numbers.model.r2:.3f} at {width}; PCA of this width is too large to fit."
    if ratio is None:
        return f"PCA already restores these {noun}s exactly from {width}: nothing to gain."
    if abs(ratio - 1) <= SAME:
        return f"No better than PCA: {ratio:.2f} times its error from {width}."
    if ratio > 1:
        times = f"{ratio:.2f}" if ratio < 10 else significant(ratio)
        return f"PCA restores better here: the model makes {times} times its error from {width}."
    better, less = numbers.share_better or 0.0, percent(1 - ratio)
    return (
        f"{less} less error than PCA from {width}, and closer to the original on "
        f"{percent(better)} of the {noun}s."
    )


def _text(block: str, content: Content) -> str:
    """The sentences of one block of ``templates/model_report.txt.jinja``."""
    sentences = template("model_report.txt.jinja")
    noun = content.plotter.noun
    context = sentences.new_context(
        {
            "content": content,
            "est": content.est,
            "n": content.numbers,
            "noun": noun,
            "advice": advice_on_pca(content.est.info())[1],
            "no_better": 1 - SAME,
        }
    )
    return " ".join("".join(sentences.blocks[block](context)).split())


def _section(id: str, title: str, content: Content, pictures: list[Picture]) -> Section:
    """A section of pictures below the sentences of the block ``id``."""
    return Section(id, title, _text(id, content), pictures)


def _tiles(content: Content) -> list[tuple[str, str]]:
    n, elements = content.numbers, content.X[0].size
    tiles = [
        (f"{n.model.r2:.3f}", "R², the variance restored"),
        (f"{elements:,} → {n.latent_dim:,}", f"numbers, {elements / n.latent_dim:.3g} to 1"),
    ]
    if n.ratio is not None:
        tiles.insert(0, (f"{significant(n.ratio)} ×", "PCA's error; below 1 is better than PCA"))
    if "codes" in n.probes:
        accuracy = percent(n.probes["codes"].accuracy)
        tiles.append((accuracy, "of labels predicted by a linear probe"))
    return [*tiles, (duration(content.est.fit_seconds_), "to fit")]


# ------------------------------------------------------------------ sections with pictures


def _samples(content: Content) -> Section:
    """Original, compressed, restored."""
    captions = {
        "Typical": "Typical: error around the median.",
        "Best": "Smallest errors, the smallest first.",
        "Worst": "Largest errors, the largest first.",
    }
    pictures = []
    for kind, rows in content.numbers.ranking.items():
        alt = (
            f"{kind} {content.plotter.noun}s: original, code, reconstruction and PCA's "
            f"reconstruction, of the rows {', '.join(map(str, rows))}."
        )
        figure = content.plotter.gallery(content.samples(rows)).figure()
        pictures.append(Picture(f"samples-{kind.lower()}", figure, alt, captions[kind]))
    return _section("samples", "Original, compressed, restored", content, pictures)


def _denoising(content: Content) -> Section:
    """Noisy, denoised, clean."""
    plotter, n = content.plotter, content.plotter.n_noisy
    shown = content.denoised(2 * n)
    pictures = []
    for part in range(-(-len(shown["clean"]) // n)):
        some = {name: rows[part * n : (part + 1) * n] for name, rows in shown.items()}
        alt = f"Some {plotter.noun}s: {', '.join(some)}."
        pictures.append(Picture(f"denoising-{part + 1}", plotter.rows(some), alt))
    return _section("denoising", "Noisy, denoised, clean", content, pictures)


def _code_map(content: Content) -> Section:
    """The codes on a map, and PCA's."""
    rows, grid = content.map_rows, content.grid
    labels = None if content.every_label is None else content.every_label[rows]
    frame, caption = None, ""
    if len(grid.y):
        frame = np.array([[grid.x[0], grid.x[-1]], [grid.y[-1], grid.y[0]]])
        caption = "The dashed frame marks what the decoded grid below covers."
    points, view = content.view.points(content.codes), content.view
    figure = figures.code_map(points, labels, view.axis_names, content.numbers.model.name, frame)
    alt = f"The codes of {count(len(rows), 'row')}, a point each."
    pictures = [Picture("map", figure, alt, caption)]
    Z = content.pca_codes
    if Z is not None:
        view = code_map(Z)
        figure = figures.code_map(view.points(Z), labels, view.axis_names, "PCA")
        pictures.append(Picture("map-pca", figure, "The same rows' codes by PCA."))
    return _section("map", "Map of the codes", content, pictures)


def _grid(content: Content) -> Section:
    """Decoded points of the map."""
    plotter, grid = content.plotter, content.grid
    size = " × ".join(map(str, grid.decoded.shape[:2]))
    cells = grid.decoded.reshape(*grid.decoded.shape[:2], *plotter.shape)
    figure = plotter.mosaic(cells, content.numbers.model.name, figures.MODEL)
    pictures = [Picture("grid", figure, f"A grid of {size} decoded points.")]
    if content.est.pca_ is not None and content.pca_codes is not None:
        grid = decoded_grid(content.est.pca_, content.pca_codes, size=plotter.grid_size)
        cells = grid.decoded.reshape(*grid.decoded.shape[:2], *plotter.shape)
        figure = plotter.mosaic(cells, "PCA", figures.PCA)
        pictures.append(Picture("grid-pca", figure, "The same grid on PCA's map."))
    return _section("grid", "Decoded grid", content, pictures)


def _traversals(content: Content) -> Section:
    """Single numbers of the code, moved."""
    plotter, found = content.plotter, content.traversal
    decoded = found.decoded.reshape(*found.decoded.shape[:2], *plotter.shape)
    drawings = plotter.traversals(decoded, found.names, found.offsets)
    alt = f"A {plotter.noun} whose code is moved, one number at a time, from low to high."
    pictures = [
        Picture(f"traversals-{i + 1}", drawing.figure(), alt, wide=plotter.wide_walks)
        for i, drawing in enumerate(drawings)
    ]
    return _section("traversals", "Numbers of the code", content, pictures)


def _interpolations(content: Content) -> Section:
    """Interpolations between codes."""
    plotter = content.plotter
    alt = f"From one {plotter.noun} to another, decoded on the way."
    pictures = [
        Picture(f"interpolations-{i + 1}", figure, alt, wide=plotter.wide_walks)
        for i, figure in enumerate(plotter.walks(*content.walks()))
    ]
    return _section("interpolations", "Interpolations", content, pictures)


def _generated(content: Content) -> Section:
    """Samples of the model, real data, and samples of a normal distribution of PCA's codes."""
    plotter = content.plotter
    titles = {
        "data": ("Real data", figures.INK),
        "model": (f"Drawn from the {content.numbers.model.name}", figures.MODEL),
        "PCA": ("Drawn from PCA", figures.PCA),
    }
    pictures = []
    for name, events in content.generated(N_GENERATED).items():
        title, color = titles[name]
        side = min(plotter.max_side, int(np.sqrt(len(events))))
        cells = events[: side * side].reshape(side, side, *plotter.shape)
        alt = f"{title}: {count(len(events), plotter.noun)}."
        figure = plotter.mosaic(cells, title, color, width=3.4)
        pictures.append(Picture(f"generated-{name.lower()}", figure, alt))
    return _section("generated", "New samples", content, pictures)


def _training(content: Content) -> Section:
    """The loss curves."""
    est = content.est
    alt = "The training loss and its terms over the epochs."
    pictures = [Picture("loss", figures.training_loss(est.history_), alt)]
    scores = np.asarray(est.validation_curve_, dtype=np.float64)
    if len(scores):
        figure = figures.validation_curve(scores, est.best_epoch_)
        pictures.append(Picture("validation", figure, "The validation score over the epochs."))
    return _section("training", "Training", content, pictures)


def _errors(content: Content) -> Section:
    """How the error differs between rows."""
    n = content.numbers
    means = {m.name: m.mse for m in n.methods}
    alt = "Histogram of the rows' mean squared errors. " + ", ".join(
        f"{name}: mean {significant(mean)}" for name, mean in means.items()
    )
    pictures = [Picture("errors", figures.error_histogram(n.histogram, means), f"{alt}.")]
    if n.pca is not None:
        rows = content.some_rows()
        log = n.histogram.logarithmic
        figure = figures.error_scatter(n.model.errors[rows], n.pca.errors[rows], log)
        alt = "Each row's error by the model over its error by PCA."
        pictures.append(Picture("errors-rows", figure, alt))
    return _section("errors", "Error per row", content, pictures)


# ------------------------------------------------------------------ sections with tables


def _comparison(content: Content) -> Section:
    """The model and PCA in numbers."""
    n = content.numbers
    ratio = "–" if n.ratio is None else significant(n.ratio)
    rows = [[*_scores(n.model, ratio), _accuracy(n, "codes")]]
    if n.pca is not None:
        rows.append([*_scores(n.pca, "1"), _accuracy(n, "pca")])
    header = ["", "Error", "× PCA's", "R²"]
    if n.probes:
        header.append("Linear probe")
        raw = f"Raw data, {count(content.X[0].size, 'number')}"
        rows.append([raw, "", "", "", _accuracy(n, "raw")])
        rows.append(["Most frequent class", "", "", "", f"{n.majority:.3f}"])
    k = count(n.latent_dim, "number")
    caption = f"The model and PCA, both at {k} {article(content.plotter.noun)}"
    cells = [row[: len(header)] for row in rows]
    table = Table(caption, header, cells, _text("comparison", content), wide=True)
    return Section("comparison", "Compared with PCA", "", tables=[table])


def _scores(method: Method, ratio: str) -> list[str]:
    return [method.name, significant(method.mse), ratio, f"{method.r2:.4f}"]


def _accuracy(n: Numbers, name: str) -> str:
    probe = n.probes.get(name)
    return "–" if probe is None else f"{probe.accuracy:.3f} ± {probe.sd:.3f}"


def _cost(content: Content) -> Section:
    """Time and sizes."""
    n, X = content.numbers, content.X
    methods, k = n.methods, n.latent_dim
    time = Table("Time, measured on this machine in batches", ["", *(m.name for m in methods)], [
        ["Fitting", *[duration(content.est.fit_seconds_), ""][: len(methods)]],
        ["Encoding one row", *(duration(m.encode_seconds) for m in methods)],
        ["Decoding one row", *(duration(m.decode_seconds) for m in methods)],
        ["Parameters", *(f"{m.n_parameters:,}" for m in methods)],
    ])  # fmt: skip
    sizes = Table("Sizes", ["", "Numbers", "Bytes"], [
        ["One row", f"{X[0].size:,}", byte_size(X[0].nbytes)],
        ["Its code", f"{k:,}", byte_size(4 * k)],
        ["The model's file", "", byte_size(n.model_bytes)],
    ], "Codes are 32-bit floats, neither rounded nor entropy coded.")  # fmt: skip
    return Section("cost", "Time and sizes", "", tables=[time, sizes])


def _parts(content: Content) -> Section:
    """The parts of the equation, the parameters, the training."""
    info = content.est.info()
    blocks = {
        "Parts of the equation": info["parts"],
        "Parameters given; all others have their defaults": info["parameters"],
        "Chosen and learned": _chosen(info),
        "Training": info["training"],
        "Versions": info["versions"],
    }
    tables = []
    for caption, block in blocks.items():
        rows = [[name.replace("_", " "), _plain(value)] for name, value in block.items()]
        if rows:
            wide = block is info["parts"]
            tables.append(Table(caption, (), rows, code=True, wide=wide))
    return Section("model", "Parts and parameters", "", tables=tables)


def _chosen(info: dict[str, Any]) -> dict[str, Any]:
    """The values of ``info`` that have no table of their own, in readable form."""
    readable = {
        "input_shape": " × ".join(map(str, info["input_shape"])),
        "dtype": str(np.dtype(info["dtype"])),
        "bounds": _bounds(*info["bounds"]) if info["bounds"] else None,
    }
    return {
        name: value
        for name, value in (info | readable).items()
        if not isinstance(value, dict) and value is not None and name != "model"
    }


def _bounds(low: list[float], high: list[float]) -> str:
    span = max(high) - min(low)
    # a bound of 0 comes back from float32 arithmetic as a tiny number
    low, high = ([0.0 if abs(v) < 1e-6 * span else v for v in side] for side in (low, high))
    return f"{_plain(low)} to {_plain(high)}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = [_plain(item) for item in value[:MAX_LISTED]]
        more = [f"… ({len(value)} in all)"] if len(value) > MAX_LISTED else []
        return ", ".join([*shown, *more])
    return str(value)
